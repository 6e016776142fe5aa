"""Scenarios that show how things are made: values, identifiers, certificates, trees, leaves, batches, Envelopes."""

import struct

from blocks import (
    MICROS,
    NOW,
    ORDER,
    SECOND,
    auto_id,
    ed,
    envelope,
    issued,
    leaf_fields,
    leaf_hash,
    p256,
    pack,
    path,
    preimage,
    root,
    rotated,
    rotations,
    sha256,
    sign,
    sign_x509,
    spki,
    suffix,
    tree,
    uri,
)  # fmt: skip
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ACME, GLOBEX = root("acme"), root("globex")
SELLER = issued(ACME, "seller")
BOB = issued(GLOBEX, "bob")
LINK = sha256(b"a link")


def scenarios():
    for subject in (
        values,
        identifiers,
        certificates,
        requests,
        trees,
        leaves,
        batches,
        envelopes,
    ):
        yield from subject()


def values():
    """subject `value`: bytes and the value they are, in tagged JSON."""
    good = {
        "nil": (None, None),
        "true": (True, True),
        "integers": (
            [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -32, -33, -128, -129, -(2**63)],
            [{"int": str(n)} for n in
             (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -32, -33, -128, -129, -(2**63))],
        ),
        "floats": (
            [1.0, -0.0, 0.1, float("inf")],
            [{"float": struct.pack(">d", x)} for x in (1.0, -0.0, 0.1, float("inf"))],
        ),
        "text": (["", "x" * 31, "x" * 32, "caf\u00e9"], ["", "x" * 31, "x" * 32, "caf\u00e9"]),
        "bytes": ([b"", bytes(256)], [{"bytes": b""}, {"bytes": bytes(256)}]),
        "map-order-is-kept": ({"b": [], "a": {}}, {"map": [["b", []], ["a", {"map": []}]]}),
        "time": (
            [NOW, NOW.replace(microsecond=1), NOW.replace(year=1960), NOW.replace(year=2600)],
            [{"time": str(micros(t))} for t in
             (NOW, NOW.replace(microsecond=1), NOW.replace(year=1960), NOW.replace(year=2600))],
        ),
        "depth-32": (nested(32), nested(32)),
    }  # fmt: skip
    for name, (value, shown) in good.items():
        yield (
            "value",
            name,
            "these bytes are this value, and no others are",
            {"bytes": pack(value)},
            {"value": shown},
        )


def nested(depth):
    return [nested(depth - 1)] if depth else None


def micros(time):
    return round((time - NOW).total_seconds()) * SECOND + time.microsecond - NOW.microsecond + MICROS


def identifiers():
    """subjects `autoid` and `bound`."""
    paths = {
        "self-issued": ["Test"],
        "issued": ["Test", "child"],
        "three-names": ["issuer", "Test", "GrandChild"],
        "not-ascii": ["caf\u00e9", "\u6f22\u5b57"],
        "longest": ["x" * 32, "y" * 64],
    }
    for name, names in paths.items():
        ids, last = [], b""
        for common_name in names:
            last = auto_id(common_name, last)
            ids.append(last)
        shows = "BLAKE2b-256 over the raw name, below an issuer over its id and the name"
        yield "autoid", name, shows, {"names": names}, {"ids": ids, "uris": [uri(i) for i in ids]}
    for label in ("acme", "a", "0-9", "x" * 32):
        first, following = spki(p256(label)), sha256(spki(p256(f"{label}'s next key")))
        name = f"{label}~{suffix(first, following)}"
        given = {"label": label, "spki": first, "next_key_hash": following}
        yield (
            "bound",
            f"label-{label}",
            "the name commits to both keys",
            given,
            {"name": name, "id": auto_id(name)},
        )


def certificates():
    """subject `certificate`: DER and what it says; in the profile, but nobody's signature is checked."""
    team = issued(ACME, "team", place="issuer", path_length=0, kind="organization")
    plain = root("initech", plain=True)
    edwards = root("edwards", key=ed("edwards"))
    for name, holder in {
        "root-bound": ACME, "root-plain": plain, "root-ed25519": edwards, "issuer": team, "leaf": SELLER,
        "leaf-below-issuer": issued(team, "clerk", kind="model"),
    }.items():  # fmt: skip
        made = holder.chain[0]
        following = [e.value.value[2:] for e in made.extensions if e.oid.dotted_string.endswith(".2")]
        kinds = [e.value.value[2:].decode() for e in made.extensions if e.oid.dotted_string.endswith(".1")]
        said = {
            "common_name": holder.name, "auto_id": holder.id, "kind": kinds[0],
            "next_key_hash": following[0] if following else None, "recovered_in": None,
            "fingerprint": sha256(holder.der[0]), "spki_sha256": sha256(spki(holder.key)),
        }  # fmt: skip
        yield "certificate", name, "what a certificate of the profile says", {"der": holder.der[0]}, said


def requests():
    """subject `request`: PKCS#10."""

    def request(*extensions):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "seller")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return sign_x509(builder, p256("a request")).public_bytes(Encoding.DER)

    said = {"name": "seller", "spki": spki(p256("a request"))}
    yield "request", "plain", "a name and a key", {"der": request()}, said
    shows = "whatever a request asks for beyond name and key is ignored"
    asked = request(
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri(ACME.id))]),
    )
    yield "request", "asks-to-be-a-ca-with-another-id", shows, {"der": asked}, said
    forged = bytearray(request())
    forged[-1] ^= 1
    yield "request", "bad-signature", "no proof that the key is held", {"der": bytes(forged)}, "malformed"


def trees():
    """subject `merkle`: the leaves that certificate transparency's own tests use."""
    data = [
        b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", bytes(range(0x40, 0x44)), bytes(range(0x50, 0x58)),
        bytes(range(0x60, 0x70)),
    ]  # fmt: skip
    for size in range(len(data) + 1):
        chosen = data[:size]
        expect = {"root": tree(chosen), "paths": [path(chosen, index) for index in range(size)]}
        yield (
            "merkle",
            f"size-{size}",
            "root and every inclusion path (RFC 9162, section 2.1)",
            {"leaves": chosen},
            expect,
        )
    many = [bytes([n]) for n in range(256)]
    expect = {"root": tree(many), "paths": [path(many, index) for index in range(256)]}
    yield "merkle", "size-256", "the largest batch", {"leaves": many}, expect


NAMES = [
    "id",
    "seq",
    "author",
    "recipient",
    "sent_at",
    "expires_at",
    "kind",
    "channel",
    "method",
    "timeout",
    "headers",
    "body",
]


def leaves():
    """subject `message`: a leaf, its fields and its hash."""
    topic = f"topic:{SELLER.id.hex()}/prices"
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    for name, fields in {
        "call": leaf_fields(SELLER.id, BOB.id, timeout=2 * SECOND, channel=1),
        "publication": leaf_fields(SELLER.id, topic, kind=8),
        "headers": leaf_fields(SELLER.id, BOB.id, headers=trace),
        "extremes": leaf_fields(
            SELLER.id, f"topic:{SELLER.id.hex()}/{'x' * 255}", sent=0, expires_at=253402300799999999, seq=2**63 - 1,
            channel=2**31 - 1, method="\u00e9" * 127, timeout=253402300799999999, kind=10,
            headers={str(n): "" for n in range(32)}, body=b"",
        ),
    }.items():  # fmt: skip
        leaf = pack(fields)
        shown = dict(zip(NAMES, fields, strict=True))
        yield (
            "message",
            name,
            "a leaf is this array",
            {"leaf": leaf},
            {"fields": shown, "leaf_hash": leaf_hash(leaf)},
        )


def batches():
    """subject `batch`: what is signed."""
    for name, signer, role, count, number in (
        ("one", SELLER, b"d", 1, 0), ("five", SELLER, b"l", 5, 2**40),
        ("ed25519", root("edwards", key=ed("edwards")), b"d", 3, 1),
    ):  # fmt: skip
        data = [pack(leaf_fields(signer.id, BOB.id, number=n)) for n in range(count)]
        signed = preimage(signer.der[0], LINK, role, number, count, tree(data))
        given = {
            "certificate": signer.der[0],
            "link": LINK,
            "role": role.decode(),
            "number": number,
            "leaves": data,
        }
        expect = {"preimage": signed, "signature": sign(signer.key, signed)}
        yield "batch", name, "the signed bytes, and a signature that verifies", given, expect


def good_envelope(holder, encoded, *, shows, recipient=None, at=MICROS, trust="issued_by"):
    """subject `envelope`, accepted."""
    given = {
        "envelope": pack(list(encoded.values())), "trust": {trust: holder.der[-1]}, "at": at, "recipient": recipient,
    }  # fmt: skip
    leaf = encoded["leaf"]
    return shows, given, {"author": holder.id, "leaf_hash": leaf_hash(leaf)}


def envelopes():
    alone = envelope(SELLER, [pack(leaf_fields(SELLER.id, BOB.id))])
    batch = [pack(leaf_fields(SELLER.id, BOB.id, number=n)) for n in range(11)]
    linked = envelope(SELLER, batch, 8, role=b"d", link=LINK, number=7)
    r, s = der_integers(alone["signature"])
    team = issued(ACME, "team", place="issuer", path_length=1, kind="organization")
    desk = issued(team, "desk", place="issuer", path_length=0, kind="organization")
    clerk = issued(desk, "clerk")
    other = issued(ACME, "team", place="issuer", kind="organization", digital_signature=True, crl_sign=True)
    below = issued(other, "clerk")
    topic = f"topic:{SELLER.id.hex()}/prices"
    day, late = 86_400 * SECOND, MICROS + 3600 * SECOND
    plain = root("initech", plain=True)
    edwards = root("edwards", key=ed("edwards"))
    for name, made in {
        "alone": good_envelope(SELLER, alone, shows="signed outside any link, for its recipient", recipient=BOB.id),
        "from-a-batch": good_envelope(SELLER, linked, shows="leaf 8 of 11 of a batch on a link", recipient=BOB.id),
        "publication": good_envelope(
            SELLER, envelope(SELLER, [pack(leaf_fields(SELLER.id, topic, kind=8))]),
            shows="for a topic's subscribers",
            recipient=topic,
        ),
        "self-issued-author": good_envelope(
            ACME, envelope(ACME, [pack(leaf_fields(ACME.id, BOB.id))]), shows="a chain of one, bound",
            recipient=BOB.id,
            trust="self_certified",
        ),
        "plain-root": good_envelope(
            plain, envelope(plain, [pack(leaf_fields(plain.id, BOB.id))]), shows="a plain name needs a pin",
            trust="pinned",
        ),
        "ed25519": good_envelope(
            edwards, envelope(edwards, [pack(leaf_fields(edwards.id, BOB.id))]),
            shows="the scheme follows from the key",
            trust="self_certified",
        ),
        "chain-of-four": good_envelope(
            clerk, envelope(clerk, [pack(leaf_fields(clerk.id, BOB.id))]), shows="the longest chain", recipient=BOB.id
        ),
        "below-an-issuer-of-many-uses": good_envelope(
            below, envelope(below, [pack(leaf_fields(below.id, BOB.id))]), shows="an issuer's further uses", recipient=BOB.id
        ),
        "high-s": good_envelope(
            SELLER, alone | {"signature": der_signature(r, ORDER - s)},
            shows="ECDSA's second signature verifies too: signature bytes identify nothing", recipient=BOB.id,
        ),
        "expired-but-only-asked-who": good_envelope(
            SELLER, alone, shows="who acts on nothing may ask about an expired message", at=late
        ),
        "longest-life": good_envelope(
            SELLER, envelope(SELLER, [pack(leaf_fields(SELLER.id, BOB.id, life=day))]), shows="24 hours",
            recipient=BOB.id
        ),
        "skew-both-ways-late": good_envelope(
            SELLER, alone, shows="60 s after its expiry", recipient=BOB.id, at=MICROS + 120 * SECOND
        ),
        "skew-both-ways-early": good_envelope(
            SELLER, alone, shows="60 s before its signing", recipient=BOB.id, at=MICROS - 60 * SECOND
        ),
        **rotated_envelopes(),
        "unread-evidence": good_envelope(
            SELLER, alone | {"evidence": [b"of a kind that nobody knows"]}, shows="unknown evidence proves nothing",
        ),
    }.items():  # fmt: skip
        yield "envelope", name, *made


def rotated_envelopes():
    """acme went on to its second key, and then to its third."""
    second = rotated(ACME, p256("acme's next key"), following="acme's third key")
    third = rotated(ACME, p256("acme's third key"))
    clerk = issued(second, "clerk")
    made = {}
    for name, holder, way, trust, shows in (
        ("rotated-once", second, [ACME], "self_certified", "the second key, by the first one's commitment"),
        ("below-a-rotated-root", clerk, [ACME], "issued_by", "a bound anchor is its name, whichever key it holds now"),
        ("below-a-root-rotated-twice", issued(third, "clerk"), [ACME, second], "issued_by", "each step signed itself"),
    ):  # fmt: skip
        signed = envelope(holder, [pack(leaf_fields(holder.id, BOB.id))])
        three = b"\x93" + rotations(*way)[1:]  # an array of three is of another kind
        signed["evidence"] = [b"of a kind that nobody knows", three, rotations(*way)]
        shown, given, expect = good_envelope(holder, signed, shows=shows, recipient=BOB.id)
        given["trust"] = {trust: ACME.der[0]}
        made[name] = shown, given, expect
    return made


def der_integers(signature):
    size = signature[3]
    r, rest = signature[4 : 4 + size], signature[4 + size :]
    return int.from_bytes(r), int.from_bytes(rest[2:])


def der_signature(*numbers):
    parts = b"".join(
        b"\x02" + bytes([len(raw)]) + raw
        for raw in (number.to_bytes(number.bit_length() // 8 + 1) for number in numbers)
    )
    return b"\x30" + bytes([len(parts)]) + parts
