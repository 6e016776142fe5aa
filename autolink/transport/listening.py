"""Listening sockets, TCP and Unix.

A Unix path is a place where others may have been before. What is there is replaced only if it is a socket,
ours, and dead; whether it is dead is asked by connecting to it. Two processes that ask at once would remove
each other's new socket, so the folder is locked from the question to the answer. The socket is made with mode
0600, by the process's umask, in one synchronous step: there is no moment at which somebody else can connect.

A process may listen before it forks, and let its children accept: `listen_blocking` needs no event loop and leaves no
thread behind. The path of a Unix socket then belongs to the process that made it; a child that ends leaves it alone.
"""

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, final

import anyio

from autolink import limits
from autolink.errors import SetupError, display
from autolink.loop import running_loop
from autolink.transport.address import Address, TcpAddress, UnixAddress
from autolink.transport.sockets import Target, prepare, resolve, resolve_blocking

BACK_OFF: Final = (0.05, 1.0)
"""Seconds that accepting pauses when a resource of the system is exhausted: the first time, and at most."""

LOCK_TRIES: Final = 50
"""Looks at a folder that another process has locked, longer than any start takes, and ..."""

LOCK_PAUSE: Final = 0.1
"""... the seconds between two of them."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_THE_PEERS: Final = frozenset(
    {errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ECONNRESET, errno.ETIMEDOUT}
)
"""Errors of a connection that died in the queue, which Linux reports by accept (accept(2), "Error
handling")."""

_NOT_HERE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

_log = logging.getLogger("autolink.transport")


@final
class ListeningSocket:
    """One bound socket, made by `listen` or `listen_blocking`.

    Attributes:
        address: the real one, where port 0 was asked for.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        *,
        accept: Callable[[], tuple[socket.socket, object]] | None = None,
    ) -> None:
        self.address = address
        self._socket = sock
        self._accept = accept or sock.accept
        self._closed = False
        self._awaited = False
        self._inode = _inode(address.path) if isinstance(address, UnixAddress) else None
        self._made_by = os.getpid()

    async def accept(self) -> socket.socket:
        """The next connection, prepared like a dialled one. What is wrong with one connection is not our
        caller's business; when the process or the system has no descriptor left, it waits and tries again.

        Raises:
            anyio.ClosedResourceError: closed on this side, before or meanwhile.
        """
        loop = running_loop()
        await loop.checkpoint_if_cancelled()
        pause, longest = BACK_OFF
        waited = False
        while not self._closed:
            try:
                connection, _ = self._accept()
            except BlockingIOError:
                self._awaited = True
                await loop.wait_readable(self._socket)
                waited = True
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _log.warning("%s: cannot accept, pausing for %.2f s: %s", self.address, pause, error)
                    await anyio.sleep(pause)
                    pause = min(2 * pause, longest)
                elif error.errno in _THE_PEERS:
                    await loop.checkpoint()
                else:
                    raise
            else:
                with suppress(OSError):  # macOS: the peer is gone already, as the first read will tell
                    prepare(connection, tcp=isinstance(self.address, TcpAddress))
                if not waited:
                    await loop.cancel_shielded_checkpoint()
                return connection
        raise anyio.ClosedResourceError

    def close(self) -> None:
        """Stop listening, and remove the Unix socket if this process made it and it is still this one. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._awaited:  # else nobody waits, and perhaps there is no event loop to ask
            anyio.notify_closing(self._socket)
        self._socket.close()
        if isinstance(self.address, UnixAddress) and self._made_by == os.getpid():
            with suppress(FileNotFoundError):
                if _inode(self.address.path) == self._inode:
                    Path(self.address.path).unlink()


async def listen(address: Address, *, backlog: int = limits.BACKLOG) -> list[ListeningSocket]:
    """Listen at every address that `address` stands for; with port 0 all of them get the same free one.

    Raises:
        SetupError: the path of a Unix socket is in use, is not ours, or lies where others could replace it.
        OSError: the name does not resolve, the address is in use or not this machine's.
    """
    with _named(address):
        if isinstance(address, TcpAddress):
            return _listen_tcp(await resolve(address), address.port, backlog)
        with _folder_of(address) as folder:
            for _ in range(LOCK_TRIES):
                if _locked(folder):
                    return [_listen_unix(address, backlog)]
                await anyio.sleep(LOCK_PAUSE)
            raise _stays_locked(address)


def listen_blocking(address: Address, *, backlog: int = limits.BACKLOG) -> list[ListeningSocket]:
    """As `listen`, where no event loop runs: for a process that listens and then forks those who accept.

    Raises:
        SetupError, OSError: as `listen`.
    """
    with _named(address):
        if isinstance(address, TcpAddress):
            return _listen_tcp(resolve_blocking(address), address.port, backlog)
        with _folder_of(address) as folder:
            for _ in range(LOCK_TRIES):
                if _locked(folder):
                    return [_listen_unix(address, backlog)]
                time.sleep(LOCK_PAUSE)
            raise _stays_locked(address)


@contextmanager
def _named(address: Address) -> Generator[None]:
    """For the block: an error of the system says at which address, as its file name; the system says only what."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(address)
        raise


Handler = Callable[[socket.socket], Awaitable[object]]


async def accept_loop(listener: ListeningSocket, handle: Handler) -> NoReturn:
    """Await `handle` for each connection in turn: it starts a task, and by waiting lets the queue fill
    instead.

    Raises:
        anyio.ClosedResourceError: the listener was closed.
    """
    while True:
        await handle(await listener.accept())


def _listen_tcp(targets: Sequence[Target], port: int, backlog: int) -> list[ListeningSocket]:
    listening: list[ListeningSocket] = []
    missing: OSError | None = None
    try:
        for target in targets:
            try:
                listening.append(_listen_at(target, port, backlog))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error  # localhost is ::1 too, even where there is no IPv6
            else:
                port = listening[0]._socket.getsockname()[1]  # noqa: SLF001
        if not listening and missing:
            raise missing
    except BaseException:
        for listener in listening:
            listener.close()
        raise
    return listening


def _listen_at(target: Target, port: int, backlog: int) -> ListeningSocket:
    wanted = target.sockaddr
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        prepare(sock, tcp=True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if target.family == socket.AF_INET6:
            # [::] alone, or it would take 0.0.0.0's port too on some systems and not on others.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((wanted[0], port, *wanted[2:]))
        sock.listen(backlog)
        host, port, *_ = sock.getsockname()
        return ListeningSocket(sock, TcpAddress(host.partition("%")[0], port))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            error.filename = str(TcpAddress(wanted[0], port))
        raise


def _listen_unix(address: UnixAddress, backlog: int) -> ListeningSocket:
    """With the folder locked."""
    _remove_dead(address.path, display(address.path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        prepare(sock, tcp=False)
        before = os.umask(0o177)
        try:
            sock.bind(address.path)
        finally:
            os.umask(before)
        sock.listen(backlog)
        return ListeningSocket(sock, address)
    except BaseException:
        sock.close()
        raise


@contextmanager
def _folder_of(address: UnixAddress) -> Generator[int]:
    """The folder of a Unix socket, opened to be locked; closing it ends the lock."""
    folder = Path(address.path).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(f"{display(str(folder))}: {error.strerror}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise SetupError(
                f"anybody could replace a socket in {display(str(folder))}: use a folder of your own"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(folder: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stays_locked(address: UnixAddress) -> SetupError:
    return SetupError(f"another process keeps {display(str(Path(address.path).parent))} locked")


def _remove_dead(path: str, shown: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SetupError(f"{shown} is there already and is no socket")
    if found.st_uid != os.geteuid():
        raise SetupError(f"{shown} belongs to somebody else")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass  # alive, with a full queue
    raise SetupError(f"somebody is listening at {shown}")


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
