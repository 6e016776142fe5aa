"""Identities made by upstream's published SDKs are taken over: key and names stay, everything else is made anew."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autolink.errors import IdentityError, UsageError
from autolink.identity import AutoId, Certificate, EntityKind, KeyType, UpstreamIdentity, keys

VECTORS = Path(__file__).parents[1] / "vectors" / "upstream"
ISSUER = AutoId.parse("2d415a2ed29e118a7918262c99b253556fa57e2e7598208ca0975b7456316360")
TEST = AutoId.parse("83aedb0c3260eb3b37076b5a9aff4b986bea64759ebce46bfbf2155611c9f6c9")
GRANDCHILD = AutoId.parse("dbf8438f29ff75586ffcfae8757002ff533e4a89ba9a5dd834d8222386b07857")

both_sdks_and_keys = pytest.mark.parametrize("key", ["ed25519", "rsa2048"])
both_sdks = pytest.mark.parametrize("sdk", ["python", "typescript"])


def stored(sdk: str, name: str) -> tuple[bytes, bytes]:
    entry = json.loads((VECTORS / f"{sdk}.json").read_text())[name]
    return entry["certificate"].encode(), entry.get("key", "").encode()


def load(sdk: str, name: str) -> UpstreamIdentity:
    return UpstreamIdentity.from_pem(*stored(sdk, name))


@both_sdks_and_keys
@both_sdks
def test_rule_25b_key_and_names_stay_and_the_certificates_are_new(sdk: str, key: str, now: datetime) -> None:
    """A root at once, a leaf through its issuer, and one below that; the ids are those of upstream's registry."""
    old_root, old_leaf, old_nested = (load(sdk, f"{key}.{name}") for name in ("root", "leaf", "nested"))
    root = old_root.self_issue(now=now)
    assert (root.name, root.auto_id, root.leaf.auto_id) == ("issuer", ISSUER, ISSUER)
    assert root.peer_id.authority == f"sha256:{root.leaf.spki_sha256.hex()}"

    assert old_leaf.was_issued_by(root.leaf)
    request = old_leaf.request()
    leaf = request.complete(root.issue(request, kind=EntityKind.ORGANIZATION, may_issue=0, now=now))
    assert (leaf.name, leaf.auto_id) == ("Test", TEST)
    assert leaf.leaf.spki == keys.spki(old_leaf.private_key.public_key())

    request = old_nested.request()
    nested = request.complete(leaf.issue(request, kind=EntityKind.AGENT, now=now))
    assert (nested.name, nested.auto_id) == ("GrandChild", GRANDCHILD)
    keys.verify(nested.leaf.public_key, nested.sign(b"data"), b"data")


@both_sdks
def test_rule_25b_upstreams_san_is_kept_to_be_shown_beside_our_id(sdk: str) -> None:
    root, leaf = load(sdk, "ed25519.root"), load(sdk, "ed25519.leaf")
    twice = b"0xfcb11cfce085bc86d4f0c6eb7a3c34ff512c1c55552b9a9d550c1e51d3ec7d1a".hex()
    expected = {
        "python": "autoid:auto:4f23dd67650f62a3b4605a19b45b3231406f8b9f9d618f3e2769a0c89b281c63",
        "typescript": f"autoid:auto:{twice}",
    }
    assert leaf.san == expected[sdk]
    assert leaf.auto_id(root.auto_id()) == TEST
    assert leaf.san != TEST.uri
    with pytest.raises(UsageError, match="issuer's AutoId"):
        leaf.auto_id()
    with pytest.raises(UsageError, match="issuer's AutoId"):
        root.auto_id(TEST)


def test_rule_25b_the_typescript_sdks_siblings_share_a_san_and_get_ids_of_their_own() -> None:
    leaf, other = load("typescript", "ed25519.leaf"), load("typescript", "ed25519.leaf2")
    assert leaf.san == other.san
    assert leaf.auto_id(ISSUER) != other.auto_id(ISSUER)


def test_rule_25b_an_issued_identity_does_not_issue_itself(now: datetime) -> None:
    leaf = load("python", "ed25519.leaf")
    with pytest.raises(UsageError, match="was issued by 'issuer'"):
        leaf.self_issue(now=now)
    with pytest.raises(IdentityError, match="make a request"):
        load("python", "ed25519.root").self_issue(kind=EntityKind.AGENT, now=now)


def test_rule_25b_an_issuer_of_the_same_name_but_another_key_is_not_its_issuer(now: datetime) -> None:
    """Both SDKs' vectors have a root called "issuer"."""
    leaf = load("python", "ed25519.leaf")
    assert not leaf.was_issued_by(load("typescript", "ed25519.root").self_issue(now=now).leaf)
    assert not leaf.was_issued_by(load("python", "rsa2048.root").self_issue(now=now).leaf)


@both_sdks_and_keys
@both_sdks
def test_rule_25b_an_upstream_certificate_is_never_a_certificate_of_ours(sdk: str, key: str) -> None:
    """The leaf's SAN is no id at all (TypeScript) or not its name path's (Python)."""
    der = x509.load_pem_x509_certificate(stored(sdk, f"{key}.leaf")[0]).public_bytes(Encoding.DER)
    try:
        claimed = Certificate.parse_untrusted(der).auto_id
    except IdentityError:
        claimed = None
    assert claimed != TEST


def test_a_certificate_issued_from_a_hostile_request_is_refused_for_its_content() -> None:
    """Two subjectAltNames, a foreign id first: what upstream's TypeScript SDK copied from a request."""
    hostile, _ = stored("typescript", "hostile_csr")
    _, key = stored("typescript", "ed25519.root")
    with pytest.raises(IdentityError, match="malformed"):
        UpstreamIdentity.from_pem(hostile, key)


def test_a_key_and_a_certificate_of_two_identities_are_refused() -> None:
    certificate, _ = stored("python", "ed25519.root")
    _, key = stored("python", "ed25519.leaf")
    with pytest.raises(IdentityError, match="does not belong"):
        UpstreamIdentity.from_pem(certificate, key)


def test_a_root_that_its_own_key_did_not_sign_is_refused() -> None:
    """Otherwise a name could be taken over by whoever holds some key."""
    certificate, key = stored("python", "ed25519.root")
    parsed = x509.load_pem_x509_certificate(certificate)
    der = parsed.public_bytes(Encoding.DER)
    changed = x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1])).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        UpstreamIdentity.from_pem(changed, key)


def test_a_key_or_a_subject_that_upstream_never_wrote_is_refused(forge: Any) -> None:
    key = keys.generate(KeyType.P256)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, text in (
        ("old", "not signed by its own key"),
        ("o\x1bld", "not allowed in names"),
        ("o" * 33, "32 bytes"),
    ):
        certificate = x509.load_der_x509_certificate(forge(name, key=key)).public_bytes(Encoding.PEM)
        with pytest.raises(IdentityError, match=text):
            UpstreamIdentity.from_pem(certificate, pem)
    nameless = x509.load_der_x509_certificate(forge(subject=[], key=key)).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="cannot be taken over"):
        UpstreamIdentity.from_pem(nameless, pem)


@pytest.mark.parametrize("certificate", [b"", b"hello", bytes(10**6)])
def test_bytes_that_are_no_certificate_are_refused(certificate: bytes) -> None:
    _, key = stored("python", "ed25519.leaf")
    with pytest.raises(IdentityError, match="certificate"):
        UpstreamIdentity.from_pem(certificate, key)


def test_the_key_does_not_show() -> None:
    identity = load("python", "ed25519.root")
    assert "PRIVATE" not in repr(identity).upper()
    assert "Ed25519" not in repr(identity)
