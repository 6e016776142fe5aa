"""What the agent serves in the tests against the second implementation."""

import pytest

from autolink import (
    Call,
    CallError,
    Channel,
    Handlers,
)


@pytest.fixture
def handlers():
    made = Handlers()

    @made.method
    async def echo(call: Call, value: object) -> object:
        return value

    @made.method
    async def fail(call: Call, value: object) -> object:
        raise CallError("not_found", "no such tea")

    @made.method(forwarded=True)
    async def order(call: Call, what: str) -> str:
        return f"{call.author.name} ordered {what}"

    @made.channel
    async def double(channel: Channel[int, int]) -> None:
        async for number in channel:
            await channel.send(2 * number)

    return made
