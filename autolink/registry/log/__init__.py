"""The log: an append-only Merkle tree whose operator cannot rewrite it unseen. Bytes in, bytes out: no I/O, no clock.

Submodules: `note` (signed notes), `checkpoint` (a log's word on its size and root), `tiles` (the tree cut into
pieces), `tree` (proofs made from tiles, and checked), `frontier` (appending), `proof` (an entry's place, for
whoever was not there), `canonical` (one form for each number). The formats are C2SP's, the hashing is RFC 9162's.
"""

from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.note import Note, Signature, VerifierKey, sign_note
from autolink.registry.log.proof import LogProof
from autolink.registry.log.tiles import Tile
from autolink.registry.log.tree import ReadTile, check_consistency, check_inclusion

__all__ = [
    "Note", "Signature", "VerifierKey", "sign_note",
    "Checkpoint", "LogProof",
    "Tile", "ReadTile", "Frontier", "check_inclusion", "check_consistency",
]  # fmt: skip
