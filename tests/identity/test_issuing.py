"""The profile that we write, what an issuer may and may not, and what ordinary X.509 tools say to the result."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from autolink import limits
from autolink.errors import IdentityError, Reason, UsageError
from autolink.identity import (
    OID_KIND,
    OID_NEXT_KEY,
    AutoId,
    Certificate,
    Credential,
    CredentialRequest,
    EntityKind,
    KeyType,
    dump_chain,
    keys,
)

AGENT, ORGANIZATION = EntityKind.AGENT, EntityKind.ORGANIZATION
DAY = timedelta(days=1)


def extension(certificate: Certificate, kind: Any) -> Any:
    return certificate.x509.extensions.get_extension_for_class(kind)


def set_usages(certificate: Certificate) -> set[str]:
    usage = extension(certificate, x509.KeyUsage).value
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    )
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def department(acme: Credential, now: datetime, *, may_issue: int = 1) -> Credential:
    request = CredentialRequest.new("sales")
    return request.complete(acme.issue(request, kind=ORGANIZATION, may_issue=may_issue, now=now))


def test_rule_25a_a_self_issued_certificate_can_issue_and_link(acme: Credential) -> None:
    basic = extension(acme.leaf, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, None)
    assert extension(acme.leaf, x509.KeyUsage).critical
    assert set_usages(acme.leaf) == {"digital_signature", "key_cert_sign", "crl_sign"}
    oids = {one.oid for one in acme.leaf.x509.extensions}
    assert x509.ExtendedKeyUsage.oid not in oids
    assert x509.AuthorityKeyIdentifier.oid not in oids
    assert {OID_KIND, OID_NEXT_KEY, x509.SubjectKeyIdentifier.oid} < oids
    assert len(acme.chain) == 1


def test_rule_21_a_self_issued_name_is_bound_unless_plain_is_asked_for(
    acme: Credential, now: datetime
) -> None:
    """The CN commits to the key and to the hash in the certificate, which is that of the key made beside it."""
    assert acme.next_key is not None
    assert acme.leaf.next_key_hash == keys.hash_of_key(acme.next_key.public_key())
    assert acme.name.startswith("acme~")
    assert (acme.label, acme.peer_id.authority) == ("acme", "bound")
    assert acme.auto_id == acme.leaf.auto_id == AutoId.derive(acme.name)
    assert Credential.self_issued("acme", now=now).auto_id != acme.auto_id

    plain = Credential.self_issued("Acme Inc", plain=True, now=now)
    assert (plain.name, plain.label, plain.next_key, plain.leaf.next_key_hash) == (
        "Acme Inc",
        "Acme Inc",
        None,
        None,
    )
    assert plain.peer_id.authority == f"sha256:{plain.leaf.spki_sha256.hex()}"


def test_rule_21_the_next_key_can_be_made_elsewhere(now: datetime) -> None:
    next_key = keys.generate(KeyType.ED25519)
    committed = Credential.self_issued("acme", next_key_hash=keys.hash_of_key(next_key.public_key()), now=now)
    assert committed.next_key is None
    assert committed.leaf.next_key_hash == keys.hash_of_key(next_key.public_key())
    with pytest.raises(UsageError, match="plain"):
        Credential.self_issued("acme", plain=True, next_key_hash=bytes(32), now=now)


def test_a_leaf_can_link_and_sign_and_nothing_else(seller: Credential) -> None:
    basic = extension(seller.leaf, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    assert extension(seller.leaf, x509.KeyUsage).critical
    assert set_usages(seller.leaf) == {"digital_signature"}
    purposes = extension(seller.leaf, x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    root_identifier = extension(seller.chain[1], x509.SubjectKeyIdentifier).value.digest
    assert extension(seller.leaf, x509.AuthorityKeyIdentifier).value.key_identifier == root_identifier
    san = extension(seller.leaf, x509.SubjectAlternativeName)
    assert (san.critical, list(san.value)) == (False, [x509.UniformResourceIdentifier(seller.auto_id.uri)])
    kind = seller.leaf.x509.extensions.get_extension_for_oid(OID_KIND)
    assert (kind.critical, kind.value.value) == (False, b"\x0c\x05agent")
    assert len(list(seller.leaf.x509.subject)) == 1


def test_serials_are_random_positive_and_at_most_20_octets(acme: Credential, now: datetime) -> None:
    request = CredentialRequest.new("seller")
    serials = {acme.issue(request, kind=AGENT, now=now)[0].x509.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 2**159 for serial in serials)


@pytest.mark.parametrize("kind", [kind for kind in EntityKind if not kind.natural])
def test_a_digital_entity_does_not_issue_itself(kind: EntityKind, now: datetime) -> None:
    with pytest.raises(IdentityError, match="make a request"):
        Credential.self_issued("robot", kind=kind, now=now)
    assert Credential.self_issued("ada", kind=EntityKind.PERSON, now=now).leaf.kind is EntityKind.PERSON


@pytest.mark.parametrize("name", ["Acme", "a b", "", "acme~x", "x" * 33])
def test_a_label_or_name_that_is_not_allowed_makes_no_identity(name: str, now: datetime) -> None:
    with pytest.raises(IdentityError):
        Credential.self_issued(name, now=now)


def test_a_plain_name_cannot_have_the_form_of_a_bound_one(acme: Credential, now: datetime) -> None:
    with pytest.raises(IdentityError, match="binds none"):
        Credential.self_issued(acme.name, plain=True, now=now)


# --- requests ----------------------------------------------------------------------------------------------


def csr(
    name: str = "seller", key: Any = None, *extensions: x509.ExtensionType
) -> x509.CertificateSigningRequest:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
    )
    for one in extensions:
        builder = builder.add_extension(one, critical=True)
    return builder.sign(key, hashes.SHA256())


def test_nothing_is_copied_from_a_request_but_its_key(acme: Credential, now: datetime) -> None:
    """Upstream's TypeScript SDK issued exactly this request, with the attacker's id first."""
    asked = csr(
        "seller",
        None,
        x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(acme.auto_id.uri), x509.DNSName("bank.example")]
        ),
        x509.BasicConstraints(ca=True, path_length=5),
        x509.UnrecognizedExtension(OID_KIND, b"\x0c\x0corganization"),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    )
    request = CredentialRequest.from_pem(asked.public_bytes(Encoding.PEM))
    leaf = acme.issue(request, kind=AGENT, name="vendor", now=now)[0]
    assert leaf.common_name == "vendor"
    assert leaf.spki == keys.spki(asked.public_key())  # type: ignore[arg-type]
    assert leaf.auto_id == AutoId.derive("vendor", acme.auto_id)
    assert leaf.kind is AGENT
    assert not extension(leaf, x509.BasicConstraints).value.ca
    honest = acme.issue(CredentialRequest.new("honest"), kind=AGENT, now=now)[0]
    assert [one.oid for one in leaf.x509.extensions] == [one.oid for one in honest.x509.extensions]


def test_a_request_proves_that_its_key_is_held() -> None:
    """The victim's public key under a request that somebody else signed; upstream's SDKs never looked."""
    victim, mallory = csr("victim"), csr("mallory")
    der = victim.public_bytes(Encoding.DER).replace(victim.signature, mallory.signature)
    if len(victim.signature) != len(mallory.signature):
        der = victim.public_bytes(Encoding.DER)[:-1] + bytes([victim.public_bytes(Encoding.DER)[-1] ^ 1])
    swapped = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="does not prove"):
        CredentialRequest.from_pem(swapped)


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize("name", ["sel\0ler", "\x1b[2J", "sel\u202eler", "e\u0301", "", "x" * 65])
def test_a_request_for_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(IdentityError, match="request"):
        CredentialRequest.from_pem(csr(name).public_bytes(Encoding.PEM))
    with pytest.raises(IdentityError):
        CredentialRequest.new(name)


def test_a_request_over_a_key_off_the_list_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(IdentityError, match="not accepted"):
        CredentialRequest.from_pem(csr("seller", key).public_bytes(Encoding.PEM))
    with pytest.raises(IdentityError, match="not accepted"):
        CredentialRequest.from_key("seller", key)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"hello",
        bytes(10**6),
        b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
    ],
)
def test_bytes_that_are_no_request_are_refused(pem: bytes) -> None:
    with pytest.raises(IdentityError, match="request"):
        CredentialRequest.from_pem(pem)


def test_only_who_made_a_request_can_complete_it(acme: Credential, now: datetime) -> None:
    made = CredentialRequest.new("seller")
    received = CredentialRequest.from_pem(made.pem)
    assert (received.name, received.private_key) == ("seller", None)
    chain = acme.issue(received, kind=AGENT, now=now)
    with pytest.raises(UsageError, match="only the machine"):
        received.complete(chain)
    assert made.complete(chain).auto_id == chain[0].auto_id
    with pytest.raises(IdentityError, match="private key does not belong"):
        CredentialRequest.new("seller").complete(chain)


# --- who may issue what ------------------------------------------------------------------------------------


def test_issuers_nest_and_each_id_is_derived_from_the_one_above(acme: Credential, now: datetime) -> None:
    sales = department(acme, now, may_issue=1)
    request = CredentialRequest.new("europe")
    europe = request.complete(sales.issue(request, kind=ORGANIZATION, may_issue=0, now=now))
    request = CredentialRequest.new("seller")
    seller = request.complete(europe.issue(request, kind=AGENT, now=now))
    assert [one.common_name for one in seller.chain] == ["seller", "europe", "sales", acme.name]
    assert seller.auto_id == AutoId.derive_path([acme.name, "sales", "europe", "seller"])[-1]
    assert seller.anchor == acme.anchor
    assert extension(sales.leaf, x509.BasicConstraints).value.path_length == 1
    assert extension(europe.leaf, x509.BasicConstraints).value.path_length == 0
    assert set_usages(europe.leaf) == {"key_cert_sign", "crl_sign"}


def test_a_leaf_cannot_issue(seller: Credential, now: datetime) -> None:
    with pytest.raises(IdentityError, match="issued as a leaf"):
        seller.issue(CredentialRequest.new("helper"), kind=AGENT, now=now)


def test_no_issuer_gives_more_than_its_own_path_length(acme: Credential, now: datetime) -> None:
    sales = department(acme, now, may_issue=0)
    request = CredentialRequest.new("europe")
    for too_much in (0, 1, -1):
        with pytest.raises(IdentityError, match=r"may_issue|chain holds"):
            sales.issue(request, kind=ORGANIZATION, may_issue=too_much, now=now)
    for too_much in (limits.CHAIN - 2, 100, -1):
        with pytest.raises(IdentityError, match=r"may_issue|chain holds"):
            acme.issue(request, kind=ORGANIZATION, may_issue=too_much, now=now)
    acme.issue(request, kind=ORGANIZATION, may_issue=limits.CHAIN - 3, now=now)


def test_an_issuer_gives_nobody_its_own_name_or_key(acme: Credential, now: datetime) -> None:
    """X.509 leaves a certificate whose issuer has its name out of path lengths, so this would nest for ever."""
    with pytest.raises(IdentityError, match="own name"):
        acme.issue(CredentialRequest.new(acme.name), kind=AGENT, now=now)
    with pytest.raises(IdentityError, match="own key"):
        acme.issue(CredentialRequest.from_key("seller", acme.private_key), kind=AGENT, now=now)


@pytest.mark.parametrize("name", ["", "sel\0ler", "x" * 65])
def test_an_issuer_cannot_be_made_to_give_a_hostile_name(acme: Credential, name: str, now: datetime) -> None:
    with pytest.raises(IdentityError):
        acme.issue(CredentialRequest.new("seller"), kind=AGENT, name=name, now=now)


def test_an_upstream_certificate_issues_nothing_under_our_profile(
    acme: Credential, forge: Any, now: datetime
) -> None:
    """It lacks basicConstraints; with them but as a bare forgery it still lacks its id."""
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(IdentityError, match="claims an id"):
        Credential.from_key((Certificate.parse_untrusted(forge("old", key=key)),), key)
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(AutoId.derive("old").uri)])
    old = Credential.from_key((Certificate.parse_untrusted(forge("old", san, key=key)),), key)
    with pytest.raises(IdentityError, match="this profile"):
        old.issue(CredentialRequest.new("seller"), kind=AGENT, now=now)


# --- time --------------------------------------------------------------------------------------------------


def test_a_certificate_begins_a_little_earlier_but_never_before_its_issuer(now: datetime) -> None:
    """A peer whose clock is behind ours must not find a fresh certificate in its future."""
    acme = Credential.self_issued("acme", lifetime=DAY, now=now)
    assert acme.leaf.not_before == now - timedelta(minutes=5)
    early = acme.issue(CredentialRequest.new("seller"), kind=AGENT, now=now - timedelta(minutes=4))[0]
    assert early.not_before == acme.leaf.not_before
    later = acme.issue(CredentialRequest.new("seller"), kind=AGENT, now=now + timedelta(hours=1))[0]
    assert later.not_before == now + timedelta(minutes=55)


def test_a_certificate_never_outlives_its_issuer(now: datetime) -> None:
    acme = Credential.self_issued("acme", lifetime=10 * DAY, now=now)
    request = CredentialRequest.new("seller")
    assert acme.issue(request, kind=AGENT, now=now)[0].not_after == acme.leaf.not_after
    assert acme.issue(request, kind=AGENT, lifetime=DAY, now=now)[0].not_after == now + DAY
    with pytest.raises(IdentityError, match="cannot outlive"):
        acme.issue(request, kind=AGENT, lifetime=11 * DAY, now=now)
    for when, reason in ((now - DAY, Reason.NOT_YET_VALID), (now + 11 * DAY, Reason.EXPIRED)):
        for lifetime in (timedelta(hours=1), None):
            with pytest.raises(IdentityError) as raised:
                acme.issue(request, kind=AGENT, lifetime=lifetime, now=when)
            assert raised.value.reason is reason


def test_no_certificate_spans_more_than_the_cap(acme: Credential, now: datetime) -> None:
    """The whole interval counts, backdating included."""
    root_cap, cap = limits.LIFETIME_SELF_ISSUED_DAYS * DAY, limits.LIFETIME_ISSUED_DAYS * DAY
    assert acme.leaf.not_after - acme.leaf.not_before == root_cap
    request = CredentialRequest.new("seller")
    longest = acme.issue(request, kind=AGENT, lifetime=cap, now=now)[0]
    assert longest.not_after - longest.not_before == cap
    assert acme.leaf.not_before == now - timedelta(minutes=5)
    for lifetime in (cap + DAY, timedelta(0), -DAY, timedelta.max, timedelta.min):
        with pytest.raises(IdentityError, match="lifetime"):
            acme.issue(request, kind=AGENT, lifetime=lifetime, now=now)
    with pytest.raises(IdentityError, match="lifetime"):
        Credential.self_issued("acme", lifetime=root_cap + DAY, now=now)


def test_any_timezone_is_the_same_instant_and_none_is_refused(now: datetime) -> None:
    elsewhere = now.astimezone(timezone(timedelta(hours=9)))
    assert Credential.self_issued("acme", lifetime=DAY, now=elsewhere).leaf.not_after == now + DAY
    with pytest.raises(UsageError, match="timezone"):
        Credential.self_issued("acme", now=now.replace(tzinfo=None))


def test_without_a_time_the_system_clock_is_meant() -> None:
    leaf = Credential.self_issued("acme").leaf
    assert leaf.not_before <= datetime.now(UTC) <= leaf.not_after


def test_a_validity_beyond_2049_is_written_as_rfc_5280_asks() -> None:
    """UTCTime has two digits for the year; from 2050 on GeneralizedTime is used (section 4.1.2.5)."""
    acme = Credential.self_issued("acme", now=datetime(2045, 1, 1, tzinfo=UTC))
    assert acme.leaf.not_after.year == 2055


# --- ordinary tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519])
def test_an_issued_chain_passes_openssl_verify_x509_strict(
    key_type: KeyType, tmp_path: Path, now: datetime
) -> None:
    """The system's openssl, an older version than ours, for both purposes; and a root's chain of one."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip(
            "the openssl command is not installed: nothing outside this project has checked our chains"
        )
    acme = Credential.self_issued("acme", key_type=key_type, now=now)
    request = CredentialRequest.new("sales", key_type=key_type)
    sales = request.complete(acme.issue(request, kind=ORGANIZATION, may_issue=0, now=now))
    leaf = sales.issue(CredentialRequest.new("seller", key_type=key_type), kind=AGENT, now=now)[0]
    acme.anchor.save(tmp_path / "root.pem")
    (tmp_path / "sales.pem").write_bytes(sales.leaf.pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.pem)
    at = str(int(now.timestamp()))
    command = [
        openssl,
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-attime",
        at,
        "-CAfile",
        "root.pem",
        "-untrusted",
        "sales.pem",
    ]
    for purpose in ("sslserver", "sslclient"):
        for file in ("leaf.pem", "root.pem"):
            ran = subprocess.run(
                [*command, "-purpose", purpose, file],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (ran.returncode, ran.stdout) == (0, f"{file}: OK\n"), ran.stderr


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_an_issued_chain_passes_the_strict_store_of_our_own_openssl(key_type: KeyType, now: datetime) -> None:
    """ML-DSA-65 needs OpenSSL 3.5, so the system's command cannot be asked about it."""
    acme = Credential.self_issued("acme", key_type=key_type, now=now)
    chain = acme.issue(CredentialRequest.new("seller", key_type=key_type), kind=AGENT, now=now)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(acme.leaf.x509))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.CHECK_SS_SIGNATURE)
    store.set_time(now)
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(chain[0].x509)).verify_certificate()
    assert len(dump_chain(chain)) < limits.CHAIN_BYTES
