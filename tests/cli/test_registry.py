"""`autolink registry …` and `autolink id register …`, against a real registry in another process over TCP on loopback."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.cli import main, on_record, registry_look
from autolink.cli.trust_option import SpecType, build
from autolink.identity import Credential, Keystore
from autolink.messages import microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry import making
from autolink.registry.client import RegistryClient, Withheld
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.folder import create_registry, load_log_key
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.receipt import verify_untrusted as verify_receipt
from autolink.registry.registrar import Registrar
from autolink.registry.store import SqliteStore
from autolink.registry.trust import Registered
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
        server, log_key = serve(market, "--policy", "open")
        yield Served(path / "reg", server.contact, log_key)
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


def ends(sh: Any, status: int, *args: str) -> str:
    """As `fails`, of a command that has had something to say before."""
    result = sh(*args)
    assert result.exit_code == status, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def id_of(sh: Any, name: str) -> str:
    return sh.json("id", "show", name)["auto_id"]


# --- making one --------------------------------------------------------------------------------------------


def test_init_prints_the_one_text_that_everybody_needs(shell):
    out = shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    assert VerifierKey.parse(out.strip()).name == ORIGIN
    assert "there is a registry in reg already" in shell.fails(
        2, "registry", "init", "reg", "--origin", ORIGIN, "--unencrypted"
    )
    (shell.path / "pass").write_text("secret\n")
    told = shell.json("registry", "init", "other", "--origin", ORIGIN, "--passphrase-file", "pass")
    assert told["log_key"] != out.strip()
    assert b"secret" not in (shell.path / "other" / "log.key").read_bytes()
    assert "no passphrase for the log's key" in shell.fails(
        2, "registry", "init", "third", "--origin", ORIGIN
    )
    assert "cannot name a log's key" in shell.fails(
        1, "registry", "init", "third", "--origin", "a b", "--unencrypted"
    )
    assert not (shell.path / "third").exists()


def test_a_folder_without_a_registry_is_told(shell):
    shell.ok("id", "new", "keeper", "--unencrypted")
    for command in (
        ("registry", "serve", "nowhere", "--as", "keeper"),
        ("registry", "invite", "nowhere", "keeper"),
    ):
        assert "there is no registry in nowhere: autolink registry init makes one" in shell.fails(2, *command)


def test_what_cannot_be_audited_is_told(shell):
    line = shell.fails(2, "registry", "audit", "nowhere", "--log-key", OTHER_KEY)
    assert "no URL, and no folder with a registry" in line
    assert "is no log's key" in shell.fails(2, "registry", "audit", "nowhere", "--log-key", "nonsense")


def test_a_registry_that_is_served_is_not_served_twice(sh, registry):
    sh.ok("id", "new", "keeper", "--unencrypted")
    assert "another process has the registry" in sh.fails(
        2, "registry", "serve", str(registry.folder), "--as", "keeper"
    )


def test_serving_needs_the_key_that_has_signed_the_log(shell):
    shell.ok("id", "new", "keeper", "--unencrypted")
    for name in ("reg", "other"):
        shell.ok("registry", "init", name, "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "guard", "--unencrypted")
    store = ("registry", "serve", "reg", "--as", "keeper", "--listen", "nowhere")
    assert "an address is" in shell.fails(2, *store)  # it has signed its empty log by now
    (shell.path / "reg" / "log.key").write_bytes((shell.path / "guard.next-key").read_bytes())
    assert "of Ed25519" in shell.fails(1, *store)


def test_invitations_are_written_once(shell):
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "acme", "--unencrypted")
    acme = id_of(shell, "acme")
    assert acme in shell.ok("registry", "invite", "reg", "acme", "--remark", "the one in town")
    assert shell.json("registry", "invite", "reg", acme, "0" * 64)["invited"] == ["0" * 64]
    assert "invited already" in shell("registry", "invite", "reg", acme).stderr
    assert (shell.path / "reg" / "invited").read_text() == f"{acme} the one in town\n{'0' * 64}\n"
    assert "neither an Auto ID" in shell.fails(2, "registry", "invite", "reg", "No Name")
    assert "no such identity" in shell.fails(1, "registry", "invite", "reg", "nobody")
    peer_id = shell.json("id", "new", "plain", "--plain", "--unencrypted")["peer_id"]
    assert shell.json("registry", "invite", "reg", peer_id)["invited"] == [peer_id[:64]]


# --- on record ---------------------------------------------------------------------------------------------


def test_what_proves_an_entry_is_kept_with_the_identity(sh, registry):
    told = sh.json("id", "register", "acme")
    assert (told["entry"], told["state"], told["auto_id"]) == ("register", "active", id_of(sh, "acme"))
    kept = {path.suffix: path.read_bytes() for path in (Keystore().folder("acme") / "registry").iterdir()}
    key = VerifierKey.parse(registry.log_key)
    _, entry = decode_leaf_untrusted(kept[".leaf"])
    verify_receipt(kept[".receipt"], key, entry.hash)
    assert LogProof.from_untrusted(kept[".tlog-proof"]).verify(leaf_hash(kept[".leaf"]), key)
    line = sh.fails(3, "id", "register", "acme")
    assert "a name is taken for ever (taken)" in line
    assert json.loads(sh("id", "register", "acme", "--json").stdout)["fault"] == "taken"


def test_an_agent_is_registered_in_one_step_where_its_issuer_is(sh):
    assert "the issuer" in ends(sh, 3, "id", "register", "echo", "--unencrypted")
    sh.ok("id", "register", "acme")
    out = sh.ok("id", "register", "echo", "--unencrypted")  # the next key is there from before
    assert "next key file  echo.next-key" in out
    assert sh.json("registry", "lookup", "echo")["common_name"] == "echo"
    assert "leave --next-key out" in sh.fails(2, "id", "register", "acme", "--next-key", "other")


def test_an_agent_is_registered_in_two_steps_where_its_issuer_is_not(sh, monkeypatch):
    """The entry travels to the issuer's machine in a file, and is submitted from there."""
    sh.ok("id", "register", "acme")
    organisation = os.environ["AUTOLINK_HOME"]
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "agents"))
    sh.ok("id", "request", "far", "--unencrypted", "-o", "far.csr")
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    sh.ok("id", "issue", "far.csr", "--as", "acme", "-o", "far.pem")
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "agents"))
    sh.ok("id", "accept", "far", "far.pem")
    assert "--out FILE" in sh.fails(2, "id", "register", "far", "--unencrypted")
    written = sh("id", "register", "far", "--unencrypted", "--out", "far.entry")
    assert written.exit_code == 0
    assert "autolink id countersign NAME far.entry" in written.stderr
    assert "(unauthorised)" in sh.fails(3, "id", "submit", "far", "far.entry")
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    assert "wants no signature" in sh.fails(2, "id", "countersign", "echo", "far.entry")
    signed = sh("id", "countersign", "acme", "far.entry", "-o", "signed.entry")
    assert "missing" not in signed.stdout
    assert "autolink id submit NAME signed.entry" in signed.stderr
    assert sh.json("id", "countersign", "acme", "far.entry", "--submit")["state"] == "active"
    assert "(taken)" in sh.fails(3, "id", "submit", "acme", "signed.entry")
    assert "signed this entry already" in sh.fails(2, "id", "countersign", "acme", "signed.entry")
    assert "leave --out out" in sh.fails(2, "id", "register", "acme", "--out", "acme.entry")


def test_entries_for_another_log_are_not_signed_unseen(sh):
    sh.ok("id", "register", "echo", "--unencrypted", "--out", "echo.entry")
    other = str(VerifierKey.of("another/log", Ed25519PrivateKey.generate().public_key()))
    for command in (("id", "countersign", "acme", "echo.entry"), ("id", "submit", "acme", "echo.entry")):
        assert "is for the log registry.example/log" in sh.fails(2, *command, "--log-key", other)
    (sh.path / "nonsense").write_bytes(b"\x93nonsense")
    line = sh.fails(3, "id", "countersign", "acme", "nonsense")
    assert line.startswith("nonsense: malformed entry")
    assert "no such identity" in sh.fails(1, "id", "submit", "nobody", "echo.entry")


def test_an_identity_is_renewed_in_the_log_and_in_the_keystore(sh):
    """A self-issued one gets its certificate here, an issued one had it accepted before."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    before = Keystore().chain("acme")[0], Keystore().chain("echo")[0]
    _pass_a_second(before[1])
    assert sh.json("id", "renew", "acme", "--days", "100")["entry"] == "renew"
    assert Keystore().chain("acme")[0].not_after < before[0].not_after
    assert Keystore().chain("acme")[0].spki == before[0].spki
    request = sh.ok("id", "export", "echo", "--request")
    sh.ok(
        "id", "accept", "echo", "-", "--older", stdin=sh.ok("id", "issue", "-", "--as", "acme", stdin=request)
    )
    assert "its issuer says for how long" in sh.fails(2, "id", "renew", "echo", "--days", "3")
    fingerprint = Keystore().chain("echo")[0].fingerprint.hex()
    assert sh.ok("id", "renew", "echo").startswith("entry")
    assert sh.json("registry", "status", "echo")["certificate"] == f"sha256:{fingerprint}"
    rows = sh.json("registry", "history", "echo")["entries"]
    assert [row["entry"] for row in rows] == ["register", "renew"]
    assert rows[0]["signed_by"] == f"itself, {id_of(sh, 'acme')}"


def _pass_a_second(certificate: Any) -> None:
    """Certificates begin on whole seconds, and one that follows another begins later."""
    import time
    from datetime import UTC, datetime, timedelta

    from autolink.identity.issuing import BACKDATE

    while datetime.now(UTC) - BACKDATE < certificate.not_before + timedelta(seconds=1):
        time.sleep(0.05)


def test_a_rotation_is_put_on_record_after_it_was_done_here(sh):
    """It brings back an ID whose key was revoked, and undoes what the old key has signed."""
    index = sh.json("id", "register", "acme")["index"]
    sh.ok("id", "revoke", "acme")
    assert "does not begin later" in sh.fails(3, "id", "record-rotation", "acme")  # nothing was rotated here
    _pass_a_second(Keystore().chain("acme")[0])
    sh.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    told = sh.json("id", "record-rotation", "acme", "--void-from", str(index + 1))
    assert (told["entry"], told["state"]) == ("rotate", "active")
    assert told["says"].endswith(f"void from entry {index + 1}")
    _pass_a_second(Keystore().chain("acme")[0])
    assert sh.json("id", "renew", "acme")["state"] == "active"
    assert len(Keystore().chain("acme")) == 2
    assert Keystore().load("acme").rotations


def test_a_revocation_is_the_issuers_or_its_own_and_says_who_signs(sh):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    echo = id_of(sh, "echo")
    assert "--by NAME" in sh.fails(2, "id", "revoke", echo)
    told = sh.json("id", "revoke", echo, "--by", "acme")
    assert (told["state"], told["auto_id"]) == ("revoked", echo)
    assert (Keystore().folder("acme") / "registry" / f"{told['index']}-revoke.tlog-proof").exists()
    assert "(revoked)" in sh.fails(3, "id", "revoke", "echo")
    assert sh.json("id", "revoke", "acme")["state"] == "revoked"
    status = sh.json("registry", "status", echo)
    assert (status["state"], status["because_of"]) == ("revoked", None)
    assert "is not on record there" in sh.fails(1, "id", "revoke", "0" * 64, "--by", "acme")


def test_an_id_is_ended_for_ever_only_on_a_second_word(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    end = ("id", "deactivate", "acme", "--next-key", "acme.next-key")
    assert "say --yes" in sh.fails(2, *end)
    assert "--next-key FILE" in sh.fails(2, "id", "deactivate", "acme")
    monkeypatch.setattr(on_record, "has_person", lambda: True)
    assert sh(*end, stdin="n\n").exit_code == 130
    assert sh.json(*end, "--yes")["state"] == "deactivated"
    assert "(deactivated)" in sh.fails(3, "id", "revoke", "acme")


def test_a_lost_key_is_replaced_by_guardians_from_files(sh, monkeypatch):
    """A plain name: two of three guardians sign, one here and one on another machine; the old key can slow it down."""
    for name in ("guard-1", "guard-2"):
        sh.ok("id", "new", name, "--unencrypted")
        sh.ok("id", "register", name)
    home = os.environ["AUTOLINK_HOME"]
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "away"))
    sh.ok("id", "new", "guard-3", "--unencrypted")
    sh.ok("id", "register", "guard-3")
    far = id_of(sh, "guard-3")
    monkeypatch.setenv("AUTOLINK_HOME", home)
    name = f"org {os.urandom(8).hex()}"  # a plain name is everybody's, and taken for ever
    sh.ok("id", "new", "org", "--plain", "--common-name", name, "--unencrypted")
    chosen = ("--guardian", "guard-1", "--guardian", "guard-2", "--guardian", far, "--delay", "1")
    sh.ok("id", "register", "org", *chosen, "--unencrypted")
    assert sh.json("registry", "lookup", "org")["guardians"] == "2 of 3"
    told = json.loads((sh.path / "org.guardians").read_text())
    assert (told["threshold"], len(told["guardians"])) == (2, 3)
    assert "nothing is recovered" in told["what"]

    _pass_a_second(Keystore().chain("org")[0])
    sh.ok("id", "new", "org-2", "--plain", "--common-name", name, "--unencrypted")
    lost = ("id", "recover", "org-2", "--unencrypted")
    assert "--guardians-file FILE" in sh.fails(2, *lost)
    lost += ("--guardians-file", "org.guardians")
    assert "is not in this keystore" in sh.fails(2, *lost, "--guardian", "guard-1", "--guardian", far)
    assert "is no guardian" in sh.fails(2, *lost, "--guardian", "acme")
    out = ("--guardian", far, "--guardian", "guard-1", "--out", "recovery.entry")
    assert far in sh(*lost, *out).stderr
    sh.ok("id", "countersign", "guard-1", "recovery.entry")
    assert Entry.from_untrusted((sh.path / "recovery.entry").read_bytes()).signatures[1].by.hex == id_of(
        sh, "guard-1"
    )
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "away"))
    told = sh.json("id", "countersign", "guard-3", "recovery.entry", "--submit")
    monkeypatch.setenv("AUTOLINK_HOME", home)
    assert told["state"] == "recovering"
    later = sh.json("id", "delay", "org")["takes_over_at"]
    assert later > told["takes_over_at"]
    assert sh.json("registry", "lookup", "org")["recovered_at"] == later
    assert "lengthened once" in sh.fails(3, "id", "delay", "org")


def test_guardians_are_chosen_anew_with_the_next_key(sh):
    sh.ok("id", "register", "acme")
    sh.ok("id", "new", "guard", "--unencrypted")
    choose = ("id", "guardians", "acme", "--next-key", "acme.next-key")
    assert sh.json(*choose, "--guardian", "guard")["entry"] == "guardians"
    assert sh.json("registry", "lookup", "acme")["guardians"] == "1 of 1"
    assert "names other guardians" in sh.fails(2, *choose, "--guardian", "echo")
    assert (
        sh.json(*choose, "--guardian", "guard", "--delay", "3")["says"]
        == "1 of 1 guardians, a recovery takes 3 days"
    )
    assert sh.json(*choose)["entry"] == "guardians"
    assert sh.json("registry", "lookup", "acme")["guardians"] is None
    assert "own guardian" in sh.fails(2, *choose, "--guardian", "acme")
    assert "name them with --guardian" in sh.fails(2, *choose, "--threshold", "1")
    assert "it has no guardians" in sh.fails(
        2, "id", "register", "echo", "--guardian", "guard", "--unencrypted"
    )
    (sh.path / "other").write_text('{"auto_id": "x", "threshold": 1, "guardians": [{}]}')
    for file, says in (("other", "no file of guardians"), ("acme.guardians", "not of")):
        line = sh.fails(
            2,
            *choose[:2],
            "guard",
            "--next-key",
            "guard.next-key",
            "--guardian",
            "echo",
            "--guardians-file",
            file,
        )
        assert says in line
    assert "cannot be read" in sh.fails(1, *choose[:3], "--next-key", "nowhere")


def test_an_issuer_recovers_its_agent_and_a_bound_name_is_not_recovered(sh):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    _pass_a_second(Keystore().chain("echo")[0])
    request = sh.ok("id", "request", "echo-2", "--common-name", "echo", "--unencrypted")
    sh.ok("id", "accept", "echo-2", "-", stdin=sh.ok("id", "issue", "-", "--as", "acme", stdin=request))
    assert sh.json("id", "recover", "echo-2", "--void-from", "1", "--unencrypted")["state"] == "recovering"
    assert "(recovering)" in sh.fails(3, "id", "recover", "echo-2", "--unencrypted")
    assert "bound to its keys" in sh.fails(2, "id", "recover", "acme", "--unencrypted")


# --- asking ------------------------------------------------------------------------------------------------


def test_what_is_told_of_an_id_is_proved(sh, registry):
    sh.ok("id", "register", "acme")
    acme = id_of(sh, "acme")
    for who in ("acme", acme, f"autoid:auto:{acme}"):
        told = sh.json("registry", "status", who)
        assert (told["state"], told["auto_id"], told["log"], told["entries"]) == ("active", acme, ORIGIN, 1)
    assert "state        active" in sh.ok("registry", "status", "acme")
    assert "recovery takes  7 days" in sh.ok("registry", "lookup", "acme", "--as", "acme")
    assert sh.ok("registry", "history", "acme").splitlines()[0].startswith("index")
    for command in ("status", "lookup", "history"):
        assert "is not on record there" in sh.fails(1, "registry", command, "echo")
        assert (
            "does not verify" in (line := sh.fails(1, "registry", command, "acme", "--log-key", OTHER_KEY))
            or "not signed by" in line
        )
    assert "old" in sh.fails(1, "registry", "status", "acme", "--max-age", "0.000001")


def test_bad_input_is_told_in_one_line(sh, registry, monkeypatch):
    ask = ("registry", "status", "acme")
    assert "is no log's key" in sh.fails(2, *ask, "--log-key", "nonsense")
    assert "a contact is" in sh.fails(2, *ask, "--registry", "nonsense")
    assert "is the agent running there?" in sh.fails(5, *ask, "--registry", NOBODY)
    assert "no such identity" in sh.fails(1, "registry", "status", "nobody")
    assert "no such identity" in sh.fails(1, "id", "register", "nobody")
    assert "did not answer within" in sh.fails(5, *ask, "--timeout", "0.000001")
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    assert "--registry" in sh.fails(2, *ask)
    assert "which registry?" in sh.fails(2, "id", "register", "acme")
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    assert "--log-key" in sh.fails(2, "id", "register", "acme")


def test_a_registry_says_what_its_log_has_not_signed_and_nothing_is_kept(sh):
    """The right registry and the wrong key: no entry counts as logged."""
    line = sh.fails(1, "id", "register", "acme", "--log-key", OTHER_KEY)
    assert "receipt" in line
    assert not (Keystore().folder("acme") / "registry").exists()


class Lies:
    """What a registry answers instead; the commands run in this process, so it is enough to say so here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def tell(self, method: str, change: Any) -> None:
        before = getattr(RegistryClient, method)

        async def lie(client: RegistryClient, *args: Any) -> Any:
            return change(await before(client, *args))

        self._monkeypatch.setattr(RegistryClient, method, lie)


def test_a_registry_that_tells_half_of_a_history_is_caught(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    sh.ok("id", "revoke", "acme")
    history, other = ("registry", "history", "acme"), sh.json("registry", "status", "echo")["last_entry"]
    for change, says in (
        (lambda places: places[1:], "tells of 1 entries, and the log's word counts 2"),
        (lambda places: places[:1] if len(places) == 2 else [], "tells of 1 entries"),
        (lambda places: places[::-1], "out of order"),
        (lambda places: [other, places[-1]], "another ID's entry"),
    ):
        with monkeypatch.context() as patch:
            Lies(patch).tell("history", change)
            assert says in sh.fails(1, *history)
    with monkeypatch.context() as patch:
        certificate = Keystore().chain("echo")[0].der
        Lies(patch).tell("place", lambda place: place.model_copy(update={"certificate": certificate}))
        assert "not the one that its log has signed" in sh.fails(1, "registry", "lookup", "acme")
    with monkeypatch.context() as patch:
        Lies(patch).tell("place", lambda place: place.model_copy(update={"entries": 1}))
        assert sh.json("registry", "lookup", "acme")["entries"] == 2


def test_a_clock_that_is_behind_is_told(sh, monkeypatch):
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(minutes=5)

    sh.ok("id", "register", "acme")
    monkeypatch.setattr(registry_look, "datetime", Behind)
    assert "of a time to come" in sh.fails(1, "registry", "status", "acme")


def test_a_promise_that_was_not_kept_is(sh, monkeypatch):
    """The registry was gone after its receipt: that convicts whoever runs it, if the entry is not there in time."""

    async def gone(client: RegistryClient, entry: Entry) -> None:
        raise Withheld(b"promise")

    monkeypatch.setattr(RegistryClient, "submit", gone)
    line = sh.fails(1, "id", "register", "acme")
    assert "was gone before it said that it had" in line
    (kept,) = (Keystore().folder("acme") / "registry").iterdir()
    assert kept.name.startswith("withheld-")
    assert kept.read_bytes() == b"promise"
    assert str(kept.with_suffix("")) in line


# --- watching ----------------------------------------------------------------------------------------------


def test_an_audit_tells_what_is_in_a_log_while_it_is_served(sh, registry):
    sh.ok("id", "register", "acme")
    sh.ok("id", "revoke", "acme")
    told = sh.json("registry", "audit", str(registry.folder))
    assert told["states"]["revoked"] >= 1
    assert told["ids"] == sum(told["states"].values())
    assert told["root"] in sh.ok("registry", "audit", str(registry.folder))
    assert "not signed by this key" in sh.fails(
        1, "registry", "audit", str(registry.folder), "--log-key", OTHER_KEY
    )


def test_an_audit_of_a_folder_that_has_rotted_convicts_nobody(shell, registry):
    """A copy of the folder, an entry replaced by another one: nobody has signed that."""
    copy = shell.path / "copy"
    copy.mkdir()
    with (
        closing(sqlite3.connect(registry.folder / "log.db")) as source,
        closing(sqlite3.connect(copy / "log.db")) as db,
    ):
        source.backup(db)
        db.execute("UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE place = 0) WHERE place = 1")
        db.commit()
    line = shell.fails(1, "registry", "audit", "copy", "--log-key", registry.log_key)
    assert line == "copy: the entries are not those that were signed: restore a backup"
    assert not (shell.path / "evidence").exists()


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


def test_an_empty_log_is_audited_after_it_was_served_once(shell):
    key = create_registry(shell.path / "reg", ORIGIN, None, unencrypted=True)
    line = shell.fails(1, "registry", "audit", "reg", "--log-key", str(key))
    assert "note" in line


def test_a_monitor_goes_on_from_the_checkpoint_that_it_has_kept(sh):
    sh.ok("id", "register", "acme")
    lines = [json.loads(line) for line in sh.ok("registry", "monitor", "--once", "--json").splitlines()]
    assert (lines[-1]["what"], lines[-1]["auto_id"]) == ("register", id_of(sh, "acme"))
    sh.ok("id", "register", "echo", "--unencrypted")
    seen = sh("registry", "monitor", "--once", "--id", "echo", "--id", "acme")
    assert [line.split("  ")[2] for line in seen.stdout.splitlines()] == [
        id_of(sh, "acme"),
        id_of(sh, "echo"),
    ]
    assert "agree" in seen.stderr
    proof = next((Keystore().folder("acme") / "registry").glob("*.tlog-proof"))
    sh.ok("registry", "monitor", "--once", "--seen", str(proof))
    (sh.path / "monitor.checkpoint").write_text("nonsense")
    assert "note" in sh.fails(1, "registry", "monitor", "--once")


def test_a_monitor_keeps_what_is_odd(sh, monkeypatch):
    """A word from before the last entry is no lie, and reported; entries that are not those signed are not taken."""
    sh.ok("id", "register", "acme")
    watch = ("registry", "monitor", "--once", "--id", "acme")
    with monkeypatch.context() as patch:
        Lies(patch).tell(
            "status", lambda verified: replace(verified, checkpoint=replace(verified.checkpoint, size=0))
        )
        result = sh(*watch, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["what"], told["index"]) == ("stale", None)
    assert (sh.path / told["evidence"]).exists()
    with monkeypatch.context() as patch:
        Lies(patch).tell("entries", lambda leaves: leaves[::-1])
        line = sh.fails(1, *watch)
    assert "not those that its log has signed" in line
    assert "what it shows is in evidence/unproved-" in line


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


# --- trust -------------------------------------------------------------------------------------------------


def test_trust_in_a_registry_is_asked_for_beside_the_others():
    """Who else vouches for a revoked agent that shows no status does not help it."""
    convert = SpecType().convert
    one, young = (convert(f"registered:{OTHER_KEY}{more}", None, None) for more in ("", ",max-age=60"))
    assert isinstance(build([one], folder=None), Registered)
    joined = build([convert("self-certified", None, None), one, young], folder=None)
    assert repr(joined) == (f"AllOf(SelfCertified(), AnyOf(Registered({ORIGIN}), Registered({ORIGIN})))")
    assert build([one], folder=None) is build(
        [one], folder=None
    )  # read again, it remembers what it has heard


SPECS = ["registered", "registered:", "registered:x"] + [
    f"registered:{OTHER_KEY}{more}"
    for more in (",max-age=", ",age=3", ",max-age=nan", ",max-age=-1", ",max-age=1e9")
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_registry_that_cannot_be_trusted_is_told(sh, spec):
    line = sh.fails(2, "ping", NOBODY, "--as", "echo", "--trust", spec)
    assert "registered" in line


def test_a_registry_without_its_key_is_told(sh, monkeypatch):
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    ping = ("ping", NOBODY, "--as", "echo", "--trust")
    assert "which key has the log" in sh.fails(2, *ping, "self-certified")
    assert "is the agent running there?" in sh.fails(
        5, *ping, f"registered:{OTHER_KEY}", "--registry", NOBODY
    )


# --- end to end --------------------------------------------------------------------------------------------


def test_a_revoked_agent_is_refused_and_its_live_link_ends(market, shell, monkeypatch):
    """Everything in processes of its own: a registry by invitation, an agent that asks for it, and its caller."""
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    server, log_key = serve(market)
    for name, value in (("AUTOLINK_REGISTRY", server.contact), ("AUTOLINK_LOG_KEY", log_key)):
        monkeypatch.setenv(name, value)
        market.environment[name] = value
    assert "autolink registry invite FOLDER AUTOID" in shell.fails(3, "id", "register", "acme")
    shell.ok("registry", "invite", "reg", "acme")
    for name in ("acme", "seller", "buyer"):
        shell.ok("id", "register", name, "--unencrypted")
    trust = ("--trust", f"registered:{log_key}")
    watch = market.start("-v", "registry", "monitor", "--json", "--every", "3600")
    assert [json.loads(watch.line())["index"] for _ in range(3)] == [0, 1, 2]
    seller = market.start("run", "shop:handlers", "--as", "seller", *trust)
    seller.contact = seller.line()
    as_buyer = ("--as", "buyer", *trust)
    assert json.loads(shell.ok("call", seller.contact, "echo", '"hi"', *as_buyer)) == "hi"
    monkeypatch.delenv("AUTOLINK_REGISTRY")  # the status of the last call is kept, but nobody shows it
    assert "refused us" in shell.fails(3, "ping", seller.contact, "-c", "1", *as_buyer)
    monkeypatch.setenv("AUTOLINK_REGISTRY", server.contact)
    calling = market.start("call", seller.contact, "forever", *as_buyer)
    assert seller.line() == "holding"
    shell.ok("id", "revoke", "buyer", "--by", "acme")
    assert calling.process.wait(20) != 0
    assert "revoked" in seller.log_until("ended")
    assert json.loads(watch.line())["what"] == "revoke"
    assert "revoked" in ends(shell, 3, "call", seller.contact, "echo", *as_buyer)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert "cannot be watched" in watch.log_until("cannot")
    watch.process.terminate()
    watch.process.wait(20)
    assert shell.json("registry", "audit", "reg")["states"] == {"active": 2, "revoked": 1}


def test_workers_show_a_kept_status_while_the_registry_is_down(market, shell, monkeypatch):
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    address = f"unix:{shell.path / 'registry.socket'}"
    server = market.start(
        "registry", "serve", "reg", "--as", "keeper", "--policy", "open", "--listen", address, "--json"
    )
    told = json.loads(server.line())
    assert told["entries"] == 0
    (contact,), log_key = told["contacts"], told["log_key"]
    for name, value in (("AUTOLINK_REGISTRY", contact), ("AUTOLINK_LOG_KEY", log_key)):
        monkeypatch.setenv(name, value)
        market.environment[name] = value
    for name in ("acme", "seller", "buyer"):
        shell.ok("id", "register", name, "--unencrypted")
    trust = ("--trust", f"registered:{log_key},max-age=600")
    for name in ("seller", "buyer"):  # each is shown once, and kept
        shell("ping", NOBODY, "--as", name, *trust)
        assert list(Keystore().folder(name).glob("registry-*.status"))
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 0
    seller = market.start("run", "shop:handlers", "--as", "seller", "--workers", "2", *trust)
    seller.contact = seller.line()
    called = shell("call", seller.contact, "echo", "1", "--as", "buyer", *trust)
    assert (called.exit_code, json.loads(called.stdout)) == (0, 1)
    assert "our status is good until" in called.stderr
