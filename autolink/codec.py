"""msgpack with exactly one encoding per value, decoded under a budget.

A value is None, bool, a 64-bit integer, float, str, bytes, a list, a map with string keys, or an aware datetime
(timestamp extension, microseconds). Decoding accepts only the bytes that `encode` would have produced: the value
is encoded again and compared. That single comparison refuses duplicate keys (a dict holds one of them), lengths
and integers that are longer than needed, 32-bit floats and timestamps finer than a microsecond, so two different
byte strings never mean one value, and a signature over the bytes is a signature over the value.

The budget comes before the allocation: msgpack amplifies up to 72 times (one byte becomes an empty dict), so a
buffer longer than `limits.NODES` is first walked without building anything. A shorter one cannot hold more
elements than bytes.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgpack

from autolink import limits
from autolink.errors import BodyError, RemoteProtocolError, UsageError

type_names: Final = "None, bool, 64-bit int, float, str, bytes, list, map with string keys, aware datetime"


def encode(value: object) -> bytes:
    """Encode a value.

    Raises:
        BodyError: the value, or one inside it, is of another type, is nested deeper than `limits.DEPTH`, or is an
            integer beyond 64 bits.
    """
    try:
        encoded: bytes = _pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BodyError(f"cannot be encoded: only {type_names} can ({type(error).__name__})") from None
    _check_shape(value, BodyError)
    return encoded


def decode_untrusted(data: bytes | memoryview, *, what: str, nodes: int = limits.NODES) -> Any:  # noqa: ANN401
    """Decode bytes from a peer or a file.

    Args:
        data: exactly one encoded value.
        what: names it in errors.
        nodes: how many elements it may hold.

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
    if type(value) in _CONTAINERS:
        _check_shape(value, RemoteProtocolError, what)
    return value


_CONTAINERS: Final = frozenset({list, dict, tuple})
_packer: Final = msgpack.Packer(use_bin_type=True, datetime=True, strict_types=False, autoreset=True)


def _pack(value: object) -> bytes:
    packed: bytes = _packer.pack(value)
    return packed


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError("extension type")


def _check_shape(value: object, error: type[BodyError | RemoteProtocolError], what: str = "body") -> None:
    """Depth at most `limits.DEPTH`, map keys strings, datetimes aware (msgpack itself packs other keys)."""
    level = [value]
    for _ in range(limits.DEPTH + 1):
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                for key in item:  # type: ignore[attr-defined]
                    if type(key) is not str:
                        raise error(f"{what}: a map key is no string")
                below += [entry for entry in item.values() if type(entry) in _CONTAINERS]  # type: ignore[attr-defined]
            elif kind is list or kind is tuple:
                below += [entry for entry in item if type(entry) in _CONTAINERS]  # type: ignore[attr-defined]
        if not below:
            return
        level = below
    raise error(f"{what}: nested deeper than {limits.DEPTH}")


def _count_nodes(data: memoryview, what: str, budget: int) -> None:
    """Walk one value without building it; more than `budget` elements, or bytes that run out, are refused."""
    position, wanted, end = 0, 1, len(data)
    while wanted:
        budget -= 1
        wanted -= 1
        if budget < 0:
            raise RemoteProtocolError(f"{what}: more than {limits.NODES} elements")
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
