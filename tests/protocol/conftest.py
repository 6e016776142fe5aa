"""Two LinkProtocols and the bytes between them."""

from collections.abc import Callable, Iterable

import pytest

from autolink import codec
from autolink.protocol import Event, LinkProtocol
from autolink.protocol.frames import (
    DATA,
    Frame,
    Item,
    encode_batch_frame,
    encode_cancel,
    encode_credit,
    encode_frame,
)

Brief = tuple[int, int, bytes] | Item
"""An item, of which most tests leave out the data that it has none of."""

HELLO = {"clock": 1_700_000_000_000_000, "software": "test/1"}


def whole(items: Iterable[Brief]) -> list[Item]:
    """The items with their data, if nothing else is given what their flags ask for."""
    return [item if len(item) == 4 else (*item, b"data" if item[1] & DATA else b"") for item in items]


class Pair:
    """A dialer, a listener, and what each has learned. Bytes are carried over only by `carry`."""

    def __init__(self, **options) -> None:
        self.dialer = LinkProtocol(True, **options)
        self.listener = LinkProtocol(False, **options)
        self.number = {self.dialer: 0, self.listener: 0}

    def other(self, party: LinkProtocol) -> LinkProtocol:
        return self.listener if party is self.dialer else self.dialer

    def carry(self, sender: LinkProtocol, data: bytes) -> list[Event]:
        """What the other party makes of bytes from `sender`."""
        receiver = self.other(sender)
        receiver.receive_data(data)
        return self.events(receiver)

    def events(self, receiver: LinkProtocol) -> list[Event]:
        found = []
        while (event := receiver.next_event()) is not None:
            found.append(event)
        return found

    def greet(self) -> "Pair":
        for party in (self.dialer, self.listener):
            self.carry(party, party.hello(HELLO))
        return self

    def open(self) -> "Pair":
        self.greet()
        accepts = [(party, party.accept()) for party in (self.dialer, self.listener)]
        for party, data in accepts:
            self.carry(party, data)
        return self

    def batch(self, sender: LinkProtocol, *items: Brief) -> bytes:
        data = b"".join(sender.batch(self.number[sender], b"signature", whole(items)))
        self.number[sender] += 1
        return data

    def say(self, sender: LinkProtocol, *items: Brief) -> list[Event]:
        """Send a batch and deliver it."""
        return self.carry(sender, self.batch(sender, *items))

    def raw(self, sender: LinkProtocol, *items: Brief) -> list[Event]:
        """The same past the sender's own checks: what a peer that breaks the rules would do."""
        data = b"".join(encode_batch_frame(self.number[sender], b"signature", whole(items)))
        self.number[sender] += 1
        return self.carry(sender, data)

    def raw_credit(self, sender: LinkProtocol, channel: int, count: int) -> list[Event]:
        return self.carry(sender, encode_frame(Frame.CREDIT, encode_credit(channel, count)))

    def raw_cancel(self, sender: LinkProtocol, channel: int, code: int = 1) -> list[Event]:
        return self.carry(sender, encode_frame(Frame.CANCEL, encode_cancel(channel, code)))

    def raw_map(self, sender: LinkProtocol, frame: Frame, fields: object) -> list[Event]:
        return self.carry(sender, encode_frame(frame, codec.encode(fields)))

    def channel(self, opener: LinkProtocol) -> int:
        """A channel that is open in both directions, its opening message read."""
        number = opener.open_channel()
        self.say(opener, (number, 1, b"open"))
        return number


@pytest.fixture
def pair() -> Pair:
    """Fresh: nothing was said."""
    return Pair()


@pytest.fixture
def linked() -> Pair:
    """Open."""
    return Pair().open()


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """A pair with options of LinkProtocol, fresh."""
    return Pair
