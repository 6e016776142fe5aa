"""The command in this process, on a keystore of its own, with a passphrase that is cheap to stretch."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autolink import Agent, Credential, TrustAnchor
from autolink.cli import main
from autolink.identity import Keystore, keystore, sealed
from autolink.trust import IssuedBy
from tests.cli import workers
from tests.cli.market import SHOP, Market
from tests.cli.registries import ORIGIN, Served, serve


@dataclass
class Shell:
    """Runs `autolink …` where `path` is the working directory."""

    path: Path

    def __call__(
        self, *args: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None
    ) -> Result:
        result = CliRunner().invoke(main, list(args), input=stdin, env=env, catch_exceptions=False)
        assert "Traceback" not in result.output
        return result

    def ok(self, *args: str, **how: Any) -> str:
        """The stdout of a command that has to succeed."""
        result = self(*args, **how)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str, **how: Any) -> dict[str, Any]:
        return json.loads(self.ok(*args, "--json", **how))

    def fails(self, status: int, *args: str, **how: Any) -> str:
        """The one line of a command that has to fail with that status."""
        result = self(*args, **how)
        assert result.exit_code == status, result.output
        (line,) = [line for line in result.stderr.splitlines() if not line.startswith("WARNING")]
        assert line.startswith("Error: ")
        assert line.isprintable()
        return line.removeprefix("Error: ")

    def issued(self, name: str, issuer: str, *terms: str) -> None:
        """Make `name`, an agent issued by `issuer`."""
        request = self.ok("id", "request", name, "--unencrypted")
        chain = self.ok("id", "issue", "-", "--as", issuer, *terms, stdin=request)
        self.ok("id", "accept", name, "-", stdin=chain)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOLINK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(keystore, "_passphrase", [])
    monkeypatch.setitem(Keystore.__init__.__kwdefaults__, "scrypt_n", 2**10)
    monkeypatch.setitem(sealed.seal.__kwdefaults__, "scrypt_n", 2**10)
    return Shell(tmp_path)


@pytest.fixture
def acme(shell: Shell) -> Shell:
    """A shell whose keystore holds the organisation `acme`, its anchor in acme.pem."""
    shell.ok("id", "new", "acme", "--unencrypted")
    shell.ok("id", "export", "acme", "-o", "acme.pem")
    return shell


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market")
    environment = {"AUTOLINK_HOME": str(path / "home")}

    def do(*args: str, stdin: bytes | None = None) -> bytes:
        result = CliRunner().invoke(main, list(args), input=stdin, env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout_bytes

    do("id", "new", "acme", "--unencrypted", "--next-key", str(path / "next"))
    do("id", "new", "bob", "--plain", "--unencrypted")
    do("id", "export", "acme", "-o", str(path / "acme.pem"))
    for name in ("seller", "buyer"):
        request = do("id", "request", name, "--unencrypted")
        do("id", "accept", name, "-", stdin=do("id", "issue", "-", "--as", "acme", stdin=request))
    (path / "shop.py").write_text(SHOP)
    return path


@pytest.fixture
def market(shell: Any, identities: Path) -> Iterator[Market]:
    shutil.copytree(identities, shell.path, dirs_exist_ok=True)
    made = Market(shell.path, {**os.environ, "AUTOLINK_HOME": str(shell.path / "home")})
    yield made
    made.end()


@pytest.fixture
def site(market: Market) -> Market:
    """A market whose module `site_of_acme` tells which process answers; `block` keeps one from accepting."""
    (market.path / "site_of_acme.py").write_text(workers.SITE)
    os.mkfifo(market.path / "fifo")
    return market


@pytest.fixture
def buyer(site: Market) -> Agent:
    """A caller of the site: another agent of acme's."""
    return Agent(Credential.load("buyer"), trust=IssuedBy(TrustAnchor.load("acme.pem")))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that takes everybody, for the tests that only talk to it."""
    path = tmp_path_factory.mktemp("registry")
    environment = {**os.environ, "AUTOLINK_HOME": str(path / "home")}
    for command in (
        ["id", "new", "keeper", "--unencrypted", "--next-key", str(path / "next")],
        ["registry", "init", str(path / "reg"), "--origin", ORIGIN, "--unencrypted"],
    ):
        assert CliRunner().invoke(main, command, env=environment).exit_code == 0
    market = Market(path, environment)
    try:
        server, log_key = serve(market, "--policy", "open", "--http", "127.0.0.1:0")
        yield Served(path / "reg", server.contact, log_key, server.line())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    finally:
        market.end()


@pytest.fixture
def sh(shell: Any, registry: Served, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A shell whose environment says which registry; its keystore holds acme and its agent echo."""
    monkeypatch.setenv("AUTOLINK_REGISTRY", registry.contact)
    monkeypatch.setenv("AUTOLINK_LOG_KEY", registry.log_key)
    shell.ok("id", "new", "acme", "--unencrypted")
    shell.issued("echo", "acme")
    return shell
