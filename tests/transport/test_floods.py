"""Rule 1: a peer that floods is ended, or read one fair turn each, and starves nobody."""

import contextlib
import socket

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.transport import client_context, secure_stream, server_context
from autolink.transport.wire import SocketWire

from .reading import Ticker, read_on

pytestmark = pytest.mark.anyio


async def over(kind: str, sock: socket.socket):
    """The transport under test, of a socket whose far end is a rogue's."""
    if kind == "socket":
        return sock
    sock.setblocking(False)
    return await SocketStream.from_socket(sock)


@pytest.mark.parametrize("kind", ["socket", "memory"])
@pytest.mark.parametrize("accepted", [False, True])
async def test_rule_1_a_flood_of_key_updates_ends_the_link_and_starves_nobody(
    kind, accepted, me, make, rogue
):
    """60,000 of them, 1.6 MB made in advance, are one call of half a second if OpenSSL is left to itself."""
    a, b = make.sockets()
    bad = rogue(a)

    def attack() -> None:
        bad.dial(me)
        if accepted:
            bad.tls.write(b"hello")
            assert bad.tls.read(min=2, max=2) == b"ok"
        flood = bad.key_updates(100) * 600  # only the first 33 are ever decrypted
        with contextlib.suppress(OSError):
            a.sendall(flood)

    ticker = Ticker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, attack)
        stream = await secure_stream(await over(kind, b), server_context(me), dialer=False)
        if accepted:
            assert await stream.receive() == b"hello"
            await stream.send(b"ok")
        tasks.start_soon(ticker)
        with pytest.raises(RemoteProtocolError, match="without data"):
            await stream.receive()
        with pytest.raises(RemoteProtocolError):
            await stream.receive()
        await stream.abort()
        tasks.cancel_scope.cancel()
    assert ticker.turns >= limits.IDLE_WAKEUPS / 2


async def test_rule_1_a_flood_behind_the_last_flight_is_no_part_of_the_handshake(
    me, make, rogue, monkeypatch
):
    """Read together with it, the handshake is done all the same, and the reader ends the link, letting others run."""
    a, b = make.sockets()
    bad = rogue(a)
    sent, reads = anyio.Event(), []
    read = SocketWire.read

    async def late_read(wire):
        reads.append(wire)
        if len(reads) == 2:  # the client's last flight
            await sent.wait()
        return await read(wire)

    monkeypatch.setattr(SocketWire, "read", late_read)

    def attack() -> None:
        bad.dial(me)
        a.sendall(bad.key_updates(100) * 4)
        anyio.from_thread.run_sync(sent.set)

    ticker = Ticker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, attack)
        stream = await secure_stream(b, server_context(me), dialer=False)
        tasks.start_soon(ticker)
        with pytest.raises(RemoteProtocolError, match="without data"):
            await stream.receive()
        await stream.abort()
        tasks.cancel_scope.cancel()
    assert ticker.turns >= limits.IDLE_WAKEUPS / 2


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_rule_1_a_flood_of_session_tickets_ends_the_link(kind, me, make, rogue):
    a, b = make.sockets()
    bad = rogue(b)

    def attack() -> None:
        bad.listen(me)
        with contextlib.suppress(OSError):
            b.sendall(bad.tickets(1_000))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, attack)
        stream = await secure_stream(await over(kind, a), client_context(me), dialer=True)
        with pytest.raises(RemoteProtocolError, match="without data"):
            await stream.receive()
        await stream.abort()


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_rule_1_records_of_one_byte_are_read_one_fair_turn_each(kind, me, make, rogue):
    """They carry data, so they are no offence: each costs its sender 23 bytes and us one turn."""
    a, b = make.sockets()
    bad = rogue(a)

    def attack() -> None:
        bad.dial(me)
        a.sendall(bad.pieces(23, *[b"x"] * 3_000))

    ticker = Ticker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, attack)
        stream = await secure_stream(await over(kind, b), server_context(me), dialer=False)
        tasks.start_soon(ticker)
        while stream.bytes_received < 3_000:
            assert await stream.receive() == b"x"
        await stream.abort()
        tasks.cancel_scope.cancel()
    assert ticker.turns >= 2_000


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_rule_1_key_updates_between_data_are_answered_and_harmless(kind, me, make, rogue):
    a, b = make.sockets()
    bad = rogue(a)

    def update() -> None:
        bad.dial(me)
        for _ in range(50):
            for _ in bad.tls.send_keyupdate_request(1):
                pass
            bad.tls.write(b"x")
        assert bad.tls.read(min=4, max=4) == b"done"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, update)
        stream = await secure_stream(await over(kind, b), server_context(me), dialer=False)
        while stream.bytes_received < 50:
            await stream.receive()
        await stream.send(b"done")
        await stream.abort()


async def test_rule_1_answers_to_key_updates_do_not_pile_up_in_memory(me, make, rogue, monkeypatch):
    """On memory BIOs they wait for our next send; who never lets us have something to send is cut off."""
    monkeypatch.setattr(limits, "TLS_STEP", 1024)
    a, b = make.sockets()
    bad = rogue(a)

    def attack() -> None:
        bad.dial(me)
        with contextlib.suppress(OSError):
            for _ in range(200):
                for _ in bad.tls.send_keyupdate_request(1):
                    pass
                bad.tls.write(b"x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, attack)
        stream = await secure_stream(await over("memory", b), server_context(me), dialer=False)
        with pytest.raises(RemoteProtocolError, match="KeyUpdates"):
            await read_on(stream, bytearray())
        await stream.abort()
