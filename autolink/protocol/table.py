"""What may follow what: the two tables of the link protocol, and nothing else.

Theory of operation. A link has two parties, a channel has two directions, and both halves of each obey the same
rules, so the tables know neither who dialled nor which party we are: the same entry allows us to send a frame and
the peer to send it to us. Whatever is not in a table is an error: ours is a `LocalProtocolError` and nothing was sent,
the peer's a `RemoteProtocolError` and the link is over.

1. `LINK`: a party's state is what it has said so far; a frame of its own moves it. One rule joins the two parties:
   a party accepts only a peer that has greeted it (`step_link`). It may speak on channels from its own ACCEPT on,
   without waiting for the peer's; the receiver keeps those bytes unread until it has decided itself.

2. `CHANNEL`: each direction of a channel belongs to the party that sends in it. The opener's first item opens both
   directions. A direction ends once, by an item with ENDS or by CANCEL. CANCEL also says that the canceller drops
   whatever still arrives in the other direction, which then stays open until *its* sender ends it: CANCEL is answered
   by the end of the handler that it stops. Only when both directions have ended is the channel over and forgotten.

   Why an answer: each party knows exactly how many channels are open at the other (a frame that ends a channel
   precedes, in the same stream of bytes, the frame that uses its place), so opening too many is an error, not a
   race, and opening and cancelling in a loop (CVE-2023-44487) runs no faster than the handlers' own cleanup. And
   what arrives late is bounded by the credit that was out when the cancel was sent, since none is added.

An item's flags are its act's number: `Act(flags)`. The two acts that are no items have negative ones, which no flags
byte can name.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final

from autolink.protocol.frames import DATA, ENDS, OPENS, Frame


class Violation(Exception):
    """An act that the tables do not allow; becomes a LocalProtocolError or a RemoteProtocolError."""


class LinkState(StrEnum):
    """How far one party has come."""

    SILENT = "silent"
    GREETED = "greeted"
    OPEN = "open"
    DRAINING = "draining"
    REFUSED = "refused"


class DirectionState(StrEnum):
    """How far one direction of a channel has come."""

    UNOPENED = "unopened"
    OPEN = "open"
    ENDED = "ended"
    CANCELLED = "cancelled"


class Act(IntEnum):
    """What the owner of a direction does on its channel."""

    ITEM = 0
    OPENING = OPENS
    LAST = ENDS
    ONLY = OPENS | ENDS
    DATA = DATA
    CREDIT = -1
    CANCEL = -2


_SPEECH: Final = {
    Frame.BATCH: LinkState.OPEN,
    Frame.CREDIT: LinkState.OPEN,
    Frame.CANCEL: LinkState.OPEN,
    Frame.PING: LinkState.OPEN,
    Frame.PONG: LinkState.OPEN,
    Frame.EVIDENCE: LinkState.OPEN,
    Frame.EXTENSION: LinkState.OPEN,
    Frame.REFUSE: LinkState.REFUSED,
}

LINK: Final[Mapping[LinkState, Mapping[Frame, LinkState]]] = {
    LinkState.SILENT: {Frame.HELLO: LinkState.GREETED, Frame.REFUSE: LinkState.REFUSED},
    LinkState.GREETED: {Frame.ACCEPT: LinkState.OPEN, Frame.REFUSE: LinkState.REFUSED},
    LinkState.OPEN: {**_SPEECH, Frame.GOAWAY: LinkState.DRAINING},
    LinkState.DRAINING: {
        frame: LinkState.DRAINING if after is LinkState.OPEN else after for frame, after in _SPEECH.items()
    },
    LinkState.REFUSED: {},
}

CHANNEL: Final[Mapping[DirectionState, Mapping[int, DirectionState]]] = {
    DirectionState.UNOPENED: {Act.OPENING: DirectionState.OPEN, Act.ONLY: DirectionState.ENDED},
    DirectionState.OPEN: {
        Act.ITEM: DirectionState.OPEN,
        Act.LAST: DirectionState.ENDED,
        Act.DATA: DirectionState.OPEN,
        Act.CREDIT: DirectionState.OPEN,
        Act.CANCEL: DirectionState.CANCELLED,
    },
    DirectionState.ENDED: {Act.CREDIT: DirectionState.ENDED, Act.CANCEL: DirectionState.CANCELLED},
    DirectionState.CANCELLED: {},
}

ACCEPTED: Final = frozenset({LinkState.OPEN, LinkState.DRAINING})
OVER: Final = frozenset({DirectionState.ENDED, DirectionState.CANCELLED})


def step_link(sender: LinkState, other: LinkState, frame: Frame) -> LinkState:
    """The sender's state after `frame`.

    Raises:
        Violation: the frame is not allowed now.
    """
    after = LINK[sender].get(frame)
    if after is None:
        raise Violation(f"{frame.name} from a party that is {sender}")
    if frame is _ACCEPT and other is LinkState.SILENT:
        raise Violation("ACCEPT before the other party's HELLO")
    if other is _REFUSED and after is not _REFUSED:
        raise Violation(f"{frame.name} to a party that has refused")
    return after


def step_channel(state: DirectionState, act: int, number: int) -> DirectionState:
    """The state of a direction of channel `number` after its owner's `act`.

    Raises:
        Violation: the act is not allowed now.
    """
    after = CHANNEL[state].get(act)
    if after is None:
        name = Act(act).name if act in _ACTS else f"flags {act}"
        raise Violation(f"channel {number}: {name} in a direction that is {state}")
    return after


_ACTS: Final = frozenset(Act)
_ACCEPT: Final = Frame.ACCEPT  # looked up on its enumeration, a member costs as much as a call
_REFUSED: Final = LinkState.REFUSED
