"""Where an audit reads a log: a registry's folder, or tiles in a folder or behind a URL (`tile_sources`).

Nothing that is read is believed. All of it is synchronous: an audit is arithmetic that waits for the next bundle.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, final

from autolink import limits
from autolink.errors import SetupError, UsageError, display
from autolink.identity import AutoId
from autolink.registry.claim import DATABASE, check_not_lost, check_there
from autolink.registry.database import DAMAGED, FORMAT, TILE_ROWS, UNREADABLE, tile_hashes, tile_place, told
from autolink.registry.extent import read_extent
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.tiles import WIDTH
from autolink.registry.source import Source, SourceFailed, Unserved
from autolink.registry.tile_sources import CHECKPOINT, TileFolderSource, UrlSource
from autolink.transport import Contact, parse_address

_TABLES: Final = ("log", "leaves", "tiles", "records", "used", "changes", "history", "ended")
"""What is read here of a registry's file."""

_MARKS: Final = ", ".join("?" * len(_TABLES))
_COUNT: Final = f"SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ({_MARKS})"  # noqa: S608  marks only


def open_source(where: str, *, timeout: float = limits.FETCH) -> Source:
    """A URL, a registry's folder, or a folder of tile files.

    Args:
        timeout: seconds for one answer from a URL.

    Raises:
        SetupError: it is none of these, or the packages that a URL takes are not installed.
    """
    if where.startswith(("http://", "https://")):
        return UrlSource(where, timeout=timeout)
    folder = Path(where)
    if (folder / DATABASE).is_file():
        return FolderSource(folder)
    if (folder / CHECKPOINT).is_file():
        return TileFolderSource(folder)
    check_not_lost(folder)
    what = f"{display(where)} is no URL, and no folder with a registry or a log's tiles in it"
    if _is_an_agents(where):
        what += ", but where agents are dialled: give the URL of the registry's public side (registry serve --http)"
    raise SetupError(what)


def _is_an_agents(where: str) -> bool:
    """Whether it is a contact or an address."""
    for parse in (Contact.parse, parse_address):
        with suppress(UsageError):
            parse(where)
            return True
    return False


@final
class FolderSource(Unserved):
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
            ((count,),) = db.execute(_COUNT, _TABLES).fetchall()
            if count != len(_TABLES):  # a view could be a query without an end
                raise sqlite3.DatabaseError("it is no registry's")
        except UNREADABLE as error:
            raise SetupError(f"{display(str(path))} cannot be read: {told(error)}") from error
        opened.pop_all()
    return db
