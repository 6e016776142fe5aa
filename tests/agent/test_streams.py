"""Byte streams on channels: signed chunk by chunk, bounded in memory, and never ended by silence."""

from hashlib import sha256
from os import urandom

import anyio
import pytest

from autolink import CallError, Channel, Code, RemoteProtocolError, limits
from autolink.agent.kinds import FLAGS
from autolink.errors import BodyError, LocalProtocolError
from autolink.messages import ChunkWriter, Kind, check_content, check_signature, merkle
from autolink.protocol import DATA
from autolink.testing import Network, link_pair

pytestmark = pytest.mark.anyio


async def pieces(*sizes):
    for size in sizes:
        yield urandom(size)


def chunk_body(writer, data):
    writer.take(data)
    return writer.chunk()[0]


@pytest.fixture
def raw(agents):
    """(seller whose channel `raw` sends what the test puts into the list, buyer, the list of (kind, body, data))."""
    seller, buyer = agents
    messages = []

    @seller.channel
    async def raw(channel) -> None:
        lane = channel._lane
        for kind, body, data in messages:
            item = lane.id, DATA if data else FLAGS[kind], lane._leaf(kind, body), data
            lane.send_seq += 1
            lane._traffic.fill(lane.id, len(data), lambda item=item: item)
            lane._traffic.outbox.end_chunk(lane.id)
        await anyio.sleep_forever()

    return seller, buyer, messages


async def test_bytes_arrive_as_they_were_however_they_were_cut(agents):
    """Pieces of no byte, of a few, and larger than a chunk; then items again on the same channel."""
    seller, buyer = agents
    sent = [b"", b"x", bytearray(b"y" * 70_000), memoryview(b"z" * 200_000)]

    async def source():
        for piece in sent:
            yield piece

    @seller.channel
    async def files(channel: Channel[str, str]) -> None:
        await channel.send_stream(source())
        await channel.send("done")

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            got = [chunk async for chunk in chunks]
        assert b"".join(got) == b"".join(sent)
        assert max(map(len, got)) <= limits.CHUNK
        assert await channel.receive() == "done"


async def test_pieces_are_cut_so_that_chunks_end_where_pieces_of_the_root_do(agents):
    """Odd ones go out as they come where nothing else is on its way; a large one behind them catches up with the borders."""
    seller, buyer = agents

    async def source():
        yield b"x" * 100
        await anyio.wait_all_tasks_blocked()
        yield bytes(3 * limits.CHUNK)
        await anyio.wait_all_tasks_blocked()
        yield b"x"
        await anyio.wait_all_tasks_blocked()
        yield bytes(limits.PIECE - 101)

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source())

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            got = [len(chunk) async for chunk in chunks]
    chunk = limits.CHUNK
    assert got == [100, chunk - 100, chunk, chunk, 100, 1, limits.PIECE - 101]


async def test_no_piece_waits_for_the_next_one(agents):
    """Each has arrived before its source is asked for another."""
    seller, buyer = agents
    got = []

    async def source():
        for count in range(5):
            await anyio.wait_all_tasks_blocked()
            assert len(got) == count
            yield b"x" * 1000

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source())

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            async for chunk in chunks:
                got.append(chunk)
    assert got == [b"x" * 1000] * 5


async def test_pieces_that_come_faster_than_they_leave_share_a_chunk(agents):
    """Up to its size; and what else is said on the channel comes behind them."""
    seller, buyer = agents

    @seller.channel
    async def files(channel: Channel[str, str]) -> None:
        await channel.send_stream(pieces(*[1000] * 10, *[limits.PIECE] * 20))
        await channel.send("done")
        await channel.send_stream(pieces(*[1] * 100))

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            got = [len(chunk) async for chunk in chunks]
        assert sum(got) == 10_000 + 20 * limits.PIECE
        assert len(got) == 4
        assert await channel.receive() == "done"
        async with channel.receive_stream() as chunks:
            got = [len(chunk) async for chunk in chunks]
        assert sum(got) == 100
        assert len(got) <= 3


async def test_a_stream_beside_other_items_of_its_channel_never_breaks_the_link(agents):
    """Who sends an item while a stream is under way gets the stream refused, in the order of what was sent."""
    seller, buyer = agents

    async def source(channel):
        yield b"part"
        await channel.send("item")
        yield b"rest"

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source(channel))

    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("files") as channel:
            with pytest.raises(RemoteProtocolError, match="an item inside"):
                async with channel.receive_stream() as chunks:
                    assert await anext(chunks) == b"part"
                    await anext(chunks)
        assert link.lost is None


async def test_two_streams_at_once_on_one_channel_keep_within_its_credit(agents):
    """They are refused by whoever receives them, and nothing worse: the leaf of the first one's chunk counts, too."""
    seller, buyer = agents

    @seller.channel
    async def files(channel) -> None:
        await anyio.sleep_forever()

    async with link_pair(buyer, seller) as (link, far), link.open_channel("files") as channel:
        await link.ping()
        lane, window = channel._lane, 1000
        outstanding = link.protocol._channels.table()[lane.id][0][1]
        link.protocol._channels._window[0] = far.protocol._channels._window[1] = window
        for size in (window // 2 - outstanding, limits.CHUNK):
            sending = lane.send_part(ChunkWriter(urandom(16)), memoryview(bytes(size)))
            try:
                sending.send(None)  # before the writer's turn: it is taken, or waits for credit
            except StopIteration:
                continue
            sending.close()
        await link.ping()
        assert link.lost is None


async def test_a_peer_that_takes_no_body_of_a_chunks_size_is_sent_none(agents):
    """Who streams is told, and the link goes on."""
    seller, buyer = agents

    @seller.channel
    async def files(channel) -> None:
        channel._lane._traffic._largest_body = 40
        with pytest.raises(BodyError):
            await channel.send_stream(pieces(10))
        seller.told = True

    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("files") as channel:
            with pytest.raises(CallError):
                await channel.receive()
        assert seller.told
        assert link.lost is None


async def test_what_a_source_does_to_its_own_buffer_later_changes_nothing(agents):
    """A bytearray that is filled anew for each piece."""
    seller, buyer = agents
    buffer = bytearray(10)

    async def source():
        for number in range(20):
            buffer[:] = bytes([number]) * 10
            yield memoryview(buffer)

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source())

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            got = b"".join([chunk async for chunk in chunks])
    assert got == b"".join([bytes([number]) * 10 for number in range(20)])


async def test_the_envelope_of_a_chunk_holds_the_hash_of_its_bytes(agents):
    """The root of their pieces; and that of the last one proves a saved copy of all of them."""
    seller, buyer = agents
    content = urandom(limits.CHUNK + 10)
    leaves = [content[at : at + limits.PIECE] for at in range(0, limits.CHUNK, limits.PIECE)]
    roots = merkle.root(merkle.leaf_hashes(leaves)), sha256(b"\0" + content[limits.CHUNK :]).digest()

    async def source():
        yield content

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source())

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        first, second, last = [await channel._lane.receive() for _ in range(3)]
    assert (first.data, second.data, last.data) == (content[: limits.CHUNK], content[limits.CHUNK :], b"")
    for received, root in zip((first, second), roots, strict=True):
        message = check_signature(received.envelope())
        assert message.value[2:] == [len(received.data), root]
        assert len(received.envelope().to_bytes()) < 2_000
    check_content(check_signature(last.envelope()), [content])


async def test_an_empty_stream_is_a_stream(agents):
    seller, buyer = agents

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(pieces())

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            assert [chunk async for chunk in chunks] == []
        with pytest.raises(anyio.EndOfStream):
            async with channel.receive_stream() as chunks:
                [chunk async for chunk in chunks]


async def test_rule_31_each_chunk_is_verified_before_it_is_handed_on_and_the_last_one_signs_all(raw):
    """A chunk swapped with another, taken out, or a wrong total: an error in place of the end, and the channel is over."""
    seller, buyer, messages = raw
    writer = ChunkWriter(bytes(16))
    good = [
        *((chunk_body(writer, data), data) for data in (b"a" * 10, b"b" * 10, b"c" * 10)),
        (writer.last(), b""),
    ]
    other = ChunkWriter(bytes(16))
    lies = [
        *((chunk_body(other, data), data) for data in (b"a" * 10, b"B" * 10, b"c" * 10)),
        (other.last(), b""),
    ]
    async with link_pair(buyer, seller) as (link, _):
        for bodies, complete in (
            ([good[0], good[2], good[1], good[3]], 1),  # out of order
            ([good[0], good[2], good[3]], 1),  # one is missing
            ([good[0], good[1], good[2], lies[3]], 3),  # another payload's root
            ([good[0], good[1], good[3]], 2),  # ends too early
        ):
            messages[:] = [(Kind.CHUNK, *one) for one in bodies]
            got = []
            async with link.open_channel("raw") as channel:
                with pytest.raises(RemoteProtocolError):
                    async with channel.receive_stream() as chunks:
                        async for chunk in chunks:
                            got.append(chunk)
                assert len(got) == complete
                with pytest.raises(anyio.ClosedResourceError):
                    await channel.receive()


@pytest.mark.parametrize("follows", [Kind.END, Kind.ITEM])
async def test_a_stream_that_stops_in_the_middle_is_never_a_clean_end(raw, follows):
    seller, buyer, messages = raw
    messages[:] = [
        (Kind.CHUNK, chunk_body(ChunkWriter(bytes(16)), b"part"), b"part"),
        (follows, b"\xc0", b""),
    ]
    async with link_pair(buyer, seller) as (link, _), link.open_channel("raw") as channel:
        with pytest.raises(RemoteProtocolError):
            async with channel.receive_stream() as chunks:
                [chunk async for chunk in chunks]


async def test_a_source_that_fails_aborts_the_stream_at_the_receiver(agents):
    """The sender gets its source's own error; the receiver an error instead of an end."""
    seller, buyer = agents
    errors = []

    async def source():
        yield b"part"
        raise OSError("disk gone")

    @seller.channel
    async def files(channel) -> None:
        try:
            await channel.send_stream(source())
        except OSError as error:
            errors.append(str(error))

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        with pytest.raises(CallError) as error:
            async with channel.receive_stream() as chunks:
                [chunk async for chunk in chunks]
        assert error.value.code is Code.ABORTED
    assert errors == ["disk gone"]


async def test_a_stream_left_early_goes_on_where_it_was_left(agents):
    seller, buyer = agents

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(pieces(*[limits.CHUNK] * 5))

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            first = [await anext(chunks), await anext(chunks)]
        with pytest.raises(LocalProtocolError, match="receive_stream"):
            await channel.receive()
        async with channel.receive_stream() as chunks:
            rest = [chunk async for chunk in chunks]
        assert len(first) + len(rest) == 5


async def test_waiting_for_a_stream_that_has_not_begun_takes_nothing_from_the_channel(agents):
    """Given up, it leaves items, and the end of the channel, to be received as ever."""
    seller, buyer = agents
    given_up = anyio.Event()

    @seller.channel
    async def items(channel: Channel[int, int]) -> None:
        await given_up.wait()
        await channel.send(1)

    async with link_pair(buyer, seller) as (link, _), link.open_channel("items", receives=int) as channel:
        with anyio.CancelScope() as scope:
            async with channel.receive_stream() as chunks, anyio.create_task_group() as tasks:
                tasks.start_soon(anext, chunks)
                await link.ping()
                scope.cancel()
        given_up.set()
        assert await channel.receive() == 1
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                async with channel.receive_stream() as chunks:
                    await anext(chunks)
            with pytest.raises(anyio.EndOfStream):
                await channel.receive()


async def test_a_stream_that_is_cancelled_within_a_chunk_harms_no_other_one_of_its_link(agents):
    """Its receiver gets an error in place of the end, the other one everything."""
    seller, buyer = agents
    content, ended = urandom(2 * limits.MIB), []

    async def source(wait):
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]
            if wait and at == 500_000:
                await anyio.sleep_forever()

    @seller.channel
    async def keep(channel: Channel[bytes, bytes]) -> None:
        kept = []
        try:
            async with channel.receive_stream() as chunks:
                async for chunk in chunks:
                    kept.append(chunk)
        finally:
            ended.append(b"".join(kept))

    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:

        async def send(wait) -> None:
            async with link.open_channel("keep") as channel:
                await channel.send_stream(source(wait))
                with pytest.raises(anyio.EndOfStream):
                    await channel.receive()

        async with anyio.create_task_group() as cancelled:
            cancelled.start_soon(send, True)
            tasks.start_soon(send, False)
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert link.lost is None
    assert content in ended
    assert all(content.startswith(one) for one in ended)
    assert len(ended) == 2


async def test_receiving_an_item_where_a_stream_comes_says_what_to_do(agents):
    seller, buyer = agents

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(pieces(10))

    async with link_pair(buyer, seller) as (link, _), link.open_channel("files") as channel:
        with pytest.raises(LocalProtocolError, match="receive_stream"):
            await channel.receive()


async def test_a_long_stream_passes_in_bounded_memory(agents):
    """16 MiB through a receiver that pauses: at no time is more under way than windows, outbox and pipe allow."""
    seller, buyer = agents
    size, held = 16 * limits.MIB, []
    sent, received = sha256(), sha256()
    piece = urandom(limits.PIECE)
    given = taken = 0

    async def source():
        nonlocal given
        for _ in range(size // len(piece)):
            sent.update(piece)
            given += len(piece)
            held.append(given - taken)
            yield piece

    @seller.channel
    async def files(channel) -> None:
        await channel.send_stream(source())

    network = Network(capacity=64 * limits.KIB)
    async with link_pair(buyer, seller, network=network) as (link, _), link.open_channel("files") as channel:
        async with channel.receive_stream() as chunks:
            async for chunk in chunks:
                received.update(chunk)
                taken += len(chunk)
                if taken % limits.MIB == 0:
                    await anyio.wait_all_tasks_blocked()
    assert received.digest() == sent.digest()
    assert taken == size
    assert max(held) <= limits.CREDIT + 2 * limits.CHUNK
    assert network.peak <= 64 * limits.KIB + limits.CREDIT + 64 * limits.KIB
