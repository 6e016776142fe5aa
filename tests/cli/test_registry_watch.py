"""`autolink registry audit` and `monitor`: whether a log is honest."""

import errno
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.errors import LinkLost
from autolink.identity import Credential, Keystore
from autolink.messages import microseconds
from autolink.registry import making
from autolink.registry.database import StoreFailed
from autolink.registry.entries import decode_leaf_untrusted
from autolink.registry.evidence import LogConvicted, Unproved
from autolink.registry.folder import create_registry, load_log_key
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.registrar import Registrar
from autolink.registry.store import SqliteStore
from tests.cli.registries import ORIGIN, OTHER_KEY, Lies, id_of

# --- watching ----------------------------------------------------------------------------------------------


def test_an_audit_tells_what_is_in_a_log_while_it_is_served(sh, registry):
    sh.ok("id", "register", "acme")
    sh.ok("id", "revoke", "acme", "--yes")
    told = sh.json("registry", "audit", str(registry.folder))
    assert told["states"]["revoked"] >= 1
    assert told["ids"] == sum(told["states"].values())
    assert told["root"] in sh.ok("registry", "audit", str(registry.folder))
    assert "not signed by this key" in sh.fails(
        1, "registry", "audit", str(registry.folder), "--log-key", OTHER_KEY
    )


def test_an_audit_of_a_folder_that_has_rotted_convicts_nobody(sh, registry):
    """A copy of the folder, an entry replaced by another one: nobody has signed that."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "revoke", "acme", "--yes")
    copy = sh.path / "copy"
    copy.mkdir()
    with (
        closing(sqlite3.connect(registry.folder / "log.db")) as source,
        closing(sqlite3.connect(copy / "log.db")) as db,
    ):
        source.backup(db)
        db.execute("UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE place = 0) WHERE place = 1")
        db.commit()
    line = sh.fails(1, "registry", "audit", "copy", "--log-key", registry.log_key)
    assert line == "copy: the entries are not those that were signed: restore a backup"
    assert not (sh.path / "evidence").exists()


def test_an_audit_that_convicts_a_log_keeps_what_shows_it(shell, monkeypatch):
    """The operator let something in that nobody had signed for."""
    log_key = create_registry(shell.path / "reg", ORIGIN, None, unencrypted=True)
    credential = Credential.self_issued("acme")
    slot = making.Slot.at(ORIGIN, datetime.now(UTC))
    unsigned = making.register(credential, slot).with_signatures(())
    with SqliteStore(shell.path / "reg") as store, monkeypatch.context() as patch:
        registrar = Registrar(
            store, load_log_key(shell.path / "reg", None), lambda: microseconds(datetime.now(UTC))
        )
        patch.setattr("autolink.registry.effects.Step._check_signatures", lambda *_: None)
        registrar.append([unsigned.to_bytes()])
    audit = ("registry", "audit", "reg", "--log-key", str(log_key))
    result = shell(*audit)
    assert result.exit_code == 1
    assert "THE LOG IS CONVICTED: entry 0: unauthorised: " in result.stderr
    told = json.loads(shell(*audit, "--json").stdout)
    assert (told["ok"], told["index"]) == (False, 0)
    evidence = shell.path / told["evidence"]
    assert decode_leaf_untrusted(evidence.read_bytes())[1].auto_id == credential.auto_id
    assert "entry 0" in Path(f"{evidence}.txt").read_text()
    (shell.path / "file").touch()
    result = shell(*audit, "--evidence", "file/below", "--json")
    assert json.loads(result.stdout)["evidence"] is None
    assert "THE LOG IS CONVICTED: entry 0: " in result.stderr
    assert "what it shows cannot be kept in file/below (Not a directory)" in result.stderr


def test_a_mirror_is_made_and_goes_on(sh, registry):
    """From the folder, then from the URL; it is audited like the registry itself."""
    sh.ok("id", "register", "acme")
    first = sh.json("registry", "export", str(registry.folder), "mirror")
    sh.ok("id", "register", "echo", "--unencrypted")
    told = sh.json("registry", "export", registry.url, "mirror")
    assert (told["log"], told["entries"]) == (ORIGIN, first["entries"] + 1)
    assert sh.json("registry", "audit", "mirror")["root"] == told["root"]
    assert told["root"] in sh.ok("registry", "export", registry.url, "mirror")
    (sh.path / "mirror" / "checkpoint").write_text("nonsense")
    assert sh.fails(1, "registry", "audit", "mirror").startswith("mirror: checkpoint: note: does not end in ")
    line = sh.fails(1, "registry", "export", str(registry.folder), "other", "--log-key", OTHER_KEY)
    assert "not signed by this key" in line
    assert not (sh.path / "other").exists()


def test_an_audit_of_a_url_where_nobody_listens_may_be_tried_again(shell):
    url = "http://127.0.0.1:1"
    line = shell.fails(5, "registry", "audit", url, "--log-key", OTHER_KEY)
    assert line.startswith(f"{url}: checkpoint: ")
    assert line.endswith("Connection refused: is it served there?")


def test_an_empty_log_is_audited_and_mirrored_before_it_is_served(shell):
    key = str(create_registry(shell.path / "reg", ORIGIN, None, unencrypted=True))
    assert shell.json("registry", "audit", "reg", "--log-key", key)["entries"] == 0
    assert shell.json("registry", "export", "reg", "mirror", "--log-key", key)["entries"] == 0
    assert shell.json("registry", "audit", "mirror", "--log-key", key)["entries"] == 0


def test_a_monitor_goes_on_from_the_checkpoint_that_it_has_kept(sh):
    """The first run has nothing new to tell of a log, however long; each later one what has come since the one before."""
    sh.ok("id", "register", "acme")
    (last,) = map(json.loads, sh.ok("registry", "monitor", "--once", "--json").splitlines())
    size = last["entries"]
    assert last == {
        "ok": True, "status": 0, "log": ORIGIN, "entries": size, "ids": last["ids"], "since": size
    }  # fmt: skip
    sh.ok("id", "register", "echo", "--unencrypted")
    watch = ("registry", "monitor", "--once")
    new, last = map(json.loads, sh.ok(*watch, "--json").splitlines())
    assert (new["what"], new["auto_id"], new["index"]) == ("register", id_of(sh, "echo"), size)
    assert (new["common_name"], new["state"], new["because_of"]) == ("echo", "active", None)
    assert [signer["as"] for signer in new["signed_by"]] == ["own_key", "issuer"]
    assert new["key"] == sh.json("id", "show", "echo")["key"]
    assert (last["entries"], last["since"]) == (size + 1, size)
    assert sh.ok(*watch) == ""
    every = sh(*watch, "--since", "0", "--id", "echo", "--id", "acme")
    acme, echo = every.stdout.splitlines()
    assert acme.split("  ")[1:3] == [f"entry {size - 1}", id_of(sh, "acme")]
    _, place, who, name, text = echo.split("  ")
    assert (place, who, name) == (f"entry {size}", id_of(sh, "echo"), "echo")
    assert text.startswith(
        f"register by own key, issuer {id_of(sh, 'acme')[:8]}…, key {new['key'][:15]}… until "
    )
    assert text.endswith(": it is active now")
    assert every.stderr.endswith(" Auto IDs agree\n")
    proof = next((Keystore().folder("acme") / "registry").glob("*.tlog-proof"))
    sh.ok("registry", "monitor", "--once", "--seen", str(proof))


@pytest.mark.parametrize("option", ["--state", "--seen"])
def test_a_checkpoint_that_is_none_is_named(sh, option):
    (sh.path / "damaged").write_text("nonsense")
    line = sh.fails(1, "registry", "monitor", "--once", option, "damaged")
    assert line.startswith(f"{option} damaged: no checkpoint of this log: note: ")
    other = Checkpoint(ORIGIN, 1, bytes(32)).signed(Ed25519PrivateKey.generate())
    (sh.path / "wrong").write_bytes(other)
    line = sh.fails(1, "registry", "monitor", "--once", option, "wrong")
    assert line.startswith(f"{option} wrong: no checkpoint of this log: note: not signed by this key")


def test_a_state_that_cannot_be_kept_is_not_the_registrys_doing(sh, monkeypatch):
    """Its folder is looked at before the log is replayed; a disk that is full then ends a monitor that would go on, too."""
    line = sh.fails(1, "registry", "monitor", "--once", "--state", "nowhere/x")
    assert line == "--state nowhere/x: nowhere is no folder"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("autolink.cli.registry_watch.files.write_atomic", full)
    for once in (["--once"], []):
        line = sh.fails(1, "registry", "monitor", *once, "--state", "x")
        assert line == "--state x cannot be written: No space left on device"


def test_a_monitor_says_how_an_agent_really_stands(sh):
    """Its issuer is revoked; a first run begins with how it stands, and with who is on no record."""
    for name in ("acme", "echo"):
        sh.ok("id", "register", name, "--unencrypted")
    watch, nobody = ("registry", "monitor", "--once", "--id", "echo"), "0" * 64
    stands, last = map(json.loads, sh.ok(*watch, "--json").splitlines())
    assert (stands["what"], stands["state"], stands["index"]) == ("state", "active", None)
    acme, entry = id_of(sh, "acme"), sh.json("id", "revoke", "acme", "--yes")["index"]
    (line,) = sh.ok(*watch).splitlines()
    means = f"it is revoked now, because of {acme}, by entry {entry} of {acme}"
    assert line.endswith(f"  entry {entry}  {id_of(sh, 'echo')}  echo  state: {means}")
    result = sh(*watch, "--id", nobody, "--json")
    assert result.exit_code == 1
    unknown, last = map(json.loads, result.stdout.splitlines())
    assert (unknown["what"], unknown["auto_id"], last["ok"]) == ("unknown", nobody, False)
    assert f"Warning: {nobody} is not on record there" in result.stderr


def test_a_monitor_keeps_what_is_odd(sh, monkeypatch):
    """A word from before the last entry is no lie, and reported; entries that are not those signed are not taken."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "revoke", "acme", "--yes")  # so there are two entries at least, and another order is a lie
    watch = ("registry", "monitor", "--once", "--id", "acme", "--since", "0")
    with monkeypatch.context() as patch:
        Lies(patch).tell(
            "status", lambda verified: replace(verified, checkpoint=replace(verified.checkpoint, size=0))
        )
        result = sh(*watch, "--json")
    assert result.exit_code == 1
    told, last = map(json.loads, result.stdout.splitlines()[-2:])
    assert (told["what"], told["index"]) == ("stale", None)
    assert (last["ok"], last["status"]) == (False, 1)
    assert (sh.path / told["evidence"]).exists()
    (sh.path / "file").touch()
    with monkeypatch.context() as patch:
        Lies(patch).tell(
            "status", lambda verified: replace(verified, checkpoint=replace(verified.checkpoint, size=0))
        )
        result = sh(*watch, "--evidence", "file/below", "--json")
    assert json.loads(result.stdout.splitlines()[-2])["evidence"] is None
    assert "what shows it cannot be kept in file/below (Not a directory)" in result.stderr
    with monkeypatch.context() as patch:
        Lies(patch).tell("entries", lambda leaves: leaves[::-1])
        line = sh.fails(1, *watch)
    assert "not those that its log has signed" in line
    assert "what it shows is in evidence/unproved-" in line


@pytest.mark.parametrize("option", ["--state", "--seen"])
def test_a_monitor_never_forgets_that_a_log_was_longer(sh, registry, option):
    """An older copy of the registry was restored."""
    sh.ok("id", "register", "acme")
    note = Checkpoint(ORIGIN, 1000, bytes(32)).signed(load_log_key(registry.folder, None))
    (sh.path / "longer").write_bytes(note)
    line = sh.fails(1, "registry", "monitor", "--once", option, "longer")
    assert "and its log had 1000 before" in line
    assert (sh.path / "longer").read_bytes() == note
    assert not (sh.path / "monitor.checkpoint").exists()
    (evidence,) = (sh.path / "evidence").glob("unproved-*.evidence")
    assert evidence.read_bytes().startswith(note)
    told = json.loads(sh("registry", "monitor", "--once", option, "longer", "--json").stdout.splitlines()[-1])
    assert (told["ok"], told["status"]) == (False, 1)


def test_a_monitor_that_goes_on_cries_out_that_a_log_has_shrunk(sh, monkeypatch):
    looks = [Unproved("it is shorter", b"both notes"), LogConvicted("it has another past", evidence=b"notes")]

    async def look(*_: object) -> None:
        raise looks.pop(0)

    monkeypatch.setattr("autolink.registry.monitor.Monitor.look", look)
    monkeypatch.setattr("autolink.cli.registry_watch.back_off", lambda _: 0)
    result = sh("registry", "monitor", "--json")
    assert result.exit_code == 1
    unproved, convicted = map(json.loads, result.stdout.splitlines())
    assert (unproved["what"], unproved["text"]) == ("unproved", "it is shorter")
    assert (sh.path / unproved["evidence"]).read_bytes() == b"both notes"
    assert convicted["convicted"] == "it has another past"
    assert (
        "THE LOG DOES NOT GO ON FROM WHAT WAS SEEN OF IT: it is shorter; what it shows is in" in result.stderr
    )


def test_a_monitor_says_once_that_it_watches_again(sh, monkeypatch):
    """Who was warned that a registry is down is not left to wonder."""
    looks = [None, LinkLost("it is down"), None, LogConvicted("that ends it")]

    async def look(*_: object) -> None:
        if (error := looks.pop(0)) is not None:
            raise error

    async def follow(*_: object, since: int) -> None:
        raise LinkLost("the feed ended")

    monkeypatch.setattr("autolink.registry.client.RegistryClient.follow", follow)
    monkeypatch.setattr("autolink.registry.monitor.Monitor.look", look)
    monkeypatch.setattr("autolink.cli.registry_watch.back_off", lambda _: 0)
    monkeypatch.setattr("autolink.cli.registry_watch.files.write_atomic", lambda *_, **how: None)
    monkeypatch.setattr("autolink.cli.registry_watch.os.utime", lambda *_: None)
    result = sh("registry", "monitor")
    warned = [line for line in result.stderr.splitlines() if line.startswith("WARNING")]
    down = "the registry cannot be watched at the moment: the feed ended"
    said = [line.split(": ", 1)[1].removesuffix(": is the agent running there?") for line in warned]
    assert said == [down, "the registry is watched again", down]


def test_a_monitor_that_has_no_room_for_what_it_replays_ends(sh, monkeypatch):
    """It would never look at anything again, and the registry has no part in that."""

    async def look(*_: object) -> None:
        raise StoreFailed("the disk is full")

    monkeypatch.setattr("autolink.registry.monitor.Monitor.look", look)
    assert sh.fails(1, "registry", "monitor") == "the disk is full"


def test_a_monitor_that_was_shown_another_past_convicts(sh, registry):
    """Somebody has a checkpoint of one entry, signed by the log's key, that this log never had."""
    sh.ok("id", "register", "acme")
    note = Checkpoint(ORIGIN, 1, bytes(32)).signed(load_log_key(registry.folder, None))
    (sh.path / "seen").write_bytes(note)
    result = sh("registry", "monitor", "--once", "--seen", "seen", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout.splitlines()[-1])
    assert "different pasts" in told["convicted"]
    assert (sh.path / told["evidence"]).read_bytes().startswith(note)
