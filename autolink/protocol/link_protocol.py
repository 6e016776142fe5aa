"""One end of a link, without I/O: bytes in, events out; operations in, bytes out."""

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, final

from autolink import codec, limits
from autolink.errors import Code, LocalProtocolError, Reason, RemoteProtocolError
from autolink.protocol import events, frames, payloads
from autolink.protocol.channels import OURS, THEIRS, Channels
from autolink.protocol.events import Event, Limits, LinkStatistics
from autolink.protocol.frames import DATA, Frame, FrameReader, OwnItem, Part
from autolink.protocol.table import ACCEPTED, LinkState, Violation, step_link

VERSIONS: Final = (1,)
_NONE: Final[frozenset[int]] = frozenset()
_BATCH: Final = Frame.BATCH  # looked up on its enumeration, a member costs as much as a call
_DRAINING: Final = LinkState.DRAINING
_REFUSED: Final = LinkState.REFUSED


@final
class LinkProtocol:
    """The state of one link as one end sees it. Its methods are of four kinds:

    * from the network: `receive_data`, `receive_end`; then call `next_event` until it returns None, also after
      `accept`, which lets through what was kept until then;
    * from the application: `hello`, `accept`, `refuse`, `batch`, `cancel`, `release`, `consumed`, … Each changes the
      state at once and returns the bytes to write, so they must be written in the order of the calls. Each raises
      `LocalProtocolError`, with nothing changed, where the state does not allow it;
    * `next_event` raises `RemoteProtocolError`, and nothing else, for whatever the peer should not have sent. The
      object then stays failed: every later `next_event` raises again and only `refuse` can still be said;
    * questions: `can_send`, `places`, `draining`, `wants_data`, `state`, `statistics`.

    Nothing waits here, and nothing here knows a clock, a key or a socket.

    Args:
        dialer: whether we dialled.
        channels: how many channels the peer may have open.
        credit: bytes of leaves and data that it may send on each before we have read them; at least 1.
        message: bytes of one body that we take; announced here, enforced by whoever decodes leaves.
        versions: protocol versions that we speak.
        grease: chooses which of the reserved frame types and which unknown HELLO field we send, so that peers
            stay able to ignore them; any number.

    Attributes:
        version: what both speak, once the peer's HELLO is here.
        peer_limits: what the peer takes, likewise.
        room: called, it says where the peer's next bytes can be written to (what, from where, up to where; None: nowhere)
            before a memoryview of them is given to `receive_data`, which then need not copy them.
    """

    def __init__(
        self,
        dialer: bool,
        *,
        channels: int = limits.CHANNELS,
        credit: int = limits.CREDIT,
        message: int = limits.MESSAGE,
        versions: Sequence[int] = VERSIONS,
        grease: int = 0,
    ) -> None:
        self.dialer = dialer
        self.version: int | None = None
        self.peer_limits: Limits | None = None
        self._limits = Limits(channels, credit, message)
        self._versions = tuple(versions)
        self._grease = grease % len(frames.GREASE)
        self._ours = LinkState.SILENT
        self._theirs = LinkState.SILENT
        self._error = ""
        self._reader = FrameReader()
        self.room = self._reader.room
        self._events: deque[Event] = deque()
        self._channels = Channels(dialer, credit, channels)
        self._served: set[int] = set()  # the peer's channels whose handlers are not released
        self._pings: deque[bytes] = deque()
        self._batches = [0, 0]
        self._items = [0, 0]
        self._frames = [0, 0]
        self._bytes = [0, 0]
        self._frames_since_item = 0

    # --- from the network ----------------------------------------------------------------------------------

    @property
    def wants_data(self) -> bool:
        """False while reading more would only fill memory: `limits.EARLY` bytes wait for our verdict, or it is over."""
        if self._ours is _REFUSED:
            return True  # to be discarded
        if self._error or self._theirs is _REFUSED:
            return False
        return not self._undecided or len(self._reader) < limits.EARLY

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer. Parses nothing and raises nothing; after `refuse` they are dropped."""
        self._bytes[THEIRS] += len(data)
        if self._ours is not _REFUSED and not self._error:
            self._reader.feed(data)

    def receive_end(self) -> None:
        """The peer's stream ended cleanly.

        Raises:
            RemoteProtocolError: in the middle of a frame.
        """
        if len(self._reader) and not self._undecided:
            raise self._fail("the stream ended inside a frame")

    def next_event(self) -> Event | None:
        """The next thing that the peer did; None: more bytes are needed, or our own verdict.

        Raises:
            RemoteProtocolError: the peer broke the protocol; the link is over.
        """
        if self._error:
            raise RemoteProtocolError(self._error)
        while not self._events:
            if self._ours not in ACCEPTED and (self._ours is _REFUSED or self._undecided):
                return None
            try:
                if not self._read_frame():
                    return None
            except (Violation, RemoteProtocolError) as error:
                raise self._fail(str(error)) from None
        return self._events.popleft()

    # --- opening and ending --------------------------------------------------------------------------------

    def hello(self, fields: Mapping[str, object]) -> bytes:
        """HELLO: ``clock`` (microseconds since 1970) and ``software``, perhaps ``features``, ``chain``, ``evidence``.

        ``versions`` and ``limits`` are this object's own and are put in here.

        Raises:
            LocalProtocolError: it was said, or is longer than `limits.HELLO`.
        """
        payload = payloads.hello_payload(fields, self._versions, self._limits, self._grease)
        return self._say(Frame.HELLO, payload)

    def accept(self) -> bytes:
        """ACCEPT: our verdict. What the peer sent behind its own comes out of `next_event` from now on.

        Raises:
            LocalProtocolError: before both HELLOs, without a common version, or twice.
        """
        if self.version is None:
            raise LocalProtocolError("ACCEPT needs the peer's HELLO and a version in common")
        after = self._may_say(Frame.ACCEPT, len(payloads.accept_payload(self.version)))
        said = payloads.accept_frames(self.version, self._grease)
        self._frames[OURS] += 1  # what follows it is a frame too, which may be said as soon as ACCEPT is
        return self._said(after, said)

    def refuse(self, reason: Reason, offset: float | None = None) -> bytes:
        """REFUSE: legal at any time, also after the peer's protocol error; everything from the peer is dropped then.

        Args:
            reason: crosses the wire only as far as `errors.wire_reason` lets it.
            offset: with `clock_skew`, seconds that the peer's clock is ahead.

        Raises:
            LocalProtocolError: it was said already.
        """
        said = self._say(Frame.REFUSE, payloads.refuse_payload(reason, offset))
        self._reader.clear()
        self._events.clear()
        return said

    def evidence(self, fields: Mapping[str, object]) -> bytes:
        """EVIDENCE of our standing: ``chain`` (DER, the same key) and ``evidence``."""
        return self._say(Frame.EVIDENCE, codec.encode(dict(fields)))

    def go_away(self, last: int, reason: str) -> bytes:
        """GOAWAY: we serve no channel of the peer's above `last`, and open channels end in their own time.

        Raises:
            LocalProtocolError: it was said, or `last` is above what the peer has opened.
        """
        if not 0 <= last <= self._channels.highest(THEIRS):
            raise LocalProtocolError(f"GOAWAY: the peer has not opened channel {last}")
        return self._say(Frame.GOAWAY, codec.encode({"last": last, "reason": reason}))

    # --- channels ------------------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """How many channels `open_channel` would give now."""
        return self._channels.places if self._ours in ACCEPTED and self._theirs is not _DRAINING else 0

    def open_channel(self) -> int:
        """A new channel's number; the first item sent on it must carry OPENS, in the order of the numbers.

        Raises:
            LocalProtocolError: before our ACCEPT, when the peer is draining (see `draining`), or when the peer
                allows no more channels at once.
        """
        if self._ours not in ACCEPTED or self._theirs is _REFUSED:
            raise LocalProtocolError(f"no channel can be opened on a link where we are {self._ours}")
        if self._theirs is _DRAINING:
            raise LocalProtocolError("the peer is draining and serves no new channel; open another link")
        try:
            return self._channels.allot()
        except Violation as error:
            raise LocalProtocolError(str(error)) from None

    def can_send(self, channel: int, size: int, waiting: int = 0) -> bool:
        """Whether credit allows an item of `size` bytes on a channel behind `waiting` bytes that are still unsent."""
        return self._channels.can_send(channel, size, waiting)

    def batch(self, number: int, signature: bytes, items: Sequence[OwnItem]) -> list[Part]:
        """BATCH, in parts that follow each other.

        Args:
            number: from 0, by one.
            signature: over the root of the leaves.
            items: (channel, flags, leaf, data); every one must be allowed by its channel and its credit.

        Raises:
            LocalProtocolError: one is not; nothing was sent.
        """
        if number != self._batches[OURS]:
            raise LocalProtocolError(f"batch {number} where {self._batches[OURS]} is next")
        _check_items(items)
        if not 0 < len(signature) <= limits.SIGNATURE:
            raise LocalProtocolError("a batch has a signature")
        try:
            said = frames.encode_batch_frame(number, signature, items)
            size = sum(map(len, said))
            after = self._may_say(_BATCH, size - frames.HEADER)
            self._channels.items(OURS, items)
        except (Violation, struct.error) as error:
            raise LocalProtocolError(str(error)) from None
        self._batches[OURS] += 1
        self._items[OURS] += len(items)
        self._frames_since_item = 0
        self._ours = after
        self._frames[OURS] += 1
        self._bytes[OURS] += size
        return said

    def consumed(self, channel: int, size: int) -> bytes:
        """The application read `size` bytes of leaves and data: CREDIT when a third of the window has gathered, or b""."""
        count = self._channels.consumed(channel, size)
        return self.credit(channel, count) if count else b""

    def credit(self, channel: int, count: int) -> bytes:
        """CREDIT at once; `consumed` decides when it is worth a frame.

        Raises:
            LocalProtocolError: more than the peer has sent on the channel.
        """
        try:
            payload = frames.encode_credit(channel, count)
            after = self._may_say(Frame.CREDIT, len(payload))
            self._channels.credit(OURS, channel, count)
        except (Violation, struct.error) as error:
            raise LocalProtocolError(str(error)) from None
        return self._said(after, frames.encode_frame(Frame.CREDIT, payload))

    def cancel(self, channel: int, code: Code) -> bytes:
        """CANCEL: end a channel from our side, and drop what still comes. b"" where it is over or never got opened.

        Raises:
            LocalProtocolError: it was cancelled before, or no such channel was ever open.
        """
        if self._channels.withdraw(channel):
            return b""
        was_open = channel in self._channels
        try:
            payload = frames.encode_cancel(channel, payloads.code_number(code))
            after = self._may_say(Frame.CANCEL, len(payload))
            self._channels.cancel(OURS, channel)
        except (Violation, struct.error) as error:
            raise LocalProtocolError(str(error)) from None
        return self._said(after, frames.encode_frame(Frame.CANCEL, payload)) if was_open else b""

    def release(self, channel: int, code: Code = Code.CANCELLED) -> bytes:
        """Nothing of ours works for the channel any more: CANCEL if a direction of it is still open, else b"".

        Whoever opened it, each channel must be released once its task has really finished: for a channel that the
        peer cancelled this is the answer that gives the peer its place back. Releasing twice does nothing.
        """
        self._served.discard(channel)
        return self.cancel(channel, code) if self._channels.must_cancel(channel) else b""

    # --- liveness ------------------------------------------------------------------------------------------

    def ping(self, data: bytes) -> bytes:
        """PING.

        Raises:
            LocalProtocolError: not 8 bytes, or `limits.REPLIES` are unanswered.
        """
        if len(self._pings) >= limits.REPLIES:
            raise LocalProtocolError(f"{len(self._pings)} pings are unanswered")
        said = self._say(Frame.PING, data)
        self._pings.append(data)
        return said

    def pong(self, data: bytes) -> bytes:
        """PONG: the answer to the oldest unanswered `PingReceived`."""
        return self._say(Frame.PONG, data)

    # --- questions -----------------------------------------------------------------------------------------

    @property
    def state(self) -> tuple[LinkState, LinkState]:
        """How far we and the peer have come."""
        return self._ours, self._theirs

    @property
    def draining(self) -> bool:
        """The peer serves no new channel of ours."""
        return self._theirs is _DRAINING

    def statistics(self) -> LinkStatistics:
        """Counts up to now."""
        opened, accepted = self._channels.open
        return LinkStatistics(
            frames_sent=self._frames[OURS], frames_received=self._frames[THEIRS],
            bytes_sent=self._bytes[OURS], bytes_received=self._bytes[THEIRS],
            items_sent=self._items[OURS], items_received=self._items[THEIRS],
            channels_opened=opened, channels_accepted=accepted,
            frames_since_item=self._frames_since_item, bytes_held=len(self._reader),
        )  # fmt: skip

    def __repr__(self) -> str:
        opened, accepted = self._channels.open
        return (
            f"<LinkProtocol {'dialer' if self.dialer else 'listener'}: we are {self._ours}, the peer is "
            f"{self._theirs}, {opened} channels opened, {accepted} accepted{', failed' if self._error else ''}>"
        )

    # --- within: ours --------------------------------------------------------------------------------------

    def _may_say(self, frame: Frame, size: int) -> LinkState:
        """Our state after a frame with a payload of `size` bytes; changes nothing.

        Raises:
            LocalProtocolError: we may not say it now.
        """
        if self._error and frame is not Frame.REFUSE:
            raise LocalProtocolError(f"{frame.name} on a link that the peer has broken: {self._error}")
        least, most = frames.SIZES[frame]
        if not least <= size <= most:
            raise LocalProtocolError(f"{frame.name} of {size} bytes, {least} to {most} are possible")
        try:
            return step_link(self._ours, self._theirs, frame)
        except Violation as error:
            raise LocalProtocolError(str(error)) from None

    def _said(self, after: LinkState, data: bytes) -> bytes:
        self._ours = after
        self._frames[OURS] += 1
        self._bytes[OURS] += len(data)
        return data

    def _say(self, frame: Frame, payload: bytes) -> bytes:
        after = self._may_say(frame, len(payload))
        return self._said(after, frames.encode_frame(frame, payload))

    # --- within: theirs ------------------------------------------------------------------------------------

    @property
    def _undecided(self) -> bool:
        """The peer has accepted and we have not: what follows waits unread, and nothing of it takes effect."""
        return self._theirs in ACCEPTED and self._ours not in ACCEPTED

    def _fail(self, text: str) -> RemoteProtocolError:
        self._error = text
        self._reader.clear()
        self._events.clear()
        return RemoteProtocolError(text)

    def _read_frame(self) -> bool:
        """Take one frame if it is whole; its right to be here is judged by its header, before its payload is held."""
        frame = self._reader.peek()
        if frame is None:
            return False
        after = step_link(self._theirs, self._ours, frame)
        payload = self._reader.take()
        if payload is None:
            return False
        self._frames[THEIRS] += 1
        self._frames_since_item += 1
        self._theirs = after
        if frame is _BATCH:  # nearly all of them
            self._batch(payload)
        else:
            self._receive(frame, bytes(payload))
        return True

    def _receive(self, frame: Frame, payload: bytes) -> None:
        match frame:
            case Frame.CREDIT:
                channel, count = frames.decode_credit(payload)
                self._channels.credit(THEIRS, channel, count)
                self._events.append(events.CreditReceived(channel, count))
            case Frame.CANCEL:
                self._cancel(payload)
            case Frame.PING:
                self._events.append(events.PingReceived(payload))
            case Frame.PONG:
                if not self._pings or self._pings.popleft() != payload:
                    raise Violation("PONG that answers no PING, or not the oldest")
                self._events.append(events.PongReceived(payload))
            case Frame.EVIDENCE:
                self._events.append(payloads.parse_evidence(payload))
            case Frame.GOAWAY:
                self._go_away(payload)
            case Frame.EXTENSION:
                pass  # from a newer peer; never kept
            case _:
                self._receive_opening(frame, payload)

    def _receive_opening(self, frame: Frame, payload: bytes) -> None:
        if frame is Frame.HELLO:
            self._hello(payload)
        elif frame is Frame.REFUSE:
            self._events.append(payloads.parse_refuse(payload))
        elif payloads.parse_accept(payload) == self.version:
            self._events.append(events.AcceptReceived())
        else:
            raise Violation("ACCEPT names another version than both HELLOs give")

    def _hello(self, payload: bytes) -> None:
        hello = payloads.parse_hello(payload, self._versions)
        self.version, self.peer_limits = hello.version, hello.limits
        # A peer that takes more than we would does not raise what we do.
        self._channels.peer_allows(hello.limits.credit, min(hello.limits.channels, limits.CHANNELS))
        self._events.append(hello)

    def _batch(self, payload: bytes | memoryview) -> None:
        number, signature, items = frames.decode_batch_untrusted(payload)
        if number != self._batches[THEIRS]:
            raise Violation(f"batch {number} where {self._batches[THEIRS]} is next")
        opened, dropped = self._channels.items(THEIRS, items)
        self._batches[THEIRS] += 1
        self._items[THEIRS] += len(items)
        self._frames_since_item = 0
        refused = self._refusals(opened) if opened else []
        unserved = (
            frozenset([*dropped, *(event.channel for event in refused)]) if dropped or refused else _NONE
        )
        self._events.append(events.BatchReceived(number, signature, items, unserved))
        if refused:
            self._events.extend(refused)

    def _refusals(self, opened: list[int]) -> list[events.ChannelRefused]:
        """Which of the channels that the peer opened lawfully are not served."""
        if self._ours is _DRAINING:
            return [events.ChannelRefused(channel, Code.UNAVAILABLE) for channel in opened]
        places = self._limits.channels - len(self._served)
        self._served.update(opened[:places])
        return [events.ChannelRefused(channel, Code.RESOURCE_EXHAUSTED) for channel in opened[places:]]

    def _cancel(self, payload: bytes) -> None:
        channel, number = frames.decode_cancel(payload)
        known = channel in self._channels
        over = self._channels.cancel(THEIRS, channel)
        if known:
            self._events.append(events.ChannelCancelled(channel, payloads.code_of(number), over))

    def _go_away(self, payload: bytes) -> None:
        event = payloads.parse_go_away(payload)
        if not 0 <= event.last <= self._channels.highest(OURS):
            raise Violation("GOAWAY names a channel that we have not opened")
        self._events.append(event)


def _check_items(items: Sequence[OwnItem]) -> None:
    """Sizes that no frame can say, or no peer would take, are our mistake."""
    if not 0 < len(items) <= limits.BATCH_LEAVES:
        raise LocalProtocolError(f"a batch holds 1 to {limits.BATCH_LEAVES} leaves")
    for _, flags, leaf, data in items:
        most = limits.LEAF
        if flags & DATA or data:
            if not (flags & DATA and 0 < len(data) <= limits.CHUNK):
                raise LocalProtocolError(
                    f"an item with DATA has 1 to {limits.CHUNK} bytes of it, others none"
                )
            most -= len(data)
        if not 0 < len(leaf) <= most:
            raise LocalProtocolError(f"a leaf of {len(leaf)} bytes, 1 to {most} are possible")
