"""Entries as bytes: one encoding, every field bounded, and nothing but EntryRefused for what is malformed."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolink import codec, limits
from autolink.errors import EntryRefused, Fault
from autolink.identity import AutoId
from autolink.registry.entries import FIRST, Entry, Guardians, Op, Signature, guardian_hash

ID = AutoId(bytes(32))
SIGNED = (Signature(ID, b"", b"signature"),)
NAMED = Guardians(tuple(bytes([number]) * 32 for number in range(3)), 2, 7200)


def entry(op: Op) -> Entry:
    """One of each kind, with every field that it has."""
    brings = {
        Op.REGISTER: {"certificate": b"c", "next_key": bytes(32), "guardians": NAMED, "issuer": ID},
        Op.RENEW: {"certificate": b"c"},
        Op.ROTATE: {"certificate": b"c", "next_key": bytes(32), "void_from": 7},
        Op.RECOVER: {"certificate": b"c", "next_key": bytes(32), "revealed": ((ID, bytes(16)),)},
        Op.GUARDIANS: {"guardians": NAMED},
        Op.SERVICE: {"service": b"s"},
    }.get(op, {})
    previous = FIRST if op is Op.REGISTER else bytes(32)
    return Entry("log.example", op, ID, previous, 1, signatures=SIGNED, **brings)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", list(Op))
def test_an_entry_reads_as_it_was_written(op: Op) -> None:
    made = entry(op)
    read = Entry.from_untrusted(made.to_bytes())
    assert read == made
    assert read.signatures == made.signatures
    assert read.to_bytes() == made.to_bytes()
    assert read.hash == made.hash


@pytest.mark.parametrize("op", list(Op))
def test_bytes_that_are_taken_are_the_ones_that_would_be_written(op: Op) -> None:
    data = entry(op).to_bytes()
    for place in range(len(data)):
        for bit in (0x01, 0x80):
            changed = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            with suppress(EntryRefused):
                assert Entry.from_untrusted(changed).to_bytes() == changed


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    with pytest.raises(EntryRefused):
        Entry.from_untrusted(data)


def _body(**changes: Any) -> bytes:
    values = {
        "tag": "autolink/1 entry", "origin": "log", "op": 9, "id": bytes(32), "previous": bytes(32), "expires": 1,
        "fields": [b"s"],
    } | changes  # fmt: skip
    return codec.encode([codec.encode(list(values.values())), [[bytes(32), b"", b"x"]]])


@pytest.mark.parametrize(
    "changes",
    [
        {"tag": "autolink/2 entry"},
        {"origin": ""},
        {"origin": "o" * 256},
        {"op": 0},
        {"op": 10},
        {"op": True},
        {"op": 1.0},
        {"id": bytes(31)},
        {"previous": b""},
        {"previous": bytes(33)},
        {"expires": 0},
        {"expires": 2**63},
        {"expires": True},
        {"fields": []},
        {"fields": [b"s", b"s"]},
        {"fields": ["s"]},
        {"fields": [bytes(limits.SERVICE + 1)]},
        {"op": 1, "previous": b"", "fields": [bytes(31), b"c", bytes(32), [], 0, 7200]},
        {"op": 1, "fields": [None, b"c", bytes(32), [], 0, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"", bytes(32), [], 0, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(31), [], 0, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [], 1, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [bytes(32)], 0, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [bytes(32)], 2, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [bytes(32)] * 2, 1, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [b"\1" * 32, bytes(32)], 1, 7200]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [], 0, 3599]},
        {"op": 1, "previous": b"", "fields": [None, b"c", bytes(32), [], 0, 90 * 86400 + 1]},
        {"op": 3, "fields": [b"c", bytes(32), -1]},
        {"op": 6, "fields": [b"c", bytes(32), None, [[bytes(32), bytes(15)]]]},
        {"op": 6, "fields": [b"c", bytes(32), None, [[bytes(32), bytes(16)]] * 9]},
        {"op": 6, "fields": [b"c", bytes(32), None, [bytes(32)]]},
    ],
)
def test_every_field_is_bounded(changes: dict[str, Any]) -> None:
    assert Entry.from_untrusted(_body())
    with pytest.raises(EntryRefused) as refusal:
        Entry.from_untrusted(_body(**changes))
    assert refusal.value.fault is Fault.MALFORMED


@pytest.mark.parametrize(
    "signature",
    [[bytes(31), b"", b"x"], [bytes(32), b"", b""], [bytes(32), "", b"x"], [bytes(32), b"x"], b"x",
     [bytes(32), b"", bytes(limits.SIGNATURE + 1)], [bytes(32), bytes(limits.CERTIFICATE + 1), b"x"]],
)  # fmt: skip
def test_every_signature_is_bounded(signature: Any) -> None:
    with pytest.raises(EntryRefused):
        Entry.from_untrusted(codec.encode([entry(Op.RENEW).body, [signature]]))


def test_an_entry_is_its_body_whatever_signs_it() -> None:
    made = entry(Op.SERVICE)
    other = made.with_signatures((Signature(ID, b"", b"another"),))
    assert other.hash == made.hash
    assert other.to_bytes() != made.to_bytes()


def test_a_guardian_is_hidden_by_its_salt() -> None:
    assert guardian_hash(ID, bytes(16)) != guardian_hash(ID, b"\1" * 16)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "elsewhere"},
        {"auto_id": AutoId(b"\1" * 32)},
        {"previous": b"\1" * 32},
        {"expires_at": 2},
        {"service": b"t"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_signature_covers_every_field(change: dict[str, Any]) -> None:
    values = {
        "origin": "log",
        "op": Op.SERVICE,
        "auto_id": ID,
        "previous": bytes(32),
        "expires_at": 1,
        "service": b"s",
    }
    assert Entry(**values).preimage(ID, b"") != Entry(**values | change).preimage(ID, b"")  # type: ignore[arg-type]
