"""Draining: what is open ends in its own time, nothing new begins, and patience has an end."""

import socket
from itertools import count

import anyio
import pytest
import trio

from autolink import CallError, Code, LinkLost, Reason, Refused, limits
from autolink.testing import Network, link_pair


@pytest.fixture
def network():
    return Network(latency=0.01)


@pytest.fixture
def serving(agents, network):
    seller, buyer = agents
    network.join(buyer)

    @seller.method
    async def work(call, seconds: float) -> float:
        await anyio.sleep(seconds)
        return seconds

    return seller, buyer


async def test_calls_in_flight_finish_new_ones_are_refused_and_then_the_link_ends(
    serving, network, virtual_clock
):
    seller, buyer = serving
    got = []
    async with network.listening(seller) as listener, buyer.connect(listener.contact) as link:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                got.append(await link.call("work", 5.0))

            tasks.start_soon(call)
            await anyio.sleep(1)

            async def drain() -> None:
                assert await listener.drain()

            tasks.start_soon(drain)
            await anyio.sleep(1)
            assert not listener.accepting
            with pytest.raises(ValueError, match="draining"):
                await link.call("work", 0.0)
            with pytest.raises(LinkLost):
                async with buyer.connect(listener.contact):
                    pytest.fail("must not open")
        assert got == [5.0]
        await link.closed()
        assert isinstance(link.lost, LinkLost)


async def test_what_is_stuck_is_cut_after_the_timeout_all_at_once(serving, network, virtual_clock):
    """Twenty links with a call that never ends each: one timeout, not twenty."""
    seller, buyer = serving
    lost = 0
    async with network.listening(seller) as listener, anyio.create_task_group() as tasks:

        async def stuck() -> None:
            nonlocal lost
            async with buyer.connect(listener.contact) as link:
                with pytest.raises(LinkLost):
                    await link.call("work", 1e6)
                lost += 1

        for _ in range(20):
            tasks.start_soon(stuck)
        await anyio.sleep(1)
        begun = anyio.current_time()
        assert not await listener.drain(timeout=3)
        assert anyio.current_time() - begun < 3 + 2 * limits.REFUSAL_DRAIN
    assert lost == 20
    assert seller.links == ()


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest"])
async def test_subscribers_get_what_was_published_before_and_then_learn_of_the_end(
    serving, network, virtual_clock, overflow
):
    """Also from a publisher that goes on: else draining would take all of its time, however short the rest is."""
    seller, buyer = serving
    topic = seller.topic("prices", of=int, overflow=overflow, buffer=4)
    got: list[int] = []
    async with (
        network.listening(seller) as listener,
        buyer.connect(listener.contact) as link,
        link.subscribe("prices", receives=int) as feed,
        anyio.create_task_group() as tasks,
    ):

        async def publish() -> None:
            for price in count():
                await topic.publish(price)
                await anyio.sleep(0.001)
                if price == 3:
                    draining.set()

        async def drain() -> None:
            await draining.wait()
            begun = anyio.current_time()
            assert await listener.drain()
            assert anyio.current_time() - begun < 1
            tasks.cancel_scope.cancel()

        draining = anyio.Event()
        tasks.start_soon(publish)
        tasks.start_soon(drain)
        with pytest.raises(CallError) as end:
            while True:
                got.append(await feed.receive())
        assert (end.value.code, end.value.message) == (Code.UNAVAILABLE, "the publisher is draining")
    assert 3 in got
    assert topic.statistics().subscribers == 0


async def test_a_link_that_was_opening_when_the_draining_began_is_drained_too(serving, virtual_clock):
    network = Network(latency=1)
    seller, buyer = serving
    network.join(buyer)
    async with network.listening(seller) as listener, anyio.create_task_group() as tasks:
        codes = []

        async def late() -> None:
            async with buyer.connect(listener.contact) as link:
                with pytest.raises((CallError, LinkLost)) as error:
                    await link.call("work", 0.0)
                codes.append(getattr(error.value, "code", None))
                await link.closed()

        tasks.start_soon(late)
        await anyio.sleep(3)
        assert await listener.drain()
        await anyio.sleep(10)
        assert codes == [Code.UNAVAILABLE]
        assert seller.links == ()


async def test_a_connection_that_comes_in_the_moment_in_which_draining_begins_ends_nothing(serving):
    """The task that accepts has been woken, so that it meets a closed socket and no cancellation."""
    seller, _ = serving

    class DrainAtOnce(trio.abc.Instrument):
        def before_task_step(self, task):
            if "accept" in task.name and drain:
                listener._stop_listening()

    drain = False
    instrument = DrainAtOnce()
    trio.lowlevel.add_instrument(instrument)
    try:
        async with seller.listening("127.0.0.1:0") as listener:
            await anyio.wait_all_tasks_blocked()
            host, _, port = listener.addresses[0].rpartition(":")
            drain = True
            with socket.create_connection((host, int(port))):
                while listener.accepting:
                    await anyio.lowlevel.checkpoint()
                assert await listener.drain()
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def test_a_dialler_can_drain_too_and_the_other_side_sees_a_clean_end(serving, network, virtual_clock):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        tasks.start_soon(link.call, "work", 5.0)
        await anyio.sleep(1)
        await link.drain()
        assert anyio.current_time() >= 5
        await far.closed()
        assert "closed the link" in str(far.lost)


@pytest.mark.parametrize("drains", [False, True])
async def test_a_refusal_that_is_under_way_when_writing_fails_is_heard(
    serving, network, drains, virtual_clock, monkeypatch
):
    """Rule 7: a failed write does not end a link before its reader has drained, whether we were leaving it or not."""
    seller, buyer = serving
    async with link_pair(buyer, seller, network=network) as (link, far), anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(LinkLost):
                await link.call("work", 100.0)

        async def fail(*parts: bytes) -> None:
            raise anyio.BrokenResourceError

        tasks.start_soon(call)
        await anyio.sleep(1)
        if drains:
            link.go_away("age")
            await anyio.sleep(1)
        monkeypatch.setattr(link._stream, "send", fail)
        far.refuse(Refused(Reason.REVOKED, by="us"))
        await anyio.sleep(network.latency / 2)
        link.ping_nowait()
        await link.closed()
    assert isinstance(link.lost, Refused)
    assert link.lost.reason is Reason.REVOKED


async def test_draining_a_link_before_its_tasks_run_is_possible(serving, network, virtual_clock):
    """A credential replaced in the very step in which the link has opened."""
    seller, buyer = serving
    near, far = network.connection()
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            link = await seller.open_on(far, dialer=False)
            link.go_away("credential")
            async with link.running():
                await link.closed()

        tasks.start_soon(serve)
        link = await buyer.open_on(near, dialer=True)
        async with link.running():
            await link.closed()
    assert seller.links == buyer.links == ()


async def test_draining_with_nothing_open_ends_at_once(serving, network, virtual_clock):
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.connect(listener.contact) as link:
        await anyio.sleep(1)
        begun = anyio.current_time()
        assert await listener.drain()
        assert anyio.current_time() - begun < 1
        await link.closed()


async def test_a_fault_in_one_link_is_logged_and_ends_no_other(serving, network, caplog, virtual_clock):
    """Nothing that happens on one connection may leave its task, a bug of ours included."""
    seller, buyer = serving
    async with network.listening(seller) as listener, buyer.connect(listener.contact) as link:
        await anyio.sleep(1)
        async with buyer.connect(listener.contact) as other:
            await anyio.sleep(1)
            (faulty,) = [
                one for one in seller.links if one.traffic.stream.link_id == other.traffic.stream.link_id
            ]
            faulty.traffic.open_batch = None
            with pytest.raises(LinkLost):
                await other.call("work", 0.0)
        assert await link.call("work", 1.0) == 1.0
        assert "fault" in caplog.text
