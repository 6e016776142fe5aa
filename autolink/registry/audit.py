"""An audit: a whole log replayed with nothing but its key, by the same function that the server uses.

Every entry is judged again as it was at its time, every hash is computed again, and the root must be the one that the
log has signed. What a log says of an ID at a size that was reached can then be compared with what follows from its
entries: a false status, a record that no entry made, a fork or an entry that should never have been taken convicts it,
and the evidence says which.

`Audit.replay` does that with a log wherever it is (`sources`), and may be called again later, to go on from where the audit
is. What a registry serves beside its log is compared in `served`.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, final

from autolink.errors import BadSignature, EntryRefused, RemoteProtocolError
from autolink.identity import AutoId
from autolink.messages.merkle import StreamingRoot, leaf_hash
from autolink.registry.entries import Entry, Op, decode_leaf_untrusted
from autolink.registry.evidence import LogConvicted
from autolink.registry.feed import TELLING, Change
from autolink.registry.ledger import standing
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import Record, State
from autolink.registry.source import Progress, Source, SourceFailed
from autolink.registry.state import apply
from autolink.registry.status import Status
from autolink.registry.temporary import TemporaryLedger

_PAGE: Final = 256
"""Entries between two words on the progress."""


@final
@dataclass(frozen=True, slots=True)
class Taken:
    """One entry, found right: its place, the log's time, the record that followed, and the leaf's hash."""

    index: int
    logged_at: int
    entry: Entry
    record: Record
    leaf_hash: bytes

    @property
    def change(self) -> tuple[AutoId, Op, State, int, int]:
        """What the feed has to tell of it, if it is one of `TELLING`."""
        return self.record.auto_id, self.entry.op, self.record.state, self.index, self.logged_at


@final
class Audit:
    """One replay of one log, entry by entry.

    Args:
        key: the log's, and all that is believed.
        recovered: told of each recovery that takes place because its delay has passed, between the entries before and after
            that: the record as it was last written.

    Attributes:
        key: the log's.
        ledger: the state after the entries so far.
        time: of the last entry, microseconds.
        checkpoint: the signed note that was found right last: beside another root of its size it is evidence.
    """

    def __init__(self, key: VerifierKey, *, recovered: Callable[[Record], object] | None = None) -> None:
        self.key, self._recovered = key, recovered
        self._passed = 0  # log time up to which recoveries were told
        self._ready: int | None = None  # when the next one takes place
        self.ledger = TemporaryLedger()
        self._tree = StreamingRoot()
        self.time = 0
        self.checkpoint = b""

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._tree.count

    @property
    def root(self) -> bytes:
        """The root over the entries so far."""
        return self._tree.root()

    def root_with(self, leaf_hashes: Iterable[bytes]) -> bytes:
        """The root that there would be with these behind the entries so far."""
        grown = self._tree.copy()
        for each in leaf_hashes:
            grown.add(each)
        return grown.root()

    def take(self, leaf: bytes) -> Taken:
        """The next entry.

        Raises:
            LogConvicted: the log should not have it, not here or not then.
        """
        index = self.size
        try:
            logged_at, entry = decode_leaf_untrusted(leaf)
            if logged_at < self.time:
                raise LogConvicted("its time is before that of the entry before", index=index, evidence=leaf)
            applied = apply(self.ledger, entry, origin=self.key.name, now=logged_at, index=index)
        except EntryRefused as refusal:
            raise LogConvicted(f"{refusal.fault}: {refusal}", index=index, evidence=leaf) from refusal
        self.pass_time(logged_at)
        self.ledger.take(applied)
        if (coming := applied.record.recovery) is not None:
            self._ready = min(self._ready or coming.ready_at, coming.ready_at)
        self.time = logged_at
        hashed = leaf_hash(leaf)
        self._tree.add(hashed)
        return Taken(index, logged_at, entry, applied.record, hashed)

    def pass_time(self, now: int) -> None:
        """Tell which recoveries have taken place by log time `now`, if anybody is told."""
        if self._recovered is None or self._ready is None or now < self._ready:
            return
        for record in self.ledger.recovered(self._passed, now):
            self._recovered(record)
        self._passed, self._ready = now, self.ledger.next_recovery(now)

    def check_status(self, status: Status) -> None:
        """Compare what a log, its signature verified, says of an ID with what follows from the entries up to that size.

        Raises:
            LogConvicted: it says something else.
        """
        record = self._record(status.auto_id, status.at)
        if record is None:
            raise LogConvicted(f"{status.auto_id.short} is not on record", evidence=status.to_bytes())
        where = standing(self.ledger, record, status.at)
        said = (status.state, status.because, status.certificate, status.key, status.issuers, status.entries)
        found = (
            where.state, where.because, hashlib.sha256(record.certificate).digest(), record.key, record.issuers,
            record.entries,
        )  # fmt: skip
        if said != found or status.proof.index != record.touched:
            text = (
                f"the status of {status.auto_id.short} is not what follows from its entries ({where.state})"
            )
            raise LogConvicted(text, evidence=status.to_bytes())

    # --- a log that somebody holds -------------------------------------------------------------------------

    def replay(
        self,
        source: Source,
        note: bytes | None = None,
        *,
        each: Callable[[Taken], None] | None = None,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """Go on to a checkpoint with the entries of a source.

        Args:
            note: signed; the source's newest one if not given.
            each: is given every entry, once it was found right by itself; the checkpoint is compared at the end.
            progress: told entries, so far and in all.

        Raises:
            LogConvicted: something in the log is not so.
            SourceFailed: entries are missing, or not those that were signed; or the checkpoint is older than what was seen.
            RemoteProtocolError, BadSignature: the checkpoint is none of this log's.
        """
        note = source.checkpoint() if note is None else note
        signed = verify_checkpoint(note, self.key)
        if signed.size < self.size:
            raise SourceFailed(f"a checkpoint of {signed.size} entries, and {self.size} were seen before")
        for leaf in source.leaves(self.size, signed) if signed.size > self.size else ():
            taken = self.take(leaf)
            if each is not None:
                each(taken)
            if progress is not None and not self.size % _PAGE:
                progress(self.size, signed.size)
        if self.size != signed.size:
            raise SourceFailed(f"{signed.size} entries were signed, and there are {self.size}")
        if signed.root != self.root:
            raise LogConvicted("the root that was signed is not that of the entries", evidence=note)
        self.checkpoint = note
        if progress is not None:
            progress(self.size, signed.size)
        return signed

    def _record(self, auto_id: AutoId, at: int) -> Record | None:
        found = self.ledger.record(auto_id)
        return None if found is None else found.at(at)


def verify_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    """As `checkpoint.verify_untrusted`, of the one that a source gives: the error has it noted what is wrong there."""
    try:
        return verify_untrusted(note, key)
    except (RemoteProtocolError, BadSignature) as error:
        error.add_note("checkpoint")
        raise


def check_change(change: Change, found: tuple[AutoId, Op, State, int, int]) -> None:
    """Compare what the feed, its signature verified, tells of an entry with what that was (`Taken.change`).

    Raises:
        LogConvicted: it tells something else, or there is nothing to tell.
    """
    told = (change.auto_id, change.op, change.state, change.index, change.at)
    if told != found or change.op not in TELLING:
        raise LogConvicted(
            "the change that was told of it is not what it did", index=found[3], evidence=change.to_bytes()
        )
