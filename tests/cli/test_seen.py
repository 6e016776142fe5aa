"""A registry that is not what it was: what this keystore has seen of its log is held against it at every visit."""

import errno
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from autolink.identity import Keystore, files
from autolink.registry.client import RegistryClient
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey
from tests.cli.market import Market, Process
from tests.cli.registries import ORIGIN, ends, id_of, pass_a_second, serve


class Restorable:
    """A registry at an address that stays, whose database can be put back."""

    def __init__(self, market: Market, folder: Path) -> None:
        self._market, self._folder = market, folder
        self._server: Process | None = None
        self._address = f"unix:{folder / 'registry.socket'}"
        self.contact = self.log_key = ""
        self.serve()

    def serve(self) -> None:
        self._server, self.log_key = serve(self._market, "--policy", "open", "--listen", self._address)
        self.contact = self._server.contact

    def copy(self) -> Path:
        """Of the database as it is now."""
        path = self._folder / "copy.db"
        live, copy = (sqlite3.connect(each) for each in (self._folder / "reg" / "log.db", path))
        with closing(live), closing(copy):
            live.backup(copy)
        return path

    def restore(self, copy: Path) -> None:
        """As its keeper who says that he goes on with what there is."""
        self._server.process.send_signal(signal.SIGTERM)
        assert self._server.process.wait(20) == 0
        for path in (self._folder / "reg").glob("log.db*"):
            path.unlink()
        shutil.copy(copy, self._folder / "reg" / "log.db")
        (self._folder / "reg" / "signed").unlink()
        self.serve()


@pytest.fixture
def restorable(market, shell, monkeypatch):
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    made = Restorable(market, shell.path)
    monkeypatch.setenv("AUTOLINK_REGISTRY", made.contact)
    monkeypatch.setenv("AUTOLINK_LOG_KEY", made.log_key)
    return made


def kept_with(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Keystore().folder(name) / "registry").iterdir()}


def seen(log_key: str) -> tuple[Path, Checkpoint]:
    (path,) = (Keystore().home / "registries").iterdir()
    return path, verify_untrusted(path.read_bytes(), VerifierKey.parse(log_key))


def test_a_log_that_was_rolled_back_is_refused_and_nothing_that_proves_it_is_written_over(
    shell, restorable, monkeypatch
):
    shell.ok("id", "register", "acme")
    copy = restorable.copy()
    pass_a_second(monkeypatch)
    shell.ok("id", "renew", "acme")
    before = kept_with("acme")
    assert len(before) == 6
    certificate = Keystore().chain("acme")[0]
    restorable.restore(copy)
    pass_a_second(monkeypatch)
    says = "the registry shows 1 entries, and its log had 2 before: what it shows is in evidence/unproved-"
    acme = id_of(shell, "acme")
    for command in (
        ("registry", "status", "acme"),
        ("registry", "status", acme),
        ("registry", "lookup", "acme"),
        ("registry", "history", "acme"),
        ("id", "register", "acme"),
        ("id", "register", "bob", "--unencrypted"),
        ("id", "renew", "acme"),
        ("id", "revoke", "acme", "--yes"),
        ("id", "publish-crl", "acme"),
    ):
        assert says in ends(shell, 1, *command)
    line = ends(shell, 1, "id", "rotate", "acme", "--unencrypted", "--next-key", "next")
    assert line.startswith(
        "Error: acme is rotated here, and not on record: autolink id record-rotation acme completes it: "
    )
    assert says in line
    assert (kept_with("acme"), Keystore().chain("acme")[1]) == (before, certificate)
    (evidence,) = (shell.path / "evidence").glob("*.evidence")
    path, known = seen(restorable.log_key)
    assert known.size == 2
    assert evidence.read_bytes().startswith(known.note + b"\n")  # the other one behind it
    assert evidence.read_bytes().count(ORIGIN.encode()) == 4

    path.unlink()  # whoever goes on with it all the same
    shell.ok("id", "record-rotation", "acme")
    after = kept_with("acme")
    assert before.items() < after.items()
    assert {name.partition("-1-")[2] for name in after.keys() - before.keys()} == {
        f"rotate.{what}" for what in ("leaf", "receipt", "tlog-proof")
    }


def test_a_log_that_has_another_past_by_now_is_convicted_and_two_entries_of_one_place_are_kept(
    shell, restorable, monkeypatch
):
    shell.ok("id", "register", "acme")
    copy = restorable.copy()
    pass_a_second(monkeypatch)
    shell.ok("id", "renew", "acme")
    before, (path, known) = kept_with("acme"), seen(restorable.log_key)
    restorable.restore(copy)
    pass_a_second(monkeypatch)
    path.unlink()  # as on a machine that has seen nothing yet
    shell.ok("id", "renew", "acme")
    assert before.items() < kept_with("acme").items()
    assert {name[9:].partition(".")[0] for name in kept_with("acme")} == {
        "0-register", "1-renew", "1-renew-2",
    }  # fmt: skip
    path.write_bytes(known.note)
    assert "two logs of one size were signed: what it shows is in" in shell.fails(
        1, "registry", "status", "acme"
    )
    (evidence,) = (shell.path / "evidence").glob("log-*.evidence")
    other = next(value for name, value in kept_with("acme").items() if name.endswith("-2.tlog-proof"))
    assert evidence.read_bytes() == known.note + b"\n" + other.partition(b"\n\n")[2]
    path.unlink()
    shell.ok("id", "register", "bob", "--unencrypted")
    path.write_bytes(known.note)
    assert "does not lead" in shell.fails(1, "registry", "status", "acme")


def test_what_another_command_has_seen_meanwhile_counts(sh, registry, monkeypatch):
    sh.ok("id", "register", "acme")
    path, first = seen(registry.log_key)
    sh.ok("id", "register", "echo", "--unencrypted")
    _, newer = seen(registry.log_key)
    path.write_bytes(first.note)
    status = RegistryClient.status

    async def meanwhile(client: RegistryClient, *args):
        path.write_bytes(newer.note)
        return await status(client, *args)

    agreed = []

    async def go_on(client: RegistryClient, signed: Checkpoint) -> None:
        agreed.append(signed)

    monkeypatch.setattr(RegistryClient, "status", meanwhile)
    monkeypatch.setattr(RegistryClient, "go_on_with", go_on)
    sh.ok("registry", "status", "acme")
    assert agreed[-1] == newer
    assert seen(registry.log_key)[1] == newer


def test_what_was_seen_is_told_if_it_cannot_be_kept_or_read(sh, registry, monkeypatch):
    sh.ok("id", "register", "acme")
    path, _ = seen(registry.log_key)
    path.unlink()

    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", full)
        told = sh("registry", "status", "acme")
    assert told.exit_code == 0
    assert "nobody here notices if it is lost" in told.stderr
    assert "No space left on device" in told.stderr
    path.write_bytes(b"nonsense")
    assert f"{path}: note: " in sh.fails(1, "registry", "status", "acme")
    acme = id_of(sh, "acme")
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "nowhere"))
    sh.ok("registry", "status", acme)
    assert not (sh.path / "nowhere").exists()  # who only asks has no keystore, and gets none
