"""Where an audit reads a log: a registry's folder, a registry or any file server by its URL, or a folder of tile files.

Nothing that is read is believed. What a log has signed is its checkpoint; tiles from elsewhere are checked against that, and
bundles of entries against the tiles, before an entry is handed on: so whoever serves a log, or sits in between, cannot
show other entries than the log's.

All of it is synchronous: an audit is arithmetic that waits for the next bundle.
"""

import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, final

from autolink import limits
from autolink.errors import RemoteProtocolError, SetupError, UsageError, display
from autolink.identity import AutoId
from autolink.messages.merkle import HASH, leaf_hashes
from autolink.registry.checked_tiles import CheckedTiles
from autolink.registry.claim import DATABASE, check_not_lost, check_there
from autolink.registry.database import DAMAGED, TILE_ROWS, UNREADABLE, tile_hashes, tile_place, told
from autolink.registry.extent import read_extent
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.tiles import ENTRIES, WIDTH, Tile, decode_bundle_untrusted, width_at
from autolink.registry.source import Source, SourceFailed, SourceLost
from autolink.registry.store import FORMAT

if TYPE_CHECKING:
    import httpx

CHECKPOINT: Final = "checkpoint"

_TABLES: Final = """
SELECT count(*) FROM sqlite_schema WHERE type = 'table'
    AND name IN ('log', 'leaves', 'tiles', 'records', 'used', 'changes', 'history', 'ended')
"""

_TILE_BYTES: Final = WIDTH * HASH
_BUNDLE_BYTES: Final = WIDTH * (limits.LOG_ENTRY + 2)

Fetch = Callable[[str, int], bytes | None]
"""Gives the content of a path below the log's prefix, of at most so many bytes; None if there is none."""


def open_source(where: str) -> Source:
    """A URL, a registry's folder, or a folder of tile files.

    Raises:
        SetupError: it is none of these, or the packages that a URL takes are not installed.
    """
    if where.startswith(("http://", "https://")):
        return UrlSource(where)
    folder = Path(where)
    if (folder / DATABASE).is_file():
        return FolderSource(folder)
    if (folder / CHECKPOINT).is_file():
        return TileFolderSource(folder)
    check_not_lost(folder)
    raise SetupError(f"{display(where)} is no URL, and no folder with a registry or a log's tiles in it")


class _Silent:
    """A source that is read only, and needs no closing."""

    def is_registry(self) -> bool:
        return False

    def status(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def status_json(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def record_json(self, auto_id: AutoId) -> bytes | None:
        raise _served_nowhere()

    def entry_json(self, index: int) -> bytes | None:
        raise _served_nowhere()

    def close(self) -> None:
        """Nothing more is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _served_nowhere() -> UsageError:
    return UsageError("nobody serves that there: ask the registry by its URL")


@final
class FolderSource(_Silent):
    """A registry's folder, read while a server has it open or not; nothing in it is written.

    Args:
        folder: of `SqliteStore`.

    Raises:
        SetupError: there is no registry in it.
    """

    def __init__(self, folder: Path) -> None:
        self._name, self._folder = display(str(folder)), folder
        check_there(folder)
        self._db = _open_readonly(folder / DATABASE)

    def checkpoint(self) -> bytes:
        note = self._one("SELECT checkpoint FROM log")
        if not note:
            raise SourceFailed(f"{self._name}: nothing is signed there yet: serve it once")
        return note

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
            self._db.rollback()  # unless SQLite has done so, as when a page could not be read

    def check(self) -> None:
        """Look at all that is kept, which takes time with its size: whether it is whole.

        Raises:
            SourceFailed: it is damaged, or of another format.
        """
        if (form := self._number("SELECT CAST(format AS BLOB) FROM log")) != FORMAT:
            raise SourceFailed(f"{self._name} is of format {form}, not {FORMAT}")
        found = self._rows("SELECT CAST(integrity_check AS BLOB) FROM pragma_integrity_check(1)")
        if found != [b"ok"]:
            raise SourceFailed(f"{self._name}: {DAMAGED}")

    def signed(self) -> int:
        """How many entries the log has signed by now at least."""
        try:
            return read_extent(self._folder)
        except OSError as error:
            raise SourceFailed(f"{self._name}: {error.strerror}") from error

    def time(self) -> int:
        """The log's, microseconds."""
        return self._number("SELECT CAST(time AS BLOB) FROM log")

    def count(self, table: Literal["leaves", "records", "used", "changes", "history", "ended"]) -> int:
        """How many rows one of the tables has, signed for or not."""
        return self._number(f"SELECT CAST(count(*) AS BLOB) FROM {table}")  # noqa: S608  one of these

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a tile in a row, unchecked.

        Raises:
            SourceFailed: it is missing, or has fewer.
        """
        rows = self._rows(TILE_ROWS, level, tile_place(index), tile_place(index, width))
        if (hashes := tile_hashes(rows, width)) is None:
            raise SourceFailed(f"{self._name}: tile {level}/{index} is missing, or not {width} hashes")
        return hashes

    def record(self, auto_id: AutoId) -> bytes | None:
        """What the registry goes by of an ID (`records.as_kept`): the state that it keeps beside the log."""
        return self._one("SELECT record FROM records WHERE auto_id = ?", auto_id.value)

    def is_used(self, key: bytes) -> bool:
        """Whether the registry knows of a key that it was some ID's."""
        return self._one("SELECT key FROM used WHERE key = ?", key) is not None

    def change(self, place: int) -> bytes | None:
        """What the feed has told of an entry; None for nothing."""
        return self._one("SELECT change FROM changes WHERE place = ?", place)

    def in_history(self, auto_id: AutoId, place: int) -> bool:
        """Whether an ID's history has this place."""
        query = "SELECT auto_id FROM history WHERE auto_id = ? AND place = ?"
        return self._one(query, auto_id.value, place) is not None

    def ended(self, issuer: AutoId) -> int:
        """As `Store.ended`."""
        return self._number("SELECT CAST(place AS BLOB) FROM ended WHERE issuer = ?", issuer.value)

    def close(self) -> None:
        self._db.close()

    def _number(self, query: str, *values: int | bytes) -> int:
        try:
            return int(self._one(query, *values) or b"-1")
        except ValueError:
            raise SourceFailed(f"{self._name}: something that is no number") from None

    def _one(self, query: str, *values: int | bytes) -> bytes | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: int | bytes) -> list[bytes]:
        try:
            # No more than a page and one, however many a table without its key has of one place.
            rows = self._db.execute(query, values).fetchmany(WIDTH + 1)
        except UNREADABLE as error:
            raise SourceFailed(f"{self._name}: {told(error)}") from error
        if any(type(value) is not bytes for (value,) in rows):
            raise SourceFailed(f"{self._name}: something that is no bytes")
        return [value for (value,) in rows]


def _open_readonly(path: Path) -> sqlite3.Connection:
    """Beside a server the write-ahead log is read, too. Without one nobody has the file open, and it stands still; told so,
    SQLite makes no files of its own beside it."""
    still = not Path(f"{path}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    with ExitStack() as opened:
        try:
            db = opened.enter_context(closing(sqlite3.connect(uri, uri=True, check_same_thread=False)))
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.MIB)  # of a value, and of a row
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cell_size_check = ON")
            if db.execute(_TABLES).fetchall() != [(8,)]:  # a view could be a query without an end
                raise sqlite3.DatabaseError("it is no registry's")
        except UNREADABLE as error:
            raise SetupError(f"{display(str(path))} cannot be read: {told(error)}") from error
        opened.pop_all()
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
        UsageError: no URL.
        SetupError: httpx is not installed.
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
            raise SetupError(
                f"to read a log by its URL takes the extra `registry` ({error}): pip install 'autolink-agents[registry]', "
                "in a checkout '.[registry]'"
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

    def is_registry(self) -> bool:
        return self._get("v1/log", limits.LOG_VIEW) is not None

    def status(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}/status", limits.STATUS)

    def status_json(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}/status", limits.LOG_VIEW, accept="application/json")

    def record_json(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}", limits.LOG_VIEW)

    def entry_json(self, index: int) -> bytes | None:
        return self._get(f"v1/entries/{index}", limits.LOG_VIEW)

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, limit: int, accept: str = "*/*") -> bytes | None:
        for left in reversed(range(limits.FETCH_TRIES)):
            try:
                return self._try(path, limit, accept)
            except self._broken as error:
                if not left:
                    raise SourceLost(f"{self._name}: {path}: {display(str(error))}") from error
        raise AssertionError("the last try returns or raises")

    def _try(self, path: str, limit: int, accept: str) -> bytes | None:
        until, data = self._clock() + limits.FETCH, bytearray()
        with self._client.stream("GET", path, headers={"accept": accept}) as response:
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                raise SourceFailed(f"{self._name}: {path}: HTTP status {response.status_code}")
            for part in response.iter_raw():
                data += part
                if len(data) > limit:
                    raise SourceFailed(f"{self._name}: {path}: more than {limit} bytes")
                if self._clock() > until:
                    raise SourceLost(f"{self._name}: {path}: more than {limits.FETCH:.0f} seconds")
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
