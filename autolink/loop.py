"""What runs for every message and every link of AnyIO, looked up once for each.

AnyIO finds out at every call which event loop runs and passes the call on: on Trio, where the function behind it takes
0.2 to 4 us, that doubles some of them. A link lives on one loop, so it asks once. On Trio these are Trio's own, of the
same meaning; the one difference, that its errors are classes of their own, is made good here. Everything that is not in
the path of a message or of a handshake uses AnyIO itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from socket import socket
from typing import Any, Final, NamedTuple, Protocol

import anyio
import anyio.lowlevel
import trio

_lowlevel: Any = (
    trio.lowlevel
)  # untyped: an older package of stubs, where it is installed, hides Trio's own types


class Event(Protocol):
    """`anyio.Event`."""

    def set(self) -> Any: ...  # noqa: ANN401

    async def wait(self) -> None: ...


class Scope(Protocol):
    """`anyio.CancelScope`, for a `with` block."""

    deadline: float

    @property
    def cancel_called(self) -> bool: ...

    @property
    def cancelled_caught(self) -> bool: ...

    def cancel(self) -> Any: ...  # noqa: ANN401

    def __enter__(self) -> "Scope": ...

    def __exit__(self, *error: Any) -> Any: ...  # noqa: ANN401


class Tasks(Protocol):
    """`anyio.abc.TaskGroup`, as far as its tasks are not asked about."""

    cancel_scope: Any

    def start_soon(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        /,
        *args: Any,  # noqa: ANN401
        name: object = None,
    ) -> Any: ...  # noqa: ANN401

    async def start(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        /,
        *args: Any,  # noqa: ANN401
        name: object = None,
    ) -> Any: ...  # noqa: ANN401


class Loop(NamedTuple):
    """AnyIO's functions and classes of these names; `tasks` is `create_task_group`, `effective_deadline` is
    `current_effective_deadline`.

    `passes` are the exceptions that must go out through a task group's own exit: asyncio counts its cancellations.
    """

    checkpoint: Callable[[], Awaitable[None]]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    cancel_shielded_checkpoint: Callable[[], Awaitable[None]]
    current_time: Callable[[], float]
    effective_deadline: Callable[[], float]
    wait_readable: Callable[[socket], Awaitable[None]]
    wait_writable: Callable[[socket], Awaitable[None]]
    event: Callable[[], Event]
    scope: Callable[..., Scope]
    tasks: Callable[[], AbstractAsyncContextManager[Tasks]]
    passes: tuple[type[BaseException], ...]


async def _trio_readable(sock: socket) -> None:
    try:
        await _lowlevel.wait_readable(sock)
    except trio.ClosedResourceError:
        raise anyio.ClosedResourceError from None
    except trio.BusyResourceError:
        raise anyio.BusyResourceError("reading from") from None


async def _trio_writable(sock: socket) -> None:
    try:
        await _lowlevel.wait_writable(sock)
    except trio.ClosedResourceError:
        raise anyio.ClosedResourceError from None
    except trio.BusyResourceError:
        raise anyio.BusyResourceError("writing to") from None


_ANY: Final = Loop(
    anyio.lowlevel.checkpoint, anyio.lowlevel.checkpoint_if_cancelled, anyio.lowlevel.cancel_shielded_checkpoint,
    anyio.current_time, anyio.current_effective_deadline, anyio.wait_readable, anyio.wait_writable, anyio.Event,
    anyio.CancelScope, anyio.create_task_group, (asyncio.CancelledError, GeneratorExit),
)  # fmt: skip
_TRIO: Final = Loop(
    _lowlevel.checkpoint, _lowlevel.checkpoint_if_cancelled, _lowlevel.cancel_shielded_checkpoint,
    trio.current_time, trio.current_effective_deadline, _trio_readable, _trio_writable, trio.Event, trio.CancelScope,
    partial(trio.open_nursery, strict_exception_groups=True), (GeneratorExit,),
)  # fmt: skip


_here: Final[Any] = _lowlevel.RunVar("autolink.loop")


def running_loop() -> Loop:
    """Those of the event loop that runs."""
    try:
        loop: Loop = _here.get()
    except RuntimeError:  # not Trio's
        return _ANY
    except LookupError:
        # Once for each run. Trio itself goes through two functions to its clock, at each question.
        loop = _TRIO._replace(current_time=_lowlevel.current_clock().current_time)
        _here.set(loop)
    return loop
