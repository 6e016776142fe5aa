"""Serving in one process until told to stop: by signals, or, as a worker, by the supervisor that forked it.

A worker hears its supervisor on a socket, one byte an order (`Order`). End of file means that the supervisor is gone:
then it drains, because nobody would restart it, roll it or close its address any more.
"""

import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Final

import anyio
import click

from autolink import Agent, Listener
from autolink.cli.edge import shown
from autolink.errors import AutolinkError, UsageError, display
from autolink.transport import ListeningSocket, parse_address
from autolink.trust import Model

READY: Final = b"r"
"""What a worker says to its supervisor when it accepts links."""

_log: Final = logging.getLogger("autolink.cli")


class Order(IntEnum):
    """What a supervisor says to a worker."""

    DRAIN = ord("d")
    CUT = ord("c")
    TRUST = ord("t")  # the files of trust have changed: read them, and judge every peer again
    JUDGE = ord("j")  # what the trust model reads by itself has: judge every peer again


class _Stop:
    """How soon serving ends, and who said so. To say it again changes nothing."""

    def __init__(self) -> None:
        self.by = ""
        self.soon = anyio.Event()
        self.now = anyio.Event()

    def drain(self, by: str) -> None:
        self.by = self.by or by
        self.soon.set()

    def cut(self, by: str) -> None:
        self.drain(by)
        self.now.set()


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """For the block, cycles of garbage are looked for less often than by default: with a thousand links each look at
    everything takes a tenth of a second, in which nobody is served. What ends on a link is freed without that."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def about_listening(addresses: Sequence[str]) -> Iterator[None]:
    """Name the one address that is refused, where the system says which, else all that were given."""
    try:
        yield
    except (AutolinkError, OSError) as error:
        refused = list(addresses)
        with suppress(UsageError):  # some file's name: all of them, then
            refused = [str(parse_address(getattr(error, "filename", None) or ""))]
        error.add_note(f"listening on {', '.join(map(display, refused))}")
        raise


def print_contacts(contacts: Sequence[str]) -> None:
    """Each on a line."""
    for contact in contacts:
        click.echo(contact)


async def serve(
    agent: Agent, addresses: Sequence[str], patience: float,
    announce: Callable[[Sequence[str]], object] = print_contacts,
) -> bool:  # fmt: skip
    """Print the contacts and serve until SIGTERM or SIGINT, then drain; a second one ends it at once.

    Args:
        patience: seconds that what is open gets to end.
        announce: is told the contacts when it listens.

    Returns:
        Whether all of it ended in time.

    Raises:
        UsageError, OSError: as `Agent.listening`.
    """
    stop = _Stop()

    async def listen(signals: AsyncIterator[signal.Signals]) -> None:
        stop.drain((await anext(signals)).name)
        if running := agent.statistics().handlers:
            click.echo(
                f"{running} open: up to {patience:.0f} s to end; the same signal again ends it now", err=True
            )
        stop.cut((await anext(signals)).name)

    with collecting_rarely(), anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with agent.listening(*addresses) as listener, anyio.create_task_group() as tasks:
            announce(listener.contacts)
            tasks.start_soon(listen, signals)
            drained = await _drain_when_told(listener, stop, patience)
            tasks.cancel_scope.cancel()
    return drained


async def serve_as_worker(
    agent: Agent, sockets: Sequence[ListeningSocket], patience: float, supervisor: socket.socket,
    read_trust: Callable[[], Awaitable[Model]],
) -> bool:  # fmt: skip
    """Serve on inherited sockets until the supervisor says so or is gone, or SIGTERM comes, which is blocked before.

    Args:
        patience: seconds that what is open gets to end.
        supervisor: the socket to it.
        read_trust: for `Order.TRUST`.

    Returns:
        Whether all that was open ended in time.
    """
    stop = _Stop()

    async def listen(signals: AsyncIterator[signal.Signals]) -> None:
        async for heard in signals:
            # A terminal sends the other two to every process in front of it; the supervisor says what they mean.
            if heard is signal.SIGTERM:
                stop.drain(heard.name)

    signals_heard = anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with collecting_rarely(), signals_heard as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        async with agent.listening_on(sockets) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listen, signals)
            tasks.start_soon(_obey, supervisor, stop, agent, read_trust)
            with suppress(OSError):  # gone already, as `_obey` will find
                supervisor.send(READY)
            drained = await _drain_when_told(listener, stop, patience)
            tasks.cancel_scope.cancel()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it would kill who has drained already
    return drained


async def _obey(
    supervisor: socket.socket, stop: _Stop, agent: Agent, read_trust: Callable[[], Awaitable[Model]]
) -> None:
    supervisor.setblocking(False)
    while True:
        await anyio.wait_readable(supervisor)
        try:
            orders = supervisor.recv(64)
        except ConnectionResetError:  # it died with READY unread
            orders = b""
        if not orders:
            stop.drain("the end of its supervisor")
            return
        for order in orders:
            match order:
                case Order.DRAIN:
                    stop.drain("its supervisor")
                case Order.CUT:
                    stop.cut("its supervisor")
                case Order.TRUST:
                    await _replace_trust(agent, read_trust)
                case Order.JUDGE:
                    agent.invalidate()


async def _replace_trust(agent: Agent, read_trust: Callable[[], Awaitable[Model]]) -> None:
    try:
        agent.replace_trust(await read_trust())
    except (AutolinkError, OSError) as error:  # it was sound when the supervisor read it
        _log.error("%s; what was trusted before still is", shown(error))


async def _drain_when_told(listener: Listener, stop: _Stop, patience: float) -> bool:
    await stop.soon.wait()
    _log.info("told to stop by %s: draining", stop.by)
    drained = False
    async with anyio.create_task_group() as tasks:

        async def at_once() -> None:
            await stop.now.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(at_once)
        drained = await listener.drain(patience)
        tasks.cancel_scope.cancel()
    return drained
