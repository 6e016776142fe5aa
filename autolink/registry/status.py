"""A status: the log's signed word on how one ID stands, young enough to believe it by.

::

    status   [body, signature, proof]
    body     ["autolink/1 status", origin, id, state, because, certificate, key, issuers, entries, head, at, expires_at]

signed with the log's key over ``autolink/1 status\\0`` and the body. An agent staples its own to what it shows when a link
opens, so nobody has to ask the registry. `state` is the effective one, the issuers' included, and `because` whose record
decides. `certificate` is the fingerprint of the only one that is current, `key` and `issuers` those of the keys from
there up: a chain that shows others is not this ID's. `head` is the leaf hash of its last entry, which `proof` (a C2SP
tlog-proof) shows in the log under a checkpoint. `entries` counts them: what is shown with fewer, or under a smaller log,
than was seen before is older, and refused unless it says the same (`Newest`).

What keeps a log honest here: it signs what everybody can recompute from its entries, so a false status convicts it.
That it withholds the newest entry, only its age and whoever watches the log can tell.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec, limits
from autolink.errors import BadSignature, RemoteProtocolError, UsageError
from autolink.identity import AutoId
from autolink.messages import instant, microseconds
from autolink.messages.merkle import HASH
from autolink.messages.message import TIME_MAX
from autolink.registry import word
from autolink.registry.ledger import Standing
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.records import SECOND, Record, State

TAG: Final = "autolink/1 status"
PURPOSE: Final = b"autolink/1 status\0"
_STATES: Final = frozenset(state.value for state in State)


@final
@dataclass(frozen=True, slots=True)
class Status:
    """What a log says of one ID. Parsed, nothing in it is verified: see `verify_untrusted`.

    Attributes:
        origin: which log.
        auto_id: of whom.
        state: the effective one.
        because: whose record decides: the ID's own, or that of one above it.
        certificate: SHA-256 of the current certificate's DER.
        key: SHA-256 of its SPKI.
        issuers: the same of the keys above it, its issuer's first.
        entries: how many entries the ID has.
        head: leaf hash of the last of them.
        at: log time at which this was so, microseconds.
        expires_at: until when it is to be believed by those who do not say another `max_age`.
        proof: that `head` is in the log, and under which checkpoint.
        signature: of the log.
    """

    origin: str
    auto_id: AutoId
    state: State
    because: AutoId
    certificate: bytes
    key: bytes
    issuers: tuple[bytes, ...]
    entries: int
    head: bytes
    at: int
    expires_at: int
    proof: LogProof
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What is signed."""
        return codec.encode([
            TAG, self.origin, self.auto_id.value, self.state.value, self.because.value, self.certificate, self.key,
            list(self.issuers), self.entries, self.head, self.at, self.expires_at,
        ])  # fmt: skip

    def to_bytes(self) -> bytes:
        """As it is served and stapled."""
        return codec.encode([self.body, self.signature, self.proof.to_bytes()])

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Take a status apart.

        Raises:
            RemoteProtocolError: it is none.
        """
        if len(data) > limits.STATUS:
            raise RemoteProtocolError(f"status: more than {limits.STATUS} bytes")
        match codec.decode_untrusted(data, what="status", nodes=4):
            case [bytes(body), bytes(signature), bytes(proof)] if len(signature) == word.SIGNATURE:
                pass
            case _:
                raise RemoteProtocolError("status: not a body, a signature and a proof")
        match codec.decode_untrusted(body, what="status", nodes=32):
            case [
                str(tag), str(origin), bytes(auto_id), str(state), bytes(because), bytes(certificate), bytes(key),
                list(issuers), int(entries), bytes(head), int(at), int(expires_at),
            ] if tag == TAG:  # fmt: skip
                hashes = (auto_id, because, certificate, key, head, *issuers)
            case _:
                raise RemoteProtocolError("status: a body that is not an array of twelve")
        if any(type(one) is not bytes or len(one) != HASH for one in hashes) or len(issuers) >= limits.CHAIN:
            raise RemoteProtocolError("status: a hash of the wrong size, or more issuers than a chain has")
        if state not in _STATES or any(
            type(one) is not int or not 0 <= one <= TIME_MAX for one in (entries, at, expires_at)
        ):
            raise RemoteProtocolError("status: no state, or a number out of range")
        return cls(
            origin, AutoId(auto_id), State(state), AutoId(because), certificate, key, tuple(issuers), entries, head,
            at, expires_at, LogProof.from_untrusted(proof), signature,
        )  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class VerifiedStatus:
    """A status that its log has signed and proved. Only `verify_untrusted` makes one."""

    status: Status
    checkpoint: Checkpoint


def sign_status(
    record: Record,
    standing: Standing,
    *,
    origin: str,
    leaf: bytes,
    proof: LogProof,
    now: int,
    key: Ed25519PrivateKey,
) -> Status:
    """What the log says of an ID at log time `now`.

    Args:
        record: as it is at `now`.
        standing: as it is at `now`.
        leaf: hash of the leaf at `record.touched`, which `proof` is about.
    """
    fields = (
        origin, record.auto_id, standing.state, standing.because, hashlib.sha256(record.certificate).digest(),
        record.key, record.issuers, record.entries, leaf, now, now + int(limits.STATUS_LIFETIME * SECOND), proof,
    )  # fmt: skip
    return Status(*fields, word.sign(key, PURPOSE, Status(*fields).body))


def verify_untrusted(data: bytes, key: VerifierKey) -> VerifiedStatus:
    """A status that the log of this key has signed, and whose ID's last entry is in that log. Its age is the caller's to
    judge, and what it says.

    Raises:
        RemoteProtocolError: it is no status.
        BadSignature: the log has not signed it, or its proof does not show what it must.
    """
    status = Status.from_untrusted(data)
    proved = status.proof.verify(status.head, key)  # first: where another key has signed, this says which
    word.check(key, PURPOSE, status.origin, status.body, status.signature, what="status")
    return VerifiedStatus(status, proved)


def seconds_given(max_age: timedelta | float) -> float:
    """How old a caller would have a status be at most.

    Raises:
        UsageError: no age is that.
    """
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if not isinstance(seconds, int | float) or not 0 < seconds <= limits.STATUS_AGE:
        raise UsageError(
            f"max_age is a timedelta or seconds, more than 0 and at most {limits.STATUS_AGE:.0f}, not {seconds!r}"
        )
    return seconds


def check_young(status: Status, now: datetime, max_age: float) -> None:
    """A status that a registry gives when it is asked for one is of about now.

    Args:
        max_age: seconds that it may be old; less, if the log itself would have it believed for less.

    Raises:
        BadSignature: it is older, or of a time to come.
    """
    time = microseconds(now)
    if status.at > time + int(limits.SKEW * SECOND):
        why = "which is to come: set the clock"
    elif min(status.expires_at, status.at + int(max_age * SECOND)) < time:
        why = "too long ago: it withholds what is newer, or a clock is wrong"
    else:
        return
    raise BadSignature(f"the registry's status is of {instant(status.at):%F %T} UTC, {why}")


def origin_of(evidence: bytes) -> str | None:
    """Which log a piece of evidence is a status of, if it is one; nothing in it is verified."""
    if TAG.encode() not in evidence[:64]:
        return None
    try:
        return Status.from_untrusted(evidence).origin
    except RemoteProtocolError:
        return None


class Newest:
    """What was seen last of each ID: an older status is refused, or a log could show each of us another past.

    Older is one with fewer entries, or under a smaller log, or with as many under one of the same size and of no later time:
    of two that a log so contradicts itself by, one is believed. Several processes of one agent renew theirs at different
    times, so what says the same as the newest one may be a little older. To who does not read the entries (`counted`) it may
    count fewer: a service record or other guardians, of which no feed tells the others, change nothing else in a status.

    Bounded: what was seen longest ago is forgotten first, and then counts as never seen.
    """

    def __init__(self, most: int = limits.STATUSES) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, AutoId], _Seen] = OrderedDict()

    def knows(self, origin: str, auto_id: AutoId) -> bool:
        """Whether a status of this ID was seen."""
        return (origin, auto_id) in self._seen

    def check(self, verified: VerifiedStatus, *, counted: bool = True) -> bool:
        """Remember a status that is not older than what was seen.

        Args:
            counted: what says the same counts as many entries, too. False: it may count fewer, under a smaller log.

        Returns:
            Whether the ID has another state or other keys by it than by the one that was seen, so that no verdict may stand
            that rests on that one.

        Raises:
            BadSignature: it is older: somebody replays it, or the log has lost entries.
        """
        status = verified.status
        place = (status.origin, status.auto_id)
        shown = _Seen(
            status.entries, verified.checkpoint.size, status.at, status.certificate,
            (status.state.value, status.key, *status.issuers),
        )  # fmt: skip
        seen = self._seen.pop(place, shown)
        older = shown.entries < seen.entries or shown.size < seen.size or shown[:3] <= seen[:3]
        self._seen[place] = seen if older else shown
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        fewer = not counted and shown.entries < seen.entries and shown.size < seen.size
        entries = seen.entries if fewer else shown.entries
        if older and shown._replace(entries=entries, size=seen.size, at=seen.at) != seen:
            raise BadSignature(f"status: of {status.auto_id.short}, older than one that was seen before")
        return shown.standing != seen.standing

    def learn_from(self, other: "Newest") -> None:
        """Remember all that another one does; of each ID the newer."""
        for place, seen in other._seen.items():  # noqa: SLF001  its own kind
            self._seen[place] = max(seen, self._seen.pop(place, seen), key=lambda one: one[:3])
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)


class _Seen(NamedTuple):
    """What is remembered of a status."""

    entries: int
    size: int
    at: int
    certificate: bytes
    standing: tuple[str | bytes, ...]
