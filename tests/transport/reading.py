"""How the tests of streams read: to the clean end, or on until something is raised; and who else could run meanwhile."""

import contextlib
from typing import NoReturn

import anyio
import anyio.lowlevel


async def read_all(stream) -> bytes:
    """Everything up to the clean end."""
    data = bytearray()
    with contextlib.suppress(anyio.EndOfStream):
        await read_on(stream, data)
    return bytes(data)


async def read_on(stream, received: bytearray) -> NoReturn:
    """Into `received`, until something is raised."""
    while True:
        received += await stream.receive()


async def send_and_end(stream, data: bytes) -> None:
    await stream.send(data)
    await stream.shutdown_politely()


class Ticker:
    """Counts the turns of the event loop: how often others could run."""

    def __init__(self) -> None:
        self.turns = 0

    async def __call__(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.turns += 1
