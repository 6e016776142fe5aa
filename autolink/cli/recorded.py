"""What is on record already, just so: found again after an answer that was lost, or where another machine submitted it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from autolink.errors import CallError, EntryRefused, Fault
from autolink.identity import AutoId, Certificate
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry, Op, decode_leaf_untrusted
from autolink.registry.log.proof import LogProof
from autolink.registry.records import State
from autolink.registry.status import Status

_SEARCHED: Final = 100
"""Entries of an ID that are looked through: the newest."""

_AGAIN: Final[Mapping[Op, frozenset[Fault]]] = {
    Op.REGISTER: frozenset({Fault.TAKEN, Fault.KEY_USED}),
    Op.RENEW: frozenset({Fault.CERTIFICATE}),
    Op.ROTATE: frozenset({Fault.KEY_USED}),
    Op.REVOKE: frozenset({Fault.REVOKED}),
    Op.DEACTIVATE: frozenset({Fault.DEACTIVATED}),
    Op.RECOVER: frozenset({Fault.RECOVERING, Fault.KEY_USED}),
}
"""As what a log refuses an entry that it has taken already."""

_NOT_ACTIVE: Final = {
    State.REVOKED: "it is revoked: a rotation to its next key, or a recovery, gives it another key",
    State.RECOVERING: "it is being recovered: a rotation to its next key ends that, or the new key takes over",
    State.DEACTIVATED: "it is deactivated, for good: make another identity",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry that was in the log already, as `Logged`; its receipt is with whoever submitted it."""

    index: int
    logged_at: int
    proof: LogProof
    leaf: bytes
    entry: Entry


async def find_again(client: RegistryClient, entry: Entry, refusal: EntryRefused) -> Recorded:
    """The entry on record that brings the same as one that was refused.

    Raises:
        EntryRefused: the refusal, where there is none; with what there is instead.
    """
    if refusal.fault not in _AGAIN.get(entry.op, ()):
        raise refusal
    try:
        said = (await client.status(entry.auto_id)).status
    except CallError:  # the key is or was another ID's
        raise refusal from None
    if entry.op is Op.REGISTER and (stands := not_active(said)):
        vars(refusal)["then"] = stands
        raise refusal
    if entry.op is Op.RENEW:
        found = await find_certificate(client, said, entry.certificate)
    elif refusal.fault in (Fault.TAKEN, Fault.KEY_USED) and said.key != _key(entry):
        found = None
    else:
        found = await _newest(client, said, lambda one: one.op is entry.op)
        if found is not None and _brought(found.entry) != _brought(entry):
            vars(refusal)["then"] = _instead(found, entry)
            found = None
    if found is None:
        if entry.op is Op.RECOVER and refusal.fault is Fault.KEY_USED:
            vars(refusal).setdefault(
                "then", "recover under another NAME, with a key that this log has not seen"
            )
        raise refusal
    return found


def not_active(said: Status) -> str:
    """How an ID stands that is on record and that nobody believes, and what is left to do; empty for an active one."""
    if said.state is State.ACTIVE:
        return ""
    if said.because != said.auto_id:
        return f"it is {said.state} because of {said.because}, above it"
    return _NOT_ACTIVE[said.state]


async def may_follow(client: RegistryClient, auto_id: AutoId, key: bytes) -> bool:
    """Whether a key (SHA-256 of its SPKI) is the one that an ID has committed to, or goes by already; or nobody can tell.

    Raises:
        CallError: `not_found`.
    """
    said = (await client.status(auto_id)).status
    if key == said.key:
        return True
    # No two entries of a log bring one key, and only who brings one commits to the next: a renewal does not.
    found = await _newest(client, said, lambda one: bool(one.next_key) and _key(one) == said.key)
    return found is None or key == found.entry.next_key


async def find_certificate(client: RegistryClient, said: Status, der: bytes) -> Recorded | None:
    """The entry that has brought a certificate; None unless that is the one in force."""
    if Certificate.parse_untrusted(der).fingerprint != said.certificate:
        return None
    return await _newest(client, said, lambda one: one.certificate == der)


async def _newest(client: RegistryClient, said: Status, wanted: Callable[[Entry], bool]) -> Recorded | None:
    for index in reversed(await client.places(said, _SEARCHED)):
        leaf, proof = await client.proof(index)
        logged_at, entry = decode_leaf_untrusted(leaf)
        if entry.auto_id == said.auto_id and wanted(entry):
            return Recorded(index, logged_at, proof, leaf, entry)
    return None


def _brought(entry: Entry) -> tuple[object, ...]:
    signers = [signature.by for signature in entry.signatures]
    return entry.certificate, entry.next_key, entry.guardians, entry.void_from, signers


def _key(entry: Entry) -> bytes:
    return Certificate.parse_untrusted(entry.certificate).spki_sha256 if entry.certificate else b""


def _instead(found: Recorded, entry: Entry) -> str:
    """What is on record where the same was looked for."""
    if entry.op is Op.REGISTER:
        return "it is on record with this very key, by another entry: see autolink registry history"
    if _key(entry) != _key(found.entry) or not entry.certificate:
        return f"by entry {found.index}, which is another: see autolink registry history"
    what = "rotation" if entry.op is Op.ROTATE else "recovery"
    voids = "nothing" if found.entry.void_from is None else f"from entry {found.entry.void_from} on"
    return f"this {what} is on record as entry {found.index}, voiding {voids}"
