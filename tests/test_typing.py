"""The public API as a type checker sees it: `tests/typing` holds programs in the shapes that users write."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_programs_pass_mypy_strict_against_the_package_and_misuse_does_not():
    """Without this project's configuration, as in a user's; `misuse.py` says line by line what has to be an error."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("TYPES NOT CHECKED: mypy is not installed; it comes with the extra `test`")
    from mypy import api

    programs = sorted(map(str, (ROOT / "tests" / "typing").glob("*.py")))
    report, errors, status = api.run(
        ["--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'strict'}", *programs]
    )
    assert programs
    assert status == 0, report + errors
