"""autolink as it comes: both ends judge each other by `IssuedBy`, and every message is signed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import anyio

from autolink import Agent, Channel, Handlers, Link, TrustAnchor, __version__
from autolink.trust import IssuedBy
from benchmarks import identities
from benchmarks.stacks.base import Session, Stack

PIECE = bytes(64 * 1024)
"""What a bulk body is made of."""


class LinkSession(Session):
    def __init__(self, link: Link) -> None:
        self.link = link

    async def echo(self, body: bytes) -> bytes:
        return await self.link.call("echo", body, returns=bytes)

    async def pump(self, body: bytes, going: Callable[[], bool]) -> int:
        async with self.link.open_channel("count", sends=bytes, receives=int) as channel:
            while going():
                for _ in range(100):
                    await channel.send(body)
            await channel.send_eof()
            return await channel.receive()

    async def bulk(self, total: int) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            left = total
            while left > 0:
                yield PIECE[:left]
                left -= len(PIECE)

        async with self.link.open_channel("bulk", receives=int) as channel:
            await channel.send_stream(pieces())
            arrived = await channel.receive()
        if arrived != total:
            raise RuntimeError(f"the server counted {arrived} bytes of {total}")


def handlers() -> Handlers:
    """What the server does."""
    serving = Handlers()

    @serving.method
    async def echo(call: object, body: bytes) -> bytes:
        return body

    @serving.channel
    async def count(channel: Channel[int, bytes]) -> None:
        received = 0
        async for _ in channel:
            received += 1
        await channel.send(received)

    @serving.channel
    async def bulk(channel: Channel[int, bytes]) -> None:
        arrived = 0
        async with channel.receive_stream() as chunks:
            async for chunk in chunks:
                arrived += len(chunk)
        await channel.send(arrived)

    return serving


@cache
def trust(folder: Path) -> IssuedBy:
    return IssuedBy(TrustAnchor.load(folder / "root.pem"))


def server(folder: Path, *, resume: bool = True) -> Agent:
    return Agent(identities.load(folder, "server"), trust=trust(folder), handlers=handlers(), resume=resume)


@cache
def client(folder: Path) -> Agent:
    """One caller for the whole process, without sessions: each of its links takes a full handshake."""
    return Agent(identities.load(folder, "client"), trust=trust(folder), resume=False)


class Autolink(Stack):
    name = "autolink"
    backend = "trio"
    can = frozenset({"handshake", "call", "message", "bulk"})

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return __version__

    async def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        async with server(folder).listening("127.0.0.1:0") as listener:
            ready(str(listener.contact))
            await anyio.sleep_forever()

    @asynccontextmanager
    async def session(self, folder: Path, where: str) -> AsyncIterator[LinkSession]:
        async with client(folder).connect(where) as link:
            yield LinkSession(link)


STACK = Autolink()
