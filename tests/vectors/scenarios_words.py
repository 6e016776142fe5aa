"""What a registry's log says by its key: receipts, changes and statuses; and names that only its word bears out."""

import base64

from blocks import (
    MICROS,
    SECOND,
    envelope,
    issued,
    leaf_fields,
    leaf_hash,
    p256,
    pack,
    rotated,
    sha256,
)
from blocks_registry import (
    DAY,
    ELSEWHERE,
    HOUR,
    LOG,
    ORIGIN,
    OTHER,
    REVOKE,
    ROTATE,
    Steps,
    body,
    checkpoint,
    entry,
    later,
    log_name,
    next_of,
    proof,
    said,
    signatures,
    status,
)
from scenarios_good import ACME, BOB, SELLER

MALFORMED, TAMPERED, EXPIRED = "malformed", "tampered", "expired"


def scenarios():
    yield from receipts_and_changes()
    yield from statuses()
    yield from judged_again()
    yield from shown_statuses()
    yield from recovered_names()


def receipts_and_changes():
    """subjects `receipt` and `change`."""
    signed = body(REVOKE, ACME.id, [], previous=sha256(b"the body of the entry before"))
    given = LOG | {"submitted": entry(signed, *signatures(signed, [ACME])), "at": MICROS}
    receipt = {
        "origin": ORIGIN,
        "entry": sha256(signed),
        "received_at": MICROS,
        "deadline": MICROS + 60 * SECOND,
    }
    yield from words("receipt", receipt, given, {"bad-entry-31": {"entry": sha256(signed)[:31]}})
    end, minute = MICROS + DAY, 60 * SECOND
    for name, shows, at, odd in (
        ("at-the-end", "it may still be appended", end, {"received_at": end, "deadline": end + minute}),
        ("at-once", "the shortest promise", MICROS, {"deadline": MICROS}),
        ("ahead", "of a clock that is ahead", MICROS - minute, {}),
        ("behind", "of a clock that is behind", MICROS + minute, {}),
        ("bad-entry", "of another entry", MICROS, {"entry": sha256(b"another")}),
        ("bad-expired", "the entry had expired", end, {"received_at": end + 1, "deadline": end + minute}),
        ("bad-deadline", "due after more than 60 s", MICROS, {"deadline": MICROS + minute + 1}),
        ("bad-deadline-before", "due before it was received", MICROS - 1, {"deadline": MICROS - 1}),
        ("bad-ahead", "of a time to come", MICROS - minute - 1, {}),
        ("bad-behind", "over when it came", MICROS + minute + 1, {}),
    ):
        word = pack(said("receipt", (receipt | odd).values()))
        fields, one = receipt | odd, given | {"at": at, "word": word}
        yield "receipt", name, shows, one, TAMPERED if name.startswith("bad") else without_origin(fields)
    change = {"origin": ORIGIN, "id": ACME.id, "op": ROTATE, "state": "active", "index": 3, "at": MICROS}
    yield from words("change", change, LOG, {
        "bad-op": {"op": 2}, "bad-state": {"state": "lost"}, "bad-id-31": {"id": ACME.id[:31]}, "bad-index": {"index": -1},
    })  # fmt: skip


def without_origin(fields):
    return {name: value for name, value in fields.items() if name != "origin"}


def words(subject, fields, given, odd):
    """One that is right, what another log or nobody has said, and what is none; `odd` has fields of the last kind."""
    good, last = said(subject, fields.values()), list(fields)[-1]

    def but(**other):
        return said(subject, (fields | other).values())

    yield subject, "good", "signed by the log's key", given | {"word": pack(good)}, without_origin(fields)
    for name, made in {
        "bad-origin": but(origin=ELSEWHERE),
        "bad-key": said(subject, fields.values(), key=OTHER),
        "bad-purpose": said(subject, fields.values(), domain=b"autolink/1 status\0"),
        "bad-signature": [good[0], good[1][::-1]],
    }.items():
        yield subject, name, "not this log's word", given | {"word": pack(made)}, TAMPERED
    for name, made in {
        "bad-more": [*good, b""], "bad-signature-63": [good[0], good[1][:63]],
        "bad-tag": said("word", fields.values(), domain=f"autolink/1 {subject}\0".encode()),
        "bad-field-missing": said(subject, list(fields.values())[:-1]),
        "bad-time": but(**{last: -1}), "bad-time-beyond-9999": but(**{last: 253402300800000000}),
        "bad-too-large": but(origin="x" * 1024), **{name: but(**each) for name, each in odd.items()},
    }.items():  # fmt: skip
        yield subject, name, f"no {subject}", given | {"word": pack(made)}, MALFORMED
    yield subject, "bad-trailing-byte", "one value", given | {"word": pack(good) + b"\xc0"}, MALFORMED


def statuses():
    """subject `status`: one shown for a chain, to a party that accepts ones of up to an hour unless it is told otherwise."""
    steps = Steps().register(ACME).register(SELLER, issuer=ACME)
    leaves, at = steps.leaves, MICROS + 10 * SECOND
    chain = [SELLER, ACME]

    def made(**odd):
        return status(leaves, 1, SELLER.id, chain, **{"because": ACME.id, "at": at, "entries": 1, **odd})

    def given(shown, *, now=at, seen=(), changes=(), forgotten=(), holder=SELLER, max_age=HOUR):
        return LOG | {
            "status": pack(shown), "chain": holder.der, "at": now, "max_age": max_age,
            **{name: [pack(each) for each in some]
               for name, some in {"seen": seen, "changes": changes, "forgotten": forgotten}.items()},
        }  # fmt: skip

    def change(holder, index, op=REVOKE, state="revoked"):
        return said("change", [ORIGIN, holder.id, op, state, index, at])

    good = {"state": "active", "because": ACME.id, "entries": 1, "size": 2, "at": at}
    bound = status(leaves, 0, ACME.id, [ACME], at=at, entries=1)
    above = status(leaves, 0, ACME.id, [ACME], at=at, entries=9, state="revoked")
    renewed = issued(ACME, "seller", key=SELLER.key, **later())
    again = status(leaves, 1, SELLER.id, [renewed, ACME], at=at, entries=2)
    grown = [*leaves, b"a later leaf"]
    elsewhere = made(origin=ELSEWHERE)
    for name, shows, one in (
        ("good", "the log's word about a chain", given(made())),
        ("as-old-as-accepted", "an hour", given(made(), now=at + HOUR)),
        ("until-the-log-says", "without an age of its own", given(made(expires_at=at + DAY), now=at + DAY, max_age=None)),
        ("clock-60-s-behind", "60 s ahead", given(made(), now=at - 60 * SECOND)),
        ("seen-the-same", "what was seen before", given(made(), seen=[made()])),
        ("seen-an-older", "and older ones", given(made(), seen=[made(at=at - SECOND)])),
        ("seen-a-larger-log", "that says the same", given(made(), seen=[made(proved=proof(grown, 1))])),
        ("seen-more-entries", "under a larger log, that says the same", given(
            made(), seen=[made(entries=2, proved=proof(grown, 1))])),
        ("seen-another", "it is not about this ID", given(made(), seen=[above])),
        ("seen-in-vain", "not shown by whom it is about", given(made(), seen=[again])),
        ("changed-before", "a change that it knows of", given(made(), changes=[change(ACME, 1, ROTATE, "active")])),
        ("rotated-above", "10 s to show another", given(
            made(), now=at + 10 * SECOND, changes=[change(ACME, 2, ROTATE, "active")])),
        ("change-of-another", "of nobody in the chain", given(made(), changes=[change(BOB, 9)])),
        ("forgotten-before", "a change that it knows of", given(made(), forgotten=[change(BOB, 1)])),
    ):  # fmt: skip
        yield "status", name, shows, one, good
    yield "status", "self-issued", "nobody above", given(bound, holder=ACME), good
    other_key = issued(ACME, "seller", key=p256("another key"))
    four = [sha256(bytes([n])) for n in range(4)]
    long = proof(leaves, 1, extra=f"extra {base64.b64encode(bytes(6144)).decode()}\n")
    for name, shows, refuse, one in (
        ("bad-id", "of somebody else", "impostor", given(made(id=BOB.id))),
        ("bad-chain-of-another", "of somebody else", "impostor", given(made(), holder=BOB)),
        ("bad-key", "another key is on record", "impostor", given(made(), holder=other_key)),
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
        ("bad-issuers-4", "more than a chain has", MALFORMED, given(made(issuers=four))),
        ("bad-too-large", "at most 8,192 bytes", MALFORMED, given(made(proved=long))),
        ("bad-origin", "of another log", "not_vouched", given(elsewhere)),
        ("bad-origin-after-a-rotation", "no end", "not_vouched", given(
            elsewhere, changes=[change(SELLER, 2, ROTATE, "active")])),
        ("bad-origin-after-its-end", "of which it has heard", "revoked", given(elsewhere, changes=[change(SELLER, 2)])),
        ("bad-origin-after-an-end-above", "of which it has heard", "revoked", given(
            elsewhere, changes=[change(ACME, 2)])),
        ("bad-proof", "of another leaf", MALFORMED, given(made(proved=proof(leaves, 0)))),
        ("bad-proof-of-another-log", "signed by another", MALFORMED, given(
            made(proved=proof(leaves, 1, signed=checkpoint(leaves, key=OTHER))))),
        ("bad-no-proof", "unproved", MALFORMED, given(made(proved=b""))),
        ("bad-shape", "an array of three", MALFORMED, given(made()[:2])),
        ("bad-seen-more-entries", "fewer entries than seen", MALFORMED, given(made(), seen=[made(entries=2)])),
        ("bad-seen-more-entries-under-a-smaller-log", "fewer under a larger one", MALFORMED, given(
            made(proved=proof(grown, 1)), seen=[made(entries=2)])),
        ("bad-seen-a-larger-log", "another word under a smaller checkpoint", MALFORMED, given(
            made(), seen=[made(state="revoked", proved=proof(grown, 1))])),
        ("bad-changed", "changed since", "revoked", given(made(), changes=[change(SELLER, 2)])),
        ("bad-changed-above", "one above changed since", "revoked", given(made(), changes=[change(ACME, 2)])),
        ("bad-rotated", "to another key", "revoked", given(made(), changes=[change(SELLER, 2, ROTATE, "active")])),
        ("bad-rotated-above", "more than 10 s ago", EXPIRED, given(
            made(), now=at + 10 * SECOND + 1, changes=[change(ACME, 2, ROTATE, "active")])),
        ("bad-rotated-above-and-changed", "it does not go on", "revoked", given(
            made(), now=at + DAY // 48, changes=[change(ACME, 3, ROTATE, "active"), change(SELLER, 2)])),
        ("bad-changed-told-late", "an earlier change is told later", "revoked", given(
            made(), changes=[change(SELLER, 2), change(SELLER, 1)])),
        ("bad-forgotten", "from before a change of somebody", EXPIRED, given(made(), forgotten=[change(BOB, 2)])),
        ("bad-malformed-and-of-another", "the earlier step", MALFORMED, given(made(id=BOB.id, key=OTHER))),
        ("bad-of-another-and-seen", "the earlier step", "impostor", given(made(id=BOB.id), seen=[made(entries=2)])),
        ("bad-seen-and-late", "the earlier step", MALFORMED, given(made(), now=at + DAY, seen=[made(entries=2)])),
        ("bad-late-and-changed", "the earlier step", EXPIRED, given(
            made(), now=at + DAY, changes=[change(SELLER, 2)])),
        ("bad-forgotten-and-changed", "the earlier step", EXPIRED, given(
            made(), changes=[change(SELLER, 2)], forgotten=[change(BOB, 2)])),
    ):  # fmt: skip
        yield "status", name, shows, one, refuse


def judged_again():
    """subject `again`: statuses of one ID, each shown by its holder; what was accepted by an older one may not stand."""
    leaves, at = Steps().register(ACME).register(SELLER, issuer=ACME).leaves, MICROS + 10 * SECOND
    grown = [*leaves, b"a later leaf"]
    renewed = issued(ACME, "seller", key=SELLER.key, **later())
    other_key = issued(ACME, "seller", key=p256("seller's next key"), **later())
    above = rotated(ACME, p256("acme's next key"), following="acme's third key", **later())
    below = issued(above, "seller", key=SELLER.key, **later())

    def shown(holder=SELLER, root=ACME, **odd):
        fields = {"because": ACME.id, "at": at, "entries": 1, **odd}
        return [holder.der, pack(status(leaves, 1, SELLER.id, [holder, root], **fields))]

    first = shown()
    for name, shows, steps in (
        ("first", "nothing was accepted before", [(first, False)]),
        ("same", "it says the same", [(first, False), (shown(at=at + SECOND), False)]),
        ("renewed", "another certificate, over the same keys", [(first, False), (shown(renewed, entries=2), False)]),
        ("another-key", "another key", [(first, False), (shown(other_key, entries=2), True)]),
        ("another-key-above", "another key of the issuer's", [(first, False), (shown(below, above, entries=2), True)]),
        ("revoked", "another state", [(first, False), (shown(state="revoked", entries=2), True)]),
        ("revoked-above", "another state, by another's entry", [
            (first, False), (shown(state="revoked", proved=proof(grown, 1)), True)]),
        ("older", "it is refused, and changes nothing", [
            (shown(other_key, entries=2), False), (first, False), (shown(other_key, entries=2), False)]),
    ):  # fmt: skip
        given = LOG | {"at": at, "shown": [one for one, _ in steps]}
        yield "again", name, shows, given, {"again": [anew for _, anew in steps]}


def shown_statuses():
    """subject `envelope`: of each log the first status that its author shows counts, whatever it says."""
    leaves = Steps().register(ACME).register(SELLER, issuer=ACME).leaves

    def made(**odd):
        return pack(status(leaves, 1, SELLER.id, [SELLER, ACME], at=MICROS, entries=1, **odd))

    active, revoked, elsewhere = made(), made(state="revoked"), made(origin=ELSEWHERE, key=OTHER)
    for name, shows, evidence, refuse in (
        ("another-log-first", "of each log", [elsewhere, active], None),
        ("active-first", "the first counts", [active, revoked], None),
        ("revoked-first", "the first counts", [revoked, active], "revoked"),
        ("none", "it shows none", [], "not_vouched"),
        ("of-another-log", "it shows none of this log", [elsewhere], "not_vouched"),
    ):
        yield enveloped(f"status-{name}", shows, SELLER, {"registered": LOG}, evidence, refuse)


def enveloped(name, shows, holder, trust, evidence, refuse):
    """A scenario of an Envelope by this holder, who shows this evidence."""
    leaf = pack(leaf_fields(holder.id, BOB.id))
    signed = envelope(holder, [leaf]) | {"evidence": evidence}
    given = {"envelope": pack(list(signed.values())), "trust": trust, "at": MICROS, "recipient": BOB.id}
    return "envelope", name, shows, given, refuse or {"author": holder.id, "leaf_hash": leaf_hash(leaf)}


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
        yield enveloped(f"recovered-{name}", shows, holder, trust, evidence, refuse)
