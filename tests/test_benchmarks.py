"""The benchmarks run and give figures of the right shape. How fast is no test's business."""

import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import BASELINE, UNIT, compare


@pytest.mark.parametrize("name", sorted(UNIT))
def test_a_benchmark_compares_both_stacks(name):
    result = compare(name, rounds=1, seconds=0.1)
    assert result["autolink"] > 0
    assert result[BASELINE] > 0
    assert result["noise"] >= 1


def test_an_unknown_benchmark_is_one_clear_line(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "nothing", "--json", str(tmp_path / "out.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "no benchmark is called nothing" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_json_holds_figures_and_versions(tmp_path, monkeypatch, capsys):
    import benchmarks.__main__ as command

    monkeypatch.setattr(command, "compare", lambda name, rounds, seconds: {
        "name": name, "unit": "", "autolink": 2.0, BASELINE: 1.0, "ratio": 2.0, "noise": 1.0,
    })  # fmt: skip
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "message", "--quick", "--json", str(tmp_path / "out.json")]
    )
    command.main()
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["name"] for one in written["results"]] == ["message"]
    assert "OpenSSL" in written["versions"]
    assert "2.00" in capsys.readouterr().out
