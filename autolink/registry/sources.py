"""Where an audit reads a log: a registry's folder, a registry or any file server by its URL, or a folder of tile files.

Nothing that is read is believed. What a log has signed is its checkpoint; tiles from elsewhere are checked against that, and
bundles of entries against the tiles, before an entry is handed on: so whoever serves a log, or sits in between, cannot
show other entries than the log's. What cannot be read, or does not fit, is a `SourceFailed`: that convicts nobody, for
nobody has signed it.

All of it is synchronous: an audit is arithmetic that waits for the next bundle.
"""

import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, final

from autolink import limits
from autolink.errors import AutolinkError, RemoteProtocolError, UsageError, display
from autolink.identity import AutoId
from autolink.messages import merkle
from autolink.messages.merkle import HASH, leaf_hashes
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.tiles import ENTRIES, WIDTH, Tile, decode_bundle_untrusted, width_at
from autolink.registry.log.tree import ReadTile
from autolink.registry.store import DATABASE

if TYPE_CHECKING:
    import httpx

CHECKPOINT: Final = "checkpoint"

_TABLES: Final = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('log', 'leaves')"

_TILE_BYTES: Final = WIDTH * HASH
_BUNDLE_BYTES: Final = WIDTH * (limits.LOG_ENTRY + 2)

Fetch = Callable[[str, int], bytes | None]
"""Gives the content of a path below the log's prefix, of at most so many bytes; None if there is none."""


Progress = Callable[[int, int], None]
"""Told now and then how far something is, and of how much: entries, or statuses."""


class SourceFailed(AutolinkError):
    """A log could not be read there, or what was read does not fit to what the log has signed."""


class Source(Protocol):
    """A log as somebody holds it. A context manager."""

    def checkpoint(self) -> bytes:
        """The newest signed note that there is, unverified.

        Raises:
            SourceFailed: there is none.
        """

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        """The entries from place `start` on, up to those of a verified checkpoint.

        Raises:
            SourceFailed: one is not there, or not what was signed.
        """

    def serves_statuses(self) -> bool:
        """Whether a registry is there that can be asked for statuses.

        Raises:
            SourceFailed: that cannot be found out.
        """

    def status(self, auto_id: AutoId) -> bytes | None:
        """What is served as an ID's status, unverified; None for nothing.

        Raises:
            UsageError: nobody serves statuses there.
            SourceFailed: it cannot be read.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(where: str) -> "Source":
    """A URL, a registry's folder, or a folder of tile files.

    Raises:
        UsageError: it is none of these, or the packages that a URL takes are not installed.
    """
    if where.startswith(("http://", "https://")):
        return UrlSource(where)
    folder = Path(where)
    if (folder / DATABASE).is_file():
        return FolderSource(folder)
    if (folder / CHECKPOINT).is_file():
        return TileFolderSource(folder)
    raise UsageError(f"{display(where)} is no URL, and no folder with a registry or a log's tiles in it")


class _Silent:
    """A source that is read only, and needs no closing."""

    def serves_statuses(self) -> bool:
        return False

    def status(self, auto_id: AutoId) -> bytes | None:
        raise UsageError("nobody serves statuses there: ask the registry by its URL")

    def close(self) -> None:
        """Nothing more is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class FolderSource(_Silent):
    """A registry's folder, read while a server has it open or not; nothing in it is written.

    Args:
        folder: of `SqliteStore`.

    Raises:
        UsageError: there is no registry in it.
    """

    def __init__(self, folder: Path) -> None:
        self._name = display(str(folder))
        if not (folder / DATABASE).is_file():
            raise UsageError(f"there is no registry in {self._name}")
        self._db = _open_readonly(folder / DATABASE)

    def checkpoint(self) -> bytes:
        rows = self._rows("SELECT checkpoint FROM log")
        return rows[0] if rows else b""

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        while start < signed.size:
            stop = min(start + WIDTH, signed.size)
            rows = self._rows(
                "SELECT leaf FROM leaves WHERE place >= ? AND place < ? ORDER BY place", start, stop
            )
            if len(rows) != stop - start:
                raise SourceFailed(f"{self._name}: entries from {start} to {stop} are missing")
            yield from rows
            start = stop

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """For the block all that is read is of one moment, whatever a server appends meanwhile."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def entries(self) -> int:
        """How many leaves there are, signed or not."""
        return len(self._rows("SELECT x'' FROM leaves"))

    def record(self, auto_id: AutoId) -> bytes | None:
        """What the registry goes by of an ID (`store.as_kept`): the state that it keeps beside the log."""
        rows = self._rows("SELECT record FROM records WHERE auto_id = ?", auto_id.value)
        return rows[0] if rows else None

    def ids(self) -> set[bytes]:
        """Whose records it has."""
        return set(self._rows("SELECT auto_id FROM records"))

    def change(self, place: int) -> bytes | None:
        """What the feed has told of an entry; None for nothing."""
        rows = self._rows("SELECT change FROM changes WHERE place = ?", place)
        return rows[0] if rows else None

    def changes(self) -> int:
        """How many the feed has told."""
        return len(self._rows("SELECT x'' FROM changes"))

    def close(self) -> None:
        self._db.close()

    def _rows(self, query: str, *values: int | bytes) -> list[bytes]:
        try:
            rows = self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise SourceFailed(f"{self._name}: {error}") from error
        if any(type(value) is not bytes for (value,) in rows):
            raise SourceFailed(f"{self._name}: something that is no bytes")
        return [value for (value,) in rows]


def _open_readonly(path: Path) -> sqlite3.Connection:
    """Beside a server the write-ahead log is read, too. Without one nobody has the file open, and it stands still; told so,
    SQLite makes no files of its own beside it."""
    still = not Path(f"{path}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    db = sqlite3.connect(uri, uri=True, check_same_thread=False)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.MIB)  # of a value, and of a row
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        if db.execute(_TABLES).fetchall() != [(2,)]:  # a view could be a query without an end
            raise sqlite3.DatabaseError("it is no registry's")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        db.close()
        raise UsageError(f"{display(str(path))} cannot be read: {error}") from error
    return db


class _TileSource(_Silent):
    """A log in tiles and bundles, as C2SP lays them out, wherever its files are."""

    def __init__(self, name: str, fetch: Fetch) -> None:
        self._name, self._fetch = display(name), fetch

    def checkpoint(self) -> bytes:
        note = self._fetch(CHECKPOINT, limits.NOTE)
        if note is None:
            raise SourceFailed(f"{self._name}: there is no checkpoint")
        return note

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        tiles = CheckedTiles(self.read_tile, signed)
        while start < signed.size:
            index, first = divmod(start, WIDTH)
            bundle = self._bundle(index, width_at(0, index, signed.size))
            if b"".join(leaf_hashes(bundle)) != tiles.tile(0, index):
                raise SourceFailed(
                    f"{self._name}: the entries of bundle {index} are not those that were signed"
                )
            yield from bundle[first:]
            start = index * WIDTH + len(bundle)

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        """The hashes of a tile, unchecked.

        Raises:
            SourceFailed: it is missing, or has another size.
        """
        row = self._fetch(Tile(level, index, width).path, _TILE_BYTES)
        if row is None and width < WIDTH:  # a partial tile may be gone once there is the full one
            row = (self._fetch(Tile(level, index).path, _TILE_BYTES) or b"")[: width * HASH]
        if row is None or len(row) != width * HASH:
            raise SourceFailed(f"{self._name}: tile {level}/{index} is missing, or not {width} hashes")
        return row

    def _bundle(self, index: int, width: int) -> list[bytes]:
        data, there = self._fetch(Tile(ENTRIES, index, width).path, _BUNDLE_BYTES), width
        if data is None and width < WIDTH:
            data, there = self._fetch(Tile(ENTRIES, index).path, _BUNDLE_BYTES), WIDTH
        if data is None:
            raise SourceFailed(f"{self._name}: bundle {index} of entries is missing")
        try:
            return decode_bundle_untrusted(data, there)[:width]
        except RemoteProtocolError as error:
            raise SourceFailed(f"{self._name}: bundle {index}: {error}") from None


@final
class TileFolderSource(_TileSource):
    """A folder of tile files, as `tiling.export_tiles` or another log writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(str(folder), self._read)

    def _read(self, path: str, limit: int) -> bytes | None:
        try:
            descriptor = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceFailed(f"{self._name}: {path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceFailed(f"{self._name}: {path} is no file")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise SourceFailed(f"{self._name}: {path} has more than {limit} bytes")
        return data


@final
class UrlSource(_TileSource):
    """A registry's public side, or any server of tile files. Redirects are not followed.

    Args:
        url: the log's prefix, ``http://`` or ``https://``.
        transport: of httpx, for tests.
        clock: seconds.

    Raises:
        UsageError: no URL, or httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: "httpx.BaseTransport | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        try:
            import httpx
        except ImportError as error:
            raise UsageError(
                f"a log is read over the network by a package that is not here ({error}): "
                "pip install 'autolink-agents[registry]'"
            ) from error
        self._broken: type[Exception] = httpx.TransportError
        try:
            self._client = httpx.Client(
                base_url=url.rstrip("/") + "/", transport=transport, timeout=10.0, follow_redirects=False,
                headers={"accept-encoding": "gzip, identity", "cache-control": "no-cache"},
            )  # fmt: skip
        except httpx.InvalidURL as error:
            raise UsageError(f"{display(url)} is no URL: {error}") from None
        super().__init__(url, self._get)

    def serves_statuses(self) -> bool:
        return self._get("v1/log", limits.NOTE) is not None

    def status(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}/status", limits.STATUS)

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, limit: int) -> bytes | None:
        for left in reversed(range(limits.FETCH_TRIES)):
            try:
                return self._try(path, limit)
            except self._broken as error:
                if not left:
                    raise SourceFailed(f"{self._name}: {path}: {display(str(error))}") from error
        raise AssertionError("the last try returns or raises")

    def _try(self, path: str, limit: int) -> bytes | None:
        until, data = self._clock() + limits.FETCH, bytearray()
        with self._client.stream("GET", path) as response:
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                raise SourceFailed(f"{self._name}: {path}: HTTP status {response.status_code}")
            for part in response.iter_raw():
                data += part
                if len(data) > limit or self._clock() > until:
                    raise SourceFailed(
                        f"{self._name}: {path}: more than {limit} bytes, or {limits.FETCH:.0f} seconds"
                    )
            headers: Mapping[str, str] = response.headers
        return self._decoded(bytes(data), headers.get("content-encoding", "identity"), path, limit)

    def _decoded(self, data: bytes, encoding: str, path: str, limit: int) -> bytes:
        """The content; httpx would expand a small answer a thousand times before it can be counted."""
        if encoding == "identity":
            return data
        expanding = zlib.decompressobj(wbits=31)
        try:
            expanded = expanding.decompress(data, limit + 1) if encoding == "gzip" else b""
        except zlib.error:
            expanded = b""
        if not expanding.eof or len(expanded) > limit:
            raise SourceFailed(f"{self._name}: {path}: not gzip of at most {limit} bytes")
        return expanded


@final
class CheckedTiles:
    """Somebody else's tiles, each checked against the root that a log has signed before it is given.

    Args:
        read: gives them.
        signed: verified.

    Raises:
        SourceFailed: those at the right edge do not lead to that root.
    """

    def __init__(self, read: ReadTile, signed: Checkpoint) -> None:
        self._read = read
        self._edge: dict[tuple[int, int], bytes] = {}
        self._last: dict[int, tuple[int, bytes]] = {}  # of each level the full tile that was asked for last

        def keep(level: int, index: int, width: int) -> bytes:
            row = self._edge[level, index] = read(level, index, width)
            return row

        if Frontier.restored(signed.size, keep).root() != signed.root:
            raise SourceFailed("the tiles are not those of the tree that was signed")

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile of that tree, as many as it has.

        Raises:
            SourceFailed: what is there is not what the tile above says.
        """
        if (edge := self._edge.get((level, index))) is not None:
            return edge
        last = self._last.get(level)
        if last is not None and last[0] == index:
            return last[1]
        above, at = self.tile(level + 1, index // WIDTH), index % WIDTH * HASH
        row = self._read(level, index, WIDTH)
        hashes = [row[begin : begin + HASH] for begin in range(0, len(row), HASH)]
        if merkle.root(hashes) != above[at : at + HASH]:
            raise SourceFailed(f"tile {level}/{index} is not the one that was signed")
        self._last[level] = index, row
        return row
