"""What upstream's registry took: its pallet's calls in SCALE, read and checked, and never believed.

::

    registration   00 | 00, or 01 and the issuer's id | vec(TBS) | vec(algorithm) | vec(signature)
    renewal        00 | 00, or 01 and the issuer's id | vec(TBS) | vec(algorithm) | vec(signature)
    authorisation  vec(algorithm) | vec(signature)         over an action: id | nonce, 32 bytes little-endian | 00 or 01

(autonomys/subspace, ``domains/primitives/auto-id``; vec is a compact length and bytes.) An action names neither the registry
that it is for nor a time at which it ends, and a certificate alone renewed or registered whatever it said: so none of these
becomes an entry of ours. They tell who somebody was there: the id, the name and the key, which `identity.upstream`
takes over.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from autolink import limits
from autolink.errors import BadSignature, RemoteProtocolError
from autolink.identity import AutoId
from autolink.identity.certificate import PARSER_ERRORS

_ID: Final = 32
_ALGORITHM: Final = 64
_SIGNATURE: Final = 1_024


class Action(IntEnum):
    """What an authorisation allows."""

    REVOKE = 0
    DEACTIVATE = 1


@final
@dataclass(frozen=True, slots=True)
class UpstreamCertificate:
    """A certificate as upstream was given it, in three parts.

    Attributes:
        issuer: the issuer's id; None for a self-issued one.
        tbs: DER of what is signed.
        algorithm, signature: of the signature over it.
    """

    issuer: AutoId | None
    tbs: bytes
    algorithm: bytes
    signature: bytes

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Read a registration or a renewal: they differ in their use, not in their form.

        Raises:
            RemoteProtocolError: it is neither.
        """
        reader = _Reader(data)
        if reader.take(1) != b"\x00":
            raise RemoteProtocolError("upstream: not an X.509 certificate")
        match reader.take(1):
            case b"\x00":
                issuer = None
            case b"\x01":
                issuer = AutoId(reader.take(_ID))
            case _:
                raise RemoteProtocolError("upstream: neither self-issued nor issued")
        tbs, algorithm = reader.vector(limits.CERTIFICATE), reader.vector(_ALGORITHM)
        signature = reader.vector(_SIGNATURE)
        reader.end()
        return cls(issuer, tbs, algorithm, signature)

    @property
    def certificate(self) -> x509.Certificate:
        """The three parts as one certificate, parsed.

        Raises:
            RemoteProtocolError: they are none.
        """
        bits = _tlv(0x03, b"\x00" + self.signature)
        try:
            return x509.load_der_x509_certificate(_tlv(0x30, self.tbs + self.algorithm + bits))
        except PARSER_ERRORS as error:
            raise RemoteProtocolError(f"upstream: a malformed certificate ({type(error).__name__})") from None

    @property
    def auto_id(self) -> AutoId:
        """The id that upstream gave it: of the first common name's raw bytes.

        Raises:
            RemoteProtocolError: it has no common name.
        """
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names:
            raise RemoteProtocolError("upstream: a subject without a common name")
        value = names[0].value
        return AutoId.derive(value.encode() if isinstance(value, str) else value, self.issuer)

    def check_signed_by(self, key: object) -> None:
        """Check the signature over the certificate, as upstream did.

        Raises:
            BadSignature: this key has not signed it.
        """
        _check(key, self.signature, self.tbs)


@final
@dataclass(frozen=True, slots=True)
class Authorisation:
    """A signature that allowed an action."""

    algorithm: bytes
    signature: bytes

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Read one.

        Raises:
            RemoteProtocolError: it is none.
        """
        reader = _Reader(data)
        algorithm, signature = reader.vector(_ALGORITHM), reader.vector(_SIGNATURE)
        reader.end()
        return cls(algorithm, signature)

    def check(self, key: object, auto_id: AutoId, nonce: int, action: Action) -> None:
        """Check that a key allowed this action on this id, as its `nonce`-th.

        Raises:
            BadSignature: it has not.
        """
        _check(key, self.signature, preimage(auto_id, nonce, action))


def preimage(auto_id: AutoId, nonce: int, action: Action) -> bytes:
    """The bytes that allow an action when they are signed."""
    return auto_id.value + nonce.to_bytes(32, "little") + bytes((action,))


class _Reader:
    """SCALE, as much of it as these need."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise RemoteProtocolError("upstream: cut short")
        self._at += size
        return taken

    def vector(self, most: int) -> bytes:
        size = self._compact()
        if size > most:
            raise RemoteProtocolError(f"upstream: a field of {size} bytes, at most {most} are possible")
        return self.take(size)

    def end(self) -> None:
        if self._at != len(self._data):
            raise RemoteProtocolError("upstream: bytes after the end")

    def _compact(self) -> int:
        """A compact number, in its shortest form."""
        mode = self.take(1)[0]
        self._at -= 1
        width = {0: 1, 1: 2, 2: 4}.get(mode & 3)
        if width is None:
            raise RemoteProtocolError("upstream: a length of more than four bytes")
        number = int.from_bytes(self.take(width), "little") >> 2
        if width > 1 and number < 1 << (6 if width == 2 else 14):
            raise RemoteProtocolError("upstream: a length that is longer than it need be")
        return number


def _check(key: object, signature: bytes, data: bytes) -> None:
    """Upstream's two algorithms: RSA PKCS#1 v1.5 with SHA-256, and Ed25519. The key decides, not what the call says."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            raise BadSignature("upstream: a kind of key that it did not have")
    except InvalidSignature:
        raise BadSignature("upstream: the signature does not verify") from None


def _tlv(tag: int, content: bytes) -> bytes:
    """DER of one value of at most 65,535 bytes."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    return bytes((tag, 0x81, size) if size < 0x100 else (tag, 0x82, size >> 8, size & 0xFF)) + content
