"""A peer whose root holds another key than its name is bound to: believed by the evidence that leads there, and only so."""

from pathlib import Path
from typing import Any

import pytest

from autolink import codec, limits
from autolink.errors import Reason, Refused
from autolink.identity import BOUND, Credential, EntityKind, KeyType, PeerId, TrustAnchor, key_authority
from autolink.identity.issuing import build_self_issued
from autolink.identity.rotation import TAG
from autolink.trust import (
    Context,
    Grounds,
    IssuedBy,
    KnownAgents,
    Model,
    Pinned,
    SelfCertified,
    VerdictCache,
    VerifiedPeer,
    judge,
    present,
)
from tests.trust.conftest import NOW


def rotated(credential: Credential, times: int = 1) -> Credential:
    for _ in range(times):
        assert credential.next_key is not None
        credential = credential.rotate(credential.next_key, now=NOW)
    return credential


@pytest.fixture
def corp(acme: Credential) -> Credential:
    """acme, after two rotations."""
    return rotated(acme, 2)


@pytest.fixture
def clerk(corp: Credential, agent: Any) -> Credential:
    """An agent that acme has issued since."""
    made: Credential = agent("clerk", agent_of := agent("team", corp, may_issue=0))
    assert agent_of.rotations == made.rotations == corp.rotations
    return made


async def verdict(model: Model, who: Credential, context: Context, **more: Any) -> VerifiedPeer:
    more = {"evidence": who.evidence} | more
    return await judge(model, [certificate.der for certificate in who.chain], context=context, **more)


async def refusal(model: Model, who: Credential, context: Context, **more: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        await verdict(model, who, context, **more)
    assert refused.value.by == "us"
    return refused.value.reason


async def test_a_rotated_root_is_bound_by_its_evidence(
    corp: Credential, clerk: Credential, inbound: Context
) -> None:
    for who in (corp, clerk):
        peer = await verdict(SelfCertified(), who, inbound)
        assert peer.peer_id == who.peer_id
        assert peer.peer_id.authority == BOUND
        assert peer.presented.bound
    assert peer.presented.ids[0] == corp.auto_id


@pytest.mark.parametrize("times", [1, limits.ROTATIONS])
async def test_once_or_as_often_as_can_be(acme: Credential, times: int, inbound: Context) -> None:
    after = rotated(acme, times)
    assert (await verdict(SelfCertified(), after, inbound)).peer_id == acme.peer_id


async def test_also_with_the_largest_keys(inbound: Context) -> None:
    root = Credential.self_issued("acme", key_type=KeyType.ML_DSA_65, now=NOW)
    after = rotated(root, 7)
    assert (await verdict(SelfCertified(), after, inbound)).peer_id == root.peer_id
    assert sum(map(len, after.evidence)) <= limits.EVIDENCE_BYTES


async def test_issued_by_believes_an_anchor_from_before_or_after(
    acme: Credential, corp: Credential, clerk: Credential, echo: Credential, inbound: Context
) -> None:
    for anchor in (acme.anchor, corp.anchor, TrustAnchor.from_pem(clerk.anchor.to_pem())):
        model = IssuedBy(anchor)
        assert (await verdict(model, clerk, inbound)).peer_id == clerk.peer_id
        assert (await verdict(model, echo, inbound)).peer_id == echo.peer_id  # issued under the first key
        assert await refusal(model, clerk, inbound, evidence=()) is Reason.IMPOSTOR


async def test_a_pin_of_a_bound_peer_outlasts_the_rotation_and_a_pin_of_its_key_does_not(
    acme: Credential, corp: Credential, clerk: Credential, inbound: Context
) -> None:
    assert (await verdict(Pinned(acme.peer_id), corp, inbound)).peer_id == acme.peer_id
    assert (await verdict(Pinned(clerk.peer_id), clerk, inbound)).peer_id == clerk.peer_id
    assert await refusal(Pinned(acme.leaf), corp, inbound) is Reason.IMPOSTOR
    assert await refusal(Pinned(acme.peer_id), corp, inbound, evidence=()) is Reason.IMPOSTOR
    first = PeerId(acme.auto_id, key_authority(acme.leaf.spki_sha256))
    assert await refusal(SelfCertified(), corp, inbound, expect=first) is Reason.IMPOSTOR


async def test_known_agents_know_a_rotated_root_again(
    tmp_path: Path, acme: Credential, corp: Credential, clerk: Credential, dialled: Context
) -> None:
    model = KnownAgents(tmp_path / "known_agents", "accept")
    assert (await verdict(model, acme, dialled)).grounds.text.startswith("first use")
    assert (await verdict(model, corp, dialled)).grounds.text.startswith("known as")
    assert (await verdict(model, clerk, dialled)).grounds.text.startswith("first use")  # another agent
    assert set(model.agents) == {acme.peer_id, clerk.peer_id}
    assert await refusal(model, corp, dialled, evidence=()) is Reason.IMPOSTOR


async def test_whom_nobody_shows_the_way_to_is_an_impostor_whoever_vouches(
    acme: Credential, corp: Credential, clerk: Credential, organisation: Any, inbound: Context
) -> None:
    """Nothing shown, half of it, somebody else's, or none that can be read."""
    other = rotated(organisation("acme"), 2)
    (item,) = corp.evidence
    half = codec.encode([TAG, [certificate.der for certificate in corp.rotations[:1]]])
    flipped = item[:-1] + bytes([item[-1] ^ 1])
    for evidence in ((), (half,), other.evidence, (flipped,), (b"of a kind that nobody knows",)):
        for who in (corp, clerk):
            model = SelfCertified() | IssuedBy(acme.anchor) | Pinned(acme.peer_id)
            assert await refusal(model, who, inbound, evidence=evidence) is Reason.IMPOSTOR
    for junk in (codec.encode([TAG, [b"junk"]]), codec.encode([TAG, 1]), item + b"\x00", item[:-1]):
        assert await refusal(SelfCertified(), corp, inbound, evidence=(junk,)) is Reason.MALFORMED


async def test_a_root_that_was_not_rotated_needs_no_evidence_and_heeds_none(
    acme: Credential, corp: Credential, inbound: Context
) -> None:
    for evidence in ((), corp.evidence, (codec.encode([TAG, [b"junk"]]),)):
        assert (await verdict(SelfCertified(), acme, inbound, evidence=evidence)).peer_id == acme.peer_id


async def test_a_plain_root_is_bound_by_no_evidence(
    organisation: Any, corp: Credential, inbound: Context
) -> None:
    plain = organisation("acme", plain=True)
    assert await refusal(SelfCertified(), plain, inbound, evidence=corp.evidence) is Reason.NOT_VOUCHED


async def test_rule_26_a_remembered_verdict_is_of_the_evidence_too(
    corp: Credential, clerk: Credential, organisation: Any, inbound: Context
) -> None:
    model, cache = SelfCertified(), VerdictCache()
    for who in (corp, clerk):
        peer = await verdict(model, who, inbound, cache=cache)
        again = await verdict(model, who, inbound, cache=cache)
        assert again.presented is peer.presented
        assert await refusal(model, who, inbound, cache=cache, evidence=()) is Reason.IMPOSTOR
        other = rotated(organisation("acme"), 2)
        assert await refusal(model, who, inbound, cache=cache, evidence=other.evidence) is Reason.IMPOSTOR
    assert len(cache) == 2


async def test_what_is_remembered_of_issuers_says_nothing_about_their_rotation(
    clerk: Credential, agent: Any, corp: Credential, inbound: Context
) -> None:
    """The certificates above a believed leaf are known; under another leaf they need their evidence again."""
    await verdict(SelfCertified(), clerk, inbound)
    other = agent("other", corp)
    await verdict(SelfCertified(), other, inbound)
    assert await refusal(SelfCertified(), agent("third", corp), inbound, evidence=()) is Reason.IMPOSTOR


async def test_a_thief_of_a_replaced_key_is_believed_by_whoever_asks_no_registry(
    acme: Credential, corp: Credential, agent: Any, inbound: Context
) -> None:
    """What docs/threat-model.md says: rotation alone ends nobody's belief in the key before, and from a later key there may
    be two ways on."""
    for stolen in (acme, rotated(acme), rotated(acme, 2)):
        assert not stolen.rotations or stolen.leaf not in corp.certificates
        thiefs = agent("clerk", stolen)
        assert (await verdict(IssuedBy(corp.anchor), thiefs, inbound)).peer_id == thiefs.peer_id


def test_a_way_that_ends_elsewhere_makes_no_presented_bound(corp: Credential, acme: Credential) -> None:
    with pytest.raises(Refused):
        present([corp.leaf.der], evidence=rotated(acme).evidence, now=NOW)
    assert present([corp.leaf.der], evidence=corp.evidence, now=NOW).bound


async def test_the_claim_that_a_log_knows_better_means_nothing_where_the_name_leads_to_the_key_and_elsewhere(
    acme: Credential, inbound: Context
) -> None:
    """Bound is bound, a plain name is its key, and a way that is shown must lead there."""
    log = bytes(range(32))

    def claims(who: Credential, key: Credential | None = None) -> Credential:
        leaf = who.leaf
        private_key = (key or who).private_key
        made = build_self_issued(
            leaf.common_name, private_key, kind=EntityKind.ORGANIZATION, next_key_hash=leaf.next_key_hash,
            recovered_in=log, lifetime=None, now=NOW,
        )  # fmt: skip
        return Credential.from_key((made,), private_key, rotations=who.rotations)

    plain = Credential.self_issued("acme", plain=True, now=NOW)
    for who in (acme, rotated(acme)):
        assert (
            (await verdict(SelfCertified(), claims(who), inbound)).peer_id
            == claims(who).peer_id
            == acme.peer_id
        )
    assert (await verdict(Pinned(plain.peer_id), claims(plain), inbound)).peer_id == plain.peer_id
    other = Credential.self_issued("other", now=NOW)
    taken = claims(acme, key=other)
    assert taken.peer_id == PeerId(acme.auto_id, key_authority(log))
    assert await refusal(SelfCertified(), taken, inbound) is Reason.IMPOSTOR
    shown = {"evidence": rotated(acme).evidence}
    assert await refusal(_Succeeds(key_authority(log)), taken, inbound, **shown) is Reason.IMPOSTOR
    assert (await verdict(_Succeeds(key_authority(log)), taken, inbound)).peer_id == taken.peer_id


class _Succeeds(Model):
    def __init__(self, log: str) -> None:
        self._log = log

    async def verify(self, presented: Any, context: Context) -> Grounds:
        return Grounds("_Succeeds", "on record", authority=self._log, succeeds=True)
