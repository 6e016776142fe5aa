"""The workers seen from the command: started, told to go at once, listened to, stopped, and added up.

A worker that dies is named; the others go on, and what it had told before counts. A worker that says why it ends (the agent
refused it) ends the others, too: they would be refused alike, and nobody asks again who was told no.
"""

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import Any, Final

import anyio
import msgpack
from anyio.abc import Process

from autolink.cli.bench.loop import GRACE
from autolink.cli.bench.plan import Plan
from autolink.cli.bench.tally import Tally
from autolink.cli.bench.worker import COMMAND, LENGTH
from autolink.errors import display

_PATIENCE: Final = 15.0
"""Seconds more than it should take, after which a worker is ended: closing thousands of links is not done in no time."""

_EVERY: Final = 0.25


@dataclass(slots=True)
class Outcome:
    """What came of a load.

    Attributes:
        tally: of all workers.
        error: why a worker ended before its time, as `edge.as_json` tells it; None if none did.
        died: workers that ended without saying why, and how.
        interrupted: somebody stopped the run.
    """

    tally: Tally = field(default_factory=Tally)
    error: dict[str, Any] | None = None
    died: list[str] = field(default_factory=list)
    interrupted: bool = False


class _Worker:
    """One process. `tally` is the last that it told."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self.tally = Tally()
        self.error: dict[str, Any] | None = None
        self.ready = anyio.Event()
        self.over = False
        self.ended = "did not end in time"
        self._plan = plan
        self._process: Process | None = None

    async def run(self) -> None:
        """From the start of the process to its end."""
        try:
            async with await anyio.open_process(
                COMMAND, stdin=PIPE, stdout=PIPE, stderr=None, start_new_session=True
            ) as process:
                self._process = process
                plan = self._plan.to_bytes()
                await self._send(LENGTH.pack(len(plan)) + plan)
                async for what, value in _told(process):
                    self._hear(what, value)
            status = process.returncode or 0
            self.ended = (
                f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            )
        finally:
            self.ready.set()

    def _hear(self, what: str, value: Any) -> None:  # noqa: ANN401
        if what == "ready":
            self.ready.set()
        elif what == "tally":
            self.tally = Tally.from_plain(value)
        else:
            self.over = True
            self.tally, self.error = Tally.from_plain(value["tally"]), value["error"]

    async def go(self) -> None:
        """Begin."""
        await self._send(b"!")

    async def stop(self) -> None:
        """End: its stdin does."""
        if self._process is not None and self._process.stdin is not None:
            await self._process.stdin.aclose()

    async def _send(self, data: bytes) -> None:
        """What a dead worker is told, it does not hear: that it died is seen at the end of its stdout."""
        try:
            if self._process is not None and self._process.stdin is not None:
                await self._process.stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


async def _told(process: Process) -> AsyncIterator[tuple[str, Any]]:
    """What a worker says, until it says no more."""
    unpacker = msgpack.Unpacker()
    if process.stdout is not None:
        async for piece in process.stdout:
            unpacker.feed(piece)
            for what, value in unpacker:
                yield what, value


async def put_on(plans: Sequence[Plan], show: Callable[[Tally], None] | None) -> Outcome:
    """Put the load on. SIGINT and SIGTERM end it, with what was counted until then; a second one at once.

    Args:
        plans: one for each worker.
        show: gets what was counted so far, some times a second; None for nobody.
    """
    return await _Crew(plans, show).run()


class _Crew:
    def __init__(self, plans: Sequence[Plan], show: Callable[[Tally], None] | None) -> None:
        self._workers = [_Worker(f"worker {number}", plan) for number, plan in enumerate(plans, 1)]
        self._seconds = plans[0].pace.seconds
        self._show = show
        self._interrupted = False
        self._deadline = anyio.CancelScope()

    async def run(self) -> Outcome:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._interrupt, signals)
                if self._show is not None:
                    beside.start_soon(self._refresh, self._show)
                with self._deadline:
                    async with anyio.create_task_group() as processes:
                        for worker in self._workers:
                            processes.start_soon(self._attend, worker)
                        await self._go()
                beside.cancel_scope.cancel()
        return self._outcome()

    async def _go(self) -> None:
        for worker in self._workers:
            await worker.ready.wait()
        if all(worker.error is None for worker in self._workers):
            for worker in self._workers:
                await worker.go()
            self._end_within(self._seconds + GRACE + _PATIENCE)

    async def _attend(self, worker: _Worker) -> None:
        await worker.run()
        if worker.error is not None:
            await self._stop()

    async def _stop(self) -> None:
        self._end_within(GRACE + _PATIENCE)
        for worker in self._workers:
            await worker.stop()

    def _end_within(self, seconds: float) -> None:
        self._deadline.deadline = min(self._deadline.deadline, anyio.current_time() + seconds)

    async def _interrupt(self, signals: AsyncIterator[signal.Signals]) -> None:
        await anext(signals)
        self._interrupted = True
        await self._stop()
        await anext(signals)
        self._deadline.cancel()

    async def _refresh(self, show: Callable[[Tally], None]) -> None:
        while True:
            await anyio.sleep(_EVERY)
            show(self._sum())

    def _sum(self) -> Tally:
        total = Tally()
        for worker in self._workers:
            total.add(worker.tally)
        return total

    def _outcome(self) -> Outcome:
        errors = [worker.error for worker in self._workers if worker.error is not None]
        died = [f"{worker.name} {display(worker.ended)}" for worker in self._workers if not worker.over]
        return Outcome(self._sum(), errors[0] if errors else None, died, self._interrupted)
