"""What a registry's log is, by a second implementation of docs/spec.md, section 22, alone: its notes and its proofs.

Nothing of autolink is imported here.
"""

import base64
import binascii
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.interop.second_certificates import Refused, need, sha
from tests.interop.second_formats import root_from


class Log(NamedTuple):
    """A log by its name and the 32 bytes of its Ed25519 key, as in the verifier key of C2SP's signed-note."""

    origin: str
    key: bytes

    @classmethod
    def of(cls, verifier_key):
        origin, _, key = verifier_key.split("+", 2)
        return cls(origin, base64.b64decode(key)[1:])

    @property
    def name(self):
        """The digest that stands for it in certificates and in an authority: of its SPKI."""
        return sha(bytes.fromhex("302a300506032b6570032100") + self.key)

    def verify(self, signature, data):
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, data)
        except InvalidSignature as error:
            raise Refused("tampered", "signature of the log") from error


def _base64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused("malformed", "base64") from error
    need(base64.b64encode(data).decode() == text, "malformed", "base64")
    return data


def _number(text):
    need(re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII), "malformed", "number")
    return int(text)


def open_note(data, log):
    """The text of a signed note that the log has signed; other signatures mean nothing here."""
    need(len(data) <= 131072, "malformed", "size")
    try:
        text, _, signatures = data.decode().rpartition("\n\n")
    except UnicodeDecodeError as error:
        raise Refused("malformed", "note") from error
    need(
        text and signatures.endswith("\n") and not re.search("[\x00-\x09\x0b-\x1f]", text),
        "malformed",
        "note",
    )
    key_id = sha(log.origin.encode() + b"\n\x01" + log.key)[:4]
    mine, lines = [], signatures[:-1].split("\n")
    need(len(lines) <= 100, "malformed", "signatures")
    for line in lines:
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014" and parts[1], "malformed", "signature line")
        value = _base64(parts[2])
        mine += [value[4:]] if parts[1] == log.origin and value[:4] == key_id else []
    need(mine, "tampered", "not signed by the log")
    for signature in mine:
        log.verify(signature, text.encode() + b"\n")
    return text


def open_checkpoint(data, log):
    """(size, root)."""
    lines = open_note(data, log).split("\n")
    need(3 <= len(lines) <= 19 and all(lines), "malformed", "checkpoint")
    need(lines[0] == log.origin, "tampered", "another log")
    size, root = _number(lines[1]), _base64(lines[2])
    need(len(root) == 32 and (size or root == sha(b"")), "malformed", "root")
    return size, root


def open_proof(data, leaf_hash, log):
    """(index, size, root) of a C2SP tlog-proof of this leaf."""
    try:
        head, _, checkpoint = data.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise Refused("malformed", "proof") from error
    tag, *lines = head.split("\n")
    need(tag == "c2sp.org/tlog-proof@v1" and lines, "malformed", "proof")
    if lines[0].startswith("extra "):
        need(_base64(lines.pop(0).removeprefix("extra ")), "malformed", "no extra data")
    need(lines and lines[0].startswith("index "), "malformed", "index")
    index, path = _number(lines[0].removeprefix("index ")), [_base64(line) for line in lines[1:]]
    size, root = open_checkpoint(checkpoint.encode(), log)
    need(all(len(each) == 32 for each in path), "malformed", "path")
    try:
        shown = index < size and root_from(leaf_hash, index, size, path) == root
    except Refused:  # a path of another length
        shown = False
    need(shown, "tampered", "not in the log")
    return index, size, root


def check_consistency(sizes, roots, path):
    """RFC 9162, section 2.1.4.2: the larger tree has only grown from the smaller one."""
    first, second = sizes
    need(0 <= first <= second, "tampered", "sizes")
    if first in (0, second):
        same = roots[0] == (roots[1] if first else sha(b""))
        return need(not path and same, "tampered", "the same size, or from nothing")
    rest = [roots[0], *path] if first & (first - 1) == 0 else list(path)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    need(rest, "tampered", "path too short")
    old = new = rest.pop(0)
    for other in rest:
        need(last, "tampered", "path too long")
        if node & 1 or node == last:
            old, new = sha(b"\1" + other + old), sha(b"\1" + other + new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = sha(b"\1" + new + other)
        node, last = node >> 1, last >> 1
    return need(last == 0 and [old, new] == list(roots), "tampered", "it has changed")
