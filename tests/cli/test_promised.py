"""What the commands keep of a registry's promise whose outcome they were not shown."""

from typing import Any

import pytest

from autolink.errors import EntryRefused, Fault, LinkLost, RemoteProtocolError
from autolink.identity import Keystore
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry
from autolink.registry.submitter import Withheld


@pytest.mark.parametrize(
    ("outcome", "status", "says"),
    [
        (Withheld(b""), 1, "was gone before it said that it had"),
        (EntryRefused(Fault.UNAVAILABLE, "so it says"), 3, "so it says (unavailable)"),
        (LinkLost("cut"), 5, "cut"), (RemoteProtocolError("what?"), 1, "what?"),
        (TimeoutError(), 5, "did not answer, given up after "), (KeyboardInterrupt(), 130, "the registry had not answered"),
    ],
)  # fmt: skip
def test_a_promise_whose_outcome_is_not_shown_is_kept(sh, monkeypatch, outcome, status, says):
    """It convicts whoever runs the registry, if the entry is not there in time: whatever ended the waiting."""
    submitted: list[bytes] = []

    async def gone(client: RegistryClient, entry: Entry, *, promised: Any) -> None:
        submitted.append(entry.to_bytes())
        promised(b"promise")
        raise outcome

    monkeypatch.setattr(RegistryClient, "submit", gone)
    result = sh("id", "register", "acme")
    assert result.exit_code == status
    assert says in result.stderr
    of_what, kept = sorted((Keystore().folder("acme") / "registry").iterdir())
    assert kept.name.startswith("withheld-")
    assert [of_what.read_bytes(), kept.read_bytes()] == [*submitted, b"promise"]
    assert f"its promise is in {kept}\n" in result.stderr


def test_a_promise_that_cannot_be_kept_hides_nothing(sh, monkeypatch):
    async def gone(client: RegistryClient, entry: Entry, *, promised: Any) -> None:
        promised(b"promise")
        raise LinkLost("cut")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RegistryClient, "submit", gone)
    monkeypatch.setattr("autolink.cli.keeping.files.write_atomic", full)
    line = sh.fails(5, "id", "register", "acme")
    assert "cut" in line
    assert line.endswith("its promise cannot be kept (No space left on device)")


def test_a_promise_before_a_refusal_is_kept_though_nothing_is_said(sh):
    """A registry that withholds an entry may call it stale. What was taken, and is found again, leaves nothing."""
    sh.ok("id", "register", "acme")
    before = set((Keystore().folder("acme") / "registry").iterdir())
    sh.ok("id", "register", "acme")
    assert set((Keystore().folder("acme") / "registry").iterdir()) == before
    line = sh.fails(3, "id", "delay", "acme")
    assert line.endswith("(not_recovering)")
    kept = set((Keystore().folder("acme") / "registry").iterdir()) - before
    assert {path.name[:8] + path.suffix for path in kept} == {"refused-.entry", "refused-.receipt"}
