"""Envelopes: one message with its proof, checked far from any link."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import EnvelopeRefused, Reason, UsageError
from autolink.identity import AutoId, Credential, CredentialRequest, EntityKind
from autolink.messages import (
    DIALER,
    LISTENER,
    BatchHeader,
    Envelope,
    Kind,
    Message,
    check_signature,
    encode,
    export,
    microseconds,
    prove_equivocation,
    sign_batch,
    sign_envelope,
    topic,
    verify,
)
from autolink.messages.envelope import TAG
from autolink.trust import IssuedBy, Model, NotVouched, SelfCertified, UnsafeAnyone

fixed = settings(
    deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

BOB = AutoId.derive("bob")
LINK = bytes(range(32))


@pytest.fixture
def envelope(seller, now):
    return sign_envelope(
        seller, recipient=BOB, method="quote", body=codec.encode("tea"), now=now, lifetime=60
    )


@pytest.fixture
def trust(acme):
    return IssuedBy(acme.anchor)


@pytest.fixture
def batch(seller, now):
    """Five messages of one batch on a link, exported."""
    sent = microseconds(now)
    leaves = [
        encode(
            Message(
                bytes([n]) * 16, n, seller.auto_id, BOB, sent, sent + 60_000_000, Kind.ITEM, 1, "", 0, {}, b""
            )
        )
        for n in range(5)
    ]
    header = BatchHeader(seller.leaf.fingerprint, LINK, DIALER, 3, 5)
    signature = sign_batch(seller, LINK, DIALER, 3, leaves)
    chain = [certificate.der for certificate in seller.chain]
    return [export(header, leaves, index, signature=signature, chain=chain) for index in range(5)]


async def refusal(envelope, trust, at, **how):
    with pytest.raises(EnvelopeRefused) as caught:
        await verify(envelope, trust=trust, at=at, **how)
    return caught.value.reason


async def test_rule_32_a_verified_message_says_who_on_what_grounds_and_when(envelope, trust, seller, now):
    """Claimed and proved time are two things, and without evidence nothing is proved."""
    later = now + timedelta(seconds=30)
    verified = await verify(envelope, trust=trust, at=later, recipient=BOB)
    assert verified.author.peer_id == seller.peer_id
    assert "IssuedBy" in str(verified.author.grounds)
    assert codec.decode_untrusted(verified.message.body, what="body") == "tea"
    assert (verified.claimed_time, verified.proved_time, verified.at) == (now, None, later)


async def test_every_message_of_a_batch_can_leave_it(batch, trust, now):
    """Each Envelope goes through bytes and verifies alone, under the link's opaque id."""
    for number, envelope in enumerate(batch):
        again = Envelope.from_untrusted(envelope.to_bytes())
        assert again == envelope
        verified = await verify(again, trust=trust, at=now, recipient=BOB)
        assert verified.message.seq == number


async def test_rule_29_a_message_for_somebody_else_is_refused(envelope, trust, acme, now):
    """A message for bob at acme, or at a topic; an auditor who acts on nothing may still ask who wrote it."""
    assert await refusal(envelope, trust, now, recipient=acme.auto_id) is Reason.WRONG_RECIPIENT
    assert await refusal(envelope, trust, now, recipient=topic(BOB, "tea")) is Reason.WRONG_RECIPIENT
    await verify(envelope, trust=trust, at=now)


async def test_rule_33_a_publication_is_for_the_subscribers_of_its_topic(seller, trust, now):
    """Its recipient is the topic, and only who subscribed to that takes it."""
    mine = topic(seller.auto_id, "prices")
    envelope = sign_envelope(
        seller, recipient=mine, method="prices", body=b"\xc0", now=now, kind=Kind.PUBLISH
    )  # fmt: skip
    await verify(envelope, trust=trust, at=now, recipient=mine)
    assert await refusal(envelope, trust, now, recipient=seller.auto_id) is Reason.WRONG_RECIPIENT
    assert await refusal(envelope, trust, now, recipient=topic(BOB, "prices")) is Reason.WRONG_RECIPIENT


async def test_a_message_is_late_for_who_acts_on_it_and_not_for_who_asks_who_wrote_it(envelope, trust, now):
    """Expired by more than the skew; a day later the author is still the author."""
    tomorrow = now + timedelta(days=1)
    assert await refusal(envelope, trust, tomorrow, recipient=BOB) is Reason.LATE
    await verify(envelope, trust=trust, at=now + timedelta(seconds=120), recipient=BOB)
    await verify(envelope, trust=trust, at=tomorrow)


async def test_rule_32_a_message_from_after_the_callers_time_is_refused(seller, trust, now):
    """`at` is when the caller knows it to have existed: a later signing time contradicts that."""
    signed = now + timedelta(minutes=10)
    envelope = sign_envelope(seller, recipient=BOB, method="quote", body=b"\xc0", now=signed)
    assert await refusal(envelope, trust, signed - timedelta(seconds=61)) is Reason.NOT_YET_VALID
    await verify(envelope, trust=trust, at=signed - timedelta(seconds=60))


async def test_rule_32_the_chain_is_judged_at_the_callers_time_never_at_the_messages(acme, trust, now):
    """A stolen key signs any past: after the certificate's end its messages are refused, whatever date they
    bear."""
    request = CredentialRequest.new("seller")
    short = request.complete(acme.issue(request, kind=EntityKind.AGENT, lifetime=timedelta(hours=1), now=now))
    envelope = sign_envelope(short, recipient=BOB, method="quote", body=b"\xc0", now=now)
    await verify(envelope, trust=trust, at=now + timedelta(minutes=59))
    assert await refusal(envelope, trust, now + timedelta(hours=2)) is Reason.EXPIRED


async def test_a_lifetime_beyond_the_cap_is_refused(seller, trust, now):
    """It would have to be remembered for as long. Ours do not even get signed."""
    with pytest.raises(UsageError, match="lifetime"):
        sign_envelope(seller, recipient=BOB, method="quote", body=b"\xc0", now=now, lifetime=86_401)
    sent = microseconds(now)
    leaf = encode(
        Message(bytes(16), 0, seller.auto_id, BOB, sent, sent + 86_401_000_000, Kind.CALL, 0, "", 0, {}, b"")
    )
    signature = sign_batch(seller, bytes(32), b"e", 0, [leaf])
    chain = tuple(certificate.der for certificate in seller.chain)
    envelope = Envelope(leaf, 0, 1, (), bytes(32), b"e", 0, signature, chain)
    assert await refusal(envelope, trust, now, recipient=BOB) is Reason.MALFORMED


async def test_an_author_whom_nobody_vouches_for_is_refused(envelope, globex, now):
    """Another organisation's anchor, and a model that has no opinion; the reason is the model's."""

    class Nobody(Model):
        async def verify(self, presented, context):
            assert context.direction == "message"
            raise NotVouched("never heard of it")

    assert await refusal(envelope, IssuedBy(globex.anchor), now) is Reason.UNKNOWN_ISSUER
    assert await refusal(envelope, Nobody(), now) is Reason.NOT_VOUCHED


async def test_an_impostor_of_the_same_name_is_refused(envelope, trust, now):
    """Another organisation that calls itself acme issues another seller."""
    other = Credential.self_issued("acme", now=now)
    request = CredentialRequest.new("seller")
    impostor = request.complete(other.issue(request, kind=EntityKind.AGENT, now=now))
    forged = sign_envelope(impostor, recipient=BOB, method="quote", body=b"\xc0", now=now)
    assert await refusal(forged, trust, now) is Reason.UNKNOWN_ISSUER
    claim = forged.claimed._replace(author=envelope.claimed.author)
    leaf = encode(claim)
    swapped = replace(forged, leaf=leaf, signature=sign_batch(impostor, bytes(32), b"e", 0, [leaf]))
    assert await refusal(swapped, SelfCertified(), now) is Reason.IMPOSTOR
    assert await refusal(replace(swapped, chain=envelope.chain), SelfCertified(), now) is Reason.TAMPERED


async def test_a_chain_that_stops_before_its_root_names_no_author(seller, now):
    """Without the complete name path nobody has an Auto ID, and a message needs one: even UnsafeAnyone gives
    none."""
    envelope = sign_envelope(seller, recipient=BOB, method="quote", body=b"\xc0", now=now)
    cut = replace(envelope, chain=envelope.chain[:1])
    assert await refusal(cut, UnsafeAnyone(), now) is Reason.IMPOSTOR


async def test_rule_26_no_model_hears_of_a_chain_whose_key_did_not_sign(envelope, batch, now):
    """A victim's public certificates around a forged message never reach the trust model or its cache."""

    class Never(Model):
        async def verify(self, presented, context):
            raise AssertionError("asked")

    forged = replace(envelope, leaf=batch[0].leaf)
    assert await refusal(forged, Never(), now) is Reason.TAMPERED


CHANGES = {
    "another index": lambda e: replace(e, index=0),
    "the second place that the path fits": lambda e: replace(e, index=2, count=3, path=e.path[:2]),
    "one more leaf": lambda e: replace(e, count=6),
    "another link": lambda e: replace(e, link_id=bytes(32)),
    "the other direction": lambda e: replace(e, role=LISTENER),
    "another number": lambda e: replace(e, number=4),
    "a sibling swapped": lambda e: replace(e, path=(e.path[1], e.path[0], e.path[2])),
    "a hash as leaf": lambda e: replace(e, path=(bytes(32), *e.path[1:])),
    "a flipped signature": lambda e: replace(e, signature=e.signature[:-1] + bytes([e.signature[-1] ^ 1])),
    "no signature at all": lambda e: replace(e, signature=b"\0"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_rule_27_whatever_is_changed_the_signature_no_longer_fits(batch, change):
    """Each part of the batch header, the path and the signature."""
    with pytest.raises(EnvelopeRefused) as caught:
        check_signature(change(batch[1]))
    assert caught.value.reason is Reason.TAMPERED


@fixed
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(batch, data):
    """In leaf, path, header or signature; a changed certificate below the leaf is the trust model's to
    refuse."""
    encoded = bytearray(batch[1].to_bytes())
    end = bytes(encoded).index(batch[1].chain[0]) + len(batch[1].chain[0])
    bit = data.draw(st.integers(0, end * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnvelopeRefused) as caught:
        check_signature(Envelope.from_untrusted(bytes(encoded)))
    assert caught.value.reason in {Reason.MALFORMED, Reason.TAMPERED, Reason.IMPOSTOR}


@fixed
@given(st.binary(max_size=300))
@example(b"")
@example(codec.encode([TAG] + [None] * 10))
@example(codec.encode([TAG, b"", 0, 1, {}, b"", b"", 0, b"", [], []]))
def test_random_bytes_are_no_envelope_and_raise_nothing_else(data):
    """EnvelopeRefused, malformed, by us."""
    with pytest.raises(EnvelopeRefused) as caught:
        Envelope.from_untrusted(data)
    assert (caught.value.reason, caught.value.by) == (Reason.MALFORMED, "us")


@fixed
@given(data=st.data())
def test_any_value_in_any_field_is_refused_or_an_envelope(batch, data):
    """Replace one field of a good Envelope: nothing but EnvelopeRefused comes out."""
    encoded = codec.decode_untrusted(batch[1].to_bytes(), what="test")
    place = data.draw(st.integers(0, 10))
    encoded[place] = data.draw(
        st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.text() | st.binary() | st.floats()
        | st.lists(st.binary() | st.integers(0, 9) | st.none(), max_size=20) | st.dictionaries(st.text(), st.none())
    )  # fmt: skip
    with suppress(EnvelopeRefused):
        again = Envelope.from_untrusted(codec.encode(encoded))
        assert again.to_bytes() == codec.encode(encoded)


def malformed(envelope):
    deep = replace(envelope, index=2**16, count=2**16 + 1, path=(bytes(32),))
    yield "no leaf there", replace(envelope, index=5)
    yield "a negative index", replace(envelope, index=-1)
    yield "no leaves", replace(envelope, index=0, count=0, path=())
    yield "more leaves than any batch", deep
    yield "a path too short", replace(envelope, path=envelope.path[:-1])
    yield "a path too long", replace(envelope, path=(*envelope.path, bytes(32)))
    yield "a short hash", replace(envelope, path=(bytes(31), *envelope.path[1:]))
    yield "an unknown role", replace(envelope, role=b"x")
    yield "a long role", replace(envelope, role=b"dd")
    yield "a short link", replace(envelope, link_id=bytes(31))
    yield "a number beyond 64 bits", replace(envelope, number=-1)
    yield "alone with neighbours", replace(envelope, role=b"e", link_id=bytes(32), number=0)
    yield "no signature", replace(envelope, signature=b"")
    yield "a huge signature", replace(envelope, signature=bytes(limits.SIGNATURE + 1))
    yield "no chain", replace(envelope, chain=())
    yield "five certificates", replace(envelope, chain=envelope.chain[:1] * 5)
    yield "a huge chain", replace(envelope, chain=(bytes(limits.CHAIN_BYTES + 1),))
    yield "much evidence", replace(envelope, evidence=(b"",) * (limits.EVIDENCE + 1))
    yield "huge evidence", replace(envelope, evidence=(bytes(limits.EVIDENCE_BYTES + 1),))
    yield "a leaf that is no message", replace(envelope, leaf=b"\xc0")
    yield "more than any message", replace(envelope, leaf=bytes(limits.LEAF))


MALFORMED = [
    "no leaf there", "a negative index", "no leaves", "more leaves than any batch", "a path too short",
    "a path too long", "a short hash", "an unknown role", "a long role", "a short link", "a number beyond 64 bits",
    "alone with neighbours", "no signature", "a huge signature", "no chain", "five certificates", "a huge chain",
    "much evidence", "huge evidence", "a leaf that is no message", "more than any message",
]  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_an_envelope_out_of_bounds_is_malformed(batch, what):
    """Each bound of the shape, before anything is verified."""
    cases = dict(malformed(batch[1]))
    assert set(cases) == set(MALFORMED)
    with pytest.raises(EnvelopeRefused) as caught:
        Envelope.from_untrusted(cases[what].to_bytes())
    assert caught.value.reason is Reason.MALFORMED


def test_a_first_certificate_that_is_none_is_malformed(envelope):
    """Whatever the parser of certificates says."""
    with pytest.raises(EnvelopeRefused) as caught:
        check_signature(replace(envelope, chain=(b"\x30\x00",)))
    assert caught.value.reason is Reason.MALFORMED


def test_an_envelope_made_by_hand_with_a_broken_leaf_is_refused_not_believed(envelope):
    """`claimed` parses again, so an Envelope that skipped from_untrusted gets no further."""
    with pytest.raises(EnvelopeRefused):
        replace(envelope, leaf=b"junk").claimed  # noqa: B018  the property raises


def test_the_summary_is_safe_to_show_and_claims_only(seller, now):
    """Peer strings go through `display`; it is one JSON object."""
    envelope = sign_envelope(
        seller, recipient=topic(BOB, "\x1b[2J"), method="\x1b]0;x\x07", body=b"\xc0", now=now, headers={"\r": "\n"}
    )  # fmt: skip
    text = json.dumps(envelope.summary(), ensure_ascii=False)
    assert "\x1b" not in text
    assert "\\n" not in text.replace("\\\\", "")
    assert envelope.summary()["author"] == seller.auto_id.hex
    assert envelope.summary()["sent_at"] == "2030-06-01T12:00:00+00:00"


def test_rule_30_every_message_has_a_random_id_that_salts_its_leaf(seller, now):
    """Two equal messages have different leaves: a hash that a proof exports cannot be guessed."""
    made = [sign_envelope(seller, recipient=BOB, method="quote", body=b"\xc0", now=now) for _ in range(2)]
    assert made[0].claimed.id != made[1].claimed.id
    assert made[0].leaf != made[1].leaf


def test_rule_33_two_leaves_of_one_author_and_id_prove_equivocation(seller, now):
    """The same id with another body, under one key; the proof holds both."""
    told = [
        sign_envelope(seller, recipient=BOB, method="quote", body=codec.encode(price), now=now, message_id=bytes(16))
        for price in (250, 200)
    ]  # fmt: skip
    proof = prove_equivocation(*told)
    assert (proof.author, proof.message_id, [proof.first, proof.second]) == (seller.auto_id, bytes(16), told)


def test_rule_33_nothing_else_proves_equivocation(seller, acme, envelope, now):
    """One message twice, two ids, two authors, or a leaf that its author did not sign."""
    other = sign_envelope(seller, recipient=BOB, method="quote", body=b"\xc0", now=now)
    stranger = sign_envelope(
        acme, recipient=BOB, method="quote", body=b"\xc0", now=now, message_id=envelope.claimed.id
    )  # fmt: skip
    for second in (envelope, other, stranger):
        with pytest.raises(UsageError, match="no equivocation"):
            prove_equivocation(envelope, second)
    with pytest.raises(EnvelopeRefused):
        prove_equivocation(
            envelope, replace(other, leaf=encode(other.claimed._replace(id=envelope.claimed.id)))
        )


def test_there_is_no_message_beyond_the_batch(batch, seller):
    """Exporting counts from 0 and never from the end."""
    header = BatchHeader(seller.leaf.fingerprint, LINK, DIALER, 3, 1)
    for index in (-1, 1):
        with pytest.raises(IndexError):
            export(header, [batch[0].leaf], index, signature=b"", chain=[])


def test_the_encoded_fields_are_those_of_the_class(envelope):
    """In order, behind the tag: the specification's table."""
    encoded = codec.decode_untrusted(envelope.to_bytes(), what="test")
    assert encoded[0] == TAG
    for value, field in zip(encoded[1:], fields(envelope), strict=True):
        own = getattr(envelope, field.name)
        assert value == (list(own) if isinstance(own, tuple) else own)
