"""A registry's folder: the log (store.py) and what stands beside it.

::

    <folder>/           0700
        log.db          the log and its state; with it SQLite's log.db-wal and log.db-shm while it is open
        signed          how many entries it has signed, see extent.py
        lock            held by the one process that appends
        log.key         the log's key, see identity/sealed.py
        log.pub         its public key, a line: what everybody needs who is to believe the log
        invited         the Auto IDs that may register themselves, one a line; what follows on a line is for people
"""

import fcntl
import logging
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import limits
from autolink.errors import IdentityError, KeystoreError, SetupError, display
from autolink.identity import AutoId, files, save_key
from autolink.identity.sealed import KEY_BYTES, is_sealed, unseal
from autolink.messages.merkle import EMPTY, leaf_hashes
from autolink.registry.audit import Audit, Taken, check_change, verify_checkpoint
from autolink.registry.checked_tiles import CheckedTiles
from autolink.registry.claim import DATABASE, LOG_KEY, check_not_lost, check_there
from autolink.registry.feed import TELLING
from autolink.registry.feed import verify_untrusted as verify_change
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tiles import WIDTH
from autolink.registry.source import SourceFailed
from autolink.registry.sources import FolderSource
from autolink.registry.store import SqliteStore

PUBLIC_KEY: Final = "log.pub"
INVITED: Final = "invited"

_LINE: Final = 256
_log: Final = logging.getLogger("autolink")
INVITED_BYTES: Final = _LINE * limits.KNOWN_AGENTS


def create_registry(
    folder: Path, origin: str, passphrase: str | None, *, unencrypted: bool = False
) -> VerifierKey:
    """Make an empty log, signed, and its key.

    Args:
        folder: made too, for its owner only, if it is not there.
        origin: which log it is, by custom a URL without its scheme; it is in every entry, and never changes.
        passphrase, unencrypted: of the key, as in `identity.save_key`.

    Returns:
        What everybody needs who is to believe this log.

    Raises:
        SetupError: there is a registry already, or one that has lost its log, or the folder cannot be made.
        IdentityError: the origin cannot name a log.
        KeystoreError: the key cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    verifier_key = VerifierKey.of(origin, key.public_key())
    if (folder / DATABASE).exists():
        raise SetupError(f"there is a registry in {display(str(folder))} already")
    check_not_lost(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{display(str(folder))} cannot be made: {error.strerror}") from error
    save_key(folder / LOG_KEY, key, passphrase, unencrypted=unencrypted)
    try:
        files.write_atomic(os.fspath(folder / PUBLIC_KEY), f"{verifier_key}\n".encode(), mode=0o644)
        SqliteStore.create(folder, origin, Checkpoint(origin, 0, EMPTY).signed(key))
    except BaseException:
        for name in (LOG_KEY, PUBLIC_KEY):  # a key without its log is of no use to anybody
            (folder / name).unlink(missing_ok=True)
        raise
    return verifier_key


def log_key_is_encrypted(folder: Path) -> bool:
    """Whether `load_log_key` needs a passphrase.

    Raises:
        SetupError: there is no registry in the folder.
    """
    return is_sealed(_read_key(folder))


def load_log_key(folder: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """The key that a log signs with.

    Raises:
        SetupError: there is no registry in the folder.
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
    check_there(folder)
    try:
        return files.read_bounded(folder / LOG_KEY, KEY_BYTES)
    except OSError as error:
        raise KeystoreError(f"{display(str(folder / LOG_KEY))} cannot be read: {error.strerror}") from error


# --- invited -----------------------------------------------------------------------------------------------


@final
class InvitedFile:
    """The Auto IDs in a file, read again when it has changed: what `in` asks. A file that is missing invites nobody.

    What cannot be read changes nothing: those who were invited before still are, and `error` says why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._invited: frozenset[AutoId] = frozenset()
        self.error: Exception | None = None

    def __contains__(self, auto_id: object) -> bool:
        try:
            if (stamp := self._stamp_now()) != self._stamp:
                self._stamp = stamp
                self._invited = frozenset(read_invited(self._path))
                self.error = None
        except (IdentityError, OSError) as error:
            if str(error) != str(self.error):  # once, however often somebody asks to register
                _log.warning("%s; who was invited before still is", error)
            self.error = error
        return auto_id in self._invited

    def _stamp_now(self) -> tuple[int, ...]:
        """What changes when the file does."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


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
        SetupError: there is no registry in the folder.
        IdentityError, OSError: the file is not what it must be, or cannot be written.
    """
    check_there(folder)
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


# --- audit -------------------------------------------------------------------------------------------------


def audit_folder(source: FolderSource, key: VerifierKey) -> Audit:
    """Replay the log in a folder, and compare with it all that the registry keeps beside it: the state that it goes by, the
    tiles, and what its feed has told.

    That the entries are those that were signed is found out before any of them is judged: bytes that have rotted convict
    nobody.

    Raises:
        SourceFailed: entries, or what is beside them, are not what follows from what was signed; that convicts nobody.
        StoreFailed: there is no room for the state while it is replayed.
        RemoteProtocolError, BadSignature: the checkpoint, or a change, is nothing that this key has signed.
        LogConvicted: something that was signed is not so.
    """
    least = source.signed()  # before a moment is held: a server may go on
    with source.snapshot():
        source.check()
        if (found := source.count("leaves")) < least:
            raise SourceFailed(f"there are {found} entries, and {least} were signed")
        note = source.checkpoint()
        _check_entries(source, verify_checkpoint(note, key))
        replayed, compared = Audit(key), _Comparison(source, key)
        replayed.replay(source, note, each=compared.check_entry)
        compared.check_state(replayed)
    return replayed


def _check_entries(source: FolderSource, signed: Checkpoint) -> None:
    """The entries are those that were signed, and the tiles theirs."""
    if (entries := source.count("leaves")) != signed.size:
        raise SourceFailed(f"there are {entries} entries, and {signed.size} were signed")
    frontier, leaves, wrong = Frontier(), source.leaves(0, signed), None
    while page := leaf_hashes(islice(leaves, WIDTH)):
        frontier, tiles = frontier.extended(page)
        for tile, row in tiles:
            if tile.width == WIDTH and source.tile(tile.level, tile.index, WIDTH) != row:
                wrong = wrong or tile
    if frontier.root() != signed.root:
        raise SourceFailed("the entries are not those that were signed: restore a backup")
    if wrong is not None:
        raise SourceFailed(f"tile {wrong.level}/{wrong.index} is not what follows from the entries")
    CheckedTiles(source.tile, signed)  # those at the right edge


@final
class _Comparison:
    """What a registry keeps beside its log, held against the replayed one."""

    def __init__(self, source: FolderSource, key: VerifierKey) -> None:
        self._source, self._key = source, key
        self._told = 0
        self._ended: dict[AutoId, int] = {}  # of those issuers only that have had a certificate end

    def check_entry(self, taken: Taken) -> None:
        record = taken.record
        if not self._source.in_history(record.auto_id, taken.index):
            raise SourceFailed(f"entry {taken.index} is not in the history of {record.auto_id}")
        if taken.entry.op not in TELLING:
            return
        change = self._source.change(taken.index)
        if change is None:
            raise SourceFailed(f"entry {taken.index}: the feed has told nothing of it")
        check_change(verify_change(change, self._key), taken.change)
        self._told += 1
        if record.issuer is not None:
            self._ended[record.issuer] = taken.index

    def check_state(self, replayed: Audit) -> None:
        source, ledger, used = self._source, replayed.ledger, 0
        for auto_id in ledger.ids():
            if source.record(auto_id) != ledger.kept(auto_id):
                raise SourceFailed(
                    f"what the registry has on record of {auto_id} is not what follows from its entries"
                )
        for key in ledger.used():
            used += 1
            if not source.is_used(key):
                raise SourceFailed(f"the key {key.hex()} was used, and the registry does not know it")
        for issuer, place in self._ended.items():
            if source.ended(issuer) != place:
                raise SourceFailed(f"the last certificate of {issuer} that ended did so with entry {place}")
        if source.time() != replayed.time:
            raise SourceFailed("the log's time is not that of its last entry")
        self._check_counts(
            records=ledger.count(),
            used=used,
            changes=self._told,
            history=replayed.size,
            ended=len(self._ended),
        )

    def _check_counts(self, **expected: int) -> None:
        """All that follows from the log is there; so with the right numbers nothing else is."""
        for table, count in expected.items():
            if (found := self._source.count(table)) != count:  # type: ignore[arg-type]
                raise SourceFailed(f"{table}: the registry has {found}, and {count} follow from the log")
