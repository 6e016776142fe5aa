"""What the two bare TLS stacks share: their contexts, and a framing, because a byte stream has none.

Neither bare stack is hobbled: a frame is 13 bytes of header and its body, everything that one read brought is taken apart
at once, and all replies to it leave in one write. Both ends accept any certificate of the one CA, as `ssl` does by itself.
Server names are not compared: the certificates carry Auto IDs, and no host's name.
"""

import platform
import ssl
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from struct import Struct

from benchmarks.stacks.counting import Count

READ = 256 * 1024  # bytes asked for at once; what asyncio's own TLS reads

CALL, MESSAGE, DONE = range(3)  # answered by itself; counted; answered by what was counted under its number

_HEADER = Struct(">BQI")  # kind, number, size of the body

JUDGES_LITTLE = ("no signed messages", "no trust decision beyond one CA's signature", "no revocation")
LACKS = (*JUDGES_LITTLE, "no post-quantum key exchange")


def version() -> str:
    return f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"


@cache
def server_context(folder: Path) -> ssl.SSLContext:
    """TLS 1.3 that demands a certificate of the CA. Its tickets, Python's usual two, are never used by our client."""
    return _context(folder, ssl.Purpose.CLIENT_AUTH, "server")


@cache
def client_context(folder: Path, name: str = "client") -> ssl.SSLContext:
    """TLS 1.3 that shows a certificate and judges the server's. It keeps no session: each handshake is a full one."""
    return _context(folder, ssl.Purpose.SERVER_AUTH, name)


def _context(folder: Path, purpose: ssl.Purpose, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=folder / "root.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.chain.pem", folder / f"{name}.key.pem")
    return context


def address(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host, int(port)


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(kind, number, len(body)) + body


class Frames:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
        """Kind, number and body of each frame that is complete now."""
        self._buffer += data
        at = 0
        with memoryview(self._buffer) as view:
            while at + _HEADER.size <= len(view):
                kind, number, size = _HEADER.unpack_from(view, at)
                begin = at + _HEADER.size
                if begin + size > len(view):
                    break
                yield kind, number, bytes(view[begin : begin + size])
                at = begin + size
        del self._buffer[:at]


class Answers:
    """The server's half of one connection: bytes in, the bytes to answer with out."""

    def __init__(self) -> None:
        self._frames = Frames()
        # By the number of the pump or of the transfer.
        self._counts: defaultdict[int, Count] = defaultdict(Count)

    def feed(self, data: bytes | bytearray) -> bytes:
        replies = []
        for kind, number, body in self._frames.feed(data):
            if kind == CALL:
                replies.append(frame(CALL, number, body))
            elif kind == MESSAGE:
                self._counts[number].add(body)
            else:
                replies.append(frame(DONE, number, self._counts.pop(number, Count()).pack()))
        return b"".join(replies)
