"""Small things that a link's tasks need: a task group whose body's own exception comes out as it is, a latch, and
errors that can be kept.

AnyIO wraps whatever leaves a task group in an ExceptionGroup, even the single exception of the body. A library's
`async with` must not: `except CallError` around `async with agent.connect(...)` has to work. So the background tasks
here settle their own errors (a link's failure is state, not an exception), and the body's exception is carried
around the group.
"""

from collections.abc import Callable
from types import TracebackType

import trio

from autolink.errors import Reason, Refused
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


class background_tasks:  # noqa: N801  used as `async with background_tasks() as tasks`
    """A task group that is cancelled when the body ends, however it ends, unless its tasks are `ending` by themselves.

    Raises:
        BaseException: the body's own, unchanged, KeyboardInterrupt and cancellation too. One that a background task raises
            is a bug in that task and comes out in an ExceptionGroup, as AnyIO does it.
    """

    __slots__ = ("_ending", "_group", "_passes", "_tasks")

    def __init__(self, ending: Callable[[], bool] = bool) -> None:
        loop = running_loop()
        self._ending = ending
        self._group = loop.tasks()
        self._passes = loop.passes

    async def __aenter__(self) -> Tasks:
        self._tasks = await self._group.__aenter__()
        return self._tasks

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not self._ending():
            self._tasks.cancel_scope.cancel()
        if isinstance(error, self._passes):
            return bool(await self._group.__aexit__(kind, error, trace))
        inner: BaseException | None = None
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # Trio's, when we were cancelled while the tasks were ending
            if group.split(trio.Cancelled)[1] is not None:
                raise
            inner = _first(group)
        if error is None and inner is not None:
            try:
                raise inner
            finally:
                del inner  # the frame would keep the traceback that keeps the frame
        return False


def without_frames(error: Exception) -> Exception:
    """An error that is to be kept: the frames that it and its causes were raised through hold whoever keeps it.

    What made a trust model fail goes on telling its author where.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        failed = isinstance(each, Refused) and each.reason is Reason.INTERNAL
        each = None if failed else each.__cause__ or each.__context__
    return error


def _first(error: BaseException) -> BaseException:
    """What is inside of a group, or of groups in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
