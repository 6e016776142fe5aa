"""One table from key to scheme, and a verification that leaves no second form of anything."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from autolink.errors import BadSignature, IdentityError
from autolink.identity import keys
from autolink.identity.keys import KeyType

P, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
WYCHEPROOF = Path(__file__).parents[1] / "vectors" / "wycheproof"
RSA_KEY = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_a_fresh_key_signs_what_its_public_key_verifies(kind: KeyType) -> None:
    key = keys.generate(kind)
    assert keys.key_type(key.public_key()) is kind
    signature = keys.sign(key, b"data")
    keys.verify(key.public_key(), signature, b"data")
    for wrong in (signature[:-1] + bytes([signature[-1] ^ 1]), signature + b"\0", signature[:-1], b""):
        with pytest.raises(BadSignature):
            keys.verify(key.public_key(), wrong, b"data")
    with pytest.raises(BadSignature):
        keys.verify(key.public_key(), signature, b"Data")
    with pytest.raises(BadSignature):
        keys.verify(keys.generate(kind).public_key(), signature, b"data")


def test_rsa_is_accepted_from_others_but_never_made() -> None:
    assert keys.key_type(RSA_KEY.public_key()) is KeyType.RSA
    keys.verify(RSA_KEY.public_key(), keys.sign(RSA_KEY, b"data"), b"data")
    with pytest.raises(IdentityError, match="not made"):
        keys.generate(KeyType.RSA)


@pytest.mark.parametrize("scheme", ["ed25519", "p256", "ml-dsa-65", "rsa"])
def test_rule_34_the_one_verify_function_agrees_with_wycheproof(scheme: str) -> None:
    """Every vector's verdict, valid and invalid, in the form in which links and offline checks ask."""
    groups = json.loads((WYCHEPROOF / f"{scheme}.json").read_text())
    wrong = []
    for group in groups:
        public_key = load_der_public_key(bytes.fromhex(group["spki"]))
        keys.key_type(public_key)
        for test in group["tests"]:
            try:
                keys.verify(public_key, bytes.fromhex(test["signature"]), bytes.fromhex(test["message"]))  # type: ignore[arg-type]
                valid = True
            except BadSignature:
                valid = False
            if valid != test["valid"]:
                wrong.append((test["id"], test["about"]))
    assert wrong == []


@pytest.mark.parametrize(
    "public_key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        mldsa.MLDSA44PrivateKey.generate().public_key(),
        mldsa.MLDSA87PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
        dsa.generate_private_key(2048).public_key(),
        rsa.RSAPublicNumbers(65537, (1 << 2046) + 1).public_key(),
        rsa.RSAPublicNumbers(65537, (1 << 4096) + 1).public_key(),
        rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key(),
        rsa.RSAPublicNumbers((1 << 64) + 1, (1 << 2047) + 1).public_key(),
        None,
    ],
    ids=[
        "p384",
        "p521",
        "secp256k1",
        "brainpool",
        "ed448",
        "ml-dsa-44",
        "ml-dsa-87",
        "x25519",
        "dsa",
        "rsa-2047",
        "rsa-4097",
        "rsa-e3",
        "rsa-slow",
        "none",
    ],
)
def test_rule_34_a_key_off_the_list_is_refused(public_key: object) -> None:
    with pytest.raises(IdentityError, match="not accepted"):
        keys.key_type(public_key)


def test_rule_34_verifying_under_a_key_off_the_list_is_refused_too() -> None:
    with pytest.raises(IdentityError, match="no signature scheme"):
        keys.verify(ed448.Ed448PrivateKey.generate().public_key(), b"", b"")  # type: ignore[arg-type]
    p384 = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(IdentityError, match="no signature scheme"):
        keys.verify(p384.public_key(), p384.sign(b"", ec.ECDSA(keys.SHA256)), b"")


def test_rule_34_rsa_signatures_other_than_pss_with_a_salt_of_32_are_refused() -> None:
    others = [padding.PKCS1v15(), padding.PSS(padding.MGF1(keys.SHA256), 20)]
    for other in others:
        with pytest.raises(BadSignature):
            keys.verify(RSA_KEY.public_key(), RSA_KEY.sign(b"data", other, keys.SHA256), b"data")


def small_order_encodings() -> list[bytes]:
    """All encodings, canonical and not, of the eight points of small order, computed from the curve's equation."""
    points: set[tuple[int, int]] = set()
    for number in range(2, 400):
        point = _times(ORDER, _point_with_y(number))
        while point not in points and point is not None:
            points.add(point)
            point = _add(point, point)
        if len(points) >= 8:
            break
    for first in list(points):
        points |= {_add(first, second) for second in list(points)}
    assert len(points) == 8
    found = []
    for x, y in points:
        for encoded_y in (y, y + P):
            signs = (0, 1) if x == 0 else (x & 1,)
            found += [
                (encoded_y | sign << 255).to_bytes(32, "little") for sign in signs if encoded_y < 2**255
            ]
    return sorted(found)


def _point_with_y(y: int) -> tuple[int, int] | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def _times(scalar: int, point: tuple[int, int] | None) -> tuple[int, int]:
    total = (0, 1)
    while point is not None and scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


SMALL_ORDER = small_order_encodings()


def test_the_curve_has_eight_points_of_small_order_in_fourteen_encodings() -> None:
    """The list is recomputed, so the table in keys.py cannot lack a row."""
    assert len(SMALL_ORDER) == 14


@pytest.mark.parametrize("encoded", SMALL_ORDER, ids=lambda encoded: encoded.hex())
def test_rule_34_a_small_order_key_is_no_key(encoded: bytes) -> None:
    """Under the point of order one, R = B*S with any S verifies for every message; OpenSSL accepts that."""
    public_key = ed25519.Ed25519PublicKey.from_public_bytes(encoded)
    with pytest.raises(IdentityError, match="not accepted"):
        keys.key_type(public_key)
    with pytest.raises(BadSignature, match="strict"):
        keys.verify(public_key, bytes(64), b"any message")


def test_rule_34_a_signature_has_no_second_form() -> None:
    """S plus the group order, and an R of small order, are refused before OpenSSL is asked."""
    key = keys.generate(KeyType.ED25519)
    signature = keys.sign(key, b"data")
    s = int.from_bytes(signature[32:], "little")
    second = signature[:32] + (s + ORDER).to_bytes(32, "little")
    small_r = SMALL_ORDER[0] + signature[32:]
    for wrong in (second, small_r, signature[:63], signature + b"\0"):
        with pytest.raises(BadSignature, match="strict"):
            keys.verify(key.public_key(), wrong, b"data")


def test_a_point_that_is_encoded_a_second_time_is_no_key() -> None:
    """y and y + p are one point; two encodings would be two fingerprints of one key."""
    with pytest.raises(IdentityError, match="not accepted"):
        keys.key_type(ed25519.Ed25519PublicKey.from_public_bytes((P + 3).to_bytes(32, "little")))


def test_the_fingerprint_of_a_key_is_sha256_of_its_spki() -> None:
    public_key = keys.generate(KeyType.P256).public_key()
    assert keys.hash_of_key(public_key) == hashlib.sha256(keys.spki(public_key)).digest()
