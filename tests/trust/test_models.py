"""The trust models: whom each vouches for, about whom it has no opinion, and whom it contradicts."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from autolink.errors import Reason, Refused, UsageError
from autolink.identity import AutoId, Credential, PeerId, TrustAnchor, key_authority
from autolink.trust import (
    AllOf,
    AnyOf,
    Context,
    Contradicted,
    Grounds,
    IssuedBy,
    KnownAgents,
    Model,
    NotVouched,
    Pinned,
    Presented,
    SelfCertified,
    UnsafeAllOf,
    UnsafeAnyOf,
    UnsafeAnyone,
    judge,
    present,
)

Ders = Callable[[Credential], list[bytes]]


class Says(Model):
    """Does as it is told."""

    def __init__(self, what: Any) -> None:
        self.what = what
        self.asked = 0

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        self.asked += 1
        if isinstance(self.what, BaseException):
            raise self.what
        answer: Grounds = self.what
        return answer


YES = Grounds("Says", "yes")


def no() -> Says:
    return Says(NotVouched("no opinion"))


def never() -> Says:
    return Says(Contradicted("never"))


async def refusal_of(model: Model, chain: list[bytes], context: Context, **more: Any) -> Refused:
    with pytest.raises(Refused) as refusal:
        await judge(model, chain, context=context, **more)
    assert refusal.value.by == "us"
    return refusal.value


async def test_an_issued_agent_is_believed_by_its_organisations_anchor(
    acme: Credential, echo: Credential, ders: Ders, inbound: Context
) -> None:
    """IssuedBy with a bound anchor: the peer is its AutoId, bound, and the verdict ends with the leaf."""
    peer = await judge(IssuedBy(acme.anchor), ders(echo), context=inbound)
    assert peer.peer_id == echo.peer_id == PeerId(echo.auto_id, "bound")
    assert peer.name == "echo"
    assert peer.kind is not None
    assert not peer.kind.natural
    assert peer.grounds.model == "IssuedBy"
    assert peer.valid_until == echo.leaf.not_after
    assert peer.leaf == peer.chain[0]
    assert peer.key_proved_at is None


async def test_a_plain_anchor_is_the_authority_of_its_peers(
    organisation: Any, agent: Any, ders: Ders, inbound: Context
) -> None:
    """Below a plain name the authority is the anchor's key, at any depth."""
    globex = organisation("globex", plain=True)
    deep = agent("echo", agent("sales", globex, may_issue=0))
    peer = await judge(IssuedBy(globex.anchor), ders(deep), context=inbound)
    assert peer.peer_id == PeerId(deep.auto_id, key_authority(globex.leaf.spki_sha256))


async def test_a_foreign_root_is_an_unknown_issuer(
    organisation: Any, echo: Credential, ders: Ders, inbound: Context
) -> None:
    """IssuedBy has no opinion about other organisations, and the refusal says why."""
    refused = await refusal_of(IssuedBy(organisation("globex").anchor), ders(echo), inbound)
    assert refused.reason is Reason.UNKNOWN_ISSUER


async def test_a_plain_name_under_another_key_is_an_impostor(
    organisation: Any, agent: Any, ders: Ders, inbound: Context
) -> None:
    """Anybody can make a CA 'globex' and issue 'echo' with the very same AutoId: the anchor contradicts."""
    real, fake = organisation("globex", plain=True), organisation("globex", plain=True)
    assert agent("echo", real).auto_id == agent("echo", fake).auto_id
    refused = await refusal_of(IssuedBy(real.anchor), ders(agent("echo", fake)), inbound)
    assert refused.reason is Reason.IMPOSTOR


async def test_rule_25_issued_by_refuses_the_anchor_itself(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """A self-issued certificate alone is judged by its key, never by having been issued."""
    refused = await refusal_of(IssuedBy(acme.anchor), ders(acme), inbound)
    assert refused.reason is Reason.NOT_VOUCHED
    assert (await judge(SelfCertified(), ders(acme), context=inbound)).peer_id == acme.peer_id


def test_anchors_that_contradict_each_other_are_an_error(organisation: Any) -> None:
    """One plain name with two keys is two authorities, unless one anchor declares both; no anchor is an error."""
    one, two = organisation("globex", plain=True), organisation("globex", plain=True)
    with pytest.raises(UsageError, match="different keys"):
        IssuedBy(one.anchor, two.anchor)
    with pytest.raises(UsageError):
        IssuedBy()
    IssuedBy(one.anchor, one.anchor)


async def test_one_authority_may_declare_several_keys(
    organisation: Any, agent: Any, ders: Ders, inbound: Context
) -> None:
    """Peers below either key share one authority, so a renewed root does not make them strangers."""
    one, two = organisation("globex", plain=True), organisation("globex", plain=True)
    both = IssuedBy(TrustAnchor((one.leaf, two.leaf)))
    peers = {(await judge(both, ders(agent("echo", root)), context=inbound)).peer_id for root in (one, two)}
    assert len(peers) == 1


async def test_rule_21_self_certified_believes_bound_paths_only(
    acme: Credential, echo: Credential, organisation: Any, ders: Ders, inbound: Context
) -> None:
    """A stranger, but exactly that stranger; a plain name proves nothing alone."""
    for credential in (acme, echo):
        assert (await judge(SelfCertified(), ders(credential), context=inbound)).peer_id == credential.peer_id
    refused = await refusal_of(SelfCertified(), ders(organisation("globex", plain=True)), inbound)
    assert refused.reason is Reason.NOT_VOUCHED


async def test_a_pin_believes_exactly_its_peer(
    echo: Credential, acme: Credential, ders: Ders, inbound: Context
) -> None:
    """By PeerId or by certificate; others are not pinned; an empty set believes nobody."""
    for pin in (echo.peer_id, echo.leaf):
        assert (await judge(Pinned(pin), ders(echo), context=inbound)).peer_id == echo.peer_id
        assert (await refusal_of(Pinned(pin), ders(acme), inbound)).reason is Reason.NOT_VOUCHED
    assert (await refusal_of(Pinned(), ders(echo), inbound)).reason is Reason.NOT_VOUCHED


async def test_a_pin_contradicts_its_name_under_another_key(
    organisation: Any, ders: Ders, inbound: Context
) -> None:
    """Pinned is authoritative for its ids, whatever root or key another bearer shows."""
    real, fake = organisation("globex", plain=True), organisation("globex", plain=True)
    refused = await refusal_of(Pinned(real.peer_id) | Says(YES), ders(fake), inbound)
    assert refused.reason is Reason.IMPOSTOR


async def test_a_pinned_key_makes_a_key_principal(echo: Credential, ders: Ders, inbound: Context) -> None:
    """A key alone says nothing about the name, with the complete path or without."""
    key = PeerId(None, key_authority(echo.leaf.spki_sha256))
    for chain in (ders(echo), ders(echo)[:1]):
        assert (await judge(Pinned(key), chain, context=inbound)).peer_id == key


async def test_pins_change_and_tell(acme: Credential, echo: Credential, ders: Ders, inbound: Context) -> None:
    """Adding and removing takes effect at once, moves the epoch and calls whoever asked to be told."""
    told: list[int] = []
    pins = Pinned()
    model = pins & SelfCertified() | Pinned(acme.peer_id)
    stop = model.on_change(lambda: told.append(model.epoch))
    before = model.epoch
    pins.add(echo.peer_id)
    await judge(model, ders(echo), context=inbound)
    pins.remove(echo.peer_id)
    await refusal_of(model, ders(echo), inbound)
    assert told == [before + 1, before + 2]
    stop()
    pins.add(echo.peer_id)
    assert len(told) == 2
    with pytest.raises(UsageError, match="remove that first"):
        pins.add(echo.leaf)


async def test_rule_23_unsafe_anyone_yields_key_principals_only(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """The name that an unchecked peer claims is nobody's; what was proved is its key."""
    peer = await judge(UnsafeAnyone(), ders(acme), context=inbound)
    assert peer.auto_id is None
    assert peer.principal == f"key:{key_authority(acme.leaf.spki_sha256)}"
    both = await judge(UnsafeAnyone() & Says(YES), ders(acme), context=inbound)
    assert both.auto_id is None


def test_rule_23_a_combination_with_unsafe_says_so(acme: Credential) -> None:
    """However it is combined, and however deep, the type's name has Unsafe in it; without, it has not."""
    anyone, safe = UnsafeAnyone(), IssuedBy(acme.anchor)
    combined = [
        anyone | safe,
        safe | anyone,
        AnyOf(safe, anyone),
        safe | (safe & anyone),
        (anyone & anyone) | safe,
    ]
    assert all("Unsafe" in type(model).__name__ and model.unsafe for model in combined)
    assert isinstance(anyone | safe, UnsafeAnyOf)
    assert isinstance(AllOf(anyone, safe), UnsafeAllOf)
    assert type(safe | safe) is AnyOf
    assert type(safe & safe) is AllOf


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
def test_a_combination_of_nothing_is_an_error(kind: type[Model]) -> None:
    """An empty list would read as consent."""
    with pytest.raises(UsageError, match="at least one"):
        kind()


async def test_rule_20_any_of_cannot_be_used_to_impersonate(
    organisation: Any, agent: Any, ders: Ders, inbound: Context
) -> None:
    """A false 'globex' issues 'echo': whoever else would vouch, and in whatever order, the anchor's no is final."""
    real, fake = organisation("globex", plain=True), organisation("globex", plain=True)
    issued = IssuedBy(real.anchor)
    chain = ders(agent("echo", fake))
    models = [issued | Says(YES), Says(YES) | issued, UnsafeAnyone() | issued, (Says(YES) & issued) | Says(YES),
              (no() & issued) | Says(YES)]  # fmt: skip
    for model in models:
        assert (await refusal_of(model, chain, inbound)).reason is Reason.IMPOSTOR
    real_chain = ders(agent("echo", real))
    assert (await judge(UnsafeAnyone() | no() | issued, real_chain, context=inbound)).auto_id is None
    assert (await judge(issued | UnsafeAnyone(), real_chain, context=inbound)).auto_id is not None


@pytest.mark.parametrize("answer", [ValueError("database is down"), TimeoutError(), None, True])
async def test_rule_20_a_member_that_fails_counts_as_a_contradiction(
    answer: Any, acme: Credential, ders: Ders, inbound: Context
) -> None:
    """It might have been about to object; a model that returns a bool has failed too. The wire says `internal`."""
    for model in (Says(answer), Says(YES) | Says(answer), Says(YES) & Says(answer)):
        refused = await refusal_of(model, ders(acme), inbound)
        assert refused.reason is Reason.INTERNAL
        assert "Says" in refused.detail


async def test_an_impostor_outweighs_a_model_that_broke(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """Both are contradictions; the one that tells more is reported, and every member was asked."""
    last = Says(YES)
    refused = await refusal_of(AnyOf(Says(ValueError()), never(), last), ders(acme), inbound)
    assert refused.reason is Reason.IMPOSTOR
    assert last.asked == 1


async def test_all_of_needs_everybody_and_ends_with_the_first(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """One abstention refuses; together the grounds end with the earliest, and rest on the first authority named."""
    soon = inbound.now + timedelta(minutes=5)
    model = Says(YES) & Says(replace(YES, valid_until=soon)) & SelfCertified()
    peer = await judge(model, ders(acme), context=inbound)
    assert peer.valid_until == soon
    assert "Says: yes and" in peer.grounds.text
    assert (await refusal_of(Says(YES) & no(), ders(acme), inbound)).reason is Reason.NOT_VOUCHED


async def test_any_of_is_asked_again_when_the_first_of_its_grounds_ends(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """Whoever vouched until then may contradict afterwards; whose grounds count does not matter."""
    soon = inbound.now + timedelta(minutes=5)
    for model in (
        Says(YES) | Says(replace(YES, valid_until=soon)),
        Says(replace(YES, valid_until=soon)) | Says(YES),
    ):
        assert (await judge(model, ders(acme), context=inbound)).valid_until == soon
    past = Says(replace(YES, valid_until=inbound.now - timedelta(seconds=1)))  # is as if it abstained
    for model in (Says(YES) | no(), Says(YES) | past):
        assert (await judge(model, ders(acme), context=inbound)).valid_until == acme.leaf.not_after


async def test_the_most_telling_abstention_is_reported(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """`unknown_issuer` says more than `not_vouched`; all texts are kept."""
    model = no() | Says(NotVouched("a stranger's root", Reason.UNKNOWN_ISSUER)) | no()
    refused = await refusal_of(model, ders(acme), inbound)
    assert refused.reason is Reason.UNKNOWN_ISSUER
    assert "no opinion" in refused.detail
    assert "stranger's root" in refused.detail


async def test_a_model_that_hangs_ends_with_its_callers_deadline(
    acme: Credential, ders: Ders, inbound: Context
) -> None:
    """judge() leaves time to its caller, and does not turn a cancellation into an opinion."""

    class Hangs(Model):
        async def verify(self, presented: Presented, context: Context) -> Grounds:
            await anyio.sleep_forever()
            raise AssertionError

    with anyio.CancelScope() as scope:
        scope.cancel()
        await judge(Says(YES) | Hangs(), ders(acme), context=inbound)
    assert scope.cancelled_caught


async def test_rule_24_an_incomplete_path_is_only_a_key(
    echo: Credential, acme: Credential, ders: Ders, inbound: Context
) -> None:
    """No model of names vouches for it, and one that does vouch vouches for a key."""
    alone = ders(echo)[:1]
    assert (await refusal_of(IssuedBy(acme.anchor), alone, inbound)).reason is Reason.UNKNOWN_ISSUER
    assert (await refusal_of(SelfCertified(), alone, inbound)).reason is Reason.NOT_VOUCHED
    assert (await judge(Says(YES), alone, context=inbound)).auto_id is None


def test_the_docstring_model_of_a_user_needs_no_constructor_call(
    acme: Credential, ders: Ders, now: datetime
) -> None:
    """A Model subclass that never calls super().__init__ has an epoch and listeners all the same."""
    model = Says(YES)
    assert model.epoch == 0
    model.on_change(lambda: None)()
    assert present(ders(acme), now=now).auto_id == AutoId.derive(acme.name)


def test_models_show_themselves_without_secrets_or_surprises(acme: Credential, echo: Credential) -> None:
    """For logs: what each believes, in the words that made it."""
    model = (IssuedBy(acme.anchor) & SelfCertified()) | Pinned(echo.peer_id) | UnsafeAnyone()
    shown = repr(model)
    assert shown.startswith("UnsafeAnyOf(AnyOf(AllOf(IssuedBy(acme~")
    assert shown.endswith(f"Pinned({echo.auto_id})), UnsafeAnyone())")


def test_a_certificate_without_an_auto_id_pins_nothing(forge: Any) -> None:
    """Its name would be pinned to a claim that it does not make."""
    with pytest.raises(UsageError, match="pin its key"):
        Pinned(forge("acme", names=[]).certificate)


@pytest.mark.parametrize("known", ["pinned", "known"])
async def test_rule_20_below_an_issuer_whose_key_is_known_nobody_else_issues(
    known: str, organisation: Any, agent: Any, ders: Any, dialled: Context, tmp_path: Path
) -> None:
    """Whoever pinned globex, or remembered it, does not meet a stranger's globex/echo on first use."""
    globex, impostor = (organisation("globex", plain=True) for _ in range(2))
    first_use = KnownAgents(tmp_path / "known", on_first="accept")
    model: Model = first_use
    if known == "known":
        first_use.accept(globex.peer_id, "globex")
    else:
        model = Pinned(globex.peer_id) | first_use
    with pytest.raises(Refused) as refusal:
        await judge(model, ders(agent("echo", impostor)), context=dialled)
    assert refusal.value.reason is Reason.IMPOSTOR
    assert "globex" in refusal.value.detail or globex.auto_id.hex in refusal.value.detail
    peer = await judge(model, ders(agent("echo", globex)), context=dialled)
    assert peer.name == "echo"
