"""`autolink id register …`: what a registry has on record, from the shell."""

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Contact
from autolink.cli import on_record, record_options, voiding
from autolink.cli.submitting import Submission
from autolink.errors import EntryRefused, Fault, LinkLost, UsageError
from autolink.identity import Keystore
from autolink.messages.merkle import leaf_hash
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.receipt import verify_untrusted as verify_receipt
from tests.cli.registries import NOBODY, ends, id_of, pass_a_second

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
    assert f"still missing: {auto_id}: pass the entry on" in sh.fails(1, "id", "submit", "far", "far.entry")
    monkeypatch.setenv("AUTOLINK_HOME", organisation)
    assert f"still missing: {auto_id} (acme): pass the entry on" in sh.fails(
        1, "id", "submit", "acme", "far.entry"
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
    before = (sh.path / "signed.entry").read_bytes()
    assert "it has all its signatures" in sh("id", "countersign", "acme", "signed.entry").stderr  # once more
    assert (sh.path / "signed.entry").read_bytes() == before
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
    sh.ok("id", "revoke", "acme", "--yes")
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
    line = sh.fails(2, *rotate, str(first + 2))
    assert "Directly below: none: Is that meant? Nobody is there to answer: say --yes" in line
    line = sh.fails(2, *rotate, str(first + 1))
    assert f"Directly below: 1: {id_of(sh, 'echo')} (echo): Is that meant? Nobody is there" in line
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
    where = registry.contact.partition("@")[2]
    assert f"registry {where}: {id_of(sh, 'acme')} is not on record there: " in line
    assert "is it the right registry?" in line
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
    told = sh.json("id", "revoke", echo, "--by", "acme", "--yes")
    assert (told["state"], told["auto_id"]) == ("revoked", echo)
    assert (Keystore().folder("acme") / "registry" / f"{log}-{told['index']}-revoke.tlog-proof").exists()
    assert sh.json("id", "revoke", echo, "--by", "acme", "--yes")["index"] == told["index"]
    line = sh.fails(3, "id", "revoke", "echo", "--yes")
    assert "(revoked)" in line
    assert f"by entry {told['index']}, which is another" in line
    assert sh.json("id", "revoke", "acme", "--yes")["state"] == "revoked"
    status = sh.json("registry", "status", echo)
    assert (status["state"], status["because_of"]) == ("revoked", None)
    line = sh.fails(1, "id", "revoke", "0" * 64, "--by", "acme", "--yes")
    assert line.startswith(
        f"registry {Contact.parse(registry.contact).address}: {'0' * 64} is not on record there"
    )


def test_a_key_is_revoked_only_on_a_second_word(sh, monkeypatch):
    """A typed name that was completed to another one ends nobody's links; nor does a script that did not say so."""
    sh.ok("id", "register", "acme")
    acme, revoke = id_of(sh, "acme"), ("id", "revoke", "acme")
    line = sh.fails(2, *revoke)
    assert line.startswith(
        "its key never comes back, and every link of it and of what stands below it ends: "
    )
    assert line.endswith(f": Revoke {acme} (acme)? Nobody is there to answer: say --yes")
    monkeypatch.setattr(record_options, "has_person", lambda: True)
    assert sh(*revoke, stdin="n\n").exit_code == 130
    assert sh.json("registry", "status", "acme")["state"] == "active"
    assert sh(*revoke, stdin="y\n").exit_code == 0
    assert sh.json("registry", "status", "acme")["state"] == "revoked"


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
    assert "(deactivated)" in sh.fails(3, "id", "revoke", "acme", "--yes")


def test_who_is_on_record_and_not_active_is_not_registered_again(sh, monkeypatch):
    """A script that sees status 0 would go on to serve as somebody whom nobody believes; wherever its issuer is."""
    sh.ok("id", "register", "acme")
    sh.ok("id", "register", "echo", "--unencrypted")
    acme, echo = ("id", "register", "acme"), ("id", "register", "echo", "--unencrypted")
    sh.ok("id", "revoke", "echo", "--by", "acme", "--yes")
    assert "(taken): it is revoked: a rotation to its next key, or a recovery" in sh.fails(3, *echo)
    with monkeypatch.context() as away:
        away.setattr(on_record, "issuer_of", _elsewhere)
        index = sh.json("registry", "history", "echo")["entries"][0]["index"]
        assert f"echo is on record as entry {index}, and it is revoked: " in sh.fails(3, *echo)
    sh.issued("other", "acme")
    sh.ok("id", "register", "other", "--unencrypted")
    sh.ok("id", "revoke", "acme", "--yes")
    line = sh.fails(3, "id", "register", "other", "--unencrypted")
    assert line.endswith(f"it is revoked because of {id_of(sh, 'acme')}, above it")
    assert "it is revoked: " in sh.fails(3, *acme)
    sh.ok("id", "deactivate", "acme", "--next-key", "acme.next-key", "--yes")
    assert sh.fails(3, *acme).endswith("it is deactivated, for good: make another identity")


def _elsewhere(*_: object) -> None:
    raise UsageError("the issuer is not in this keystore")
