"""`autolink id rotate`, and what the other commands make of a rotated identity."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autolink import Agent, codec
from autolink.cli.reload import Change, Sources
from autolink.errors import KeystoreError
from autolink.identity import AutoId, Credential, Keystore, TrustAnchor, keys, load_key
from autolink.messages import sign_envelope
from autolink.trust import SelfCertified

SECRET = {"AUTOLINK_PASSPHRASE": "secret"}


@pytest.fixture
def corp(acme):
    """A shell whose acme, its anchor in acme.pem from before, has rotated once."""
    acme.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    return acme


def test_an_identity_goes_on_to_its_next_key_and_makes_the_one_after(shell):
    """Again and again; each next key lies encrypted in a file of its own, and the Auto ID stays."""
    before = shell.json("id", "new", "acme", env=SECRET)
    assert before["rotations"] == 0
    kept = "acme.next-key"
    for times in (1, 2, 3):
        facts = shell.json("id", "rotate", "acme", "--next-key", kept, env=SECRET)
        assert facts["rotations"] == times
        assert facts["next_key_file"] == f"acme.next-key-{times + 1}"
        for same in ("peer_id", "common_name", "kind", "key_type", "issued_by"):
            assert facts[same] == before[same]
        assert facts["key"] == before["next_key"]
        assert facts["next_key"] not in (before["next_key"], None)
        shown = shell.json("id", "show", "acme")
        assert facts.items() - shown.items() == {
            ("next_key_file", f"acme.next-key-{times + 1}"),
            ("on_record", None),
        }
        path = Path(kept := facts["next_key_file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        committed = keys.hash_of_key(load_key(path, "secret").public_key()).hex()
        assert facts["next_key"] == f"sha256:{committed}"
        before = facts
    assert Credential.load("acme", passphrase="secret").rotations


def test_people_are_told_where_the_next_key_is_and_which_file_is_needed_no_more(acme):
    result = acme(
        "id", "rotate", "acme", "--next-key", "acme.next-key", "--next-key-out", "out", "--unencrypted"
    )
    assert result.exit_code == 0
    assert "The next key is in out, WITHOUT a passphrase. Move it to another place" in result.stderr
    assert "acme.next-key is in use from now on" in result.stderr
    assert ["rotations", "1"] in [line.split() for line in result.stdout.splitlines()]


def test_the_files_of_the_keys_may_have_passphrases_of_their_own(shell):
    """The old key's is not asked for: it may be what was lost."""
    shell.ok("id", "new", "acme", env=SECRET)
    Path("next").write_text("secret\n")
    Path("new").write_text("better\n")
    shell.ok(
        "id", "rotate", "acme", "--next-key", "acme.next-key", "--next-key-passphrase-file", "next",
        "--passphrase-file", "new",
    )  # fmt: skip
    assert Credential.load("acme", passphrase="better").rotations
    load_key("acme.next-key-2", "better")
    line = shell.fails(
        1, "id", "rotate", "acme", "--next-key", "acme.next-key-2", "--passphrase-file", "next"
    )
    assert line.startswith("acme.next-key-2: wrong passphrase")


def test_a_lost_identity_comes_back_by_its_public_certificates_and_the_next_key(acme, monkeypatch):
    """On another machine, which has nothing but these two files."""
    acme.ok("id", "export", "acme", "--chain", "-o", "chain.pem")
    before = acme.json("id", "show", "acme")
    line = acme.fails(
        1,
        "id",
        "rotate",
        "acme",
        "--next-key",
        "acme.next-key",
        "--certificates",
        "chain.pem",
        "--unencrypted",
    )
    assert "there is an identity 'acme' already" in line
    monkeypatch.setenv("AUTOLINK_HOME", str(acme.path / "other"))
    assert "no such identity" in acme.fails(
        1, "id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted"
    )
    facts = acme.json(
        "id", "rotate", "back", "--next-key", "acme.next-key", "--certificates", "acme.pem", "--unencrypted"
    )
    assert (facts["peer_id"], facts["rotations"]) == (before["peer_id"], 1)
    acme.ok("id", "export", "back", "--chain", "-o", "chain.pem")
    line = (
        acme.fails(  # its anchor is not enough any more: it does not say what the key in use has committed to
            1,
            "id",
            "rotate",
            "again",
            "--next-key",
            "back.next-key-2",
            "--certificates",
            "acme.pem",
            "--unencrypted",
        )
    )
    assert "committed to another next key" in line
    facts = acme.json(
        "id",
        "rotate",
        "again",
        "--next-key",
        "back.next-key-2",
        "--certificates",
        "chain.pem",
        "--unencrypted",
    )
    assert (facts["peer_id"], facts["rotations"]) == (before["peer_id"], 2)


def test_what_cannot_be_rotated_is_told_with_what_to_do(acme):
    acme.issued("seller", "acme")
    issued = ("id", "rotate", "seller", "--next-key", "acme.next-key")
    assert "its issuer says for how long" in acme.fails(2, *issued, "--days", "3")
    assert "go with CHAIN" in acme.fails(2, *issued, "--next-key-out", "out")
    for name in ("acme", "seller"):
        acme.ok("id", "export", name, "--chain", "-o", "chain.pem")
        line = acme.fails(2, "id", "rotate", name, "chain.pem", "--next-key", "acme.next-key")
        assert ("leave CHAIN out" if name == "acme" else "--registry") in line
    acme.ok("id", "new", "bob", "--plain", "--unencrypted")
    assert "commits to no next key" in acme.fails(2, "id", "rotate", "bob", "--next-key", "acme.next-key")
    acme.ok("id", "new", "globex", "--unencrypted")
    line = acme.fails(1, "id", "rotate", "acme", "--next-key", "globex.next-key", "--unencrypted")
    assert line.startswith("globex.next-key: ")
    assert "committed to another next key" in line
    assert "No such file" in acme.fails(1, "id", "rotate", "acme", "--next-key", "nowhere", "--unencrypted")
    acme.ok("id", "request", "new", "--unencrypted")
    assert "no answer yet" in acme.fails(1, "id", "rotate", "new", "--next-key", "acme.next-key")
    assert "no passphrase for acme" in acme.fails(2, "id", "rotate", "acme", "--next-key", "acme.next-key")
    assert acme.json("id", "show", "acme")["rotations"] == 0
    assert not list(acme.path.glob("*.next-key-2"))


def test_a_next_key_is_written_over_no_file_and_thrown_away_only_if_nothing_rests_on_it(acme, monkeypatch):
    """A taken file that was asked for stops the command. When the keystore fails, the file goes, unless the rotation has
    happened."""
    rotate = ("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    Path("precious").write_text("precious")
    assert "never written over" in acme.fails(1, *rotate, "--next-key-out", "precious")
    assert Path("precious").read_text() == "precious"
    real = Keystore.rotate

    def fail_before(*_, **__):
        raise KeystoreError("disk full")

    def fail_after(*arguments, **options):
        real(*arguments, **options)
        raise KeystoreError("disk full")

    monkeypatch.setattr(Keystore, "rotate", fail_before)
    assert acme.fails(1, *rotate) == "disk full"
    assert not Path("acme.next-key-2").exists()
    monkeypatch.setattr(Keystore, "rotate", fail_after)
    assert acme.fails(1, *rotate) == "disk full"
    facts = acme.json("id", "show", "acme")
    committed = keys.hash_of_key(load_key("acme.next-key-2", None).public_key()).hex()
    assert (facts["rotations"], facts["next_key"]) == (1, f"sha256:{committed}")


# --- the other commands ------------------------------------------------------------------------------------


def test_what_others_have_of_a_rotated_organisation_stays_the_same_file(corp):
    corp.ok("id", "export", "acme", "-o", "again.pem")
    assert Path("again.pem").read_bytes() == Path("acme.pem").read_bytes()
    assert Credential.load("acme").anchor == TrustAnchor.load("acme.pem")


def test_whom_it_issues_has_the_rotations_in_the_chain_and_is_believed_by_the_anchor_from_before(corp):
    """Through every command that takes or gives a chain; the facts say how often the root was rotated."""
    corp.issued("seller", "acme")
    corp.ok("id", "export", "seller", "--chain", "-o", "seller.pem")
    assert Path("seller.pem").read_text().count("BEGIN CERTIFICATE") == 3
    for facts in (corp.json("id", "show", "seller"), corp.json("id", "show", "--file", "seller.pem")):
        assert (facts["rotations"], facts["issued_by"].startswith("acme~")) == (1, True)
    verified = corp.json("id", "verify", "seller.pem", "--trust", "issuer:acme.pem")
    assert verified["peer_id"] == corp.json("id", "show", "seller")["peer_id"]
    assert corp.json("id", "verify", "seller.pem", "--trust", "self-certified")["grounds"].startswith(
        "SelfCert"
    )
    corp.ok("id", "export", "acme", "--chain", "-o", "chain.pem")
    assert corp.json("id", "show", "--file", "chain.pem")["rotations"] == 1
    for name in ("acme", "seller"):
        corp.ok("id", "export", name, "--chain", "-o", "chain")
        corp.ok("id", "export", name, "--unencrypted-key", "-o", f"{name}.key")
        facts = corp.json(
            "id", "import", f"{name}-2", "--certificate", "chain", "--key", f"{name}.key", "--unencrypted"
        )
        assert facts.items() >= {"rotations": 1, "peer_id": corp.json("id", "show", name)["peer_id"]}.items()
    corp.issued("sales", "acme-2", "--kind", "organization", "--may-issue", "0")
    corp.issued("clerk", "sales")
    assert corp.json("id", "show", "clerk")["rotations"] == 1


def test_half_of_an_answer_is_not_accepted(corp):
    request = corp.ok("id", "request", "seller", "--unencrypted")
    answer = corp.ok("id", "issue", "-", "--as", "acme", stdin=request)
    end = "-----END CERTIFICATE-----\n"
    parts = [part + end for part in answer.split(end)[:-1]]
    assert len(parts) == 3
    for wrong in (parts[:2], [*parts[:1], parts[2]], [*parts[:2], parts[0]], parts[::-1]):
        corp.fails(1, "id", "accept", "seller", "-", stdin="".join(wrong))
    corp.ok("id", "accept", "seller", "-", stdin=answer)


def test_a_chain_in_the_place_of_the_anchor_is_told(corp):
    corp.ok("id", "export", "acme", "--chain", "-o", "chain.pem")
    corp.issued("seller", "acme")
    corp.ok("id", "export", "seller", "--chain", "-o", "seller.pem")
    line = corp.fails(1, "id", "verify", "seller.pem", "--trust", "issuer:chain.pem")
    assert "no rotations lead there" in line


def test_an_agent_issued_before_is_renewed_from_under_the_new_key(acme):
    acme.issued("seller", "acme", "--days", "2")
    before = acme.json("id", "show", "seller")
    acme.ok("id", "rotate", "acme", "--next-key", "acme.next-key", "--unencrypted")
    request = acme.ok("id", "export", "seller", "--request")
    answer = acme.ok("id", "issue", "-", "--as", "acme", "--days", "9", stdin=request)
    acme.ok("id", "accept", "seller", "-", stdin=answer)
    after = acme.json("id", "show", "seller")
    assert (after["peer_id"], after["key"]) == (before["peer_id"], before["key"])
    assert (before["rotations"], after["rotations"]) == (None, 1)


def test_a_message_of_a_rotated_author_is_verified_offline(corp):
    now = datetime.now(UTC)
    corp.issued("seller", "acme")
    for author in ("acme", "seller"):
        note = sign_envelope(
            Credential.load(author),
            recipient=AutoId.derive("bob"),
            method="note",
            body=codec.encode(1),
            now=now,
        )
        Path("note").write_bytes(note.to_bytes())
        told = corp.json(
            "verify", "note", "--trust", "issuer:acme.pem", "--trust", "self-certified", "--at", "now"
        )
        assert told["author"]["peer_id"] == corp.json("id", "show", author)["peer_id"]
        assert told["message"]["evidence"] == 1


def test_a_served_agent_takes_up_its_own_rotation_and_its_issuers(corp):
    """Its own is another key, as for any other change of the key; the issuer's is a newer chain of the same."""
    corp.issued("seller", "acme")
    for name in ("acme", "seller"):
        agent = Agent(Credential.load(name), trust=SelfCertified())
        sources = Sources(agent, [])
        if name == "acme":
            corp.ok("id", "rotate", "acme", "--next-key", "acme.next-key-2", "--unencrypted")
        else:
            request = corp.ok("id", "export", "seller", "--request")
            answer = corp.ok("id", "issue", "-", "--as", "acme", "--days", "99", stdin=request)
            corp.ok("id", "accept", "seller", "-", stdin=answer)
        assert sources.changed() is Change.CREDENTIAL
        (step,) = sources.steps(Change.CREDENTIAL)
        step.take()
        assert len(agent.credential.rotations) == 2
        assert (step.order, step.rolls) == (None, True)
