"""Frames: how bytes are cut into units, and the layout of those whose payload is no map.

::

    frame   = type u8 | length u32 | payload                                      (all integers big-endian)
    BATCH   = number u64 | count u16 | siglen u16 | signature | count x item
    item    = channel u32 | flags u8 | length u32 | leaf           without DATA in its flags, else
              channel u32 | flags u8 | length u32 | leaf | size u32 | data
    CREDIT  = channel u32 | bytes u32
    CANCEL  = channel u32 | code u8
    PING, PONG = 8 bytes

A frame is judged by its five-byte header, before a byte of its payload is waited for: its type must be known or
ignorable, its length possible for that type. The buffer therefore never holds more than one frame and what came
behind it in the same read. Bytes are appended to and cut from the front of one bytearray, both of which are
amortised constant time per byte in CPython, so the cost is linear however the bytes were split.

Of the frames of a byte stream that is most of the cost. So the payload of a large one, once an eighth of it has come
(a length is said in four bytes, and shall not take more memory than eight times what its sender has paid for), is put
together in its place in a second bytearray, which serves for the next one too, at once, as long as only large ones come.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from autolink import limits
from autolink.errors import RemoteProtocolError

Item = tuple[int, int, bytes, bytes]
"""Channel, flags (`OPENS`, `ENDS`, both, or `DATA`), leaf, and what travels beside it: nothing without `DATA`."""

Part = bytes | bytearray | memoryview
"""What is sent comes in parts that follow each other, so that large ones need not be copied."""


class Gathered:
    """Bytes from several places, which nobody puts together."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.size = sum(map(len, parts))

    def __len__(self) -> int:
        return self.size


OwnItem = tuple[int, int, bytes, bytes | Gathered]
"""An `Item` of ours."""

OPENS: Final = 1
ENDS: Final = 2
DATA: Final = 4
"""The bytes of a chunk follow its leaf, which signs their hash."""

LAST_CHANNEL: Final = 2**31 - 1


class Frame(IntEnum):
    """Frame types. `EXTENSION` stands for all of 128 to 255, which a receiver that does not know them ignores."""

    HELLO = 1
    ACCEPT = 2
    REFUSE = 3
    BATCH = 4
    CREDIT = 5
    CANCEL = 6
    PING = 7
    PONG = 8
    EVIDENCE = 9
    GOAWAY = 10
    EXTENSION = 128


GREASE: Final = tuple(range(0x8A, 0x100, 0x10))
"""Extension types that will never mean anything: sent so that no receiver learns to refuse unknown ones (RFC 8701)."""

_HEADER: Final = struct.Struct(">BI")
_BATCH: Final = struct.Struct(">QHH")
_ITEM: Final = struct.Struct(">IBI")
_SIZE: Final = struct.Struct(">I")
_CREDIT: Final = struct.Struct(">II")
_CANCEL: Final = struct.Struct(">IB")

HEADER: Final = _HEADER.size
"""Bytes of a frame before its payload."""

SIZES: Final[dict[Frame, tuple[int, int]]] = {
    Frame.HELLO: (1, limits.HELLO),
    Frame.ACCEPT: (1, limits.HELLO),
    Frame.REFUSE: (1, limits.CONTROL),
    Frame.BATCH: (_BATCH.size + 1 + _ITEM.size + 1, limits.FRAME),
    Frame.CREDIT: (_CREDIT.size, _CREDIT.size),
    Frame.CANCEL: (_CANCEL.size, _CANCEL.size),
    Frame.PING: (8, 8),
    Frame.PONG: (8, 8),
    Frame.EVIDENCE: (1, limits.HELLO),
    Frame.GOAWAY: (1, limits.CONTROL),
    Frame.EXTENSION: (0, limits.HELLO),
}
"""Least and most bytes of each payload."""

_EXTENSION: Final = Frame.EXTENSION  # looked up on its enumeration, a member costs as much as a call
_BATCH_TYPE: Final = Frame.BATCH
_LARGE: Final = max(limits.HELLO, limits.CONTROL)
"""Only the payload of a BATCH is larger."""

_TYPES: Final = {frame.value: frame for frame in Frame} | dict.fromkeys(range(128, 256), Frame.EXTENSION)


class FrameReader:
    """Cuts a stream of bytes into frames: `feed`, then `peek` and `take` until one of them returns None."""

    __slots__ = ("_buffer", "_length", "_place", "_placed", "_skip", "_type")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._type: Frame | None = None  # of the frame whose header was read
        self._length = 0
        self._place = bytearray()  # for the payload of a large frame ...
        self._placed = -1  # ... and how much of it is there; -1: this frame has none
        self._skip = 0  # bytes of an ignored payload still to come; they are never kept

    def __len__(self) -> int:
        """Bytes held, plus those that an unfinished ignored frame still owes: 0 between two frames."""
        return len(self._buffer) + self._skip + (HEADER + self._placed if self._placed >= 0 else 0)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """More bytes from the peer."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        elif self._placed >= 0:
            if type(data) is memoryview and data.obj is self._place:
                self._placed += len(data)
                return
            data = self._put(data)
        self._buffer += data

    def room(self) -> tuple[bytearray, int, int] | None:
        """Where the rest of a large payload belongs: what to write to, from where, up to where. Who does feeds a memoryview
        of what it has written."""
        return (self._place, self._placed, self._length) if self._placed >= 0 else None

    def _put(self, data: bytes | bytearray | memoryview) -> memoryview:
        """Put what belongs there in its place; what is behind it comes back."""
        view, start = memoryview(data), self._placed
        taken = min(len(view), self._length - start)
        self._place[start : start + taken] = view[:taken]
        self._placed += taken
        return view[taken:]

    def peek(self) -> Frame | None:
        """The next frame's type as soon as its header is here.

        Raises:
            RemoteProtocolError: an unknown type that may not be ignored, or a length its type cannot have.
        """
        if self._type is None and len(self._buffer) >= HEADER:
            number, self._length = _HEADER.unpack_from(self._buffer)
            frame = _TYPES.get(number)
            if frame is None:
                raise RemoteProtocolError(f"frame type {number} does not exist")
            least, most = SIZES[frame]
            if not least <= self._length <= most:
                raise RemoteProtocolError(
                    f"{frame.name} of {self._length} bytes, {least} to {most} are possible"
                )
            self._type = frame
        return self._type

    def take(self) -> bytes | memoryview | None:
        """The payload of the frame that `peek` named, once it is whole; b"" at once for one that is ignored. A BATCH may be
        a memoryview, which is good until the next `feed`."""
        if self._type is None:
            return None
        if self._length > _LARGE:
            return self._take_large()
        end = HEADER + self._length
        if self._type is _EXTENSION:
            self._skip = max(0, end - len(self._buffer))
            payload = b""
        elif len(self._buffer) < end:
            return None
        else:
            with memoryview(self._buffer) as view:
                payload = bytes(view[HEADER:end])
        del self._buffer[:end]
        if self._place:
            self._place = bytearray()
        self._type = None
        return payload

    def _take_large(self) -> memoryview | None:
        if self._placed < 0:
            if len(self._place) < self._length:
                if len(self._buffer) < self._length // 8:
                    return None
                self._place = bytearray(self._length)
            self._placed = 0
            with memoryview(self._buffer) as view, view[HEADER:] as begun:
                rest = bytes(self._put(begun))
            self._buffer = bytearray(rest)
        if self._placed < self._length:
            return None
        self._placed, self._type = -1, None
        return memoryview(self._place)[: self._length].toreadonly()

    def clear(self) -> None:
        """Forget everything."""
        self._buffer.clear()
        self._type, self._skip = None, 0
        self._place, self._placed = bytearray(), -1


def encode_frame(frame: int, payload: bytes) -> bytes:
    """A whole frame."""
    return _HEADER.pack(frame, len(payload)) + payload


def encode_batch_frame(number: int, signature: bytes, items: Sequence[OwnItem]) -> list[Part]:
    """A whole BATCH frame, in parts that follow each other: leaves and data, most of what a link sends, are copied once, and
    large data that was gathered not at all."""
    parts: list[Part] = [b"", _BATCH.pack(number, len(items), len(signature)), signature]
    pack, gathered = _ITEM.pack, False
    for channel, flags, leaf, data in items:
        parts += (pack(channel, flags, len(leaf)), leaf)
        if flags & DATA:
            parts.append(_SIZE.pack(len(data)))
            if isinstance(data, Gathered):
                gathered = True
                parts += data.parts
            else:
                parts.append(data)
    parts[0] = _HEADER.pack(_BATCH_TYPE, sum(map(len, parts)))
    return _without_small(parts) if gathered else [b"".join(parts)]


def _without_small(parts: Sequence[Part]) -> list[Part]:
    """The same bytes: parts of less than `limits.PART` are put together."""
    joined: list[Part] = []
    small: list[Part] = []
    for part in parts:
        if len(part) < limits.PART:
            small.append(part)
            continue
        if small:
            joined.append(b"".join(small))
            small.clear()
        joined.append(part)
    return [*joined, b"".join(small)] if small else joined


def decode_batch_untrusted(payload: bytes | memoryview) -> tuple[int, bytes, list[Item]]:
    """Number, signature and items of a BATCH; whether the items fit their channels is not looked at here.

    Raises:
        RemoteProtocolError: counts and lengths do not add up, or one is beyond its limit.
    """
    number, count, signature_length = _BATCH.unpack_from(payload)
    position = _BATCH.size + signature_length
    signature = bytes(payload[_BATCH.size : position])
    if not 0 < count <= limits.BATCH_LEAVES:
        raise RemoteProtocolError(f"BATCH of {count} leaves, 1 to {limits.BATCH_LEAVES} are possible")
    if not 0 < signature_length <= limits.SIGNATURE:
        raise RemoteProtocolError(
            f"signature of {signature_length} bytes, 1 to {limits.SIGNATURE} are possible"
        )
    items: list[Item] = []
    unpack, unpack_size, head, most = _ITEM.unpack_from, _SIZE.unpack_from, _ITEM.size, limits.LEAF
    try:
        for _ in range(count):
            channel, flags, length = unpack(payload, position)
            if not 0 < length <= most:
                raise RemoteProtocolError(f"leaf of {length} bytes, 1 to {most} are possible")
            start = position + head
            position = start + length
            leaf, data = bytes(payload[start:position]), b""
            if flags & DATA:
                (size,) = unpack_size(payload, position)
                if not 0 < size <= min(limits.CHUNK, most - length):
                    raise RemoteProtocolError(f"data of {size} bytes beside a leaf of {length}")
                start = position + _SIZE.size
                position = start + size
                data = bytes(payload[start:position])
            items.append((channel, flags, leaf, data))
    except struct.error:
        raise RemoteProtocolError("BATCH is cut short") from None
    if position != len(payload):
        raise RemoteProtocolError("BATCH: its lengths do not add up")
    return number, signature, items


def encode_credit(channel: int, count: int) -> bytes:
    """The payload of a CREDIT."""
    return _CREDIT.pack(channel, count)


def decode_credit(payload: bytes) -> tuple[int, int]:
    """Channel and bytes of a CREDIT of the right size."""
    channel, count = _CREDIT.unpack(payload)
    return channel, count


def encode_cancel(channel: int, code: int) -> bytes:
    """The payload of a CANCEL."""
    return _CANCEL.pack(channel, code)


def decode_cancel(payload: bytes) -> tuple[int, int]:
    """Channel and code number of a CANCEL of the right size."""
    channel, code = _CANCEL.unpack(payload)
    return channel, code
