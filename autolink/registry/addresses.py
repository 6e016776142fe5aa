"""Which addresses somebody else's word may have us dial.

A service record is written by whom it is about, and read by everybody: an address in it can point at what only the reader
reaches. So a name is resolved first, what it resolves to is judged, and exactly that is dialled: nothing resolves it again.

Refused is everything but unicast addresses of the public Internet, by IANA's registries of special purposes (RFC 6890):
Python's own `is_global` differs from version to version, and calls multicast global. An address that holds an IPv4 address
(mapped, or for a NAT64) is judged as that one.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, final

from autolink import limits
from autolink.errors import UsageError, display
from autolink.transport import TcpAddress
from autolink.transport.sockets import Target, interleave, resolve

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[TcpAddress], Awaitable[Sequence[Target]]]

PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
"""For `allow`: the networks of organisations (RFC 1918, RFC 4193) and of carriers (RFC 6598)."""

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
"""For `allow`: this machine."""

_SPECIAL: Final[dict[str, str]] = {
    "0.0.0.0/8": "unspecified", "127.0.0.0/8": "loopback", "169.254.0.0/16": "link-local",
    "10.0.0.0/8": "private", "172.16.0.0/12": "private", "192.168.0.0/16": "private", "100.64.0.0/10": "private",
    "192.0.0.0/24": "special", "192.0.2.0/24": "documentation", "192.88.99.0/24": "special", "198.18.0.0/15": "special",
    "198.51.100.0/24": "documentation", "203.0.113.0/24": "documentation", "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified", "::1/128": "loopback", "fe80::/10": "link-local", "fec0::/10": "site-local",
    "fc00::/7": "private", "ff00::/8": "multicast", "2001::/23": "special", "2001:db8::/32": "documentation",
    "2002::/16": "special", "3fff::/20": "documentation",
}  # fmt: skip
_NEVER: Final = ("unspecified", "multicast")
_KINDS: Final = tuple((ipaddress.ip_network(network), kind) for network, kind in _SPECIAL.items())
_GLOBAL: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        # AWS, Azure, Google and others; ECS; Tencent; Azure's host; Alibaba; Oracle; AWS, Google and OpenStack by IPv6
        (
            "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "168.63.129.16", "100.100.100.200",
            "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::a9fe:a9fe",
        ),
    )
)  # fmt: skip
"""Where a cloud hands its machines credentials: some lie in networks that are private, or even public."""


class NotAllowed(OSError):
    """An address that somebody else's word may not have us dial."""


@final
class Allowed:
    """The judge of addresses.

    Args:
        allow: networks (`10.0.0.0/8`) that may be dialled besides the public Internet. A cloud's metadata address, an
            unspecified and a multicast one are in none of them; the first only as its own network of one address.

    Raises:
        UsageError: one of them is none.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str):
            raise UsageError("allow= takes a list of networks, even of one")
        self._allow = tuple(map(_network, allow))

    def check(self, address: IpAddress) -> None:
        """It may be dialled.

        Raises:
            NotAllowed: with its kind.
        """
        meant = _meant(address)
        within = [network for network in self._allow if meant in network]
        if meant in _METADATA:
            if not any(network.num_addresses == 1 for network in within):
                raise NotAllowed(f"{address} is a cloud's metadata address")
            return
        kind = _kind(meant)
        if kind and (kind in _NEVER or not within):
            raise NotAllowed(f"{address} is {kind}")

    async def resolve(self, address: TcpAddress, resolver: Resolver = resolve) -> list[TcpAddress]:
        """The numeric addresses behind one, each judged: what may be dialled, and nothing is resolved again.

        Raises:
            NotAllowed: none of them may be, or its port is 0.
            OSError: its name does not resolve.
        """
        if not address.port:
            raise NotAllowed("nobody can dial port 0")
        found = interleave(await resolver(address))[: limits.ADDRESSES]
        allowed: list[TcpAddress] = []
        refused: list[NotAllowed] = []
        for target in found:
            ip = _ip(target)
            try:
                self.check(ip)
            except NotAllowed as error:
                refused.append(error)
            else:
                allowed.append(TcpAddress(str(ip), address.port))
        if not allowed:
            raise refused[0] if refused else NotAllowed("its name stands for no address")
        return list(dict.fromkeys(allowed))


def _network(text: str) -> Network:
    """One of `allow`; whoever writes an address within it is told which network that is."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        what = display(str(error))
    with suppress(ValueError):
        what += f", but {ipaddress.ip_network(text, strict=False)} is one"
    raise UsageError(f"networks to allow are such as 10.0.0.0/8: {what}")


def _ip(target: Target) -> IpAddress:
    """What a resolver has found; a zone makes an address link-local, which it is without it too."""
    return ipaddress.ip_address(str(target.sockaddr[0]).partition("%")[0])


def _meant(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address leads to, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _kind(address: IpAddress) -> str:
    """Why it is not of the public Internet; empty if it is."""
    for network, kind in _KINDS:
        if address in network:
            return kind
    return "reserved" if address.version == 6 and address not in _GLOBAL else ""
