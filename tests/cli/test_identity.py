"""`autolink id`: making, requesting, issuing, accepting, exporting, importing and looking."""

import json
import os
import stat
from pathlib import Path

import pytest

from autolink.cli import passphrase as passphrases
from autolink.identity import Credential, Keystore, TrustAnchor, keys, load_key
from autolink.identity.names import split_bound

VECTORS = Path(__file__).parents[1] / "vectors" / "upstream"


def test_a_new_identity_is_bound_and_its_next_key_lies_encrypted_in_a_file_of_its_own(shell):
    """The next key is the one that the certificate commits to, under the passphrase, readable by the owner alone."""
    result = shell("id", "new", "acme", "--next-key", "elsewhere.key", env={"AUTOLINK_PASSPHRASE": "secret"})
    assert result.exit_code == 0
    assert "Move it to another place" in result.stderr
    path = shell.path / "elsewhere.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    facts = shell.json("id", "show", "acme")
    assert split_bound(facts["common_name"])
    committed = keys.hash_of_key(load_key(path, "secret").public_key()).hex()
    assert facts["next_key"] == f"sha256:{committed}"
    assert b"PRIVATE KEY" not in path.read_bytes()


def test_a_next_key_is_never_written_over_a_file_and_none_is_left_without_its_identity(shell, monkeypatch):
    """A taken file stops the command; a keystore that cannot be written takes the next key's file away again."""
    (shell.path / "acme.next-key").write_text("precious")
    assert "never written over" in shell.fails(1, "id", "new", "acme", "--unencrypted")
    assert (shell.path / "acme.next-key").read_text() == "precious"
    assert shell.json("id", "list")["identities"] == []
    monkeypatch.setattr(
        Keystore, "save_new", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "disk full", "key"))
    )
    assert shell.fails(1, "id", "new", "globex", "--unencrypted") == "key: disk full"
    assert not (shell.path / "globex.next-key").exists()


@pytest.mark.parametrize("key_type", ["p256", "ed25519", "ml-dsa-65"])
def test_an_identity_can_have_any_kind_of_key_that_is_made_here(shell, key_type):
    facts = shell.json("id", "new", "ada", "--unencrypted", "--kind", "person", "--key-type", key_type)
    assert (facts["key_type"], facts["kind"]) == (key_type, "person")


def test_a_plain_name_has_no_next_key_and_its_peer_id_carries_its_key(shell):
    facts = shell.json("id", "new", "globex", "--plain", "--unencrypted")
    assert facts["peer_id"] == f"{facts['auto_id']}?key={facts['key']}"
    assert facts["next_key"] is facts["next_key_file"] is None
    assert list(shell.path.glob("*.next-key")) == []
    assert "no next key" in shell.fails(2, "id", "new", "x", "--plain", "--unencrypted", "--next-key", "f")


def test_a_request_is_issued_and_accepted_and_the_key_never_leaves(acme):
    """The chain below acme comes back to the machine that asked; what travels holds no private key."""
    request = acme.ok("id", "request", "seller", "--unencrypted", "--common-name", "Seller No 1")
    assert "PRIVATE" not in request
    assert acme.json("id", "list")["identities"][1]["state"] == "waits for its chain"
    assert acme.ok("id", "export", "seller", "--request") == request
    chain = acme.ok("id", "issue", "-", "--as", "acme", "--days", "2", "--kind", "service", stdin=request)
    facts = acme.json("id", "accept", "seller", "-", stdin=chain)
    assert (facts["common_name"], facts["kind"]) == ("Seller No 1", "service")
    assert Credential.load("seller").anchor == TrustAnchor.load("acme.pem")
    assert acme.ok("id", "export", "seller", "--chain") == chain


def test_an_issuer_is_issued_with_a_path_length_and_issues_further(acme):
    """acme / sales / seller; a leaf may not issue."""
    acme.issued("sales", "acme", "--kind", "organization", "--may-issue", "0")
    acme.issued("seller", "sales")
    assert acme.json("id", "show", "seller")["issued_by"].endswith("/sales")
    request = acme.ok("id", "request", "x", "--unencrypted")
    assert "may not issue" in acme.fails(1, "id", "issue", "-", "--as", "seller", stdin=request)
    assert "may not issue" in acme.fails(1, "id", "issue", "nowhere", "--as", "seller"), "before all else"


def test_a_request_in_the_place_of_its_answer_is_told(acme):
    acme.ok("id", "request", "seller", "--unencrypted", "-o", "seller.csr")
    line = acme.fails(1, "id", "accept", "seller", "seller.csr")
    assert line == "seller.csr: this is a request: have it issued first (autolink id issue)"


def test_a_chain_for_another_key_is_not_accepted(acme):
    acme.ok("id", "request", "one", "--unencrypted")
    request = acme.ok("id", "request", "two", "--unencrypted")
    chain = acme.ok("id", "issue", "-", "--as", "acme", stdin=request)
    assert "another key" in acme.fails(1, "id", "accept", "one", "-", stdin=chain)
    assert acme.json("id", "list")["identities"][1]["state"] == "waits for its chain"


def test_an_identity_is_renewed_by_its_request_and_an_earlier_end_needs_the_word(acme):
    """Asking again for a taken name says how to renew it; an older chain comes back only with --older."""
    acme.issued("seller", "acme", "--days", "2")
    first = acme.ok("id", "export", "seller", "--chain")
    line = acme.fails(1, "id", "request", "seller", "--unencrypted")
    assert "autolink id export seller --request" in line
    assert "autolink id accept seller CHAIN" in line
    assert "choose another name" in acme.fails(1, "id", "request", "acme", "--unencrypted")
    renewed = acme.ok(
        "id",
        "issue",
        "-",
        "--as",
        "acme",
        "--days",
        "9",
        stdin=acme.ok("id", "export", "seller", "--request"),
    )
    acme.ok("id", "accept", "seller", "-", stdin=renewed)
    assert "--older" in acme.fails(2, "id", "accept", "seller", "-", stdin=first)
    assert acme.ok("id", "export", "seller", "--chain") == renewed
    acme.ok("id", "accept", "seller", "-", "--older", stdin=first)
    assert acme.ok("id", "export", "seller", "--chain") == first


def test_known_agents_are_accepted_and_forgotten_by_their_id(acme):
    """`id accept` without a chain writes the file that --trust known reads."""
    stranger = acme.json("id", "new", "bob", "--plain", "--unencrypted")["peer_id"]
    acme.ok("id", "accept", stranger, "--as", "acme", "--called", "bob [red]from work[/]")
    known = Keystore().folder("acme") / "known_agents"
    assert f"{stranger} bob [red]from work[/]\n" in known.read_text()
    acme.ok("id", "export", "bob", "-o", "bob.pem")
    assert acme.json("id", "verify", "bob.pem", "--trust", "known", "--as", "acme")["peer_id"] == stranger
    acme.ok("id", "forget", stranger, "--as", "acme")
    assert "is not known" in acme.fails(3, "id", "verify", "bob.pem", "--trust", "known", "--as", "acme")
    assert "is not in" in acme.fails(1, "id", "forget", stranger, "--as", "acme")
    line = acme.fails(1, "id", "accept", stranger, "--as", "nobody")
    assert line.endswith("there is no such identity: see autolink id list")
    assert "known:FILE" in acme.fails(2, "id", "accept", stranger)
    assert "autolink id accept NAME CHAIN" in acme.fails(2, "id", "accept", "acme")


def test_rule_24_the_shell_shows_mixed_script_names_with_their_code_points(acme):
    """A Cyrillic letter among Latin ones is given away, in the list, in the facts and by the issuer."""
    name = "p\u0430ypal"
    request = acme.ok("id", "request", "p", "--common-name", name, "--unencrypted")
    (acme.path / "p.csr").write_text(request)
    assert "U+0430" in acme.ok("id", "show", "--file", "p.csr")
    issued = acme("id", "issue", "p.csr", "--as", "acme", "-o", "p.pem")
    assert "U+0430" in issued.stderr
    acme.ok("id", "accept", "p", "p.pem")
    assert "U+0430" in acme.ok("id", "list")
    assert "U+0430" in acme.ok("id", "show", "p")
    assert acme.json("id", "show", "p")["common_name"] == name


def test_a_script_gets_one_fact_alone(acme):
    """As `--json` has it: a string without quotes, whatever its name is; what is not there is an error."""
    told = acme.json("id", "show", "acme")
    show = ("id", "show", "acme", "--field")
    for field in ("auto_id", "common_name", "not_after", "rotations"):
        assert acme.ok(*show, field) == f"{told[field]}\n"
    assert acme.ok("id", "show", "--file", "acme.pem", "--field", "auto_id") == f"{told['auto_id']}\n"
    assert "it has no recovered_in" in acme.fails(1, *show, "recovered_in")
    assert "there are name, common_name, auto_id" in acme.fails(2, *show, "nonsense")


def test_times_are_in_one_format_for_people_and_in_one_for_programs(acme):
    ends = Keystore().chain("acme")[0].not_after
    assert acme.json("id", "show", "acme")["not_after"] == f"{ends:%FT%TZ}"
    for command in (["show", "acme"], ["list"]):
        assert f"{ends:%F %T} UTC" in acme.ok("id", *command)


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(acme):
    assert (
        acme.fails(1, "id", "export", "acme", "-o", "no/where.pem")
        == "no/where.pem: No such file or directory"
    )


def test_names_are_text_and_never_markup(acme):
    """What rich would read as a style or a link is shown as it is."""
    name = "[red]evil[/] [link=http://x]y[/link] :skull:"
    request = acme.ok("id", "request", "evil", "--common-name", name, "--unencrypted")
    acme.ok("id", "accept", "evil", "-", stdin=acme.ok("id", "issue", "-", "--as", "acme", stdin=request))
    for command in (["id", "list"], ["id", "show", "evil"]):
        assert name.replace("/", "\\u{2f}") in acme.ok(*command)


def test_the_private_key_is_exported_only_by_a_name_that_says_so_and_to_a_file(acme):
    assert "give -o FILE" in acme.fails(2, "id", "export", "acme", "--unencrypted-key")
    result = acme("id", "export", "acme", "--unencrypted-key", "-o", "acme.key")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "WITHOUT a passphrase" in result.stderr
    assert stat.S_IMODE((acme.path / "acme.key").stat().st_mode) == 0o600
    assert "never written over" in acme.fails(
        1, "id", "export", "acme", "--unencrypted-key", "-o", "acme.key"
    )
    acme.ok("id", "import", "again", "--certificate", "acme.pem", "--key", "acme.key", "--unencrypted")
    assert acme.json("id", "show", "again")["auto_id"] == acme.json("id", "show", "acme")["auto_id"]


@pytest.mark.parametrize("sdk", ["python", "typescript"])
def test_rule_25b_upstream_ids_are_imported_over_the_same_key_root_leaf_and_below(shell, sdk):
    """Root at once; the leaf when its issuer is there, else as a request that the issuer answers later."""
    entries = json.loads((VECTORS / f"{sdk}.json").read_text())
    for name in ("root", "leaf", "nested"):
        (shell.path / f"{name}.pem").write_text(entries[f"ed25519.{name}"]["certificate"])
        (shell.path / f"{name}.key").write_text(entries[f"ed25519.{name}"]["key"])

    def take(name: str, *more: str) -> dict[str, object]:
        return shell.json(
            "id", "import", name, "--certificate", f"{name}.pem", "--key", f"{name}.key", "--unencrypted", *more
        )  # fmt: skip

    early = take("leaf", "--kind", "organization")
    assert early["state"] == "waits for its chain"
    assert "autoid:auto:" in early["upstream_san"]
    root = take("root")
    assert root["auto_id"] == "2d415a2ed29e118a7918262c99b253556fa57e2e7598208ca0975b7456316360"
    request = shell.ok("id", "export", "leaf", "--request")
    chain = shell.ok(
        "id", "issue", "-", "--as", "root", "--kind", "organization", "--may-issue", "0", stdin=request
    )
    shell.ok("id", "accept", "leaf", "-", stdin=chain)
    nested = take("nested")
    assert nested["auto_id"] == "dbf8438f29ff75586ffcfae8757002ff533e4a89ba9a5dd834d8222386b07857"
    assert nested["issued_by"] == "issuer/Test"


def test_a_passphrase_comes_from_a_file_the_environment_or_a_person(shell, monkeypatch):
    """Each of the three opens what another one closed; asked for a new one, a person types it twice."""
    (shell.path / "pass").write_text("secret\n")
    shell.ok("id", "new", "by-file", "--passphrase-file", "pass")
    shell.ok("id", "new", "by-variable", env={"AUTOLINK_PASSPHRASE": "secret"})
    monkeypatch.setattr("autolink.identity.keystore._passphrase", [])
    monkeypatch.setattr(passphrases, "has_person", lambda: True)
    shell.ok("id", "new", "by-person", stdin="secret\nsecret\n")
    request = shell.ok("id", "request", "seller", "--unencrypted")
    (shell.path / "s.csr").write_text(request)
    for name in ("by-file", "by-variable"):
        shell.ok("id", "issue", "s.csr", "--as", name, stdin="secret\n")
    monkeypatch.setattr(passphrases, "has_person", lambda: False)
    shell.ok("id", "issue", "s.csr", "--as", "by-person", env={"AUTOLINK_PASSPHRASE_FILE": "pass"})


def test_rule_46_the_passphrase_variable_is_gone_before_anything_else_runs(shell, monkeypatch):
    monkeypatch.setenv("AUTOLINK_PASSPHRASE", "secret")
    shell.ok("id", "list")
    assert "AUTOLINK_PASSPHRASE" not in os.environ


@pytest.mark.parametrize(
    ("passphrase", "says"),
    [
        (b"wrong", "see what --passphrase-file and $AUTOLINK_PASSPHRASE hold"),
        (b"", "is empty"),
        (b"x" * 5000, "larger than"),
        (b"\xff\xfe", "wrong passphrase"),
    ],
)
def test_a_wrong_passphrase_is_told_in_one_line(shell, passphrase, says):
    shell.ok("id", "new", "acme", env={"AUTOLINK_PASSPHRASE": "right"})
    (shell.path / "pass").write_bytes(passphrase)
    line = shell(
        "id", "export", "acme", "--unencrypted-key", "-o", "k", "--passphrase-file", "pass"
    ).stderr  # fmt: skip
    assert says in line
    assert not (shell.path / "k").exists()


def test_without_a_passphrase_and_without_a_person_nothing_hangs(shell):
    assert "$AUTOLINK_PASSPHRASE" in shell.fails(2, "id", "new", "acme")
    assert "not both" in shell.fails(2, "id", "new", "acme", "--unencrypted", "--passphrase-file", "p")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/passwd", "A", "-x", "a..b", "a\nb", "\x1b[31m", "x" * 65, "é"],
)
def test_rule_46_a_name_that_could_be_a_path_or_worse_is_refused(shell, name):
    """In every command that takes one; nothing is made."""
    for command in (["new", "--unencrypted"], ["request", "--unencrypted"], ["show"], ["export"]):
        result = shell("id", *command, "--", name)
        assert result.exit_code in (1, 2)
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.strip().isprintable()
    assert not (shell.path / "home").exists()


BROKEN = {
    "empty": b"",
    "zeros": b"\0" * 100,
    "no certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "no request": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    "huge": b"x" * 10_000_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_that_are_not_what_they_should_be_are_named_in_one_line(acme, content):
    """As a chain, a request, an anchor, pins, a key and known agents."""
    bad = acme.path / "bad"
    bad.write_bytes(content)
    bad.chmod(0o600)
    for command in (
        ["id", "show", "--file", "bad"],
        ["id", "issue", "bad", "--as", "acme"],
        ["id", "accept", "acme", "bad"],
        ["id", "verify", "acme.pem", "--trust", "issuer:bad"],
        ["id", "import", "x", "--certificate", "bad", "--key", "bad", "--unencrypted"],
    ):
        assert acme.fails(1, *command)
    for spec in ("pinned:bad", "known:bad"):
        assert acme("id", "verify", "acme.pem", "--trust", spec).exit_code in (1, 3)


@pytest.mark.parametrize("path", ["missing", "folder"])
def test_files_that_cannot_be_read_are_named(acme, path):
    (acme.path / "folder").mkdir()
    assert path in acme("id", "accept", "acme", path).stderr
    assert path in acme("id", "verify", "acme.pem", "--trust", f"issuer:{path}").stderr


def test_the_list_shows_a_broken_entry_beside_the_sound_ones(acme):
    acme.ok("id", "new", "globex", "--unencrypted")
    (Keystore().folder("acme") / "chain.pem").write_text("nonsense")
    states = {entry["name"]: entry["state"] for entry in acme.json("id", "list")["identities"]}
    assert states["globex"] == "ready"
    assert states["acme"] not in ("ready", "expired")


def test_an_empty_keystore_says_how_to_begin(shell):
    result = shell("id", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "autolink id new" in result.stderr


def test_an_anchor_with_several_keys_of_one_authority_shows_them_all(shell):
    for name in ("one", "two"):
        shell.ok("id", "new", name, "--plain", "--common-name", "globex", "--unencrypted")
    both = shell.ok("id", "export", "one") + shell.ok("id", "export", "two")
    (shell.path / "both.pem").write_text(both)
    keys = shell.json("id", "show", "--file", "both.pem")["keys"]
    assert keys == [shell.json("id", "show", name)["key"] for name in ("one", "two")]
    assert "show what" in shell.fails(2, "id", "show")
