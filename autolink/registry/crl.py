"""Certificate revocation lists (RFC 5280, section 5): what ordinary X.509 software can be told of a log's revocations.

Only an issuer can sign one that OpenSSL believes: a list in its name under another key is refused, and so is an indirect
one. So the issuer makes its list from the log, and a registry checks it, serves it, and says when the log has gone on
since. Nor can an ancestor sign for an issuer: where that one makes no list, the ancestor revokes it in its own.

What the list says of itself is checked against the log by its number, ``size << 32 | seconds``: the size of the log that it
was made from, and its thisUpdate. So a later list has a larger number, and whether an entry came after it is plain.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import limits
from autolink.errors import BadSignature, EntryRefused, Fault, IdentityError, UsageError
from autolink.identity import AutoId, Certificate, Credential, keys
from autolink.identity.certificate import PARSER_ERRORS
from autolink.messages import instant, microseconds
from autolink.registry.audit import Taken
from autolink.registry.records import Record, State
from autolink.registry.store import Store

LIFETIME: Final = timedelta(seconds=limits.CRL_LIFETIME)

_SECONDS: Final = 32
_VERSION: Final = b"\x02\x01\x01"
"""Version 2 in DER, with which the signed part of a list begins; one of version 1 would leave it out."""

_EXTENSIONS: Final = {x509.CRLNumber.oid, x509.AuthorityKeyIdentifier.oid}
_MAY_SIGN: Final = x509.KeyUsage.oid


@final
@dataclass(slots=True)
class _Logged:
    """A certificate that some entry brought; `ended` is when its key was, in log time (microseconds)."""

    certificate: Certificate
    ended: int | None = None


@final
class Issued:
    """The certificates that one ID has issued, as a replay of the log shows them: feed it every entry, from the first.

    A certificate is revoked when its key has ended: by revocation, rotation, recovery (from the entry that began it, for
    nothing gives that key back) or deactivation. A renewal revokes nothing: the former certificate runs out.
    """

    def __init__(self, issuer: AutoId) -> None:
        self.issuer = issuer
        self._logged: dict[AutoId, dict[bytes, _Logged]] = {}

    def take(self, taken: Taken) -> None:
        """The next entry, found right: for `Audit.replay`."""
        record = taken.record
        if record.issuer != self.issuer:
            return
        known = self._logged.setdefault(record.auto_id, {})
        coming = record.recovery
        for der in (record.certificate, coming.certificate if coming else b""):
            if der and der not in known:
                known[der] = _Logged(Certificate.parse_untrusted(der))
        alive = {record.key} if record.state is State.ACTIVE else set()
        if coming is not None and record.state is State.RECOVERING:
            alive.add(coming.key)
        for one in known.values():
            if one.ended is None and one.certificate.spki_sha256 not in alive:
                one.ended = taken.logged_at

    def revoked(self, now: datetime) -> Iterator[x509.RevokedCertificate]:
        """What a list must name at `now`: those that have not run out by themselves."""
        for known in self._logged.values():
            for one in known.values():
                certificate = one.certificate
                if one.ended is not None and certificate.not_after >= now:
                    builder = x509.RevokedCertificateBuilder().serial_number(certificate.x509.serial_number)
                    yield builder.revocation_date(_whole(instant(one.ended))).build()


def make_crl(
    issuer: Credential, issued: Issued, *, size: int, now: datetime, lifetime: timedelta = LIFETIME
) -> bytes:
    """An issuer's list, signed.

    Args:
        issued: what it has issued, from a replay of `size` entries.
        now: aware; becomes thisUpdate.
        lifetime: until nextUpdate; who checks lists refuses all of the issuer's certificates after that.

    Returns:
        DER.

    Raises:
        UsageError: `issued` is another ID's, the lifetime is longer than `limits.CRL_LIFETIME_MOST`, or the list than
            `limits.CRL`.
        IdentityError: this certificate may not sign lists: it was made before ours could.
    """
    if issued.issuer != issuer.auto_id:
        raise UsageError("these certificates are of another issuer's")
    if not timedelta(0) < lifetime <= timedelta(seconds=limits.CRL_LIFETIME_MOST):
        raise UsageError(f"a revocation list lives at most {limits.CRL_LIFETIME_MOST:.0f} seconds")
    check_may_sign(issuer.leaf)
    begin = _whole(now)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_identifier(issuer.leaf))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.leaf.x509.subject)
        .last_update(begin)
        .next_update(begin + lifetime)
        .add_extension(authority, critical=False)
        .add_extension(x509.CRLNumber(_number(size, begin)), critical=False)
    )
    for revoked in issued.revoked(now):
        builder = builder.add_revoked_certificate(revoked)
    der = builder.sign(issuer.private_key, _digest(issuer.private_key)).public_bytes(Encoding.DER)
    if len(der) > limits.CRL:
        raise UsageError(f"the revocation list has more than {limits.CRL} bytes")
    return der


def check_may_sign(issuer: Certificate) -> None:
    """A certificate over whose key a list is believed.

    Raises:
        IdentityError: its keyUsage lacks cRLSign: it was made before ours had it, or is no issuer's.
    """
    usage = issuer.extensions.get(_MAY_SIGN)
    if usage is None or not (isinstance(usage.value, x509.KeyUsage) and usage.value.crl_sign):
        raise IdentityError("this certificate may not sign revocation lists (keyUsage): renew it")


@final
@dataclass(frozen=True, slots=True)
class CheckedCrl:
    """A list whose signature verified. Only `check_untrusted` makes one.

    Attributes:
        size: of the log that it was made from.
        this_update, next_update: aware.
        count: revoked certificates in it.
    """

    size: int
    this_update: datetime
    next_update: datetime
    count: int

    @property
    def number(self) -> int:
        """The CRL number: of two lists of an issuer's, the later one has the larger."""
        return _number(self.size, self.this_update)


def load_untrusted(der: bytes) -> x509.CertificateRevocationList:
    """A list, parsed; nothing in it is verified.

    Raises:
        EntryRefused: MALFORMED.
    """
    if len(der) > limits.CRL:
        raise _malformed(f"more than {limits.CRL} bytes")
    try:
        crl = x509.load_der_x509_crl(der)
        # Each part is parsed when it is asked for, and neither the version is looked at nor what the signature's last byte
        # leaves unused.
        _ = (
            list(crl.extensions),
            crl.issuer,
            crl.last_update_utc,
            crl.next_update_utc,
            crl.signature_algorithm_oid,
        )
        unused, signed = der[-len(crl.signature) - 1], crl.tbs_certlist_bytes
    except PARSER_ERRORS:
        raise _malformed("not DER of one") from None
    if not signed.startswith(_VERSION, 2 + (signed[1] & 0x7F if signed[1] > 0x7F else 0)):
        raise _malformed("not of version 2")
    if unused:
        raise _malformed("a signature that is not whole bytes")
    return crl


def check_untrusted(der: bytes, certificate: bytes) -> CheckedCrl:
    """A list that the key of an issuer's certificate (DER, on record) has signed, and that says no more than a list may.

    Raises:
        EntryRefused: MALFORMED, CERTIFICATE (the ID may sign none) or UNAUTHORISED (another key did).
    """
    crl, issuer = load_untrusted(der), Certificate.parse_untrusted(certificate)
    try:
        check_may_sign(issuer)
    except IdentityError as error:
        raise EntryRefused(Fault.CERTIFICATE, str(error)) from None
    if crl.issuer.public_bytes() != issuer.x509.subject.public_bytes():
        raise EntryRefused(Fault.UNAUTHORISED, "revocation list: in another name than this ID's")
    try:
        keys.verify_certificate(
            issuer.public_key, issuer.key_type, crl.signature_algorithm_oid, crl.signature, crl.tbs_certlist_bytes
        )  # fmt: skip
    except BadSignature:
        raise EntryRefused(
            Fault.UNAUTHORISED, "revocation list: not signed by this ID's key on record"
        ) from None
    checked = _read(crl)
    named = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    if named != x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_identifier(issuer)):
        raise _malformed(
            "its key identifier is not this ID's, so nobody who checks certificates would find it"
        )
    return checked


def _identifier(issuer: Certificate) -> x509.SubjectKeyIdentifier:
    return issuer.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _read(crl: x509.CertificateRevocationList) -> CheckedCrl:
    if {one.oid for one in crl.extensions} != _EXTENSIONS or any(one.critical for one in crl.extensions):
        raise _malformed("its extensions are not a number and the issuer's key identifier")
    try:
        count = sum(1 for one in crl if not list(one.extensions))
        begin, end = crl.last_update_utc, crl.next_update_utc
    except PARSER_ERRORS:
        raise _malformed("an entry that is none") from None
    if count != len(crl):
        raise _malformed("an entry with extensions")
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    size, seconds = number >> _SECONDS, number & (1 << _SECONDS) - 1
    if number < 0 or seconds != int(begin.timestamp()) or size > limits.LOG_ENTRIES:
        raise _malformed("its number does not say a log's size and thisUpdate")
    if end is None or not timedelta(0) < end - begin <= timedelta(seconds=limits.CRL_LIFETIME_MOST):
        raise _malformed(f"it lives longer than {limits.CRL_LIFETIME_MOST:.0f} seconds, or not at all")
    return CheckedCrl(size, begin, end, count)


def check_times(checked: CheckedCrl, *, size: int, now: datetime) -> None:
    """It is of this log, as it is now or was, and of now.

    Raises:
        EntryRefused: MALFORMED (of a log that there is not yet) or EXPIRED.
    """
    if checked.size > size:
        raise _malformed(f"made from {checked.size} entries, and the log has {size}")
    if checked.this_update > now + timedelta(seconds=limits.SKEW) or checked.next_update <= now:
        raise EntryRefused(Fault.EXPIRED, "revocation list: of a time to come, or run out")


def _number(size: int, this_update: datetime) -> int:
    return size << _SECONDS | int(this_update.timestamp())


def _whole(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)


def _digest(key: keys.PrivateKey) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None


def _malformed(text: str) -> EntryRefused:
    return EntryRefused(Fault.MALFORMED, f"revocation list: {text}")


# --- at a registry -------------------------------------------------------------------------------------------


def publish(store: Store, issuer: AutoId, der: bytes, *, now: datetime) -> CheckedCrl:
    """Keep an issuer's list, from whomever it comes.

    Raises:
        EntryRefused: as `check_untrusted` and `check_times`; UNKNOWN; STALE: the one that is served is as new, or newer.
        StoreFailed: it could not be kept.
    """
    record = store.record(issuer)
    if record is None:
        raise EntryRefused(Fault.UNKNOWN, "this ID is not on record")
    checked = check_untrusted(der, record.at(microseconds(now)).certificate)
    check_times(checked, size=store.head.size, now=now)
    kept = store.keep_crl(issuer, der, size=checked.size, this_update=int(checked.this_update.timestamp()))
    if not kept:
        raise EntryRefused(Fault.STALE, "the list that is served is as new, or newer")
    return checked


@final
@dataclass(frozen=True, slots=True)
class Served:
    """An issuer's list as it is served.

    Attributes:
        lags: the log has gone on since: a certificate of the issuer's has ended, or its own key.
    """

    der: bytes
    checked: CheckedCrl
    lags: bool


def served(store: Store, record: Record) -> Served | None:
    """What an issuer, its record as it is now, has published last.

    Raises:
        StoreFailed: it cannot be read.
    """
    der = store.crl(record.auto_id)
    if der is None:
        return None
    checked, own = _look(der, record.certificate)
    return Served(der, checked, lags=not own or store.ended(record.auto_id) >= checked.size)


@lru_cache(maxsize=64)
def _look(der: bytes, certificate: bytes) -> tuple[CheckedCrl, bool]:
    """A list that was right when it came, and whether it is under the key of this certificate. Everybody may ask for it, and
    a long one takes 20 ms."""
    try:
        return check_untrusted(der, certificate), True
    except EntryRefused:
        return _read(load_untrusted(der)), False
