"""A bound name to which guardians gave a key that it does not lead to: believed on the log's word, and only so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential, CredentialRequest, EntityKind
from autolink.errors import IdentityError, Reason, Refused, UsageError
from autolink.identity import BOUND, PeerId, TrustAnchor, key_authority, keys
from autolink.messages import microseconds
from autolink.registry import making
from autolink.registry.log.note import VerifierKey
from autolink.registry.making import Slot
from autolink.registry.trust import Registered
from autolink.trust import (
    Context,
    Grounds,
    IssuedBy,
    KnownAgents,
    Model,
    NotVouched,
    Pinned,
    SelfCertified,
    UnsafeAnyone,
    judge,
)

from .serving import ORIGIN, Served, issue, registration, serving

DELAY = timedelta(days=8)


@dataclass
class Recovered:
    """acme before and after its recovery, an agent of each, and what they show."""

    served: Served
    before: Credential
    after: Credential
    child: Credential

    def clock(self) -> datetime:
        return datetime.now(UTC) + DELAY

    @property
    def log(self) -> str:
        return key_authority(keys.hash_of_key(self.served.key.public))

    @property
    def model(self) -> Registered:
        return Registered(self.served.key)

    def status(self, who: Credential) -> bytes:
        status = self.served.registrar.status(who.auto_id)
        assert status is not None
        return status.to_bytes()

    async def judged(self, model: Model, who: Credential, **more: Any) -> PeerId:
        context = Context(now=self.clock(), direction="outbound", given_by_person=True)
        evidence = more.pop("evidence", None) or [*who.evidence, self.status(who)]
        shown = [certificate.der for certificate in who.chain]
        return (await judge(model, shown, context=context, evidence=evidence, **more)).peer_id

    async def reason(self, model: Model, who: Credential, **more: Any) -> Reason:
        with pytest.raises(Refused) as refusal:
            await self.judged(model, who, **more)
        assert refusal.value.by == "us"
        return refusal.value.reason

    def agent(self, credential: Credential, trust: Model) -> Agent:
        agent = Agent(credential, trust=trust, clock=self.clock)
        agent.replace_evidence(self.status(credential))
        self.served.network.join(agent)
        return agent


@asynccontextmanager
async def recovered(folder: Path) -> AsyncIterator[Recovered]:
    """A registry in which two guardians have recovered acme, after the delay."""
    shift = [timedelta(0)]
    async with serving(folder, clock=lambda: microseconds(datetime.now(UTC) + shift[0])) as served:
        acme = Credential.self_issued("acme", now=datetime.now(UTC) - timedelta(minutes=1))
        guards = [Credential.self_issued(name) for name in ("ada", "bob")]
        chosen, salts = making.choose_guardians([guard.auto_id for guard in guards], threshold=2)
        after = making.successor(acme.leaf, served.key, now=datetime.now(UTC))
        child = issue(after, "echo")
        visitor = Agent(Credential.self_issued("visitor"), trust=SelfCertified(), clock=served.agent.clock)
        async with served.client(served.join(visitor)) as client:
            for guard in guards:
                await client.submit(registration(guard))
            slot = Slot.at(ORIGIN, datetime.now(UTC))
            await client.submit(making.register(acme, slot, guardians=chosen))
            slot = Slot.at(ORIGIN, datetime.now(UTC), await client.place(acme.auto_id))
            entry = making.recover(after, slot, revealed=salts)
            for guard in guards:
                entry = making.countersign(entry, guard)
            await client.submit(entry)
            shift[0] = DELAY
            made = making.register(child, Slot.at(ORIGIN, datetime.now(UTC) + DELAY), next_key=bytes(32))
            await client.submit(making.countersign(made, after))
        yield Recovered(served, acme, after, child)


async def test_who_was_recovered_is_who_it_was_for_those_who_believe_the_registry(tmp_path: Path) -> None:
    """Over a link, root and child, dialled by the PeerId that the holder itself says."""
    async with recovered(tmp_path) as it:
        assert it.after.auto_id == it.before.auto_id
        for who in (it.after, it.child):
            assert who.peer_id == PeerId(who.auto_id, it.log)
            assert await it.judged(it.model, who) == who.peer_id
            served = it.agent(who, UnsafeAnyone())
            caller = Agent(Credential.self_issued("caller"), trust=it.model, clock=it.clock)
            it.served.network.join(caller)
            async with (
                it.served.network.listening(served, "acme:1") as listener,
                caller.connect(listener.contacts[0]) as link,
            ):
                assert link.peer.peer_id == who.peer_id
                assert not link.peer.presented.bound


async def test_rule_21_without_a_registry_a_key_that_the_name_does_not_lead_to_is_an_impostors(
    tmp_path: Path,
) -> None:
    """Whoever else vouches, for the recovered root and below it."""
    async with recovered(tmp_path) as it:
        known = KnownAgents(tmp_path / "known", "accept")
        for who in (it.after, it.child):
            own = PeerId(who.auto_id, key_authority(it.after.leaf.spki_sha256))
            leaf = PeerId(None, key_authority(who.leaf.spki_sha256))
            for model in (
                SelfCertified(),
                IssuedBy(it.before.anchor),
                Pinned(PeerId(who.auto_id, BOUND)),
                Pinned(own),
                Pinned(leaf),
                known,
                UnsafeAnyone(),
                SelfCertified() | UnsafeAnyone(),
                UnsafeAnyone() & Pinned(own),
                _Vouches(Grounds("_Vouches", "why not", authority=it.log)),
                _Vouches(Grounds("_Vouches", "why not", authority=BOUND)),
                _Vouches(Grounds("_Vouches", "another log", authority="sha256:" + "7" * 64, succeeds=True)),
            ):
                assert await it.reason(model, who) is Reason.IMPOSTOR, model
        assert known.agents == {}
        assert not known.rests_on(it.log)


async def test_rule_21_who_expects_the_bound_name_refuses_its_recovered_key(tmp_path: Path) -> None:
    async with recovered(tmp_path) as it:
        for who in (it.after, it.child):
            bound = PeerId(who.auto_id, BOUND)
            assert await it.reason(it.model, who, expect=bound) is Reason.IMPOSTOR
            assert await it.judged(it.model, who, expect=who.peer_id) == who.peer_id
            served = it.agent(who, UnsafeAnyone())
            caller = Agent(Credential.self_issued("caller"), trust=it.model, clock=it.clock)
            it.served.network.join(caller)
            async with it.served.network.listening(served, "acme:1"):
                with pytest.raises(Refused, match="not bound to its key"):
                    await caller.connect("acme:1", expect=bound).__aenter__()


async def test_rule_20_who_knows_the_bound_name_better_refuses_it_beside_a_registry(tmp_path: Path) -> None:
    async with recovered(tmp_path) as it:
        known = KnownAgents(tmp_path / "known", "accept")
        known.accept(it.before.peer_id, "acme")
        for better in (IssuedBy(it.before.anchor), Pinned(it.before.peer_id), known):
            for model in (it.model | better, better & it.model):
                assert await it.reason(model, it.child) is Reason.IMPOSTOR
                assert await it.reason(model, it.after) is Reason.IMPOSTOR


async def test_rule_20_grounds_are_a_registrys_word_only_where_they_rest_on_it(tmp_path: Path) -> None:
    async with recovered(tmp_path) as it:
        yes, no = _Vouches(Grounds("_Vouches", "why not", authority="sha256:" + "7" * 64)), SelfCertified()
        for model in (it.model & yes, yes & it.model, it.model | yes, yes | it.model, no | it.model,
                      yes & (no | it.model), (yes & it.model) | no):  # fmt: skip
            assert await it.judged(model, it.child) == it.child.peer_id, model
        for model in (yes & yes, yes | no, it.model & no, no & it.model):
            assert await it.reason(model, it.child) is Reason.IMPOSTOR, model
        # The first use of a recovered name is not learned: what would be remembered is the key, without the registry.
        known = KnownAgents(tmp_path / "known", "accept")
        assert await it.reason(it.model & known, it.child) is Reason.IMPOSTOR
        assert await it.judged(known | it.model, it.child) == it.child.peer_id
        assert known.agents == {}


async def test_a_registry_does_not_believe_a_successor_that_is_not_on_record(tmp_path: Path) -> None:
    """A key of somebody's own, which names the log, with the status of the one that is; and none at all."""
    async with recovered(tmp_path) as it:
        forged = making.successor(it.before.leaf, it.served.key, now=datetime.now(UTC))
        below = issue(forged, "echo")
        for who, shows in ((forged, it.after), (below, it.child)):
            assert await it.reason(it.model, who, evidence=[it.status(shows)]) is Reason.IMPOSTOR
            assert await it.reason(it.model, who, evidence=[b"nothing"]) is Reason.IMPOSTOR
        assert await it.reason(it.model, it.before, evidence=[it.status(it.after)]) is Reason.IMPOSTOR


async def test_a_root_that_names_another_log_is_not_settled_by_this_one(tmp_path: Path) -> None:
    """Two logs may disagree: only the one that the root names counts."""
    async with recovered(tmp_path) as it:
        other = VerifierKey.of("other.example/log", Ed25519PrivateKey.generate().public_key())
        elsewhere = making.successor(it.before.leaf, other, now=datetime.now(UTC))
        vouches = _Vouches(Grounds("_Vouches", "on record", authority=it.log, succeeds=True))
        assert await it.reason(vouches, elsewhere, evidence=[b""]) is Reason.IMPOSTOR
        said = _Vouches(
            Grounds("_Vouches", "on record", authority=elsewhere.peer_id.authority, succeeds=True)
        )
        for model in (said, vouches & said, vouches | said):
            assert await it.judged(model, elsewhere, evidence=[b""]) == elsewhere.peer_id


async def test_a_recovered_identity_goes_on_to_its_next_key_and_is_renewed_under_the_same_peer_id(
    tmp_path: Path,
) -> None:
    async with recovered(tmp_path) as it:
        assert it.after.next_key is not None
        later = it.clock()
        rotated = it.after.rotate(it.after.next_key, now=later)
        assert (rotated.rotations, rotated.peer_id) == ((), it.after.peer_id)
        visitor = Agent(Credential.self_issued("visitor"), trust=SelfCertified(), clock=it.clock)
        async with it.served.client(it.served.join(visitor)) as client:
            slot = Slot.at(ORIGIN, later, await client.place(it.after.auto_id))
            await client.submit(making.rotate(rotated, slot))
        assert await it.judged(it.model, rotated) == rotated.peer_id
        assert await it.reason(it.model, it.after) is Reason.IMPOSTOR
        again = making.renewed(rotated, now=later)
        assert Credential.from_key((again,), rotated.private_key).peer_id == rotated.peer_id


async def test_what_was_recovered_is_no_anchor(tmp_path: Path) -> None:
    async with recovered(tmp_path) as it:
        for who in (it.after, it.child):
            with pytest.raises(IdentityError, match="no anchor"):
                _ = who.anchor
        with pytest.raises(IdentityError, match="no anchor"):
            TrustAnchor((it.after.leaf,))


def test_only_a_bound_name_needs_a_successor() -> None:
    log_key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    acme, now = Credential.self_issued("acme"), datetime.now(UTC)
    request = CredentialRequest.new("echo")
    issued = request.complete(acme.issue(request, kind=EntityKind.AGENT))
    for who in (Credential.self_issued("acme", plain=True), issued):
        with pytest.raises(UsageError, match="not bound to keys"):
            making.successor(who.leaf, log_key, now=now)


class _Vouches(Model):
    """For anybody, on these grounds."""

    def __init__(self, grounds: Grounds) -> None:
        self._grounds = grounds

    async def verify(self, presented: Any, context: Context) -> Grounds:
        if presented.auto_id is None:
            raise NotVouched("nobody")
        return self._grounds
