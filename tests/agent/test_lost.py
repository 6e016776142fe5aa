"""A link that is gone: every operation says so, every handler is stopped, and nobody's own exception is touched."""

import anyio
import anyio.lowlevel
import pytest

from autolink import CallError, Code, LinkLost, Reason, Refused, limits
from autolink.errors import RemoteProtocolError
from autolink.testing import Network, link_pair

pytestmark = pytest.mark.anyio


@pytest.fixture
def serving(agents):
    """(seller, buyer): everything there waits for ever; `seller.stopped` counts what was cancelled."""
    seller, buyer = agents
    seller.stopped = 0

    async def wait_for_ever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seller.stopped += 1

    @seller.method
    async def wait(call, body) -> None:
        await wait_for_ever()

    @seller.channel
    async def quiet(channel) -> None:
        await wait_for_ever()

    seller.topic("news", of=int)
    return seller, buyer


async def lost(operation) -> LinkLost:
    with pytest.raises(LinkLost) as error:
        await operation()
    assert isinstance(error.value, anyio.BrokenResourceError)
    return error.value


async def test_every_pending_and_later_operation_raises_link_lost_with_the_cause(serving):
    """A call, a receive, a send that waits for credit, a subscription, a ping, a forward; then each of them again."""
    seller, buyer = serving
    network = Network()
    errors = []
    async with link_pair(buyer, seller, network=network) as (link, far):
        async with link.open_channel("quiet") as channel, link.subscribe("news") as feed:

            async def fill() -> None:
                while True:
                    await channel.send(b"x" * 100_000)

            async def collect(operation) -> None:
                errors.append(await lost(operation))

            envelope = buyer.sign(seller.auto_id, "wait")
            async with anyio.create_task_group() as tasks:
                for operation in (lambda: link.call("wait"), channel.receive, fill, feed.receive):
                    tasks.start_soon(collect, operation)
                await anyio.wait_all_tasks_blocked()
                resume = network.pause()
                tasks.start_soon(collect, link.ping)
                tasks.start_soon(collect, lambda: link.forward(envelope))
                await anyio.wait_all_tasks_blocked()
                network.cut()
                resume()
            assert len(errors) == 6
            for operation in (
                lambda: link.call("wait"), channel.receive, lambda: channel.send(1), channel.send_eof, feed.receive,
                link.ping, lambda: link.forward(envelope),
            ):  # fmt: skip
                errors.append(await lost(operation))
            for error in errors:
                assert isinstance(error.__cause__, LinkLost)
                assert isinstance(error.__cause__.__cause__, anyio.BrokenResourceError)
            assert len({id(error) for error in errors}) == len(errors)
            await lost(link.open_channel("quiet").__aenter__)
            await lost(link.subscribe("news").__aenter__)
        await far.closed()
    assert seller.stopped == 2
    assert seller.statistics().handlers == seller.statistics().links == 0
    assert buyer.statistics().links == 0


async def test_the_body_keeps_its_own_exceptions_and_is_not_cancelled(serving):
    seller, buyer = serving
    network = Network()
    with pytest.raises(KeyError, match="mine"):
        async with link_pair(buyer, seller, network=network) as (link, far):
            network.cut()
            await link.closed()
            await far.closed()
            await anyio.lowlevel.checkpoint()
            raise KeyError("mine")


@pytest.mark.parametrize(
    "error", [ValueError("x"), CallError("not_found"), KeyboardInterrupt(), SystemExit(3)]
)
@pytest.mark.parametrize(
    "where", ["link_pair", "open_channel", "subscribe", "connect", "keep_link", "listening"]
)
async def test_exceptions_leave_our_blocks_unchanged_and_in_no_group(serving, where, error):
    seller, buyer = serving
    network = Network()
    network.join(buyer)
    with pytest.raises(type(error)) as caught:
        if where == "listening":
            async with seller.listening("127.0.0.1:0"):
                raise error
        elif where in ("connect", "keep_link"):
            async with network.listening(seller) as listener, getattr(buyer, where)(listener.contact):
                raise error
        async with link_pair(buyer, seller) as (link, _):
            if where == "link_pair":
                raise error
            async with getattr(link, where)("quiet" if where == "open_channel" else "news"):
                raise error
    assert caught.value is error


async def test_cancelling_a_block_from_outside_is_not_an_exception(serving):
    seller, buyer = serving
    network = Network()
    network.join(buyer)
    async with network.listening(seller) as listener:
        with anyio.move_on_after(0.05) as scope:
            async with buyer.connect(listener.contact) as link, link.open_channel("quiet"):
                await anyio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_handlers_link_to_somebody_else_is_not_the_callers(agents, acme):
    """A relay whose own link is lost fails with `internal`: silence would leave the caller with `cancelled`."""
    seller, buyer = agents
    behind = acme.agent("behind")
    network = Network()
    relay = acme.agent("relay", trust=buyer.trust)
    relay.trust = seller.trust | behind.trust
    async with link_pair(relay, behind, network=network) as (onward, _):

        @relay.method
        async def pass_on(call, body) -> object:
            return await onward.call("anything")

        network.cut()
        await onward.closed()
        async with link_pair(buyer, relay) as (link, _):
            with pytest.raises(CallError) as error:
                await link.call("pass_on")
            assert error.value.code is Code.INTERNAL
            await link.ping()


async def test_closing_a_link_tells_the_other_end_and_delivers_what_was_queued(agents):
    """Queued items leave before the goodbye."""
    seller, buyer = agents
    got = []

    @seller.channel
    async def collect(channel) -> None:
        async for item in channel:
            got.append(item)

    async with link_pair(buyer, seller) as (link, far):
        async with link.open_channel("collect") as channel:
            for number in range(100):
                await channel.send(number)
            await channel.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await channel.receive()
        await link.aclose()
        await far.closed()
        assert isinstance(far.lost, LinkLost)
        assert "closed the link" in str(far.lost)
    assert got == list(range(100))


async def test_a_link_that_ends_with_a_refusal_has_it_as_the_cause(serving):
    """Both ends say who refused whom and why; the wire carries the closed reason only."""
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far):
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                error = await lost(lambda: link.call("wait"))
                assert isinstance(error.__cause__, Refused)
                assert (error.__cause__.by, error.__cause__.reason) == ("peer", "untrusted")

            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            far.refuse(Refused(Reason.IMPOSTOR, by="us", detail="secret policy"))
        await far.closed()
        assert "secret policy" in str(far.lost)
        assert "secret policy" not in str(link.lost)
    assert buyer.statistics().refused_by_peer == {"untrusted": 1}
    assert seller.statistics().refused == {"impostor": 1}


async def test_garbage_from_the_peers_protocol_ends_the_link_with_a_remote_protocol_error(serving):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, far):
        far.traffic.control(b"\x63" + bytes(4))
        await link.closed()
        assert isinstance(link.lost, RemoteProtocolError)
        await far.closed()
        assert isinstance(far.lost, Refused)
        assert far.lost.reason == "malformed"


async def test_text_that_is_no_utf8_in_a_handlers_error_is_replaced(agents):
    seller, buyer = agents

    @seller.method
    async def odd(call, body) -> None:
        raise CallError("aborted", "\ud800" * 10 + "x" * limits.MESSAGE)

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("odd")
        assert error.value.code is Code.ABORTED
        assert len(error.value.message) <= limits.DISPLAY


async def test_what_arrived_before_the_end_can_still_be_received(agents):
    """More than half a window of it, so that reading it would give credit back to a peer that is gone."""
    seller, buyer = agents

    @seller.channel
    async def talks(channel) -> None:
        for number in range(20):
            await channel.send([number, b"x" * 10_000])
        await anyio.sleep_forever()

    network = Network()
    async with (
        link_pair(buyer, seller, network=network) as (link, far),
        link.open_channel("talks") as channel,
    ):
        await anyio.wait_all_tasks_blocked()
        far.traffic.control(b"\x63" + bytes(4))
        await link.closed()
        assert [(await channel.receive())[0] for _ in range(20)] == list(range(20))
        await lost(channel.receive)


@pytest.mark.parametrize("ends", ["cancelled", "lost"])
async def test_what_a_handler_raises_while_it_is_being_stopped_ends_nothing_else(agents, ends, caplog):
    """Its task group mixes the error of one task with the cancellation of another: logged here, and nobody is told."""
    seller, buyer = agents
    network = Network()
    started = anyio.Event()

    @seller.method
    async def messy(call, body) -> None:
        async def fails() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("in cleanup")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fails)
            tasks.start_soon(anyio.sleep_forever)
            started.set()

    async with link_pair(buyer, seller, network=network) as (link, far), anyio.create_task_group() as tasks:

        async def call() -> None:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel, scope)
                with pytest.raises(LinkLost):
                    await link.call("messy")

        async def cancel(scope) -> None:
            await started.wait()
            scope.cancel() if ends == "cancelled" else network.cut()

        tasks.start_soon(call)
        await started.wait()
        if ends == "cancelled":
            await link.ping()
            await link.ping()
            assert far.lost is None
        else:
            await far.closed()
            # A handler's own cleanup may take longer than the connection's.
            await anyio.wait_all_tasks_blocked()
        assert far.statistics().handlers == 0
    assert "in cleanup" in caplog.text


async def test_a_handler_that_meets_the_end_of_its_channel_is_not_logged_as_failed(agents, caplog):
    """Cancelled or lost while it waits for credit: no fault of its author's."""
    seller, buyer = agents

    @seller.channel
    async def floods(channel) -> None:
        while True:
            await channel.send(b"x" * 10_000)

    for how in ("leave", "cut"):
        network = Network(seed=3)
        async with link_pair(buyer, seller, network=network) as (link, far):
            async with link.open_channel("floods") as channel:
                await channel.receive()
                await anyio.wait_all_tasks_blocked()
                if how == "cut":
                    network.cut()
            with anyio.move_on_after(1):
                await link.ping() if how == "leave" else await far.closed()
        assert seller.statistics().handlers == 0
    assert "failed" not in caplog.text
