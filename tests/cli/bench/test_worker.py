"""One worker alone, and a parent that leaves: nothing stays behind, and nothing is said to nobody."""

import subprocess
import sys

import msgpack
import pytest

from autolink import Credential
from autolink.cli.bench.loop import Pace
from autolink.cli.bench.plan import Plan, Work, unencrypted
from autolink.cli.bench.worker import COMMAND, LENGTH

NOBODY = f"autolink://{'0' * 64}@127.0.0.1:1"


@pytest.fixture
def plan():
    """Handshakes with nobody, for a minute."""
    callers = [unencrypted(Credential.self_issued("acme"))]
    packed = Plan(
        Work("handshake"), Pace(1, 60.0, 1.0), NOBODY, False, "acme", [["self-certified", None]], callers
    ).to_bytes()
    return LENGTH.pack(len(packed)) + packed


@pytest.fixture
def worker():
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    with process:
        yield process
        process.kill()


def told(worker):
    """The next thing it says."""
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(worker.stdout.read(1))
        for said in unpacker:
            return said


@pytest.mark.parametrize("part", [0, 3, 20])
def test_a_plan_that_is_cut_off_is_not_carried_out(worker, plan, part):
    """The parent died while it was telling."""
    stdout, stderr = worker.communicate(plan[:part], timeout=25)
    assert (stdout, stderr, worker.returncode) == (b"", b"", 0)


def test_a_worker_that_is_stopped_before_it_began_has_counted_nothing(worker, plan):
    worker.stdin.write(plan)
    assert told(worker) == ["ready", None]
    worker.stdin.close()
    what, came = told(worker)
    assert (what, came["error"], came["tally"]["started"]) == ("end", None, 0)
    assert worker.wait(25) == 0


def test_a_worker_that_is_stopped_under_load_tells_what_it_counted(worker, plan):
    """Bytes that mean nothing change nothing; the end of stdin does."""
    worker.stdin.write(plan)
    assert told(worker) == ["ready", None]
    worker.stdin.write(b"!!")
    what, tally = told(worker)
    assert what == "tally"
    assert tally["errors"]["unreached"][0] == tally["started"] > 0
    worker.stdin.close()
    while (said := told(worker))[0] == "tally":
        pass
    assert said[0] == "end"
    assert said[1]["error"] is None
    assert worker.wait(25) == 0


def test_a_worker_that_nobody_listens_to_ends(worker, plan):
    """... without a traceback: the parent is gone."""
    worker.stdin.write(plan)
    assert told(worker) == ["ready", None]
    worker.stdout.close()
    worker.stdin.write(b"!")
    assert worker.wait(25) == 1
    assert worker.stderr.read() == b""


def test_a_worker_takes_no_module_from_the_working_directory(tmp_path, plan):
    """`click.py` in a folder where somebody runs a load test is not run."""
    (tmp_path / "click.py").write_text("raise SystemExit('taken from here')")
    ran = subprocess.run(COMMAND, input=b"", cwd=tmp_path, capture_output=True, timeout=25, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert str(tmp_path) not in sys.path
