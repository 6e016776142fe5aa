"""Leaves without headers: the quick way writes and accepts exactly what the general one does."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import BodyError, RemoteProtocolError, UsageError
from autolink.identity import AutoId
from autolink.messages import Kind, Message, PlainLeaves, decode_untrusted, encode, topic
from autolink.messages.message import CHANNEL_MAX, KINDS, SEQ_MAX, TIME_MAX

fixed = settings(deadline=None, derandomize=True, database=None, max_examples=300)

AUTHOR, READER, STRANGER = (AutoId.derive(name) for name in ("author", "reader", "stranger"))
TOPIC = topic(AUTHOR, "news")

edges = [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 2**31 - 1, 2**32 - 1, 2**32, 2**63 - 1]
sizes = [0, 1, 0xFF, 0x100, 0xFFFF, 0x10000, limits.MESSAGE]
methods = ["", "m", "echo", "é" * 15 + "x", "x" * 31, "x" * 32, "€" * 85, "x" * limits.METHOD]
timeouts = [*(n for n in edges if n <= TIME_MAX), limits.TIMEOUT, TIME_MAX]
times = st.sampled_from([1, 2**32 - 1, 2**32, TIME_MAX - 1]) | st.integers(
    1_700_000_000_000_000, TIME_MAX - 1
)


@st.composite
def messages(draw):
    """Any message without headers. Half of them are plain, which is what follows on a channel that is open."""
    sent_at = draw(times)
    plain = draw(st.booleans())
    return Message(
        id=draw(st.binary(min_size=16, max_size=16)),
        seq=draw(st.sampled_from(edges) | st.integers(0, SEQ_MAX)),
        author=AUTHOR,
        recipient=draw(st.sampled_from([READER, TOPIC])),
        sent_at=sent_at,
        expires_at=draw(st.integers(sent_at + 1, TIME_MAX)),
        kind=draw(st.sampled_from(Kind)),
        channel=draw(st.sampled_from([n for n in edges if n <= CHANNEL_MAX])),
        method="" if plain else draw(st.sampled_from(methods) | st.text(max_size=60)),
        timeout=0 if plain else draw(st.sampled_from(timeouts) | st.integers(0, limits.TIMEOUT)),
        headers={},
        body=bytes(draw(st.sampled_from(sizes) | st.integers(0, 400))),
    )


def written(message):
    return PlainLeaves(message.author, message.recipient).write(
        message.id,
        message.seq,
        message.sent_at,
        message.expires_at,
        message.kind,
        message.channel,
        message.body,
        message.method,
        message.timeout,
    )


def agrees(leaf, parties, channel):
    """What the quick way says of a leaf is what the general one says, or nothing. Returns whether it said something."""
    quick = PlainLeaves(*parties).read(leaf, channel)
    if quick is None:
        return False
    message = decode_untrusted(leaf)  # raises if the quick way is too generous
    assert quick == (
        message.seq, message.sent_at, message.expires_at, message.kind, message.body, message.method, message.timeout,
    )  # fmt: skip
    assert type(quick[3]) is Kind
    assert (message.author, message.recipient, message.channel) == (*parties, channel)
    assert message.headers == {}
    return True


@fixed
@given(messages())
def test_a_leaf_has_the_bytes_that_the_general_encoder_makes(message):
    """At every edge of every field: number widths, names and bodies of every size, and a clock in 1970."""
    assert written(message) == encode(message)


@fixed
@given(messages())
def test_a_leaf_is_read_as_the_general_decoder_reads_it(message):
    """And none of ordinary times takes the long way."""
    known = agrees(encode(message), (message.author, message.recipient), message.channel)
    assert known == (message.sent_at >= 2**32)


@fixed
@given(messages(), st.data())
def test_whatever_byte_is_changed_the_two_ways_never_differ(message, data):
    """Flipped bits, cut and appended bytes: what the quick way accepts the general one accepts, with these fields."""
    message = message._replace(body=message.body[:300])
    leaf = bytearray(encode(message))
    head = len(leaf) - len(message.body)
    match data.draw(st.sampled_from(["flip", "cut", "append", "double"])):
        case "flip":
            bit = data.draw(st.integers(0, head * 8 - 1))
            leaf[bit // 8] ^= 1 << bit % 8
        case "cut":
            del leaf[data.draw(st.integers(0, len(leaf) - 1)) :]
        case "append":
            leaf += b"\0"
        case "double":
            at = data.draw(st.integers(0, head - 1))
            leaf[at:at] = leaf[at : at + 1]
    agrees(bytes(leaf), (message.author, message.recipient), message.channel)


FIELDS = [bytes(16), 5, AUTHOR.value, READER.value, 2**50, 2**50 + 1, 5, 7, "", 0, {}, b"body"]


def pieces(replaced):
    """A leaf of FIELDS with the encodings of some of them replaced."""
    return b"\x9c" + b"".join(replaced.get(place, codec.encode(field)) for place, field in enumerate(FIELDS))


def test_the_untouched_leaf_takes_the_quick_way():
    """So that the refusals below say something."""
    assert agrees(pieces({}), (AUTHOR, READER), 7)


@pytest.mark.parametrize(
    "replaced",
    [
        {1: b"\xcc\x05"}, {1: b"\xcd\x00\x05"}, {1: b"\xce\0\0\0\x05"}, {1: b"\xcf" + bytes(7) + b"\x05"}, {1: b"\xd0\x05"},
        {1: b"\xcd\x00\xff"}, {1: b"\xce\x00\x00\xff\xff"}, {1: b"\xcf\0\0\0\0\xff\xff\xff\xff"}, {1: b"\xff"},
        {1: b"\xcf\x80" + bytes(7)}, {1: b"\xc3"}, {1: b"\xca\0\0\0\0"},
        {2: b"\xc5\0\x20" + AUTHOR.value}, {2: b"\xd9\x20" + bytes(32)},
        {4: b"\xd3" + (2**50).to_bytes(8)}, {5: b"\xcf" + (2**50).to_bytes(8)}, {5: b"\xcf" + (2**63).to_bytes(8)},
        {4: b"\xcf" + (2**31).to_bytes(8)}, {5: b"\xcb" + bytes(8)},
        {6: b"\xcc\x05"}, {6: b"\x00"}, {6: b"\x0b"}, {6: b"\xd0\x05"},
        {7: b"\xcc\x07"}, {7: b"\xcd\x00\x07"}, {8: b"\xd9\x00"}, {8: b"\xc4\x00"}, {9: b"\xcc\x00"}, {9: b"\xc2"},
        {10: b"\xde\0\0"}, {10: b"\x90"}, {10: b"\xc0"},
        {8: b"\xd9\x01m"}, {8: b"\xda\x00\x01m"}, {8: b"\xdb\0\0\0\x01m"}, {8: b"\xd9\x1f" + b"m" * 31},
        {8: b"\xa1\xff"}, {8: b"\xa3\xed\xa0\x80"}, {8: b"\xa2\xc0\x80"}, {8: b"\xc4\x01m"}, {8: b"\x91\xa1m"},
        {8: b"\xa5m"},
        {8: codec.encode("m" * (limits.METHOD + 1))}, {8: b"\xc0"}, {8: b"\x01"}, {8: b"\xd9"}, {8: b"\xbf"},
        {8: b"\xa1m", 9: b"\xcc\x05"}, {8: b"\xa1m", 9: b"\xd0\x05"}, {8: b"\xa1m", 9: b"\xff"}, {8: b"\xa1m", 9: b"\xc2"},
        {9: codec.encode(TIME_MAX + 1)}, {9: b"\xca\0\0\0\0"}, {8: b"\xa1m", 10: b"\xde\0\0"}, {8: b"\xa1m", 10: b"\xc0"},
        {8: b"\xa1m", 11: b"\xc5\0\x04body"}, {8: b"\xa1m", 11: b""}, {8: b"\xa1m", 10: b"", 11: b""},
        {8: b"\xa1m", 9: b"", 10: b"", 11: b""}, {8: b"", 9: b"", 10: b"", 11: b""},
        {11: b"\xc5\0\x04body"}, {11: b"\xc6\0\0\0\x04body"}, {11: b"\xa4body"},
        {11: b"\xc4\x05body"}, {11: b"\xc4\x03body"},
        {11: b"\xc4"}, {11: b""}, {11: b"\xc5\0"}, {11: b"\xc6\0\0\1\0" + bytes(256)},
        {11: codec.bytes_head(limits.MESSAGE + 1) + bytes(limits.MESSAGE + 1)},
    ],
)  # fmt: skip
def test_what_the_general_decoder_refuses_takes_the_general_way(replaced):
    """Longer encodings, other types, values out of range: the error that is raised is the general decoder's."""
    leaf = pieces(replaced)
    assert not agrees(leaf, (AUTHOR, READER), 7)
    with pytest.raises(RemoteProtocolError):
        decode_untrusted(leaf)


@pytest.mark.parametrize(
    "replaced",
    [
        {2: codec.encode(STRANGER.value)}, {3: codec.encode(STRANGER.value)}, {3: codec.encode(TOPIC)},
        {7: b"\x08"}, {7: b"\x08", 8: b"\xa1m"}, {10: b"\x81\xa1a\xa1b"}, {8: b"\xa1m", 10: b"\x81\xa1a\xa1b"},
    ],
)  # fmt: skip
def test_what_has_headers_or_is_of_other_parties_takes_the_general_way(replaced):
    """Another author, recipient or channel, headers: lawful leaves that somebody has to judge."""
    leaf = pieces(replaced)
    assert not agrees(leaf, (AUTHOR, READER), 7)
    decode_untrusted(leaf)


@pytest.mark.parametrize(
    "replaced",
    [{8: b"\xa1m"}, {9: b"\x01"}, {8: b"\xa1m", 9: b"\xce\1\0\0\0"}, {8: codec.encode("m" * 255)}],
)
def test_a_method_and_a_timeout_take_the_quick_way(replaced):
    """So that the refusals above say something."""
    assert agrees(pieces(replaced), (AUTHOR, READER), 7)


@pytest.mark.parametrize(
    "changed",
    [{"method": "m" * (limits.METHOD + 1)}, {"method": "\ud800"}, {"method": b"m"}, {"method": ["m"]}, {"timeout": -1},
     {"timeout": TIME_MAX + 1}, {"timeout": 2**64}],
)  # fmt: skip
def test_a_field_that_no_peer_would_take_is_refused_in_the_same_words(changed):
    """Whatever is wrong, writing falls back to the general encoder, which says so."""
    message = decode_untrusted(pieces({}))._replace(**changed)
    with pytest.raises((UsageError, BodyError)) as general:
        encode(message)
    with pytest.raises(general.type, match=re.escape(str(general.value))):
        written(message)


def test_a_body_that_is_too_large_is_refused_in_the_same_words():
    """Writing falls back to the general encoder, which says what is wrong."""
    message = decode_untrusted(pieces({}))._replace(body=bytes(limits.MESSAGE + 1))
    with pytest.raises(UsageError, match=f"body: not bytes, or more than {limits.MESSAGE}"):
        written(message)


@fixed
@given(st.integers(0, 2**64 - 1) | st.sampled_from(edges), st.binary(max_size=3), st.binary(max_size=3))
def test_an_unsigned_integer_is_read_at_its_place(value, before, after):
    """Its one encoding, and where the next field begins."""
    encoded = codec.encode(value)
    assert codec.uint_at(before + encoded + after, len(before)) == (value, len(before) + len(encoded))
    for cut in range(1, len(encoded)):
        assert codec.uint_at(before + encoded[:cut], len(before))[0] == -1


@fixed
@given(st.binary(min_size=1, max_size=12))
@example(b"\xc4\x00")
@example(b"\xc5\x01\x00" + bytes(256))
def test_bytes_are_read_at_their_place_if_the_codec_would(data):
    """The reader of single fields accepts what the codec accepts as a byte string, and nothing else."""
    try:
        value = codec.unpack_untrusted(data, what="test")
    except RemoteProtocolError:
        value = None
    expected = value if type(value) is bytes else None
    assert codec.rest_of_bytes(data, 0) == expected
    assert codec.rest_of_bytes(b"xyz" + data, 3) == expected


@pytest.mark.parametrize("size", sizes)
def test_a_head_and_its_bytes_are_the_encoding_of_a_byte_string(size):
    """At every width of the length."""
    value = bytes(size)
    assert codec.bytes_head(size) + value == codec.encode(value)
    assert codec.decode_untrusted(codec.encode(value), what="test") == value


def test_packing_what_has_no_encoding_says_so():
    """As `encode` does."""
    with pytest.raises(BodyError):
        codec.pack(2**64)


def test_every_kind_is_one_byte_in_a_leaf():
    """What the quick way rests on."""
    assert all(0 < number < 0x80 for number in KINDS)
