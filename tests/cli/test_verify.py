"""`autolink verify`: an envelope in a file is judged offline, by the anchors and at the time that the caller gives."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from autolink import codec, limits
from autolink.identity import AutoId, Credential, CredentialRequest, EntityKind
from autolink.messages import sign_envelope

RECIPIENT = AutoId.derive("echo")
THEN = datetime.now(UTC)


@pytest.fixture
def signed(acme):
    """A shell in whose folder `note` is signed by acme's seller, with a body that would like to own the terminal."""
    acme.issued("seller", "acme")
    body = codec.encode({"text": "\x1b[31mred \u202e", "at": THEN})
    note = sign_envelope(Credential.load("seller"), recipient=RECIPIENT, method="note", body=body, now=THEN)
    (acme.path / "note").write_bytes(note.to_bytes())
    return acme


def test_it_says_who_signed_on_what_grounds_and_which_time_is_proved(signed):
    told = signed.json("verify", "note", "--anchor", "acme.pem", "--at", "now")
    assert told["author"]["name"].endswith("/seller")
    assert told["author"]["grounds"].startswith("IssuedBy")
    assert told["proved_time"] is None
    assert datetime.fromisoformat(told["claimed_time"]) == THEN
    assert told["claimed_time"].endswith("Z")
    assert told["body"]["text"] == "\x1b[31mred \u202e"
    assert told["message"]["recipient"] == RECIPIENT.hex
    out = signed.ok("verify", "note", "--anchor", "acme.pem", "--at", "now")
    assert all(character.isprintable() or character == "\n" for character in out)
    assert f"claimed time  {THEN:%F %T} UTC\n" in out
    assert "by nothing in the file" in out


def test_it_reads_stdin_and_takes_any_trust(signed):
    note = (signed.path / "note").read_bytes()
    told = signed.json("verify", "-", "--trust", "self-certified", "--at", "now", stdin=note)
    assert told["author"]["grounds"].startswith("SelfCertified")
    assert "whom do you believe" in signed.fails(2, "verify", "note", "--at", "now")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda note: note[:-1] + bytes([note[-1] ^ 1]), "malformed"),
        (lambda note: note.replace(b"note", b"nope"), "tampered"),
        (lambda note: note[: len(note) // 2], "malformed"),
        (lambda note: b"", "malformed"),
        (lambda note: b"\x80" * limits.MIB, "malformed"),
    ],
    ids=["last byte", "method", "half", "empty", "amplifying"],
)
def test_a_spoiled_envelope_is_refused_with_status_3(signed, spoil, reason):
    (signed.path / "note").write_bytes(spoil((signed.path / "note").read_bytes()))
    line = signed.fails(3, "verify", "note", "--anchor", "acme.pem", "--at", "now")
    assert line.startswith("note: ")
    assert reason in line


def test_a_file_that_is_too_large_is_not_read_whole(signed):
    with (signed.path / "note").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than" in signed.fails(1, "verify", "note", "--anchor", "acme.pem", "--at", "now")


def test_the_time_is_the_callers_and_decides(signed):
    """Before it was signed nobody can have it, nor at a time to come. A time needs its offset."""
    early, late = (THEN - timedelta(hours=1)).isoformat(), (THEN + timedelta(days=400)).isoformat()
    line = signed.fails(3, "verify", "note", "--anchor", "acme.pem", "--at", early)
    assert "not_yet_valid" in line
    assert "--at asks about another time" in line
    assert "has not come" in signed.fails(2, "verify", "note", "--anchor", "acme.pem", "--at", late)
    for wrong in (
        "yesterday",
        "2026-01-01T00:00:00",
        "",
        "9" * 1000,
        "0001-01-01T00:00:00+23:59",
        "\x1b[31m",
    ):
        assert "with its offset" in signed.fails(2, "verify", "note", "--anchor", "acme.pem", "--at", wrong)
    assert "--at" in signed.fails(2, "verify", "note", "--anchor", "acme.pem")


def test_a_certificate_that_has_ended_since_proves_what_is_known_to_be_older(acme):
    """Signed years ago with a certificate of one hour: believed at that time, expired now."""
    ago, hour = THEN - timedelta(days=700), timedelta(hours=1)
    old = Credential.self_issued("old", now=ago)
    request = CredentialRequest.new("clerk")
    clerk = request.complete(old.issue(request, kind=EntityKind.AGENT, now=ago, lifetime=hour))
    note = sign_envelope(clerk, recipient=RECIPIENT, method="m", body=codec.encode(None), now=ago)
    (acme.path / "note").write_bytes(note.to_bytes())
    old.anchor.save(acme.path / "old.pem")
    verify = ("verify", "note", "--anchor", "old.pem", "--at")
    assert acme.json(*verify, ago.isoformat())["ok"]
    assert "expired" in acme.fails(3, *verify, "now")


def test_a_certificate_is_no_envelope_and_the_line_says_what_judges_it(signed):
    line = signed.fails(3, "verify", "acme.pem", "--anchor", "acme.pem", "--at", "now")
    assert "this is PEM and no envelope; autolink id verify" in line


def test_what_the_message_is_and_what_its_author_is_have_two_names(signed):
    """An agent's call: neither hides the other, for people and for scripts."""
    told = signed.json("verify", "note", "--anchor", "acme.pem", "--at", "now")
    assert (told["author"]["kind"], told["message"]["message_kind"]) == ("agent", "call")
    assert "kind" not in told["message"]
    facts = signed.ok("verify", "note", "--anchor", "acme.pem", "--at", "now").splitlines()
    assert [line.split()[-1] for line in facts if "kind " in line] == ["agent", "call"]


def test_another_organisations_anchor_does_not_vouch_and_the_error_is_an_object_for_scripts(signed):
    signed.ok("id", "new", "globex", "--unencrypted")
    signed.ok("id", "export", "globex", "-o", "globex.pem")
    result = signed("verify", "note", "--anchor", "globex.pem", "--at", "now", "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert (told["ok"], told["reason"], told["refused_by"]) == (False, "unknown_issuer", "us")
    both = signed.json("verify", "note", "--anchor", "globex.pem", "--anchor", "acme.pem", "--at", "now")
    assert both["ok"]


def test_a_message_of_the_organisation_itself_is_believed_by_a_pin(signed):
    note = sign_envelope(
        Credential.load("acme"), recipient=RECIPIENT, method="m", body=codec.encode(None), now=THEN
    )
    (signed.path / "own").write_bytes(note.to_bytes())
    assert "is an anchor itself" in signed.fails(3, "verify", "own", "--anchor", "acme.pem", "--at", "now")
    assert signed.json("verify", "own", "--trust", "pinned:acme.pem", "--at", "now")["ok"]


def test_a_chain_in_a_file_is_judged_as_a_peers_would_be(signed):
    signed.ok("id", "export", "seller", "--chain", "-o", "chain.pem")
    told = signed.json("id", "verify", "chain.pem", "--trust", "issuer:acme.pem")
    assert told["grounds"].startswith("IssuedBy")
    late = (THEN + timedelta(days=400)).isoformat()
    assert "expired" in signed.fails(
        3, "id", "verify", "chain.pem", "--trust", "issuer:acme.pem", "--at", late
    )
    assert "Unsafe" in signed.json("id", "verify", "chain.pem", "--trust", "unsafe-anyone")["grounds"]
