"""HELLO and ACCEPT are written and read from memory where only the clock is new: nothing is read differently for that."""

import pytest

from autolink import codec, limits
from autolink.errors import RemoteProtocolError
from autolink.protocol import payloads
from autolink.protocol.events import Limits

OURS = Limits(limits.CHANNELS, limits.CREDIT, limits.MESSAGE)
CLOCK = 1_700_000_000_000_000
SAID = {"clock": CLOCK, "software": "other/2"}
CLOCKS = [0, 1, 2**32 - 1, 2**32, CLOCK, 2**63 - 1, 2**63, 2**64 - 1]


def said(fields: dict, **more: object) -> bytes:
    return codec.encode(
        {**fields, "versions": [1], "limits": {"channels": 1, "credit": 2, "message": 3}, **more}
    )


def read(parse, payload: bytes) -> object:
    """What a parser makes of a payload, an error's text included."""
    try:
        return parse(payload, (1,))
    except RemoteProtocolError as error:
        return str(error)


@pytest.mark.parametrize("clock", [clock for clock in CLOCKS if clock < 2**63])
@pytest.mark.parametrize("more", [{}, {"chain": [b"root"]}, {"features": ["x"], "evidence": []}])
def test_a_hello_is_the_bytes_that_the_general_way_writes(clock, more):
    fields = {"clock": clock, "software": "other/2", **more}
    for asked in (fields, dict(reversed(fields.items()))):
        for _ in range(2):
            written = payloads.hello_payload(asked, (1,), OURS, 3)
            assert written == payloads._hello_payload(asked, (1,), OURS, 3)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_hello_that_differs_in_its_clock_is_read_as_the_general_way_reads_it(clock):
    for payload in (said({**SAID, "clock": clock}), said({"software": "other/2", "clock": clock})):
        for _ in range(2):
            assert read(payloads.parse_hello, payload) == read(payloads._parse_hello, payload)


def test_no_changed_byte_of_a_hello_is_read_differently():
    """Every byte, eight other values each, the memory full of the real one."""
    payload = said(SAID, chain=[b"root"])
    hello = payloads.parse_hello(payload, (1,))
    later = said({**SAID, "clock": CLOCK + 1}, chain=[b"root"])
    fields = {**hello.fields, "clock": CLOCK + 1}
    assert payloads.parse_hello(later, (1,)) == hello._replace(clock=CLOCK + 1, fields=fields)
    for place in range(len(payload)):
        for bit in range(8):
            changed = bytearray(payload)
            changed[place] ^= 1 << bit
            assert read(payloads.parse_hello, bytes(changed)) == read(payloads._parse_hello, bytes(changed))


def test_what_was_read_once_cannot_be_changed_by_who_got_it():
    first = payloads.parse_hello(said(SAID), (1,))
    first.fields["clock"] = first.fields["software"] = None
    again = payloads.parse_hello(said(SAID), (1,))
    assert (again.clock, again.fields["clock"], again.fields["software"]) == (CLOCK, CLOCK, "other/2")


def test_a_long_hello_and_one_that_is_wrong_are_not_kept():
    memory = payloads._parse_short_hello
    memory.cache_clear()
    payloads.parse_hello(said(SAID, chain=[bytes(limits.HELLO_KEPT)]), (1,))
    assert "no map" not in read(payloads.parse_hello, said(SAID)[:-1])
    assert memory.cache_info().currsize == 0
    payloads.parse_hello(said(SAID), (1,))
    assert memory.cache_info().currsize == 1


def test_an_accept_is_read_by_its_exact_bytes():
    accepted = payloads.accept_payload(1)
    assert payloads.parse_accept(accepted) == payloads.parse_accept(accepted) == 1
    for place in range(len(accepted)):
        changed = bytearray(accepted)
        changed[place] ^= 1
        with pytest.raises(RemoteProtocolError):
            if payloads.parse_accept(bytes(changed)) == 0:  # the version itself, which the link compares
                raise RemoteProtocolError
