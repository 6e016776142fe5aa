"""Proofs over a log's tree: made from its tiles, checked against its roots (RFC 9162, section 2.1).

Making one takes a few tiles of each level, of which the largest log has eight: each hash of a proof is the root
over a range of entries that the standard names, and such a range falls into complete subtrees, each of them the
root over a part of one tile.

Checking needs no tiles. A proof made from somebody else's tiles is no more true than they are: check it against a
verified checkpoint.
"""

from collections.abc import Callable, Sequence
from typing import Final

from autolink import limits
from autolink.errors import BadSignature, RemoteProtocolError, UsageError
from autolink.messages import merkle
from autolink.messages.merkle import EMPTY, HASH, node_hash
from autolink.registry.log.tiles import HEIGHT, WIDTH, width_at

ReadTile = Callable[[int, int, int], bytes]
"""Gives the hashes of a tile, in a row, by its level, index and width: the width that it has in the tree that is
asked about, so of a tile that has become wider since, its first `width` hashes."""


def inclusion_proof(index: int, size: int, read: ReadTile) -> tuple[bytes, ...]:
    """The path of entry `index` in the tree of the first `size` entries, leaf side first (section 2.1.3.1).

    Raises:
        UsageError: that tree has no such entry.
        RemoteProtocolError: a tile that was read is not as long as its width.
    """
    return Tree(size, read).inclusion(index)


def consistency_proof(old: int, new: int, read: ReadTile) -> tuple[bytes, ...]:
    """What shows that the tree of `old` entries is the beginning of that of `new` (section 2.1.4.1). Empty between equal
    sizes and from the empty tree.

    Raises:
        UsageError: the sizes are not 0 <= old <= new.
        RemoteProtocolError: a tile that was read is not as long as its width.
    """
    if not 0 <= old <= new:
        raise UsageError("a log only grows")
    return Tree(new, read).consistency(old)


def tree_root(size: int, read: ReadTile) -> bytes:
    """The root over the first `size` entries.

    Raises:
        RemoteProtocolError: a tile that was read is not as long as its width.
    """
    return Tree(size, read).root()


def check_inclusion(leaf_hash: bytes, index: int, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree of this size and root has this entry at this index (section 2.1.3.2).

    Args:
        leaf_hash: `merkle.leaf_hash` of the entry.

    Raises:
        BadSignature: the path does not show it.
    """
    _check_hashes(leaf_hash, root, *path)
    if merkle.root_from_path(leaf_hash, index, size, path) != root:
        raise BadSignature("log: the entry is not in the tree that was signed, or not at that index")


def check_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that one tree is the beginning of another (section 2.1.4.2). The path from the empty tree, and between
    equal sizes, is empty.

    Two signed roots between which it is not so convict the log, but not two between which merely this path does not lead.

    Raises:
        BadSignature: the path does not show it.
    """
    _check_hashes(old_root, new_root, *path)
    if not 0 <= old_size <= new_size:
        raise BadSignature("log: it became shorter")
    if old_size in (0, new_size):
        if path or old_root != (new_root if old_size else EMPTY):
            raise BadSignature("log: two trees of one size, or a path where none is needed")
    elif _roots(old_size, old_root, new_size, path) != (old_root, new_root):
        raise BadSignature("log: the path does not lead from the old tree to the new one")


def _roots(old_size: int, old_root: bytes, new_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots of the old and of the new tree that a path between them leads to; 0 < old_size < new_size."""
    wrong = BadSignature("log: a path that cannot belong to trees of these sizes")
    old, new = old_size - 1, new_size - 1
    while old & 1:  # up to the subtree in which both trees begin to differ
        old, new = old >> 1, new >> 1
    hashes = iter(path)
    # A complete old tree is not in its own path. If a hash is missing here, `new` is not used up at the end.
    old_node = new_node = next(hashes, b"") if old else old_root
    for sibling in hashes:
        if not new:
            raise wrong
        if old & 1 or old == new:
            old_node, new_node = node_hash(sibling + old_node), node_hash(sibling + new_node)
            while old and not old & 1:
                old, new = old >> 1, new >> 1
        else:
            new_node = node_hash(new_node + sibling)
        old, new = old >> 1, new >> 1
    if new:
        raise wrong
    return old_node, new_node


def _check_hashes(*hashes: bytes) -> None:
    """Two hashes of 31 and 33 bytes in a row would hash as two of 32 do."""
    if any(len(each) != HASH for each in hashes):
        raise BadSignature(f"log: a hash that is not {HASH} bytes")


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


_PART_HEIGHT: Final = HEIGHT // 2
_PART: Final = 1 << _PART_HEIGHT
"""Hashes of a sixteenth of a tile."""


class Known:
    """What was computed of full tiles, which never change: of each the sixteen roots over sixteen of its hashes.

    The next path through it takes twenty hashes where the first took hundreds. The tiles that were asked for longest ago go
    first.

    Args:
        most: tiles of level 0, of 0.7 KiB each. Of a sixty-fourth as many of the levels above, through which most paths
            lead, every hash is kept, in 33 KiB.
    """

    def __init__(self, most: int = limits.LOG_TILES_KNOWN) -> None:
        self._most = most
        self._kept: dict[int, list[bytes]] = {}  # last used last
        self._whole: dict[tuple[int, int], list[Sequence[bytes]]] = {}

    def whole(self, level: int, index: int, read: ReadTile) -> list[Sequence[bytes]]:
        """A full tile of a level above 0: its hashes, those over two of them, over four, and so on."""
        found = self._whole.pop((level, index), None)
        if found is None:
            found = merkle.levels(_hashes(read(level, index, WIDTH), WIDTH))
            if len(self._whole) > self._most // 64:
                del self._whole[next(iter(self._whole))]
        self._whole[level, index] = found
        return found

    def sixteenths(self, index: int, read: ReadTile) -> list[bytes]:
        """The roots over sixteen hashes each of a full tile of level 0."""
        found = self._kept.pop(index, None)
        if found is None:
            row = _hashes(read(0, index, WIDTH), WIDTH)
            found = [merkle.root(row[at : at + _PART]) for at in range(0, WIDTH, _PART)]
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
        self._kept[index] = found
        return found


class Tree:
    """The tree over the first `size` entries, from its tiles. Not for several threads at once.

    Within one question a tile is read once. What is asked again and again is remembered: the roots at the right edge, which
    are this tree's, and in `known` what is true of every tree of this log.

    Args:
        read: gives its tiles.
        known: shared by the trees of one log; None for its own.
    """

    def __init__(self, size: int, read: ReadTile, known: Known | None = None) -> None:
        self.size = size
        self._read = read
        self._known = Known() if known is None else known
        self._edges: dict[int, bytes] = {}  # roots over the entries from there to the end
        self._partial: dict[int, bytes] = {}  # the last tile of each level
        self._tiles: dict[tuple[int, int], bytes] = {}  # of the question that is being answered

    def root(self) -> bytes:
        """See `tree_root`."""
        self._tiles.clear()
        return self._root(0, self.size)

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """See `inclusion_proof`."""
        if not 0 <= index < self.size:
            raise UsageError(f"there is no entry {index} among {self.size}")
        self._tiles.clear()
        above: list[bytes] = []  # of the complete subtree that the entry is in, root side first
        begin, end = 0, self.size
        while end - begin > 1 and end == self.size:
            middle = begin + _split(end - begin)
            if index < middle:
                above.append(self._root(middle, end))
                end = middle
            else:
                above.append(self._root(begin, middle))
                begin = middle
        return (*self._within(index, (end - begin).bit_length() - 1), *reversed(above))

    def _within(self, index: int, height: int) -> list[bytes]:
        """The path of an entry in the complete subtree of two to the power of `height` entries that it is in."""
        path: list[bytes] = []
        level = 0
        while height > 0:
            number, place = divmod(index, WIDTH)
            within = min(height, HEIGHT)
            if level and width_at(level, number, self.size) == WIDTH:
                whole = self._known.whole(level, number, self._tile)
                path += [whole[at][place >> at ^ 1] for at in range(within)]
            else:
                path += self._within_tile(level, number, place, within)
            index, height, level = number, height - HEIGHT, level + 1
        return path

    def _within_tile(self, level: int, number: int, place: int, height: int) -> tuple[bytes, ...]:
        """The same within one tile, of level 0 or not full: up to two to the power of `height` of its hashes."""
        width = width_at(level, number, self.size)
        row, low = self._row(level, number, width), min(height, _PART_HEIGHT if width == WIDTH else HEIGHT)
        begin = place >> low << low
        path = merkle.path(_hashes(row[begin * HASH : (begin + (1 << low)) * HASH], 1 << low), place - begin)
        if high := height - low:
            part = place >> _PART_HEIGHT
            begin = part >> high << high
            path += merkle.path(
                self._known.sixteenths(number, self._tile)[begin : begin + (1 << high)], part - begin
            )
        return path

    def consistency(self, old: int) -> tuple[bytes, ...]:
        """See `consistency_proof`."""
        if not 0 <= old <= self.size:
            raise UsageError("a log only grows")
        self._tiles.clear()
        if old == 0:
            return ()
        path: list[bytes] = []
        begin, end = 0, self.size
        while old < end:
            middle = begin + _split(end - begin)
            if old <= middle:
                path.append(self._root(middle, end))
                end = middle
            else:
                path.append(self._root(begin, middle))
                begin = middle
        if begin:  # otherwise what is left is the old tree, whose root the reader has
            path.append(self._root(begin, end))
        return tuple(reversed(path))

    def leaf(self, index: int) -> bytes:
        """The hash of one entry, as its tile has it."""
        return self._complete(0, index)

    def _root(self, begin: int, end: int) -> bytes:
        """Of the entries from `begin` to before `end`: a range that RFC 9162 makes a subtree, complete or not."""
        if end != self.size:
            height = (end - begin).bit_length() - 1
            return self._complete(height, begin >> height)
        if begin not in self._edges:
            self._edges[begin] = self._edge(begin, end)
        return self._edges[begin]

    def _edge(self, begin: int, end: int) -> bytes:
        roots: list[bytes] = []
        while begin < end:
            height = (end - begin).bit_length() - 1
            roots.append(self._complete(height, begin >> height))
            begin += 1 << height
        node = roots.pop() if roots else EMPTY
        while roots:
            node = node_hash(roots.pop() + node)
        return node

    def _complete(self, height: int, index: int) -> bytes:
        """Of the `index`-th run of two to the power of `height` entries."""
        level, within = divmod(height, HEIGHT)
        number, first = divmod(index << within, WIDTH)
        width = width_at(level, number, self.size)
        if level and width == WIDTH:
            return self._known.whole(level, number, self._tile)[within][first >> within]
        if within >= _PART_HEIGHT and width == WIDTH:
            parts, part = self._known.sixteenths(number, self._tile), first // _PART
            return merkle.root(parts[part : part + (1 << within - _PART_HEIGHT)])
        row = self._row(level, number, width)
        return merkle.root(_hashes(row[first * HASH : (first + (1 << within)) * HASH], 1 << within))

    def _row(self, level: int, index: int, width: int) -> bytes:
        if width < WIDTH:
            if level not in self._partial:
                self._partial[level] = self._tile(level, index, width)
            return self._partial[level]
        return self._tile(level, index, width)

    def _tile(self, level: int, index: int, width: int) -> bytes:
        row = self._tiles.get((level, index))
        if row is None:
            row = self._tiles[level, index] = self._read(level, index, width)
            if len(row) != width * HASH:
                raise RemoteProtocolError(f"tile: not {width} hashes")
        return row


def _hashes(row: bytes, count: int) -> list[bytes]:
    return [row[at * HASH : (at + 1) * HASH] for at in range(count)]
