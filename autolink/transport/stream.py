"""A TLS 1.3 stream under which both sides have shown a certificate chain, and neither has been judged.

How it works. OpenSSL is a state machine that is called and answers "done", "I want to read" or "I want to
write". The loop around it is always the same: call, wait for what it wants (see `Wire`), call again. What is
subtle is around that:

- Exactly one task reads and one writes; a second one gets BusyResourceError. The direction in which we send has a theory
  of its own: `sending`.
- Reading is not cancelled in the middle of anything: OpenSSL keeps a partial record, and the next `receive`
  goes on.
- A peer can send records without end that carry no data (KeyUpdate, NewSessionTicket). OpenSSL is told to
  return after each (see `_openssl`), and after limits.IDLE_WAKEUPS in a row the peer has broken the protocol.
- A descriptor's number is reused the moment it is closed, and OpenSSL knows its number only. So nothing calls
  OpenSSL after a wait without having looked whether the stream was closed meanwhile.
- Fairness: waiting is fair, even for bytes that are there already; a `receive` that did not wait yields once.
- Opening is a conversation of one task, and each thing said in it could leave in a segment of its own and wake the
  peer for nothing. So until `settle` what was said (`say`), the end of the handshake included, leaves together,
  at the latest when we wait for the peer.
- Closing with unread bytes sends a reset. Whoever ends first (`say_goodbye`) therefore reads on until the peer's
  close_notify; who has read that has read everything, and closes at once.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Final

import anyio
from OpenSSL import SSL

from autolink import limits
from autolink.errors import Refused, RemoteProtocolError
from autolink.loop import Loop
from autolink.transport import _openssl, tls
from autolink.transport.edge import translate
from autolink.transport.sending import Sending
from autolink.transport.wire import Wire

_OPENING_RECORDS: Final = 8  # two tickets, HELLO and ACCEPT come together, and are worked off in one turn
_NOTHING: Final = memoryview(b"")
_LINK_ID_LABEL: Final = b"EXPORTER-autolink-link"  # RFC 8446, section 7.5

Room = tuple[bytearray, int, int]
"""Where bytes are wanted: what to write to, from where, up to where."""


class SecureStream(Sending):
    """One TLS connection; made by `secure_stream`. Bytes: frames are somebody else's business.

    Attributes:
        peer_chain: what the peer presented, DER, leaf first, unsorted and unjudged; it holds the leaf's key. Of a
            resumed session the leaf alone.
        resumed: a session was resumed.
        link_id: 32 bytes that both ends have and no other connection has.
        records_received: as `records_sent`, for limits.RECORDS; a record read in pieces counts once for each.
        bytes_received: as `bytes_sent`, application data.
    """

    def __init__(
        self, connection: SSL.Connection, wire: Wire, chain: tuple[bytes, ...], loop: Loop, *, peer: str
    ) -> None:
        super().__init__(connection, wire, loop, peer=peer)
        self.peer_chain = chain
        self.resumed = _openssl.resumed(connection)
        self.link_id: bytes = connection.export_keying_material(_LINK_ID_LABEL, 32)
        self.records_received = self.bytes_received = 0
        self._opening = True
        self._reading = False
        self._read_end: Exception | None = None
        self._full = self._wants_room = False
        self._idle = 0
        self._patience: float | None = None  # once goodbye is said: how long the peer has to answer

    @cached_property
    def info(self) -> tls.TlsInfo:
        """What TLS negotiated."""
        return tls.negotiated(self._tls)

    # --- opening -------------------------------------------------------------------------------------------

    async def hear(self) -> bytes:
        """Before `settle`: the peer's next bytes, at most one record's. What was said leaves first, if we must wait.

        Raises:
            as `receive`.
        """
        self._check_reading()
        data = bytes(self._read(_openssl.RECORD)) if _openssl.incoming(self._tls) else b""
        while not data:
            if _openssl.incoming(self._tls):  # behind a record without data, such as a ticket
                self._count_idle()
            else:
                await self._hear_more()
            data = bytes(self._read(_openssl.RECORD))
        return data

    async def _hear_more(self) -> None:
        await self.flush()
        try:
            await self._wire.feed(self._tls, _OPENING_RECORDS)
        except OSError as error:
            raise self._end_reading(translate(error, self._peer)) from error
        self._check_reading()
        self._count_idle()

    async def settle(self) -> None:
        """Send what was said; from now on one task may read and another one write.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: as `send`.
        """
        await self.flush()
        self._opening = False
        self._wire.attach(self._tls)

    def take_session(self) -> bytes:
        """(dialer) The session that the listener's first bytes brought, good for one `handshake` later. It holds keys:
        keep it as you keep those."""
        return _openssl.take_session(self._tls)

    # --- reading -------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = limits.TLS_STEP) -> bytes:
        """Between 1 and `max_bytes` bytes. Cancelling it loses nothing.

        Raises:
            as `receive_to`.
        """
        received: list[bytes] = []
        await self.receive_to(lambda data: received.append(bytes(data)), max_bytes)
        return received[0]

    async def receive_to(
        self,
        take: Callable[[memoryview], object],
        max_bytes: int = limits.TLS_STEP,
        *,
        room: Callable[[], Room | None] | None = None,
    ) -> None:
        """Give between 1 and `max_bytes` bytes to `take`, which must not keep them: they stand where the next ones will.
        Cancelling it loses nothing.

        Args:
            take: gets the bytes; twice, if there is some for `room` behind the first ones.
            max_bytes: to read where `room` has none.
            room: asked where the next bytes are wanted, if anywhere; `take` gets what was filled of it.

        Raises:
            anyio.EndOfStream: the peer said close_notify.
            anyio.BrokenResourceError: the connection was cut or reset.
            anyio.ClosedResourceError: closed on this side, before or meanwhile.
            anyio.BusyResourceError: another task is receiving.
            Refused: by the peer: its TLS refused our certificate.
            RemoteProtocolError: bytes that are not TLS, or limits.IDLE_WAKEUPS in a row without data.
        """
        if self._reading:
            raise anyio.BusyResourceError("receiving from")
        self._reading = True
        try:
            await self._loop.checkpoint_if_cancelled()
            self._check_reading()
            # Behind a full record there is usually another; behind a short one a read would be in vain, and a
            # read in vain costs as much as one that is not.
            data = _NOTHING
            if self._full or self._tls.pending():
                await self._loop.cancel_shielded_checkpoint()
                self._check_reading()
                data = self._read(max_bytes, room and room())
            while not data:
                await self._wait_for_more()
                data = self._read(max_bytes, room and room())
            take(data)
            if room and (place := room()):
                take(self._read_on(place))
        finally:
            self._reading = False

    # --- ends ----------------------------------------------------------------------------------------------

    def say_goodbye(self) -> bool:
        """Say close_notify and end our direction, without waiting, while a task goes on receiving: the end that it meets
        is the peer's answer. Only where `direct`.

        Returns:
            Whether it is out; if not, nothing has changed.
        """
        if self.sending or self._write_end or not self._say_close_notify():
            return False
        self._wire.shut()
        self._patience = self._loop.current_time() + limits.REFUSAL_DRAIN
        return True

    async def shutdown_politely(self) -> None:
        """Close so that what was sent last arrives, even when the peer is sending and reads late.

        Says close_notify, ends our direction, discards what arrives until the peer is done, for at most
        limits.REFUSAL_DRAIN seconds (since `say_goodbye`) or limits.REFUSAL_DRAIN_BYTES bytes, then closes. Where
        the peer has said close_notify there is nothing to discard. Nobody may be receiving or sending. Done even
        when cancelled: it is over soon.

        Raises:
            anyio.BusyResourceError: a task is receiving or sending.
        """
        if self._reading or self._writing:
            raise anyio.BusyResourceError("shutting down")
        self._reading = self._writing = True
        try:
            if not (self._peer_is_done and (self._patience or self._say_close_notify())):
                await self._discard_the_rest()
        finally:
            self._reading = self._writing = False
            await self._wire.close(awaited=False)

    async def _discard_the_rest(self) -> None:
        until = self._patience or self._loop.current_time() + limits.REFUSAL_DRAIN
        with self._loop.scope(shield=True, deadline=until):
            if self._patience or await self._close_notify():
                await self._wire.drain()

    @property
    def _peer_is_done(self) -> bool:
        return isinstance(self._read_end, anyio.EndOfStream)

    async def aclose(self) -> None:
        """Say close_notify if that is possible within limits.REFUSAL_DRAIN, and close. Idempotent.

        A task that is receiving or sending gets ClosedResourceError. Cancelled, it closes at once.
        """
        try:
            if not self._writing:
                with anyio.move_on_after(limits.REFUSAL_DRAIN):
                    await self._close_notify()
        finally:
            await self._wire.close()
        await self._loop.checkpoint()

    async def abort(self) -> None:
        """Close without a word: the peer sees a cut. Idempotent, and done even when cancelled."""
        await self._wire.close()

    # --- within: reading -----------------------------------------------------------------------------------

    def _check_reading(self) -> None:
        if self._wire.closed:
            raise anyio.ClosedResourceError
        if self._read_end:
            raise self._read_end.with_traceback(None)

    def _read(self, max_bytes: int, room: Room | None = None) -> memoryview:
        """What OpenSSL has; nothing when it has no data yet. An error behind data is told next time."""
        if room:
            place, start, stop = room
            data, records, end = _openssl.read(self._tls, stop - start, place, start)
        else:
            data, records, end = _openssl.read(self._tls, max_bytes)
        waits = isinstance(end, SSL.WantReadError | SSL.WantWriteError)
        if not data:
            if end is not None and not waits:
                raise self._end_reading(translate(end, self._peer)) from end
            self._wants_room = isinstance(end, SSL.WantWriteError)
            return data
        if end is not None and not waits:
            self._read_end = translate(end, self._peer)
        self._full = end is None and len(data) >= _openssl.RECORD
        self._idle = 0
        self.records_received += records
        self.bytes_received += len(data)
        return data

    def _read_on(self, room: Room) -> memoryview:
        """More, behind what was given out already: so an error is told next time."""
        try:
            return self._read(0, room)
        except Exception as error:  # noqa: BLE001  kept: the next `receive` raises it
            self._read_end = error
            return _NOTHING

    async def _wait_for_more(self) -> None:
        wants_room, self._wants_room = self._wants_room, False
        if self._opening:
            await self.flush()
        elif not (self._wire.attached or self._writing):
            # Not while somebody writes: OpenSSL's answers would go out inside of what is written.
            self._wire.attach(self._tls)
        try:
            await (self._wire.room() if wants_room else self._wire.more(self._tls))
        except OSError as error:  # of a socket that is not OpenSSL's yet
            raise self._end_reading(translate(error, self._peer)) from error
        self._check_reading()
        self._count_idle()

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle > limits.IDLE_WAKEUPS + 1:  # the first one is why we waited
            text = f"more than {limits.IDLE_WAKEUPS} TLS records in a row without data"
            raise self._end_reading(RemoteProtocolError(text))

    def _end_reading(self, error: Exception) -> Exception:
        # OpenSSL says less the second time: remember the first. A refusal is told once. It is remembered as another object
        # than the one that is raised, whose traceback holds frames that hold us.
        again = anyio.BrokenResourceError if isinstance(error, Refused) else type(error)
        self._read_end = again(*([str(error)] if str(error) else []))
        return error
