"""The right edge: the same tree in whatever groups it grows, with every tile that there is to keep."""

from hashlib import sha256

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from autolink import limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.messages import merkle
from autolink.registry.log import Frontier
from autolink.registry.log.tiles import new_tiles
from autolink.registry.log.tree import tree_root
from tests.registry.log.reference import Sparse, Store, entry

LEAVES = [merkle.leaf_hash(entry(number)) for number in range(66_000)]
SIZES = [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000]
always_the_same = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def test_roots_and_tiles_of_a_growing_log_are_those_of_go(sumdb):
    """From each size to each larger one in one step: its root, and the tiles to keep, in their order."""
    edges = {0: Frontier()}
    roots = {row["size"]: row["root"] for row in sumdb["roots"]}
    leaves = LEAVES + [merkle.leaf_hash(entry(number)) for number in range(66_000, 70_000)]
    for row in sumdb["growth"]:
        frontier, tiles = edges[row["old"]].extended(leaves[row["old"] : row["new"]])
        assert [tile for tile, _ in tiles] == list(new_tiles(row["old"], row["new"]))
        assert sha256(b"".join(hashes for _, hashes in tiles)).hexdigest() == row["hashes_sha256"]
        assert frontier.size == row["new"]
        assert frontier.root().hex() == roots[row["new"]]
        edges[row["new"]] = frontier


@given(st.lists(st.integers(0, 700), max_size=12))
@always_the_same
def test_groups_do_not_matter(groups):
    store = Store()
    for group in groups:
        size = store.frontier.size
        assert store.append(LEAVES[size : size + group]) == list(new_tiles(size, size + group))
    size = store.frontier.size
    assert store.frontier.root() == merkle.root(LEAVES[:size]) == tree_root(size, store.read)
    at_once = Store()
    at_once.append(LEAVES[:size])
    assert at_once.tiles == store.tiles


def test_one_by_one_across_the_first_tiles():
    store = Store()
    for size in range(600):
        assert store.frontier.root() == merkle.root(LEAVES[:size])
        store.append(LEAVES[size : size + 1])


def test_a_frontier_is_not_changed_by_what_is_made_of_it():
    """A store that could not keep the tiles tries again, or something else, from the same one."""
    store = Store()
    store.append(LEAVES[:300])
    before, root = store.frontier, store.frontier.root()
    other, _ = before.extended([LEAVES[0]] * 1000)
    same, tiles = before.extended(())
    assert (same.size, same.root(), tiles) == (300, root, [])
    assert (before.size, before.root()) == (300, root)
    assert other.root() == merkle.root([*LEAVES[:300], *[LEAVES[0]] * 1000])
    after, _ = before.extended(LEAVES[300:1300])
    assert after.root() == merkle.root(LEAVES[:1300])
    same.extended(LEAVES[:500])
    assert same.root() == root


@pytest.mark.parametrize("size", SIZES)
def test_a_frontier_is_restored_from_the_partial_tiles(size, store):
    """From the tiles of a log that has grown beyond it, at most one of each level; and it grows on as it would have."""
    store.asked.clear()
    restored = Frontier.restored(size, store.read)
    assert len({level for level, _, _ in store.asked}) == len(store.asked) <= 3
    assert all(width < 256 for _, _, width in store.asked)
    assert restored.root() == tree_root(size, store.read)
    grown, tiles = restored.extended([merkle.leaf_hash(entry(number)) for number in range(size, size + 600)])
    assert [tile for tile, _ in tiles] == list(new_tiles(size, size + 600))
    assert all(hashes == store.read(tile.level, tile.index, tile.width) for tile, hashes in tiles)
    assert grown.root() == tree_root(size + 600, store.read)


@given(st.integers(1, 2**63 - 1), st.integers(1, 600))
@always_the_same
def test_the_largest_log_has_eight_partial_tiles_at_its_edge(size, more):
    tree = Sparse(size, {0, size - 1})
    restored = Frontier.restored(size, tree.read)
    assert len(tree.asked) <= 8
    assert restored.root() == tree.mth(0, size)
    if size + more > limits.LOG_ENTRIES:
        return
    grown, _ = restored.extended([tree.leaf(-1)] * more)
    assert grown.root() == Sparse(size + more, {0, size - 1}).mth(0, size + more)


def test_every_node_is_hashed_once(monkeypatch):
    """As many hashes as the tree has complete nodes, however it grew; a root takes as many more as there are bits."""
    counted = 0
    honest = merkle.node_hash

    def counting(children):
        nonlocal counted
        counted += 1
        return honest(children)

    monkeypatch.setattr(merkle, "node_hash", counting)
    frontier = Frontier()
    for begin in range(0, 66_000, 1000):
        frontier, _ = frontier.extended(LEAVES[begin : begin + 1000])
    bits = (66_000).bit_count()
    # The last node above a full tile is hashed when the tile is full: nothing is hashed again on the level above.
    assert counted == 66_000 - bits
    frontier.root()
    assert counted == 66_000 - 1


def test_what_would_spoil_the_tree_is_refused():
    tree = Sparse(limits.LOG_ENTRIES, ())
    full = Frontier.restored(limits.LOG_ENTRIES, tree.read)
    with pytest.raises(UsageError, match="at most"):
        full.extended(LEAVES[:1])
    with pytest.raises(UsageError, match="32 bytes"):
        Frontier().extended([LEAVES[0], b"short"])
    with pytest.raises(RemoteProtocolError, match="tile: not 3 hashes"):
        Frontier.restored(3, lambda level, index, width: bytes(32))
