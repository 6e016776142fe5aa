"""Connecting sockets.

Dialling races the addresses of a name (RFC 8305, "Happy Eyeballs"): families alternate, starting with the one
that the resolver prefers; an attempt starts when the one before it failed, or 250 ms after it began; the
first that connects wins and the others are closed. `race` is that rule alone, without sockets, so that a test
can drive it under a virtual clock.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import anyio.lowlevel

from autolink import limits
from autolink.errors import UsageError
from autolink.loop import running_loop
from autolink.transport.address import Address, TcpAddress, UnixAddress

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the one before it (RFC 8305, section 5)."""

FULL: Final = 0.05
"""Seconds before the next try at a Unix socket whose queue is full: nothing tells when there is room."""

T = TypeVar("T")


class Target(NamedTuple):
    """One resolved address: what `socket.socket` and `connect` take."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | str


async def connect(address: Address) -> socket.socket:
    """A connected non-blocking socket, with TCP_NODELAY. The caller bounds the time.

    Raises:
        UsageError: port 0.
        OSError: the name does not resolve, or nothing there accepts; of several addresses, what the first one
            said.
    """
    if isinstance(address, UnixAddress):
        return await _connect_one(Target(socket.AF_UNIX, address.path))
    if not address.port:
        raise UsageError("port 0 is for listening: nobody can dial it")
    if numeric := _numeric(address):
        return await _connect_one(*numeric)
    targets = interleave(await resolve(address))[: limits.ADDRESSES]
    if len(targets) == 1:
        return await _connect_one(targets[0])
    return await race(targets, _connect_one, discard=socket.socket.close)


def interleave(targets: Iterable[Target]) -> list[Target]:
    """Alternate between the families, keeping the order within each (RFC 8305, section 4)."""
    families: dict[int, list[Target]] = {}
    for target in targets:
        families.setdefault(target.family, []).append(target)
    return [target for row in zip_longest(*families.values()) for target in row if target is not None]


async def race(
    targets: Sequence[Target], attempt: Callable[[Target], Awaitable[T]], *, discard: Callable[[T], object]
) -> T:
    """The first result of `attempt` over `targets`, each started STAGGER seconds after the one before or at
    its failure.

    `discard` gets a result that came too late. Raises the first target's OSError when all have failed.
    """
    winner: list[T] = []
    failures: dict[int, OSError] = {}

    async def run(number: int, failed: anyio.Event) -> None:
        try:
            result = await attempt(targets[number])
        except OSError as error:
            failures[number] = error
            failed.set()
        else:
            if winner:
                discard(result)
            else:
                winner.append(result)
                tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for number in range(len(targets)):
                failed = anyio.Event()
                tasks.start_soon(run, number, failed)
                with anyio.move_on_after(STAGGER):
                    await failed.wait()
    except BaseException:
        for result in winner:  # cancelled from outside in the moment of success
            discard(result)
        raise
    if winner:
        return winner[0]
    raise failures[0]


async def resolve(address: TcpAddress) -> list[Target]:
    """The addresses of a host, in the resolver's order; a numeric one without asking it.

    Raises:
        OSError: (socket.gaierror) the name does not resolve.
    """
    return list(_numeric(address)) or _targets(
        await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    )


def resolve_blocking(address: TcpAddress) -> list[Target]:
    """As `resolve`, where no event loop runs; it uses no thread.

    Raises:
        OSError: (socket.gaierror) the name does not resolve.
    """
    return list(_numeric(address)) or _targets(
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    )


@lru_cache(maxsize=256)
def _numeric(address: TcpAddress) -> tuple[Target, ...]:
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        return ()
    return (Target(socket.AF_INET if version == 4 else socket.AF_INET6, (address.host, address.port)),)


def _targets(found: Iterable[tuple[Any, ...]]) -> list[Target]:
    return [Target(family, sockaddr) for family, _, _, _, sockaddr in found]


def prepare(sock: socket.socket, *, tcp: bool) -> None:
    """Non-blocking, and TCP_NODELAY: a peer that forgot it has round trips of 88 ms instead of 2."""
    sock.setblocking(False)
    if tcp:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def remote_address(sock: socket.socket) -> str:
    """The other end, as an address without its IPv6 zone, or ``unix:`` (the other end of a Unix socket has no
    name)."""
    match sock.getpeername():
        case host, port:
            return f"{host}:{port}"
        case host, port, _, _:
            return str(TcpAddress(host.partition("%")[0], port))
    return "unix:"


async def _connect_one(target: Target) -> socket.socket:
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        prepare(sock, tcp=target.family != socket.AF_UNIX)
        while True:
            try:
                sock.connect(target.sockaddr)
            except BlockingIOError as error:
                if error.errno != errno.EINPROGRESS:
                    # EAGAIN of a Unix socket: it would look connected if we waited for room to write.
                    await anyio.sleep(FULL)
                    continue
                if not _connected(sock):
                    await running_loop().wait_writable(sock)
                if failure := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(failure, os.strerror(failure)) from None
            else:
                await anyio.lowlevel.checkpoint()
            return sock
    except BaseException:
        sock.close()
        raise


def _connected(sock: socket.socket) -> bool:
    """Whether the kernel has connected it already, as it mostly has within one machine."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
