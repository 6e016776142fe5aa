"""Byte streams: the chunks of one payload, each a signed message that is verified before it is handed on.

The body of a chunk is ``[stream_id, index, data]`` with 1 to `limits.CHUNK` bytes; index counts from 0 by
one. The last body is ``[stream_id, index, None, total, root]``: the number of bytes and the Merkle root over
them, cut into pieces of exactly `limits.CHUNK` (the last one shorter) however they were chunked. So the
Envelope of the last chunk signs the whole payload, and whoever holds both needs nothing else to check them:
see `check_content`.

Two state machines without I/O; both need the same small memory whatever passes through.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from autolink import codec, limits
from autolink.errors import LocalProtocolError, Reason, RemoteProtocolError, UsageError
from autolink.messages.merkle import StreamingRoot
from autolink.messages.message import Kind, Message, refusal

STREAM_ID: Final = 16
"""Bytes of a stream's id: random, as a message's."""


_HEAD: Final = b"\x93\xc4\x10"
"""What a chunk begins with: an array of three, and the head of its first field, the stream's id."""

_INDEX: Final = len(_HEAD) + STREAM_ID


class ContentRoot:
    """The Merkle root over bytes that come in parts of any size."""

    __slots__ = ("_filled", "_piece", "_pieces", "total")

    def __init__(self) -> None:
        self.total = 0
        self._pieces = StreamingRoot()
        self._piece, self._filled = sha256(b"\0"), 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.total += len(data)
        rest = memoryview(data)
        while rest:
            taken = rest[: limits.CHUNK - self._filled]
            self._piece.update(taken)
            self._filled += len(taken)
            if self._filled == limits.CHUNK:
                self._pieces.add(self._piece.digest())
                self._piece, self._filled = sha256(b"\0"), 0
            rest = rest[len(taken) :]

    def finish(self) -> bytes:
        """The root over all bytes taken; nothing may follow."""
        if self._filled:
            self._pieces.add(self._piece.digest())
            self._filled = 0
        return self._pieces.root()


class ChunkWriter:
    """Makes the bodies of one stream, in order."""

    __slots__ = ("_content", "_id", "_index", "closed")

    def __init__(self, stream_id: bytes) -> None:
        if len(stream_id) != STREAM_ID:
            raise UsageError(f"a stream's id has {STREAM_ID} bytes")
        self._id, self._index, self._content = stream_id, 0, ContentRoot()
        self.closed = False

    def chunk(self, data: bytes) -> bytes:
        """The body of the next chunk.

        Raises:
            UsageError: not 1 to `limits.CHUNK` bytes.
            LocalProtocolError: the last body was made.
        """
        if not 0 < len(data) <= limits.CHUNK:
            raise UsageError(f"a chunk has 1 to {limits.CHUNK} bytes")
        head = b"".join((_HEAD, self._id, codec.pack(self._next()), codec.bytes_head(len(data))))
        self._content.update(data)
        return head + data

    def last(self) -> bytes:
        """The body that ends the stream and signs its length and root.

        Raises:
            LocalProtocolError: it was made before.
        """
        index, self.closed = self._next(), True
        return codec.encode([self._id, index, None, self._content.total, self._content.finish()])

    def _next(self) -> int:
        if self.closed:
            raise LocalProtocolError("this stream has ended")
        self._index += 1
        return self._index - 1


class ChunkReader:
    """Takes the bodies of one stream and gives out its bytes.

    `complete` turns true with the last body, when the total and the root were found right: an end of the
    channel before that is a truncated stream.
    """

    __slots__ = ("_content", "_id", "_index", "complete")

    def __init__(self) -> None:
        self._id: bytes | None = None
        self._index, self._content = 0, ContentRoot()
        self.complete = False

    @property
    def total(self) -> int:
        """Bytes received so far."""
        return self._content.total

    def receive(self, body: bytes) -> bytes | None:
        """The bytes of one chunk, or None for the last body.

        Raises:
            RemoteProtocolError: not a chunk, out of order, of another stream, after the last, or the total or
            the
                root is wrong.
        """
        stream_id, index, data, total, root = parse_untrusted(body)
        if self.complete:
            raise RemoteProtocolError("chunk: after the last one")
        if index != self._index or stream_id != (self._id or stream_id):
            raise RemoteProtocolError("chunk: out of order, or of another stream")
        self._id, self._index = stream_id, index + 1
        if data is not None:
            self._content.update(data)
            return data
        if total != self._content.total or root != self._content.finish():
            raise RemoteProtocolError("chunk: the stream's length or root is not that of the bytes received")
        self.complete = True
        return None


def parse_untrusted(body: bytes) -> tuple[bytes, int, bytes | None, int, bytes]:
    """The stream id, index, data (None in the last body), total and root (0 and empty before it).

    Raises:
        RemoteProtocolError: and nothing else.
    """
    if body.startswith(_HEAD) and len(body) > _INDEX:  # all but the last, without building what is compared
        index, at = codec.uint_at(body, _INDEX)
        if (
            index >= 0
            and len(body) > at
            and (data := codec.rest_of_bytes(body, at))
            and len(data) <= limits.CHUNK
        ):
            return body[len(_HEAD) : _INDEX], index, data, 0, b""
    match codec.decode_untrusted(body, what="chunk", nodes=8):
        case [bytes() as stream_id, int() as index, bytes() as data] if 0 < len(data) <= limits.CHUNK:
            total, root = 0, b""
        case [bytes() as stream_id, int() as index, None as data, int() as total, bytes() as root] if (
            len(root) == 32
        ):
            pass
        case _:
            raise RemoteProtocolError("chunk: neither [id, index, data] nor [id, index, nil, total, root]")
    if len(stream_id) != STREAM_ID or isinstance(index, bool) or isinstance(total, bool):
        raise RemoteProtocolError("chunk: a field of the wrong type or size")
    return stream_id, index, data, total, root


def check_content(message: Message, content: Iterable[bytes]) -> None:
    """Check saved bytes against the last chunk of the stream that carried them.

    Args:
        message: of a verified Envelope: nothing about its author is checked here.
        content: the whole payload in parts of any size.

    Raises:
        EnvelopeRefused: MALFORMED, this is not a last chunk; TAMPERED, these are not the bytes it signs.
    """
    try:
        _, _, data, total, root = parse_untrusted(message.body)
    except RemoteProtocolError as error:
        raise refusal(Reason.MALFORMED, message, str(error)) from None
    if message.kind is not Kind.CHUNK or data is not None:
        raise refusal(Reason.MALFORMED, message, "not the last chunk of a stream")
    actual = ContentRoot()
    for part in content:
        actual.update(part)
    if actual.total != total or actual.finish() != root:
        raise refusal(Reason.TAMPERED, message, f"signs {total} other bytes")
