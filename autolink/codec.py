"""msgpack with exactly one encoding per value, decoded under a budget.

A value is None, bool, a 64-bit integer, float, str, bytes, a list, a map with string keys, or an aware
datetime (timestamp extension, microseconds). Decoding accepts only the bytes that `encode` would have
produced: the value is encoded again and compared. That single comparison refuses duplicate keys (a dict holds
one of them), lengths and integers that are longer than needed, 32-bit floats and timestamps finer than a
microsecond. A map keeps the order of its keys: two orders are two values. So two different byte strings never
mean one value, and a signature over the bytes is a signature over the value.

The budget comes before the allocation: msgpack amplifies up to 72 times (one byte becomes an empty dict), so
a buffer longer than the budget is first walked without building anything. A shorter one cannot hold more
elements than bytes.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgpack

from autolink import limits
from autolink.errors import BodyError, RemoteProtocolError, UsageError

type_names: Final = "None, bool, 64-bit int, float, str, bytes, list, map with string keys, aware datetime"


def encode(value: object, *, default: Callable[[object], object] | None = None) -> bytes:
    """Encode a value.

    Args:
        value: what to encode.
        default: gives a value of another type a form that can be encoded.

    Raises:
        BodyError: the value, or one inside it, is of another type, is nested deeper than `limits.DEPTH`, or
            is an integer beyond 64 bits.
    """
    encoded = pack(value) if default is None else _pack_with(value, default)
    if default is not None:  # what `default` gave cannot be seen from here, its encoding can
        value = msgpack.unpackb(encoded, strict_map_key=False, timestamp=3)
    if type(value) not in _SCALARS:
        _check_shape(value, BodyError)
    return encoded


def pack(value: object) -> bytes:
    """As `encode`, of a value whose shape the caller has made or looked at itself.

    Raises:
        BodyError: no encoding exists.
    """
    try:
        return _pack(value)
    except _NO_ENCODING as error:
        raise _cannot_be_encoded(error) from None


def decode_untrusted(data: bytes | memoryview, *, what: str, nodes: int = limits.NODES) -> Any:  # noqa: ANN401
    """Decode bytes from a peer or a file.

    Args:
        data: exactly one encoded value.
        what: names it in errors.
        nodes: how many elements it may hold.

    Raises:
        RemoteProtocolError: and nothing else.
    """
    if nodes and type(data) is bytes and data[:1] in _BYTES_HEADS:
        bare = rest_of_bytes(data, 0)
        if bare is not None:
            return bare
    value = unpack_untrusted(data, what=what, nodes=nodes)
    if type(value) not in _SCALARS:
        _check_shape(value, RemoteProtocolError, what)
    return value


def unpack_untrusted(data: bytes | memoryview, *, what: str, nodes: int = limits.NODES) -> Any:  # noqa: ANN401
    """As `decode_untrusted`, but depth and map keys are not looked at: for a caller that looks at every part itself.

    Raises:
        RemoteProtocolError: and nothing else.
    """
    if len(data) > nodes:
        _count_nodes(memoryview(data), what, nodes)
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, timestamp=3, ext_hook=_no_extension)
        again = _pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"{what}: not well-formed msgpack ({type(error).__name__})") from None
    if again != data:
        raise RemoteProtocolError(f"{what}: not the shortest encoding, or a key stands twice")
    return value


# --- pieces of a known layout ------------------------------------------------------------------------------
#
# A message and a chunk are arrays of known fields, and most of the time of a link goes into reading and writing them.
# These four write and read single fields of such an array; they accept exactly what `encode` gives for that field.


def bytes_head(size: int) -> bytes:
    """What stands before the bytes of a byte string of `size` bytes."""
    if size < 0x100:
        return _SHORT_HEADS[size]
    return _HEAD_16.pack(0xC5, size) if size < 0x10000 else _HEAD_32.pack(0xC6, size)


def rest_of_bytes(data: bytes, at: int) -> bytes | None:
    """The byte string that fills `data` from `at` to its end; None if something else stands there."""
    start = at + 2
    size = len(data) - start
    if size < 0x100:
        return data[start:] if size >= 0 and data.startswith(_SHORT_HEADS[size], at) else None
    start += 1 if data[at] == 0xC5 else 3
    head = bytes_head(max(len(data) - start, 0))
    return data[start:] if data[at:start] == head else None


def uint_at(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at `at`, and where it ends; -1 if something else stands there.

    Raises:
        IndexError: `at` is beyond the end.
    """
    first = data[at]
    if first < 0x80:
        return first, at + 1
    width = _UINT_WIDTHS.get(first, 0)
    end = at + 1 + width
    value = int.from_bytes(data[at + 1 : end])
    if not width or value < _UINT_LEAST[width] or end > len(data):
        return -1, at
    return value, end


_SHORT_HEADS: Final = tuple(bytes((0xC4, size)) for size in range(0x100))
_HEAD_16: Final = struct.Struct(">BH")
_HEAD_32: Final = struct.Struct(">BI")
_BYTES_HEADS: Final = frozenset({b"\xc4", b"\xc5", b"\xc6"})
_UINT_WIDTHS: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_UINT_LEAST: Final = {1: 0x80, 2: 0x100, 4: 0x1_0000, 8: 0x1_0000_0000}


# --- within ------------------------------------------------------------------------------------------------

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes, datetime})
_pack: Final[Callable[[object], bytes]] = msgpack.Packer(
    use_bin_type=True, datetime=True, strict_types=False, autoreset=True
).pack


def _pack_with(value: object, default: Callable[[object], object]) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True, datetime=True, default=default)
    except _NO_ENCODING as error:
        raise _cannot_be_encoded(error) from None
    return packed


_NO_ENCODING: Final = (TypeError, ValueError, OverflowError, RecursionError)


def _cannot_be_encoded(error: Exception) -> BodyError:
    return BodyError(f"cannot be encoded: only {type_names} can ({type(error).__name__})")


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError("extension type")


def _check_shape(value: object, error: type[BodyError | RemoteProtocolError], what: str = "body") -> None:
    """Depth at most `limits.DEPTH`, map keys strings, datetimes aware (msgpack itself packs other keys)."""
    level = [value]
    for _ in range(limits.DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    if type(key) is not str:
                        raise error(f"{what}: a map key is no string")
                below += [entry for entry in item.values() if type(entry) not in _SCALARS]
            elif isinstance(item, msgpack.ExtType | msgpack.Timestamp):  # packed, yet none of ours
                raise error(f"{what}: an extension type")
            elif isinstance(item, list | tuple):
                below += [entry for entry in item if type(entry) not in _SCALARS]
        if not below:
            return
        level = below
    raise error(f"{what}: nested deeper than {limits.DEPTH}")


def _count_nodes(data: memoryview, what: str, budget: int) -> None:
    """Walk one value without building it; more than `budget` elements, or bytes that run out, are refused."""
    position, wanted, end, seen = 0, 1, len(data), 0
    while wanted:
        wanted -= 1
        seen += 1
        if seen > budget:
            raise RemoteProtocolError(f"{what}: more than {budget} elements")
        if position >= end:
            raise RemoteProtocolError(f"{what}: cut short")
        first = data[position]
        position += 1
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x8F:
            wanted += 2 * (first & 0x0F)
        elif first <= 0x9F:
            wanted += first & 0x0F
        elif first <= 0xBF:
            position += first & 0x1F
        else:
            width, unit, fixed, children = _HEADS[first]
            size = int.from_bytes(data[position : position + width], "big")
            position += width + fixed + size * unit
            wanted += size * children
    if position != end:
        raise RemoteProtocolError(f"{what}: bytes after the value, or cut short")


# first byte -> (bytes of the length, bytes per unit of it, bytes besides, elements per unit of it)
_HEADS: Final[dict[int, tuple[int, int, int, int]]] = {
    0xC0: (0, 0, 0, 0), 0xC1: (0, 0, 0, 0), 0xC2: (0, 0, 0, 0), 0xC3: (0, 0, 0, 0),
    0xC4: (1, 1, 0, 0), 0xC5: (2, 1, 0, 0), 0xC6: (4, 1, 0, 0),
    0xC7: (1, 1, 1, 0), 0xC8: (2, 1, 1, 0), 0xC9: (4, 1, 1, 0),
    0xCA: (0, 0, 4, 0), 0xCB: (0, 0, 8, 0),
    0xCC: (0, 0, 1, 0), 0xCD: (0, 0, 2, 0), 0xCE: (0, 0, 4, 0), 0xCF: (0, 0, 8, 0),
    0xD0: (0, 0, 1, 0), 0xD1: (0, 0, 2, 0), 0xD2: (0, 0, 4, 0), 0xD3: (0, 0, 8, 0),
    0xD4: (0, 0, 2, 0), 0xD5: (0, 0, 3, 0), 0xD6: (0, 0, 5, 0), 0xD7: (0, 0, 9, 0), 0xD8: (0, 0, 17, 0),
    0xD9: (1, 1, 0, 0), 0xDA: (2, 1, 0, 0), 0xDB: (4, 1, 0, 0),
    0xDC: (2, 0, 0, 1), 0xDD: (4, 0, 0, 1),
    0xDE: (2, 0, 0, 2), 0xDF: (4, 0, 0, 2),
}  # fmt: skip


def aware_utc(value: datetime) -> datetime:
    """The instant in UTC.

    Raises:
        UsageError: the datetime is naive.
    """
    if value.tzinfo is None:
        raise UsageError("a datetime needs a timezone: datetime.now(UTC), not datetime.now()")
    return value.astimezone(UTC)
