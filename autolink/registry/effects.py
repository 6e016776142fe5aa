"""What each kind of entry does, once its ID's state allows it: what it must bring, and who must have signed it.

Issuers, ancestors and guardians sign with their key on record, and must stand as active themselves, up to their root.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Final, cast

from cryptography.x509 import BasicConstraints
from cryptography.x509.oid import ExtensionOID

from autolink import limits
from autolink.errors import EntryRefused, Fault, IdentityError
from autolink.identity import AutoId, Certificate, keys
from autolink.identity.certificate import begin_of
from autolink.identity.keys import PublicKey
from autolink.identity.names import split_bound
from autolink.messages import instant
from autolink.registry.entries import Entry, Op, Signature, guardian_hash
from autolink.registry.ledger import Applied, Ledger, path_above, standing
from autolink.registry.records import SECOND, Record, Recovery, State
from autolink.trust.issuers import MEMORY
from autolink.trust.presented import sound, sound_issuers

Signer = tuple[AutoId, PublicKey, bytes]
"""Who must have signed, with which key, and that key's SPKI."""


@dataclass(frozen=True, slots=True)
class _New:
    """A certificate that an entry brings, checked as far as the log can."""

    certificate: Certificate
    key: bytes
    issuers: tuple[bytes, ...]
    bound: bool


class Step:
    """One entry on its way into the state."""

    def __init__(self, ledger: Ledger, entry: Entry, now: int, index: int) -> None:
        self._ledger, self._entry, self._now, self._index = ledger, entry, now, index

    # --- effects ---------------------------------------------------------------------------------------

    def register(self) -> Applied:
        entry = self._entry
        guardians = entry.guardians
        if guardians is None:
            raise AssertionError("a parsed registration has guardians, perhaps none")
        new = self._new_certificate(entry.issuer)
        bound = entry.issuer is None and new.bound
        if entry.issuer is None and not bound and split_bound(new.certificate.common_name) is not None:
            raise _refuse_certificate("its name is bound to another key")
        self._check_guardians(entry.issuer)
        issuer = [] if entry.issuer is None else [self._acting(entry.issuer, Fault.ISSUER)]
        self._check_signatures(_signer(entry.auto_id, new.certificate), *issuer)
        record = Record(
            entry.auto_id, entry.issuer, bound, entry.certificate, new.key, new.issuers, entry.next_key, guardians,
            head=entry.hash, authority=entry.hash, entries=1,
            registered=self._index, certified=self._index, touched=self._index,
        )  # fmt: skip
        return Applied(record, used=new.key)

    def renew(self, record: Record) -> Applied:
        new = self._new_certificate(record.issuer, renewing=record)
        former, certificate = record.rotations, self._entry.certificate
        had_room = record.bound and _can_be_shown(*former, record.certificate)
        if had_room and not _can_be_shown(*former, certificate):
            raise _refuse_certificate("it is so large that its bound name could not be rotated any more")
        self._check_signatures(_signer(record.auto_id, new.certificate))
        return Applied(record._replace(certificate=certificate, issuers=new.issuers, certified=self._index))

    def rotate(self, record: Record) -> Applied:
        entry = self._entry
        new = self._new_certificate(record.issuer)
        if new.key != record.next_key:
            raise _not_committed()
        self._check_successor(record)
        self._check_signatures(_signer(record.auto_id, new.certificate))
        return Applied(
            record.with_key(
                certificate=entry.certificate, key=new.key, next_key=entry.next_key, issuers=new.issuers,
                void_from=entry.void_from, index=self._index,
            ),
            used=new.key,
        )  # fmt: skip

    def revoke(self, record: Record) -> Applied:
        if record.revoked_by is not None:
            raise EntryRefused(Fault.REVOKED, "this ID's key has been revoked already")
        by = self._only_signer()
        signer = self._own(record) if by == record.auto_id else self._ancestor(record, by)
        self._check_signatures(signer)
        return Applied(record._replace(revoked_by=by))

    def deactivate(self, record: Record) -> Applied:
        by = self._only_signer()
        signer = self._committed(record) if by == record.auto_id else self._ancestor(record, by)
        self._check_signatures(signer)
        return Applied(record._replace(deactivated_by=by, recovery=None))

    def recover(self, record: Record) -> Applied:
        entry = self._entry
        new = self._new_certificate(record.issuer)
        self._check_successor(record)
        issuer = record.issuer
        others = self._guardians(record) if issuer is None else [self._acting(issuer, Fault.ISSUER)]
        self._check_signatures(_signer(record.auto_id, new.certificate), *others)
        recovery = Recovery(
            entry.certificate, new.key, entry.next_key, new.issuers,
            ready_at=self._now + record.guardians.delay * SECOND, void_from=entry.void_from, index=self._index,
            by=record.issuer or record.auto_id,
        )  # fmt: skip
        return Applied(record._replace(recovery=recovery), used=new.key)

    def delay(self, record: Record) -> Applied:
        recovery = record.recovery
        if recovery is None:
            raise AssertionError("the table lets only a recovery be lengthened")
        if record.revoked_by is not None:
            raise EntryRefused(Fault.REVOKED, "the key that could lengthen the recovery has been revoked")
        if recovery.delayed:
            raise EntryRefused(
                Fault.RECOVERING, "this recovery has been lengthened once, and may be no further"
            )
        self._check_signatures(self._own(record))
        later = recovery.ready_at + record.guardians.delay * SECOND
        return Applied(record._replace(recovery=replace(recovery, ready_at=later, delayed=True)))

    def guardians(self, record: Record) -> Applied:
        guardians = self._entry.guardians
        if guardians is None:
            raise AssertionError("a parsed entry of this kind has guardians")
        self._check_guardians(record.issuer)
        self._check_signatures(self._committed(record))
        return Applied(record._replace(guardians=guardians))

    def service(self, record: Record) -> Applied:
        self._check_signatures(self._own(record))
        return Applied(record._replace(service=self._entry.service))

    # --- certificates and keys -------------------------------------------------------------------------

    def _new_certificate(self, issuer: AutoId | None, *, renewing: Record | None = None) -> _New:
        """The entry's certificate as its ID may have it now: its profile, its issuer's signature, its name, its key.

        Args:
            issuer: who has issued the ID.
            renewing: the record whose key it is over; None: it is over one that nobody has had.
        """
        above = [record.at(self._now) for record in path_above(self._ledger, issuer)]
        if above:
            self._check_active(above[0], Fault.ISSUER)
        try:
            certificate, ids, bound = _examine(
                (self._entry.certificate, *(record.certificate for record in above)), instant(self._now)
            )
        except IdentityError as error:
            raise _refuse_certificate(str(error)) from None
        if not ids or ids[-1] != self._entry.auto_id:
            raise _refuse_certificate("it is not this Auto ID's")
        commits = self._commits_anew(certificate) if renewing is None else _goes_on(certificate, renewing)
        bound_name = issuer is None and split_bound(certificate.common_name) is not None
        if certificate.next_key_hash != commits and (bound_name or certificate.next_key_hash is not None):
            raise _refuse_certificate("it commits to another next key than its ID")
        issuers = (above[0].key, *above[0].issuers) if above else ()
        return _New(certificate, certificate.spki_sha256, issuers, bound)

    def _commits_anew(self, certificate: Certificate) -> bytes:
        """What an ID commits to with a key that nobody has had. Its certificate may begin whenever it likes: being over
        another key it brings nothing back, and a thief's renewals must not outrun it."""
        next_key = self._entry.next_key
        if self._ledger.is_used(certificate.spki_sha256):
            raise EntryRefused(
                Fault.KEY_USED, "this key is or was an ID's in this log, and is nobody's again"
            )
        if next_key == certificate.spki_sha256 or self._ledger.is_used(next_key):
            raise EntryRefused(Fault.KEY_USED, "the next key is the current one, or was an ID's before")
        return next_key

    def _check_successor(self, record: Record) -> None:
        """Another key may take over: what an ID keeps about its former ones is bounded."""
        entry = self._entry
        if record.bound and not _can_be_shown(*record.rotations, record.certificate):
            raise EntryRefused(
                Fault.NOT_COMMITTED,
                "a bound name that is rotated once more has more rotations than can be shown: register another ID",
            )
        if entry.void_from is None:
            return
        if entry.void_from > self._index:
            raise EntryRefused(Fault.MALFORMED, "void_from: what is still to come cannot be void")
        if len(record.voids) >= limits.VOIDS:
            raise EntryRefused(Fault.MALFORMED, f"void_from: an ID says this at most {limits.VOIDS} times")

    def _check_guardians(self, issuer: AutoId | None) -> None:
        guardians = self._entry.guardians
        if issuer is not None and guardians is not None and guardians.hashes:
            raise EntryRefused(
                Fault.MALFORMED, "an issued ID is recovered by its issuer: it has no guardians"
            )

    # --- who signs -------------------------------------------------------------------------------------

    def _only_signer(self) -> AutoId:
        if len(self._entry.signatures) != 1:
            raise EntryRefused(Fault.UNAUTHORISED, "this entry has exactly one signature")
        return self._entry.signatures[0].by

    def _own(self, record: Record) -> Signer:
        return _signer(record.auto_id, Certificate.parse_untrusted(record.certificate))

    def _committed(self, record: Record) -> Signer:
        """The key that the ID has committed to, shown by the signature that was made with it."""
        shown = self._entry.signatures[0].key if self._entry.signatures else b""
        try:
            public_key = keys.load_spki(shown)
        except IdentityError as error:
            raise EntryRefused(Fault.UNAUTHORISED, f"the committed key must be shown: {error}") from None
        if sha256(shown).digest() != record.next_key:
            raise _not_committed()
        return record.auto_id, public_key, shown

    def _ancestor(self, record: Record, by: AutoId) -> Signer:
        if all(above.auto_id != by for above in path_above(self._ledger, record.issuer)):
            raise EntryRefused(
                Fault.UNAUTHORISED, f"{by.short} is neither this ID nor an issuer or ancestor of it"
            )
        return self._acting(by, Fault.ISSUER)

    def _acting(self, auto_id: AutoId, fault: Fault) -> Signer:
        """Another ID that signs with its key on record, and stands as active."""
        record = self._ledger.record(auto_id)
        if record is None:
            raise EntryRefused(fault, f"{auto_id.short} is not on record")
        self._check_active(record, fault)
        return self._own(record.at(self._now))

    def _check_active(self, record: Record, fault: Fault) -> None:
        where = standing(self._ledger, record, self._now)
        if where.state is not State.ACTIVE:
            text = f"{record.auto_id.short} is {where.state} (by the record of {where.because.short})"
            raise EntryRefused(fault, text)

    def _guardians(self, record: Record) -> list[Signer]:
        """Those that the entry reveals, each of them one that the ID has committed to."""
        revealed = self._entry.revealed
        hashes = {guardian_hash(guardian, salt) for guardian, salt in revealed}
        if not record.guardians.hashes:
            raise EntryRefused(Fault.UNAUTHORISED, "this ID has no guardians: only its next key helps")
        if not hashes <= set(record.guardians.hashes) or len(hashes) != len(revealed):
            raise EntryRefused(
                Fault.UNAUTHORISED, "a revealed guardian is none of this ID's, or stands twice"
            )
        counting = {guardian for guardian, _ in revealed if not self._is_within(guardian, record.auto_id)}
        if len(counting) < record.guardians.threshold:
            raise EntryRefused(
                Fault.UNAUTHORISED,
                f"a recovery takes {record.guardians.threshold} guardians, not {len(counting)} (the ID itself and those "
                "below it do not count)",
            )  # fmt: skip
        return [self._acting(guardian, Fault.UNAUTHORISED) for guardian, _ in revealed]

    def _is_within(self, auto_id: AutoId, top: AutoId) -> bool:
        """Whether an ID is `top` or stands below it, so that the current key of `top` can issue it or seize it."""
        while auto_id != top:
            record = self._ledger.record(auto_id)
            if record is None or record.issuer is None:
                return False
            auto_id = record.issuer
        return True

    def _check_signatures(self, *signers: Signer) -> None:
        """Exactly these have signed, in this order."""
        entry = self._entry
        if [signature.by for signature in entry.signatures] != [by for by, _, _ in signers]:
            names = ", ".join(by.short for by, _, _ in signers)
            raise EntryRefused(Fault.UNAUTHORISED, f"{entry.op.name} is signed by {names}, in this order")
        for signature, (_, public_key, spki) in zip(entry.signatures, signers, strict=True):
            self._check_form(signature, spki)
            entry.check_signature(signature, public_key, spki)

    def _check_form(self, signature: Signature, spki: bytes) -> None:
        shown = self._entry.op in (Op.DEACTIVATE, Op.GUARDIANS) and signature.by == self._entry.auto_id
        if signature.key != (spki if shown else b""):
            raise EntryRefused(
                Fault.UNAUTHORISED, "a signature shows its key exactly where only its hash is known"
            )


EFFECTS: Final[dict[Op, Callable[[Step, Record], Applied]]] = {
    Op.RENEW: Step.renew,
    Op.ROTATE: Step.rotate,
    Op.REVOKE: Step.revoke,
    Op.DEACTIVATE: Step.deactivate,
    Op.RECOVER: Step.recover,
    Op.DELAY: Step.delay,
    Op.GUARDIANS: Step.guardians,
    Op.SERVICE: Step.service,
}


def _examine(chain: tuple[bytes, ...], now: datetime) -> tuple[Certificate, tuple[AutoId, ...], bool]:
    """A certificate below others that are on record: parsed, the ids of its path, and whether that starts at a name that
    is bound to just its root's key.

    Raises:
        IdentityError: it is not sound.
    """
    certificate = Certificate.parse_untrusted(chain[0])
    constraints = certificate.extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if len(chain) > 1 and constraints is not None and cast("BasicConstraints", constraints.value).ca:
        issuers = sound_issuers(chain, now=now)
        return certificate, issuers.ids, issuers.bound
    presented = sound(chain, now=now)
    if presented.issuers is not None:
        MEMORY.keep(presented.issuers)  # they are on record, so no stranger has filled this
    return certificate, presented.ids, presented.bound


def _signer(auto_id: AutoId, certificate: Certificate) -> Signer:
    return auto_id, certificate.public_key, certificate.spki


def _can_be_shown(*rotations: bytes) -> bool:
    """Whether these certificates, in DER, are no more than the evidence of a bound name may hold."""
    return len(rotations) <= limits.ROTATIONS and sum(map(len, rotations)) <= limits.ROTATIONS_BYTES


def _goes_on(certificate: Certificate, record: Record) -> bytes:
    """What an ID has committed to and goes on to, under a newer certificate of the same key: an older one would bring back
    what was replaced."""
    if certificate.not_before <= begin_of(record.certificate):
        raise _refuse_certificate("it does not begin later than the one that it follows")
    if certificate.spki_sha256 != record.key:
        raise _refuse_certificate("a renewal is over the current key: another one is a rotation")
    return record.next_key


def _not_committed() -> EntryRefused:
    return EntryRefused(Fault.NOT_COMMITTED, "this is not the key that the ID has committed to")


def _refuse_certificate(text: str) -> EntryRefused:
    return EntryRefused(Fault.CERTIFICATE, f"the certificate: {text}")
