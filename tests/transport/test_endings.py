"""Last words: rule 7, a refusal arrives; a goodbye; and rule 10, the edges of closing, cuts and resets."""

import contextlib
import signal
import socket
import time
from typing import NoReturn

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from OpenSSL import SSL

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.transport import _openssl
from autolink.transport.edge import translate
from autolink.transport.wire import SocketWire

from .reading import read_all, read_on, send_and_end

pytestmark = pytest.mark.anyio


# --- rule 7: a refusal arrives -----------------------------------------------------------------------------


async def test_rule_7_last_words_reach_a_peer_that_is_flooding(connected, make):
    """With a plain close, the unread megabyte would turn into a reset that overtakes them."""
    async with connected(*make.sockets()) as (dialler, listener):

        async def flood() -> None:
            with contextlib.suppress(anyio.BrokenResourceError):
                for _ in range(20):
                    await dialler.send(b"request" * 10_000)
            assert await read_all(dialler) == b"REFUSE"
            await dialler.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            await anyio.wait_all_tasks_blocked()
            await send_and_end(listener, b"REFUSE")


async def test_rule_7_the_time_given_to_a_peer_that_does_not_hang_up_is_bounded(connected, transports):
    async with connected(*transports()) as (_, listener):
        started = time.monotonic()
        await listener.shutdown_politely()
        assert time.monotonic() - started < 5
        with pytest.raises(anyio.ClosedResourceError):
            await listener.receive()


async def test_rule_7_the_bytes_discarded_are_bounded(connected, make, monkeypatch):
    monkeypatch.setattr(limits, "REFUSAL_DRAIN", 20.0)
    monkeypatch.setattr(limits, "REFUSAL_DRAIN_BYTES", 200_000)
    async with connected(*make.sockets()) as (dialler, listener):

        async def flood() -> None:
            while True:
                await dialler.send(b"x" * 100_000)

        started = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.shutdown_politely)
            with pytest.raises(anyio.BrokenResourceError):
                await flood()
        assert time.monotonic() - started < 10


async def test_rule_7_a_failed_write_does_not_end_reading(connected, make):
    """Our own sending side is gone while the peer's last words are in the buffer."""
    a, b = make.sockets()
    async with connected(a, b) as (dialler, listener):
        await listener.send(b"last words")
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await listener.abort()  # a reset
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError, match="reset"):
                await dialler.send(b"x")
        assert await dialler.receive() == b"last words"
        with pytest.raises(anyio.BrokenResourceError):
            await dialler.receive()


# --- goodbye, said by whoever has nothing left to send -----------------------------------------------------------


async def test_whoever_says_goodbye_reads_on_until_the_peer_has_answered(connected, make):
    """What was sent before arrives, and the reader meets a clean end without having been stopped."""
    async with connected(*make.sockets()) as (dialler, listener), anyio.create_task_group() as tasks:
        received = bytearray()

        async def read() -> None:
            with pytest.raises(anyio.EndOfStream):
                await read_on(dialler, received)

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await dialler.send(b"last words")
        assert dialler.say_goodbye()
        assert not dialler.say_goodbye()
        with pytest.raises(anyio.BrokenResourceError):
            await dialler.send(b"too late")
        await listener.send(b"their last words")
        assert await read_all(listener) == b"last words"
        await listener.shutdown_politely()
    assert received == b"their last words"


async def test_a_peer_who_is_done_is_not_waited_for(connected, make, monkeypatch):
    """It has said that it sends no more, and we have read everything before: nothing could turn our close into a reset."""
    async with connected(*make.sockets()) as (dialler, listener):

        async def drain(_wire) -> NoReturn:
            pytest.fail("there is nothing to discard")

        assert dialler.say_goodbye()
        assert await read_all(listener) == b""
        with monkeypatch.context() as patched:
            patched.setattr(SocketWire, "drain", drain)
            await listener.shutdown_politely()
            assert await read_all(dialler) == b""
            await dialler.shutdown_politely()


async def test_a_goodbye_has_one_deadline(connected, make, monkeypatch):
    """A peer that never answers gets REFUSAL_DRAIN seconds in all, wherever they are waited for."""
    async with connected(*make.sockets()) as (dialler, _):
        monkeypatch.setattr(limits, "REFUSAL_DRAIN", 0.1)
        assert dialler.say_goodbye()
        monkeypatch.setattr(limits, "REFUSAL_DRAIN", 1000.0)
        with anyio.fail_after(5):
            await dialler.shutdown_politely()


async def test_goodbye_is_not_said_inside_a_record_nor_over_memory(connected, make):
    async with connected(*make.sockets(buffer=8192)) as (dialler, listener):
        left = 100_000
        while dialler.send_nowait(b"x" * 100_000):
            left += 100_000
        assert not dialler.say_goodbye()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dialler.finish_send)
            while left:
                left -= len(await listener.receive())
        assert dialler.say_goodbye()
        assert await read_all(listener) == b""
    async with connected(*make.pipes()) as (dialler, _):
        assert not dialler.say_goodbye()
        await dialler.send(b"nothing has changed")


# --- rule 10: the five edges -------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["receive", "send"])
@pytest.mark.parametrize("how", ["aclose", "abort"])
async def test_rule_10_closing_wakes_whoever_waits(operation, how, connected, make, transports):
    """Closing a descriptor alone would leave the task waiting for ever, on both backends."""
    pair = make.sockets(buffer=8192) if transports is make.sockets else make.pipes(buffer=1)
    async with connected(*pair) as (dialler, _):

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await (dialler.receive() if operation == "receive" else dialler.send(b"x" * 8 * limits.MIB))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await getattr(dialler, how)()
        await dialler.aclose()  # a second time, for nothing
        with pytest.raises(anyio.ClosedResourceError):
            await dialler.send(b"x")


async def test_rule_10_a_reused_descriptor_is_not_read_by_the_old_stream(connected, make):
    """OpenSSL knows a number. The system gives it to the next socket at once; its bytes are not ours to take."""
    async with connected(*make.sockets()) as (dialler, _):

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await dialler.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            number = dialler._wire._socket.fileno()
            await dialler.abort()
            near, far = socket.socketpair()
            assert number in (near.fileno(), far.fileno())
            near.sendall(b"not yours")
            far.sendall(b"not yours")
        assert near.recv(100) == far.recv(100) == b"not yours"
        near.close()
        far.close()


async def test_rule_10_a_receive_that_must_write_first_waits_for_room(connected, make, monkeypatch):
    """OpenSSL may want to answer a KeyUpdate when our send buffer is full; our writer is waiting for room already.

    AnyIO lets one task wait for a descriptor. That OpenSSL wants it is played here by hand: it cannot be provoked.
    """
    async with connected(*make.sockets(buffer=8192)) as (dialler, listener):
        read, wanted = _openssl.read, []

        def wants_to_write_once(connection: SSL.Connection, most: int) -> tuple:
            if connection is dialler._tls and not wanted:
                wanted.append(most)
                return memoryview(b""), 0, SSL.WantWriteError()
            return read(connection, most)

        monkeypatch.setattr(_openssl, "read", wants_to_write_once)
        await listener.send(b"data")
        big = b"x" * 4 * limits.MIB
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dialler.send, big)
            await anyio.wait_all_tasks_blocked()

            async def read_it() -> None:
                assert await dialler.receive() == b"data"

            tasks.start_soon(read_it)
            await anyio.wait_all_tasks_blocked()
            while listener.bytes_received < len(big):
                await listener.receive()
        assert wanted


async def test_one_connections_failure_is_not_taken_for_anothers(connected, make):
    """OpenSSL's error queue belongs to the thread: what one call leaves there spoils the next one's answer."""
    a, b = make.sockets()
    async with connected(*make.sockets()) as (dialler, listener), connected(a, b) as (torn, _):
        a.shutdown(socket.SHUT_WR)
        with pytest.raises(anyio.BrokenResourceError):
            await torn.send(b"x")
        await listener.abort()
        with pytest.raises(anyio.BrokenResourceError, match="close_notify"):
            await dialler.receive()


async def test_rule_10_a_cut_is_no_clean_end(connected, transports):
    """Prototypes returned nothing here, as if the peer had said goodbye."""
    async with connected(*transports()) as (dialler, listener):
        await listener.send(b"half a mess")
        await listener.abort()
        assert await dialler.receive() == b"half a mess"
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError, match="close_notify"):
                await dialler.receive()


async def test_rule_10_a_reset_is_a_broken_stream(connected, make):
    a, b = make.sockets()
    async with connected(a, b) as (_, listener):
        a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        a.close()
        with pytest.raises(anyio.BrokenResourceError, match="reset"):
            await listener.receive()


async def test_rule_10_a_write_to_nobody_raises_and_does_not_kill_the_process(connected, make):
    """Python ignores SIGPIPE from its start, OpenSSL writes without MSG_NOSIGNAL: both are needed."""
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    a, b = make.sockets()
    async with connected(a, b) as (dialler, listener):
        await listener.abort()
        with pytest.raises(anyio.BrokenResourceError):
            await dialler.send(b"x" * 8 * limits.MIB)


@pytest.mark.parametrize("error", [SSL.Error(), SSL.Error([])])
def test_rule_10_an_error_without_arguments_is_a_failure_that_was_told_before(error):
    assert isinstance(translate(error, "peer"), anyio.BrokenResourceError)


def test_errors_of_the_system_keep_the_systems_words():
    assert (
        str(translate(ConnectionResetError(104, "Connection reset by peer"), ""))
        == "Connection reset by peer"
    )
    assert "reset" in str(translate(SSL.SysCallError(104, "ECONNRESET"), ""))


async def test_bytes_that_do_not_decrypt_end_the_link_and_the_other_side_learns_it(connected, transports):
    """... as a protocol error on both sides; on memory BIOs the alert goes out when the stream is closed."""
    a, b = transports()
    async with connected(a, b) as (dialler, listener):
        forged = b"\x17\x03\x03\x00\x20" + bytes(32)
        if isinstance(a, socket.socket):
            a.send(forged)
        else:
            await a.send(forged)
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="bad record mac"):
                await listener.receive()
        await listener.aclose()
        with pytest.raises(RemoteProtocolError, match="alert bad record mac"):
            await dialler.receive()


async def test_sending_after_ones_own_end_is_refused(connected, transports):
    async with connected(*transports()) as (dialler, _):
        assert await dialler._close_notify()
        with pytest.raises(anyio.BrokenResourceError, match="ended"):
            await dialler.send(b"x")
