"""From hostile bytes to a chain that is sound in itself: each fault is refused under its reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from autolink import limits
from autolink.errors import IdentityError, Reason, Refused, UsageError
from autolink.identity import OID_KIND, AutoId, Credential, KeyType, PeerId, key_authority
from autolink.trust import present
from autolink.trust.presented import fingerprint
from autolink.trust.profile import STANDARD, check_profile

Forge = Callable[..., Any]
URI = x509.UniformResourceIdentifier
ZERO = "autoid:auto:" + 64 * "0"
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
AGENT = x509.UnrecognizedExtension(OID_KIND, b"\x0c\x05agent")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
POLICIES = x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None)
MALFORMED, EXPIRED, NOT_YET = Reason.MALFORMED, Reason.EXPIRED, Reason.NOT_YET_VALID


def leaf(**mistake: Any) -> Callable[[Forge], list[bytes]]:
    """A chain of two whose leaf has one mistake."""
    return lambda forge: forge("echo", forge("acme"), **mistake).chain


def root(**mistake: Any) -> Callable[[Forge], list[bytes]]:
    """A chain of two whose root has one mistake."""
    return lambda forge: forge("echo", forge("acme", **mistake)).chain


def middle(**mistake: Any) -> Callable[[Forge], list[bytes]]:
    """A chain of three whose middle has one mistake."""
    return lambda forge: forge("echo", forge("sales", forge("acme"), issues=True, **mistake)).chain


def alone(**mistake: Any) -> Callable[[Forge], list[bytes]]:
    """A self-issued certificate with one mistake, shown alone."""
    return lambda forge: forge("acme", **mistake).chain


def two_uris(forge: Forge) -> list[bytes]:
    acme = forge("acme")
    right = AutoId.derive("echo", acme.auto_id).uri
    return forge("echo", acme, names=[URI(right), URI(right)]).chain


def junk(forge: Forge) -> list[bytes]:
    good = forge("echo", forge("acme")).chain
    return [good[0], forge("junk", forge("other"), issues=True).der, good[1]]


def swapped(forge: Forge) -> list[bytes]:
    return forge("echo", forge("sales", forge("acme"), issues=True)).chain[::-1]


def repeated(forge: Forge) -> list[bytes]:
    good = forge("echo", forge("acme")).chain
    return [good[0], good[1], good[1]]


def hundred(forge: Forge) -> list[bytes]:
    return forge("echo", forge("acme")).chain * 50


def foreign_signature(forge: Forge) -> list[bytes]:
    other = forge("acme")
    return forge("echo", forge("acme"), signer=other.key).chain


def unsigned_root(forge: Forge) -> list[bytes]:
    """The public key is right, so the leaf verifies: only the root's own signature shows the change."""
    acme = forge("acme")
    altered = forge(
        "acme", key=acme.key, end=timedelta(days=3000), signer=ec.generate_private_key(ec.SECP256R1())
    )
    return [forge("echo", acme).der, altered.der]


def rollover(forge: Forge) -> list[bytes]:
    acme = forge("acme")
    return forge("echo", forge("acme", acme, issues=True)).chain


def deep(forge: Forge) -> list[bytes]:
    return forge("echo", forge("sales", forge("acme", path_length=0), issues=True)).chain


def outlives(forge: Forge) -> list[bytes]:
    return forge("echo", forge("acme", end=timedelta(days=10))).chain


def two_common_names(forge: Forge) -> list[bytes]:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("echo", "acme")]
    return forge("echo", forge("acme"), subject=x509.Name(attributes)).chain


def other_case(forge: Forge) -> list[bytes]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME")])
    return forge("echo", forge("acme"), issuer_name=name).chain


PRINTABLE = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme", _ASN1Type.PrintableString)])


def extra_attribute(forge: Forge) -> list[bytes]:
    attributes = [(NameOID.COMMON_NAME, "echo"), (NameOID.ORGANIZATION_NAME, "The Bank")]
    return forge(
        "echo", forge("acme"), subject=x509.Name([x509.NameAttribute(*each) for each in attributes])
    ).chain


def three_years(forge: Forge) -> list[bytes]:
    return forge("echo", forge("acme", end=timedelta(2000)), end=timedelta(1100)).chain


CONSTRAINTS = x509.NameConstraints([x509.DNSName("example.com")], None)
CA_BIT = {x509.BasicConstraints: (x509.BasicConstraints(True, None), True)}
NO_CA_BIT = {x509.BasicConstraints: (x509.BasicConstraints(False, None), True)}
SOFT_CA_BIT = {x509.BasicConstraints: (x509.BasicConstraints(True, None), False)}
NOT_SIGNING = {"digital_signature": False, "key_agreement": True}
BY_NUMBER = {x509.AuthorityKeyIdentifier: (x509.AuthorityKeyIdentifier(None, [URI("a:b")], 7), False)}
FAULTS: dict[str, tuple[Callable[[Forge], list[bytes]], Reason, str]] = {
    "nothing at all": (lambda forge: [], MALFORMED, "not 0"),
    "not DER": (lambda forge: [b"junk"], MALFORMED, "malformed"),
    "a chain of 100": (hundred, MALFORMED, "not 100"),
    "a huge certificate": (lambda forge: [bytes(limits.CHAIN_BYTES + 1)], MALFORMED, "larger"),
    "cut short": (lambda forge: [forge("acme").der[:-1]], MALFORMED, "malformed"),
    "bytes behind it": (lambda forge: [forge("acme").der + b"\0"], MALFORMED, "malformed"),
    "an expired leaf": (leaf(begin=timedelta(-9), end=timedelta(-1)), EXPIRED, "echo expired"),
    "an expired root": (root(begin=timedelta(-9), end=timedelta(-1)), EXPIRED, "acme expired"),
    "a leaf before its time": (leaf(begin=timedelta(1)), NOT_YET, "echo begins"),
    "junk between": (junk, MALFORMED, "path"),
    "the wrong order": (swapped, MALFORMED, ""),
    "a root twice": (repeated, MALFORMED, ""),
    "another's signature": (foreign_signature, MALFORMED, "signature"),
    "a root that its key did not sign": (unsigned_root, MALFORMED, "own key"),
    "a key rollover inside": (rollover, MALFORMED, "its issuer's name"),
    "a path too long": (deep, MALFORMED, "path length"),
    "no CA above": (root(replaced=NO_CA_BIT), MALFORMED, ""),
    "a CA that is not critical": (root(replaced=SOFT_CA_BIT), MALFORMED, ""),
    "a CA as leaf": (leaf(replaced=CA_BIT), MALFORMED, ""),
    "a real issuer as leaf": (leaf(issues=True), MALFORMED, "is a CA"),
    "a leaf that signs certificates": (leaf(usage={"key_cert_sign": True}), MALFORMED, ""),
    "a leaf that may not sign": (leaf(usage=NOT_SIGNING), MALFORMED, "may not sign"),
    "a leaf that encrypts": (leaf(usage={"key_encipherment": True}), MALFORMED, "beyond"),
    "no keyUsage": (leaf(replaced={x509.KeyUsage: None}), MALFORMED, "keyUsage"),
    "alone, not signing": (alone(usage={"digital_signature": False}), MALFORMED, "may not sign"),
    "alone, not issuing": (alone(issues=False), MALFORMED, "no CA"),
    "a client only": (leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]), MALFORMED, "extended-key-usage"),
    "for any purpose": (leaf(purposes=[ANY_PURPOSE]), MALFORMED, "extended-key-usage"),
    "no purpose": (leaf(replaced={x509.ExtendedKeyUsage: None}), MALFORMED, "extended-key-usage"),
    "two URIs": (two_uris, MALFORMED, "URI"),
    "no URI": (leaf(names=[]), MALFORMED, "naming"),
    "a URI of another kind": (leaf(names=[URI("spiffe://acme/echo")]), MALFORMED, "naming"),
    "a host name beside": (leaf(names=[URI(ZERO), x509.DNSName("bank.example")]), MALFORMED, "naming"),
    "another's id": (leaf(names=[URI(AutoId.derive("other").uri)]), MALFORMED, "AutoId"),
    "the id of its name alone": (leaf(names=[URI(AutoId.derive("echo").uri)]), MALFORMED, "AutoId"),
    "another's id at the root": (root(names=[URI(AutoId.derive("other").uri)]), MALFORMED, "AutoId"),
    "an unknown critical extension": (leaf(extra=[(UNKNOWN, True)]), MALFORMED, "critical"),
    "the same at the root": (root(extra=[(UNKNOWN, True)]), MALFORMED, "critical"),
    "name constraints": (root(extra=[(CONSTRAINTS, False)]), MALFORMED, "extensions"),
    "policy constraints": (middle(extra=[(POLICIES, True)]), MALFORMED, "extensions"),
    "no key identifier at the issuer": (root(replaced={x509.SubjectKeyIdentifier: None}), MALFORMED, "ey"),
    "no authority key identifier": (leaf(replaced={x509.AuthorityKeyIdentifier: None}), MALFORMED, "ey"),
    "an issuer named by number": (leaf(replaced=BY_NUMBER), MALFORMED, ""),
    "a lifetime without end": (alone(end=timedelta(days=9000)), MALFORMED, "longer than"),
    "a leaf for three years": (three_years, MALFORMED, "lon"),
    "outliving its issuer": (outlives, MALFORMED, "outside its issuer's"),
    "older than its issuer": (leaf(begin=timedelta(days=-1)), MALFORMED, "outside its issuer's"),
    "an agent that issued itself": (alone(extra=[(AGENT, False)]), MALFORMED, "issued itself"),
    "two common names": (two_common_names, MALFORMED, "one common name"),
    "more than a name": (extra_attribute, MALFORMED, "one common name"),
    "an issuer in capitals": (other_case, MALFORMED, "exactly"),
    "an issuer in another kind of string": (leaf(issuer_name=PRINTABLE), MALFORMED, "exactly"),
    "the same above": (middle(issuer_name=PRINTABLE), MALFORMED, "exactly"),
    "a root in two kinds of string": (root(issuer_name=PRINTABLE), MALFORMED, "two encodings"),
    "alone, in two kinds of string": (alone(issuer_name=PRINTABLE), MALFORMED, "two encodings"),
    "another digest": (leaf(digest=hashes.SHA384()), MALFORMED, "algorithm"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_chain_with_a_fault_is_refused(fault: str, forge: Forge, now: datetime) -> None:
    """One mistake each, the rest right: refused by us, under the reason, and the text says what it is."""
    make, reason, text = FAULTS[fault]
    with pytest.raises(Refused) as refusal:
        present(make(forge), now=now)
    assert refusal.value.by == "us"
    assert refusal.value.reason is reason
    assert text in refusal.value.detail


SOUND = {
    "a leaf": leaf(),
    "alone": alone(),
    "with an issuer between": lambda forge: forge("echo", forge("sales", forge("acme"), issues=True)).chain,
    "an unknown extension": leaf(extra=[(UNKNOWN, False)]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_without_a_fault_the_same_chains_are_sound(kind: str, forge: Forge, now: datetime) -> None:
    """The authority of these tests makes good chains, so each refusal above is its fault's."""
    assert present(SOUND[kind](forge), now=now).complete


def weak_keys() -> dict[str, Any]:
    return {
        "RSA-1024": rsa.generate_private_key(65537, 1024),  # noqa: S505
        "RSA-2047": rsa.generate_private_key(65537, 2047),  # noqa: S505
        "DSA": dsa.generate_private_key(2048),
        "P-192": ec.generate_private_key(ec.SECP192R1()),
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    }


@pytest.mark.parametrize("place", ["leaf", "root"])
def test_keys_off_the_allow_list_are_refused_wherever_they_stand(
    place: str, forge: Forge, now: datetime
) -> None:
    """Too short, another curve, another algorithm: refused before any trust is asked."""
    for name, key in weak_keys().items():
        acme = forge("acme", key=key if place == "root" else None)
        chain = forge("echo", acme, key=key if place == "leaf" else None).chain
        with pytest.raises(Refused, match="malformed") as refusal:
            present(chain, now=now)
        assert refusal.value.reason is MALFORMED, name


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_every_kind_of_key_makes_a_sound_chain(key_type: KeyType, now: datetime, agent: Any) -> None:
    """The library's own chains pass its own checks, whatever the issuer's key."""
    acme = Credential.self_issued("acme", key_type=key_type, now=now)
    shown = present([certificate.der for certificate in agent("echo", acme).chain], now=now)
    assert shown.bound
    assert shown.names == (acme.name, "echo")


def test_an_rsa_chain_of_others_is_sound(forge: Forge, now: datetime) -> None:
    """RSA-2048 is accepted from others."""
    acme = forge("acme", key=rsa.generate_private_key(65537, 2048))
    assert present(forge("echo", acme).chain, now=now).complete


def test_validity_holds_at_both_ends_and_not_beyond(forge: Forge, now: datetime) -> None:
    """notBefore and notAfter are inclusive, to the second and to the microsecond."""
    chain = forge("acme", begin=timedelta(0), end=timedelta(seconds=60)).chain
    present(chain, now=now)
    present(chain, now=now + timedelta(seconds=60))
    for moment, reason in (
        (now - timedelta(microseconds=1), NOT_YET),
        (now + timedelta(seconds=60, microseconds=1), EXPIRED),
    ):
        with pytest.raises(Refused) as refusal:
            present(chain, now=moment)
        assert refusal.value.reason is reason


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_negative_serial_number_is_refused(forge: Forge) -> None:
    """No builder makes one, so the sign of a good one is set; its signature no longer fits: the rule alone is asked."""
    number = (2**158 + 1).to_bytes(20)
    der = forge("acme", serial=2**158 + 1).der.replace(number, b"\x80" + number[1:], 1)
    certificate = x509.load_der_x509_certificate(der)
    with pytest.raises(IdentityError, match="serial"):
        check_profile([certificate], rules=STANDARD)


def test_rule_12_the_time_is_the_callers_and_aware(echo: Credential, ders: Any, now: datetime) -> None:
    """A naive time is a usage error; the same instant in another zone is the same instant to OpenSSL."""
    with pytest.raises(UsageError):
        present(ders(echo), now=datetime(2026, 11, 21, 12))  # noqa: DTZ001  the point of the test
    assert present(ders(echo), now=now.astimezone(timezone(timedelta(hours=-11)))).bound
    with pytest.raises(Refused) as refusal:
        present(ders(echo), now=datetime(1999, 1, 1, tzinfo=UTC))
    assert refusal.value.reason is NOT_YET


def test_rule_21_a_bound_name_with_another_key_is_an_impostor_to_everybody(
    organisation: Any, forge: Forge, now: datetime
) -> None:
    """Whoever takes a bound name for another key is refused before any model is asked, alone and as an issuer."""
    acme = organisation("acme")
    thief = forge(acme.name)
    for chain in (thief.chain, forge("echo", thief).chain):
        with pytest.raises(Refused) as refusal:
            present(chain, now=now)
        assert refusal.value.reason is Reason.IMPOSTOR
        assert "bound to another key" in refusal.value.detail


def test_rule_21_a_bound_path_shows_its_ids(acme: Credential, agent: Any, ders: Any, now: datetime) -> None:
    """Along acme/sales/echo every id is the one below it, hashed with its name."""
    sales = agent("sales", acme, may_issue=0)
    shown = present(ders(agent("echo", sales)), now=now)
    assert shown.bound
    assert shown.ids == AutoId.derive_path([acme.name, "sales", "echo"])
    assert shown.auto_id == shown.ids[-1]
    assert shown.valid_until == shown.leaf.not_after


def test_rule_24_an_incomplete_path_has_no_auto_id(echo: Credential, ders: Any, now: datetime) -> None:
    """A leaf without its issuer is sound, nobody's, and shows no AutoId whatever its SAN claims."""
    shown = present(ders(echo)[:1], now=now)
    assert shown.leaf.auto_id == echo.auto_id
    assert shown.auto_id is None
    assert not shown.complete
    assert not shown.bound
    assert not shown.shows(echo.peer_id)


def test_rule_25_a_self_issued_id_links_alone(acme: Credential, ders: Any, now: datetime) -> None:
    """Its own certificate alone is sound; the same certificate as the leaf of anything longer is not."""
    assert present(ders(acme), now=now).auto_id == acme.auto_id
    with pytest.raises(Refused):
        present([*ders(acme), *ders(acme)], now=now)


def test_a_path_shows_the_authorities_that_it_holds(
    acme: Credential, echo: Credential, ders: Any, now: datetime
) -> None:
    """bound, its root's and its leaf's key; not another key or id; and a key principal by its leaf's."""
    shown = present(ders(echo), now=now)
    keys = [key_authority(certificate.spki_sha256) for certificate in echo.chain]
    stranger = key_authority(bytes(32))
    assert all(shown.shows(PeerId(echo.auto_id, authority)) for authority in ("bound", *keys))
    assert shown.shows(PeerId(None, keys[0]))
    assert not shown.shows(PeerId(None, keys[1]))
    assert not shown.shows(PeerId(echo.auto_id, stranger))
    assert not shown.shows(acme.peer_id)


def test_foreign_pki_is_refused_cleanly(now: datetime) -> None:
    """Certificates of an ordinary TLS authority, with and without it, are malformed here, and nothing worse."""
    authority = trustme.CA()
    issued = authority.issue_cert("echo.example", common_name="echo")
    own, ca = (
        x509.load_pem_x509_certificate(pem.bytes()).public_bytes(Encoding.DER)
        for pem in (issued.cert_chain_pems[0], authority.cert_pem)
    )
    for chain in ([own], [own, ca], [ca]):
        with pytest.raises(Refused) as refusal:
            present(chain, now=now)
        assert refusal.value.reason in (MALFORMED, EXPIRED, NOT_YET)


def test_evidence_is_bounded_and_part_of_the_fingerprint(acme: Credential, ders: Any, now: datetime) -> None:
    """Too many items or bytes are refused unread; how bytes are cut into certificates and evidence matters."""
    assert present(ders(acme), evidence=[b"a"], now=now).evidence == (b"a",)
    for evidence in ([b""] * (limits.EVIDENCE + 1), [bytes(limits.EVIDENCE_BYTES + 1)]):
        with pytest.raises(Refused, match="evidence"):
            present(ders(acme), evidence=evidence, now=now)
    different = [([b"ab"], []), ([b"a", b"b"], []), ([b"a"], [b"b"]), ([], [b"ab"]), ([b"ab", b""], [])]
    assert len({fingerprint(*each) for each in different}) == len(different)


def test_hostile_names_are_shown_harmlessly(forge: Forge, now: datetime) -> None:
    """A common name with an escape sequence is refused, and the refusal can be printed."""
    with pytest.raises(Refused) as refusal:
        present(forge("evil\x1b[2Jname").chain, now=now)
    assert str(refusal.value).isprintable()
