"""A certificate, parsed: its shape and its name are checked, nothing is believed.

The subject is one common name and nothing else: only the name is part of the AutoId, so nothing else may
stand beside it and look as if it were. Whether a chain of these proves anything is decided in
`autolink.trust`.

Private extensions, both non-critical, so that ordinary X.509 tools pass over them:

* `OID_KIND`: the entity kind, a UTF8String
* `OID_NEXT_KEY`: SHA-256 of the next key's SPKI, an OCTET STRING

Their arc needs no registration: it is a UUID's, c60188df-cf80-54a2-802b-3a2e5ac3da6c (version 5, of the name
`autolink/1` among URLs), below 1.2.840.113556.1.8000.2554, split as by Microsoft's oidgen.vbs into 4-4-4-4-4-6-6
hex digits ("Obtaining an Object Identifier from Microsoft", Windows documentation of Active Directory). The arc
of X.667, 2.25 and the UUID as one number, is shorter but does not pass: Go's crypto/x509 reads components of 31
bits (older ones of 28) and refuses the whole certificate for a larger one, critical or not.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Final, Self, cast, final

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from autolink import limits
from autolink.errors import IdentityError, display
from autolink.identity.autoid import URI_PREFIX, AutoId
from autolink.identity.keys import KeyType, PublicKey, key_type, spki
from autolink.identity.names import check_common_name

X509Certificate = x509.Certificate  # inside Certificate, `x509` is the attribute

_ARC: Final = "1.2.840.113556.1.8000.2554.50689.35039.53120.21666.32811.3812954.12835436"
OID_KIND: Final = x509.ObjectIdentifier(f"{_ARC}.1")
OID_NEXT_KEY: Final = x509.ObjectIdentifier(f"{_ARC}.2")

_UTF8_STRING: Final = 0x0C
_PRINTABLE_STRING: Final = 0x13
_OCTET_STRING: Final = 0x04
_COMMON_NAME_OID: Final = bytes.fromhex("0603550403")

# What `cryptography` was seen to raise on hostile bytes; its errors have no common base. Warning: a program, such
# as our tests, may have turned warnings into errors.
PARSER_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    InternalError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,
)


class EntityKind(StrEnum):
    """What holds an Auto ID, in its issuer's word. Natural entities may issue their own, digital ones may not."""

    PERSON = "person"
    ORGANIZATION = "organization"
    AGENT = "agent"
    MODEL = "model"
    SERVICE = "service"
    DEVICE = "device"

    @property
    def natural(self) -> bool:
        return self in (EntityKind.PERSON, EntityKind.ORGANIZATION)


@final
@dataclass(frozen=True)
class Certificate:
    """One certificate whose shape is right. Equal when the DER is.

    Attributes:
        der: the exact bytes.
        x509: the same in `cryptography`.
        spki: DER of the SubjectPublicKeyInfo.
        common_name: the subject.
        auto_id: the SAN's *claim*: true only where a complete name path gives the same (rule: always
            recompute).
        kind: the issuer's word, or the holder's own in a self-issued certificate; None if absent.
        next_key_hash: SHA-256 of the next key's SPKI; None if absent.
        not_before, not_after: aware, UTC, both inclusive (RFC 5280, section 4.1.2.5).
    """

    der: bytes = field(repr=False)
    x509: X509Certificate = field(repr=False, compare=False)
    public_key: PublicKey = field(repr=False, compare=False)
    key_type: KeyType = field(compare=False)
    spki: bytes = field(repr=False, compare=False)
    common_name: str = field(compare=False)
    auto_id: AutoId | None = field(compare=False)
    kind: EntityKind | None = field(compare=False)
    next_key_hash: bytes | None = field(repr=False, compare=False)
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)

    @staticmethod
    def parse_untrusted(der: bytes) -> "Certificate":
        """Parse one DER certificate from anywhere. The last few hundred are kept: one handshake asks several times.

        Raises:
            IdentityError: and nothing else; `reason` is MALFORMED.
        """
        if len(der) > limits.CERTIFICATE:
            raise IdentityError(f"a certificate is larger than {limits.CERTIFICATE} bytes")
        try:
            return _parse_once(der)
        except IdentityError:
            raise
        except PARSER_ERRORS as error:
            raise _malformed(error) from None

    @classmethod
    def _parse(cls, der: bytes) -> Self:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.version is not x509.Version.v3:
            raise IdentityError("a certificate is not X.509 version 3")
        if not 0 < certificate.serial_number < 2**159:
            raise IdentityError("a certificate's serial number must be positive and of at most 20 octets")
        name = common_name(certificate.subject)
        check_common_name(name, issued=certificate.subject != certificate.issuer)
        public_key = certificate.public_key()
        kind_of_key = key_type(public_key)
        own_spki = spki(checked := cast("PublicKey", public_key))
        if len(der) - len(own_spki) - len(certificate.signature) > limits.CERTIFICATE_REST:
            raise IdentityError(
                f"a certificate says more than {limits.CERTIFICATE_REST} bytes besides its key"
            )
        return cls(
            der=der,
            x509=certificate,
            key_type=kind_of_key,
            public_key=checked,
            spki=own_spki,
            common_name=name,
            auto_id=_san_auto_id(certificate.extensions),
            kind=_kind(certificate.extensions),
            next_key_hash=_private_value(certificate.extensions, OID_NEXT_KEY, _OCTET_STRING, 32),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    @cached_property
    def spki_sha256(self) -> bytes:
        """SHA-256 of the SPKI: the key's fingerprint."""
        return hashlib.sha256(self.spki).digest()

    @cached_property
    def self_issued(self) -> bool:
        """Whether subject and issuer are one and its own key signed it."""
        return self.is_issued_by(self)

    @property
    def pem(self) -> bytes:
        return self.x509.public_bytes(Encoding.PEM)

    def is_issued_by(self, issuer: "Certificate") -> bool:
        """Whether the names join and the issuer's key made the signature. Not: whether it was allowed to."""
        try:
            self.x509.verify_directly_issued_by(issuer.x509)
        except (InvalidSignature, *PARSER_ERRORS):
            return False  # another name, another kind of key, or a wrong signature: all mean no
        return True

    def __hash__(self) -> int:
        return hash(self.der)


@lru_cache(maxsize=512)
def _parse_once(der: bytes) -> Certificate:
    return Certificate._parse(der)  # noqa: SLF001  the same class


def common_name(subject: x509.Name) -> str:
    """The one common name that a subject consists of.

    Raises:
        IdentityError: the subject holds something else, or the name is neither UTF8String nor
            PrintableString.
    """
    attributes = list(subject)
    if len(attributes) != 1 or attributes[0].oid != NameOID.COMMON_NAME:
        raise IdentityError("the subject must be one common name and nothing else")
    value = attributes[0].value
    raw = value.encode() if isinstance(value, str) else value
    # The AutoId hashes raw bytes. In UTF8String and PrintableString they are this UTF-8; BMPString,
    # TeletexString and the like decode to the same text from other bytes. The parsed object does not show its
    # tag, its DER does.
    forms = {_subject_der(tag, raw) for tag in (_UTF8_STRING, _PRINTABLE_STRING)}
    if isinstance(value, bytes) or len(raw) > limits.COMMON_NAME or subject.public_bytes() not in forms:
        raise IdentityError("the common name must be a UTF8String or PrintableString of at most 64 bytes")
    return value


def encode_kind(kind: EntityKind) -> bytes:
    return _tlv(_UTF8_STRING, kind.value.encode())


def encode_next_key_hash(next_key_hash: bytes) -> bytes:
    return _tlv(_OCTET_STRING, next_key_hash)


def load_chain(pem: bytes) -> tuple[Certificate, ...]:
    """Read PEM certificates, leaf first.

    Raises:
        IdentityError: none, more than `limits.CHAIN`, too large, or one of them malformed.
    """
    if len(pem) > 2 * limits.CHAIN_BYTES:
        raise IdentityError("a certificate file is too large")
    if pem.count(b"-----BEGIN CERTIFICATE-----") > limits.CHAIN:
        raise IdentityError(f"a chain holds more than {limits.CHAIN} certificates")
    try:
        parsed = x509.load_pem_x509_certificates(pem)
    except PARSER_ERRORS as error:
        raise _malformed(error) from None
    return tuple(
        Certificate.parse_untrusted(certificate.public_bytes(Encoding.DER)) for certificate in parsed
    )


def dump_chain(chain: Iterable[Certificate]) -> bytes:
    """PEM of a chain, in the order given."""
    return b"".join(certificate.pem for certificate in chain)


def _san_auto_id(extensions: x509.Extensions) -> AutoId | None:
    """The id that the one URI of the subjectAltName claims; None if there is no URI, or one of another kind."""
    try:
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        raise IdentityError("a certificate names more than one URI")
    return AutoId.parse(uris[0]) if uris and uris[0].startswith(URI_PREFIX) else None


def _kind(extensions: x509.Extensions) -> EntityKind | None:
    value = _private_value(extensions, OID_KIND, _UTF8_STRING, None)
    return None if value is None else EntityKind(value.decode())


def _private_value(
    extensions: x509.Extensions, oid: x509.ObjectIdentifier, tag: int, size: int | None
) -> bytes | None:
    """Content of one of our own extensions: a single short DER string."""
    try:
        der = cast("x509.UnrecognizedExtension", extensions.get_extension_for_oid(oid).value).value
    except x509.ExtensionNotFound:
        return None
    content = der[2:]
    if len(content) > 127 or der != _tlv(tag, content) or (size is not None and len(content) != size):
        raise IdentityError(f"extension {oid.dotted_string} is not what it must be")
    return content


def _tlv(tag: int, content: bytes) -> bytes:
    """DER of one value below 128 bytes."""
    return bytes((tag, len(content))) + content


def _subject_der(tag: int, raw: bytes) -> bytes:
    if len(raw) > limits.COMMON_NAME:
        return b""
    return _tlv(0x30, _tlv(0x31, _tlv(0x30, _COMMON_NAME_OID + _tlv(tag, raw))))


def _malformed(error: Exception) -> IdentityError:
    return IdentityError(f"a certificate is malformed: {display(str(error), 120)}")
