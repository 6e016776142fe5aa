"""How bytes get there: addresses, sockets, TLS. The only place with sockets.

`connect` or `listen` give raw sockets; `secure_stream` makes one a `SecureStream`, whose ends have shown each
other certificate chains that nobody has judged yet.
"""

from autolink.transport.address import Address, Contact, TcpAddress, UnixAddress, parse_address
from autolink.transport.handshake import handshake, secure_stream
from autolink.transport.listening import ListeningSocket, accept_loop, listen, listen_blocking
from autolink.transport.sockets import connect, remote_address
from autolink.transport.stream import SecureStream
from autolink.transport.tls import (
    ALPN,
    Expect,
    TlsContext,
    TlsIdentity,
    TlsInfo,
    client_context,
    server_context,
)

__all__ = [
    "Address", "Contact", "TcpAddress", "UnixAddress", "parse_address",
    "ListeningSocket", "accept_loop", "connect", "listen", "listen_blocking", "remote_address",
    "SecureStream", "handshake", "secure_stream",
    "ALPN", "Expect", "TlsContext", "TlsIdentity", "TlsInfo", "client_context", "server_context",
]  # fmt: skip
