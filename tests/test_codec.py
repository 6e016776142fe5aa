"""The codec: one encoding per value, a budget before every allocation, and no way to fail but by name."""

import math
import struct
import tracemalloc
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import BodyError, RemoteProtocolError, UsageError

fixed = settings(deadline=None, derandomize=True, database=None)

times = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | times
)
values = st.recursive(plain, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=30)


@fixed
@given(values)
def test_what_is_encoded_is_decoded_to_the_same_value(value):
    """Every value of the documented types comes back equal and of the same types."""
    again = codec.decode_untrusted(codec.encode(value), what="test")
    assert again == value
    assert repr(again) == repr(value)


@fixed
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xdf\xff\xff\xff\xff")
def test_random_bytes_give_a_value_with_this_very_encoding_or_a_protocol_error(data):
    """Nothing but RemoteProtocolError comes out, and what is accepted has one encoding: these bytes."""
    try:
        value = codec.decode_untrusted(data, what="test")
    except RemoteProtocolError:
        return
    assert codec.encode(value) == data


@fixed
@given(values, st.data())
def test_a_changed_byte_never_means_the_same_value(value, data):
    """Flip one bit of an encoding: it is refused, or means something else."""
    encoded = bytearray(codec.encode(value))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    try:
        again = codec.decode_untrusted(bytes(encoded), what="test")
    except RemoteProtocolError:
        return
    assert repr(again) != repr(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "nothing"),
        ("c0c0", "two values"),
        ("92c0", "an array cut short"),
        ("a3c328", "a string cut short"),
        ("a2c328", "text that is not UTF-8"),
        ("a3eda080", "a surrogate in UTF-8"),
        ("c1", "the byte msgpack never uses"),
        ("cc01", "an integer longer than needed"),
        ("d0ff", "a negative integer longer than needed"),
        ("cd00ff", "16 bits for 8"),
        ("ca3f800000", "a 32-bit float"),
        ("d90161", "a string header longer than needed"),
        ("c5000100", "a bytes header longer than needed"),
        ("dc0001c0", "an array header longer than needed"),
        ("de0001a161c0", "a map header longer than needed"),
        ("82a16101a16102", "a key twice"),
        ("82a16101a16101", "a key twice with one value"),
        ("8101c0", "an integer key"),
        ("81c3c0", "a bool key"),
        ("83 01c0 c3c0 cb3ff0000000000000c0", "1, true and 1.0: one key to a dict"),
        ("81c40161c0", "a bytes key"),
        ("81c0c0", "a nil key"),
        ("8190c0", "an array as key: unhashable"),
        ("8180c0", "a map as key: unhashable"),
        ("81d6ff00000000c0", "a time as key"),
        ("d40100", "an extension that we do not know"),
        ("c70001", "an empty extension"),
        ("c705ff0000000000", "a timestamp of 5 bytes"),
        ("d7ff" + struct.pack(">Q", (1 << 34) | 0).hex(), "64 bits for a time that 32 hold, in nanoseconds"),
        ("d7ff" + struct.pack(">Q", 5).hex(), "64 bits for a time that fits in 32"),
        ("d7ff" + struct.pack(">Q", (1_000 << 34) | 2**33).hex()[:-2], "a timestamp cut short"),
        ("d7ff" + struct.pack(">Q", (1_001 << 34) | 5).hex(), "a time finer than a microsecond"),
        ("d7ff" + struct.pack(">Q", (1_000_000_000 << 34) | 5).hex(), "a billion nanoseconds in a second"),
        ("c70cff" + struct.pack(">Iq", 0, 2**62).hex(), "a time no calendar has: OverflowError inside"),
        ("c70cff" + struct.pack(">Iq", 0, -(2**62)).hex(), "a time before every calendar"),
        ("c70cff" + struct.pack(">Iq", 0, 5).hex(), "96 bits for a time that fits in 32"),
        ("ddffffffff", "four billion elements announced"),
        ("dfffffffff", "four billion entries announced"),
        ("c6ffffffff", "four gigabytes announced"),
        ("c9ffffffff05", "a four-gigabyte extension announced"),
    ],
    ids=lambda value: value.replace(" ", "_") if value[:1].isalpha() and " " in value else None,
)
def test_bytes_that_encode_would_not_produce_are_refused(data, why):
    """One line per way to say a value wrongly or twice."""
    with pytest.raises(RemoteProtocolError, match=r"^thing: "):
        codec.decode_untrusted(bytes.fromhex(data), what="thing")


def test_rule_45_amplifying_bytes_are_refused_before_anything_is_built():
    """A MiB of empty maps in one array would become 76 MB of dicts; it is counted, nothing is built."""
    amplifier = b"\xdd" + (limits.MIB).to_bytes(4, "big") + b"\x80" * limits.MIB
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="more than 65536 elements"):
            codec.decode_untrusted(amplifier, what="body")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limits.MIB


def test_rule_45_the_element_budget_is_exact():
    """As many elements as the budget allows pass, one more does not, whatever the bytes between them."""
    pad = "x" * limits.NODES
    fits = codec.encode([pad, *[0] * (limits.NODES - 2)])
    assert len(codec.decode_untrusted(fits, what="body")) == limits.NODES - 1
    with pytest.raises(RemoteProtocolError, match="elements"):
        codec.decode_untrusted(codec.encode([pad, *[0] * (limits.NODES - 1)]), what="body")


def test_rule_45_a_smaller_budget_is_named_in_the_error():
    """The caller of a small structure sets a small budget, and the error tells that one."""
    with pytest.raises(RemoteProtocolError, match="more than 8 elements"):
        codec.decode_untrusted(codec.encode(list(range(9))), what="chunk", nodes=8)


@fixed
@given(values)
def test_rule_45_the_walk_agrees_with_the_decoder_about_every_value(value):
    """With the smallest budget that still fits, walking and decoding find the same end of the value."""

    def elements(item):
        if isinstance(item, list):
            return 1 + sum(map(elements, item))
        if isinstance(item, dict):
            return 1 + sum(1 + elements(entry) for entry in item.values())
        return 1

    data, nodes = codec.encode(value), elements(value)
    assert codec.decode_untrusted(data, what="test", nodes=nodes) == value
    with pytest.raises(RemoteProtocolError):
        codec.decode_untrusted(data + b"\xc0" * nodes, what="test", nodes=nodes)
    with pytest.raises(RemoteProtocolError):
        codec.decode_untrusted(data, what="test", nodes=nodes - 1)


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01", b"\x92\xc0"])
@pytest.mark.parametrize("depth", [33, 600, 2_000, 300_000])
def test_rule_45_deep_nesting_is_refused_and_never_exhausts_a_stack(head, depth):
    """Deeper than 32, deeper than msgpack's packer, than its unpacker, and than any stack."""
    with pytest.raises(RemoteProtocolError):
        codec.decode_untrusted(head * depth + b"\xc0", what="body")


def test_rule_45_the_depth_limit_is_the_same_both_ways():
    """What may be decoded may be encoded: 32 levels in both directions, 33 in neither."""

    def nested(depth):
        value = None
        for level in range(depth):
            value = [value] if level % 2 else {"k": value}
        return value

    assert codec.decode_untrusted(codec.encode(nested(limits.DEPTH)), what="body") == nested(limits.DEPTH)
    with pytest.raises(BodyError, match="deeper than 32"):
        codec.encode(nested(limits.DEPTH + 1))
    with pytest.raises(RemoteProtocolError, match="deeper than 32"):
        codec.decode_untrusted(b"\x91" * 33 + b"\xc0", what="body")


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        {1: "a"},
        {True: "a"},
        {None: "a"},
        {b"k": "a"},
        {(1, 2): "a"},
        {1, 2},
        1j,
        pytest.param(object(), id="an object"),
        datetime(2030, 1, 1),  # noqa: DTZ001  the naive one is the point
        timedelta(1),
        "\ud800",
        ["fine", {"deep": {2: 3}}],
        msgpack.ExtType(5, b"x"),
        msgpack.Timestamp(1, 1),
        {"k": [msgpack.Timestamp(1, 1)]},
        [OrderedDict({1: 2})],  # a subclass packs like its base, so it is looked into like it
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_a_body_error(value):
    """Nothing is encoded that the other side would refuse, at any depth; the text holds no value."""
    with pytest.raises(BodyError) as caught:
        codec.encode(value)
    assert "fine" not in str(caught.value)


def test_a_failed_encoding_leaves_nothing_behind():
    """The packer is shared: an error in the middle of a value must not prefix the next one."""
    with pytest.raises(BodyError):
        codec.encode(["begun", object()])
    assert codec.encode([]) == b"\x90"


def test_a_circle_is_a_body_error():
    """A list that holds itself ends at the depth limit."""
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(BodyError):
        codec.encode(circle)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_keep_their_bits(value):
    """Floats are the 64 bits of IEEE 754, whatever they mean."""
    again = codec.decode_untrusted(codec.encode(value), what="test")
    assert struct.pack(">d", again) == struct.pack(">d", value)


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
        datetime(2514, 5, 30, 1, 53, 4, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    ids=str,
)
def test_every_instant_of_the_calendar_passes_to_the_microsecond(time):
    """The borders of the three timestamp forms and of datetime itself."""
    assert codec.decode_untrusted(codec.encode(time), what="test") == time


def test_an_instant_has_one_encoding_whatever_its_timezone():
    """Noon in two places is one value."""
    there = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert codec.encode(there) == codec.encode(there.astimezone(UTC))


def test_maps_keep_the_order_of_their_keys():
    """Order is part of the bytes, so it is kept; no order is demanded."""
    for value in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
        assert list(codec.decode_untrusted(codec.encode(value), what="test")) == list(value)


def test_a_memoryview_is_decoded_like_bytes():
    """Frames are cut out of a buffer without a copy."""
    data = memoryview(b"xx" + codec.encode({"a": [b"b"]}) + b"yy")[2:-2]
    assert codec.decode_untrusted(data, what="test") == {"a": [b"b"]}


def test_a_default_gives_other_types_a_form():
    """Typed bodies pass what pydantic leaves through a function; what it makes is checked too."""
    assert codec.encode({1, 2}, default=sorted) == codec.encode([1, 2])
    with pytest.raises(BodyError):
        codec.encode({1, 2}, default=dict.fromkeys)
    with pytest.raises(BodyError):
        codec.encode(object(), default=lambda value: value)


def test_a_naive_datetime_is_a_usage_error_where_a_time_is_asked_for():
    """`aware_utc` says what to write instead."""
    with pytest.raises(UsageError, match="timezone"):
        codec.aware_utc(datetime(2030, 1, 1))  # noqa: DTZ001
