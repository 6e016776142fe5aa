"""Merkle trees as RFC 9162 (section 2.1) hashes them: leaves under 0x00, nodes under 0x01, SHA-256.

RFC 9162 splits n leaves at the largest power of two below n. Joining neighbours level by level and passing a
last odd one up unchanged builds the same tree without recursion, and that is what `root` and `path` do.

A path says nothing without the signed number of leaves: the path of leaf 8 of 11 also fits as leaf 4 of 7. So
`root_from_path` takes the count, and every signature over a root covers it (`batch.BatchHeader`).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from autolink.errors import BadSignature

HASH: Final = 32
"""Bytes of one hash."""

EMPTY: Final = sha256(b"").digest()
"""The root over no leaves."""

# OpenSSL takes longer to make a hash object than to copy one and hash 64 bytes, and this runs twice for each message.
begun_leaf: Final = sha256(b"\0").copy
"""Makes a hash that is a leaf's once it has taken the leaf's bytes."""
_begun_node: Final = sha256(b"\1").copy


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf (RFC 9162, section 2.1.1)."""
    begun = begun_leaf()
    begun.update(data)
    return begun.digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """The hash of each leaf."""
    hashes: list[bytes] = []
    for leaf in leaves:
        begun = begun_leaf()
        begun.update(leaf)
        hashes.append(begun.digest())
    return hashes


def node_hash(children: bytes) -> bytes:
    """The hash of a node, from the hashes of its left and its right child in a row."""
    begun = _begun_node()
    begun.update(children)
    return begun.digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; of none, the hash of the empty string (RFC 9162, section 2.1.1)."""
    level = leaf_hashes
    while len(level) > 1:
        level = _parents(level)
    return level[0] if level else EMPTY


def path(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The inclusion path of leaf `index`, leaf side first (RFC 9162, section 2.1.3.1).

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(index)
    siblings: list[bytes] = []
    level = leaf_hashes
    while len(level) > 1:
        if (index ^ 1) < len(level):
            siblings.append(level[index ^ 1])
        level = _parents(level)
        index >>= 1
    return tuple(siblings)


def levels(leaf_hashes: Sequence[bytes]) -> list[Sequence[bytes]]:
    """All hashes of a tree: those of its leaves, those over two of them, and so on up to the one root."""
    found = [leaf_hashes]
    while len(found[-1]) > 1:
        found.append(_parents(found[-1]))
    return found


def path_length(index: int, count: int) -> int:
    """How many hashes the path of leaf `index` of `count` has: one per level, less those where it is last and
    odd."""
    last, length = count - 1, 0
    while last:
        length += (index ^ 1) <= last
        index >>= 1
        last >>= 1
    return length


def root_from_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf's hash and its path lead to (RFC 9162, section 2.1.3.2).

    Raises:
        BadSignature: `index` is not below `count`, or the path is not as long as these two demand.
    """
    if not 0 <= index < count or len(path) != path_length(index, count):
        raise BadSignature("this path cannot belong to that leaf of that tree")
    last, node = count - 1, leaf
    siblings = iter(path)
    while last:
        if index & 1:
            node = node_hash(next(siblings) + node)
        elif index < last:
            node = node_hash(node + next(siblings))
        index >>= 1
        last >>= 1
    return node


class StreamingRoot:
    """The root over leaves that come one at a time, in memory that grows with the logarithm of their
    number."""

    __slots__ = ("_subtrees", "count")

    def __init__(self) -> None:
        self.count = 0
        self._subtrees: list[bytes] = []  # complete ones, largest first: one for each bit set in count

    def add(self, leaf: bytes) -> None:
        """Append the hash of the next leaf."""
        size = self.count
        while size & 1:
            leaf = node_hash(self._subtrees.pop() + leaf)
            size >>= 1
        self._subtrees.append(leaf)
        self.count += 1

    def root(self, rest: bytes = b"") -> bytes:
        """The root over what was added so far; more may follow.

        Args:
            rest: the root over further leaves behind these: fewer of them than the smallest complete subtree here has.
        """
        node = rest
        for subtree in reversed(self._subtrees):
            node = node_hash(subtree + node) if node else subtree
        return node or EMPTY

    def copy(self) -> "StreamingRoot":
        """Another one over the same leaves, which grows on its own."""
        copied = StreamingRoot()
        copied.count, copied._subtrees = self.count, self._subtrees.copy()
        return copied


def _parents(level: Sequence[bytes]) -> list[bytes]:
    odd = len(level) & 1
    row = b"".join(level)
    parents: list[bytes] = []
    for at in range(0, len(row) - odd * HASH, 2 * HASH):  # `node_hash`, without a call for each
        begun = _begun_node()
        begun.update(row[at : at + 2 * HASH])
        parents.append(begun.digest())
    if odd:
        parents.append(level[-1])
    return parents
