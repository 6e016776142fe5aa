"""Bare asyncio + `ssl`: the baseline of the suite. Streams, mutual TLS 1.3, and nothing on top."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import anyio

from benchmarks.stacks import bare
from benchmarks.stacks.base import Session, Stack
from benchmarks.stacks.counting import Count, pieces


class AsyncioSession(Session):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._lost: OSError | None = None

    async def echo(self, body: bytes) -> bytes:
        return await self._ask(bare.CALL, next(self._numbers), body)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        number = next(self._numbers)
        message = bare.frame(bare.MESSAGE, number, body)
        while going():
            for _ in range(100):
                await self._write(message)
        return Count.unpack(await self._ask(bare.DONE, number)).messages

    async def bulk(self, total: int) -> None:
        number = next(self._numbers)
        for piece in pieces(total):
            await self._write(bare.frame(bare.MESSAGE, number, piece))
        Count.unpack(await self._ask(bare.DONE, number)).check(total)

    async def receive(self) -> None:
        """Hand each answer to who waits for it, until the connection ends; then tell those who still wait."""
        frames = bare.Frames()
        try:
            while data := await self._reader.read(bare.READ):
                for _, number, body in frames.feed(data):
                    reply = self._waiting.pop(number)
                    if not reply.cancelled():
                        reply.set_result(body)
            self._lost = ConnectionResetError("the server closed the connection")
        except OSError as error:  # an alert, too: `ssl.SSLError` is one
            self._lost = error
        for reply in self._waiting.values():
            if not reply.cancelled():
                reply.set_exception(self._lost)

    async def _ask(self, kind: int, number: int, body: bytes = b"") -> bytes:
        if self._lost:
            raise self._lost
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._write(bare.frame(kind, number, body))
        return await reply

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class AsyncioSsl(Stack):
    name = "asyncio+ssl"
    backend = "asyncio"
    lacks = bare.LACKS
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return bare.version()

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        server = await asyncio.start_server(
            _answer, "127.0.0.1", 0, limit=bare.READ, ssl=bare.server_context(folder)
        )
        try:
            host, port = server.sockets[0].getsockname()
            ready(f"{host}:{port}")
            await anyio.sleep_forever()
        finally:
            server.close()

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[AsyncioSession]:
        host, port = bare.address(where)
        reader, writer = await asyncio.open_connection(
            host, port, limit=bare.READ, ssl=bare.client_context(folder)
        )
        session = AsyncioSession(reader, writer)
        receiving = asyncio.create_task(session.receive())
        try:
            yield session
        finally:
            writer.close()
            await receiving  # ends with the connection


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    answers = bare.Answers()
    try:
        while data := await reader.read(bare.READ):
            writer.write(answers.feed(data))
            await writer.drain()
    except ConnectionError:
        pass  # the client's process was ended; nobody is left to tell
    finally:
        writer.close()


STACK = AsyncioSsl()
