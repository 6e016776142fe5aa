"""Byte streams: the chunks of one payload, each signed and verified before it is handed on, each byte hashed once.

The bytes of a chunk travel beside its message, which signs their size and hash: its body is ``[stream_id, index,
size, hash]`` with a size of 1 to `limits.CHUNK`; index counts from 0 by one. The last body is ``[stream_id, index,
None, total, root]``, and nothing travels beside it: the number of bytes and the Merkle root over them, cut into pieces
of exactly `limits.PIECE` (the last one shorter) however they were chunked. So the Envelope of the last chunk signs the
whole payload, and whoever holds both needs nothing else to check them: see `check_content`.

A chunk's hash is such a root too, over the chunk alone. The pieces of a chunk that begins where one of the payload does
are the payload's, so they go into its root by the hashes that prove the chunk. Of a chunk that begins elsewhere the
bytes are hashed once more, for the root.

State machines without I/O, which need the same small memory whatever passes through.
"""

from collections.abc import Callable, Iterable
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

_AFTER_THE_END: Final = "this stream has ended"

BODY: Final = 67
"""As many bytes as the body of a chunk can have, but for the last."""

LEAF: Final = 192
"""... and its leaf."""

_INDEX: Final = len(_HEAD) + STREAM_ID
_TAIL: Final = len(_HASH) + merkle.HASH


class _Pieces:
    """Bytes in parts of any size, cut into pieces. `total` counts them; `_add` gets the hash of each full piece."""

    __slots__ = ("_add", "_filled", "_piece", "total")

    def __init__(self, add: Callable[[bytes], object]) -> None:
        self.total = 0
        self._add = add
        self._piece, self._filled = merkle.begun_leaf(), 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self.total += len(data)
        rest = memoryview(data)
        while rest:
            taken = rest[: limits.PIECE - self._filled]
            self._piece.update(taken)
            self._filled += len(taken)
            if self._filled == limits.PIECE:
                self._add(self._piece.digest())
                self._piece, self._filled = merkle.begun_leaf(), 0
            rest = rest[len(taken) :]


class Hashed(_Pieces):
    """The bytes of one chunk, hashed.

    Attributes:
        pieces: the hashes of the full ones.
    """

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        super().__init__(self.pieces.append)

    def begun(self) -> "tuple[Hash, int]":
        """The hash object of the piece that is not full, to go on with, and how many bytes it has taken."""
        return self._piece, self._filled

    def root(self) -> bytes:
        """The hash of the chunk."""
        return merkle.root([*self.pieces, self._piece.digest()] if self._filled else self.pieces)


class ContentRoot(_Pieces):
    """The Merkle root over bytes that come in parts of any size."""

    __slots__ = ("_tree",)

    def __init__(self) -> None:
        self._tree = StreamingRoot()
        super().__init__(self._tree.add)

    def append(self, chunk: Hashed, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Take the next bytes: those of a chunk, which are `parts` and are hashed again only if they begin within a piece.
        `chunk` is given away."""
        if self._filled:
            for part in parts:
                self.update(part)
            return
        self.total += chunk.total
        for piece in chunk.pieces:
            self._tree.add(piece)
        self._piece, self._filled = chunk.begun()

    def finish(self) -> bytes:
        """The root over all bytes taken; nothing may follow."""
        if self._filled:
            self._tree.add(self._piece.digest())
            self._filled = 0
        return self._tree.root()


class ChunkWriter:
    """Makes the bodies of one stream, in order: `take` fills a chunk, `chunk` ends it.

    Attributes:
        parts: the bytes of the chunk that is being filled.
    """

    __slots__ = ("_content", "_hashed", "_id", "_index", "closed", "parts")

    def __init__(self, stream_id: bytes) -> None:
        if len(stream_id) != STREAM_ID:
            raise UsageError(f"a stream's id has {STREAM_ID} bytes")
        self._id, self._index, self._content = stream_id, 0, ContentRoot()
        self.parts: list[bytes | bytearray | memoryview] = []
        self._hashed = Hashed()
        self.closed = False

    @property
    def room(self) -> int:
        """Bytes that it can still take: it ends where a piece of the payload does, so that the next one is hashed once."""
        return limits.CHUNK - self._content.total % limits.PIECE - self._hashed.total

    def take(self, data: bytes | memoryview) -> None:
        """Put bytes into the chunk that is being filled. They must not change until it is sent.

        Raises:
            UsageError: not 1 to `room` bytes.
            LocalProtocolError: the last body was made.
        """
        if self.closed:
            raise LocalProtocolError(_AFTER_THE_END)
        if not 0 < len(data) <= self.room:
            raise UsageError(f"{len(data)} bytes for a chunk that has room for 1 to {self.room}")
        self._hashed.update(data)
        if len(data) >= limits.PART:
            self.parts.append(data)
        elif self.parts and isinstance(last := self.parts[-1], bytearray):
            last += data
        else:
            self.parts.append(bytearray(data))

    def chunk(self) -> tuple[bytes, list[bytes | bytearray | memoryview]]:
        """End the chunk that is being filled: its body, and its bytes, which travel beside it.

        Raises:
            UsageError: it has no bytes.
        """
        if not self.parts:
            raise UsageError("a chunk without bytes")
        hashed, parts, index = self._hashed, self.parts, self._next()
        self._hashed, self.parts = Hashed(), []
        body = b"".join((_HEAD, self._id, codec.pack(index), codec.pack(hashed.total), _HASH, hashed.root()))
        self._content.append(hashed, parts)
        return body, parts

    def last(self) -> bytes:
        """The body that ends the stream and signs its length and root.

        Raises:
            LocalProtocolError: it was made before, or a chunk has not ended.
        """
        if self.parts:
            raise LocalProtocolError("a chunk of this stream has not ended")
        index, self.closed = self._next(), True
        return codec.encode([self._id, index, None, self._content.total, self._content.finish()])

    def _next(self) -> int:
        if self.closed:
            raise LocalProtocolError(_AFTER_THE_END)
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
        stream_id, index, _, size, root, hashed = chunk or check_data(body, data)
        if self.complete:
            raise RemoteProtocolError("chunk: after the last one")
        if index != self._index or stream_id != (self._id or stream_id):
            raise RemoteProtocolError("chunk: out of order, or of another stream")
        self._id, self._index = stream_id, index + 1
        if hashed is not None:  # not the last one
            self._content.append(hashed, (data,))
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
    hashed = Hashed()
    hashed.update(data)
    if chunk.size != len(data) or chunk.root != hashed.root():
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
