"""Listening where no event loop runs, for a process that forks those who accept."""

import fcntl
import os
import socket
import stat
import threading

import anyio
import pytest

from autolink.errors import UsageError
from autolink.transport import TcpAddress, UnixAddress, connect, listen_blocking, listening


@pytest.fixture
def address(tmp_path):
    return UnixAddress(str(tmp_path / "s"))


def test_a_name_is_resolved_and_listened_on_without_loop_or_thread(monkeypatch):
    """As `listen` does it: every address of the name, the same free port for all; and nothing is left running."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
    before = threading.active_count()
    listeners = listen_blocking(TcpAddress("both.example", 0))
    assert threading.active_count() == before
    assert {listener.address.host for listener in listeners} == {"::1", "127.0.0.1"}
    assert len({listener.address.port for listener in listeners}) == 1
    for listener in listeners:
        listener.close()
        listener.close()


async def test_an_event_loop_that_comes_later_accepts():
    (listener,) = listen_blocking(TcpAddress("127.0.0.1", 0))
    dialled = await connect(listener.address)
    accepted = await listener.accept()
    for closable in (dialled, accepted, listener):
        closable.close()
    with pytest.raises(anyio.ClosedResourceError):
        await listener.accept()


def test_rule_46_a_unix_path_is_as_safe_as_with_a_loop(address, tmp_path):
    """Made for its owner only; a live socket is not replaced, a dead one is; nor is a folder that anybody may write used."""
    before = os.umask(0)
    try:
        (listener,) = listen_blocking(address)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="somebody is listening"):
        listen_blocking(address)
    listener.close()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address.path)
    listen_blocking(address)[0].close()
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="anybody could replace"):
        listen_blocking(address)


def test_a_unix_path_is_removed_by_the_process_that_made_it_and_by_no_child(address, tmp_path, monkeypatch):
    (listener,) = listen_blocking(address)
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    listener.close()
    assert (tmp_path / "s").exists()


def test_a_folder_that_another_process_has_locked_is_waited_for(address, tmp_path, monkeypatch):
    """For as long as a start takes; then it is an error."""
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waited = []
    monkeypatch.setattr(listening.time, "sleep", waited.append)
    with pytest.raises(UsageError, match="locked"):
        listen_blocking(address)
    assert waited == [listening.LOCK_PAUSE] * listening.LOCK_TRIES
    monkeypatch.setattr(listening.time, "sleep", lambda _: os.close(lock))
    listen_blocking(address)[0].close()
