"""What an agent says of itself on record: where it is reached, and what it offers.

::

    record    ["autolink/1 service", addresses, methods, channels, valid_until]
    offer     [name, takes, gives]        one for each method and channel; JSON schemas, as maps

It is the `service` field of a SERVICE entry, whose signature is its own. It is public, and its writer chooses all of it:
whoever reads it believes no more than that the ID's key has signed these words (`discovery` proves that), and judges the
addresses (`addresses`) before it dials one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self, final

from autolink import codec, limits
from autolink.agent.handlers import Handlers
from autolink.errors import BodyError, RemoteProtocolError, UsageError, display
from autolink.identity.names import forbidden_in
from autolink.messages import microseconds
from autolink.messages.message import TIME_MAX
from autolink.transport import TcpAddress, parse_address

TAG: Final = "autolink/1 service"


@final
@dataclass(frozen=True, slots=True)
class Offer:
    """One method or channel.

    Attributes:
        name: what it is served under; safe to show.
        takes: JSON schema of the body, or of the items that a channel receives; empty: any plain value. Its texts are
            the writer's: `errors.display` them.
        gives: the same of the answer, or of the items that a channel sends.
    """

    name: str
    takes: dict[str, Any]
    gives: dict[str, Any]


@final
@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """Where an agent is reached and what it offers, in its own words. Parsed, nothing in it is proved.

    Attributes:
        addresses: hosts and ports, the best first; nobody has judged them.
        methods, channels: in the order of their names.
        valid_until: microseconds since 1970.

    Raises:
        UsageError: no reader would take it; the text says why.
    """

    addresses: tuple[TcpAddress, ...]
    methods: tuple[Offer, ...]
    channels: tuple[Offer, ...]
    valid_until: int

    def __post_init__(self) -> None:
        if not 0 < len(self.addresses) <= limits.ADDRESSES or len(set(self.addresses)) != len(self.addresses):
            raise UsageError(f"a service record has 1 to {limits.ADDRESSES} addresses, each once")
        if not all(isinstance(address, TcpAddress) and address.port for address in self.addresses):
            raise UsageError("a service record's addresses are host:port or [v6]:port, and port 0 is none")
        if len(self.methods) + len(self.channels) > limits.SERVICE_OFFERS:
            raise UsageError(f"a service record has at most {limits.SERVICE_OFFERS} methods and channels")
        names = [offer.name for offer in self.methods + self.channels]
        if len(set(names)) != len(names):
            raise UsageError("a service record has a method or channel twice")
        for offers in (self.methods, self.channels):
            if list(offers) != sorted(offers, key=_name):
                raise UsageError("a service record has its methods and channels in the order of their names")
            for offer in offers:
                _check_offer(offer)
        if not 0 < self.valid_until <= TIME_MAX:
            raise UsageError("a service record is valid until a time after 1970")

    def to_bytes(self) -> bytes:
        """As it stands in an entry.

        Raises:
            UsageError: it is larger than a reader would take.
        """
        offers = (
            [[offer.name, offer.takes, offer.gives] for offer in offers]
            for offers in (self.methods, self.channels)
        )
        try:
            data = codec.encode(
                [TAG, [str(address) for address in self.addresses], *offers, self.valid_until]
            )
            self.from_untrusted(data)
        except (BodyError, RemoteProtocolError) as error:
            raise UsageError(f"{error}; leave schemas out") from None
        return data

    @classmethod
    def from_untrusted(cls, data: bytes) -> Self:
        """Parse a record.

        Raises:
            RemoteProtocolError: and nothing else.
        """
        if len(data) > limits.SERVICE:
            raise RemoteProtocolError(f"service record: {len(data)} bytes, {limits.SERVICE} are allowed")
        match codec.decode_untrusted(data, what="service record", nodes=limits.SERVICE_NODES):
            case [str(tag), list(addresses), list(methods), list(channels), int(valid_until)] if (
                tag == TAG and type(valid_until) is int
            ):
                pass
            case _:
                raise RemoteProtocolError("service record: not an array of five, or of another kind")
        if len(addresses) > limits.ADDRESSES or len(methods) + len(channels) > limits.SERVICE_OFFERS:
            raise RemoteProtocolError("service record: too many addresses, or methods and channels")
        try:
            return cls(tuple(map(_address, addresses)), _offers(methods), _offers(channels), valid_until)
        except UsageError as error:
            raise RemoteProtocolError(f"service record: {error}") from None

    def says_the_same(self, other: "ServiceRecord") -> bool:
        """Whether only the time until which they are valid differs."""
        return (self.addresses, self.methods, self.channels) == (
            other.addresses, other.methods, other.channels,
        )  # fmt: skip


def describe(
    handlers: Handlers,
    addresses: Sequence[str],
    *,
    now: datetime,
    lifetime: timedelta = timedelta(seconds=limits.SERVICE_LIFETIME),
    schemas: bool = True,
) -> ServiceRecord:
    """The record of an agent that serves these handlers.

    Args:
        handlers: all methods and channels of which are told to everybody.
        addresses: `host:port` or `[v6]:port`, where others reach it, the best first.
        now: from when it counts.
        lifetime: how long it is good for.
        schemas: False: tell names alone.

    Raises:
        UsageError: not such addresses, too long a life, or more than a record holds.
    """
    if isinstance(addresses, str):
        raise UsageError("addresses= takes a list of addresses, even of one")
    if not timedelta(0) < lifetime <= timedelta(seconds=limits.SERVICE_LIFETIME_MOST):
        raise UsageError(
            f"a service record is valid for at most {limits.SERVICE_LIFETIME_MOST / 86_400:.0f} days"
        )
    methods = [
        _offer(name, method.takes, method.returns, schemas) for name, method in handlers.methods.items()
    ]
    channels = [
        _offer(name, channel.receives, channel.sends, schemas) for name, channel in handlers.channels.items()
    ]
    record = ServiceRecord(
        tuple(map(_address, addresses)), tuple(sorted(methods, key=_name)), tuple(sorted(channels, key=_name)),
        microseconds(now + lifetime),
    )  # fmt: skip
    record.to_bytes()
    return record


def _name(offer: Offer) -> bytes:
    return offer.name.encode()


def _offer(name: str, takes: Any, gives: Any, schemas: bool) -> Offer:  # noqa: ANN401  Body of any type
    if not schemas:
        return Offer(name, {}, {})
    return Offer(name, takes.schema(receives=True), gives.schema(receives=False))


def _offers(values: Sequence[object]) -> tuple[Offer, ...]:
    offers: list[Offer] = []
    for value in values:
        match value:
            case [str(name), dict(takes), dict(gives)]:
                offers.append(Offer(name, takes, gives))
            case _:
                raise UsageError("a method or channel is not a name and two schemas")
    return tuple(offers)


def _address(text: object) -> TcpAddress:
    """One address, written the one way."""
    address = parse_address(text) if isinstance(text, str) else None
    if not isinstance(address, TcpAddress) or not address.port:
        raise UsageError("a service record's addresses are host:port or [v6]:port, and port 0 is none")
    if str(address) != text:
        raise UsageError(f"the address {display(str(text))!r} is written {str(address)!r}")
    return address


def _check_offer(offer: Offer) -> None:
    name = offer.name
    seen = display(name, limits.METHOD) == name and forbidden_in(name) is None
    if not 0 < len(name.encode()) <= limits.METHOD or not seen:
        raise UsageError(f"{display(name)!r} cannot be a name: 1 to {limits.METHOD} bytes that can be seen")
    for schema in (offer.takes, offer.gives):
        try:
            size = len(codec.encode(schema))
        except BodyError as error:
            raise UsageError(f"the schema of {name!r} cannot be written: {error}") from None
        if size > limits.SERVICE_SCHEMA:
            raise UsageError(
                f"the schema of {name!r} has {size} bytes, {limits.SERVICE_SCHEMA} are allowed: leave schemas out"
            )
