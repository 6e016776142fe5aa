"""What a registry's log signs: checkpoints, proofs, receipts, changes and statuses; recovered names; revocation lists."""

from datetime import timedelta

from blocks import (
    MICROS,
    NOW,
    SECOND,
    ed,
    envelope,
    issued,
    leaf_fields,
    leaf_hash,
    p256,
    pack,
    root,
    rotated,
    sha256,
    sign_x509,
    tree,
)
from blocks_registry import (
    DAY,
    HOUR,
    LOG_KEY,
    ORIGIN,
    REVOKE,
    ROTATE,
    Steps,
    body,
    checkpoint,
    consistency,
    entry,
    later,
    log_name,
    next_of,
    note,
    proof,
    raw,
    said,
    signatures,
    status,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from scenarios_good import ACME, BOB, SELLER

OTHER = ed("another log")
LOG = {"origin": ORIGIN, "key": raw(LOG_KEY)}
LEAVES = [b"leaf %d" % n for n in range(7)]
MALFORMED, TAMPERED, EXPIRED = "malformed", "tampered", "expired"


def scenarios():
    yield from checkpoints()
    yield from proofs()
    yield from consistencies()
    yield from words()
    yield from statuses()
    yield from recovered_names()
    yield from revocation_lists()


def checkpoints():
    """subject `checkpoint`."""
    good = checkpoint(LEAVES)
    text, signatures = good.rsplit("\n\n", 1)
    twice = good + signatures.replace(ORIGIN, "witness.example")
    for name, made in {
        "good": good, "cosigned": twice, "empty-log": checkpoint([]),
        "extension-lines": note(text + "\nof some application\n"),
    }.items():  # fmt: skip
        leaves = [] if name == "empty-log" else LEAVES
        yield "checkpoint", name, "what the log signs of its tree", LOG | {"note": made.encode()}, {
            "size": len(leaves), "root": tree(leaves),
        }  # fmt: skip
    for name, made in {
        "bad-signature": good.replace(f"\n{len(LEAVES)}\n", f"\n{len(LEAVES) + 1}\n"),
        "bad-other-key": checkpoint(LEAVES, key=OTHER),
        "bad-other-key-under-this-id": note(text + "\n", key=OTHER, shown=LOG_KEY),
        "bad-other-origin": checkpoint(LEAVES, origin="registry.example/other"),
    }.items():
        yield "checkpoint", name, "not this log's", LOG | {"note": made.encode()}, TAMPERED
    for name, made in {
        "bad-unsigned": text + "\n\n", "bad-leading-zero": note(f"{ORIGIN}\n07\n{text.split(chr(10))[2]}\n"),
        "bad-short-root": note(f"{ORIGIN}\n7\nAAAA\n"), "bad-two-lines": note(f"{ORIGIN}\n7\n"),
        "bad-crlf": note(text.replace("\n", "\r\n") + "\r\n"),
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
    good = {"sizes": [3, 7], "roots": [tree(LEAVES[:3]), tree(LEAVES)], "path": consistency(LEAVES, 3)}
    for name, odd in {
        "bad-path-empty": {"path": []}, "bad-path-longer": {"path": [*good["path"], bytes(32)]},
        "bad-path-shorter": {"path": good["path"][:-1]}, "bad-other-order": {"path": good["path"][::-1]},
        "bad-first-root": {"roots": [tree(LEAVES[1:4]), tree(LEAVES)]},
        "bad-second-root": {"roots": [tree(LEAVES[:3]), tree(LEAVES[:6])]},
        "bad-smaller": {"sizes": [7, 3], "roots": good["roots"][::-1]},
    }.items():  # fmt: skip
        yield "consistency", name, "a log that has changed what it said", good | odd, TAMPERED


def words():
    """subjects `receipt` and `change`."""
    signed = body(REVOKE, ACME.id, [], previous=sha256(b"the body of the entry before"))
    submitted = entry(signed, *signatures(signed, [ACME]))
    receipt = {
        "origin": ORIGIN,
        "entry": sha256(signed),
        "received_at": MICROS,
        "deadline": MICROS + 60 * SECOND,
    }
    change = {"origin": ORIGIN, "id": ACME.id, "op": ROTATE, "state": "active", "index": 3, "at": MICROS}
    for subject, fields, given in (
        ("receipt", receipt, LOG | {"submitted": submitted}),
        ("change", change, LOG),
    ):
        good = said(subject, fields.values())
        expect = {name: value for name, value in fields.items() if name != "origin"}
        yield subject, "good", "signed by the log's key", given | {"word": pack(good)}, expect
        for name, made in {
            "bad-origin": said(subject, (fields | {"origin": "registry.example/other"}).values()),
            "bad-key": said(subject, fields.values(), key=OTHER),
            "bad-purpose": said(subject, fields.values(), domain=b"autolink/1 status\0"),
            "bad-signature": [good[0], good[1][::-1]],
        }.items():  # fmt: skip
            yield subject, name, "not this log's word", given | {"word": pack(made)}, TAMPERED
        odd = {
            "bad-more": [*good, b""], "bad-signature-63": [good[0], good[1][:63]],
            "bad-tag": said("word", fields.values(), domain=f"autolink/1 {subject}\0".encode()),
            "bad-field-missing": said(subject, list(fields.values())[:-1]),
            "bad-time": said(subject, [*list(fields.values())[:-1], -1]),
            "bad-time-beyond-9999": said(subject, [*list(fields.values())[:-1], 253402300800000000]),
        }  # fmt: skip
        if subject == "receipt":
            odd["bad-entry-31"] = said(subject, (fields | {"entry": sha256(signed)[:31]}).values())
            for name, shows, empty in (
                ("bad-entry", "of another entry", {"entry": sha256(b"another")}),
                ("bad-expired", "the entry had expired", {"received_at": MICROS + DAY + 1, "deadline": MICROS + 2 * DAY}),
                ("bad-deadline", "due after more than 7 days", {"deadline": MICROS + 7 * DAY + 1}),
            ):  # fmt: skip
                yield (
                    subject,
                    name,
                    shows,
                    given | {"word": pack(said(subject, (fields | empty).values()))},
                    TAMPERED,
                )
        else:
            odd["bad-op"] = said(subject, (fields | {"op": 2}).values())
            odd["bad-state"] = said(subject, (fields | {"state": "lost"}).values())
        for name, made in odd.items():
            yield subject, name, f"no {subject}", given | {"word": pack(made)}, MALFORMED
        yield subject, "bad-trailing-byte", "one value", given | {"word": pack(good) + b"\xc0"}, MALFORMED


def statuses():
    """subject `status`: one shown for a chain, to a party that accepts ones of up to an hour unless it is told otherwise."""
    steps = Steps().register(ACME).register(SELLER, issuer=ACME)
    leaves, at = steps.leaves, MICROS + 10 * SECOND
    chain = [SELLER, ACME]

    def made(**odd):
        return status(leaves, 1, SELLER.id, chain, **{"because": ACME.id, "at": at, "entries": 1, **odd})

    def given(shown, *, now=at, seen=(), changes=(), holder=SELLER, max_age=HOUR):
        return LOG | {
            "status": pack(shown), "chain": holder.der, "at": now, "max_age": max_age,
            "seen": [pack(each) for each in seen], "changes": [pack(each) for each in changes],
        }  # fmt: skip

    good = {"state": "active", "because": ACME.id, "entries": 1, "size": 2, "at": at}
    changed = ["change", [ORIGIN, ACME.id, ROTATE, "active", 1, at]]
    grown = [*leaves, b"a later leaf"]
    for name, shows, one in (
        ("good", "the log's word about a chain", given(made())),
        ("as-old-as-accepted", "an hour", given(made(), now=at + HOUR)),
        ("until-the-log-says", "without an age of its own", given(made(expires_at=at + DAY), now=at + DAY, max_age=None)),
        ("clock-60-s-behind", "60 s ahead", given(made(), now=at - 60 * SECOND)),
        ("seen-the-same", "what was seen before", given(made(), seen=[made()])),
        ("seen-an-older", "and older ones", given(made(), seen=[made(at=at - SECOND)])),
        ("changed-before", "a change that it knows of", given(made(), changes=[said(*changed)])),
        ("change-of-another", "of nobody in the chain", given(made(), changes=[
            said("change", [ORIGIN, BOB.id, REVOKE, "revoked", 9, at])])),
    ):  # fmt: skip
        yield "status", name, shows, one, good
    bound = status(leaves, 0, ACME.id, [ACME], at=at, entries=1)
    yield "status", "self-issued", "nobody above", given(bound, holder=ACME), good
    elsewhere = issued(ACME, "seller", key=p256("another key"))
    renewed = issued(ACME, "seller", key=SELLER.key, **later())
    for name, shows, refuse, one in (
        ("bad-id", "of somebody else", "impostor", given(made(id=BOB.id))),
        ("bad-chain-of-another", "of somebody else", "impostor", given(made(), holder=BOB)),
        ("bad-key", "another key is on record", "impostor", given(made(), holder=elsewhere)),
        ("bad-issuers", "another key above", "impostor", given(made(issuers=[bytes(32)]))),
        ("bad-issuers-none", "the issuer's key is missing", "impostor", given(made(issuers=[]))),
        ("bad-certificate", "another certificate is on record", EXPIRED, given(made(), holder=renewed)),
        ("bad-early", "more than 60 s ahead", "not_yet_valid", given(made(), now=at - 60 * SECOND - 1)),
        ("bad-late", "older than accepted", EXPIRED, given(made(), now=at + HOUR + 1)),
        ("bad-later-than-the-log-says", "without an age of its own", EXPIRED, given(
            made(expires_at=at + DAY), now=at + DAY + 1, max_age=None)),
        ("bad-older-than-7-days", "whatever the log says", EXPIRED, given(
            made(expires_at=at + 30 * DAY), now=at + 7 * DAY + 1, max_age=None)),
        ("bad-revoked", "not active", "revoked", given(made(state="revoked", because=SELLER.id))),
        ("bad-recovering", "not active", "revoked", given(made(state="recovering"))),
        ("bad-deactivated", "not active", "revoked", given(made(state="deactivated", because=SELLER.id))),
        ("bad-state", "no state", MALFORMED, given(made(state="lost"))),
        ("bad-time-beyond-9999", "no moment", MALFORMED, given(made(expires_at=253402300800000000))),
        ("bad-signature", "of another key", MALFORMED, given(made(key=OTHER))),
        ("bad-purpose", "signed as something else", MALFORMED, given(made(domain=b"autolink/1 receipt\0"))),
        ("bad-origin", "of another log", "not_vouched", given(made(origin="registry.example/other"))),
        ("bad-proof", "of another leaf", MALFORMED, given(made(proved=proof(leaves, 0)))),
        ("bad-proof-of-another-log", "signed by another", MALFORMED, given(
            made(proved=proof(leaves, 1, signed=checkpoint(leaves, key=OTHER))))),
        ("bad-no-proof", "unproved", MALFORMED, given(made(proved=b""))),
        ("bad-shape", "an array of three", MALFORMED, given(made()[:2])),
        ("bad-seen-more-entries", "fewer entries than seen", MALFORMED, given(made(), seen=[made(entries=2)])),
        ("bad-seen-a-larger-log", "another word under a smaller checkpoint", MALFORMED, given(
            made(), seen=[made(state="revoked", proved=proof(grown, 1))])),
        ("bad-changed", "changed since", "revoked", given(made(), changes=[
            said("change", [ORIGIN, SELLER.id, REVOKE, "revoked", 2, at])])),
        ("bad-changed-above", "one above changed since", "revoked", given(made(), changes=[
            said("change", [ORIGIN, ACME.id, ROTATE, "active", 2, at])])),
    ):  # fmt: skip
        yield "status", name, shows, one, refuse


def recovered_names():
    """subjects `certificate` and `envelope`: a root that its guardians have recovered, and who believes that."""
    found = rotated(ACME, p256("acme found again"), following="and then", recovered_in=log_name())
    said = {
        "common_name": ACME.name, "auto_id": ACME.id, "kind": "organization", "next_key_hash": next_of("and then"),
        "recovered_in": log_name(), "fingerprint": sha256(found.der[0]), "spki_sha256": next_of("acme found again"),
    }  # fmt: skip
    yield (
        "certificate",
        "root-recovered",
        "it names the log that has it on record",
        {"der": found.der[0]},
        said,
    )
    leaves, clerk = [b"the entry that recovered it"], issued(found, "clerk")
    elsewhere = rotated(ACME, found.key, following="and then", recovered_in=log_name(OTHER))
    unsaid = rotated(ACME, found.key, following="and then")

    def shown(chain, **odd):
        return [pack(status(leaves, 0, chain[0].id, chain, at=MICROS, entries=1, **odd))]

    for name, holder, shows, trust, evidence, refuse in (
        ("self-certified", found, "the name is bound to another key", {"self_certified": ACME.der[0]}, [], "impostor"),
        ("below-its-anchor", clerk, "an anchor of that name says nothing of this key", {"issued_by": ACME.der[0]}, [],
         "impostor"),
        ("pinned", found, "nor does a pin", {"pinned": found.der[0]}, shown([found]), "impostor"),
        ("registered", found, "the log that it names says so", {"registered": LOG}, shown([found]), None),
        ("registered-below", clerk, "also of one below it", {"registered": LOG}, shown([clerk, found]), None),
        ("not-shown", found, "nobody says so", {"registered": LOG}, [], "impostor"),
        ("revoked", found, "no longer", {"registered": LOG}, shown([found], state="revoked"), "revoked"),
        ("in-another-log", elsewhere, "it names another log", {"registered": LOG}, shown([elsewhere]), "impostor"),
        ("in-no-log", unsaid, "it names none", {"registered": LOG}, shown([unsaid]), "impostor"),
    ):  # fmt: skip
        leaf = pack(leaf_fields(holder.id, BOB.id))
        signed = envelope(holder, [leaf]) | {"evidence": evidence}
        given = {"envelope": pack(list(signed.values())), "trust": trust, "at": MICROS, "recipient": BOB.id}
        outcome = refuse or {"author": holder.id, "leaf_hash": leaf_hash(leaf)}
        yield "envelope", f"recovered-{name}", shows, given, outcome


def revocation_lists():
    """subject `crl`: an issuer's own list, judged against its certificate on record by a log of 7 entries."""
    issuer = root("acme", crl_sign=True)
    number = (7 << 32) + MICROS // SECOND
    revoked = x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(NOW).build()
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    why = (
        x509.RevokedCertificateBuilder()
        .serial_number(4711)
        .revocation_date(NOW)
        .add_extension(reason, critical=False)
    )

    def made(
        *entries,
        key=issuer.key,
        name=issuer.name,
        number=number,
        begin=NOW,
        days=31,
        extensions=(),
        critical=False,
    ):
        builder = x509.CertificateRevocationListBuilder(revoked_certificates=list(entries))
        builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        builder = builder.last_update(begin).next_update(begin + timedelta(days=days))
        named = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        for extension in (named, x509.CRLNumber(number), *extensions):
            builder = builder.add_extension(extension, critical=critical)
        return sign_x509(builder, key).public_bytes(Encoding.DER)

    def given(der, *, at=MICROS, holder=issuer):
        return {"crl": der, "certificate": holder.der[0], "size": 7, "at": at}

    for name, serials, der in (("empty", [], made()), ("one", [4711], made(revoked))):
        expect = {"size": 7, "this_update": MICROS, "serial_numbers": serials}
        yield "crl", name, "whom the issuer has issued and no longer stands by", given(der), expect
    ahead, past = NOW + timedelta(seconds=61), NOW - timedelta(days=2)
    for name, shows, refuse, one in (
        ("bad-trailing-byte", "one value", MALFORMED, given(made() + b"\0")),
        ("bad-number", "it does not say thisUpdate", MALFORMED, given(made(number=number + 1))),
        ("bad-size", "of a log that there is not yet", MALFORMED, given(made(number=number + (1 << 32)))),
        ("bad-life", "at most 31 days", MALFORMED, given(made(days=32))),
        ("bad-extension-more", "two extensions", MALFORMED, given(made(extensions=[
            x509.IssuerAlternativeName([x509.UniformResourceIdentifier("autolink:x")])]))),
        ("bad-critical", "not critical", MALFORMED, given(made(critical=True))),
        ("bad-entry-extension", "entries without extensions", MALFORMED, given(made(why.build()))),
        ("bad-key", "by another key", "unauthorised", given(made(key=p256("another key")))),
        ("bad-name", "in another name", "unauthorised", given(made(name="acme"))),
        ("bad-may-not-sign", "the issuer signs no lists", "certificate", given(made(), holder=ACME)),
        ("bad-ahead", "of a time to come", EXPIRED, given(made(
            begin=ahead, number=(7 << 32) + MICROS // SECOND + 61))),
        ("bad-past", "run out", EXPIRED, given(made(
            begin=past, days=1, number=(7 << 32) + MICROS // SECOND - 2 * 86_400))),
    ):  # fmt: skip
        yield "crl", name, shows, one, refuse
