"""Facts about issuers are remembered: what that may not change, and who may make it remember."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from autolink import limits
from autolink.errors import IdentityError, Reason, Refused
from autolink.identity import Certificate, Credential, EntityKind, TrustAnchor
from autolink.trust import (
    Context,
    IssuedBy,
    Pinned,
    SelfCertified,
    UnsafeAnyone,
    VerdictCache,
    judge,
    present,
)
from autolink.trust.issuers import MEMORY, _Memory, establish

from .test_presented import FAULTS, SOUND

Forge = Callable[..., Any]


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Memory]:
    """One that is empty, in place of the process's."""
    memory = _Memory()
    monkeypatch.setattr("autolink.trust.presented.MEMORY", memory)
    monkeypatch.setattr("autolink.trust.verdict.MEMORY", memory)
    return memory


def refusal(chain: list[bytes], now: datetime) -> tuple[Reason, str]:
    with pytest.raises(Refused) as refused:
        present(chain, now=now)
    return refused.value.reason, refused.value.detail


def remember(memory: _Memory, above: list[bytes], now: datetime) -> bool:
    """Put issuers into the memory as if a peer below them had been accepted; False if they are not sound."""
    try:
        memory.keep(establish(tuple(map(Certificate.parse_untrusted, above)), now))
    except IdentityError:
        return False
    return True


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_below_remembered_issuers_too(
    fault: str, forge: Forge, now: datetime, memory: _Memory
) -> None:
    """Each fault of a chain, with what stands above the leaf remembered where that is sound: the same refusal."""
    chain = FAULTS[fault][0](forge)
    expected = refusal(chain, now)
    if 2 <= len(chain) <= limits.CHAIN and remember(memory, chain[1:], now):
        assert memory.find(tuple(chain[1:]))
        assert refusal(chain, now) == expected


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_presented_does_not_depend_on_what_is_remembered(
    kind: str, forge: Forge, now: datetime, memory: _Memory
) -> None:
    """The same chain gives the same, with its issuers remembered and without."""
    chain = SOUND[kind](forge)
    before = present(chain, now=now)
    if chain[1:]:
        assert remember(memory, chain[1:], now)
    assert present(chain, now=now) == before


def test_remembered_issuers_are_judged_at_each_time_anew(
    forge: Forge, now: datetime, memory: _Memory
) -> None:
    """Validity is no fact: an issuer that has expired since, or that a clock stepped back finds early, is refused."""
    acme = forge("acme", begin=timedelta(days=-1), end=timedelta(days=30))
    chain = forge("echo", acme, begin=timedelta(0), end=timedelta(days=30)).chain
    assert remember(memory, chain[1:], now)
    present(chain, now=now + timedelta(days=30))
    for moment, reason in (
        (now + timedelta(days=30, microseconds=1), Reason.EXPIRED),
        (now - timedelta(days=2), Reason.NOT_YET_VALID),
    ):
        assert refusal(chain, moment)[0] is reason


def test_junk_among_remembered_issuers_is_refused(
    acme: Credential, echo: Credential, ders: Any, forge: Forge, now: datetime, memory: _Memory
) -> None:
    """Only exactly the same bytes above the leaf are known; a certificate more, or another order, is a chain never seen."""
    leaf, root = ders(echo)
    assert remember(memory, [root], now)
    junk = forge("junk", issues=True).der
    for above in ([junk, root], [root, junk], [root, root], [junk]):
        assert refusal([leaf, *above], now)[0] is Reason.MALFORMED


def test_two_issuers_of_one_name_are_two(forge: Forge, now: datetime, memory: _Memory) -> None:
    """Same name, same ids, other key: a leaf is only its own issuer's, also when both are remembered."""
    one, other = forge("acme"), forge("acme")
    for root in (one, other):
        assert remember(memory, [root.der], now)
    leaf = forge("echo", one)
    assert present(leaf.chain, now=now).root == one.certificate
    reason, detail = refusal([leaf.der, other.der], now)
    assert reason is Reason.MALFORMED
    assert "key-identifiers" in detail
    # With the other's key identifier in it, only the signature is left to tell.
    posing = forge("echo", other, signer=one.key)
    assert "signature does not verify" in refusal(posing.chain, now)[1]


def test_one_key_in_two_certificates_is_two_issuers(forge: Forge, now: datetime, memory: _Memory) -> None:
    """A root renewed over its key: each certificate's own end counts, whichever is remembered."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = forge("acme", key=key, end=timedelta(days=3))
    renewed = forge("acme", key=key, end=timedelta(days=300))
    leaf = forge("echo", renewed, end=timedelta(days=30))
    assert remember(memory, [renewed.der], now)
    assert "outside its issuer's validity" in refusal([leaf.der, old.der], now)[1]
    assert remember(memory, [old.der], now)
    assert present(leaf.chain, now=now).valid_until == leaf.certificate.not_after
    assert "outside its issuer's validity" in refusal([leaf.der, old.der], now)[1]


def test_a_root_that_its_key_did_not_sign_is_not_the_remembered_one(
    forge: Forge, now: datetime, memory: _Memory
) -> None:
    """The same name, key and key identifier, so that a leaf fits: but not the same bytes."""
    acme = forge("acme")
    assert remember(memory, [acme.der], now)
    altered = forge(
        "acme", key=acme.key, end=timedelta(days=3000), signer=ec.generate_private_key(ec.SECP256R1())
    )
    assert "own key" in refusal([forge("echo", acme).der, altered.der], now)[1]


async def test_to_be_remembered_is_not_to_be_believed(
    acme: Credential, echo: Credential, agent: Any, ders: Any, inbound: Context, memory: _Memory
) -> None:
    """A removed pin refuses the peer, with and without a kept verdict, and its issuer's other agents."""
    cache, pins = VerdictCache(), Pinned(echo.peer_id)
    await judge(pins, ders(echo), context=inbound, cache=cache)
    pins.remove(echo.peer_id)
    assert memory.find((acme.leaf.der,))
    for chain in (ders(echo), ders(agent("other", acme))):
        for kept in (cache, None):
            with pytest.raises(Refused) as refused:
                await judge(pins, chain, context=inbound, cache=kept)
            assert refused.value.reason is Reason.NOT_VOUCHED


async def test_what_was_sound_under_another_epoch_is_looked_at_in_time(
    echo: Credential, ders: Any, inbound: Context
) -> None:
    """After a change of trust a chain that was vouched for is not read again, and refused once it has expired."""
    cache, pins = VerdictCache(), Pinned(echo.peer_id)
    await judge(pins, ders(echo), context=inbound, cache=cache)
    pins.add(echo.chain[-1])
    late = replace(inbound, now=echo.leaf.not_after + timedelta(seconds=1))
    with pytest.raises(Refused) as refused:
        await judge(pins, ders(echo), context=late, cache=cache)
    assert refused.value.reason is Reason.EXPIRED
    await judge(pins, ders(echo), context=inbound, cache=cache)
    pins.remove(echo.peer_id)
    with pytest.raises(Refused) as refused:
        await judge(pins, ders(echo), context=inbound, cache=cache)
    assert refused.value.reason is Reason.NOT_VOUCHED


async def test_rule_26_strangers_are_not_remembered(
    acme: Credential,
    echo: Credential,
    organisation: Any,
    agent: Any,
    ders: Any,
    inbound: Context,
    memory: _Memory,
) -> None:
    """Nobody whom the model refused leaves anything, and so pushes nobody out; who was accepted does."""
    model = IssuedBy(acme.anchor)
    await judge(model, ders(echo), context=inbound)
    for _ in range(3):
        with pytest.raises(Refused):
            await judge(model, ders(agent("echo", organisation("mallory"))), context=inbound)
    assert len(memory) == 1
    assert memory.find((acme.leaf.der,))
    await judge(UnsafeAnyone(), ders(agent("echo", organisation("anybody"))), context=inbound)
    assert len(memory) == 2


async def test_rule_26_what_accepted_peers_leave_is_bounded_in_number_and_bytes(
    organisation: Any,
    agent: Any,
    ders: Any,
    inbound: Context,
    memory: _Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The least recently used go first; one that is used stays, and counts once however often it is used."""
    chains = [ders(agent("echo", organisation(f"org-{number}"))) for number in range(6)]
    for limit, value in (("ISSUERS", 3), ("ISSUERS_BYTES", sum(len(chain[1]) for chain in chains[:3]) + 100)):
        monkeypatch.setattr(limits, limit, value)
        for chain in chains:
            await judge(SelfCertified(), chains[0], context=inbound)
            await judge(SelfCertified(), chain, context=inbound)
        assert len(memory) == 3
        assert memory.find(tuple(chains[0][1:]))
        assert memory.find(tuple(chains[2][1:])) is None
        monkeypatch.setattr(limits, limit, 10**6)


async def test_an_anchor_renewed_under_its_bound_name_is_the_same_issuer(
    acme: Credential, agent: Any, ders: Any, inbound: Context, now: datetime
) -> None:
    """Whoever holds the old anchor file believes agents below the new certificate, and the other way round."""
    from autolink.identity.issuing import build_self_issued

    renewed = build_self_issued(
        acme.name, acme.private_key, kind=EntityKind.ORGANIZATION, next_key_hash=acme.leaf.next_key_hash,
        lifetime=timedelta(days=900), now=now,
    )  # fmt: skip
    later = Credential((renewed,), acme.private_key)
    for anchor, issuer in ((acme.anchor, later), (TrustAnchor((renewed,)), acme)):
        peer = await judge(IssuedBy(anchor), ders(agent("echo", issuer)), context=inbound)
        assert peer.grounds.text.startswith("issued below acme~")


def test_the_memory_of_the_process_is_the_one_that_is_used() -> None:
    """The fixture above stands in for this one."""
    assert isinstance(MEMORY, _Memory)
