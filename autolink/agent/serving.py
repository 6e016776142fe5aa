"""The serving side of a link: a task for each call, channel, subscription or forwarded envelope of the peer.

A handler's end ends its channel, and a channel's end (the peer cancelled, the deadline passed, the link is gone)
cancels its handler, through a scope of its own (`workers`). The channel's place is given free only when the
handler has really finished, so a peer that opens and cancels in a loop is held back by its own cleanup.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from autolink.agent import forwarding
from autolink.agent.call import Call, answer
from autolink.agent.channel import Channel
from autolink.agent.handlers import ChannelHandler, Method
from autolink.agent.lane import Lane, error_body
from autolink.agent.opening import name_of
from autolink.agent.received import Received
from autolink.agent.topic import Topic
from autolink.agent.workers import Workers
from autolink.errors import (
    BodyError,
    CallError,
    Code,
    EnvelopeRefused,
    LinkLost,
    wire_envelope_reason,
)
from autolink.messages import Kind

if TYPE_CHECKING:
    from autolink.agent.link import Link

logger: Final = logging.getLogger("autolink")

_ENDS_OF_A_LANE: Final = (LinkLost, CallError, anyio.ClosedResourceError)
"""What operations on a channel raise when the peer has cancelled it, the link is gone, or the handler closed it."""

_CALL: Final = Kind.CALL  # looked up on its enumeration, a member costs as much as a call
_OPEN: Final = Kind.OPEN
_SUBSCRIBE: Final = Kind.SUBSCRIBE
_REPLY: Final = Kind.REPLY

Serve = Callable[[Lane, Received, Any], Awaitable[None]]
"""What a handler's task does for one channel; the last argument is what is registered under the opening message's name."""


class Server:
    """Runs the handlers of one link's peer."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._agent = link.agent
        self._workers = Workers(link.traffic.loop, self._run)
        self._over = False
        self.running = 0

    @property
    def idle(self) -> bool:
        """No task of a handler's is there, working or waiting."""
        return not (self.running or self._workers.waiting)

    def let_go(self) -> None:
        """The link has ended: hold nothing that holds it, as soon as nothing runs here."""
        self._over = True
        if not self.running:
            self._workers.let_go()
            del self._link

    def start(self, lane: Lane, received: Received) -> None:
        """Start a task for what the opening message asks for, or answer that there is no such thing."""
        serve, registered = self._work(lane, received)
        if registered is None:
            text = "no such method, channel or topic"
            lane.send_nowait(Kind.ERROR, error_body(Code.UNIMPLEMENTED, text))
            self._link.leave(lane)
            return
        self.running += 1
        name = f"autolink handler {registered if serve == self._forward else lane.method}"
        lane.scope = self._workers.start(self._link.tasks, name, lane, received, serve, registered)

    def _work(self, lane: Lane, received: Received) -> tuple[Serve, Any]:
        """How to serve the channel, and what is registered for it, or None."""
        kind, name = received.kind, lane.method
        if kind is _CALL:
            return self._call, self._agent.handlers.methods.get(name)
        if kind is _OPEN:
            return self._channel, self._agent.handlers.channels.get(name)
        if kind is _SUBSCRIBE:
            return self._subscription, self._agent.topics.get(name)
        return self._forward, "(forwarded)"

    async def _run(self, lane: Lane, received: Received, serve: Serve, registered: object) -> None:
        """Run a handler under its caller's deadline; whatever it ends with becomes the channel's end."""
        try:
            if lane.over:  # cancelled before its task began
                return
            error = await self._outcome(lane, received, serve, registered)
            if error is not None and not lane.sent_end:
                await lane.send(Kind.ERROR, error)
        except BaseExceptionGroup as group:  # its task groups mix errors with the cancellation that stops it
            _, errors = group.split(anyio.get_cancelled_exc_class())
            if not isinstance(errors, Exception):
                raise
            self._log_stopped(lane, errors)
        except Exception as error:  # noqa: BLE001  left a handler that was being stopped: there is nobody to tell
            self._log_stopped(lane, error)
        finally:
            self.running -= 1
            lane.scope = None
            self._link.leave(lane)
            if self._over:
                self.let_go()

    def _log_stopped(self, lane: Lane, error: Exception) -> None:
        if not isinstance(_lone(error), _ENDS_OF_A_LANE):
            peer = name_of(self._link.peer)
            logger.error("handler %r failed while %s stopped it", lane.method, peer, exc_info=error)

    async def _outcome(
        self, lane: Lane, received: Received, serve: Serve, registered: object
    ) -> bytes | None:
        """None, or the body of the ERROR that the peer gets."""
        try:
            if received.timeout:
                with anyio.move_on_after(received.timeout / 1e6) as in_time:
                    await serve(lane, received, registered)
                return error_body(Code.DEADLINE_EXCEEDED) if in_time.cancelled_caught else None
            await serve(lane, received, registered)
        except EnvelopeRefused as refused:
            self._agent.count_refused(refused)
            if refused.by == "us":
                logger.warning("forwarded by %s: %s", name_of(self._link.peer), refused)
            reason = wire_envelope_reason(refused.reason)
            return error_body(Code.PERMISSION_DENIED, "envelope refused", reason.value)
        except BaseException as error:
            answer = self._answer_to(error, lane)
            if answer is None:
                raise
            return answer
        return None

    def _answer_to(self, error: BaseException, lane: Lane) -> bytes | None:
        """The body of the ERROR for what a handler raised; None: it is the end of its task.

        Nowhere else is the one error kept: a frame that it was raised through would keep its traceback, and with it itself.
        """
        lone = _lone(error)
        if lane.over and isinstance(lone, _ENDS_OF_A_LANE):  # it met the end before its cancellation
            return None
        if isinstance(lone, CallError) and not lone.received:
            return error_body(lone.code, lone.message)
        # The peer's item, not the handler's doing.
        if isinstance(lone, BodyError) and lone.channel is lane:
            return error_body(Code.INVALID_ARGUMENT, str(lone))
        if not isinstance(error, Exception):
            return None
        logger.error("handler %r failed for %s", lane.method, name_of(self._link.peer), exc_info=error)
        return error_body(Code.INTERNAL)

    async def _call(self, lane: Lane, received: Received, method: Method) -> None:
        peer = self._link.peer
        call = Call(lane.method, peer, peer, self._link, lane.headers, received)
        reply = await answer(method, call, received.body)
        await lane.send(_REPLY, reply)

    async def _channel(self, lane: Lane, _received: Received, handler: ChannelHandler) -> None:
        channel = Channel(self._link, lane, handler.sends, handler.receives)
        await handler.function(channel)
        if not lane.over:
            await channel.send_eof()

    async def _subscription(self, lane: Lane, _received: Received, topic: Topic[Any]) -> None:
        await topic.serve(self._link, lane)

    async def _forward(self, lane: Lane, received: Received, _registered: object) -> None:
        answered = await forwarding.receive(self._link, received)
        await lane.send(_REPLY, answered)


def _lone(error: BaseException) -> BaseException:
    """The one error inside the groups that a handler's task groups put around it; a group of several as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
