"""A network inside the process: byte streams with latency, narrow pipes, odd cuts, sudden ends; no sockets, no threads.

Everything waits by AnyIO's clock, so under a virtual clock a second of latency costs nothing, and nothing is random
unless a seed asks for it. `Network.connection` gives two ends. `Network.listening` and `Network.join` put whole agents
on the network, so that `connect` and `keep_link` work as they do over sockets::

    network = Network(latency=0.05)
    network.join(buyer)
    async with network.listening(seller) as listener, buyer.connect(listener.contact) as link: ...
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, final

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from autolink.agent import Agent, Listener
from autolink.agent.groups import background_tasks
from autolink.transport import Address, Contact, parse_address

_PIPE: Final = 256 * 1024


@final
class MemoryByteStream(ByteStream):
    """One end of an in-memory connection. Made by `Network.connection`."""

    def __init__(self, outgoing: "_Pipe", incoming: "_Pipe") -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, item: bytes) -> None:
        await self._outgoing.turn()
        await self._outgoing.put(bytes(item))

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await self._incoming.turn()
        return await self._incoming.get(max_bytes)

    async def send_eof(self) -> None:
        await checkpoint()
        self._outgoing.finish()

    async def aclose(self) -> None:
        self._outgoing.finish()
        self._incoming.abandon()
        await checkpoint()


@final
class Network:
    """How the connections of a test behave.

    Args:
        latency: seconds that a byte is under way.
        capacity: bytes under way in one direction before the sender waits.
        seed: with one, what is received is split at odd places, and tasks take turns in an odd order.
        cut_after: each connection breaks after this many bytes in one direction; `None` never. Those arrive.

    Attributes:
        peak: the most bytes that were under way at any time.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        capacity: int = _PIPE,
        seed: int | None = None,
        cut_after: int | None = None,
    ) -> None:
        self.latency = latency
        self.capacity = capacity
        self.cut_after = cut_after
        self.random = None if seed is None else Random(seed)  # noqa: S311  a test's seed, not a secret
        self.peak = 0
        self.held = False
        self._pipes: list[_Pipe] = []
        self._hosts: dict[Address, Callable[[MemoryByteStream], bool]] = {}

    def connection(self) -> tuple[MemoryByteStream, MemoryByteStream]:
        """Two ends of a new connection."""
        there, back = _Pipe(self), _Pipe(self)
        there.other, back.other = back, there
        self._pipes += [there, back]
        return MemoryByteStream(there, back), MemoryByteStream(back, there)

    @asynccontextmanager
    async def listening(self, agent: Agent, at: str = "host:1") -> AsyncIterator[Listener]:
        """As `Agent.listening`, on this network instead of sockets.

        Args:
            agent: who serves.
            at: the address to be reached at; the same one again after the block is a restart.
        """
        address = parse_address(at)
        listener = Listener(agent, ())
        async with listener.running(), background_tasks() as tasks:
            listener.addresses, listener.contacts = (at,), (str(Contact(agent.peer_id, address)),)

            def take(end: MemoryByteStream) -> bool:
                if listener.accepting:
                    tasks.start_soon(listener.serve, end, "memory")
                return listener.accepting

            self._hosts[address] = take
            try:
                yield listener
            finally:
                del self._hosts[address]

    def join(self, *agents: Agent) -> None:
        """What these agents dial from now on is found on this network."""
        for agent in agents:
            agent.reach = self.reach

    async def reach(self, address: Address) -> MemoryByteStream:
        """A connection to the agent that is listening here.

        Raises:
            ConnectionRefusedError: none is.
        """
        await anyio.sleep(self.latency)
        near, far = self.connection()
        take = self._hosts.get(address)
        if take is None or not take(far):
            raise ConnectionRefusedError(f"nobody listens at {address} on this network")
        return near

    def cut(self) -> None:
        """Break every connection now, in both directions: what was under way is lost."""
        for pipe in self._pipes:
            pipe.break_off()

    def pause(self) -> Callable[[], None]:
        """Hold every byte until the returned function is called."""
        self.held = True

        def resume() -> None:
            self.held = False
            for pipe in self._pipes:
                pipe.wake()

        return resume

    @property
    def under_way(self) -> int:
        """Bytes sent and not yet received, in all connections."""
        return sum(pipe.size for pipe in self._pipes)


class _Pipe:
    """One direction."""

    def __init__(self, network: Network) -> None:
        self.other: _Pipe
        self.size = 0
        self._network = network
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._carried = 0
        self._finished = self._broken = False
        self._changed = anyio.Event()

    def wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def turn(self) -> None:
        """Let other tasks run; with a seed, sometimes several times."""
        random = self._network.random
        for _ in range(1 if random is None else random.randint(1, 4)):
            await checkpoint()

    async def put(self, data: bytes) -> None:
        while self.size >= self._network.capacity and not self._broken:
            await self._changed.wait()
        if self._broken:
            raise anyio.BrokenResourceError("the test's network broke the connection")
        if self._finished:
            raise anyio.ClosedResourceError
        limit = self._network.cut_after
        if limit is not None and self._carried + len(data) >= limit:
            data = data[: limit - self._carried]
            self._accept(data)
            self.finish_broken()
            return
        self._accept(data)

    def _accept(self, data: bytes) -> None:
        if data:
            self._carried += len(data)
            self.size += len(data)
            self._network.peak = max(self._network.peak, self._network.under_way)
            self._chunks.append((anyio.current_time() + self._network.latency, data))
            self.wake()

    async def get(self, max_bytes: int) -> bytes:
        while True:
            if self._broken and not self._chunks:
                raise anyio.BrokenResourceError("the test's network broke the connection")
            if self._chunks and not self._network.held:
                due = self._chunks[0][0]
                if due <= anyio.current_time():
                    return self._take(max_bytes)
                await anyio.sleep_until(due)
                continue
            if self._finished and not self._chunks:
                raise anyio.EndOfStream
            await self._changed.wait()

    def _take(self, max_bytes: int) -> bytes:
        due, data = self._chunks.popleft()
        if self._network.random is not None:
            max_bytes = self._network.random.randint(1, min(max_bytes, len(data)))
        taken, rest = data[:max_bytes], data[max_bytes:]
        if rest:
            self._chunks.appendleft((due, rest))
        self.size -= len(taken)
        self.wake()
        return taken

    def finish(self) -> None:
        """The sender ended."""
        self._finished = True
        self.wake()

    def finish_broken(self) -> None:
        """What was carried arrives, then the connection breaks in both directions."""
        self._broken = self.other._broken = True  # noqa: SLF001  the other half of one connection
        self.wake()
        self.other.wake()

    def abandon(self) -> None:
        """The receiver closed: the sender learns it at its next send."""
        self._broken = True
        self.wake()

    def break_off(self) -> None:
        """Break at once."""
        self._chunks.clear()
        self.size = 0
        self._broken = True
        self.wake()
