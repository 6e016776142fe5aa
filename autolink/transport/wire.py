"""What carries TLS records: a raw socket, or any AnyIO byte stream.

Both begin on memory BIOs: what arrives is cut into whole records and handed over by `feed`, so that one call into
OpenSSL does a bounded amount of work for a peer that nobody has judged yet. A flight of a few records is one
call; sixteen thousand one-byte records are refused as soon as `limits.HANDSHAKE_RECORDS` of them were taken.

When nothing is left between the two, a socket is attached: from then on OpenSSL reads and writes it itself, and all
that is left to do here is to wait (a Connection on memory BIOs costs nearly half of the round trips). In front of a
byte stream the memory BIOs stay: the reader goes on feeding records, one at a time, and what OpenSSL wants sent is
flushed by the task that writes, and by no other.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import anyio
from anyio.abc import ByteStream
from OpenSSL import SSL

from autolink import limits
from autolink.errors import RemoteProtocolError
from autolink.loop import Loop
from autolink.transport import _openssl

_HEADER: Final = 5
_RECORD_TYPES: Final = range(20, 24)
_RECORD_MAX: Final = 2**14 + 256  # RFC 8446, section 5.2


class Wire(ABC):
    """Bytes there and back below TLS. One task reads and one writes.

    Attributes:
        attached: OpenSSL reads and writes the connection itself.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.closed = False
        self.attached = False
        self._partial = bytearray()

    @abstractmethod
    async def read(self) -> bytes:
        """At least one byte and at most about limits.TLS_STEP, or nothing at the end."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """All of `data`."""

    @abstractmethod
    def attach(self, tls: SSL.Connection) -> None:
        """Let OpenSSL have the connection, if that can be and nothing is left in between."""

    @abstractmethod
    async def room(self) -> None:
        """Return when OpenSSL may be able to write more than it could."""

    def shut(self) -> None:
        """As `send_eof`, at once. Only where `attached`."""
        raise NotImplementedError

    def failure(self) -> int:
        """The errno of an error that the connection has met and nobody has been told, or 0."""
        return 0

    async def more(self, tls: SSL.Connection) -> None:
        """Return when `tls` may be able to read more than it could, by one record on memory BIOs."""
        if _openssl.outgoing(tls) > limits.TLS_STEP:
            # OpenSSL answers each KeyUpdate at once, and the answers wait here for our next send.
            raise RemoteProtocolError("more KeyUpdates than we have had something to send")
        waiting = _openssl.incoming(tls)
        if waiting or _records(self._partial, 1)[0]:
            await self._loop.checkpoint()  # many records that are here must not be worked off in one turn
        if not waiting:  # answering a KeyUpdate, OpenSSL wants to be called again before it reads on
            await self.feed(tls, 1)

    async def flush(self, tls: SSL.Connection) -> None:
        """Send what `tls` has written, if it does not do that itself."""
        if not self.attached and (data := _openssl.take_outgoing(tls)):
            await self.write(data)

    @abstractmethod
    async def send_eof(self) -> None:
        """End our direction below TLS, keep the other."""

    @abstractmethod
    async def close(self, *, awaited: bool = True) -> None:
        """Close at once, waking up whoever waits; idempotent, and done even when cancelled. `awaited` is False where
        nobody can."""

    async def drain(self) -> None:
        """End our direction and discard what arrives: closing with unread bytes sends a reset, which overtakes
        what we said last and makes the peer drop it unread. The caller bounds the time."""
        try:
            await self.send_eof()
            discarded = 0
            while discarded < limits.REFUSAL_DRAIN_BYTES and (data := await self.read()):
                discarded += len(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the peer is gone: nothing is left to say, and nobody to say it to

    async def feed(self, tls: SSL.Connection, most: int) -> int:
        """Give `tls` the whole records that are here, `most` at most, waiting for the first one; at the end what there
        is of it. Returns their number. What cannot be a record is given at once, for OpenSSL to answer with its
        alert."""
        buffer = self._partial
        while True:
            count, end = _records(buffer, most) if buffer else (0, 0)
            if count:
                break
            data = await self.read()
            if not data:
                if buffer:
                    _openssl.give_incoming(tls, bytes(buffer))
                    buffer.clear()
                tls.bio_shutdown()
                return 1
            buffer += data
        _openssl.give_incoming(tls, bytes(buffer[:end]))
        del buffer[:end]
        return count


def _records(buffer: bytearray, most: int) -> tuple[int, int]:
    """How many whole records the buffer begins with, and where the last of them ends: with the buffer, if what is no
    record follows."""
    count = end = 0
    while count < most and end + _HEADER <= len(buffer):
        kind, length = buffer[end], buffer[end + 3] << 8 | buffer[end + 4]
        if kind not in _RECORD_TYPES or length > _RECORD_MAX:
            return count + 1, len(buffer)
        if end + _HEADER + length > len(buffer):
            break
        count, end = count + 1, end + _HEADER + length
    return count, end


class SocketWire(Wire):
    """A connected socket, which this object owns. Who has dialled speaks first, and mostly has done so when the connection
    is taken up; it is hardly ever answered already when it comes to read."""

    def __init__(self, sock: socket.socket, loop: Loop, *, dialer: bool) -> None:
        super().__init__(loop)
        self._waits = dialer
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        self._socket = sock
        self._waiting_for_room: anyio.Lock | None = None

    async def read(self) -> bytes:
        while True:
            if self._waits:
                await self._loop.wait_readable(self._socket)
            self._waits = True
            try:
                return self._socket.recv(limits.TLS_STEP)
            except BlockingIOError:
                continue

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._loop.wait_writable(self._socket)

    def attach(self, tls: SSL.Connection) -> None:
        if not (self._partial or _openssl.incoming(tls) or _openssl.outgoing(tls)):
            _openssl.attach_socket(tls, self._socket)
            self.attached = True

    async def more(self, tls: SSL.Connection) -> None:
        if self.attached:
            await self._loop.wait_readable(self._socket)
        else:
            await super().more(tls)

    async def room(self) -> None:
        # The reader waits here too, to answer a KeyUpdate, and AnyIO lets one task wait for a descriptor.
        if self._waiting_for_room is None:
            self._waiting_for_room = anyio.Lock(fast_acquire=True)
        async with self._waiting_for_room:
            await self._loop.wait_writable(self._socket)

    def failure(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def shut(self) -> None:
        with suppress(OSError):  # the peer is gone, as the reader will be told
            self._socket.shutdown(socket.SHUT_WR)

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def close(self, *, awaited: bool = True) -> None:
        if not self.closed:
            self.closed = True
            if awaited:
                # Before closing: a waiter hangs on both backends otherwise.
                anyio.notify_closing(self._socket)
            self._socket.close()


class StreamWire(Wire):
    """Any AnyIO byte stream, which this object owns: a relay's tunnel, or two memory streams in a test."""

    def __init__(self, stream: ByteStream, loop: Loop) -> None:
        super().__init__(loop)
        self._stream = stream
        self._waits: set[anyio.CancelScope] = set()

    async def read(self) -> bytes:
        with self._until_closed():
            try:
                return await self._stream.receive(limits.TLS_STEP)
            except anyio.EndOfStream:
                return b""
        raise anyio.ClosedResourceError

    async def write(self, data: bytes) -> None:
        with self._until_closed():
            await self._stream.send(data)
            return
        raise anyio.ClosedResourceError

    def attach(self, tls: SSL.Connection) -> None:
        """Nothing: the memory BIOs stay."""

    async def room(self) -> None:
        """At once: a memory BIO takes everything."""
        await self._loop.checkpoint()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def close(self, *, awaited: bool = True) -> None:
        if not self.closed:
            self.closed = True
            for scope in self._waits:
                scope.cancel()
            await anyio.aclose_forcefully(self._stream)

    @contextmanager
    def _until_closed(self) -> Generator[None]:
        """Left early, without an error, by `close`: not every stream wakes its waiters when it is closed."""
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)
