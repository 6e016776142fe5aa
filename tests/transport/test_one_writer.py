"""Rule 6: a stream has one writer, and what a cancelled one leaves behind is neither lost nor torn."""

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from autolink import limits
from autolink.transport import secure_stream, server_context

from .reading import read_on

pytestmark = pytest.mark.anyio


async def cancel_when_blocked(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def send_until_cancelled(stream, *parts: bytes) -> None:
    """Cancelled in the middle, when the other side does not read."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_blocked, tasks.cancel_scope)
        await stream.send(*parts)
    assert tasks.cancel_scope.cancelled_caught


@pytest.mark.parametrize("parts", [1, 64])
@pytest.mark.parametrize("next_size", [10, 100_000])
async def test_rule_6_a_cancelled_send_cannot_corrupt_what_follows(
    next_size, parts, connected, make, transports
):
    """Without the rule, a shorter buffer gives `bad length`, a longer one replaces bytes without any error.

    The receiver gets a prefix of what was sent, then a cut: neither the next send nor close_notify touches the
    torn record.
    """
    pair = make.sockets(buffer=65536) if transports is make.sockets else make.pipes(buffer=3)
    async with connected(*pair) as (dialler, listener):
        await send_until_cancelled(listener, *[b"A" * (8 * limits.MIB // parts)] * parts)
        with pytest.raises(anyio.BrokenResourceError, match="unfinished"):
            await listener.send(b"B" * next_size)
        await listener.aclose()
        received = bytearray()
        with pytest.raises(anyio.BrokenResourceError, match="close_notify"):
            await read_on(dialler, received)
        assert received
        assert set(received) == {ord("A")}


async def test_parts_leave_one_behind_the_other(connected, transports):
    """Each as it is, in records of its own; an empty one is nothing."""
    parts = [b"head", b"", memoryview(bytes(range(256)) * 1500), bytearray(b"x" * 20_000), b"tail"]
    async with connected(*transports()) as (dialler, listener), anyio.create_task_group() as tasks:
        tasks.start_soon(dialler.send, *parts)
        received = b""
        while len(received) < sum(map(len, parts)):
            received += await listener.receive()
    assert received == b"".join(parts)
    assert dialler.bytes_sent == len(received)


async def test_rule_10_nothing_is_written_behind_the_part_during_which_a_stream_was_closed(
    connected, transports
):
    """Its descriptor may be somebody else's by then."""
    async with connected(*transports()) as (dialler, _), anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await dialler.send(*[bytes(limits.TLS_TURN)] * 3)  # lets others run between them

        tasks.start_soon(send)
        await anyio.lowlevel.checkpoint()
        await dialler.abort()


async def test_rule_6_a_broken_send_does_not_end_receiving(connected, make):
    async with connected(*make.sockets(buffer=8192)) as (dialler, listener):
        await send_until_cancelled(dialler, b"A" * 8 * limits.MIB)
        await listener.send(b"last words")
        assert await dialler.receive() == b"last words"


async def test_rule_6_a_send_cancelled_before_its_first_byte_breaks_nothing(connected, transports):
    async with connected(*transports()) as (dialler, listener):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await dialler.send(b"never")
        await dialler.send(b"now")
        assert await listener.receive() == b"now"


async def test_rule_6_a_cancelled_receive_loses_nothing(connected, make):
    """Cancelled again and again while a record arrives in pieces."""
    async with connected(*make.pipes(cut=10)) as (dialler, listener):
        await dialler.send(b"x" * 1000)
        for _ in range(20):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await listener.receive()
            with anyio.move_on_after(0):
                await listener.receive()
        assert await listener.receive() == b"x" * 1000


@pytest.mark.parametrize("operation", ["receive", "send"])
async def test_rule_6_a_second_task_is_told_that_the_stream_is_busy(operation, connected, make):
    async with connected(*make.sockets(buffer=8192)) as (dialler, _):
        arguments = () if operation == "receive" else (b"x" * 8 * limits.MIB,)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(getattr(dialler, operation), *arguments)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await getattr(dialler, operation)(*arguments)
            with pytest.raises(anyio.BusyResourceError):
                await dialler.shutdown_politely()
            tasks.cancel_scope.cancel()


async def test_rule_6_a_post_handshake_message_in_two_records_delays_a_send_and_breaks_nothing(
    me, make, rogue
):
    """Between its halves OpenSSL cannot write; the send waits for our own reader to read the rest."""
    a, b = make.sockets()
    bad = rogue(a)
    waiting = anyio.Event()

    def cut_in_two() -> None:
        bad.dial(me)
        update = bytes(bad.messages.KeyUpdate().create(0).write())
        a.sendall(bad.pieces(22, update[:4]))
        anyio.from_thread.run(waiting.wait)
        a.sendall(bad.pieces(22, update[4:]))
        session = bad.tls.session
        session.cl_app_secret, session.sr_app_secret = bad.tls._recordLayer.calcTLS1_3KeyUpdate_reciever(
            session.cipherSuite, session.cl_app_secret, session.sr_app_secret
        )
        bad.tls.write(b"after")
        assert bad.tls.read(min=5, max=5) == b"later"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, cut_in_two)
        stream = await secure_stream(b, server_context(me), dialer=False)

        async def read() -> None:
            assert await stream.receive() == b"after"

        async with anyio.create_task_group() as both:
            both.start_soon(read)
            while not stream._idle:  # until it has read the first half, and found no data
                await anyio.lowlevel.checkpoint()
            both.start_soon(stream.send, b"later")
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            assert stream.bytes_sent == 0
            waiting.set()
        assert stream.bytes_sent == 5
        await stream.abort()
