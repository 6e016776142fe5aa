"""A second opinion: RFC 9162's definitions, written down as the standard writes them, and stores of tiles to ask."""

from functools import lru_cache
from hashlib import sha256

from autolink.registry.log import Frontier


def h(*parts):
    return sha256(b"".join(parts)).digest()


def entry(number):
    """What the logs of these tests hold, those of `vectors/tlog/sumdb.go` too."""
    return b"entry %d" % number


def largest_power_of_two_below(n):
    k = 1
    while 2 * k < n:
        k *= 2
    return k


class Tree:
    """The tree over leaf hashes: sections 2.1.1, 2.1.3.1 and 2.1.4.1 of RFC 9162, by recursion."""

    def __init__(self, leaf):
        self.leaf = leaf
        self.mth = lru_cache(None)(self.mth)

    def mth(self, begin, end):
        n = end - begin
        if n == 0:
            return h()
        if n == 1:
            return self.leaf(begin)
        k = largest_power_of_two_below(n)
        return h(b"\x01", self.mth(begin, begin + k), self.mth(begin + k, end))

    def path(self, m, begin, end):
        n = end - begin
        if n == 1:
            return []
        k = largest_power_of_two_below(n)
        if m < k:
            return [*self.path(m, begin, begin + k), self.mth(begin + k, end)]
        return [*self.path(m - k, begin + k, end), self.mth(begin, begin + k)]

    def proof(self, m, n):
        return self.subproof(m, 0, n, True)

    def subproof(self, m, begin, end, b):
        n = end - begin
        if m == n:
            return [] if b else [self.mth(begin, end)]
        k = largest_power_of_two_below(n)
        if m <= k:
            return [*self.subproof(m, begin, begin + k, b), self.mth(begin + k, end)]
        return [*self.subproof(m - k, begin + k, end, False), self.mth(begin, begin + k)]


class Sparse(Tree):
    """A tree of any size: all leaves are the same but for some that are marked. Also the reader of its tiles."""

    def __init__(self, size, marked):
        super().__init__(
            lambda index: h(b"\0marked", index.to_bytes(8, "big")) if index in self.marked else h(b"\0")
        )
        self.size, self.marked, self.asked = size, frozenset(marked), []
        self.plain = [h(b"\0")]
        for _ in range(63):
            self.plain.append(h(b"\x01", self.plain[-1], self.plain[-1]))

    def mth(self, begin, end):
        n = end - begin
        if n and n & (n - 1) == 0 and not any(begin <= index < end for index in self.marked):
            return self.plain[n.bit_length() - 1]
        return Tree.mth(self, begin, end)

    def read(self, level, index, width):
        self.asked.append((level, index, width))
        whole = self.size // 256**level - 256 * index
        assert 0 < width == min(256, whole), "no such tile in the tree of this size"
        each = 256**level
        first = 256 * index
        return b"".join(self.mth(at * each, (at + 1) * each) for at in range(first, first + width))


class Store:
    """What a store keeps: the widest tile of each place. Counts what is read."""

    def __init__(self):
        self.frontier = Frontier()
        self.tiles = {}
        self.asked = []

    def append(self, leaf_hashes):
        self.frontier, tiles = self.frontier.extended(leaf_hashes)
        for tile, hashes in tiles:
            assert len(hashes) == 32 * tile.width
            self.tiles[tile.level, tile.index] = hashes
        return [tile for tile, _ in tiles]

    def read(self, level, index, width):
        self.asked.append((level, index, width))
        assert 0 < width <= 256
        return self.tiles[level, index][: 32 * width]
