"""acme's keystore, and a seller of acme that serves in a process of its own what loads are put on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest
from click.testing import CliRunner

from autolink.cli import main

AUTOLINK = Path(sys.executable).parent / "autolink"

SHOP = """
import itertools
import os

from autolink import Agent, Call, CallError, Credential, TrustAnchor
from autolink.testing.target import handlers
from autolink.trust import Context, Grounds, IssuedBy, Model, NotVouched, Presented

calls = itertools.count(1)


@handlers.method
async def once(call: Call, body: object) -> None:
    if next(calls) > 1:
        raise CallError("resource_exhausted", "one is enough\\x1b[31m")


@handlers.method
async def tells(call: Call, body: object) -> None:
    if next(calls) == 20:
        print("twenty", flush=True)


@handlers.method
async def ends(call: Call, body: object) -> None:
    if next(calls) == 20:
        os._exit(1)


class NotTheThird(Model):
    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if presented.name == "bench-3":
            raise NotVouched("not this one")
        return Grounds("NotTheThird", "any other")


trust = IssuedBy(TrustAnchor.load("acme.pem")) & NotTheThird()
picky = Agent(Credential.load("seller"), trust=trust, handlers=handlers)
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """acme with its agents seller and buyer, and the stranger bob; shop.py."""
    path = tmp_path_factory.mktemp("bench")

    def do(*args: str, stdin: bytes | None = None) -> bytes:
        environment = {"AUTOLINK_HOME": str(path / "home")}
        result = CliRunner().invoke(main, list(args), input=stdin, env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout_bytes

    for name in ("acme", "bob"):
        do("id", "new", name, "--unencrypted", "--next-key", str(path / f"{name}.next"))
        do("id", "export", name, "-o", str(path / f"{name}.pem"))
    for name in ("seller", "buyer"):
        request = do("id", "request", name, "--unencrypted")
        do("id", "accept", name, "-", stdin=do("id", "issue", "-", "--as", "acme", stdin=request))
    (path / "shop.py").write_text(SHOP)
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as working directory and keystore of this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AUTOLINK_HOME", str(folder / "home"))
    return folder


@pytest.fixture(scope="session")
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `autolink …` in that folder; it ends with the tests at the latest."""
    running: list[subprocess.Popen[str]] = []

    def started(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [AUTOLINK, *args], cwd=folder, env={**os.environ, "AUTOLINK_HOME": str(folder / "home")}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line on stdout; a process that says nothing is ended, so that the test fails instead of waiting."""
    patience = Timer(20, process.kill)
    patience.start()
    try:
        said = process.stdout.readline()
    finally:
        patience.cancel()
    assert said, f"it ended without saying so: {process.stderr.read()}"
    return said.rstrip("\n")


@pytest.fixture(scope="session")
def serve(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Starts `autolink run …`; the process has the `contact` that it printed."""

    def served(*args: str) -> subprocess.Popen[str]:
        process = start("run", *args)
        process.contact = line(process)
        return process

    return served


SELLER = ("--as", "seller", "--trust", "issuer:acme.pem")


@pytest.fixture(scope="session")
def target(serve: Callable[..., subprocess.Popen[str]]) -> str:
    """The contact of an agent that serves what autolink brings for loads."""
    return serve("autolink.testing.target:handlers", *SELLER).contact


@pytest.fixture
def shop(serve: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """A process that serves shop.py, for one test."""
    return serve("shop:handlers", *SELLER)
