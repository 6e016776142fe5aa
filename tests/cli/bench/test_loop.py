"""The closed and the open loop over operations that take what the test says, under Trio's virtual clock."""

import math
from contextlib import asynccontextmanager

import anyio
import pytest

from autolink import limits
from autolink.cli.bench.loop import GRACE, Loop, Pace
from autolink.cli.bench.tally import Tally, kind_of, refusal, status_of_kind
from autolink.cli.edge import Status
from autolink.errors import (
    BodyError,
    CallError,
    Code,
    IdentityError,
    LinkLost,
    LocalProtocolError,
    Reason,
    Refused,
    RemoteProtocolError,
)  # fmt: skip


class Fake:
    """Operations that take `takes` seconds, or what `at` says of the seconds since the first one."""

    def __init__(self, takes=0.001, *, error=None, tidying=0.0):
        self.takes, self.error, self.tidying = takes, error, tidying
        self.out, self.most, self.begun = 0, 0, []

    def at(self, now):
        return self.takes

    @asynccontextmanager
    async def __call__(self, number):
        first = self.begun[0] if self.begun else anyio.current_time()
        self.begun.append(anyio.current_time())
        self.out += 1
        self.most = max(self.most, self.out)
        try:
            await anyio.sleep(self.at(anyio.current_time() - first))
            if self.error is not None:
                raise self.error
            yield
            await anyio.sleep(self.tidying)
        finally:
            self.out -= 1


class Stalling(Fake):
    """Nothing ends between 5 s and 6 s."""

    def at(self, now):
        return 6 - now + self.takes if 5 <= now < 6 else self.takes


async def loaded(operation, *, slots=1, seconds=10.0, timeout=30.0, **pace):
    tally = Tally()
    await Loop(operation, Pace(slots, seconds, timeout, **pace), tally).run()
    return tally


def seconds(tally, percent):
    return tally.latencies.get_value_at_percentile(percent) / 1_000_000


@pytest.mark.parametrize("slots", [1, 1000])
async def test_a_stall_shows_in_an_open_loop_in_every_operation_that_was_due_meanwhile(virtual_clock, slots):
    """100/s for 10 s, of which one second is a stall: a tenth of all operations waited for up to that second, whether there
    was a slot for each of them or only one for all."""
    tally = await loaded(Stalling(), rate=100, slots=slots)
    assert tally.latencies.get_total_count() == tally.due == tally.started == 1000
    assert seconds(tally, 50) == pytest.approx(0.001, rel=0.01)
    assert seconds(tally, 85) == pytest.approx(0.001, rel=0.01)
    assert seconds(tally, 95) == pytest.approx(0.5, abs=0.07)
    assert seconds(tally, 99) == pytest.approx(0.9, abs=0.03)
    assert seconds(tally, 100) == pytest.approx(1.001, rel=0.01)
    assert tally.latest == pytest.approx(0 if slots == 1000 else 0.991, abs=0.002)


async def test_the_same_stall_is_one_slow_operation_to_a_closed_loop(virtual_clock):
    """This is what coordinated omission hides, and why the open loop exists."""
    tally = await loaded(Stalling())
    assert tally.latencies.get_total_count() == pytest.approx(9000, abs=20)
    assert seconds(tally, 99.9) == pytest.approx(0.001, rel=0.01)
    assert seconds(tally, 100) == pytest.approx(1.0, abs=0.01)


async def test_an_open_loop_begins_operations_when_they_are_due_whatever_the_agent_does(virtual_clock):
    """Evenly, the first one after the phase of its worker, and not one after the end."""
    operation = Fake(takes=0.45)
    begin = anyio.current_time()
    tally = await loaded(operation, rate=4, slots=10, seconds=2.0, phase=0.5)
    assert [round(at - begin, 6) for at in operation.begun] == [0.125 + 0.25 * k for k in range(8)]
    assert operation.most == 2
    assert tally.seconds == 2.0
    assert tally.in_time == 6  # two of the eight ended later, which counts, but not for the rate
    assert tally.latencies.get_total_count() == 8


async def test_a_rate_that_cannot_be_held_leaves_operations_that_were_due_and_never_begun(virtual_clock):
    """One slot does one a second; ten a second were due. What waited, waited in the latencies."""
    operation = Fake(takes=1.0)
    tally = await loaded(operation, rate=10)
    assert (tally.due, tally.started, operation.most) == (100, 10, 1)
    assert tally.latest == pytest.approx(8.1)
    assert seconds(tally, 100) == pytest.approx(9.1, rel=0.001)


@pytest.mark.parametrize("slots", [1, 7])
async def test_a_closed_loop_keeps_exactly_as_many_operations_out_as_it_has_slots(virtual_clock, slots):
    operation = Fake(takes=0.25)
    tally = await loaded(operation, slots=slots, seconds=3.0)
    assert operation.most == slots
    assert tally.started == tally.latencies.get_total_count() == 12 * slots
    assert sorted(operation.begun) == sorted(
        0.25 * k + operation.begun[0] for k in range(12) for _ in range(slots)
    )


async def test_nothing_is_begun_after_the_end_and_what_is_out_may_end(virtual_clock):
    """An operation of 4 s is begun at 0, 4 and 8 s and ends at 12 s: it counts, but it was not in time."""
    operation = Fake(takes=4.0)
    begin = anyio.current_time()
    tally = await loaded(operation)
    assert anyio.current_time() - begin == 12.0
    assert (tally.latencies.get_total_count(), tally.in_time, tally.seconds) == (3, 2, 10.0)
    assert (tally.last_success, tally.last_failure) == (12.0, 0.0)


@pytest.mark.parametrize("rate", [None, 100.0])
async def test_what_does_not_end_is_an_error_and_does_not_keep_the_run(virtual_clock, rate):
    """The slowest operations are not left out: they are counted, some time after the end."""
    begin = anyio.current_time()
    tally = await loaded(Fake(takes=math.inf), slots=3, timeout=1000, rate=rate)
    assert anyio.current_time() - begin == 10.0 + GRACE
    assert tally.latencies.get_total_count() == 0
    assert {kind: failures.count for kind, failures in tally.errors.items()} == {"unfinished": 3}
    assert (tally.last_success, tally.last_failure) == (0.0, 10.0 + GRACE)
    assert tally.seconds == 10.0


async def test_tidying_up_takes_a_slot_and_no_part_in_the_latency_nor_in_the_timeout(virtual_clock):
    tally = await loaded(Fake(takes=0.5, tidying=0.5), timeout=0.6)
    assert tally.latencies.get_total_count() == 10
    assert seconds(tally, 100) == pytest.approx(0.5, rel=0.001)
    assert not tally.errors


def caused(error, cause):
    error.__cause__ = cause
    return error


UNREACHED = caused(LinkLost("no link to 127.0.0.1:1"), ConnectionRefusedError(111, "refused"))
ERRORS = {
    "unreached": (UNREACHED, Status.UNREACHED),
    "link_lost": (LinkLost("gone"), Status.UNREACHED),
    "answered:not_found": (CallError(Code.NOT_FOUND, "no"), Status.ANSWERED),
    "timeout": (TimeoutError("late"), Status.UNREACHED),
    "protocol": (RemoteProtocolError("odd"), Status.FAILED),
    "body": (BodyError("not an int"), Status.FAILED),
    "draining": (LocalProtocolError("draining"), Status.UNREACHED),
    "refused:busy": (Refused(Reason.BUSY, by="peer"), Status.REFUSED),
    "IdentityError": (IdentityError("expired"), Status.FAILED),
}


@pytest.mark.parametrize(("kind", "error"), [(kind, error) for kind, (error, _) in ERRORS.items()])
async def test_an_error_is_counted_by_kind_with_the_text_of_the_first(virtual_clock, kind, error):
    tally = await loaded(Fake(takes=0.1, error=error), rate=10, seconds=1.0)
    assert tally.errors.keys() == {kind}
    assert tally.errors[kind].count == tally.failures == 10
    assert tally.errors[kind].first
    assert tally.latencies.get_total_count() == 0
    assert kind_of(error) == kind
    assert status_of_kind(kind) == ERRORS[kind][1]


async def test_an_operation_that_takes_longer_than_its_timeout_is_counted_as_such(virtual_clock):
    """From when it was begun, in both loops, so that those which were begun late get their time."""
    tally = await loaded(Fake(takes=0.3), rate=10, seconds=1.0, timeout=0.2)
    assert tally.errors["timeout"].count == tally.started == 5


@pytest.mark.parametrize(("error", "count"), [(UNREACHED, 10), (CallError(Code.INTERNAL), 1000)])
async def test_a_closed_loop_does_not_hammer_an_agent_that_is_gone(virtual_clock, error, count):
    """A slot pauses after it reached nobody; an agent that answers, with an error too, gets the next one at once."""
    assert limits.RETRY == 0.1
    tally = await loaded(Fake(takes=0.001, error=error), seconds=1.0)
    assert tally.failures == pytest.approx(count, rel=0.02)


NO = Refused(Reason.UNTRUSTED, by="peer", peer="seller")


@pytest.mark.parametrize("error", [NO, caused(LinkLost("the link is gone"), NO)])
async def test_a_refusal_ends_the_load_at_once_and_what_was_counted_is_kept(virtual_clock, error):
    """Whoever was told no does not ask again; also when it came by the end of a link that was open."""

    class Refusing(Fake):
        @asynccontextmanager
        async def __call__(self, number):
            async with super().__call__(number):
                if number == 7:
                    raise error
                yield

    operation, tally = Refusing(takes=0.1), Tally()
    with pytest.raises(Refused) as refused:
        await Loop(operation, Pace(1, 10.0, 30.0), tally).run()
    assert refused.value is NO
    assert refusal(error) is NO
    assert (tally.started, tally.latencies.get_total_count(), tally.failures) == (8, 7, 0)
    assert tally.seconds == pytest.approx(0.8)


async def test_an_interrupted_run_keeps_what_was_counted_until_then(virtual_clock):
    tally = Tally()
    with anyio.move_on_after(2.55):
        await Loop(Fake(takes=0.25), Pace(3, 10.0, 30.0, rate=8.0), tally).run()
    assert tally.latencies.get_total_count() == 19
    assert tally.seconds == pytest.approx(2.55)
    assert tally.due == 21
    assert not tally.errors


async def test_a_tally_can_be_read_while_the_load_runs_and_passed_on(virtual_clock):
    tally = Tally()
    loop = Loop(Fake(takes=0.1, error=LinkLost("gone")), Pace(1, 10.0, 30.0, rate=5.0), tally)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        await anyio.sleep(3.15)
        loop.note()
        copied = Tally.from_plain(tally.as_plain())
        tasks.cancel_scope.cancel()
    assert (copied.seconds, copied.due, copied.started) == (pytest.approx(3.15), 16, 16)
    assert copied.errors["link_lost"].count == 16


def counted(*latencies):
    tally = Tally()
    for latency in latencies:
        tally.succeeded(latency, in_time=True)
    return tally


def test_percentiles_are_those_of_all_workers_together():
    """One has the 900 quick operations, one the 100 slow ones, one none: the average of their percentiles is none."""
    total = Tally()
    for worker in (counted(*[0.001] * 900), counted(*[1.0] * 100), counted()):
        total.add(Tally.from_plain(worker.as_plain()))
    shown = [seconds(total, percent) for percent in (50, 90, 90.1, 99.9)]
    assert shown == pytest.approx([0.001, 0.001, 1.0, 1.0], rel=0.001)
    assert total.latencies.get_total_count() == 1000
    assert total.latencies.get_mean_value() == pytest.approx(100_900, rel=0.001)
    assert total.latencies.get_max_value() == pytest.approx(1_000_000, rel=0.001)


def test_without_operations_there_are_no_latencies():
    """... and no error: a load that nobody answered has results, too."""
    none = Tally.from_plain(counted().as_plain()).latencies
    assert (none.get_total_count(), none.get_mean_value(), none.get_max_value()) == (0, 0, 0)
    assert none.get_value_at_percentile(99.9) == 0


def test_what_took_longer_than_an_hour_is_counted_as_an_hour_and_not_lost():
    one = counted(0.0, 3600.0, 3601.0, 80_000.0)
    total = Tally.from_plain(one.as_plain())
    total.add(one)
    assert (total.latencies.get_total_count(), total.over_an_hour) == (8, 4)
    assert seconds(total, 1) == 0
    assert seconds(total, 100) == pytest.approx(3600, rel=0.001)


def test_tallies_of_workers_are_added():
    """Counts are summed; they ran side by side, so of times the longest counts."""
    one, other = (
        Tally(seconds=2.0, latest=0.5, links=1, cpu=0.3),
        Tally(seconds=3.0, links=2, resumed=1, due=7),
    )
    one.succeeded(0.001, in_time=True)
    other.succeeded(0.003, in_time=False)
    one.failed(LinkLost("one"))
    other.failed(LinkLost("other"))
    other.failed(BodyError("odd"))
    other.left(2)
    total = Tally()
    total.add(one)
    total.add(other)
    assert (total.latencies.get_total_count(), total.in_time, total.seconds, total.latest) == (2, 1, 3.0, 0.5)
    assert (total.links, total.resumed, total.due, total.cpu) == (3, 1, 7, 0.3)
    assert {kind: (each.count, each.first) for kind, each in total.errors.items()} == {
        "link_lost": (2, "one: is the agent running there?"),
        "body": (1, "odd"),
        "unfinished": (2, "still out when the time to finish had passed"),
    }
