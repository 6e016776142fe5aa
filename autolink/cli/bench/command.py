"""`autolink bench handshake|call|message`: read the command line, see whether the agent takes us, share out the load."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import click
from rich.console import Console
from rich.progress import track

from autolink import Agent, Credential, CredentialRequest, EntityKind, Link, limits
from autolink.cli.bench.histogram import empty_histogram
from autolink.cli.bench.loop import Pace
from autolink.cli.bench.operations import confirmed
from autolink.cli.bench.plan import Plan, Work, unencrypted
from autolink.cli.bench.report import print_results, progress, remarks, results
from autolink.cli.bench.tally import Failures, status_of_kind
from autolink.cli.bench.workers import Outcome, put_on
from autolink.cli.edge import Status
from autolink.cli.options import Number, json_option, option
from autolink.cli.registry_link import standing_options
from autolink.cli.show import describe_peer, print_json, say
from autolink.cli.talk import dialer, json_body, link_options
from autolink.cli.trust_option import Spec, known_file
from autolink.errors import CallError, IdentityError, UsageError, display

F = TypeVar("F", bound=Callable[..., Any])

_AT_ONCE: Final = 16
"""Operations at once in a closed loop when nobody says, and ..."""

_AT_MOST: Final = 256
"""... in an open one, where it is only the bound."""

_ROOM: Final = 64
"""Bytes of a message's body around `--size` of them."""


@click.group()
def bench() -> None:
    """Put load on a running agent, and time its answers.

    A closed loop, which is what you get without --rate, keeps --concurrency operations out and shows how much the agent
    can do. With --rate operations are begun at that rate whatever the agent does, and their time counts from when they
    were due, so that a stall shows in full. `autolink run autolink.testing.target:handlers` serves something to try.
    """


def load_options(function: F) -> F:
    """How much load, for how long, and from whom."""
    decorators = [
        option(
            "-c", "--concurrency", type=click.IntRange(1, limits.BENCH_SLOTS),
            help=f"Operations at once, over all workers.  [default: {_AT_ONCE}, or with --rate {_AT_MOST}]",
        ),
        option("--rate", type=Number(0, limits.BENCH_RATE, min_open=True), help="Operations a second, over all workers."),
        option(
            "-d", "--duration", type=Number(0, limits.BENCH_SECONDS, min_open=True), default=10.0, help="Seconds.",
        ),
        option(
            "--workers", type=click.IntRange(1, limits.BENCH_WORKERS), default=1, help="Processes that share the load.",
        ),
        option(
            "--identities", type=click.IntRange(1, limits.BENCH_IDENTITIES), default=1,
            help="Callers that take turns. If more than one, --as issues them, and nothing of them is kept.",
        ),
        link_options(timeout="Seconds for one operation."),
        standing_options,
        json_option,
    ]  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


@bench.command()
@click.argument("contact")
@option(
    "--resume",
    type=Number(0, 1),
    default=0.0,
    help="Share of handshakes that try to resume.",
)
@load_options
def handshake(*, resume: float, **how: Any) -> None:  # noqa: ANN401
    """Open links to the agent at CONTACT, and close them.

    What is measured is TLS, both verdicts and both announcements.
    """
    _bench(Work("handshake", resume=resume), **how)


@bench.command(context_settings={"ignore_unknown_options": True})  # a body may be -7
@click.argument("contact")
@click.argument("method")
@click.argument("body", required=False, metavar="[BODY-JSON]")
@option(
    "--size",
    type=click.IntRange(0, limits.MESSAGE - _ROOM),
    help="Send so many bytes instead of a BODY-JSON.",
)
@load_options
def call(method: str, *, body: str | None, size: int | None, **how: Any) -> None:  # noqa: ANN401
    """Call METHOD of the agent at CONTACT.

    The calls go over one link for each identity, and at least one for each worker.
    """
    if body is not None and size is not None:
        raise UsageError("a call has a BODY-JSON or a --size, not both")
    _bench(Work("call", method, json_body(body) if size is None else bytes(size)), **how)


@bench.command()
@click.argument("contact")
@option(
    "--channel",
    default="sink",
    help="Takes anything, sends back how many items it has taken.",
)
@option(
    "--size",
    type=click.IntRange(0, limits.MESSAGE - _ROOM),
    default=100,
    help="Bytes of each.",
)
@load_options
def message(*, channel: str, size: int, **how: Any) -> None:  # noqa: ANN401
    """Send signed messages to a channel of the agent at CONTACT.

    They go over one link for each identity, and at least one for each worker. A message is done when the receiver has
    confirmed it.
    """
    _bench(Work("message", channel, bytes(size)), **how)


def _bench(
    work: Work, *, concurrency: int | None, rate: float | None, duration: float, workers: int, identities: int,
    as_json: bool, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    empty_histogram()  # where there can be none, this is told before anything is done
    slots = concurrency or (_AT_ONCE if rate is None else _AT_MOST)
    if slots < workers:
        raise UsageError(
            f"{workers} workers have nothing to do with --concurrency {slots}: give at least one to each"
        )
    if work.resume and how["anyone_trusted"]:
        raise UsageError(
            "--resume needs a contact (autolink://…): a session is resumed with whom it was made with"
        )
    for spec in how["specs"]:
        _check_readable(spec)
    if identities > 1:  # who is made for the load is on no record
        how |= {"registry": None, "log_key": None}
    dial = dialer(**how, issues=identities > 1)
    if dial.found is not None:
        raise UsageError(
            "load is put on a contact (autolink://…): only `autolink call` and `ping` find an Auto ID"
        )
    folder = dial.agent.credential.folder
    callers = [dial.agent.credential]
    if identities > 1:
        callers = _issued(callers[0], identities, timedelta(seconds=limits.BENCH_SECONDS + duration))
        dial = replace(dial, agent=Agent(callers[0], trust=dial.agent.trust))
    met = dial.talk(partial(_rehearse, work), awaited=f"no answer to {display(work.name) or 'the handshake'}")
    plans = [
        Plan(
            work, pace, dial.contact, dial.anyone, dial.name, [_for_worker(spec, folder) for spec in how["specs"]],
            [unencrypted(caller) for caller in callers[number::workers] or [callers[number % identities]]],
            list(dial.agent.evidence),
        )
        for number, pace in enumerate(_paces(slots, rate, duration, how["timeout"], workers))
    ]  # fmt: skip
    with progress(duration) as show:
        outcome = anyio.run(put_on, plans, show, backend="trio")
    _tell(results(plans, identities, met, outcome), outcome, as_json=as_json)


def _paces(slots: int, rate: float | None, seconds: float, timeout: float, workers: int) -> Iterator[Pace]:
    """Each worker's part: in the open loop their operations take turns, evenly."""
    for number in range(workers):
        yield Pace(
            slots=slots // workers + (number < slots % workers), seconds=seconds, timeout=timeout,
            rate=None if rate is None else rate / workers, phase=number / workers,
        )  # fmt: skip


def _check_readable(spec: Spec) -> None:
    """Each worker reads it again: what can be read once only is told before anybody waits for it. What is not there at all,
    `build` tells."""
    if spec.file is None:
        return
    stdin = str(spec.file) == "-" and spec.kind != "known"
    if stdin or (spec.file.exists() and not spec.file.is_file()):
        raise UsageError(
            f"--trust {spec.kind}:{display(str(spec.file))}: each worker reads it, so it must be a file"
        )


def _for_worker(spec: Spec, folder: Path | None) -> list[str | None]:
    """For `Plan.trust`: a worker knows of no keystore."""
    file = known_file(spec.file, folder) if spec.kind == "known" else spec.file
    return [spec.kind, spec.log if file is None else str(file)]


def _issued(issuer: Credential, count: int, lifetime: timedelta) -> list[Credential]:
    """So many agents below an identity. Their keys are in memory only."""
    console = Console(stderr=True, markup=False)
    numbers = track(
        range(1, count + 1), "issuing the callers", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    lifetime = min(lifetime, issuer.leaf.not_after - datetime.now(UTC))
    callers = []
    try:
        for number in numbers:
            request = CredentialRequest.new(f"bench-{number}")
            callers.append(request.complete(issuer.issue(request, kind=EntityKind.AGENT, lifetime=lifetime)))
    except IdentityError as error:
        raise IdentityError(
            f"--identities {count} needs an --as that can issue agents, such as an organisation: {error}"
        ) from None
    return callers


async def _rehearse(work: Work, link: Link) -> dict[str, Any]:
    """One operation, so that what cannot work is told before there is any load. Who answered, for the report."""
    if work.kind == "call":
        await link.call(work.name, work.body)
    elif work.kind == "message":
        try:
            async with confirmed(link, work.name) as messages:
                await messages.send(work.body)
        except CallError as error:
            error.add_note(
                f"channel {display(work.name)!r}, which has to send back how many items it has taken"
            )
            raise
    return {**describe_peer(link.peer), "tls": link.tls.version, "group": link.tls.group}


def _tell(told: dict[str, Any], outcome: Outcome, *, as_json: bool) -> None:
    """Print the results, whatever ended the run, and say by the exit status how it went."""
    ended = wrong(outcome)
    if as_json:
        print_json(told | ended)
    elif outcome.tally.started:
        print_results(told)
    for remark in remarks(told):
        say(f"Note: {remark}")
    if ended:
        say("interrupted" if ended["status"] == Status.INTERRUPTED else f"Error: {ended['error']}")
        click.get_current_context().exit(ended["status"])


def wrong(outcome: Outcome) -> dict[str, Any]:
    """Why the run is no success, as `edge.as_json` tells it; empty if it is one. Errors among successes are no failure."""
    if outcome.error is not None:
        return outcome.error
    if outcome.interrupted:
        return _failed(Status.INTERRUPTED, "interrupted")
    if outcome.died:
        return _failed(
            Status.FAILED, f"{', '.join(outcome.died)}: what it had counted until then is in the results"
        )
    if outcome.tally.errors and not outcome.tally.latencies.get_total_count():
        kind, failures = _most(outcome)
        return _failed(status_of_kind(kind), f"not one operation succeeded: {failures.first}")
    if outcome.tally.ended_dead:
        return _failed(
            Status.UNREACHED,
            f"no operation succeeded after {outcome.tally.last_success:.3g} s of {outcome.tally.seconds:.3g} s; the "
            f"errors are mostly: {_most(outcome)[1].first}",
        )
    return {}


def _most(outcome: Outcome) -> tuple[str, Failures]:
    """The most frequent error."""
    return max(outcome.tally.errors.items(), key=lambda item: item[1].count)


def _failed(status: Status, error: str) -> dict[str, Any]:
    return {"ok": False, "status": status, "error": error}
