"""Publish and subscribe: the publisher declares what happens to a slow subscriber, the subscriber learns what it lost.

A publication's recipient is ``topic:<publisher>/<name>``, and it is numbered by its topic; each subscriber's copy is
a message of its own on its own link. The first message of a subscription tells the next number, so the subscriber
knows that it is subscribed and can count from there.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, final

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint

from autolink import codec, limits
from autolink.agent.bodies import Body
from autolink.agent.lane import Lane
from autolink.errors import CallError, Code, UsageError
from autolink.identity import AutoId
from autolink.messages import Kind, topic

if TYPE_CHECKING:
    from autolink.agent.core import LinkCore

T = TypeVar("T")
Overflow = Literal["wait", "drop_oldest", "disconnect"]


@dataclass(slots=True, eq=False)
class _Subscriber:
    link: "LinkCore"
    waiting: deque[tuple[int, bytes]]
    changed: anyio.Event
    disconnected: bool = False
    ended: bool = False

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """What one topic did: publications, subscribers now, copies dropped, subscribers disconnected."""

    published: int
    subscribers: int
    dropped: int
    disconnected: int


@final
class Topic(Generic[T]):
    """One topic of an agent. Made by `Agent.topic`."""

    def __init__(self, owner: AutoId, name: str, body: Body[T], overflow: Overflow, buffer: int) -> None:
        if overflow not in ("wait", "drop_oldest", "disconnect"):
            raise UsageError("overflow is 'wait', 'drop_oldest' or 'disconnect'")
        if buffer < 1:
            raise UsageError("a topic's buffer holds at least 1 publication")
        self.name = name
        self.recipient = topic(owner, name)
        self._body = body
        self._overflow = overflow
        self._buffer = buffer
        self._subscribers: set[_Subscriber] = set()
        self._published = self._dropped = self._disconnected = 0
        self._lock: anyio.Lock | None = None

    async def publish(self, value: T) -> None:
        """Give a value to every subscriber.

        With ``overflow="wait"`` it waits until each has room; otherwise it never waits for a subscriber. Cancelled
        while waiting: some subscribers have the value and the others will miss it, and count it as lost.

        Raises:
            BodyError: the value is not of the topic's type, or too large.
        """
        body = self._body.encode(value)
        if self._overflow != "wait":
            for subscriber in list(self._subscribers):
                self._give(subscriber, self._published, body)
            self._published += 1
            await checkpoint()
            return
        self._lock = self._lock or anyio.Lock()
        async with self._lock:  # two publishers that wait must not overtake each other
            seq, self._published = self._published, self._published + 1
            for subscriber in list(self._subscribers):
                while self._is_full(subscriber):
                    await subscriber.changed.wait()
                self._give(subscriber, seq, body)

    def _is_full(self, subscriber: _Subscriber) -> bool:
        full = len(subscriber.waiting) >= self._buffer
        return full and not subscriber.ended and subscriber in self._subscribers

    def _give(self, subscriber: _Subscriber, seq: int, body: bytes) -> None:
        if subscriber.ended:
            return
        if len(subscriber.waiting) >= self._buffer and self._overflow != "wait":
            if self._overflow == "disconnect":
                subscriber.disconnected = True
                self._subscribers.discard(subscriber)
                self._disconnected += 1
                subscriber.wake()
                return
            subscriber.waiting.popleft()
            self._dropped += 1
        subscriber.waiting.append((seq, body))
        subscriber.wake()

    def end(self, links: Collection["LinkCore"]) -> None:
        """Let the subscribers on links that are being drained go when they have all that was published before."""
        for subscriber in self._subscribers:
            if subscriber.link in links:
                subscriber.ended = True
                subscriber.wake()

    async def serve(self, link: "LinkCore", lane: Lane) -> None:
        """Feed one subscriber until its lane ends; the lane's own task calls this.

        Raises:
            CallError: `resource_exhausted`: too many subscribers, or one too slow for ``overflow="disconnect"``;
                `unavailable`: this side drains.
        """
        if len(self._subscribers) >= limits.SUBSCRIBERS:
            raise CallError(Code.RESOURCE_EXHAUSTED, "too many subscribers")
        subscriber = _Subscriber(link, deque(), anyio.Event(), ended=link.draining)
        self._subscribers.add(subscriber)
        try:
            await lane.send(Kind.ITEM, codec.encode(self._published))
            while True:
                while subscriber.waiting:
                    seq, body = subscriber.waiting.popleft()
                    subscriber.wake()
                    await lane.publish(self.recipient, seq, body)
                if subscriber.disconnected:
                    raise CallError(Code.RESOURCE_EXHAUSTED, "too slow for this topic")
                if subscriber.ended:
                    raise CallError(Code.UNAVAILABLE, "the publisher is draining")
                await subscriber.changed.wait()
        finally:
            self._subscribers.discard(subscriber)
            subscriber.wake()

    def statistics(self) -> TopicStatistics:
        """Counts since the topic was declared."""
        return TopicStatistics(self._published, len(self._subscribers), self._dropped, self._disconnected)


@final
class Subscription(ObjectReceiveStream[T], Generic[T]):
    """What a subscriber receives. Made by `Link.subscribe`."""

    def __init__(self, link: "LinkCore", lane: Lane, body: Body[T]) -> None:
        self._link = link
        self._lane = lane
        self._body = body
        self._closed = False

    @property
    def lost(self) -> int:
        """Publications that the publisher dropped for us so far."""
        return self._lane.lost

    async def receive(self) -> T:
        """The next publication.

        Raises:
            CallError: the publisher disconnected us (`resource_exhausted`), drains and has told all (`unavailable`), or has
                no such topic (`unimplemented`).
            BodyError: the publication is not a T; the subscription stays usable.
            LinkLost: the link is gone.
            anyio.ClosedResourceError: this side was closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return self._body.decode_untrusted((await self._lane.receive()).body)

    async def confirmed(self) -> None:
        """Wait for the publisher's first message: we are subscribed, and the lane knows where its count stands.

        Raises:
            CallError, LinkLost: as `receive`.
        """
        await self._lane.receive()

    async def aclose(self) -> None:
        """Unsubscribe."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """As `aclose`, without a checkpoint."""
        if not self._closed:
            self._closed = True
            self._link.leave(self._lane)
