"""The closed and the open loop: when an operation is begun, and from when its time counts.

Both are a fixed number of slots, each of which does one operation after the other. In the **closed** loop a slot begins
the next one at once: the load adapts itself to the agent, and shows how much it can do. In the **open** loop operation k is
*due* at ``begin + k / rate`` whatever the agent does, as with users who do not know of each other. A free slot takes the
next number and waits until it is due. If all slots are busy, it is taken late, and its time still counts from when it
was due. So a stall of a second is seen by every operation that was due in that second, not only by those that were out:
the *coordinated omission* of measurements that stop asking while nobody answers cannot happen.

No operation is begun after the end. Those that are out then have `GRACE` seconds to end, and what is still out after
that is counted as an error: leaving it out would leave out exactly the slowest ones. Operations that were due and that
no slot was free for until the end are in no percentile, so they are counted, and told.
"""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import anyio

from autolink import limits
from autolink.cli.bench.tally import Tally, refusal
from autolink.errors import AutolinkError, CallError, Refused

Operation = Callable[[int], AbstractAsyncContextManager[object]]
"""Does the n-th operation: entering is what is measured, leaving tidies up."""

GRACE: Final = 5.0
"""Seconds that operations get to end after the load has ended."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much load, and for how long.

    Attributes:
        slots: operations that are out at once, at most.
        seconds: from the first begun operation until no more is begun.
        timeout: seconds for one operation, from when it was begun.
        rate: operations a second; None for the closed loop.
        phase: 0 to 1, the part of an interval by which the first one is due after the begin, so that the operations
            of several workers are spread evenly.
    """

    slots: int
    seconds: float
    timeout: float
    rate: float | None = None
    phase: float = 0.0


class Loop:
    """One run of a load. `tally` is right at any time after `note`, and when `run` is left in whatever way."""

    def __init__(self, operation: Operation, pace: Pace, tally: Tally) -> None:
        self.tally = tally
        self._operation = operation
        self._pace = pace
        self._taken = 0
        self._out = 0
        self._begun = self._end = 0.0
        self._refused: Refused | None = None

    async def run(self) -> None:
        """Put the load on, until the end or until cancelled.

        Raises:
            Refused: the agent refused us or we refused it (`tally.refusal`): that is not tried again.
        """
        pace = self._pace
        self._begun = anyio.current_time()
        self._end = self._begun + pace.seconds
        try:
            with anyio.move_on_after(pace.seconds + GRACE) as scope:
                async with anyio.create_task_group() as slots:
                    for _ in range(pace.slots):
                        slots.start_soon(self._slot, slots.cancel_scope)
            if scope.cancelled_caught:
                self.tally.left(self._out)
                self.tally.last_failure = pace.seconds + GRACE
        finally:
            self.note()
        if self._refused is not None:
            raise self._refused
        self.note(over=True)  # an open loop whose last operation has ended waits for nothing more

    def note(self, *, over: bool = False) -> None:
        """Enter into the tally how long it has been, and how many operations were due."""
        elapsed = math.inf if over else anyio.current_time() - self._begun
        self.tally.seconds = min(elapsed, self._pace.seconds)
        if self._pace.rate is not None:
            # A sum of floats ends up beside the whole number it means: a millionth of an operation is none.
            due = math.ceil(self.tally.seconds * self._pace.rate - self._pace.phase - 1e-6)
            self.tally.due = max(due, self.tally.started)

    async def _slot(self, all_slots: anyio.CancelScope) -> None:
        while self._refused is None and (due := self._next_due()) is not None:
            number = self._taken
            self._taken += 1
            await anyio.sleep_until(due)
            if anyio.current_time() < self._end:
                await self._do(number, due)
        if self._refused is not None:
            all_slots.cancel()

    def _next_due(self) -> float | None:
        """When the next operation is due; None if not before the end."""
        due = now = anyio.current_time()
        if self._pace.rate is not None:
            due = self._begun + (self._taken + self._pace.phase) / self._pace.rate
        return due if max(due, now) < self._end else None

    async def _do(self, number: int, due: float) -> None:
        now = anyio.current_time()
        self.tally.started += 1
        self.tally.latest = max(self.tally.latest, now - due)
        self._out += 1
        try:
            with anyio.CancelScope(deadline=now + self._pace.timeout) as scope:
                async with self._operation(number):
                    scope.deadline = math.inf  # what tidying up may take, it bounds itself
                    now = anyio.current_time()
                    self.tally.succeeded(now - due, in_time=now <= self._end)
                    self.tally.last_success = now - self._begun
            if scope.cancelled_caught:
                raise TimeoutError(f"not done within {self._pace.timeout:g} s")
        except (AutolinkError, OSError) as error:  # a TimeoutError is an OSError
            await self._failed(error)
        self._out -= 1

    async def _failed(self, error: AutolinkError | OSError) -> None:
        self._refused = self._refused or refusal(error)
        if self._refused is not None:
            return
        self.tally.failed(error)
        self.tally.last_failure = anyio.current_time() - self._begun
        if self._pace.rate is None and not isinstance(error, CallError):
            await anyio.sleep(limits.RETRY)  # an agent that is gone is not hammered with all that we can do
