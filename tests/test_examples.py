"""The examples print what their docstrings say, without preparation, and stay short."""

import ast
import importlib.util
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from autolink import CallError, Code, DeliveryUnknown, Reason, Refused

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"asyncio_app": ("fastapi", "httpx")}


def expected(source: str) -> str:
    """The indented block behind "It prints::" in a module's docstring."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    _, _, block = docstring.partition("It prints::\n\n")
    return "".join(f"{line.removeprefix('    ')}\n" for line in block.splitlines())


def test_there_is_one_example_for_each_way_of_talking():
    assert {path.stem for path in EXAMPLES} == {
        "echo", "relay", "request_reply", "streaming", "pubsub", "cancellation", "custom_trust_model", "asyncio_app",
    }  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_shorter_than_sixty_lines_and_prints_what_its_docstring_says(path, tmp_path):
    """Run as a user runs it, from an empty folder, in a process of its own and with unclosed resources as errors."""
    missing = [name for name in NEEDS.get(path.stem, ()) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"EXAMPLE NOT RUN: {', '.join(missing)} of the extra `test` is not installed")
    source = path.read_text()
    assert len(source.splitlines()) < 60
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AUTOLINK_", "COV"))
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == expected(source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimeoutError(), 504),
        (CallError(Code.NOT_FOUND, "no gold today", received=True), 404),
        (CallError(Code.INTERNAL, received=True), 502),
        (DeliveryUnknown("the link died"), 503),
        (Refused(Reason.UNTRUSTED, by="peer"), 503),
    ],
    ids=repr,
)
async def test_the_web_application_answers_each_end_of_a_call_with_its_own_status(error, status):
    """The link is a stand-in that ends every call with `error`, and sees that the call has a deadline."""
    pytest.importorskip("fastapi", reason="EXAMPLE NOT RUN: fastapi of the extra `test` is not installed")
    example = runpy.run_path(str(ROOT / "examples" / "asyncio_app.py"))

    async def call(method: str, body: object) -> None:
        assert anyio.current_effective_deadline() < math.inf
        raise error

    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(shop=SimpleNamespace(call=call))))
    with pytest.raises(example["HTTPException"]) as raised:
        await example["get_quote"]("gold", request)
    assert raised.value.status_code == status
