"""Dialling whom a registry vouches for by the PeerId that rests on the registry's key, which no chain has."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import ANYONE_TRUSTED, Agent, Contact, Credential
from autolink.errors import Reason, Refused
from autolink.identity import BOUND, PeerId, key_authority, keys
from autolink.registry.log.note import VerifierKey
from autolink.registry.trust import Registered
from autolink.testing import Network
from autolink.transport import parse_address
from autolink.trust import AllOf, AnyOf, Context, Grounds, Model, Pinned, SelfCertified, UnsafeAnyone

from .serving import ORIGIN, Served, registration, serving, staple


def by(served: Served) -> str:
    """The registry's log as an authority."""
    return key_authority(keys.hash_of_key(served.key.public))


async def plain(served: Served) -> Agent:
    """An agent of a plain name, on record, that shows its status."""
    credential = Credential.self_issued("shop", plain=True)
    agent = served.join(Agent(credential, trust=UnsafeAnyone()))
    visitor = served.join(Agent(Credential.self_issued("visitor"), trust=SelfCertified()))
    async with served.client(visitor) as client:
        await client.submit(registration(credential))
    await staple(served, agent)
    return agent


async def test_whom_a_registry_vouches_for_is_dialled_by_its_own_peer_id_and_by_its_contact(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        shop = await plain(served)
        caller = Agent(Credential.self_issued("caller"), trust=Registered(served.key))
        served.network.join(caller)
        async with served.network.listening(shop, "shop:1"):
            async with caller.connect("shop:1", expect=ANYONE_TRUSTED) as link:
                peer_id = link.peer.peer_id
            assert peer_id == PeerId(shop.auto_id, by(served))
            async with caller.connect("shop:1", expect=peer_id) as link:
                assert link.peer.peer_id == peer_id
            async with caller.connect(str(Contact(peer_id, parse_address("shop:1")))) as link:
                assert link.peer.peer_id == peer_id


async def test_rule_20_what_is_left_to_the_verdict_is_refused_by_it(tmp_path: Path) -> None:
    """The early look lets every key of the expected name pass then; the registry's word does not."""
    async with serving(tmp_path) as served:
        shop = await plain(served)
        expected = PeerId(shop.auto_id, by(served))
        impostor = Agent(Credential.self_issued("shop", plain=True), trust=UnsafeAnyone())
        impostor.replace_evidence(*shop.evidence)
        other = Agent(Credential.self_issued("other", plain=True), trust=UnsafeAnyone())
        caller = Agent(Credential.self_issued("caller"), trust=Registered(served.key) | SelfCertified())
        served.network.join(caller)
        for agent, reason in ((impostor, Reason.IMPOSTOR), (other, Reason.WRONG_PEER)):
            async with served.network.listening(agent, "shop:1"):
                with pytest.raises(Refused) as refusal:
                    await caller.connect("shop:1", expect=expected).__aenter__()
            assert refusal.value.reason is reason


async def test_a_peer_id_that_rests_on_a_log_is_expected_and_not_pinned(tmp_path: Path) -> None:
    """A pin is a key that the peer itself shows. A log's key is none, so such a pin refuses everybody of the name."""
    async with serving(tmp_path) as served:
        shop = await plain(served)
        peer_id = PeerId(shop.auto_id, by(served))
        pinned = Agent(Credential.self_issued("caller"), trust=Pinned(peer_id) & Registered(served.key))
        by_key = Pinned(PeerId(shop.auto_id, key_authority(shop.credential.leaf.spki_sha256)))
        both = Agent(Credential.self_issued("caller"), trust=by_key & Registered(served.key))
        async with served.network.listening(shop, "shop:1"):
            with pytest.raises(Refused) as refusal:
                await served.join(pinned).connect("shop:1", expect=peer_id).__aenter__()
            assert refusal.value.reason is Reason.IMPOSTOR
            async with served.join(both).connect("shop:1", expect=ANYONE_TRUSTED) as link:
                assert link.peer.auto_id == shop.auto_id


async def test_a_key_that_no_chain_has_and_no_model_rests_on_is_objected_to_before_we_show_ourselves() -> (
    None
):
    credential = Credential.self_issued("shop", plain=True)
    shop, network = Agent(credential, trust=UnsafeAnyone()), Network()
    log_key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    for trust in (UnsafeAnyone(), Registered(log_key), _Broken()):
        caller = Agent(Credential.self_issued("caller"), trust=trust)
        network.join(caller)
        async with network.listening(shop, "shop:1"):
            with pytest.raises(Refused, match="the key is not the expected one"):
                await caller.connect(
                    "shop:1", expect=PeerId(credential.auto_id, "sha256:" + "7" * 64)
                ).__aenter__()


class _Broken(Model):
    async def verify(self, presented: object, context: Context) -> Grounds:
        raise AssertionError("the dialer has objected before")

    def rests_on(self, authority: str) -> bool:
        raise OSError("its file is gone")


def test_a_model_says_which_authorities_its_grounds_may_rest_on() -> None:
    log_key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    model, own = Registered(log_key), key_authority(keys.hash_of_key(log_key.public))
    assert model.rests_on(own)
    assert not model.rests_on(BOUND)
    assert not model.rests_on("sha256:" + "7" * 64)
    assert not SelfCertified().rests_on(own)
    for combined in (AllOf(SelfCertified(), model), AnyOf(SelfCertified(), AllOf(model))):
        assert combined.rests_on(own)
        assert not combined.rests_on(BOUND)
