"""A certificate, parsed: its shape and its name are checked, nothing is believed.

The subject is one common name and nothing else: only the name is part of the AutoId, so nothing else may
stand beside it and look as if it were. Whether a chain of these proves anything is decided in
`autolink.trust`.

Private extensions, both non-critical, so that ordinary X.509 tools pass over them:

* `OID_KIND`: the entity kind, a UTF8String
* `OID_NEXT_KEY`: SHA-256 of the next key's SPKI, an OCTET STRING
* `OID_RECOVERED_IN`: of a bound name over a key that it does not lead to, SHA-256 of the SPKI of the registry's log that
  must say so, an OCTET STRING

Their arc needs no registration: it is a UUID's, c60188df-cf80-54a2-802b-3a2e5ac3da6c (version 5, of the name
`autolink/1` among URLs), below 1.2.840.113556.1.8000.2554, split as by Microsoft's oidgen.vbs into 4-4-4-4-4-6-6
hex digits ("Obtaining an Object Identifier from Microsoft", Windows documentation of Active Directory). The arc
of X.667, 2.25 and the UUID as one number, is shorter but does not pass: Go's crypto/x509 reads components of 31
bits (older ones of 28) and refuses the whole certificate for a larger one, critical or not.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Final, Self, cast, final

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from autolink import limits
from autolink.errors import BadSignature, IdentityError, display
from autolink.identity import keys
from autolink.identity.autoid import URI_PREFIX, AutoId
from autolink.identity.der import Parts, cut
from autolink.identity.keys import KeyType, PublicKey, key_type
from autolink.identity.names import check_common_name

X509Certificate = x509.Certificate  # inside Certificate, `x509` is the attribute
Extensions = Mapping[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]]

_ARC: Final = "1.2.840.113556.1.8000.2554.50689.35039.53120.21666.32811.3812954.12835436"
OID_KIND: Final = x509.ObjectIdentifier(f"{_ARC}.1")
OID_NEXT_KEY: Final = x509.ObjectIdentifier(f"{_ARC}.2")
OID_RECOVERED_IN: Final = x509.ObjectIdentifier(f"{_ARC}.3")

_UTF8_STRING: Final = 0x0C
_PRINTABLE_STRING: Final = 0x13
_OCTET_STRING: Final = 0x04
_COMMON_NAME_OID: Final = bytes.fromhex("0603550403")
_NAME_HEAD: Final = 13
_NAME_TAG: Final = 11
_TEXT_TAGS: Final = (bytes((_UTF8_STRING,)), bytes((_PRINTABLE_STRING,)))

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
        parts: where what must not be encoded again lies in `der`.
        extensions: its extensions by their identifier.
        common_name: the subject.
        issuer_name: the common name that the issuer's name consists of; None if it is anything else.
        auto_id: the SAN's *claim*: true only where a complete name path gives the same (rule: always
            recompute).
        kind: the issuer's word, or the holder's own in a self-issued certificate; None if absent.
        next_key_hash: SHA-256 of the next key's SPKI; None if absent.
        recovered_in: SHA-256 of the SPKI of a registry's log, which alone can say that this key has succeeded those that
            the name leads to. The holder's *claim*; None if absent.
        not_before, not_after: aware, UTC, both inclusive (RFC 5280, section 4.1.2.5).
    """

    der: bytes = field(repr=False)
    x509: X509Certificate = field(repr=False, compare=False)
    parts: Parts = field(repr=False, compare=False)
    extensions: Extensions = field(repr=False, compare=False)
    public_key: PublicKey = field(repr=False, compare=False)
    key_type: KeyType = field(compare=False)
    common_name: str = field(compare=False)
    issuer_name: str | None = field(repr=False, compare=False)
    auto_id: AutoId | None = field(compare=False)
    kind: EntityKind | None = field(compare=False)
    next_key_hash: bytes | None = field(repr=False, compare=False)
    recovered_in: bytes | None = field(repr=False, compare=False)
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
        parts = cut(der)
        name, issuer_name = _read_name(der[parts.subject]), _read_name(der[parts.issuer])
        if name is None:
            name = common_name(certificate.subject)
        if issuer_name is None:  # not one of ours; whether it is a Name at all only its parser knows
            _ = certificate.issuer
        if name == issuer_name and der[parts.subject] != der[parts.issuer]:
            raise IdentityError("a certificate names itself in two encodings")
        check_common_name(name, issued=name != issuer_name)
        public_key = certificate.public_key()
        kind_of_key = key_type(public_key)
        size_of_key = parts.spki.stop - parts.spki.start
        if len(der) - size_of_key - len(certificate.signature) > limits.CERTIFICATE_REST:
            raise IdentityError(
                f"a certificate says more than {limits.CERTIFICATE_REST} bytes besides its key"
            )
        extensions = index_extensions(certificate)
        return cls(
            der=der,
            x509=certificate,
            parts=parts,
            extensions=extensions,
            key_type=kind_of_key,
            public_key=cast("PublicKey", public_key),
            common_name=name,
            issuer_name=issuer_name,
            auto_id=_san_auto_id(extensions),
            kind=_kind(extensions),
            next_key_hash=_private_value(extensions, OID_NEXT_KEY, _OCTET_STRING, 32),
            recovered_in=_private_value(extensions, OID_RECOVERED_IN, _OCTET_STRING, 32),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    @cached_property
    def spki(self) -> bytes:
        """DER of the SubjectPublicKeyInfo, in the key's one encoding."""
        written = self.der[self.parts.spki]
        return written if keys.is_one_encoding(written, self.key_type) else keys.spki(self.public_key)

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    @cached_property
    def spki_sha256(self) -> bytes:
        """SHA-256 of the SPKI: the key's fingerprint."""
        return hashlib.sha256(self.spki).digest()

    @property
    def names_itself(self) -> bool:
        """Whether subject and issuer are one."""
        return self.issuer_name == self.common_name

    @cached_property
    def self_issued(self) -> bool:
        """Whether subject and issuer are one and its own key signed it."""
        return self.is_issued_by(self)

    @property
    def pem(self) -> bytes:
        return self.x509.public_bytes(Encoding.PEM)

    def is_issued_by(self, issuer: "Certificate") -> bool:
        """Whether the names join, byte for byte, and the issuer's key made the signature. Not: whether it was allowed to."""
        if self.der[self.parts.issuer] != issuer.der[issuer.parts.subject]:
            return False
        try:
            self.check_signed_by(issuer)
        except BadSignature:
            return False
        return True

    def check_signed_by(self, issuer: "Certificate") -> None:
        """Verify the signature, over the exact bytes, with the issuer's key. Names are not looked at.

        Raises:
            BadSignature: another key made it, or in another way than goes with this kind of key.
        """
        keys.verify_certificate(
            issuer.public_key,
            issuer.key_type,
            self.x509.signature_algorithm_oid,
            self.x509.signature,
            self.der[self.parts.signed],
        )

    def __hash__(self) -> int:
        return hash(self.der)


def begin_of(der: bytes) -> datetime:
    """`not_before` of a certificate that was parsed before, so that it is right; the rest is not looked at again."""
    return x509.load_der_x509_certificate(der).not_valid_before_utc


@lru_cache(maxsize=512)
def _parse_once(der: bytes) -> Certificate:
    return Certificate._parse(der)  # noqa: SLF001  the same class


def index_extensions(certificate: x509.Certificate) -> Extensions:
    """A certificate's extensions by their identifier.

    Raises:
        ValueError, x509.DuplicateExtension: one is malformed, or stands twice.
    """
    return {extension.oid: extension for extension in certificate.extensions}


def common_name(subject: x509.Name) -> str:
    """The one common name that a subject consists of.

    Raises:
        IdentityError: the subject holds something else, or the name is neither UTF8String nor
            PrintableString.
    """
    attributes = list(subject)
    if len(attributes) != 1 or attributes[0].oid != NameOID.COMMON_NAME:
        raise IdentityError("the subject must be one common name and nothing else")
    # The AutoId hashes raw bytes. In UTF8String and PrintableString they are the text's UTF-8; BMPString,
    # TeletexString and the like decode to the same text from other bytes. The parsed object does not show its
    # tag, its DER does.
    name = _read_name(subject.public_bytes())
    if name is None:
        raise IdentityError("the common name must be a UTF8String or PrintableString of at most 64 bytes")
    return name


def _read_name(name: bytes) -> str | None:
    """The one common name, in a form that `common_name` takes, which a DER Name consists of; None for any other."""
    value = name[_NAME_HEAD:]
    size = len(value)
    if size > limits.COMMON_NAME or name[_NAME_TAG : _NAME_TAG + 1] not in _TEXT_TAGS:
        return None
    if name[:_NAME_HEAD] != _name_head(name[_NAME_TAG], size):
        return None
    return value.decode()


def encode_kind(kind: EntityKind) -> bytes:
    return _tlv(_UTF8_STRING, kind.value.encode())


def encode_key_hash(key_hash: bytes) -> bytes:
    return _tlv(_OCTET_STRING, key_hash)


def load_chain(pem: bytes) -> tuple[Certificate, ...]:
    """Read PEM certificates, leaf first; behind a root that was rotated its earlier ones (rotation.py).

    Raises:
        IdentityError: none, more than `limits.CHAIN` and `limits.ROTATIONS`, too large, or one of them malformed.
    """
    if len(pem) > 2 * limits.CHAIN_BYTES:
        raise IdentityError("a certificate file is too large")
    if pem.count(b"-----BEGIN CERTIFICATE-----") > limits.CHAIN + limits.ROTATIONS:
        raise IdentityError(f"a file holds more than {limits.CHAIN + limits.ROTATIONS} certificates")
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


def _san_auto_id(extensions: Extensions) -> AutoId | None:
    """The id that the one URI of the subjectAltName claims; None if there is no URI, or one of another kind."""
    extension = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if extension is None:
        return None
    names = cast("x509.SubjectAlternativeName", extension.value)
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(uris) > 1:
        raise IdentityError("a certificate names more than one URI")
    return AutoId.parse(uris[0]) if uris and uris[0].startswith(URI_PREFIX) else None


def _kind(extensions: Extensions) -> EntityKind | None:
    value = _private_value(extensions, OID_KIND, _UTF8_STRING, None)
    return None if value is None else EntityKind(value.decode())


def _private_value(
    extensions: Extensions, oid: x509.ObjectIdentifier, tag: int, size: int | None
) -> bytes | None:
    """Content of one of our own extensions: a single short DER string."""
    extension = extensions.get(oid)
    if extension is None:
        return None
    der = cast("x509.UnrecognizedExtension", extension.value).value
    content = der[2:]
    if len(content) > 127 or der != _tlv(tag, content) or (size is not None and len(content) != size):
        raise IdentityError(f"extension {oid.dotted_string} is not what it must be")
    return content


def _tlv(tag: int, content: bytes) -> bytes:
    """DER of one value below 128 bytes."""
    return bytes((tag, len(content))) + content


def _name_head(tag: int, size: int) -> bytes:
    """What stands before the text, of at most `limits.COMMON_NAME` bytes, in a Name of one common name."""
    return bytes((0x30, size + 11, 0x31, size + 9, 0x30, size + 7)) + _COMMON_NAME_OID + bytes((tag, size))


def _malformed(error: Exception) -> IdentityError:
    return IdentityError(f"a certificate is malformed: {display(str(error), 120)}")
