"""Rounds, alternation and ratios: what makes figures of a shared machine comparable.

Within a round the one that is measured ("ours") runs before and after each of the others:

    ours  A  ours  B  ours  C  ours

A ratio is the other against the mean of its two neighbours, so whatever the machine does slowly to everybody cancels
out; the figure is the median of the rounds' ratios. The two neighbours against each other are the noise: a difference
below it means nothing.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks.measuring import Sample
from benchmarks.processes import Pair, StackFailed, Worker, cores
from benchmarks.result import BARS, Findings, Result, comparison, words
from benchmarks.stacks import OURS, STACKS
from benchmarks.stacks.base import Stack

By = Literal["rate", "cpu_us", "p99_us"]
"""What two samples are compared by: a rate is better when it is higher, a cost when it is lower."""

Measure = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of everything a run does.

    Attributes:
        rounds, seconds: of the comparisons that the table to meet rests on; seconds for one slot.
        side_rounds, side_seconds: of all others.
        bulk: bytes of the large body.
        strangers: callers or chains that were never seen, in one slot.
        known: how many peers a trust model knows.
        idle, idle_seconds: links that lie idle, and for how long their CPU time is counted.
        live: links that are open while others work; the first against the last is the table's row.
        crowd: other links that move bulk.
        records: how many a registry has.
        subscribers: of its feed.
        revocations: that are timed.
    """

    rounds: int = 5
    seconds: float = 1.2
    side_rounds: int = 3
    side_seconds: float = 0.6
    bulk: int = 1 << 30
    strangers: int = 250
    known: tuple[int, ...] = (10, 1_000, 10_000, 100_000)
    idle: tuple[int, ...] = (1_000, 5_000)
    idle_seconds: float = 32.0  # longer than the silence after which links ping each other
    live: tuple[int, ...] = (10, 100, 1_000, 5_000)
    crowd: int = 100
    records: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    subscribers: tuple[int, ...] = (10, 100, 1_000)
    revocations: int = 100


FULL = Budget()
QUICK = Budget(
    rounds=2, seconds=0.2, side_rounds=1, side_seconds=0.1, bulk=32 << 20, strangers=40,
    known=(10, 1_000), idle=(100, 300), idle_seconds=1.0, live=(10, 100, 300), crowd=20,
    records=(1_000, 4_000), subscribers=(10, 100), revocations=10,
)  # fmt: skip


class Progress(Protocol):
    """Who is told how far a benchmark is."""

    def expect(self, slots: int) -> None: ...
    def slot(self, text: str) -> None: ...
    def warn(self, line: str) -> None: ...


@dataclass(slots=True)
class Contest:
    """One comparison, and what it has found after any number of rounds."""

    name: str
    metric: str
    by: By = "rate"
    params: dict[str, Any] = field(default_factory=dict)
    ours: str = OURS
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    noises: list[float] = field(default_factory=list)

    def run(
        self, measures: dict[str, Measure], rounds: int, progress: Progress, *, warm_up: bool = True
    ) -> None:
        """Measure everybody once to warm up, then in alternation; `measures` begins with ours.

        Another stack that fails is left out from then on, with a line that says so.

        Raises:
            StackFailed: ours did.
        """
        self.ours, *others = measures
        progress.expect(warm_up * len(measures) + rounds * (1 + 2 * len(others)))

        def slot(label: str) -> Sample:
            progress.slot(f"{self.name} · {label} · {self.circumstances}")
            return measures[label]()

        if warm_up:
            slot(self.ours)
            others = [other for other in others if self._unless_failed(partial(slot, other), progress)]
        for _ in range(rounds):
            before = self._keep(self.ours, slot(self.ours))
            for other in list(others):
                theirs = self._unless_failed(partial(slot, other), progress)
                if theirs is None:
                    others.remove(other)
                    continue
                after = self._keep(self.ours, slot(self.ours))
                self._keep(other, theirs)
                self._compare(before, other, theirs, after)
                before = after

    def _keep(self, label: str, sample: Sample) -> Sample:
        self.samples.setdefault(label, []).append(sample)
        return sample

    def _compare(self, before: Sample, other: str, theirs: Sample, after: Sample) -> None:
        neighbours = [value for value in (figure(before, self.by), figure(after, self.by)) if value]
        its = figure(theirs, self.by)
        if len(neighbours) < 2 or not its:
            return  # a slot in which nothing happened
        mean = statistics.fmean(neighbours)
        self.ratios.setdefault(other, []).append(mean / its if self.by == "rate" else its / mean)
        self.noises.append(max(neighbours) / min(neighbours))

    @staticmethod
    def _unless_failed(measure: Callable[[], Sample], progress: Progress) -> Sample | None:
        try:
            return measure()
        except StackFailed as failure:
            progress.warn(str(failure))
            return None

    @property
    def circumstances(self) -> str:
        return words(self.params)

    def ratio(self, other: str) -> float | None:
        """How much better ours is: the median of the rounds' ratios."""
        return statistics.median(self.ratios[other]) if self.ratios.get(other) else None

    @property
    def noise(self) -> float | None:
        return statistics.median(self.noises) if self.noises else None

    def results(self) -> list[Result]:
        """A row for everybody, and one for ours beside each other one."""
        found = [self._result(label) for label in self.samples]
        return found + [self._result(self.ours, other) for other in self.ratios]

    def _result(self, label: str, baseline: str | None = None) -> Result:
        samples = self.samples[label]
        params = dict(self.params)
        if label in STACKS and STACKS[label].lacks:
            params["lacks"] = list(STACKS[label].lacks)
        if samples[0].latencies_us and baseline is None:
            columns = zip(*(sample.latencies_us for sample in samples), strict=True)
            params["latencies_us"] = [statistics.median(column) for column in columns]
        return Result(
            self.name, label, self.metric, (_median(samples, self.by) or 0.0), _median(samples, "p50_us"),
            _median(samples, "p99_us"), _median(samples, "cpu_us"), baseline, self.ratio(baseline) if baseline else None,
            params,
        )  # fmt: skip


def figure(sample: Sample, of: str) -> float | None:
    """One number of a sample."""
    match of:
        case "rate":
            return sample.rate
        case "cpu_us":
            return sample.cpu_us
        case "p50_us":
            return sample.at(50)
        case "p99_us":
            return sample.at(99)
    raise AssertionError(of)


def _median(samples: list[Sample], of: str) -> float | None:
    values = [value for sample in samples if (value := figure(sample, of)) is not None]
    return statistics.median(values) if values else None


class Bench:
    """What a benchmark works with: processes, contests, and the place for what it finds.

    Args:
        peers: the neighbours to compare with, of those that are installed.
    """

    def __init__(
        self, folder: Path, budget: Budget, peers: Iterable[Stack], findings: Findings, progress: Progress
    ) -> None:
        self.folder = folder
        self.budget = budget
        self.peers = list(peers)
        self.findings = findings
        self.progress = progress
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._broken: dict[str, str] = {}
        self._alone: Worker | None = None

    # --- processes -------------------------------------------------------------------------------------

    def pair(self, stack: Stack, key: str = ".") -> Pair:
        """The two processes of a stack with a type of key, started when first asked for and again when they died."""
        found = self._pairs.get((stack.name, key))
        if found is not None and found.alive:
            return found
        if found is not None:
            found.end()
        fresh = self._pairs[stack.name, key] = Pair(stack, self.folder / key)
        return fresh

    def fresh_pair(self, stack: Stack) -> Pair:
        """Another pair, for what leaves something behind. Whoever asked ends it."""
        return Pair(stack, self.folder)

    def job(self, stack: str, job: Callable[..., Any], *, key: str = ".", **arguments: Any) -> Measure:
        """A measure: a job done by the far end of a stack's server."""

        def measure() -> Sample:
            seconds = arguments.get("seconds", self.budget.seconds)
            return Sample.from_job(self._worker(stack, key).do(job, seconds, **arguments))

        return measure

    def _worker(self, stack: str, key: str) -> Worker:
        if stack in self._broken:
            raise StackFailed(self._broken[stack])
        try:
            return self.pair(STACKS[stack], key).worker
        except StackFailed as failure:  # what does not start is not waited for again
            self._broken[stack] = str(failure)
            raise

    def alone(self, job: Callable[..., Any], **arguments: Any) -> Measure:
        """A measure in one process of its own, without a server."""

        def measure() -> Sample:
            if self._alone is None or not self._alone.alive:
                self._alone = Worker(STACKS[OURS], self.folder, cores()[0])
            return Sample.from_job(
                self._alone.do(job, arguments.get("seconds", self.budget.seconds), **arguments)
            )

        return measure

    def able(self, what: str) -> list[Stack]:
        """The neighbours that can do it, their servers started."""
        able = [stack for stack in self.peers if what in stack.can]
        for stack in able:
            self.pair(stack)
        return able

    def end(self) -> None:
        """End every process."""
        if self._alone is not None:
            self._alone.end()
        for pair in self._pairs.values():
            pair.end()
        self._alone = None
        self._pairs.clear()

    # --- findings --------------------------------------------------------------------------------------

    def contest(
        self, name: str, metric: str, measures: dict[str, Measure], *, by: By = "rate", side: bool = False,
        warm_up: bool | None = None, **params: Any,
    ) -> Contest:  # fmt: skip
        """Compare; see `Contest.run`. What it finds is kept also if it is interrupted.

        Args:
            side: not a row of the table to meet: fewer rounds.
            warm_up: None for everything but what stands at the side: its processes the main comparison has warmed.
        """
        contest = Contest(name, metric, by, params)
        rounds = self.budget.side_rounds if side else self.budget.rounds
        try:
            contest.run(measures, rounds, self.progress, warm_up=not side if warm_up is None else warm_up)
        finally:
            self.findings.results += contest.results()
            if contest.noise is not None:
                self.findings.noise[comparison(name, params)] = contest.noise
        return contest

    def result(self, result: Result) -> None:
        self.findings.results.append(result)

    def row(self, key: str, value: float | None, note: str = "") -> None:
        """A figure of the table to meet; None where there was nothing to compare with."""
        assert key in BARS
        if value is not None:
            self.findings.table[key] = value
        if note:
            self.findings.notes[key] = note
