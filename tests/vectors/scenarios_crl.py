"""An issuer's own revocation list, judged against its certificate on record by a log of 7 entries."""

from datetime import timedelta

from blocks import MICROS, NOW, SECOND, p256, root, sign, sign_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from scenarios_good import ACME

ISSUER = root("acme", crl_sign=True)
NUMBER = (7 << 32) + MICROS // SECOND
SHA_256 = bytes.fromhex("300a06082a8648ce3d040302")
SHA_384 = bytes.fromhex("300a06082a8648ce3d040303")
MALFORMED, EXPIRED = "malformed", "expired"


def scenarios():
    """subject `crl`."""
    for name, serials, made in (("empty", [], listed()), ("one", [4711], listed(revoked().build()))):
        expect = {"size": 7, "this_update": MICROS, "serial_numbers": serials}
        yield "crl", name, "whom the issuer has issued and no longer stands by", given(made), expect
    ahead, past = NOW + timedelta(seconds=60), NOW - timedelta(days=31)
    older = listed(begin=NOW - timedelta(days=1), number=(3 << 32) + MICROS // SECOND - 86_400)
    for name, shows, made, size, begin in (
        ("of-the-log-before", "made from fewer entries", older, 3, MICROS - 86_400 * SECOND),
        ("clock-60-s-behind", "60 s ahead", listed(begin=ahead, number=NUMBER + 60), 7, MICROS + 60 * SECOND),
    ):  # fmt: skip
        yield "crl", name, shows, given(made), {"size": size, "this_update": begin, "serial_numbers": []}
    for name, (shows, made) in malformed():
        yield "crl", f"bad-{name}", shows, given(made), MALFORMED
    for name, shows, refuse, one in (
        ("bad-key", "by another key", "unauthorised", given(listed(key=p256("another key")))),
        ("bad-name", "in another name", "unauthorised", given(listed(name="acme"))),
        ("bad-may-not-sign", "the issuer signs no lists", "certificate", given(listed(), holder=ACME)),
        ("bad-ahead", "more than 60 s ahead", EXPIRED, given(
            listed(begin=ahead + timedelta(seconds=1), number=NUMBER + 61))),
        ("bad-past", "run out at this moment", EXPIRED, given(listed(begin=past, number=NUMBER - 31 * 86_400))),
    ):  # fmt: skip
        yield "crl", name, shows, one, refuse


def given(made, *, holder=ISSUER):
    return {"crl": made, "certificate": holder.der[0], "size": 7, "at": MICROS}


def revoked():
    return x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(NOW)


def listed(*entries, key=ISSUER.key, name=ISSUER.name, number=NUMBER, begin=NOW, days=31, **odd):
    """A list by the names of its parts; `extensions` are beside the two that it must have."""
    builder = x509.CertificateRevocationListBuilder(revoked_certificates=list(entries))
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    builder = builder.last_update(begin).next_update(begin + timedelta(days=days))
    whose = odd.get("named", ISSUER.key).public_key()
    named = x509.AuthorityKeyIdentifier.from_issuer_public_key(whose)
    for extension in (named, x509.CRLNumber(number), *odd.get("extensions", ())):
        builder = builder.add_extension(extension, critical=odd.get("critical", False))
    return sign_x509(builder, key).public_bytes(Encoding.DER)


def malformed():
    """What says other things than a list may, and then what is none: no builder makes that, so it is made of its DER."""
    other = x509.IssuerAlternativeName([x509.UniformResourceIdentifier("autolink:x")])
    why = revoked().add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
    yield from {
        "number": ("it does not say thisUpdate", listed(number=NUMBER + 1)),
        "size": ("of a log that there is not yet", listed(number=NUMBER + (1 << 32))),
        "life": ("at most 31 days", listed(days=32)),
        "extension-more": ("two extensions", listed(extensions=[other])),
        "critical": ("not critical", listed(critical=True)),
        "identifier": ("it names the issuer's key", listed(named=p256("another key"))),
        "entry-extension": ("entries without extensions", listed(why.build())),
        "certificate": ("something else that the issuer has signed", ISSUER.der[0]),
    }.items()
    good = listed()
    parts, algorithm, signature = contents(good)
    version, inside, name, begin, end, extensions = contents(parts)
    identifier, number = contents(contents(extensions)[0])

    def made(*parts):
        return signed(der(0x30, *parts))

    def extended(*some):
        return made(version, inside, name, begin, end, der(0xA0, der(0x30, *some)))

    assert extended(identifier, number) == signed(parts) == good
    assert not signature[-1] & 1  # so that one bit less is DER, too
    yield from {
        "empty": ("one value", b""),
        "cut-short": ("one value", good[:-1]),
        "trailing-byte": ("one value", good + b"\0"),
        "version-1": ("version 2", made(inside, name, begin, end, extensions)),
        "no-next-update": ("it has a nextUpdate", made(version, inside, name, begin, extensions)),
        "no-life": ("nextUpdate is later", made(version, inside, name, begin, begin, extensions)),
        "no-extensions": ("two extensions", made(version, inside, name, begin, end)),
        "no-number": ("two extensions", extended(identifier)),
        "no-identifier": ("two extensions", extended(number)),
        "number-twice": ("none of them twice", extended(identifier, number, number)),
        "algorithm-inside": ("the one outside", made(version, SHA_384, name, begin, end, extensions)),
        "algorithm-outside": ("the one inside", der(0x30, parts, SHA_384, signature)),
        "algorithm-parameters": ("the one inside", der(0x30, parts, der(0x30, contents(algorithm)[0], b"\5\0"), signature)),
        "unused-bits": ("a signature is whole bytes", der(0x30, parts, algorithm, der(3, b"\1", signature[3:]))),
    }.items()  # fmt: skip


# --- DER ----------------------------------------------------------------------------------------------------


def der(tag, *parts):
    content = b"".join(parts)
    size = len(content).to_bytes(2, "big").lstrip(b"\0") or b"\0"
    return bytes([tag, *([0x80 | len(size)] if len(content) > 127 else [])]) + size + content


def contents(value):
    """The values inside of one."""
    values, rest = [], value[header(value) :]
    while rest:
        size = header(rest) + int.from_bytes(rest[2 : header(rest)] or rest[1:2])
        values.append(rest[:size])
        rest = rest[size:]
    return values


def header(value):
    """The length of its tag and its length, which stands there by itself up to 127."""
    return 2 + (value[1] & 0x7F if value[1] > 0x7F else 0)


def signed(parts):
    """The list of this signed part."""
    return der(0x30, parts, SHA_256, der(3, b"\0", sign(ISSUER.key, parts)))
