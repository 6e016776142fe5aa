"""A registry's log judged by the second implementation (docs/spec.md, sections 20 to 22): what entries do, or why not.

Like an auditor it has nothing but the leaves. Nothing of autolink is imported here.
"""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from tests.interop.second_certificates import (
    Refused,
    certificate_of,
    check_path,
    encode,
    is_bound,
    name_of,
    need,
    next_hash,
    sha,
    spki_of,
)
from tests.interop.second_formats import root_of
from tests.interop.second_registry import (
    DAY,
    DEACTIVATE,
    DELAY,
    GUARDIANS,
    RECOVER,
    REGISTER,
    RENEW,
    REVOKE,
    ROTATE,
    SERVICE,
    guardian_hash,
    parse_entry,
    signed_bytes,
)

BY_CURRENT_KEY = {RENEW, REVOKE, DELAY, SERVICE}
REFUSED = {
    "active": {DELAY: "not_recovering"},
    "revoked": {RENEW: "revoked", REVOKE: "revoked", SERVICE: "revoked", DELAY: "not_recovering"},
    "recovering": dict.fromkeys((RENEW, RECOVER, GUARDIANS, SERVICE), "recovering"),
    "deactivated": dict.fromkeys(range(RENEW, SERVICE + 1), "deactivated"),
}
"""The table of section 21, where it says why not."""


@dataclass
class Recovery:
    """A key that waits: its certificate and what it commits to, until when, and what it declares void."""

    certificate: x509.Certificate
    fields: dict
    issuers: list
    ready_at: int
    index: int
    delayed: bool = False


@dataclass
class Record:
    """What is on record about one ID. `last` and `base` are what its next entry may name as previous."""

    id: bytes
    issuer: bytes | None
    certificate: x509.Certificate
    next: bytes
    issuers: list
    index: int
    guardians: dict
    last: bytes = b""
    base: bytes = b""
    entries: int = 0
    former: list = field(default_factory=list)
    voids: list = field(default_factory=list)
    service: bytes = b""
    revoked: bool = False
    deactivated: bool = False
    recovery: Recovery | None = None

    @property
    def key(self):
        return sha(spki_of(self.certificate.public_key()))

    @property
    def state(self):
        if self.deactivated or self.recovery:
            return "deactivated" if self.deactivated else "recovering"
        return "revoked" if self.revoked else "active"

    def take_over(self, certificate, fields, issuers, index):
        """Another key is the ID's."""
        if fields["void_from"] is not None:
            self.voids.append((self.key, fields["void_from"]))
            self.service = b""
        self.former.append(self.certificate)
        self.certificate, self.next, self.issuers, self.index = certificate, fields["next"], issuers, index
        self.revoked, self.recovery = False, None


class Ledger:
    """A log from its first leaf on."""

    def __init__(self, origin):
        self.origin, self.records, self.keys, self.leaves, self.time = origin, {}, set(), [], 0

    @property
    def root(self):
        return root_of(self.leaves)

    def append(self, at, data):
        """Take an entry, or refuse it with the specification's word for why and leave everything as it was."""
        self.time, entry = at, parse_entry(data)
        need(entry.origin == self.origin, "wrong_log")
        need(at <= entry.expires_at <= at + 7 * DAY, "expired")
        record = self.find(entry.id)
        if entry.op == REGISTER:
            need(record is None, "taken")
            record = self.register(entry)
        else:
            need(record is not None, "unknown")
            need(entry.op not in REFUSED[record.state], REFUSED[record.state].get(entry.op))
            outruns = entry.op == REVOKE or entry.op not in BY_CURRENT_KEY
            need(entry.previous in (record.last, *([record.base] if outruns else [])), "stale")
            EFFECTS[entry.op](self, record, entry)
        record.last, record.entries = sha(entry.body), record.entries + 1
        record.base = record.base if entry.op in BY_CURRENT_KEY else record.last
        self.records[entry.id] = record
        self.leaves.append(encode([at, data]))

    def find(self, id_):
        """What is on record now: a recovery whose time has come has taken place."""
        record = self.records.get(id_)
        waiting = record and not record.deactivated and record.recovery
        if waiting and self.time >= waiting.ready_at:
            record.take_over(waiting.certificate, waiting.fields, waiting.issuers, waiting.index)
            record.base = record.last
        return record

    def standing(self, id_):
        """(state, whose record decides it)."""
        record = self.find(id_)
        while record.state == "active" and record.issuer:
            below, record = record, self.find(record.issuer)
            if any(below.issuers[0] == key and below.index >= index for key, index in record.voids):
                return "revoked", record.id
        return record.state, record.id

    # What entries do

    def register(self, entry):
        fields = entry.fields
        issuer, guardians = (
            fields["issuer"],
            {name: fields[name] for name in ("guardians", "threshold", "delay")},
        )
        certificate, issuers = self.certificate(entry, issuer)
        bound = issuer or "~" not in name_of(certificate) or is_bound(certificate, name_of(certificate))
        need(bound, "certificate", "bound to another key")
        need(not (issuer and fields["guardians"]), "malformed", "guardians of an issued ID")
        above = [(issuer, self.acting(issuer))] if issuer else []
        self.check_signatures(entry, (entry.id, certificate.public_key()), *above)
        record = Record(entry.id, issuer, certificate, fields["next"], issuers, len(self.leaves), guardians)
        self.keys.add(record.key)
        return record

    def renew(self, record, entry):
        certificate, issuers = self.certificate(entry, record.issuer, record)
        room = self.is_shown(record, certificate) or not self.is_shown(record, record.certificate)
        need(room, "certificate", "no room for another rotation")
        self.check_signatures(entry, (record.id, certificate.public_key()))
        record.certificate, record.issuers, record.index = certificate, issuers, len(self.leaves)

    def rotate(self, record, entry):
        certificate, issuers = self.certificate(entry, record.issuer, record)
        need(sha(spki_of(certificate.public_key())) == record.next, "not_committed")
        self.check_successor(record, entry)
        self.check_signatures(entry, (record.id, certificate.public_key()))
        record.take_over(certificate, entry.fields, issuers, len(self.leaves))
        self.keys.add(record.key)

    def revoke(self, record, entry):
        need(not record.revoked, "revoked")
        self.check_signatures(
            entry, self.self_or_above(record, entry, lambda: record.certificate.public_key())
        )
        record.revoked = True

    def deactivate(self, record, entry):
        self.check_signatures(entry, self.self_or_above(record, entry, lambda: self.committed(record, entry)))
        record.deactivated = True

    def recover(self, record, entry):
        certificate, issuers = self.certificate(entry, record.issuer, record)
        self.check_successor(record, entry)
        others = [record.issuer] if record.issuer else self.revealed(record, entry)
        signers = [
            (each, self.acting(each, "issuer" if record.issuer else "unauthorised")) for each in others
        ]
        self.check_signatures(entry, (record.id, certificate.public_key()), *signers)
        ready_at = self.time + record.guardians["delay"] * 10**6
        record.recovery = Recovery(certificate, entry.fields, issuers, ready_at, len(self.leaves))
        self.keys.add(sha(spki_of(certificate.public_key())))

    def delay(self, record, entry):
        need(not record.revoked, "revoked")
        need(not record.recovery.delayed, "recovering", "delayed once")
        self.check_signatures(entry, (record.id, record.certificate.public_key()))
        record.recovery.ready_at += record.guardians["delay"] * 10**6
        record.recovery.delayed = True

    def change_guardians(self, record, entry):
        need(not (record.issuer and entry.fields["guardians"]), "malformed", "guardians of an issued ID")
        self.check_signatures(entry, (record.id, self.committed(record, entry)))
        record.guardians = entry.fields

    def change_service(self, record, entry):
        self.check_signatures(entry, (record.id, record.certificate.public_key()))
        record.service = entry.fields["service"]

    # Certificates

    def certificate(self, entry, issuer, after=None):
        """The entry's certificate below those on record, and the hashes of the keys above it."""
        above, id_ = [], issuer
        while id_:
            need(self.find(id_), "issuer", "not on record")
            above.append(self.find(id_))
            id_ = above[-1].issuer
        if issuer:
            self.acting(issuer)
        try:
            certificate = certificate_of(entry.fields["certificate"])
            issuing = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            ours = check_path([certificate, *(each.certificate for each in above)], self.time, issuing)
            if not issuing:
                certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except (Refused, x509.ExtensionNotFound) as error:
            raise Refused("certificate", str(error)) from error
        need(ours == entry.id, "certificate", "of another ID")
        self.check_keys(entry, certificate, after)
        return certificate, [each.key for each in above]

    def check_keys(self, entry, certificate, after):
        key, following = sha(spki_of(certificate.public_key())), entry.fields.get("next")
        if entry.op == RENEW:
            later = certificate.not_valid_before_utc > after.certificate.not_valid_before_utc
            need(key == after.key and later, "certificate", "another key, or not later than the one before")
            following = after.next
        else:
            need(key not in self.keys, "key_used")
            need(following != key and following not in self.keys, "key_used", "the next key")
        need(next_hash(certificate) in (following, b""), "certificate", "commits to another next key")

    @staticmethod
    def is_shown(record, certificate):
        """Whether a bound name that goes on from this certificate can show all that came before."""
        shown = [each.public_bytes(Encoding.DER) for each in (*record.former, certificate)]
        bound = not record.issuer and "~" in name_of(certificate)
        return not bound or (len(shown) <= 32 and sum(map(len, shown)) <= 40960)

    def check_successor(self, record, entry):
        need(self.is_shown(record, record.certificate), "not_committed", "more rotations than can be shown")
        void_from = entry.fields["void_from"]
        need(
            void_from is None or (void_from <= len(self.leaves) and len(record.voids) < 16),
            "malformed",
            "void_from",
        )

    # Signatures

    def acting(self, id_, reason="issuer"):
        """The key on record of one that stands as active."""
        need(self.records.get(id_) and self.standing(id_)[0] == "active", reason)
        return self.records[id_].certificate.public_key()

    def self_or_above(self, record, entry, own):
        need(len(entry.signatures) == 1, "unauthorised")
        by, id_ = entry.signatures[0][0], record.issuer
        if by == record.id:
            return by, own()
        while id_ and id_ != by:
            id_ = self.records[id_].issuer
        need(id_, "unauthorised")
        return by, self.acting(by)

    def committed(self, record, entry):
        """The key that is shown, if the ID has committed to it."""
        try:
            key = load_der_public_key(entry.signatures[0][1] if entry.signatures else b"")
        except ValueError as error:
            raise Refused("unauthorised", "no key is shown") from error
        need(sha(spki_of(key)) == record.next, "not_committed")
        return key

    def revealed(self, record, entry):
        pairs, known = entry.fields["revealed"], record.guardians["guardians"]
        found = {guardian_hash(salt, id_) for id_, salt in pairs}
        need(known and found <= {*known} and len(found) == len(pairs), "unauthorised", "guardians")
        counting = {id_ for id_, _ in pairs if not self.is_within(id_, record.id)}
        need(len(counting) >= record.guardians["threshold"], "unauthorised", "too few guardians")
        return [id_ for id_, _ in pairs]

    def is_within(self, id_, top):
        """Whether an ID is this one, or below it."""
        while id_ in self.records and id_ != top:
            id_ = self.records[id_].issuer
        return id_ == top

    @staticmethod
    def check_signatures(entry, *signers):
        """Exactly these, in this order; the key is shown where the ID signs with one that nobody has."""
        need([each[0] for each in entry.signatures] == [by for by, _ in signers], "unauthorised", "who signs")
        for (by, shown, value), (_, key) in zip(entry.signatures, signers, strict=True):
            hidden = entry.op in (DEACTIVATE, GUARDIANS) and by == entry.id
            need(shown == (spki_of(key) if hidden else b""), "unauthorised", "a key shown or not")
            try:
                key.verify(value, signed_bytes(entry.body, by, spki_of(key)), ec.ECDSA(hashes.SHA256()))
            except InvalidSignature as error:
                raise Refused("unauthorised", "signature") from error


EFFECTS = {
    RENEW: Ledger.renew, ROTATE: Ledger.rotate, REVOKE: Ledger.revoke, DEACTIVATE: Ledger.deactivate,
    RECOVER: Ledger.recover, DELAY: Ledger.delay, GUARDIANS: Ledger.change_guardians, SERVICE: Ledger.change_service,
}  # fmt: skip
