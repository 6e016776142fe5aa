"""A message that has come in and was found good (see `incoming`), with what proves it to anybody else.

Its batch is proved once, and each message says where it stood in it: a proof is put together when somebody asks for it.
"""

from typing import NamedTuple, final

from autolink.messages import BatchHeader, Chunk, Envelope, Kind, Message, decode_untrusted, merkle


class ReceivedBatch(NamedTuple):
    """What a message's proof is made of: kept as long as somebody holds one of its messages."""

    header: BatchHeader
    signature: bytes
    leaf_hashes: list[bytes]
    chain: tuple[bytes, ...]
    evidence: tuple[bytes, ...]

    def envelope(self, leaf: bytes, index: int) -> Envelope:
        """The message at `index` with its proof, verifiable by anyone."""
        header = self.header
        return Envelope(
            leaf, index, header.count, merkle.path(self.leaf_hashes, index), header.link_id, header.role, header.number,
            self.signature, self.chain, self.evidence,
        )  # fmt: skip


@final
class Received:
    """A verified message and where it stood in its batch, so that it can be taken out as an Envelope.

    Attributes:
        kind, seq, body, method, timeout, headers: as in `message`, which is parsed when somebody asks for it.
        channel, flags: as its frame said, and its leaf too.
        leaf: the signed bytes.
        chunk, data: what the body of a chunk says, and the bytes beside its leaf, which it signs.
        size: bytes of leaf and data, which count in the channel's credit.
        batch, index: what was signed together, and its place there.
    """

    __slots__ = (
        "_message", "batch", "body", "channel", "chunk", "data", "flags", "index", "kind", "leaf", "method", "seq", "size",
        "timeout",
    )  # fmt: skip

    def __init__(
        self, kind: Kind, seq: int, body: bytes, channel: int, flags: int, leaf: bytes, batch: ReceivedBatch,
        index: int, method: str, timeout: int, message: Message | None, data: bytes = b"", chunk: Chunk | None = None,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.seq = seq
        self.body = body
        self.channel = channel
        self.flags = flags
        self.leaf = leaf
        self.batch = batch
        self.index = index
        self.method = method
        self.timeout = timeout
        self._message = message  # of a message with headers: what has none is read without going through this
        self.data = data
        self.chunk = chunk
        self.size = len(leaf) + len(data) if data else len(leaf)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a message that was just received."""
        return {} if self._message is None else self._message.headers

    @property
    def message(self) -> Message:
        """The signed message."""
        if self._message is None:
            self._message = decode_untrusted(self.leaf)
        return self._message

    def envelope(self) -> Envelope:
        """The message with its proof."""
        return self.batch.envelope(self.leaf, self.index)

    def __repr__(self) -> str:
        return f"<Received {self.kind.name} {self.seq} on channel {self.channel}>"
