"""Between the messages of a link and its bytes: one task signs and writes, one reads and verifies.

Whatever waits when the writer becomes free is signed as one batch and leaves in one TLS write: at low load a batch is
one message and adds no delay, under load one signature covers up to `limits.BATCH_LEAVES`. Bytes that wait are
bounded twice: a channel by the credit its receiver gave, the link by `limits.OUTBOX`, beyond which senders wait.

On the way in the signature over the whole batch is verified before any leaf is decoded, then each message must be
from the peer, to us, and on time. Time on a link is the wall clock of its opening plus what a monotonic clock says
passed since, so a clock that is stepped later makes no message late.

Only the writer waits in `stream.send` and only the reader in `stream.receive`; neither is ever cancelled in the middle of
a frame except when the link ends. To wake the writer takes longer than to sign and send a small message, so it is left
asleep, or not even started, where nobody can add to the batch anyway: who has the only call open on the link, or runs
the only handler, calls `send_off`, which does in place as much of the writer's work as needs no waiting.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import anyio

from autolink import limits
from autolink.errors import BadSignature, BodyError, Code, Reason, RemoteProtocolError
from autolink.identity import AutoId, Certificate, Credential
from autolink.messages import (
    DIALER,
    LISTENER,
    BatchHeader,
    Envelope,
    Kind,
    Message,
    decode_untrusted,
    encode,
    merkle,
    sign_batch,
    verify_batch,
)  # fmt: skip
from autolink.protocol import BatchReceived, Event, Item, LinkProtocol

if TYPE_CHECKING:
    from autolink.transport import SecureStream

_CONTROLS: Final = limits.REPLIES + 2 * limits.CHANNELS
"""Control frames waiting for the writer: what a peer can make us answer, plus credit and cancel for each channel."""


class MessageRefused(RemoteProtocolError):
    """A message on a link is forged, late or meant for somebody else; the link ends, and `reason` is counted."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """What a message's proof is made of: kept as long as somebody holds one of its messages."""

    header: BatchHeader
    signature: bytes
    leaf_hashes: list[bytes]
    chain: tuple[bytes, ...]

    def envelope(self, leaf: bytes, index: int) -> Envelope:
        """The message at `index` with its proof, verifiable by anyone."""
        header = self.header
        return Envelope(
            leaf, index, header.count, merkle.path(self.leaf_hashes, index), header.link_id, header.role, header.number,
            self.signature, self.chain,
        )  # fmt: skip


class Traffic:
    """The signed traffic of one open link. See the module."""

    def __init__(
        self,
        stream: "SecureStream",
        protocol: LinkProtocol,
        *,
        credential: Credential,
        peer_leaf: Certificate,
        peer_id: AutoId,
        peer_chain: tuple[bytes, ...],
        dialer: bool,
        clock: Callable[[], datetime],
        on_flood: Callable[[], None],
        unsaid: bytes = b"",
    ) -> None:
        self.stream = stream
        self.protocol = protocol
        self.peer_id = peer_id
        self._peer_leaf = peer_leaf
        self._peer_chain = peer_chain
        self._credential = credential
        self._own_id = credential.auto_id
        self._role, self._peer_role = (DIALER, LISTENER) if dialer else (LISTENER, DIALER)
        self._largest_body = protocol.peer_limits.message if protocol.peer_limits else limits.MESSAGE
        self._epoch = int(clock().timestamp() * 1_000_000) - int(anyio.current_time() * 1_000_000)
        self._outbox: deque[tuple[int, int, bytes]] = deque()
        self._queued = 0
        self._queued_by_channel: dict[int, int] = {}
        self._control: list[bytes] = [unsaid] if unsaid else []
        self._on_flood = on_flood
        self._start_writer: Callable[[], None] | None = None
        self._failure: Exception | None = None
        self._leaving: dict[int, Code] = {}
        self._wake: anyio.Event | None = None
        self._room: anyio.Event | None = None
        self._closing = False
        self._over = False
        self._batches_sent = 0
        self.messages_sent = 0
        self.messages_verified = 0
        self.heard_at = anyio.current_time()

    # --- time and leaves ---------------------------------------------------------------------------------

    def now(self) -> int:
        """Microseconds since 1970 by this link's clock."""
        return self._epoch + int(anyio.current_time() * 1_000_000)

    def leaf(
        self, message_id: bytes, seq: int, kind: Kind, channel: int, method: str, timeout: int,
        headers: dict[str, str], body: bytes, topic: str = "",
    ) -> bytes:  # fmt: skip
        """The bytes of one message from us, to the peer or to a topic of ours, sent now.

        Raises:
            BodyError: the peer's HELLO said that it takes no body of this size; of an ERROR it takes what there is.
            UsageError: a field that no peer would take.
        """
        if len(body) > self._largest_body and kind not in _ANY_SIZE:
            raise BodyError(f"{len(body)} bytes; the peer takes {self._largest_body} in one message")
        now = self.now()
        return encode(
            Message(
                message_id, seq, self._own_id, topic or self.peer_id, now, now + _MESSAGE_LIFETIME,
                kind, channel, method, timeout, headers, body,
            )
        )  # fmt: skip

    # --- out ---------------------------------------------------------------------------------------------

    def may_post(self, channel: int, size: int) -> bool:
        """Whether the channel's credit and the link's outbox have room for a message of `size` bytes."""
        if self._queued >= limits.OUTBOX:
            return False
        waiting = self._queued_by_channel.get(channel, 0)
        return self.protocol.can_send(channel, size, waiting)

    def post(self, channel: int, flags: int, leaf: bytes, *, urge: bool = True) -> None:
        """Queue a message that `may_post`; without `urge` the caller calls `send_off` before it waits for anything."""
        self._outbox.append((channel, flags, leaf))
        size = len(leaf)
        self._queued += size
        self._queued_by_channel[channel] = self._queued_by_channel.get(channel, 0) + size
        if urge:
            self.urge()

    def send_off(self) -> None:
        """Sign and send what waits, now and here, unless that would mean waiting: then the writer does it."""
        if not (self._outbox or self._control) or self._over:
            return
        if self.stream.sending or not self.stream.direct or self._queued > limits.TLS_STEP:
            self.urge()
            return
        try:
            if not self.stream.send_nowait(self._take()):
                self.urge()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._failure = error
            self.urge()

    def begin(self, start_writer: Callable[[], None]) -> None:
        """The link's tasks run. `start_writer` is called when there is something for the writer for the first time."""
        self._start_writer = start_writer
        self.send_off()

    def urge(self) -> None:
        """There is something for the writer."""
        if self._start_writer is not None:
            start, self._start_writer = self._start_writer, None
            start()
        elif self._wake is not None:
            self._wake.set()

    def control(self, frame: bytes) -> None:
        """Queue a control frame; a peer that makes us answer faster than it reads loses the link."""
        if len(self._control) >= _CONTROLS:
            self._on_flood()
            return
        self._control.append(frame)
        self.urge()

    def consumed(self, channel: int, size: int) -> None:
        """The application took a message off a channel: give the credit back when enough has gathered."""
        if not self._over and (frame := self.protocol.consumed(channel, size)):
            self.control(frame)

    def release(self, channel: int, code: Code) -> None:
        """Nothing of ours works for the channel any more: say so if the peer does not know yet.

        What still waits for the writer goes out before, or the peer would see an end without a start; until then the
        channel keeps its place, so a peer that does not read cannot open more of them than it may.
        """
        if channel in self._queued_by_channel:
            self._leaving[channel] = code
            return
        if frame := self.protocol.release(channel, code):
            self.control(frame)
        self.room_changed()

    @property
    def may_open(self) -> bool:
        """Whether the peer bears one more channel of ours, and the outbox one more message."""
        return self._queued < limits.OUTBOX and self.protocol.can_open

    async def wait_for_room(self) -> None:
        """Wait until credit or outbox changed; the caller asks `may_post` again."""
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def room_changed(self) -> None:
        """Credit came, the outbox shrank or a channel ended."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def write(self) -> None:
        """The writer task; returns when `finish` was called and everything is sent.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: the connection is gone.
        """
        while not self._over:  # it may have been woken just before
            if self._failure:
                raise self._failure
            if self.stream.unfinished:
                await self.stream.finish_send()
            elif data := self._take():
                await self.stream.send(data)
            elif self._closing:
                return
            else:
                self._wake = anyio.Event()
                await self._wake.wait()
                self._wake = None

    @property
    def records(self) -> int:
        """TLS records so far, in the direction that had more of them."""
        return max(self.stream.records_sent, self.stream.records_received)

    def end(self) -> None:
        """The link is lost: nothing more is said, whatever is read from inboxes or was queued."""
        self._over = True
        self.room_changed()
        if self._wake is not None:
            self._wake.set()

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent or is being sent."""
        return not (self._control or self._outbox or self.stream.sending)

    def finish(self) -> None:
        """Send what waits, and let the writer return once nothing does."""
        self._closing = True
        self.send_off()
        if self._wake is not None:
            self._wake.set()

    def _take(self) -> bytes:
        frames, self._control = self._control, []
        if self._outbox:
            frames.append(self._seal())
            if self._queued < limits.OUTBOX:
                self.room_changed()
        return b"".join(frames)

    def _seal(self) -> bytes:
        """Sign what waits, up to one batch of it, and make its frame."""
        outbox, size = self._outbox, 0
        items: list[Item] = []
        left_now: list[int] = []
        while outbox and len(items) < limits.BATCH_LEAVES and size < limits.BATCH_BYTES:
            item = outbox.popleft()
            items.append(item)
            size += len(item[2])
            left = self._queued_by_channel[item[0]] - len(item[2])
            if left:
                self._queued_by_channel[item[0]] = left
            else:
                del self._queued_by_channel[item[0]]
                if item[0] in self._leaving:
                    left_now.append(item[0])
        self._queued -= size
        number = self._batches_sent
        self._batches_sent += 1
        self.messages_sent += len(items)
        leaves = [leaf for _, _, leaf in items]
        signature = sign_batch(self._credential, self.stream.link_id, self._role, number, leaves)
        frame = self.protocol.batch(number, signature, items)
        if left_now:
            frame += b"".join(
                [self.protocol.release(channel, self._leaving.pop(channel)) for channel in left_now]
            )
            self.room_changed()
        return frame

    # --- in ----------------------------------------------------------------------------------------------

    async def read(self, handle: Callable[[Event], None]) -> None:
        """The reader task: give each event to `handle`; returns at the peer's clean end.

        Raises:
            RemoteProtocolError: the peer broke the protocol.
            anyio.BrokenResourceError: the connection did.
        """
        receive, protocol = self.stream.receive, self.protocol
        while True:
            while (event := protocol.next_event()) is not None:
                handle(event)
            try:
                data = await receive()
            except anyio.EndOfStream:
                protocol.receive_end()
                return
            self.heard_at = anyio.current_time()
            protocol.receive_data(data)

    def open_batch(self, event: BatchReceived) -> tuple[ReceivedBatch, list[tuple[int, int, bytes, Message]]]:
        """Verify a batch and decode its messages: (channel, flags, leaf, message) for each.

        Raises:
            RemoteProtocolError: a wrong signature, or a message that is malformed, not from the peer, or late.
        """
        header = BatchHeader(
            self._peer_leaf.fingerprint, self.stream.link_id, self._peer_role, event.number, len(event.items)
        )
        hashes = [merkle.leaf_hash(leaf) for _, _, leaf in event.items]
        try:
            verify_batch(self._peer_leaf, header, merkle.root(hashes), event.signature)
        except BadSignature:
            raise MessageRefused(
                Reason.TAMPERED, f"batch {event.number} is not signed by the peer's key"
            ) from None
        received = ReceivedBatch(header, event.signature, hashes, self._peer_chain)
        earliest = self.now() - _SKEW
        messages = [(*item, self._judged(decode_untrusted(item[2]), earliest)) for item in event.items]
        self.messages_verified += len(messages)
        return received, messages

    def _judged(self, message: Message, earliest: int) -> Message:
        if message.author != self.peer_id:
            raise MessageRefused(Reason.WRONG_PEER, "a message on this link is not from its peer")
        if message.expires_at < earliest:
            raise MessageRefused(Reason.LATE, "a message arrived after its time")
        if message.sent_at > earliest + 2 * _SKEW:
            raise MessageRefused(Reason.CLOCK_SKEW, "a message is from the future")
        if message.expires_at - message.sent_at > _MESSAGE_LIFETIME:
            raise MessageRefused(
                Reason.MALFORMED, "a message claims to live for longer than one on a link may"
            )
        return message

    def check_recipient(self, message: Message) -> None:
        """Everything but a publication names us.

        Raises:
            RemoteProtocolError: it names somebody else.
        """
        if message.recipient != self._own_id:
            raise MessageRefused(Reason.WRONG_RECIPIENT, "a message on this link is not for us")


_MESSAGE_LIFETIME: Final = int(limits.MESSAGE_LIFETIME * 1_000_000)
_SKEW: Final = int(limits.SKEW * 1_000_000)
_ANY_SIZE: Final = frozenset({Kind.ERROR, Kind.FORWARD})
