"""Channels: typed both ways, half-closed, and ended by either side, on Trio and on asyncio."""

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from autolink import BodyError, CallError, Channel, Code, UsageError
from autolink.errors import LocalProtocolError
from autolink.testing import link_pair

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    item: str


@pytest.fixture
def echoing(agents):
    """(seller with the channel `echo`, buyer)."""
    seller, _ = agents

    @seller.channel
    async def echo(channel: Channel[str, int]) -> None:
        async for number in channel:
            await channel.send(f"{number}!")

    return agents


async def test_items_go_both_ways_in_order_and_a_handlers_return_is_eof(echoing):
    """Half-closing ends the handler's loop; its own return ends ours."""
    seller, buyer = echoing
    async with (
        link_pair(buyer, seller) as (link, _),
        link.open_channel("echo", sends=int, receives=str) as channel,
    ):
        for number in range(300):
            await channel.send(number)
        await channel.send_eof()
        assert [text async for text in channel] == [f"{number}!" for number in range(300)]
        with pytest.raises(anyio.EndOfStream):
            await channel.receive()
        counts = channel.statistics()
        assert (counts.sent, counts.received, counts.waiting) == (302, 301, 0)  # OPEN, items, END


async def test_items_are_checked_by_type_on_both_ends(agents):
    seller, buyer = agents

    @seller.channel
    async def orders(channel: Channel[Order, Order]) -> None:
        try:
            await channel.receive()
        except BodyError as error:
            await channel.send(Order(item=str(error)))

    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("orders", sends=Order, receives=Order) as channel:
            with pytest.raises(BodyError, match="item"):
                await channel.send({"wrong": 1})
        async with link.open_channel("orders", sends=dict, receives=Order) as channel:
            await channel.send({"wrong": "secret"})
            answer = await channel.receive()
            assert "item" in answer.item
            assert "secret" not in answer.item


async def test_a_far_handlers_exception_is_a_call_error_at_receive_after_what_it_sent(agents):
    seller, buyer = agents

    @seller.channel
    async def fails(channel: Channel[int, int]) -> None:
        await channel.send(1)
        raise CallError("not_found", "no more")

    async with link_pair(buyer, seller) as (link, _), link.open_channel("fails") as channel:
        assert await channel.receive() == 1
        for _ in range(2):
            with pytest.raises(CallError) as error:
                await channel.receive()
            assert (error.value.code, error.value.message) == (Code.NOT_FOUND, "no more")


async def test_whoever_only_sends_learns_why_the_far_handler_failed(agents):
    """Not that the channel was cancelled, which only follows from it."""
    seller, buyer = agents

    @seller.channel
    async def fails(channel: Channel[int, int]) -> None:
        await channel.receive()
        raise CallError("out_of_range", "too many")

    async with link_pair(buyer, seller) as (link, _), link.open_channel("fails", sends=int) as channel:
        with pytest.raises(CallError) as error:
            while True:
                await channel.send(1)
        assert error.value.code is Code.OUT_OF_RANGE


async def test_an_unknown_exception_in_a_channel_handler_is_internal_without_its_text(agents, caplog):
    seller, buyer = agents

    @seller.channel
    async def bug(channel) -> None:
        raise RuntimeError("secret")

    async with link_pair(buyer, seller) as (link, _), link.open_channel("bug") as channel:
        with pytest.raises(CallError) as error:
            await channel.receive()
        assert (error.value.code, error.value.message) == (Code.INTERNAL, "")
    assert "secret" in caplog.text


async def test_leaving_the_block_cancels_the_far_handler(agents):
    seller, buyer = agents
    stopped = anyio.Event()

    @seller.channel
    async def waits(channel) -> None:
        await channel.send("here")
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with link_pair(buyer, seller) as (link, far):
        async with link.open_channel("waits") as channel:
            await channel.receive()
        await stopped.wait()
        await link.ping()
        assert far.statistics().handlers == 0
        with pytest.raises(anyio.ClosedResourceError):
            await channel.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await channel.send(1)


async def test_a_channel_that_nobody_serves_says_so_at_receive_whatever_was_sent_on_it(agents):
    """What rides behind the opening is dropped; the link lives on."""
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("nothing") as channel:
            await channel.send(1)
            await channel.send(2)
            with pytest.raises(CallError) as error:
                await channel.receive()
            assert error.value.code is Code.UNIMPLEMENTED
        assert await link.ping() >= 0


async def test_two_tasks_may_send_on_one_channel_and_only_one_receive(echoing):
    """Each task's items keep their order; nothing is lost or doubled."""
    seller, buyer = echoing
    async with (
        link_pair(buyer, seller) as (link, _),
        link.open_channel("echo", sends=int, receives=str) as channel,
    ):

        async def send(numbers) -> None:
            for number in numbers:
                await channel.send(number)

        got = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, range(500))
            tasks.start_soon(send, range(500, 1000))
            for _ in range(1000):
                got.append(int((await channel.receive())[:-1]))
        assert sorted(got) == list(range(1000))
        assert [number for number in got if number < 500] == list(range(500))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await channel.receive()
            tasks.cancel_scope.cancel()


async def test_after_eof_nothing_more_is_sent_and_saying_it_twice_does_nothing(echoing):
    seller, buyer = echoing
    async with link_pair(buyer, seller) as (link, _), link.open_channel("echo", sends=int) as channel:
        await channel.send_eof()
        await channel.send_eof()
        with pytest.raises(LocalProtocolError):
            await channel.send(1)


async def test_a_handler_that_closes_its_channel_goes_on(agents):
    """AnyIO's streams are context managers: leaving one is not being cancelled."""
    seller, buyer = agents
    went_on = anyio.Event()

    @seller.channel
    async def closes(channel) -> None:
        async with channel:
            await channel.receive()
        await anyio.lowlevel.checkpoint()
        went_on.set()

    async with link_pair(buyer, seller) as (link, _), link.open_channel("closes") as channel:
        await channel.send(1)
        with pytest.raises(CallError) as error:
            await channel.receive()
        assert error.value.code is Code.CANCELLED
        await went_on.wait()


async def test_a_name_or_headers_that_no_peer_would_take_cost_no_channel(agents):
    """More of them than there may be channels, and the link still opens one."""
    seller, buyer = agents

    @seller.method
    async def echo(call, body) -> object:
        return body

    async with link_pair(buyer, seller) as (link, _):
        for _ in range(300):
            with pytest.raises(UsageError):
                await link.call("x" * 256)
            with pytest.raises(UsageError):
                await link.call("echo", headers={"big": "x" * 10_000})
        assert await link.call("echo", 1) == 1


async def test_headers_reach_a_channels_handler(agents):
    seller, buyer = agents

    @seller.channel
    async def shows(channel) -> None:
        await channel.send([channel.name, dict(channel.headers), channel.peer.name])

    async with link_pair(buyer, seller) as (link, _):
        async with link.open_channel("shows", headers={"traceparent": "00-1"}) as channel:
            assert await channel.receive() == ["shows", {"traceparent": "00-1"}, "buyer"]
            assert "shows" in repr(channel)


async def test_a_received_item_can_be_taken_out_as_an_envelope(agents):
    """Its proof verifies offline, by anybody who trusts the author's organisation."""
    seller, buyer = agents

    @seller.channel
    async def says(channel) -> None:
        await channel.send("I owe you 5")

    async with link_pair(buyer, seller) as (link, _), link.open_channel("says") as channel:
        verified = await buyer.verify((await channel.receive_signed()).envelope())
        assert verified.author.name == "seller"
        assert verified.message.value == "I owe you 5"
