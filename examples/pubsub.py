"""Publish and subscribe: acme's ticker never waits for a slow subscriber, and globex's watcher learns what it missed.

It prints::

    prompt: tea 250, tea 251, lost 0
    slow: up to tea 2999; lost some: True; all accounted for: True
"""

import anyio
from pydantic import BaseModel

from autolink.testing import Authority
from autolink.trust import IssuedBy


class Price(BaseModel):
    item: str
    cents: int
    history: bytes = b""


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    ticker = acme.agent("ticker", trust=IssuedBy(globex.anchor))
    watcher = globex.agent("watcher", trust=IssuedBy(acme.anchor))
    prices = ticker.topic("prices", of=Price, overflow="drop_oldest", buffer=32)

    async with ticker.listening("127.0.0.1:0") as listener, watcher.connect(listener.contact) as link:
        async with link.subscribe("prices", receives=Price) as feed:
            await prices.publish(Price(item="tea", cents=250))
            await prices.publish(Price(item="tea", cents=251))
            first, second = await feed.receive(), await feed.receive()
            print(f"prompt: {first.item} {first.cents}, {second.item} {second.cents}, lost {feed.lost}")

        async with link.subscribe("prices", receives=Price) as feed:
            for cents in range(1000, 3000):  # 2 MB, while nobody receives: the link's credit holds 256 KiB
                await prices.publish(Price(item="tea", cents=cents, history=bytes(1000)))
            seen = 0
            async for price in feed:
                seen += 1
                if price.cents == 2999:  # the oldest are dropped, so the newest arrives
                    break
            print(f"slow: up to {price.item} {price.cents}; lost some: {feed.lost > 0};", end=" ")
            print("all accounted for:", seen + feed.lost == 2000)


if __name__ == "__main__":
    anyio.run(main, backend="trio")
