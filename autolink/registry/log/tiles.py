"""Tiles (c2sp.org/tlog-tiles): a log's tree cut into immutable pieces of 256 hashes, and its entries into bundles.

Level 0 holds the hashes of the entries; each hash of a higher level is the root over one full tile of the level below. The
levels of the tree in between are computed again from a tile when they are needed. A tree of 70,000 entries::

    level 2   000.p/1                                    1 hash
    level 1   000            001.p/17                    273 hashes
    level 0   000 ... 255    256 ... 272    273.p/112    70,000 hashes
    entries   the same as level 0

Only the last tile of a level is partial, and a partial tile is the beginning of each wider one at its place. So it
suffices to keep the widest, and to answer for a narrower one with its first bytes.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from autolink import limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.registry.log.canonical import decimal_untrusted

WIDTH: Final = 256
"""Hashes of a full tile, entries of a full bundle."""

HEIGHT: Final = 8
"""Levels of the tree in one level of tiles: WIDTH is two to the power of this."""

SIXTEENTH: Final = WIDTH // 16
"""Hashes of a sixteenth of a tile: all that a proof must look at in a tile of which it knows the rest."""

ENTRIES: Final = -1
"""The level of the entry bundles, whose places are those of the tiles of level 0."""

_PATH_MOST: Final = len("tile/entries/x000/x000/x000/x000/x000/000.p/255")
_LENGTH: Final = struct.Struct(">H")


@final
@dataclass(frozen=True, slots=True)
class Tile:
    """The place of one tile or bundle.

    Attributes:
        level: of tiles, from 0; or `ENTRIES`.
        index: in its level.
        width: how many hashes or entries it has; fewer than `WIDTH` in a partial one.
    """

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it is served below the log's prefix: ``tile/<level>/x001/x234/067.p/<width>``."""
        rest, last = divmod(self.index, 1000)
        number = f"{last:03}"
        while rest:
            rest, last = divmod(rest, 1000)
            number = f"x{last:03}/{number}"
        level = "entries" if self.level == ENTRIES else self.level
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{number}{partial}"


def tile_from_untrusted(path: str) -> Tile:
    """Read a path, in the one way in which `Tile.path` writes it. Whether a log has grown so far, `width_at` says.

    Raises:
        RemoteProtocolError: it is no such path, or no log that `limits.LOG_ENTRIES` allows has this tile.
    """
    head, partial, width = path[:_PATH_MOST].partition(".p/")  # a longer one is not what is compared below
    parts = head.split("/")
    number = "".join(part.removeprefix("x") for part in parts[2:])
    if not (number.isascii() and number.isdigit()):
        raise RemoteProtocolError("tile: not the path of one")
    level = ENTRIES if parts[1] == "entries" else decimal_untrusted(parts[1], "tile: level")
    tile = Tile(level, int(number), decimal_untrusted(width, "tile: width") if partial else WIDTH)
    if tile.path != path or not tile.width:
        raise RemoteProtocolError("tile: not the path of one, or not written in the one way")
    # That leaves no level above 7, of the 64 that the specification has numbers for.
    if tile.index * WIDTH + tile.width > limits.LOG_ENTRIES >> HEIGHT * max(level, 0):
        raise RemoteProtocolError(f"tile: beyond the {limits.LOG_ENTRIES} entries that a log can have")
    return tile


def width_at(level: int, index: int, size: int) -> int:
    """The width of a tile or bundle in a log of `size` entries: 0 if it is not there, `WIDTH` if it is full."""
    return max(0, min(WIDTH, (size >> HEIGHT * max(level, 0)) - index * WIDTH))


def new_tiles(old: int, new: int) -> Iterator[Tile]:
    """The tiles to publish when a log grows from `old` to `new` entries, lower levels first. (Bundles: as at level 0.)

    Raises:
        UsageError: the sizes are not 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise UsageError("a log only grows")
    level = 0
    while new > old:
        for index in range(old // WIDTH, (new + WIDTH - 1) // WIDTH):
            yield Tile(level, index, min(WIDTH, new - index * WIDTH))
        old, new, level = old // WIDTH, new // WIDTH, level + 1


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """The bundle of consecutive entries of one place.

    Raises:
        UsageError: there are none or more than `WIDTH`, or one is longer than `limits.LOG_ENTRY`.
    """
    if not 0 < len(entries) <= WIDTH:
        raise UsageError(f"a bundle has 1 to {WIDTH} entries")
    if any(len(entry) > limits.LOG_ENTRY for entry in entries):
        raise UsageError(f"an entry of a log has at most {limits.LOG_ENTRY} bytes")
    return b"".join(part for entry in entries for part in (_LENGTH.pack(len(entry)), entry))


def decode_bundle_untrusted(data: bytes, width: int) -> list[bytes]:
    """Take a bundle apart. That the entries are the log's, only their hashes in a tile that a checkpoint covers say.

    Args:
        width: how many entries it must have.

    Raises:
        RemoteProtocolError: it has more or fewer.
    """
    entries: list[bytes] = []
    at = 0
    try:
        for _ in range(width):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            entries.append(data[at - length : at])
    except struct.error:
        at = len(data) + 1
    if at != len(data):
        raise RemoteProtocolError(f"entry bundle: not {width} entries with their lengths")
    return entries
