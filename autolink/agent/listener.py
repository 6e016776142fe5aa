"""Accepting links: one task for each listening socket, one for each connection, and a bound on those not judged yet."""

import logging
import math
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import anyio
from anyio.abc import ByteStream, TaskGroup

from autolink import limits
from autolink.agent.groups import background_tasks
from autolink.errors import LinkLost, Refused, RemoteProtocolError
from autolink.loop import Tasks, running_loop
from autolink.transport import Address, Contact, ListeningSocket, accept_loop, listen, remote_address

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.agent.link import Link

logger: Final = logging.getLogger("autolink")


@final
class Listener:
    """What an agent listens on. Made by `Agent.listening` and `Agent.listening_on`.

    Attributes:
        addresses: the real ones, with the ports that were taken.
        contacts: for each of them one string that holds the address and whom to expect there.
        accepting: whether new connections are taken: until it drains or its block ends.
    """

    def __init__(
        self, agent: "Agent", wanted: Sequence[Address], sockets: Sequence[ListeningSocket] = ()
    ) -> None:
        self.addresses: tuple[str, ...] = ()
        self.contacts: tuple[str, ...] = ()
        self._agent = agent
        self._wanted = wanted
        self._openings = anyio.Semaphore(limits.OPENINGS, fast_acquire=True)
        self._links: set[Link] = set()
        self._sockets = list(sockets)
        self.accepting = True
        self._accepting = anyio.CancelScope()

    @property
    def contact(self) -> str:
        """The first of `contacts`."""
        return self.contacts[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen around a body."""
        try:
            for address in self._wanted:
                self._sockets += await listen(address)
            reached = [one.address for one in self._sockets]
            self.addresses = tuple(str(address) for address in reached)
            self.contacts = tuple(str(Contact(self._agent.peer_id, address)) for address in reached)
            async with background_tasks() as tasks:
                tasks.start_soon(self._accept)
                yield
        finally:
            self._stop_listening()

    def _stop_listening(self) -> None:
        self.accepting = False
        self._accepting.cancel()
        for one in self._sockets:
            one.close()

    async def drain(self, timeout: float = limits.DRAIN) -> bool:
        """Stop accepting, let what the peers have open end, and cut off what has not ended after `timeout` seconds.

        A connection that was accepted before is still made a link, which its peer is told to leave, so that another
        process that listens at the same address can take over without anybody being turned away.

        Returns:
            Whether all of it ended in time. Subscriptions to our topics are ended, with `unavailable`, when they have all
            that was published before.
        """
        self._stop_listening()
        open_now = set(self._links)
        with anyio.move_on_after(timeout):
            async with anyio.create_task_group() as tasks:
                self._drain(open_now, tasks)
                with anyio.move_on_after(limits.OPENING_DRAIN):
                    await self._opened()
                self._drain(self._links - open_now, tasks)
        stuck = [link for link in self._links if link.lost is None]
        for link in stuck:
            link.end(LinkLost("this side is shutting down"))
        for link in stuck:
            await link.closed()
        return not stuck

    def _drain(self, links: "set[Link]", tasks: TaskGroup) -> None:
        for link in links:
            link.go_away("shutdown")  # first, so that nobody subscribes any more
            tasks.start_soon(link.drain)
        for topic in self._agent.topics.values():  # a subscription has no end of its own
            topic.end(links)

    async def _opened(self) -> None:
        """Wait until no link is being opened: then all of the semaphore is to be had."""
        held = 0
        try:
            while self._openings.value + held < limits.OPENINGS:
                await self._openings.acquire()
                held += 1
        finally:
            for _ in range(held):
                self._openings.release()

    async def _accept(self) -> None:
        async with running_loop().tasks() as connections:

            async def take(connection: socket.socket) -> None:
                try:
                    self._openings.acquire_nowait()
                except anyio.WouldBlock:
                    try:
                        await self._openings.acquire()
                    except BaseException:
                        connection.close()
                        raise
                connections.start_soon(self._take, connection)

            async def accept_on(one: ListeningSocket) -> None:
                try:
                    await accept_loop(one, take)
                except anyio.ClosedResourceError:
                    # Before the cancellation, if a connection had come in the moment in which the listener drains.
                    if self.accepting:
                        raise

            with self._accepting:
                async with anyio.create_task_group() as tasks:
                    for one in self._sockets:
                        tasks.start_soon(accept_on, one)

    async def _take(self, connection: socket.socket) -> None:
        try:
            peer = remote_address(connection)
        except OSError:  # gone before it was looked at
            connection.close()
            self._openings.release()
            return
        await self.serve(connection, peer, decided=self._openings.release)

    async def serve(
        self,
        connection: socket.socket | ByteStream,
        peer: str,
        *,
        decided: Callable[[], object] | None = None,
    ) -> None:
        """One connection from its first byte to its end, whatever a stranger does on it: nothing leaves this task.

        Args:
            connection: owned from now on.
            peer: its address, for logs.
            decided: called when the link is open or has come to nothing.
        """
        loop = running_loop()
        try:
            async with loop.tasks() as tasks:  # under one deadline while it opens, then the link's own
                tasks.cancel_scope.deadline = loop.current_time() + limits.OPENING
                try:
                    link = await self._open(connection, peer)
                finally:
                    if decided is not None:
                        decided()
                tasks.cancel_scope.deadline = math.inf
                if link is not None:
                    await self._serve(link, tasks)
                return
            logger.info("no link from %s: it took longer than %.0f s", peer, limits.OPENING)
        except Exception:  # a fault of ours: it has ended this link, and shall not end the others
            logger.exception("the link from %s ended by a fault", peer)

    async def _serve(self, link: "Link", tasks: Tasks) -> None:
        self._links.add(link)
        try:
            if not self.accepting:  # it was opening when we began to drain
                link.go_away("shutdown")
            await link.serve(tasks)
        finally:
            self._links.discard(link)

    async def _open(self, connection: socket.socket | ByteStream, peer: str) -> "Link | None":
        try:
            return await self._agent.open_on(connection, dialer=False, address=peer)
        except Refused as refused:
            logger.warning("no link from %s: %s", peer, refused)
        except (RemoteProtocolError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            logger.info("no link from %s: %s", peer, str(error) or type(error).__name__)
        except Exception:
            # A fault of ours or of a trust model: no stranger shall end the listener by meeting it.
            logger.exception("no link from %s, by a fault", peer)
        return None
