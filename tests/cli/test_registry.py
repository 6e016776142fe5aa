"""`autolink registry …` against a real registry in another process over TCP on loopback; and once everything for real."""

import json
import re
import signal
import socket
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Contact, Credential, limits
from autolink.cli import registry_look, run
from autolink.cli.trust_option import SpecType, build
from autolink.identity import Keystore, load_chain
from autolink.registry.log.note import VerifierKey
from autolink.registry.status import Status
from autolink.registry.trust import Registered
from autolink.trust import SelfCertified
from tests.cli.registries import NOBODY, ORIGIN, OTHER_KEY, Lies, ends, id_of, pass_a_second, serve

# --- making one --------------------------------------------------------------------------------------------


def test_init_prints_the_one_text_that_everybody_needs(shell):
    out = shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    assert VerifierKey.parse(out.strip()).name == ORIGIN
    assert (shell.path / "reg" / "log.pub").read_text() == out
    assert "there is a registry in reg already" in shell.fails(
        1, "registry", "init", "reg", "--origin", ORIGIN, "--unencrypted"
    )
    (shell.path / "pass").write_text("secret\n")
    told = shell.json("registry", "init", "other", "--origin", ORIGIN, "--passphrase-file", "pass")
    assert told["log_key"] != out.strip()
    assert b"secret" not in (shell.path / "other" / "log.key").read_bytes()
    assert "no passphrase for the log's key" in shell.fails(
        2, "registry", "init", "third", "--origin", ORIGIN
    )
    assert "'--origin': 'a b' cannot name a log" in shell.fails(
        2, "registry", "init", "third", "--origin", "a b"
    )
    assert not (shell.path / "third").exists()


def test_a_folder_without_a_registry_is_told(shell):
    shell.ok("id", "new", "keeper", "--unencrypted")
    for command in (
        ("registry", "serve", "nowhere", "--as", "keeper"),
        ("registry", "invite", "nowhere", "keeper"),
    ):
        assert "there is no registry in nowhere: autolink registry init makes one" in shell.fails(1, *command)


def test_what_cannot_be_audited_is_told(shell):
    line = shell.fails(1, "registry", "audit", "nowhere", "--log-key", OTHER_KEY)
    assert "no URL, and no folder with a registry" in line
    for where in ("unix:/tmp/x", "127.0.0.1:4433", NOBODY):
        line = shell.fails(1, "registry", "audit", where, "--log-key", OTHER_KEY)
        assert line.endswith(
            "where agents are dialled: give the URL of the registry's public side (registry serve --http)"
        )
    assert "is no log's key" in shell.fails(2, "registry", "audit", "nowhere", "--log-key", "nonsense")


def test_a_registry_that_is_served_is_not_served_twice(sh, registry):
    sh.ok("id", "new", "keeper", "--unencrypted")
    assert sh.fails(1, "registry", "serve", str(registry.folder), "--as", "keeper") == (
        f"another process has the registry in {registry.folder} open: one at a time may, so end that one first"
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


def test_the_public_side_is_served_beside_the_agent(market, shell, monkeypatch):
    """What was submitted over a link is audited over HTTP."""
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    server = market.start(
        "registry", "serve", "reg", "--as", "keeper", "--policy", "open", "--http", "127.0.0.1:0", "--json"
    )
    told = json.loads(server.line())
    (contact,), (url,), log_key = told["contacts"], told["http"], told["log_key"]
    reached = ("--registry", contact, "--log-key", log_key)
    shell.ok("id", "register", "acme", *reached)
    found = shell.json("registry", "audit", url, "--log-key", log_key)
    assert (found["entries"], found["served"]) == (1, {"entries": 1, "ids": 1})
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    public = ("--http", f"unix:{shell.path}/http", "--http", "127.0.0.1:0")
    server = market.start("registry", "serve", "reg", "--as", "keeper", *public)
    assert [server.line() for _ in range(3)][1:] == [log_key, f"unix:{shell.path}/http"]
    assert shell.json("registry", "audit", server.line(), "--log-key", log_key)["entries"] == 1


def test_a_public_side_that_cannot_be_is_told_before_anything_listens(shell, monkeypatch):
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    serve = ("registry", "serve", "reg", "--as", "keeper", "--http")
    assert "an address is" in shell.fails(2, *serve, "nowhere")
    for name in ("autolink.registry.http", "autolink.registry.httpd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "starlette.responses", None)
    assert "pip install 'autolink-agents[registry]'" in shell.fails(1, *serve, "127.0.0.1:0")


def test_the_address_that_is_taken_or_not_here_is_named_among_several(shell):
    """And what to do: the others are not at fault."""
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    serve = ("registry", "serve", "reg", "--as", "keeper", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for option in ("--listen", "--http"):
            line = shell.fails(1, *serve, option, address)
            assert line.startswith(f"listening on {address}: ")
            assert "in use: somebody listens there already" in line
            line = shell.fails(1, *serve, option, "192.0.2.1:1")  # RFC 5737: nobody's
            assert line.startswith("listening on 192.0.2.1:1: ")
            assert ": this machine has no such address: listen on one of its own" in line
            line = shell.fails(1, *serve, option, f"unix:{shell.path}/no/x")
            assert "/no: No such file or directory" in line


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
    for length in (63, 65):
        assert f"and this has {length}" in shell.fails(2, "registry", "invite", "reg", "0" * length)
    peer_id = shell.json("id", "new", "plain", "--plain", "--unencrypted")["peer_id"]
    assert shell.json("registry", "invite", "reg", peer_id)["invited"] == [peer_id[:64]]


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
        assert sh.fails(1, "registry", command, "echo").endswith("on record: autolink id register NAME")
        assert (
            "does not verify" in (line := sh.fails(1, "registry", command, "acme", "--log-key", OTHER_KEY))
            or "not signed by" in line
        )
    assert "old" in sh.fails(1, "registry", "status", "acme", "--max-age", "0.000001")


def test_a_script_asks_whether_an_id_is_active(sh):
    """As `grep -q` says whether it has found something; and as an answer that is no, not as an error."""
    for name in ("acme", "echo"):
        sh.ok("id", "register", name, "--unencrypted")
    ask = ("registry", "status", "echo")
    told = sh.json(*ask, "--active")
    assert (told["ok"], told["status"], told["state"]) == (True, 0, "active")
    sh.ok("id", "revoke", "acme", "--yes")
    assert sh.json(*ask)["ok"]
    result = sh(*ask, "--active", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, told["ok"], told["status"]) == (1, "", False, 1)
    assert (told["state"], told["because_of"]) == ("revoked", id_of(sh, "acme"))
    assert "state        revoked" in sh(*ask, "--active").stdout


def test_what_is_told_to_programs_is_in_one_form(sh):
    """Lists are arrays, certificates PEM, guardians an object wherever they are."""
    sh.ok("id", "register", "acme")
    told = sh.json("registry", "lookup", "acme")
    assert load_chain(told["certificate_pem"].encode())[0].auto_id.hex == told["auto_id"]
    (entry,) = sh.json("registry", "history", "acme")["entries"]
    assert told["guardians"] == entry["guardians"] == {"count": 0, "threshold": 0, "delay_seconds": 604_800}
    sh.ok("id", "register", "echo", "--out", "echo.entry", "--unencrypted")
    told = sh.json("id", "show", "--file", "echo.entry")
    assert (told["signed_by"], told["missing"]) == ([id_of(sh, "echo")], [id_of(sh, "acme")])


def test_bad_input_is_told_in_one_line(sh, registry, monkeypatch):
    ask = ("registry", "status", "acme")
    assert "is no log's key" in sh.fails(2, *ask, "--log-key", "nonsense")
    assert "a contact is" in sh.fails(2, *ask, "--registry", "nonsense")
    assert "is the registry running there?" in sh.fails(5, *ask, "--registry", NOBODY)
    assert "no such identity" in sh.fails(1, "registry", "status", "nobody")
    assert "no such identity" in sh.fails(1, "id", "register", "nobody")
    assert "did not answer within" in sh.fails(5, *ask, "--timeout", "0.000001")
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    assert "--registry" in sh.fails(2, *ask)
    assert "which registry?" in sh.fails(2, "id", "register", "acme")
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    line = sh.fails(2, "id", "register", "acme")
    assert "Missing option '--log-key'" in line
    assert "which `autolink registry init` and `serve` print" in line


def test_a_registry_that_never_answers_is_given_up_after_the_time_that_is_said(shell, monkeypatch):
    """The time given with --timeout, or that of the part that took too long."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        ask = ("--registry", NOBODY.removesuffix("1") + str(port), "--log-key", OTHER_KEY)
        for command in ("status 00", "lookup 00", "history 00", "monitor --once"):
            words = command.replace("00", "0" * 64).split()
            line = shell.fails(5, "registry", *words, *ask, "--timeout", "0.1")
            assert line.endswith("the registry did not answer within 0.1 s: give more time with --timeout")
        monkeypatch.setattr(limits, "OPENING", 0.1)
        line = shell.fails(5, "registry", "status", "0" * 64, *ask)
        assert (
            float(re.search(r"did not answer, given up after ([\d.]+) s: is it running there", line)[1]) < 120
        )
        for command in (("audit",), ("export", "mirror")):
            words = [command[0], f"http://127.0.0.1:{port}", *command[1:]]
            line = shell.fails(5, "registry", *words, "--log-key", OTHER_KEY, "--timeout", "0.1")
            assert re.search(r": checkpoint: no answer within [\d.]+ s: is it served there\?$", line)


def test_a_registry_says_what_its_log_has_not_signed_and_nothing_is_kept(sh):
    """The right registry and the wrong key: no entry counts as logged."""
    line = sh.fails(1, "id", "register", "acme", "--log-key", OTHER_KEY)
    assert "receipt" in line
    assert not (Keystore().folder("acme") / "registry").exists()


def test_a_registry_that_tells_half_of_a_history_is_caught(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    sh.ok("id", "revoke", "acme", "--yes")
    history, other = ("registry", "history", "acme"), sh.json("registry", "status", "echo")["last_entry"]
    assert not (sh.path / "evidence").exists()
    for change, says in (
        (lambda places: places[1:], "does not show as many entries"),
        (lambda places: places[:1] if len(places) == 2 else [], "does not show as many entries"),
        (lambda places: places[::-1], "does not show as many entries as it has signed, or others"),
        (lambda places: [other, places[-1]], "another ID's entry"),
    ):
        with monkeypatch.context() as patch:
            Lies(patch).tell("history", change)
            assert says in (line := sh.fails(1, *history))
        assert "what it shows is in evidence/unproved-" in line
    for kept in (sh.path / "evidence").glob("*.evidence"):  # the log's signed word, which it has not held to
        assert Status.from_untrusted(kept.read_bytes()).auto_id.hex == id_of(sh, "acme")
    with monkeypatch.context() as patch:
        certificate = Keystore().chain("echo")[0].der
        Lies(patch).tell("place", lambda place: place.model_copy(update={"certificate": certificate}))
        assert "not the one that its log has signed" in sh.fails(1, "registry", "lookup", "acme")
    with monkeypatch.context() as patch:
        Lies(patch).tell("place", lambda place: place.model_copy(update={"entries": 1}))
        assert sh.json("registry", "lookup", "acme")["entries"] == 2


def test_a_lie_is_told_where_what_shows_it_cannot_be_kept(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    (sh.path / "evidence").touch()
    Lies(monkeypatch).tell("history", lambda places: [])
    line = sh.fails(1, "registry", "history", "acme")
    assert "does not show as many entries" in line
    assert line.endswith(": what it shows cannot be kept in evidence (File exists)")


def test_a_clock_that_is_behind_is_told(sh, monkeypatch):
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(minutes=5)

    sh.ok("id", "register", "acme")
    monkeypatch.setattr(registry_look, "datetime", Behind)
    assert "is to come: set the clock" in sh.fails(1, "registry", "status", "acme")


# --- trust -------------------------------------------------------------------------------------------------


def test_trust_in_a_registry_is_asked_for_beside_the_others():
    """Who else vouches for a revoked agent that shows no status does not help it."""
    convert = SpecType().convert
    one, young = (convert(f"registered:{OTHER_KEY}{more}", None, None) for more in ("", ",max-age=600"))
    assert isinstance(build([one], folder=None), Registered)
    joined = build([convert("self-certified", None, None), one, young], folder=None)
    assert repr(joined) == (f"AllOf(SelfCertified(), AnyOf(Registered({ORIGIN}), Registered({ORIGIN})))")
    # Read again, it remembers what it has heard.
    assert build([one], folder=None) is build([one], folder=None)


SPECS = ["registered:", "registered,age=3", "self-certified,max-age=600", "registered:x"] + [
    f"registered:{OTHER_KEY}{more}"
    for more in (",max-age=", ",age=3", ",max-age=599", ",max-age=nan", ",max-age=-1", ",max-age=1e9")
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_registry_that_cannot_be_trusted_is_told(sh, spec):
    line = sh.fails(2, "ping", NOBODY, "--as", "echo", "--trust", spec)
    assert "registered" in line
    assert (",max-age=SECONDS" in line) == (",age=3" in spec or spec in SPECS[:3])


@pytest.mark.parametrize("more", ["", ",max-age=600"])
def test_a_registry_is_trusted_by_the_key_that_is_given_already(sh, registry, monkeypatch, more):
    """That of --log-key, or else of its variable; by a command that has no such option, too."""
    ping = ("ping", NOBODY, "--as", "echo", "--trust", f"registered{more}")
    assert "is the agent running there?" in sh.fails(5, *ping)
    sh.ok("id", "export", "echo", "--chain", "-o", "chain.pem")
    judge = ("id", "verify", "chain.pem", "--trust", f"registered{more}")
    assert "shows no status" in sh.fails(3, *judge)
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    assert "is the agent running there?" in sh.fails(5, *ping, "--log-key", registry.log_key)
    for command in (ping, judge):
        assert "active in which log? Give its key: registered:KEY, or $AUTOLINK_LOG_KEY" in sh.fails(
            2, *command
        )


def test_a_registry_without_its_key_is_told(sh, monkeypatch):
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    ping = ("ping", NOBODY, "--as", "echo", "--trust")
    assert "which key has the log" in sh.fails(2, *ping, "self-certified")
    assert "is the agent running there?" in sh.fails(
        5, *ping, f"registered:{OTHER_KEY}", "--registry", NOBODY
    )


# --- end to end --------------------------------------------------------------------------------------------


def test_who_was_rotated_before_it_was_on_record_is_told(sh):
    here_alone = {"AUTOLINK_REGISTRY": None}
    sh.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted", env=here_alone)
    line = sh.fails(3, "id", "register", "acme")
    assert line.endswith(": an identity goes on record before its first rotation: make a new one")


@pytest.mark.parametrize("command", ["status acme", "lookup acme", "monitor --once"])
def test_the_key_of_another_log_is_told_as_such(sh, command):
    sh.ok("id", "register", "acme")
    other = str(VerifierKey.of("other.example/log", Ed25519PrivateKey.generate().public_key()))
    line = sh.fails(1, "registry", *command.split(), "--log-key", other)
    says = f"this registry's log is {ORIGIN}; the log key given is of other.example/log"
    assert line.startswith("registry 127.0.0.1:")
    assert line.endswith(says)
    line = sh.fails(1, "registry", *command.split(), "--log-key", OTHER_KEY)
    assert "not signed by this key of registry.example/log (+" in line
    assert line.endswith("is your --log-key that of this log?")


def test_a_revoked_agent_is_refused_and_its_live_link_ends(market, shell, monkeypatch):
    """Everything in processes of its own: a registry by invitation, an agent that asks for it, and its caller."""
    shell.ok("registry", "init", "reg", "--origin", ORIGIN, "--unencrypted")
    shell.ok("id", "new", "keeper", "--unencrypted")
    server, log_key = serve(market)
    for name, value in (("AUTOLINK_REGISTRY", server.contact), ("AUTOLINK_LOG_KEY", log_key)):
        monkeypatch.setenv(name, value)
        market.environment[name] = value
    line = shell.fails(3, "id", "register", "acme")
    assert line.endswith(
        f"has to invite this ID first: autolink registry invite FOLDER {id_of(shell, 'acme')}"
    )
    shell.ok("registry", "invite", "reg", "acme")
    for name in ("acme", "seller", "buyer"):
        shell.ok("id", "register", name, "--unencrypted")
    trust = ("--trust", f"registered:{log_key}")
    watch = market.start("-v", "registry", "monitor", "--json", "--every", "3600", "--since", "0")
    assert [json.loads(watch.line())["index"] for _ in range(3)] == [0, 1, 2]
    seller = market.start("run", "shop:handlers", "--as", "seller", *trust)
    seller.contact = seller.line()
    as_buyer = ("--as", "buyer", *trust)
    assert json.loads(shell.ok("call", seller.contact, "echo", '"hi"', *as_buyer)) == "hi"
    load = shell.json("bench", "handshake", seller.contact, "-d", "0.1", "--workers", "2", *as_buyer)
    assert load["ok"]  # each worker shows the status, and goes by the peer's
    monkeypatch.delenv("AUTOLINK_REGISTRY")  # the status of the last call is kept, but nobody shows it
    line = shell.fails(3, "ping", seller.contact, "-c", "1", *as_buyer)
    assert "refused us" in line
    assert line.endswith("if it asks a registry: add --registry")
    monkeypatch.setenv("AUTOLINK_REGISTRY", server.contact)
    line = shell.fails(3, "ping", seller.contact, "--as", "bob", *trust)
    assert "untrusted: it may go by our registry: we have no status to show: " in line
    assert line.endswith("is not on record there (autolink id register NAME)")
    calling = market.start("call", seller.contact, "forever", *as_buyer)
    assert seller.line() == "holding"
    shell.ok("id", "revoke", "buyer", "--by", "acme", "--yes")
    assert calling.process.wait(20) != 0
    assert "revoked" in seller.log_until("ended")
    assert json.loads(watch.line())["what"] == "revoke"
    line = ends(shell, 3, "call", seller.contact, "echo", *as_buyer)
    assert line.endswith("refused us: revoked: it may go by our registry: we are revoked there")
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
    line = shell.fails(
        3, "call", seller.contact, "echo", "1", "--as", "buyer", "--trust", f"registered:{OTHER_KEY}",
        "--log-key", log_key,
    )  # fmt: skip
    ours, its = ("+".join(["", key.split("+")[1], "…"]) for key in (OTHER_KEY, log_key))
    assert f"not signed by this key of {ORIGIN} ({ours}), but by another ({its})" in line
    assert "your log key is not its registry's, or it shows the status of another registry" in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_served_agent_goes_on_while_it_is_renewed_on_record(market, shell, registry, monkeypatch, workers):
    """Also where it took the certificate before the registry had it: as workers do, which are rolled at once."""
    for name, value in (("AUTOLINK_REGISTRY", registry.contact), ("AUTOLINK_LOG_KEY", registry.log_key)):
        monkeypatch.setenv(name, value)
        market.environment[name] = value
    shell.ok("id", "new", "shops", "--unencrypted")
    for name in ("shops", "stall", "guest"):
        if name != "shops":
            shell.issued(name, "shops")
        shell.ok("id", "register", name, "--unencrypted")
    trust = ("--trust", f"registered:{registry.log_key}")
    stall = market.start("-v", "run", "shop:handlers", "--as", "stall", "--workers", workers, *trust)
    stall.contact = stall.line()
    request = shell.ok("id", "export", "stall", "--request")

    def issue() -> None:
        pass_a_second(monkeypatch)
        shell.ok("id", "issue", "-", "--as", "shops", "-o", "stall.pem", stdin=request)

    def answers() -> bool:
        called = shell("call", stall.contact, "echo", "1", "--as", "guest", *trust)
        assert called.exit_code == 0 or "not the current one on record" in called.stderr
        return called.exit_code == 0

    issue()
    shell.ok("id", "renew", "stall", "stall.pem")
    assert answers()
    for what in ["another certificate"] if workers == "1" else ["is ready"] * 4:
        stall.log_until(what)
    assert answers()
    issue()
    shell.ok("id", "accept", "stall", "stall.pem")
    stall.log_until("another certificate of ours on record")
    assert workers == "2" or answers()
    shell.ok("id", "renew", "stall")
    deadline = time.monotonic() + 30
    while not answers():
        assert time.monotonic() < deadline
    stall.process.terminate()
    assert stall.process.wait(30) == 0


def test_an_envelope_is_verified_offline_with_the_logs_key_alone(sh, registry, monkeypatch):
    """The status that its author showed at the time is in it."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    sh("ping", NOBODY, "--as", "echo", "--trust", "self-certified")
    (status,) = Keystore().folder("echo").glob("registry-*.status")
    author = Agent(Credential.load("echo"), trust=SelfCertified())
    silent = author.sign(author.auto_id, "note")
    author.replace_evidence(status.read_bytes())
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    verify = ("verify", "-", "--at", "now", "--trust", f"registered:{registry.log_key}")
    told = sh.json(*verify, stdin=author.sign(author.auto_id, "note").to_bytes())
    assert told["author"]["grounds"].startswith("Registered: active in registry.example/log at ")
    assert "shows no status" in sh.fails(3, *verify, stdin=silent.to_bytes())


# --- being found -------------------------------------------------------------------------------------------


def test_an_agent_is_found_by_its_auto_id_alone(market, shell, registry, monkeypatch):
    """It has said in the registry where it is and what it offers: once, although it has two workers."""
    for name, value in (("AUTOLINK_REGISTRY", registry.contact), ("AUTOLINK_LOG_KEY", registry.log_key)):
        monkeypatch.setenv(name, value)
        market.environment[name] = value
    shell.ok("id", "new", "shops", "--unencrypted")
    shell.ok("id", "register", "shops")
    shell.issued("stall", "shops")
    shell.ok("id", "register", "stall", "--unencrypted")
    stall, caller = id_of(shell, "stall"), ("--as", "buyer", "--trust", "self-certified")
    line = shell.fails(5, "call", stall, "echo", *caller)
    assert (
        "has published no service record since it was registered: its owner must run it with --advertise"
        in line
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"127.0.0.1:{port}"
    served = ("run", "shop:handlers", "--as", "stall", "--trust", "self-certified", "--workers", "2")
    seller = market.start("-v", *served, "--listen", f"0.0.0.0:{port}", "--advertise", address)
    seller.contact = seller.line()
    assert seller.contact == f"autolink://{stall}@{address}"
    seller.log_until("our service record is on record")
    line = shell.fails(5, "call", stall, "echo", *caller)
    assert "127.0.0.1 is loopback: --allow a network that is yours" in line
    here = (*caller, "--allow", "127.0.0.0/8")
    assert json.loads(shell.ok("call", stall, "echo", "1", *here)) == 1
    strict = ("--as", "buyer", "--trust", "issuer:acme.pem", *here[-2:])
    line = shell.fails(3, "call", stall, "echo", *strict)
    assert line.startswith(f"{stall}: we refused ")
    assert line.count("unknown_issuer") == 1
    line = shell.fails(5, "call", "0" * 64, "echo", *here, "--registry", seller.contact)
    assert f"is found: registry {address}: " in line
    assert "load is put on a contact" in shell.fails(2, "bench", "handshake", stall, *caller)
    assert line.endswith("is this the contact of a registry?")
    peer_id = shell.json("id", "show", "stall")["peer_id"]
    assert shell.json("ping", peer_id, "-c", "1", *here)["peer_id"] == peer_id
    facts = shell.json("registry", "lookup", stall)
    assert facts["service_record"]["addresses"] == [address]
    offered = {offer["name"]: offer["takes"] for offer in facts["service_record"]["methods"]}
    assert (offered["hold"], offered["echo"]) == ({"type": "string"}, {})
    shown = shell.ok("registry", "lookup", "stall")
    assert f"addresses       {address}\n" in shown
    assert "methods         echo, environment, fails, forever, garbage, headers, hold, odd\n" in shown
    assert shell.json("registry", "lookup", stall)["entries"] == 2


def test_whom_nobody_can_find_is_told(sh, registry, monkeypatch):
    call = ("call", "0" * 64, "echo", "--as", "echo", "--trust", "self-certified")
    line = sh.fails(1, *call)  # as `registry status` of it
    where = Contact.parse(registry.contact).address
    assert (
        f"is found: registry {where}: 00000000… is not on record in {ORIGIN}: is it the right registry?"
        in line
    )
    assert line.endswith("autolink id register NAME")
    assert "networks to allow are such as 10.0.0.0/8" in sh.fails(2, *call, "--allow", "nonsense")
    assert sh.fails(2, *call, "--allow", "127.0.0.1/8").endswith("host bits set, but 127.0.0.0/8 is one")
    key = f"key:sha256:{'0' * 64}"
    assert "only an Auto ID is" in sh.fails(2, "ping", key, *call[3:])
    assert "is found: registry 127.0.0.1:1: no link to " in sh.fails(5, *call, "--registry", NOBODY)
    assert "within 1e-06 s: give more time" in sh.fails(5, *call, "--timeout", "0.000001")
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    assert "where is 0000" in sh.fails(2, *call)
    assert "--registry" in sh.fails(2, "bench", "handshake", "0" * 64, *call[3:])


def test_a_registry_that_lies_about_who_is_looked_for_leaves_evidence_with_who_looked(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    Lies(monkeypatch).tell("history", lambda places: [])
    line = sh.fails(1, "ping", id_of(sh, "acme"), "--as", "echo", "--trust", "self-certified")
    (kept,) = (Keystore().folder("echo") / "evidence").glob("*.evidence")
    assert line.endswith(f": what it shows is in {kept}")
    assert "the registry does not show as many entries as it has signed, or others: " in line
    assert Status.from_untrusted(kept.read_bytes()).auto_id.hex == id_of(sh, "acme")


def test_the_contact_is_of_where_others_reach_it(sh, market, monkeypatch):
    """And not of where one process listens, which nobody else can dial; with workers the test above shows it."""

    async def serving_it(agent, listen, patience, announce):
        announce([f"autolink://{agent.auto_id}@{address}" for address in listen])
        return True

    monkeypatch.setattr(run, "serve", serving_it)
    serving = (
        "run",
        "shop:handlers",
        "--as",
        "echo",
        "--trust",
        "self-certified",
        "--listen",
        "0.0.0.0:4433",
    )
    echo = f"autolink://{id_of(sh, 'echo')}@"
    assert sh.ok(*serving) == f"{echo}0.0.0.0:4433\n"
    reached = ("--advertise", "echo.example:4433", "--advertise", "[2001:db8::1]:4433")
    assert sh.ok(*serving, *reached) == f"{echo}echo.example:4433\n{echo}[2001:db8::1]:4433\n"


def test_what_cannot_be_advertised_is_told_before_anybody_serves(sh, market, monkeypatch):
    run = ("run", "shop:handlers", "--as", "echo", "--trust", "self-certified", "--advertise")
    for address in ("unix:/nowhere", "127.0.0.1:0", "nonsense"):
        assert "host:port" in sh.fails(2, *run, address)
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    assert "Give the registry's contact: --registry" in sh.fails(2, *run, "host.example:1")
