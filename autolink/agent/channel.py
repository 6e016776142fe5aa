"""An ordered lane of typed, signed messages on a link, in both directions."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from os import urandom
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint

from autolink import codec, limits
from autolink.agent.bodies import Body
from autolink.agent.lane import ENDS, Lane, Received
from autolink.errors import (
    CallError,
    Code,
    EnvelopeRefused,
    LocalProtocolError,
    Reason,
    RemoteProtocolError,
    display,
)
from autolink.messages import ChunkReader, ChunkWriter, Kind
from autolink.trust import VerifiedPeer

if TYPE_CHECKING:
    from autolink.agent.link import Link

S = TypeVar("S")
R = TypeVar("R")

_CODES: Final = {code.value: code for code in Code}
_REASONS: Final = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Messages that went each way on one channel."""

    sent: int
    received: int
    waiting: int


@final
class Channel(ObjectReceiveStream[R], ObjectSendStream[S], Generic[S, R]):
    """Sends S, receives R. Made by `Link.open_channel` and handed to channel handlers.

    Attributes:
        link: the link it is a channel of.
        name: the name it was opened under.
        headers: what the opener sent along.
    """

    def __init__(self, link: "Link", lane: Lane, sends: Body[S], receives: Body[R]) -> None:
        self.link = link
        self.name = lane.method
        self.headers: Mapping[str, str] = lane.headers
        self._lane = lane
        self._sends = sends
        self._receives = receives
        self._closed = False

    @property
    def peer(self) -> VerifiedPeer:
        """The far end."""
        return self.link.peer

    async def send(self, item: S) -> None:
        """Sign and send one item; waits while the receiver is slow.

        Cancelled while waiting: the item was not sent.

        Raises:
            BodyError: the item is not an S, or too large.
            CallError: the far handler has failed, or has ended the channel.
            LinkLost: the link is gone.
            anyio.ClosedResourceError: this side was closed.
        """
        self._check_open()
        await self._lane.send(Kind.ITEM, self._sends.encode(item))

    async def receive(self) -> R:
        """The next item. Cancelled while waiting: none was taken.

        Raises:
            anyio.EndOfStream: the peer sent EOF, or its handler returned.
            CallError: the far handler failed.
            BodyError: the item is not an R; the channel stays usable.
            LinkLost: the link is gone.
            anyio.ClosedResourceError: this side was closed.
        """
        return self._receives.decode_untrusted((await self.receive_signed()).message.body)

    async def receive_signed(self) -> Received:
        """As `receive`, but the signed message itself; ``received.envelope()`` is its proof."""
        received = await self._take()
        if received.message.kind is not Kind.ITEM:
            raise LocalProtocolError("the peer is sending a byte stream: read it with receive_stream()")
        return received

    async def send_eof(self) -> None:
        """Say that nothing more will be sent. Receiving goes on.

        Raises:
            LinkLost, CallError: as `send`.
            anyio.ClosedResourceError: this side was closed.
        """
        self._check_open()
        if not self._lane.sent_end:
            await self._lane.send(Kind.END, codec.encode(None), flags=ENDS)

    async def send_stream(self, source: AsyncIterable[bytes]) -> None:
        """Send bytes of any length in bounded memory, each chunk signed, total length and root signed last.

        Args:
            source: pieces of any size; an AnyIO byte stream is one.

        Raises:
            LinkLost, CallError: as `send`. Whatever `source` raises leaves the stream unfinished, and the receiver
                gets an error instead of an end.
        """
        self._check_open()
        writer = ChunkWriter(urandom(16))
        try:
            async for piece in source:
                for start in range(0, len(piece), limits.CHUNK):
                    await self._lane.send(Kind.CHUNK, writer.chunk(piece[start : start + limits.CHUNK]))
            await self._lane.send(Kind.CHUNK, writer.last())
        except BaseException:
            self._closed = True
            self.link.leave(self._lane, Code.ABORTED)
            raise

    @asynccontextmanager
    async def receive_stream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of one `send_stream`, chunk by verified chunk.

        ::

            async with channel.receive_stream() as chunks:
                async for chunk in chunks: ...

        Raises:
            RemoteProtocolError: a chunk is missing or out of order, or length and root do not fit.
            anyio.EndOfStream: the peer ended the channel instead.
        """
        async with aclosing(self._chunks()) as chunks:
            yield chunks

    async def _chunks(self) -> AsyncGenerator[bytes]:
        reader = ChunkReader()
        while True:
            received = await self._take()
            if received.message.kind is not Kind.CHUNK:
                raise RemoteProtocolError("an item inside a byte stream")
            data = reader.receive(received.message.body)
            if data is None:
                return
            yield data

    async def _take(self) -> Received:
        self._check_open()
        received = await self._lane.receive()
        kind = received.message.kind
        if kind is Kind.END:
            raise anyio.EndOfStream
        if kind is Kind.ERROR:
            error = error_of(received.message.body)
            self._lane.end(error)
            raise error
        return received

    async def aclose(self) -> None:
        """Close both directions at once; the far handler is cancelled if it still runs. Never waits for the peer."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """As `aclose`, without a checkpoint."""
        if not self._closed:
            self._closed = True
            self.link.leave(self._lane)

    def statistics(self) -> ChannelStatistics:
        """Messages sent, received, and waiting here."""
        return ChannelStatistics(self._lane.send_seq, self._lane.receive_seq, self._lane.waiting_count)

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} with {display(self.peer.name)}>"


def error_body(code: Code, message: str = "", reason: str | None = None) -> bytes:
    """The body of an ERROR message."""
    return codec.encode([code.value, message[: limits.DISPLAY], reason])


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
