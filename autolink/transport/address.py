"""Where an agent listens, and the contact string that says whom to expect there.

    address  =  host ":" port  /  "[" IPv6 "]:" port  /  "unix:" absolute path
    contact  =  "autolink://" principal "@" address [ "?key=sha256:" 64 hex ]

The principal is 64 hexadecimal digits (an AutoId; a bound one without `key`, any other with it) or
`key:sha256:` and 64 digits. A path in a contact is percent-encoded (RFC 3986, section 2.1), so that nothing
in it can end the address. There is one way to write a contact, and `Contact.parse` accepts that one only.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self, final
from urllib.parse import quote, unquote

from autolink.errors import IdentityError, UsageError, display
from autolink.identity.autoid import PeerId

_SCHEME: Final = "autolink://"
_UNIX: Final = "unix:"
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")  # RFC 1123, and the underscore of container names
_NAME_BYTES: Final = 253
_PATH_BYTES: Final = 103  # sun_path holds 104 on macOS and 108 on Linux, the final NUL included


@final
@dataclass(frozen=True, slots=True, order=True)
class TcpAddress:
    """A host (a name, or an IPv4 or IPv6 address in canonical form) and a port; 0 lets the system choose when
    listening.

    Raises:
        UsageError: the host is none of these, or the port is not in 0..65535.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", _host(self.host))
        if not 0 <= self.port <= 0xFFFF:
            raise UsageError(f"a port is a number from 0 to 65535, not {self.port}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@final
@dataclass(frozen=True, slots=True, order=True)
class UnixAddress:
    """The absolute path of a Unix socket.

    Raises:
        UsageError: it is relative, too long for the system, or holds characters that cannot be shown.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.endswith("/"):
            raise UsageError(f"a Unix address is unix:/absolute/path, not {display(self.path)!r}")
        if not self.path.isprintable():
            raise UsageError(f"a path with characters that cannot be shown: {display(self.path)}")
        if len(self.path.encode()) > _PATH_BYTES:
            raise UsageError(f"a Unix socket's path has at most {_PATH_BYTES} bytes: {display(self.path)}")

    def __str__(self) -> str:
        return _UNIX + self.path


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read ``host:port``, ``[v6]:port`` or ``unix:/path``.

    Raises:
        UsageError: it is none of these.
    """
    if not isinstance(text, str):
        raise UsageError(
            f"an address is host:port, [v6]:port or unix:/path, as text, not {display(repr(text))}"
        )
    if text.startswith(_UNIX):
        return UnixAddress(text.removeprefix(_UNIX))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    elif (":" in host or "[" in host) and "://" not in host:
        raise UsageError(f"an IPv6 address is written [address]:port, not {display(text)!r}")
    if (
        not colon
        or "://" in host
        or not (port.isascii() and port.isdigit())
        or len(port) > 5
        or str(int(port)) != port
    ):
        raise UsageError(f"an address is host:port, [v6]:port or unix:/path, not {display(text)!r}")
    return TcpAddress(host, int(port))


@final
@dataclass(frozen=True, slots=True, order=True)
class Contact:
    """Where to dial, and whom to expect there.

    Raises:
        UsageError: a port that nobody can dial.
    """

    peer_id: PeerId
    address: Address

    def __post_init__(self) -> None:
        if isinstance(self.address, TcpAddress) and not self.address.port:
            raise UsageError(f"nobody can dial port 0 of {self.address.host}")

    @classmethod
    @lru_cache(maxsize=1024)  # whoever dials again and again names the same few
    def parse(cls, text: str) -> Self:
        """Read ``autolink://<principal>@<address>[?key=sha256:<hex>]``.

        Raises:
            UsageError: it is not that, or not written the one way; the text then shows that way.
        """
        if not isinstance(text, str) or not text.startswith(_SCHEME) or "@" not in text:
            raise UsageError(f"a contact is {_SCHEME}<64 hex>@<address>, not {display(str(text))!r}")
        principal, _, rest = text.removeprefix(_SCHEME).partition("@")
        address, question, key = rest.partition("?key=")
        try:
            peer_id = PeerId.parse(principal + question + key)
        except IdentityError as error:
            raise UsageError(f"in the contact {display(text)!r}: {error}") from None
        contact = cls(peer_id, parse_address(unquote(address)))
        if str(contact) != text:
            raise UsageError(f"the contact {display(text)!r} is written {display(str(contact))!r}")
        return contact

    def __str__(self) -> str:
        address = self.address
        where = _UNIX + quote(address.path) if isinstance(address, UnixAddress) else str(address)
        principal, question, key = str(self.peer_id).partition("?key=")
        return f"{_SCHEME}{principal}@{where}{question}{key}"


def _host(text: str) -> str:
    if ":" in text:
        try:
            return ipaddress.IPv6Address(text if "%" not in text else "").compressed
        except ValueError:
            raise UsageError(f"{display(text)!r} is no IPv6 address (zones are not supported)") from None
    host = text.lower()
    labels = host.split(".")
    if len(host) > _NAME_BYTES or not all(_LABEL.fullmatch(label) for label in labels):
        raise UsageError(f"{display(text)!r} is no host name; write an international name in its xn-- form")
    if labels[-1][0].isdigit():
        # Resolvers read 127.1 and 0x7f.0.0.1 as addresses too; no top-level domain starts with a digit.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise UsageError(f"{display(text)!r} is no IPv4 address") from None
    return host
