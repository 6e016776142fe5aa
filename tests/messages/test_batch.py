"""Batch signatures: what each part of the preimage stops."""

from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from autolink.errors import BadSignature
from autolink.identity import Credential, EntityKind, KeyType
from autolink.identity.issuing import build_self_issued
from autolink.messages import DIALER, LISTENER, BatchHeader, merkle, sign_batch, verify_batch

LINK = bytes(range(32))
LEAVES = [b"one", b"two", b"three"]
ROOT = merkle.root([merkle.leaf_hash(leaf) for leaf in LEAVES])


@pytest.fixture
def header(acme):
    return BatchHeader(acme.leaf.fingerprint, LINK, DIALER, 7, 3)


@pytest.fixture
def signature(acme):
    return sign_batch(acme, LINK, DIALER, 7, LEAVES)


def test_a_batch_verifies_under_its_signers_certificate(acme, header, signature):
    """The sender's leaves give the receiver's root."""
    verify_batch(acme.leaf, header, ROOT, signature)


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
def test_every_kind_of_key_signs_and_verifies_batches(kind, now):
    """The scheme follows from the certificate's key."""
    credential = Credential.self_issued("signer", key_type=kind, now=now)
    signature = sign_batch(credential, LINK, LISTENER, 0, LEAVES)
    header = BatchHeader(credential.leaf.fingerprint, LINK, LISTENER, 0, 3)
    verify_batch(credential.leaf, header, ROOT, signature)
    with pytest.raises(BadSignature):
        verify_batch(credential.leaf, header._replace(number=1), ROOT, signature)


@pytest.mark.parametrize(
    "change",
    [{"link_id": bytes(32)}, {"role": LISTENER}, {"number": 6}, {"count": 4}],
    ids=lambda c: next(iter(c)),
)
def test_rule_27_a_signature_is_good_for_one_link_direction_number_and_count(acme, header, signature, change):
    """Another link, a batch sent back to its signer, another place in the order, a tree of another size."""
    with pytest.raises(BadSignature):
        verify_batch(acme.leaf, header._replace(**change), ROOT, signature)


def test_rule_27_a_signature_is_good_under_one_certificate(acme, header, signature, now):
    """The same key in a second certificate is another signer: one key may sit in two."""
    second = build_self_issued(
        acme.name, acme.private_key, kind=EntityKind.ORGANIZATION, next_key_hash=acme.leaf.next_key_hash,
        lifetime=timedelta(days=1), now=now,
    )  # fmt: skip
    assert second.spki == acme.leaf.spki
    for named in (header, header._replace(signer=second.fingerprint)):
        with pytest.raises(BadSignature):
            verify_batch(second, named, ROOT, signature)


def test_rule_27_every_other_leaf_or_order_has_another_root(acme, header, signature):
    """A changed, dropped or swapped message."""
    for leaves in ([b"one", b"two", b"Three"], [b"one", b"two"], [b"two", b"one", b"three"]):
        with pytest.raises(BadSignature):
            verify_batch(
                acme.leaf, header, merkle.root([merkle.leaf_hash(leaf) for leaf in leaves]), signature
            )


def test_rule_27_the_preimage_is_exactly_what_the_specification_says(acme, header):
    """Purpose, certificate, link, role, number, count, root, each of a fixed size."""
    assert header.preimage(ROOT) == (
        b"autolink/1 batch\0" + sha256(acme.leaf.der).digest() + LINK + b"d"
        + bytes.fromhex("000000000000000700000003") + ROOT
    )  # fmt: skip


def test_rule_27_signature_bytes_identify_nothing(acme, header, signature):
    """From a valid ECDSA signature anybody makes a second one, and it verifies."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(signature)
    second = encode_dss_signature(r, order - s)
    assert second != signature
    verify_batch(acme.leaf, header, ROOT, second)
