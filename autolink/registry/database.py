"""SQLite as a registry uses it: how a file is made, opened and found whole, and connections to read with."""

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, final

from autolink.errors import AutolinkError
from autolink.messages.merkle import HASH
from autolink.registry.log.tiles import SIXTEENTH, WIDTH, Tile, width_at

UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What `sqlite3` raises; the second one where a damaged file makes SQLite's own words no text."""

DAMAGED: Final = "it is damaged: restore a copy"
"""What to do with a file that is not what was written."""

WRITER_KIB: Final = 32 * 1024
"""Pages of the database that the writer keeps in memory, however large it is."""

READER_KIB: Final = 8 * 1024
"""The same for each that reads: the upper pages of every table among a million records, and some others."""

_WAL_PAGES: Final = 16 * 1024
"""Pages (4 KiB) in the write-ahead log before they move to their places. Among a million records a group touches about a
thousand pages all over the file, and moving them costs two more syncs; so they move every sixteenth time."""


TILE_ROWS: Final = "SELECT hashes FROM tiles WHERE level = ? AND place >= ? AND place < ? ORDER BY place"
"""A tile's sixteenths. Of most tiles one at a time is read, and a row of 512 bytes is read three times as fast as one of
8 KiB, most of which SQLite keeps in pages of its own."""


FORMAT: Final = 2
"""Of the tables."""

_SCHEMA: Final = """
CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, origin TEXT NOT NULL, size INTEGER NOT NULL,
    time INTEGER NOT NULL, checkpoint BLOB NOT NULL
);
CREATE TABLE leaves (place INTEGER PRIMARY KEY, leaf BLOB NOT NULL);
CREATE TABLE tiles (level INTEGER, place INTEGER, hashes BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE records (auto_id BLOB PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE changes (place INTEGER PRIMARY KEY, change BLOB NOT NULL);
CREATE TABLE history (auto_id BLOB, place INTEGER, PRIMARY KEY (auto_id, place)) WITHOUT ROWID;
CREATE TABLE ended (issuer BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE crls (issuer BLOB PRIMARY KEY, size INTEGER NOT NULL, this_update INTEGER NOT NULL, crl BLOB NOT NULL);
"""


class StoreFailed(AutolinkError):
    """A store could not read or keep something: the disk is full, or the file is not what it was. Nothing was appended."""


def told(error: Exception) -> str:
    """What an error about a file means for whoever runs the registry: `DAMAGED`, or SQLite's own words where it is something
    else, such as a full disk."""
    match error:
        case sqlite3.OperationalError():  # SQLITE_ERROR: a table is missing; no code: a text that is none
            damaged = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
        case sqlite3.Error():
            damaged = type(error) is sqlite3.DatabaseError
        case _:
            damaged = True
    return DAMAGED if damaged else str(error)


def connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Open a file that is there.

    Raises:
        sqlite3.Error: it cannot be.
    """
    uri = f"{path.resolve().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = FULL")  # what was acknowledged is there when the power fails
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error:
        db.close()
        raise
    return db


def create_file(path: Path, origin: str, checkpoint: bytes) -> None:
    """Make the file of an empty log, in one step.

    Raises:
        FileExistsError: there is one.
        OSError, sqlite3.Error: it cannot be made.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        with closing(connect(unfinished, WRITER_KIB)) as db:
            db.execute("PRAGMA journal_mode = WAL")  # which stays
            db.executescript(f"BEGIN; {_SCHEMA}")
            db.execute("INSERT INTO log VALUES (1, ?, ?, 0, 0, ?)", (FORMAT, origin, checkpoint))
            db.execute("COMMIT")
        os.link(unfinished, path)  # fails where one is already
    finally:
        unfinished.unlink()


def tile_place(index: int, at: int = 0) -> int:
    """The place in its level of a tile's first sixteenth that begins at hash `at` or behind; of a width, where to stop."""
    return index * (WIDTH // SIXTEENTH) + -(-at // SIXTEENTH)


def tile_hashes(rows: Iterable[object], count: int) -> bytes | None:
    """The first `count` hashes of those in rows of `TILE_ROWS`; None if they are not there."""
    row = b"".join([each[: SIXTEENTH * HASH] for each in rows if isinstance(each, bytes)])[: count * HASH]
    return row if len(row) == count * HASH else None


def tile_rows(tile: Tile, hashes: bytes, size: int) -> Iterator[tuple[int, int, bytes]]:
    """The sixteenths of a tile that a log of `size` entries had not, or not so wide."""
    full = width_at(tile.level, tile.index, size) // SIXTEENTH * SIXTEENTH
    for begin in range(full, tile.width, SIXTEENTH):
        row = hashes[begin * HASH : (begin + SIXTEENTH) * HASH]
        yield tile.level, tile_place(tile.index, begin), row


def read_size(path: Path) -> int:
    """How many entries a log has, what a killed process has left included; nothing is moved or written.

    Raises:
        sqlite3.Error, UnicodeDecodeError, TypeError: it cannot be read.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        (size,) = db.execute("SELECT CAST(size AS INTEGER) FROM log").fetchone()
    return int(size)


def check_file(db: sqlite3.Connection, path: Path) -> None:
    """What a killed process has left is moved to its place; then the file is as long as it says.

    Raises:
        sqlite3.Error: it is not what was made, or may not be written.
    """
    if db.execute("PRAGMA journal_mode").fetchall() != [("wal",)]:
        raise sqlite3.DatabaseError("the file is not what was made here")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE log SET size = size")  # raises where it may only be read
    db.execute("ROLLBACK")
    ((pages,),) = db.execute("PRAGMA page_count").fetchall()
    ((size,),) = db.execute("PRAGMA page_size").fetchall()
    if path.stat().st_size != pages * size:
        raise sqlite3.DatabaseError("the file is cut short, or too long")


@final
class Readers:
    """Connections to read with, each in one thread at a time: who reads slowly keeps nobody else waiting.

    As many are open as threads have read at once, until `close`.

    Args:
        opened: makes one.
    """

    def __init__(self, opened: Callable[[], sqlite3.Connection]) -> None:
        self._open = opened
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] | None = []  # None: closed
        self._held = threading.local()

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        """What a query finds.

        Raises:
            sqlite3.Error, UnicodeDecodeError: it cannot be asked.
        """
        held: sqlite3.Connection | None = getattr(self._held, "db", None)
        if held is not None:
            return held.execute(query, values).fetchall()
        db = self._take()
        try:
            return db.execute(query, values).fetchall()
        finally:
            self._give(db)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that this thread reads in the block is of one moment.

        Raises:
            sqlite3.Error: nothing can be read.
        """
        db = self._take()
        try:
            db.execute("BEGIN")
            self._held.db = db
            try:
                yield
            finally:
                del self._held.db
                db.execute("COMMIT")
        finally:
            self._give(db)

    def close(self) -> None:
        """Close them: those that are in use when they no longer are."""
        with self._lock:
            idle, self._idle = self._idle, None
        for db in idle or ():
            db.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle is None:
                raise sqlite3.ProgrammingError("it has been closed")
            if self._idle:
                return self._idle.pop()  # the one whose pages are the freshest
        return self._open()

    def _give(self, db: sqlite3.Connection) -> None:
        with self._lock:
            if self._idle is not None and not db.in_transaction:  # as when a moment could not be ended
                self._idle.append(db)
                return
        db.close()
