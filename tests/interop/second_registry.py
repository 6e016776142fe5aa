"""What a registry records and signs, by a second implementation of docs/spec.md, sections 20, 23 and 24, alone.

It makes entries as a holder, and judges as a stranger what a log says: receipts, changes, statuses. Nothing of autolink
is imported here.
"""

import itertools
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

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
from tests.interop.second_tlog import open_proof

REGISTER, RENEW, ROTATE, REVOKE, DEACTIVATE, RECOVER, DELAY, GUARDIANS, SERVICE = range(1, 10)
FIELDS = {
    REGISTER: ("issuer", "certificate", "next", "guardians", "threshold", "delay"), RENEW: ("certificate",),
    ROTATE: ("certificate", "next", "void_from"), REVOKE: (), DEACTIVATE: (),
    RECOVER: ("certificate", "next", "void_from", "revealed"), DELAY: (),
    GUARDIANS: ("guardians", "threshold", "delay"), SERVICE: ("service",),
}  # fmt: skip
STATES = ("active", "revoked", "recovering", "deactivated")
DAY = 24 * 3600 * 10**6
ROTATION_GRACE = 10 * 10**6
INCLUSION = 60 * 10**6


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
        need(len(each[1]) <= 8192 and 1 <= len(each[2]) <= 4096, "malformed", "a signature")
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
    "certificate": lambda value: type(value) is bytes and 1 <= len(value) <= 8192,
    "next": is_hash,
    "guardians": lambda value: type(value) is list and _ascending(value),
    "threshold": is_count,
    "delay": lambda value: is_count(value) and 3600 <= value <= 7776000,
    "void_from": lambda value: value is None or is_count(value),
    "revealed": lambda value: type(value) is list and len(value) <= 8 and all(map(_is_reveal, value)),
    "service": lambda value: type(value) is bytes and len(value) <= 16384,
}


# What a log says


WORDS = {
    "receipt": {"entry": is_hash, "received_at": is_moment, "deadline": is_moment},
    "change": {
        "id": is_hash, "op": lambda op: op in (ROTATE, REVOKE, DEACTIVATE, RECOVER), "state": STATES.__contains__,
        "index": is_count, "at": is_moment,
    },
    "status": {
        "id": is_hash, "state": STATES.__contains__, "because": is_hash, "certificate": is_hash, "key": is_hash,
        "issuers": lambda value: type(value) is list and len(value) <= 3 and all(map(is_hash, value)), "entries": is_count,
        "head": is_hash, "at": is_moment, "expires_at": is_moment,
    },
}  # fmt: skip


def open_word(purpose, data, log):
    """The fields of a receipt or a change; of a status, those of its body, with its `proof`."""
    checks, size = WORDS[purpose], 3 if purpose == "status" else 2
    need(len(data) <= (8192 if purpose == "status" else 1024), "malformed", "size")
    value = decode(data)
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


def open_receipt(data, log, entry, at):
    """The fields of a receipt that promises something to who has submitted this entry, and to whom it came at that time."""
    promised = open_word("receipt", data, log)
    need(promised["entry"] == sha(entry.body), "tampered", "another entry")
    need(promised["received_at"] <= entry.expires_at, "tampered", "the entry had expired")
    need(
        0 <= promised["deadline"] - promised["received_at"] <= INCLUSION,
        "tampered",
        "due too late, or before",
    )
    need(promised["received_at"] <= at + SKEW, "tampered", "of a time to come")
    need(at <= promised["deadline"], "tampered", "over")
    return promised


def open_status(data, log):
    """A status that the log has signed and proves, with the `index` and `size` of its proof."""
    fields = open_word("status", data, log)
    index, size, _ = open_proof(fields.pop("proof"), fields["head"], log)
    return fields | {"index": index, "size": size}


def judge_status(data, chain, log, at, max_age, seen=(), changes=(), forgotten=()):
    """What the log says of a chain (certificates, the holder's first), to one who has seen other words of it.

    `changes` are those that it knows of, `forgotten` those that it has heard of and forgotten before their time.
    """
    told = [open_word("change", each, log) for each in changes]
    ids = {claimed_id(each) for each in chain}
    told = [change for change in told if change["id"] in ids]
    if decode(decode(data)[0])[1] != log.origin:
        ended = any(change["state"] != "active" for change in told)
        raise Refused("revoked" if ended else "not_vouched", "a status of another log")
    said = _status_of(data, chain, log)
    for before in _those_of(chain, seen, log):
        older = said["entries"] < before["entries"] or said["size"] < before["size"]
        fewer = said["entries"] < before["entries"] and said["size"] < before["size"]
        as_many = said["entries"] == before["entries"]
        same = _word(said) == _word(before) and (fewer or as_many)
        need(not older or same, "malformed", "older than what was seen")
    need(said["at"] <= at + SKEW, "not_yet_valid")
    until = said["expires_at"] if max_age is None else said["at"] + max_age
    need(at <= min(until, said["at"] + 7 * DAY), "expired")
    for change in (open_word("change", each, log) for each in forgotten):
        need(change["index"] < said["size"], "expired", "from before a change that is forgotten")
    since = [change for change in told if change["index"] >= said["size"]]
    for change in since:
        gone_on = change["id"] != said["id"] and change["op"] == ROTATE and change["state"] == "active"
        need(gone_on, "revoked", "changed since")
    need(all(at <= change["at"] + ROTATION_GRACE for change in since), "expired", "rotated since")
    need(said["state"] == "active", "revoked", said["state"])
    return said


def _status_of(data, chain, log):
    """The fields of a status of this chain and no other."""
    try:
        said = open_status(data, log)
    except Refused as refused:
        raise Refused("malformed", *refused.args) from refused
    need(said["id"] == claimed_id(chain[0]), "impostor", "another ID")
    keys = [sha(spki_of(each.public_key())) for each in chain]
    need([said["key"], *said["issuers"]] == keys, "impostor", "another key on record")
    own = chain[0].fingerprint(hashes.SHA256())
    need(said["certificate"] == own, "expired", "another certificate on record")
    return said


def _those_of(chain, seen, log):
    for each in seen:
        try:
            yield _status_of(each, chain, log)
        except Refused:  # not of this chain, which shows it in vain
            continue


def _word(said):
    return [said[name] for name in ("state", "certificate", "key", "issuers")]


def judged_again(shown, log):
    """For each `[chain, status]`, one after the other: whether what was accepted on those before it is judged again."""
    newest = None
    for chain, data in shown:
        said = _status_of(data, chain, log)
        older = newest and (said["entries"] < newest["entries"] or said["size"] < newest["size"])
        standing = [[each[name] for name in ("state", "key", "issuers")] for each in (said, newest or said)]
        yield not older and standing[0] != standing[1]
        newest = newest if older else said
