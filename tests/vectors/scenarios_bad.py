"""Scenarios that every implementation must refuse, each with the class of failure."""

import struct
from datetime import timedelta

from blocks import (
    MICROS,
    NOW,
    SECOND,
    envelope,
    issued,
    leaf_fields,
    p256,
    pack,
    root,
    rotated,
    rotations,
    sha256,
    sign,
    spki,
    uri,
)  # fmt: skip
from cryptography.x509.name import _ASN1Type
from scenarios_good import ACME, BOB, GLOBEX, LINK, SELLER

MALFORMED, TAMPERED, IMPOSTOR, LATE = "malformed", "tampered", "impostor", "late"


def scenarios():
    yield from values()
    yield from names()
    for name, (shows, changed, refuse, how) in envelopes():
        given = {
            "envelope": changed if isinstance(changed, bytes) else pack(list(changed.values())),
            "trust": how.get("trust", {"issued_by": ACME.der[0]}), "at": how.get("at", MICROS),
            "recipient": how.get("recipient", BOB.id),
        }  # fmt: skip
        yield "envelope", name, shows, given, refuse


def values():
    """subject `value`."""
    for name, encoded in {
        "empty": "", "trailing": "c0c0", "cut-short": "92c0", "not-utf8": "a2c328", "surrogate": "a3eda080",
        "reserved-c1": "c1", "long-integer": "cc01", "long-negative": "d0ff", "float-32": "ca3f800000",
        "long-string-header": "d90161", "long-bytes-header": "c5000100", "long-array-header": "dc0001c0",
        "long-map-header": "de0001a161c0", "key-twice": "82a16101a16102", "integer-key": "8101c0",
        "bytes-key": "81c40161c0", "nil-key": "81c0c0", "array-key": "8190c0",
        "one-true-and-1.0-as-keys": "8301c0c3c0cb3ff0000000000000c0", "unknown-extension": "d40100",
        "timestamp-of-5-bytes": "c705ff0000000000",
        "timestamp-64-for-32": "d7ff" + struct.pack(">Q", 5).hex(),
        "timestamp-finer-than-a-microsecond": "d7ff" + struct.pack(">Q", (1_001 << 34) | 5).hex(),
        "timestamp-beyond-the-calendar": "c70cff" + struct.pack(">Iq", 0, 2**62).hex(),
        "four-billion-elements": "ddffffffff",
    }.items():  # fmt: skip
        yield (
            "value",
            f"bad-{name}",
            "not what an encoder produces",
            {"bytes": bytes.fromhex(encoded)},
            MALFORMED,
        )
    yield "value", "bad-depth-33", "nested deeper than 32", {"bytes": b"\x91" * 33 + b"\xc0"}, MALFORMED
    many = b"\xdd" + (65_536).to_bytes(4, "big") + b"\xc0" * 65_536
    yield "value", "bad-65537-elements", "one element beyond the budget", {"bytes": many}, MALFORMED


def names():
    """subject `name`: common names that no certificate may carry."""
    for name, (cn, is_issued) in {
        "empty": ("", True), "nul": ("a\0b", True), "escape": ("\x1b[2J", True), "bidi": ("a\u202eb", True),
        "zero-width": ("a\u200bb", True), "unassigned": ("\U000e0fff", True), "of-unicode-15": ("a\U00011f02", True),
        "not-nfc": ("e\u0301", True), "no-break-space": ("a\u00a0b", True), "issued-65-bytes": ("x" * 65, True),
        "plain-33-bytes": ("x" * 33, False), "plain-33-bytes-of-utf8": ("\u00e9" * 16 + "x", False),
        "plain-with-tilde": ("a~b", False), "label-upper-case": (f"Acme~{'a' * 26}", False),
        "label-33": (f"{'a' * 33}~{'a' * 26}", False), "suffix-25": (f"acme~{'a' * 25}", False),
        "suffix-alphabet": (f"acme~{'a' * 25}1", False), "no-label": (f"~{'a' * 26}", False),
    }.items():  # fmt: skip
        yield "name", name, "not a common name", {"common_name": cn, "issued": is_issued}, MALFORMED
    for name, (cn, is_issued) in {
        "issued-with-tilde": ("a~b", True), "issued-64-bytes": ("x" * 64, True), "plain-32-bytes": ("x" * 32, False),
        "space": ("Test 1", False), "bound-form": (f"acme~{'a' * 26}", False),
    }.items():  # fmt: skip
        yield "name", f"good-{name}", "a common name", {"common_name": cn, "issued": is_issued}, {}


def alone(signer=SELLER, *, leaf=None, **odd):
    """A correctly signed Envelope whose leaf may be anything."""
    return envelope(
        signer,
        [pack(leaf_fields(**{"author": signer.id, "recipient": BOB.id, **odd})) if leaf is None else leaf],
    )


def raw_leaf(*replaced):
    """A leaf with some of its encoded elements replaced by raw bytes."""
    parts = [pack(field) for field in leaf_fields(SELLER.id, BOB.id)]
    for place, encoded in replaced:
        parts[place] = encoded
    return b"\x9c" + b"".join(parts)


def flip(data, bit=0):
    changed = bytearray(data)
    changed[-1 - bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def envelopes():
    for group in (shapes, leaves, signatures, chains, rotated_roots, judgements):
        yield from group().items()


def shapes():
    """Refused before anything is verified. Every one of them carries a good signature."""
    good = alone()
    batch = [pack(leaf_fields(SELLER.id, BOB.id, number=n)) for n in range(11)]
    linked = envelope(SELLER, batch, 8, role=b"d", link=LINK, number=7)
    plain = pack(list(good.values()))
    cases = {
        "empty": b"", "cut-short": plain[:-1], "trailing-byte": plain + b"\xc0", "not-an-array": pack({"a": 1}),
        "ten-elements": pack(list(good.values())[:-1]), "twelve-elements": pack([*good.values(), None]),
        "long-array-header": b"\xdc\x00\x0b" + plain[1:],
        "other-tag": good | {"tag": "autolink/2 envelope"},
        "leaf-is-text": good | {"leaf": "leaf"}, "leaf-is-nil": good | {"leaf": None},
        "index-is-false": good | {"index": False}, "count-is-true": good | {"count": True},
        "count-is-a-float": good | {"count": 1.0}, "number-is-negative": linked | {"number": -1},
        "index-beyond-count": linked | {"index": 11}, "index-negative": linked | {"index": -1},
        "count-zero": good | {"count": 0}, "count-beyond-65536": linked | {"count": 65_537},
        "path-too-short": linked | {"path": linked["path"][:-1]},
        "path-too-long": linked | {"path": [*linked["path"], bytes(32)]},
        "path-of-seventeen": linked | {"count": 65_536, "path": [bytes(32)] * 17},
        "path-hash-of-31-bytes": linked | {"path": [linked["path"][0][:31], *linked["path"][1:]]},
        "path-is-a-map": linked | {"path": {}},
        "path-holds-text": linked | {"path": ["x" * 32] * len(linked["path"])},
        "role-unknown": good | {"role": b"x"}, "role-empty": good | {"role": b""},
        "role-is-text": good | {"role": "e"},
        "alone-on-a-link": good | {"link": LINK}, "alone-with-a-number": good | {"number": 1},
        "alone-with-neighbours": envelope(SELLER, batch, 8),
        "link-of-31-bytes": linked | {"link": LINK[:31]},
        "signature-empty": good | {"signature": b""}, "signature-of-4097-bytes": good | {"signature": bytes(4097)},
        "chain-empty": good | {"chain": []}, "chain-of-junk": good | {"chain": [b"junk"]},
        "chain-too-large": good | {"chain": [*good["chain"], bytes(65_536)]},
        "evidence-of-nine": good | {"evidence": [b""] * 9},
        "evidence-too-large": good | {"evidence": [bytes(49_153)]},
        "evidence-is-text": good | {"evidence": ["x"]},
    }  # fmt: skip
    return {
        f"shape-{name}": ("the shape of an Envelope", changed, MALFORMED, {})
        for name, changed in cases.items()
    }


def leaves():
    """Correctly signed leaves that no message is."""
    hexa = SELLER.id.hex()
    cases = {
        "not-an-array": alone(leaf=pack("tea")),
        "eleven-fields": alone(leaf=pack(leaf_fields(SELLER.id, BOB.id)[:-1])),
        "thirteen-fields": alone(leaf=pack([*leaf_fields(SELLER.id, BOB.id), None])),
        "trailing-byte": alone(leaf=raw_leaf() + b"\xc0"),
        "long-array-header": alone(leaf=b"\xdc\x00\x0c" + raw_leaf()[1:]),
        "long-integer": alone(leaf=raw_leaf((1, b"\xcc\x00"))),
        "long-text-header": alone(leaf=raw_leaf((8, b"\xd9\x05quote"))),
        "header-key-twice": alone(leaf=raw_leaf((10, b"\x82\xa1a\xa1b\xa1a\xa1c"))),
        "id-of-15-bytes": alone(id=bytes(15)), "seq-negative": alone(seq=-1), "seq-2-63": alone(seq=2**63),
        "seq-true": alone(seq=True), "author-of-31-bytes": alone(author=SELLER.id[:31]),
        "author-as-text": alone(author=hexa),
        "recipient-of-33-bytes": alone(recipient=bytes(33)), "recipient-as-hex": alone(recipient=hexa),
        "topic-without-name": alone(recipient=f"topic:{hexa}/"),
        "topic-upper-case": alone(recipient=f"topic:{hexa.upper()}/a"),
        "topic-63-digits": alone(recipient=f"topic:{hexa[1:]}/a"),
        "topic-name-of-256-bytes": alone(recipient=f"topic:{hexa}/{'x' * 256}"),
        "times-equal": alone(expires_at=MICROS), "times-negative": alone(sent_at=-1),
        "times-beyond-9999": alone(expires_at=253402300800000000), "times-float": alone(sent_at=1.0),
        "kind-0": alone(kind=0), "kind-11": alone(kind=11), "kind-true": alone(kind=True),
        "channel-2-31": alone(channel=2**31), "channel-negative": alone(channel=-1),
        "method-of-256-bytes": alone(method="x" * 256), "method-as-bytes": alone(method=b"quote"),
        "timeout-negative": alone(timeout=-1),
        "headers-33": alone(headers={str(n): "" for n in range(33)}),
        "headers-8193-bytes": alone(headers={"a": "x" * 8192}),
        "headers-value-integer": alone(headers={"a": 1}), "headers-is-nil": alone(headers=None),
        "body-as-text": alone(body="tea"), "life-beyond-24-hours": alone(life=86_400 * SECOND + 1),
    }  # fmt: skip
    return {
        f"leaf-{name}": ("a signed leaf that is no message", made, MALFORMED, {})
        for name, made in cases.items()
    }


def signatures():
    """Well-formed, and not what was signed."""
    good = alone()
    batch = [pack(leaf_fields(SELLER.id, BOB.id, number=n)) for n in range(11)]
    linked = envelope(SELLER, batch, 8, role=b"d", link=LINK, number=7)
    siblings = linked["path"]
    renewed = issued(ACME, "seller", key=SELLER.key, end=NOW + timedelta(days=50))
    stranger = p256("a stranger")
    cases = {
        "leaf-changed": good | {"leaf": flip(good["leaf"])},
        "leaf-of-a-neighbour": linked | {"leaf": batch[9]},
        "path-bit": linked | {"path": [flip(siblings[0]), *siblings[1:]]},
        "path-swapped": linked | {"path": [siblings[1], siblings[0], *siblings[2:]]},
        "signature-bit": good | {"signature": flip(good["signature"])},
        "signature-junk": good | {"signature": b"\x00"},
        "signature-trailing-byte": good | {"signature": good["signature"] + b"\x00"},
        "signature-by-another-key": good | {"signature": sign(stranger, b"anything")},
        "index-of-a-neighbour": linked | {"index": 9, "path": linked["path"]},
        "count-wrong": linked | {"count": 12},
        "second-place-that-the-path-fits": linked | {"index": 4, "count": 7},
        "role-swapped": linked | {"role": b"l"},
        "other-link": linked | {"link": sha256(b"another link")},
        "number-wrong": linked | {"number": 8},
        "second-certificate-of-the-same-key": good | {"chain": renewed.der},
        "other-purpose": envelope(SELLER, [good["leaf"]], purpose=b"autolink/1 other\0"),
        "no-purpose": envelope(SELLER, [good["leaf"]], purpose=b""),
        "from-a-link-as-if-alone": envelope(SELLER, [good["leaf"]], role=b"d") | {"role": b"e"},
    }
    cases = {name: ("the signature does not cover this", made, TAMPERED, {}) for name, made in cases.items()}
    cases["author-is-another"] = (
        "signed under a certificate with another Auto ID", envelope(SELLER, [pack(leaf_fields(BOB.id, BOB.id))]),
        IMPOSTOR, {},
    )  # fmt: skip
    cases["author-is-the-issuer"] = (
        "an agent is not its organisation", envelope(SELLER, [pack(leaf_fields(ACME.id, BOB.id))]), IMPOSTOR, {},
    )  # fmt: skip
    cases["chain-upside-down"] = (
        "the signer's certificate comes first",
        good | {"chain": SELLER.der[::-1]},
        IMPOSTOR,
        {},
    )
    return {f"signed-{name}": case for name, case in cases.items()}


def chains():
    """Correctly signed by a chain that is not sound in itself."""
    team = issued(ACME, "team", place="issuer", path_length=0, kind="organization")
    group = issued(ACME, "group", place="issuer", path_length=2, kind="organization")
    desk = issued(group, "desk", place="issuer", path_length=1, kind="organization")
    seat = issued(desk, "seat", place="issuer", path_length=0, kind="organization")
    deep = issued(team, "deep", place="issuer", path_length=0, kind="organization")
    two = [uri(issued(ACME, "odd").id), uri(ACME.id)]
    lasting = root("acme", end=NOW + timedelta(days=2000))
    plain = root("plain", plain=True)
    twofold = root("plain", plain=True, issuer_string=_ASN1Type.PrintableString)
    hijacked = root(
        "acme", key=p256("a thief"), name=ACME.name, next_key=sha256(spki(p256("acme's next key")))
    )
    cases = {
        "of-five": (MALFORMED, issued(seat, "clerk")),
        "below-a-path-length-of-0": (MALFORMED, issued(deep, "clerk")),
        "leaf-that-issues": (MALFORMED, issued(SELLER, "clerk")),
        "leaf-is-a-ca": (MALFORMED, issued(ACME, "odd", ca=True)),
        "leaf-is-an-issuer": (MALFORMED, issued(ACME, "odd", place="issuer", digital_signature=True)),
        "leaf-without-purposes": (MALFORMED, issued(ACME, "odd", purposes=False)),
        "leaf-that-may-not-sign": (MALFORMED, issued(ACME, "odd", digital_signature=False)),
        "leaf-outlives-its-issuer": (MALFORMED, issued(ACME, "odd", end=NOW + timedelta(days=101))),
        "leaf-for-826-days": (MALFORMED, issued(lasting, "odd", end=NOW + timedelta(days=825, seconds=1))),
        "two-uris": (MALFORMED, issued(ACME, "odd", uris=two)),
        "issuer-in-another-string-type": (MALFORMED, issued(plain, "odd", issuer_string=_ASN1Type.PrintableString)),
        "root-in-two-string-types": (MALFORMED, issued(twofold, "odd")),
        "expired": ("expired", issued(ACME, "odd", end=NOW - timedelta(seconds=1))),
        "not-yet-valid": ("not_yet_valid", issued(ACME, "odd", begin=NOW + timedelta(seconds=1))),
        "bound-to-another-key": (IMPOSTOR, hijacked),
    }  # fmt: skip
    made = {
        f"chain-{name}": ("a chain that is not sound in itself", alone(holder), refuse, {})
        for name, (refuse, holder) in cases.items()
    }
    odd = issued(ACME, "odd", uris=[uri(BOB.id)])
    odd.id = BOB.id
    made["chain-id-not-of-its-name-path"] = (
        "the URI claims an id that the names do not give",
        alone(odd),
        MALFORMED,
        {},
    )
    good = alone()
    made["chain-with-junk"] = (
        "a certificate that is not on the path", good | {"chain": [*SELLER.der, *GLOBEX.der]}, MALFORMED, {},
    )  # fmt: skip
    made["chain-leaf-twice"] = (
        "a certificate that is not on the path", good | {"chain": [SELLER.der[0], *SELLER.der]}, MALFORMED, {},
    )  # fmt: skip
    forged = flip(SELLER.der[1])
    made["chain-root-signature-bit"] = (
        "a root that its own key did not sign", good | {"chain": [SELLER.der[0], forged]}, MALFORMED, {},
    )  # fmt: skip
    return made


def rotated_roots():
    """A root over acme's second or third key, and no way there, or a wrong one."""
    second = rotated(ACME, p256("acme's next key"), following="acme's third key")
    third = rotated(ACME, p256("acme's third key"))
    thief = p256("a thief")
    forged = rotated(ACME, p256("acme's next key"), following="a thief", signer=thief)
    own = rotated(ACME, thief)
    other = root("acme", key=p256("another first key"))
    mute = rotated(ACME, p256("acme's next key"), next_key=None)
    renamed = rotated(ACME, p256("acme's next key"), following="acme's third key", name="mallory")
    changed = rotations(ACME, second)
    rest = [certificate.der[0] for certificate in (ACME, second)]
    cases = {
        "nothing-shown": (IMPOSTOR, third, []),
        "unknown-evidence": (IMPOSTOR, third, [b"of a kind that nobody knows"]),
        "step-missing": (IMPOSTOR, third, [rotations(ACME)]),
        "first-missing": (IMPOSTOR, third, [rotations(second)]),
        "other-order": (IMPOSTOR, third, [rotations(second, ACME)]),
        "root-among-them": (IMPOSTOR, third, [rotations(ACME, second, third)]),
        "of-somebody-else": (IMPOSTOR, third, [rotations(other)]),
        "empty": (IMPOSTOR, third, [rotations()]),
        "thirty-three": (IMPOSTOR, third, [rotations(ACME, *[second] * 32)]),
        "step-signed-by-a-thief": (IMPOSTOR, own, [rotations(ACME, forged)]),
        "step-that-commits-to-nothing": (IMPOSTOR, third, [rotations(ACME, mute)]),
        "step-under-another-name": (IMPOSTOR, third, [rotations(ACME, renamed)]),
        "step-signature-bit": (IMPOSTOR, third, [pack(["autolink/1 rotations", [rest[0], flip(rest[1])]])]),
        "first-item-counts": (IMPOSTOR, third, [rotations(ACME), changed]),
        "below-it-nothing-shown": (IMPOSTOR, issued(second, "clerk"), []),
        "trailing-byte": (MALFORMED, third, [changed + b"\xc0"]),
        "cut-short": (MALFORMED, third, [changed[:-1]]),
        "junk": (MALFORMED, third, [pack(["autolink/1 rotations", [b"junk"]])]),
        "text": (MALFORMED, third, [pack(["autolink/1 rotations", ["junk"]])]),
        "no-array": (MALFORMED, third, [pack(["autolink/1 rotations", rest[0]])]),
        "long-header": (MALFORMED, third, [changed.replace(b"\x92\xc5", b"\xdc\x00\x02\xc5", 1)]),
    }  # fmt: skip
    return {
        f"rotated-{name}": (
            "no such way leads to the root's key", alone(holder) | {"evidence": evidence}, refuse, {},
        )
        for name, (refuse, holder, evidence) in cases.items()
    }  # fmt: skip


def judgements():
    """Sound, and not to be taken here, now, or from this one."""
    good = alone()
    cases = {
        "wrong-recipient": ("for somebody else", good, "wrong_recipient", {"recipient": ACME.id}),
        "wrong-recipient-topic": (
            "for its owner, shown to a subscriber", good, "wrong_recipient", {"recipient": f"topic:{BOB.id.hex()}/a"},
        ),
        "late": ("expired by more than the skew", good, LATE, {"at": MICROS + 120 * SECOND + 1}),
        "not-yet": ("signed more than the skew after `at`", good, "not_yet_valid", {"at": MICROS - 60 * SECOND - 1}),
        "not-yet-only-asked-who": (
            "also for who acts on nothing", good, "not_yet_valid",
            {"at": MICROS - 60 * SECOND - 1, "recipient": None},
        ),
        "stranger": (
            "under another organisation's anchor", good, "unknown_issuer", {"trust": {"issued_by": GLOBEX.der[0]}},
        ),
        "chain-incomplete": (
            "a chain that stops before its root has no author", good | {"chain": SELLER.der[:1]}, "unknown_issuer", {},
        ),
    }  # fmt: skip
    other = root("initech", key=p256("an impostor"), plain=True)
    first = root("initech", plain=True)
    cases["impostor-of-a-plain-name"] = (
        "the pinned name under another key", alone(other), IMPOSTOR, {"trust": {"pinned": first.der[0]}},
    )  # fmt: skip
    cases["impostor-of-a-plain-organisation"] = (
        "the anchor's name under another key", alone(issued(other, "seller")), IMPOSTOR,
        {"trust": {"issued_by": first.der[0]}},
    )  # fmt: skip
    cases["plain-name-is-not-self-certified"] = (
        "anybody may take a plain name", alone(first), "not_vouched", {"trust": {"self_certified": first.der[0]}},
    )  # fmt: skip
    return {f"judged-{name}": case for name, case in cases.items()}
