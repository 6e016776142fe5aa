"""The three operations: a handshake, a call, a message whose receipt is confirmed.

A handshake opens a link and closes it; what is measured is the opening. Calls and messages go over links that are open
before the load begins, one for each caller, opened again by whoever needs one that was lost.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import floor
from typing import Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskStatus

from autolink import ANYONE_TRUSTED, Agent, Channel, Credential, Link
from autolink.agent.groups import background_tasks
from autolink.cli.bench.plan import Work
from autolink.cli.bench.tally import Tally
from autolink.errors import AutolinkError, CallError, Code, LinkLost, RemoteProtocolError
from autolink.loop import Tasks
from autolink.trust import Model

T = TypeVar("T")


class Operations(Protocol):
    """What a loop needs of one kind of operation."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Have ready what the operations share, for the block."""

    def operation(self, number: int) -> AbstractAsyncContextManager[None]:
        """See `loop.Operation`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the load is put on, by whose trust, and what its callers show for their standing."""

    contact: str
    anyone: bool
    trust: Model
    evidence: Sequence[bytes] = ()

    def agent(self, credential: Credential, *, resume: bool = False) -> Agent:
        """A caller."""
        agent = Agent(credential, trust=self.trust, resume=resume)
        agent.replace_evidence(*self.evidence)
        return agent

    def connect(self, agent: Agent) -> AbstractAsyncContextManager[Link]:
        """A link."""
        return agent.connect(self.contact, expect=ANYONE_TRUSTED if self.anyone else None)


def prepare(work: Work, target: Target, callers: Sequence[Credential], tally: Tally) -> Operations:
    """The operations of a plan."""
    match work.kind:
        case "handshake":
            return Handshakes(target, callers, work.resume, tally)
        case "call":
            return Calls(target, callers, work, tally)
        case "message":
            return Messages(target, callers, work, tally)


class Handshakes:
    """Callers take turns. A share of the handshakes is made by agents that resume, the others by such as never do."""

    def __init__(self, target: Target, callers: Sequence[Credential], resume: float, tally: Tally) -> None:
        self._target = target
        self._tally = tally
        self._resume = resume
        self._count = len(callers)
        self._full = [target.agent(caller) for caller in callers] if resume < 1 else []
        self._resuming = [target.agent(caller, resume=True) for caller in callers] if resume > 0 else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing is shared."""
        yield

    @asynccontextmanager
    async def operation(self, number: int) -> AsyncIterator[None]:
        """Open a link and close it."""
        agents = self._resuming if resumes(number, self._resume) else self._full
        async with self._target.connect(agents[number % self._count]) as link:
            self._tally.opened(link)
            yield


def resumes(number: int, share: float) -> bool:
    """Whether the n-th of many is one of this share, spread evenly: 0.25 is every fourth."""
    return floor((number + 1) * share) > floor(number * share)


class Line(Generic[T]):
    """Something that is open for as long as it lasts, and opened again by whoever needs it next.

    Args:
        open_: opens it, and closes it politely.
        last: returns when it is over.
    """

    def __init__(
        self,
        tasks: Tasks,
        open_: Callable[[], AbstractAsyncContextManager[T]],
        last: Callable[[T], Awaitable[None]],
    ) -> None:
        self._tasks = tasks
        self._open = open_
        self._last = last
        self._held: T | None = None
        self._scope, self._over = anyio.CancelScope(), anyio.Event()
        self._lock = anyio.Lock()

    async def get(self) -> T:
        """What is open. One task opens it; others that need it meanwhile wait for that.

        Raises:
            AutolinkError, TimeoutError: as `open_`.
        """
        if self._held is None:
            async with self._lock:
                if self._held is None:
                    self._held = await self._tasks.start(self._hold)
        return self._held

    async def hang_up(self) -> None:
        """Close it politely, if it is open."""
        if self._held is not None:
            self._scope.cancel()
            await self._over.wait()

    async def _hold(self, *, task_status: TaskStatus[T]) -> None:
        self._scope, self._over = anyio.CancelScope(), anyio.Event()
        async with self._open() as held:
            task_status.started(held)
            with self._scope:
                await self._last(held)
            self._held = None
        self._over.set()


class _OverLines(ABC, Generic[T]):
    """Operations over one line for each caller; the operations take turns over them."""

    def __init__(self, target: Target, callers: Sequence[Credential], work: Work, tally: Tally) -> None:
        self._target = target
        self._agents = [target.agent(caller) for caller in callers]
        self._work = work
        self._tally = tally
        self._lines: list[Line[T]] = []

    @abstractmethod
    def _open(self, agent: Agent) -> AbstractAsyncContextManager[T]:
        """For `Line`."""

    @abstractmethod
    async def _last(self, held: T) -> None:
        """For `Line`."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Every caller's line is open when the block is entered.

        Raises:
            AutolinkError, TimeoutError: the first that could not be opened.
        """
        async with background_tasks() as tasks:
            self._lines = [Line(tasks, partial(self._open, agent), self._last) for agent in self._agents]
            for line in self._lines:
                await line.get()
            yield
            async with anyio.create_task_group() as closing:
                for line in self._lines:
                    closing.start_soon(line.hang_up)

    def _line(self, number: int) -> Line[T]:
        return self._lines[number % len(self._lines)]


class Calls(_OverLines[Link]):
    """Calls of one method with one body; what comes back is not looked at."""

    @asynccontextmanager
    async def _open(self, agent: Agent) -> AsyncIterator[Link]:
        async with self._target.connect(agent) as link:
            self._tally.opened(link)
            yield link

    async def _last(self, held: Link) -> None:
        await held.closed()

    @asynccontextmanager
    async def operation(self, number: int) -> AsyncIterator[None]:
        """One call and its reply."""
        link = await self._line(number).get()
        await link.call(self._work.name, self._work.body)
        yield


class Messages(_OverLines["Confirmed"]):
    """Signed one-way messages; one is done when its receiver says that it has taken it."""

    @asynccontextmanager
    async def _open(self, agent: Agent) -> AsyncIterator["Confirmed"]:
        async with self._target.connect(agent) as link, confirmed(link, self._work.name) as messages:
            self._tally.opened(link)
            yield messages

    async def _last(self, held: "Confirmed") -> None:
        await held.over.wait()

    @asynccontextmanager
    async def operation(self, number: int) -> AsyncIterator[None]:
        """One message and its confirmation."""
        messages = await self._line(number).get()
        await messages.send(self._work.body)
        yield


class Confirmed:
    """A channel whose receiver sends back how many items it has taken so far, not necessarily after each.

    `listen` runs beside the senders. `over` is set when it has ended.
    """

    def __init__(self, channel: Channel[object, int]) -> None:
        self._channel = channel
        self._sent = 0
        self._taken = 0
        self._waiting: deque[tuple[int, anyio.Event]] = deque()
        self._error: Exception | None = None
        self.over = anyio.Event()

    async def send(self, item: object) -> None:
        """Send an item and wait until it is confirmed.

        Raises:
            AutolinkError: the channel has ended before, and why.
        """
        try:
            await self._channel.send(item)
        except anyio.ClosedResourceError:  # by us, and it is known why
            raise self._ended() from None
        self._sent = number = self._sent + 1  # in the order of sending: nothing runs between these lines
        if self._error is None:
            event = anyio.Event()
            self._waiting.append((number, event))
            await event.wait()
        if number > self._taken:
            raise self._ended()

    async def listen(self) -> None:
        """Take the confirmations, until the channel ends. Whoever still waits then gets the reason as an error."""
        why: Exception | None = None
        try:
            while True:
                self._confirm(await self._channel.receive())
        except anyio.EndOfStream:
            why = CallError(Code.ABORTED, "the receiver has ended the channel", received=True)
        except AutolinkError as error:
            why = error
        finally:
            self._error = why or self._ended()
            self._channel.close()  # whoever waits for credit need not wait any longer
            self.over.set()
            for _, event in self._waiting:
                event.set()

    def _ended(self) -> Exception:
        """Why nothing is confirmed any more; one object for all who ask, so without the traceback of one of them."""
        return (self._error or LinkLost("the channel was closed")).with_traceback(None)

    def _confirm(self, taken: int) -> None:
        if not self._taken < taken <= self._sent:
            raise RemoteProtocolError(
                f"channel {self._channel.name}: {taken} items confirmed, after {self._taken} of {self._sent}"
            )
        self._taken = taken
        while self._waiting and self._waiting[0][0] <= taken:
            self._waiting.popleft()[1].set()


@asynccontextmanager
async def confirmed(link: Link, name: str) -> AsyncIterator[Confirmed]:
    """Open such a channel, and listen on it."""
    async with link.open_channel(name, sends=object, receives=int) as channel, background_tasks() as tasks:
        messages = Confirmed(channel)
        tasks.start_soon(messages.listen)
        yield messages
