"""One live, mutually authenticated connection, as an application uses it."""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import urandom
from typing import Any, Final, TypeVar, final, overload

import anyio

from autolink import codec
from autolink.agent import forwarding
from autolink.agent.bodies import body_of, encode_any
from autolink.agent.channel import Channel
from autolink.agent.core import LinkCore
from autolink.agent.received import Received
from autolink.agent.topic import Subscription
from autolink.errors import BodyError, CallError, Code, display
from autolink.messages import Envelope, Kind, topic

S = TypeVar("S")
R = TypeVar("R")

_CALL: Final = Kind.CALL  # looked up on its enumeration, a member costs as much as a call
_CANCELLED: Final = Code.CANCELLED
_LATE: Final = Code.DEADLINE_EXCEEDED
_NOTHING: Final = codec.encode(None)
_RACE: Final = 1.0
"""Seconds: a peer that says `deadline_exceeded` this close to our own deadline leaves it to our own scope to say so."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What went over one link, and what is open on it now.

    Attributes:
        messages_sent: signed messages that left.
        messages_verified: signed messages that came in and were verified.
        batches_sent: signatures under which they left.
        batches_verified: signatures under which they came in.
        handlers: of ours that run for the peer.
        records: TLS records, both directions.
    """

    messages_sent: int
    messages_verified: int
    batches_sent: int
    batches_verified: int
    handlers: int
    records: int


@final
class Link(LinkCore):
    """A link to one verified peer. Made by `Agent.connect` and by a listener; it dies with its connection.

    Attributes:
        agent: whose link it is.
        peer: the verified far end, and on what grounds it was believed.
        tls: version, key-exchange group and cipher of the connection. Its `resumed` says whether an earlier TLS session
            was resumed: then TLS has not proved the peer's key anew; ``peer.key_proved_at`` says when it last did.
        dialer: whether we dialled.
    """

    @overload
    async def call(
        self, method: str, body: object = None, *, returns: type[R], headers: Mapping[str, str] | None = None
    ) -> R: ...
    @overload
    async def call(
        self, method: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Any: ...  # noqa: ANN401

    async def call(
        self,
        method: str,
        body: object = None,
        *,
        returns: Any = object,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a method of the peer and return its reply.

        The deadline of the current cancel scope travels along as remaining time; cancelling the call cancels the far
        handler.

        Args:
            method: its name over there.
            body: a plain value, or anything that pydantic can dump.
            returns: the type of the reply; without it, a plain msgpack value.
            headers: strings to send along, signed like the body; W3C `traceparent` belongs here.

        Raises:
            CallError: the far handler said so.
            TimeoutError: the deadline passed, whoever noticed first.
            BodyError: the body cannot be sent, or the reply is not a `returns`.
            LinkLost: the link is gone; whether the handler ran is not known.
        """
        expected = body_of(returns)
        reply = await self._exchange(_CALL, method, encode_any(body), headers)
        try:
            return expected.decode_untrusted(reply.body)
        except BodyError as error:
            raise BodyError(f"the reply of {display(method)!r}: {error}") from None

    async def call_signed(
        self, method: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Received:
        """As `call`, but the signed reply itself: `reply.message.value`, and `reply.envelope()` as its proof."""
        return await self._exchange(_CALL, method, encode_any(body), headers)

    async def forward(self, envelope: Envelope) -> Envelope | None:
        """Hand over a signed message, unchanged, and return its recipient's signed answer if there is one.

        **Nobody has verified that answer yet**: `Agent.verify` says whose it is.

        Raises:
            EnvelopeRefused: the peer, or whoever it passed the message on to, refused it.
            CallError, TimeoutError, LinkLost: as `call`.
        """
        question = envelope.claimed
        body = codec.encode(envelope.to_bytes())
        answer = await self._exchange(Kind.FORWARD, question.method, body, None)
        return forwarding.answered(answer.message.body, question)

    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, sends: type[S], receives: type[R], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[S, R]]: ...
    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, sends: type[S], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[S, Any]]: ...
    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, receives: type[R], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[Any, R]]: ...
    @overload
    @asynccontextmanager
    def open_channel(
        self, name: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Channel[Any, Any]]: ...

    @asynccontextmanager
    async def open_channel(
        self,
        name: str,
        *,
        sends: Any = object,
        receives: Any = object,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Channel[Any, Any]]:
        """Open a channel to the peer's handler of that name; leaving the block closes it.

        A handler that does not exist is told at the first `receive`.

        Raises:
            LinkLost: the link is gone.
        """
        lane = await self.open_lane(Kind.OPEN, name, _NOTHING, headers=headers)
        channel = Channel[Any, Any](self, lane, body_of(sends), body_of(receives))
        try:
            yield channel
        finally:
            channel.close()

    @overload
    @asynccontextmanager
    def subscribe(self, name: str, *, receives: type[R]) -> AsyncIterator[Subscription[R]]: ...
    @overload
    @asynccontextmanager
    def subscribe(self, name: str) -> AsyncIterator[Subscription[Any]]: ...

    @asynccontextmanager
    async def subscribe(self, name: str, *, receives: Any = object) -> AsyncIterator[Subscription[Any]]:
        """Subscribe to a topic of the peer's; when the block is entered, the subscription stands.

        Raises:
            CallError: the peer has no such topic, or takes no more subscribers.
            LinkLost: the link is gone.
        """
        recipient = topic(self.traffic.peer_id, name)
        lane = await self.open_lane(Kind.SUBSCRIBE, name, _NOTHING, topic=recipient)
        feed = Subscription[Any](self, lane, body_of(receives))
        try:
            await feed.confirmed()
            yield feed
        finally:
            feed.close()

    async def ping(self) -> float:
        """The seconds of one round trip.

        Raises:
            LinkLost: the link is gone.
        """
        token = urandom(8)
        begun = anyio.current_time()
        await self.pinged(token)
        return anyio.current_time() - begun

    async def drain(self, *, reason: str = "shutdown") -> None:
        """Open nothing more in either direction, let what is open end, then close the link.

        Put it in a cancel scope with a deadline: a peer's channel may stay open for ever.
        """
        self.go_away(reason)
        await self.closed()

    def statistics(self) -> LinkStatistics:
        """Counts since the link was opened."""
        return LinkStatistics(
            self.traffic.messages_sent,
            self.traffic.messages_verified,
            self.traffic.batches_sent,
            self.traffic.batches_verified,
            self.server.running,
            self.traffic.records,
        )

    def __repr__(self) -> str:
        state = "open" if self.lost is None else "lost"
        return f"<Link {'to' if self.dialer else 'from'} {self.named} {state}>"

    async def _exchange(
        self, kind: Kind, method: str, body: bytes, headers: Mapping[str, str] | None
    ) -> Received:
        """One message each way on a channel of its own; the reply."""
        deadline = self.traffic.loop.effective_deadline()
        lane = await self.open_lane(kind, method, body, deadline=deadline, headers=headers)
        try:
            return await lane.receive()
        except CallError as error:
            error.add_note(f"{kind.name.lower()} {display(method)!r} to {self.named}")
            if error.code is not Code.DEADLINE_EXCEEDED:
                raise
            if deadline - anyio.current_time() < _RACE:
                await anyio.sleep_until(deadline)
            raise TimeoutError(f"the deadline of {display(method)!r} passed at the far end") from error
        finally:
            late = deadline != math.inf and anyio.current_time() >= deadline
            self.leave(lane, _LATE if late else _CANCELLED)
