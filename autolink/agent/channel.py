"""An ordered lane of typed, signed messages on a link, in both directions."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from os import urandom
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint

from autolink import codec
from autolink.agent.bodies import Body
from autolink.agent.lane import Lane
from autolink.agent.received import Received
from autolink.errors import (
    BodyError,
    Code,
    LocalProtocolError,
    RemoteProtocolError,
    display,
)
from autolink.messages import ChunkReader, ChunkWriter, Kind
from autolink.trust import VerifiedPeer

if TYPE_CHECKING:
    from autolink.agent.link import Link

S = TypeVar("S")
R = TypeVar("R")

_ITEM: Final = Kind.ITEM  # looked up on its enumeration, a member costs as much as packing an item
_END: Final = Kind.END
_CHUNK: Final = Kind.CHUNK


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
        # Of a byte stream that was asked for; once it has bytes it has begun.
        self._reader: ChunkReader | None = None

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
        if self._closed:
            raise anyio.ClosedResourceError
        await self._lane.send(_ITEM, self._sends.encode(item))

    async def receive(self) -> R:
        """The next item. Cancelled while waiting: none was taken.

        Raises:
            anyio.EndOfStream: the peer sent EOF, or its handler returned.
            CallError: the far handler failed.
            BodyError: the item is not an R; the channel stays usable.
            LocalProtocolError: the peer is sending a byte stream.
            LinkLost: the link is gone.
            anyio.ClosedResourceError: this side was closed.
        """
        received = await self.receive_signed()
        try:
            return self._receives.decode_untrusted(received.body)
        except BodyError as error:
            error.channel = self._lane
            raise

    async def receive_signed(self) -> Received:
        """As `receive`, but the signed message itself; ``received.envelope()`` is its proof."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._reader is None or not self._reader.total:
            received = await self._lane.receive()
            if received.kind is _ITEM:
                return received
            if received.kind is _END:
                raise anyio.EndOfStream
            self.close(Code.FAILED_PRECONDITION)  # its first chunk is gone
        raise LocalProtocolError("the peer is sending a byte stream: read it with receive_stream()")

    async def send_eof(self) -> None:
        """Say that nothing more will be sent. Receiving goes on.

        Raises:
            LinkLost, CallError: as `send`.
            anyio.ClosedResourceError: this side was closed.
        """
        self._check_open()
        if not self._lane.sent_end:
            await self._lane.send(Kind.END, codec.encode(None))

    async def send_stream(self, source: AsyncIterable[bytes]) -> None:
        """Send bytes of any length in bounded memory, each chunk signed, total length and root signed last.

        Args:
            source: pieces of any size; an AnyIO byte stream is one. An async generator is closed in any case.

        Raises:
            LinkLost, CallError: as `send`. Whatever `source` raises leaves the stream unfinished, and the receiver
                gets an error instead of an end.
        """
        self._check_open()
        writer = ChunkWriter(urandom(16))
        try:
            async with aclosing(source) if isinstance(source, AsyncGenerator) else nullcontext():
                async for piece in source:
                    # Of its own bytes nothing may change while they wait.
                    rest = memoryview(piece if type(piece) is bytes else bytes(piece))
                    while rest:
                        rest = rest[await self._lane.send_part(writer, rest) :]
            self._lane.end_chunk()
            await self._lane.send(_CHUNK, writer.last())
        except BaseException:
            self.close(Code.ABORTED)
            raise

    @asynccontextmanager
    async def receive_stream(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of one `send_stream`, chunk by verified chunk.

        ::

            async with channel.receive_stream() as chunks:
                async for chunk in chunks: ...

        Left early, the rest of the stream still comes first: another `receive_stream` goes on with it.

        Raises:
            RemoteProtocolError: a chunk is missing or out of order, the stream stops in the middle, or its length and
                root do not fit. The channel is over.
            anyio.EndOfStream: the peer ended the channel instead of sending a stream.
        """
        async with aclosing(self._chunks()) as chunks:
            yield chunks

    async def _chunks(self) -> AsyncGenerator[bytes]:
        reader = self._reader = self._reader or ChunkReader()
        while True:
            try:
                data = await self._chunk(reader)
            except RemoteProtocolError:
                self.close(Code.DATA_LOSS)
                raise
            if data is None:
                self._reader = None
                return
            yield data

    async def _chunk(self, reader: ChunkReader) -> bytes | None:
        self._check_open()
        received = await self._lane.receive()
        if received.kind is _END:
            if reader.total:
                raise RemoteProtocolError("a byte stream that stops in the middle")
            raise anyio.EndOfStream
        if received.kind is not _CHUNK:
            raise RemoteProtocolError("an item inside a byte stream")
        return reader.receive(received.body, received.data, received.chunk)

    async def aclose(self) -> None:
        """Close both directions at once; the far handler is cancelled if it still runs. Never waits for the peer."""
        self.close()
        await checkpoint()

    def close(self, code: Code = Code.CANCELLED) -> None:
        """As `aclose`, without a checkpoint; the peer learns `code`."""
        if not self._closed:
            self._closed = True
            self.link.leave(self._lane, code)

    def statistics(self) -> ChannelStatistics:
        """Messages sent, received, and waiting here."""
        return ChannelStatistics(self._lane.send_seq, self._lane.receive_seq, self._lane.waiting_count)

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} with {display(self.peer.name)}>"
