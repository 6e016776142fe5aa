"""What a receiver tells of one-way traffic, and how a sender cuts a bulk transfer: the same for every stack."""

from collections.abc import Iterator
from struct import Struct

PIECE = bytes(64 * 1024)  # of a bulk transfer: four full TLS records

_COUNTED = Struct(">QQ")


class Count:
    """Messages and bytes that have arrived."""

    def __init__(self, messages: int = 0, octets: int = 0) -> None:
        self.messages = messages
        self.octets = octets

    def add(self, body: bytes) -> None:
        self.messages += 1
        self.octets += len(body)

    def pack(self) -> bytes:
        return _COUNTED.pack(self.messages, self.octets)

    @classmethod
    def unpack(cls, data: bytes) -> "Count":
        return cls(*_COUNTED.unpack(data))

    def check(self, total: int) -> None:
        if self.octets != total:
            raise RuntimeError(f"the receiver counted {self.octets} bytes of {total}")


def pieces(total: int) -> Iterator[bytes]:
    """`total` bytes, cut."""
    whole, rest = divmod(total, len(PIECE))
    for _ in range(whole):
        yield PIECE
    if rest:
        yield PIECE[:rest]
