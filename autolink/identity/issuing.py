"""The one certificate profile, written.

==================  =====================  =====================  =======================
field               self-issued            issuer (`may_issue`)   leaf
==================  =====================  =====================  =======================
subject             one CN, bound / plain  one CN                 one CN
basicConstraints !  CA, no path length     CA, path length        not a CA
keyUsage !          digitalSignature,      keyCertSign, cRLSign   digitalSignature
                    keyCertSign, cRLSign
extendedKeyUsage    none                   none                   serverAuth, clientAuth
subjectAltName      one URI, the AutoId    same                   same
key identifiers     subject                subject, authority     subject, authority
entity kind         natural                any                    any
next key's hash     when bound             none                   none
==================  =====================  =====================  =======================

``!`` is critical (RFC 5280, sections 4.2.1.9 and 4.2.1.3). A self-issued Auto ID links with this very
certificate, hence digitalSignature beside keyCertSign. Nothing in here comes from a request but its key.
"""

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from autolink import limits
from autolink.codec import aware_utc
from autolink.errors import IdentityError, Reason
from autolink.identity.autoid import AutoId
from autolink.identity.certificate import (
    OID_KIND,
    OID_NEXT_KEY,
    OID_RECOVERED_IN,
    Certificate,
    EntityKind,
    encode_key_hash,
    encode_kind,
)
from autolink.identity.keys import PrivateKey, PublicKey, key_type, spki
from autolink.identity.names import check_common_name, show_name

BACKDATE: Final = timedelta(minutes=5)
"""A certificate begins this long before it was made: it is often shown within a second to a peer whose clock
is behind ours, by up to `limits.SKEW` on a link and by more on a machine that only reads it."""

SELF_ISSUED_CAP: Final = timedelta(days=limits.LIFETIME_SELF_ISSUED_DAYS)
ISSUED_CAP: Final = timedelta(days=limits.LIFETIME_ISSUED_DAYS)
ISSUED_DEFAULT: Final = timedelta(days=90)
"""Lifetime of an issued certificate when nobody says: what can be lost should end soon. (Let's Encrypt: 90
days.)"""


def build_self_issued(
    common_name: str,
    key: PrivateKey,
    *,
    kind: EntityKind,
    next_key_hash: bytes | None,
    lifetime: timedelta | None,
    now: datetime,
    recovered_in: bytes | None = None,
) -> Certificate:
    """A certificate that a natural entity gives itself.

    Args:
        recovered_in: see `Certificate`; only for a bound name over a key that it does not lead to.
        lifetime: counted from `now`; None for the longest.

    Raises:
        IdentityError: the kind is digital, or the name or the lifetime is not allowed.
    """
    if not kind.natural:
        raise IdentityError(
            f"a {kind.value} does not issue its own identity: make a request and have it issued"
        )
    check_common_name(common_name, issued=False)
    name = _name(common_name)
    validity = _validity(now, SELF_ISSUED_CAP - BACKDATE if lifetime is None else lifetime, SELF_ISSUED_CAP)
    builder = _builder(name, name, key.public_key(), AutoId.derive(common_name), kind, validity)
    builder = _as_issuer(builder, path_length=None, links=True)
    for oid, key_hash in ((OID_NEXT_KEY, next_key_hash), (OID_RECOVERED_IN, recovered_in)):
        if key_hash is not None:
            extension = x509.UnrecognizedExtension(oid, encode_key_hash(key_hash))
            builder = builder.add_extension(extension, critical=False)
    return _sign(builder, key)


def build_issued(
    common_name: str,
    public_key: PublicKey,
    *,
    kind: EntityKind,
    issuer: Certificate,
    issuer_id: AutoId,
    issuer_key: PrivateKey,
    may_issue: int | None,
    lifetime: timedelta | None,
    now: datetime,
) -> Certificate:
    """A certificate that an issuer gives.

    Args:
        may_issue: None for a leaf; else how many further issuing certificates may stand below it.
        lifetime: counted from `now`; None for `ISSUED_DEFAULT`, or until the issuer's own end where that
            comes first.

    Raises:
        IdentityError: the issuer may not issue this, is outside its own validity, or would be outlived; or
            the name, the key or the lifetime is not allowed.
    """
    check_common_name(common_name, issued=True)
    key_type(public_key)
    if common_name == issuer.common_name:
        # X.509 would call it self-issued and leave it out of path lengths (RFC 5280, section 4.2.1.9).
        raise IdentityError(f"an issuer gives nobody its own name {show_name(common_name)!r}")
    if spki(public_key) == issuer.spki:
        raise IdentityError(f"{show_name(common_name)!r} asks for a certificate over its issuer's own key")
    check_may_issue(issuer, may_issue)
    if lifetime is None:
        lifetime = min(ISSUED_DEFAULT, issuer.not_after - aware_utc(now))
    validity = _validity(now, lifetime, ISSUED_CAP, issuer)
    auto_id = AutoId.derive(common_name, issuer_id)
    builder = _builder(_name(common_name), issuer.x509.subject, public_key, auto_id, kind, validity)
    identifier = issuer.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    builder = builder.add_extension(authority, critical=False)
    builder = (
        _as_leaf(builder) if may_issue is None else _as_issuer(builder, path_length=may_issue, links=False)
    )
    return _sign(builder, issuer_key)


def build_request(common_name: str, key: PrivateKey) -> x509.CertificateSigningRequest:
    """A PKCS#10 request (RFC 2986): a name, a key, and the proof that the key is held. No extensions."""
    check_common_name(common_name, issued=True)
    return x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).sign(key, _digest(key))


def check_may_issue(issuer: Certificate, may_issue: int | None) -> None:
    """RFC 5280, section 4.2.1.9: a path length counts the issuing certificates that may stand below.

    Raises:
        IdentityError: the issuer may not issue a leaf (None), or an issuer with so many below it.
    """
    who = show_name(issuer.common_name)
    try:
        constraints = issuer.x509.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.x509.extensions.get_extension_for_class(x509.KeyUsage).value
        issuer.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise IdentityError(f"{who!r} does not hold a certificate of this profile") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise IdentityError(f"{who!r} may not issue: it was itself issued as a leaf")
    most = constraints.path_length
    if may_issue is not None and (may_issue < 0 or (most is not None and may_issue >= most)):
        raise IdentityError(
            f"{who!r} cannot give may_issue={may_issue}: it must be below its own path length ({most})"
        )


def _validity(
    now: datetime, lifetime: timedelta, cap: timedelta, issuer: Certificate | None = None
) -> tuple[datetime, datetime]:
    """Whole seconds, inside the cap and the issuer's own validity. Both ends belong to it."""
    now = aware_utc(now).replace(microsecond=0)
    if issuer is not None and now < issuer.not_before:
        raise IdentityError(f"{show_name(issuer.common_name)!r} is not yet valid", Reason.NOT_YET_VALID)
    if issuer is not None and now > issuer.not_after:
        raise IdentityError(f"{show_name(issuer.common_name)!r} has expired: it cannot issue", Reason.EXPIRED)
    if not timedelta(0) < lifetime <= cap:
        raise IdentityError(f"a lifetime of {lifetime} is not between 0 and {cap.days} days")
    not_after = now + lifetime
    # The cap is over the whole interval, so the longest lifetime is backdated less, or not at all.
    not_before = max(now - BACKDATE, not_after - cap)
    if issuer is not None:
        if not_after > issuer.not_after:
            raise IdentityError(
                f"a certificate cannot outlive its issuer {show_name(issuer.common_name)!r}, which ends "
                f"{issuer.not_after:%F %T} UTC"
            )
        not_before = max(not_before, issuer.not_before)
    return not_before, not_after


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: PublicKey,
    auto_id: AutoId,
    kind: EntityKind,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())  # 159 random bits: positive, at most 20 octets
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(auto_id.uri)]), critical=False
        )
        .add_extension(x509.UnrecognizedExtension(OID_KIND, encode_kind(kind)), critical=False)
    )


def _as_issuer(
    builder: x509.CertificateBuilder, *, path_length: int | None, links: bool
) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    usage = _usage(digital_signature=links, key_cert_sign=True)
    return builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _as_leaf(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_cert_sign=False), critical=True)
        .add_extension(purposes, critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=key_cert_sign,  # an issuer signs its own revocation list: nobody else can, for OpenSSL
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> Certificate:
    return Certificate.parse_untrusted(builder.sign(key, _digest(key)).public_bytes(Encoding.DER))


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Ed25519 and ML-DSA hash on their own."""
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None
