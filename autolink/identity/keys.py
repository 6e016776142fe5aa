"""Keys and the one table from a key to its signature scheme.

The scheme follows from the key, never from a message. `sign` and `verify` here serve links and offline checks
alike, so what a link accepted no arbiter rejects.

Ed25519 is verified strictly, because libraries differ on its edge cases (libsodium refuses what OpenSSL
takes):

* S must be below the group order, or every signature has a second form.
* A key of small order (one of 8 points) makes signatures that fit *any* message, so such a signature proves
  nothing about what its author said; R of small order is refused as libsodium does.
* y must be below the field's prime, or one point has two encodings, hence one key two fingerprints.

A signature under a certificate is another matter than one under a message only with RSA, where X.509 has PKCS #1
v1.5 in place of PSS.
"""

import hashlib
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, cast

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ObjectIdentifier, SignatureAlgorithmOID

from autolink.errors import BadSignature, IdentityError

type_error: Final = "use P-256, Ed25519, ML-DSA-65, or RSA of 2048 to 4096 bits"

PrivateKey = (
    ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey | rsa.RSAPrivateKey
)
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey | rsa.RSAPublicKey


class KeyType(StrEnum):
    """The kinds of key a certificate may carry. RSA is accepted from others and from imports, never
    generated."""

    P256 = "p256"
    ED25519 = "ed25519"
    ML_DSA_65 = "ml-dsa-65"
    RSA = "rsa"


SHA256: Final = hashes.SHA256()
_CURVE: Final = ec.SECP256R1.name
_ECDSA: Final = ec.ECDSA(Prehashed(SHA256))  # hashed here: there it is asked of each object what it is
_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256), salt_length=32)
_RSA_BITS: Final = range(2048, 4097)
_RSA_EXPONENTS: Final = range(65537, 2**32)  # a huge exponent makes verifying as slow as signing

_PKCS1: Final = padding.PKCS1v15()

CERTIFICATE_SIGNATURES: Final[dict[KeyType, dict[ObjectIdentifier, hashes.HashAlgorithm | None]]] = {
    KeyType.P256: {SignatureAlgorithmOID.ECDSA_WITH_SHA256: SHA256},
    KeyType.ED25519: {SignatureAlgorithmOID.ED25519: None},
    KeyType.ML_DSA_65: {SignatureAlgorithmOID.ML_DSA_65: None},
    KeyType.RSA: {
        SignatureAlgorithmOID.RSA_WITH_SHA256: SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
        SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
    },
}
"""How a key of each kind may sign certificates: by algorithm, its hash where X.509 leaves a choice."""

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_Y_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _Y_ORDER_8, _P - _Y_ORDER_8})
"""y of the 8 points of small order: one point each at 1 and -1, two (by the sign of x) at the others."""


def generate(kind: KeyType) -> PrivateKey:
    """A fresh key.

    Raises:
        IdentityError: RSA, which is accepted from others only.
    """
    match kind:
        case KeyType.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyType.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate()
        case KeyType.RSA:
            raise IdentityError("RSA keys are accepted from others, not made: use p256, ed25519 or ml-dsa-65")


def key_type(public_key: object) -> KeyType:
    """The kind of a public key.

    Raises:
        IdentityError: it is off the allow-list: another curve or algorithm, RSA below 2048 or above 4096 bits
            or with an unusual exponent, an Ed25519 key of small order or in a second encoding.
    """
    match public_key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return KeyType.P256
        case ed25519.Ed25519PublicKey() if _is_strict_point(public_key.public_bytes_raw()):
            return KeyType.ED25519
        case mldsa.MLDSA65PublicKey():
            return KeyType.ML_DSA_65
        case rsa.RSAPublicKey() if public_key.key_size in _RSA_BITS:
            if public_key.public_numbers().e in _RSA_EXPONENTS:
                return KeyType.RSA
    raise IdentityError(f"a key of this kind or size is not accepted: {type_error}")


def spki(public_key: PublicKey) -> bytes:
    """DER of the key's SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7)."""
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


_SPKI_FORMS: Final = {
    KeyType.P256: (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 91),
    KeyType.ED25519: (bytes.fromhex("302a300506032b6570032100"), 44),
}
"""How a SPKI begins, and its bytes, of the kinds of key whose one encoding is a point behind a fixed head."""


def is_one_encoding(der: bytes, kind: KeyType) -> bool:
    """Whether a SPKI that was parsed as a key of this kind is seen to be in its one encoding; false where that takes
    encoding the key again."""
    head, size = _SPKI_FORMS.get(kind, (b"", -1))
    return len(der) == size and der.startswith(head)


def load_spki(der: bytes) -> PublicKey:
    """The public key that a SubjectPublicKeyInfo holds.

    Raises:
        IdentityError: it is malformed, not in the key's one encoding, or see `key_type`.
    """
    try:
        public_key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        raise IdentityError("the public key is malformed, or of a kind that is not accepted") from None
    key_type(public_key)
    accepted = cast("PublicKey", public_key)
    if spki(accepted) != der:
        raise IdentityError("the public key is not in its one encoding")
    return accepted


def load_private_key(pem: bytes, passphrase: str | None = None) -> PrivateKey:
    """Read a PKCS#8 private key in PEM.

    Raises:
        IdentityError: it is malformed or of a kind that is not accepted, or the passphrase is missing, wrong
            or too much.
    """
    try:
        key = serialization.load_pem_private_key(pem, None if passphrase is None else passphrase.encode())
    except TypeError:
        needed = (
            "is encrypted and needs its passphrase"
            if passphrase is None
            else "is not encrypted: give no passphrase"
        )
        raise IdentityError(f"the private key {needed}") from None
    except (ValueError, UnsupportedAlgorithm, InternalError):
        # One text for both: which of them it was, the parser itself cannot tell for certain.
        raise IdentityError("the private key is malformed, or its passphrase is wrong") from None
    key_type(key.public_key())
    return cast("PrivateKey", key)


def hash_of_key(public_key: PublicKey) -> bytes:
    """SHA-256 of the key's SPKI: its fingerprint, and what a certificate says about its next key."""
    return hashlib.sha256(spki(public_key)).digest()


def sign(private_key: PrivateKey, data: bytes) -> bytes:
    """Sign with the one scheme of this kind of key (see `verify`)."""
    return _signing(type(private_key))(private_key, data)


def _sign_ecdsa(private_key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return private_key.sign(hashlib.sha256(data).digest(), _ECDSA)


_SIGNING: Final[tuple[tuple[type, Callable[[Any, bytes], bytes]], ...]] = (
    (ec.EllipticCurvePrivateKey, _sign_ecdsa),
    (rsa.RSAPrivateKey, lambda private_key, data: private_key.sign(data, _PSS, SHA256)),
    (object, lambda private_key, data: private_key.sign(data)),
)


@lru_cache(maxsize=16)  # by class: an instance check against an abstract class takes longer than it should
def _signing(kind: type) -> Callable[[Any, bytes], bytes]:
    """How a key of this class signs."""
    return next(sign for known, sign in _SIGNING if issubclass(kind, known))


def verify(public_key: PublicKey, signature: bytes, data: bytes) -> None:
    """Check a signature under the one scheme of this kind of key.

    ECDSA with SHA-256 in DER (P-256), strict Ed25519 (RFC 8032), ML-DSA-65 with an empty context (FIPS 204),
    RSASSA-PSS with SHA-256, MGF1 and a salt of 32 bytes (RFC 8017).

    Raises:
        BadSignature: it does not verify.
    """
    check = _verifying(type(public_key))
    if check is None:
        raise IdentityError(f"no signature scheme for this kind of key: {type_error}")
    try:
        check(public_key, signature, data)
    except InvalidSignature:
        raise BadSignature("the signature does not verify") from None


def _verify_ecdsa(public_key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    if public_key.curve.name != _CURVE:
        raise IdentityError(f"no signature scheme for this kind of key: {type_error}")
    public_key.verify(signature, hashlib.sha256(data).digest(), _ECDSA)


def _verify_ed25519(public_key: ed25519.Ed25519PublicKey, signature: bytes, data: bytes) -> None:
    _check_strict(public_key, signature)
    public_key.verify(signature, data)


_VERIFYING: Final[tuple[tuple[type, Callable[[Any, bytes, bytes], None]], ...]] = (
    (ec.EllipticCurvePublicKey, _verify_ecdsa),
    (ed25519.Ed25519PublicKey, _verify_ed25519),
    (mldsa.MLDSA65PublicKey, lambda public_key, signature, data: public_key.verify(signature, data)),
    (rsa.RSAPublicKey, lambda public_key, signature, data: public_key.verify(signature, data, _PSS, SHA256)),
)


@lru_cache(maxsize=16)
def _verifying(kind: type) -> Callable[[Any, bytes, bytes], None] | None:
    """How a signature under a key of this class is checked."""
    return next((check for known, check in _VERIFYING if issubclass(kind, known)), None)


def verify_certificate(
    public_key: PublicKey, kind: KeyType, algorithm: ObjectIdentifier, signature: bytes, signed: bytes
) -> None:
    """Check the signature under a certificate: as under a message, but RSASSA-PKCS1-v1_5 with RSA.

    Args:
        public_key, kind: the issuer's.
        algorithm: what the certificate says that it is signed with.
        signed: DER of the TBSCertificate, the exact bytes.

    Raises:
        BadSignature: it does not verify, or the algorithm is not one of this kind of key's.
    """
    algorithms = CERTIFICATE_SIGNATURES[kind]
    if algorithm not in algorithms:
        raise BadSignature("the signature's algorithm does not go with its issuer's key")
    if kind is not KeyType.RSA:
        return verify(public_key, signature, signed)
    key, hashed = cast("rsa.RSAPublicKey", public_key), cast("hashes.HashAlgorithm", algorithms[algorithm])
    try:
        key.verify(signature, signed, _PKCS1, hashed)
    except InvalidSignature:
        raise BadSignature("the signature does not verify") from None


def _check_strict(public_key: ed25519.Ed25519PublicKey, signature: bytes) -> None:
    strict = (
        len(signature) == 64
        and int.from_bytes(signature[32:], "little") < _ORDER
        and _is_strict_point(signature[:32])
        and _is_strict_point(public_key.public_bytes_raw())
    )
    if not strict:
        raise BadSignature("the Ed25519 signature is not in its one strict form")


def _is_strict_point(encoded: bytes) -> bool:
    y = int.from_bytes(encoded, "little") & (2**255 - 1)  # the top bit is the sign of x
    return y < _P and y not in _SMALL_ORDER
