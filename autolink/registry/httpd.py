"""HTTP/1.1 for an ASGI application, one request after the other on a connection, every step of a client bounded.

Small because it may be: GET and HEAD without bodies. h11 parses; here is who waits for whom, and how long. A client that
does not finish its request in `limits.HTTP_REQUEST` seconds, or has not taken its answer in `limits.HTTP_ANSWER`, is cut
off, and there are at most `limits.HTTP_CONNECTIONS` of them. There is no HTTP/2, no upgrade, no compression of headers.

(Hypercorn 0.18 would run the application, too: but it sends shielded and without a deadline, so that a client that never
reads is never cut off and keeps the server from ending; its connections are not counted; and HTTP/2 cannot be forbidden.)

TLS is a proxy's or a CDN's: what is served is public, and proved.
"""

import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, final
from urllib.parse import unquote

import anyio
from anyio.abc import SocketStream, UNIXSocketStream

from autolink import limits
from autolink.agent.groups import background_tasks
from autolink.errors import SetupError, display
from autolink.registry.http import Application, Message, Scope
from autolink.transport import Address, ListeningSocket, accept_loop, listen

try:
    import h11
except ImportError as error:
    raise SetupError(
        f"a registry's public side needs the extra `registry` ({error}): pip install 'autolink-agents[registry]', in a "
        "checkout '.[registry]'"
    ) from error

_READ: Final = 4 * limits.KIB

_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_log = logging.getLogger("autolink.registry")


@asynccontextmanager
async def serving_http(app: Application, *addresses: Address) -> AsyncIterator[list[Address]]:
    """Serve an application for the block, and give the real addresses. Leaving cuts off whoever is connected: of all
    addresses together at most `limits.HTTP_CONNECTIONS`.

    Raises:
        SetupError, OSError: as `transport.listen`.
    """
    room = anyio.Semaphore(limits.HTTP_CONNECTIONS)
    listeners: list[ListeningSocket] = []
    try:
        for address in addresses:
            listeners += await listen(address)
        async with background_tasks() as tasks:

            async def begin(connection: socket.socket) -> None:
                if not room.value:
                    _log.info("the public side has %d clients: the next has to wait", limits.HTTP_CONNECTIONS)
                try:
                    await room.acquire()
                except BaseException:
                    connection.close()
                    raise
                tasks.start_soon(_connected, app, connection, room)

            for listener in listeners:
                tasks.start_soon(accept_loop, listener, begin)
            yield [listener.address for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


async def _connected(app: Application, connection: socket.socket, room: anyio.Semaphore) -> None:
    try:
        kind = UNIXSocketStream if connection.family == socket.AF_UNIX else SocketStream
        async with await kind.from_socket(connection) as stream:
            await _Connection(app, stream).serve()
    except _GONE:
        pass
    except Exception:  # noqa: BLE001  one client's connection, whatever is wrong with it, is not the others' affair
        _log.exception("a connection of the public side failed")
    finally:
        room.release()


@final
class _Connection:
    """One client."""

    def __init__(self, app: Application, stream: SocketStream | UNIXSocketStream) -> None:
        self._app, self._stream = app, stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.HTTP_HEAD)

    async def serve(self) -> None:
        """Answer requests until the client ends, is late, or is not to be understood."""
        answering = False
        # One scope whose end moves: to make two for each request takes longer.
        with anyio.CancelScope() as patience:
            for left in reversed(range(limits.HTTP_REQUESTS)):
                patience.deadline = anyio.current_time() + limits.HTTP_REQUEST
                request = await self._request()
                if request is None:
                    break
                patience.deadline, answering = anyio.current_time() + limits.HTTP_ANSWER, True
                await self._answer(request, last=not left)
                answering = False
                if not self._goes_on():
                    break
        if patience.cancelled_caught:
            late = "take its answer" if answering else "send a request"
            _log.debug("a client of the public side is cut off: it did not %s in time", late)
        if not answering:
            await self._leave()

    async def _request(self) -> h11.Request | None:
        """The next request; None when no more come, or what came is none and was refused."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._receive())
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint)
            return None
        if not isinstance(event, h11.Request):
            return None
        if event.http_version in (b"1.0", b"1.1"):
            return event
        await self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        return None

    def _goes_on(self) -> bool:
        """Whether another request may follow: none does behind a body, which nobody reads."""
        try:
            self._http.next_event()  # the end of a request without a body
        except h11.RemoteProtocolError:
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(_READ)
        except anyio.EndOfStream:
            return b""

    async def _answer(self, request: h11.Request, *, last: bool) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        head: list[h11.Event] = []  # goes with the beginning of the body

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                _tell(request, message["status"])
                headers = (*message["headers"], (b"date", _date(int(time.time()))))
                if last:  # or the client would send one more, and lose it
                    headers += ((b"connection", b"close"),)
                head.append(_response(message["status"], headers))
                return
            events, body = [*head], message.get("body")
            head.clear()
            if body:
                events.append(h11.Data(data=body))
            if not message.get("more_body"):
                events.append(h11.EndOfMessage())
            await self._send(*events)

        await self._app(_scope(request), receive, send)

    async def _send(self, *events: h11.Event) -> None:
        if data := b"".join([self._http.send(event) or b"" for event in events]):
            await self._stream.send(data)

    async def _refuse(self, status: int) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            _log.debug("what is no request of HTTP/1.1: %d", status)
            headers = ((b"content-length", b"0"), (b"connection", b"close"), (b"cache-control", b"no-store"))
            await self._send(_response(status, headers), h11.EndOfMessage())

    async def _leave(self) -> None:
        """Say that no more comes, and discard what still does for a moment: closing at once could take the answer back."""
        discarded = 0
        with anyio.move_on_after(limits.REFUSAL_DRAIN):
            await self._stream.send_eof()
            while discarded < limits.REFUSAL_DRAIN_BYTES and (data := await self._receive()):
                discarded += len(data)


def _tell(request: h11.Request, status: int) -> None:
    """Log a request and how it was answered."""
    if _log.isEnabledFor(logging.DEBUG):
        method, target = (display(text.decode("latin-1")) for text in (request.method, request.target))
        _log.debug("%s %s: %d", method, target, status)


@lru_cache(maxsize=64)
def _response(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> h11.Response:
    """A head. Many are the same within a second, and h11 looks at every byte of one that is new."""
    return h11.Response(status_code=status, headers=list(headers), reason=HTTPStatus(status).phrase)


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


def _scope(request: h11.Request) -> Scope:
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
    }
