"""Leaves: every field in its one form and range, both ways."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import BodyError, EnvelopeRefused, Reason, RemoteProtocolError, UsageError
from autolink.identity import AutoId
from autolink.messages import (
    Kind,
    Message,
    check_times,
    decode_untrusted,
    encode,
    instant,
    microseconds,
    topic,
)
from autolink.messages.message import CHANNEL_MAX, ENDING, OPENING, SEQ_MAX, TIME_MAX

fixed = settings(deadline=None, derandomize=True, database=None)

ALICE, BOB = AutoId.derive("alice"), AutoId.derive("bob")
MESSAGE = Message(bytes(16), 0, ALICE, BOB, 1_000, 2_000, Kind.CALL, 1, "quote", 0, {}, b"\xc0")

auto_ids = st.binary(min_size=32, max_size=32).map(AutoId)
short_text = st.text(max_size=60)
messages = st.builds(
    Message,
    id=st.binary(min_size=16, max_size=16),
    seq=st.integers(0, SEQ_MAX),
    author=auto_ids,
    recipient=auto_ids | st.builds(topic, auto_ids, st.text(min_size=1, max_size=60)),
    sent_at=st.integers(0, TIME_MAX // 2),
    expires_at=st.integers(TIME_MAX // 2 + 1, TIME_MAX),
    kind=st.sampled_from(Kind),
    channel=st.integers(0, CHANNEL_MAX),
    method=short_text,
    timeout=st.integers(0, TIME_MAX),
    headers=st.dictionaries(short_text, short_text, max_size=5),
    body=st.binary(max_size=100),
)


@fixed
@given(messages)
def test_a_message_comes_back_from_its_leaf(message):
    """Equal in every field, with the very types, and its leaf is the only one it has."""
    leaf = encode(message)
    again = decode_untrusted(leaf)
    assert again == message
    assert [type(field) for field in again] == [type(field) for field in message]
    assert encode(again) == leaf


@fixed
@given(st.binary(max_size=300))
@example(b"")
@example(b"\x9c" + b"\xc0" * 12)
def test_random_bytes_are_no_message_and_raise_nothing_else(data):
    """RemoteProtocolError and nothing else."""
    with pytest.raises(RemoteProtocolError):
        decode_untrusted(data)


@fixed
@given(messages, st.data())
def test_a_mangled_leaf_is_refused_or_another_message(message, data):
    """Replace any field by any value, or flip any bit: no other exception, never the same message."""
    leaf = encode(message)
    if data.draw(st.booleans()):
        mangled = bytearray(leaf)
        bit = data.draw(st.integers(0, len(leaf) * 8 - 1))
        mangled[bit // 8] ^= 1 << bit % 8
    else:
        fields = codec.decode_untrusted(leaf, what="test")
        place = data.draw(st.integers(0, 11))
        fields[place] = data.draw(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
            | st.lists(st.text()) | st.dictionaries(st.text(), st.booleans())
        )  # fmt: skip
        mangled = bytearray(codec.encode(fields))
    try:
        again = decode_untrusted(bytes(mangled))
    except RemoteProtocolError:
        return
    assert (again == message) == (mangled == leaf)


HEX = "ab" * 32
WRONG = [
    (0, bytes(15), "id"),
    (0, "0123456789abcdef", "id"),
    (1, -1, "seq"),
    (1, True, "seq"),
    (1, 2**63, "seq"),
    (2, bytes(31), "author"),
    (2, HEX, "author"),
    (3, bytes(33), "recipient"),
    (3, "", "recipient"),
    (3, HEX, "recipient"),
    (3, f"topic:{HEX}", "recipient"),
    (3, f"topic:{HEX}/", "recipient"),
    (3, f"topic:{HEX.upper()}/prices", "recipient"),
    (3, f"topic:{HEX[:-2]}/prices", "recipient"),
    (3, f"topic:{HEX[:-1]}g/prices", "recipient"),
    (3, f"topic:{HEX[:-1]}٣/prices", "recipient"),
    (3, f"Topic:{HEX}/prices", "recipient"),
    (3, f"topic:{HEX}/{'x' * 256}", "recipient"),
    (3, f"topic:{HEX}/{'é' * 128}", "recipient"),
    (3, ["topic"], "recipient"),
    (4, -1, "times"),
    (4, 2_000, "times"),
    (4, 1_000.0, "times"),
    (5, TIME_MAX + 1, "times"),
    (5, None, "times"),
    (6, 0, "kind"),
    (6, 11, "kind"),
    (6, True, "kind"),
    (6, 1.0, "kind"),
    (6, [], "kind"),
    (7, -1, "channel"),
    (7, 2**31, "channel"),
    (7, True, "channel"),
    (8, "x" * 256, "method"),
    (8, "é" * 128, "method"),
    (8, b"quote", "method"),
    (9, -1, "timeout"),
    (9, 0.5, "timeout"),
    (10, None, "headers"),
    (10, [], "headers"),
    (10, {"a": 1}, "headers"),
    (10, {"a": b"b"}, "headers"),
    (10, {str(number): "" for number in range(33)}, "headers"),
    (10, {"a": "x" * limits.HEADERS_BYTES}, "headers"),
    (10, {"a": "é" * (limits.HEADERS_BYTES // 2)}, "headers"),
    (11, "text", "body"),
    (11, None, "body"),
    (11, bytes(limits.MESSAGE + 1), "body"),
]


@pytest.mark.parametrize(("place", "value", "field"), WRONG, ids=range(len(WRONG)))
def test_a_field_of_the_wrong_type_or_out_of_range_is_refused(place, value, field):
    """The error names the field and holds nothing of the peer's."""
    fields = [*MESSAGE]
    fields[2:4] = [ALICE.value, BOB.value]
    fields[place] = value
    with pytest.raises(RemoteProtocolError, match=rf"^message: {field}: "):
        decode_untrusted(codec.encode(fields))


@pytest.mark.parametrize(
    "change",
    [
        {"id": bytes(15)},
        {"expires_at": 1_000},
        {"recipient": "everybody"},
        {"method": "x" * 256},
        {"headers": {"a": "x" * limits.HEADERS_BYTES}},
        {"body": bytes(limits.MESSAGE + 1)},
        {"kind": Kind.FORWARD, "body": bytes(limits.LEAF)},
    ],
    ids=lambda change: "+".join(change),
)
def test_what_no_peer_would_accept_is_not_encoded(change):
    """The same rules before sending, as our own caller's error."""
    with pytest.raises(UsageError, match=r"^message: "):
        encode(MESSAGE._replace(**change))


def test_a_lone_surrogate_is_the_callers_error():
    """Text that has no UTF-8 is refused in method and headers alike."""
    for change in ({"method": "\ud800"}, {"headers": {"\ud800": ""}}):
        with pytest.raises(BodyError):
            encode(MESSAGE._replace(**change))


@pytest.mark.parametrize("count", [0, 11, 13])
def test_an_array_of_another_length_is_no_message(count):
    """Twelve fields, no more for a newer version: the version is the link's."""
    with pytest.raises(RemoteProtocolError, match="twelve"):
        decode_untrusted(codec.encode([None] * count))


def test_the_largest_message_and_the_largest_forwarded_one_pass():
    """A body of 1 MiB; a forwarded Envelope may be larger, for it holds one and its chain."""
    for kind, size in ((Kind.CALL, limits.MESSAGE), (Kind.FORWARD, limits.LEAF - 300)):
        message = MESSAGE._replace(kind=kind, body=bytes(size))
        assert decode_untrusted(encode(message)) == message
    with pytest.raises(RemoteProtocolError, match="more than"):
        decode_untrusted(bytes(limits.LEAF + 1))


def test_headers_carry_a_trace_context_unread():
    """W3C traceparent is a header like any other; nobody here parses it."""
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b"}
    assert decode_untrusted(encode(MESSAGE._replace(headers=headers))).headers == headers


def test_kinds_either_open_or_end_or_neither():
    """No kind does both."""
    assert not OPENING & ENDING


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_topic_without_a_proper_name_is_the_callers_error(name):
    """As `recipient` would be refused."""
    with pytest.raises(UsageError):
        topic(ALICE, name)


@pytest.mark.parametrize(
    ("now", "lifetime", "reason"),
    [
        (1_000_000_000, 10, None),
        (1_010_000_000 + 60_000_000, 10, None),
        (1_010_000_000 + 60_000_001, 10, Reason.LATE),
        (1_000_000_000 - 60_000_000, 10, None),
        (1_000_000_000 - 60_000_001, 10, Reason.NOT_YET_VALID),
        (1_000_000_000, 9.9, Reason.MALFORMED),
    ],
)
def test_times_are_exact_to_the_microsecond_with_the_skew_on_both_sides(now, lifetime, reason):
    """Late, from the future, or made to live too long; the borders themselves pass."""
    message = MESSAGE._replace(sent_at=1_000_000_000, expires_at=1_010_000_000)
    if reason is None:
        check_times(message, now=now, lifetime=lifetime)
        return
    with pytest.raises(EnvelopeRefused) as caught:
        check_times(message, now=now, lifetime=lifetime)
    assert caught.value.reason is reason


@pytest.mark.parametrize("time", [0, 1, 253_402_300_799_999_999])
def test_times_convert_without_loss(time):
    """Every time that a message may carry is an instant, and back."""
    assert microseconds(instant(time)) == time
