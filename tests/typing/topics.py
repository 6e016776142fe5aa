"""Publish and subscribe, and what a listener says about itself."""

from typing import Any, assert_type

from pydantic import BaseModel

from autolink import Agent, Link, Listener, Subscription, Topic


class Price(BaseModel):
    cents: int


async def publish(agent: Agent) -> None:
    prices = agent.topic("prices", of=Price, overflow="drop_oldest", buffer=8)
    plain = agent.topic("plain", of=dict)
    assert_type(prices, Topic[Price])
    async with agent.listening("127.0.0.1:0", "[::1]:0", "unix:/run/prices.sock") as listener:
        assert_type(listener, Listener)
        assert_type(listener.contact, str)
        assert_type(listener.addresses, tuple[str, ...])
        await prices.publish(Price(cents=3))
        await plain.publish({"cents": 3})


async def watch(link: Link) -> None:
    async with link.subscribe("prices", receives=Price) as feed:
        async for price in feed:
            assert_type(price, Price)
        assert_type(feed.lost, int)
    async with link.subscribe("plain") as untyped:
        assert_type(untyped, Subscription[Any])
