"""The leaves of most messages, written and read without going through their fields one by one.

All messages from one author to one recipient that have no headers differ in id, number, times, kind, channel, method,
timeout and body, and stand in their leaves between bytes that never change::

    9c c4 10 id | seq | author, recipient | cf sent_at cf expires_at kind | channel | method | timeout | 80 | body

A message is *plain* when method and timeout are empty too: everything on a channel but what opens it.

`PlainLeaves` holds those bytes. It writes exactly what `message.encode` writes, and reads exactly what
`message.decode_untrusted` accepts of these parties' messages without headers; for everything else `read` returns None
and the caller takes the general way, whose errors are the ones that people see. So there is one set of accepted bytes,
and what this module knows about it is its cheapest part: a leaf that is compared with the right bytes is in its one
encoding, with nothing left to prove. The names of methods are few, so their encodings are remembered.
"""

import struct
from functools import lru_cache
from typing import Final

from autolink import codec, limits
from autolink.errors import BodyError, RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages.message import ID, KINDS, SEQ_MAX, TIME_MAX, Kind, Message, encode, size_of

_HEAD: Final = b"\x9c\xc4\x10"
_SEQ: Final = len(_HEAD) + ID
_TIMES: Final = struct.Struct(">BQBQB")
_UINT64: Final = 0xCF
_SHORTER: Final = 2**32
"""A time below this has a shorter encoding: the first 72 minutes of 1970."""
_PLAIN: Final = b"\xa0\x00\x80"
"""No method, no timeout, no headers."""
_NO_HEADERS: Final = 0x80
_FIXSTR: Final = 0xA0
_STR8: Final = 0xD9
_SEQS: Final = {
    0x00: ("B", 0, 0x80), 0xCC: ("xB", 0x80, 0x100), 0xCD: ("xH", 0x100, 2**16), 0xCE: ("xI", 2**16, 2**32),
    0xCF: ("xQ", 2**32, SEQ_MAX + 1),
}  # fmt: skip
"""By its first byte (0x00: every other): how a number is laid out, the least one, and the one beyond the last."""


_Layout = tuple[struct.Struct, int, int]
LeafFields = tuple[int, int, int, Kind, bytes, str, int]
"""seq, sent_at, expires_at, kind, body, method, timeout."""


class PlainLeaves:
    """The messages without headers from one author to one recipient."""

    __slots__ = ("_author", "_layouts", "_parties", "_recipient", "_short")

    def __init__(self, author: AutoId, recipient: AutoId | str) -> None:
        self._author, self._recipient = author, recipient
        to = recipient.value if isinstance(recipient, AutoId) else recipient
        self._parties, self._short, self._layouts = _between(author.value, to)

    def write(
        self, message_id: bytes, seq: int, sent_at: int, expires_at: int, kind: Kind, channel: int, body: bytes,
        method: str = "", timeout: int = 0,
    ) -> bytes:  # fmt: skip
        """The leaf of one message.

        Raises:
            UsageError: a field that no peer would accept.
        """
        size = len(body)
        between = _plain(channel) if method == "" and not timeout else _opening(channel, method, timeout)
        if size > limits.MESSAGE or sent_at < _SHORTER or between is None:
            return encode(Message(
                message_id, seq, self._author, self._recipient, sent_at, expires_at, kind, channel, method, timeout, {},
                body,
            ))  # fmt: skip
        return b"".join((
            _HEAD, message_id, codec.pack(seq), self._parties,
            _TIMES.pack(_UINT64, sent_at, _UINT64, expires_at, kind), between,
            codec.bytes_head(size), body,
        ))  # fmt: skip

    def read(self, leaf: bytes, channel: int) -> LeafFields | None:
        """What a leaf says if it is a message of these parties on this channel, without headers and in its one encoding."""
        method, timeout = "", 0
        try:
            layout, least, beyond = self._layouts.get(leaf[_SEQ], self._short)
            head, seq, parties, one, sent_at, other, expires_at, number = layout.unpack_from(leaf)
            at, plain = layout.size, _plain(channel)
            if leaf.startswith(plain, at):
                at += len(plain)
            else:
                method, timeout, at = _opening_at(leaf, at, plain[: -len(_PLAIN)])
        except (struct.error, IndexError):
            return None
        kind = KINDS.get(number)
        if (
            head != _HEAD
            or parties != self._parties
            or not least <= seq < beyond
            or one != _UINT64
            or other != _UINT64
            or not _SHORTER <= sent_at < expires_at <= TIME_MAX
            or kind is None
            or at < 0
        ):
            return None
        body = codec.rest_of_bytes(leaf, at)
        if body is None or len(body) > limits.MESSAGE:
            return None
        return seq, sent_at, expires_at, kind, body, method, timeout


@lru_cache(maxsize=256)
def _between(author: str, recipient: str) -> tuple[bytes, _Layout, dict[int, _Layout]]:
    """The parties' bytes, and `_layouts`: the same at each link to the same peer."""
    parties = codec.pack(author) + codec.pack(recipient)
    return parties, *_layouts(len(parties))


@lru_cache(maxsize=64)
def _layouts(parties: int) -> tuple[_Layout, dict[int, _Layout]]:
    """A leaf up to its kind, for a number below 0x80 and by the first byte of every other; `parties` is a size."""
    layouts = {
        first: (struct.Struct(f">3s{ID}x{seq}{parties}sBQBQB"), least, beyond)
        for first, (seq, least, beyond) in _SEQS.items()
    }
    return layouts.pop(0), layouts


@lru_cache(maxsize=1024)
def _plain(channel: int) -> bytes:
    """The fields between times and body of a plain message; a channel is written and read a few times in a row."""
    return codec.pack(channel) + _PLAIN


def _opening(channel: int, method: str, timeout: int) -> bytes | None:
    """As `_plain`, of a message with a method; None if the fields are for the general encoder to judge."""
    name = _encoded(method) if type(method) is str else None
    if name is None or not 0 <= timeout <= TIME_MAX:
        return None
    number = _plain(channel)[: -len(_PLAIN)]
    return number + name + codec.pack(timeout) + b"\x80"


def _opening_at(leaf: bytes, at: int, channel: bytes) -> tuple[str, int, int]:
    """Method, timeout and where the body begins, for a leaf whose channel should be at `at`; a negative place if
    something else is there.

    Raises:
        IndexError: the leaf ends before.
    """
    if not leaf.startswith(channel, at):
        return "", 0, -1
    at += len(channel)
    first = leaf[at]
    end = at + 2 + leaf[at + 1] if first == _STR8 else at + 1 + first - _FIXSTR
    method = _decoded(leaf[at:end])
    timeout, at = codec.uint_at(leaf, end)
    if method is None or not 0 <= timeout <= TIME_MAX or leaf[at] != _NO_HEADERS:
        return "", 0, -1
    return method, timeout, at + 1


@lru_cache(maxsize=1024)
def _encoded(method: str) -> bytes | None:
    """The encoding of a method's name, or None if no peer would accept it."""
    try:
        encoded = codec.pack(method)
    except BodyError:
        return None
    return encoded if _decoded(encoded) == method else None


@lru_cache(maxsize=1024)
def _decoded(encoded: bytes) -> str | None:
    """The name of a method that has just this encoding, or None."""
    try:
        method = codec.unpack_untrusted(encoded, what="method")
    except RemoteProtocolError:
        return None
    return method if type(method) is str and size_of(method) <= limits.METHOD else None
