"""Listening: ports, Unix paths where others have been before, and accepting when the system is exhausted."""

import errno
import fcntl
import logging
import os
import socket
import stat
from pathlib import Path

import anyio
import pytest

from autolink.errors import UsageError
from autolink.transport import TcpAddress, UnixAddress, accept_loop, connect, listen, listening
from autolink.transport.listening import BACK_OFF, ListeningSocket

pytestmark = pytest.mark.anyio


def unix(path: Path) -> UnixAddress:
    return UnixAddress(str(path))


# --- TCP ---------------------------------------------------------------------------------------------------


async def test_port_0_becomes_a_real_port_and_the_same_for_every_address(monkeypatch):
    async def resolve(*_args: object, **_kwargs: object):
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    listeners = await listen(TcpAddress("both.example", 0))
    assert {listener.address.host for listener in listeners} == {"::1", "127.0.0.1"}
    assert len({listener.address.port for listener in listeners} - {0}) == 1
    for listener in listeners:
        listener.close()


async def test_an_address_that_this_machine_lacks_is_skipped_unless_it_is_the_only_one(monkeypatch):
    """localhost is ::1 too, also where there is no IPv6."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]

    async def resolve(*_args: object, **_kwargs: object):
        return found

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    (listener,) = await listen(TcpAddress("both.example", 0))
    assert listener.address.host == "127.0.0.1"
    listener.close()
    del found[1]
    with pytest.raises(OSError, match="assign"):
        await listen(TcpAddress("both.example", 0))


async def test_an_address_in_use_is_an_error_that_leaves_nothing_open():
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    with pytest.raises(OSError, match=f"in use: '{listener.address}'"):
        await listen(listener.address)
    listener.close()
    (again,) = await listen(listener.address)  # at once: SO_REUSEADDR
    again.close()


async def test_listening_on_every_ipv6_address_leaves_ipv4_alone():
    (six,) = await listen(TcpAddress("::", 0))
    (four,) = await listen(TcpAddress("0.0.0.0", six.address.port))  # noqa: S104
    six.close()
    four.close()


# --- accepting ---------------------------------------------------------------------------------------------


class Accepts:
    """A stand-in for the system call: raises or returns what it is told to, and notes when it was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    def __call__(self) -> tuple[socket.socket, object]:
        self.asked.append(anyio.current_time())
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer, None


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    yield near
    near.close()
    far.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accepting_pauses_longer_and_longer_while_there_are_no_descriptors(
    code, pair, monkeypatch, caplog
):
    """The connection stays in the queue, so the descriptor stays readable: without a pause this would spin."""
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(listening.anyio, "sleep", sleep)
    accept = Accepts(*[code] * 8, pair)
    with socket.socket() as unused, caplog.at_level(logging.WARNING):
        listener = ListeningSocket(unused, TcpAddress("127.0.0.1", 1), accept=accept)
        assert await listener.accept() is pair
    first, longest = BACK_OFF
    assert pauses == [min(first * 2**n, longest) for n in range(8)]
    assert pauses[-1] == longest
    assert len(caplog.records) == 8
    assert "127.0.0.1:1" in caplog.text


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETUNREACH])
async def test_a_connection_that_died_in_the_queue_is_nobodys_error(code, pair):
    with socket.socket() as unused:
        listener = ListeningSocket(unused, TcpAddress("127.0.0.1", 1), accept=Accepts(code, code, pair))
        assert await listener.accept() is pair


async def test_an_error_that_is_ours_comes_out():
    with socket.socket() as unused:
        listener = ListeningSocket(unused, TcpAddress("127.0.0.1", 1), accept=Accepts(errno.EINVAL))
        with pytest.raises(OSError, match="Invalid"):
            await listener.accept()


async def test_closing_ends_whoever_accepts():
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))

    async def accept() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await listener.accept()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        await anyio.wait_all_tasks_blocked()
        listener.close()
        listener.close()
    with pytest.raises(anyio.ClosedResourceError):
        await listener.accept()


async def test_the_accept_loop_hands_over_each_connection_and_waits_for_the_handler():
    """A handler that waits lets the kernel's queue fill, and nothing else."""
    (listener,) = await listen(TcpAddress("127.0.0.1", 0))
    accepted: list[socket.socket] = []
    gate = anyio.Event()

    async def handle(sock: socket.socket) -> None:
        accepted.append(sock)
        if len(accepted) == 2:
            await gate.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept_loop, listener, handle)
        dialled = [await connect(listener.address) for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        assert len(accepted) == 2
        gate.set()
        while len(accepted) < 3:
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    for closable in (*accepted, *dialled, listener):
        closable.close()


# --- Unix paths --------------------------------------------------------------------------------------------


async def test_a_unix_socket_is_for_its_owner_only_and_leaves_with_its_listener(tmp_path):
    path = tmp_path / "agent.sock"
    before = os.umask(0)
    try:
        (listener,) = await listen(unix(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0  # the process's own is back
    finally:
        os.umask(before)
    listener.close()
    assert not path.exists()


async def test_a_live_socket_is_not_replaced(tmp_path):
    (listener,) = await listen(unix(tmp_path / "s"))
    with pytest.raises(UsageError, match="somebody is listening"):
        await listen(unix(tmp_path / "s"))
    dialled = await connect(listener.address)  # still there
    dialled.close()
    listener.close()


async def test_a_live_socket_with_a_full_queue_is_not_replaced(tmp_path):
    (listener,) = await listen(unix(tmp_path / "s"), backlog=0)
    dialled = await connect(listener.address)
    with pytest.raises(UsageError, match="somebody is listening"):
        await listen(unix(tmp_path / "s"))
    dialled.close()
    listener.close()


async def test_a_dead_socket_is_replaced(tmp_path):
    """What a process leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    (listener,) = await listen(unix(tmp_path / "s"))
    listener.close()


async def test_rule_46_what_is_no_socket_is_never_touched(tmp_path):
    """A file, a folder, a symbolic link, even one that points to a dead socket."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    (tmp_path / "link").symlink_to(tmp_path / "dead")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("file", "folder", "link", "dangling"):
        with pytest.raises(UsageError, match="is no socket"):
            await listen(unix(tmp_path / name))
    assert (tmp_path / "file").read_text() == "precious"
    assert (tmp_path / "dead").exists()


async def test_rule_46_a_socket_of_somebody_else_is_never_touched(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match="somebody else"):
        await listen(unix(tmp_path / "s"))


async def test_rule_46_a_folder_that_anybody_may_write_is_refused(tmp_path):
    """Anybody could put a socket of their own in the place of ours; the sticky bit prevents that, as in /tmp."""
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="anybody could replace"):
        await listen(unix(tmp_path / "s"))
    tmp_path.chmod(0o1777)
    (listener,) = await listen(unix(tmp_path / "s"))
    listener.close()


async def test_a_folder_that_is_missing_is_said_so(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        await listen(unix(tmp_path / "missing" / "s"))


async def test_two_that_start_at_once_do_not_remove_each_others_socket(tmp_path, monkeypatch):
    """The one that comes second waits for the folder's lock, and then finds a live socket."""
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as rival:
        rival.bind(str(tmp_path / "s"))

        async def sleep(_seconds: float) -> None:
            rival.listen()
            os.close(lock)

        monkeypatch.setattr(listening.anyio, "sleep", sleep)
        with pytest.raises(UsageError, match="somebody is listening"):
            await listen(unix(tmp_path / "s"))


async def test_a_folder_that_stays_locked_is_an_error_and_not_a_hang(tmp_path, monkeypatch):
    async def sleep(_seconds: float) -> None:
        return

    monkeypatch.setattr(listening.anyio, "sleep", sleep)
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(UsageError, match="locked"):
            await listen(unix(tmp_path / "s"))
    finally:
        os.close(lock)


async def test_closing_removes_its_own_socket_and_not_its_successors(tmp_path):
    (old,) = await listen(unix(tmp_path / "s"))
    (tmp_path / "s").unlink()
    (new,) = await listen(unix(tmp_path / "s"))
    old.close()
    assert (tmp_path / "s").exists()
    new.close()
    assert not (tmp_path / "s").exists()
