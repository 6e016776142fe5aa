"""A task group whose body's own exception comes out as it is.

AnyIO wraps whatever leaves a task group in an ExceptionGroup, even the single exception of the body. A library's
`async with` must not: `except CallError` around `async with agent.connect(...)` has to work. So the background tasks
here settle their own errors (a link's failure is state, not an exception), and the body's exception is carried
around the group.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


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
