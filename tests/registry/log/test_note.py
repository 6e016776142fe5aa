"""Signed notes: what Go signs and verifies, and nothing that is not a note."""

import base64
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from autolink import limits
from autolink.errors import BadSignature, IdentityError, RemoteProtocolError, UsageError
from autolink.registry.log import Note, Signature, VerifierKey, sign_note

# From golang.org/x/mod/sumdb/note's tests.
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
PETER_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_LINE = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
SPOILED_ENOCH_LINE = ENOCH_LINE[:60] + "ABCD" + ENOCH_LINE[60:]

# From github.com/transparency-dev/formats' tests.
REKOR = (
    "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smGNM7n"
    "wZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
)

# From c2sp.org/signed-note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
EVENING = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)


def secret(encoded):
    return ed25519.Ed25519PrivateKey.from_private_bytes(base64.b64decode(encoded)[1:])


def note(*lines, text=TEXT):
    return "".join((text, "\n", *lines)).encode()


def peter(data):
    parsed = Note.from_untrusted(data)
    parsed.verify(VerifierKey.parse(PETER))
    return parsed


def test_signing_gives_the_bytes_that_go_gives():
    assert sign_note(TEXT, "PeterNeumann", secret(PETER_SECRET)) == note(PETER_LINE)


def test_the_example_of_the_specification_verifies():
    parsed = Note.from_untrusted(EXAMPLE.encode())
    parsed.verify(VerifierKey.parse(EXAMPLE_KEY))
    assert parsed.text == "This is an example message.\n"


def test_a_text_may_hold_empty_lines_and_every_letter():
    """The last empty line ends the text. Only a newline ends a line: what Unicode also calls one is part of it."""
    parsed = Note.from_untrusted(EVENING.encode())
    assert parsed.text.endswith("sole:\n\ned è subito sera.\n")
    assert parsed.signatures[0].name == "quasimodo.example/salvatore"
    assert parsed.to_bytes() == EVENING.encode()
    for text in ("\n", "a\n\n", "\n\n\n", "a\u2028b\x7f\x85c\ufeff\n", "— PeterNeumann AAAAAAA=\n"):
        data = sign_note(text, "PeterNeumann", secret(PETER_SECRET))
        assert peter(data).text == text
        assert peter(data).to_bytes() == data


def test_lines_of_unknown_keys_are_passed_over_and_kept():
    """They may be witnesses'. One that shares only the name, or only the id, with a known key is unknown too."""
    same_name = PETER_LINE.replace("x08g", "xxxx")
    same_id = PETER_LINE.replace("PeterNeumann", "CarmenSandiego")
    data = note(ENOCH_LINE, same_name, PETER_LINE, SPOILED_ENOCH_LINE, same_id, PETER_LINE)
    assert peter(data).to_bytes() == data
    assert [line.name for line in peter(data).signatures] == [
        "EnochRoot", "PeterNeumann", "PeterNeumann", "EnochRoot", "CarmenSandiego", "PeterNeumann",
    ]  # fmt: skip
    Note.from_untrusted(note(PETER_LINE, ENOCH_LINE)).verify(VerifierKey.parse(ENOCH))
    for lines in ([ENOCH_LINE], [same_name], [same_id]):
        with pytest.raises(BadSignature, match="not signed by this key of PeterNeumann"):
            peter(note(*lines))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_false_line_of_a_known_key_spoils_the_note(place):
    """Wherever it stands, and whatever true ones stand beside it."""
    raw = base64.b64decode(PETER_LINE.split()[2])
    spoiled = str(Signature("PeterNeumann", raw[:4], raw[4:-1] + bytes([raw[-1] ^ 1]))) + "\n"
    longer = str(Signature("PeterNeumann", raw[:4], raw[4:] + b"\0")) + "\n"
    for false in (spoiled, longer):
        lines = [PETER_LINE, PETER_LINE]
        lines.insert(place, false)
        with pytest.raises(BadSignature, match="under the key of PeterNeumann"):
            peter(note(*lines))


def test_every_changed_missing_or_added_byte_is_noticed():
    data = note(PETER_LINE)
    for at in range(len(data)):
        changed = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8)]
        for wrong in (*changed, data[:at], data[:at] + data[at + 1 :], data[:at] + b"\n" + data[at:]):
            with pytest.raises((BadSignature, RemoteProtocolError)):
                peter(wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        TEXT.encode(),
        note(),
        note(PETER_LINE[:-1]),
        note(PETER_LINE, "\n"),
        note(PETER_LINE, "Unexpected line.\n"),
        note("\n" + PETER_LINE + "no text"),
        note("\x01" + PETER_LINE),
        note(PETER_LINE, text="\x00" + TEXT),
        note(PETER_LINE, text=TEXT.replace("\n", "\r\n")),
        note(PETER_LINE, text="a\tb\n"),
        b"\xff" + note(PETER_LINE),
        b"\xed\xa0\x80" + note(PETER_LINE),
        note("— Bad Name x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZI=\n"),
        note(PETER_LINE.replace("— ", "- ")),
        note(PETER_LINE.replace("— ", "—")),
        note(PETER_LINE.replace("PeterNeumann ", "")),
        note(PETER_LINE.replace("PeterNeumann", "")),
        note(PETER_LINE.replace("PeterNeumann", "Peter+Neumann")),
        note(PETER_LINE.replace("PeterNeumann", "Peter\u2003Neumann")),
        note(PETER_LINE.replace("PeterNeumann", "Peter\u2028Neumann")),
        note(PETER_LINE.replace("PeterNeumann", "Peter\x85Neumann")),
        note(PETER_LINE.replace("JnAM=", "JnAN=")),  # bits behind the last byte
        note(PETER_LINE.replace("JnAM=", "JnAM")),
        note(PETER_LINE.replace("JnAM=", "JnAM==")),
        note(PETER_LINE.replace("JnAM=", "JnAM= ")),
        note(PETER_LINE.replace("/", "_")),  # base64 for URLs
        note("— PeterNeumann \n"),
        note("— PeterNeumann x08gow==\n"),  # an id and no signature
        note("— PeterNeumann ٣٣٣٣٣٣٣٣\n"),
    ],
    ids=count(),
)
def test_what_is_no_note_is_refused(data):
    with pytest.raises(RemoteProtocolError, match="^note: "):
        peter(data)


def test_a_note_is_bounded():
    """16 signatures of the longest post-quantum kind fit, as the specification demands."""
    long = [f"{Signature(f'witness{n}.example/a-name', bytes(4), bytes(4627))}\n" for n in range(15)]
    assert len(peter(note(*long, PETER_LINE)).signatures) == 16
    assert len(peter(note(*[PETER_LINE] * limits.NOTE_SIGNATURES)).signatures) == limits.NOTE_SIGNATURES
    with pytest.raises(RemoteProtocolError, match="more than 100 signatures"):
        Note.from_untrusted(note(*[PETER_LINE] * (limits.NOTE_SIGNATURES + 1)))
    whole = "x" * (limits.NOTE - len(note(PETER_LINE, text="\n"))) + "\n"
    assert len(sign_note(whole, "PeterNeumann", secret(PETER_SECRET))) == limits.NOTE
    peter(sign_note(whole, "PeterNeumann", secret(PETER_SECRET)))
    with pytest.raises(RemoteProtocolError, match="more than 131072 bytes"):
        Note.from_untrusted(note(PETER_LINE, text="x" + whole))
    with pytest.raises(UsageError):
        sign_note("x" + whole, "PeterNeumann", secret(PETER_SECRET))


@pytest.mark.parametrize("text", ["", "no newline", "a\r\n", "a\x00\n", "\ud800\n"])
def test_a_text_that_no_note_can_hold_is_not_signed(text):
    with pytest.raises(UsageError):
        sign_note(text, "name", secret(PETER_SECRET))


@pytest.mark.parametrize("text", [PETER, ENOCH, EXAMPLE_KEY])
def test_a_verifier_key_has_one_text_form(text):
    key = VerifierKey.parse(text)
    assert str(key) == text
    assert key == VerifierKey(key.name, key.public_key)
    assert key.key_id.hex() == text.split("+")[1]


def test_every_part_of_a_verifier_key_counts():
    """No part of one is one, nor is one with another byte at any place."""
    for begin in range(len(PETER)):
        for end in range(begin, len(PETER) + 1):
            if (begin, end) != (0, len(PETER)):
                with pytest.raises(IdentityError):
                    VerifierKey.parse(PETER[begin:end])
    for at, letter in enumerate(PETER):
        for other in (chr(ord(letter) + 1), letter.swapcase(), " ", "\n", "é", letter * 2):
            if other != letter:
                with pytest.raises(IdentityError):
                    VerifierKey.parse(PETER[:at] + other + PETER[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # too long, its id adjusted
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # an unknown type, its id adjusted
        REKOR,  # ECDSA
    ],
    ids=count(),
)
def test_other_types_and_lengths_of_key_are_refused(text):
    with pytest.raises(IdentityError, match="base64|32 bytes|not of type Ed25519"):
        VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\x01b", "\ud800"])
def test_names_that_no_signature_line_can_carry_are_refused(name):
    with pytest.raises(IdentityError):
        VerifierKey(name, VerifierKey.parse(PETER).public_key)


@pytest.mark.parametrize(
    "public_key", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31), b"\xff" * 32]
)
def test_a_key_that_verifies_anything_or_has_a_second_form_is_no_verifier_key(public_key):
    """Points of small order and above the prime: see `identity.keys`."""
    with pytest.raises(IdentityError):
        VerifierKey("name", public_key)


def test_only_ed25519_keys_become_verifier_keys():
    with pytest.raises(IdentityError, match="Ed25519"):
        VerifierKey.of("name", ec.generate_private_key(ec.SECP256R1()).public_key())
    assert VerifierKey.of("PeterNeumann", secret(PETER_SECRET).public_key()) == VerifierKey.parse(PETER)
