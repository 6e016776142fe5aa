"""From a bound name's first key to the one in use: each wrong step on the way makes an impostor."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autolink import codec, limits
from autolink.errors import IdentityError, Reason
from autolink.identity import (
    BOUND,
    OID_NEXT_KEY,
    AutoId,
    Certificate,
    Credential,
    CredentialRequest,
    EntityKind,
    KeyType,
    TrustAnchor,
    dump_chain,
    keys,
    load_chain,
)
from autolink.identity.issuing import build_self_issued
from autolink.identity.rotation import TAG, check_rotations, encode_rotations, rotations_in, split_chain


def rotated(credential: Credential, times: int, now: datetime) -> Credential:
    for _ in range(times):
        assert credential.next_key is not None
        credential = credential.rotate(credential.next_key, now=now)
    return credential


@pytest.fixture
def corp(acme: Credential, now: datetime) -> Credential:
    """acme, rotated three times."""
    return rotated(acme, 3, now)


# --- the way that is right ---------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, limits.ROTATIONS])
def test_a_rotated_identity_is_the_same_peer(acme: Credential, now: datetime, times: int) -> None:
    after = rotated(acme, times, now)
    assert after.peer_id == acme.peer_id
    assert after.peer_id.authority == BOUND
    assert after.rotations[0] == acme.leaf
    assert len(after.rotations) == times
    assert after.leaf.spki not in {certificate.spki for certificate in after.rotations}
    assert (after.leaf.common_name, after.leaf.kind) == (acme.leaf.common_name, acme.leaf.kind)
    check_rotations(after.rotations, after.leaf)


def test_it_is_rotated_by_its_public_certificates_and_the_next_key_alone(
    corp: Credential, now: datetime
) -> None:
    """The key in use may be lost."""
    public = load_chain(dump_chain(corp.certificates))
    assert corp.next_key is not None
    after = Credential.rotated(public, corp.next_key, now=now)
    assert after.rotations == (*corp.rotations, corp.leaf)


def test_what_it_commits_to_next_may_be_a_hash_of_a_key_made_elsewhere(
    acme: Credential, now: datetime
) -> None:
    elsewhere = keys.generate(KeyType.ED25519)
    assert acme.next_key is not None
    after = acme.rotate(acme.next_key, next_key_hash=keys.hash_of_key(elsewhere.public_key()), now=now)
    assert after.next_key is None
    assert after.rotate(elsewhere, now=now).key_type is KeyType.ED25519


def test_how_old_the_earlier_certificates_are_does_not_matter(now: datetime) -> None:
    old = Credential.self_issued("acme", lifetime=timedelta(days=1), now=now)
    assert old.next_key is not None
    assert old.rotate(old.next_key, now=now + timedelta(days=900)).peer_id == old.peer_id


def test_the_anchor_of_a_rotated_identity_is_its_first_certificate(
    acme: Credential, corp: Credential, now: datetime
) -> None:
    assert corp.anchor == acme.anchor
    assert agent(corp, now).anchor == acme.anchor
    with pytest.raises(IdentityError, match="bound to another key"):
        TrustAnchor((corp.leaf,))


def agent(issuer: Credential, now: datetime) -> Credential:
    request = CredentialRequest.new("seller")
    return request.complete(issuer.issue(request, kind=EntityKind.AGENT, now=now))


def test_whom_it_issues_is_given_its_rotations_with_the_chain(corp: Credential, now: datetime) -> None:
    request = CredentialRequest.new("seller")
    answer = corp.issue(request, kind=EntityKind.AGENT, now=now)
    assert answer[1:] == corp.certificates
    seller = request.complete(load_chain(dump_chain(answer)))
    assert (seller.chain, seller.rotations) == (answer[:2], corp.rotations)
    assert seller.certificates == answer
    assert seller.evidence == corp.evidence == (encode_rotations(corp.rotations),)
    assert seller.peer_id.authority == BOUND
    with pytest.raises(IdentityError, match="bound to another key"):
        request.complete(answer[:2])


def test_files_and_keys_make_it_again(corp: Credential, seller: Credential) -> None:
    pem = dump_chain(corp.certificates)
    key = corp.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for again in (
        Credential.from_pem(pem, key),
        Credential.from_key(load_chain(pem), corp.private_key),
        Credential.from_key(corp.chain, corp.private_key, rotations=corp.rotations),
    ):
        assert (again.chain, again.rotations, again.peer_id) == (corp.chain, corp.rotations, corp.peer_id)
    assert seller.evidence == ()
    assert seller.certificates == seller.chain


def test_a_list_of_certificates_is_split_at_its_root(corp: Credential, seller: Credential) -> None:
    assert split_chain(corp.certificates) == (corp.chain, corp.rotations)
    assert split_chain(seller.certificates) == (seller.chain, ())
    assert split_chain(seller.chain[:1]) == (seller.chain[:1], ())
    assert split_chain(()) == ((), ())


# --- ways that are wrong -----------------------------------------------------------------------------------


def certify(name: str, key: Any, now: datetime, *, following: Any = None) -> Certificate:
    """A certificate that `key` gives itself under any name."""
    return build_self_issued(
        name, key, kind=EntityKind.ORGANIZATION, lifetime=None, now=now,
        next_key_hash=None if following is None else keys.hash_of_key(following.public_key()),
    )  # fmt: skip


Way = list[Certificate]
"""From the first certificate to the one in use."""


@pytest.fixture
def way(corp: Credential) -> Way:
    return [*corp.rotations, corp.leaf]


def check(way: Way) -> None:
    check_rotations(way[:-1], way[-1])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda way: way[-1:],  # nothing shown
        lambda way: way[1:],  # not from the first
        lambda way: [way[0], *way[2:]],
        lambda way: [*way[:2], way[3]],
        lambda way: [way[0], way[2], way[1], way[3]],
        lambda way: [way[0], *way],  # one twice
        lambda way: [*way[:-1], way[0]],  # back to the first
        lambda way: way[::-1],
        lambda way: [*way, way[1]],
    ],
    ids=range(9),
)  # fmt: skip
def test_a_missing_step_or_another_order_leads_nowhere(way: Way, wrong: Callable[[Way], Way]) -> None:
    check(way)
    with pytest.raises(IdentityError, match="bound to another key") as refusal:
        check(wrong(way))
    assert refusal.value.reason is Reason.IMPOSTOR


def test_another_name_has_another_way(acme: Credential, corp: Credential, now: datetime) -> None:
    """Whoever holds a key that acme once committed to, and names himself otherwise; or the steps of somebody else."""
    other = rotated(Credential.self_issued("acme", now=now), 1, now)
    assert acme.next_key is not None
    renamed = certify("mallory", acme.next_key, now)
    for earlier, current in (
        (other.rotations, corp.leaf),
        (corp.rotations, other.leaf),
        ((other.leaf, *corp.rotations[1:]), corp.leaf),
        (corp.rotations[:1], renamed),
        ((acme.leaf, renamed), corp.leaf),
    ):
        with pytest.raises(IdentityError) as refusal:
            check_rotations(earlier, current)
        assert refusal.value.reason is Reason.IMPOSTOR


def test_a_step_under_another_name_does_not_count(acme: Credential, now: datetime) -> None:
    """Every key is the right one; the certificate in the middle is of another name."""
    second, third = acme.next_key, keys.generate(KeyType.P256)
    assert second is not None
    current = certify(acme.name, third, now)
    check([acme.leaf, certify(acme.name, second, now, following=third), current])
    with pytest.raises(IdentityError, match="rotation 1 is not one that it gave itself"):
        check([acme.leaf, certify("mallory", second, now, following=third), current])


def test_a_step_that_commits_to_nothing_is_the_last(acme: Credential, now: datetime) -> None:
    second, third = acme.next_key, keys.generate(KeyType.P256)
    assert second is not None
    last = certify(acme.name, second, now)
    check([acme.leaf, last])
    with pytest.raises(IdentityError, match="rotation 2 is not the one committed to"):
        check([acme.leaf, last, certify(acme.name, third, now)])


def test_who_has_seen_the_second_public_key_cannot_say_what_follows_it(
    acme: Credential, forge: Any, now: datetime
) -> None:
    """He can write a certificate with its bytes and a hash of his own key beside them, but not sign it."""
    second, own = acme.next_key, keys.generate(KeyType.P256)
    assert second is not None
    forged = Certificate.parse_untrusted(
        forge(
            acme.name,
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(acme.auto_id.uri)]),
            x509.UnrecognizedExtension(OID_NEXT_KEY, b"\x04\x20" + keys.hash_of_key(own.public_key())),
            key=own,
            public_key=second.public_key(),
        )
    )
    assert (forged.common_name, forged.auto_id) == (acme.name, acme.auto_id)
    assert forged.spki_sha256 == acme.leaf.next_key_hash
    with pytest.raises(IdentityError, match="rotation 1 is not one that it gave itself") as refusal:
        check([acme.leaf, forged, certify(acme.name, own, now)])
    assert refusal.value.reason is Reason.IMPOSTOR


def test_who_has_the_first_key_cannot_go_on_from_it(acme: Credential, now: datetime) -> None:
    """A thief of the first key writes what it commits to anew, and has another name then."""
    own = keys.generate(KeyType.P256)
    stolen = certify(acme.name, acme.private_key, now, following=own)
    with pytest.raises(IdentityError, match="the first certificate"):
        check([stolen, certify(acme.name, own, now)])


def test_a_step_with_another_id_does_not_count(acme: Credential, forge: Any, now: datetime) -> None:
    second, third = acme.next_key, keys.generate(KeyType.P256)
    assert second is not None
    for uri in (AutoId.derive("mallory").uri, None):
        names = [] if uri is None else [x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])]
        step = forge(
            acme.name,
            *names,
            x509.UnrecognizedExtension(OID_NEXT_KEY, b"\x04\x20" + keys.hash_of_key(third.public_key())),
            key=second,
        )
        with pytest.raises(IdentityError, match="rotation 1 is not one that it gave itself"):
            check([acme.leaf, Certificate.parse_untrusted(step), certify(acme.name, third, now)])


def test_more_rotations_than_can_be_shown(acme: Credential, now: datetime) -> None:
    most = rotated(acme, limits.ROTATIONS, now)
    assert most.next_key is not None
    with pytest.raises(IdentityError, match=f"1 to {limits.ROTATIONS} can be shown"):
        most.rotate(most.next_key, now=now)


def test_as_many_large_ones_as_fit_beside_the_longest_chain(now: datetime) -> None:
    """Seven of ML-DSA: with them a HELLO after resumption, or an EVIDENCE frame, is full."""
    root = Credential.self_issued("a" * 32, key_type=KeyType.ML_DSA_65, now=now)
    most = rotated(root, 7, now)
    assert most.next_key is not None
    with pytest.raises(IdentityError, match=f"more than {limits.ROTATIONS_BYTES} bytes"):
        most.rotate(most.next_key, now=now)
    holder = most
    for place, name in enumerate("bcd"):
        request = CredentialRequest.new(name * 64, key_type=KeyType.ML_DSA_65)
        answer = holder.issue(
            request, kind=EntityKind.ORGANIZATION, may_issue=1 - place if place < 2 else None, now=now
        )
        holder = request.complete(answer)
    assert len(holder.chain) == limits.CHAIN
    said = {"chain": [certificate.der for certificate in holder.chain], "evidence": list(holder.evidence)}
    hello = {"versions": [1], "clock": 2**63 - 1, "software": "x" * 64, "limits": dict.fromkeys("abc", 2**32)}
    assert len(codec.encode(said | hello)) <= limits.HELLO
    assert sum(map(len, holder.evidence)) < limits.EVIDENCE_BYTES


def test_a_plain_name_has_no_rotations(acme: Credential, now: datetime) -> None:
    plain = Credential.self_issued("acme", plain=True, now=now)
    after = plain.rotate(keys.generate(KeyType.P256), now=now)
    assert (after.rotations, after.evidence) == ((), ())
    assert after.peer_id != plain.peer_id
    with pytest.raises(IdentityError, match="commits to no next key"):
        Credential.from_key((*after.chain, plain.leaf), after.private_key)


def test_what_cannot_be_rotated(acme: Credential, seller: Credential, now: datetime) -> None:
    assert acme.next_key is not None
    with pytest.raises(IdentityError, match="by its issuer, not by itself: make a new request"):
        seller.rotate(keys.generate(KeyType.P256), now=now)
    with pytest.raises(IdentityError, match="another next key than this one"):
        acme.rotate(keys.generate(KeyType.P256), now=now)
    with pytest.raises(IdentityError, match="must be another one"):
        acme.rotate(acme.next_key, next_key_hash=acme.leaf.next_key_hash, now=now)


# --- evidence ----------------------------------------------------------------------------------------------


def test_the_evidence_is_found_among_others(corp: Credential) -> None:
    (item,) = corp.evidence
    assert rotations_in([b"", b"of a kind that nobody knows", item, b"\x92"]) == corp.rotations
    assert rotations_in([b"\x93" + item[1:], b"\x92\xd9" + item[2:], item]) == corp.rotations
    assert rotations_in([]) == rotations_in([b"\x92" + codec.encode("autolink/1 rotation")]) == ()


@pytest.mark.parametrize(
    "item",
    [
        [TAG, []],
        [TAG, [b""]],
        [TAG, [b"junk"]],
        [TAG, ["text"]],
        [TAG, b"no list"],
        [TAG, {}],
        [TAG, [None]],
        [TAG, [bytes(limits.CERTIFICATE + 1)]],
        [TAG, [[[]]]],
        [TAG, [b"junk"] * 1000],
    ],
    ids=range(10),
)
def test_evidence_that_is_malformed_shows_nothing(corp: Credential, item: list[object]) -> None:
    with pytest.raises(IdentityError):
        check_rotations(rotations_in([codec.encode(item)]), corp.leaf)


def test_no_byte_of_the_evidence_can_be_another(acme: Credential, now: datetime) -> None:
    """But those of the current certificate's forerunner that nothing rests on, of which there are none: it is signed."""
    after = rotated(acme, 1, now)
    (item,) = after.evidence
    for place in range(len(item)):
        changed = bytearray(item)
        changed[place] ^= 1
        with pytest.raises(IdentityError):
            check_rotations(rotations_in([bytes(changed)]), after.leaf)


def test_half_an_item_shows_nothing(corp: Credential) -> None:
    (item,) = corp.evidence
    for length in range(0, len(item), 97):
        with pytest.raises(IdentityError):
            check_rotations(rotations_in([item[:length]]), corp.leaf)
    with pytest.raises(IdentityError):
        rotations_in([item + b"\x00"])
