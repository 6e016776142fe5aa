"""Something to put load on: ``autolink run autolink.testing.target:handlers``, for `autolink bench`.

The method `echo` returns its body. The channel `sink` takes whatever comes and sends back how many items it has taken so
far: whenever nothing waits, and at the latest after `_AT_LATEST`.
"""

from typing import Final

from autolink.agent import Call, Channel, Handlers

_AT_LATEST: Final = 64
"""Items: a sender that waits for confirmations with many items out gets them while it still sends."""

handlers: Final = Handlers()


@handlers.method
async def echo(call: Call, body: object) -> object:
    """The body."""
    return body


@handlers.channel
async def sink(channel: Channel[int, object]) -> None:
    """Count what comes."""
    taken = 0
    async for _ in channel:
        taken += 1
        if not channel.statistics().waiting or taken % _AT_LATEST == 0:
            await channel.send(taken)
