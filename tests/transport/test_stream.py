"""A stream under use and abuse: cancellation, floods, cuts, closing, and both ends' last words."""

import contextlib
import signal
import socket
import struct
import threading
import time
from os import urandom
from typing import NoReturn

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream
from OpenSSL import SSL

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.transport import _openssl, client_context, handshake, secure_stream, server_context
from autolink.transport.edge import translate
from autolink.transport.wire import SocketWire

pytestmark = pytest.mark.anyio


async def read_all(stream) -> bytes:
    """Everything up to the clean end."""
    data = bytearray()
    with contextlib.suppress(anyio.EndOfStream):
        await read_on(stream, data)
    return bytes(data)


async def read_on(stream, received: bytearray) -> NoReturn:
    """Into `received`, until something is raised."""
    while True:
        received += await stream.receive()


async def send_and_end(stream, data: bytes) -> None:
    await stream.send(data)
    await stream.shutdown_politely()


class Ticker:
    """Counts the turns of the event loop: how often others could run."""

    def __init__(self) -> None:
        self.turns = 0

    async def __call__(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.turns += 1


# --- the ordinary ------------------------------------------------------------------------------------------


async def test_eight_megabytes_pass_both_ways_at_once(connected, transports, monkeypatch):
    """One reader and one writer on each side, far beyond every buffer."""
    monkeypatch.setattr(limits, "REFUSAL_DRAIN", 10.0)
    there, back = b"abc" * 2_800_000, b"xyzw" * 2_100_000
    got = {}
    async with connected(*transports()) as (dialler, listener):

        async def both(stream, data: bytes, name: str) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.send, data)
                received = bytearray()
                while len(received) < len(there if name == "listener" else back):
                    received += await stream.receive()
            got[name] = bytes(received)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both, dialler, there, "dialler")
            tasks.start_soon(both, listener, back, "listener")
    assert got == {"listener": there, "dialler": back}


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 7, 1000])
async def test_bytes_split_anywhere_change_nothing(cut, connected, make):
    """Records arrive whole or in crumbs: the handshake, the data and the end are the same."""
    async with connected(*make.pipes(cut=cut)) as (dialler, listener), anyio.create_task_group() as tasks:
        tasks.start_soon(send_and_end, dialler, b"x" * 40_000)
        assert await read_all(listener) == b"x" * 40_000
        await listener.aclose()


async def test_a_clean_end_stays_the_end(connected, transports):
    async with connected(*transports()) as (dialler, listener):
        await dialler.aclose()
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await listener.receive()


async def test_a_reset_behind_half_a_record_is_a_broken_connection(me, make):
    """With that half in hand the socket is not OpenSSL's yet, and the system's error comes from our own reading."""
    near, far = make.sockets()
    ends = {}

    async def open_end(name, sock, context):
        ends[name] = await handshake(sock, context, dialer=name == "dialler")
        if name == "dialler":
            write = ends[name]._wire.write
            ends[name]._wire.write = lambda data: write(data + b"\x17\x03\x03\x01\x00half")
        await ends[name].settle()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_end, "dialler", near, client_context(me))
        tasks.start_soon(open_end, "listener", far, server_context(me))
    listener = ends["listener"]
    assert listener._wire._partial.endswith(b"half")
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await ends["dialler"].abort()
    with pytest.raises(anyio.BrokenResourceError):
        await listener.receive()
    await listener.abort()


async def test_what_is_sent_at_once_leaves_whole(connected, make):
    """Only where OpenSSL writes the connection itself can anything be sent without waiting."""
    data = b"x" * 20_000
    async with connected(*make.sockets()) as (dialler, listener):
        assert dialler.direct
        assert dialler.send_nowait(data)
        assert not dialler.sending
        assert dialler.bytes_sent == len(data)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_and_end, dialler, b"last")
            assert await read_all(listener) == data + b"last"
            await listener.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            dialler.send_nowait(b"x")


async def test_a_byte_stream_is_nothing_to_send_on_at_once(connected, make):
    async with connected(*make.pipes()) as (dialler, _):
        assert not dialler.direct


async def test_what_cannot_be_sent_at_once_is_finished_by_the_task_that_sends(connected, make):
    """Between a full socket's last record and its rest nothing else goes out."""
    data = b"0123456789abcdef" * 2**18
    async with connected(*make.sockets(buffer=2**17)) as (dialler, listener):
        assert not dialler.send_nowait(data)
        assert dialler.sending
        assert 0 < dialler.bytes_sent < len(data)
        with pytest.raises(anyio.BusyResourceError):
            dialler.send_nowait(b"x")
        with pytest.raises(anyio.BusyResourceError):
            await dialler.send(b"x")
        async with anyio.create_task_group() as tasks:

            async def finish():
                await dialler.finish_send()
                await send_and_end(dialler, b"last")

            tasks.start_soon(finish)
            assert await read_all(listener) == data + b"last"
            await listener.aclose()


async def test_an_unfinished_record_is_not_followed_by_a_goodbye(connected, make):
    """The peer sees a cut, as after a send that was cancelled."""
    async with connected(*make.sockets(buffer=2**17)) as (dialler, listener):
        assert not dialler.send_nowait(b"x" * 2**22)
        taken = dialler.bytes_sent
        await dialler.aclose()
        received = bytearray()
        with pytest.raises(anyio.BrokenResourceError):
            await read_on(listener, received)
        assert len(received) <= taken


async def test_an_unfinished_record_of_a_closed_stream_is_not_finished(connected, make):
    """Whoever comes to finish it finds the stream closed, not a descriptor that is none."""
    async with connected(*make.sockets(buffer=2**17)) as (dialler, _):
        assert not dialler.send_nowait(b"x" * 2**22)
        await dialler.abort()
        with pytest.raises(anyio.ClosedResourceError):
            await dialler.finish_send()


@pytest.mark.parametrize("reset", [True, False])
async def test_sending_at_once_to_nobody_is_told(reset, connected, make):
    """Whether the system tells it before the write or OpenSSL by it."""
    async with connected(*make.sockets()) as (dialler, listener):
        if reset:
            listener._wire._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await listener.abort()
        with pytest.raises(anyio.BrokenResourceError):
            for _ in range(1000):
                dialler.send_nowait(b"x")
                await anyio.lowlevel.checkpoint()
        with pytest.raises(anyio.BrokenResourceError):
            dialler.send_nowait(b"x")


async def test_max_bytes_leaves_the_rest_for_the_next_receive(connected, transports):
    async with connected(*transports()) as (dialler, listener):
        await dialler.send(b"abcdef")
        assert await listener.receive(4) == b"abcd"
        assert await listener.receive(4) == b"ef"


async def test_full_records_are_read_together_and_given_out_in_order(connected, make, monkeypatch):
    """A turn's worth of them and what is behind, in few reads; a record that is not full is not waited behind."""
    reads, read = [], _openssl.read

    def counted(*args):
        found = read(*args)
        reads.append(len(found[0]))
        return found

    data = urandom(3 * limits.TLS_TURN + 5)
    async with connected(*make.sockets()) as (dialler, listener), anyio.create_task_group() as tasks:
        monkeypatch.setattr(_openssl, "read", counted)
        tasks.start_soon(dialler.send, data)
        received = bytearray()
        while len(received) < len(data):
            await anyio.wait_all_tasks_blocked()
            await listener.receive_to(received.extend)
        assert received == data
        assert max(reads) > 2 * _openssl.RECORD
        assert max(reads) <= limits.TLS_TURN
        assert len([size for size in reads if size]) < listener.records_received / 2


async def test_what_is_given_to_a_reader_stands_where_the_next_bytes_will(connected, make):
    """So it copies what it keeps; `receive` does."""
    async with connected(*make.sockets()) as (dialler, listener):
        await dialler.send(b"first")
        views = []
        await listener.receive_to(views.append)
        assert bytes(views[0]) == b"first"
        await dialler.send(b"other")
        kept = await listener.receive()
        assert (kept, bytes(views[0])) == (b"other", b"other")


def test_each_thread_reads_to_a_place_of_its_own():
    """Loops of two threads may read at once: OpenSSL is called without the interpreter's lock."""
    places = [_openssl._scratch.place]
    thread = threading.Thread(target=lambda: places.append(_openssl._scratch.place))
    thread.start()
    thread.join()
    assert places[0] is _openssl._scratch.place
    assert places[1] is not places[0]


async def test_rule_6_one_call_takes_what_several_records_carry_and_goes_on_with_it(
    connected, make, monkeypatch
):
    """OpenSSL has sent some of a turn's records when it must wait, and gets the same bytes until it has sent all."""
    offered, data = [], urandom(2 * limits.TLS_TURN + 3)
    async with connected(*make.sockets(buffer=65_536)) as (dialler, listener):
        write = _openssl.write

        def watched(connection, view):
            if connection is dialler._tls:
                offered.append(bytes(view))
            return write(connection, view)

        monkeypatch.setattr(_openssl, "write", watched)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dialler.send, data)
            received = bytearray()
            while len(received) < len(data):
                received += await listener.receive()
        assert received == data
        distinct = [one for one, before in zip(offered, [b"", *offered], strict=False) if one != before]
        assert [len(one) for one in distinct] == [limits.TLS_TURN, limits.TLS_TURN, 3]
        assert len(offered) > len(distinct)
        assert b"".join(distinct) == data


async def test_an_error_behind_data_is_told_when_the_data_was_given(connected, make):
    """A cut right behind several full records."""
    async with connected(*make.sockets()) as (dialler, listener):
        await listener.send(b"x" * 4 * _openssl.RECORD)
        await listener.abort()
        received = bytearray()
        with pytest.raises(anyio.BrokenResourceError, match="close_notify"):
            await read_on(dialler, received)
        assert received == b"x" * 4 * _openssl.RECORD


async def test_sending_nothing_sends_no_record(connected, transports):
    async with connected(*transports()) as (dialler, listener):
        await dialler.send(b"")
        assert dialler.records_sent == 0
        await dialler.send(b"x")
        assert await listener.receive() == b"x"


async def test_rule_11_records_and_bytes_are_counted_in_both_directions(connected, transports):
    """A link is re-made after limits.RECORDS; a record holds 16,384 bytes."""
    async with connected(*transports()) as (dialler, listener):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dialler.send, b"x" * 100_000)
            while listener.bytes_received < 100_000:
                await listener.receive()
        assert (dialler.records_sent, dialler.bytes_sent) == (7, 100_000)
        assert (listener.records_received, listener.bytes_received) == (7, 100_000)
        assert (listener.records_sent, dialler.records_received) == (0, 0)


async def test_a_receive_that_need_not_wait_lets_others_run(connected, transports):
    async with connected(*transports()) as (dialler, listener):
        for _ in range(15):
            await dialler.send(b"x")
        ticker = Ticker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ticker)
            await anyio.lowlevel.checkpoint()
            for _ in range(15):
                await listener.receive()
            tasks.cancel_scope.cancel()
        assert ticker.turns >= 10


async def test_a_send_that_need_not_wait_lets_others_run(connected, make):
    """A megabyte into a pipe that takes everything."""
    async with connected(*make.pipes(buffer=1000)) as (dialler, _):
        ticker = Ticker()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ticker)
            await anyio.lowlevel.checkpoint()
            await dialler.send(b"x" * limits.MIB)
            tasks.cancel_scope.cancel()
        assert ticker.turns >= limits.MIB // limits.TLS_TURN


# --- rule 1: floods ----------------------------------------------------------------------------------------


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

    async def late_read(wire, size):
        reads.append(size)
        if len(reads) == 2:  # the client's last flight
            await sent.wait()
        return await read(wire, size)

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


# --- rule 6: one writer, and a buffer that is never lost ---------------------------------------------------


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
