"""Two small things that a link's tasks need: a task group whose body's own exception comes out as it is, and a latch.

AnyIO wraps whatever leaves a task group in an ExceptionGroup, even the single exception of the body. A library's
`async with` must not: `except CallError` around `async with agent.connect(...)` has to work. So the background tasks
here settle their own errors (a link's failure is state, not an exception), and the body's exception is carried
around the group.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from autolink.loop import Event, Tasks, running_loop


class Latch:
    """A thing that happens once. Its event is made when somebody waits, which mostly nobody does."""

    __slots__ = ("_event", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._event: Event | None = None

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when it has happened; at once, without a checkpoint, if it has."""
        if not self.is_set:
            if self._event is None:
                self._event = running_loop().event()
            await self._event.wait()


@asynccontextmanager
async def background_tasks(ending: Callable[[], bool] = bool) -> AsyncIterator[Tasks]:
    """A task group that is cancelled when the body ends, however it ends, unless its tasks are `ending` by themselves.

    Raises:
        BaseException: the body's own, unchanged, KeyboardInterrupt and cancellation too. One that a background task raises
            is a bug in that task and comes out in an ExceptionGroup, as AnyIO does it.
    """
    loop = running_loop()
    raised: BaseException | None = None
    try:
        async with loop.tasks() as tasks:
            try:
                yield tasks
            except loop.passes:
                raise
            except BaseException as error:  # noqa: BLE001  re-raised below, outside of the group
                raised = error
            finally:
                if not ending():
                    tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # Trio's, when we were cancelled while the tasks were ending
        if group.split(trio.Cancelled)[1] is not None:
            raise
        raised = raised or _first(group)
    if raised is not None:
        try:
            raise raised
        finally:
            del raised  # the frame would keep the traceback that keeps the frame


def _first(error: BaseException) -> BaseException:
    """What is inside of a group, or of groups in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
