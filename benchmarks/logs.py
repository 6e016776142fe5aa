"""Registries as large as one likes, filled in seconds with records that nobody has signed for.

Everything has the shape and the size of the real thing: entries, records, tiles, histories, checkpoints. Of most records the
signatures and certificates are copies of one agent's, which nobody looks at once they are on record. Among them, evenly
spread, are agents whose keys are kept: their entries are judged like anybody's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import AutoId, Credential, CredentialRequest, EntityKind
from autolink.messages import instant, microseconds
from autolink.messages.merkle import leaf_hashes
from autolink.registry.entries import FIRST, Entry, Guardians, Op, encode_leaf
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.records import SECOND, Record
from autolink.registry.store import Group, Head, SqliteStore

ORIGIN: Final = "registry.example/benchmark"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""The log's."""

_GROUP: Final = 4096


class Holder:
    """An agent below `issuer`, on record and with its key, that makes entries as time goes on."""

    def __init__(self, issuer: Credential, name: str, now: int) -> None:
        request = CredentialRequest.new(name)
        self._issuer, self._request = issuer, request
        self._credential = request.complete(
            issuer.issue(request, kind=EntityKind.AGENT, now=instant(now), lifetime=timedelta(days=30))
        )
        self.registration = self._signed(
            Op.REGISTER, FIRST, now, issuer=issuer.auto_id, certificate=self._credential.leaf.der,
            next_key=hashlib.sha256(name.encode()).digest(), guardians=Guardians(),
        ).signed(issuer.auto_id, issuer.private_key)  # fmt: skip
        self.head = self.registration.hash

    def renewal(self, now: int) -> bytes:
        """Its next entry: the same key under a new certificate. `now` is at least a second later than the last time."""
        chain = self._issuer.issue(
            self._request, kind=EntityKind.AGENT, now=instant(now), lifetime=timedelta(days=30)
        )
        entry = self._signed(Op.RENEW, self.head, now, certificate=chain[0].der)
        self.head = entry.hash
        return entry.to_bytes()

    def _signed(self, op: Op, previous: bytes, now: int, **fields: object) -> Entry:
        own = self._credential
        entry = Entry(ORIGIN, op, own.auto_id, previous, now + 3600 * SECOND, **fields)  # type: ignore[arg-type]
        return entry.signed(own.auto_id, own.private_key)

    def record(self, place: int) -> Record:
        """As its registration at this place of the log has left it."""
        leaf, entry = self._credential.leaf, self.registration
        return Record(
            entry.auto_id, entry.issuer, False, entry.certificate, leaf.spki_sha256,
            (self._issuer.leaf.spki_sha256,), entry.next_key, Guardians(), entry.hash, entry.hash, 1, place, place, place,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A registry that was filled: the log's time at its entries (microseconds), its size, and those that can go on."""

    start: int
    size: int
    holders: Sequence[Holder]


def id_at(place: int, size: int) -> AutoId:
    """Of the synthetic record at this place of a log of this size. They ascend, because a database takes keys in their order
    several times as fast, and are spread over all that an ID may be."""
    return AutoId(_ascending(b"id", place, size))


def places_of(holders: int, size: int) -> dict[int, str]:
    """Where the agents are whose keys are kept, by name. At 0 is their organisation, elsewhere are synthetic records."""
    return {1 + number * (size - 1) // holders: f"agent-{number}" for number in range(holders)}


def fill(folder: Path, size: int, root: Credential, holders: int) -> Made:
    """Make a registry with `root` on record, and agents below it to fill it up."""
    start = microseconds(root.leaf.not_before) + 3600 * SECOND
    kept = {place: Holder(root, name, start) for place, name in places_of(holders, size).items()}
    SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        filling = _Filling(store, root, kept, start, size)
        for first in range(0, size, _GROUP):
            filling.append(range(first, min(first + _GROUP, size)))
    return Made(start, size, list(kept.values()))


class _Filling:
    """What is appended group by group, without a judge."""

    def __init__(
        self, store: SqliteStore, root: Credential, kept: dict[int, Holder], start: int, size: int
    ) -> None:
        self._store, self._kept, self._start, self._size = store, kept, start, size
        self._frontier = Frontier()
        self._root = root
        self._pattern = Holder(root, "pattern", start)
        self._bytes = self._pattern.registration.to_bytes()

    def append(self, places: range) -> None:
        made = [self._at(place) for place in places]
        leaves = [encode_leaf(self._start, entry) for entry, _ in made]
        self._frontier, tiles = self._frontier.extended(leaf_hashes(leaves))
        checkpoint = Checkpoint(ORIGIN, self._frontier.size, self._frontier.root()).signed(KEY)
        records = {record.auto_id: record for _, record in made}
        used = [record.key for _, record in made]
        head = Head(self._frontier.size, self._start, checkpoint)
        self._store.append(Group(leaves, list(records), tiles, records, used, (), head))

    def _at(self, place: int) -> tuple[bytes, Record]:
        """An entry and the record that follows from it, or would."""
        if place in self._kept:
            holder = self._kept[place]
            return holder.registration.to_bytes(), holder.record(place)
        if place == 0:
            return self._bytes, self._organisation()
        copied = self._pattern.record(place)._replace(
            auto_id=id_at(place, self._size), key=_ascending(b"key", place, self._size),
            head=hashlib.sha256(b"head" + place.to_bytes(8)).digest(),
        )  # fmt: skip
        return self._bytes + copied.head, copied

    def _organisation(self) -> Record:
        leaf = self._root.leaf
        return Record(
            self._root.auto_id, None, True, leaf.der, leaf.spki_sha256, (), leaf.next_key_hash or b"", Guardians(),
            bytes(32), bytes(32), 1, 0, 0, 0,
        )  # fmt: skip


def _ascending(what: bytes, place: int, size: int) -> bytes:
    return (place * 2**32 // size).to_bytes(4) + hashlib.sha256(what + place.to_bytes(8)).digest()[4:]
