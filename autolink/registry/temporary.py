"""The state that an audit has reached, in memory that does not grow with the log.

A log may be of any size, and whoever serves it may be hostile: what follows from its entries lies in a temporary database
of SQLite's, of which some pages are in memory and the rest in a file without a name, gone with the process at the latest.
`SQLITE_TMPDIR` says where, if not in the system's place for large temporary files.
"""

import sqlite3
import weakref
from collections.abc import Iterator
from typing import Any, Final, final

from autolink import limits
from autolink.identity import AutoId
from autolink.registry.database import StoreFailed
from autolink.registry.ledger import Applied
from autolink.registry.records import Record, as_kept, read_kept

CACHE_KIB: Final = 16 * 1024
"""Pages that stay in memory."""

_PAGE: Final = 256

_SCHEMA: Final = (
    "CREATE TABLE records (touched INTEGER PRIMARY KEY, auto_id BLOB NOT NULL UNIQUE, record BLOB NOT NULL, ready INTEGER)",
    "CREATE INDEX recovering ON records (ready) WHERE ready IS NOT NULL",
    "CREATE TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID",
)
"""A record is found by its ID, by the entry that touched it last (an entry touches one), and by when another key takes over,
of the few that are recovering."""


@final
class TemporaryLedger:
    """A state in a temporary database. Whatever is called raises StoreFailed if that cannot be read or written, as on a full
    disk, and from then on: half an entry may be in it, and to go on would convict the log of what the disk has done."""

    def __init__(self) -> None:
        self._failure = ""
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._rows(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._rows("PRAGMA journal_mode = OFF")  # nobody goes on with it after a fault
        self._rows("PRAGMA synchronous = OFF")
        for statement in _SCHEMA:
            self._rows(statement)
        self._rows("BEGIN")  # for ever: pages are written when they make room for others, and not before

    def record(self, auto_id: AutoId) -> Record | None:
        kept = self.kept(auto_id)
        return None if kept is None else read_kept(kept)

    def kept(self, auto_id: AutoId) -> bytes | None:
        """The record of an ID as `as_kept` gives it."""
        rows = self._rows("SELECT record FROM records WHERE auto_id = ?", auto_id.value)
        return rows[0][0] if rows else None

    def is_used(self, key: bytes) -> bool:
        return bool(self._rows("SELECT 1 FROM used WHERE key = ?", key))

    def take(self, applied: Applied) -> None:
        """The state after an entry."""
        record = applied.record
        self._rows(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
            record.touched, record.auto_id.value, as_kept(record), record.recovery and record.recovery.ready_at,
        )  # fmt: skip
        if applied.used is not None:
            self._rows("INSERT INTO used VALUES (?)", applied.used)

    def count(self) -> int:
        """How many IDs are on record."""
        ((found,),) = self._rows("SELECT count(*) FROM records")
        return int(found)

    def ids(self) -> Iterator[AutoId]:
        """Who is on record, in the order of the ids; entries may be taken meanwhile."""
        for auto_id, _ in self._paged(
            "SELECT auto_id, auto_id FROM records WHERE auto_id > ? ORDER BY auto_id", b""
        ):
            yield AutoId(auto_id)

    def touched(self, start: int, stop: int) -> Iterator[tuple[int, AutoId]]:
        """Whom an entry from `start` to before `stop` was the last to touch, and its place, in their order; entries may be
        taken meanwhile."""
        query = "SELECT touched, auto_id FROM records WHERE touched > ? ORDER BY touched"
        for place, auto_id in self._paged(query, start - 1):
            if place >= stop:
                return
            yield place, AutoId(auto_id)

    def recovered(self, start: int, stop: int) -> Iterator[Record]:
        """Whose recovery takes place by itself after log time `start` and by `stop`, in that order: records as they were
        last written. Nothing may be taken meanwhile."""
        query = (
            "SELECT ready, touched, record FROM records WHERE (ready, touched) > (?, ?) AND ready <= ? "
            "ORDER BY ready, touched"
        )
        after = [start, limits.LOG_ENTRIES]
        while rows := self._rows(f"{query} LIMIT {_PAGE}", *after, stop):
            for *after, kept in rows:  # noqa: B007  the last one is where the next page begins
                if (record := read_kept(kept)) is not None:
                    yield record

    def next_recovery(self, start: int) -> int | None:
        """The log time after `start` at which the next one takes place, if nothing else comes."""
        ((ready,),) = self._rows("SELECT min(ready) FROM records WHERE ready > ?", start)
        return None if ready is None else int(ready)

    def used(self) -> Iterator[bytes]:
        """The keys that are, were or are about to be some ID's."""
        for key, _ in self._paged("SELECT key, key FROM used WHERE key > ? ORDER BY key", b""):
            yield key

    def _paged(self, query: str, after: object) -> Iterator[tuple[Any, Any]]:
        """Rows behind `after`, by their first column: a page is read before anything is done with it."""
        while rows := self._rows(f"{query} LIMIT {_PAGE}", after):
            yield from rows
            after = rows[-1][0]

    def _rows(self, query: str, *values: object) -> list[Any]:
        if self._failure:
            raise StoreFailed(self._failure)
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._failure = f"what an audit has found cannot be kept for its time: {error}"
            raise StoreFailed(self._failure) from error
