"""Channels typed in both directions, byte streams, and AnyIO's stream types."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from pydantic import BaseModel

from autolink import Agent, Channel, Link


class Reading(BaseModel):
    grams: int


def install(agent: Agent) -> None:
    @agent.channel("scale")
    async def scale(channel: Channel[Reading, int]) -> None:
        async for load in channel:
            assert_type(load, int)
            await channel.send(Reading(grams=load))

    @agent.channel
    async def print_label(channel: Channel[None, bytes]) -> None:
        async with channel.receive_stream() as chunks:
            async for chunk in chunks:
                assert_type(chunk, bytes)


async def measure(link: Link) -> None:
    async with link.open_channel("scale", sends=int, receives=Reading) as channel:
        assert_type(channel, Channel[int, Reading])
        out: ObjectSendStream[int] = channel
        back: ObjectReceiveStream[Reading] = channel
        async with anyio.create_task_group() as tasks:

            async def load() -> None:
                for grams in range(10):
                    await out.send(grams)
                await channel.send_eof()

            tasks.start_soon(load)
            async for reading in back:
                assert_type(reading, Reading)


async def label(link: Link) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"to: "

    async with link.open_channel("print_label") as channel:
        assert_type(channel, Channel[Any, Any])
        await channel.send_stream(pieces())
