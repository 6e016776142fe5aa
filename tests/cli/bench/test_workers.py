"""The crew of a load with workers that do what the test says instead of putting load on anybody."""

import os
import signal
import sys

import pytest

from autolink.cli.bench import workers
from autolink.cli.bench.loop import Pace
from autolink.cli.bench.plan import Plan, Work
from autolink.cli.bench.tally import Tally
from autolink.cli.bench.workers import put_on

FAKE = """
import os, signal, sys, time
import msgpack
from autolink.cli.bench.plan import Plan
from autolink.cli.bench.tally import Tally
from autolink.cli.bench.worker import LENGTH

def tell(what, value=None):
    sys.stdout.buffer.write(msgpack.packb([what, value]))
    sys.stdout.buffer.flush()

def counted(count):
    tally = Tally(seconds=0.5)
    for _ in range(count):
        tally.succeeded(0.001, in_time=True)
    return tally.as_plain()

(size,) = LENGTH.unpack(os.read(0, 8))
does = Plan.from_bytes(os.read(0, size)).name
if does == "fails to start":
    sys.exit(7)
if does == "is refused at once":
    tell("end", {"tally": counted(0), "error": {"ok": False, "status": 3, "error": "no"}})
    sys.exit()
tell("ready")
went = os.read(0, 1)
if went and does == "dies":
    tell("tally", counted(3))
    os.kill(os.getpid(), signal.SIGKILL)
elif went and does == "is refused":
    tell("end", {"tally": counted(2), "error": {"ok": False, "status": 3, "error": "no"}})
elif went and does == "is deaf":
    tell("tally", counted(4))
    time.sleep(60)
else:
    if went and does == "works until told to stop":
        tell("tally", counted(5))
        os.read(0, 1)
    tell("end", {"tally": counted(10 if went else 0), "error": None})
"""


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", FAKE))
    monkeypatch.setattr(workers, "_EVERY", 0.01)


def plan(does, seconds=60.0):
    return Plan(Work("handshake"), Pace(1, seconds, 1.0), "autolink://", False, does, [], [])


async def outcome(*does, show=None, seconds=60.0):
    return await put_on([plan(one, seconds) for one in does], show)


async def test_what_the_workers_counted_is_added_up():
    came = await outcome("works", "works")
    assert came.tally.latencies.get_total_count() == 20
    assert (came.error, came.died, came.interrupted) == (None, [], False)


async def test_a_worker_that_dies_is_named_and_the_others_go_on():
    """What it had told before counts."""
    came = await outcome("works", "dies", "fails to start")
    assert came.tally.latencies.get_total_count() == 13
    assert came.died == ["worker 2 died of SIGKILL", "worker 3 ended with status 7"]
    assert came.error is None


async def test_a_worker_that_is_refused_ends_the_others_too():
    came = await outcome("works until told to stop", "is refused")
    assert came.tally.latencies.get_total_count() == 12
    assert came.error == {"ok": False, "status": 3, "error": "no"}
    assert came.died == []


async def test_nobody_begins_if_one_is_refused_before():
    came = await outcome("works", "is refused at once")
    assert came.tally.latencies.get_total_count() == 0
    assert came.error["status"] == 3
    assert came.died == []


async def test_a_worker_that_does_not_end_is_ended(monkeypatch):
    """... and named, and what it had told is kept."""
    monkeypatch.setattr(workers, "GRACE", 0.0)
    monkeypatch.setattr(workers, "_PATIENCE", 1.0)
    came = await outcome("is deaf", "works", seconds=0.0)
    assert came.tally.latencies.get_total_count() == 14
    assert came.died == ["worker 1 did not end in time"]


def interrupts(at):
    """Sends SIGINT to this process whenever that many operations have been shown."""
    left = list(at)

    def show(tally: Tally):
        if left and tally.latencies.get_total_count() >= left[0]:
            del left[0]
            os.kill(os.getpid(), signal.SIGINT)

    return show


async def test_an_interrupt_stops_the_workers_and_keeps_what_they_counted():
    came = await outcome("works until told to stop", "works until told to stop", show=interrupts([10]))
    assert came.interrupted
    assert came.tally.latencies.get_total_count() == 20
    assert came.died == []


async def test_a_second_interrupt_does_not_wait_for_them():
    came = await outcome("is deaf", "works until told to stop", show=interrupts([9, 14]))
    assert came.interrupted
    assert came.tally.latencies.get_total_count() == 14
    assert came.died == ["worker 1 did not end in time"]


def test_a_plan_does_not_show_its_keys():
    assert "secret" not in repr(Plan(Work("handshake"), Pace(1, 1, 1), "", False, "", [], [[b"", b"secret"]]))
