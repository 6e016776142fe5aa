"""The state of a log, as far as an entry looks at it: the records of its IDs, and the keys they have had.

What an issuer's state means for those below it is not written into their records, of which there may be a million. It is
asked along the path above one of them, at most `limits.CHAIN` long, when its standing is asked.
"""

from dataclasses import dataclass
from typing import Protocol, final

from autolink.errors import EntryRefused, Fault
from autolink.identity import AutoId
from autolink.registry.records import Record, State


class Ledger(Protocol):
    """Where `apply` looks: the state before the entry."""

    def record(self, auto_id: AutoId) -> Record | None:
        """What is on record about an ID."""

    def is_used(self, key: bytes) -> bool:
        """Whether a key (SHA-256 of its SPKI) is, was or is about to be some ID's."""


@final
@dataclass(frozen=True, slots=True)
class Applied:
    """What one entry changes: the record of its ID, and perhaps one more key has been used."""

    record: Record
    used: bytes | None = None


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """An ID's effective state, its issuers' included, and by whose record it is what it is."""

    state: State
    because: AutoId


def standing(ledger: Ledger, record: Record, now: int) -> Standing:
    """An ID's effective state at log time `now`: its own, and if that is active its issuers', up to the root's."""
    below = record = record.at(now)
    while record.state is State.ACTIVE and record.issuer is not None:
        issuer = ledger.record(record.issuer)
        if issuer is None:
            raise AssertionError("an issued ID is on record without its issuer")
        below, record = record, issuer.at(now)
        if record.voided(below.issuers[0], below.certified):
            return Standing(State.REVOKED, record.auto_id)
    return Standing(record.state, record.auto_id)


def path_above(ledger: Ledger, auto_id: AutoId | None) -> tuple[Record, ...]:
    """The records of an issuer and of those above it, as they were last written."""
    above: list[Record] = []
    while auto_id is not None:
        record = ledger.record(auto_id)
        if record is None:
            raise EntryRefused(Fault.ISSUER, f"the issuer {auto_id.short} is not on record")
        above.append(record)
        auto_id = record.issuer
    return tuple(above)
