"""What a registry's entries and service records look like, and what no encoder of them produces."""

from blocks import MICROS, p256, pack, root, rotated, sha256
from blocks_registry import (
    DAY,
    DEACTIVATE,
    DELAY,
    GUARDIANS,
    RECOVER,
    REGISTER,
    RENEW,
    REVOKE,
    ROTATE,
    SERVICE,
    body,
    entry,
    guardian,
    later,
    log_name,
    next_of,
    signature,
    signatures,
)
from scenarios_good import ACME, SELLER

LAST = sha256(b"the body of the entry before")
SALTS = [bytes([n]) * 16 for n in range(9)]
GUARDS = [root(f"guard-{n}", plain=True) for n in range(3)]
HASHES = sorted(guardian(salt, guard.id) for salt, guard in zip(SALTS, GUARDS, strict=False))
NEXT = next_of("acme's next key")
FIELDS = {
    REGISTER: ("issuer", "certificate", "next", "guardians", "threshold", "delay"), RENEW: ("certificate",),
    ROTATE: ("certificate", "next", "void_from"), REVOKE: (), DEACTIVATE: (),
    RECOVER: ("certificate", "next", "void_from", "revealed"), DELAY: (),
    GUARDIANS: ("guardians", "threshold", "delay"), SERVICE: ("service",),
}  # fmt: skip


def scenarios():
    yield from entries()
    yield from bounds()
    for name, (shows, changed) in malformed():
        yield "entry", name, shows, {"entry": changed}, "malformed"
    yield from service_records()


def entries():
    """subject `entry`: one of every operation, as its parties would make it. Nothing says that a log takes it."""
    second = rotated(ACME, p256("acme's next key"), following="acme's third key", **later())
    found = rotated(ACME, p256("acme found again"), following="and then", recovered_in=log_name(), **later(2))
    revealed = [[guard.id, salt] for salt, guard in zip(SALTS, GUARDS, strict=False)][:2]
    guards = [(guard.id, guard.key) for guard in GUARDS[:2]]
    record = pack(service())
    for name, op, holder, fields, signers in (
        ("register-self-issued", REGISTER, ACME, [None, ACME.der[0], NEXT, HASHES, 2, 604_800], [ACME]),
        ("register-issued", REGISTER, SELLER, [ACME.id, SELLER.der[0], NEXT, [], 0, 3600], [SELLER, ACME]),
        ("renew", RENEW, ACME, [rotated(ACME, ACME.key, next_key=NEXT, **later()).der[0]], [ACME]),
        ("rotate", ROTATE, ACME, [second.der[0], next_of("acme's third key"), None], [second]),
        ("rotate-void-from", ROTATE, ACME, [second.der[0], next_of("acme's third key"), 0], [second]),
        ("revoke", REVOKE, ACME, [], [ACME]),
        ("deactivate", DEACTIVATE, ACME, [], [(ACME.id, second.key, True)]),
        ("recover-guardians", RECOVER, ACME, [found.der[0], next_of("and then"), 2**53, revealed], [found, *guards]),
        ("recover-issuer", RECOVER, SELLER, [SELLER.der[0], NEXT, None, []], [SELLER, ACME]),
        ("delay", DELAY, ACME, [], [ACME]),
        ("guardians", GUARDIANS, ACME, [[], 0, 7_776_000], [(ACME.id, second.key, True)]),
        ("service", SERVICE, SELLER, [record], [SELLER]),
        ("service-taken-back", SERVICE, SELLER, [b""], [SELLER]),
    ):  # fmt: skip
        previous = b"" if op == REGISTER else LAST
        signed = body(op, holder.id, fields, previous=previous)
        made, shown = signatures(signed, signers), dict(zip(FIELDS[op], fields, strict=True))
        expect = what_it_says(signed, op=op, fields=shown, signatures=made, holder=holder, previous=previous)
        yield "entry", name, "an entry and what it says", {"entry": entry(signed, *made)}, expect


def bounds():
    """As much as an entry can have of each thing; nothing says that a log takes it."""
    der, one, many = ACME.der[0], [[ACME.id, b"", bytes(64)]], [sha256(bytes([n])) for n in range(8)]
    for name, op, fields, made in (
        ("certificate-8192", RENEW, [bytes(8192)], one),
        ("guardians-8", GUARDIANS, [sorted(many), 8, 3600], one),
        ("revealed-8", RECOVER, [der, NEXT, None, [[each, bytes(16)] for each in many]], one),
        ("void-from-most", ROTATE, [der, NEXT, 2**63 - 1], one),
        ("signature-4096", REVOKE, [], [[ACME.id, b"", bytes(4096)]]),
        ("signature-of-one", REVOKE, [], [[ACME.id, b"", b"s"]]),
        ("elements-1023", REVOKE, [], one * 255),
    ):
        signed = body(op, ACME.id, fields, previous=LAST)
        shown = dict(zip(FIELDS[op], fields, strict=True))
        expect = what_it_says(signed, op=op, fields=shown, signatures=made)
        yield "entry", name, "up to its bounds", {"entry": entry(signed, *made)}, expect


def what_it_says(signed, *, op, fields, signatures, holder=ACME, previous=LAST):
    """What an entry with this body says."""
    return {
        "op": op, "id": holder.id, "previous": previous, "expires_at": MICROS + DAY, "fields": fields,
        "signatures": signatures, "body_hash": sha256(signed),
    }  # fmt: skip


def made(op=REVOKE, fields=(), **odd):
    """An entry of acme's with one signature, which nobody looks at here."""
    signed = body(op, ACME.id, list(fields), **{"previous": b"" if op == REGISTER else LAST, **odd})
    return entry(signed, signature(signed, ACME.id, ACME.key))


def signed_by(*signatures):
    return entry(body(REVOKE, ACME.id, [], previous=LAST), *signatures)


def malformed():
    """Bytes that no encoder of entries produces, or that are out of its bounds."""
    der, value = ACME.der[0], bytes(64)
    good = body(REVOKE, ACME.id, [], previous=LAST)

    def registered(**odd):
        fields = {
            "issuer": None,
            "certificate": der,
            "next": NEXT,
            "guardians": HASHES,
            "threshold": 2,
            "delay": 3600,
        }
        return made(REGISTER, (fields | odd).values())

    yield from {
        "bad-tag": ("of another format", made(tag="autolink/1 receipt")),
        "bad-tag-of-version-2": ("of another version", made(tag="autolink/2 entry")),
        "bad-not-two": ("an array of two", pack([good, [], None])),
        "bad-body-as-array": ("the body is a byte string", pack([[], []])),
        "bad-body-of-six": ("an array of seven", entry(pack(["autolink/1 entry", "o", 4, ACME.id, LAST, 1]))),
        "bad-long-header": ("the shortest header", b"\xdc\x00\x02" + signed_by()[1:]),
        "bad-long-op": ("the shortest integer", entry(good.replace(b"log\x04", b"log\xcc\x04"))),
        "bad-trailing-byte": ("one value", signed_by() + b"\xc0"),
        "bad-trailing-byte-in-body": ("one value", entry(good + b"\xc0")),
        "bad-origin-empty": ("1 to 255 bytes", made(origin="")),
        "bad-origin-256": ("1 to 255 bytes", made(origin="x" * 256)),
        "bad-origin-as-bytes": ("a string", made(origin=b"log")),
        "bad-op-0": ("of the table", made(0)),
        "bad-op-10": ("of the table", made(10)),
        "bad-op-true": ("no boolean", made(op=True, fields=[None, der, NEXT, [], 0, 3600], previous=b"")),
        "bad-id-31": ("32 bytes", entry(body(REVOKE, bytes(31), [], previous=LAST))),
        "bad-previous-31": ("empty or 32 bytes", made(previous=bytes(31))),
        "bad-previous-none": ("empty exactly in REGISTER", made(previous=b"")),
        "bad-previous-of-register": ("empty exactly in REGISTER", made(
            REGISTER, [None, der, NEXT, [], 0, 3600], previous=LAST)),
        "bad-expires-0": ("at least 1", made(expires=0)),
        "bad-expires-negative": ("a moment", made(expires=-1)),
        "bad-expires-beyond-9999": ("a moment", made(expires=253402300800000000)),
        "bad-expires-as-float": ("an integer", made(expires=1e15)),
        "bad-field-missing": ("the fields of its op", made(RENEW)),
        "bad-field-more": ("the fields of its op", made(fields=[None])),
        "bad-issuer-31": ("an AutoId or nil", registered(issuer=bytes(31))),
        "bad-certificate-as-text": ("DER, in bytes", registered(certificate="der")),
        "bad-certificate-empty": ("1 to 8,192 bytes", registered(certificate=b"")),
        "bad-certificate-8193": ("1 to 8,192 bytes", registered(certificate=bytes(8193))),
        "bad-next-31": ("32 bytes", registered(next=bytes(31))),
        "bad-guardians-9": ("at most 8", registered(guardians=sorted(map(sha256, SALTS)))),
        "bad-guardians-descending": ("ascending", registered(guardians=HASHES[::-1])),
        "bad-guardians-twice": ("ascending", registered(guardians=[HASHES[0], HASHES[0]])),
        "bad-guardians-31": ("hashes", registered(guardians=[bytes(31)], threshold=1)),
        "bad-threshold-0": ("1 to their number", registered(threshold=0)),
        "bad-threshold-4": ("1 to their number", registered(threshold=4)),
        "bad-threshold-of-none": ("0 without any", registered(guardians=[])),
        "bad-delay-3599": ("3,600 to 7,776,000", registered(delay=3599)),
        "bad-delay-7776001": ("3,600 to 7,776,000", registered(delay=7_776_001)),
        "bad-void-from-negative": ("an index or nil", made(ROTATE, [der, NEXT, -1])),
        "bad-void-from-beyond": ("an index or nil", made(ROTATE, [der, NEXT, 2**63])),
        "bad-void-from-false": ("an index or nil", made(ROTATE, [der, NEXT, False])),
        "bad-revealed-salt-15": ("16 bytes of salt", made(RECOVER, [der, NEXT, None, [[ACME.id, bytes(15)]]])),
        "bad-revealed-alone": ("pairs", made(RECOVER, [der, NEXT, None, [[ACME.id]]])),
        "bad-revealed-9": ("at most 8", made(RECOVER, [der, NEXT, None, [[ACME.id, bytes(16)]] * 9])),
        "bad-service-16385": ("at most 16,384 bytes", made(SERVICE, [bytes(16_385)])),
        "bad-signature-of-two": ("an array of three", signed_by([ACME.id, value])),
        "bad-signature-by-31": ("an AutoId", signed_by([bytes(31), b"", value])),
        "bad-signature-as-text": ("bytes", signed_by([ACME.id, b"", "s"])),
        "bad-signature-empty": ("1 to 4,096 bytes", signed_by([ACME.id, b"", b""])),
        "bad-signature-4097": ("1 to 4,096 bytes", signed_by([ACME.id, b"", bytes(4097)])),
        "bad-signature-key-8193": ("at most 8,192 bytes", signed_by([ACME.id, bytes(8193), value])),
        "bad-elements": ("at most 1,024 elements", signed_by(*[[ACME.id, b"", value]] * 256)),
        "bad-too-large": ("at most 49,152 bytes", signed_by(*[[ACME.id, b"", bytes(4096)]] * 12)),
    }.items()  # fmt: skip


def service(**odd):
    schema = {"type": "string"}
    record = {
        "tag": "autolink/1 service", "addresses": ["tea.example:4433", "[2001:db8::1]:4433"],
        "methods": [["order", schema, {}], ["quote", {}, {}]], "channels": [["double", {"type": "integer"}, {}]],
        "valid_until": MICROS + DAY,
    }  # fmt: skip
    return list((record | odd).values())


def service_records():
    """subject `service`: what the field of a SERVICE entry holds."""
    for name, odd in {
        "all": {}, "no-methods": {"methods": [], "channels": []},
        "names": {"methods": [[name, {}, {}] for name in ("a b", "cafe\u0301", "x" * 255, "\u00e9t\u00e9")]},
        "addresses": {"addresses": ["192.0.2.1:1", "my_host:65535", "1.example:1"]},
    }.items():  # fmt: skip
        record = service(**odd)
        said = dict(zip(("addresses", "methods", "channels", "valid_until"), record[1:], strict=True))
        yield "service", name, "where an agent is, and what it offers", {"record": pack(record)}, said
    nothing = [[f"m{n:03}", {}, {}] for n in range(257)]
    for name, odd in {
        "bad-tag": {"tag": "autolink/1 Service"}, "bad-no-address": {"addresses": []},
        "bad-addresses-17": {"addresses": [f"h{n}.example:1" for n in range(17)]},
        "bad-address-twice": {"addresses": ["a.example:1", "a.example:1"]},
        "bad-address-without-port": {"addresses": ["a.example"]},
        "bad-address-port-0": {"addresses": ["a.example:0"]},
        "bad-address-port-65536": {"addresses": ["a.example:65536"]},
        "bad-address-port-01": {"addresses": ["a.example:01"]},
        "bad-address-upper-case": {"addresses": ["A.example:1"]},
        "bad-address-label": {"addresses": ["-a.example:1"]},
        "bad-address-short-ipv4": {"addresses": ["127.1:1"]},
        "bad-address-hexadecimal": {"addresses": ["0x7f.0.0.1:1"]},
        "bad-address-ipv6-long": {"addresses": ["[2001:db8:0::1]:1"]},
        "bad-address-ipv6-bare": {"addresses": ["2001:db8::1:1"]},
        "bad-address-ipv4-octal": {"addresses": ["192.0.2.01:1"]},
        "bad-methods-descending": {"methods": [["b", {}, {}], ["a", {}, {}]]},
        "bad-method-twice": {"methods": [["a", {}, {}], ["a", {}, {}]]},
        "bad-name-twice-as-channel": {"channels": [["quote", {}, {}]]},
        "bad-names-257": {"methods": nothing, "channels": []},
        "bad-name-empty": {"methods": [["", {}, {}]]},
        "bad-name-256": {"methods": [["x" * 256, {}, {}]]},
        "bad-name-with-a-control": {"methods": [["a\n", {}, {}]]},
        "bad-name-with-another-space": {"methods": [["a\u00a0b", {}, {}]]},
        "bad-name-with-a-joiner": {"methods": [["a\u200db", {}, {}]]},
        "bad-name-with-a-filler": {"methods": [["a\u3164", {}, {}]]},
        "bad-name-with-a-selector": {"methods": [["a\ufe0f", {}, {}]]},
        "bad-name-with-an-empty-cell": {"methods": [["a\u2800", {}, {}]]},
        "bad-schema-as-text": {"methods": [["a", "string", {}]]},
        "bad-schema-4097": {"methods": [["a", {"d": "x" * 4091}, {}]]},
        "bad-valid-until-nil": {"valid_until": None}, "bad-valid-until-0": {"valid_until": 0},
        "bad-valid-until-beyond-9999": {"valid_until": 253402300800000000},
    }.items():  # fmt: skip
        yield "service", name, "not a service record", {"record": pack(service(**odd))}, "malformed"
    many = service(methods=[[name, {str(n): 0 for n in range(600)}, {}] for name in "abcd"])
    yield "service", "bad-elements", "at most 4,096 elements", {"record": pack(many)}, "malformed"
