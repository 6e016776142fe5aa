"""What a registry records and signs, by a second implementation of docs/spec.md, sections 20 to 24, alone.

It makes entries as a holder, judges as a stranger what a log says (checkpoints, proofs, receipts, changes, statuses), and
reads service records. Nothing of autolink is imported here.
"""

import base64
import binascii
import ipaddress
import itertools
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.interop.second_certificates import (
    SKEW,
    YEAR_10000,
    Refused,
    claimed_id,
    decode,
    encode,
    need,
    sha,
    spki_of,
)
from tests.interop.second_formats import root_from

REGISTER, RENEW, ROTATE, REVOKE, DEACTIVATE, RECOVER, DELAY, GUARDIANS, SERVICE = range(1, 10)
FIELDS = {
    REGISTER: ("issuer", "certificate", "next", "guardians", "threshold", "delay"), RENEW: ("certificate",),
    ROTATE: ("certificate", "next", "void_from"), REVOKE: (), DEACTIVATE: (),
    RECOVER: ("certificate", "next", "void_from", "revealed"), DELAY: (),
    GUARDIANS: ("guardians", "threshold", "delay"), SERVICE: ("service",),
}  # fmt: skip
STATES = ("active", "revoked", "recovering", "deactivated")
DAY = 24 * 3600 * 10**6


def is_hash(value):
    return type(value) is bytes and len(value) == 32


def is_count(value, bound=2**63):
    return type(value) is int and 0 <= value < bound


def is_moment(value):
    return is_count(value, YEAR_10000)


# Entries


class Entry(NamedTuple):
    """`fields` by name; `signatures` as `[by, key, value]`."""

    origin: str
    op: int
    id: bytes
    previous: bytes
    expires_at: int
    fields: dict
    signatures: list
    body: bytes


def guardian_hash(salt, id_):
    return sha(b"autolink/1 guardian\0" + salt + id_)


def signed_bytes(body, by, spki):
    return b"autolink/1 entry-signature\0" + by + sha(spki) + sha(body)


def make_entry(origin, op, id_, previous, expires_at, fields, *signers):
    """Each signer is an AutoId, its key, and whether it shows it."""
    body, signatures = encode(["autolink/1 entry", origin, op, id_, previous, expires_at, fields]), []
    for by, key, shown in signers:
        spki = spki_of(key.public_key())
        value = key.sign(signed_bytes(body, by, spki), ec.ECDSA(hashes.SHA256()))
        signatures.append([by, spki if shown else b"", value])
    return encode([body, signatures])


def parse_entry(data):
    """Refuses with `malformed` what no encoder produces."""
    need(len(data) <= 49152, "malformed", "size")
    outer = decode(data, 1024)
    need(
        type(outer) is list and len(outer) == 2 and type(outer[0]) is bytes, "malformed", "an entry is a pair"
    )
    body, signatures = outer
    inner = decode(body, 1024)
    need(type(inner) is list and len(inner) == 7 and inner[0] == "autolink/1 entry", "malformed", "body")
    _, origin, op, id_, previous, expires_at, values = inner
    need(type(origin) is str and 1 <= len(origin.encode()) <= 255, "malformed", "origin")
    need(type(op) is int and op in FIELDS and is_hash(id_), "malformed", "op or id")
    need(previous == b"" if op == REGISTER else is_hash(previous), "malformed", "previous")
    need(is_moment(expires_at) and expires_at, "malformed", "expires_at")
    need(type(values) is list and len(values) == len(FIELDS[op]), "malformed", "fields")
    fields = dict(zip(FIELDS[op], values, strict=True))
    _check_fields(fields)
    need(type(signatures) is list, "malformed", "signatures")
    for each in signatures:
        need(type(each) is list and len(each) == 3 and is_hash(each[0]), "malformed", "a signature")
        need(type(each[1]) is type(each[2]) is bytes, "malformed", "a signature")
    return Entry(origin, op, id_, previous, expires_at, fields, signatures, body)


def _check_fields(fields):
    for name, value in fields.items():
        need(CHECKS[name](value), "malformed", name)
    if "threshold" in fields:
        low, high = min(1, len(fields["guardians"])), len(fields["guardians"])
        need(low <= fields["threshold"] <= high, "malformed", "threshold")


def _ascending(hashes):
    in_order = all(one < other for one, other in itertools.pairwise(hashes))
    return len(hashes) <= 8 and all(map(is_hash, hashes)) and in_order


def _is_reveal(pair):
    return (
        type(pair) is list
        and len(pair) == 2
        and is_hash(pair[0])
        and type(pair[1]) is bytes
        and len(pair[1]) == 16
    )


CHECKS = {
    "issuer": lambda value: value is None or is_hash(value),
    "certificate": lambda value: type(value) is bytes,
    "next": is_hash,
    "guardians": lambda value: type(value) is list and _ascending(value),
    "threshold": is_count,
    "delay": lambda value: is_count(value) and 3600 <= value <= 7776000,
    "void_from": lambda value: value is None or is_count(value),
    "revealed": lambda value: type(value) is list and all(map(_is_reveal, value)),
    "service": lambda value: type(value) is bytes and len(value) <= 16384,
}


# What a log says


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
    mine = []
    for line in signatures[:-1].split("\n"):
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014" and parts[1], "malformed", "signature line")
        value = _base64(parts[2])
        mine += [value[4:]] if parts[1] == log.origin and value[:4] == key_id else []
    need(len(mine) == 1, "tampered", "not signed by the log")
    log.verify(mine[0], text.encode() + b"\n")
    return text


def open_checkpoint(data, log):
    """(size, root)."""
    lines = open_note(data, log).split("\n")
    need(len(lines) >= 3 and all(lines), "malformed", "checkpoint")
    need(lines[0] == log.origin, "tampered", "another log")
    size, root = _number(lines[1]), _base64(lines[2])
    need(is_hash(root), "malformed", "root")
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
    need(all(map(is_hash, path)), "malformed", "path")
    try:
        shown = index < size and root_from(leaf_hash, index, size, path) == root
    except Refused:  # a path of another length
        shown = False
    need(shown, "tampered", "not in the log")
    return index, size, root


def check_consistency(sizes, roots, path):
    """RFC 9162, section 2.1.4.2: the larger tree has only grown from the smaller one."""
    first, second = sizes
    need(0 < first <= second, "tampered", "sizes")
    if first == second:
        return need(not path and roots[0] == roots[1], "tampered", "the same size")
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


WORDS = {
    "receipt": {"entry": is_hash, "received_at": is_moment, "deadline": is_moment},
    "change": {
        "id": is_hash, "op": lambda op: op in (ROTATE, REVOKE, DEACTIVATE, RECOVER), "state": STATES.__contains__,
        "index": is_count, "at": is_moment,
    },
    "status": {
        "id": is_hash, "state": STATES.__contains__, "because": is_hash, "certificate": is_hash, "key": is_hash,
        "issuers": lambda value: type(value) is list and all(map(is_hash, value)), "entries": is_count,
        "head": is_hash, "at": is_moment, "expires_at": is_moment,
    },
}  # fmt: skip


def open_word(purpose, data, log):
    """The fields of a receipt or a change; of a status, those of its body, with its `proof`."""
    value = decode(data)
    checks, size = WORDS[purpose], 3 if purpose == "status" else 2
    need(type(value) is list and len(value) == size and {*map(type, value)} == {bytes}, "malformed", "shape")
    body = decode(value[0])
    need(type(body) is list and body[:1] == [f"autolink/1 {purpose}"], "malformed", "tag")
    need(len(body) == 2 + len(checks) and len(value[1]) == 64, "malformed", "fields or signature")
    fields = dict(zip(checks, body[2:], strict=True))
    for name, check in checks.items():
        need(check(fields[name]), "malformed", name)
    need(body[1] == log.origin, "tampered", "another log")
    log.verify(value[1], f"autolink/1 {purpose}\0".encode() + value[0])
    return fields | ({"proof": value[2]} if size == 3 else {})


def open_receipt(data, log, entry):
    """The fields of a receipt that promises something to who has submitted this entry."""
    promised = open_word("receipt", data, log)
    need(promised["entry"] == sha(entry.body), "tampered", "another entry")
    need(promised["received_at"] <= entry.expires_at, "tampered", "the entry had expired")
    need(promised["deadline"] <= promised["received_at"] + 7 * DAY, "tampered", "due too late")
    return promised


def open_status(data, log):
    """A status that the log has signed and proves, with the `index` and `size` of its proof."""
    fields = open_word("status", data, log)
    index, size, _ = open_proof(fields.pop("proof"), fields["head"], log)
    return fields | {"index": index, "size": size}


def judge_status(data, chain, log, at, max_age, seen=(), changes=()):
    """What the log says of a chain (certificates, the holder's first), to one who has seen other words of it."""
    body = decode(decode(data)[0])
    need(body[1] == log.origin, "not_vouched", "a status of another log")
    try:
        said = open_status(data, log)
    except Refused as refused:
        raise Refused("malformed", *refused.args) from refused
    need(said["id"] == claimed_id(chain[0]), "impostor", "another ID")
    keys = [sha(spki_of(each.public_key())) for each in chain]
    need([said["key"], *said["issuers"]] == keys, "impostor", "another key on record")
    need(
        said["certificate"] == chain[0].fingerprint(hashes.SHA256()),
        "expired",
        "another certificate on record",
    )
    for before in (open_status(each, log) for each in seen):
        older = said["entries"] < before["entries"] or said["size"] < before["size"]
        need(not older or _word(said) == _word(before), "malformed", "older than what was seen")
    need(said["at"] <= at + SKEW, "not_yet_valid")
    until = said["expires_at"] if max_age is None else said["at"] + max_age
    need(at <= min(until, said["at"] + 7 * DAY), "expired")
    ids = {claimed_id(each) for each in chain}
    for change in (open_word("change", each, log) for each in changes):
        need(change["id"] not in ids or change["index"] < said["size"], "revoked", "changed since")
    need(said["state"] == "active", "revoked", said["state"])
    return said


def _word(said):
    return [said[name] for name in ("state", "certificate", "key", "issuers", "entries")]


# Service records


def open_service(record):
    """What a SERVICE entry says, by name."""
    need(0 < len(record) <= 16384, "malformed", "size")
    value = decode(record, 4096)
    need(type(value) is list and len(value) == 5 and value[0] == "autolink/1 service", "malformed", "shape")
    fields = dict(zip(("addresses", "methods", "channels", "valid_until"), value[1:], strict=True))
    addresses, offered = fields["addresses"], [fields["methods"], fields["channels"]]
    need(type(addresses) is list and 1 <= len(addresses) <= 16, "malformed", "addresses")
    need(all(type(each) is str and _is_address(each) for each in addresses), "malformed", "an address")
    need(len({*addresses}) == len(addresses), "malformed", "an address twice")
    for each in offered:
        need(type(each) is list and all(map(_is_offer, each)), "malformed", "methods or channels")
        names = [name.encode() for name, _, _ in each]
        need(names == sorted(names), "malformed", "order")
    names = [name for each in offered for name, _, _ in each]
    need(len({*names}) == len(names) <= 256, "malformed", "names")
    need(is_moment(fields["valid_until"]) and fields["valid_until"], "malformed", "valid_until")
    return fields


def _is_offer(offer):
    if not (type(offer) is list and len(offer) == 3 and type(offer[0]) is str):
        return False
    schemas = all(type(each) is dict and len(encode(each)) <= 4096 for each in offer[1:])
    return 1 <= len(offer[0].encode()) <= 255 and offer[0].isprintable() and schemas


def _is_address(address):
    host, _, port = address.rpartition(":")
    if not re.fullmatch("[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        return False
    labels = host.split(".")
    try:
        if host.startswith("["):
            return host == f"[{ipaddress.IPv6Address(host[1:-1])}]"
        if labels[-1][:1].isdigit():
            return host == str(ipaddress.IPv4Address(host))
    except ValueError:
        return False
    return len(host) <= 253 and all(
        re.fullmatch("(?!-)[a-z0-9_-]{1,63}(?<!-)", each, re.ASCII) for each in labels
    )
