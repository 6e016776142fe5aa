"""`python -m benchmarks`: what it refuses, what it says is missing, and what it keeps when it is interrupted."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import plots
from benchmarks.processes import StackFailed
from benchmarks.result import BARS, Result
from benchmarks.stacks import STACKS


def run(*arguments):
    return CliRunner().invoke(command.main, arguments, catch_exceptions=False, env={"COLUMNS": "200"})


@pytest.fixture
def suite(monkeypatch):
    """A suite of one benchmark, `call`, that finds one figure and then does as it is told."""

    def benchmark(bench):
        bench.result(Result("call", "autolink", "calls/s", 1234.0, params={"size": 100}))
        bench.row("call_vs_floor", 0.55)
        told.then()

    told = SimpleNamespace(then=lambda: None)
    monkeypatch.setattr(command, "SUITE", {"call": benchmark})
    monkeypatch.setattr(command, "_present", lambda *_: [])
    return told


def test_an_unknown_benchmark_is_one_clear_line(tmp_path):
    """In a process of its own, as a person types it."""
    line = [sys.executable, "-m", "benchmarks", "nothing", "--json", str(tmp_path / "out.json")]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith(
        "benchmarks: no benchmark is called nothing; there are handshake, verify,"
    )
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--peers", "carrier-pigeon"], "no neighbour is called carrier-pigeon; there are asyncio+ssl, "),
        (["--json", "/no/such/folder/out.json"], "there is no folder /no/such/folder to write out.json into"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(arguments, line):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"benchmarks: {line}")
    assert result.stderr.count("\n") == 1


def test_plots_without_matplotlib_are_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    result = run("--plots", "somewhere")
    assert result.exit_code == 2
    install = (
        f"{shlex.quote(sys.executable)} -m pip install -e '.[bench]'"  # for this Python, whatever `pip` is
    )
    assert result.stderr == f"benchmarks: plots need matplotlib: {install}\n"


def test_the_json_holds_figures_machine_versions_and_the_table(suite, tmp_path):
    result = run("call", "--quick", "--json", str(tmp_path / "out.json"))
    assert result.exit_code == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["results"] == [
        {"name": "call", "stack": "autolink", "metric": "calls/s", "value": 1234.0, "p50_us": None, "p99_us": None,
         "cpu_us": None, "baseline": None, "ratio": None, "size": 100}
    ]  # fmt: skip
    assert list(written["table"]) == list(BARS)
    assert written["table"]["call_vs_floor"] == 0.55
    assert {"system", "processor", "cores", "memory_gib"} <= written["machine"].keys()
    assert written["versions"].keys() == {
        "Python",
        "OpenSSL of Python's ssl",
        "OpenSSL of cryptography",
        *STACKS,
    }
    assert "python -m benchmarks" in written["command"]
    assert written["noise"] == {"median": None, "by_comparison": {}}
    assert "1,234" in result.output


def test_the_table_shows_the_rows_that_were_measured_and_counts_the_others(suite):
    """With the verdict on each mark spelled out."""
    output = run("call").output
    assert re.search(r"call_vs_floor +0\.55x +≥ 0\.5 met +≥ 0\.65 not met", output)
    assert "handshake_vs_grpc" not in output
    assert f"{len(BARS) - 1} of the {len(BARS)} rows of the table were not measured in this run." in output


def test_only_the_versions_of_what_ran_are_shown(suite):
    output = run("call").output
    assert "; autolink: " in output
    assert "grpcio" not in output


def test_an_interrupted_run_keeps_what_it_has_found(suite, tmp_path):
    """Ctrl-C, and SIGTERM just so: the table is printed, the JSON written, the status that of an interrupted command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        suite.then = lambda number=number: os.kill(os.getpid(), number)
        path = tmp_path / f"{number}.json"
        result = run("--json", str(path))
        assert result.exit_code == 130
        assert "interrupted: what follows is what was found until then" in result.output
        assert json.loads(path.read_text())["table"]["call_vs_floor"] == 0.55


def test_a_benchmark_that_fails_is_one_line_and_the_others_go_on(suite, monkeypatch):
    def fails(bench):
        raise StackFailed("autolink: its server died with status 1")

    monkeypatch.setattr(command, "SUITE", {"verify": fails} | command.SUITE)
    result = run()
    assert result.exit_code == 1
    assert "left out: verify: autolink: its server died with status 1" in result.output
    assert "1,234" in result.output


def test_a_neighbour_that_is_not_installed_is_one_line_and_a_note_in_its_rows(suite, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(command, "SUITE", {"call": lambda bench: None})
    monkeypatch.setattr(STACKS["grpcio"], "missing", lambda: "pip install grpcio")
    result = run("--peers", "grpc", "--json", str(tmp_path / "out.json"))
    assert result.exit_code == 0
    assert "left out: grpcio is missing: pip install grpcio" in result.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["bars"]["call32_vs_grpc"]["note"] == "grpcio is missing: pip install grpcio"
    assert written["versions"]["grpcio"] == "missing: pip install grpcio"
