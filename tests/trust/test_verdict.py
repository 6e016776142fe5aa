"""judge(): the only source of a VerifiedPeer; expectations, ends of grounds, and the cache."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from autolink import limits
from autolink.errors import Reason, Refused, UsageError
from autolink.identity import AutoId, Credential, PeerId, key_authority
from autolink.trust import (
    Context,
    Contradicted,
    Grounds,
    IssuedBy,
    Model,
    NotVouched,
    Pinned,
    Presented,
    SelfCertified,
    UnsafeAnyone,
    VerdictCache,
    VerifiedPeer,
    judge,
)

Ders = Callable[[Credential], list[bytes]]


class Counting(Model):
    """Vouches as given and counts."""

    def __init__(self, grounds: Grounds | None = None) -> None:
        self.grounds = grounds or Grounds("Counting", "yes")
        self.asked = 0

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        self.asked += 1
        return self.grounds


async def reason_of(model: Model, chain: list[bytes], context: Context, **more: Any) -> Reason:
    with pytest.raises(Refused) as refusal:
        await judge(model, chain, context=context, **more)
    return refusal.value.reason


async def test_only_judge_makes_a_verified_peer(acme: Credential, ders: Ders, inbound: Context) -> None:
    """Neither the constructor nor a copy with another id works."""
    peer = await judge(SelfCertified(), ders(acme), context=inbound)
    stranger = PeerId(AutoId.derive("stranger"), "bound")
    with pytest.raises(UsageError, match="only"):
        VerifiedPeer(stranger, peer.grounds, peer.presented, peer.valid_until, None, 0)
    with pytest.raises(UsageError, match="only"):
        replace(peer, peer_id=stranger, made_by=None)


async def test_the_expected_peer_is_accepted_by_any_authority_of_its_path(
    organisation: Any, agent: Any, ders: Ders, dialled: Context
) -> None:
    """A contact names the root's key, a pin the leaf's: both are this peer, and so is its bare key."""
    globex = organisation("globex", plain=True)
    echo = agent("echo", globex)
    pin = PeerId(echo.auto_id, key_authority(echo.leaf.spki_sha256))
    for model in (IssuedBy(globex.anchor), Pinned(pin)):
        for expect in (echo.peer_id, pin, PeerId(None, pin.authority)):
            await judge(model, ders(echo), context=dialled, expect=expect)


async def test_another_than_the_expected_peer_is_refused_by_what_is_wrong(
    organisation: Any, agent: Any, ders: Ders, dialled: Context
) -> None:
    """Another name or key: wrong_peer, without asking the model. The right name under another key: impostor."""
    globex = organisation("globex", plain=True)
    echo, model, cache = agent("echo", globex), Counting(), VerdictCache()
    other = PeerId(AutoId.derive("other"), "bound")
    stranger = key_authority(bytes(32))
    assert await reason_of(model, ders(echo), dialled, expect=other) is Reason.WRONG_PEER
    assert await reason_of(model, ders(echo), dialled, expect=PeerId(None, stranger)) is Reason.WRONG_PEER
    assert model.asked == 0
    same_name = PeerId(echo.auto_id, stranger)
    assert await reason_of(model, ders(echo), dialled, expect=same_name) is Reason.IMPOSTOR
    await judge(model, ders(echo), context=dialled, cache=cache)
    assert await reason_of(model, ders(echo), dialled, expect=same_name, cache=cache) is Reason.IMPOSTOR
    assert await reason_of(model, ders(echo), dialled, expect=other, cache=cache) is Reason.WRONG_PEER


async def test_rule_17_a_verdict_ends_with_the_first_thing_it_rests_on(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """The earlier of the certificates' and the grounds' end; grounds that have ended are none."""
    soon = inbound.now + timedelta(seconds=1)
    peer = await judge(Counting(Grounds("status", "fresh", valid_until=soon)), ders(acme), context=inbound)
    assert peer.valid_until == soon
    late = Counting(Grounds("status", "long", valid_until=acme.leaf.not_after + timedelta(days=1)))
    assert (await judge(late, ders(acme), context=inbound)).valid_until == acme.leaf.not_after
    old = Counting(Grounds("status", "old", valid_until=inbound.now - timedelta(seconds=1)))
    assert await reason_of(old, ders(acme), inbound) is Reason.NOT_VOUCHED


async def test_grounds_with_a_bad_authority_are_the_models_failure(
    organisation: Any, ders: Ders, inbound: Context
) -> None:
    """A model's mistake is `internal`, never a verdict and never another exception."""
    model = Counting(Grounds("broken", "yes", authority="acme"))
    assert await reason_of(model, ders(organisation("acme", plain=True)), inbound) is Reason.INTERNAL


@pytest.mark.parametrize(("word", "reason"), [("revoked", Reason.REVOKED), ("whatever", Reason.INTERNAL)])
async def test_a_contradiction_for_a_reason_that_there_is_not_is_the_models_failure(
    acme: Credential, ders: Ders, inbound: Context, word: Any, reason: Reason
) -> None:
    class Strict(Model):
        async def verify(self, presented: Presented, context: Context) -> Grounds:
            raise Contradicted("no", word)

    assert await reason_of(Strict(), ders(acme), inbound) is reason


async def test_what_waits_for_acceptance_can_still_refuse(
    acme: Credential, ders: Ders, dialled: Context
) -> None:
    """once_accepted runs after everything else has agreed; its NotVouched refuses, any other failure is internal."""
    ran: list[str] = []

    def model(error: Exception | None) -> Model:
        async def last() -> None:
            ran.append("last")
            if error:
                raise error

        return Counting(Grounds("asks", "yes", once_accepted=last))

    await judge(model(None), ders(acme), context=dialled)
    assert await reason_of(model(NotVouched("said no")), ders(acme), dialled) is Reason.NOT_VOUCHED
    assert await reason_of(model(OSError("disk full")), ders(acme), dialled) is Reason.INTERNAL
    stranger = PeerId(AutoId.derive(acme.name), key_authority(bytes(32)))
    assert await reason_of(model(None), ders(acme), dialled, expect=stranger) is Reason.IMPOSTOR
    assert len(ran) == 3
    # Already vouched for by somebody else: nothing to learn, nobody to ask.
    await judge(model(None) | SelfCertified(), ders(acme), context=dialled)
    assert len(ran) == 3


async def test_rule_25_a_kind_that_nobody_else_gave_is_called_its_own_word(
    acme: Credential, echo: Credential, ders: Ders, inbound: Context
) -> None:
    """The grounds of a self-issued peer say that its kind is self-asserted; an issued one's is its issuer's."""
    alone = await judge(SelfCertified(), ders(acme), context=inbound)
    assert alone.grounds.text.endswith("organization by its own word")
    assert "own word" not in (await judge(SelfCertified(), ders(echo), context=inbound)).grounds.text


async def test_rule_26_a_seen_peer_is_not_judged_again(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """A hit asks no model; it says anew when the key was proved."""
    cache, model = VerdictCache(), Counting()
    first = await judge(model, ders(acme), context=inbound, cache=cache)
    second = await judge(model, ders(acme), context=inbound, cache=cache, key_proved_at=inbound.now)
    assert model.asked == 1
    assert second.peer_id == first.peer_id
    assert (first.key_proved_at, second.key_proved_at) == (None, inbound.now)


async def test_rule_26_the_key_of_the_cache_is_everything_but_time(
    echo: Credential, ders: Ders, inbound: Context
) -> None:
    """Another chain around the same leaf, evidence, model, direction or epoch is another verdict."""
    cache, model = VerdictCache(), Counting()
    await judge(model, ders(echo), context=inbound, cache=cache)
    assert (await judge(model, ders(echo)[:1], context=inbound, cache=cache)).auto_id is None
    await judge(model, ders(echo), context=inbound, cache=cache, evidence=[b"status"])
    await judge(model, ders(echo), context=replace(inbound, direction="message"), cache=cache)
    model._changed()
    await judge(model, ders(echo), context=inbound, cache=cache)
    assert model.asked == 5
    other = Counting()
    await judge(other, ders(echo), context=inbound, cache=cache)
    assert other.asked == 1
    assert await reason_of(model, [*ders(echo), b"junk"], inbound, cache=cache) is Reason.MALFORMED


async def test_rule_26_a_hit_honours_time(
    acme: Credential, ders: Ders, inbound: Context, now: datetime
) -> None:
    """A kept verdict serves from when it was formed until it ends: not before, not after."""
    cache = VerdictCache()
    model = Counting(Grounds("status", "fresh", valid_until=now + timedelta(minutes=1)))
    await judge(model, ders(acme), context=replace(inbound, now=now + timedelta(seconds=1)), cache=cache)
    at = [timedelta(minutes=1), timedelta(0), timedelta(minutes=1, microseconds=1)]
    await judge(model, ders(acme), context=replace(inbound, now=now + at[0]), cache=cache)
    assert model.asked == 1
    await judge(model, ders(acme), context=replace(inbound, now=now + at[1]), cache=cache)
    assert model.asked == 2
    assert (
        await reason_of(model, ders(acme), replace(inbound, now=now + at[2]), cache=cache)
        is Reason.NOT_VOUCHED
    )
    after = replace(inbound, now=acme.leaf.not_after + timedelta(seconds=1))
    assert await reason_of(SelfCertified(), ders(acme), after, cache=cache) is Reason.EXPIRED


async def test_rule_26_refusals_are_not_kept_and_the_cache_is_bounded(
    organisation: Any, ders: Ders, inbound: Context
) -> None:
    """Strangers cannot fill it; the least recently used verdict makes room; it can be emptied."""
    cache = VerdictCache(2)
    known = [organisation(name) for name in ("a", "b", "c")]
    pins = Pinned(*(credential.peer_id for credential in known))
    for _ in range(5):
        await reason_of(pins, ders(organisation("stranger")), inbound, cache=cache)
    assert len(cache) == 0
    for credential in known:
        await judge(pins, ders(credential), context=inbound, cache=cache)
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(UsageError):
        VerdictCache(0)


async def test_a_model_changed_while_it_judged_is_not_cached_as_new(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """The epoch is read before: a pin removed during the judgement makes the kept verdict unreachable."""
    cache = VerdictCache()

    class Changing(Counting):
        async def verify(self, presented: Presented, context: Context) -> Grounds:
            grounds = await super().verify(presented, context)
            self._changed()
            return grounds

    model = Changing()
    await judge(model, ders(acme), context=inbound, cache=cache)
    await judge(model, ders(acme), context=inbound, cache=cache)
    assert model.asked == 2


async def test_a_model_may_be_unhashable(acme: Credential, ders: Ders, inbound: Context) -> None:
    """A user's model with __eq__ and no __hash__ is cached like any other."""

    class Equal(Counting):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    cache = VerdictCache()
    one, two = Equal(), Equal()
    for model in (one, two, one):
        await judge(model, ders(acme), context=inbound, cache=cache)
    assert (one.asked, two.asked) == (1, 1)


async def test_a_hit_costs_next_to_nothing(
    echo: Credential, acme: Credential, ders: Ders, inbound: Context
) -> None:
    """A gross bound, 100 us of CPU where a few are usual: it is the benchmark that measures."""
    cache, model, chain = VerdictCache(), IssuedBy(acme.anchor) | UnsafeAnyone(), ders(echo)
    await judge(model, chain, context=inbound, cache=cache)
    begin = time.process_time()
    for _ in range(200):
        await judge(model, chain, context=inbound, cache=cache)
    assert (time.process_time() - begin) / 200 < 100e-6


def test_a_refusal_says_who_and_why(forge: Any, now: datetime) -> None:
    """The claimed name, our reason and the place of the fault stand in one printable line."""
    import trio

    async def refuse() -> None:
        chain = forge("echo", forge("acme"), end=timedelta(days=5000)).chain
        await judge(SelfCertified(), chain, context=Context(now, "inbound"))

    with pytest.raises(
        Refused, match=r"we refused someone who says to be echo: malformed \(profile rule lifetime"
    ):
        trio.run(refuse)


async def test_rule_26_what_a_believed_peer_can_put_into_the_cache_is_bounded_in_bytes_too(
    acme: Credential, ders: Ders, inbound: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence is part of the key, and anybody can vary his own, or that of an envelope that he carries."""
    monkeypatch.setattr(limits, "VERDICTS_BYTES", 100_000)
    cache = VerdictCache()
    for number in range(10):
        await judge(
            SelfCertified(), ders(acme), context=inbound, cache=cache, evidence=[bytes((number,)) * 20_000]
        )
    assert len(cache) == 4
    await judge(SelfCertified(), ders(acme), context=inbound, cache=cache, evidence=[b"\x09" * 20_000])
    assert len(cache) == 4
    cache.clear()
    await judge(SelfCertified(), ders(acme), context=inbound, cache=cache)
    assert len(cache) == 1
