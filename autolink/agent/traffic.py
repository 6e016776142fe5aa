"""Between the messages of a link and its bytes: one task signs and writes, one reads and verifies.

What waits in `outbox` when the writer becomes free is signed as one batch and leaves in one TLS write: at low load a batch
is one message and adds no delay, under load one signature covers up to `limits.BATCH_LEAVES`.

A message that ends its direction while nothing of ours uses another channel would wait for the writer's turn and gain
nothing, because nobody else has anything to say. So unless the writer is writing, whoever posts such a message takes the
writer's step for it, on the spot; what cannot be written at once is left to the writer, first in the line. The writer's
task is started when there is something for it: a link that carries single calls never has one.

Where all channels that are open wait to be written, as of many calls that were just made, the peer has nothing to do until
they come. Then one half leaves before the other is signed, and from there on one half is always at each end: two processors
work where they took turns. Not where the last batch of this process was another link's: it has enough to do, and one
signature for all is cheaper.

What comes in is judged in `incoming`. Time on a link is the wall clock of its opening plus what a monotonic clock says
passed since, so a clock that is stepped later makes no message late.

Only the writer calls `stream.send`, and `stream.send_nowait` only runs while it does not; only the reader calls
`stream.receive_to`; none is ever cancelled in the middle of a frame except when the link ends.
"""

from collections.abc import Callable
from datetime import datetime
from os import urandom
from typing import ClassVar, Final

import anyio

from autolink import limits
from autolink.agent.groups import without_frames
from autolink.agent.incoming import LIFETIME, Incoming
from autolink.agent.lane import Lane
from autolink.agent.opening import Opened
from autolink.agent.outbox import EndChunk, Outbox
from autolink.agent.received import Received
from autolink.errors import BodyError, Code
from autolink.loop import Event as Waker
from autolink.loop import running_loop
from autolink.messages import DIALER, LISTENER, Kind, Message, PlainLeaves, encode, sign_batch
from autolink.messages.message import ID
from autolink.protocol import ENDS, BatchReceived, Event, OwnItem, Part

_IDS: Final = 256 * ID
"""Random bytes for message ids that the system is asked for at once, at most."""

_ANY_SIZE: Final = frozenset({Kind.ERROR, Kind.FORWARD})
"""Kinds whose bodies are not the application's: their sizes are bounded otherwise."""

_CONTROLS: Final = limits.REPLIES + 2 * limits.CHANNELS
"""Control frames waiting for the writer: what a peer can make us answer, plus credit and cancel for each channel."""

_HALVED: Final = 16
"""So many messages, that a half is worth a signature and a verification, which take as long as four or five of them."""


class Traffic:
    """The signed traffic of one open link. See the module."""

    _last_to_sign: ClassVar[object] = None

    def __init__(
        self, opened: Opened, *, dialer: bool, clock: Callable[[], datetime], on_flood: Callable[[], None]
    ) -> None:
        self.stream = stream = opened.stream
        self.protocol = protocol = opened.protocol
        self.peer_id = opened.author
        self._credential = opened.credential
        self._own_id = opened.credential.auto_id
        self._role, peer_role = (DIALER, LISTENER) if dialer else (LISTENER, DIALER)
        self._largest_body = protocol.peer_limits.message if protocol.peer_limits else limits.MESSAGE
        self._outgoing = PlainLeaves(self._own_id, self.peer_id)
        self.incoming = Incoming(
            self._own_id, self.peer_id, opened.peer.leaf, peer_role, stream.link_id,
            chain=opened.chain, evidence=opened.peer.presented.evidence,
        )  # fmt: skip
        self._ids = b""
        self._next_id = 0
        self.loop = running_loop()
        self._current_time = self.loop.current_time
        self.heard_at = now = self._current_time()
        self._epoch = int(clock().timestamp() * 1_000_000) - int(now * 1_000_000)
        self.lanes: dict[int, Lane] = {}
        self.outbox = Outbox(protocol, self.loop)
        self._control: list[bytes] = [opened.unsaid] if opened.unsaid else []
        self._mark = object()  # in place of the link, which nothing but its user may keep
        self._on_flood = on_flood
        self._start_writer: Callable[[], None] | None = None
        self._failure: Exception | None = None
        self._wake: Waker | None = None
        self._closing = False
        self._over = False
        self.batches_sent = self.batches_verified = 0
        self.messages_sent = self.messages_verified = 0

    # --- time and leaves ---------------------------------------------------------------------------------

    def now(self) -> int:
        """Microseconds since 1970 by this link's clock."""
        return self._epoch + int(self._current_time() * 1_000_000)

    def leaf(
        self, seq: int, kind: Kind, channel: int, method: str, timeout: int, headers: dict[str, str], body: bytes,
        topic: str = "",
    ) -> bytes:  # fmt: skip
        """The bytes of one message from us, to the peer or to a topic of ours, sent now.

        Raises:
            BodyError: the peer's HELLO said that it takes no body of this size; of an ERROR it takes what there is.
            UsageError: a field that no peer would take.
        """
        if not (headers or topic):
            return self.plain_leaf(seq, kind, channel, body, method, timeout)
        self.check_size(kind, len(body))
        now = self.now()
        return encode(
            Message(
                self._message_id(), seq, self._own_id, topic or self.peer_id, now, now + LIFETIME,
                kind, channel, method, timeout, headers, body,
            )
        )  # fmt: skip

    def plain_leaf(
        self, seq: int, kind: Kind, channel: int, body: bytes, method: str = "", timeout: int = 0
    ) -> bytes:
        """As `leaf`, for a message to the peer without headers."""
        if len(body) > self._largest_body:
            self.check_size(kind, len(body))
        now = self.now()
        return self._outgoing.write(
            self._message_id(), seq, now, now + LIFETIME, kind, channel, body, method, timeout
        )

    def check_size(self, kind: Kind, size: int) -> None:
        """Whether the peer takes a body of `size` bytes.

        Raises:
            BodyError: no.
        """
        if size > self._largest_body and kind not in _ANY_SIZE:
            raise BodyError(f"{size} bytes; the peer takes {self._largest_body} in one message")

    def _message_id(self) -> bytes:
        """Sixteen random bytes, asked of the operating system for many messages at once."""
        at = self._next_id
        if at == len(self._ids):
            # A short link needs few, and a long one saves a system call for most.
            self._ids, at = urandom(min(2 * at or ID, _IDS)), 0
        self._next_id = end = at + ID
        return self._ids[at:end]

    # --- out ---------------------------------------------------------------------------------------------

    def post(self, channel: int, flags: int, leaf: bytes) -> None:
        """Queue a message that `outbox.may_post`, or send it at once if it is alone."""
        alone = flags & ENDS and len(self.lanes) == 1 and not self.outbox.size
        if alone and self._may_send_off and len(leaf) <= limits.TLS_STEP:
            self._send_at_once([self._controls(), *self._signed([(channel, flags, leaf, b"")])])
            return
        self.outbox.put((channel, flags, leaf, b""), len(leaf))
        self._urge()

    def fill(self, channel: int, size: int, end: EndChunk) -> None:
        """Queue bytes of a chunk that `outbox.may_post`."""
        self.outbox.fill(channel, size, end)
        self._urge()

    def control(self, frame: bytes) -> None:
        """Queue a control frame; a peer that makes us answer faster than it reads loses the link."""
        if len(self._control) >= _CONTROLS:
            self._on_flood()
            return
        self._control.append(frame)
        self._urge()

    def consumed(self, channel: int, size: int) -> None:
        """The application took a message off a channel: give the credit back when enough has gathered."""
        if self._over or not (frame := self.protocol.consumed(channel, size)):
            return
        if self._may_send_off and not (self.outbox.size or self._control):
            self._send_at_once([frame])  # nothing else would leave with it, and the sender may be waiting
        else:
            self.control(frame)

    def release(self, channel: int, code: Code) -> None:
        """Nothing of ours works for the channel any more: say so if the peer does not know yet.

        What still waits for the writer goes out before, or the peer would see an end without a start; until then the
        channel keeps its place, so a peer that does not read cannot open more of them than it may.
        """
        if self.outbox.size and self.outbox.leave(channel, code):
            return
        if frame := self.protocol.release(channel, code):
            self.control(frame)
        self.outbox.room_changed()

    def begin(self, start_writer: Callable[[], None]) -> None:
        """The link's tasks run. `start_writer` is called when there is something for the writer for the first time."""
        if self._over:  # it was left before they ran, and what is held now nobody would let go
            return
        self._start_writer = start_writer
        if self.stream.unfinished or self._failure is not None:  # posted when there was no writer to tell
            self._urge()
        else:
            self._send_off()

    async def write(self) -> None:
        """The writer task; returns when `finish` was called and everything is sent.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: the connection is gone.
        """
        while not self._over:  # it may have been woken just before
            if self._failure is not None:
                raise self._failure
            if self.stream.unfinished:
                await self.stream.finish_send()
            elif parts := self._take():
                await self.stream.send(*parts)
            elif self._closing:
                return
            else:
                self._wake = asleep = self.loop.event()
                await asleep.wait()

    def _urge(self) -> None:
        """There is something for the writer."""
        if self._start_writer is not None:
            start, self._start_writer = self._start_writer, None
            start()
        elif self._wake is not None:
            self._wake.set()
            self._wake = None

    def _send_off(self) -> None:
        """The writer's step, here and now, as far as it needs no waiting."""
        if self._over or not (self.outbox.size or self._control):
            return
        if not self._may_send_off or self.outbox.size > limits.TLS_STEP:
            self._urge()
            return
        self._send_at_once(self._take())
        if self.outbox.size:
            self._urge()

    @property
    def _may_send_off(self) -> bool:
        """The writer is not writing, and something can be sent without waiting."""
        return not (self._over or self.stream.sending) and self.stream.direct

    def _send_at_once(self, parts: list[Part]) -> None:
        try:
            sent = self.stream.send_nowait(b"".join(parts))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._failure = without_frames(error)  # the writer's to tell
            sent = False
        if not sent:
            self._urge()

    @property
    def records(self) -> int:
        """TLS records so far, in the direction that had more of them."""
        return max(self.stream.records_sent, self.stream.records_received)

    def end(self) -> None:
        """The link is lost: nothing more is said, whatever is read from inboxes or was queued."""
        self._over = True
        self._start_writer = None
        self._on_flood = _nobody_listens  # else we would hold the link, and nothing else frees it at once
        self.outbox.dismiss()
        self._urge()

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent or is being sent."""
        return not (self._control or self.outbox.size or self.stream.sending)

    def finish(self) -> None:
        """Send what waits, and let the writer return once nothing does."""
        self._closing = True
        self._send_off()
        if self._wake is not None:
            self._wake.set()

    def _take(self) -> list[Part]:
        """What the writer sends next, in parts that follow each other: where nothing is large, one."""
        controls = self._controls()
        if not self.outbox.size:
            return [controls] if controls else []
        items, left = self.outbox.take(self._share())
        parts = self._signed(items)
        if left:
            parts += filter(None, [self.protocol.release(channel, code) for channel, code in left])
        if self.outbox.size < limits.OUTBOX:
            self.outbox.room_changed()
        if controls:
            parts[0] = controls + parts[0]
        return parts

    def _share(self) -> int:
        """How many messages the next batch may have: half of those that wait, where the peer has nothing else to do."""
        waiting = self.outbox.channels
        if waiting < _HALVED or waiting != len(self.lanes) or Traffic._last_to_sign is not self._mark:
            return limits.BATCH_LEAVES
        return min(waiting // 2, limits.BATCH_LEAVES)

    def _controls(self) -> bytes:
        frames = b"".join(self._control)
        self._control.clear()
        return frames

    def _signed(self, items: list[OwnItem]) -> list[Part]:
        """A batch of these messages, as its frame in parts."""
        Traffic._last_to_sign = self._mark
        number = self.batches_sent
        self.batches_sent += 1
        self.messages_sent += len(items)
        leaves = [leaf for _, _, leaf, _ in items]
        signature = sign_batch(self._credential, self.stream.link_id, self._role, number, leaves)
        return self.protocol.batch(number, signature, items)

    # --- in ----------------------------------------------------------------------------------------------

    async def read(self, handle: Callable[[Event], None]) -> None:
        """The reader task: give each event to `handle`; returns at the peer's clean end, and after `end` at whatever comes.

        Raises:
            RemoteProtocolError: the peer broke the protocol.
            anyio.BrokenResourceError: the connection did.
        """
        receive_to, protocol = self.stream.receive_to, self.protocol

        def take(data: memoryview) -> None:
            self.heard_at = self._current_time()
            protocol.receive_data(data)
            handle_all()

        def handle_all() -> None:
            # What crosses our goodbye has come too late: nothing would end a handler that begins now.
            while not self._over and (event := protocol.next_event()) is not None:
                handle(event)

        handle_all()  # what came with the end of the opening
        while True:
            try:
                await receive_to(take, room=protocol.room)
            except anyio.EndOfStream:
                if not self._over:
                    protocol.receive_end()
                return
            if self._over:
                return

    def open_batch(self, event: BatchReceived) -> list[Received]:
        """The messages of a batch, each judged.

        Raises:
            RemoteProtocolError: as `Incoming.open`.
        """
        messages = self.incoming.open(event, self._epoch + int(self.heard_at * 1_000_000))
        self.batches_verified += 1
        self.messages_verified += len(messages)
        return messages


def _nobody_listens() -> None:
    """A link that is lost cannot be flooded."""
