"""Models made of models.

Every member is asked, always: a contradiction by the last one must be heard though the first one vouched or
abstained. A member that fails in any other way than by `NotVouched` might have been about to contradict, so
it counts as having done so. Time is the caller's: a member that hangs is ended by the deadline around the
whole judgement.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

from autolink.errors import Reason, UsageError
from autolink.identity import AutoId
from autolink.trust.model import Context, Contradicted, Grounds, Listener, Model, NotVouched
from autolink.trust.presented import Presented


async def consult(model: Model, presented: Presented, context: Context) -> Grounds:
    """Ask one model; whatever goes wrong inside it is a contradiction.

    Raises:
        NotVouched, Contradicted: as the model says; the latter with `Reason.INTERNAL` for its own failure.
    """
    name = type(model).__name__
    try:
        grounds: object = await model.verify(presented, context)
    except (NotVouched, Contradicted):
        raise
    except Exception as error:  # foreign code: counts as a contradiction, its cause kept
        raise Contradicted(
            f"trust model {name} failed: {type(error).__name__}: {error}", Reason.INTERNAL
        ) from error
    if isinstance(grounds, Grounds):
        return grounds
    raise Contradicted(f"trust model {name} returned {type(grounds).__name__}, not Grounds", Reason.INTERNAL)


def settles(grounds: Grounds, presented: Presented) -> bool:
    """Whether these grounds leave nothing open: where the root's name does not lead to its key, they are the word of the
    very log that the root names."""
    log = presented.succeeds_in
    return log is None or (grounds.succeeds and grounds.authority == log)


class _Combined(Model):
    """What AllOf and AnyOf share: members, their changes, and a type name that tells of unsafe ones."""

    def __new__(cls, *members: Model) -> Self:
        if not all(isinstance(member, Model) for member in members):
            raise UsageError("& and | join trust models, such as IssuedBy(TrustAnchor.load('acme.pem'))")
        if any(member.unsafe for member in members) and not cls.unsafe:
            return super().__new__(cls._unsafe_twin())
        return super().__new__(cls)

    def __init__(self, *members: Model) -> None:
        if not members:  # nobody left to object would read as consent
            raise UsageError(f"{type(self).__name__} needs at least one trust model")
        self.members = members

    @classmethod
    @abstractmethod
    def _unsafe_twin(cls) -> type[Self]: ...

    @property
    def epoch(self) -> int:
        return sum(member.epoch for member in self.members)

    def epoch_of(self, ids: Sequence[AutoId]) -> int:
        return sum(member.epoch_of(ids) for member in self.members)

    def learn_from(self, before: Model) -> None:
        for member in self.members:
            member.learn_from(before)

    def rests_on(self, authority: str) -> bool:
        return any(member.rests_on(authority) for member in self.members)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return _all([member.on_change(callback) for member in self.members])

    def on_change_of(self, callback: Listener) -> Callable[[], None]:
        return _all([member.on_change_of(callback) for member in self.members])

    async def _ask_all(
        self, presented: Presented, context: Context
    ) -> tuple[list[Grounds], list[NotVouched]]:
        """Raises Contradicted after all were asked, if any did."""
        vouched: list[Grounds] = []
        abstained: list[NotVouched] = []
        contradiction: Contradicted | None = None
        for member in self.members:
            try:
                vouched.append(await consult(member, presented, context))
            except NotVouched as opinion:
                abstained.append(opinion)
            except Contradicted as opinion:
                # An impostor known for certain tells more than a model that broke.
                if contradiction is None or contradiction.reason is Reason.INTERNAL:
                    contradiction = opinion
        if contradiction:
            raise contradiction
        return vouched, abstained

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.members))})"


class AllOf(_Combined):
    """Every member vouches. The grounds end with the first of theirs.

    Raises:
        UsageError: no member.
    """

    @classmethod
    def _unsafe_twin(cls) -> type[Self]:
        return UnsafeAllOf  # type: ignore[return-value]  # a subclass of cls, which is AllOf

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        vouched, abstained = await self._ask_all(presented, context)
        if abstained:
            raise _most_telling(abstained)

        async def once_accepted() -> None:
            for grounds in vouched:
                if grounds.once_accepted:
                    await grounds.once_accepted()

        named = [grounds for grounds in vouched if grounds.authority]
        log = presented.succeeds_in
        settling = [grounds for grounds in named if log is not None and settles(grounds, presented)]
        return Grounds(
            type(self).__name__,
            " and ".join(map(str, vouched)),
            valid_until=_earliest(*(grounds.valid_until for grounds in vouched)),
            authority=next((grounds.authority for grounds in settling or named), None),
            succeeds=bool(settling),
            key_only=any(grounds.key_only for grounds in vouched),
            once_accepted=once_accepted if any(grounds.once_accepted for grounds in vouched) else None,
        )


class AnyOf(_Combined):
    """At least one member vouches and none contradicts. The first grounds count, those first that ask for
    nothing; but they end with the first of all, because who vouched until then may contradict afterwards.

    Raises:
        UsageError: no member.
    """

    @classmethod
    def _unsafe_twin(cls) -> type[Self]:
        return UnsafeAnyOf  # type: ignore[return-value]  # a subclass of cls, which is AnyOf

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        vouched, abstained = await self._ask_all(presented, context)
        if not vouched:
            raise _most_telling(abstained)
        # Who is vouched for already need not be learned, nor a person be asked about them.
        first = min(
            vouched,
            key=lambda grounds: (not settles(grounds, presented), grounds.once_accepted is not None),
        )
        ends = (each.valid_until for each in vouched if each.valid_until and each.valid_until >= context.now)
        until = _earliest(first.valid_until, *ends)
        return first if until == first.valid_until else replace(first, valid_until=until)


class UnsafeAllOf(AllOf):
    """What `&` makes when a member vouches for anyone."""

    unsafe = True


class UnsafeAnyOf(AnyOf):
    """What `|` makes when a member vouches for anyone."""

    unsafe = True


def _all(removers: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def remove() -> None:
        for remover in removers:
            remover()

    return remove


def _most_telling(abstained: list[NotVouched]) -> NotVouched:
    """All their texts, under the first reason that says more than that nobody vouched."""
    reasons = (opinion.reason for opinion in abstained if opinion.reason is not Reason.NOT_VOUCHED)
    return NotVouched("; ".join(map(str, abstained)), next(reasons, Reason.NOT_VOUCHED))


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
