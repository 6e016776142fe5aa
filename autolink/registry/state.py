"""What follows from an entry: one function without I/O, which the server, an audit and the tests share.

`apply` looks an ID's record up, decides by one table whether its state allows the entry, checks who has signed it,
and gives the record that follows. Each entry changes exactly one record and may use up one key; what an issuer's state
means for those below is asked when their standing is (`ledger.standing`).

Who must have signed:

===========  =============================================  ==============================================
entry        self-issued ID                                 issued ID
===========  =============================================  ==============================================
REGISTER     its key                                        its key and the issuer
RENEW        its key                                        its key (the issuer signed the certificate)
ROTATE       the key that was committed to                  the same (the issuer signed the certificate)
REVOKE       its key                                        its key, the issuer or any ancestor
DEACTIVATE   the key that was committed to                  the same, or any ancestor
RECOVER      the new key and `threshold` guardians          the new key and the issuer
DELAY        its key, once                                  the same
GUARDIANS    the key that was committed to                  the same (which has a delay and no guardians)
SERVICE      its key                                        the same
===========  =============================================  ==============================================

Issuers, ancestors and guardians sign with their key on record, and must stand as active themselves, up to their root.

What the current key can do alone is what its thief can do: renew, revoke, lengthen a recovery once, publish a service
record. What takes an ID out of a thief's hands needs a key that he has not, and cannot be outrun by him (`OUTRUNS`).

A key is one ID's, once: what was some ID's key, or was to become it, is nobody's key again in this log. Time is the
log's (microseconds); a recovery whose delay has passed takes place by itself, because every record is looked at as it
is at `now`.
"""

from typing import Final

from autolink import limits
from autolink.errors import EntryRefused, Fault
from autolink.registry.effects import EFFECTS, Step
from autolink.registry.entries import Entry, Op
from autolink.registry.ledger import Applied, Ledger
from autolink.registry.records import SECOND, State

_Row = dict[Op, State | Fault]


def _all_but_one(fault: Fault, registration: State | Fault) -> _Row:
    return {op: registration if op is Op.REGISTER else fault for op in Op}


TABLE: Final[dict[State | None, _Row]] = {
    None: _all_but_one(Fault.UNKNOWN, State.ACTIVE),
    State.ACTIVE: {
        Op.REGISTER: Fault.TAKEN,
        Op.RENEW: State.ACTIVE,
        Op.ROTATE: State.ACTIVE,
        Op.REVOKE: State.REVOKED,
        Op.DEACTIVATE: State.DEACTIVATED,
        Op.RECOVER: State.RECOVERING,
        Op.DELAY: Fault.NOT_RECOVERING,
        Op.GUARDIANS: State.ACTIVE,
        Op.SERVICE: State.ACTIVE,
    },
    State.REVOKED: {
        Op.REGISTER: Fault.TAKEN,
        Op.RENEW: Fault.REVOKED,
        Op.ROTATE: State.ACTIVE,
        Op.REVOKE: Fault.REVOKED,
        Op.DEACTIVATE: State.DEACTIVATED,
        Op.RECOVER: State.RECOVERING,
        Op.DELAY: Fault.NOT_RECOVERING,
        Op.GUARDIANS: State.REVOKED,
        Op.SERVICE: Fault.REVOKED,
    },
    State.RECOVERING: {
        Op.REGISTER: Fault.TAKEN,
        Op.RENEW: Fault.RECOVERING,
        Op.ROTATE: State.ACTIVE,
        Op.REVOKE: State.RECOVERING,  # the key that would lengthen the delay ends; the recovery goes on
        Op.DEACTIVATE: State.DEACTIVATED,
        Op.RECOVER: Fault.RECOVERING,
        Op.DELAY: State.RECOVERING,
        Op.GUARDIANS: Fault.RECOVERING,
        Op.SERVICE: Fault.RECOVERING,
    },
    State.DEACTIVATED: _all_but_one(Fault.DEACTIVATED, Fault.TAKEN),
}
"""What each entry does in each state (None: not on record): the state that follows, or why it is refused."""

OUTRUNS: Final = frozenset({Op.ROTATE, Op.REVOKE, Op.DEACTIVATE, Op.RECOVER, Op.GUARDIANS})
"""Entries that may name `Record.authority` as their previous instead of the last one."""

_WITH_CURRENT_KEY: Final = frozenset({Op.RENEW, Op.REVOKE, Op.DELAY, Op.SERVICE})
"""Entries that a thief of the current key could make: `Record.authority` does not move with them."""


_REFUSALS: Final = {
    Fault.TAKEN: "this ID is on record already: a name is taken for ever",
    Fault.UNKNOWN: "this ID is not on record",
    Fault.REVOKED: "this ID's key has been revoked: only a rotation or a recovery gives it another",
    Fault.RECOVERING: "this ID is being recovered: rotate to the next key to end that, or wait",
    Fault.NOT_RECOVERING: "this ID is not being recovered",
    Fault.DEACTIVATED: "this ID has been deactivated, for good",
}


def apply(ledger: Ledger, entry: Entry, *, origin: str, now: int, index: int) -> Applied:
    """The state that follows from an entry.

    Args:
        ledger: the state before it; not changed.
        origin: of the log.
        now: log time at which it is appended, microseconds, never less than that of the entry before.
        index: its place in the log.

    Raises:
        EntryRefused: it may not be appended now, or ever.
    """
    if entry.origin != origin:
        raise EntryRefused(Fault.WRONG_LOG, "this entry is for another log")
    if not now <= entry.expires_at <= now + int(limits.ENTRY_LIFETIME * SECOND):
        raise EntryRefused(Fault.EXPIRED, "this entry has expired, or expires later than an entry may")
    found = ledger.record(entry.auto_id)
    record = None if found is None else found.at(now)
    outcome = TABLE[None if record is None else record.state][entry.op]
    if isinstance(outcome, Fault):
        raise EntryRefused(outcome, _REFUSALS[outcome])
    step = Step(ledger, entry, now, index)
    if record is None:
        return step.register()
    named = (record.head, record.authority) if entry.op in OUTRUNS else (record.head,)
    if entry.previous not in named:
        raise EntryRefused(
            Fault.STALE, "this entry does not follow the ID's last one: look it up and sign again"
        )
    applied = EFFECTS[entry.op](step, record)
    followed = applied.record._replace(
        head=entry.hash, entries=record.entries + 1, touched=index,
        authority=record.authority if entry.op in _WITH_CURRENT_KEY else entry.hash,
    )  # fmt: skip
    return Applied(followed, applied.used)
