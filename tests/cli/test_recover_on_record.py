"""`autolink id recover …`: a lost key is replaced on record, by guardians or by the issuer, from the shell."""

import json
import os
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.cli import on_record, record_options
from autolink.errors import EntryRefused, Fault, LinkLost
from autolink.identity import Keystore, key_authority, keys
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry
from autolink.registry.log.note import VerifierKey
from tests.cli.registries import ORIGIN, Lies, ends, id_of, pass_a_second


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
    assert sh.json("registry", "lookup", "org")["guardians"]["count"] == 3
    told = json.loads((sh.path / "org.guardians").read_text())
    assert (told["threshold"], len(told["guardians"])) == (2, 3)
    assert "nothing is recovered" in told["what"]

    pass_a_second(monkeypatch)
    sh.ok("id", "new", "org-2", "--plain", "--common-name", name, "--unencrypted")
    lost = ("id", "recover", "org-2", "--unencrypted")
    assert "--guardians-file FILE" in sh.fails(2, *lost)
    lost += ("--guardians-file", "org.guardians")
    assert "is not in this keystore" in sh.fails(2, *lost, "--guardian", "guard-1", "--guardian", far)
    assert "is no guardian" in sh.fails(2, *lost, "--guardian", "acme")
    few = sh.fails(2, *lost, "--guardian", far, "--out", "few.entry")
    assert few == "a recovery takes 2 guardians, not 1: name more with --guardian"
    out = ("--guardian", far, "--guardian", "guard-1", "--out", "recovery.entry")
    assert far in sh(*lost, *out).stderr
    out = ("--guardian", far, "--guardian", "guard-2", "--out", "unsigned.entry")
    sh.ok(*lost, *out)
    line = sh.fails(1, "id", "countersign", "guard-1", "recovery.entry", "--yes", "--submit")
    assert f"signed, and not submitted: still missing: {far}: pass the entry on" in line  # with the signature
    assert Entry.from_untrusted((sh.path / "recovery.entry").read_bytes()).signatures[1].by.hex == id_of(
        sh, "guard-1"
    )
    assert sh.json("id", "countersign", "guard-2", "unsigned.entry", "--yes")["missing"] == [far]
    monkeypatch.setenv("AUTOLINK_HOME", str(sh.path / "away"))
    told = sh.json("id", "countersign", "guard-3", "recovery.entry", "--yes", "--submit")
    monkeypatch.setenv("AUTOLINK_HOME", home)
    assert told["state"] == "recovering"
    later = sh.json("id", "delay", "org")["takes_over_at"]
    assert later > told["takes_over_at"]
    new_key = sh.json("id", "show", "org-2")["key"]
    for command in ("status", "lookup"):
        found = sh.json("registry", command, "org")
        assert (found["takes_over_at"], found["new_key"]) == (later, new_key)
        when = f"{datetime.fromisoformat(later):%F %T} UTC"
        said = sh.ok("registry", command, "org")
        assert f"{when}, unless the next key ends the recovery by then" in said
    recovery = sh.json("registry", "history", "org")["entries"][-2]
    assert (recovery["entry"], recovery["key"]) == ("recover", new_key)
    assert [signer["as"] for signer in recovery["signed_by"]] == ["new_key", "guardian", "guardian"]
    with monkeypatch.context() as patch:
        Lies(patch).tell("places", lambda places: places[-1:])
        assert "does not show the recovery" in ends(sh, 1, "registry", "status", "org")
    assert "lengthened once" in sh.fails(3, "id", "delay", "org")


def test_a_guardian_looks_before_signing_and_is_asked(sh, monkeypatch):
    """Before a signature leaves the process: what it is, of whom, to which key, who has signed and who has not."""
    for name in ("guard-1", "guard-2", "guard-3"):
        sh.ok("id", "new", name, "--unencrypted")
        sh.ok("id", "register", name)
    guards = [id_of(sh, f"guard-{number}") for number in (1, 2, 3)]
    chosen = [part for guard in guards for part in ("--guardian", guard)]
    index = sh.json("id", "register", "acme", *chosen, "--threshold", "2")["index"]
    recover = (
        "id",
        "recover",
        "acme-2",
        "--of",
        "acme",
        "--guardians-file",
        "acme.guardians",
        "--unencrypted",
    )
    named = ("--guardian", "guard-1", "--guardian", "guard-2")
    sh.ok(*recover, *named, "--void-from", str(index + 1), "--yes", "--out", "recovery.entry")
    before = (sh.path / "recovery.entry").read_bytes()
    told = sh.json("id", "show", "--file", "recovery.entry")
    auto_id, key = id_of(sh, "acme"), sh.json("id", "show", "acme-2")["key"]
    assert told["says"].startswith(f"key {key} until ")
    assert told["says"].endswith(f"void from entry {index + 1}")
    assert told.items() >= {
        "entry": "recover", "auto_id": auto_id, "log": "registry.example/log", "signed_by": [auto_id],
        "missing": guards[:2], "common_name": sh.json("id", "show", "acme")["common_name"],
    }.items()  # fmt: skip
    assert (
        sh.ok("id", "show", "--file", "recovery.entry", "--field", "missing") == f"{', '.join(guards[:2])}\n"
    )
    lines = sh.ok("id", "show", "--file", "recovery.entry").splitlines()
    assert f"missing      {guards[0]} (guard-1), {guards[1]} (guard-2)" in lines
    assert "signed by    the new key itself" in lines  # and not the owner

    line = sh("id", "countersign", "guard-3", "recovery.entry", "--yes").stderr
    assert f"wants no signature of {guards[2]}: it is neither its issuer nor one of its guardians" in line
    assert line.endswith(f"; it names {guards[0]}, {guards[1]}\n")
    sign = ("id", "countersign", "guard-1", "recovery.entry")
    result = sh(*sign)
    assert (result.exit_code, lines) == (2, result.stdout.splitlines())
    assert f"recover {auto_id} (acme): key {key} until " in result.stderr
    assert result.stderr.endswith(" Nobody is there to answer: say --yes\n")
    monkeypatch.setattr(record_options, "has_person", lambda: True)
    assert sh(*sign, stdin="n\n").exit_code == 130
    assert (sh.path / "recovery.entry").read_bytes() == before
    result = sh(*sign, stdin="y\n")
    assert (result.exit_code, f"still missing: {guards[1]}" in result.stderr) == (0, True)
    assert sh.json("id", "show", "--file", "recovery.entry")["missing"] == [guards[1]]


def test_guardians_are_chosen_anew_with_the_next_key(sh):
    sh.ok("id", "register", "acme")
    sh.ok("id", "new", "guard", "--unencrypted")
    choose = ("id", "guardians", "acme", "--next-key", "acme.next-key")
    told = sh(*choose, "--guardian", "guard", "--json")
    assert json.loads(told.stdout)["entry"] == "guardians"
    assert f"WARNING: not on record in {ORIGIN}: {id_of(sh, 'guard')}. As long as they are not" in told.stderr
    assert sh.json("registry", "lookup", "acme")["guardians"]["threshold"] == 1
    assert "names other guardians" in sh.fails(2, *choose, "--guardian", "echo")
    assert (
        sh.json(*choose, "--guardian", "guard", "--delay", "3")["says"]
        == "1 of 1 guardians, a recovery takes 3 days"
    )
    assert sh.json(*choose)["entry"] == "guardians"
    assert sh.json("registry", "lookup", "acme")["guardians"]["count"] == 0
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
    assert "nowhere: No such file" in sh.fails(1, *choose[:3], "--next-key", "nowhere")


def test_whom_an_id_has_issued_is_not_taken_for_its_guardian(sh):
    """The log counts none of them (rule 35): with the current key a thief could make them sign."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    line = sh.fails(2, "id", "guardians", "acme", "--next-key", "acme.next-key", "--guardian", "echo")
    assert "is no guardian: acme" in line
    assert "has issued it, so whoever steals that key could make it sign" in line
    assert not (sh.path / "acme.guardians").exists()


def test_the_file_of_guardians_says_what_is_on_record_or_was_not_answered(sh, monkeypatch):
    """Whoever recovers by one that was refused, or goes by its delay, goes by what nobody has on record."""
    sh.ok("id", "new", "guard", "--unencrypted")
    for name in ("acme", "guard"):
        sh.ok("id", "register", name)
    sh.ok("id", "new", "org", "--unencrypted")
    file, set_aside = sh.path / "acme.guardians", sh.path / "acme.guardians.refused"
    choose = ("id", "guardians", "acme", "--guardian", "guard", "--next-key")
    line = sh.fails(3, *choose, "guard.next-key")
    assert line.endswith("acme.guardians, of which nothing is on record, is acme.guardians.refused now")
    assert (file.exists(), json.loads(set_aside.read_text())["threshold"]) == (False, 1)
    line = sh.fails(1, "id", "guardians", "org", "--guardian", "guard", "--next-key", "org.next-key")
    assert line.endswith("org.guardians, of which nothing is on record, is org.guardians.refused now")

    async def lost(client: RegistryClient, entry: Entry, **_: object) -> None:
        raise LinkLost("the link was lost")

    async def broken(client: RegistryClient, entry: Entry, **_: object) -> None:
        raise EntryRefused(Fault.UNAVAILABLE, "the registry failed at this entry")

    for fails, status in ((broken, 3), (lost, 5)):
        with monkeypatch.context() as patch:
            patch.setattr(RegistryClient, "submit", fails)
            assert sh(*choose, "acme.next-key").exit_code == status
            assert file.exists()
    kept = file.read_bytes()
    sh.ok(*choose, "acme.next-key")
    assert file.read_bytes() == kept  # its salts are those on record
    sh.fails(3, *choose, "guard.next-key", "--delay", "30d")
    assert file.read_bytes() == kept
    sh.ok(*choose, "acme.next-key", "--delay", "30d")
    before, after = json.loads(kept), json.loads(file.read_text())
    assert (before.pop("delay_seconds"), after.pop("delay_seconds")) == (7 * 86_400, 30 * 86_400)
    assert before == after


def test_who_is_on_no_record_is_warned_of_as_a_guardian_and_refused_with_what_to_do(sh):
    sh.ok("id", "new", "guard", "--unencrypted")
    told = sh("id", "register", "acme", "--guardian", "guard", "--guardian", "acme-not", "--delay", "0.0417")
    assert "no such identity" in told.stderr
    line = sh.fails(2, "id", "register", "acme", "--delay", "1/24")
    assert "'1/24' is not a number of days or hours, such as 7d or 1h, from 1h up to 90d" in line
    assert "range 1h<=x<=90d" in sh.fails(2, "id", "register", "acme", "--delay", "0.5h")
    told = sh("id", "register", "acme", "--guardian", "guard", "--delay", "1h")
    assert (told.exit_code, f"WARNING: not on record in {ORIGIN}" in told.stderr) == (0, True)
    assert "a recovery takes 1 hour" in told.stdout
    sh.ok("id", "guardians", "acme", "--next-key", "acme.next-key", "--guardian", "guard", "--delay", "90d")
    assert sh.json("registry", "lookup", "acme")["guardians"]["delay_seconds"] == 90 * 86_400
    recover = ("--of", "acme", "--guardians-file", "acme.guardians", "--unencrypted")
    line = ends(sh, 3, "id", "recover", "acme-2", *recover)
    assert line.endswith(
        "(unauthorised): who signs has to be on record first, guardians too: there, autolink id register"
    )
    sh.ok("id", "register", "guard")
    assert sh("id", "guardians", "acme", "--next-key", "acme.next-key", "--guardian", "guard").stderr == ""


def test_an_agent_issued_under_another_certificate_or_key_of_its_issuer_is_issued_again(sh, monkeypatch):
    """As it is to be put on record, or renewed there before its own new certificate is."""
    sh.ok("id", "register", "acme")
    pass_a_second(monkeypatch)
    sh.ok("id", "renew", "acme", "--days", "80")
    hint = "have it issued again (autolink id export NAME --request, id issue, id accept)"
    line = ends(sh, 3, "id", "register", "echo", "--unencrypted")
    assert "outside its issuer's validity" in line
    assert line.endswith(hint)
    sh.issued("second", "acme", "--days", "1")
    pass_a_second(monkeypatch)
    sh.ok("id", "register", "second", "--unencrypted")
    assert "already on record as entry" in sh("id", "renew", "second").stderr  # by what has registered it
    sh.issued("third", "acme", "--days", "1")
    sh.ok("id", "rotate", "acme", "--unencrypted", "--next-key", "acme.next-key")
    line = ends(sh, 2, "id", "register", "third", "--unencrypted")
    assert "acme, the issuer of third, has another key now: have it issued again" in line
    sh.ok("id", "register", "third", "--unencrypted", "--out", "third.entry")
    line = sh.fails(3, "id", "countersign", "acme", "third.entry", "--yes", "--submit")
    assert "key identifier" in line
    assert line.endswith(hint)


def test_an_issuer_recovers_its_agent(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    index = sh.json("id", "register", "echo", "--unencrypted")["index"]
    pass_a_second(monkeypatch)
    request = sh.ok("id", "request", "echo-2", "--common-name", "echo", "--unencrypted")
    sh.ok("id", "accept", "echo-2", "-", stdin=sh.ok("id", "issue", "-", "--as", "acme", stdin=request))
    sh.ok("id", "recover", "echo-2", "--unencrypted", "--out", "echo.entry")
    assert "still missing: its issuer" in sh.fails(1, "id", "submit", "echo-2", "echo.entry")
    recover = ("id", "recover", "echo-2", "--unencrypted", "--yes", "--void-from")
    assert sh.json(*recover, str(index + 1))["state"] == "recovering"
    assert "already on record as entry" in sh(*recover, str(index + 1)).stderr
    line = sh.fails(3, "id", "recover", "echo-2", "--unencrypted")
    assert line.endswith(f"voiding from entry {index + 1} on")
    assert "this recovery is on record as entry" in line


def test_guardians_give_a_bound_name_a_key_that_is_made_and_kept_here(sh, monkeypatch, registry):
    """The new identity names the log that alone can say so; it rotates and issues as any other."""
    sh.ok("id", "new", "guard", "--unencrypted")
    sh.ok("id", "register", "guard")
    sh.ok("id", "register", "acme", "--guardian", "guard")
    auto_id = id_of(sh, "acme")
    line = sh.fails(2, "id", "recover", "acme", "--unencrypted")
    assert "bound to its keys" in line
    assert f"id recover NEW --of {auto_id}" in line
    pass_a_second(monkeypatch)
    lost = ("id", "recover", "acme-2", "--of", auto_id, "--unencrypted")
    assert "--guardians-file FILE" in sh.fails(2, *lost)
    with monkeypatch.context() as away:
        away.setattr(on_record, "in_keystore", lambda _: None)
        assert "with --out FILE" in sh.fails(2, *lost, "--guardians-file", "acme.guardians")
    assert "acme-2" not in Keystore().names()
    lost += ("--guardians-file", "acme.guardians")
    assert sh.json(*lost)["state"] == "recovering"
    assert (sh.path / "acme-2.next-key").exists()
    assert "there is an identity 'acme-2' already" in sh.fails(1, *lost)
    log = key_authority(keys.hash_of_key(VerifierKey.parse(registry.log_key).public))
    shown = sh.json("id", "show", "acme-2")
    assert (shown["auto_id"], shown["recovered_in"]) == (auto_id, log)
    assert shown["peer_id"] == f"{auto_id}?key={log}"
    assert sh.json("id", "show", "acme")["recovered_in"] is None
    other = str(VerifierKey.of("registry.example/log", Ed25519PrivateKey.generate().public_key()))
    again = ("id", "recover", "acme-2", "--guardians-file", "acme.guardians")
    assert "bound to its keys" in sh.fails(2, *again, "--log-key", other)
    assert "already on record as entry" in sh(*again).stderr
    assert "no anchor" in sh.fails(1, "id", "export", "acme-2")

    request = sh.ok("id", "request", "echo-2", "--common-name", "echo", "--unencrypted")
    sh.ok("id", "accept", "echo-2", "-", stdin=sh.ok("id", "issue", "-", "--as", "acme-2", stdin=request))
    assert sh.json("id", "show", "echo-2")["recovered_in"] == log
    monkeypatch.delenv("AUTOLINK_REGISTRY")  # where the new key has not taken over yet
    sh.ok(
        "id", "rotate", "acme-2", "--next-key", "acme-2.next-key", "--next-key-out", "after", "--unencrypted"
    )
    rotated = Keystore().load("acme-2")
    assert (str(rotated.peer_id), rotated.rotations) == (shown["peer_id"], ())
    assert rotated.leaf.spki_sha256.hex() == shown["next_key"].removeprefix("sha256:")


def test_a_key_that_has_waited_in_a_recovery_that_was_ended_waits_in_no_other(sh, monkeypatch):
    sh.ok("id", "new", "guard", "--unencrypted")
    sh.ok("id", "register", "guard")
    sh.ok("id", "register", "acme", "--guardian", "guard")
    pass_a_second(monkeypatch)
    recover = ("id", "recover", "acme-2", "--guardians-file", "acme.guardians")
    assert sh.json(*recover, "--of", "acme", "--unencrypted")["state"] == "recovering"
    pass_a_second(monkeypatch)
    sh.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    line = ends(sh, 3, *recover)
    assert line.endswith("(key_used): recover under another NAME, with a key that this log has not seen")


def test_no_key_is_made_for_a_name_that_is_plain_or_not_on_record(sh):
    (sh.path / "file").write_text(json.dumps({"auto_id": "0" * 64, "threshold": 0, "guardians": []}))
    recover = ("id", "recover", "new", "--guardians-file", "file", "--unencrypted", "--of")
    assert "is not on record there" in sh.fails(1, *recover, "0" * 64)
    sh.ok("id", "new", "org", "--plain", "--common-name", f"org {os.urandom(8).hex()}", "--unencrypted")
    sh.ok("id", "register", "org", "--unencrypted")
    plain = json.dumps({"auto_id": id_of(sh, "org"), "threshold": 0, "guardians": []})
    (sh.path / "file").write_text(plain)
    assert "not bound to keys" in sh.fails(2, *recover, "org")
    assert "new" not in Keystore().names()
