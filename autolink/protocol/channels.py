"""The channels of one link: their numbers, and the credit of each direction.

Theory of operation. The dialer numbers its channels 1, 3, 5, …, the listener 2, 4, 6, …, each only upwards, so one
number per party tells a channel that is over from one that never was, and nothing else is kept of those that are over.

Credit. Each direction has a window, which its receiver announced in HELLO, and a count of the bytes of leaves and
of the data beside them that are *outstanding*: sent, and not given back by CREDIT. An item may be sent when

    outstanding + size <= window     or     outstanding <= window / 2

and the receiver, whose own count is never higher than the sender's (its CREDIT may still be under way), checks the
same inequality. The second half is for messages larger than the window: one may overdraw it. It says "half", not
"none outstanding", because credit need not be given back before half of the window has gathered: with "none" a sender
with a little outstanding and a large message, and a receiver that has read everything, would wait for each other for
ever. We give it back at a third, so that it arrives before the sender has used up the rest. A channel thus holds at
most half a window and one message, or a whole window, at its receiver.

All of it is symmetric: `OURS` and `THEIRS` index whoever acts, and whoever calls turns a `Violation` into an error of
the right party. Every method changes everything or, when it raises, nothing.
"""

from collections.abc import Iterable
from typing import Final

from autolink.protocol.frames import LAST_CHANNEL, OPENS, OwnItem
from autolink.protocol.table import OVER, Act, DirectionState, Violation, step_channel

OURS: Final = 0
THEIRS: Final = 1

_UNOPENED: Final = DirectionState.UNOPENED  # looked up on its enumeration, a member costs as much as a call
_OPEN: Final = DirectionState.OPEN
_ENDED: Final = DirectionState.ENDED
_CANCELLED: Final = DirectionState.CANCELLED


class Direction:
    """One direction of one channel. `returnable`: bytes that were read and not yet given back as credit."""

    __slots__ = ("outstanding", "returnable", "state")

    def __init__(self) -> None:
        self.state = _UNOPENED
        self.outstanding = 0
        self.returnable = 0


_Channel = tuple[Direction, Direction]
"""Ours and theirs."""

_After = tuple[_Channel | None, DirectionState, int]
"""What a batch leaves of one channel: None if the channel is new to us, then the sender's direction."""


class Channels:
    """Both parties' channels on one link.

    Args:
        dialer: whether we dialled.
        window: bytes of credit that we give on each channel.
        most: channels that the peer may have open.

    Attributes:
        open: how many each party has open; those that are allotted count as ours.
    """

    def __init__(self, dialer: bool, window: int, most: int) -> None:
        self._even = THEIRS if dialer else OURS
        self._window = [0, window]
        self._most = [0, most]
        self._channels: dict[int, _Channel] = {}
        self._highest = [0, 0]
        self._next = 1 if dialer else 2
        self.open = [0, 0]

    def peer_allows(self, window: int, most: int) -> None:
        """The peer's HELLO: its credit on each channel, and how many we may open."""
        self._window[OURS], self._most[OURS] = window, most

    def __contains__(self, number: int) -> bool:
        """Whether the channel is open or allotted."""
        return number in self._channels

    # --- ours alone ----------------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """How many more channels of ours the peer would bear now."""
        return self._most[OURS] - self.open[OURS] if self._next <= LAST_CHANNEL else 0

    def highest(self, opener: int) -> int:
        """The highest channel that a party has opened, or 0."""
        return self._highest[opener]

    def allot(self) -> int:
        """The number of a new channel of ours; its first item must open it.

        Raises:
            Violation: the peer allows no more, or the numbers are used up.
        """
        if not self.places:
            raise Violation(f"{self.open[OURS]} channels are open, the peer allows no more")
        number = self._next
        self._next += 2
        self._channels[number] = (Direction(), Direction())
        self.open[OURS] += 1
        return number

    def can_send(self, number: int, size: int, waiting: int) -> bool:
        """Whether an item of `size` bytes may follow `waiting` bytes that are not sent yet."""
        channel = self._channels.get(number)
        if channel is None or (direction := channel[OURS]).state in OVER:
            return False
        outstanding, window = direction.outstanding + waiting, self._window[OURS]
        return outstanding + size <= window or 2 * outstanding <= window

    def consumed(self, number: int, size: int) -> int:
        """The application read `size` bytes of the peer's: the credit to give back now, mostly 0."""
        channel = self._channels.get(number)
        if channel is None:
            return 0
        ours, theirs = channel
        if ours.state is _CANCELLED or theirs.state is not _OPEN:
            return 0
        theirs.returnable = min(theirs.returnable + size, theirs.outstanding)
        return theirs.returnable if 3 * theirs.returnable >= self._window[THEIRS] else 0

    def must_cancel(self, number: int) -> bool:
        """Whether leaving the channel now takes a CANCEL, because a direction is open and we have sent none."""
        channel = self._channels.get(number)
        return channel is not None and channel[OURS].state is not _CANCELLED

    # --- both parties --------------------------------------------------------------------------------------

    def items(self, sender: int, items: Iterable[OwnItem]) -> tuple[list[int], list[int]]:
        """A batch of the sender's.

        Returns:
            The channels that it opened, and those whose items their receiver has cancelled.

        Raises:
            Violation: an item does not fit its channel, its credit, or what may be opened.
        """
        window = self._window[sender]
        after: dict[int, _After] = {}
        opened: list[int] = []
        for number, flags, leaf, data in items:
            before = after.get(number)
            if before is not None:
                channel, state, outstanding = before
            elif flags & OPENS:
                self._check_opening(sender, number, opened)
                opened.append(number)
                channel, state, outstanding = self._channels.get(number), _UNOPENED, 0
            else:
                channel = self._known(number)
                if channel is None:
                    raise Violation(f"channel {number}: an item after both directions ended")
                direction = channel[sender]
                state, outstanding = direction.state, direction.outstanding
            size = len(leaf) + len(data) if data else len(leaf)
            if outstanding + size > window and 2 * outstanding > window:
                raise Violation(f"channel {number}: {size} bytes with {outstanding} of {window} outstanding")
            if flags or state is not _OPEN:  # else the table says that nothing changes
                state = step_channel(state, flags, number)
            after[number] = channel, state, outstanding + size
        return opened, self._apply(sender, after)

    def credit(self, sender: int, number: int, count: int) -> None:
        """CREDIT: the sender gives back `count` bytes of the other's direction.

        Raises:
            Violation: nothing, or more than is outstanding, or on a channel that never was.
        """
        if count == 0:
            raise Violation(f"channel {number}: a credit of nothing")
        channel = self._known(number)
        if channel is None:
            return
        after = step_channel(channel[sender].state, Act.CREDIT, number)
        direction = channel[1 - sender]
        if count > direction.outstanding:
            raise Violation(
                f"channel {number}: a credit of {count} where {direction.outstanding} are outstanding"
            )
        channel[sender].state = after
        direction.outstanding -= count
        direction.returnable = max(0, direction.returnable - count)

    def cancel(self, sender: int, number: int) -> bool:
        """CANCEL. Returns whether the channel is over; it is not while the other direction is open.

        Raises:
            Violation: the sender has cancelled it before, or it never was.
        """
        channel = self._known(number)
        if channel is None:
            return True
        channel[sender].state = step_channel(channel[sender].state, Act.CANCEL, number)
        return self._forget_if_over(number, channel)

    def withdraw(self, number: int) -> bool:
        """Forget a channel of ours that was allotted and never opened; False if it is none."""
        channel = self._channels.get(number)
        if channel is None or channel[OURS].state is not _UNOPENED:
            return False
        del self._channels[number]
        self.open[OURS] -= 1
        return True

    def table(self) -> dict[int, tuple[tuple[DirectionState, int], tuple[DirectionState, int]]]:
        """State and outstanding bytes of our and of their direction of every channel that is not over."""
        return {
            number: ((ours.state, ours.outstanding), (theirs.state, theirs.outstanding))
            for number, (ours, theirs) in self._channels.items()
        }

    # --- within --------------------------------------------------------------------------------------------

    def _opener(self, number: int) -> int:
        return self._even ^ (number & 1)

    def _known(self, number: int) -> _Channel | None:
        """A channel that was opened, or None when it is over."""
        channel = self._channels.get(number)
        if channel is not None and channel[OURS].state is not _UNOPENED:
            return channel
        if not 0 < number <= self._highest[self._opener(number)]:
            raise Violation(f"channel {number} was never opened")
        return channel

    def _check_opening(self, sender: int, number: int, opened: list[int]) -> None:
        if self._even ^ (number & 1) != sender or not 0 < number <= LAST_CHANNEL:
            raise Violation(f"channel {number} is not one that this party may open")
        if number <= (opened[-1] if opened else self._highest[sender]):
            raise Violation(f"channel {number} opened out of order")
        if sender == OURS:
            if number not in self._channels:
                raise Violation(f"channel {number} was not allotted by open_channel")
        elif self.open[sender] + len(opened) >= self._most[sender]:
            raise Violation(f"channel {number} opened where {self._most[sender]} are open already")

    def _apply(self, sender: int, after: dict[int, _After]) -> list[int]:
        dropped: list[int] = []
        receiver = 1 - sender
        for number, (channel, state, outstanding) in after.items():
            if channel is None:
                channel = self._channels[number] = (Direction(), Direction())
                self.open[sender] += 1
            direction, other = channel[sender], channel[receiver]
            if direction.state is _UNOPENED:
                other.state = _OPEN
                self._highest[sender] = number
            direction.state, direction.outstanding = state, outstanding
            if other.state is not _OPEN:
                if other.state is _CANCELLED:
                    dropped.append(number)
                if state is _ENDED:
                    self._forget(number)
        return dropped

    def _forget(self, number: int) -> None:
        del self._channels[number]
        self.open[self._even ^ (number & 1)] -= 1

    def _forget_if_over(self, number: int, channel: _Channel) -> bool:
        over = channel[OURS].state in OVER and channel[THEIRS].state in OVER
        if over:
            self._forget(number)
        return over
