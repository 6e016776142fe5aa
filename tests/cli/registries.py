"""What the tests of the registry's commands share: one that is served, and how to speak of it."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.identity import issuing
from autolink.registry.client import RegistryClient
from autolink.registry.log.note import VerifierKey
from tests.cli.market import Market, Process

ORIGIN = "registry.example/log"
OTHER_KEY = str(VerifierKey.of(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()))
NOBODY = f"autolink://{'0' * 64}@127.0.0.1:1"


def serve(market: Market, *options: str) -> tuple[Process, str]:
    """A registry in a process of its own, and its log's key."""
    server = market.start("registry", "serve", "reg", "--as", "keeper", *options)
    server.contact = server.line()
    return server, server.line()


@dataclass
class Served:
    """What everybody needs of a registry, and its folder."""

    folder: Path
    contact: str
    log_key: str
    url: str


def ends(sh: Any, status: int, *args: str) -> str:
    """As `fails`, of a command that has had something to say before."""
    result = sh(*args)
    assert result.exit_code == status, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def id_of(sh: Any, name: str) -> str:
    return sh.json("id", "show", name)["auto_id"]


def pass_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates begin on whole seconds, and one that follows another begins later: those from now on do."""
    monkeypatch.setattr(issuing, "BACKDATE", issuing.BACKDATE - timedelta(seconds=1))


class Lies:
    """What a registry answers instead; the commands run in this process, so it is enough to say so here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def tell(self, method: str, change: Any) -> None:
        before = getattr(RegistryClient, method)

        async def lie(client: RegistryClient, *args: Any) -> Any:
            return change(await before(client, *args))

        self._monkeypatch.setattr(RegistryClient, method, lie)
