"""A leaf is examined without OpenSSL's store: whatever that would refuse in a leaf, this refuses.

Each byte of a good certificate is altered, the result signed again by its issuer, and given to both. So what is
compared is not whether somebody else's signature fits, but what a dishonest or broken issuer could have made.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from autolink.errors import IdentityError, Refused
from autolink.identity import Certificate
from autolink.identity.certificate import common_name
from autolink.identity.der import cut
from autolink.trust import present
from autolink.trust.chain import verify_path

ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256


def header(tag: int, size: int) -> bytes:
    if size < 0x80:
        return bytes((tag, size))
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets


def signed(body: bytes, key: Any, *, algorithm: bytes = ALGORITHM, unused_bits: int = 0) -> bytes:
    """A certificate of any bytes."""
    signature = bytes((unused_bits,)) + key.sign(body, ec.ECDSA(hashes.SHA256()))
    content = body + algorithm + header(0x03, len(signature)) + signature
    return header(0x30, len(content)) + content


def mutants(der: bytes) -> Iterator[bytes]:
    body = der[cut(der).signed]
    for place in range(len(body)):
        for change in (0x01, 0x02, 0x20, 0x80, 0xFF):
            yield body[:place] + bytes((body[place] ^ change,)) + body[place + 1 :]


def openssl_accepts(leaf: bytes, above: list[bytes], now: datetime) -> bool:
    try:
        verify_path(leaf, above[:-1], above[-1:] or [leaf], now=now)
    except IdentityError:
        return False
    return True


def we_accept(chain: list[bytes], now: datetime) -> bool:
    try:
        present(chain, now=now)
    except Refused:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("shown", ["below its issuer", "without its issuer", "self-issued"])
def test_whatever_openssl_refuses_in_a_leaf_is_refused(shown: str, forge: Any, now: datetime) -> None:
    """2,000 altered certificates each, of which some few are still good."""
    acme = forge("acme")
    made = acme if shown == "self-issued" else forge("echo", acme)
    above = [acme.der] if shown == "below its issuer" else []
    accepted = refused_by_openssl = 0
    for body in mutants(made.der):
        leaf = signed(body, acme.key)
        theirs = openssl_accepts(leaf, above, now)
        refused_by_openssl += not theirs
        if we_accept([leaf, *above], now):
            accepted += 1
            assert theirs, body.hex()
    assert accepted > 20  # other serial numbers, other times, another key identifier of its own
    assert refused_by_openssl > 500


KNOWN_TO_OPENSSL = {
    "proxy": "1.3.6.1.5.5.7.1.14", "addresses": "1.3.6.1.5.5.7.1.7", "systems": "1.3.6.1.5.5.7.1.8",
    "Netscape's type": "2.16.840.1.113730.1.1", "its comment": "2.16.840.1.113730.1.13", "CRLs": "2.5.29.31",
    "newest CRL": "2.5.29.46", "CRL's place": "2.5.29.28", "any policy": "2.5.29.54", "policies": "2.5.29.32",
    "mappings": "2.5.29.33", "policy constraints": "2.5.29.36", "names": "2.5.29.30", "issuer's other name": "2.5.29.18",
    "authority": "1.3.6.1.5.5.7.1.1", "subject": "1.3.6.1.5.5.7.1.11", "no OCSP": "1.3.6.1.5.5.7.48.1.5",
    "TLS": "1.3.6.1.5.5.7.1.24", "logs": "1.3.6.1.4.1.11129.2.4.2", "precertificate": "1.3.6.1.4.1.11129.2.4.3",
    "use of the key": "2.5.29.16", "no revocation": "2.5.29.56", "attributes": "2.5.29.9", "signer": "1.2.643.100.112",
}  # fmt: skip
VALUES = ["", "0500", "ffff", "3000", "03020000", "300c300a06082b06010505071501"]


@pytest.mark.parametrize("name", KNOWN_TO_OPENSSL)
def test_no_extension_that_openssl_refuses_stands_in_a_leaf(name: str, forge: Any, now: datetime) -> None:
    """Those that its path validation gives a meaning, well formed or not, and not critical."""
    acme = forge("acme")
    for value in map(bytes.fromhex, VALUES):
        extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(KNOWN_TO_OPENSSL[name]), value), False)]
        for made, issuer in ((forge("echo", acme, extra=extra), acme), (forge("acme", extra=extra), None)):
            above = [issuer.der] if issuer else []
            assert openssl_accepts(made.der, above, now) or not we_accept([made.der, *above], now), value


def test_the_two_places_of_the_algorithm_and_whole_octets(forge: Any, now: datetime) -> None:
    """What is outside the signature can be altered by anybody, and says nothing else than what is inside."""
    acme = forge("acme")
    body = forge("echo", acme).der
    body = body[cut(body).signed]
    assert we_accept([signed(body, acme.key), acme.der], now)
    with_null = bytes.fromhex("300c06082a8648ce3d0403020500")
    sha384 = bytes.fromhex("300a06082a8648ce3d040303")
    for algorithm in (with_null, sha384):
        assert not we_accept([signed(body, acme.key, algorithm=algorithm), acme.der], now)
    for bits in (1, 7):  # some signatures end in enough zero bits for this to be DER
        variants = [signed(body, acme.key, unused_bits=bits) for _ in range(400 if bits == 1 else 10)]
        assert not any(we_accept([leaf, acme.der], now) for leaf in variants)


@pytest.mark.parametrize("kind", ["RSA", "Ed25519", "ML-DSA-65", "P-256"])
def test_another_key_of_the_same_kind_did_not_sign_it(kind: str, forge: Any, now: datetime) -> None:
    """The signature of each kind of key is verified: a good one fits, another's of the kind does not."""
    make = {
        "RSA": lambda: rsa.generate_private_key(65537, 2048), "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate, "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    }[kind]  # fmt: skip
    acme = forge("acme", key=make())
    good, forged = forge("echo", acme), forge("echo", acme, signer=make())
    assert we_accept(good.chain, now)
    assert not we_accept(forged.chain, now)
    assert good.certificate.is_issued_by(acme.certificate)
    assert not forged.certificate.is_issued_by(acme.certificate)


def test_an_algorithm_of_another_kind_of_key_is_no_signature(forge: Any) -> None:
    """The key's kind decides how it signs certificates: what names another way is not signed by it."""
    acme = forge("acme")
    assert not forge("echo", acme, digest=hashes.SHA384()).certificate.is_issued_by(acme.certificate)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_certificate_is_read_as_its_parser_reads_it(forge: Any) -> None:
    """Names and signed bytes are cut out of the DER: they are what the parser has, and the signature verifies alike."""
    acme = forge("acme")
    root = acme.certificate
    parsed = 0
    for body in mutants(forge("echo", acme).der):
        der = signed(body, acme.key)
        try:
            certificate = Certificate.parse_untrusted(der)
        except IdentityError:
            continue
        parsed += 1
        theirs = certificate.x509
        assert der[certificate.parts.signed] == theirs.tbs_certificate_bytes == body
        assert certificate.common_name == common_name(theirs.subject)
        assert certificate.names_itself == (theirs.subject == theirs.issuer)
        assert certificate.is_issued_by(root) == directly_issued(theirs, root.x509)
    assert parsed > 200


def directly_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError):  # another name, or algorithm
        return False
    return True
