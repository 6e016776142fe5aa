"""What a monitor tells: the entries about the IDs that somebody watches, and how these really stand.

What ends an ID need not be an entry of its own: its issuer's revocation or rotation does, or that of one above it, and a
recovery takes place without any. So each watched ID is looked at again after an entry of those that its standing rests on,
and when a recovery of theirs has taken place. Of a whole log every entry is told with what became of its ID, and not
what became of those below, of whom there may be a million.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast, final

from cryptography.x509 import BasicConstraints
from cryptography.x509.oid import ExtensionOID

from autolink.identity import AutoId, Certificate, key_authority
from autolink.messages import instant
from autolink.registry.audit import Taken
from autolink.registry.entries import Entry, Op
from autolink.registry.ledger import Ledger, Standing, path_above, standing
from autolink.registry.records import Record, State

_ODD: Final = frozenset({"stale", "withheld"})


@final
@dataclass(frozen=True, slots=True)
class Report:
    """Something that the owner of an ID wants to know.

    Attributes:
        what: the kind of entry in lower case; or ``state``: how a watched ID stands, after what was no entry of its own, or
            to begin with; ``recovered``: the delay of a recovery has passed, and another key is the ID's; ``unknown``: a
            watched ID is not on record; ``stale`` or ``withheld``: the registry's word on an ID is too old, or missing.
        auto_id: whose.
        text: for people, what it means.
        index: of the entry that brought it, perhaps another ID's; None where none did.
        at: when it was logged, took place, or was seen.
        evidence: what shows it; empty for what is in the log.
        record: of the ID, after that; None where it has none.
        standing: its effective state after that, and because of whose record; None where the log does not say.
        entry: of the ID itself; None where there is none.
    """

    what: str
    auto_id: AutoId
    text: str
    index: int | None
    at: datetime
    evidence: bytes = b""
    record: Record | None = None
    standing: Standing | None = None
    entry: Entry | None = None

    @property
    def odd(self) -> bool:
        """Whether it is about the registry's word, which is not what it should be, and not about the log."""
        return self.what in _ODD


@final
class Watch:
    """How the watched IDs stand, entry by entry.

    Args:
        ledger: the state, of which everything is told after it has been taken.
        watched: whom; None for all.
    """

    def __init__(self, ledger: Ledger, watched: frozenset[AutoId] | None) -> None:
        self._ledger, self.watched = ledger, watched
        self._stood: dict[AutoId, Standing] = {}
        self._below: dict[AutoId, list[AutoId]] = {}  # by somebody above them, the watched ones

    def entry(self, taken: Taken) -> Iterator[Report]:
        """What an entry has brought."""
        record, at = taken.record, taken.logged_at
        if self._is_watched(record.auto_id):
            where = standing(self._ledger, record, at)
            self._remember(record, where)
            text = in_words(record, where) + _for_those_below(taken)
            what = taken.entry.op.name.lower()
            yield Report(
                what, record.auto_id, text, taken.index, instant(at), record=record, standing=where, entry=taken.entry
            )  # fmt: skip
        yield from self._changed(record.auto_id, taken.index, at)

    def recovered(self, record: Record) -> Iterator[Report]:
        """What the end of a recovery's delay has brought.

        Args:
            record: as it was last written.
        """
        if (recovery := record.recovery) is None:
            raise AssertionError("only a recovery takes place by itself")
        at = recovery.ready_at
        record = record.at(at)
        if self._is_watched(record.auto_id):
            where = standing(self._ledger, record, at)
            self._remember(record, where)
            text = f"its key is {short_key(record.key)}; {in_words(record, where)}"
            text += _undone(recovery.void_from) if _issues(record) else ""
            yield Report("recovered", record.auto_id, text, None, instant(at), record=record, standing=where)
        yield from self._changed(record.auto_id, None, at)

    def stands(self, now: int) -> Iterator[Report]:
        """How each of those that are named stands at log time `now`, if it is on record."""
        for auto_id in sorted(self._stood):
            record, where = self._look(auto_id, now)
            yield Report(
                "state", auto_id, in_words(record, where), None, instant(now), record=record, standing=where
            )

    def _is_watched(self, auto_id: AutoId) -> bool:
        return self.watched is None or auto_id in self.watched

    def _remember(self, record: Record, where: Standing) -> None:
        if self.watched is None:
            return
        if record.auto_id not in self._stood:  # whom it is issued by is said once, when it is registered
            for above in path_above(self._ledger, record.issuer):
                self._below.setdefault(above.auto_id, []).append(record.auto_id)
        self._stood[record.auto_id] = where

    def _changed(self, above: AutoId, index: int | None, at: int) -> Iterator[Report]:
        """Who stands otherwise than before, now that something has become of one above it."""
        for auto_id in self._below.get(above, ()):
            record, where = self._look(auto_id, at)
            if where != self._stood[auto_id]:
                self._stood[auto_id] = where
                by = "the recovery" if index is None else f"entry {index}"
                text = f"{in_words(record, where)}, by {by} of {above}"
                yield Report("state", auto_id, text, index, instant(at), record=record, standing=where)

    def _look(self, auto_id: AutoId, at: int) -> tuple[Record, Standing]:
        record = self._ledger.record(auto_id)
        if record is None:
            raise AssertionError("who was on record is so for ever")
        return record.at(at), standing(self._ledger, record, at)


def short_key(spki_sha256: bytes) -> str:
    """A key for people who have seen it in full; never for comparison."""
    return key_authority(spki_sha256[:4]) + "…"


def in_words(record: Record, where: Standing) -> str:
    """How an ID stands, and which other key is to take over."""
    text = f"it is {where.state} now"
    if where.state is not State.ACTIVE and where.because != record.auto_id:
        text += f", because of {where.because}"
    if (coming := record.recovery) is not None:
        text += f", and {short_key(coming.key)} takes over at {instant(coming.ready_at):%F %T} UTC"
    return text


def _for_those_below(taken: Taken) -> str:
    """What an entry means for all below its ID, without looking at them."""
    if not _issues(taken.record):
        return ""
    if taken.record.state is not State.ACTIVE:
        return ", and with it all below it"
    return _undone(taken.entry.void_from) if taken.entry.op is Op.ROTATE else ""


def _undone(void_from: int | None) -> str:
    undone = "; whom its former key has put on record from entry {} on is revoked, with all below"
    return "" if void_from is None else undone.format(void_from)


def _issues(record: Record) -> bool:
    """Whether there may be anybody below."""
    constraints = Certificate.parse_untrusted(record.certificate).extensions.get(
        ExtensionOID.BASIC_CONSTRAINTS
    )
    return constraints is not None and cast("BasicConstraints", constraints.value).ca
