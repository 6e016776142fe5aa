"""Parsing a certificate from anywhere: its shape and its name, and no error but ours."""

import random
import uuid
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto

from autolink import limits
from autolink.errors import IdentityError, Reason
from autolink.identity import (
    OID_KIND,
    OID_NEXT_KEY,
    OID_RECOVERED_IN,
    AutoId,
    Certificate,
    Credential,
    CredentialRequest,
    EntityKind,
    KeyType,
    dump_chain,
    load_chain,
)

URI = x509.UniformResourceIdentifier


def san(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([URI(uri) for uri in uris])


def test_a_certificate_shows_what_it_says(acme: Credential, seller: Credential, now: Any) -> None:
    leaf, root = seller.chain
    assert (leaf.common_name, leaf.kind, leaf.next_key_hash) == ("seller", EntityKind.AGENT, None)
    assert (root.kind, len(root.next_key_hash or b"")) == (EntityKind.ORGANIZATION, 32)
    assert leaf.auto_id == AutoId.derive("seller", AutoId.derive(root.common_name))
    assert (leaf.self_issued, root.self_issued) == (False, True)
    assert leaf.is_issued_by(root)
    assert not root.is_issued_by(leaf)
    assert leaf.not_before < now < leaf.not_after
    assert leaf.not_before.utcoffset() == timedelta(0)
    assert root.spki_sha256 != leaf.spki_sha256
    assert len(leaf.fingerprint) == 32


@pytest.mark.parametrize("oid", [OID_KIND, OID_NEXT_KEY, OID_RECOVERED_IN])
def test_no_component_of_our_object_identifiers_is_large(oid: x509.ObjectIdentifier) -> None:
    """28 bits are four octets of DER: Go's first limit, beyond which it refuses the certificate."""
    assert max(map(int, oid.dotted_string.split("."))) < 2**28


def test_our_object_identifiers_lie_in_the_arc_of_a_uuid_of_ours() -> None:
    """Made again as docs/spec.md, 3.5, says: nobody else's UUID is of this name."""
    digits = uuid.uuid5(uuid.NAMESPACE_URL, "autolink/1").hex
    ends = (0, 4, 8, 12, 16, 20, 26, 32)
    numbers = [int(digits[begin:end], 16) for begin, end in pairwise(ends)]
    arc = ".".join(map(str, [*(1, 2, 840, 113556, 1, 8000, 2554), *numbers]))
    ours = [oid.dotted_string for oid in (OID_KIND, OID_NEXT_KEY, OID_RECOVERED_IN)]
    assert ours == [f"{arc}.{number}" for number in (1, 2, 3)]


def test_certificates_are_equal_when_their_bytes_are(seller: Credential) -> None:
    again = Certificate.parse_untrusted(seller.leaf.der)
    assert again == seller.leaf
    assert len({again, *seller.chain}) == 2


@pytest.mark.parametrize(
    "kind",
    [
        _ASN1Type.BMPString,
        _ASN1Type.T61String,
        _ASN1Type.IA5String,
        _ASN1Type.VisibleString,
        _ASN1Type.UniversalString,
    ],
    ids=lambda kind: kind.name,
)
def test_rule_24_a_common_name_in_another_string_type_is_refused(forge: Any, kind: _ASN1Type) -> None:
    """It decodes to the same text from other raw bytes, and the AutoId hashes the raw ones."""
    with pytest.raises(IdentityError):
        Certificate.parse_untrusted(forge("acme", kind=kind))


@pytest.mark.parametrize(
    "kind", [_ASN1Type.UTF8String, _ASN1Type.PrintableString], ids=lambda kind: kind.name
)
def test_rule_24_utf8_and_printable_strings_are_one_name(forge: Any, kind: _ASN1Type) -> None:
    assert Certificate.parse_untrusted(forge("acme", kind=kind)).common_name == "acme"


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize("name", ["ac\0me", "\x1b]0;root\x07", "ac\u202eme", "x" * 65, "acme~", "p" * 33])
def test_rule_24_a_certificate_with_a_hostile_name_is_refused(forge: Any, name: str) -> None:
    with pytest.raises(IdentityError) as raised:
        Certificate.parse_untrusted(forge(name))
    assert raised.value.reason is Reason.MALFORMED
    assert str(raised.value).isprintable()


CN, ORGANIZATION = (
    x509.NameAttribute(NameOID.COMMON_NAME, "acme"),
    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "globex"),
)


@pytest.mark.parametrize(
    "subject",
    [[], [CN, CN], [ORGANIZATION], [ORGANIZATION, CN]],
    ids=["empty", "two", "none", "with organization"],
)
def test_rule_24_the_subject_is_exactly_one_common_name(forge: Any, subject: list[Any]) -> None:
    """Nothing but the name is part of the AutoId, so nothing else stands beside it as if it were."""
    with pytest.raises(IdentityError, match="one common name and nothing else"):
        Certificate.parse_untrusted(forge(subject=subject))


def test_rule_23_a_certificate_claims_at_most_one_uri(forge: Any) -> None:
    good, foreign = AutoId.derive("mallory").uri, AutoId.derive("acme").uri
    assert Certificate.parse_untrusted(forge("mallory", san(good))).auto_id == AutoId.derive("mallory")
    assert Certificate.parse_untrusted(forge("mallory", san("spiffe://a/b"))).auto_id is None
    assert Certificate.parse_untrusted(forge("mallory")).auto_id is None
    for uris in ((good, foreign), (good, good), ("spiffe://a/b", good), ("https://a", "https://b")):
        with pytest.raises(IdentityError, match="more than one URI"):
            Certificate.parse_untrusted(forge("mallory", san(*uris)))


@pytest.mark.parametrize(
    "uri", ["autoid:auto:", "autoid:auto:00", "autoid:auto:" + "A" * 64, "autoid:auto:" + "3" * 132]
)
def test_an_id_in_another_form_is_refused(forge: Any, uri: str) -> None:
    """The last is the TypeScript SDK's: hexadecimal of hexadecimal."""
    with pytest.raises(IdentityError):
        Certificate.parse_untrusted(forge("mallory", san(uri)))


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (OID_KIND, b""),
        (OID_KIND, b"\x0c\x05owner"),
        (OID_KIND, b"\x0c\x06agent"),
        (OID_KIND, b"\x0c\x05agentx"),
        (OID_KIND, b"\x0c\x81\x05agent"),
        (OID_KIND, b"\x13\x05agent"),
        (OID_KIND, b"\x0c\x02\xff\xff"),
        (OID_NEXT_KEY, b""),
        (OID_NEXT_KEY, b"\x04\x1f" + bytes(31)),
        (OID_RECOVERED_IN, b""),
        (OID_RECOVERED_IN, b"\x04\x1f" + bytes(31)),
        (OID_NEXT_KEY, b"\x04\x21" + bytes(33)),
        (OID_NEXT_KEY, b"\x04\x20" + bytes(33)),
        (OID_NEXT_KEY, b"\x04" * 40_000),
    ],
)
def test_an_extension_of_ours_in_another_form_is_refused(
    forge: Any, oid: x509.ObjectIdentifier, value: bytes
) -> None:
    with pytest.raises(IdentityError):
        Certificate.parse_untrusted(forge("mallory", x509.UnrecognizedExtension(oid, value)))


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)],  # noqa: S505  weak on purpose
    ids=["p384", "rsa-1024"],
)
def test_rule_34_a_certificate_over_a_key_off_the_list_is_refused(forge: Any, key: Any) -> None:
    with pytest.raises(IdentityError, match="not accepted"):
        Certificate.parse_untrusted(forge("mallory", key=key))


def test_rule_34_a_certificate_over_a_small_order_key_is_refused(forge: Any) -> None:
    """Whoever showed it could have any message verify under it."""
    identity_point = ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    with pytest.raises(IdentityError, match="not accepted"):
        Certificate.parse_untrusted(forge("mallory", public_key=identity_point))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_serial_is_positive(forge: Any) -> None:
    der = forge("mallory")
    serial = Certificate.parse_untrusted(der).x509.serial_number
    raw = serial.to_bytes((serial.bit_length() + 8) // 8, "big")
    with pytest.raises(IdentityError, match="serial number"):
        Certificate.parse_untrusted(der.replace(raw, b"\x81" + raw[1:], 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_version_1_is_refused(acme: Credential) -> None:
    """It has no extensions, hence nothing that the profile could ask of it."""
    key = crypto.PKey.from_cryptography_key(acme.private_key)  # type: ignore[arg-type]
    old = crypto.X509()
    old.get_subject().CN = old.get_issuer().CN = "old"
    old.set_serial_number(1)
    old.gmtime_adj_notBefore(0)
    old.gmtime_adj_notAfter(60)
    old.set_pubkey(key)
    old.sign(key, "sha256")
    with pytest.raises(IdentityError, match="version 3"):
        Certificate.parse_untrusted(crypto.dump_certificate(crypto.FILETYPE_ASN1, old))


def test_a_certificate_larger_than_any_of_ours_is_not_parsed() -> None:
    with pytest.raises(IdentityError, match="larger"):
        Certificate.parse_untrusted(bytes(limits.CERTIFICATE + 1))


def test_what_strangers_leave_in_memory_with_their_certificates_is_bounded(forge: Any) -> None:
    """Parsed extensions take 45 times their bytes, and parsed certificates are kept: 64 KB each were 1.3 GB of them."""
    private = (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.{n}"), b"") for n in range(3, 300))
    with pytest.raises(IdentityError, match="besides its key"):
        Certificate.parse_untrusted(forge("mallory", *private))


def test_the_longest_certificate_of_ours_is_within_the_bounds(now: Any) -> None:
    """The largest keys, the longest names, every extension."""
    big = KeyType.ML_DSA_65
    root = Credential.self_issued("a" * 32, key_type=big, now=now)
    request = CredentialRequest.new("é" * 32, key_type=big)
    issuer = request.complete(root.issue(request, kind=EntityKind.ORGANIZATION, may_issue=1, now=now))
    request = CredentialRequest.new("ü" * 32, key_type=big)
    chain = issuer.issue(request, kind=EntityKind.ORGANIZATION, may_issue=0, now=now)
    for certificate in chain:
        rest = len(certificate.der) - len(certificate.spki) - len(certificate.x509.signature)
        assert len(certificate.der) < limits.CERTIFICATE * 3 / 4
        assert rest < limits.CERTIFICATE_REST * 3 / 4


@given(st.binary(max_size=400))
def test_random_bytes_raise_our_error_and_no_other(data: bytes) -> None:
    for parse in (Certificate.parse_untrusted, CredentialRequest.from_pem):
        with pytest.raises(IdentityError):
            parse(data)


def test_a_certificate_with_any_bytes_changed_raises_our_error_or_is_another_certificate(
    seller: Credential,
) -> None:
    """Random bytes rarely get past the first length; these do. 4,000 mutants, the same on every run."""
    randomness = random.Random(20)  # noqa: S311
    refused = 0
    for _ in range(4000):
        mutant = bytearray(randomness.choice(seller.chain).der)
        for _ in range(randomness.randint(1, 3)):
            place = randomness.randrange(len(mutant))
            mutant[place : place + randomness.randint(0, 2)] = randomness.randbytes(randomness.randint(0, 2))
        try:
            parsed = Certificate.parse_untrusted(bytes(mutant))
        except IdentityError:
            refused += 1
        else:
            assert parsed in seller.chain or not any(parsed.is_issued_by(one) for one in seller.chain)
    assert refused > 1000


def test_a_chain_is_read_back_from_its_pem(seller: Credential) -> None:
    assert load_chain(dump_chain(seller.chain)) == seller.chain


@pytest.mark.parametrize(
    "pem", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", bytes(10**6)]
)
def test_a_file_that_is_no_chain_is_refused(pem: bytes) -> None:
    with pytest.raises(IdentityError):
        load_chain(pem)


def test_a_file_with_100_certificates_is_refused_before_they_are_parsed(acme: Credential) -> None:
    with pytest.raises(IdentityError, match="more than 36"):
        load_chain(dump_chain([acme.leaf] * 100))


@pytest.mark.parametrize("kind", EntityKind)
def test_persons_and_organizations_are_natural_and_nothing_else_is(kind: EntityKind) -> None:
    assert kind.natural == (kind in {EntityKind.PERSON, EntityKind.ORGANIZATION})
