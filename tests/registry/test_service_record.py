"""What an agent says of itself on record: one encoding, bounded, and nothing in it that cannot be shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from autolink import Call, Channel, Handlers, codec, limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.messages import microseconds
from autolink.registry.service_record import TAG, Offer, ServiceRecord, describe

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Order(BaseModel):
    item: str
    count: int = 1


def handlers() -> Handlers:
    made = Handlers()

    @made.method
    async def quote(call: Call, order: Order) -> float:
        return 1.0

    @made.method("anything")
    async def anything(call: Call, body: object) -> object:
        return body

    @made.channel
    async def prices(channel: Channel[float, str]) -> None:
        pass

    return made


def record(**changes: Any) -> list[Any]:
    values = {
        "tag": TAG,
        "addresses": ["seller.example:4433"],
        "methods": [],
        "channels": [],
        "until": 5,
    } | changes
    return list(values.values())


def test_an_agents_handlers_are_described_with_their_schemas() -> None:
    made = describe(handlers(), ["seller.example:4433", "[2606:4700::1]:1"], now=NOW)
    assert [offer.name for offer in made.methods] == ["anything", "quote"]
    anything, quote = made.methods
    assert (anything.takes, anything.gives) == ({}, {})
    assert quote.takes["required"] == ["item"]
    assert quote.gives == {"type": "number"}
    (prices,) = made.channels
    assert (prices.takes, prices.gives) == ({"type": "string"}, {"type": "number"})
    assert made.valid_until == microseconds(NOW + timedelta(seconds=limits.SERVICE_LIFETIME))
    again = ServiceRecord.from_untrusted(made.to_bytes())
    assert again == made
    assert again.says_the_same(
        describe(handlers(), list(map(str, made.addresses)), now=NOW + timedelta(days=1))
    )
    bare = describe(handlers(), ["seller.example:4433"], now=NOW, schemas=False)
    assert [offer.takes for offer in bare.methods] == [{}, {}]


@pytest.mark.parametrize(
    "changes",
    [
        {"tag": "autolink/1 entry"},
        {"addresses": []},
        {"addresses": ["a:1", "a:1"]},
        {"addresses": [f"a:{port}" for port in range(1, 18)]},
        {"addresses": ["unix:/run/agent"]},
        {"addresses": ["a:0"]},
        {"addresses": ["A:1"]},
        {"addresses": ["127.1:1"]},
        {"addresses": ["a:01"]},
        {"addresses": ["[fe80::1%eth0]:1"]},
        {"addresses": [b"a:1"]},
        {"addresses": ["a\u202e:1"]},
        {"methods": [["b", {}, {}], ["a", {}, {}]]},
        {"methods": [["a", {}, {}]], "channels": [["a", {}, {}]]},
        {"methods": [["a", {}]]},
        {"methods": [["a", [], {}]]},
        {"methods": [["", {}, {}]]},
        {"methods": [["a" * 256, {}, {}]]},
        {"methods": [["a\x1b[2J", {}, {}]]},
        {"methods": [["a\u202eb", {}, {}]]},
        {"methods": [["a\U00011f02", {}, {}]]},
        {"methods": [["a", {"title": "x" * 4096}, {}]]},
        {"methods": [[f"{number:03}", {}, {}] for number in range(257)]},
        {"methods": [["a", {"enum": [None] * 3000}, {}], ["b", {"enum": [None] * 3000}, {}]]},
        {"until": 0},
        {"until": True},
        {"until": 2**63},
        {"more": 1},
    ],
)
def test_a_hostile_record_is_refused(changes: dict[str, Any]) -> None:
    ServiceRecord.from_untrusted(codec.encode(record()))
    with pytest.raises(RemoteProtocolError):
        ServiceRecord.from_untrusted(codec.encode(record(**changes)))


def test_a_record_changed_byte_by_byte_is_refused_or_another_one() -> None:
    """Whatever the bytes, nothing but `RemoteProtocolError` comes out, and what is taken has one encoding."""
    data = describe(handlers(), ["seller.example:4433"], now=NOW).to_bytes()
    for place in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            bad = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
            try:
                read = ServiceRecord.from_untrusted(bad)
            except RemoteProtocolError:
                continue
            assert read.to_bytes() == bad
    for cut in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            ServiceRecord.from_untrusted(data[:cut])
    with pytest.raises(RemoteProtocolError, match="are allowed"):
        ServiceRecord.from_untrusted(bytes(limits.SERVICE + 1))


def test_what_no_reader_would_take_is_not_made() -> None:
    for addresses in ([], ["unix:/run/agent"], ["a:0"], ["a:1", "a:1"], ["nonsense"]):
        with pytest.raises(UsageError):
            describe(handlers(), addresses, now=NOW)
    for lifetime in (timedelta(0), timedelta(days=400)):
        with pytest.raises(UsageError, match="at most 366 days"):
            describe(handlers(), ["a:1"], now=NOW, lifetime=lifetime)
    large = {"title": "x" * 4000}
    offers = tuple(Offer(f"m{number}", large, {}) for number in range(5))
    with pytest.raises(UsageError, match="leave schemas out"):
        ServiceRecord((describe(handlers(), ["a:1"], now=NOW).addresses[0],), offers, (), 5).to_bytes()
    deep: dict[str, Any] = {}
    for _ in range(31):
        deep = {"not": deep}
    with pytest.raises(UsageError, match="leave schemas out"):
        ServiceRecord(
            describe(handlers(), ["a:1"], now=NOW).addresses, (Offer("m", deep, {}),), (), 5
        ).to_bytes()
    for schema in ({"maximum": 2**70}, {"title": "x" * 5000}):
        with pytest.raises(UsageError, match="schema"):
            ServiceRecord(describe(handlers(), ["a:1"], now=NOW).addresses, (Offer("m", schema, {}),), (), 5)
    with pytest.raises(UsageError, match="after 1970"):
        ServiceRecord(describe(handlers(), ["a:1"], now=NOW).addresses, (), (), 0)
