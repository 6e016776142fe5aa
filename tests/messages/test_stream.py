"""Byte streams: chunks in order, and one signed root for the whole."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import (
    BadSignature,
    EnvelopeRefused,
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
    UsageError,
)
from autolink.identity import AutoId
from autolink.messages import (
    CHUNK_BODY,
    CHUNK_LEAF,
    ChunkReader,
    ChunkWriter,
    Kind,
    Message,
    PlainLeaves,
    check_content,
    merkle,
)
from autolink.messages.message import CHANNEL_MAX, SEQ_MAX, TIME_MAX
from autolink.messages.stream import ContentRoot, parse_untrusted

fixed = settings(deadline=None, derandomize=True, database=None)
ID = bytes(range(16))


def made(writer, *parts):
    """The body of one chunk of `parts`."""
    for part in parts:
        writer.take(part)
    return writer.chunk()[0]


def bodies(*parts):
    writer = ChunkWriter(ID)
    return [*(made(writer, part) for part in parts), writer.last()]


def chunks(*parts):
    """Each body with the bytes beside it."""
    return list(zip(bodies(*parts), [*parts, b""], strict=True))


def chunk(index, data, stream_id=ID):
    return codec.encode([stream_id, index, len(data), sha256(b"\0" + data).digest()]), data


def last_chunk(body, kind=Kind.CHUNK):
    author = AutoId.derive("acme")
    return Message(bytes(16), 0, author, author, 0, 1, kind, 1, "", 0, {}, body)


@fixed
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
def test_what_is_written_is_read(parts):
    """The bytes come out chunk by chunk, and the last body completes them."""
    reader = ChunkReader()
    *all_but_last, last = chunks(*parts)
    assert [reader.receive(*one) for one in all_but_last] == parts
    assert not reader.complete
    assert reader.receive(*last) is None
    assert reader.complete
    assert reader.total == sum(map(len, parts))


def test_rule_31_the_last_chunk_signs_the_whole_however_it_was_chunked():
    """200,000 bytes in chunks of three sizes: one root, over pieces of 64 KiB, and the saved file checks
    against it."""
    content = bytes(range(256)) * 800
    roots = set()
    for size in (1_000, limits.PIECE, limits.CHUNK):
        last = bodies(*(content[at : at + size] for at in range(0, len(content), size)))[-1]
        _, _, is_last, total, root, _ = parse_untrusted(last)
        assert (is_last, total) == (True, len(content))
        roots.add(root)
        check_content(last_chunk(last), [content])
        check_content(last_chunk(last), (content[at : at + 777] for at in range(0, len(content), 777)))
    one, two, three, rest = (
        sha256(b"\0" + content[at : at + limits.PIECE]).digest()
        for at in range(0, len(content), limits.PIECE)
    )
    node = sha256(b"\1" + one + two).digest() + sha256(b"\1" + three + rest).digest()
    assert roots == {sha256(b"\1" + node).digest()}
    assert parse_untrusted(bodies(content)[0]).root in roots  # the hash of a chunk is such a root too


@pytest.mark.parametrize("content", [b"", b"content.", b"CONTENT"])
def test_rule_31_other_bytes_than_the_signed_ones_are_refused(content):
    """Nothing, one byte more, other bytes."""
    with pytest.raises(EnvelopeRefused) as caught:
        check_content(last_chunk(bodies(b"content")[-1]), [content])
    assert caught.value.reason is Reason.TAMPERED


@pytest.mark.parametrize(
    "message",
    [last_chunk(bodies(b"x")[0]), last_chunk(b"junk"), last_chunk(bodies()[-1], Kind.ITEM)],
    ids=["a middle chunk", "no chunk", "another kind"],
)
def test_only_a_last_chunk_says_anything_about_the_whole(message):
    """Everything else is malformed."""
    with pytest.raises(EnvelopeRefused) as caught:
        check_content(message, [])
    assert caught.value.reason is Reason.MALFORMED


def test_an_empty_stream_is_complete_at_once():
    """No chunk, a total of 0, the root of the empty tree."""
    reader = ChunkReader()
    assert reader.receive(bodies()[0]) is None
    assert reader.complete


def wrong_sequences():
    first, second, last = chunks(b"a", b"b")
    other = chunk(1, b"b", bytes(16))
    yield "a chunk twice", [first, first]
    yield "a chunk left out", [second]
    yield "an end before the chunks", [last]
    yield "an end too early", [first, (codec.encode([ID, 1, None, 2, bytes(32)]), b"")]
    yield "another stream", [first, other]
    yield "a wrong root", [first, (codec.encode([ID, 1, None, 1, bytes(32)]), b"")]
    yield "after the end", [first, second, last, chunk(3, b"c")]
    yield "the end twice", [first, second, last, last]
    yield "a chunk without its bytes", [first, (second[0], b"")]
    yield "bytes beside the end", [first, second, (last[0], b"c")]


SEQUENCES = dict(wrong_sequences())


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_chunks_out_of_place_break_the_protocol(sequence):
    """All but the last body of each sequence pass; the last one raises."""
    reader = ChunkReader()
    for one in sequence[:-1]:
        reader.receive(*one)
    with pytest.raises(RemoteProtocolError, match=r"^chunk: "):
        reader.receive(*sequence[-1])


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"abc", b"abd"), (b"abc", b"ab"), (b"abc", b"abcd"), (b"abc", b"\0abc"),
        (bytes(limits.CHUNK), bytes(limits.CHUNK - 1)), (bytes(limits.CHUNK), bytes(limits.CHUNK - 1) + b"x"),
        (bytes(limits.PIECE) + b"x" * limits.PIECE, b"x" * limits.PIECE + bytes(limits.PIECE)),
    ],
    ids=["changed", "shorter", "longer", "with the hash's own prefix", "a zero less", "its last piece", "pieces swapped"],
)  # fmt: skip
def test_bytes_that_a_chunk_does_not_sign_are_refused(body, data):
    """As forged: nothing of them is given out, and the stream goes on with the right ones."""
    reader = ChunkReader()
    signed = bodies(body)[0]
    with pytest.raises(BadSignature):
        reader.receive(signed, data)
    assert reader.total == 0
    assert reader.receive(signed, body) == body


@pytest.mark.parametrize(
    "sizes",
    [
        [limits.CHUNK] * 3, [limits.CHUNK, 5], [7], [limits.PIECE, 3 * limits.PIECE, limits.CHUNK],
        [7, limits.CHUNK - 7, limits.CHUNK, 1],
    ],
)  # fmt: skip
def test_a_byte_is_hashed_once_where_chunks_end_with_the_pieces(monkeypatch, sizes):
    """At both ends; of the rest, which begins within a piece, once more."""
    taken = 0

    class Counting:
        def __init__(self):
            self.inner = sha256(b"\0")
            self.digest = self.inner.digest

        def update(self, data):
            nonlocal taken
            taken += len(data)
            self.inner.update(data)

    monkeypatch.setattr(merkle, "begun_leaf", Counting)
    reader, parts = ChunkReader(), [bytes(size) for size in sizes]
    for body, data in chunks(*parts):
        reader.receive(body, data)
    assert reader.complete
    again = sum(sizes[1:2]) if sizes[0] == 7 else 0
    assert taken == 2 * (sum(sizes) + again)


@pytest.mark.parametrize(
    "fields",
    [
        [ID, 0, 0, bytes(32)],
        [ID, 0, limits.CHUNK + 1, bytes(32)],
        [ID, 0, -1, bytes(32)],
        [ID[:15], 0, 1, bytes(32)],
        [ID, True, 1, bytes(32)],
        [ID, 0, True, bytes(32)],
        [ID, 0, 1, bytes(31)],
        [ID, 0, 1, bytes(33)],
        [ID, 0, 1, "x" * 32],
        [ID, 0, b"x", bytes(32)],
        [ID, 0, b"x"],
        [ID, 0, None],
        [ID, 0, None, bytes(32)],
        [ID, 0, None, 0, bytes(31)],
        [ID, 0, None, False, bytes(32)],
        [ID, 0, 1, 0, bytes(32)],
        [ID, 0, 1, bytes(32), 0],
        [],
        None,
        {"a": 1},
    ],
    ids=range(20),
)
def test_a_body_that_is_no_chunk_breaks_the_protocol(fields):
    """An empty chunk among them: it would cost us and bring nothing."""
    with pytest.raises(RemoteProtocolError, match=r"^chunk: "):
        parse_untrusted(codec.encode(fields))


@fixed
@given(st.binary(max_size=100))
def test_random_bytes_are_no_chunk_and_raise_nothing_else(data):
    """RemoteProtocolError and nothing else."""
    with pytest.raises(RemoteProtocolError):
        parse_untrusted(data)


@pytest.mark.parametrize("data", [b"", bytes(limits.CHUNK + 1)], ids=["empty", "too long"])
def test_a_chunk_of_the_wrong_size_is_the_callers_error(data):
    """And the stream goes on."""
    writer = ChunkWriter(ID)
    with pytest.raises(UsageError):
        writer.take(data)
    with pytest.raises(UsageError):
        writer.chunk()
    assert ChunkReader().receive(made(writer, b"fine"), b"fine") == b"fine"


def test_what_gathers_in_a_chunk_is_bounded_in_bytes_and_in_number():
    """The next one begins where it ends; one that begins within a piece ends with one, so that the next is hashed once.
    Small parts are copied together, large ones stand as they are."""
    writer = ChunkWriter(ID)
    large = bytes(limits.CHUNK - 200)
    for part in (*[b"x"] * 100, large, *[b"y"] * 100):
        writer.take(part)
    assert writer.room == 0
    with pytest.raises(UsageError):
        writer.take(b"x")
    _, parts = writer.chunk()
    assert parts == [b"x" * 100, large, b"y" * 100]
    assert parts[1] is large
    made(writer, b"odd")
    assert writer.room == limits.CHUNK - 3


def test_a_chunk_that_gathered_in_parts_is_the_chunk_of_all_its_bytes():
    """Whatever borders of pieces the parts cross, and the end waits for it."""
    parts = [b"a" * 70_000, b"b", b"c" * 200_000]
    writer = ChunkWriter(ID)
    body = made(writer, *parts)
    assert body == made(ChunkWriter(ID), b"".join(parts))
    writer.take(b"x")
    with pytest.raises(LocalProtocolError):
        writer.last()


def test_the_room_that_is_kept_for_a_chunk_holds_the_longest_one():
    """Every number at its longest: credit is asked for before they are known."""
    writer = ChunkWriter(ID)
    writer._index = 2**63 - 1
    writer.take(bytes(limits.CHUNK))
    body = writer.chunk()[0]
    author = AutoId.derive("acme")
    leaf = PlainLeaves(author, author).write(
        ID, SEQ_MAX, TIME_MAX - 1, TIME_MAX, Kind.CHUNK, CHANNEL_MAX, body
    )
    assert len(body) <= CHUNK_BODY
    assert len(leaf) <= CHUNK_LEAF


def test_nothing_follows_the_last_chunk():
    """Neither a chunk nor a second end; and an id has its size."""
    writer = ChunkWriter(ID)
    writer.last()
    with pytest.raises(LocalProtocolError):
        writer.last()
    with pytest.raises(LocalProtocolError):
        writer.take(b"x")
    with pytest.raises(UsageError):
        ChunkWriter(b"short")


@pytest.mark.parametrize("size", [1, limits.PIECE - 1, limits.PIECE, limits.PIECE + 1, 2 * limits.PIECE])
def test_the_root_does_not_depend_on_the_parts(size):
    """Around the borders of a piece."""
    whole, parts = ContentRoot(), ContentRoot()
    content = bytes(3 * limits.PIECE + 5)
    whole.update(content)
    for at in range(0, len(content), size if size > 1 else len(content) - 1):
        parts.update(content[at : at + (size if size > 1 else len(content) - 1)])
    assert whole.finish() == parts.finish()
