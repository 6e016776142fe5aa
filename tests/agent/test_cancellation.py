"""Cancelled at every checkpoint, one after the other, an operation leaves nothing behind on either side."""

import gc
import socket

import anyio
import pytest

from autolink import Channel
from autolink.testing import Network, link_pair


@pytest.fixture
def serving(agents):
    seller, buyer = agents
    seller.running = 0

    @seller.method("echo", forwarded=True)
    async def echo(call, body) -> object:
        seller.running += 1
        try:
            await anyio.sleep(0.1)
            return body
        finally:
            seller.running -= 1

    @seller.channel
    async def double(channel: Channel[int, int]) -> None:
        seller.running += 1
        try:
            async for number in channel:
                await channel.send(2 * number)
        finally:
            seller.running -= 1

    @seller.channel
    async def files(channel: Channel[int, int]) -> None:
        async with channel.receive_stream() as chunks:
            await channel.send(sum([len(chunk) async for chunk in chunks]))

    seller.topic("news", of=int)
    return seller, buyer


def call(link, envelope):
    return link.call("echo", [1, 2, 3])


async def channel(link, envelope):
    async with link.open_channel("double", sends=int, receives=int) as lane:
        for number in range(3):
            await lane.send(number)
            assert await lane.receive() == 2 * number
        await lane.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await lane.receive()


async def stream(link, envelope):
    async def source():
        for _ in range(8):
            yield b"x" * 60_000

    async with link.open_channel("files") as lane:
        await lane.send_stream(source())
        assert await lane.receive() == 480_000


async def subscribe(link, envelope):
    async with link.subscribe("news", receives=int) as feed:
        await link.seller.topics["news"].publish(7)
        assert await feed.receive() == 7


async def forward(link, envelope):
    assert await link.forward(envelope()) is not None


async def ping(link, envelope):
    await link.ping()


@pytest.mark.parametrize("operation", [call, channel, stream, subscribe, forward, ping])
async def test_an_operation_cancelled_anywhere_leaves_its_link_as_it_was(
    serving, cancelled_everywhere, operation, virtual_clock
):
    """No lane, handler, queue entry or place among the channels; and the link still works."""
    seller, buyer = serving
    async with link_pair(buyer, seller, network=Network(latency=0.01, seed=1)) as (link, far):
        link.seller = seller

        async def check(step) -> None:
            await anyio.sleep(1)
            for end in (link, far):
                assert end.lost is None, step
                assert end._lanes == {}, step
                assert end._pings == {}, step
                assert end.server.running == 0, step
                counts = end.protocol.statistics()
                assert (counts.channels_opened, counts.channels_accepted) == (0, 0), step
                assert not end.traffic.outbox._turns, step
                assert not end.traffic._control, step
                assert not end.traffic.outbox._leaving, step
                assert end.traffic.outbox._queues == {}, step
                assert end.traffic.outbox.size == 0, step
            assert seller.running == 0
            assert seller.topics["news"].statistics().subscribers == 0

        steps = await cancelled_everywhere(
            lambda: operation(link, lambda: buyer.sign(seller.auto_id, "echo", 1)), check
        )
        assert steps >= 5
        assert await link.call("echo", 1) == 1


@pytest.mark.parametrize("how", ["connect", "keep_link"])
async def test_opening_a_link_cancelled_anywhere_leaves_no_end_of_it(
    serving, cancelled_everywhere, how, virtual_clock
):
    """No live link, no row among the openings, no byte stream that is not closed, no task."""
    seller, buyer = serving
    network = Network(latency=0.01)
    network.join(buyer)

    async def operate() -> None:
        async with getattr(buyer, how)(listener.contact) as link:
            assert await link.call("echo", 1) == 1

    async def check(step) -> None:
        await anyio.sleep(20)
        for agent in (seller, buyer):
            assert agent._links == agent._rows == set(), step
        assert seller.running == 0
        assert listener._links == set(), step
        for pipe in network._pipes:
            assert pipe._finished or pipe._broken, step

    async with network.listening(seller) as listener:
        assert await cancelled_everywhere(operate, check) > 5


async def test_a_link_pair_cancelled_anywhere_leaves_nothing(serving, cancelled_everywhere, virtual_clock):
    seller, buyer = serving
    network = Network(latency=0.01)

    async def operate() -> None:
        async with link_pair(buyer, seller, network=network) as (link, _):
            await link.call("echo", 1)

    async def check(step) -> None:
        await anyio.sleep(20)
        for agent in (seller, buyer):
            assert agent._links == agent._rows == set(), step

    assert await cancelled_everywhere(operate, check) > 3


async def test_listening_and_connecting_over_sockets_cancelled_anywhere_leaves_no_socket(
    serving, cancelled_everywhere
):
    """Real sockets, without a clock to jump: both ends in one operation."""
    seller, buyer = serving

    def sockets() -> int:
        return sum(type(one) is socket.socket and one.fileno() >= 0 for one in gc.get_objects())

    async def operate() -> None:
        async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
            assert await link.call("echo", 1) == 1

    await operate()
    before = sockets()

    async def check(step) -> None:
        assert sockets() <= before, step
        for agent in (seller, buyer):
            assert agent._links == agent._rows == set(), step

    assert await cancelled_everywhere(operate, check) > 5


async def test_a_call_inside_a_cancelled_scope_is_cancelled_and_sends_nothing(serving, virtual_clock):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        sent = link.statistics().messages_sent
        with anyio.CancelScope() as scope:
            scope.cancel()
            await link.call("echo", 1)
        assert scope.cancelled_caught
        assert link.statistics().messages_sent == sent


async def test_a_call_from_a_finally_block_can_be_shielded(serving, virtual_clock):
    """The usual way to say goodbye from cleanup."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                assert await link.call("echo", 1) == 1
