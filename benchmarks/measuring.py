"""How a job measures: a closed loop of tasks, the latencies of what they did, and the CPU time of both ends."""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import anyio
import psutil

PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Sample:
    """One slot of one stack.

    Attributes:
        rate: units a second by the wall clock.
        cpu_us: CPU time of both ends for one unit, microseconds.
        latencies_us: at each of PERCENTILES; empty where there is no latency to speak of.
    """

    rate: float
    cpu_us: float | None = None
    latencies_us: tuple[float, ...] = ()

    @classmethod
    def of(cls, count: float, usage: "Usage", seconds: Sequence[float] = ()) -> dict[str, Any]:
        """What a job returns: `count` units in what `usage` saw, each after so many seconds."""
        return asdict(cls(count / usage.wall, usage.cpu / count * 1e6, percentiles_us(seconds)))

    @classmethod
    def from_job(cls, answer: dict[str, Any]) -> Self:
        return cls(answer["rate"], answer["cpu_us"], tuple(answer["latencies_us"]))

    def at(self, percentile: int) -> float | None:
        return self.latencies_us[PERCENTILES.index(percentile)] if self.latencies_us else None


def percentiles_us(seconds: Sequence[float]) -> tuple[float, ...]:
    """Microseconds at each of PERCENTILES, exact: every latency was kept."""
    if len(seconds) < 2:
        return tuple(seconds[0] * 1e6 for _ in PERCENTILES) if seconds else ()
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return tuple(cuts[percentile - 1] * 1e6 for percentile in PERCENTILES)


class Usage:
    """Wall and CPU time of a block, this process and the server's together, in seconds."""

    def __init__(self, server: int = 0) -> None:
        self._server = server
        self.wall = self.cpu = 0.0

    def __enter__(self) -> Self:
        self._cpu = self._now()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = self._now() - self._cpu

    def _now(self) -> float:
        return time.process_time() + (cpu_of(self._server) if self._server else 0)


def cpu_of(pid: int) -> float:
    """CPU seconds of another process and of what it has started."""
    process = psutil.Process(pid)
    return _cpu(process) + sum(map(_cpu, process.children(recursive=True)))


def _cpu(process: psutil.Process) -> float:
    try:
        # clock_getcpuclockid(3) as Linux has it: nanoseconds, where /proc counts in ticks of 10 ms.
        return time.clock_gettime((~process.pid << 3) | 2)
    except OSError:
        times = process.cpu_times()
        return times.user + times.system


async def concurrently(
    concurrency: int, seconds: float, once: Callable[[], Awaitable[float]]
) -> tuple[int, list[float]]:
    """Repeat `once` in so many tasks for so long, at least once; each finishes what it began.

    Returns:
        How often, and what each returned: its latency in seconds.
    """
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def repeat() -> None:
        latencies.append(await once())
        while time.perf_counter() < until:
            latencies.append(await once())

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(repeat)
    return len(latencies), latencies


def repeated(seconds: float, once: Callable[[], object]) -> tuple[int, Usage]:
    """The same for what is synchronous."""
    count = 0
    until = time.perf_counter() + seconds
    with Usage() as usage:
        while count == 0 or time.perf_counter() < until:
            once()
            count += 1
    return count, usage
