"""Credentials and anchors: what joins, what does not, and that a key never shows."""

import copy
import os
import pickle
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from autolink.errors import IdentityError
from autolink.identity import (
    BOUND,
    Credential,
    CredentialRequest,
    EntityKind,
    KeyType,
    TrustAnchor,
    dump_chain,
    keys,
)
from autolink.identity.certificate import Certificate
from autolink.identity.issuing import build_self_issued


def key_pem(credential: Credential, encryption: KeySerializationEncryption | None = None) -> bytes:
    return credential.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )


def again(plain: Credential, now: datetime, **changed: Any) -> Certificate:
    """Another self-issued certificate of a plain name, under its own or another key."""
    key = changed.get("key", plain.private_key)
    return build_self_issued(
        plain.name, key, kind=EntityKind.ORGANIZATION, next_key_hash=None, lifetime=None, now=now
    )


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_every_kind_of_key_makes_a_credential_that_signs(kind: KeyType, now: datetime) -> None:
    acme = Credential.self_issued("acme", key_type=kind, now=now)
    request = CredentialRequest.new("seller", key_type=kind)
    seller = request.complete(
        acme.issue(CredentialRequest.from_pem(request.pem), kind=EntityKind.AGENT, now=now)
    )
    assert seller.key_type is kind
    keys.verify(seller.leaf.public_key, seller.sign(b"data"), b"data")
    assert seller.peer_id.auto_id == seller.auto_id
    assert seller.peer_id.authority == BOUND
    assert (seller.name, seller.label, seller.folder, seller.next_key) == ("seller", "seller", None, None)


@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_a_credential_is_read_from_mounted_files(
    seller: Credential, tmp_path: Path, passphrase: str | None
) -> None:
    """Symbolic links are followed here: this is how orchestrators mount secrets."""
    encryption = BestAvailableEncryption(b"secret") if passphrase else None
    (tmp_path / "data.crt").write_bytes(dump_chain(seller.chain))
    (tmp_path / "tls.key").write_bytes(key_pem(seller, encryption))
    (tmp_path / "tls.crt").symlink_to(tmp_path / "data.crt")
    read = Credential.from_pem(tmp_path / "tls.crt", os.fspath(tmp_path / "tls.key"), passphrase=passphrase)
    assert read.peer_id == seller.peer_id
    assert Credential.from_pem(dump_chain(seller.chain), key_pem(seller)).chain == seller.chain


def test_a_key_that_cannot_be_read_says_why(seller: Credential) -> None:
    chain, encrypted = dump_chain(seller.chain), key_pem(seller, BestAvailableEncryption(b"secret"))
    with pytest.raises(IdentityError, match="needs its passphrase"):
        Credential.from_pem(chain, encrypted)
    with pytest.raises(IdentityError, match="passphrase is wrong"):
        Credential.from_pem(chain, encrypted, passphrase="wrong")
    with pytest.raises(IdentityError, match="not encrypted"):
        Credential.from_pem(chain, key_pem(seller), passphrase="secret")
    with pytest.raises(IdentityError, match="malformed"):
        Credential.from_pem(chain, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_a_file_is_read_to_a_bound_only(seller: Credential, tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(bytes(10**6))
    with pytest.raises(IdentityError, match="larger than"):
        Credential.from_pem(tmp_path / "huge", key_pem(seller))
    with pytest.raises(IdentityError, match="larger than"):
        TrustAnchor.load(tmp_path / "huge")


def test_a_chain_that_does_not_join_makes_no_credential(
    seller: Credential, acme: Credential, now: datetime
) -> None:
    other = Credential.self_issued("acme", now=now)
    leaf, root = seller.chain
    for chain, text in (
        ((), "1 to 4"),
        ((leaf,), "not self-issued"),
        ((root, leaf), "bound to another key"),  # behind a root stand its earlier certificates
        ((leaf, other.leaf), "does not join"),
        ((leaf, leaf, root), "does not join"),
        ((leaf, *[root] * 4), "bound to another key"),
        (([leaf] * 5), "1 to 4"),
        ((root,), "private key does not belong"),
    ):
        with pytest.raises(IdentityError, match=text):
            Credential.from_key(chain, seller.private_key)


def test_rule_24_an_id_that_is_not_its_name_paths_makes_no_credential(
    acme: Credential, now: datetime
) -> None:
    """An issuer's certificate says sales; the leaf was made as if it stood directly under acme."""
    from autolink.identity.issuing import build_issued

    request = CredentialRequest.new("sales")
    sales = request.complete(acme.issue(request, kind=EntityKind.ORGANIZATION, may_issue=0, now=now))
    key = keys.generate(KeyType.P256)
    leaf = build_issued(
        "seller",
        key.public_key(),
        kind=EntityKind.AGENT,
        issuer=sales.leaf,
        issuer_id=acme.auto_id,
        issuer_key=sales.private_key,
        may_issue=None,
        lifetime=None,
        now=now,
    )
    with pytest.raises(IdentityError, match="not its name path's"):
        Credential.from_key((leaf, *sales.chain), key)


def test_rule_21_a_name_bound_to_another_key_makes_neither_credential_nor_anchor(
    acme: Credential, now: datetime
) -> None:
    """A thief of the name can write it into a certificate of his own, next key's hash included."""
    thief = keys.generate(KeyType.P256)
    stolen = build_self_issued(
        acme.name,
        thief,
        kind=EntityKind.ORGANIZATION,
        next_key_hash=acme.leaf.next_key_hash,
        lifetime=None,
        now=now,
    )
    assert stolen.auto_id == acme.auto_id
    with pytest.raises(IdentityError, match="bound to another key"):
        Credential.from_key((stolen,), thief)
    with pytest.raises(IdentityError, match="bound to another key"):
        TrustAnchor((stolen,))
    assert not acme.anchor.matches(stolen)


def test_rule_46_a_credential_shows_and_gives_away_no_key(seller: Credential) -> None:
    request = CredentialRequest.new("seller")
    for secret in (seller, request):
        for copying in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                copying(secret)
    assert repr(seller) == f"<Credential 'seller' {seller.auto_id.short} p256>"
    assert repr(request) == "<CredentialRequest 'seller'>"
    assert b"PRIVATE" not in request.pem


def test_an_rsa_key_from_elsewhere_can_hold_an_identity(acme: Credential, now: datetime) -> None:
    key = rsa.generate_private_key(65537, 2048)
    request = CredentialRequest.from_key("legacy", key)
    legacy = request.complete(
        acme.issue(CredentialRequest.from_pem(request.pem), kind=EntityKind.SERVICE, now=now)
    )
    assert legacy.key_type is KeyType.RSA
    keys.verify(legacy.leaf.public_key, legacy.sign(b"data"), b"data")
    p384 = ec.generate_private_key(ec.SECP384R1())
    pem = p384.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(IdentityError, match="not accepted"):
        Credential.from_pem(dump_chain(legacy.chain), pem)


# --- anchors -----------------------------------------------------------------------------------------------


def test_an_anchor_is_read_back_from_its_file(seller: Credential, acme: Credential, tmp_path: Path) -> None:
    path = tmp_path / "acme.pem"
    seller.anchor.save(path)
    read = TrustAnchor.load(path)
    assert read == acme.anchor
    assert (read.auto_id, read.authority, read.name) == (acme.auto_id, BOUND, acme.name)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_an_anchor_file_that_is_none_says_which_file(seller: Credential, tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_bytes(seller.leaf.pem)
    with pytest.raises(IdentityError, match=r"leaf\.pem: the certificate of 'seller' is not self-issued"):
        TrustAnchor.load(tmp_path / "leaf.pem")
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(IdentityError, match=r"empty\.pem"):
        TrustAnchor.load(tmp_path / "empty.pem")
    with pytest.raises(FileNotFoundError):
        TrustAnchor.load(tmp_path / "missing.pem")


def test_rule_21_a_bound_anchor_is_its_id_and_not_its_certificate(acme: Credential, now: datetime) -> None:
    renewed = build_self_issued(
        acme.name,
        acme.private_key,
        kind=EntityKind.ORGANIZATION,
        next_key_hash=acme.leaf.next_key_hash,
        lifetime=None,
        now=now,
    )
    assert renewed != acme.leaf
    assert acme.anchor.matches(renewed)
    assert not acme.anchor.matches(Credential.self_issued("acme", now=now).leaf)


def test_rule_21_a_plain_anchor_is_its_id_and_its_declared_keys(now: datetime) -> None:
    """Two keys of one name are two authorities, unless one anchor declares them as one authority's."""
    ours, theirs = (Credential.self_issued("globex", plain=True, now=now) for _ in range(2))
    assert ours.auto_id == theirs.auto_id
    assert ours.anchor.matches(again(ours, now))
    assert not ours.anchor.matches(theirs.leaf)
    assert ours.anchor.authority != theirs.anchor.authority
    declared = TrustAnchor((ours.leaf, theirs.leaf))
    assert declared.matches(theirs.leaf)
    assert declared.matches(ours.leaf)
    assert declared.authority == ours.anchor.authority
    assert TrustAnchor.from_pem(declared.to_pem()) == declared


def test_one_anchor_is_one_name(acme: Credential, now: datetime) -> None:
    other = Credential.self_issued("globex", plain=True, now=now)
    with pytest.raises(IdentityError, match="cannot be both"):
        TrustAnchor((acme.leaf, other.leaf))
    with pytest.raises(IdentityError, match="1 to 4"):
        TrustAnchor(())


def test_only_an_identity_that_nobody_can_have_had_before_is_made_here(acme: Credential, now: Any) -> None:
    """Replay protection rests on it: a plain name, or an id below a root from elsewhere, may have had an earlier life."""
    request = CredentialRequest.new("seller")
    chain = acme.issue(request, kind=EntityKind.AGENT, now=now)
    assert acme.made_here
    assert request.complete(chain).made_here
    plain = Credential.self_issued("plain", plain=True, now=now)
    assert not plain.made_here
    assert not request.complete(plain.issue(request, kind=EntityKind.AGENT, now=now)).made_here
    assert not Credential.from_key(acme.chain, acme.private_key).made_here
