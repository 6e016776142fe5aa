"""Byte streams: the chunks of one payload, each signed and verified before it is handed on, each byte hashed once.

The bytes of a chunk travel beside its message, which signs their size and hash: its body is ``[stream_id, index,
size, hash]`` with a size of 1 to `limits.CHUNK`; index counts from 0 by one. The last body is ``[stream_id, index,
None, total, root]``, and nothing travels beside it: the number of bytes and the Merkle root over them, cut into pieces
of exactly `limits.CHUNK` (the last one shorter) however they were chunked. So the Envelope of the last chunk signs the
whole payload, and whoever holds both needs nothing else to check them: see `check_content`.

A chunk's hash is that of a leaf of this tree, so a chunk that begins where a piece does goes into the root by the hash
that proves it. Of a chunk that begins elsewhere the bytes are hashed once more, for the root.

Two state machines without I/O; both need the same small memory whatever passes through.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from autolink import codec, limits
from autolink.errors import BadSignature, LocalProtocolError, Reason, RemoteProtocolError, UsageError
from autolink.messages import merkle
from autolink.messages.merkle import StreamingRoot
from autolink.messages.message import Kind, Message, refusal

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

STREAM_ID: Final = 16
"""Bytes of a stream's id: random, as a message's."""

_HEAD: Final = b"\x94\xc4\x10"
"""What a chunk begins with: an array of four, and the head of its first field, the stream's id."""

_HASH: Final = b"\xc4\x20"
"""... and the head of its last field, the hash."""

_INDEX: Final = len(_HEAD) + STREAM_ID
_TAIL: Final = len(_HASH) + merkle.HASH


class Hashed(NamedTuple):
    """The leaf hash of a chunk's bytes: the object that has taken them, to go on with, and what it has come to."""

    taker: "Hash"
    digest: bytes


def _hashed(data: bytes | memoryview) -> Hashed:
    taker = merkle.begun_leaf()
    taker.update(data)
    return Hashed(taker, taker.digest())


class ContentRoot:
    """The Merkle root over bytes that come in parts of any size."""

    __slots__ = ("_filled", "_piece", "_pieces", "total")

    def __init__(self) -> None:
        self.total = 0
        self._pieces = StreamingRoot()
        self._piece, self._filled = merkle.begun_leaf(), 0

    def update(self, data: bytes | memoryview, hashed: Hashed | None = None) -> None:
        """Take the next bytes. `hashed`, which is of just these and given away, saves hashing them again where they begin a
        piece."""
        size = len(data)
        self.total += size
        if hashed is None or self._filled:
            self._take(memoryview(data))
        elif size == limits.CHUNK:
            self._pieces.add(hashed.digest)
        else:
            self._piece, self._filled = hashed.taker, size

    def _take(self, rest: memoryview) -> None:
        while rest:
            taken = rest[: limits.CHUNK - self._filled]
            self._piece.update(taken)
            self._filled += len(taken)
            if self._filled == limits.CHUNK:
                self._pieces.add(self._piece.digest())
                self._piece, self._filled = merkle.begun_leaf(), 0
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

    @property
    def room(self) -> int:
        """Bytes to the end of the piece: a chunk that ends there lets the next one be hashed once."""
        return limits.CHUNK - self._content.total % limits.CHUNK

    def chunk(self, data: bytes | memoryview) -> bytes:
        """The body of the next chunk, beside which its bytes travel.

        Raises:
            UsageError: not 1 to `limits.CHUNK` bytes.
            LocalProtocolError: the last body was made.
        """
        if not 0 < len(data) <= limits.CHUNK:
            raise UsageError(f"a chunk has 1 to {limits.CHUNK} bytes")
        index, hashed = self._next(), _hashed(data)
        body = b"".join((_HEAD, self._id, codec.pack(index), codec.pack(len(data)), _HASH, hashed.digest))
        self._content.update(data, hashed)
        return body

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
    """Takes the bodies of one stream and the bytes beside them, and gives these out.

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

    def receive(self, body: bytes, data: bytes = b"", chunk: "Chunk | None" = None) -> bytes | None:
        """The bytes of one chunk, or None for the last body.

        Args:
            body: of the message.
            data: what came beside it.
            chunk: what `check_data` gave for the two; without it they are checked here.

        Raises:
            RemoteProtocolError: as `check_data`; or out of order, of another stream, after the last, or the total or
                the root is wrong.
            BadSignature: as `check_data`.
        """
        stream_id, index, last, size, root, hashed = chunk or check_data(body, data)
        if self.complete:
            raise RemoteProtocolError("chunk: after the last one")
        if index != self._index or stream_id != (self._id or stream_id):
            raise RemoteProtocolError("chunk: out of order, or of another stream")
        self._id, self._index = stream_id, index + 1
        if not last:
            self._content.update(data, hashed)
            return data
        if size != self._content.total or root != self._content.finish():
            raise RemoteProtocolError("chunk: the stream's length or root is not that of the bytes received")
        self.complete = True
        return None


class Chunk(NamedTuple):
    """What a body says. `number` is its index; `size` and `root` are those of the chunk's bytes, or in the last one the
    total and the root of all.

    `hashed` is of the bytes that came beside it, once they were found to be those that it signs.
    """

    stream_id: bytes
    number: int
    last: bool
    size: int
    root: bytes
    hashed: Hashed | None = None


def check_data(body: bytes, data: bytes) -> Chunk:
    """Check the bytes that came beside a chunk against what its body signs.

    Raises:
        RemoteProtocolError: the body is no chunk's, or is the last one and has bytes beside it, or another and has none.
        BadSignature: these are not the bytes that it signs.
    """
    chunk = parse_untrusted(body)
    if chunk.last is bool(data):
        raise RemoteProtocolError("chunk: bytes beside the last body, or none beside another")
    if chunk.last:
        return chunk
    hashed = _hashed(data)
    if chunk.size != len(data) or chunk.root != hashed.digest:
        raise BadSignature("the bytes of a chunk are not those that it signs")
    return Chunk(chunk.stream_id, chunk.number, False, chunk.size, chunk.root, hashed)


def parse_untrusted(body: bytes) -> Chunk:
    """What a body says; whether it signs any bytes is not looked at.

    Raises:
        RemoteProtocolError: and nothing else.
    """
    if (
        body.startswith(_HEAD) and len(body) > _INDEX + _TAIL
    ):  # all but the last, without building what is compared
        index, at = codec.uint_at(body, _INDEX)
        size, at = codec.uint_at(body, at)
        if index >= 0 and 0 < size <= limits.CHUNK and body.startswith(_HASH, at) and len(body) == at + _TAIL:
            return Chunk(body[len(_HEAD) : _INDEX], index, False, size, body[-merkle.HASH :])
    match codec.decode_untrusted(body, what="chunk", nodes=8):
        case [bytes() as stream_id, int() as index, int() as size, bytes() as root] if (
            0 < size <= limits.CHUNK
        ):
            last = False
        case [bytes() as stream_id, int() as index, None, int() as size, bytes() as root]:
            last = True
        case _:
            raise RemoteProtocolError(
                "chunk: neither [id, index, size, hash] nor [id, index, nil, total, root]"
            )
    if (
        (len(stream_id), len(root)) != (STREAM_ID, merkle.HASH)
        or isinstance(index, bool)
        or isinstance(size, bool)
    ):
        raise RemoteProtocolError("chunk: a field of the wrong type or size")
    return Chunk(stream_id, index, last, size, root)


def check_content(message: Message, content: Iterable[bytes]) -> None:
    """Check saved bytes against the last chunk of the stream that carried them.

    Args:
        message: of a verified Envelope: nothing about its author is checked here.
        content: the whole payload in parts of any size.

    Raises:
        EnvelopeRefused: MALFORMED, this is not a last chunk; TAMPERED, these are not the bytes it signs.
    """
    try:
        _, _, last, total, root, _ = parse_untrusted(message.body)
    except RemoteProtocolError as error:
        raise refusal(Reason.MALFORMED, message, str(error)) from None
    if message.kind is not Kind.CHUNK or not last:
        raise refusal(Reason.MALFORMED, message, "not the last chunk of a stream")
    actual = ContentRoot()
    for part in content:
        actual.update(part)
    if actual.total != total or actual.finish() != root:
        raise refusal(Reason.TAMPERED, message, f"signs {total} other bytes")
