"""What I say: messages, the signatures over batches of them, and Envelopes that anybody can check anywhere.

Submodules: `message` (fields and leaf bytes), `plain` (the quick way to most of them), `merkle` (RFC 9162), `batch`
(one signature for many), `envelope` (one message with its proof), `replay` (what was already taken), `stream`
(payloads in chunks).
"""

from autolink.messages.batch import ALONE, DIALER, LISTENER, NO_LINK, BatchHeader, sign_batch, verify_batch
from autolink.messages.envelope import (
    Envelope,
    Equivocation,
    VerifiedMessage,
    check_signature,
    export,
    prove_equivocation,
    sign_envelope,
    verify,
)  # fmt: skip
from autolink.messages.message import (
    ENDING,
    OPENING,
    Kind,
    Message,
    check_times,
    decode_untrusted,
    encode,
    instant,
    microseconds,
    topic,
)  # fmt: skip
from autolink.messages.plain import PlainLeaves
from autolink.messages.replay import ReplayWindow
from autolink.messages.stream import BODY as CHUNK_BODY
from autolink.messages.stream import LEAF as CHUNK_LEAF
from autolink.messages.stream import Chunk, ChunkReader, ChunkWriter, check_content, check_data

__all__ = [
    "Message", "Kind", "OPENING", "ENDING", "encode", "decode_untrusted", "topic", "PlainLeaves",
    "check_times", "instant", "microseconds",
    "BatchHeader", "sign_batch", "verify_batch", "DIALER", "LISTENER", "ALONE", "NO_LINK",
    "Envelope", "export", "sign_envelope", "check_signature", "verify", "VerifiedMessage",
    "Equivocation", "prove_equivocation",
    "ReplayWindow",
    "Chunk", "CHUNK_BODY", "CHUNK_LEAF", "ChunkWriter", "ChunkReader", "check_content", "check_data",
]  # fmt: skip
