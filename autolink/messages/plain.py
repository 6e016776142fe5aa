"""The leaves of plain messages, written and read without going through their fields one by one.

A message is *plain* when it has no method, no timeout and no headers: everything on a channel but what opens it. All
plain messages from one author to one recipient differ in id, number, times, kind, channel and body only, and stand in
their leaves between bytes that never change::

    9c c4 10 id | seq | author, recipient | cf sent_at cf expires_at | kind | channel | a0 00 80 | body

`PlainLeaves` holds those bytes. It writes exactly what `message.encode` writes, and reads exactly what
`message.decode_untrusted` accepts of these parties' plain messages; for everything else `read` returns None and the
caller takes the general way, whose errors are the ones that people see. So there is one set of accepted bytes, and
what this module knows about it is its cheapest part: a leaf that is compared with the right bytes is in its one
encoding, with nothing left to prove.
"""

import struct
from functools import lru_cache
from typing import Final

from autolink import codec, limits
from autolink.identity import AutoId
from autolink.messages.message import ID, KINDS, SEQ_MAX, TIME_MAX, Kind, Message, encode

_HEAD: Final = b"\x9c\xc4\x10"
_SEQ: Final = len(_HEAD) + ID
_LEAST: Final = 4 + ID
_TIMES: Final = struct.Struct(">BQBQ")
_UINT64: Final = 0xCF
_SHORTER: Final = 2**32
"""A time below this has a shorter encoding: the first 72 minutes of 1970."""


PlainFields = tuple[int, int, int, Kind, bytes]
"""seq, sent_at, expires_at, kind, body."""


class PlainLeaves:
    """The plain messages from one author to one recipient."""

    __slots__ = ("_author", "_parties", "_recipient")

    def __init__(self, author: AutoId, recipient: AutoId | str) -> None:
        self._author, self._recipient = author, recipient
        to = recipient.value if isinstance(recipient, AutoId) else recipient
        self._parties = codec.pack(author.value) + codec.pack(to)

    def write(
        self,
        message_id: bytes,
        seq: int,
        sent_at: int,
        expires_at: int,
        kind: Kind,
        channel: int,
        body: bytes,
    ) -> bytes:
        """The leaf of one message.

        Raises:
            UsageError: a field that no peer would accept.
        """
        size = len(body)
        if size > limits.MESSAGE or sent_at < _SHORTER:
            return encode(Message(
                message_id, seq, self._author, self._recipient, sent_at, expires_at, kind, channel, "", 0, {}, body
            ))  # fmt: skip
        return b"".join((
            _HEAD, message_id, codec.pack(seq), self._parties,
            _TIMES.pack(_UINT64, sent_at, _UINT64, expires_at), _tail(kind, channel),
            codec.bytes_head(size), body,
        ))  # fmt: skip

    def read(self, leaf: bytes, channel: int) -> PlainFields | None:
        """What a leaf says if it is a plain message of these parties on this channel, in its one encoding."""
        if len(leaf) < _LEAST or not leaf.startswith(_HEAD):
            return None
        seq, at = codec.uint_at(leaf, _SEQ)
        if not 0 <= seq <= SEQ_MAX or not leaf.startswith(self._parties, at):
            return None
        at += len(self._parties)
        try:
            one, sent_at, other, expires_at = _TIMES.unpack_from(leaf, at)
            kind = KINDS.get(leaf[at := at + _TIMES.size])
        except (struct.error, IndexError):
            return None
        if (
            kind is None
            or one != _UINT64
            or other != _UINT64
            or not _SHORTER <= sent_at < expires_at <= TIME_MAX
        ):
            return None
        tail = _tail(kind, channel)
        if not leaf.startswith(tail, at):
            return None
        body = codec.rest_of_bytes(leaf, at + len(tail))
        if body is None or len(body) > limits.MESSAGE:
            return None
        return seq, sent_at, expires_at, kind, body


@lru_cache(maxsize=1024)
def _tail(kind: int, channel: int) -> bytes:
    """The fields between times and body; the same few channels in message after message."""
    return codec.pack(kind) + codec.pack(channel) + b"\xa0\x00\x80"
