"""Where a log and the state that follows from it are kept, and the one of SQLite.

A store takes groups of entries: each of them whole, with the tiles, records and the signed checkpoint that go with it, or
not at all. When `append` has returned, the group survives a crash of the process and of the machine.

The state could always be rebuilt from the entries. It is kept because a log of a million entries would otherwise take
minutes to start, and memory for all of them.
"""

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar, final

from autolink import limits
from autolink.errors import SetupError, display
from autolink.identity import AutoId, files
from autolink.registry.claim import DATABASE, claim
from autolink.registry.database import (
    FORMAT,
    READER_KIB,
    TILE_ROWS,
    UNREADABLE,
    WRITER_KIB,
    Readers,
    StoreFailed,
    check_file,
    connect,
    create_file,
    read_size,
    tile_hashes,
    tile_place,
    tile_rows,
    told,
)
from autolink.registry.extent import Extent, check_extent
from autolink.registry.ledger import Ledger
from autolink.registry.log.tiles import Tile
from autolink.registry.records import Record, as_kept, read_kept

T = TypeVar("T")

_KEEP_CRL: Final = """
INSERT INTO crls VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, this_update = excluded.this_update,
    crl = excluded.crl WHERE (excluded.size, excluded.this_update) > (size, this_update)
    AND excluded.this_update >= this_update
"""


@final
@dataclass(frozen=True, slots=True)
class Head:
    """The newest state of a log.

    Attributes:
        size: entries.
        time: log time of the last one, microseconds.
        checkpoint: the signed note; empty before the first one.
    """

    size: int
    time: int
    checkpoint: bytes


@final
@dataclass(frozen=True, slots=True)
class Group:
    """What is appended together.

    Attributes:
        leaves: in their order.
        ids: whose each of them is.
        tiles: new, or wider than before.
        records: those that changed, as they are after the last leaf.
        used: keys that became some ID's.
        changes: what the feed tells of them, each with the place of its entry.
        head: after the last leaf.
    """

    leaves: Sequence[bytes]
    ids: Sequence[AutoId]
    tiles: Sequence[tuple[Tile, bytes]]
    records: Mapping[AutoId, Record]
    used: Sequence[bytes]
    changes: Sequence[tuple[int, bytes]]
    head: Head


class Store(Ledger, Protocol):
    """A log's memory. Its calls may touch a disk: an async caller runs `append` in a worker thread."""

    @property
    def origin(self) -> str:
        """Which log it is."""

    @property
    def head(self) -> Head:
        """The newest one that was appended; never older than one that a `snapshot` has given."""

    def snapshot(self) -> AbstractContextManager[Head]:
        """Hold all that this thread reads in the block to one moment, that of the head which it gives, while another thread
        may append.

        Raises:
            StoreFailed: nothing can be read.
        """

    def records(self, auto_ids: Collection[AutoId]) -> list[Record]:
        """What is on record about several IDs, at most a group: for the one who appends, of the newest state.

        Raises:
            StoreFailed: it cannot be read.
        """

    def append(self, group: Group) -> None:
        """Keep a group for good.

        Raises:
            StoreFailed: it could not be kept, and nothing of it was.
        """

    def read_tile(self, level: int, index: int, width: int, begin: int = 0) -> bytes:
        """The hashes of a tile, in a row, from `begin` to before `width`.

        Args:
            begin: of a sixteenth; a proof reads one alone.

        Raises:
            StoreFailed: they are not there.
        """

    def read_leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from `start` to before `stop`.

        Raises:
            StoreFailed: one of them is not there.
        """

    def history(self, auto_id: AutoId, start: int = 0, most: int = limits.LOG_PAGE) -> list[int]:
        """Where an ID's entries stand in the log, from place `start` on, at most so many."""

    def changes(self, start: int = 0, most: int = limits.LOG_PAGE) -> list[tuple[int, bytes]]:
        """What the feed has told of entries from place `start` on, at most so many, each with its place."""

    def ended(self, issuer: AutoId) -> int:
        """The place of the last entry that ended a certificate of this issuer's; -1 without any."""

    def crl(self, issuer: AutoId) -> bytes | None:
        """The CRL that an issuer has published last, in DER."""

    def keep_crl(self, issuer: AutoId, crl: bytes, *, size: int, this_update: int) -> bool:
        """Keep an issuer's CRL instead of its last one, unless that is newer, which the result tells.

        Args:
            size: of the log that it was made from.
            this_update: seconds.

        Raises:
            StoreFailed: it could not be kept.
        """


@final
class SqliteStore:
    """A folder with a SQLite file, for one process at a time. A context manager; safe in threads.

    Args:
        folder: made by `create`.

    Raises:
        SetupError: there is no registry in it, it is another process's, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers = Readers(lambda: connect(folder / DATABASE, READER_KIB))
        self._writing = threading.Lock()  # appending is one thread's; what issuers publish comes in another
        with ExitStack() as opened:
            try:
                opened.callback(os.close, claim(folder))
                check_extent(folder, read_size(folder / DATABASE))  # before anything is moved
                self._writer = opened.enter_context(closing(connect(folder / DATABASE, WRITER_KIB)))
                opened.enter_context(closing(self._readers))
                check_file(self._writer, folder / DATABASE)
                row = self._writer.execute(
                    "SELECT format, origin, size, time, checkpoint FROM log"
                ).fetchone()
                form, self.origin, *kept = row
                if form != FORMAT:
                    raise SetupError(f"{_in(folder)} is of format {form}, not {FORMAT}")
                self.head = _head([kept])
                if not isinstance(self.origin, str):
                    raise _not_written()
                self._extent = opened.enter_context(closing(Extent(folder, self.head.size)))
            except (*UNREADABLE, TypeError) as error:
                raise SetupError(f"{_in(folder)} cannot be used: {DATABASE}: {told(error)}") from error
            except OSError as error:
                name = display(Path(error.filename or folder).name)
                raise SetupError(f"{_in(folder)} cannot be used: {name}: {error.strerror}") from error
            self._showing = threading.Lock()  # the newest head, by whoever has it first
            self._opened = opened.pop_all()

    @classmethod
    def create(cls, folder: Path, origin: str, checkpoint: bytes = b"") -> None:
        """Make an empty log in a folder, which is made too, for its owner only.

        Args:
            checkpoint: of the empty log, so that it can be audited before it is served; else its first `Registrar` signs.

        Raises:
            SetupError: there is one already, or it cannot be made.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_file(folder / DATABASE, origin, checkpoint)
            files.sync_folder(str(folder / DATABASE), None)
        except FileExistsError:
            raise SetupError(f"{_in(folder)} exists already") from None
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"{_in(folder)} cannot be made: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[Head]:
        try:
            with self._readers.moment():
                head = _head(self._rows("SELECT size, time, checkpoint FROM log"))
                self._show(head)
                yield head
        except UNREADABLE as error:
            raise self._failed(error) from error

    def append(self, group: Group) -> None:
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                with self._writer:  # commits, or rolls back whatever raises
                    self._write(self.head.size, group)
            except UNREADABLE as error:
                raise self._failed(error) from error
            self._extent.write(group.head.size)
            self._show(group.head)

    def _show(self, head: Head) -> None:
        """What was committed can be read before `append` comes to say so. Whoever was told of it meanwhile, in a status,
        must not be told of a shorter log afterwards: that convicts one."""
        with self._showing:
            if head.size >= self.head.size:
                self.head = head

    def _write(self, first: int, group: Group) -> None:
        db = self._writer
        db.executemany("INSERT INTO leaves VALUES (?, ?)", enumerate(group.leaves, first))
        db.executemany(
            "INSERT INTO history VALUES (?, ?)",
            ((auto_id.value, place) for place, auto_id in enumerate(group.ids, first)),
        )
        db.executemany(
            "INSERT INTO tiles VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET hashes = excluded.hashes",
            (row for tile, hashes in group.tiles for row in tile_rows(tile, hashes, first)),
        )
        db.executemany(
            "INSERT INTO records VALUES (?, ?) ON CONFLICT DO UPDATE SET record = excluded.record",
            ((auto_id.value, as_kept(record)) for auto_id, record in group.records.items()),
        )
        db.executemany("INSERT INTO used VALUES (?)", ((key,) for key in group.used))
        db.executemany("INSERT INTO changes VALUES (?, ?)", group.changes)
        changed_ids = ((group.records[group.ids[place - first]], place) for place, _ in group.changes)
        db.executemany(
            "INSERT INTO ended VALUES (?, ?) ON CONFLICT DO UPDATE SET place = excluded.place",
            ((record.issuer.value, place) for record, place in changed_ids if record.issuer is not None),
        )
        head = group.head
        changed = db.execute(
            "UPDATE log SET size = ?, time = ?, checkpoint = ? WHERE size = ?",
            (head.size, head.time, head.checkpoint, first),
        ).rowcount
        if changed != 1:
            raise sqlite3.IntegrityError("the log has another size than this process knows of")

    def record(self, auto_id: AutoId) -> Record | None:
        found = self._one(bytes, "SELECT record FROM records WHERE auto_id = ?", auto_id.value)
        return None if found is None else self._record(auto_id.value, found)

    def records(self, auto_ids: Collection[AutoId]) -> list[Record]:
        marks = ", ".join("?" * len(auto_ids))
        query = f"SELECT auto_id, record FROM records WHERE auto_id IN ({marks})"  # noqa: S608  marks only
        with self._writing:  # the writer's: the pages that the group changes are then in its memory
            try:
                rows = self._writer.execute(query, [auto_id.value for auto_id in auto_ids]).fetchall()
            except UNREADABLE as error:
                raise self._failed(error) from error
        return [self._record(value, kept) for value, kept in rows]

    def _record(self, auto_id: bytes, kept: bytes) -> Record:
        record = read_kept(kept)
        if record is None or record.auto_id.value != auto_id:
            raise StoreFailed(f"{_in(self._folder)}: the record of {auto_id[:4].hex()}… is not what was kept")
        return record

    def is_used(self, key: bytes) -> bool:
        return self._one(int, "SELECT 1 FROM used WHERE key = ?", key) is not None

    def read_tile(self, level: int, index: int, width: int, begin: int = 0) -> bytes:
        rows = self._rows(TILE_ROWS, level, tile_place(index, begin), tile_place(index, width))
        # Whose types `tile_hashes` looks at, so that the error names the tile.
        if (hashes := tile_hashes([row for (row,) in rows], width - begin)) is None:
            raise StoreFailed(f"{_in(self._folder)}: tile {level}/{index} has not {width} hashes")
        return hashes

    def read_leaves(self, start: int, stop: int) -> list[bytes]:
        query = "SELECT leaf FROM leaves WHERE place >= ? AND place < ? ORDER BY place"
        rows = self._all(bytes, query, start, stop)
        if len(rows) != max(0, stop - start):
            raise StoreFailed(f"not every entry from {start} to {stop} is in {display(str(self._folder))}")
        return rows

    def history(self, auto_id: AutoId, start: int = 0, most: int = limits.LOG_PAGE) -> list[int]:
        return self._all(
            int, "SELECT place FROM history WHERE auto_id = ? AND place >= ? ORDER BY place LIMIT ?",
            auto_id.value, start, most,
        )  # fmt: skip

    def changes(self, start: int = 0, most: int = limits.LOG_PAGE) -> list[tuple[int, bytes]]:
        query = "SELECT place, change FROM changes WHERE place >= ? ORDER BY place LIMIT ?"
        rows = self._rows(query, start, most)
        if not all(isinstance(change, bytes) for _, change in rows):
            raise self._failed(_not_written())
        return rows

    def ended(self, issuer: AutoId) -> int:
        found = self._one(int, "SELECT place FROM ended WHERE issuer = ?", issuer.value)
        return -1 if found is None else found

    def crl(self, issuer: AutoId) -> bytes | None:
        return self._one(bytes, "SELECT crl FROM crls WHERE issuer = ?", issuer.value)

    def keep_crl(self, issuer: AutoId, crl: bytes, *, size: int, this_update: int) -> bool:
        with self._writing:
            try:
                return self._writer.execute(_KEEP_CRL, (issuer.value, size, this_update, crl)).rowcount == 1
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def close(self) -> None:
        """Close the files; another process may open them."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one(self, kind: type[T], query: str, *values: object) -> T | None:
        rows = self._all(kind, query, *values)
        return rows[0] if rows else None

    def _all(self, kind: type[T], query: str, *values: object) -> list[T]:
        found = [value for (value,) in self._rows(query, *values)]
        if not {kind}.issuperset(map(type, found)):
            raise self._failed(_not_written())
        return found

    def _rows(self, query: str, *values: object) -> list[Any]:
        try:
            return self._readers.rows(query, values)
        except UNREADABLE as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreFailed:
        return StoreFailed(f"{_in(self._folder)}: {told(error)}")


def _head(rows: list[Any]) -> Head:
    """What the only row of the log says.

    Raises:
        sqlite3.DatabaseError: it is not there, or a column holds something else than was written.
    """
    match rows:
        case [(int(size), int(time), bytes(checkpoint))]:
            return Head(size, time, checkpoint)
    raise _not_written()


def _not_written() -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError("a column holds something else than was written")


def _in(folder: Path) -> str:
    return f"the registry in {display(str(folder))}"
