"""`autolink id register …`: what a registry has on record, from the shell."""

import json
import os
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.cli import on_record, record_options, voiding
from autolink.cli.submitting import Submission
from autolink.errors import EntryRefused, Fault, LinkLost
from autolink.identity import Keystore, key_authority, keys
from autolink.messages.merkle import leaf_hash
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.receipt import verify_untrusted as verify_receipt
from tests.cli.registries import NOBODY, Lies, ends, id_of, pass_a_second

# --- on record ---------------------------------------------------------------------------------------------


def test_what_proves_an_entry_is_kept_with_the_identity(sh, registry):
    told = sh.json("id", "register", "acme")
    assert (told["entry"], told["state"], told["auto_id"]) == ("register", "active", id_of(sh, "acme"))
    kept = {path.suffix: path.read_bytes() for path in (Keystore().folder("acme") / "registry").iterdir()}
    key = VerifierKey.parse(registry.log_key)
    _, entry = decode_leaf_untrusted(kept[".leaf"])
    verify_receipt(kept[".receipt"], key, entry)
    assert LogProof.from_untrusted(kept[".tlog-proof"]).verify(leaf_hash(kept[".leaf"]), key)
    line = sh.fails(3, "id", "register", "acme", "--delay", "3")
    assert "a name is taken for ever (taken): it is on record with this very key, by another entry" in line
    assert json.loads(sh("id", "register", "acme", "--delay", "3", "--json").stdout)["fault"] == "taken"


def test_what_is_on_record_already_just_so_is_no_theft_and_its_proof_is_fetched(sh, monkeypatch, registry):
    """As after an answer that was lost: the same command again says so, and keeps what proves it."""
    index = sh.json("id", "register", "acme")["index"]
    kept = Keystore().folder("acme") / "registry"
    name = f"{VerifierKey.parse(registry.log_key).key_id.hex()}-{index}-register"
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert set(before) == {f"{name}.{what}" for what in ("receipt", "tlog-proof", "leaf")}
    for what in before:
        (kept / what).unlink()
    again = sh("id", "register", "acme", "--json")
    assert (again.exit_code, json.loads(again.stdout)["index"]) == (0, index)
    assert f"already on record as entry {index}" in again.stderr
    assert {path.name for path in kept.iterdir()} == {f"{name}.leaf", f"{name}.tlog-proof"}
    assert (kept / f"{name}.leaf").read_bytes() == before[f"{name}.leaf"]
    assert LogProof.from_untrusted((kept / f"{name}.tlog-proof").read_bytes()).index == index
    pass_a_second(monkeypatch)
    told = sh.json("id", "rotate", "acme", "--unencrypted", "--next-key", "acme.next-key")["on_record"]
    assert sh.json("id", "record-rotation", "acme")["index"] == told["index"]
    line = ends(sh, 3, "id", "record-rotation", "acme", "--yes", "--void-from", str(index))
    assert line.endswith(f"(key_used): this rotation is on record as entry {told['index']}, voiding nothing")

    async def used(client: RegistryClient, entry: Entry, **_: object) -> None:
        raise EntryRefused(Fault.KEY_USED, "so it says")

    sh.ok("id", "new", "other", "--unencrypted")
    monkeypatch.setattr(RegistryClient, "submit", used)
    assert sh.fails(3, "id", "register", "other").endswith("so it says (key_used)")  # by another


def test_an_agent_is_registered_in_one_step_where_its_issuer_is(sh):
    assert "the issuer" in ends(sh, 3, "id", "register", "echo", "--unencrypted")
    sh.ok("id", "register", "acme")
    sh.ok("id", "request", "a-request-without-an-answer", "--unencrypted")
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
    auto_id, home = Keystore().chain("far")[1].auto_id, os.environ["AUTOLINK_HOME"]
    assert f"still missing: {auto_id}: pass the entry on" in sh.fails(2, "id", "submit", "far", "far.entry")
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    assert f"still missing: {auto_id} (acme): pass the entry on" in sh.fails(
        2, "id", "submit", "acme", "far.entry"
    )
    monkeypatch.setenv("AUTOLINK_HOME", home)
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    assert "wants no signature" in sh.fails(2, "id", "countersign", "echo", "far.entry")
    signed = sh("id", "countersign", "acme", "far.entry", "--yes", "-o", "signed.entry")
    assert "missing" not in signed.stderr
    assert "autolink id submit NAME signed.entry" in signed.stderr
    assert sh.json("id", "countersign", "acme", "far.entry", "--yes", "--submit")["state"] == "active"
    written_back = Entry.from_untrusted((sh.path / "far.entry").read_bytes())
    assert [one.by for one in written_back.signatures] == [written_back.auto_id, auto_id]
    for again in (("submit", "acme", "signed.entry"), ("countersign", "acme", "far.entry", "--submit")):
        assert "already on record as entry" in sh("id", *again).stderr
    assert "signed this entry already" in sh.fails(2, "id", "countersign", "acme", "signed.entry")
    monkeypatch.setenv("AUTOLINK_HOME", home)  # the agent's own machine fetches what proves it
    fetched = sh("id", "register", "far", "--json")
    assert "already on record as entry" in fetched.stderr
    proof = Path(json.loads(fetched.stdout)["kept"])
    assert proof.parent == Keystore().folder("far") / "registry"
    assert LogProof.from_untrusted(proof.read_bytes()).index == json.loads(fetched.stdout)["index"]
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    assert "leave --out out" in sh.fails(2, "id", "register", "acme", "--out", "acme.entry")


def test_entries_for_another_log_are_not_signed_unseen(sh):
    sh.ok("id", "register", "echo", "--unencrypted", "--out", "echo.entry")
    other = str(VerifierKey.of("another/log", Ed25519PrivateKey.generate().public_key()))
    for command in (("id", "countersign", "acme", "echo.entry"), ("id", "submit", "acme", "echo.entry")):
        assert "is for the log registry.example/log" in sh.fails(2, *command, "--log-key", other)
    (sh.path / "nonsense").write_bytes(b"\x93nonsense")
    assert sh.fails(1, "id", "countersign", "acme", "nonsense") == "nonsense holds no entry"
    assert "no such identity" in sh.fails(1, "id", "submit", "nobody", "echo.entry")


def test_an_identity_is_renewed_in_the_log_and_in_the_keystore(sh, monkeypatch):
    """A self-issued one gets its certificate here, an issued one had it accepted before."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    before = Keystore().chain("acme")[0], Keystore().chain("echo")[0]
    pass_a_second(monkeypatch)
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
    (sh.path / "old.pem").write_text(sh.ok("id", "export", "echo", "--chain"))
    pass_a_second(monkeypatch)
    sh.ok("id", "issue", "-", "--as", "acme", "-o", "new.pem", stdin=request)
    assert "its issuer says for how long" in sh.fails(2, "id", "renew", "echo", "new.pem", "--days", "3")
    assert "key" in sh.fails(1, "id", "renew", "acme", "new.pem")
    sh.ok("id", "renew", "echo", "new.pem")  # on record, and only then in place
    fingerprint = Keystore().chain("echo")[0].fingerprint.hex()
    assert sh.json("registry", "status", "echo")["certificate"] == f"sha256:{fingerprint}"
    line = sh.fails(3, "id", "renew", "echo", "old.pem")
    assert "does not begin later" in line
    assert line.endswith("id issue, id renew NAME CHAIN")
    assert Keystore().chain("echo")[0].fingerprint.hex() == fingerprint
    rows = sh.json("registry", "history", "echo")["entries"]
    assert [row["entry"] for row in rows] == ["register", "renew", "renew"]
    assert [signer["as"] for signer in rows[0]["signed_by"]] == ["own_key", "issuer"]
    assert rows[0]["signed_by"][1]["auto_id"] == id_of(sh, "acme")
    assert rows[2]["index"] == sh.json("registry", "status", "echo")["last_entry"]
    assert f"own key, issuer {id_of(sh, 'acme')}  key sha256:" in sh.ok("registry", "history", "echo")


def test_a_renewal_whose_answer_was_lost_is_repeated_and_put_in_place(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    request = sh.ok("id", "export", "echo", "--request")
    (sh.path / "old.pem").write_text(sh.ok("id", "export", "echo", "--chain"))
    pass_a_second(monkeypatch)
    sh.ok("id", "issue", "-", "--as", "acme", "-o", "new.pem", stdin=request)
    before = Keystore().chain("echo")[0]
    submit = RegistryClient.submit

    async def lost(client: RegistryClient, entry: Entry, **_: object) -> None:
        await submit(client, entry)
        raise LinkLost("the link was lost")

    with monkeypatch.context() as patch:
        patch.setattr(RegistryClient, "submit", lost)
        assert "is the registry running there?" in sh.fails(5, "id", "renew", "echo", "new.pem")
    assert Keystore().chain("echo")[0] == before
    told = sh("id", "renew", "echo", "new.pem", "--json")
    facts = json.loads(told.stdout)
    assert f"already on record as entry {facts['index']}" in told.stderr
    assert (facts["entry"], Path(facts["kept"]).exists()) == ("renew", True)
    in_place = Keystore().chain("echo")[0].fingerprint.hex()
    assert sh.json("registry", "status", "echo")["certificate"] == f"sha256:{in_place}"
    assert "does not begin later" in sh.fails(3, "id", "renew", "echo", "old.pem")  # on record, and over


def test_a_rotation_is_put_on_record_by_the_command_that_does_it_here(sh, monkeypatch):
    """It brings back an ID whose key was revoked, and undoes what the old key has signed."""
    index = sh.json("id", "register", "acme")["index"]
    sh.ok("id", "revoke", "acme")
    assert "nobody's again" in sh.fails(3, "id", "record-rotation", "acme")  # nothing was rotated here
    pass_a_second(monkeypatch)
    rotate = ("id", "rotate", "acme", "--unencrypted", "--next-key")
    result = sh(*rotate, "acme.next-key", "--void-from", str(index + 1), "--yes", "--json")
    assert "Directly below: none" in result.stderr
    facts = json.loads(result.stdout)
    told = facts["on_record"]
    assert (facts["rotations"], told["entry"], told["state"]) == (1, "rotate", "active")
    assert told["says"].endswith(f"void from entry {index + 1}")
    assert (sh.path / told["kept"]).name.endswith("-rotate.tlog-proof")
    assert (sh.path / told["kept"]).exists()
    pass_a_second(monkeypatch)
    assert sh.json("id", "renew", "acme")["state"] == "active"
    assert len(Keystore().chain("acme")) == 2
    assert Keystore().load("acme").rotations
    pass_a_second(monkeypatch)
    (sh.path / "acme.next-key-3").write_text("precious")
    out = sh.ok(*rotate, facts["next_key_file"])
    assert ["entry", "rotate"] in [line.split() for line in out.splitlines()]
    assert "next key file  acme.next-key-4" in out
    assert (sh.path / "acme.next-key-3").read_text() == "precious"


def test_what_is_to_be_void_is_checked_and_told_before_the_next_key_is_spent(sh, monkeypatch):
    """An index that the registry would refuse, and one that was counted in the wrong list; the agents below are named."""
    first = sh.json("id", "register", "acme")["index"]
    sh.ok("id", "register", "echo", "--unencrypted")
    pass_a_second(monkeypatch)
    rotate = ("id", "rotate", "acme", "--unencrypted", "--next-key", "acme.next-key", "--void-from")
    line = sh.fails(2, *rotate, str(first + 3), "--yes")
    assert f"the log has {first + 2} entries, and what is still to come cannot be void" in line
    if first:
        assert f"on record since entry {first} only" in sh.fails(2, *rotate, str(first - 1), "--yes")
    assert "Directly below: none: say --yes" in sh.fails(2, *rotate, str(first + 2))
    line = sh.fails(2, *rotate, str(first + 1))
    assert f"Directly below: 1: {id_of(sh, 'echo')} (echo): say --yes" in line
    monkeypatch.setattr(voiding, "_SEARCHED", 0)
    assert "none that was found" in sh.fails(2, *rotate, str(first + 1))
    monkeypatch.setattr(record_options, "has_person", lambda: True)
    assert sh(*rotate, str(first + 1), stdin="n\n").exit_code == 130
    assert sh.json("id", "show", "acme")["rotations"] == 0
    assert sh(*rotate, str(first + 1), stdin="y\n").exit_code == 0
    assert sh.json("registry", "status", "echo")["state"] == "revoked"


def test_a_rotation_that_the_registry_was_not_told_is_completed_later(sh, monkeypatch):
    """It stands here, the registry down or somebody stopping it; a script is told where the next key is all the same."""
    index = sh.json("id", "register", "acme")["index"]
    pass_a_second(monkeypatch)
    rotate = ("id", "rotate", "acme", "--unencrypted", "--void-from", str(index), "--yes", "--next-key")
    result = sh(*rotate, "acme.next-key", "--registry", NOBODY, "--json")
    assert result.exit_code == 5
    told = json.loads(result.stdout)
    assert (told["ok"], told["rotations"], told["next_key_file"]) == (False, 1, "acme.next-key-2")
    how = f"acme is rotated here, and not on record: autolink id record-rotation acme --void-from {index} completes it"
    assert told["error"].startswith(f"{how}: registry 127.0.0.1:1: ")
    assert told["error"].endswith("is the registry running there?")
    assert sh.json("id", "show", "acme")["rotations"] == 1
    assert sh.json("id", "record-rotation", "acme")["entry"] == "rotate"

    def stop(*_):
        raise KeyboardInterrupt

    pass_a_second(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Submission, "append", stop)
        result = sh(*rotate, "acme.next-key-2")
    assert result.exit_code == 130
    assert "acme.next-key-3" in result.stdout
    assert how in result.stderr
    assert sh.json("id", "record-rotation", "acme")["entry"] == "rotate"


def test_who_is_on_no_record_rotates_whatever_the_environment_says(sh, registry, monkeypatch):
    """A registry that was asked for must know it; what is missing is told before a key is made."""
    rotate = ("id", "rotate", "acme", "--unencrypted", "--next-key")
    result = sh(*rotate, "acme.next-key", "--json")
    assert (result.exit_code, json.loads(result.stdout)["on_record"]) == (0, None)
    assert "does not have acme on record, so it was told nothing" in result.stderr
    line = ends(sh, 1, *rotate, "acme.next-key-2", "--registry", registry.contact)
    assert "is not on record there: is it the right registry?" in line
    assert sh.json("id", "show", "acme")["rotations"] == 2
    monkeypatch.delenv("AUTOLINK_LOG_KEY")
    assert "which key has the log" in sh.fails(2, *rotate, "acme.next-key-3")
    monkeypatch.delenv("AUTOLINK_REGISTRY")
    assert "--registry" in sh.fails(2, *rotate, "acme.next-key-3", "--void-from", "1")
    (Keystore().folder("acme") / "registry").mkdir()  # as of an entry that was submitted from here
    result = sh(*rotate, "acme.next-key-3")
    assert result.exit_code == 0
    assert "A registry has acme on record: tell it, with autolink id record-rotation acme" in result.stderr


def test_a_revocation_is_the_issuers_or_its_own_and_says_who_signs(sh, registry):
    log = VerifierKey.parse(registry.log_key).key_id.hex()
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    echo = id_of(sh, "echo")
    assert "--by NAME" in sh.fails(2, "id", "revoke", echo)
    told = sh.json("id", "revoke", echo, "--by", "acme")
    assert (told["state"], told["auto_id"]) == ("revoked", echo)
    assert (Keystore().folder("acme") / "registry" / f"{log}-{told['index']}-revoke.tlog-proof").exists()
    assert sh.json("id", "revoke", echo, "--by", "acme")["index"] == told["index"]
    line = sh.fails(3, "id", "revoke", "echo")
    assert "(revoked)" in line
    assert f"by entry {told['index']}, which is another" in line
    assert sh.json("id", "revoke", "acme")["state"] == "revoked"
    status = sh.json("registry", "status", echo)
    assert (status["state"], status["because_of"]) == ("revoked", None)
    assert "is not on record there" in sh.fails(1, "id", "revoke", "0" * 64, "--by", "acme")


def test_an_id_is_ended_for_ever_only_on_a_second_word(sh, monkeypatch):
    sh.ok("id", "register", "acme")
    end = ("id", "deactivate", "acme", "--next-key", "acme.next-key")
    assert "say --yes" in sh.fails(2, *end)
    assert "--next-key FILE" in sh.fails(2, "id", "deactivate", "acme")
    monkeypatch.setattr(record_options, "has_person", lambda: True)
    assert sh(*end, stdin="n\n").exit_code == 130
    ended = sh.json(*end, "--yes")
    assert ended["state"] == "deactivated"
    assert sh.json(*end, "--yes")["index"] == ended["index"]
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

    pass_a_second(monkeypatch)
    sh.ok("id", "new", "org-2", "--plain", "--common-name", name, "--unencrypted")
    lost = ("id", "recover", "org-2", "--unencrypted")
    assert "--guardians-file FILE" in sh.fails(2, *lost)
    lost += ("--guardians-file", "org.guardians")
    assert "is not in this keystore" in sh.fails(2, *lost, "--guardian", "guard-1", "--guardian", far)
    assert "is no guardian" in sh.fails(2, *lost, "--guardian", "acme")
    out = ("--guardian", far, "--guardian", "guard-1", "--out", "recovery.entry")
    assert far in sh(*lost, *out).stderr
    out = ("--guardian", far, "--guardian", "guard-2", "--out", "unsigned.entry")
    sh.ok(*lost, *out)
    assert sh.json("id", "countersign", "guard-1", "recovery.entry", "--yes")["missing"] == far
    assert Entry.from_untrusted((sh.path / "recovery.entry").read_bytes()).signatures[1].by.hex == id_of(
        sh, "guard-1"
    )
    line = sh.fails(2, "id", "countersign", "guard-2", "unsigned.entry", "--yes", "--submit")
    assert f"still missing: {far}: pass the entry on" in line
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
        "entry": "recover", "auto_id": auto_id, "log": "registry.example/log", "signed_by": auto_id,
        "missing": ", ".join(guards[:2]), "common_name": sh.json("id", "show", "acme")["common_name"],
    }.items()  # fmt: skip
    lines = sh.ok("id", "show", "--file", "recovery.entry").splitlines()
    assert f"missing      {guards[0]} (guard-1), {guards[1]} (guard-2)" in lines

    line = sh("id", "countersign", "guard-3", "recovery.entry", "--yes").stderr
    assert f"wants no signature of {guards[2]}: it is neither its issuer nor one of its guardians" in line
    assert line.endswith(f"; it names {guards[0]}, {guards[1]}\n")
    sign = ("id", "countersign", "guard-1", "recovery.entry")
    result = sh(*sign)
    assert (result.exit_code, lines) == (2, result.stdout.splitlines())
    assert f"recover {auto_id} (acme): key {key} until " in result.stderr
    assert result.stderr.endswith(": say --yes\n")
    monkeypatch.setattr(record_options, "has_person", lambda: True)
    assert sh(*sign, stdin="n\n").exit_code == 130
    assert (sh.path / "recovery.entry").read_bytes() == before
    result = sh(*sign, stdin="y\n")
    assert (result.exit_code, f"still missing: {guards[1]}" in result.stderr) == (0, True)
    assert sh.json("id", "show", "--file", "recovery.entry")["missing"] == guards[1]


def test_guardians_are_chosen_anew_with_the_next_key(sh):
    sh.ok("id", "register", "acme")
    sh.ok("id", "new", "guard", "--unencrypted")
    choose = ("id", "guardians", "acme", "--next-key", "acme.next-key")
    told = sh(*choose, "--guardian", "guard", "--json")
    assert json.loads(told.stdout)["entry"] == "guardians"
    assert f"WARNING: not on record there: {id_of(sh, 'guard')}. As long as they are not" in told.stderr
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
    assert "nowhere: No such file" in sh.fails(1, *choose[:3], "--next-key", "nowhere")


def test_who_is_on_no_record_is_warned_of_as_a_guardian_and_refused_with_what_to_do(sh):
    sh.ok("id", "new", "guard", "--unencrypted")
    told = sh("id", "register", "acme", "--guardian", "guard", "--guardian", "acme-not", "--delay", "0.0417")
    assert "no such identity" in told.stderr
    line = sh.fails(2, "id", "register", "acme", "--delay", "1/24")
    assert "'1/24' is not a number of days or hours, such as 7d or 1h, from 1h up to 90d" in line
    assert "range 1h<=x<=90d" in sh.fails(2, "id", "register", "acme", "--delay", "0.5h")
    told = sh("id", "register", "acme", "--guardian", "guard", "--delay", "1h")
    assert (told.exit_code, "WARNING: not on record there" in told.stderr) == (0, True)
    assert "a recovery takes 1 hour" in told.stdout
    sh.ok("id", "guardians", "acme", "--next-key", "acme.next-key", "--guardian", "guard", "--delay", "90d")
    assert sh.json("registry", "lookup", "acme")["recovery_takes"] == "90 days"
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
    assert "still missing: its issuer" in sh.fails(2, "id", "submit", "echo-2", "echo.entry")
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
