"""Checkpoints: three lines or more, each in its one form, under the key that has the log's name."""

import base64
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from autolink import limits
from autolink.errors import BadSignature, IdentityError, RemoteProtocolError, UsageError
from autolink.registry.log import Checkpoint, VerifierKey, sign_note
from autolink.registry.log.checkpoint import verify_untrusted

SECRET = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "example.com/log"
KEY = VerifierKey.of(ORIGIN, SECRET.public_key())
ROOT = bytes(range(32))
B64 = base64.b64encode(ROOT).decode()
EMPTY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def signed(text):
    return sign_note(text, ORIGIN, SECRET)


def test_a_checkpoint_signed_by_go_is_verified(sumdb):
    """Its origin is the key's name, which is `PeterNeumann` there."""
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    checkpoint = verify_untrusted(sumdb["checkpoint"].encode(), key)
    root = next(row["root"] for row in sumdb["roots"] if row["size"] == 70_000)
    assert checkpoint == Checkpoint("PeterNeumann", 70_000, bytes.fromhex(root))


def test_the_text_is_that_of_go_and_of_the_specification():
    hashed = base64.b64decode("TszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=")
    checkpoint = Checkpoint("go.sum database tree", 123456789012, hashed)
    assert (
        checkpoint.text
        == "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    )
    with pytest.raises(IdentityError):  # the origin names the key that signs, and this has spaces
        checkpoint.signed(SECRET)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(ORIGIN, 1, ROOT),
        Checkpoint(ORIGIN, 0, base64.b64decode(EMPTY)),
        Checkpoint(ORIGIN, limits.LOG_ENTRIES, ROOT),
        Checkpoint(ORIGIN, 20852163, ROOT, ("extension", "line \u2028 two")),
        Checkpoint(ORIGIN, 7, ROOT, ("x",) * limits.CHECKPOINT_EXTENSIONS),
    ],
    ids=count(),
)
def test_what_is_signed_is_what_is_verified(checkpoint):
    assert verify_untrusted(checkpoint.signed(SECRET), KEY) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        f"{ORIGIN}\n",
        f"{ORIGIN}\n5\n",
        f"\n5\n{B64}\n",
        f"{ORIGIN}\n\n{B64}\n",
        f"{ORIGIN}\n5\n\n",
        f"{ORIGIN}\n5\n{B64}\n\n",
        f"{ORIGIN}\n5\n{B64}\n\nextension\n",
        f"{ORIGIN}\n5\n{B64}\n" + "x\n" * (limits.CHECKPOINT_EXTENSIONS + 1),
        f"{ORIGIN}\n5\n{B64}\n" + "x\n" * 50_000,
        *(
            f"{ORIGIN}\n{size}\n{B64}\n"
            for size in (
                "05", "00", "+5", "-5", " 5", "5 ", "1_0", "5.0", "0x5", "1e3", "\u0665", "\u00b2", "five",
                str(limits.LOG_ENTRIES + 1), "9" * 19, "9" * 60_000,
            )
        ),
        *(
            f"{ORIGIN}\n5\n{root}\n"
            for root in (
                B64[:-1], B64 + "=", B64 + " ", " " + B64, B64[:-2] + "9=", "-" + B64[1:], "é" * 44, "AAAA",
                base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode(),
                base64.b64encode(bytes(32)).decode().replace("=", ""),
            )
        ),
        f"{ORIGIN}\n0\n{B64}\n",  # the empty tree has one root
    ],
    ids=count(),
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_though_it_is_signed(text):
    with pytest.raises(RemoteProtocolError, match="^checkpoint"):
        verify_untrusted(signed(text), KEY)


def test_a_checkpoint_of_another_log_is_refused():
    """A key speaks for the log whose name it has, and for no other."""
    with pytest.raises(BadSignature, match="not of the log example.com/log"):
        verify_untrusted(signed(f"example.com/other\n5\n{B64}\n"), KEY)


def test_a_checkpoint_under_another_key_is_refused():
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(BadSignature, match="not signed by this key"):
        verify_untrusted(Checkpoint(ORIGIN, 5, ROOT).signed(other), KEY)


def test_who_gives_another_logs_key_is_told_which_log_it_is():
    other = VerifierKey("example.com/other", KEY.public_key)
    with pytest.raises(BadSignature) as refused:
        verify_untrusted(Checkpoint(ORIGIN, 5, ROOT).signed(SECRET), other)
    assert str(refused.value) == (
        f"this registry's log is {ORIGIN}; the log key given is of example.com/other"
    )


def test_every_changed_byte_is_noticed():
    data = Checkpoint(ORIGIN, 20852163, ROOT).signed(SECRET)
    for at in range(len(data)):
        for bit in range(8):
            with pytest.raises((BadSignature, RemoteProtocolError)):
                verify_untrusted(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], KEY)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint("", 5, ROOT),
        Checkpoint(ORIGIN, -1, ROOT),
        Checkpoint(ORIGIN, limits.LOG_ENTRIES + 1, ROOT),
        Checkpoint(ORIGIN, 5, ROOT[:-1]),
        Checkpoint(ORIGIN, 0, ROOT),
        Checkpoint(ORIGIN, 5, ROOT, ("",)),
        Checkpoint(ORIGIN, 5, ROOT, ("a\nb",)),
        Checkpoint(ORIGIN, 5, ROOT, ("a\rb",)),
        Checkpoint(ORIGIN, 5, ROOT, ("x",) * (limits.CHECKPOINT_EXTENSIONS + 1)),
    ],
    ids=count(),
)
def test_what_no_reader_would_accept_is_not_signed(checkpoint):
    with pytest.raises(UsageError):
        checkpoint.signed(SECRET)
