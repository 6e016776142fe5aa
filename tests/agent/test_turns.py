"""Who speaks next on a link: channels take turns, a lone message waits for nobody, and a batch is what waited together."""

import anyio
import pytest
import trio

from autolink import Channel, limits
from autolink.agent.traffic import Traffic
from autolink.protocol.frames import DATA, ENDS, OPENS
from autolink.testing import Network, link_pair


@pytest.fixture
def serving(agents):
    seller, buyer = agents
    seller.seen = []

    @seller.method
    async def echo(call, body) -> object:
        seller.seen.append("call")
        return body

    @seller.channel
    async def swallow(channel: Channel[int, bytes]) -> None:
        async for item in channel:
            seller.seen.append(len(item))

    return seller, buyer


def taken_apart(frames):
    """The (channel, flags) of each item, batch by batch, that a link's protocol was given to frame."""
    return [[(channel, flags) for channel, flags, _, _ in items] for items in frames]


@pytest.fixture
def batches():
    """Records the items of every batch that a link seals."""

    def watch(link):
        sealed = []
        frame = link.protocol.batch

        def batch(number, signature, items):
            sealed.append(list(items))
            return frame(number, signature, items)

        link.traffic.protocol = _Watched(link.protocol, batch)
        return sealed

    return watch


class _Watched:
    def __init__(self, protocol, batch):
        self._protocol, self.batch = protocol, batch

    def __getattr__(self, name):
        return getattr(self._protocol, name)


async def test_a_call_beside_a_byte_stream_leaves_with_the_next_batch(serving, batches, virtual_clock):
    """A channel with all that it may have waiting is overtaken by a call that comes last."""
    seller, buyer = serving
    network = Network()
    async with link_pair(buyer, seller, network=network) as (link, _), anyio.create_task_group() as tasks:
        async with link.open_channel("swallow", sends=bytes, receives=int) as bulk:
            await anyio.wait_all_tasks_blocked()
            sealed = batches(link)
            for _ in range(24):
                tasks.start_soon(bulk.send, b"x" * 30_000)
            tasks.start_soon(link.call, "echo", 1)
            await anyio.wait_all_tasks_blocked()
    first = taken_apart(sealed)[0]
    assert (3, OPENS | ENDS) in first
    assert first.index((3, OPENS | ENDS)) <= 1
    assert seller.seen.index("call") < 24


async def test_a_large_chunk_lets_others_go_first_once(serving, batches, virtual_clock):
    """What they say does not wait for its bytes; what follows does, or the chunk would wait for ever."""
    seller, buyer = serving

    @seller.channel
    async def drain(channel) -> None:
        async with channel.receive_stream() as chunks:
            async for _ in chunks:
                pass

    async def source():
        for _ in range(24):
            yield bytes(limits.PIECE)

    network = Network(capacity=limits.KIB)
    async with link_pair(buyer, seller, network=network) as (link, _), anyio.create_task_group() as tasks:
        async with link.open_channel("drain") as channel:
            await anyio.wait_all_tasks_blocked()
            resume = network.pause()
            tasks.start_soon(channel.send_stream, source())
            await anyio.wait_all_tasks_blocked()  # one chunk is being written, another one waits
            sealed = batches(link)
            for _ in range(120):
                tasks.start_soon(link.call, "echo", b"x" * 5000)
            await anyio.wait_all_tasks_blocked()
            resume()
            await anyio.wait_all_tasks_blocked()
    flags = [[flags for _, flags, _, _ in items] for items in sealed]
    first = next(place for place, found in enumerate(flags) if DATA in found)
    assert flags[first][0] == DATA
    assert 0 < sum(map(len, flags[:first])) < 120


async def test_one_channel_fills_no_more_than_its_part_of_the_outbox(serving, virtual_clock):
    """While nothing can be written a byte stream leaves room, so a call is not kept from opening its channel."""
    seller, buyer = serving
    network = Network(capacity=limits.KIB)
    async with link_pair(buyer, seller, network=network) as (link, _), anyio.create_task_group() as tasks:
        async with link.open_channel("swallow", sends=bytes, receives=int) as bulk:
            await anyio.wait_all_tasks_blocked()
            resume = network.pause()

            async def send() -> None:
                for _ in range(60):
                    await bulk.send(b"x" * 10_000)

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert link.traffic.outbox.size <= limits.OUTBOX_CHANNEL + 11_000 < limits.OUTBOX
            assert link.traffic.outbox.may_open
            resume()
            await anyio.wait_all_tasks_blocked()
            assert len(seller.seen) == 60


async def test_channels_open_in_the_order_of_their_numbers_however_they_take_turns(
    serving, batches, virtual_clock
):
    """Forty channels whose first messages wait beside others' later ones; the protocol would refuse any other order."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        sealed = batches(link)

        async def talk(size) -> None:
            async with link.open_channel("swallow", sends=bytes, receives=int) as channel:
                for _ in range(5):
                    await channel.send(b"x" * size)
                await channel.send_eof()
                with pytest.raises(anyio.EndOfStream):
                    await channel.receive()

        for number in range(40):
            tasks.start_soon(talk, 100 if number % 3 else 40_000)
            if number % 8 == 0:
                await trio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert far.lost is None
        order = [channel for batch in taken_apart(sealed) for channel, flags in batch if flags & OPENS]
        assert order == sorted(order)
        assert len(order) == 40
    assert sorted(seller.seen) == sorted([100] * 130 + [40_000] * 70)


async def test_messages_of_one_channel_keep_their_order_beside_others(serving, virtual_clock):
    """Each item tells its number by its size."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("swallow", sends=bytes, receives=int) as channel:

            async def send() -> None:
                for size in range(1, 300):
                    await channel.send(b"x" * size)
                await channel.send_eof()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                for _ in range(20):
                    tasks.start_soon(link.call, "echo", 1)
            with pytest.raises(anyio.EndOfStream):
                await channel.receive()
    assert [size for size in seller.seen if size != "call"] == list(range(1, 300))


async def test_large_items_share_a_signature_and_one_more_would_not_fit(serving, batches, virtual_clock):
    """A batch is closed at its size unless the next message fits into the larger bound for bulk."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("swallow", sends=bytes, receives=int) as channel:
            await anyio.wait_all_tasks_blocked()
            sealed = batches(link)
            for _ in range(24):
                await channel.send(b"x" * limits.PIECE)
            await channel.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await channel.receive()
        large = [[len(leaf) for _, _, leaf, _ in items if len(leaf) > limits.PIECE] for items in sealed]
    assert max(map(len, large)) == 6
    assert max(map(sum, large)) <= limits.BATCH_BULK


async def test_pieces_of_a_byte_stream_share_chunks_and_signatures_as_if_their_bytes_were_in_them(
    serving, batches, virtual_clock
):
    """What travels beside a leaf counts where batches are closed."""
    seller, buyer = serving

    @seller.channel
    async def drain(channel) -> None:
        async with channel.receive_stream() as chunks:
            async for _ in chunks:
                pass

    async def source():
        for _ in range(24):
            yield bytes(limits.PIECE)

    async with link_pair(buyer, seller) as (link, _), link.open_channel("drain") as channel:
        await anyio.wait_all_tasks_blocked()
        sealed = batches(link)
        await channel.send_stream(source())
        with pytest.raises(anyio.EndOfStream):
            await channel.receive()
    sizes = [sum(len(leaf) + len(data) for _, _, leaf, data in items) for items in sealed]
    assert max(sizes) <= limits.BATCH_BULK
    assert len(sealed) <= 24 / 6 + 2


async def test_calls_that_wait_together_share_signatures_in_both_directions(serving, virtual_clock):
    """Thirty-two at once: the statistics of both ends say how many messages each signature covered."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far):
        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(link.call, "echo", number)
        ours, theirs = link.statistics(), far.statistics()
        assert (ours.messages_sent, ours.messages_verified) == (32, 32)
        assert (ours.batches_sent, ours.batches_verified) == (theirs.batches_verified, theirs.batches_sent)
        assert ours.batches_sent <= 2
        assert ours.batches_verified <= 2


async def test_what_a_lone_message_cannot_write_at_once_the_writer_sends_first(agents):
    """Over a socket whose buffers are full: the rest of a call's frame goes out before anything else, and whole."""
    seller, buyer = agents
    big = b"x" * 50_000

    @seller.method
    async def echo(call, body) -> object:
        return body

    async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
        assert await link.call("echo", 1) == 1
        stream, halves = link.traffic.stream, []
        push = stream._push

        def stops(view):
            """As a socket whose buffer is full after the first record, until the writer waits for it."""
            if stream._writing:
                return push(view)
            if view.obj.startswith(bytes(view[:5])):
                return push(view[:16_384])
            halves.append(len(view))
            stream._blocked = anyio.lowlevel.checkpoint
            return 0

        stream._push = stops
        for number in range(5):
            assert await link.call("echo", big) == big
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(link.call, "echo", number)
        assert len(halves) >= 5


# --- halves --------------------------------------------------------------------------------------------------


@pytest.fixture
def apart(monkeypatch):
    """Both ends of a link as in two processes: neither knows that the other one signs, too."""

    def apart(*links):
        for link in links:
            link.traffic._mark = apart
        monkeypatch.setattr(Traffic, "_last_to_sign", apart)

    return apart


async def call_at_once(link, method, count):
    """Many calls, all of them made before the first is written."""
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(link.call, method, number)


@pytest.mark.parametrize(("calls", "sizes"), [(15, [15]), (16, [8, 8]), (33, [16, 17])])
async def test_of_many_calls_one_half_leaves_before_the_other_is_signed(
    serving, batches, apart, calls, sizes, virtual_clock
):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far):
        apart(link, far)
        sealed = batches(link)
        await call_at_once(link, "echo", calls)
    assert [len(items) for items in sealed] == sizes
    opened = [channel for items in sealed for channel, _, _, _ in items]
    assert opened == sorted(opened)
    assert len(seller.seen) == calls


async def test_many_calls_share_a_signature_where_the_peer_has_others_to_work_on(
    serving, batches, apart, virtual_clock
):
    """It is busy meanwhile, and answers all the sooner the less it has to verify."""
    seller, buyer = serving
    answered = anyio.Event()

    @seller.method
    async def wait(call, body) -> None:
        await answered.wait()

    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        tasks.start_soon(link.call, "wait", None)
        await anyio.wait_all_tasks_blocked()
        apart(link, far)
        sealed = batches(link)
        await call_at_once(link, "echo", 32)
        answered.set()
    assert [len(items) for items in sealed] == [32]


async def test_many_calls_share_a_signature_where_this_process_has_another_link_to_serve(
    serving, batches, apart, virtual_clock
):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _), link_pair(buyer, seller) as (other, _):
        apart(link)
        sealed = batches(link)
        await other.call("echo", 1)
        await call_at_once(link, "echo", 32)
        apart(link)
        await call_at_once(link, "echo", 32)
    assert [len(items) for items in sealed] == [32, 16, 16]


async def test_many_items_of_few_channels_share_a_signature(serving, batches, apart, virtual_clock):
    """Nobody answers them one by one."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far):
        async with link.open_channel("swallow", sends=bytes, receives=int) as channel:
            await anyio.wait_all_tasks_blocked()
            apart(link, far)
            sealed = batches(link)
            for _ in range(32):
                await channel.send(b"x")
            await anyio.wait_all_tasks_blocked()
    assert len(sealed[0]) == 32
