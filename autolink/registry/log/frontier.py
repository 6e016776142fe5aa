"""The right edge of a growing tree: all that is needed to append to it, in memory that grows with the logarithm of its size.

It holds the last, partial tile of each level and the complete subtrees in it: at most 255 hashes and 8 more a
level, and eight levels for the largest log. Every node of the tree is hashed once.

A `Frontier` never changes. `extended` gives another one together with the tiles to keep, so that a store which fails to keep
them still has the one that goes with what it has.
"""

from collections.abc import Sequence
from typing import Self, final

from autolink import limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.messages.merkle import EMPTY, HASH, StreamingRoot
from autolink.registry.log.tiles import HEIGHT, WIDTH, Tile, width_at
from autolink.registry.log.tree import ReadTile


@final
class Frontier:
    """The right edge of the tree over `size` entries; made without arguments, of the empty one."""

    __slots__ = ("_edges", "size")

    def __init__(self) -> None:
        self.size = 0
        self._edges: list[_Edge] = []  # one for each level, from level 0

    @classmethod
    def restored(cls, size: int, read: ReadTile) -> Self:
        """The right edge of the tree whose tiles `read` gives. Its `root` is to be compared with the one that was signed.

        Raises:
            RemoteProtocolError: a tile that was read is not as long as its width.
        """
        frontier = cls()
        frontier.size = size
        while count := size >> HEIGHT * len(frontier._edges):
            level, index = len(frontier._edges), count // WIDTH
            edge = _Edge(index)
            frontier._edges.append(edge)
            if width := width_at(level, index, size):
                row = read(level, index, width)
                if len(row) != width * HASH:
                    raise RemoteProtocolError(f"tile: not {width} hashes")
                for at in range(0, len(row), HASH):
                    edge.add(row[at : at + HASH])
        return frontier

    def root(self) -> bytes:
        """The root over all entries."""
        node = b""
        for edge in self._edges:
            if edge.row:
                node = edge.tree.root(node)
        return node or EMPTY

    def extended(self, leaf_hashes: Sequence[bytes]) -> tuple["Frontier", list[tuple[Tile, bytes]]]:
        """The right edge after more entries, and what to keep of them.

        Args:
            leaf_hashes: of the entries that follow, in their order.

        Returns:
            The tiles that are new or wider than before, each with its hashes in a row: `tiles.new_tiles`, in its order.

        Raises:
            UsageError: something in them is not 32 bytes long, or the log would grow beyond `limits.LOG_ENTRIES`.
        """
        if any(len(each) != HASH for each in leaf_hashes):
            raise UsageError(f"a leaf hash has {HASH} bytes")
        grown = Frontier()
        grown.size = self.size + len(leaf_hashes)
        if grown.size > limits.LOG_ENTRIES:
            raise UsageError(f"a log has at most {limits.LOG_ENTRIES} entries")
        tiles: list[tuple[Tile, bytes]] = []
        hashes = leaf_hashes
        for level, edge in enumerate(self._edges):
            last, hashes = edge.extended(level, hashes, tiles)
            grown._edges.append(last)
        while hashes:
            last, hashes = _Edge(0).extended(len(grown._edges), hashes, tiles)
            grown._edges.append(last)
        return grown, tiles


class _Edge:
    """The last tile of one level, which is never full."""

    __slots__ = ("index", "row", "tree")

    def __init__(self, index: int) -> None:
        self.index = index
        self.row = bytearray()
        self.tree = StreamingRoot()

    def add(self, node: bytes) -> None:
        self.row += node
        self.tree.add(node)

    def extended(
        self, level: int, hashes: Sequence[bytes], tiles: list[tuple[Tile, bytes]]
    ) -> tuple["_Edge", list[bytes]]:
        """The edge behind further hashes, and the roots of the tiles that they filled; adds what changed to `tiles`."""
        if not hashes:
            return self, []
        edge, full = self._copy(), []
        for node in hashes:
            edge.add(node)
            if edge.tree.count == WIDTH:
                tiles.append((Tile(level, edge.index), bytes(edge.row)))
                full.append(edge.tree.root())
                edge = _Edge(edge.index + 1)
        if edge.row:
            tiles.append((Tile(level, edge.index, edge.tree.count), bytes(edge.row)))
        return edge, full

    def _copy(self) -> "_Edge":
        copied = _Edge(self.index)
        copied.row += self.row
        copied.tree = self.tree.copy()
        return copied
