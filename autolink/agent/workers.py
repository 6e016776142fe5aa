"""The tasks in which a link's handlers run. On Trio one that has done its work waits for the next.

A handler needs a task and a cancel scope of its own, and making both takes longer than a short handler and its answer.
So a task whose scope nobody has cancelled is kept, and what a handler could see of the one before it is not: it gets a
copy of its starter's context, as a new task would, and a name. A link's first task is not kept, because many links carry
one call. On asyncio, where a task cannot be given another context, each piece of work has a task of its own.
"""

from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final

import trio

from autolink.loop import Loop, Scope, Tasks

_lowlevel: Any = trio.lowlevel  # untyped, as in `autolink.loop`
_KEPT: Final = 32
"""Tasks that wait for work, for each link."""


class Workers:
    """Runs `work(*args)` in tasks.

    Args:
        loop: the event loop's functions.
        work: what they do; an exception that leaves it is the task group's.
    """

    __slots__ = ("_idle", "_keeps", "_loop", "_work")

    def __init__(self, loop: Loop, work: Callable[..., Coroutine[Any, Any, None]]) -> None:
        self._loop = loop
        self._work = work
        self._idle: list[_Worker] = []
        self._keeps: bool | None = None  # None: as soon as one has been started

    @property
    def waiting(self) -> int:
        """Tasks that have done their work and wait for more."""
        return len(self._idle)

    def let_go(self) -> None:
        """Nothing runs here, and nothing will."""
        del self._work

    def start(self, tasks: Tasks, name: str, *args: object) -> Scope:
        """Have a task do the work soon, in a context copied from ours. Returns the scope that cancels it, until it ends."""
        if self._idle:
            worker = self._idle.pop()
            worker.args = args
            task = worker.task
            task.name, task.context = name, copy_context()
            _lowlevel.reschedule(task)
        else:
            worker = _Worker(self._loop.scope(), args)
            tasks.start_soon(self._run, worker, name=name)
        return worker.scope

    async def _run(self, worker: "_Worker") -> None:
        keeps, self._keeps = self._keeps, _lowlevel.in_trio_run()
        with worker.scope as scope:
            await self._work(*worker.args)
            while keeps and not scope.cancel_called and len(self._idle) < _KEPT:
                await self._next(worker)
                await self._work(*worker.args)

    async def _next(self, worker: "_Worker") -> None:
        """Wait for more to do, holding on to nothing of what was done."""

        def abort(_raise: object) -> Any:  # noqa: ANN401
            self._idle.remove(worker)
            return _lowlevel.Abort.SUCCEEDED

        worker.args = ()
        worker.task = _lowlevel.current_task()
        worker.task.context = Context()
        self._idle.append(worker)
        await _lowlevel.wait_task_rescheduled(abort)


class _Worker:
    """One task: its scope, and the arguments of its work."""

    __slots__ = ("args", "scope", "task")

    def __init__(self, scope: Scope, args: tuple[object, ...]) -> None:
        self.scope = scope
        self.args = args
        self.task: Any = None
