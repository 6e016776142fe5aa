"""One channel of a link as its two ends' tasks use it: an inbox, a way out, and the ways it can end.

The reader task delivers synchronously and never waits; the tasks of the application wait here. A direction ends once:
by the message that carries ENDS, by a cancel from either side, or with the link. What ended it is kept and raised at
every later operation, so an end cannot be missed between two awaits.

Checkpoints: `send` and `receive` check for cancellation each time and let other tasks run every `_TURN` messages or
whenever they wait. A full scheduling point per message costs more than signing and sending it.

Credit for what was read is given back when the inbox is empty or `_GATHERED` bytes have come together, not message by
message. Not later: a sender that waits for credit must never wait for a reader that has read everything.
"""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from autolink import codec, limits
from autolink.agent.kinds import FLAGS
from autolink.agent.received import Received
from autolink.errors import (
    CallError,
    Code,
    EnvelopeRefused,
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
)  # fmt: skip
from autolink.loop import Event
from autolink.messages import CHUNK_BODY, CHUNK_LEAF, ChunkWriter, Kind
from autolink.protocol import DATA, ENDS, Gathered, OwnItem

if TYPE_CHECKING:
    from autolink.agent.traffic import Traffic

_CHUNK: Final = Kind.CHUNK  # looked up on its enumeration, a member costs as much as a call
_ERROR: Final = Kind.ERROR
_TURN: Final = 64
_GATHERED: Final = limits.CREDIT // 3  # as `LinkProtocol.consumed`, and less than a full chunk
_CLOSED: Final = anyio.ClosedResourceError()
_NO_HEADERS: Final[dict[str, str]] = {}
_CODES: Final = {code.value: code for code in Code}
_REASONS: Final = {reason.value: reason for reason in Reason}


class Cancellable(Protocol):
    """A cancel scope or the handle of a task."""

    def cancel(self) -> object: ...


class Lane:
    """See the module. `opened_here` tells whose channel it is."""

    __slots__ = (
        "_chunks",
        "_error",
        "_gathered",
        "_inbox",
        "_lock",
        "_loop",
        "_traffic",
        "_turn",
        "_waiting",
        "allowed",
        "eof",
        "headers",
        "id",
        "lost",
        "method",
        "next_publication",
        "opened_here",
        "receive_seq",
        "scope",
        "send_seq",
        "sent_end",
        "topic",
    )  # fmt: skip

    def __init__(
        self, traffic: "Traffic", method: str, allowed: frozenset[Kind], *, opened_here: bool
    ) -> None:
        self._traffic = traffic
        self._loop = traffic.loop
        self.id = 0
        self.method = method
        self.headers: dict[str, str] = _NO_HEADERS
        self.opened_here = opened_here
        self.allowed = allowed
        self.topic = ""
        self.lost = 0
        self.next_publication: int | None = None
        self.send_seq = 0
        self.receive_seq = 0
        self.eof = False
        self.sent_end = False
        self.scope: Cancellable | None = None
        self._chunks: ChunkWriter | None = None  # whose chunk waits for the writer and takes more bytes
        self._inbox: deque[Received] = deque()
        self._waiting: Event | None = None
        self._error: Exception | None = None
        self._lock: anyio.Lock | None = None
        self._turn = 0
        self._gathered = 0

    # --- sending ---------------------------------------------------------------------------------------

    async def send(self, kind: Kind, body: bytes) -> None:
        """Hand one message to the writer, waiting for the channel's credit and the link's outbox.

        Cancelled while waiting: nothing was sent. Returned: it will be, unless the link is lost.
        """
        self._turn += 1
        await (self._loop.checkpoint_if_cancelled() if self._turn < _TURN else self._let_others_run())
        lock, size = self._lock, 0
        if lock is None or not lock.locked():
            self._check_sending()
            if self._chunks is not None:
                self.end_chunk()
            leaf = self._traffic.plain_leaf(self.send_seq, kind, self.id, body)
            size = len(leaf)
            if self._traffic.outbox.may_post(self.id, size):
                self._post(kind, leaf)
                return
        async with self._in_order():
            size = size or len(self._leaf(kind, body))  # the same at any time: times have one width
            while not self._traffic.outbox.may_post(self.id, size):
                await self._traffic.outbox.wait_for_room()
                self._turn = 0
                self._check_sending()
            self._post(kind, self._leaf(kind, body))

    async def send_part(self, chunks: ChunkWriter, data: memoryview) -> int:
        """As `send`, for bytes of a stream, as many as fit into one chunk: they join the one that waits for the writer, and
        begin another one if none does. So what an application gives piece by piece is sent at once by a writer that is free,
        and shares leaf, signature and all that a message costs while it is busy.

        Returns:
            How many they were.
        """
        self._turn += 1
        await (self._loop.checkpoint_if_cancelled() if self._turn < _TURN else self._let_others_run())
        if (self._lock is None or not self._lock.locked()) and (taken := self._fill(chunks, data)):
            return taken
        async with self._in_order():
            while not (taken := self._fill(chunks, data)):
                await self._traffic.outbox.wait_for_room()
                self._turn = 0
            return taken

    def _fill(self, chunks: ChunkWriter, data: memoryview) -> int:
        """`send_part` as far as credit and outbox allow it now: all or nothing of what fits into a chunk.

        A chunk is begun where a full one may be sent: cut short by credit, it would end within a piece, and the next one be
        hashed twice.
        """
        self._check_sending()
        room, traffic = chunks.room, self._traffic
        part = data[:room]
        if self._chunks is not chunks:
            traffic.check_size(_CHUNK, CHUNK_BODY)  # now, because who ends the chunk could tell nobody
            self.end_chunk()  # another stream's: from now on its leaf counts, too
        if not traffic.outbox.may_post(self.id, CHUNK_LEAF + (len(part) if self._chunks is chunks else room)):
            return 0
        self._chunks = chunks
        chunks.take(part)
        traffic.fill(self.id, len(part), partial(self._ended, chunks))
        if len(part) == room:
            self.end_chunk()
        return len(part)

    def end_chunk(self) -> None:
        """The chunk that is being filled, if there is one, takes no more bytes, because something follows it."""
        self._traffic.outbox.end_chunk(self.id)

    def _ended(self, chunks: ChunkWriter) -> OwnItem:
        """The message of the chunk that was being filled, which is numbered when it takes no more bytes."""
        self._chunks = None
        body, parts = chunks.chunk()
        leaf = self._traffic.plain_leaf(self.send_seq, _CHUNK, self.id, body)
        self.send_seq += 1
        return self.id, DATA, leaf, Gathered(parts)

    def _in_order(self) -> anyio.Lock:
        """Keeps the senders of one channel in their order, also while they wait."""
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)  # whoever takes it waits in any case
        return self._lock

    def send_nowait(self, kind: Kind, body: bytes) -> None:
        """As `send`, from the reader's own task, for the one short message that answers and ends a channel."""
        self._post(kind, self._leaf(kind, body))

    async def publish(self, topic: str, seq: int, body: bytes) -> None:
        """As `send`, for a publication: its recipient is the topic, and it is numbered by the topic."""
        self._turn += 1
        await (self._loop.checkpoint_if_cancelled() if self._turn < _TURN else self._let_others_run())
        self._check_sending()
        leaf = self._publication(topic, seq, body)
        if not self._traffic.outbox.may_post(self.id, len(leaf)):
            while not self._traffic.outbox.may_post(self.id, len(leaf)):
                await self._traffic.outbox.wait_for_room()
                self._check_sending()
            # While it waited for a slow subscriber the first one may have expired.
            leaf = self._publication(topic, seq, body)
        self._traffic.post(self.id, FLAGS[Kind.PUBLISH], leaf)

    def _publication(self, topic: str, seq: int, body: bytes) -> bytes:
        return self._traffic.leaf(seq, Kind.PUBLISH, self.id, "", 0, _NO_HEADERS, body, topic)

    def open(self, channel: int, kind: Kind, body: bytes, *, timeout: int, headers: dict[str, str]) -> None:
        """Take the number of a channel and post the message that opens it, in one step: numbers go out in order."""
        self.id = channel
        self.headers = headers
        leaf = self._traffic.leaf(0, kind, channel, self.method, timeout, headers, body)
        self._post(kind, leaf)

    def _leaf(self, kind: Kind, body: bytes) -> bytes:
        self._check_sending()
        if self._chunks is not None:
            self.end_chunk()
        return self._traffic.plain_leaf(self.send_seq, kind, self.id, body)

    def _check_sending(self) -> None:
        if self._error is not None:
            raise _fresh(self._error)
        if self.sent_end:
            raise LocalProtocolError("this channel's sending side has ended")

    def _post(self, kind: Kind, leaf: bytes) -> None:
        flags = FLAGS[kind]
        self.send_seq += 1
        if flags & ENDS:
            self.sent_end = True
        self._traffic.post(self.id, flags, leaf)

    # --- receiving -------------------------------------------------------------------------------------

    async def receive(self) -> Received:
        """The next message.

        Raises:
            anyio.EndOfStream: the peer ended its direction.
            CallError: the peer's handler failed or the peer cancelled.
            LinkLost: the link is gone.
        """
        if self._inbox or self.eof or self._error is not None:  # else we wait, which is a checkpoint too
            self._turn += 1
            await (self._loop.checkpoint_if_cancelled() if self._turn < _TURN else self._let_others_run())
        while not self._inbox:
            if self.eof:
                raise anyio.EndOfStream
            if self._error is not None:
                raise _fresh(self._error)
            if self._waiting is not None:
                raise anyio.BusyResourceError("receiving from this channel")
            self._waiting = self._loop.event()
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
        received = self._inbox.popleft()
        if not self.eof:  # else no more can come, for which the peer would need credit
            self._gathered += received.size
            if not self._inbox or self._gathered >= _GATHERED:
                self._traffic.consumed(self.id, self._gathered)
                self._gathered = 0
        return received

    def deliver(self, received: Received) -> None:
        """Called by the reader. What arrives for a lane that nobody reads any more is only counted.

        An ERROR ends both directions at once: whoever still sends learns it too. Messages before it can be received.
        """
        if received.kind is _ERROR:
            self.end(error_of(received.body))
            return
        if received.flags & ENDS:
            self.eof = True
        if self._error is None:
            self._inbox.append(received)
        else:
            self._traffic.consumed(self.id, received.size)
        if self._waiting is not None and len(self._inbox) == 1:  # behind that one, its receiver is awake
            self._waiting.set()

    async def _let_others_run(self) -> None:
        self._turn = 0
        await self._loop.checkpoint()

    # --- ends ------------------------------------------------------------------------------------------

    @property
    def waiting_count(self) -> int:
        """Messages in the inbox."""
        return len(self._inbox)

    @property
    def over(self) -> bool:
        """Both directions have ended."""
        return self._error is not None or (self.eof and self.sent_end)

    def end(self, error: Exception) -> None:
        """End both directions: the peer cancelled, the link is lost, or we closed."""
        if self._error is None:
            self._error = error
        if self.scope is not None:
            self.scope.cancel()
        if self._waiting is not None:
            self._waiting.set()
        self._traffic.outbox.room_changed()

    def close(self) -> None:
        """This side uses it no more: what waits unread is dropped. A handler that closes its channel may go on."""
        self.scope = None
        self._inbox.clear()
        self.end(_CLOSED)


def _fresh(error: Exception) -> Exception:
    """The same error anew: raising one object from many tasks would chain their tracebacks together."""
    kind = type(error)
    again: Exception = kind.__new__(kind, *error.args)  # not copy(): it calls __init__ with the text
    again.__dict__.update(error.__dict__)
    again.__cause__ = error.__cause__
    return again


def error_body(code: Code, message: str = "", reason: str | None = None) -> bytes:
    """The body of an ERROR message. Never fails: what cannot be UTF-8 is replaced."""
    text = message[: limits.DISPLAY].encode("utf-8", "replace").decode()
    return codec.encode([code.value, text, reason])


def error_of(body: bytes) -> CallError | EnvelopeRefused:
    """What an ERROR message says: a refused envelope where it gives a reason, else the far handler's answer.

    Unknown codes are `unknown` and unknown reasons `untrusted`: a newer peer may have more of them.

    Raises:
        RemoteProtocolError: the body is no error.
    """
    value: Any = codec.decode_untrusted(body, what="error")
    match value:
        case [str(), str(), str(reason), *_]:
            return EnvelopeRefused(_REASONS.get(reason, Reason.UNTRUSTED), by="peer")
        case [str(code), str(message), None, *_]:
            return CallError(_CODES.get(code, Code.UNKNOWN), message, received=True)
    raise RemoteProtocolError("error: not [code, message, reason]")


def check_sequence(lane: Lane, received: Received) -> None:
    """Messages of one direction of one channel are numbered 0, 1, 2, …: a gap means one was withheld.

    A publication is numbered by its topic, and a gap is what the publisher dropped for this subscriber: counted.

    Raises:
        RemoteProtocolError: a number that cannot come next.
    """
    if lane.topic:
        if received.kind is Kind.PUBLISH:
            _check_publication(lane, received)
            return
        if received.kind is Kind.ITEM:  # the confirmation: where the topic's count stands
            start = codec.decode_untrusted(received.body, what="subscription")
            if type(start) is not int or start < 0 or lane.next_publication is not None:
                raise RemoteProtocolError("subscription: does not start with the next publication's number")
            lane.next_publication = start
    if received.seq != lane.receive_seq:
        raise RemoteProtocolError(
            f"channel {lane.id}: message {received.seq} where {lane.receive_seq} is next"
        )
    lane.receive_seq += 1


def _check_publication(lane: Lane, received: Received) -> None:
    count, seq = lane.next_publication, received.seq
    if received.message.recipient != lane.topic or count is None or seq < count:
        raise RemoteProtocolError(
            f"channel {lane.id}: a publication that was not subscribed to, or out of order"
        )
    lane.lost += seq - count
    lane.next_publication = seq + 1
