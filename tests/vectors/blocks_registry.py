"""What a registry records and signs (docs/spec.md, sections 20 to 25), on the same plain footing as `blocks`."""

import base64
from datetime import timedelta

from blocks import MICROS, NOW, SECOND, ed, leaf_hash, p256, pack, path, sha256, sign, spki, split, tree

ORIGIN, ELSEWHERE = "registry.example/log", "registry.example/other"
LOG_KEY, OTHER = ed("the registry's log"), ed("another log")
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
REGISTER, RENEW, ROTATE, REVOKE, DEACTIVATE, RECOVER, DELAY, GUARDIANS, SERVICE = range(1, 10)
ENTRY = b"autolink/1 entry-signature\0"


def raw(key):
    """The 32 bytes of an Ed25519 key."""
    return spki(key)[-32:]


LOG = {"origin": ORIGIN, "key": raw(LOG_KEY)}


def log_name(key=LOG_KEY):
    """What a certificate's extension *recovered in* says of a log."""
    return sha256(spki(key))


def next_of(label):
    """SHA-256 of the SPKI of a key of this label."""
    return sha256(spki(p256(label)))


def label(holder):
    """The name without what binds it."""
    return holder.name.split("~")[0]


def guardian(salt, identifier):
    return sha256(b"autolink/1 guardian\0" + salt + identifier)


# --- certificates that follow each other --------------------------------------------------------------------


def later(hours=1):
    """When a certificate begins that follows those of `blocks`; all of them are valid at NOW."""
    return {"begin": NOW - timedelta(days=1) + timedelta(hours=hours)}


# --- entries ------------------------------------------------------------------------------------------------


def body(
    op, identifier, fields, *, previous=b"", expires=MICROS + DAY, origin=ORIGIN, tag="autolink/1 entry"
):
    return pack([tag, origin, op, identifier, previous, expires, fields])


def signature(signed, by, key, *, shown=False, purpose=ENTRY):
    """`[by, key, value]`; `shown` where nobody else has the key."""
    public = spki(key)
    return [by, public if shown else b"", sign(key, purpose + by + sha256(public) + sha256(signed))]


def signatures(signed, signers, **odd):
    """One each, of holders or `(AutoId, key)`, or `(AutoId, key, True)`: its key shown."""
    whose = [(each.id, each.key) if hasattr(each, "key") else each for each in signers]
    return [signature(signed, *who[:2], shown=len(who) > 2, **odd) for who in whose]


def entry(signed, *signatures):
    return pack([signed, list(signatures)])


# --- the log ------------------------------------------------------------------------------------------------


def key_id(name, key):
    """Of C2SP's signed-note, for Ed25519."""
    return sha256(name.encode() + b"\n\x01" + raw(key))[:4]


def note(text, *, name=ORIGIN, key=LOG_KEY, shown=None):
    signed = key_id(name, shown or key) + key.sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(signed).decode()}\n"


def checkpoint(leaves, *, origin=ORIGIN, **odd):
    """Of C2SP's tlog-checkpoint, over the leaves."""
    return note(f"{origin}\n{len(leaves)}\n{base64.b64encode(tree(leaves)).decode()}\n", **odd)


def proof(leaves, index, *, hashes=None, signed=None, shown=None, extra=""):
    """Of C2SP's tlog-proof: a leaf of this index is in a log of these leaves."""
    hashes = path(leaves, index) if hashes is None else hashes
    lines = "".join(base64.b64encode(each).decode() + "\n" for each in hashes)
    head = f"c2sp.org/tlog-proof@v1\n{extra}index {index if shown is None else shown}\n"
    return (head + lines + "\n" + (signed or checkpoint(leaves))).encode()


def consistency(leaves, first):
    """RFC 9162, section 2.1.4.1, from the leaves before `first` to all of them."""

    def steps(count, part, whole):
        if count == len(part):
            return [] if whole else [tree(part)]
        k = split(len(part))
        if count <= k:
            return [*steps(count, part[:k], whole), tree(part[k:])]
        return [*steps(count - k, part[k:], False), tree(part[:k])]

    return steps(first, leaves, True)


def leaf(at, logged):
    return pack([at, logged])


# --- what the log says --------------------------------------------------------------------------------------


def said(purpose, value, *, key=LOG_KEY, domain=None):
    """`[body, signature]` of a receipt or a change."""
    signed = pack([f"autolink/1 {purpose}", *value])
    domain = f"autolink/1 {purpose}\0".encode() if domain is None else domain
    return [signed, key.sign(domain + signed)]


def status(leaves, index, identifier, chain, *, at, entries, proved=None, key=LOG_KEY, domain=None, **odd):
    """A status of the holder of a chain, leaf first, whose last entry is the leaf `index`; `odd` replaces fields."""
    fields = {
        "origin": ORIGIN, "id": identifier, "state": "active", "because": identifier,
        "certificate": sha256(chain[0].der[0]), "key": sha256(spki(chain[0].key)),
        "issuers": [sha256(spki(above.key)) for above in chain[1:]], "entries": entries,
        "head": leaf_hash(leaves[index]), "at": at, "expires_at": at + HOUR,
    }  # fmt: skip
    assert set(odd) <= set(fields)
    made = said("status", (fields | odd).values(), key=key, domain=domain)
    return [*made, proof(leaves, index) if proved is None else proved]


# --- a log as it grows --------------------------------------------------------------------------------------


class Steps:
    """Entries in the order in which a log gets them, with what each `gets`; refused ones leave nothing."""

    def __init__(self):
        self.made, self.leaves, self.last, self.at = [], [], {}, MICROS

    def add(self, shows, op, holder, fields, *signers, gets="appended", purpose=ENTRY, forged=list, **odd):
        """One entry, signed as `signatures` says; `forged` makes others of them."""
        signed = body(op, holder.id, fields, **{"previous": self.last.get(holder.id, b""), **odd})
        given = entry(signed, *forged(signatures(signed, signers, purpose=purpose)))
        self.made.append({"shows": shows, "at": self.at, "entry": given, "gets": gets})
        if gets == "appended":
            self.leaves.append(leaf(self.at, given))
            self.last[holder.id] = sha256(signed)
            self.at += SECOND
        return self

    def register(self, holder, *, issuer=None, following=None, guards=(), shows="registered", **odd):
        fields = [
            issuer and issuer.id, holder.der[0], following or next_of(label(holder) + "'s next key"), sorted(guards),
            min(2, len(guards)), 3600,
        ]  # fmt: skip
        return self.add(shows, REGISTER, holder, fields, holder, *([issuer] if issuer else []), **odd)

    def scenario(self, *standing):
        """The input and the outcome: how IDs stand at the end, each `(holder, state, whose record decides)`."""
        given = {"origin": ORIGIN, "steps": self.made, "at": self.at}
        hashes = [leaf_hash(each) for each in self.leaves]
        stands = {holder.id.hex(): [state, because.id] for holder, state, because in standing}
        return given, {"leaf_hashes": hashes, "root": tree(self.leaves), "standing": stands}
