"""The functions of AnyIO that run for every message, looked up once for each link.

AnyIO finds out at every call which event loop runs: 0.4 us on Trio, where the function that it then calls takes half of
that. A link lives on one loop.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import trio


class Loop(NamedTuple):
    """AnyIO's functions of these names."""

    checkpoint: Callable[[], Awaitable[None]]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    current_time: Callable[[], float]


_ANY: Final = Loop(anyio.lowlevel.checkpoint, anyio.lowlevel.checkpoint_if_cancelled, anyio.current_time)
_TRIO: Final = Loop(trio.lowlevel.checkpoint, trio.lowlevel.checkpoint_if_cancelled, trio.current_time)


def running_loop() -> Loop:
    """Those of the event loop that runs."""
    return _TRIO if trio.lowlevel.in_trio_run() else _ANY
