"""`autolink bench` against a real `autolink run` in another process, with workers in processes of their own."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner
from rich.console import Console

from autolink.cli import main
from autolink.cli.bench import command, report
from autolink.cli.bench.tally import Tally
from autolink.cli.bench.workers import Outcome

BUYER = ("--as", "buyer", "--trust", "issuer:acme.pem")
NOBODY = f"autolink://{'0' * 64}@127.0.0.1:1"
ACME = ("--as", "acme", "--trust", "issuer:acme.pem")


@pytest.fixture
def bench(here):
    def run(*args, status=0):
        result = CliRunner().invoke(main, ["bench", *args], catch_exceptions=False)
        assert "Traceback" not in result.output
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def told(bench):
    """The object of `--json`."""
    return lambda *args, status=0: json.loads(bench(*args, "--json", status=status).stdout)


def error(result):
    (said,) = [said for said in result.stderr.splitlines() if said.startswith("Error: ")]
    assert said.isprintable()
    return said.removeprefix("Error: ")


def test_handshakes_in_a_closed_loop(told, target):
    """What was opened, by whom, how long it took; who answered, and that nothing was resumed, for nobody asked."""
    came = told("handshake", target, *BUYER, "--duration", "0.5", "--concurrency", "3")
    assert came["ok"]
    assert (came["operation"], came["loop"], came["concurrency"], came["workers"]) == (
        "handshake",
        "closed",
        3,
        1,
    )
    assert came["succeeded"] == came["links"]["opened"] > 3
    assert came["links"]["resumed"] == 0
    assert came["errors"] == {}
    assert came["rate"] is None
    assert came["seconds"] == 0.5
    assert 0 < came["per_second"] <= came["succeeded"] / 0.5
    latency = came["latency_us"]
    assert (
        0
        < latency["p50"]
        <= latency["p90"]
        <= latency["p99"]
        <= latency["p99_9"]
        <= latency["max"]
        < 30_000_000
    )
    assert came["peer"]["name"].endswith("/seller")
    assert came["peer"]["tls"] == "TLSv1.3"


def test_handshakes_that_resume_and_those_that_do_not_are_told_apart(told, target):
    """One after the other, every second one tries: the first of those has nothing to resume yet."""
    came = told("handshake", target, *BUYER, "-d", "0.5", "-c", "1", "--resume", "0.5")
    assert came["succeeded"] > 3
    assert came["links"]["resumed"] == came["links"]["opened"] // 2 - 1
    everyone = told("handshake", target, *BUYER, "-d", "0.5", "-c", "1", "--resume", "1")
    assert everyone["links"]["resumed"] == everyone["links"]["opened"] - 1


def test_calls_in_an_open_loop_of_several_callers_and_workers(told, target):
    """Each caller is issued for the run and has a link of its own; the workers share the rate."""
    came = told(
        "call",
        target,
        "echo",
        '{"a": -7}',
        *ACME,
        "-d",
        "0.5",
        "--rate",
        "80",
        "--workers",
        "2",
        "--identities",
        "3",
    )
    assert (came["loop"], came["workers"], came["identities"]) == ("open", 2, 3)
    assert came["links"]["opened"] == 3
    assert came["rate"]["asked"] == 80
    assert came["rate"]["due"] == 40
    assert came["succeeded"] == came["rate"]["begun"]
    assert came["errors"] == {}


def test_messages_are_counted_when_they_are_confirmed(told, target):
    came = told("message", target, *BUYER, "-d", "0.5", "-c", "40", "--size", "3000")
    assert came["name"] == "sink"
    assert came["succeeded"] > 40
    assert came["links"]["opened"] == 1
    assert came["errors"] == {}


def test_a_person_gets_the_same_in_words_and_learns_that_the_rate_was_not_held(bench, target):
    result = bench(
        "call", target, "echo", "--size", "100", *BUYER, "-d", "0.3", "--rate", "1000000", "-c", "2"
    )
    facts = dict(said.split(maxsplit=1) for said in result.stdout.splitlines())
    assert f"/seller at {target.rpartition('@')[2]}, TLSv1.3 with X25519MLKEM768" in facts["peer"]
    assert (
        facts["load"]
        == "call echo, open loop, 1,000,000/s, at most 2 at once, for 0.3 s, 1 worker, 1 identity"
    )
    assert "calls answered" in facts["done"]
    assert facts["links"] == "1 opened, 0 of them resumed"
    assert facts["latency"].split()[::3] == ["p50", "p90", "p99", "p99.9", "max"]
    assert facts["mean"].split()[1] in ("µs", "ms", "s")
    assert len(f"latency  {facts['latency']}") <= 80
    assert facts["errors"] == "none"
    assert "Note: the rate was not held: of 300,000 operations that were due" in result.stderr


def test_a_stranger_is_refused_before_there_is_any_load(bench, told, target):
    result = bench("handshake", target, "--as", "bob", "--trust", "issuer:acme.pem", status=3)
    assert error(result).endswith(
        "trust your anchor: autolink id export bob; if it asks a registry: add --registry"
    )
    assert not result.stdout
    assert "we refused" in error(
        bench("message", target, "--as", "buyer", "--trust", "issuer:bob.pem", status=3)
    )
    failed = told("handshake", target, "--as", "bob", "--trust", "issuer:acme.pem", status=3)
    assert (failed["ok"], failed["refused_by"], failed["reason"]) == (False, "peer", "untrusted")


@pytest.mark.parametrize("kind", [("handshake",), ("call", "echo"), ("message",)])
def test_a_refusal_under_load_ends_it_and_keeps_the_results(told, serve, kind):
    """The third of five callers is refused. It does not ask again, nobody else does, and who said no is told."""
    name, *rest = kind
    contact = serve("shop:picky").contact
    came = told(name, contact, *rest, *ACME, "--identities", "5", "-c", "1", "-d", "30", status=3)
    assert (came["ok"], came["refused_by"], came["reason"]) == (False, "peer", "untrusted")
    assert "refused us: untrusted" in came["error"]
    assert came["links"]["opened"] == 2
    assert came["succeeded"] == (2 if name == "handshake" else 0)
    assert came["seconds"] < 30


def test_an_interrupt_prints_the_results_so_far(start, shop):
    """Status 130, also for one that was told to print JSON; twenty calls had been taken by then."""
    load = start("bench", "call", shop.contact, "tells", *BUYER, "-d", "60", "-c", "1", "--json")
    assert shop.stdout.readline() == "twenty\n"
    load.send_signal(signal.SIGINT)
    stdout, stderr = load.communicate(timeout=25)
    assert load.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "interrupted"
    came = json.loads(stdout)
    assert came["interrupted"]
    assert (came["ok"], came["status"]) == (False, 130)
    assert came["succeeded"] >= 18
    assert 0 < came["seconds"] < 60


def test_an_agent_that_dies_under_load_shows_as_errors_by_kind_and_fails_the_run(told, shop):
    """The one call that was out lost its link, and after it nobody was reached: that, and since when, is told."""
    came = told("call", shop.contact, "ends", *BUYER, "-d", "1", "-c", "1", "--rate", "100", status=5)
    assert (came["ok"], came["status"]) == (False, 5)
    assert came["error"].startswith(f"no operation succeeded after {came['last_success_s']:.3g} s of 1 s; ")
    assert came["error"].endswith("is the agent running there?")
    assert came["succeeded"] == 18
    assert came["errors"].keys() == {"link_lost", "unreached"}
    assert came["errors"]["unreached"]["count"] > 1
    assert "is the agent running there?" in came["errors"]["unreached"]["first"]


def test_if_not_one_operation_succeeds_the_status_says_why(bench, shop):
    result = bench("call", shop.contact, "once", *BUYER, "-d", "0.3", "-c", "2", status=4)
    assert error(result).startswith("not one operation succeeded: ")
    assert "resource_exhausted: one is enough\\u{1b}[31m" in error(result)
    *_, heading, row = result.stdout.splitlines()
    assert heading.split() == ["error", "count", "the", "first"]
    assert row.startswith("answered:resource_exhausted")
    assert not any(said.endswith(" ") for said in result.stdout.splitlines())


def test_what_cannot_work_is_told_in_one_line_before_there_is_any_load(bench, target, tmp_path):
    """As `autolink call` would tell it, and with the same status."""
    nobody = f"{target.rpartition(':')[0]}:1"
    assert "is the agent running there?" in error(bench("handshake", nobody, *BUYER, status=5))
    assert "unimplemented" in error(bench("call", target, "no.such", *BUYER, status=4))
    assert "channel 'no.such', which has to send back" in error(
        bench("message", target, "--channel", "no.such", *BUYER, status=4)
    )
    assert "whom to expect at" in error(bench("handshake", "127.0.0.1:1", *BUYER, status=2))
    assert error(bench("call", "hello", "echo", *BUYER, status=2)).startswith("'hello' is no contact: ")
    assert "not both" in error(bench("call", target, "echo", "1", "--size", "1", *BUYER, status=2))
    assert "no JSON" in error(bench("call", target, "echo", "{", *BUYER, status=2))
    assert "3 workers have nothing to do" in error(
        bench("handshake", target, *BUYER, "-c", "2", "--workers", "3", status=2)
    )
    assert "is not in the range" in error(bench("handshake", target, *BUYER, "--resume", "1.5", status=2))
    assert "'50%' is not a number from 0 up to 1" in error(
        bench("handshake", target, *BUYER, "--resume", "50%", status=2)
    )
    assert "'2s' is not a number over 0 up to 86,400" in error(
        bench("handshake", target, *BUYER, "-d", "2s", status=2)
    )
    assert "nan is no number" in error(bench("handshake", target, *BUYER, "--rate", "nan", status=2))
    line = error(bench("handshake", target, *BUYER, "--identities", "2", status=1))
    assert "--identities 2 needs an --as that can issue agents" in line
    os.mkfifo(tmp_path / "fifo")
    once = ("--as", "buyer", "--trust", f"issuer:{tmp_path / 'fifo'}")
    assert "it must be a file" in error(bench("handshake", target, *once, status=2))
    once = ("--as", "buyer", "--trust", "pinned:-")
    assert "it must be a file" in error(bench("handshake", target, *once, status=2))
    missing = ("--as", "buyer", "--trust", "issuer:nofile.pem")
    assert (
        error(bench("handshake", target, *missing, status=1))
        == "--trust issuer:nofile.pem: No such file or directory"
    )
    anyone = (target.rpartition("@")[2], "--anyone-trusted")
    assert "--resume needs a contact" in error(bench("handshake", *anyone, *BUYER, "--resume", "1", status=2))


WITHOUT = """
import sys
sys.modules["hdrh"] = None
from autolink.cli import main
main()
"""


def test_without_its_histograms_a_load_test_says_what_to_install(here):
    """One line and status 1, and on stdout what a script asked for. All other commands do without."""

    def run(*args):
        command = (sys.executable, "-c", WITHOUT, "bench", *args)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    ran = run("handshake", NOBODY, *BUYER, "--json")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("Error: a load test needs the package hdrhistogram (")
    assert "): pip install hdrhistogram" in line
    assert (ran.returncode, json.loads(ran.stdout)["status"]) == (1, 1)
    helped = run("--help")
    assert (helped.returncode, helped.stderr) == (0, "")


def test_an_address_alone_and_known_agents_will_do_as_for_a_call(told, target, tmp_path):
    """On first use the agent is accepted once, before the load; the workers know it from the file."""
    known = tmp_path / "known"
    trust = ("--as", "buyer", "--trust", f"known:{known}", "--on-first", "accept")
    came = told("handshake", target.rpartition("@")[2], "--anyone-trusted", *BUYER, "-d", "0.2")
    assert came["succeeded"] > 0
    came = told("handshake", target, *trust, "-d", "0.2")
    assert came["succeeded"] > 0
    assert known.read_text().count("seller") == 1


def test_on_a_terminal_there_is_a_bar_with_what_was_counted_so_far(monkeypatch):
    """... and elsewhere none."""
    with report.progress(10.0) as nothing:
        assert nothing is None
    shown = io.StringIO()
    monkeypatch.setattr(report, "Console", partial(Console, file=shown, force_terminal=True, width=120))
    tally = Tally(seconds=2.5)
    for _ in range(50):
        tally.succeeded(0.0123, in_time=True)
    with report.progress(10.0) as show:
        show(Tally())
        show(tally)
    assert "starting" in shown.getvalue()
    assert "2/10 s  20/s  p50 12.3 ms, p99 12.3 ms  0 errors" in shown.getvalue()


def test_who_measures_with_a_busy_worker_is_warned():
    told = {"rate": None, "over_an_hour": 0, "cpu": 0.97}
    (remark,) = report.remarks(told)
    assert "busy for 97% of the time" in remark
    assert not list(report.remarks({"rate": {"held": True}, "over_an_hour": 0, "cpu": 0.5}))


def test_what_took_longer_than_an_hour_is_told():
    (remark,) = report.remarks({"rate": None, "over_an_hour": 1234, "cpu": 0.5})
    assert remark.startswith("1,234 operations took longer than an hour")


def test_a_worker_that_died_is_named_and_makes_the_run_fail():
    """... unless somebody stopped it, or the agent refused it, which says more."""
    died = Outcome(died=["worker 2 died of SIGKILL"])
    assert command.wrong(died)["status"] == 1
    assert command.wrong(died)["error"].startswith("worker 2 died of SIGKILL: what it had counted")
    assert command.wrong(replace(died, interrupted=True))["status"] == 130
    assert command.wrong(replace(died, interrupted=True, error={"status": 3}))["status"] == 3


@pytest.mark.parametrize(
    ("success", "failure", "status"),
    [
        pytest.param(7.6, 8.0, None, id="some answers until the end"),
        pytest.param(7.4, 8.0, 5, id="none in the last quarter"),
        pytest.param(2.9, 2.8, None, id="few operations, of which the last one succeeded"),
        pytest.param(2.9, 15.0, 5, id="what was out in the end never ended"),
    ],
)
def test_errors_fail_a_run_only_if_nothing_succeeded_any_more(success, failure, status):
    """Of two workers the later success counts, and the later failure."""
    tally = Tally(seconds=10, last_failure=1.0, last_success=success)
    tally.add(Tally(seconds=10, last_failure=failure))
    tally.succeeded(0.1, in_time=True)
    tally.failed(TimeoutError("not done within 1 s"))
    ended = command.wrong(Outcome(tally))
    assert ended.get("status") == status
    if status:
        assert ended["error"] == (
            f"no operation succeeded after {success} s of 10 s; the errors are mostly: not done within 1 s"
        )


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "0 µs"),
        (999, "999 µs"),
        (1000, "1.00 ms"),
        (12_345, "12.3 ms"),
        (999_999, "1000 ms"),
        (61_000_000, "61.0 s"),
    ],
)
def test_times_are_shown_with_three_digits(microseconds, shown):
    assert report.duration(microseconds) == shown
