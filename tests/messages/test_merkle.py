"""Merkle trees: RFC 9162's shape, paths that fit one place only, and the same root streamed."""

from hashlib import sha256

import pytest

from autolink.errors import BadSignature
from autolink.messages import merkle

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(70)]


def by_the_book(hashes):
    """RFC 9162, section 2.1.1, word for word: split at the largest power of two below n."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\x01" + by_the_book(hashes[:split]) + by_the_book(hashes[split:])).digest()


def test_roots_are_those_of_rfc_9162_for_every_small_size():
    """Level by level gives the tree that the standard defines by recursion, and so does the streaming
    root."""
    streamed = merkle.StreamingRoot()
    for size in range(len(LEAVES) + 1):
        assert merkle.root(LEAVES[:size]) == streamed.root() == by_the_book(LEAVES[:size])
        if size < len(LEAVES):
            streamed.add(LEAVES[size])


def test_a_streaming_root_may_have_a_rest_behind_it_and_be_copied():
    """Of up to fewer leaves than its smallest complete subtree has. The copy and what it was made of grow apart."""
    for size, behind in ((0, 5), (4, 3), (12, 1), (64, 6)):
        streamed = merkle.StreamingRoot()
        for leaf in LEAVES[:size]:
            streamed.add(leaf)
        rest = by_the_book(LEAVES[size : size + behind])
        assert streamed.root(rest) == by_the_book(LEAVES[: size + behind])
        copied = streamed.copy()
        copied.add(LEAVES[0])
        assert (streamed.count, streamed.root()) == (size, by_the_book(LEAVES[:size]))
        assert (copied.count, copied.root()) == (size + 1, by_the_book([*LEAVES[:size], LEAVES[0]]))


def test_all_levels_of_a_tree_end_with_its_root_and_hold_the_paths_of_a_complete_one():
    for size in range(1, len(LEAVES) + 1):
        levels = merkle.levels(LEAVES[:size])
        assert (levels[0], [*levels[-1]]) == (LEAVES[:size], [merkle.root(LEAVES[:size])])
    levels = merkle.levels(LEAVES[:64])
    for index in range(64):
        assert tuple(levels[at][index >> at ^ 1] for at in range(6)) == merkle.path(LEAVES[:64], index)


def test_every_path_leads_to_the_root():
    """Each leaf of each size up to 70, path length included."""
    for size in range(1, len(LEAVES) + 1):
        root = merkle.root(LEAVES[:size])
        for index in range(size):
            path = merkle.path(LEAVES[:size], index)
            assert len(path) == merkle.path_length(index, size)
            assert merkle.root_from_path(LEAVES[index], index, size, path) == root


def test_rule_27_a_proof_fits_other_sizes_so_the_count_must_be_signed():
    """The path of leaf 8 of 11 leads to the same root as leaf 4 of 7: only the signed count tells them
    apart."""
    path = merkle.path(LEAVES[:11], 8)
    root = merkle.root(LEAVES[:11])
    fits = [
        (index, size)
        for size in range(1, 65)
        for index in range(size)
        if merkle.path_length(index, size) == len(path)
        and merkle.root_from_path(LEAVES[8], index, size, path) == root
    ]
    assert {(4, 7), (4, 8), (8, 11), (8, 12), (16, 19)} < set(fits)
    assert len(fits) == 8


@pytest.mark.parametrize(
    ("index", "count", "length"), [(0, 0, 0), (-1, 3, 2), (3, 3, 2), (0, 3, 1), (2, 3, 2)]
)
def test_a_path_that_cannot_belong_to_its_place_is_refused(index, count, length):
    """No leaf there, or a path that is too short or too long for it."""
    with pytest.raises(BadSignature):
        merkle.root_from_path(LEAVES[0], index, count, [bytes(32)] * length)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_path_to_a_leaf_that_is_not_there(index):
    """An index is never counted from the end."""
    with pytest.raises(IndexError):
        merkle.path(LEAVES[:3], index)


def test_a_streaming_root_keeps_a_logarithm_of_its_leaves():
    """A million leaves (a stream of 64 GiB) leave at most twenty hashes in memory."""
    streamed = merkle.StreamingRoot()
    for _ in range(2**14 - 1):
        streamed.add(LEAVES[0])
    assert len(streamed._subtrees) == 14
