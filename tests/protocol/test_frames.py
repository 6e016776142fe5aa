"""Frames: cut from any splitting of the bytes, judged by their header."""

import struct
import time

import pytest

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.protocol.frames import (
    DATA,
    SIZES,
    Frame,
    FrameReader,
    Gathered,
    decode_batch_untrusted,
    encode_batch_frame,
    encode_frame,
)


def read_all(reader):
    found = []
    while (frame := reader.peek()) is not None and (payload := reader.take()) is not None:
        found.append((frame, payload))
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64, 10_000])
def test_frames_come_out_the_same_however_the_bytes_are_cut(step):
    """Also across an ignored frame, whose payload is never kept."""
    wire = (
        encode_frame(Frame.PING, b"12345678") + encode_frame(200, b"x" * 300) + encode_frame(Frame.HELLO, b"h" * 1000)
        + encode_frame(128, b"") + encode_frame(Frame.CANCEL, b"abcde")
    )  # fmt: skip
    reader, found = FrameReader(), []
    assert reader.take() is None
    for start in range(0, len(wire), step):
        reader.feed(memoryview(wire)[start : start + step])
        found += read_all(reader)
    assert found == [
        (Frame.PING, b"12345678"), (Frame.EXTENSION, b""), (Frame.HELLO, b"h" * 1000), (Frame.EXTENSION, b""),
        (Frame.CANCEL, b"abcde"),
    ]  # fmt: skip
    assert len(reader) == 0


@pytest.mark.parametrize("number", [0, 11, 127])
def test_a_type_that_may_not_be_ignored_is_refused_by_its_header(number):
    reader = FrameReader()
    reader.feed(struct.pack(">BI", number, 0))
    with pytest.raises(RemoteProtocolError, match=f"type {number} does not exist"):
        reader.peek()


@pytest.mark.parametrize("frame", list(Frame))
def test_rule_45_a_length_that_the_type_cannot_have_is_refused_before_any_payload_is_kept(frame):
    """One more and one less than the caps of every type; the header is all that was ever received."""
    least, most = SIZES[frame]
    for length in (least - 1, most + 1, 2**32 - 1):
        if length < 0:
            continue
        reader = FrameReader()
        reader.feed(struct.pack(">BI", frame, length))
        with pytest.raises(RemoteProtocolError, match="are possible"):
            reader.peek()
    assert most <= limits.FRAME


@pytest.mark.parametrize("step", [1000, 65_536, 100_001, 10**7])
def test_large_frames_come_out_the_same_however_the_bytes_are_cut(step):
    """Put together in a place of their own, which serves for the next; small ones before, between and behind them."""
    large = [bytes([number]) * size for number, size in enumerate((65_537, 300_000, limits.FRAME, 70_000))]
    ping = encode_frame(Frame.PING, b"12345678")
    wire = ping + b"".join(encode_frame(Frame.BATCH, payload) for payload in large) + ping
    reader, found = FrameReader(), []
    for start in range(0, len(wire), step):
        reader.feed(memoryview(wire)[start : start + step])
        while (frame := reader.peek()) is not None and (payload := reader.take()) is not None:
            assert frame is Frame.PING or memoryview(payload).readonly
            found.append((frame, bytes(payload)))
        assert 0 <= len(reader) <= limits.FRAME + 5
    assert found == [
        (Frame.PING, b"12345678"), *((Frame.BATCH, payload) for payload in large), (Frame.PING, b"12345678"),
    ]  # fmt: skip
    assert len(reader) == 0
    assert reader._place == b""


def test_a_length_alone_takes_no_memory():
    """Five bytes promise 1.3 MiB; the place for them is made when an eighth has come, and `len` tells what is held."""
    reader, eighth = FrameReader(), limits.FRAME // 8
    reader.feed(struct.pack(">BI", Frame.BATCH, limits.FRAME) + bytes(eighth - 10))
    assert reader.peek() is Frame.BATCH
    assert reader.take() is None
    assert (len(reader), len(reader._place)) == (eighth - 5, 0)
    reader.feed(bytes(10))
    assert reader.take() is None
    assert (len(reader), len(reader._place)) == (eighth + 5, limits.FRAME)
    reader.feed(bytes(limits.FRAME - eighth))
    assert reader.take() == bytes(limits.FRAME)
    reader.feed(encode_frame(Frame.PING, bytes(8)))
    assert read_all(reader) == [(Frame.PING, bytes(8))]
    assert len(reader._place) == 0
    reader.feed(struct.pack(">BI", Frame.BATCH, limits.FRAME) + bytes(2 * eighth))
    assert read_all(reader) == []
    reader.clear()
    assert (len(reader), len(reader._place)) == (0, 0)


def test_an_ignored_payload_takes_no_memory():
    """However slowly it comes, and what follows it in the same read is not lost."""
    reader = FrameReader()
    reader.feed(struct.pack(">BI", 255, limits.HELLO))
    assert read_all(reader) == [(Frame.EXTENSION, b"")]
    for _ in range(limits.HELLO // 1024 - 1):
        reader.feed(bytes(1024))
    assert reader._buffer == b""
    assert len(reader) == 1024  # still owed
    reader.feed(bytes(1024) + encode_frame(Frame.PONG, b"87654321"))
    assert read_all(reader) == [(Frame.PONG, b"87654321")]


def test_the_cost_of_a_flood_is_linear_in_its_bytes():
    """2 MiB of small frames in one piece against 4 KiB pieces: a quadratic buffer would be hundreds of times slower."""
    wire = encode_frame(Frame.PING, bytes(8)) * (2**21 // 13)

    def cost(piece):
        reader, start = FrameReader(), time.process_time()
        for position in range(0, len(wire), piece):
            reader.feed(wire[position : position + piece])
            read_all(reader)
        return time.process_time() - start

    assert min(cost(len(wire)) for _ in range(3)) < 10 * min(cost(4096) for _ in range(3))


def test_one_byte_at_a_time_costs_no_more_than_linear():
    """The largest frame, its last 64 KiB byte by byte: nothing is copied per byte."""
    reader = FrameReader()
    reader.feed(struct.pack(">BI", Frame.BATCH, limits.FRAME) + bytes(limits.FRAME - 65_536))
    start = time.process_time()
    for _ in range(65_536):
        reader.feed(b"\0")
        reader.peek()
    assert reader.take() is not None
    assert time.process_time() - start < 5  # copying 1.3 MB each time would take a minute


def test_a_batch_comes_out_as_it_went_in():
    items = [
        (1, 1, b"one", b""), (3, 3, b"three", b""), (2**31 - 1, 0, b"x" * 70_000, b""), (1, DATA, b"leaf", b"d"),
        (1, DATA, b"five", bytes(limits.CHUNK)), (5, 0, b"six", b""),
    ]  # fmt: skip
    (frame,), reader = encode_batch_frame(2**64 - 1, b"s" * 70, items), FrameReader()
    reader.feed(frame)
    assert reader.peek() == Frame.BATCH
    payload = reader.take()
    assert decode_batch_untrusted(payload) == (2**64 - 1, b"s" * 70, items)
    assert len(frame) == 5 + len(payload)


def test_large_data_that_was_gathered_is_not_copied_into_its_frame():
    """Small parts are put together, with leaves and heads, and the bytes are those of the frame that copies them."""
    large = bytes(limits.PART)
    gathered = Gathered([b"a", b"b", large, memoryview(large), bytearray(b"c")])
    items = [(1, 0, b"first", b""), (1, DATA, b"leaf", gathered), (3, 0, b"last", b"")]
    parts = encode_batch_frame(7, b"s", items)
    assert list(map(len, parts[1:3])) == [limits.PART] * 2
    assert parts[1] is large
    assert len(parts) == 4
    items[1] = (1, DATA, b"leaf", b"ab" + 2 * large + b"c")
    assert [b"".join(parts)] == encode_batch_frame(7, b"s", items)


def batch(count, signature, rest):
    return struct.pack(">QHH", 0, count, len(signature)) + signature + rest


def sized(size):
    return struct.pack(">I", size) + bytes(min(size, 2 * limits.CHUNK))


ITEM = struct.pack(">IBI", 1, 0, 4) + b"leaf"
WITH_DATA = struct.pack(">IBI", 1, DATA, 4) + b"leaf"
LARGE = struct.pack(">IBI", 1, DATA, limits.LEAF - 9) + bytes(limits.LEAF - 9)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (batch(0, b"s", ITEM), "BATCH of 0 leaves"),
        (batch(limits.BATCH_LEAVES + 1, b"s", ITEM * (limits.BATCH_LEAVES + 1)), "BATCH of 257 leaves"),
        (batch(1, b"", ITEM), "signature of 0 bytes"),
        (batch(1, bytes(limits.SIGNATURE + 1), ITEM), "signature of 4097 bytes"),
        (batch(1, b"s", struct.pack(">IBI", 1, 0, 0) + b"12345"), "leaf of 0 bytes"),
        (batch(1, b"s", struct.pack(">IBI", 1, 0, limits.LEAF + 1) + b"12345"), "leaf of 1310721 bytes"),
        (batch(2, b"s", ITEM), "cut short"),
        (batch(2, b"s", ITEM + ITEM[:8]), "cut short"),
        (batch(1, b"s", ITEM[:-1]), "do not add up"),
        (batch(1, b"s", ITEM + b"!"), "do not add up"),
        (batch(1, b"s", WITH_DATA + sized(0)), "data of 0 bytes"),
        (batch(1, b"s", WITH_DATA + sized(limits.CHUNK + 1)), "data of 393217 bytes"),
        (batch(1, b"s", WITH_DATA + sized(2**32 - 1)), "data of 4294967295 bytes"),
        (batch(1, b"s", LARGE + sized(10)), "data of 10 bytes beside a leaf of 1310711"),
        (batch(1, b"s", WITH_DATA), "cut short"),
        (batch(1, b"s", WITH_DATA + sized(4)[:-1]), "do not add up"),
        (batch(1, b"s", WITH_DATA + sized(4) + b"!"), "do not add up"),
        (batch(2, b"s", WITH_DATA + sized(4) + b"!"), "cut short"),
        (batch(1, b"s", ITEM + sized(4)), "do not add up"),
        (struct.pack(">QHH", 0, 1, 4096) + b"short of its signature", "cut short"),
    ],
)  # fmt: skip
def test_a_batch_whose_numbers_do_not_fit_is_refused(payload, text):
    with pytest.raises(RemoteProtocolError, match=text):
        decode_batch_untrusted(payload)
