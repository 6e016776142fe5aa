"""Channels: typed messages both ways on acme's counter, then 10 MiB as a byte stream that is never whole in memory.

It prints::

    running totals: 1 3 6 10
    the store has received sha256 e5b844cc57f57094…
"""

import hashlib
from collections.abc import AsyncIterator

import anyio

from autolink import Channel, Handlers
from autolink.testing import Authority
from autolink.trust import IssuedBy

handlers = Handlers()


@handlers.channel
async def totals(channel: Channel[int, int]) -> None:
    total = 0
    async for number in channel:
        total += number
        await channel.send(total)  # returning will end what we send


@handlers.channel
async def store(channel: Channel[str, None]) -> None:
    digest = hashlib.sha256()
    async with channel.receive_stream() as chunks:
        async for chunk in chunks:  # each verified before it is seen here
            digest.update(chunk)
    await channel.send(f"sha256 {digest.hexdigest()[:16]}…")


async def zeros(mebibytes: int) -> AsyncIterator[bytes]:
    for _ in range(mebibytes):
        yield bytes(1 << 20)


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    counter = acme.agent("counter", trust=IssuedBy(globex.anchor), handlers=handlers)
    client = globex.agent("client", trust=IssuedBy(acme.anchor))
    async with counter.listening("127.0.0.1:0") as listener, client.connect(listener.contact) as link:
        async with link.open_channel("totals", sends=int, receives=int) as channel:
            for number in 1, 2, 3, 4:
                await channel.send(number)
            await channel.send_eof()
            print("running totals:", *[total async for total in channel])
        async with link.open_channel("store") as channel:
            await channel.send_stream(zeros(10))
            print("the store has received", await channel.receive())


if __name__ == "__main__":
    anyio.run(main, backend="trio")
