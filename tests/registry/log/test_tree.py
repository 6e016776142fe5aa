"""Proofs: those of the standard, of certificate transparency and of Go, made from a few tiles; and no others pass."""

import base64
from hashlib import sha256

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from autolink.errors import BadSignature, RemoteProtocolError, UsageError
from autolink.messages import merkle
from autolink.registry.log import check_consistency, check_inclusion
from autolink.registry.log.tree import consistency_proof, inclusion_proof, tree_root
from tests.registry.log.reference import Sparse, Store, Tree

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(70)]
TREE = Tree(LEAVES.__getitem__)
ROOTS = [TREE.mth(0, size) for size in range(71)]
always_the_same = settings(deadline=None, derandomize=True, database=None, max_examples=150)

CT_LEAVES = [bytes.fromhex(leaf) for leaf in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def store_of(leaf_hashes):
    store = Store()
    store.append(leaf_hashes)
    return store


def digest(path):
    return sha256(b"".join(path)).hexdigest()


def test_certificate_transparencys_eight_leaves():
    store = store_of([merkle.leaf_hash(leaf) for leaf in CT_LEAVES])
    assert [tree_root(size, store.read).hex() for size in range(9)] == CT_ROOTS


def test_certificate_transparencys_proofs_are_judged_as_there(ct):
    """98 proofs of each kind, six of them good. The good ones over those leaves are also the ones that we make."""
    store = store_of([merkle.leaf_hash(leaf) for leaf in CT_LEAVES])
    good = 0
    for case in ct["inclusion"]:
        path = [base64.b64decode(each) for each in case["proof"] or ()]
        leaf, root = (base64.b64decode(case[name] or "") for name in ("leafHash", "root"))
        try:
            check_inclusion(leaf, case["leafIdx"], case["treeSize"], root, path)
        except BadSignature:
            assert case["wantErr"], case["name"]
            continue
        assert not case["wantErr"], case["name"]
        if "single" not in case["name"]:
            good += inclusion_proof(case["leafIdx"], case["treeSize"], store.read) == tuple(path)
    for case in ct["consistency"]:
        path = [base64.b64decode(each) for each in case["proof"] or ()]
        old, new = (base64.b64decode(case[name] or "") for name in ("root1", "root2"))
        try:
            check_consistency(case["size1"], old, case["size2"], new, path)
        except BadSignature:
            no_hashes = case["name"] == "additional/sizes-are-equal-one-and-proof-is-empty"
            assert case["wantErr"] or no_hashes, case["name"]  # its roots are two equal texts of 12 letters
            continue
        assert not case["wantErr"], case["name"]
        if "additional" not in case["name"]:
            good += consistency_proof(case["size1"], case["size2"], store.read) == tuple(path)
    assert good == 10


def test_roots_and_proofs_are_those_of_the_standard_for_all_small_sizes():
    """All sizes to 70, all entries of each and all pairs of sizes, against the definitions written as recursion."""
    store = store_of(LEAVES)
    for size in range(71):
        assert tree_root(size, store.read) == ROOTS[size]
        for index in range(size):
            path = inclusion_proof(index, size, store.read)
            assert list(path) == TREE.path(index, 0, size)
            check_inclusion(LEAVES[index], index, size, ROOTS[size], path)
        for old in range(1, size + 1):
            path = consistency_proof(old, size, store.read)
            assert list(path) == TREE.proof(old, size)
            check_consistency(old, ROOTS[old], size, ROOTS[size], path)
        assert consistency_proof(0, size, store.read) == ()
        check_consistency(0, merkle.EMPTY, size, ROOTS[size], ())


def test_roots_and_proofs_of_a_log_of_70_000_are_those_of_go(store, sumdb):
    roots = {row["size"]: bytes.fromhex(row["root"]) for row in sumdb["roots"]}
    for size, root in roots.items():
        assert tree_root(size, store.read) == root
    for row in sumdb["inclusion"]:
        path = inclusion_proof(row["index"], row["size"], store.read)
        assert (len(path), digest(path)) == (row["hashes"], row["sha256"])
        check_inclusion(
            merkle.leaf_hash(b"entry %d" % row["index"]), row["index"], row["size"], roots[row["size"]], path
        )
    for row in sumdb["consistency"]:
        path = consistency_proof(row["old"], row["new"], store.read)
        assert (len(path), digest(path)) == (row["hashes"], row["sha256"])
        check_consistency(row["old"], roots[row["old"]], row["new"], roots[row["new"]], path)
    for row in sumdb["tiles"]:
        _, level, index, *width = row["path"].removesuffix("/").replace(".p", "").split("/")
        assert sha256(store.read(int(level), int(index), int(*width or [256]))).hexdigest() == row["sha256"]


EDGES = [
    255,
    256,
    257,
    65_535,
    65_536,
    65_537,
    65_792,
    2**24 - 1,
    2**24,
    2**24 + 1,
    2**40 + 2**17 + 1,
    2**63 - 1,
]
near_an_edge = st.sampled_from(EDGES).flatmap(
    lambda edge: st.integers(max(1, edge - 3), min(2**63 - 1, edge + 3))
)
sizes = st.one_of(near_an_edge, st.integers(1, 2**63 - 1))


@given(sizes, st.data())
@always_the_same
def test_proofs_in_trees_of_any_size_are_those_of_the_standard(size, data):
    """Trees too large to be held, all leaves alike but for some: those at the edges of tiles, and those asked about."""
    index = data.draw(st.one_of(st.integers(0, size - 1), st.integers(max(0, size - 300), size - 1)))
    old = data.draw(st.one_of(st.integers(1, size), st.sampled_from([e for e in (1, *EDGES) if e <= size])))
    marked = {index, old - 1, size - 1, *(edge for edge in EDGES[:6] if edge < size)}
    tree = Sparse(size, marked)
    root = tree_root(size, tree.read)
    assert root == tree.mth(0, size)
    path = inclusion_proof(index, size, tree.read)
    assert list(path) == tree.path(index, 0, size)
    check_inclusion(tree.leaf(index), index, size, root, path)
    path = consistency_proof(old, size, tree.read)
    assert list(path) == tree.proof(old, size)
    check_consistency(old, tree.mth(0, old), size, root, path)


@given(sizes, st.data())
@example(2**63 - 1, None)
@always_the_same
def test_a_proof_reads_a_few_tiles_of_each_level_and_none_twice(size, data):
    """At most two of a level: the one with the range, and the last one."""
    levels = (size.bit_length() + 7) // 8
    index, old = (
        (data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))) if data else (2**62, 2**62 + 1)
    )
    for make in (
        lambda read: inclusion_proof(index, size, read),
        lambda read: consistency_proof(old, size, read),
        lambda read: tree_root(size, read),
    ):
        tree = Sparse(size, ())
        make(tree.read)
        assert len(tree.asked) == len(set(tree.asked)) <= 2 * levels


def test_every_changed_proof_is_refused():
    """Each byte of each part, every hash left out, doubled, added or in another place, other indices and sizes."""
    for size in (1, 2, 3, 6, 7, 8, 11, 16, 33):
        for index in range(size):
            path, fitting = TREE.path(index, 0, size), ambiguous(index, size)
            wrong = [
                (LEAVES[index], at, n, ROOTS[size], path)
                for at in range(-1, size + 2)
                for n in range(size + 1)
                if (at, n) not in fitting
            ]
            wrong += [(leaf, index, size, ROOTS[size], path) for leaf in changed(LEAVES[index])]
            wrong += [(LEAVES[index], index, size, root, path) for root in changed(ROOTS[size])]
            wrong += [(LEAVES[index], index, size, ROOTS[size], other) for other in spoiled(path)]
            for arguments in wrong:
                with pytest.raises(BadSignature):
                    check_inclusion(*arguments)


def ambiguous(index, size):
    """Where the same path leads to the same root: why a size is signed with its root (rule 27)."""
    path = TREE.path(index, 0, size)
    return {
        (at, n)
        for n in range(size + 1)
        for at in range(n)
        if merkle.path_length(at, n) == len(path)
        and merkle.root_from_path(LEAVES[index], at, n, path) == ROOTS[size]
    }


def test_every_changed_proof_of_consistency_is_refused():
    for new in (2, 3, 6, 7, 8, 11, 16, 33):
        for old in range(1, new):
            path = TREE.proof(old, new)
            wrong = [(old, root, new, ROOTS[new], path) for root in changed(ROOTS[old])]
            wrong += [(old, ROOTS[old], new, root, path) for root in changed(ROOTS[new])]
            wrong += [(old, ROOTS[old], new, ROOTS[new], other) for other in spoiled(path)]
            wrong += [(new, ROOTS[new], old, ROOTS[old], path), (old, ROOTS[new], new, ROOTS[old], path)]
            wrong += [(0, ROOTS[0], new, ROOTS[new], path), (0, ROOTS[old], new, ROOTS[new], ())]
            wrong += [(new, ROOTS[old], new, ROOTS[new], ()), (new, ROOTS[new], new, ROOTS[new], path)]
            wrong += [(-1, ROOTS[old], new, ROOTS[new], path), (old, ROOTS[old], 0, ROOTS[new], path)]
            for arguments in wrong:
                with pytest.raises(BadSignature, match="^log: "):
                    check_consistency(*arguments)


def test_a_proof_of_consistency_fits_few_other_sizes():
    """Where it does, the roots are those of a tree that has other sizes with them: a checkpoint signs both."""
    for new in range(2, 20):
        for old in range(1, new):
            path = TREE.proof(old, new)
            for m in range(20):
                for n in range(20):
                    if (ROOTS[m], ROOTS[n]) == (ROOTS[old], ROOTS[new]):
                        continue
                    with pytest.raises(BadSignature):
                        check_consistency(m, ROOTS[m], n, ROOTS[n], path)


def changed(data):
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    yield from (b"", data[:-1], data + b"\0")


def spoiled(path):
    garbage = bytes(32)
    for place in range(len(path)):
        yield from ([*path[:place], hashed, *path[place + 1 :]] for hashed in changed(path[place]))
        yield [*path[:place], *path[place + 1 :]]
        yield [*path[:place], path[place], path[place], *path[place + 1 :]]
    for place in range(len(path) + 1):
        yield [*path[:place], garbage, *path[place:]]
    yield [*path, *[garbage] * 100]
    if len(set(path)) > 1:
        yield [*path[1:], path[0]]
        # As one row of bytes it is the same path.
        row = b"".join(path[:2])
        yield [row[:31], row[31:], *path[2:]]
        yield [row, *path[2:]]


def test_a_log_cannot_sign_roots_of_other_sizes_for_its_path():
    """Roots made to fit a path that is one hash too long: of taller trees than the signed sizes allow."""
    above = bytes(32)
    for old, new in ((3, 4), (5, 8), (6, 7)):
        taller = [merkle.node_hash(above + ROOTS[size]) for size in (old, new)]
        with pytest.raises(BadSignature, match="cannot belong"):
            check_consistency(old, taller[0], new, taller[1], [*TREE.proof(old, new), above])


def test_two_trees_of_one_size_convict_their_log():
    with pytest.raises(BadSignature, match="two trees of one size"):
        check_consistency(5, ROOTS[5], 5, ROOTS[6], ())
    with pytest.raises(BadSignature, match="became shorter"):
        check_consistency(6, ROOTS[6], 5, ROOTS[5], ())


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 5), (5, 5), (6, 5)])
def test_there_is_no_proof_of_an_entry_that_is_not_there(index, size):
    with pytest.raises(UsageError):
        inclusion_proof(index, size, store_of(LEAVES).read)


@pytest.mark.parametrize(("old", "new"), [(-1, 5), (6, 5), (1, 0)])
def test_there_is_no_proof_that_a_log_shrank(old, new):
    with pytest.raises(UsageError):
        consistency_proof(old, new, store_of(LEAVES).read)


@pytest.mark.parametrize("length", [0, 223, 225, 448])
def test_a_tile_of_another_length_is_refused(length):
    """It may have come from somebody else's log."""
    good = store_of(LEAVES).read
    for make in (
        lambda read: inclusion_proof(3, 7, read),
        lambda read: consistency_proof(3, 7, read),
        lambda read: tree_root(7, read),
    ):
        with pytest.raises(RemoteProtocolError, match="tile: not 7 hashes"):
            make(lambda *place: (good(*place) * 2)[:length])
