"""A stream in use: what is sent arrives, in order and whole, however it is cut, and others can run meanwhile."""

import socket
import struct
import threading
from os import urandom

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from autolink import limits
from autolink.transport import _openssl, client_context, handshake, server_context

from .reading import Ticker, read_all, read_on, send_and_end

pytestmark = pytest.mark.anyio


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
