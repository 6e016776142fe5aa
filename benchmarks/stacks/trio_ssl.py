"""Bare `trio.SSLStream` with mutual TLS 1.3: what autolink's home runtime offers by itself.

One `send_all` a message, under a lock, as the class asks of tasks that share a stream. So each message is a TLS record of
its own, and each record a receive of its own: that is most of the distance to asyncio.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Protocol

import trio

from benchmarks.stacks import bare
from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces


class ByteStream(Protocol):
    """What the session needs of a stream; neighbours that are at home on Trio bring one, too."""

    async def send_all(self, data: bytes) -> None: ...
    def __aiter__(self) -> AsyncIterator[bytes | bytearray]: ...


class TrioSession(Session):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._numbers = count()
        self._waiting: dict[int, trio.MemorySendChannel[bytes]] = {}
        self._lost: trio.BrokenResourceError | None = None

    async def echo(self, body: bytes) -> bytes:
        return await self._ask(bare.CALL, next(self._numbers), body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        number = next(self._numbers)
        message = bare.frame(bare.MESSAGE, number, body)
        while going():
            for _ in range(100):
                await self._send(message)
        return Count.unpack(await self._ask(bare.DONE, number)).messages

    async def bulk(self, total: int) -> None:
        number = next(self._numbers)
        for piece in pieces(total):
            await self._send(bare.frame(bare.MESSAGE, number, piece))
        Count.unpack(await self._ask(bare.DONE, number)).check(total)

    async def receive(self) -> None:
        """Hand each answer to who waits for it, until the connection ends; then tell those who still wait."""
        frames = bare.Frames()
        try:
            async for data in self._stream:
                for _, number, body in frames.feed(data):
                    self._waiting.pop(number).send_nowait(body)
            self._lost = trio.BrokenResourceError("the server closed the connection")
        except trio.BrokenResourceError as error:  # an alert of the server's comes as its cause
            self._lost = error
        for reply in self._waiting.values():
            reply.close()

    async def _ask(self, kind: int, number: int, body: bytes = b"") -> bytes:
        if self._lost:
            raise self._lost
        self._waiting[number], reply = trio.open_memory_channel[bytes](1)
        await self._send(bare.frame(kind, number, body))
        async for answer in reply:
            return answer
        assert self._lost
        raise self._lost

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._stream.send_all(data)


class TrioSsl(Stack):
    name = "trio.SSLStream"
    backend = "trio"
    lacks = bare.LACKS
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"trio {version('trio')}, {bare.version()}"

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        serve = partial(trio.serve_ssl_over_tcp, _answer, 0, bare.server_context(folder), host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(serve)
            host, port = listener.transport_listener.socket.getsockname()
            ready(f"{host}:{port}")

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[TrioSession]:
        host, port = bare.address(where)
        async with await trio.open_ssl_over_tcp_stream(
            host, port, ssl_context=bare.client_context(folder)
        ) as stream:
            await stream.do_handshake()
            session = TrioSession(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.receive)
                yield session
                nursery.cancel_scope.cancel()


async def _answer(stream: trio.abc.Stream) -> None:
    answers = bare.Answers()
    try:
        async for data in stream:
            if reply := answers.feed(data):
                await stream.send_all(reply)
    except trio.BrokenResourceError:
        pass  # the client is gone, or was refused: either way it alone is concerned
    finally:
        await stream.aclose()


STACK = TrioSsl()
