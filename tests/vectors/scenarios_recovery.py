"""What becomes of lost and stolen keys in a registry's log: recoveries, what ends them, and what follows them."""

from blocks import SECOND, issued, p256, root, rotated
from blocks_registry import (
    DAY,
    DEACTIVATE,
    DELAY,
    GUARDIANS,
    HOUR,
    RECOVER,
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
from scenarios_log import (
    FOUND,
    GUARDS,
    HASHES,
    NEXT,
    NEXT_KEY,
    NOBODY,
    REVEALED,
    ROTATED,
    THIRD,
    YOUNGER,
    active,
    registered,
)


def scenarios():
    """subject `log`."""
    for name, shows, (given, expect) in (
        ("by-guardians", "a new key for a name, after a delay", recover_by_guardians()),
        (
            "by-other-guardians",
            "as many IDs as it takes, besides its own and those below",
            recover_by_other_guardians(),
        ),
        ("by-issuer", "a new key for a name, after a delay", recover_by_issuer()),
        ("and-rotate", "the committed key ends a recovery", recover_and_rotate()),
        ("and-revoke", "what ended the former key does not end the new one", recover_and_revoke()),
        ("outrun", "no thief outruns the guardians, nor what follows a recovery", recover_outrun()),
        ("void-from", "a recovery takes back what its former key has issued", recover_void_from()),
    ):
        yield "log", f"recover-{name}", shows, given, expect


def guarded(hashes=HASHES):
    """A log with acme and its guardians in it."""
    steps = Steps()
    for guard in GUARDS:
        steps.register(guard)
    return steps.register(ACME, guards=hashes)


def recover(steps, shows, revealed, *signers, found=FOUND, void_from=None, **odd):
    steps.add(shows, RECOVER, ACME, [found.der[0], next_of("and then"), void_from, revealed], *signers, **odd)


def recover_by_guardians():
    steps, two, (first, second, third) = guarded(), REVEALED[:2], GUARDS
    stranger = root("stranger", plain=True)
    recover(steps, "one of two", REVEALED[:1], FOUND, first, **NOBODY)
    recover(steps, "one of them twice", REVEALED[:1] * 2, FOUND, first, first, **NOBODY)
    recover(steps, "with another salt", [two[0], [second.id, two[0][1]]], FOUND, first, second, **NOBODY)
    recover(steps, "by a stranger", [two[0], [stranger.id, two[1][1]]], FOUND, first, stranger, **NOBODY)
    recover(steps, "without the new key", two, first, second, **NOBODY)
    recover(steps, "signed by the old key", two, ACME, first, second, **NOBODY)
    recover(steps, "revealed and not signed", two, FOUND, first, **NOBODY)
    recover(steps, "in another order than revealed", two, FOUND, second, first, **NOBODY)
    used = rotated(ACME, first.key, following="and then", recovered_in=log_name(), **later(2))
    recover(steps, "over a key on record", two, used, first, second, found=used, gets="key_used")
    steps.add("a revoked guardian guards nothing", REVOKE, third, [], third)
    recover(steps, "with a revoked one", REVEALED[1:], FOUND, second, third, **NOBODY)
    recover(steps, "two of three", two, FOUND, first, second)
    recover(steps, "one recovery at a time", two, FOUND, first, second, gets="recovering")
    for op, fields, signer in (
        (RENEW, [YOUNGER.der[0]], ACME), (SERVICE, [b""], ACME), (GUARDIANS, [[], 0, 3600], NEXT_KEY),
    ):  # fmt: skip
        steps.add("not while it is recovered", op, ACME, fields, signer, gets="recovering")
    heir = root("heir", key=FOUND.key, plain=True)
    steps.register(heir, shows="the new key waits, and is nobody else's", gets="key_used")
    steps.add("the current key delays it", DELAY, ACME, [], ACME)
    steps.add("once", DELAY, ACME, [], ACME, gets="recovering")
    steps.at += 2 * HOUR - 3 * SECOND
    steps.add("not yet the new key's", SERVICE, ACME, [b""], FOUND, gets="recovering")
    steps.at += 2 * SECOND
    steps.add("no longer the old key's", SERVICE, ACME, [b""], ACME, **NOBODY)
    steps.add("the new key's", SERVICE, ACME, [b""], FOUND)
    return steps.scenario(*active(ACME), (third, "revoked", third))


def recover_by_other_guardians():
    first, second = GUARDS[:2]
    own, once, more = [ACME.id, bytes(16)], REVEALED[0], [first.id, b"another salt ..."]
    agent = [SELLER.id, bytes(16)]
    steps = guarded(
        [guardian(salt, identifier) for identifier, salt in (own, agent, once, more, REVEALED[1])]
    )
    steps.register(SELLER, issuer=ACME, shows="a guardian that it has issued")
    recover(steps, "itself and one", [own, once], FOUND, ACME, first, **NOBODY)
    recover(steps, "one of its own and one", [agent, once], FOUND, SELLER, first, **NOBODY)
    recover(steps, "one by two salts", [once, more], FOUND, first, first, **NOBODY)
    signers = FOUND, ACME, SELLER, first, second
    recover(steps, "two, itself and one of its own", [own, agent, *REVEALED[:2]], *signers)
    return steps.scenario((ACME, "recovering", ACME))


def recover_by_issuer():
    steps = registered(SELLER).register(GLOBEX)
    found = issued(ACME, "seller", key=p256("seller found again"), **later())
    fields = [found.der[0], next_of("seller's later key"), None, [[GLOBEX.id, bytes(16)]]]
    steps.add("by the new key alone", RECOVER, SELLER, fields, found, **NOBODY)
    steps.add("by another issuer", RECOVER, SELLER, fields, found, GLOBEX, **NOBODY)
    steps.add("by its issuer, whoever is revealed", RECOVER, SELLER, fields, found, ACME)
    steps.add("the key that goes can still be revoked", REVOKE, SELLER, [], SELLER)
    steps.add("once", REVOKE, SELLER, [], SELLER, gets="revoked")
    steps.add("and delays nothing then", DELAY, SELLER, [], SELLER, gets="revoked")
    return steps.scenario((SELLER, "recovering", SELLER))


def recover_and_rotate():
    steps = guarded()
    first, fields = steps.last[ACME.id], [ROTATED.der[0], THIRD, None]
    recover(steps, "two guardians", REVEALED[:2], FOUND, *GUARDS[:2])
    steps.add(
        "following what the recovery followed", ROTATE, ACME, fields, ROTATED, previous=first, gets="stale"
    )
    steps.add("the committed key ends it", ROTATE, ACME, fields, ROTATED)
    steps.at += 2 * HOUR
    steps.add("it never takes place", SERVICE, ACME, [b""], FOUND, **NOBODY)
    steps.add("the second key's", SERVICE, ACME, [b""], ROTATED)
    heir, other = root("heir", key=FOUND.key, plain=True), root("heir", plain=True)
    steps.register(heir, shows="the key that waited in vain is nobody's", gets="key_used")
    following = next_of("acme found again")
    steps.register(other, following=following, shows="nor anybody's next", gets="key_used")
    again = rotated(ACME, FOUND.key, following="and then", recovered_in=log_name(), **later(3))
    recover(steps, "nor recovers it again", REVEALED[:2], again, *GUARDS[:2], found=again, gets="key_used")
    return steps.scenario(*active(ACME))


def recover_and_revoke():
    steps = registered(SELLER)
    found = issued(ACME, "seller", key=p256("seller found again"), **later())
    steps.add("by its issuer", RECOVER, SELLER, [found.der[0], next_of("and then"), None, []], found, ACME)
    begun, lasting = steps.last[SELLER.id], {"expires": steps.at + DAY}
    steps.add("the issuer ends the former key", REVOKE, SELLER, [], ACME, **lasting)
    ended = steps.last[SELLER.id]
    steps.at += HOUR
    steps.add("the same entry again", REVOKE, SELLER, [], ACME, previous=begun, gets="stale", **lasting)
    steps.add("the new key stands", SERVICE, SELLER, [b"record"], found)
    steps.add("still", REVOKE, SELLER, [], ACME, previous=begun, gets="stale", **lasting)
    steps.add("following the last before it took place", REVOKE, SELLER, [], ACME, previous=ended)
    return steps.scenario((SELLER, "revoked", SELLER))


def recover_outrun():
    steps = guarded()
    first, far = steps.last[ACME.id], rotated(ACME, ACME.key, next_key=NEXT, **later(12))
    steps.add("a thief renews far ahead", RENEW, ACME, [far.der[0]], ACME)
    recover(steps, "a recovery may begin earlier", REVEALED[:2], FOUND, *GUARDS[:2], previous=first)
    begun = steps.last[ACME.id]
    steps.add("the thief delays it", DELAY, ACME, [], ACME)
    delayed = steps.last[ACME.id]
    steps.at += 2 * HOUR
    steps.add("a thief of the new key, too", SERVICE, ACME, [b"record"], FOUND)
    then = (ACME.id, p256("and then"), True)
    fields = [HASHES, 2, 3600]
    steps.add("following the start of it", GUARDIANS, ACME, fields, then, previous=begun, gets="stale")
    steps.add("following what that followed", GUARDIANS, ACME, fields, then, previous=first, gets="stale")
    steps.add("following the last before it took place", GUARDIANS, ACME, fields, then, previous=delayed)
    steps.add("this is the last of them now", DEACTIVATE, ACME, [], then, previous=delayed, gets="stale")
    return steps.scenario(*active(ACME))


def recover_void_from():
    steps, before, forged = guarded(), issued(ACME, "before"), issued(ACME, "forged")
    steps.register(before, issuer=ACME)
    index = len(steps.leaves)
    steps.register(forged, issuer=ACME, shows="by a thief")
    steps.add("revocations stand", REVOKE, before, [], ACME)
    odd = {"void_from": index + 3, "gets": "malformed"}
    recover(steps, "void from beyond its own index", REVEALED[:2], FOUND, *GUARDS[:2], **odd)
    recover(steps, "void from then on", REVEALED[:2], FOUND, *GUARDS[:2], void_from=index)
    steps.at += HOUR
    return steps.scenario(*active(ACME), (before, "revoked", before), (forged, "revoked", ACME))
