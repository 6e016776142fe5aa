"""`autolink id rotate` of who was issued, or has a plain name: its next key is known to a registry alone."""

import json
import os
from typing import Any

import pytest

from autolink.errors import LinkLost
from autolink.identity import CredentialRequest, Keystore, keys, load_key
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry
from tests.cli.registries import NOBODY, id_of, pass_a_second

ROTATE = ("id", "rotate", "echo", "--next-key", "echo.next-key", "--unencrypted")


@pytest.fixture
def on_record(sh: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A shell whose acme and echo, which it has issued, are on record; echo's next key is in echo.next-key."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    pass_a_second(monkeypatch)
    return sh


def issue(sh: Any, request: str, to: str = "echo.pem") -> None:
    sh.ok("id", "issue", "-", "--as", "acme", "-o", to, stdin=request)


def key_of(file: str) -> str:
    return f"sha256:{keys.hash_of_key(load_key(file, None).public_key()).hex()}"


def fingerprint(name: str) -> str:
    return f"sha256:{Keystore().chain(name)[0].fingerprint.hex()}"


def lose_the_answer(patch: pytest.MonkeyPatch) -> None:
    submit = RegistryClient.submit

    async def lost(client: RegistryClient, entry: Entry, **_: Any) -> None:
        await submit(client, entry)
        raise LinkLost("lost")

    patch.setattr(RegistryClient, "submit", lost)


def test_an_agent_whose_key_was_stolen_goes_on_to_its_next_one_at_once(on_record):
    """Request, issue, rotate: active again after a revocation, with another key after, and so once more."""
    sh, before = on_record, on_record.json("id", "show", "echo")
    index = sh.json("id", "revoke", "echo", "--by", "acme", "--yes")["index"]
    asked = sh(*ROTATE)
    assert asked.exit_code == 0
    assert "autolink id rotate echo CHAIN --next-key echo.next-key" in asked.stderr
    assert sh.json("id", "show", "echo").items() >= before.items()
    issue(sh, asked.stdout)
    told = sh.json(*ROTATE, "echo.pem", "--void-from", str(index), "--yes")
    assert (told["auto_id"], told["on_record"]["state"]) == (before["auto_id"], "active")
    assert told["on_record"]["says"].endswith(f"void from entry {index}")
    shown = sh.json("id", "show", "echo")
    assert shown["rotations"] is None  # its certificates show none, and 0 would say that there was none
    assert key_of("echo.next-key") == f"sha256:{Keystore().load('echo').leaf.spki_sha256.hex()}"
    assert sh.json("registry", "status", "echo")["certificate"] == fingerprint("echo")

    assert told["next_key_file"] == "echo.next-key-2"
    again = ("id", "rotate", "echo", "--next-key", "echo.next-key-2", "--unencrypted")
    sh.ok(*again, "-o", "echo.csr")
    issue(sh, (sh.path / "echo.csr").read_text(), "again.pem")
    result = sh(*again, "again.pem")
    assert result.exit_code == 0
    assert ["next", "key", "file", "echo.next-key-3"] in [line.split() for line in result.stdout.splitlines()]
    assert "echo.next-key-2 is in use from now on" in result.stderr


def test_who_has_rotated_is_renewed_under_the_new_key(on_record, monkeypatch):
    sh = on_record
    issue(sh, sh.ok(*ROTATE))
    sh.ok(*ROTATE, "echo.pem")
    pass_a_second(monkeypatch)
    issue(sh, sh.ok("id", "export", "echo", "--request"), "renewed.pem")
    assert sh.json("id", "renew", "echo", "renewed.pem")["entry"] == "renew"
    assert sh.json("registry", "status", "echo")["certificate"] == fingerprint("echo")


def test_another_key_than_the_committed_one_replaces_nothing(on_record):
    sh, before = on_record, Keystore().chain("echo")
    issue(sh, sh.ok(*ROTATE))
    wrong = ("id", "rotate", "echo", "--next-key", "acme.next-key", "--unencrypted")
    assert "echo.pem is over another key than the one in acme.next-key" in sh.fails(2, *wrong, "echo.pem")
    line = sh.fails(2, *wrong)
    assert line.startswith("the key in acme.next-key is not the one that echo has committed to")
    blind = sh(*wrong, "--registry", NOBODY)
    assert blind.exit_code == 0
    assert "), so nobody knows yet whether this is the next key of echo" in blind.stderr
    issue(sh, blind.stdout, "wrong.pem")
    line = sh.fails(3, *wrong, "wrong.pem")
    assert line.startswith("the key in acme.next-key: ")
    assert line.endswith("this is not the key that the ID has committed to (not_committed)")
    chain = sh.ok("id", "issue", "-", "--as", "acme", "--common-name", "other", stdin=sh.ok(*ROTATE))
    (sh.path / "other.pem").write_text(chain)
    assert f"and echo is {id_of(sh, 'echo')}" in sh.fails(2, *ROTATE, "other.pem")
    line = sh.fails(2, *ROTATE, "echo.pem", "--next-key-out", "echo.next-key")
    assert "holds the key that comes into use now" in line
    line = sh.fails(2, "id", "record-rotation", "echo")
    assert "commits to no next key" in line
    assert line.endswith("autolink id rotate echo --next-key FILE")
    assert Keystore().chain("echo") == before


def test_which_key_was_committed_to_is_asked_of_whoever_has_it_on_record(on_record, monkeypatch):
    """Behind renewals too, which say nothing of it; and the key that is in force already will do. Whom this one does not
    know another registry may."""
    sh = on_record
    issue(sh, sh.ok("id", "export", "echo", "--request"), "renewed.pem")
    sh.ok("id", "renew", "echo", "renewed.pem")
    pass_a_second(monkeypatch)
    issue(sh, sh.ok(*ROTATE))
    sh.fails(2, "id", "rotate", "echo", "--next-key", "acme.next-key", "--unencrypted")
    sh.ok(*ROTATE, "echo.pem")
    sh.ok(*ROTATE)
    sh.ok("id", "request", "stray", "-o", "stray.csr", "--unencrypted")
    issue(sh, (sh.path / "stray.csr").read_text(), "stray.pem")
    sh.ok("id", "accept", "stray", "stray.pem")
    asked = sh("id", "rotate", "stray", "--next-key", "acme.next-key", "--unencrypted")
    assert asked.exit_code == 0
    assert "does not have stray on record" in asked.stderr


def test_a_rotation_that_was_cut_short_is_completed_by_the_same_command(on_record, monkeypatch):
    """The registry down; its answer lost after it had appended the entry; the keystore full after that."""
    sh, before = on_record, Keystore().chain("echo")
    issue(sh, sh.ok(*ROTATE))
    complete = (*ROTATE, "echo.pem")
    sh.fails(5, *complete, "--registry", NOBODY)
    after = (sh.path / "echo.next-key-2").read_bytes()
    with monkeypatch.context() as patch:
        lose_the_answer(patch)
        sh.fails(5, *complete)
    assert Keystore().chain("echo") == before
    with monkeypatch.context() as patch:
        patch.setattr(
            Keystore, "rotate", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        assert "No space left" in sh(*complete).stderr
    assert Keystore().chain("echo") == before
    told = sh(*complete, "--json")
    assert "already on record as entry" in told.stderr
    assert json.loads(told.stdout)["on_record"]["entry"] == "rotate"
    assert sh.json("registry", "status", "echo")["certificate"] == fingerprint("echo")
    assert (sh.path / "echo.next-key-2").read_bytes() == after


def test_an_agent_whose_machine_is_gone_goes_on_elsewhere(on_record, monkeypatch):
    """With its next key and its public chain; a refusal on the way changes nothing about that."""
    sh, auto_id = on_record, id_of(on_record, "echo")
    sh.ok("id", "export", "echo", "--chain", "-o", "old.pem")
    home = os.environ["AUTOLINK_HOME"]
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "other"))
    lost = (*ROTATE, "--certificates", "old.pem")
    told = sh(*lost, "--json", "-o", "echo.csr")
    asked = json.loads(told.stdout)["request"]
    assert (sh.path / "echo.csr").read_text() == asked
    assert CredentialRequest.from_pem(asked.encode()).name == "echo"
    assert "--next-key echo.next-key --certificates old.pem" in told.stderr
    monkeypatch.setenv("AUTOLINK_HOME", home)
    issue(sh, asked)
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "other"))
    line = sh.fails(5, *lost, "echo.pem", "--registry", NOBODY)
    assert line.startswith("echo is in the keystore, and not on record: repeat it without --certificates: ")
    told = sh.json(*ROTATE, "echo.pem")
    assert (told["auto_id"], told["on_record"]["state"]) == (auto_id, "active")
    assert sh.ok("id", "export", "echo", "--request") != asked


def test_a_plain_name_goes_on_to_its_next_key_in_one_step(sh, monkeypatch):
    """Its certificate is made here: of an attempt whose answer was lost the one that is on record."""
    name = f"org {os.urandom(8).hex()}"  # a plain name is everybody's, and taken for ever
    sh.ok("id", "new", "org", "--plain", "--common-name", name, "--unencrypted")
    sh.ok("id", "register", "org", "--unencrypted")
    before = id_of(sh, "org")
    sh.ok("id", "export", "org", "--chain", "-o", "org.pem")
    pass_a_second(monkeypatch)
    rotate = ("id", "rotate", "org", "--next-key", "org.next-key", "--unencrypted")
    with monkeypatch.context() as patch:
        lose_the_answer(patch)
        sh.fails(5, *rotate)
    pass_a_second(monkeypatch)
    told = sh.json(*rotate)
    assert (told["auto_id"], told["on_record"]["entry"]) == (before, "rotate")
    assert sh.json("registry", "status", "org")["certificate"] == fingerprint("org")
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "other"))
    lost = (
        "id",
        "rotate",
        "org-2",
        "--certificates",
        "org.pem",
        "--next-key",
        "org.next-key-2",
        "--unencrypted",
    )
    told = sh.json(*lost, "--days", "30")
    assert (told["auto_id"], told["next_key_file"]) == (before, "org-2.next-key-3")
