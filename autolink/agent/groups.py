"""Two small things that a link's tasks need: a task group whose body's own exception comes out as it is, and a latch.

AnyIO wraps whatever leaves a task group in an ExceptionGroup, even the single exception of the body. A library's
`async with` must not: `except CallError` around `async with agent.connect(...)` has to work. So the background tasks
here settle their own errors (a link's failure is state, not an exception), and the body's exception is carried
around the group.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


class Latch:
    """A thing that happens once. Its event is made when somebody waits, which mostly nobody does."""

    __slots__ = ("_event", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when it has happened; at once, without a checkpoint, if it has."""
        if not self.is_set:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()


@asynccontextmanager
async def background_tasks() -> AsyncIterator[TaskGroup]:
    """A task group that is cancelled when the body ends, however it ends.

    Raises:
        BaseException: the body's own, unchanged, KeyboardInterrupt too. One that a background task raises is a bug in
            that task and comes out in an ExceptionGroup, as AnyIO does it.
    """
    raised: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  re-raised below, outside of the group
            raised = error
        finally:
            tasks.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            del raised  # the frame would keep the traceback that keeps the frame
