"""What a registry's log takes and refuses: entries in their order, each with what it gets, and how IDs stand then."""

from datetime import timedelta

from blocks import MICROS, NOW, issued, p256, root, rotated
from blocks_registry import (
    DAY,
    DEACTIVATE,
    DELAY,
    ELSEWHERE,
    GUARDIANS,
    RECOVER,
    REGISTER,
    RENEW,
    REVOKE,
    ROTATE,
    SERVICE,
    Steps,
    guardian,
    later,
    log_name,
    next_of,
)
from scenarios_good import ACME, GLOBEX, SELLER

NEXT, THIRD = next_of("acme's next key"), next_of("acme's third key")
YOUNGER = rotated(ACME, ACME.key, next_key=NEXT, **later(0.5))
ROTATED = rotated(ACME, p256("acme's next key"), following="acme's third key", **later())
FOUND = rotated(ACME, p256("acme found again"), following="and then", recovered_in=log_name(), **later(2))
THIEF = rotated(ACME, p256("a thief's key"), following="acme's third key", **later())
NEXT_KEY = (ACME.id, ROTATED.key, True)
HIDDEN = NEXT_KEY[:2]
OWN_KEY_SHOWN = (ACME.id, ACME.key, True)
GUARDS = [root(f"guard-{n}", plain=True) for n in range(3)]
REVEALED = [[guard.id, bytes([n]) * 16] for n, guard in enumerate(GUARDS)]
HASHES = sorted(guardian(salt, identifier) for identifier, salt in REVEALED)
DESK = issued(ACME, "desk", place="issuer", path_length=0, kind="organization")
NOBODY = {"gets": "unauthorised"}


def scenarios():
    """subject `log`."""
    for name, shows, (given, expect) in (
        ("register", "who may be on record, and by whose signatures", register()),
        (
            "register-certificate",
            "a certificate passes below those on record; its key was nobody's",
            certificates(),
        ),
        ("renew", "another certificate over the same key", renew()),
        ("rotate", "to the key that was committed to, whatever the current one does", rotate()),
        ("revoke", "the end of a key, by its holder or from above", revoke()),
        ("deactivate", "the end of an ID, by the next key or from above", deactivate()),
        ("guardians", "who may recover is the next key's to say", guardians()),
        ("service", "where an agent is, and taken back", service()),
        ("void-from", "what the former key has issued from an index on does not stand", void_from()),
        ("outrun", "no renewal by a thief outruns the next key", outrun()),
        ("below-a-revoked-one", "which of its words need nobody above it", below_a_revoked_one()),
        ("successors", "how often a bound name is rotated, and says void_from", successors()),
        ("judging", "what fails in two ways is refused for the earlier one", judging()),
    ):
        yield "log", name, shows, given, expect


def registered(*below):
    """A log with acme and some of its agents in it."""
    steps = Steps().register(ACME)
    for holder in below:
        steps.register(holder, issuer=ACME)
    return steps


def active(*holders):
    """The root's record decides that."""
    return [(holder, "active", ACME if len(holder.chain) > 1 else holder) for holder in holders]


def register():
    plain, clerk = root("initech", plain=True), issued(DESK, "clerk")
    fields = [ACME.id, SELLER.der[0], next_of("seller's next key"), [], 0, 3600]
    steps = registered()

    def seller(shows, *signers, **odd):
        steps.add(shows, REGISTER, SELLER, fields, *signers, **NOBODY | odd)

    steps.register(ACME, shows="an ID is registered once", gets="taken", previous=b"")
    seller("for another log", SELLER, ACME, origin=ELSEWHERE, gets="wrong_log")
    seller("may no longer be appended", SELLER, ACME, expires=MICROS, gets="expired")
    seller("more than 7 days ahead", SELLER, ACME, expires=MICROS + 8 * DAY, gets="expired")
    seller("without the issuer's signature", SELLER)
    seller("without the ID's signature", ACME)
    seller("nobody signed")
    seller("in the other order", ACME, SELLER)
    seller("one signature more", SELLER, ACME, plain)
    seller("one signature twice", SELLER, SELLER, ACME)
    seller("signed by another key", (SELLER.id, plain.key), ACME)
    seller("by the issuer with another key", SELLER, (ACME.id, plain.key))
    seller("signed for another purpose", SELLER, ACME, purpose=b"autolink/1 entry\0")
    seller("a key is shown that everybody has", (SELLER.id, SELLER.key, True), ACME)
    seller(
        "one signature under both names",
        SELLER,
        ACME,
        forged=lambda made: [made[0], [ACME.id, *made[0][1:]]],
    )
    steps.register(clerk, issuer=DESK, shows="below one that is not on record", gets="issuer")
    steps.add("an issued ID has no guardians", REGISTER, SELLER, [*fields[:3], HASHES, 2, 3600], SELLER, ACME,
              gets="malformed")  # fmt: skip
    seller("below its issuer", SELLER, ACME, gets="appended")
    steps.register(DESK, issuer=ACME, shows="an issuer below an issuer")
    steps.register(clerk, issuer=DESK, shows="below both")
    steps.register(
        plain, shows="a plain name is whose that comes first", following=next_of("acme's next key")
    )
    return steps.scenario(*active(ACME, SELLER, DESK, clerk, plain))


def certificates():
    steps = registered()
    old = {"begin": NOW - timedelta(days=20), "end": NOW - timedelta(days=10)}
    other = issued(ACME, "other")
    fields = [ACME.id, other.der[0], next_of("seller's next key"), [], 0, 3600]
    thief = rotated(GLOBEX, p256("a thief's key"), following="globex's next key")
    for shows, holder, odd in (
        ("it has run out", issued(ACME, "late", **old), {"issuer": ACME}),
        ("it is not yet valid", issued(ACME, "early", begin=NOW + timedelta(hours=1)), {"issuer": ACME}),
        ("by another issuer than the one named", issued(GLOBEX, "bob"), {"issuer": ACME}),
        ("a leaf without purposes", issued(ACME, "odd", purposes=False), {"issuer": ACME}),
        ("it commits to another next key", GLOBEX, {"following": next_of("else")}),
        ("the name is bound to another key", thief, {}),
    ):  # fmt: skip
        steps.register(holder, shows=shows, gets="certificate", **odd)
    steps.add("of another name", REGISTER, SELLER, fields, (SELLER.id, other.key), ACME, gets="certificate")
    twin = issued(ACME, "twin", key=ACME.key)
    steps.register(twin, issuer=ACME, shows="a key that is on record for another", gets="key_used")
    for shows, following in (
        ("a next key that is on record", "acme"),
        ("its own key as the next", f"{ACME.name}/seller"),
    ):
        steps.register(SELLER, issuer=ACME, following=next_of(following), shows=shows, gets="key_used")
    steps.register(SELLER, issuer=ACME, shows="nothing is wrong with this one")
    return steps.scenario(*active(ACME, SELLER))


def renew():
    steps, plain = registered(SELLER), root("initech", plain=True)
    steps.register(plain)
    first, younger = steps.last[ACME.id], [YOUNGER.der[0]]
    for shows, made in (
        ("over another key", rotated(ACME, p256("another key"), next_key=NEXT, **later())),
        ("no younger than the one on record", rotated(ACME, ACME.key, next_key=NEXT)),
        ("committing to another next key", rotated(ACME, ACME.key, following="a thief's key", **later())),
    ):
        steps.add(shows, RENEW, ACME, [made.der[0]], ACME, gets="certificate")
    steps.add("not on record", RENEW, GLOBEX, [GLOBEX.der[0]], GLOBEX, previous=first, gets="unknown")
    steps.add("signed by the next key", RENEW, ACME, younger, HIDDEN, **NOBODY)
    steps.add("following no entry of its", RENEW, ACME, younger, ACME, previous=bytes(32), gets="stale")
    steps.add("the same key for longer", RENEW, ACME, younger, ACME)
    steps.add("following the entry before the last", RENEW, ACME, younger, ACME, previous=first, gets="stale")
    again = issued(ACME, "seller", key=SELLER.key, **later())
    steps.add("an issued one signs alone", RENEW, SELLER, [again.der[0]], SELLER)
    made = rotated(plain, plain.key, following="a thief's key", **later())
    steps.add("a plain name, committing to another", RENEW, plain, [made.der[0]], plain, gets="certificate")
    made = rotated(plain, plain.key, next_key=None, **later())
    steps.add("a plain name commits to none", RENEW, plain, [made.der[0]], plain)
    return steps.scenario(*active(ACME, SELLER, plain))


def rotate():
    steps, twin = registered(), root("initech", plain=True)
    steps.register(twin, following=NEXT, shows="it commits to the same key")
    first, der = steps.last[ACME.id], ROTATED.der[0]
    for shows, fields, signer, gets in (
        ("to a key that nobody committed to", [THIEF.der[0], THIRD, None], THIEF, "not_committed"),
        ("signed by the key that goes", [der, THIRD, None], ACME, "unauthorised"),
        ("another next key than its certificate's", [der, next_of("else"), None], ROTATED, "certificate"),
        ("void from beyond its own index", [der, THIRD, 3], ROTATED, "malformed"),
    ):
        steps.add(shows, ROTATE, ACME, fields, signer, gets=gets)
    steps.add("renewed meanwhile", RENEW, ACME, [YOUNGER.der[0]], ACME)
    steps.add(
        "following the last that was no RENEW", ROTATE, ACME, [der, THIRD, None], ROTATED, previous=first
    )
    late = rotated(twin, ROTATED.key, next_key=None, **later())
    steps.add("whose that gets there first", ROTATE, twin, [late.der[0], THIRD, None], late, gets="key_used")
    back = rotated(ACME, ACME.key, following="a key", **later(3))
    steps.add(
        "back to the first key", ROTATE, ACME, [back.der[0], next_of("a key"), None], back, gets="key_used"
    )
    steps.add("signed by the key that went", REVOKE, ACME, [], ACME, **NOBODY)
    spent = rotated(ACME, p256("acme's third key"), following="acme", **later(4))
    steps.add(
        "committing to a former key",
        ROTATE,
        ACME,
        [spent.der[0], next_of("acme"), None],
        spent,
        gets="key_used",
    )
    third = rotated(ACME, p256("acme's third key"), following="acme's fourth key", **later(4))
    steps.add("on to the third", ROTATE, ACME, [third.der[0], next_of("acme's fourth key"), 0], third)
    return steps.scenario(*active(ACME, twin))


def revoke():
    clerk, porter = issued(DESK, "clerk"), issued(DESK, "porter")
    steps = registered(SELLER, DESK).register(GLOBEX)
    steps.register(clerk, issuer=DESK).register(porter, issuer=DESK)
    steps.add("by somebody else's issuer", REVOKE, SELLER, [], GLOBEX, **NOBODY)
    steps.add("by one below", REVOKE, ACME, [], SELLER, **NOBODY)
    steps.add("by itself and its issuer", REVOKE, SELLER, [], SELLER, ACME, **NOBODY)
    steps.add("by its issuer", REVOKE, SELLER, [], ACME)
    steps.add("once", REVOKE, SELLER, [], SELLER, gets="revoked")
    again = issued(ACME, "seller", key=SELLER.key, **later())
    steps.add("the key does not come back", RENEW, SELLER, [again.der[0]], SELLER, gets="revoked")
    steps.add("nothing to delay", DELAY, SELLER, [], SELLER, gets="not_recovering")
    steps.add("no service of a revoked one", SERVICE, SELLER, [b""], SELLER, gets="revoked")
    steps.add("by an ancestor", REVOKE, clerk, [], ACME)
    steps.add("by itself", REVOKE, DESK, [], DESK)
    steps.add("a revoked one revokes nobody else", REVOKE, porter, [], DESK, gets="issuer")
    renewed = issued(DESK, "porter", key=porter.key, **later())
    steps.add("nothing new below a revoked one", RENEW, porter, [renewed.der[0]], porter, gets="issuer")
    steps.add("its own words need nobody above", SERVICE, porter, [b"record"], porter)
    fresh = issued(ACME, "seller", key=p256("seller's next key"), **later(2))
    steps.add("a new key ends it", ROTATE, SELLER, [fresh.der[0], next_of("seller's third key"), None], fresh)
    return steps.scenario(
        *active(ACME, SELLER), (clerk, "revoked", clerk), (DESK, "revoked", DESK), (porter, "revoked", DESK)
    )


def deactivate():
    steps = registered(SELLER, DESK)
    steps.add("by the current key", DEACTIVATE, ACME, [], ACME, **NOBODY)
    steps.add("by the current key, shown", DEACTIVATE, ACME, [], OWN_KEY_SHOWN, gets="not_committed")
    steps.add("by the next key, which nobody knows", DEACTIVATE, ACME, [], HIDDEN, **NOBODY)
    steps.add("an issued one from above", DEACTIVATE, SELLER, [], ACME)
    steps.add("by the next key, shown", DEACTIVATE, ACME, [], NEXT_KEY)
    for op, fields in {
        RENEW: [YOUNGER.der[0]], ROTATE: [ROTATED.der[0], THIRD, None], REVOKE: [], DEACTIVATE: [],
        RECOVER: [FOUND.der[0], next_of("and then"), None, []], DELAY: [], GUARDIANS: [[], 0, 3600], SERVICE: [b""],
    }.items():  # fmt: skip
        steps.add("nothing follows", op, ACME, fields, ACME, gets="deactivated")
    steps.register(ACME, shows="nor anew", previous=b"", gets="taken")
    steps.register(issued(ACME, "late"), issuer=ACME, shows="nobody below it", gets="issuer")
    return steps.scenario(
        (ACME, "deactivated", ACME), (SELLER, "deactivated", SELLER), (DESK, "deactivated", ACME)
    )


def guardians():
    steps, fields = registered(SELLER), [HASHES, 2, 3600]
    steps.add("by the current key, shown", GUARDIANS, ACME, fields, OWN_KEY_SHOWN, gets="not_committed")
    steps.add("by the next key, not shown", GUARDIANS, ACME, fields, HIDDEN, **NOBODY)
    steps.add("by the next key", GUARDIANS, ACME, fields, NEXT_KEY)
    next_key = (SELLER.id, p256("seller's next key"), True)
    steps.add("an issued ID has none", GUARDIANS, SELLER, fields, next_key, gets="malformed")
    steps.add("but a delay", GUARDIANS, SELLER, [[], 0, 7200], next_key)
    return steps.scenario(*active(ACME, SELLER))


def service():
    steps = registered(SELLER)
    steps.add("by the issuer", SERVICE, SELLER, [b"any bytes"], ACME, **NOBODY)
    steps.add("the log does not read it", SERVICE, SELLER, [b"any bytes"], SELLER)
    steps.add("taken back", SERVICE, SELLER, [b""], SELLER)
    return steps.scenario(*active(SELLER))


def void_from():
    steps, forged = registered(SELLER), issued(ACME, "forged")
    index = len(steps.leaves)
    steps.register(forged, issuer=ACME, shows="by a thief")
    steps.add("void from then on", ROTATE, ACME, [ROTATED.der[0], THIRD, index], ROTATED)
    below = issued(forged, "below")
    steps.register(below, issuer=forged, shows="what is void issues nothing", gets="issuer")
    return steps.scenario(*active(ACME, SELLER), (forged, "revoked", ACME))


def outrun():
    steps = registered()
    first, far = steps.last[ACME.id], rotated(ACME, ACME.key, next_key=NEXT, **later(12))
    steps.add("a thief renews far ahead", RENEW, ACME, [far.der[0]], ACME)
    early = rotated(ACME, ROTATED.key, following="acme's third key", **later(-24))
    fields = [early.der[0], THIRD, None]
    steps.add("a rotation may begin earlier", ROTATE, ACME, fields, early, previous=first)
    older = rotated(ACME, ROTATED.key, next_key=THIRD, **later(-25))
    steps.add("a renewal may not", RENEW, ACME, [older.der[0]], ROTATED, gets="certificate")
    same = rotated(ACME, ROTATED.key, next_key=THIRD, **later(-24))
    steps.add("nor begin with it", RENEW, ACME, [same.der[0]], ROTATED, gets="certificate")
    steps.add("later than its own key's", RENEW, ACME, [ROTATED.der[0]], ROTATED)
    return steps.scenario(*active(ACME))


def below_a_revoked_one():
    names = ("silent", "gone", "saved", "stuck", "late")
    silent, gone, saved, stuck, late = (issued(DESK, name) for name in names)
    steps = registered(DESK)
    for holder in (silent, gone, saved, stuck):
        steps.register(holder, issuer=DESK)
    found = issued(DESK, "saved", key=p256("saved found again"), **later())
    steps.add("by its issuer", RECOVER, saved, [found.der[0], next_of("later"), None, []], found, DESK)
    steps.add("the end of it", REVOKE, DESK, [], ACME)
    steps.register(late, issuer=DESK, shows="nothing new below it", gets="issuer")
    fresh = issued(DESK, "stuck", key=p256("stuck's next key"), **later())
    fields = [fresh.der[0], next_of("later"), None]
    steps.add("no other key", ROTATE, stuck, fields, fresh, gets="issuer")
    steps.add("by nobody", RECOVER, stuck, [*fields, []], fresh, DESK, gets="issuer")
    steps.add("it ends nobody", DEACTIVATE, stuck, [], DESK, gets="issuer")
    for shows, op, holder, fields, signer in (
        ("a revocation", REVOKE, silent, [], silent),
        ("a deactivation", DEACTIVATE, gone, [], (gone.id, p256("gone's next key"), True)),
        ("a delay", DELAY, saved, [], saved),
        ("another delay of recoveries", GUARDIANS, stuck, [[], 0, 7200], (stuck.id, fresh.key, True)),
        ("a service record", SERVICE, stuck, [b"record"], stuck),
    ):
        steps.add(shows, op, holder, fields, signer)
    return steps.scenario(
        (silent, "revoked", silent), (gone, "deactivated", gone), (saved, "recovering", saved),
        (stuck, "revoked", DESK),
    )  # fmt: skip


def successors():
    steps = registered()

    def rotate(number, void_from, **odd):
        key, following = "acme's next key" if number == 1 else f"key {number}", f"key {number + 1}"
        made = rotated(ACME, p256(key), following=following, **later())
        fields = [made.der[0], next_of(following), void_from]
        steps.add(f"rotation {number}", ROTATE, ACME, fields, made, **odd)

    for number in range(1, 17):
        rotate(number, 0)
    rotate(17, 0, gets="malformed")
    for number in range(17, 33):
        rotate(number, None)
    rotate(33, None, gets="not_committed")
    return steps.scenario(*active(ACME))


def judging():
    steps, elsewhere = registered(SELLER), {"origin": ELSEWHERE}
    over = {"begin": NOW - timedelta(days=20), "end": NOW - timedelta(days=10)}
    other, late = issued(ACME, "other"), issued(ACME, "other", **over)
    far = rotated(ACME, p256("another key"), next_key=NEXT, **later()).der[0]
    rotation, thief = ROTATED.der[0], THIEF.der[0]
    for shows, gets, op, fields, signer, odd in (
        ("form, origin", "malformed", REVOKE, [b""], ACME, elsewhere),
        ("origin, expires_at", "wrong_log", REVOKE, [], ACME, elsewhere | {"expires": MICROS}),
        ("expires_at, the table", "expired", DELAY, [], ACME, {"expires": MICROS}),
        ("the table, previous", "not_recovering", DELAY, [], ACME, {"previous": bytes(32)}),
        ("previous, certificate", "stale", RENEW, [far], ACME, {"previous": bytes(32)}),
        ("certificate, not committed", "certificate", ROTATE, [thief, next_of("else"), None], THIEF, {}),
        ("not committed, void_from", "not_committed", ROTATE, [thief, THIRD, 99], THIEF, {}),
        ("void_from, who signs", "malformed", ROTATE, [rotation, THIRD, 99], ACME, {}),
    ):
        steps.add(shows, op, ACME, fields, signer, gets=gets, **odd)
    heir = root("heir", key=ACME.key)
    for shows, gets, holder, odd in (
        ("issuer, certificate", "issuer", issued(DESK, "clerk", **over), {"issuer": DESK}),
        ("certificate, key", "certificate", issued(ACME, "other", key=ACME.key, **over), {"issuer": ACME}),
        ("certificate, guardians", "certificate", late, {"issuer": ACME, "guards": HASHES}),
        ("key, what it commits to", "key_used", heir, {"following": THIRD}),
        ("next, what it commits to", "key_used", GLOBEX, {"following": next_of("acme")}),
        ("guardians, who signs", "malformed", other, {"issuer": ACME, "guards": HASHES, "purpose": b"else"}),
    ):
        steps.register(holder, shows=shows, gets=gets, **odd)
    steps.add("guardians, who signs", GUARDIANS, SELLER, [HASHES, 2, 3600], SELLER, gets="malformed")
    return steps.scenario(*active(ACME, SELLER))
