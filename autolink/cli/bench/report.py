"""What people and scripts see of a load: a bar while it runs, and the results."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from autolink.cli.bench.plan import Plan
from autolink.cli.bench.tally import Tally
from autolink.cli.bench.workers import Outcome
from autolink.cli.show import print_facts, print_table
from autolink.cli.talk import address_in

PERCENTILES: Final = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9))

_HELD: Final = 0.99
"""Part of the operations that were due, which must have been begun for the rate to count as held."""

_BUSY: Final = 0.9
"""Part of a core from which on a worker's own waiting shows in what it measures."""

_DONE: Final = {"handshake": "links opened", "call": "calls answered", "message": "messages confirmed"}


def results(plans: list[Plan], identities: int, met: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The object of `--json`. Latencies are in microseconds, `cpu` is in cores, of the busiest worker."""
    tally, plan = outcome.tally, plans[0]
    seconds = tally.seconds
    rate = sum(each.pace.rate for each in plans if each.pace.rate is not None) or None
    return {
        "ok": True,
        "operation": plan.work.kind,
        **({"name": plan.work.name} if plan.work.name else {}),
        "address": address_in(plan.contact),
        "peer": met,
        "loop": "closed" if rate is None else "open",
        "concurrency": sum(each.pace.slots for each in plans),
        "workers": len(plans),
        "identities": identities,
        "seconds": round(seconds, 3),
        "succeeded": tally.latencies.get_total_count(),
        "per_second": round(tally.in_time / seconds, 1) if seconds else 0.0,
        "latency_us": {
            "mean": round(tally.latencies.get_mean_value(), 1),
            **{name: tally.latencies.get_value_at_percentile(percent) for name, percent in PERCENTILES},
            "max": tally.latencies.get_max_value(),
        },
        "over_an_hour": tally.over_an_hour,
        "last_success_s": round(tally.last_success, 3),
        "errors": {
            kind: {"count": failures.count, "first": failures.first}
            for kind, failures in sorted(tally.errors.items(), key=lambda item: -item[1].count)
        },
        "links": {"opened": tally.links, "resumed": tally.resumed},
        "rate": None if rate is None else {
            "asked": rate, "held": tally.started >= _HELD * tally.due, "due": tally.due, "begun": tally.started,
            "latest_s": round(tally.latest, 6),
        },
        "cpu": round(tally.cpu / seconds, 2) if seconds else 0.0,
        "interrupted": outcome.interrupted,
        "died": outcome.died,
    }  # fmt: skip


def print_results(told: dict[str, Any]) -> None:
    """The same for a person."""
    done = f"{told['succeeded']:,} {_DONE[told['operation']]}, {told['per_second']:,.1f}/s"
    mean, *others = ((name.replace("_", "."), duration(value)) for name, value in told["latency_us"].items())
    print_facts(
        {
            "peer": f"{told['peer']['name']} at {told['address']}, {told['peer']['tls']} with {told['peer']['group']}",
            "load": _load(told),
            "done": done,
            "links": f"{told['links']['opened']:,} opened, {told['links']['resumed']:,} of them resumed",
            "latency": "  ".join(map(" ".join, others)) if told["succeeded"] else "none",
            "mean": mean[1] if told["succeeded"] else None,
            "errors": f"{sum(each['count'] for each in told['errors'].values()):,}"
            if told["errors"]
            else "none",
        }
    )
    if told["errors"]:
        rows = [
            {"error": kind, "count": f"{failures['count']:,}", "the_first": failures["first"]}
            for kind, failures in told["errors"].items()
        ]
        print_table(("error", "count", "the_first"), rows)


def remarks(told: dict[str, Any]) -> Iterator[str]:
    """What a reader of the figures must know before believing them."""
    rate = told["rate"]
    if rate is not None and not rate["held"]:
        yield (
            f"the rate was not held: of {rate['due']:,} operations that were due, {rate['begun']:,} were begun, up to "
            f"{rate['latest_s']:.3g} s late. Their waiting is in the latencies; the others are in none of these "
            "figures, so it was worse than they say"
        )
    if told["over_an_hour"]:
        yield f"{told['over_an_hour']:,} operations took longer than an hour, and are in these figures with an hour"
    if told["cpu"] >= _BUSY:
        yield (
            f"a worker of this load tester was busy for {min(told['cpu'], 1):.0%} of the time, so the latencies are in part "
            "its own: add --workers, if there are cores for them"
        )


def duration(microseconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 1_000_000), ("ms", 1_000)):
        if microseconds >= size:
            return f"{_three_digits(microseconds / size)} {unit}"
    return f"{microseconds:.0f} µs"


def _three_digits(number: float) -> str:
    return f"{number:.{max(0, 3 - len(str(int(number))))}f}"


def _load(told: dict[str, Any]) -> str:
    """How it was put on, in words."""
    at_once = f"{told['concurrency']:,} at once"
    how = f"{told['rate']['asked']:,.10g}/s, at most {at_once}" if told["rate"] else at_once
    crew = f"{told['workers']} worker{'s'[: told['workers'] != 1]}"
    callers = f"{told['identities']:,} {'identity' if told['identities'] == 1 else 'identities'}"
    what = told["operation"] + (f" {told['name']}" if "name" in told else "")
    return f"{what}, {told['loop']} loop, {how}, for {told['seconds']:.3g} s, {crew}, {callers}"


@contextmanager
def progress(seconds: float) -> Iterator[Callable[[Tally], None] | None]:
    """A bar on stderr that shows what was counted so far; None where stderr is no terminal."""
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield None
        return
    columns = (
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:g} s  {task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=seconds)

        def show(tally: Tally) -> None:
            if tally.seconds:
                bar.update(task, completed=tally.seconds, description=_so_far(tally))

        yield show


def _so_far(tally: Tally) -> str:
    p50, p99 = (duration(tally.latencies.get_value_at_percentile(percent)) for percent in (50, 99))
    return f"{tally.in_time / tally.seconds:,.0f}/s  p50 {p50}, p99 {p99}  {tally.failures:,} errors"
