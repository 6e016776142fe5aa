"""A slow receiver slows its own sender and nobody else, and nothing that waits is without a bound."""

from random import Random

import anyio
import pytest
import trio

from autolink import CallError, Channel, Code, limits
from autolink.messages import Kind
from autolink.protocol.frames import ENDS, OPENS, Frame, decode_cancel
from autolink.protocol.payloads import code_of
from autolink.testing import Network, link_pair

ITEM = 8 * limits.KIB


@pytest.fixture
def serving(agents):
    """(seller, buyer): `swallow` reads nothing until told, `echo` is a method, `read` counts what it reads."""
    seller, buyer = agents
    seller.may_read = anyio.Event()

    @seller.channel
    async def swallow(channel: Channel[int, bytes]) -> None:
        await seller.may_read.wait()
        total = 0
        async for item in channel:
            total += len(item)
        await channel.send(total)

    @seller.method
    async def echo(call, body) -> object:
        return body

    return seller, buyer


def held_at(link):
    """Bytes of leaves and data that wait unread on all lanes of a link's end."""
    return sum(received.size for lane in link._lanes.values() for received in lane._inbox)


async def test_a_stalled_channel_beside_a_busy_one_costs_a_window_and_no_time(serving, virtual_clock):
    """The high-water marks of both ends: one window at the stalled receiver, one outbox at the sender."""
    seller, buyer = serving
    seller.may_read = anyio.Event()
    marks = {"receiver": 0, "outbox": 0}
    sent = 0

    async def stall(channel) -> None:
        nonlocal sent
        with pytest.raises(anyio.ClosedResourceError):
            while True:
                await channel.send(b"x" * ITEM)
                sent += ITEM

    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        async with link.open_channel("swallow", sends=bytes, receives=int) as channel:
            tasks.start_soon(stall, channel)
            await anyio.wait_all_tasks_blocked()
            for number in range(300):
                assert await link.call("echo", number) == number
                marks["receiver"] = max(marks["receiver"], held_at(far))
                marks["outbox"] = max(marks["outbox"], link.traffic.outbox.size)
            assert limits.CREDIT - 2 * ITEM <= sent <= limits.CREDIT
            assert marks["receiver"] <= limits.CREDIT
            assert marks["outbox"] <= limits.OUTBOX


async def test_hundreds_of_stalled_channels_do_not_stop_the_others(serving, virtual_clock):
    """All but one of the channels that a peer allows are stalled; calls go on over the last."""
    seller, buyer = serving
    seller.may_read = anyio.Event()
    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:

        async def stall() -> None:
            async with link.open_channel("swallow", sends=bytes, receives=int) as channel:
                while True:
                    await channel.send(b"x" * 64 * limits.KIB)

        for _ in range(limits.CHANNELS - 1):
            tasks.start_soon(stall)
        await anyio.wait_all_tasks_blocked()
        for number in range(20):
            assert await link.call("echo", number) == number
        assert held_at(far) <= limits.CHANNELS * limits.CREDIT
        assert link.traffic.outbox.size <= limits.OUTBOX + limits.LEAF
        tasks.cancel_scope.cancel()


async def test_a_receiver_that_reads_again_gets_everything(serving, virtual_clock):
    seller, buyer = serving
    seller.may_read = anyio.Event()
    async with link_pair(buyer, seller) as (link, _), anyio.create_task_group() as tasks:
        async with link.open_channel("swallow", sends=bytes, receives=int) as channel:

            async def send() -> None:
                for _ in range(200):
                    await channel.send(b"x" * ITEM)
                await channel.send_eof()

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            seller.may_read.set()
            assert await channel.receive() == 200 * ITEM


async def test_a_publication_that_waits_for_a_slow_subscriber_does_not_expire_meanwhile(
    agents, virtual_clock
):
    """Its times are those of the moment it leaves, as an item's: the subscriber would end the link over an older one."""
    seller, buyer = agents
    news = seller.topic("news", of=bytes)
    async with link_pair(buyer, seller) as (link, _), link.subscribe("news", receives=bytes) as feed:
        for _ in range(10):
            await news.publish(bytes(200_000))
        await anyio.sleep(2 * limits.MESSAGE_LIFETIME)
        assert [len(await feed.receive()) for _ in range(10)] == [200_000] * 10
        assert link.lost is None


async def test_messages_larger_than_the_window_pass_one_at_a_time(serving, virtual_clock):
    seller, buyer = serving
    big = b"x" * (limits.MESSAGE - 8)
    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("echo", big) == big
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(link.call, "echo", big)


async def test_a_network_that_stops_bounds_what_waits_for_the_writer(serving, virtual_clock):
    """Two hundred senders and a pipe that is held: the outbox fills to its bound and they wait."""
    seller, buyer = serving
    seller.may_read.set()
    network = Network(capacity=4 * limits.KIB)
    async with link_pair(buyer, seller, network=network) as (link, _), anyio.create_task_group() as tasks:
        resume = network.pause()
        for _ in range(200):
            tasks.start_soon(link.call, "echo", b"x" * 16 * limits.KIB)
        await anyio.wait_all_tasks_blocked()
        assert link.traffic.outbox.size <= limits.OUTBOX + 17 * limits.KIB
        written = 2 * limits.BATCH_BULK  # one batch is in the pipe, one waits for it
        assert len(link._lanes) <= (limits.OUTBOX + written) // (16 * limits.KIB) + 1 < 200
        resume()


async def test_more_calls_than_channels_at_once_wait_and_all_succeed(serving, virtual_clock):
    seller, buyer = serving
    got = []
    most = 0

    async with link_pair(buyer, seller, network=Network(latency=0.01)) as (link, far):

        async def call(number) -> None:
            nonlocal most
            got.append(await link.call("echo", number))
            most = max(most, link.protocol.statistics().channels_opened)

        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(call, number)
        assert sorted(got) == list(range(1000))
        assert most <= limits.CHANNELS
        assert far.statistics().handlers == 0
        assert link.protocol.statistics().channels_opened == 0


@pytest.mark.parametrize("seconds", [1.0, 100.0], ids=["its_reply_crosses", "its_handler_is_stopped"])
async def test_a_place_that_a_cancelled_call_gives_back_goes_to_whoever_waits_for_one(
    agents, seconds, virtual_clock
):
    """Though nobody is left who hears the peer's last word on that call."""
    seller, buyer = agents

    @seller.method
    async def sleep(call, seconds: float) -> None:
        await anyio.sleep(seconds)

    async with link_pair(buyer, seller, network=Network(latency=0.01)) as (link, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(limits.CHANNELS):
                tasks.start_soon(link.call, "sleep", seconds)
            await anyio.sleep(1.015)
            tasks.cancel_scope.cancel()
        begun = anyio.current_time()
        with anyio.fail_after(10):
            await link.call("sleep", 0.0)
        assert anyio.current_time() - begun < 0.1


@pytest.mark.parametrize("seed", range(4))
async def test_a_line_for_a_few_places_always_moves_on(serving, seed, virtual_clock):
    """Calls, and channels that either end ends first, each cancelled at any time, before and after it is let in."""
    seller, buyer = serving
    seller.may_read.set()
    chance = Random(seed)  # noqa: S311  a test's seed, not a secret

    @seller.method
    async def sleep(call, seconds: float) -> None:
        await anyio.sleep(seconds)

    @seller.channel
    async def short(channel: Channel[int, int]) -> None:
        await channel.send(1)

    async def call(link) -> None:
        await link.call("sleep", chance.uniform(0, 0.05))

    async def early(link) -> None:
        """The peer has ended its direction when we end ours."""
        async with link.open_channel("short") as channel:
            assert [item async for item in channel] == [1]

    async def late(link) -> None:
        async with link.open_channel("swallow") as channel:
            for _ in range(chance.randrange(4)):
                await channel.send(bytes(chance.choice([10, 300_000])))
            await channel.send_eof()
            await channel.receive()

    async def perform(link, what, begins, patience) -> None:
        await anyio.sleep(begins)
        with anyio.move_on_after(patience):
            await what(link)

    network = Network(latency=0.01, seed=seed)
    async with link_pair(buyer, seller, network=network) as (link, _), anyio.create_task_group() as tasks:
        link.protocol._channels._most[0] = 3
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(150):
                    what, begins = chance.choice([call, early, late]), chance.uniform(0, 1)
                    patience = chance.choice([1000.0, 1000.0, chance.uniform(0, 1)])
                    tasks.start_soon(perform, link, what, begins, patience)
        outbox = link.traffic.outbox
        assert (len(outbox._line), outbox._called, link.protocol.places) == (0, 0, 3)


async def test_calls_are_let_in_in_their_order_and_one_costs_the_same_however_many_there_are(
    serving, virtual_clock
):
    """Scheduler steps are counted: where every place woke everybody who waited, a call among thousands took dozens."""
    seller, buyer = serving
    calls = 2000
    answered = []

    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task):
            self.count += 1

    async def call(link, number) -> None:
        await link.call("echo", number)
        answered.append(number)

    async with link_pair(buyer, seller, network=Network(latency=0.01)) as (link, _):
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        async with anyio.create_task_group() as tasks:
            for number in range(calls):
                tasks.start_soon(call, link, number)
                await anyio.lowlevel.checkpoint()  # or Trio would begin them in any order
        trio.lowlevel.remove_instrument(steps)
    assert steps.count < 8 * calls
    place = {number: at for at, number in enumerate(answered)}
    assert all(abs(place[number] - number) <= 2 * limits.CHANNELS for number in range(calls))


async def test_opening_and_cancelling_is_held_back_by_the_handlers_own_cleanup(agents, virtual_clock):
    """CVE-2023-44487: a place is given free only when the cancelled handler has really ended."""
    seller, buyer = agents
    running = most = 0

    @seller.method
    async def slow(call, body) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)  # cleaning up
            running -= 1

    async with link_pair(buyer, seller) as (link, far):
        begun = anyio.current_time()
        for _ in range(3 * limits.CHANNELS):
            with anyio.move_on_after(0.0001):
                await link.call("slow")
        assert anyio.current_time() - begun < 1
        async with anyio.create_task_group() as tasks:
            for _ in range(3 * limits.CHANNELS):

                async def call() -> None:
                    with anyio.move_on_after(5):
                        await link.call("slow")

                tasks.start_soon(call)
        assert most <= limits.CHANNELS
        await anyio.sleep(2)
        assert far.statistics().handlers == running == 0


async def test_a_peer_that_opens_and_cancels_and_never_reads_loses_its_link(serving, hostile, virtual_clock):
    """Each place is taken again as soon as the protocol allows, nothing is read: memory stays bounded, the end is ours."""
    seller, _ = serving
    network = Network(capacity=8 * limits.KIB)
    async with hostile(seller, network=network) as peer:
        await peer.open()
        await anyio.wait_all_tasks_blocked()
        (link,) = seller.links
        most = 0
        channel = 1
        with pytest.raises(anyio.BrokenResourceError):
            for _ in range(5000):
                await peer.say((channel, OPENS, peer.leaf(Kind.OPEN, channel=channel, method="swallow")))
                await peer.cancel(channel)
                channel += 2
                waiting = sum(len(queue.items) for queue in link.traffic.outbox._queues.values())
                most = max(most, len(link.traffic._control) + waiting)
                await anyio.wait_all_tasks_blocked()
        assert most <= 2000
        await anyio.sleep(5)
        assert seller.links == ()
    assert seller.statistics().refused


async def test_a_peer_that_calls_what_is_not_served_and_never_reads_loses_its_link(
    serving, hostile, virtual_clock
):
    """Answers to it wait for the writer and keep their channels' places until they are sealed."""
    seller, _ = serving
    async with hostile(seller, network=Network(capacity=8 * limits.KIB)) as peer:
        await peer.open()
        await anyio.wait_all_tasks_blocked()
        (link,) = seller.links
        with pytest.raises(anyio.BrokenResourceError):
            for number in range(5000):
                await peer.call(2 * number + 1, method="nothing")
                assert link.traffic.outbox.size <= limits.OUTBOX
                await anyio.wait_all_tasks_blocked()
        await anyio.sleep(5)
        assert seller.links == ()


async def test_a_flood_of_pings_that_reads_no_answer_ends_the_link(serving, hostile, virtual_clock):
    seller, _ = serving
    async with hostile(seller, network=Network(capacity=8 * limits.KIB)) as peer:
        await peer.open()
        await anyio.wait_all_tasks_blocked()
        (link,) = seller.links
        with pytest.raises(anyio.BrokenResourceError):
            for _ in range(20_000):
                await peer.stream.send(b"\x07\x00\x00\x00\x08" + bytes(8))
                assert len(link.traffic._control) <= 1000
        await anyio.sleep(5)
        assert seller.links == ()


@pytest.mark.parametrize("credit", [0, 1, 2**32 - 1])
async def test_credit_that_is_nothing_or_more_than_was_sent_ends_the_link(
    serving, hostile, credit, virtual_clock
):
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        await peer.say((1, OPENS, peer.leaf(Kind.OPEN, method="swallow")))
        await peer.stream.send(b"\x05\x00\x00\x00\x08" + (1).to_bytes(4) + credit.to_bytes(4))
        assert await peer.refused() == "malformed"


async def test_a_batch_beyond_the_credit_ends_the_link(serving, hostile, virtual_clock):
    """The second message finds the window overdrawn by the first."""
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        await peer.say((1, OPENS, peer.leaf(Kind.OPEN, method="swallow")))
        big = b"x" * (limits.MESSAGE - 8)
        await peer.say((1, 0, peer.leaf(Kind.ITEM, method="", seq=1, body=big)))
        await peer.say((1, 0, peer.leaf(Kind.ITEM, method="", seq=2, body=b"x")))
        assert await peer.refused() == "malformed"


async def test_a_channel_beyond_the_allowed_number_ends_the_link(serving, hostile, virtual_clock):
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        for number in range(limits.CHANNELS + 1):
            channel = 2 * number + 1
            await peer.say((channel, OPENS, peer.leaf(Kind.OPEN, channel=channel, method="swallow")))
        assert await peer.refused() == "malformed"


async def test_handlers_that_outlive_their_channel_keep_its_place(agents, hostile, virtual_clock):
    """A channel that is over on the wire while its handler still works: the next opening is resource_exhausted."""
    seller, _ = agents

    @seller.channel
    async def lingers(channel) -> None:
        await channel.send_eof()
        await anyio.sleep_forever()

    async with hostile(seller) as peer:
        await peer.open()
        for number in range(limits.CHANNELS + 1):
            channel = 2 * number + 1
            await peer.say(
                (channel, OPENS, peer.leaf(Kind.OPEN, channel=channel, method="lingers")),
                (channel, ENDS, peer.leaf(Kind.END, channel=channel, method="", seq=1)),
            )
            await anyio.wait_all_tasks_blocked()
        refused, code = decode_cancel(await peer.wait_for(Frame.CANCEL))
        assert (refused, code_of(code)) == (channel, Code.RESOURCE_EXHAUSTED)


async def test_an_unserved_call_is_an_error_to_the_caller_only(serving, virtual_clock):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        for _ in range(600):
            with pytest.raises(CallError):
                await link.call("nothing")
        assert await link.call("echo", 1) == 1
