"""How autolink runs the vectors of a registry: each takes a scenario's input and says what its `expect` says."""

from contextlib import suppress
from unittest import mock

from autolink import codec, limits
from autolink.errors import EntryRefused
from autolink.messages import instant, merkle, microseconds
from autolink.registry import crl, feed, receipt
from autolink.registry.entries import Entry, encode_leaf
from autolink.registry.ledger import standing
from autolink.registry.log.checkpoint import verify_untrusted as verify_checkpoint
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.log.tree import check_consistency
from autolink.registry.service_record import ServiceRecord
from autolink.registry.state import apply
from autolink.registry.status import verify_untrusted as verify_status
from autolink.registry.temporary import TemporaryLedger
from autolink.registry.trust import Registered
from autolink.trust.model import Context, Contradicted, NotVouched
from autolink.trust.presented import sound


def shown(value):
    """Bytes as hexadecimal, everywhere."""
    if isinstance(value, bytes):
        return value.hex()
    return [shown(each) for each in value] if isinstance(value, list) else value


def entry(given):
    data = given.hex("entry")
    parsed = Entry.from_untrusted(data)
    assert parsed.with_signatures(parsed.signatures).to_bytes() == data  # made again, from what was read
    values = codec.decode_untrusted(parsed.body, what="vector")[6]
    return {
        "op": parsed.op, "id": parsed.auto_id.hex, "previous": parsed.previous.hex(), "expires_at": parsed.expires_at,
        "fields": dict(zip(given.expected["fields"], shown(values), strict=True)),
        "signatures": [[one.by.hex, one.key.hex(), one.value.hex()] for one in parsed.signatures],
        "body_hash": parsed.hash.hex(),
    }  # fmt: skip


def service(given):
    record = ServiceRecord.from_untrusted(given.hex("record"))
    offers = [
        [[offer.name, offer.takes, offer.gives] for offer in each] for each in (record.methods, record.channels)
    ]  # fmt: skip
    addresses = [str(address) for address in record.addresses]
    return {
        "addresses": addresses, "methods": offers[0], "channels": offers[1], "valid_until": record.valid_until,
    }  # fmt: skip


def log(given):
    origin, ledger, leaves = given.take("origin"), TemporaryLedger(), []
    for step in given.take("steps"):
        data, now = bytes.fromhex(step.pop("entry")), step.pop("at")
        shows, wanted = step.pop("shows"), step.pop("gets")
        assert not step
        try:
            ledger.take(apply(ledger, Entry.from_untrusted(data), origin=origin, now=now, index=len(leaves)))
            leaves.append(merkle.leaf_hash(encode_leaf(now, data)))
            gets = "appended"
        except EntryRefused as refused:
            gets = refused.fault.value
        assert gets == wanted, shows
    at, stands = given.take("at"), {}
    for auto_id in ledger.ids():
        where = standing(ledger, ledger.record(auto_id), at)
        stands[auto_id.hex] = [where.state, where.because.hex]
    return {
        "leaf_hashes": [leaf.hex() for leaf in leaves], "root": merkle.root(leaves).hex(),
        "standing": {auto_id: stands[auto_id] for auto_id in given.expected["standing"]},
    }  # fmt: skip


def revocation_list(given):
    der, certificate, size, at = (
        given.hex("crl"),
        given.hex("certificate"),
        given.take("size"),
        given.take("at"),
    )
    checked = crl.check_untrusted(der, certificate)
    crl.check_times(checked, size=size, now=instant(at))
    serial_numbers = [one.serial_number for one in crl.load_untrusted(der)]
    return {
        "size": checked.size, "this_update": microseconds(checked.this_update), "serial_numbers": serial_numbers,
    }  # fmt: skip


def log_key(given):
    return VerifierKey(given.take("origin"), given.hex("key"))


def checkpoint(given):
    key, note = log_key(given), given.hex("note")
    signed = verify_checkpoint(note, key)
    return {"size": signed.size, "root": signed.root.hex()}


def proof(given):
    key, leaf_hash = log_key(given), merkle.leaf_hash(given.hex("leaf"))
    parsed = LogProof.from_untrusted(given.hex("proof"))
    signed = parsed.verify(leaf_hash, key)
    return {"index": parsed.index, "size": signed.size, "root": signed.root.hex()}


def consistency(given):
    (old, new), roots = given.take("sizes"), [bytes.fromhex(root) for root in given.take("roots")]
    check_consistency(old, roots[0], new, roots[1], [bytes.fromhex(node) for node in given.take("path")])
    return {}


def receipt_(given):
    key, word, submitted = log_key(given), given.hex("word"), Entry.from_untrusted(given.hex("submitted"))
    at = given.take("at")
    parsed = receipt.verify_untrusted(word, key, submitted)
    receipt.check_fresh(parsed, at)
    return {"entry": parsed.entry.hex(), "received_at": parsed.received_at, "deadline": parsed.deadline}


def change(given):
    key, word = log_key(given), given.hex("word")
    parsed = feed.verify_untrusted(word, key)
    return {
        "id": parsed.auto_id.hex, "op": parsed.op, "state": parsed.state, "index": parsed.index, "at": parsed.at,
    }  # fmt: skip


async def judge(model, chain, status, now):
    """By the statuses' own model, as the evidence of a chain."""
    await model.verify(sound(chain, evidence=[status], now=now), Context(now, "inbound"))


async def status(given):
    """Judged by a model that has seen and heard other things of the log before."""
    key, now = log_key(given), instant(given.take("at"))
    max_age = given.take("max_age")
    model = Registered(key, max_age=None if max_age is None else max_age / 1e6)
    chain, data = [bytes.fromhex(each) for each in given.take("chain")], given.hex("status")
    for seen in map(bytes.fromhex, given.take("seen")):
        with suppress(Contradicted):
            await judge(model, chain, seen, now)
    with mock.patch.object(limits, "CHANGES_TOLD", 0):
        for told in map(bytes.fromhex, given.take("forgotten")):
            model.heed(feed.verify_untrusted(told, key))
    for told in map(bytes.fromhex, given.take("changes")):
        model.heed(feed.verify_untrusted(told, key))
    try:
        await judge(model, chain, data, now)
    except (Contradicted, NotVouched) as refused:
        return refused.reason.value
    verified = verify_status(data, key)
    said = verified.status
    return {
        "state": said.state, "because": said.because.hex, "entries": said.entries, "size": verified.checkpoint.size,
        "at": said.at,
    }  # fmt: skip


async def again(given):
    key, now, anew = log_key(given), instant(given.take("at")), []
    model = Registered(key)
    for chain, shown in given.take("shown"):
        epoch = model.epoch
        with suppress(Contradicted):
            await judge(model, [bytes.fromhex(each) for each in chain], bytes.fromhex(shown), now)
        anew.append(model.epoch > epoch)
    return {"again": anew}


RUNNERS = {
    "entry": entry, "service": service, "log": log, "checkpoint": checkpoint, "proof": proof,
    "consistency": consistency, "receipt": receipt_, "change": change, "status": status, "again": again,
    "crl": revocation_list,
}  # fmt: skip
