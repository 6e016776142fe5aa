"""The direction of a TLS stream in which we send, from what is said while it opens to our close_notify.

- A write that OpenSSL has begun must be finished with the same bytes. Cancelled in between, the next write
  would put its own bytes behind the old record's header: with longer data nobody notices, and the peer reads
  a corrupted stream without an error. OpenSSL takes up to limits.TLS_TURN in one call, and has sent some records of it
  when it wants to be called again. So a `send` left with bytes pending breaks the sending side for good,
  and no later call, not even the one that says close_notify, touches it. What does not wait cannot be cancelled:
  `send_nowait` may be called by any task, and leaves what it could not send to the one that writes.
- A failed write does not end reading. The peer's last words, perhaps its REFUSE, may be in our receive buffer
  while its reset makes our write fail. After a write that failed OpenSSL does not read any more, so the
  socket is asked at the beginning of a send and after each wait whether there is an error waiting.
- Fairness: a `send` yields once per limits.TLS_TURN, or a stream that is never full would never let go.
"""

import os
from typing import Final

import anyio
from OpenSSL import SSL

from autolink import limits
from autolink.loop import Loop
from autolink.transport import _openssl
from autolink.transport.edge import translate
from autolink.transport.wire import Wire

_SEND_COST: Final = 1024  # a send costs about what copying this much costs

_SPLIT_MESSAGE: Final = 0.01  # seconds between looks whether our reader has read the rest of a split message

_NOTHING: Final = memoryview(b"")
_UNFINISHED: Final = "an earlier send was left unfinished"
_ENDED: Final = "this side has ended its direction"


async def _rest_is_read() -> None:
    """The peer has cut a post-handshake message in two: OpenSSL cannot write before our reader has read the rest."""
    await anyio.sleep(_SPLIT_MESSAGE)


class Sending:
    """See the module. `SecureStream` adds the other direction, the opening and the ends.

    Attributes:
        records_sent: one that is sent is counted when all that OpenSSL got with it is.
        bytes_sent: application data.
    """

    def __init__(self, connection: SSL.Connection, wire: Wire, loop: Loop, *, peer: str) -> None:
        self.records_sent = self.bytes_sent = 0
        self._tls = connection
        self._wire = wire
        self._loop = loop
        self._peer = peer
        self._unsaid = b""
        self._writing = False
        self._write_end = ""
        self._rest = _NOTHING
        self._blocked = wire.room
        self._unfair = 0

    @property
    def sending(self) -> bool:
        """Whether a `send` is under way, or one by `send_nowait` was begun and not finished."""
        return self._writing or bool(self._rest)

    @property
    def unfinished(self) -> bool:
        """Whether `finish_send` is due."""
        return bool(self._rest)

    @property
    def direct(self) -> bool:
        """Whether OpenSSL writes the connection itself, so that `send_nowait` can be used."""
        return self._wire.attached

    def say(self, data: bytes) -> None:
        """Before `settle`: have `data`, of at most a few records, leave with what was said before it."""
        self._unsaid += data

    async def flush(self) -> None:
        """Send what was said.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: as `send`.
        """
        try:
            if self._unsaid:
                said, self._unsaid = self._unsaid, b""
                _openssl.write(self._tls, said)  # to memory: all of it
                self.records_sent += 1
                self.bytes_sent += len(said)
            await self._wire.flush(self._tls)
        except (SSL.Error, OSError) as error:
            raise anyio.BrokenResourceError(str(translate(error, self._peer))) from error

    async def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Send all of `parts`, one behind the other. Cancelled after the first byte, it leaves the sending side broken for
        good.

        Raises:
            anyio.BrokenResourceError: the connection is gone, or an earlier send was left unfinished.
            anyio.ClosedResourceError: closed on this side, before or meanwhile.
            anyio.BusyResourceError: another task is sending.
        """
        if self.sending:
            raise anyio.BusyResourceError("sending to")
        self._writing = True
        try:
            await self._loop.checkpoint_if_cancelled()
            self._check_writing()
            await self._write(*parts)
        finally:
            self._writing = False

    def send_nowait(self, data: bytes) -> bool:
        """Send `data` from whatever task, as far as the connection takes it at once. Only where `direct`.

        Returns:
            Whether that was all. If not, the rest is kept here, and the task that sends must call `finish_send`.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError: as `send`.
        """
        if self.sending:
            raise anyio.BusyResourceError("sending to")
        if self._write_end:
            self._check_writing()
        self._check_wire()
        view = memoryview(data)
        while view and (taken := self._push(view)):
            view = view[taken:]
        if view:
            self._rest, self._write_end = view, _UNFINISHED
        return not view

    async def finish_send(self) -> None:
        """Send what `send_nowait` had to leave. Cancelled, it leaves the sending side broken for good.

        Raises:
            anyio.BrokenResourceError, anyio.ClosedResourceError: as `send`.
        """
        view, self._rest = self._rest, _NOTHING
        if self._wire.closed:
            raise anyio.ClosedResourceError
        self._writing = True
        try:
            await self._write(view)
        finally:
            self._writing = False

    # --- the end of it -------------------------------------------------------------------------------------

    def _say_close_notify(self) -> bool:
        """Whether close_notify is out, which it only can be at once where OpenSSL has the connection."""
        if self._wire.closed or self._write_end or not self._wire.attached or self._shutdown_wants_room():
            return False
        self._write_end = _ENDED
        return True

    async def _close_notify(self) -> bool:
        """Whether close_notify is out; not if a record is still unfinished."""
        if self._wire.closed or self._write_end:
            return False
        self._write_end = _ENDED
        try:
            while self._shutdown_wants_room():
                await self._wire.room()
            await self.flush()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False  # the connection is gone already, or closed meanwhile
        return True

    def _shutdown_wants_room(self) -> bool:
        if self._wire.closed:
            raise anyio.ClosedResourceError
        try:
            self._tls.shutdown()
        except SSL.WantWriteError:
            return True
        except SSL.Error:
            pass  # TLS has failed before; what is left to say is the alert that it wrote then
        return False

    # --- within --------------------------------------------------------------------------------------------

    async def _write(self, *parts: bytes | bytearray | memoryview) -> None:
        self._write_end = _UNFINISHED
        self._unfair += _SEND_COST
        self._check_wire()
        for part in parts:
            view = memoryview(part)
            while view:
                if taken := self._push(view):
                    view = view[taken:]
                    self._unfair += taken
                    if self._unfair < limits.TLS_TURN:
                        continue
                    self._unfair = 0
                    await self.flush()
                    await self._loop.cancel_shielded_checkpoint()
                else:
                    await self._blocked()
                self._check_wire()
        await self.flush()
        self._write_end = ""

    def _check_wire(self) -> None:
        """Before the first write of a turn: whether there is somebody to write to."""
        if self._wire.closed:
            raise anyio.ClosedResourceError
        if failure := self._wire.failure():
            self._write_end = os.strerror(failure)
            raise anyio.BrokenResourceError(self._write_end)

    def _push(self, view: memoryview) -> int:
        """One call into OpenSSL: how many bytes it took, or 0 when it must wait, for what `_blocked` waits for. Some of them
        may be sent then: it must get the same ones again."""
        try:
            taken = _openssl.write(self._tls, view[: limits.TLS_TURN])
        except SSL.WantWriteError:
            self._blocked = self._wire.room
            return 0
        except SSL.WantReadError:
            self._blocked = _rest_is_read
            return 0
        except SSL.Error as error:
            self._write_end = str(translate(error, self._peer)) or "the connection is closed"
            raise anyio.BrokenResourceError(self._write_end) from error
        self.records_sent += -(-taken // _openssl.RECORD)
        self.bytes_sent += taken
        return taken

    def _check_writing(self) -> None:
        if self._wire.closed:
            raise anyio.ClosedResourceError
        if self._write_end:
            raise anyio.BrokenResourceError(self._write_end)
