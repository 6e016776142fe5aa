"""Entries, made and signed: one function for each kind, for whoever holds the key that it takes.

An entry goes to one place of one log (`Slot`) and has the signatures of those who are here. Where somebody else must sign
too, the issuer or a recovery's guardians, the entry travels as bytes (`Entry.to_bytes`), each adds a signature with
`countersign`, in any order, and the last one submits it.

Nothing here decides whether a log takes the entry: `state.apply` does.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, final

from autolink import limits
from autolink.errors import EntryRefused, Fault, UsageError
from autolink.identity import AutoId, Certificate, Credential, EntityKind, KeyType, keys, show_name
from autolink.identity.issuing import build_self_issued
from autolink.identity.keys import PrivateKey
from autolink.identity.names import split_bound
from autolink.messages import microseconds
from autolink.registry.answers import Place
from autolink.registry.entries import FIRST, SALT, Entry, Guardians, Op, guardian_hash
from autolink.registry.log.note import VerifierKey
from autolink.registry.state import OUTRUNS

LIFETIME: Final = timedelta(hours=1)
"""How long an entry that is submitted at once may be appended."""

LIFETIME_MOST: Final = timedelta(seconds=limits.ENTRY_LIFETIME - limits.SKEW)
"""... and one that travels first: the longest that a log takes whose clock is a little behind ours."""

NO_GUARDIANS: Final = Guardians()


@final
@dataclass(frozen=True, slots=True)
class Slot:
    """Where an entry goes.

    Attributes:
        origin: of the log.
        expires_at: microseconds since 1970, the last instant at which it may be appended.
        place: of the ID, as `client.RegistryClient.place` tells; None for its registration.
    """

    origin: str
    expires_at: int
    place: Place | None = None

    @classmethod
    def at(
        cls, origin: str, now: datetime, place: Place | None = None, *, lifetime: timedelta = LIFETIME
    ) -> "Slot":
        """One for an entry that is made now and may be appended for so long."""
        return cls(origin, microseconds(now + lifetime), place)

    def previous(self, op: Op) -> bytes:
        """What an entry of this kind names as the one before.

        What takes an ID out of a thief's hands names the last one that he cannot have made, so that he does not outrun it.

        Raises:
            UsageError: the place is not known.
        """
        if op is Op.REGISTER:
            return FIRST
        if self.place is None:
            raise UsageError(
                f"{op.name.lower()}: which entry does it follow? Ask the registry for the ID's place"
            )
        return self.place.authority if op in OUTRUNS else self.place.head


def register(
    credential: Credential, slot: Slot, *, next_key: bytes | None = None, guardians: Guardians = NO_GUARDIANS
) -> Entry:
    """Put an ID on record, signed by itself; if it was issued, its issuer has to countersign.

    Args:
        credential: of the ID, with its current key.
        slot: without a place.
        next_key: SHA-256 of the SPKI that may follow; None: what the certificate says, as that of a bound name does.
        guardians: who may recover a self-issued ID, and how long that takes (an issued one: the delay alone).

    Raises:
        UsageError: the certificate says no next key, and neither does the caller.
    """
    issuer = credential.chain[1].auto_id if len(credential.chain) > 1 else None
    return _entry(
        Op.REGISTER, credential.auto_id, slot, issuer=issuer, certificate=credential.leaf.der,
        next_key=_next_key(credential, next_key), guardians=guardians,
    ).signed(credential.auto_id, credential.private_key)  # fmt: skip


def renew(credential: Credential, slot: Slot) -> Entry:
    """Put a newer certificate over the same key on record (see `renewed` for a self-issued ID's)."""
    entry = _entry(Op.RENEW, credential.auto_id, slot, certificate=credential.leaf.der)
    return entry.signed(credential.auto_id, credential.private_key)


def rotate(
    credential: Credential, slot: Slot, *, next_key: bytes | None = None, void_from: int | None = None
) -> Entry:
    """Go on to the key that the record commits to.

    Args:
        credential: with the new key, such as of `Credential.rotate`.
        slot: with the ID's place.
        next_key: as in `register`, of the key after the new one.
        void_from: the log index from which nothing stands that the old key has signed.

    Raises:
        UsageError: as `register`.
    """
    entry = _entry(
        Op.ROTATE, credential.auto_id, slot, certificate=credential.leaf.der,
        next_key=_next_key(credential, next_key), void_from=void_from,
    )  # fmt: skip
    return entry.signed(credential.auto_id, credential.private_key)


def revoke(auto_id: AutoId, slot: Slot, *, by: Credential) -> Entry:
    """End an ID's current key: by itself, its issuer or any ancestor."""
    return _entry(Op.REVOKE, auto_id, slot).signed(by.auto_id, by.private_key)


def deactivate(
    auto_id: AutoId, slot: Slot, *, next_key: PrivateKey | None = None, by: Credential | None = None
) -> Entry:
    """End an ID for ever: with the key that it has committed to, or by an ancestor.

    Raises:
        UsageError: not exactly one of the two was given.
    """
    if (next_key is None) == (by is None):
        raise UsageError("an ID is deactivated with its next key, or by an ancestor")
    entry = _entry(Op.DEACTIVATE, auto_id, slot)
    if next_key is not None:
        return entry.signed(auto_id, next_key, reveal=True)
    return entry if by is None else entry.signed(by.auto_id, by.private_key)


def recover(
    credential: Credential, slot: Slot, *, next_key: bytes | None = None, void_from: int | None = None,
    revealed: Mapping[AutoId, bytes] | None = None,
) -> Entry:  # fmt: skip
    """Begin to give an ID a new key, which takes over when the delay on record has passed.

    The issuer of an issued ID, or the guardians of a self-issued one, have to countersign.

    Args:
        credential: of the same Auto ID, with the new key; of a bound name a `successor`.
        slot: with the ID's place.
        next_key, void_from: as in `rotate`.
        revealed: the guardians that are going to sign, each with its salt.

    Raises:
        UsageError: as `register`.
    """
    entry = _entry(
        Op.RECOVER, credential.auto_id, slot, certificate=credential.leaf.der,
        next_key=_next_key(credential, next_key), void_from=void_from, revealed=tuple((revealed or {}).items()),
    )  # fmt: skip
    return entry.signed(credential.auto_id, credential.private_key)


def delay(credential: Credential, slot: Slot) -> Entry:
    """Make a recovery that is under way take once more as long; the current key may that once."""
    return _entry(Op.DELAY, credential.auto_id, slot).signed(credential.auto_id, credential.private_key)


def guardians(auto_id: AutoId, slot: Slot, chosen: Guardians, *, next_key: PrivateKey) -> Entry:
    """Choose others who may recover an ID, or another delay; with the key that it has committed to."""
    return _entry(Op.GUARDIANS, auto_id, slot, guardians=chosen).signed(auto_id, next_key, reveal=True)


def service(credential: Credential, slot: Slot, record: bytes) -> Entry:
    """Publish an ID's service record: where it is reached, and what it offers."""
    entry = _entry(Op.SERVICE, credential.auto_id, slot, service=record)
    return entry.signed(credential.auto_id, credential.private_key)


# --- others' signatures ------------------------------------------------------------------------------------


def countersign(entry: Entry, by: Credential) -> Entry:
    """An entry with one more signature, in the place where a log wants it.

    Args:
        entry: signed by its own ID, which is checked.
        by: its issuer, or one of the guardians that it reveals.

    Raises:
        UsageError: it has no use for this signature, or has it already.
        EntryRefused: its own ID has not signed it, or not this.
        IdentityError: its certificate is none.
    """
    certificate = check_own_signature(entry)
    if by.auto_id not in others(entry) and not certificate.is_issued_by(by.leaf):
        named = ", ".join(map(str, others(entry)))
        raise UsageError(
            f"this entry wants no signature of {by.auto_id}: it is neither its issuer nor one of its guardians that sign it"
            + (f"; it names {named}" if named else "")
        )
    if any(signature.by == by.auto_id for signature in entry.signatures):
        raise UsageError(f"{by.auto_id.short} has signed this entry already")
    signed = entry.signed(by.auto_id, by.private_key)
    order = [entry.auto_id, *others(entry)]
    return signed.with_signatures(
        sorted(signed.signatures, key=lambda one: order.index(one.by) if one.by in order else len(order))
    )


def others(entry: Entry) -> tuple[AutoId, ...]:
    """Who must sign besides its own ID, as far as the entry says: the issuer of a recovered ID is in no entry."""
    if entry.issuer is not None:
        return (entry.issuer,)
    return tuple(guardian for guardian, _ in entry.revealed)


def missing(entry: Entry) -> tuple[AutoId, ...]:
    """Those of `others` who have not signed yet."""
    signed = {signature.by for signature in entry.signatures}
    return tuple(auto_id for auto_id in others(entry) if auto_id not in signed)


def check_own_signature(entry: Entry) -> Certificate:
    """The new certificate of an entry that its ID's key has signed.

    Raises:
        UsageError: it brings none: nobody countersigns such an entry.
        EntryRefused: UNAUTHORISED.
        IdentityError: its certificate is malformed.
    """
    if not entry.certificate or entry.op not in (Op.REGISTER, Op.RECOVER):
        raise UsageError(f"nobody countersigns an entry of the kind {entry.op.name}")
    certificate = Certificate.parse_untrusted(entry.certificate)
    own = [signature for signature in entry.signatures if signature.by == entry.auto_id]
    if len(own) != 1:
        raise EntryRefused(Fault.UNAUTHORISED, "this entry has not the signature of its own ID")
    entry.check_signature(own[0], certificate.public_key, certificate.spki)
    return certificate


def choose_guardians(
    chosen: Sequence[AutoId], *, threshold: int, delay: int = limits.RECOVERY_DELAY,
    salts: Mapping[AutoId, bytes] | None = None,
) -> tuple[Guardians, dict[AutoId, bytes]]:  # fmt: skip
    """Commit to guardians without naming them.

    Args:
        chosen: at most `limits.GUARDIANS`.
        threshold: how many of them must sign a recovery.
        delay: seconds that it takes, from `limits.RECOVERY_DELAY_LEAST` to `limits.RECOVERY_DELAY_MOST`.
        salts: of each of them, if they were made before.

    Returns:
        What goes on record, and each one's salt: without these nobody recovers anything, so keep them.

    Raises:
        UsageError: there cannot be these, or a number is out of range.
    """
    if len(set(chosen)) != len(chosen) or len(chosen) > limits.GUARDIANS:
        raise UsageError(f"guardians are at most {limits.GUARDIANS}, each once")
    if not (1 if chosen else 0) <= threshold <= len(chosen):
        raise UsageError(
            f"the threshold is how many of the {len(chosen)} guardians must sign, not {threshold}"
        )
    if not limits.RECOVERY_DELAY_LEAST <= delay <= limits.RECOVERY_DELAY_MOST:
        least, most = (
            timedelta(seconds=bound) for bound in (limits.RECOVERY_DELAY_LEAST, limits.RECOVERY_DELAY_MOST)
        )
        raise UsageError(f"a recovery takes from {least} to {most}")
    used = {auto_id: salts[auto_id] if salts else secrets.token_bytes(SALT) for auto_id in chosen}
    hashes = tuple(sorted(guardian_hash(auto_id, salt) for auto_id, salt in used.items()))
    return Guardians(hashes, threshold, delay), used


# --- certificates and keys ---------------------------------------------------------------------------------


def renewed(credential: Credential, *, now: datetime, lifetime: timedelta | None = None) -> Certificate:
    """Another certificate of a self-issued ID over the same key.

    Args:
        credential: of the ID.
        now: from when it counts.
        lifetime: None for the longest.

    Raises:
        UsageError: somebody else has issued it, and renews it.
        IdentityError: the lifetime is not allowed.
    """
    leaf = credential.leaf
    if len(credential.chain) > 1:
        raise UsageError("an issued ID is given its new certificate by its issuer")
    return build_self_issued(
        leaf.common_name, credential.private_key, kind=leaf.kind or EntityKind.ORGANIZATION,
        next_key_hash=leaf.next_key_hash, recovered_in=leaf.recovered_in, lifetime=lifetime, now=now,
    )  # fmt: skip


def successor(
    former: Certificate, log_key: VerifierKey, *, lifetime: timedelta | None = None, now: datetime
) -> Credential:
    """A self-issued ID of a bound name over a fresh key, to be put on record by a recovery; the key that may follow is in
    `next_key`.

    Its name does not lead to that key. So nobody believes it but those who believe this log, which its certificate
    names, and they once the recovery has taken place there.

    Args:
        former: any certificate of that ID, such as the one on record.
        log_key: of the log that is to have it on record.
        lifetime: None for the longest.
        now: from when it counts.

    Raises:
        UsageError: the ID was issued, or its name is plain: nothing but a new identity of that name is needed then.
        IdentityError: the lifetime is not allowed.
    """
    name = former.common_name
    if not former.names_itself or split_bound(name) is None:
        raise UsageError(
            f"{show_name(name)} is not bound to keys: recover it with a new identity of that name"
        )
    key_type = KeyType.P256 if former.key_type is KeyType.RSA else former.key_type  # RSA is never made
    key, next_key = keys.generate(key_type), keys.generate(key_type)
    certificate = build_self_issued(
        name, key, kind=former.kind or EntityKind.ORGANIZATION, next_key_hash=keys.hash_of_key(next_key.public_key()),
        recovered_in=keys.hash_of_key(log_key.public), lifetime=lifetime, now=now,
    )  # fmt: skip
    return Credential((certificate,), key, next_key=next_key)


def _next_key(credential: Credential, given: bytes | None) -> bytes:
    next_key = given or credential.leaf.next_key_hash
    if next_key is None:
        raise UsageError("its certificate commits to no next key: say which one may follow")
    return next_key


def _entry(op: Op, auto_id: AutoId, slot: Slot, **fields: object) -> Entry:
    made: dict[str, object] = {
        "origin": slot.origin, "op": op, "auto_id": auto_id, "previous": slot.previous(op),
        "expires_at": slot.expires_at,
    }  # fmt: skip
    return Entry(**made | fields)  # type: ignore[arg-type]  # a field of Entry each
