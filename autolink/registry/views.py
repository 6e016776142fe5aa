"""What the public side shows, as JSON values: the same facts as the bytes beside them, which alone are signed or proved.

Times are microseconds since 1970, as in the entries; ids and hashes are hexadecimal, bytes base64, certificates PEM. Names,
and all else that somebody chose, are hostile: what shows them in a page or a terminal must treat them as text.
"""

import base64
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # pydantic's own: before Python 3.12 it takes no other

from autolink.identity import AutoId, Certificate
from autolink.messages import microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry.crl import Served
from autolink.registry.entries import Guardians, decode_leaf_untrusted
from autolink.registry.ledger import Standing
from autolink.registry.log.proof import LogProof
from autolink.registry.records import Record, Recovery, State
from autolink.registry.status import Status

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Base64 = Annotated[str, Field(pattern="^[A-Za-z0-9+/]*={0,2}$")]
Pem = Annotated[str, Field(pattern="^-----BEGIN CERTIFICATE-----")]
Proof = Annotated[str, Field(pattern="^c2sp.org/tlog-proof@v1\n")]
Micros = Annotated[int, Field(ge=0, description="microseconds since 1970")]
Index = Annotated[int, Field(ge=0, description="a place in the log")]


class GuardiansView(TypedDict):
    """Who may recover: only their number is public until they sign."""

    count: int
    threshold: int
    delay_seconds: int


class RecoveryView(TypedDict):
    """A new key that waits to take over."""

    certificate: Pem
    key: Hash
    by: Hash
    ready_at: Micros
    delayed: bool
    index: Index


class VoidView(TypedDict):
    """Nothing stands that this former key has signed from that place on."""

    key: Hash
    start: Index


class CrlView(TypedDict):
    """The issuer's own revocation list. `lags`: the log has gone on since it was made from `size` entries."""

    size: Index
    revoked: int
    this_update: Micros
    next_update: Micros
    lags: bool


class RecordView(TypedDict):
    """What is on record about an ID. `state` is the effective one, and `because` the ID whose record decides it; `proof` is
    a C2SP tlog-proof of its last entry, which stands at `touched`."""

    auto_id: Hash
    name: str
    state: State
    because: Hash
    own_state: State
    at: Micros
    issuer: Hash | None
    bound: bool
    certificate: Pem
    key: Hash
    issuers: list[Hash]
    next_key: Hash
    guardians: GuardiansView
    revoked_by: Hash | None
    deactivated_by: Hash | None
    recovery: RecoveryView | None
    rotations: list[Pem]
    voids: list[VoidView]
    service: Base64
    entries: int
    registered: Index
    certified: Index
    touched: Index
    places: list[Index]
    proof: Proof
    crl: CrlView | None


class StatusView(TypedDict):
    """A status. `signed` is the whole of it in the bytes that the log has signed and proved."""

    origin: str
    auto_id: Hash
    state: State
    because: Hash
    certificate: Hash
    key: Hash
    issuers: list[Hash]
    entries: int
    head: Hash
    at: Micros
    expires_at: Micros
    proof: Proof
    signed: Base64


class EntryView(TypedDict):
    """One entry. `leaf` is what the log has of it, byte for byte, and `proof` a C2SP tlog-proof of that."""

    index: Index
    logged_at: Micros
    op: str
    auto_id: Hash
    hash: Hash
    previous: Hash | None
    expires_at: Micros
    issuer: Hash | None
    certificate: Pem | None
    next_key: Hash | None
    guardians: GuardiansView | None
    void_from: Index | None
    revealed: list[Hash]
    service: Base64
    signed_by: list[Hash]
    leaf: Base64
    leaf_hash: Hash
    proof: Proof


class HistoryView(TypedDict):
    """One page of the places of an ID's entries; `next` is the `start` of the following page, null for none."""

    auto_id: Hash
    places: list[Index]
    next: Index | None


class LogView(TypedDict):
    """The log. Take its key from elsewhere: what is signed with it is no better than how you came by it."""

    origin: str
    verifier_key: str
    size: Index
    time: Micros
    checkpoint: str


class IndexView(TypedDict):
    """Which log this is, and the paths of what to ask next. As with `LogView`, take the key from elsewhere."""

    origin: str
    verifier_key: str
    openapi: str
    checkpoint: str
    log: str


class ErrorView(TypedDict):
    """Why there is no answer."""

    error: str
    detail: str


def record_view(
    record: Record, standing: Standing, *, at: int, places: list[int], proof: LogProof, crl: Served | None
) -> RecordView:
    """What is on record about an ID.

    Args:
        record, standing: as they are at log time `at`.
        places: of its first entries in the log.
        proof: of its last one.
    """
    return {
        "auto_id": record.auto_id.hex,
        "name": Certificate.parse_untrusted(record.certificate).common_name,
        "state": standing.state,
        "because": standing.because.hex,
        "own_state": record.state,
        "at": at,
        "issuer": _id(record.issuer),
        "bound": record.bound,
        "certificate": _pem(record.certificate),
        "key": record.key.hex(),
        "issuers": [key.hex() for key in record.issuers],
        "next_key": record.next_key.hex(),
        "guardians": _guardians(record.guardians),
        "revoked_by": _id(record.revoked_by),
        "deactivated_by": _id(record.deactivated_by),
        "recovery": _recovery(record.recovery),
        "rotations": [_pem(der) for der in record.rotations],
        "voids": [{"key": key.hex(), "start": start} for key, start in record.voids],
        "service": _base64(record.service),
        "entries": record.entries,
        "registered": record.registered,
        "certified": record.certified,
        "touched": record.touched,
        "places": places,
        "proof": proof.to_bytes().decode(),
        "crl": None if crl is None else _crl(crl),
    }


def status_view(status: Status) -> StatusView:
    """A status; `signed` is what the log has signed and proved."""
    return {
        "origin": status.origin,
        "auto_id": status.auto_id.hex,
        "state": status.state,
        "because": status.because.hex,
        "certificate": status.certificate.hex(),
        "key": status.key.hex(),
        "issuers": [key.hex() for key in status.issuers],
        "entries": status.entries,
        "head": status.head.hex(),
        "at": status.at,
        "expires_at": status.expires_at,
        "proof": status.proof.to_bytes().decode(),
        "signed": _base64(status.to_bytes()),
    }


def entry_view(leaf: bytes, proof: LogProof) -> EntryView:
    """One entry of our own log; `leaf` is what the proof is about, byte for byte."""
    logged_at, entry = decode_leaf_untrusted(leaf)
    return {
        "index": proof.index,
        "logged_at": logged_at,
        "op": entry.op.name.lower(),
        "auto_id": entry.auto_id.hex,
        "hash": entry.hash.hex(),
        "previous": entry.previous.hex() or None,
        "expires_at": entry.expires_at,
        "issuer": _id(entry.issuer),
        "certificate": _pem(entry.certificate) if entry.certificate else None,
        "next_key": entry.next_key.hex() or None,
        "guardians": None if entry.guardians is None else _guardians(entry.guardians),
        "void_from": entry.void_from,
        "revealed": [guardian.hex for guardian, _ in entry.revealed],
        "service": _base64(entry.service),
        "signed_by": [signature.by.hex for signature in entry.signatures],
        "leaf": _base64(leaf),
        "leaf_hash": leaf_hash(leaf).hex(),
        "proof": proof.to_bytes().decode(),
    }


def _guardians(guardians: Guardians) -> GuardiansView:
    return {
        "count": len(guardians.hashes),
        "threshold": guardians.threshold,
        "delay_seconds": guardians.delay,
    }


def _recovery(recovery: Recovery | None) -> RecoveryView | None:
    if recovery is None:
        return None
    return {
        "certificate": _pem(recovery.certificate),
        "key": recovery.key.hex(),
        "by": recovery.by.hex,
        "ready_at": recovery.ready_at,
        "delayed": recovery.delayed,
        "index": recovery.index,
    }


def _crl(crl: Served) -> CrlView:
    return {
        "size": crl.checked.size,
        "revoked": crl.checked.count,
        "this_update": microseconds(crl.checked.this_update),
        "next_update": microseconds(crl.checked.next_update),
        "lags": crl.lags,
    }


def _id(auto_id: AutoId | None) -> str | None:
    return None if auto_id is None else auto_id.hex


def _pem(der: bytes) -> str:
    return Certificate.parse_untrusted(der).pem.decode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
