"""`autolink run`: what it refuses to serve. That it serves and drains is shown in test_talk, by real processes."""

import socket

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.registry.log.note import VerifierKey


@pytest.fixture
def seller(acme):
    """A shell in a folder with modules that are none, broken or hostile."""
    acme.issued("seller", "acme")
    modules = {
        "good": "from autolink import Handlers\nhandlers = Handlers()\ntext = 'no'\n",
        "made": "from good import handlers\nfrom autolink import Agent, Credential\n"
                "from autolink.trust import SelfCertified\n"
                "agent = Agent(Credential.load('seller'), trust=SelfCertified(), handlers=handlers)\n",
        "breaks": "raise RuntimeError('two\\nlines \\x1b[31m and [red]markup')\n",
        "syntax": "def :\n",
        "lacks": "import no_such_thing_at_all\n",
        "plain": "from autolink import Handlers\nhandlers = Handlers()\n@handlers.method\ndef f(call, body): pass\n",
    }  # fmt: skip
    for name, text in modules.items():
        (acme.path / f"{name}.py").write_text(text)
    return acme


SERVE = ("--as", "seller", "--trust", "issuer:acme.pem")


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("nowhere:handlers", 2, "--app-dir"),
        ("nowhere.below:handlers", 2, "--app-dir"),
        ("good", 2, "module:name"),
        ("good:", 2, "module:name"),
        (":handlers", 2, "module:name"),
        ("../good:handlers", 2, "module:name"),
        ("good:handlers()", 2, "module:name"),
        ("\x1b[31m:x", 2, "module:name"),
        ("x" * 100_000 + ":x", 2, "no module"),
        ("good:nothing", 2, "has no nothing; it has handlers"),
        ("good:text", 2, "neither Handlers nor an Agent; it has handlers"),
        ("made:handlerz", 2, "has no handlerz; it has handlers, agent"),
        ("os:nothing", 2, "it has neither Handlers nor an Agent"),
        ("os:system", 2, "neither Handlers nor an Agent"),
        ("good:handlers.methods.clear", 2, "neither Handlers nor an Agent"),
        ("breaks:handlers", 1, "RuntimeError: two lines"),
        ("syntax:handlers", 1, "SyntaxError"),
        ("lacks:handlers", 1, "no_such_thing_at_all"),
        ("plain:handlers", 1, "anyio.to_thread"),
    ],
)
def test_a_target_that_cannot_be_served_is_told_in_one_line(seller, target, status, says):
    assert says in seller.fails(status, "run", target, *SERVE)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_passphrase_file_opens_what_the_module_loads_and_what_as_names(shell, how, monkeypatch):
    """The module's own `Credential.load` and --as both get the passphrase of the file; no variable holds it."""
    (shell.path / "pass").write_text("secret\n")
    shell.ok("id", "new", "own", "--passphrase-file", "pass")
    (shell.path / "mine.py").write_text(
        "import os\nfrom autolink import Agent, Credential, Handlers\nfrom autolink.trust import SelfCertified\n"
        "agent = Agent(Credential.load('own'), trust=SelfCertified())\nhandlers = Handlers()\n"
        "assert not os.environ.get('AUTOLINK_PASSPHRASE')\n"
    )
    if how == "variable":
        monkeypatch.setenv("AUTOLINK_PASSPHRASE_FILE", "pass")
        given = []
    else:
        given = ["--passphrase-file", "pass"]
    monkeypatch.setenv("AUTOLINK_PASSPHRASE", "that of another one")
    nowhere = ("--listen", "nowhere")
    assert "an address is" in shell.fails(2, "run", "mine:agent", *nowhere, *given)
    served = ("run", "mine:handlers", "--as", "own", "--trust", "self-certified", *nowhere)
    assert "an address is" in shell.fails(2, *served, *given)


def test_handlers_need_an_identity_and_trust_and_an_agent_takes_neither(seller):
    assert "--as and --trust" in seller.fails(2, "run", "good:handlers")
    assert "--as and --trust" in seller.fails(2, "run", "good:handlers", "--as", "seller")
    assert "--as and --trust" in seller.fails(2, "run", "good:handlers", "--trust", "self-certified")
    assert "leave out" in seller.fails(2, "run", "made:agent", "--as", "seller")
    assert "leave out" in seller.fails(2, "run", "made:agent", "--trust", "self-certified")


@pytest.mark.parametrize("trust", ["registered", "self-certified"])
def test_who_asks_a_registry_about_others_and_shows_none_of_itself_is_told(seller, trust):
    key = VerifierKey.of("registry.example/log", Ed25519PrivateKey.generate().public_key())
    specs = ("--trust", f"registered:{key}") if trust == "registered" else ("--trust", trust)
    told = seller("run", "good:handlers", "--as", "seller", *specs, "--listen", "nowhere")
    assert ("WARNING: without --registry we show no status" in told.stderr) == (trust == "registered")


@pytest.mark.parametrize(
    "address", ["", "nowhere", "127.0.0.1:99999", "127.0.0.1:-1", "unix:relative", "::1:5", "h\n:1"]
)
def test_what_is_no_address_is_told(seller, address):
    assert "listening on" in seller.fails(2, "run", "good:handlers", *SERVE, "--listen", address)


def test_an_address_that_is_taken_is_told_with_what_to_do(seller):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = seller.fails(1, "run", "good:handlers", *SERVE, "--listen", address)
    assert f"listening on {address}: " in said
    assert "in use: somebody listens there already: choose another address" in said


def test_an_address_of_another_machine_is_told_with_what_to_do(seller):
    said = seller.fails(1, "run", "good:handlers", *SERVE, "--listen", "192.0.2.1:4433")
    assert said.startswith("listening on 192.0.2.1:4433: ")
    assert said.endswith(
        "this machine has no such address: listen on one of its own, or on 0.0.0.0 or [::] for all of them"
    )


def test_serving_as_the_organisation_itself_is_warned_of(seller):
    seller.issued("ada", "acme", "--kind", "person")
    seller.ok("id", "new", "eve", "--kind", "person", "--unencrypted")
    for name, says in (("acme", "an organisation's own"), ("eve", "a person's own"), ("ada", None)):
        stderr = seller(
            "run", "good:handlers", "--as", name, "--trust", "self-certified", "--listen", "nowhere"
        ).stderr
        assert says in stderr if says else "own identity" not in stderr


def test_an_address_that_is_taken_is_named(seller):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = seller.fails(1, "run", "good:handlers", *SERVE, "--listen", address)
    assert address in line
    assert "in use" in line


def test_an_identity_that_is_not_ready_cannot_serve(seller):
    seller.ok("id", "request", "waiting", "--unencrypted")
    assert "accept the issuer's chain first" in seller.fails(
        1, "run", "good:handlers", "--as", "waiting", "--trust", "self-certified"
    )
    assert "no such identity" in seller.fails(
        1, "run", "good:handlers", "--as", "nobody", "--trust", "self-certified"
    )


def test_the_traceback_of_a_broken_module_is_there_for_who_asks(seller):
    from click.testing import CliRunner

    from autolink.cli import main

    result = CliRunner().invoke(main, ["-vv", "run", "breaks:handlers", *SERVE])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
