"""The whole thing once over real sockets: TCP, IPv6, Unix, and strangers who come to waste our time."""

import errno
import logging
import socket
import sys

import anyio
import pytest

from autolink import ANYONE_TRUSTED, Agent, LinkLost, PeerId, Reason, Refused, UsageError, codec, limits
from autolink.messages import Kind
from autolink.transport import ListeningSocket, connect, parse_address

pytestmark = pytest.mark.anyio


@pytest.fixture
def serving(agents):
    seller, buyer = agents

    @seller.method
    async def echo(call, body) -> object:
        return body

    return seller, buyer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_tcp_ipv6_and_unix_at_once_each_with_a_contact_that_says_whom_to_expect(serving, tmp_path):
    seller, buyer = serving
    wanted = ["127.0.0.1:0", f"unix:{tmp_path}/seller.sock"] + ["[::1]:0"] * has_ipv6()
    async with seller.listening(*wanted) as listener:
        assert len(listener.addresses) == len(listener.contacts) == len(wanted)
        assert listener.contact == listener.contacts[0]
        for address, contact in zip(listener.addresses, listener.contacts, strict=True):
            assert not address.endswith(":0")
            async with buyer.connect(contact) as link:
                assert await link.call("echo", address) == address
                assert link.tls.version == "TLSv1.3"
                assert link.peer.peer_id == seller.peer_id
            async with buyer.connect(address, expect=seller.auto_id) as link:
                await link.ping()
            async with buyer.connect(address, expect=ANYONE_TRUSTED) as link:
                await link.ping()
            async with buyer.connect(address, expect=str(seller.peer_id)) as link:
                await link.ping()


async def test_every_tcp_socket_of_a_link_has_nodelay(serving):
    """Both ends: a peer that forgot it has round trips of 88 ms instead of 2."""
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
        await link.ping()
        for end in (link, *seller.links):
            assert end._stream._wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("where", "expect", "match"),
    [
        ("127.0.0.1:1", None, "whom to expect"),
        ("autolink://" + "0" * 64 + "@127.0.0.1:1", ANYONE_TRUSTED, "leave expect= out"),
        ("nonsense", ANYONE_TRUSTED, "nonsense"),
    ],
)
async def test_connecting_needs_an_address_and_somebody_to_expect(serving, where, expect, match):
    _, buyer = serving
    with pytest.raises(UsageError, match=match):
        async with buyer.connect(where, expect=expect):
            pytest.fail("must not be entered")


async def test_listening_needs_an_address_that_can_be_had(serving):
    seller, _ = serving
    with pytest.raises(UsageError, match="needs an address"):
        async with seller.listening():
            pytest.fail("must not be entered")
    async with seller.listening("127.0.0.1:0") as listener:
        with pytest.raises(OSError) as error:
            async with seller.listening("127.0.0.1:0", listener.addresses[0]):
                pytest.fail("must not be entered")
        assert error.value.errno == errno.EADDRINUSE


async def test_nobody_there_is_link_lost_with_the_address(serving):
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = listener.addresses[0]
    with pytest.raises(LinkLost, match=address) as error:
        async with buyer.connect(address, expect=ANYONE_TRUSTED):
            pytest.fail("must not be entered")
    assert isinstance(error.value.__cause__, OSError)


async def test_serve_is_listening_until_cancelled(serving, tmp_path):
    seller, buyer = serving
    path = f"unix:{tmp_path}/s"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(seller.serve, path)
        while not (tmp_path / "s").exists():  # noqa: ASYNC110  nothing else tells
            await anyio.sleep(0.01)
        async with buyer.connect(path, expect=ANYONE_TRUSTED) as link:
            assert await link.call("echo", 1) == 1
        tasks.cancel_scope.cancel()
    assert not (tmp_path / "s").exists()
    assert seller.links == ()


@pytest.mark.parametrize(
    "garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(600), bytes(100_000)]
)
async def test_a_stranger_who_sends_garbage_disturbs_nobody(serving, garbage):
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = parse_address(listener.addresses[0])
        for _ in range(3):
            async with await anyio.connect_tcp(address.host, address.port) as raw:
                await raw.send(garbage)
                await raw.send_eof()
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    while True:
                        await raw.receive()
        async with buyer.connect(listener.contact) as link:
            assert await link.call("echo", 1) == 1
        assert seller.statistics().links <= 1


async def test_a_fault_of_ours_while_a_stranger_is_judged_ends_nobody_elses_link(
    serving, monkeypatch, caplog
):
    """Memory may run out just then; the listener goes on."""
    seller, buyer = serving
    module = sys.modules[Agent.open_on.__module__]
    opening = module.open_link

    async def out_of_memory(agent, *parts, dialer, **more):
        if agent is seller:
            raise MemoryError
        return await opening(agent, *parts, dialer=dialer, **more)

    async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
        assert await link.call("echo", 1) == 1
        with monkeypatch.context() as patched:
            patched.setattr(module, "open_link", out_of_memory)
            with pytest.raises(LinkLost):
                async with buyer.connect(listener.contact):
                    pytest.fail("must not open")
        assert await link.call("echo", 2) == 2
        async with buyer.connect(listener.contact) as again:
            assert await again.call("echo", 3) == 3
    assert "by a fault" in caplog.text


async def test_a_fault_of_ours_in_a_task_of_a_link_ends_nobody_elses_link(serving, caplog):
    seller, buyer = serving

    async def broken() -> None:
        raise RuntimeError("a fault of ours")

    async with seller.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
        await link.ping()
        (far,) = seller.links
        async with buyer.connect(listener.contact) as other:
            await other.ping()
            far.tasks.start_soon(broken)
            with anyio.fail_after(5):
                await link.closed()
            assert await other.call("echo", 2) == 2
    assert "ended by a fault" in caplog.text


async def test_a_peer_who_does_not_say_goodbye_keeps_nobody(serving, monkeypatch):
    """Whoever leaves a link has said everything, and waits for the answer no longer than for a refusal's."""
    seller, buyer = serving
    monkeypatch.setattr(limits, "REFUSAL_DRAIN", 0.1)
    async with seller.listening("127.0.0.1:0") as listener:
        with anyio.fail_after(5):
            async with buyer.connect(listener.contact) as link:
                assert await link.call("echo", 1) == 1
                (far,) = seller.links
                gone = anyio.Event()

                async def stay() -> None:
                    await gone.wait()
                    await far._stream.abort()

                monkeypatch.setattr(far._stream, "shutdown_politely", stay)
        assert str(link.lost) == "this side closed the link"
        gone.set()
        with anyio.fail_after(5):
            await far.closed()


async def test_a_call_that_crosses_our_goodbye_is_not_begun(serving):
    """The link has ended here: a handler would have nobody to answer, and nothing would end it."""
    seller, buyer = serving
    begun = []

    @buyer.method
    async def work(call, body) -> None:
        begun.append(call)
        await anyio.sleep_forever()

    async with seller.listening("127.0.0.1:0") as listener:
        with anyio.fail_after(5):
            async with buyer.connect(listener.contact) as link:
                await link.ping()
                (far,) = seller.links
                # In one step: it is sent, and no task of ours has run since.
                with pytest.raises(StopIteration):
                    far.open_lane(Kind.CALL, "work", codec.encode(None)).send(None)
        assert far.lost is not None
    assert begun == []


async def test_leaving_a_link_while_being_cancelled_says_goodbye_all_the_same(serving):
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        with anyio.CancelScope() as scope:
            async with buyer.connect(listener.contact) as link:
                assert await link.call("echo", 1) == 1
                (far,) = seller.links
                scope.cancel()
        with anyio.fail_after(5):
            await far.closed()
        assert str(far.lost) == "the peer closed the link"


async def test_a_stranger_who_never_finishes_the_handshake_is_given_up(serving, monkeypatch):
    monkeypatch.setattr(limits, "OPENING", 0.2)
    seller, _ = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = parse_address(listener.addresses[0])
        async with await anyio.connect_tcp(address.host, address.port) as raw:
            await raw.send(b"\x16\x03\x01\x02")
            with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await raw.receive()


async def test_openings_at_once_are_bounded_and_the_others_wait_in_the_queue(serving, monkeypatch):
    """Strangers who say nothing take all the places; when they are given up, an honest dialler gets in."""
    monkeypatch.setattr(limits, "OPENINGS", 2)
    monkeypatch.setattr(limits, "OPENING", 0.5)
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = parse_address(listener.addresses[0])
        strangers = [await anyio.connect_tcp(address.host, address.port) for _ in range(2)]
        await anyio.sleep(0.05)
        assert listener._openings.value == 0
        monkeypatch.setattr(limits, "OPENING", 15.0)
        begun = anyio.current_time()
        async with buyer.connect(listener.contact) as link:
            await link.ping()
        assert anyio.current_time() - begun > 0.3
        for stranger in strangers:
            await stranger.aclose()


async def test_running_out_of_descriptors_pauses_accepting_and_loses_nobody(serving, monkeypatch, caplog):
    """EMFILE from accept, three times: the dialler waits a moment and gets in."""
    monkeypatch.setattr("autolink.transport.listening.BACK_OFF", (0.01, 0.02))
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        (one,) = listener._sockets
        real, failures = one._accept, iter([errno.EMFILE] * 3)

        def accept():
            if number := next(failures, None):
                raise OSError(number, "too many")
            return real()

        one._accept = accept
        with caplog.at_level(logging.WARNING):
            async with buyer.connect(listener.contact) as link:
                assert await link.call("echo", 1) == 1
        assert caplog.text.count("cannot accept") >= 1


async def test_a_refusal_over_tcp_reaches_a_dialler_that_is_already_sending(acme, globex, serving):
    """Rule 7: the listener drains what comes behind the HELLO, so that no reset overtakes its REFUSE."""
    seller, _ = serving
    stranger = acme.agent("stranger")
    async with seller.listening("127.0.0.1:0") as listener:
        for _ in range(5):
            with pytest.raises(Refused) as error:
                async with stranger.connect(listener.contact):
                    pytest.fail("must not open")
            assert (error.value.by, error.value.reason) == ("peer", Reason.UNTRUSTED)
        assert seller.statistics().refused == {Reason.UNKNOWN_ISSUER: 5}


async def test_another_agent_at_the_address_is_refused_before_it_sees_our_certificate(serving, acme):
    seller, buyer = serving
    other = PeerId(acme.issue("other").auto_id, "bound")
    async with seller.listening("127.0.0.1:0") as listener:
        with pytest.raises(Refused) as error:
            async with buyer.connect(listener.addresses[0], expect=other):
                pytest.fail("must not open")
        assert (error.value.by, error.value.reason) == ("us", Reason.WRONG_PEER)


async def test_leaving_the_block_ends_links_and_frees_the_address(serving):
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = listener.addresses[0]
        async with buyer.connect(listener.contact) as link:
            await link.ping()
    async with seller.listening(address) as again, buyer.connect(again.contact) as link:
        assert await link.call("echo", 1) == 1


async def test_who_was_accepted_before_the_draining_still_gets_a_link_and_is_told_to_leave_it(serving):
    """Another process at the same address takes over, and nobody who knocked was turned away."""
    seller, buyer = serving
    async with seller.listening("127.0.0.1:0") as listener, anyio.create_task_group() as tasks:
        connection = await connect(parse_address(listener.addresses[0]))
        while listener._openings.value == limits.OPENINGS:
            await anyio.wait_all_tasks_blocked()
        ended = []

        async def drain() -> None:
            ended.append(await listener.drain())

        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not ended
        link = await buyer.open_on(connection, dialer=True)
        async with link.running():
            await link.no_longer_usable()
            await link.closed()
    assert ended == [True]


async def test_a_stranger_who_says_nothing_delays_draining_by_little(serving, monkeypatch):
    monkeypatch.setattr(limits, "OPENING_DRAIN", 0.01)
    seller, _ = serving
    async with seller.listening("127.0.0.1:0") as listener:
        stranger = await connect(parse_address(listener.addresses[0]))
        while listener._openings.value == limits.OPENINGS:
            await anyio.wait_all_tasks_blocked()
        assert await listener.drain()
        assert await listener.drain()
        stranger.close()


async def test_who_is_accepted_in_the_moment_of_stopping_is_not_dropped(serving):
    seller, buyer = serving
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with socket.create_server(("127.0.0.1", 0)) as unused:

        def accept() -> tuple[socket.socket, object]:
            listener._stop_listening()
            return far, None

        listening = ListeningSocket(unused, parse_address("127.0.0.1:1"), accept=accept)
        async with seller.listening_on([listening]) as listener:
            link = await buyer.open_on(near, dialer=True)
            async with link.running():
                await link.closed()


async def test_who_still_waits_to_be_opened_when_the_draining_begins_is_hung_up_on(serving, monkeypatch):
    monkeypatch.setattr(limits, "OPENINGS", 1)
    monkeypatch.setattr(limits, "OPENING_DRAIN", 0.01)
    seller, _ = serving
    async with seller.listening("127.0.0.1:0") as listener:
        address = parse_address(listener.addresses[0])
        strangers = [await connect(address) for _ in range(2)]
        while not listener._openings.statistics().tasks_waiting:
            await anyio.wait_all_tasks_blocked()
        assert await listener.drain()
        await anyio.wait_readable(strangers[1])
        assert strangers[1].recv(1) == b""
        for stranger in strangers:
            anyio.notify_closing(stranger)
            stranger.close()
