"""What a registry's log is to a stranger: checkpoints, proofs that a leaf is in it, and that it has only grown."""

import base64

from blocks import leaf_hash, sha256, tree
from blocks_registry import ELSEWHERE, LOG, LOG_KEY, ORIGIN, OTHER, checkpoint, consistency, note, proof

LEAVES = [b"leaf %d" % n for n in range(7)]
MALFORMED, TAMPERED = "malformed", "tampered"


def scenarios():
    yield from checkpoints()
    yield from proofs()
    yield from consistencies()


def checkpoints():
    """subject `checkpoint`."""
    good = checkpoint(LEAVES)
    text, signatures = good.rsplit("\n\n", 1)
    witness = signatures.replace(ORIGIN, "witness.example")
    false = note(text + "\nsomething else\n").rsplit("\n\n", 1)[1]
    for name, made in {
        "good": good, "cosigned": good + witness, "empty-log": checkpoint([]), "signed-twice": good + signatures,
        "signatures-100": good + witness * 99, "extension-lines": note(text + "\nof some application\n"),
        "extension-lines-16": note(text + "\nof some application" * 16 + "\n"),
    }.items():  # fmt: skip
        leaves = [] if name == "empty-log" else LEAVES
        yield "checkpoint", name, "what the log signs of its tree", LOG | {"note": made.encode()}, {
            "size": len(leaves), "root": tree(leaves),
        }  # fmt: skip
    for name, made in {
        "bad-signature": good.replace(f"\n{len(LEAVES)}\n", f"\n{len(LEAVES) + 1}\n"),
        "bad-other-key": checkpoint(LEAVES, key=OTHER),
        "bad-other-key-under-this-id": note(text + "\n", key=OTHER, shown=LOG_KEY),
        "bad-other-origin": checkpoint(LEAVES, origin=ELSEWHERE),
        "bad-second-signature": good + false, "bad-cosigned-alone": f"{text}\n\n{witness}",
    }.items():  # fmt: skip
        yield "checkpoint", name, "not this log's", LOG | {"note": made.encode()}, TAMPERED
    for name, made in {
        "bad-unsigned": text + "\n\n", "bad-leading-zero": note(f"{ORIGIN}\n07\n{text.split(chr(10))[2]}\n"),
        "bad-short-root": note(f"{ORIGIN}\n7\nAAAA\n"), "bad-two-lines": note(f"{ORIGIN}\n7\n"),
        "bad-crlf": note(text.replace("\n", "\r\n") + "\r\n"), "bad-signatures-101": good + witness * 100,
        "bad-extension-lines-17": note(text + "\nof some application" * 17 + "\n"),
        "bad-empty-log": note(f"{ORIGIN}\n0\n{base64.b64encode(tree(LEAVES)).decode()}\n"),
    }.items():  # fmt: skip
        yield "checkpoint", name, "no checkpoint", LOG | {"note": made.encode()}, MALFORMED


def proofs():
    """subject `proof`: that a leaf is in the log."""
    for name, count, index in (
        ("first-of-one", 1, 0), ("first-of-seven", 7, 0), ("fifth-of-seven", 7, 4), ("last-of-seven", 7, 6),
    ):  # fmt: skip
        some = LEAVES[:count]
        given = LOG | {"proof": proof(some, index), "leaf": some[index]}
        yield (
            "proof",
            name,
            "inclusion, by RFC 9162",
            given,
            {"index": index, "size": count, "root": tree(some)},
        )
    extra = LOG | {"proof": proof(LEAVES, 4, extra="extra AAAA\n"), "leaf": LEAVES[4]}
    yield "proof", "extra", "data of an application", extra, {"index": 4, "size": 7, "root": tree(LEAVES)}
    path = [leaf_hash(LEAVES[5]), leaf_hash(LEAVES[4])]
    good = proof(LEAVES, 4)
    for name, made in {
        "bad-leaf": proof(LEAVES, 5), "bad-index": proof(LEAVES, 4, shown=5), "bad-index-beyond": proof(LEAVES, 4, shown=7),
        "bad-path": proof(LEAVES, 4, hashes=path), "bad-path-longer": proof(LEAVES, 6, hashes=[*path, *path]),
        "bad-path-none": proof(LEAVES, 4, hashes=[]), "bad-checkpoint": proof(LEAVES, 4, signed=checkpoint(LEAVES[:6])),
        "bad-log": proof(LEAVES, 4, signed=checkpoint(LEAVES, key=OTHER)),
    }.items():  # fmt: skip
        yield "proof", name, "no proof of this leaf", LOG | {"proof": made, "leaf": LEAVES[4]}, TAMPERED
    for name, made in {
        "bad-index-leading-zero": proof(LEAVES, 4, shown="04"), "bad-version": good.replace(b"@v1", b"@v2"),
        "bad-path-short-hash": proof(LEAVES, 4, hashes=[b"short"]), "bad-extra-empty": proof(LEAVES, 4, extra="extra \n"),
        "bad-base64": good.replace(b"=\n", b"\n", 1), "bad-cut-short": good[:200], "bad-empty": b"",
    }.items():  # fmt: skip
        yield "proof", name, "no proof", LOG | {"proof": made, "leaf": LEAVES[4]}, MALFORMED


def consistencies():
    """subject `consistency`: that the log has only grown."""
    for first in (1, 3, 4, 6, 7):
        given = {
            "sizes": [first, 7],
            "roots": [tree(LEAVES[:first]), tree(LEAVES)],
            "path": consistency(LEAVES, first),
        }
        yield "consistency", f"{first}-of-7", "by RFC 9162, section 2.1.4", given, {}
    empty = {"sizes": [0, 7], "roots": [sha256(b""), tree(LEAVES)], "path": []}
    same = {"sizes": [7, 7], "roots": [tree(LEAVES), tree(LEAVES)], "path": []}
    yield "consistency", "0-of-7", "from the empty tree without a path", empty, {}
    good = {"sizes": [3, 7], "roots": [tree(LEAVES[:3]), tree(LEAVES)], "path": consistency(LEAVES, 3)}
    for name, odd in {
        "bad-path-empty": {"path": []}, "bad-path-longer": {"path": [*good["path"], bytes(32)]},
        "bad-path-shorter": {"path": good["path"][:-1]}, "bad-other-order": {"path": good["path"][::-1]},
        "bad-first-root": {"roots": [tree(LEAVES[1:4]), tree(LEAVES)]},
        "bad-second-root": {"roots": [tree(LEAVES[:3]), tree(LEAVES[:6])]},
        "bad-smaller": {"sizes": [7, 3], "roots": good["roots"][::-1]},
    }.items():  # fmt: skip
        yield "consistency", name, "a log that has changed what it said", good | odd, TAMPERED
    for name, odd in {
        "bad-empty-path": empty | {"path": [tree(LEAVES)]}, "bad-same-size-path": same | {"path": [tree(LEAVES)]},
        "bad-empty-root": empty | {"roots": [bytes(32), tree(LEAVES)]},
        "bad-same-size-root": same | {"roots": [bytes(32), tree(LEAVES)]},
    }.items():  # fmt: skip
        yield "consistency", name, "where no path is needed", odd, TAMPERED
