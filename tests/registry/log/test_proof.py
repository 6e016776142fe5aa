"""Self-contained proofs: one text, read and checked without the log."""

import base64
from hashlib import sha256
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from autolink import limits
from autolink.errors import BadSignature, RemoteProtocolError, UsageError
from autolink.messages import merkle
from autolink.registry.log import Checkpoint, LogProof, Signature, VerifierKey
from autolink.registry.log.proof import verify_untrusted
from autolink.registry.log.tree import inclusion_proof, tree_root
from tests.registry.log.reference import entry

SECRET = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey.of("example.com/log", SECRET.public_key())
HASHES = [sha256(b"hash1").digest(), sha256(b"hash2").digest()]
B64 = [base64.b64encode(each).decode() for each in HASHES]


def proof_of(store, index, size, extra=b""):
    note = Checkpoint("example.com/log", size, tree_root(size, store.read)).signed(SECRET)
    return LogProof(index, inclusion_proof(index, size, store.read), note, extra)


@pytest.mark.parametrize(
    ("index", "size"), [(0, 1), (0, 2), (1, 2), (255, 257), (256, 257), (69_999, 70_000), (0, 65_537)]
)
def test_a_proof_is_checked_by_whoever_knows_the_key(index, size, store):
    """As text, as parsed, and with what a witness has added to the checkpoint."""
    proof = proof_of(store, index, size, b"anything")
    leaf = merkle.leaf_hash(entry(index))
    assert LogProof.from_untrusted(proof.to_bytes()) == proof
    checkpoint = verify_untrusted(proof.to_bytes(), leaf, KEY)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/log", size)
    witnessed = proof.checkpoint + f"{Signature('witness.example', bytes(4), bytes(72))}\n".encode()
    witnessed_proof = LogProof(index, proof.path, witnessed)
    assert verify_untrusted(witnessed_proof.to_bytes(), leaf, KEY) == checkpoint


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (LogProof(5, tuple(HASHES), b"checkpoint\n"), f"index 5\n{B64[0]}\n{B64[1]}\n\ncheckpoint\n"),
        (LogProof(10, (HASHES[0],), b"x\n\ny\n", b"extra information"),
         f"extra ZXh0cmEgaW5mb3JtYXRpb24=\nindex 10\n{B64[0]}\n\nx\n\ny\n"),
        (LogProof(0, (), b"checkpoint\n"), "index 0\n\ncheckpoint\n"),
    ],
)  # fmt: skip
def test_the_text_is_that_of_transparency_devs_formats(proof, text):
    """github.com/transparency-dev/formats writes and reads the same. Nobody has looked at the checkpoint yet."""
    data = b"c2sp.org/tlog-proof@v1\n" + text.encode()
    assert proof.to_bytes() == data
    assert LogProof.from_untrusted(data) == proof


def test_the_example_of_the_specification_is_read():
    """Its signatures are abbreviated there, so that is all that can be done with it."""
    data = """c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJw[...]1roloI=
""".encode()
    proof = LogProof.from_untrusted(data)
    assert (proof.index, len(proof.path)) == (73_894, 5)
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    with pytest.raises(RemoteProtocolError):
        proof.verify(HASHES[0], KEY)


def test_every_changed_missing_or_added_byte_is_noticed(store):
    data = proof_of(store, 2, 7).to_bytes()
    leaf = merkle.leaf_hash(entry(2))
    verify_untrusted(data, leaf, KEY)
    for at in range(len(data)):
        changed = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8)]
        for wrong in (*changed, data[:at], data[:at] + data[at + 1 :], data[:at] + b"\n" + data[at:]):
            with pytest.raises((BadSignature, RemoteProtocolError)):
                verify_untrusted(wrong, leaf, KEY)


def test_nothing_vouches_for_the_extra_data(store):
    proof = proof_of(store, 2, 7, b"one thing")
    other = LogProof(proof.index, proof.path, proof.checkpoint, b"another")
    assert other.verify(merkle.leaf_hash(entry(2)), KEY) == proof.verify(merkle.leaf_hash(entry(2)), KEY)


def test_what_a_proof_does_not_show_is_refused(store):
    proof = proof_of(store, 2, 7)
    leaf = merkle.leaf_hash(entry(2))
    newer = proof_of(store, 2, 8)
    other_key = VerifierKey.of("example.com/log", ed25519.Ed25519PrivateKey.generate().public_key())
    for wrong, leaf_hash, key in (
        (proof, merkle.leaf_hash(entry(3)), KEY),
        (proof, entry(2), KEY),
        (proof, leaf, other_key),
        (LogProof(3, proof.path, proof.checkpoint), leaf, KEY),
        (LogProof(7, proof.path, proof.checkpoint), leaf, KEY),
        (LogProof(2, (), proof.checkpoint), leaf, KEY),
        (LogProof(2, proof.path, newer.checkpoint), leaf, KEY),
        (LogProof(2, newer.path, proof.checkpoint), leaf, KEY),
    ):
        with pytest.raises(BadSignature):
            wrong.verify(leaf_hash, key)


NOTE = "\n\ncheckpoint\n"


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", NOTE, "index 0" + NOTE, "wrong-header\nindex 0" + NOTE, "c2sp.org/tlog-proof@v1" + NOTE,
        *("c2sp.org/tlog-proof@v1" + rest for rest in (
            "", "\n", "\n\n", "\n\nindex 0" + NOTE, "0\nindex 0" + NOTE, " \nindex 0" + NOTE, "\r\nindex 0" + NOTE,
            "\nindex 0\n", "\nindex 0", "\nindex" + NOTE, "\nindex " + NOTE, "\nindex 0 " + NOTE, "\nindex 00" + NOTE,
            "\nindex -5" + NOTE, "\nindex +5" + NOTE, "\nindex  5" + NOTE, "\nindex 1_0" + NOTE, "\nindex x" + NOTE,
            "\nindex \u0665" + NOTE, "\nIndex 5" + NOTE, f"\nindex {limits.LOG_ENTRIES + 1}" + NOTE,
            "\nindex 5\nindex 5" + NOTE,
            "\nextra " + B64[0] + NOTE, "\nextra \nindex 0" + NOTE, "\nextra\nindex 0" + NOTE,
            "\nextra ====\nindex 0" + NOTE,
            "\nextra !!notbase64!!\nindex 0" + NOTE, "\nextra AB==\nindex 0" + NOTE, "\nextra AA\nindex 0" + NOTE,
            "\nextra AAAA\nextra AAAA\nindex 0" + NOTE, "\nindex 0\nextra AAAA" + NOTE,
            "\nindex 0\n!!notbase64!!" + NOTE, "\nindex 0\n" + B64[0][:-1] + NOTE,
            "\nindex 0\n" + B64[0] + " " + NOTE,
            "\nindex 0\n" + B64[0] + "\r" + NOTE, "\nindex 0\n" + B64[0][:-2] + "p=" + NOTE,
            "\nindex 0\n" + "A" * 88 + NOTE,
            "\nindex 0\n" + "AAAA" + NOTE, "\nindex 0" + f"\n{B64[0]}" * 64 + NOTE,
            "\nindex 0" + f"\n{B64[0]}" * 4000 + NOTE,
            "\nextra AAAA\nindex 0" + f"\n{B64[0]}" * 64 + NOTE, "\nindex 0\n" + "a" * 65 * 1024 + "\n",
            "\nindex 0\n" + "\u00e9" + NOTE,
            "\nindex 0" + NOTE + "x" * limits.LOG_PROOF,
        )),
    ],
    ids=count(),
)  # fmt: skip
def test_what_is_no_proof_is_refused(text):
    with pytest.raises(RemoteProtocolError, match="^log proof: "):
        LogProof.from_untrusted(text.encode())


@pytest.mark.parametrize("checkpoint", [b"", b"checkpoint\n", b"\n" * 100_000, b"\xff\n\n"])
def test_a_proof_without_a_checkpoint_is_refused(checkpoint):
    """Its text may be that of a proof, until somebody looks."""
    with pytest.raises(RemoteProtocolError, match="^note: "):
        verify_untrusted(LogProof(0, (), checkpoint).to_bytes(), HASHES[0], KEY)


def test_what_no_reader_would_accept_is_not_written():
    for wrong in (
        LogProof(-1, (), b""),
        LogProof(limits.LOG_ENTRIES + 1, (), b""),
        LogProof(0, (b"short",), b""),
        LogProof(0, (HASHES[0],) * 64, b""),
        LogProof(0, (), bytes(limits.LOG_PROOF)),
    ):
        with pytest.raises(UsageError):
            wrong.to_bytes()
    most = LogProof(limits.LOG_ENTRIES, (HASHES[0],) * 63, b"x\n", b"extra")
    assert LogProof.from_untrusted(most.to_bytes()) == most
