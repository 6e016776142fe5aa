"""A log's tiles from anywhere, each found right before it is given."""

from typing import final

from autolink.messages import merkle
from autolink.messages.merkle import HASH
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.tiles import WIDTH
from autolink.registry.log.tree import ReadTile
from autolink.registry.source import SourceFailed


@final
class CheckedTiles:
    """Somebody else's tiles, each checked against the root that a log has signed before it is given.

    Args:
        read: gives them.
        signed: verified.

    Raises:
        SourceFailed: those at the right edge do not lead to that root.
    """

    def __init__(self, read: ReadTile, signed: Checkpoint) -> None:
        self._read = read
        self._edge: dict[tuple[int, int], bytes] = {}
        self._last: dict[int, tuple[int, bytes]] = {}  # of each level the full tile that was asked for last

        def keep(level: int, index: int, width: int) -> bytes:
            row = self._edge[level, index] = read(level, index, width)
            return row

        if Frontier.restored(signed.size, keep).root() != signed.root:
            raise SourceFailed("the tiles are not those of the tree that was signed")

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile of that tree, as many as it has.

        Raises:
            SourceFailed: what is there is not what the tile above says.
        """
        if (edge := self._edge.get((level, index))) is not None:
            return edge
        last = self._last.get(level)
        if last is not None and last[0] == index:
            return last[1]
        above, at = self.tile(level + 1, index // WIDTH), index % WIDTH * HASH
        row = self._read(level, index, WIDTH)
        hashes = [row[begin : begin + HASH] for begin in range(0, len(row), HASH)]
        if merkle.root(hashes) != above[at : at + HASH]:
            raise SourceFailed(f"tile {level}/{index} is not the one that was signed")
        self._last[level] = index, row
        return row
