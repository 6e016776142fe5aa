"""Where errors become a line and a status, where --trust is read, and what is global."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from autolink.cli import main
from autolink.cli.edge import AT_ANOTHER_TIME, Edge, Status, about, as_json, shown, status_of
from autolink.cli.options import write
from autolink.demo import Outcome
from autolink.errors import (
    CallError,
    Code,
    DeliveryUnknown,
    KeystoreError,
    LinkLost,
    NotAnAgent,
    NotLocated,
    Reason,
    Refused,
    RemoteProtocolError,
    UsageError,
)
from autolink.registry.discovery import NotFound
from tests.cli.registries import OTHER_KEY


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (click.BadParameter("x"), 2), (UsageError("x"), 2), (KeystoreError("x"), 1), (RemoteProtocolError("x"), 1),
        (OSError(2, "x"), 1), (click.ClickException("x"), 1), (Refused(Reason.EXPIRED, by="peer"), 3),
        (CallError(Code.ABORTED), 4), (LinkLost("x"), 5), (DeliveryUnknown("x"), 5), (TimeoutError(), 5),
    ],
)  # fmt: skip
def test_every_kind_of_error_has_its_status_and_one_line(error, status):
    assert status_of(error) == status
    assert shown(error)
    assert shown(error).isprintable()
    assert as_json(error)["status"] == status


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("by", ["us", "peer"])
def test_a_refusal_names_the_party_even_where_the_peer_did_not(reason, by):
    with pytest.raises(Refused) as caught, about("10.0.0.1:7"):
        raise Refused(reason, by=by)
    assert shown(caught.value).startswith("10.0.0.1:7: ")
    assert reason.value in shown(caught.value)


@pytest.mark.parametrize(
    ("reason", "detail", "says"),
    [
        (Reason.NOT_VOUCHED, "echo shows no status of registry.example/log", "autolink id register NAME"),
        (Reason.EXPIRED, "its status is of 2026-01-01 00:00:00 UTC, too long ago", "run it with --registry"),
        (Reason.EXPIRED, "its certificate is not the current one on record", "autolink id renew NAME"),
        (Reason.EXPIRED, "its status is from before more changes: a fresh one will do", "try again"),
        (Reason.EXPIRED, "the certificate of echo", "its issuer must issue a new one"),
    ],
)
def test_what_is_wrong_with_a_status_is_no_fault_of_the_issuers(reason, detail, says):
    """Nor of whom we trust; and only a command that has --at speaks of it."""
    with pytest.raises(Refused) as plain, about("10.0.0.1:7"):
        raise Refused(reason, by="us", detail=detail)
    assert says in shown(plain.value)
    assert "--at" not in shown(plain.value)
    assert ("its issuer" in shown(plain.value)) == ("issuer" in says)
    with pytest.raises(Refused) as asked, about("a file", also=AT_ANOTHER_TIME):
        raise Refused(reason, by="us", detail=detail)
    assert ("--at asks about another time" in shown(asked.value)) == (reason is Reason.EXPIRED)


def test_an_error_line_shows_nothing_that_a_terminal_would_obey():
    error = OSError(2, "No such\nfile\x1b]0;x\x07", "dir/\u202e\x1b[2J\n")
    assert shown(error) == "dir/\\u{202e}\\u{1b}[2J : No such file\\u{1b}]0;x\\u{7}"
    assert len(shown(UsageError("x" * 1_000_000))) < 2000


def test_the_statuses_are_those_of_the_table_and_of_the_help():
    """One place documents them: the module's table; the help says the same numbers."""
    from autolink.cli import edge

    for status in Status:
        assert f"\n{int(status):<7}" in edge.__doc__ or f"\n{int(status)} " in edge.__doc__
    text = CliRunner().invoke(main, ["--help"]).output
    assert all(f"{int(status)} " in text for status in Status)


def test_a_bug_keeps_its_traceback():
    @click.group(cls=Edge)
    def group() -> None: ...

    @group.command()
    def broken() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(group, ["broken"]).exception, ZeroDivisionError)


def test_an_interrupt_is_status_130():
    @click.group(cls=Edge)
    def group() -> None: ...

    @group.command()
    def stops() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(group, ["stops"])
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


@pytest.mark.parametrize(
    "args",
    [
        "bogus", "id bogus", "--bogus", "call", "ping x -c 0", "ping x --timeout -1", "ping x --timeout nan",
        "run m:n --drain NaN", "run m:n --backend curio", "run m:n --app-dir /nowhere", "id new x --kind agent",
        "id new x --days nan", "id new x --days 1e9", "id new \x1b[31m \x07",
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_status_2_and_one_line(shell, args):
    assert shell.fails(2, *args.split(" "))


@pytest.mark.parametrize("group", ["", "id", "registry", "bench"])
def test_who_asks_for_nothing_gets_the_help(group):
    asked = CliRunner().invoke(main, group.split())
    assert (asked.exit_code, asked.stdout) == (2, "")
    assert asked.stderr.startswith("Usage: ")
    assert "\nCommands:\n" in asked.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("regstry", "registry"), ("id lst", "list"), ("registry stauts", "status")]
)
def test_a_mistyped_command_is_told_the_nearest(shell, typed, meant):
    assert f"Did you mean {meant!r}?" in shell.fails(2, *typed.split())


def test_the_bounds_of_a_number_are_told_in_few_digits(shell):
    line = shell.fails(2, "id", "register", "x", "--log-key", OTHER_KEY, "--delay", "0.01")
    assert "0.01 is not in the range 1h<=x<=90d" in line


@pytest.mark.parametrize(
    "spec",
    ["", "issuer", "issuer:", "pinned", "anyone", "unsafe_anyone", "self-certified:x", "unsafe-anyone:x", "known:",
     "\x1b[31m", "issuer|pinned", "x" * 100_000],
)  # fmt: skip
def test_what_is_no_trust_is_told_with_the_forms_there_are(acme, spec):
    assert "self-certified" in acme.fails(2, "id", "verify", "acme.pem", "--trust", spec)


def test_trust_has_no_default(acme):
    assert "--trust" in acme.fails(2, "id", "verify", "acme.pem")
    assert "--trust" in acme.fails(2, "ping", f"autolink://{'0' * 64}@h:1", "--as", "acme")


def test_rule_20_joined_trust_refuses_whom_one_of_them_contradicts(shell):
    """Two issuers' anchors of one plain name under one --trust are an error; a pin and another key, an impostor."""
    for name in ("one", "two"):
        shell.ok("id", "new", name, "--plain", "--common-name", "globex", "--unencrypted")
        shell.ok("id", "export", name, "-o", f"{name}.pem")
    trust = ("--trust", "issuer:one.pem", "--trust", "issuer:two.pem")
    assert "different keys" in shell.fails(2, "id", "verify", "one.pem", *trust)
    line = shell.fails(3, "id", "verify", "one.pem", "--trust", "pinned:two.pem", "--trust", "unsafe-anyone")
    assert "impostor" in line


@pytest.mark.parametrize(
    ("export", "says"),
    [
        (("seller", "--chain"), "this is the chain of seller, not its organisation's anchor"),
        (("seller", "--request"), "no certificate can be read"),
        (("acme", "--unencrypted-key"), "no certificate can be read"),
        (None, "no certificate can be read"),
    ],
    ids=["chain", "request", "key", "garbage"],
)
def test_what_is_no_anchor_is_told_with_what_writes_one(acme, export, says):
    """In our own words: no link to somebody else's manual."""
    acme.issued("seller", "acme")
    (acme.path / "bad").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    if export:
        (acme.path / "bad").unlink()
        acme.ok("id", "export", *export, "-o", "bad")
    line = acme.fails(1, "id", "verify", "acme.pem", "--trust", "issuer:bad")
    assert line.startswith(f"--trust issuer:bad: {says}")
    assert line.endswith("an anchor file is what `autolink id export NAME` writes")


def test_a_name_that_does_not_resolve_is_not_taken_for_an_agent_that_is_down():
    lost = LinkLost("no link to nowhere:1: unknown")
    lost.__cause__ = socket.gaierror(-2, "unknown")
    assert shown(lost) == "no link to nowhere:1: unknown: this name does not resolve: is it right?"
    assert shown(lost.__cause__) == "unknown: this name does not resolve: is it right?"  # to listen at
    lost.__cause__ = ConnectionRefusedError()
    assert shown(lost).endswith("is the agent running there?")


def test_a_hint_about_the_registry_is_for_who_is_not_found():
    revoked, found = (
        Refused(Reason.REVOKED, by="us", peer="seller"),
        NotLocated("no address of seller is found"),
    )
    gone = LinkLost("the link to seller is gone")
    for error, cause, hint in (
        (found, revoked, "is this the contact of a registry?"),
        (found, LinkLost("no link"), "is the registry running there?"),
        (found, NotAnAgent("what came is no TLS"), "is this the contact of a registry?"),
        (gone, revoked, "the link to seller is gone"),
    ):  # fmt: skip
        error.__cause__ = cause
        assert shown(error).endswith(hint)


def test_a_link_that_ends_by_a_refusal_is_refused():
    """Such as by our verdict on a peer that was revoked; however far down that is said."""
    lost = LinkLost("the link is gone")
    lost.__cause__ = NotFound("it is revoked")
    assert status_of(lost) == 5
    lost.__cause__.__cause__ = Refused(Reason.REVOKED, by="us")
    assert status_of(lost) == 3


@pytest.mark.parametrize("by", ["us", "peer"])
def test_who_speaks_no_tls_1_3_or_no_autolink_in_it_is_hardly_an_agent(by):
    line = shown(Refused(Reason.VERSION, by=by, peer="10.0.0.1:5", detail="it speaks no TLS 1.3"))
    assert line.endswith(
        "version (it speaks no TLS 1.3): no autolink agent answers there, or one of another version"
    )


def test_known_without_a_file_needs_an_identity(acme):
    assert "known:FILE" in acme.fails(2, "id", "verify", "acme.pem", "--trust", "known")


def test_the_log_goes_to_stderr_while_the_command_runs_and_no_handler_stays(shell, monkeypatch):
    """WARNING by default, more with -v; afterwards logging is as it was."""
    before = list(logging.getLogger().handlers), logging.getLogger().level

    def names(self: object) -> tuple[str, ...]:
        for level in (logging.WARNING, logging.INFO, logging.DEBUG):
            logging.getLogger("autolink").log(level, "said at %s", logging.getLevelName(level))
        return ()

    monkeypatch.setattr("autolink.identity.Keystore.names", names)
    heard = [shell(*verbosity, "id", "list") for verbosity in ([], ["-v"], ["-vv"])]
    assert [result.stderr.count("said at") for result in heard] == [1, 2, 3]
    assert all("said at" not in result.stdout for result in heard)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_an_option_of_the_whole_program_that_stands_behind_a_command_is_sent_where_it_belongs(shell):
    for option, command in (("-v", ("run",)), ("-v", ("id", "list")), ("--verbose", ("registry", "serve"))):
        line = shell.fails(2, *command, option)
        assert line == f"{option} goes before the command: main {option} {' '.join(command)}"
    assert "-v goes before the command" in shell.fails(2, "id", "list", "-vv")
    assert shell.fails(2, "id", "list", "-x") == "No such option '-x'. (try 'main id list --help')"


def test_a_variable_is_named_where_the_value_came_from_it_or_is_missing(shell):
    audit = ("registry", "audit", "nowhere")
    variable, wrong = "env var: 'AUTOLINK_LOG_KEY'", "'nonsense' is no log's key"
    line = shell.fails(2, *audit, "--log-key", "nonsense", env={"AUTOLINK_LOG_KEY": OTHER_KEY})
    assert (wrong in line, "env var" in line) == (True, False)
    line = shell.fails(2, *audit, env={"AUTOLINK_LOG_KEY": "nonsense"})
    assert (wrong in line, variable in line) == (True, True)
    assert variable in shell.fails(2, *audit)
    run = ("run", "shop:handlers")
    assert "env var" not in shell.fails(2, *run, "--workers", "0")
    assert "'--workers' (env var: 'AUTOLINK_RUN_WORKERS')" in shell.fails(
        2, *run, env={"AUTOLINK_RUN_WORKERS": "0"}
    )


def test_rule_10_the_command_leaves_sigpipe_as_python_has_it(shell):
    shell.ok("id", "list")
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


def test_the_demo_shows_peers_words_as_text_and_tells_by_its_status_whether_all_went_well(shell, monkeypatch):
    peer = f"{'a1' * 32}?key=sha256:{'b2' * 32}"
    scene = {"what": "a [red]scene[/]", "detail": f"[link=x]y[/] \x1b[31m {peer}", "ok": True}

    def outcome(*, lost: int) -> Outcome:
        return Outcome(
            scenes=[scene], tls={"version": "TLSv1.3", "group": "g"}, exchanged=2, verified=2 - lost
        )

    async def plays(show: object = None) -> Outcome:
        return outcome(lost=0)

    async def loses(show: object = None) -> Outcome:
        return outcome(lost=1)

    async def breaks(show: object = None) -> Outcome:
        raise RuntimeError("a process\nended")

    monkeypatch.setattr("autolink.cli.demo.run_demo", plays)
    out = shell.ok("demo")
    assert "a [red]scene[/]" in out
    assert "[link=x]y[/] \\u{1b}[31m" in out
    assert "a1a1a1a1…?key=sha256:b2b2b2b2…" in " ".join(out.replace("│", " ").split())
    told = json.loads(shell.ok("demo", "--json"))
    assert told["ok"] is True
    assert told["scenes"] == [scene]
    monkeypatch.setattr("autolink.cli.demo.run_demo", loses)
    assert shell("demo").exit_code == 1
    monkeypatch.setattr("autolink.cli.demo.run_demo", breaks)
    assert "a process ended" in shell.fails(1, "demo")

    async def lags(show: object = None) -> Outcome:
        raise TimeoutError

    monkeypatch.setattr("autolink.cli.demo.run_demo", lags)
    assert shell.fails(1, "demo") == "the demo broke off: it took too long"


def test_a_command_brings_in_no_part_of_the_library_that_it_does_not_need():
    """Whoever types `autolink id new` does not wait for the registry."""
    program = (
        "import sys; from autolink.cli import main; from click.testing import CliRunner;"
        "assert CliRunner().invoke(main, ['id', 'new', '--help'], standalone_mode=False).exit_code == 0;"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()
    assert "autolink.cli.identity" in loaded
    assert not {"autolink.registry", "autolink.cli.bench", "autolink.demo", "rich"}.intersection(loaded)


@pytest.mark.parametrize("group", ["", "id", "registry"])
def test_every_command_is_where_its_group_says(group):
    found = find_group(group)
    context = click.Context(found)
    for name in found.list_commands(context):
        command = found.get_command(context, name)
        assert command is not None
        assert command.name == name
    assert found.get_command(context, "nothing") is None


@pytest.mark.parametrize("group", ["", "id", "registry", "bench"])
def test_help_says_of_every_command_what_it_does_in_a_whole_sentence(group):
    text = CliRunner().invoke(main, [*filter(None, [group]), "--help"]).output
    found = find_group(group)
    told = " ".join(text.split())
    for name in found.list_commands(click.Context(found)):
        command = found.get_command(click.Context(found), name)
        assert f" {name} {' '.join(command.get_short_help_str(1000).split())}" in told
    assert "..." not in text.split("COMMAND [ARGS]...")[1]
    assert ("On record in a registry:" in text) == (group == "id")


def test_help_tells_defaults_as_they_are_typed(monkeypatch):
    text = " ".join(CliRunner().invoke(main, ["run", "--help"]).output.split())
    assert "default: 30;" in text
    assert "--workers INTEGER " in text
    assert "--listen ADDRESS " in text
    assert "default: agent]" in CliRunner().invoke(main, ["id", "issue", "--help"]).output


def find_group(name):
    return main.get_command(click.Context(main), name) if name else main


def test_what_is_written_to_a_pipe_or_a_link_leaves_it_there(tmp_path):
    """As root one could have replaced /dev/null."""
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    write(link, b"one")
    assert link.is_symlink()
    assert target.read_bytes() == b"one"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, b"two")
    assert pipe.is_fifo()
    assert os.read(reader, 9) == b"two"
    os.close(reader)
    write(tmp_path / "file", b"three")
    write(tmp_path / "file", b"four")
    assert (tmp_path / "file").read_bytes() == b"four"
