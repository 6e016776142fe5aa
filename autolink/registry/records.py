"""What is on record about one Auto ID: one value, made by the log's entries about it and by nothing else."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple, final

from autolink import codec
from autolink.identity import AutoId
from autolink.registry.entries import Guardians

SECOND: Final = 1_000_000
"""Microseconds."""

_READ: Final = 1024
"""Records whose bytes are not parsed again: those of issuers, above all, which every judgement looks at."""


class State(StrEnum):
    """What an ID's record says of it. Only ACTIVE is believed."""

    ACTIVE = "active"
    REVOKED = "revoked"
    RECOVERING = "recovering"
    DEACTIVATED = "deactivated"


@final
@dataclass(frozen=True, slots=True)
class Recovery:
    """A new key that waits to take over.

    Attributes:
        certificate: DER, over the new key.
        key: SHA-256 of its SPKI.
        next_key: what it commits to.
        issuers: as in `Record`, of the new certificate.
        ready_at: log time, microseconds, from which it is the ID's key.
        void_from: as in `Entry`.
        index: of the entry that began it.
        by: who began it: the issuer, or the ID itself where guardians did.
        delayed: the current key has lengthened it, which it may once.
    """

    certificate: bytes
    key: bytes
    next_key: bytes
    issuers: tuple[bytes, ...]
    ready_at: int
    void_from: int | None
    index: int
    by: AutoId
    delayed: bool = False


@final
class Record(NamedTuple):
    """One ID. A tuple, because every entry makes one of another, and of a frozen dataclass that takes several times as long.

    Attributes:
        auto_id, issuer: whose; the issuer is None for a self-issued one.
        bound: its name commits to its first key (of a self-issued one).
        certificate: DER of the current one.
        key: SHA-256 of its SPKI.
        issuers: the same of the keys above it, issuer first, as they were when this certificate was logged.
        next_key: SHA-256 of the SPKI that may follow.
        guardians: who may recover, and the delay.
        head: hash of its last entry.
        authority: hash of its last entry of those that a thief of the current key could not have made. What takes an
            ID out of a thief's hands may name this as previous, or he could outrun it with entries of his own. When a
            recovery has taken place, the last entry before that.
        entries: how many it has.
        registered, certified, touched: log index of its first entry, of the one with its certificate, of its last.
        revoked_by: who ended the current key; None while it lives.
        deactivated_by: who ended the ID for ever.
        recovery: under way.
        rotations: DER of earlier certificates that lead from a bound name's first key to this one.
        voids: (key, index): nothing stands that this former key of the ID has signed from that index on.
        service: its service record; empty for none.
    """

    auto_id: AutoId
    issuer: AutoId | None
    bound: bool
    certificate: bytes
    key: bytes
    issuers: tuple[bytes, ...]
    next_key: bytes
    guardians: Guardians
    head: bytes
    authority: bytes
    entries: int
    registered: int
    certified: int
    touched: int
    revoked_by: AutoId | None = None
    deactivated_by: AutoId | None = None
    recovery: Recovery | None = None
    rotations: tuple[bytes, ...] = ()
    voids: tuple[tuple[bytes, int], ...] = ()
    service: bytes = b""

    @property
    def state(self) -> State:
        """Its own, whatever its issuers' may be (see `state.standing`)."""
        if self.deactivated_by is not None:
            return State.DEACTIVATED
        if self.recovery is not None:
            return State.RECOVERING
        return State.ACTIVE if self.revoked_by is None else State.REVOKED

    def at(self, now: int) -> "Record":
        """This record at log time `now`: a recovery whose delay has passed has taken place."""
        recovery = self.recovery
        if recovery is None or self.deactivated_by is not None or now < recovery.ready_at:
            return self
        recovered = self.with_key(
            certificate=recovery.certificate, key=recovery.key, next_key=recovery.next_key, issuers=recovery.issuers,
            void_from=recovery.void_from, index=recovery.index,
        )  # fmt: skip
        # What has ended the former key follows an entry from before this, and may not be said again of the new one.
        return recovered._replace(authority=self.head)

    def with_key(
        self,
        *,
        certificate: bytes,
        key: bytes,
        next_key: bytes,
        issuers: tuple[bytes, ...],
        void_from: int | None,
        index: int,
    ) -> "Record":
        """Another key takes over: the one before is ended, what it did from `void_from` on is undone."""
        voids = self.voids if void_from is None else (*self.voids, (self.key, void_from))
        kept_service = self.service if void_from is None else b""
        return self._replace(
            certificate=certificate, key=key, next_key=next_key, issuers=issuers, certified=index,
            revoked_by=None, recovery=None, voids=voids, service=kept_service,
            rotations=(*self.rotations, self.certificate) if self.bound else (),
        )  # fmt: skip

    def voided(self, key: bytes, index: int) -> bool:
        """Whether something that `key` of this ID signed at log index `index` is void."""
        return any(key == former and index >= start for former, start in self.voids)

    def to_bytes(self) -> bytes:
        """For a store: the state of a log is rebuilt from its entries, so this form may change."""
        guardians = [list(self.guardians.hashes), self.guardians.threshold, self.guardians.delay]
        return codec.pack([
            self.auto_id.value, _id(self.issuer), self.bound, self.certificate, self.key, list(self.issuers), self.next_key,
            guardians, self.head, self.authority, self.entries, self.registered, self.certified, self.touched,
            _id(self.revoked_by), _id(self.deactivated_by), _recovery(self.recovery), list(self.rotations),
            [list(void) for void in self.voids], self.service,
        ])  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> "Record":
        """Read what `to_bytes` wrote, from our own store."""
        (
            auto_id, issuer, bound, certificate, key, issuers, next_key, guardians, head, authority, entries, registered,
            certified, touched, revoked_by, deactivated_by, recovery, rotations, voids, service,
        ) = codec.unpack_untrusted(data, what="record")  # fmt: skip
        return cls(
            AutoId(auto_id), _auto_id(issuer), bound, certificate, key, tuple(issuers), next_key,
            Guardians(tuple(guardians[0]), guardians[1], guardians[2]), head, authority, entries, registered,
            certified, touched, _auto_id(revoked_by), _auto_id(deactivated_by), _read_recovery(recovery),
            tuple(rotations), tuple((former, start) for former, start in voids), service,
        )  # fmt: skip


def as_kept(record: Record) -> bytes:
    """A record as it is kept. Entries and tiles are under the log's signature; this is nowhere else."""
    data = record.to_bytes()
    return zlib.crc32(data).to_bytes(4) + data


@lru_cache(maxsize=_READ)
def read_kept(kept: bytes) -> Record | None:
    """The record in what was kept of it; None if that has changed since."""
    data = kept[4:]
    return Record.from_bytes(data) if zlib.crc32(data).to_bytes(4) == kept[:4] else None


def _id(auto_id: AutoId | None) -> bytes | None:
    return None if auto_id is None else auto_id.value


def _auto_id(value: bytes | None) -> AutoId | None:
    return None if value is None else AutoId(value)


def _recovery(recovery: Recovery | None) -> list[Any] | None:
    if recovery is None:
        return None
    return [
        recovery.certificate, recovery.key, recovery.next_key, list(recovery.issuers), recovery.ready_at,
        recovery.void_from, recovery.index, recovery.by.value, recovery.delayed,
    ]  # fmt: skip


def _read_recovery(value: Sequence[Any] | None) -> Recovery | None:
    if value is None:
        return None
    certificate, key, next_key, issuers, ready_at, void_from, index, by, delayed = value
    return Recovery(
        certificate, key, next_key, tuple(issuers), ready_at, void_from, index, AutoId(by), delayed
    )
