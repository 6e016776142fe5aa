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
from autolink.registry.log.tiles import HEIGHT, SIXTEENTH, WIDTH, width_at

ReadTile = Callable[[int, int, int], bytes]
"""Gives the hashes of a tile, in a row, by its level, index and width: the width that it has in the tree that is
asked about, so of a tile that has become wider since, its first `width` hashes."""


def inclusion_proof(index: int, size: int, read: ReadTile) -> tuple[bytes, ...]:
    """The path of entry `index` in the tree of the first `size` entries, leaf side first (section 2.1.3.1).

    Raises:
        UsageError: that tree has no such entry.
        RemoteProtocolError: a tile that was read is not as long as its width, or not what the one above it says.
    """
    return Tree(size, read).inclusion(index)


def consistency_proof(old: int, new: int, read: ReadTile) -> tuple[bytes, ...]:
    """What shows that the tree of `old` entries is the beginning of that of `new` (section 2.1.4.1). Empty between equal
    sizes and from the empty tree.

    Raises:
        UsageError: the sizes are not 0 <= old <= new.
        RemoteProtocolError: a tile that was read is not as long as its width, or not what the one above it says.
    """
    if not 0 <= old <= new:
        raise UsageError("a log only grows")
    return Tree(new, read).consistency(old)


def tree_root(size: int, read: ReadTile) -> bytes:
    """The root over the first `size` entries.

    Raises:
        RemoteProtocolError: a tile that was read is not as long as its width, or not what the one above it says.
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


_LOW: Final = SIXTEENTH.bit_length() - 1
"""Levels of the tree in a sixteenth of a tile, below its root."""

Levels = list[bytes]
"""Hashes that stand in a row, those over two of them in a row, over four, and so on up to the one root."""


class Known:
    """What was computed of full tiles, which never change, and was found to be what the tiles above them say.

    Of a tile of level 0 only what is above its sixteenths is kept, so a path through it takes fifteen hashes where the first
    took 255. The tiles that were asked for longest ago go first.

    Args:
        most: tiles of level 0, of 1.3 KiB each. Of a sixty-fourth as many of the levels above, through which most paths
            lead, every hash is kept, in 17 KiB.
    """

    def __init__(self, most: int = limits.LOG_TILES_KNOWN) -> None:
        self._most = most
        self._kept: dict[int, Levels] = {}  # last used last
        self._whole: dict[tuple[int, int], Levels] = {}

    def whole(self, level: int, index: int, load: Callable[[int, int], Levels]) -> Levels:
        """A full tile of a level above 0."""
        found = self._whole.pop((level, index), None) or load(level, index)
        self._whole[level, index] = found
        if len(self._whole) > max(1, self._most // 64):
            del self._whole[next(iter(self._whole))]
        return found

    def sixteenths(self, index: int, load: Callable[[int, int], Levels]) -> Levels:
        """A full tile of level 0, from the roots over sixteen of its hashes each."""
        found = self._kept.pop(index, None) or load(0, index)[_LOW:]
        self._kept[index] = found
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return found


class Tree:
    """The tree over the first `size` entries, from its tiles. Not for several threads at once.

    Within one question a tile is read once, and what is read of a full one is held against the tile above it. So where
    `root` gives what was signed, all that follows is true. What is asked again and again is remembered: the tiles at the
    right edge and the roots there, which are this tree's, and in `known` what is true of every tree of this log.

    Every method raises RemoteProtocolError if a tile is not as long as its width, or not what the one above it says.

    Args:
        read: gives its tiles.
        known: shared by the trees of one log; None for its own.
        read_sixteenth: gives of a full tile of level 0, by its index, the sixteenth that begins at this hash; None where
            that would take no less than the tile.
    """

    def __init__(
        self,
        size: int,
        read: ReadTile,
        known: Known | None = None,
        read_sixteenth: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self.size = size
        self._read = read
        self._read_sixteenth = read_sixteenth
        self._known = Known() if known is None else known
        self._edges: dict[int, bytes] = {}  # roots over the entries from there to the end
        self._above: dict[int, tuple[bytes, ...]] = {}  # paths from the complete subtrees, by height
        self._partial: dict[int, Levels] = {}  # the last tile of each level, if it is not full
        self._tiles: dict[tuple[int, int], bytes] = {}  # of the question that is being answered
        self._sixteens: dict[tuple[int, int], Levels] = {}  # the same

    def root(self) -> bytes:
        """See `tree_root`."""
        self._begin()
        return self._root(0, self.size)

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """See `inclusion_proof`."""
        if not 0 <= index < self.size:
            raise UsageError(f"there is no entry {index} among {self.size}")
        self._begin()
        height = (index ^ self.size).bit_length() - 1  # of the largest complete subtree that the entry is in
        if height not in self._above:
            self._above[height] = self._above_subtree(height)
        return (*self._within(index, height), *self._above[height])

    def _above_subtree(self, height: int) -> tuple[bytes, ...]:
        """The path from the complete subtree of this height: the root over all that is behind it, and those of the
        complete subtrees in front of it, one for each higher bit of the tree's size."""
        bits = [bit for bit in range(height + 1, self.size.bit_length()) if self.size >> bit & 1]
        in_front = [self._complete(bit, self.size >> bit ^ 1) for bit in bits]
        behind = self.size >> height << height
        return (self._root(behind, self.size), *in_front) if behind < self.size else tuple(in_front)

    def _within(self, index: int, height: int) -> list[bytes]:
        """The path of an entry in the complete subtree of two to the power of `height` entries that it is in."""
        path: list[bytes] = []
        level = 0
        while height > 0:
            number, place = divmod(index, WIDTH)
            path += self._within_tile(level, number, place, min(height, HEIGHT))
            index, height, level = number, height - HEIGHT, level + 1
        return path

    def _within_tile(self, level: int, number: int, place: int, height: int) -> list[bytes]:
        """The same within one tile: up to two to the power of `height` of its hashes."""
        if level or width_at(level, number, self.size) < WIDTH:
            rows = self._rows(level, number)
            return [_at(rows[at], place >> at ^ 1) for at in range(height)]
        part, within = divmod(place, SIXTEENTH)
        lower, upper = self._sixteen(number, part), self._known.sixteenths(number, self._load)
        path = [_at(lower[at], within >> at ^ 1) for at in range(min(height, _LOW))]
        return path + [_at(upper[at], part >> at ^ 1) for at in range(height - _LOW)]

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """See `consistency_proof`; `new`, this tree's size if not given, may be any that it has had."""
        new = self.size if new is None else new
        if not 0 <= old <= new <= self.size:
            raise UsageError("a log only grows")
        self._begin()
        if old == 0:
            return ()
        path: list[bytes] = []
        begin, end = 0, new
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
            return self._joined(begin, end)
        if begin not in self._edges:
            self._edges[begin] = self._joined(begin, end)
        return self._edges[begin]

    def _joined(self, begin: int, end: int) -> bytes:
        """The same, from its complete subtrees."""
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
        if level or width_at(level, number, self.size) < WIDTH:
            return _at(self._rows(level, number)[within], first >> within)
        part, first = divmod(first, SIXTEENTH)
        if within < _LOW:
            return _at(self._sixteen(number, part)[within], first >> within)
        within -= _LOW
        return _at(self._known.sixteenths(number, self._load)[within], part >> within)

    def _rows(self, level: int, number: int) -> Levels:
        """Of a tile that is above level 0 or not full."""
        if (width := width_at(level, number, self.size)) == WIDTH:
            return self._known.whole(level, number, self._load)
        if level not in self._partial:
            self._partial[level] = _levels(self._tile(level, number, width))
        return self._partial[level]

    def _load(self, level: int, number: int) -> Levels:
        """A full tile that is what the one above it says."""
        rows = _levels(self._tile(level, number, WIDTH))
        if rows[-1] != self._complete(HEIGHT * (level + 1), number):
            raise _damaged(level, number)
        return rows

    def _sixteen(self, number: int, part: int) -> Levels:
        """A sixteenth of a full tile of level 0."""
        rows = self._sixteens.get((number, part))
        if rows is None:
            rows = _levels((self._read_sixteenth or self._cut_sixteenth)(number, part * SIXTEENTH))
            if rows[-1] != _at(self._known.sixteenths(number, self._load)[0], part):
                raise _damaged(0, number)
            self._sixteens[number, part] = rows
        return rows

    def _cut_sixteenth(self, number: int, begin: int) -> bytes:
        return self._tile(0, number, WIDTH)[begin * HASH : (begin + SIXTEENTH) * HASH]

    def _begin(self) -> None:
        self._tiles.clear()
        self._sixteens.clear()

    def _tile(self, level: int, index: int, width: int) -> bytes:
        row = self._tiles.get((level, index))
        if row is None:
            row = self._read(level, index, width)
            if len(row) != width * HASH:
                raise RemoteProtocolError(f"tile: not {width} hashes")
            self._tiles[level, index] = row
        return row


def _at(row: bytes, place: int) -> bytes:
    return row[place * HASH : (place + 1) * HASH]


def _levels(row: bytes) -> Levels:
    levels = merkle.levels([row[at : at + HASH] for at in range(0, len(row), HASH)])
    return [b"".join(level) for level in levels]


def _damaged(level: int, number: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"tile: {level}/{number} is not what the one above it says")
