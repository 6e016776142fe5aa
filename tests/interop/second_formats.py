"""Messages, batches and Envelopes of a second implementation of autolink/1, from docs/spec.md alone: nothing of autolink is
imported here.

What is received is judged as strictly as the specification says, but for the profile of certificates (second_certificates).
"""

import os
import struct
from collections import deque
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.second_certificates import (
    SKEW,
    YEAR_10000,
    Refused,
    certificate_of,
    claimed_id,
    decode,
    encode,
    judge,
    need,
    now,
    sha,
)

CALL, REPLY, ERROR, OPEN, ITEM, END, SUBSCRIBE, PUBLISH, CHUNK, FORWARD = range(1, 11)
FLAGS = {
    CALL: 3,
    REPLY: 2,
    ERROR: 2,
    OPEN: 1,
    ITEM: 0,
    END: 2,
    SUBSCRIBE: 3,
    PUBLISH: 0,
    CHUNK: 0,
    FORWARD: 3,
}
LEAF = 1310720
NO_LINK = bytes(32)


# Messages


class Message(NamedTuple):
    """Times are microseconds since 1970."""

    id: bytes
    seq: int
    author: bytes
    recipient: bytes | str
    sent_at: int
    expires_at: int
    kind: int
    channel: int
    method: str
    timeout: int
    headers: dict
    body: bytes

    @property
    def value(self):
        return decode(self.body)

    def leaf(self):
        return encode(list(self))


def new_message(author, recipient, kind, seq=0, channel=0, method="", value=None):
    at = now()
    body = encode(value)
    return Message(os.urandom(16), seq, author, recipient, at, at + SKEW, kind, channel, method, 0, {}, body)


def check_data(body, data):
    """Of a chunk: section "Byte streams"."""
    need(type(body) is list and len(body) == (4 if data else 5), "malformed", "chunk")
    if data:
        need(type(body[2]) is int and type(body[3]) is bytes and len(body[3]) == 32, "malformed", "chunk")
        need(len(data) <= 393_216, "malformed", "chunk")
        need(body[2:] == [len(data), content_root(data)], "untrusted", "data")


def content_root(content):
    return root_of([content[at : at + 65_536] for at in range(0, len(content), 65_536)])


def message_of(leaf):
    need(len(leaf) <= LEAF, "malformed", "size of the leaf")
    fields = decode(leaf)
    need(type(fields) is list and len(fields) == 12, "malformed", "a message is an array of twelve")
    message = Message(*fields)
    types = (bytes, int, bytes, (bytes, str), int, int, int, int, str, int, dict, bytes)
    for name, value, wanted in zip(Message._fields, message, types, strict=True):
        need(isinstance(value, wanted) and type(value) is not bool, "malformed", name)
    bounds = [(message.seq, 2**63), (message.channel, 2**31)]
    bounds += [(each, YEAR_10000) for each in (message.sent_at, message.expires_at, message.timeout)]
    need(all(0 <= value < bound for value, bound in bounds), "malformed", "an integer")
    need(
        len(message.id) == 16 and len(message.author) == 32 and message.kind in FLAGS,
        "malformed",
        "id, author, kind",
    )
    need(message.sent_at < message.expires_at, "malformed", "times")
    _check_recipient(message.recipient)
    need(len(message.method.encode()) <= 255, "malformed", "method")
    texts = [*message.headers, *message.headers.values()]
    need(all(type(each) is str for each in texts), "malformed", "headers")
    need(len(texts) <= 64 and sum(len(each.encode()) for each in texts) <= 8192, "malformed", "headers")
    need(message.kind == FORWARD or len(message.body) <= 1048576, "malformed", "body")
    return message


def _check_recipient(recipient):
    if isinstance(recipient, bytes):
        return need(len(recipient) == 32, "malformed", "recipient")
    head, _, name = recipient.partition("/")
    digits = head.removeprefix("topic:")
    lower_hex = len(digits) == 64 and set(digits) <= set("0123456789abcdef")
    return need(
        head.startswith("topic:") and lower_hex and 1 <= len(name.encode()) <= 255, "malformed", "topic"
    )


# Batches and Envelopes


def root_of(leaves):
    if len(leaves) < 2:
        return sha(b"\0" + leaves[0] if leaves else b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:]))


def path_of(leaves, index):
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_of(leaves[:split], index), root_of(leaves[split:])]
    return [*path_of(leaves[split:], index - split), root_of(leaves[:split])]


def root_from(node, index, count, path):
    """RFC 9162, section 2.1.3.2, from the leaf's hash up; refuses a path of another length."""
    last, path = count - 1, deque(path)
    while last:
        if index % 2 or index < last:
            need(path, "malformed", "path too short")
            other = path.popleft()
            node = sha(b"\1" + (other + node if index % 2 else node + other))
        index, last = index >> 1, last >> 1
    need(not path, "malformed", "path too long")
    return node


def preimage(certificate, link, role, number, count, root):
    return b"autolink/1 batch\0" + sha(certificate) + link + role + struct.pack(">QI", number, count) + root


def sign(party, *signed):
    return party.key.sign(preimage(party.der[0], *signed), ec.ECDSA(hashes.SHA256()))


def verify(certificate, signature, *signed):
    key = certificate.public_key()
    need(isinstance(key, ec.EllipticCurvePublicKey), "malformed", "only P-256 here")
    data = preimage(certificate.public_bytes(Encoding.DER), *signed)
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refused("tampered", "signature") from error


def make_envelope(chain, leaves, index, link, role, number, signature, evidence=()):
    place = [leaves[index], index, len(leaves), path_of(leaves, index)]
    return encode(["autolink/1 envelope", *place, link, role, number, signature, chain, list(evidence)])


def _parse_envelope(data):
    need(len(data) <= LEAF, "malformed", "size")
    fields = decode(data)
    need(
        type(fields) is list and len(fields) == 11 and fields[0] == "autolink/1 envelope",
        "malformed",
        "shape",
    )
    _, index, count, path, link, role, number, signature, chain, evidence = fields[1:]
    types = (bytes, int, int, list, bytes, bytes, int, bytes, list, list)
    need(
        all(type(value) is wanted for value, wanted in zip(fields[1:], types, strict=True)),
        "malformed",
        "types",
    )
    need(all(type(each) is bytes for each in [*path, *chain, *evidence]), "malformed", "types")
    need(
        0 <= index < count <= 65536 and 0 <= number < 2**64 and 1 <= len(signature) <= 4096,
        "malformed",
        "bounds",
    )
    need(len(link) == 32 and role in (b"d", b"l", b"e") and 1 <= len(chain) <= 4, "malformed", "bounds")
    need(all(len(each) == 32 for each in path) and sum(map(len, chain)) <= 65536, "malformed", "bounds")
    need(len(evidence) <= 8 and sum(map(len, evidence)) <= 49152, "malformed", "evidence")
    need(role != b"e" or (link, number, count) == (NO_LINK, 0, 1), "malformed", "signed for no link")
    return fields[1:]


def open_envelope(data, anchor, at, recipient=None):
    """The message in an Envelope, judged in the specification's order; without a recipient only who said it."""
    leaf, index, count, path, link, role, number, signature, chain, evidence = _parse_envelope(data)
    tree = root_from(sha(b"\0" + leaf), index, count, path)
    message, first = message_of(leaf), certificate_of(chain[0])
    need(claimed_id(first) == message.author, "impostor", "author")
    verify(first, signature, link, role, number, count, tree)
    if recipient is not None:
        need(message.recipient == recipient, "wrong_recipient")
        need(at <= message.expires_at + SKEW, "late")
    need(message.sent_at <= at + SKEW, "not_yet_valid")
    need(message.expires_at - message.sent_at <= 24 * 3600 * 10**6, "malformed", "life")
    judged = judge([certificate_of(each) for each in chain], at, anchor, evidence)
    need(judged == message.author, "impostor", "author")
    return message
