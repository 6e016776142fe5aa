"""What the feed of a log has told, for as long as it counts against a status from before it (trust.py).

It is bounded, for somebody may revoke IDs of his own by the thousand: of too many the one that was told longest ago is
forgotten, and so is one that is older than another by more than a status may be. A status from before a forgotten change is
worth nothing, whoever's it is; by a log that is right about the time, those of the latter kind had aged anyway.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple, final

from autolink import limits
from autolink.identity import AutoId
from autolink.registry.feed import Change
from autolink.registry.records import SECOND

_APART: Final = 4
"""Rotations of one ID whose times are told apart; who rotates more often gives those below less time, not more."""


@final
class ToldOf(NamedTuple):
    """What is remembered of the changes of one ID.

    Attributes:
        newest: of them.
        ended_at: index of the newest after which those below are not believed as before; -1 if there was none. A rotation
            later on, such as of a key that was revoked, gives them no time.
        rotated: index and log time of the rotations since, in their order.
    """

    newest: Change
    ended_at: int
    rotated: tuple[tuple[int, int], ...]

    @classmethod
    def by(cls, change: Change) -> "ToldOf":
        """What one change tells."""
        if change.goes_on:
            return cls(change, -1, ((change.index, change.at),))
        return cls(change, change.index, ())

    def beside(self, other: "ToldOf") -> "ToldOf":
        """What both tell, in whatever order they were told."""
        ended_at = max(self.ended_at, other.ended_at)
        rotated = sorted(one for one in {*self.rotated, *other.rotated} if one[0] > ended_at)
        while len(rotated) > _APART:  # the oldest two as one, of the later place and the earlier time
            (_, first), (place, second), *later = rotated
            rotated = [(place, min(first, second)), *later]
        newest = max(self.newest, other.newest, key=lambda change: change.index)
        return ToldOf(newest, ended_at, tuple(rotated))

    def forgives_until(self, size: int) -> int:
        """Until when those below go on with a status from a log of `size` entries, where nothing but rotations of this ID
        came after it: each takes time from the first of them, and none adds any."""
        return min(at for index, at in self.rotated if index >= size) + int(limits.ROTATION_GRACE * SECOND)


@final
class Told:
    """The changes of a log that are remembered.

    Attributes:
        forgotten: a status under a log of fewer entries may be from before a change that is forgotten.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[AutoId, ToldOf] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, auto_id: AutoId) -> bool:
        return auto_id in self._told

    def of(self, ids: Iterable[AutoId]) -> list[ToldOf]:
        """What was told of these IDs, in their order."""
        return [self._told[auto_id] for auto_id in ids if auto_id in self._told]

    def take(self, change: Change) -> bool:
        """Remember a change; whether another one had to be forgotten for it."""
        return self._take(ToldOf.by(change))

    def learn_from(self, other: "Told") -> None:
        """Remember all that another one does."""
        self.forgotten = max(self.forgotten, other.forgotten)
        for told in other._told.values():  # noqa: SLF001  its own kind
            self._take(told)

    def _take(self, told: ToldOf) -> bool:
        auto_id = told.newest.auto_id
        self._told[auto_id] = told.beside(self._told.pop(auto_id, told))
        oldest, full = told.newest.at - int(limits.STATUS_AGE * SECOND), False
        while self._told:
            first = next(iter(self._told.values())).newest
            if first.at >= oldest:
                if len(self._told) <= limits.CHANGES_TOLD:
                    break
                full = True
            self.forgotten = max(self.forgotten, first.index + 1)
            del self._told[first.auto_id]
        return full
