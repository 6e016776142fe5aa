"""What each kind of message does to its channel, and which may come where. One table for both ends."""

from typing import Final

from autolink.messages import Kind
from autolink.protocol import ENDS, OPENS

_NONE: Final[frozenset[Kind]] = frozenset()
_ANSWER: Final = frozenset({Kind.REPLY, Kind.ERROR})
_ITEMS: Final = frozenset({Kind.ITEM, Kind.CHUNK, Kind.END})
FLAGS: Final = {
    Kind.CALL: OPENS | ENDS, Kind.FORWARD: OPENS | ENDS, Kind.SUBSCRIBE: OPENS | ENDS, Kind.OPEN: OPENS,
    Kind.ITEM: 0, Kind.CHUNK: 0, Kind.PUBLISH: 0, Kind.REPLY: ENDS, Kind.ERROR: ENDS, Kind.END: ENDS,
}  # fmt: skip
"""What each kind does to its channel; the unsigned flags beside a leaf must say the same."""

FROM_OPENER: Final = {Kind.CALL: _NONE, Kind.FORWARD: _NONE, Kind.SUBSCRIBE: _NONE, Kind.OPEN: _ITEMS}
TO_OPENER: Final = {
    Kind.CALL: _ANSWER, Kind.FORWARD: _ANSWER, Kind.OPEN: _ITEMS | {Kind.ERROR},
    Kind.SUBSCRIBE: frozenset({Kind.ITEM, Kind.PUBLISH, Kind.ERROR}),
}  # fmt: skip
"""Kinds that may follow on a channel, by what opened it and who sends."""
