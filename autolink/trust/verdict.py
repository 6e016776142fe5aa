"""The one place where a peer becomes verified."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from datetime import datetime
from typing import Final, final

from autolink.errors import Reason, Refused, UsageError
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.certificate import Certificate, EntityKind
from autolink.identity.names import show_name
from autolink.trust.cache import VerdictCache
from autolink.trust.compose import consult, settles
from autolink.trust.issuers import MEMORY
from autolink.trust.model import Context, Contradicted, Grounds, Model, NotVouched
from autolink.trust.presented import Presented, present

_JUDGED: Final = object()


@final
@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A peer that a trust model believed. Only `judge` makes one, so to hold one is to have asked.

    Attributes:
        peer_id: who it is: the AutoId with the authority behind it, or a key principal.
        grounds: why it was believed.
        presented: what it showed.
        valid_until: when the verdict ends: the earliest end of a certificate and of the grounds (aware,
            inclusive).
        key_proved_at: when TLS last proved that the peer holds the leaf's key; None where it did not, as
            for a message.
        epoch: the trust model's for this chain (`Model.epoch_of`) when it was asked; the verdict is one while it is that.
    """

    peer_id: PeerId
    grounds: Grounds
    presented: Presented
    valid_until: datetime
    key_proved_at: datetime | None
    epoch: int
    made_by: InitVar[object] = None

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _JUDGED:
            raise UsageError("only autolink.trust.judge makes a VerifiedPeer")

    @property
    def auto_id(self) -> AutoId | None:
        """None for a key principal."""
        return self.peer_id.auto_id

    @property
    def principal(self) -> str:
        return self.peer_id.principal

    @property
    def name(self) -> str:
        """The leaf's common name; of a key principal only its claim."""
        return self.presented.name

    @property
    def kind(self) -> EntityKind | None:
        """The issuer's word; self-asserted in a self-issued certificate."""
        return self.presented.kind

    @property
    def chain(self) -> tuple[Certificate, ...]:
        return self.presented.chain

    @property
    def leaf(self) -> Certificate:
        return self.presented.leaf

    def __str__(self) -> str:
        return f"{self.presented} ({self.peer_id})"


async def judge(
    model: Model,
    chain_der: Sequence[bytes],
    *,
    context: Context,
    evidence: Sequence[bytes] = (),
    cache: VerdictCache | None = None,
    expect: PeerId | None = None,
    key_proved_at: datetime | None = None,
) -> VerifiedPeer:
    """Judge a peer from everything it showed.

    The caller has had the leaf's key proved (by TLS, or a signature) and owns the deadline: a model that
    hangs is cancelled with it.

    Args:
        model: whom we believe.
        chain_der: DER as shown, leaf first.
        context: time and circumstances.
        evidence: what the peer sent for its standing.
        cache: of accepted verdicts.
        expect: whom we dialled. Satisfied by the PeerId that the verdict gives, and by any authority that
            the presented path itself shows (`Presented.shows`): two sides may anchor one path at different
            keys of it.
        key_proved_at: when TLS proved the leaf's key.

    Raises:
        Refused: by us, always; INTERNAL when the model itself failed. `__cause__` leads to what was wrong.
    """
    if cache is not None:
        known = recall(
            model, chain_der, context=context, evidence=evidence, cache=cache, expect=expect, key_proved_at=key_proved_at
        )  # fmt: skip
        if known is not None:
            return known
    now, key = context.now, VerdictCache.key(model, context, chain_der, evidence)
    presented = None if cache is None else cache.sound(key, now)
    if presented is None:
        presented = present(chain_der, evidence=evidence, now=now)
    if expect:
        _check_named(presented, expect)
    peer = await _ask(model, presented, context, expect)
    if presented.issuers:
        MEMORY.keep(presented.issuers)
    if cache is not None:
        cache.put(key, model, now, peer)
    return _proved(peer, key_proved_at)


def recall(
    model: Model,
    chain_der: Sequence[bytes],
    *,
    context: Context,
    evidence: Sequence[bytes],
    cache: VerdictCache,
    expect: PeerId | None,
    key_proved_at: datetime | None,
) -> VerifiedPeer | None:
    """The part of `judge` that asks nobody: a verdict on just this that still stands, or None.

    Raises:
        Refused: as `judge`.
    """
    key = VerdictCache.key(model, context, chain_der, evidence)
    try:
        peer = cache.get(key, context.now)
    except Exception as error:
        raise _broken(model, context.address, error) from error
    if peer is None:
        return None
    if expect:
        _check_named(peer.presented, expect)
        _check_authority(peer.presented, peer.peer_id, expect)
    return _proved(peer, key_proved_at)


def _proved(peer: VerifiedPeer, at: datetime | None) -> VerifiedPeer:
    if at is None:
        return peer
    return VerifiedPeer(peer.peer_id, peer.grounds, peer.presented, peer.valid_until, at, peer.epoch, _JUDGED)


def _broken(model: Model, who: str, error: Exception) -> Refused:
    """A model reads files or worse, also to know its epoch: foreign code, its cause is kept."""
    detail = f"trust model {type(model).__name__} failed: {type(error).__name__}: {error}"
    return Refused(Reason.INTERNAL, by="us", peer=who, detail=detail)


async def _ask(model: Model, presented: Presented, context: Context, expect: PeerId | None) -> VerifiedPeer:
    """From a sound chain to a verdict."""
    try:
        epoch = model.epoch_of(presented.ids)  # before it is asked: it may change its mind meanwhile
        grounds = _with_kind(await _settled(model, presented, context), presented)
        peer_id = _peer_id(presented, grounds)
        valid_until = min(presented.valid_until, grounds.valid_until or presented.valid_until)
        if valid_until < context.now:
            raise NotVouched(f"the grounds ended at {valid_until:%F %T} UTC: {grounds}")
        if expect:  # before anything is learned about the peer, and after the model, who may know an impostor
            _check_authority(presented, peer_id, expect)
        if grounds.once_accepted:
            await grounds.once_accepted()
    except (NotVouched, Contradicted) as opinion:
        who = _at(presented, context)
        raise Refused(opinion.reason, by="us", peer=who, detail=str(opinion)) from opinion
    except Refused:
        raise
    except Exception as error:  # a model's grounds or its last step broke: foreign code, its cause is kept
        raise _broken(model, _at(presented, context), error) from error
    return VerifiedPeer(peer_id, grounds, presented, valid_until, None, epoch, _JUDGED)


async def _settled(model: Model, presented: Presented, context: Context) -> Grounds:
    """The model's grounds. A name that does not lead to its key is an impostor's unless they are the word of its log."""
    try:
        grounds = await consult(model, presented, context)
    except NotVouched as opinion:
        if presented.succeeds_in is None:
            raise
        raise _unsettled(presented, opinion) from opinion
    if not settles(grounds, presented):
        raise _unsettled(presented, grounds)
    return grounds


def _unsettled(presented: Presented, instead: object) -> Contradicted:
    name, log = show_name(presented.root.common_name), presented.succeeds_in
    return Contradicted(f"{name} is bound to another key, and the log {log} does not vouch for it: {instead}")


def _at(presented: Presented, context: Context) -> str:
    return f"{presented} at {context.address}" if context.address else str(presented)


def _with_kind(grounds: Grounds, presented: Presented) -> Grounds:
    """A kind is the issuer's word. Where nobody else issued, the grounds say whose it is."""
    if presented.kind is None or len(presented.chain) > 1:
        return grounds
    return replace(grounds, text=f"{grounds.text}; {presented.kind} by its own word")


def _peer_id(presented: Presented, grounds: Grounds) -> PeerId:
    if grounds.key_only or not presented.complete:  # an incomplete path has no AutoId, whoever vouches
        return PeerId(None, key_authority(presented.leaf.spki_sha256))
    if presented.bound:
        return PeerId(presented.auto_id, BOUND)
    return PeerId(presented.auto_id, grounds.authority or key_authority(presented.root.spki_sha256))


def _check_named(presented: Presented, expect: PeerId) -> None:
    """Another name (or another key than the expected one) is another peer: the model need not be asked."""
    same = presented.shows(expect) if expect.auto_id is None else expect.auto_id == presented.auto_id
    if not same:
        raise Refused(Reason.WRONG_PEER, by="us", peer=str(presented), detail=f"expected {expect}")


def _check_authority(presented: Presented, peer_id: PeerId, expect: PeerId) -> None:
    if expect != peer_id and not presented.shows(expect):
        detail = f"expected {expect}: the name is right, the key is not"
        raise Refused(Reason.IMPOSTOR, by="us", peer=str(presented), detail=detail)
