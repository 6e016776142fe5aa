"""`autolink call` and `ping` against a real `autolink run` in another process, over TCP on loopback."""

import gc
import json
import math
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import anyio
import pytest

from autolink import Agent, Link, limits
from autolink.agent.core import NotServed
from autolink.cli import talk
from autolink.cli.serving import collecting_rarely
from autolink.errors import Code, LinkLost, NotAnAgent
from autolink.identity import Keystore
from tests.cli.market import AUTOLINK, Market


@pytest.fixture(scope="module")
def contact(identities: Path) -> Iterator[str]:
    """One seller for the tests that only talk to it."""
    market = Market(
        identities,
        {**os.environ, "AUTOLINK_HOME": str(identities / "home"), "AUTOLINK_PASSPHRASE": "not for children"},
    )
    try:
        yield market.serve("run", "shop:handlers").contact
    finally:
        market.end()


AS_BUYER = ("--as", "buyer", "--trust", "issuer:acme.pem")
BODIES = ["null", "true", "-7", "1.5", '"text é"', "[1,[2,{}]]", '{"a":{"b":[null]}}', "9223372036854775807"]


@pytest.mark.parametrize("body", BODIES)
def test_a_json_body_goes_there_and_comes_back(shell, market, contact, body):
    assert json.loads(shell.ok("call", contact, "echo", body, *AS_BUYER)) == json.loads(body)


def test_a_call_without_body_sends_null_and_a_dash_reads_stdin(shell, market, contact):
    assert json.loads(shell.ok("call", contact, "echo", *AS_BUYER)) is None
    big = json.dumps("x" * 500_000)
    assert shell.json("call", contact, "echo", "-", *AS_BUYER, stdin=big)["reply"] == "x" * 500_000


def test_what_a_reply_holds_can_do_nothing_to_a_terminal(shell, market, contact):
    """Control, bidirectional and markup characters come out as JSON escapes, with the value unchanged."""
    out = shell.ok("call", contact, "odd", *AS_BUYER)
    assert all(character.isprintable() or character == "\n" for character in out)
    assert "é" in out
    reply = json.loads(out)
    assert reply["text"] == "\x1b]0;owned\x07\u202e[red]\x7f\u2028é"
    assert (reply["bytes"], reply["nan"]) == ("_wA=", "NaN")


def test_headers_are_sent_and_wrong_ones_are_told(shell, market, contact):
    told = shell.json("call", contact, "headers", *AS_BUYER, "-H", "traceparent=00-a=b", "-H", "x=")
    assert told["reply"] == {"traceparent": "00-a=b", "x": ""}
    assert told["peer"]["grounds"].startswith("IssuedBy")
    for wrong in (["-H", "novalue"], ["-H", "=x"], ["-H", "a=1", "-H", "a=2"]):
        assert "NAME=VALUE" in shell.fails(2, "call", contact, "headers", *AS_BUYER, *wrong)


HOSTILE_BODIES = {
    "no JSON": "{",
    "bare word": "tea",
    "NaN": "NaN",
    "a key twice": '{"a":1,"a":2}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "many digits": "9" * 5000,
    "lone quote": "'tea'",
    "control": '"\x1b[31m"',
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES)
def test_a_body_that_is_no_json_is_refused_before_anybody_is_dialled(shell, market, body):
    nobody = f"autolink://{'0' * 64}@127.0.0.1:1"
    assert "no JSON" in shell.fails(2, "call", nobody, "echo", body, *AS_BUYER)


@pytest.mark.parametrize("body", ["9223372036854775808000", "[" * 40 + "]" * 40])
def test_a_body_that_no_message_can_hold_is_told_with_its_reason(shell, market, contact, body):
    assert (
        "cannot be encoded" in (line := shell.fails(1, "call", contact, "echo", body, *AS_BUYER))
        or "nested" in line
    )


def test_a_body_larger_than_a_message_is_refused(shell, market, contact):
    assert "1048576" in shell.fails(1, "call", contact, "echo", "-", *AS_BUYER, stdin="1" * 2_000_000)


def test_the_far_handlers_error_is_status_4_and_safe_to_show(shell, market, contact):
    line = shell.fails(4, "call", contact, "fails", *AS_BUYER)
    assert line.startswith("127.0.0.1:")
    assert line.endswith(": failed_precondition: not\\u{a}now \\u{1b}[31m")
    assert "call 'fails' to seller" in line
    result = shell("call", contact, "fails", *AS_BUYER, "--json")
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert (told["ok"], told["code"], told["status"]) == (False, "failed_precondition", 4)
    assert "unimplemented" in shell.fails(4, "call", contact, "no.such", *AS_BUYER)


def test_time_that_runs_out_is_status_5(shell, market, contact):
    """What was waited for, for how long, and what to do about it."""
    line = shell.fails(5, "call", contact, "forever", *AS_BUYER, "--timeout", "0.3")
    assert line.startswith("127.0.0.1:")
    assert line.endswith(": no reply of forever within 0.3 s: give more time with --timeout")


def test_each_ping_has_its_own_time(shell, market, contact, monkeypatch):
    """However many there are, and however long is waited between them."""
    left = []

    async def sleep(seconds):
        left.append(anyio.current_effective_deadline())

    with monkeypatch.context() as patch:
        patch.setattr("autolink.cli.talk.anyio.sleep", sleep)
        shell.ok("ping", contact, *AS_BUYER, "-c", "3", "--interval", "60")
    assert left == [math.inf, math.inf]
    monkeypatch.setattr(Link, "ping", lambda link: anyio.sleep_forever())
    line = shell.fails(5, "ping", contact, *AS_BUYER, "--timeout", "0.3")
    assert line.endswith(": no round trip within 0.3 s: give more time with --timeout")


def test_a_link_that_does_not_open_in_time_is_told_apart(shell, market, contact, monkeypatch):
    """Who accepts connections and says nothing: our --timeout comes first, or the time that any opening gets."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"{contact.rpartition(':')[0]}:{mute.getsockname()[1]}"
        line = shell.fails(5, "ping", silent, *AS_BUYER, "--timeout", "0.1")
        assert "no link opened within 0.1 s: give more time" in line
        monkeypatch.setattr(limits, "OPENING", 0.1)
        assert "no link opened within 0.1 s, and none gets longer" in shell.fails(
            5, "ping", silent, *AS_BUYER
        )


@pytest.mark.parametrize("left", [1, 2])
@pytest.mark.parametrize("promised", [False, True], ids=["before", "out"])
def test_a_call_that_one_who_leaves_has_not_looked_at_is_made_once_more(
    shell, market, contact, monkeypatch, left, promised
):
    """As where workers are rolled: what has the address from then on answers. Once, not for ever. Whether the peer said that
    it leaves before the call was out or, with its promise, after that, the same is told."""
    real, links = Link.call, []

    async def leaving(link, *args, **more):
        links.append(link)
        if len(links) <= left:
            link.go_away("shutdown")
            if promised:
                raise NotServed(Code.UNAVAILABLE, "the peer is draining", received=True)
        return await real(link, *args, **more)

    monkeypatch.setattr(Link, "call", leaving)
    done = shell("call", contact, "echo", "7", *AS_BUYER)
    assert len(links) == len(set(links)) == 2
    assert (done.exit_code, done.stdout) == ((0, "7\n") if left == 1 else (5, ""))
    assert left == 1 or "the peer is draining: try again" in done.stderr


def test_what_is_wrong_with_the_second_link_is_told_of_that(shell, market, contact, monkeypatch):
    real, links = Agent.connect, []

    @asynccontextmanager
    async def leaving(*args, **more):
        if links:
            raise NotAnAgent("no words of ours")
        async with real(*args, **more) as link:
            links.append(link)
            link.go_away("shutdown")
            yield link

    monkeypatch.setattr(Agent, "connect", leaving)
    assert "no words of ours" in shell.fails(5, "call", contact, "echo", "7", *AS_BUYER)


def test_a_call_that_the_peer_may_have_looked_at_is_not_made_again(shell, market, contact, monkeypatch):
    real, calls = Link.call, []

    async def lost(link, *args, **more):
        calls.append(await real(link, *args, **more))
        link.go_away("shutdown")
        raise LinkLost("the connection broke")

    monkeypatch.setattr(Link, "call", lost)
    assert "the connection broke" in shell.fails(5, "call", contact, "echo", "7", *AS_BUYER)
    assert calls == [7]


def test_nobody_there_is_status_5(shell, market, contact):
    nobody = contact.rpartition(":")[0] + ":1"
    assert "is the agent running there?" in shell.fails(5, "ping", nobody, *AS_BUYER)
    assert shell("ping", nobody, *AS_BUYER, "--json").exit_code == 5


def test_ping_says_who_was_verified_on_what_grounds_and_how_long_it_takes(shell, market, contact):
    out = shell.ok("ping", contact, *AS_BUYER, "-c", "3", "--interval", "0")
    assert "IssuedBy: issued below acme~" in out
    assert "X25519MLKEM768" in out
    assert "\n3: " in out
    assert "round trip min" in out
    told = shell.json("ping", contact, *AS_BUYER, "-c", "2", "--interval", "0")
    assert len(told["round_trips_ms"]) == 2
    assert told["peer_id"] in contact


def test_every_option_can_be_a_variable(shell, market, contact):
    """Several --trust stand in one variable, with | between them, as they mean it."""
    environment = {
        "AUTOLINK_AS": "buyer", "AUTOLINK_TRUST": "self-certified|issuer:acme.pem", "AUTOLINK_PING_COUNT": "2",
        "AUTOLINK_PING_INTERVAL": "0", "AUTOLINK_JSON": "1",
    }  # fmt: skip
    assert len(json.loads(shell.ok("ping", contact, env=environment))["round_trips_ms"]) == 2


def test_whom_we_do_not_believe_we_refuse_with_status_3_and_what_to_do(shell, market, contact):
    shell.ok("id", "new", "globex", "--unencrypted")
    shell.ok("id", "export", "globex", "-o", "globex.pem")
    line = shell.fails(3, "ping", contact, "--as", "buyer", "--trust", "issuer:globex.pem")
    assert "unknown_issuer" in line
    assert "--trust issuer:FILE" in line
    told = json.loads(
        shell("ping", contact, "--as", "buyer", "--trust", "issuer:globex.pem", "--json").stdout
    )
    assert (told["refused_by"], told["reason"]) == ("us", "unknown_issuer")


def test_who_does_not_believe_us_is_named_with_what_to_do(shell, market, contact):
    line = shell.fails(3, "ping", contact, "--as", "bob", "--trust", "issuer:acme.pem")
    assert line.startswith("127.0.0.1:")
    assert "refused us: untrusted" in line
    assert line.endswith(
        "ask its owner to trust your anchor: autolink id export bob; if it asks a registry: add --registry"
    )


def test_an_organisation_that_dials_as_itself_is_warned_before_it_is_refused(shell, market, contact):
    """The seller believes whom acme issued, and that is not acme: said before the refusal, which is hard to read."""
    result = shell("ping", contact, "--as", "acme", "--trust", "issuer:acme.pem")
    assert result.exit_code == 3
    warning, line = result.stderr.splitlines()
    assert "is an organisation's own identity" in warning
    assert "`autolink id request`" in warning
    assert "autolink id export acme" in line
    assert "own identity" not in shell("ping", contact, *AS_BUYER, "-c", "1").stderr


def test_another_agent_than_the_contacts_is_refused(shell, market, contact):
    other = shell.json("id", "show", "buyer")["auto_id"]
    wrong = f"autolink://{other}@{contact.partition('@')[2]}"
    assert "wrong_peer" in shell.fails(3, "ping", wrong, "--as", "bob", "--trust", "issuer:acme.pem")


def test_pins_are_read_as_certificates_and_as_lines(shell, market, contact):
    seller = shell.json("id", "show", "seller")["peer_id"]
    (shell.path / "pins").write_text(f"# whom we buy from\n\n{seller} the seller\n")
    shell.ok("id", "export", "seller", "--chain", "-o", "chain.pem")
    leaf = (shell.path / "chain.pem").read_text().split("-----END CERTIFICATE-----\n")[0]
    (shell.path / "leaf.pem").write_text(leaf + "-----END CERTIFICATE-----\n")
    for pins in ("pins", "leaf.pem"):
        told = shell.json("ping", contact, "--as", "buyer", "--trust", f"pinned:{pins}", "-c", "1")
        assert told["grounds"].startswith("Pinned")


def test_unsafe_anyone_is_nobody_but_its_key_so_no_contact_by_name_is_met(shell, market, contact):
    address = contact.partition("@")[2]
    told = shell.json(
        "ping", address, "--anyone-trusted", "--as", "buyer", "--trust", "unsafe-anyone", "-c", "1"
    )
    assert told["peer_id"].startswith("key:sha256:")


def test_an_address_alone_needs_the_word_that_anyone_trusted_may_answer(shell, market, contact):
    address = contact.partition("@")[2]
    assert "--anyone-trusted" in shell.fails(2, "ping", address, *AS_BUYER)
    assert shell.json("ping", address, *AS_BUYER, "--anyone-trusted", "-c", "1")["peer_id"] in contact


@pytest.mark.parametrize(
    "contact",
    ["autolink://", "autolink://abc@h:1", "http://x", "x" * 100_000, "autolink://\x1b[31m@h:1", "unix:x"],
)
def test_a_contact_that_is_none_is_told_in_one_line(shell, market, contact):
    assert shell.fails(2, "ping", contact, *AS_BUYER)


@pytest.mark.parametrize("more", [[], ["--anyone-trusted"]])
def test_a_web_address_is_told_what_a_contact_looks_like(shell, market, more):
    line = shell.fails(2, "ping", "http://127.0.0.1:80", *AS_BUYER, *more)
    assert "'http://127.0.0.1:80' is no contact: one looks like autolink://<64 hex>@host:port" in line


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "no autolink agent answers there: TLS with {} failed: what came is no TLS, perhaps HTTP (wrong version number)",
        ),
        (
            b"",
            "no link to {}: the peer closed the connection during the handshake: is the agent running there?",
        ),
    ],
    ids=["a line", "nothing"],
)
def test_who_speaks_something_else_is_no_autolink_agent(shell, market, contact, answer, says):
    """A server that answers TLS's first bytes with a line of its own, or by closing."""

    def greet() -> None:
        with listening.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Thread(target=greet)
        server.start()
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        line = shell.fails(5, "ping", f"{contact.partition('@')[0]}@{where}", *AS_BUYER)
        server.join()
    assert line == says.format(where)


def test_rule_22_first_use_is_a_named_choice_and_learns_only_what_a_person_dialled(
    shell, market, contact, monkeypatch
):
    """No policy is a usage error; refuse refuses; ask shows id and key and dials again after the answer; then known."""
    known = ("--as", "buyer", "--trust", "known", "-c", "1")
    assert "--on-first refuse, ask or accept" in shell.fails(2, "ping", contact, *known)
    assert "is not known" in shell.fails(3, "ping", contact, *known, "--on-first", "refuse")
    assert "nobody is here" in shell.fails(2, "ping", contact, *known, "--on-first", "ask")
    monkeypatch.setattr(talk, "has_person", lambda: True)
    said_no = shell("ping", contact, *known, "--on-first", "ask", stdin="n\n")
    assert said_no.exit_code == 3
    seller = shell.json("id", "show", "seller")
    assert seller["peer_id"] in said_no.stderr
    assert seller["key"] in said_no.stderr
    assert shell("ping", contact, *known, "--on-first", "ask", stdin="y\n").exit_code == 0
    assert seller["peer_id"] in (Keystore().folder("buyer") / "known_agents").read_text()
    assert shell.json("ping", contact, *known, "--on-first", "refuse")["grounds"].startswith("KnownAgents")


def test_a_first_use_that_is_accepted_is_known_from_then_on(shell, market, contact):
    known = ("--as", "buyer", "--trust", "known:friends", "-c", "1")
    shell.ok("ping", contact, *known, "--on-first", "accept")
    shell.ok("ping", contact, *known, "--on-first", "refuse")


def test_rule_46_the_passphrase_never_reaches_the_served_module(shell, market, contact):
    """The serving process was started with AUTOLINK_PASSPHRASE set."""
    assert json.loads(shell.ok("call", contact, "environment", *AS_BUYER)) == []


def test_whoever_serves_does_not_stop_for_garbage_as_often_as_a_script(shell, market, contact):
    """With a thousand links each look at everything takes a tenth of a second."""
    before = gc.get_threshold()
    with collecting_rarely():
        assert gc.get_threshold() == (50_000, 20, 100)
    assert gc.get_threshold() == before
    assert json.loads(shell.ok("call", contact, "garbage", *AS_BUYER)) == [50_000, 20, 100]


def test_rule_22_an_unknown_caller_is_refused_and_the_warning_names_the_id_for_id_accept(shell, market):
    """The serving process reads the file again: no restart between the person's word and the link."""
    server = market.serve("run", "shop:handlers", "--trust", "known")
    bob = shell.json("id", "show", "bob")["peer_id"]
    as_bob = ("--as", "bob", "--trust", "issuer:acme.pem", "-c", "1")
    shell.fails(3, "ping", server.contact, *as_bob)
    assert f"accept it by its id {bob}" in server.log_until("is not known")
    shell.ok("id", "accept", bob, "--as", "seller")
    shell.ok("ping", server.contact, *as_bob)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_is_open_may_end_and_the_status_is_0(shell, market, backend, stop):
    """The call is being handled when the signal comes; it gets its reply, and only then the server ends."""
    os.mkfifo(shell.path / "release")
    server = market.serve("-v", "run", "shop:handlers", "--backend", backend)
    call = market.start("call", server.contact, "hold", json.dumps(str(shell.path / "release")), *AS_BUYER)
    assert server.line() == "holding"
    server.process.send_signal(stop)
    server.log_until("1 open: up to 30 s to end; the same signal again ends it now")
    told = server.log_until(f"told to stop by {stop.name}")
    assert datetime.fromisoformat(told.split()[0]).utcoffset() == timedelta()  # when: nobody looked on
    (shell.path / "release").write_bytes(b"now")
    assert call.line() == '"done"'
    assert call.process.wait(30) == 0
    assert server.process.wait(30) == 0


@pytest.mark.parametrize("again", [True, False], ids=["second signal", "time over"])
def test_what_does_not_end_is_cut_off_and_the_status_says_so(shell, market, again):
    """By a second signal, or when the time for draining is over: status 1 there, and 5 for whoever was waiting."""
    server = market.serve("-v", "run", "shop:handlers", "--drain", "600" if again else "0.1")
    call = market.start("call", server.contact, "forever", *AS_BUYER)
    assert server.line() == "holding"
    server.process.terminate()
    server.log_until("told to stop")
    if again:
        server.process.terminate()
    assert server.process.wait(30) == 1
    assert call.process.wait(30) == 5


def test_several_addresses_have_a_contact_each_and_all_of_them_answer(shell, market, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "sock"  # a short path
    server = market.serve("run", "shop:handlers", "--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
    for contact in (server.contact, server.line()):
        assert shell.json("ping", contact, *AS_BUYER, "-c", "1")["ok"]
    assert contact.endswith(f"@unix:{path}")


def test_an_agent_made_by_the_module_serves_with_its_own_identity_and_trust(shell, market):
    (shell.path / "made.py").write_text(
        "from autolink import Agent, Credential, TrustAnchor\nfrom autolink.trust import IssuedBy\n"
        "from shop import handlers\n"
        "agent = Agent(Credential.load('seller'), trust=IssuedBy(TrustAnchor.load('acme.pem')), handlers=handlers)\n"
    )
    server = market.start("run", "made:agent")
    assert shell.json("call", server.line(), "echo", "1", *AS_BUYER)["reply"] == 1


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(market):
    """Rule 10: SIGPIPE stays ignored, so a closed pipe is an error that the command meets, not its death."""
    done = subprocess.run(
        ["sh", "-c", f"{AUTOLINK} id list | true; {AUTOLINK} id export acme | head -c 1 >/dev/null"],
        cwd=market.path, env=market.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
