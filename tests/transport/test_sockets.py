"""Dialling: the race of a name's addresses, and what every socket has."""

import errno
import socket
from dataclasses import dataclass, field

import anyio
import pytest

from autolink import limits
from autolink.errors import UsageError
from autolink.transport import (
    TcpAddress,
    UnixAddress,
    connect,
    listen,
    parse_address,
    remote_address,
    sockets,
)
from autolink.transport.sockets import STAGGER, Target, interleave, race

V4, V6 = socket.AF_INET, socket.AF_INET6


@dataclass
class Network:
    """Addresses that answer after so many seconds: yes (a float) or no (a negative one). Notes who was tried when."""

    answers: dict[str, float]
    tried: dict[str, float] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    async def attempt(self, target: Target) -> str:
        name = target.sockaddr[0]
        self.tried[name] = anyio.current_time()
        await anyio.sleep(abs(self.answers[name]))
        if self.answers[name] < 0:
            raise OSError(errno.ECONNREFUSED, name)
        self.open.add(name)
        return name


@pytest.mark.parametrize(
    ("answers", "winner", "at", "tried"),
    [
        pytest.param({"a": 0.1}, "a", 0.1, ["a"], id="one address"),
        pytest.param({"a": 0.1, "b": 0.01}, "a", 0.1, ["a"], id="the first is fast enough"),
        pytest.param({"a": 9, "b": 0.1}, "b", 0.35, ["a", "b"], id="the second overtakes a slow first"),
        pytest.param({"a": 0.3, "b": 0.1}, "a", 0.3, ["a", "b"], id="a late first wins all the same"),
        pytest.param({"a": -0.01, "b": 0.1}, "b", 0.11, ["a", "b"], id="a failure starts the next at once"),
        pytest.param({"a": -0.01, "b": -0.01, "c": 0.1}, "c", 0.12, ["a", "b", "c"], id="two failures"),
        pytest.param(
            {"a": 9, "b": 9, "c": 9, "d": 0.1}, "d", 0.85, ["a", "b", "c", "d"], id="three are dead"
        ),
        pytest.param(
            {"a": -0.4, "b": -0.3, "c": 0.1}, "c", 0.6, ["a", "b", "c"], id="failures after the stagger"
        ),
        pytest.param({"a": -0.2, "b": -0.1}, None, 0.3, ["a", "b"], id="nobody answers"),
    ],
)
async def test_the_race_of_addresses_as_a_table(answers, winner, at, tried, virtual_clock):
    """RFC 8305: who wins, when, and who was tried at all; nothing stays open but the winner."""
    network = Network(answers)
    targets = [Target(V4, (name, 1)) for name in answers]
    start = anyio.current_time()
    if winner is None:
        with pytest.raises(OSError, match="a"):  # what the preferred address said
            await race(targets, network.attempt, discard=network.open.discard)
    else:
        assert await race(targets, network.attempt, discard=network.open.discard) == winner
    assert anyio.current_time() - start == pytest.approx(at)
    assert list(network.tried) == tried
    assert network.open == ({winner} if winner else set())


async def test_two_that_connect_in_the_same_moment_leave_one_open(virtual_clock):
    network = Network({"a": STAGGER + 0.5, "b": 0.5})
    targets = [Target(V4, ("a", 1)), Target(V6, ("b", 1))]
    winner = await race(targets, network.attempt, discard=network.open.discard)
    assert network.open == {winner}


async def test_a_cancelled_race_leaves_nothing_open(virtual_clock):
    for delay in (0.0, 0.1, 0.25, 0.5, 0.75):
        network = Network({"a": 0.5, "b": 0.5})
        targets = [Target(V4, ("a", 1)), Target(V6, ("b", 1))]
        with anyio.move_on_after(delay) as scope:
            await race(targets, network.attempt, discard=network.open.discard)
        if scope.cancelled_caught:
            assert network.open == set(), delay


def test_families_alternate_from_the_resolvers_first():
    targets = [Target(V6, (name, 1)) for name in "abc"] + [Target(V4, (name, 1)) for name in "xy"]
    assert [target.sockaddr[0] for target in interleave(targets)] == ["a", "x", "b", "y", "c"]
    assert interleave(targets[3:]) == targets[3:]


@pytest.mark.anyio
async def test_a_name_with_hundreds_of_addresses_is_tried_sixteen_times(monkeypatch):
    """All of them refuse at once."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    tried = []

    async def resolve(*_args: object, **_kwargs: object):
        return [(V4, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 200

    real = sockets._connect_one

    async def count(target: Target) -> socket.socket:
        tried.append(target)
        return await real(target)

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    monkeypatch.setattr(sockets, "_connect_one", count)
    with pytest.raises(ConnectionRefusedError):
        await connect(TcpAddress("many.example", port))
    assert len(tried) == limits.ADDRESSES


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_both_ends_have_tcp_nodelay_and_do_not_block(where):
    """A peer that forgets TCP_NODELAY has round trips of 88 ms instead of 2."""
    listener, *others = await listen(parse_address(where))
    dialled = await connect(listener.address)
    accepted = await listener.accept()
    for sock in (dialled, accepted):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    assert remote_address(dialled) == str(listener.address)
    assert remote_address(accepted) == str(parse_address(remote_address(accepted)))
    for closable in (dialled, accepted, listener, *others):
        closable.close()


@pytest.mark.anyio
async def test_dialling_a_unix_socket(tmp_path):
    (listener,) = await listen(UnixAddress(str(tmp_path / "s")))
    dialled = await connect(listener.address)
    accepted = await listener.accept()
    assert not dialled.getblocking()
    assert remote_address(accepted) == "unix:"
    for closable in (dialled, accepted, listener):
        closable.close()


@pytest.mark.anyio
async def test_dialling_a_unix_socket_with_a_full_queue_waits(tmp_path, monkeypatch):
    """Linux answers EAGAIN; the socket would then look connected to whoever waits for room to write."""
    (listener,) = await listen(UnixAddress(str(tmp_path / "s")), backlog=1)
    first = [await connect(listener.address) for _ in range(2)]
    late: list[socket.socket] = []
    waiting, room = anyio.Event(), anyio.Event()

    async def dial() -> None:
        late.append(await connect(listener.address))

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await room.wait()

    monkeypatch.setattr(anyio, "sleep", sleep)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial)
        await waiting.wait()
        assert not late
        room.set()
        accepted = [await listener.accept() for _ in range(3)]
    assert late
    for closable in (*first, *late, *accepted, listener):
        closable.close()


@pytest.mark.anyio
async def test_dialling_nobody_leaves_no_socket_open(tmp_path):
    """pytest turns an unclosed socket into an error."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await connect(TcpAddress("127.0.0.1", port))
    with pytest.raises(FileNotFoundError):
        await connect(UnixAddress(str(tmp_path / "nobody")))
    with pytest.raises(OSError, match=r"Name|resol|known"):
        await connect(TcpAddress("no-such-host.invalid", 1))
    with pytest.raises(UsageError, match="port 0"):
        await connect(TcpAddress("127.0.0.1", 0))


@pytest.mark.anyio
async def test_a_cancelled_dial_leaves_no_socket_open():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await connect(TcpAddress("127.0.0.1", 9))
    assert scope.cancelled_caught
