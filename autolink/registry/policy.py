"""Who may register: a registry's house rule, apart from the log's rules, which everybody can check.

A name is taken for ever, so whoever may take names without limit takes the dictionary. By default only those who were
invited register themselves; whoever is on record registers what it issues, for that is below its own name. All else that
an entry does is decided by its signatures, and by nobody's leave.
"""

from collections.abc import Callable, Container, Iterable
from typing import Final, Protocol, final

from autolink import limits
from autolink.errors import EntryRefused, Fault
from autolink.identity import AutoId
from autolink.registry.entries import Entry, Op
from autolink.trust import VerifiedPeer


class Policy(Protocol):
    """Whether an entry may be submitted, before the log's rules are asked."""

    def check(self, entry: Entry, peer: VerifiedPeer) -> None:
        """Let an entry of well-formed bytes pass, or not.

        Raises:
            EntryRefused: NOT_INVITED or TOO_MANY.
        """


class Rate:
    """How many entries one submitter may bring: `burst` at once, and `each_minute` in the long run.

    Bounded: the submitters of longest ago are forgotten first, which gives them at most one burst more.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        each_minute: float = limits.ENTRIES_A_MINUTE,
        burst: int = limits.ENTRIES_BURST,
    ) -> None:
        self._clock, self._each_second, self._burst = clock, each_minute / 60, float(burst)
        self._left: dict[str, tuple[float, float]] = {}  # what is left, and when it was

    def take(self, who: str) -> None:
        """One entry more.

        Raises:
            EntryRefused: TOO_MANY.
        """
        now = self._clock()
        left, then = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._each_second)
        enough = left >= 1
        self._left[who] = (left - 1 if enough else left, now)
        if len(self._left) > limits.SUBMITTERS:
            del self._left[next(iter(self._left))]
        if not enough:
            raise EntryRefused(Fault.TOO_MANY, "too many entries from you: wait a minute, and send fewer")


@final
class Open:
    """Whoever can open a link registers, at a limited rate."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    def check(self, entry: Entry, peer: VerifiedPeer) -> None:
        self._rate.take(peer.principal)


@final
class Invited:
    """Self-issued IDs register if they were invited; what an ID on record has issued needs no invitation.

    Args:
        rate: of all entries.
        invited: Auto IDs; may change at any time (`invite`).
        also: more of them, asked each time, such as a `folder.InvitedFile`.
    """

    def __init__(
        self, rate: Rate, invited: Iterable[AutoId] = (), *, also: Container[AutoId] = frozenset()
    ) -> None:
        self._rate = rate
        self._invited: Final = set(invited)
        self._also = also

    def invite(self, auto_id: AutoId) -> None:
        """Let one more register itself."""
        self._invited.add(auto_id)

    def check(self, entry: Entry, peer: VerifiedPeer) -> None:
        self._rate.take(peer.principal)
        if entry.op is not Op.REGISTER or entry.issuer is not None:
            return
        if entry.auto_id not in self._invited and entry.auto_id not in self._also:
            raise EntryRefused(Fault.NOT_INVITED, "this registry takes only those whom it has invited")
