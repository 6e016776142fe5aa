"""A registry's folder: the log (store.py) and what stands beside it.

::

    <folder>/           0700
        log.db          the log and its state; with it SQLite's log.db-wal and log.db-shm while it is open
        lock            held by the one process that appends
        log.key         the log's key, see identity/sealed.py
        invited         the Auto IDs that may register themselves, one a line; what follows on a line is for people
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import limits
from autolink.errors import IdentityError, KeystoreError, UsageError, display
from autolink.identity import AutoId, files, save_key
from autolink.identity.sealed import KEY_BYTES, is_sealed, unseal
from autolink.registry.audit import Audit, LogConvicted, Taken, audit_source, check_change
from autolink.registry.feed import TELLING
from autolink.registry.feed import verify_untrusted as verify_change
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import Record
from autolink.registry.store import DATABASE, SqliteStore, StoreFailed

LOG_KEY: Final = "log.key"
INVITED: Final = "invited"

_PAGE: Final = 256
_LINE: Final = 256
INVITED_BYTES: Final = _LINE * limits.KNOWN_AGENTS


def create_registry(
    folder: Path, origin: str, passphrase: str | None, *, unencrypted: bool = False
) -> VerifierKey:
    """Make an empty log and its key.

    Args:
        folder: made too, for its owner only, if it is not there.
        origin: which log it is, by custom a URL without its scheme; it is in every entry, and never changes.
        passphrase, unencrypted: of the key, as in `identity.save_key`.

    Returns:
        What everybody needs who is to believe this log.

    Raises:
        UsageError: there is a registry already, or the folder cannot be made.
        IdentityError: the origin cannot name a log.
        KeystoreError: the key cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    verifier_key = VerifierKey.of(origin, key.public_key())
    if (folder / DATABASE).exists():
        raise UsageError(f"there is a registry in {display(str(folder))} already")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{display(str(folder))} cannot be made: {error.strerror}") from error
    save_key(folder / LOG_KEY, key, passphrase, unencrypted=unencrypted)
    try:
        SqliteStore.create(folder, origin)
    except BaseException:
        (folder / LOG_KEY).unlink()  # a key without its log is of no use to anybody
        raise
    return verifier_key


def log_key_is_encrypted(folder: Path) -> bool:
    """Whether `load_log_key` needs a passphrase.

    Raises:
        UsageError: there is no registry in the folder.
    """
    return is_sealed(_read_key(folder))


def load_log_key(folder: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """The key that a log signs with.

    Raises:
        UsageError: there is no registry in the folder.
        KeystoreError: the passphrase is wrong or missing, or the file is not what it must be.
    """
    try:
        key = unseal(_read_key(folder), passphrase)
    except IdentityError as error:
        raise KeystoreError(f"{display(str(folder / LOG_KEY))}: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeystoreError(f"{display(str(folder / LOG_KEY))}: not the key of a log, which is of Ed25519")
    return key


def _read_key(folder: Path) -> bytes:
    if not (folder / DATABASE).is_file():
        raise _no_registry(folder)
    try:
        return files.read_bounded(folder / LOG_KEY, KEY_BYTES)
    except OSError as error:
        raise KeystoreError(f"{display(str(folder / LOG_KEY))} cannot be read: {error.strerror}") from error


def _no_registry(folder: Path) -> UsageError:
    return UsageError(f"there is no registry in {display(str(folder))}: autolink registry init makes one")


# --- invited -----------------------------------------------------------------------------------------------


@final
class InvitedFile:
    """The Auto IDs in a file, read again when it has changed: what `in` asks. A file that is missing invites nobody.

    What cannot be read changes nothing: those who were invited before still are, and `error` says why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._invited: frozenset[AutoId] = frozenset()
        self.error: Exception | None = None

    def __contains__(self, auto_id: object) -> bool:
        try:
            found = self._path.stat()
            stamp: tuple[int, ...] | None = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._invited = frozenset(read_invited(self._path))
                self.error = None
            except (IdentityError, OSError) as error:
                self.error = error
        return auto_id in self._invited


def read_invited(path: Path) -> list[AutoId]:
    """The Auto IDs in a file, each at the start of a line; `#` begins a remark. None where there is no file.

    Raises:
        IdentityError: a line is none, or there are too many.
        OSError: it cannot be read.
    """
    try:
        text = files.read_bounded(path, INVITED_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return []
    try:
        words = [line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()]
        return [AutoId.parse(word) for word in words if not word.startswith("#")]
    except IdentityError as error:
        raise IdentityError(f"{display(str(path))}: {error}") from None


def invite(folder: Path, auto_ids: Iterable[AutoId], remark: str = "") -> list[AutoId]:
    """Let more Auto IDs register themselves; a registry that runs on this folder heeds it at once.

    Returns:
        Those who were not invited before.

    Raises:
        UsageError: there is no registry in the folder.
        IdentityError, OSError: the file is not what it must be, or cannot be written.
    """
    if not (folder / DATABASE).is_file():
        raise _no_registry(folder)
    path = folder / INVITED
    with (folder / f"{INVITED}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_invited(path)
        new = [auto_id for auto_id in dict.fromkeys(auto_ids) if auto_id not in set(before)]
        text = path.read_bytes() if path.exists() else b""
        if text and not text.endswith(b"\n"):
            text += b"\n"
        lines = "".join(f"{auto_id} {display(remark)}".rstrip() + "\n" for auto_id in new)
        if new:
            files.write_atomic(os.fspath(path), text + lines.encode())
    return new


# --- looking -----------------------------------------------------------------------------------------------


@final
class FolderSource:
    """The log in a registry's folder, to be looked at while another process may append to it: the state of one moment.

    Args:
        folder: nothing in it is changed or believed.

    Raises:
        UsageError: there is no registry in it, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DATABASE).is_file():
            raise _no_registry(folder)
        self._folder = folder
        try:
            self._db = sqlite3.connect(
                f"{(folder / DATABASE).resolve().as_uri()}?mode=ro", uri=True, isolation_level=None
            )
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("BEGIN")
            row = self._db.execute("SELECT checkpoint FROM log").fetchone()
        except sqlite3.Error as error:
            raise UsageError(f"the registry in {display(str(folder))} cannot be read: {error}") from error
        self._checkpoint = bytes(row[0]) if row else b""

    def checkpoint(self) -> bytes:
        """The newest signed note; empty if nothing was ever signed."""
        return self._checkpoint

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        """The leaves from place `start` on, up to those of a checkpoint.

        Raises:
            StoreFailed: the file cannot be read.
        """
        query = "SELECT leaf FROM leaves WHERE place >= ? AND place < ? ORDER BY place"
        return (bytes(leaf) for (leaf,) in self._rows(query, start, signed.size))

    def entries(self) -> int:
        """How many there are, signed or not."""
        ((count,),) = self._rows("SELECT COUNT(*) FROM leaves")
        return int(count)

    def records(self) -> Iterator[tuple[AutoId, Record]]:
        """What the registry goes by: the state that it keeps beside the log.

        Raises:
            StoreFailed: the file cannot be read.
        """
        for auto_id, record in self._rows("SELECT auto_id, record FROM records ORDER BY auto_id"):
            yield AutoId(auto_id), Record.from_bytes(record)

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """What the feed has told, each with the place of its entry.

        Raises:
            StoreFailed: the file cannot be read.
        """
        return (
            (int(place), bytes(change))
            for place, change in self._rows("SELECT place, change FROM changes ORDER BY place")
        )

    def _rows(self, query: str, *values: int) -> Iterator[tuple[Any, ...]]:
        try:
            cursor = self._db.execute(query, values)
            while rows := cursor.fetchmany(_PAGE):
                yield from rows
        except sqlite3.Error as error:
            raise StoreFailed(f"the registry in {display(str(self._folder))}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def audit_folder(source: FolderSource, key: VerifierKey) -> Audit:
    """Replay the log in a folder, and compare with it the state that the registry goes by and all that its feed has told.

    Raises:
        RemoteProtocolError, BadSignature: its checkpoint, or a change, is nothing that this key has signed.
        LogConvicted: something in the log, or beside it, is not so.
        StoreFailed: the file cannot be read.
    """
    changes, ids = source.changes(), set[AutoId]()

    def compare(taken: Taken) -> None:
        ids.add(taken.record.auto_id)
        if taken.op in TELLING:
            place, change = next(changes, (None, b""))
            if place != taken.index:
                raise LogConvicted("the feed has told nothing of it, or of another one", index=taken.index)
            check_change(verify_change(change, key), taken)

    replayed = audit_source(source, key, compare)
    if (entries := source.entries()) != replayed.size:
        raise LogConvicted(f"there are {entries} entries, and {replayed.size} were signed")
    for place, change in changes:
        raise LogConvicted("the feed has told a change where there is none", index=place, evidence=change)
    kept = dict(source.records())
    for auto_id in sorted(kept.keys() | ids):
        if kept.get(auto_id) != replayed.ledger.record(auto_id):
            text = f"what the registry has on record of {auto_id} is not what follows from its entries"
            raise LogConvicted(text, evidence=kept[auto_id].to_bytes() if auto_id in kept else b"")
    return replayed
