"""The one who appends: entries in groups, each judged against the state that the ones before it have left.

A group costs one commit to the disk and one signature of the log, whatever its size. What waits while one is being
written is the next one: so under load groups grow, and a single entry waits for nobody.

The log's time never goes back: an entry that is appended while the clock is behind the last one's time gets that.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec
from autolink.errors import BadSignature, EntryRefused, Fault, RemoteProtocolError, SetupError
from autolink.identity import AutoId
from autolink.messages.merkle import leaf_hash
from autolink.registry.database import StoreFailed
from autolink.registry.entries import Entry, encode_leaf
from autolink.registry.feed import TELLING, sign_change
from autolink.registry.ledger import Applied, standing
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.log.tiles import SIXTEENTH
from autolink.registry.log.tree import Known, Tree
from autolink.registry.receipt import Receipt, sign_receipt
from autolink.registry.records import Record
from autolink.registry.state import apply
from autolink.registry.status import Status, sign_status
from autolink.registry.store import Group, Head, Store

GROUP: Final = 256
"""Entries of one group at most: a tile of them."""

_log: Final = logging.getLogger("autolink.registry")


@final
@dataclass(frozen=True, slots=True)
class Appended:
    """An entry that is in the log for good.

    Attributes:
        index: its place.
        logged_at: log time, microseconds.
        record: of its ID, after it.
        change: what the feed tells of it; empty for nothing.
    """

    index: int
    logged_at: int
    record: Record
    change: bytes = b""


@final
class Registrar:
    """Appends to one store; the only one who does, and not in several threads at once.

    `proof`, `status`, `receipt` and `consistency` may be called in another thread while one appends.

    Args:
        store: the log.
        key: of the log: what it signs with.
        clock: microseconds since 1970.

    Raises:
        SetupError: the key is not the one that has signed the log so far, or the log is not what was signed.
        StoreFailed: something of it cannot be read.
    """

    def __init__(self, store: Store, key: Ed25519PrivateKey, clock: Callable[[], int]) -> None:
        self._store, self._key, self._clock = store, key, clock
        self.verifier_key = VerifierKey.of(store.origin, key.public_key())
        head = store.head
        self._known = Known()
        self._signed: dict[bytes, Tree] = {}  # by its checkpoint, the one that was asked about last
        self._proving = Lock()  # over these two
        self._frontier = Frontier.restored(head.size, store.read_tile)
        if head.size or head.checkpoint:
            self._check(head)
        else:
            store.append(Group((), (), (), {}, (), (), self._head(self._frontier, head.time)))

    def _check(self, head: Head) -> None:
        try:
            signed = verify_untrusted(head.checkpoint, self.verifier_key)
        except (BadSignature, RemoteProtocolError) as error:
            raise SetupError(f"the log {self._store.origin} was not signed by this key: {error}") from error
        begins = codec.pack([head.time, None])[:-1]  # as a leaf does with its time; an empty log has none
        last = self._store.read_leaves(max(0, head.size - 1), head.size)
        on_time = all(leaf.startswith(begins) for leaf in last)
        if (signed.size, signed.root) != (head.size, self._frontier.root()) or not on_time:
            raise SetupError(f"the log {self._store.origin} is not the one that was signed: restore a backup")

    def now(self) -> int:
        """Log time: the clock's, or the last entry's if that is later."""
        return max(self._clock(), self._store.head.time)

    def append(self, submitted: Sequence[bytes], *, since: int = 0) -> list[Appended | EntryRefused]:
        """Judge entries in their order and append those that may be: all of them at once, for good, when this returns.

        Args:
            submitted: at most GROUP.
            since: log time of the last receipt for one of them. It is judged no earlier, whatever the clock: a promise says
                nothing of a time before it.

        Returns:
            What became of each.

        Raises:
            StoreFailed: nothing was appended.
        """
        head = self._store.head
        now = max(self._clock(), head.time, since)
        parsed = [_parse(data) for data in submitted]
        pending = _Pending(self._store, {entry.auto_id for entry in parsed if isinstance(entry, Entry)})
        outcomes: list[Appended | EntryRefused] = []
        leaves: list[bytes] = []
        changes: list[tuple[int, bytes]] = []
        for data, entry in zip(submitted, parsed, strict=True):
            outcomes.append(outcome := self._judge(pending, entry, now, head.size + len(leaves)))
            if isinstance(outcome, Appended):
                leaves.append(encode_leaf(now, data))
                if outcome.change:
                    changes.append((outcome.index, outcome.change))
        if leaves:
            frontier, tiles = self._frontier.extended([leaf_hash(leaf) for leaf in leaves])
            new_head = self._head(frontier, now)
            self._store.append(
                Group(leaves, pending.ids, tiles, pending.records, tuple(pending.used), changes, new_head)
            )
            self._frontier = frontier
        return outcomes

    def _judge(
        self, pending: "_Pending", entry: Entry | EntryRefused, now: int, index: int
    ) -> Appended | EntryRefused:
        """One entry behind those that are pending, among which it then is, if it may be."""
        if isinstance(entry, EntryRefused):
            return entry
        try:
            applied = apply(pending, entry, origin=self._store.origin, now=now, index=index)
        except EntryRefused as refusal:
            return refusal
        except StoreFailed:
            raise
        except Exception:  # noqa: BLE001  a fault of ours at one entry must not keep the others out, nor end the registry
            _log.exception("an entry could not be judged, and is not taken")
            return EntryRefused(Fault.UNAVAILABLE, "the registry failed at this entry")
        pending.take(applied)
        change = b""
        if entry.op in TELLING:
            change = sign_change(entry, applied.record.state, index=index, at=now, key=self._key).to_bytes()
        return Appended(index, now, applied.record, change)

    def proof(self, index: int, head: Head | None = None) -> LogProof:
        """That an entry is in the log, for whoever has the log's key and the entry.

        Args:
            head: of the snapshot that the caller holds; of now if not given.

        Raises:
            UsageError: there is no such entry.
            StoreFailed: the store is damaged, so that nobody would believe the proof.
        """
        if head is not None:
            return self._proof(index, head)[1]
        with self._store.snapshot() as head:
            return self._proof(index, head)[1]

    def status(self, auto_id: AutoId) -> Status | None:
        """How an ID stands now, in the log's signed word; None if it is not on record.

        Raises:
            StoreFailed: the store is damaged, so that nobody would believe the status.
        """
        # A record that is newer than the checkpoint would make a lie of the status.
        with self._store.snapshot() as head:
            found = self._store.record(auto_id)
            if found is None:
                return None
            now = max(self._clock(), head.time)
            record = found.at(now)
            where = standing(self._store, record, now)
            leaf, proof = self._proof(record.touched, head)
        return sign_status(
            record, where, origin=self._store.origin, leaf=leaf, proof=proof, now=now, key=self._key
        )

    def _proof(self, index: int, head: Head) -> tuple[bytes, LogProof]:
        """An entry's leaf hash, and the proof of it; nothing of it but follows from the root that was signed."""
        try:
            with self._proving:
                tree = self._signed_tree(head)
                path, leaf = tree.inclusion(index), tree.leaf(index)
        except (BadSignature, RemoteProtocolError) as error:
            raise self._damaged(error) from None
        return leaf, LogProof(index, path, head.checkpoint)

    def _signed_tree(self, head: Head) -> Tree:
        tree = self._signed.get(head.checkpoint)
        if tree is None:
            tree = Tree(head.size, self._store.read_tile, self._known, self._read_sixteenth)
            signed = verify_untrusted(head.checkpoint, self.verifier_key)
            if (signed.size, signed.root) != (head.size, tree.root()):
                raise BadSignature("log: its tiles are not those of the tree that was signed")
            self._signed = {head.checkpoint: tree}
        return tree

    def _read_sixteenth(self, index: int, begin: int) -> bytes:
        return self._store.read_tile(0, index, begin + SIXTEENTH, begin)

    def receipt(self, entry_hash: bytes) -> Receipt:
        """The log's promise about an entry that was received just now, by log time: the entry's own will be."""
        return sign_receipt(entry_hash, origin=self._store.origin, now=self.now(), key=self._key)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the log of `old` entries is the beginning of the one of `new`.

        Raises:
            UsageError: the log was never that long.
            StoreFailed: the store is damaged, so that nobody would believe the path.
        """
        try:
            with self._proving:
                return self._signed_tree(self._store.head).consistency(old, new)
        except (BadSignature, RemoteProtocolError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> StoreFailed:
        return StoreFailed(f"the log {self._store.origin} is damaged: {error}")

    def _head(self, frontier: Frontier, time: int) -> Head:
        checkpoint = Checkpoint(self._store.origin, frontier.size, frontier.root())
        return Head(frontier.size, time, checkpoint.signed(self._key))


def _parse(data: bytes) -> Entry | EntryRefused:
    try:
        return Entry.from_untrusted(data)
    except EntryRefused as refusal:
        return refusal


class _Pending:
    """A store's state after entries that it does not have yet. Nobody else writes, so each record is read once: those of the
    group's own IDs together, before it is judged."""

    def __init__(self, store: Store, auto_ids: Collection[AutoId]) -> None:
        self._ledger = store
        self._seen: dict[bytes, Record | None] = {auto_id.value: None for auto_id in auto_ids}
        self._seen |= {record.auto_id.value: record for record in store.records(auto_ids)}
        self.records: dict[AutoId, Record] = {}
        self.used: dict[bytes, None] = {}  # in their order
        self.ids: list[AutoId] = []

    def record(self, auto_id: AutoId) -> Record | None:
        key = auto_id.value
        if key not in self._seen:
            self._seen[key] = self._ledger.record(auto_id)
        return self._seen[key]

    def is_used(self, key: bytes) -> bool:
        return key in self.used or self._ledger.is_used(key)

    def take(self, applied: Applied) -> None:
        auto_id = applied.record.auto_id
        self.records[auto_id] = self._seen[auto_id.value] = applied.record
        self.ids.append(auto_id)
        if applied.used is not None:
            self.used[applied.used] = None
