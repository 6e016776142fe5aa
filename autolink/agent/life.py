"""How a link lives: its tasks, its pings, and every way in which it ends.

A link runs two tasks: the writer, and the reader, which also does what time demands (`keeper`): it pings a silent peer
and has it judged again when the verdict ends or trust changed. Handlers run beside them. Whatever ends the link is
kept as its cause: every pending and later operation raises `LinkLost` from it, and every handler that worked for the
peer is cancelled. The application's own body is never cancelled by a lost link.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

import anyio

from autolink import limits
from autolink.agent.groups import Latch, background_tasks, without_frames
from autolink.agent.incoming import MessageRefused
from autolink.agent.keeper import Keeper
from autolink.agent.opening import Opened, name_of
from autolink.agent.serving import Server
from autolink.agent.traffic import Traffic
from autolink.errors import (
    AutolinkError,
    LinkLost,
    LocalProtocolError,
    Reason,
    Refused,
    RemoteProtocolError,
)  # fmt: skip
from autolink.loop import Scope, Tasks
from autolink.protocol import Event, EvidenceReceived
from autolink.transport import TlsInfo
from autolink.trust import Context, VerifiedPeer

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.agent.link import Link

logger: Final = logging.getLogger("autolink")


class LinkLife(ABC):
    """See the module. `LinkCore` adds what goes over the link."""

    def __init__(self, agent: "Agent", opened: Opened, *, dialer: bool, context: Context) -> None:
        self.agent = agent
        self.peer: VerifiedPeer = opened.peer
        self.chain = opened.chain
        self.credential = opened.credential
        self.dialer = dialer
        self.stale = False
        self.context = context
        self.protocol = opened.protocol
        self.traffic = Traffic(opened, dialer=dialer, clock=agent.clock, on_flood=self._flooded)
        self.tasks: Tasks
        self.server = Server(cast("Link", self))  # only Link is ever made
        self.evidence: EvidenceReceived | None = None
        self.opened_at = self.traffic.heard_at
        self._stream = opened.stream
        self._lanes = self.traffic.lanes
        self._pings: dict[bytes, anyio.Event] = {}
        self._last_words = b""
        self._cause: Exception | None = None
        self._said_go_away = self._finishing = self._said_goodbye = False
        self._unusable = Latch()  # lost or draining
        self._flushed = Latch()
        self._over = Latch()
        self._keeper = Keeper()
        self._reading: Scope | None = None  # until the keeper has something to do
        self._writer: Scope | None = None
        self._last_opened_by_peer = 0

    @property
    def tls(self) -> TlsInfo:
        """What TLS negotiated."""
        return self._stream.info

    def take_session(self) -> bytes:
        """(dialer) For `Sessions`."""
        return self._stream.take_session()

    # --- tasks -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the link's tasks around a body; leaving it closes the link politely, cancellation at once."""
        async with background_tasks(self._ending) as tasks:
            self.tasks = tasks
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                await self._close()
                if not self._ending():
                    await self._over.wait()

    async def serve(self, tasks: Tasks) -> None:
        """Run the link in this task until it has ended and its connection is closed; its other tasks are cancelled then."""
        self.tasks = tasks
        await self._run()
        if not self._reads_only:
            tasks.cancel_scope.cancel()

    async def aclose(self) -> None:
        """Send what is queued, say goodbye, and end. Cancelled meanwhile: the link is cut off."""
        await self._close()
        await self._over.wait()

    async def _close(self) -> None:
        """As `aclose`, without waiting for the end."""
        if self._cause is None:
            try:
                self.traffic.finish()
                if not self.traffic.idle:
                    with anyio.move_on_after(limits.FLUSH):
                        await self._flushed.wait()
            finally:
                self._say_goodbye()
                self.end(LinkLost("this side closed the link"))

    @property
    def _reads_only(self) -> bool:
        """No task beside the reader's is there, to be cancelled."""
        return self.server.idle and not (self._writer or self._finishing or self._keeper.judging)

    def _ending(self) -> bool:
        """Nothing but the reader runs, and it waits for the peer's goodbye, or for its own deadline."""
        return self._said_goodbye and self._reads_only

    def _say_goodbye(self) -> None:
        """Where nothing is left to be sent, the reader can go on until the peer answers: it need not be stopped."""
        if (
            self.traffic.idle
            and self._reading is not None
            and self._stream.direct
            and self._stream.say_goodbye()
        ):
            self._reading.deadline = self.traffic.loop.current_time() + limits.REFUSAL_DRAIN
            self._reading = None
            self._said_goodbye = True

    async def _run(self) -> None:
        """Read until the link ends; then say the last words and close the connection."""
        try:
            self.traffic.begin(self._start_writer)
            while self._cause is None:
                with self.traffic.loop.scope(deadline=self._keeper.next_look(self)) as self._reading:
                    await self._read()
                if self._cause is None:
                    self._keeper.look(self)
                    if self.drained and not self._finishing:
                        self._finishing = True
                        self.tasks.start_soon(self._finish)
        finally:
            self.end(LinkLost("the link's tasks were cancelled"))
            try:
                await self._part()
            finally:
                self._over.set()
                self.agent.forget(self)
                # A lost link is freed when its user lets it go, not when garbage is next collected.
                self.server.let_go()

    async def _part(self) -> None:
        """The peer may be gone by now, and our own cause is the one that counts."""
        try:
            if self._last_words or self._stream.sending:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + limits.REFUSAL_DRAIN):
                    if self._writer is not None:
                        await self._flushed.wait()  # until then the writer has the stream
                    if self._last_words:
                        if self._stream.unfinished:  # the writer was stopped before it began with that
                            await self._stream.finish_send()
                        await self._stream.send(self._last_words)
            await self._stream.shutdown_politely()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            await self._stream.abort()

    def _start_writer(self) -> None:
        self._writer = self.traffic.loop.scope()
        self.tasks.start_soon(self._write, self._writer)

    async def _write(self, scope: Scope) -> None:
        try:
            with scope:
                await self.traffic.write()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            # The reader may still find why: a REFUSE that the peer sent before it closed.
            with anyio.move_on_after(limits.REFUSAL_DRAIN):
                while self._cause is None:
                    await self.traffic.outbox.wait_for_room()  # which the end of the link changes, too
            self.end(_lost("the connection broke while writing", error))
        finally:
            self._flushed.set()

    async def _read(self) -> None:
        try:
            try:
                await self.traffic.read(self._handle)
            finally:
                self._reading = None  # there is nothing to be stopped any more
            self.end(LinkLost("the peer closed the link"))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self.end(_lost("the connection broke", error))
        except Refused as refused:
            self.agent.count_refused(refused)
            self.end(refused)
        except RemoteProtocolError as error:
            reason = error.reason if isinstance(error, MessageRefused) else Reason.MALFORMED
            self.refuse(Refused(reason, by="us", peer=self.named, detail=str(error)), error)

    @abstractmethod
    def _handle(self, event: Event) -> None:
        """Do what an event of the peer's asks for, in the reader's task, without waiting.

        Raises:
            Refused: it refuses us.
            RemoteProtocolError: it has broken the protocol.
        """

    # --- ends ------------------------------------------------------------------------------------------

    @property
    def lost(self) -> Exception | None:
        """What ended the link, or None while it is open."""
        return self._cause

    def refuse(self, refused: Refused, cause: Exception | None = None) -> None:
        """End the link because of something about the peer, and let it know the closed reason."""
        if self._cause is None:
            self.agent.count_refused(refused)
            logger.warning("link to %s ended: %s", self.named, refused)
            self._last_words = self.protocol.refuse(refused.reason, refused.offset)
            self.end(cause or refused)

    def end(self, cause: Exception) -> None:
        """End the link at once; the first cause counts."""
        if self._cause is not None:
            return
        self._cause = without_frames(cause)
        for lane in list(self._lanes.values()):
            lane.end(self.lost_error())
        for answered in self._pings.values():
            answered.set()
        self.traffic.end()
        self._unusable.set()
        self._stop_reading()
        self._keeper.stop()
        if self._writer is not None and self._stream.sending:
            self._writer.cancel()

    @property
    def named(self) -> str:
        """The peer for logs and errors."""
        return name_of(self.peer)

    async def closed(self) -> None:
        """Wait until the link has ended and its connection is closed."""
        await self._over.wait()

    def lost_error(self) -> LinkLost:
        """A `LinkLost` for one operation."""
        error = LinkLost(f"the link to {self.named} is gone: {self._cause}")
        error.__cause__ = self._cause
        return error

    def _flooded(self) -> None:
        detail = "it floods us and does not read our answers"
        self.refuse(Refused(Reason.MALFORMED, by="us", peer=self.named, detail=detail))

    # --- pings -----------------------------------------------------------------------------------------

    async def pinged(self, token: bytes) -> None:
        """Send a PING and wait for its answer.

        Raises:
            LinkLost: the link is gone.
        """
        if self._cause is not None:
            raise self.lost_error()
        answered = self._pings[token] = anyio.Event()
        try:
            self.traffic.control(self.protocol.ping(token))
            await answered.wait()
        finally:
            del self._pings[token]
        if self._cause is not None:
            raise self.lost_error()

    def ping_nowait(self) -> None:
        """Send a PING whose answer nobody waits for, unless as many as there may be are unanswered anyway."""
        with suppress(LocalProtocolError):
            self.traffic.control(self.protocol.ping(bytes(8)))

    # --- draining --------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """One side has said that nothing more may be opened."""
        return self._unusable.is_set

    async def no_longer_usable(self) -> None:
        """Wait until the link is lost or draining."""
        await self._unusable.wait()

    def attend(self, *, stale: bool = False) -> None:
        """Have the keeper look at once."""
        self.stale = self.stale or stale
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def go_away(self, reason: str) -> None:
        """Tell the peer to open nothing more here; the link ends when what is open has ended."""
        if self._cause is None and not self._said_go_away:
            self._said_go_away = True
            self._stop_opening()
            self.traffic.control(self.protocol.go_away(self._last_opened_by_peer, reason))
            self.attend()

    def _stop_opening(self) -> None:
        self._unusable.set()
        self.traffic.outbox.dismiss()

    @property
    def drained(self) -> bool:
        """This side is draining and no channel is open: nothing keeps the link."""
        return self._said_go_away and not self._lanes

    @property
    def left(self) -> bool:
        """The peer is draining and no channel is open: it should end the link."""
        return self.protocol.draining and not self._lanes

    @property
    def needs_care(self) -> bool:
        """The keeper has something to do at once."""
        return self.stale or (self.drained and not self._finishing)

    async def _finish(self) -> None:
        """End a drained link once everything is sent."""
        self.traffic.finish()
        if not self.traffic.idle:
            await self._flushed.wait()
        self.end(LinkLost("this side has drained the link"))


def _lost(text: str, cause: Exception) -> AutolinkError:
    error = LinkLost(f"{text}: {cause}" if str(cause) else text)
    error.__cause__ = without_frames(cause)
    return error
