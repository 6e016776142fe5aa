"""Which forwarded messages were already taken: a bounded, durable memory that all processes of an agent
share.

On a link nothing can be replayed, because every signature covers the link and the batch number. An Envelope
can turn up again: at another worker, after a restart, after a clock was set. The window remembers (author,
message id) in an SQLite file until the message has expired, when its times refuse it. In doubt it refuses:

* full: `busy`; an entry is never forgotten before its message has expired;
* the file is new: it cannot know what was taken before, so whatever was signed before `started` + skew is
  refused (the author's clock may be ahead of ours by the skew);
* the clock went back: what expired no later than an entry that was forgotten is refused;
* the file cannot be read or written, or is at its place no longer: `busy`, because what cannot be remembered, or not where
  others look for it, must not be taken.
"""

import errno
import os
import secrets
import sqlite3
import stat
import threading
import weakref
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from autolink import limits
from autolink.errors import EnvelopeRefused, Reason, UsageError
from autolink.identity import PeerId, files
from autolink.messages.message import microseconds

LOCKED: Final = 2.0
"""Seconds to wait for another process of the agent before the answer is `busy`."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (message BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_expires ON seen (expires);
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), since INTEGER NOT NULL, forgotten INTEGER NOT NULL, entries
    INTEGER NOT NULL
);
"""


class ReplayWindow:
    """The ids of forwarded messages that were taken and have not expired. A context manager; safe in threads.

    Its calls touch a disk (a commit each): an async caller runs them in a worker thread.

    Args:
        path: the file, made with mode 0600 if it is not there; None keeps everything in memory, for one
            process.
        capacity: messages remembered at most.
        started: the first moment of which nothing can have been forgotten: now, unless the caller knows of an
            earlier one, such as the making of a credential that was never used before. Only a new file asks
            for it.
        skew: seconds that an author's clock may be off.

    Raises:
        UsageError: the file cannot be opened, is a symbolic link, or is something else.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        started: datetime,
        capacity: int = limits.REPLAY,
        skew: float = limits.SKEW,
    ) -> None:
        self._capacity, self._skew = capacity, int(skew * 1_000_000)
        self._lock = threading.Lock()
        self._path = path
        since = microseconds(started) + self._skew
        try:
            if path is not None:
                _make(path, since)
                self._inode = _inode(path)
            self._db = _open(path, since)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        weakref.finalize(self, self._db.close)

    def admit(self, author: PeerId, message_id: bytes, *, expires_at: int, sent_at: int, now: int) -> None:
        """Remember a message whose author was verified; it is taken if this returns.

        Args:
            author: who was proved to have signed it.
            message_id: its id.
            expires_at: its own time, in microseconds.
            sent_at: its own time, in microseconds.
            now: microseconds since 1970 UTC.

        Raises:
            EnvelopeRefused: REPLAYED; LATE, expired or older than this memory; BUSY, full, locked or not
            writable.
        """
        key = sha256(str(author).encode() + b"\0" + message_id).digest()
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                with self._db:  # commits, or rolls back whatever raises
                    if self._path is not None and _inode(self._path) != self._inode:
                        raise sqlite3.OperationalError("another file is in its place")
                    reason, detail = self._take(key, expires_at, sent_at, now)
            except (sqlite3.Error, OSError) as error:
                raise _refused(
                    author, Reason.BUSY, f"the replay window cannot remember it: {error}"
                ) from error
        if reason is not None:
            raise _refused(author, reason, detail)

    def _take(self, key: bytes, expires_at: int, sent_at: int, now: int) -> tuple[Reason | None, str]:
        db, expired = self._db, now - self._skew
        since, forgotten, entries = db.execute("SELECT since, forgotten, entries FROM state").fetchone()
        if expires_at < expired or expires_at <= forgotten:
            return Reason.LATE, "expired"
        if sent_at < since:
            return Reason.LATE, "signed before this replay window can remember"
        if db.execute("SELECT 1 FROM seen WHERE message = ?", (key,)).fetchone():
            return Reason.REPLAYED, "taken before"
        (last,) = db.execute("SELECT max(expires) FROM seen WHERE expires < ?", (expired,)).fetchone()
        if last is not None:
            entries -= db.execute("DELETE FROM seen WHERE expires < ?", (expired,)).rowcount
            forgotten = max(forgotten, last)
        room = entries < self._capacity
        if room:
            db.execute("INSERT INTO seen VALUES (?, ?)", (key, expires_at))
        db.execute("UPDATE state SET forgotten = ?, entries = ?", (forgotten, entries + room))
        return (None, "") if room else (Reason.BUSY, f"the replay window is full: {self._capacity} messages")

    def close(self) -> None:
        """Close the file; the memory stays in it."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(path: Path, since: int) -> None:
    """Make the file if there is none, under another name first: SQLite does not wait for who else is setting it up.

    One that is there is not opened besides: a process that closes any descriptor of a file loses all its locks on it
    (fcntl), those of its other windows too, and another process that then closes its own deletes what they remember.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISLNK(path.lstat().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        _open(unfinished, since).close()
        with suppress(FileExistsError):  # of those who make it at once, one has
            os.link(unfinished, path)
    finally:
        unfinished.unlink()
    files.sync_folder(str(path), None)


def _open(path: Path | None, since: int) -> sqlite3.Connection:
    """The database at `path`, or in memory, set up if it was not."""
    db = sqlite3.connect(path or ":memory:", timeout=LOCKED, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # what was taken stays taken when the power fails
        db.executescript(_SCHEMA)
        db.execute("INSERT OR IGNORE INTO state VALUES (1, ?, 0, 0)", (since,))
    except sqlite3.Error:
        db.close()
        raise
    return db


def _refused(author: PeerId, reason: Reason, detail: str) -> EnvelopeRefused:
    return EnvelopeRefused(reason, by="us", peer=f"the message of {author}", detail=detail)


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _unusable(path: Path | None, error: Exception) -> UsageError:
    return UsageError(f"the replay window {path} cannot be used: {error}")
