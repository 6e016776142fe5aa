"""Tiles: their places as the specification and Go write them, and bundles that hold what they say."""

from hashlib import sha256
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from autolink import limits
from autolink.errors import RemoteProtocolError, UsageError
from autolink.registry.log import Tile, tiles
from autolink.registry.log.tiles import ENTRIES, decode_bundle_untrusted, encode_bundle, new_tiles, width_at

always_the_same = settings(deadline=None, derandomize=True, database=None, max_examples=300)
PATHS = {
    "tile/0/000": Tile(0, 0),
    "tile/0/x001/x234/067": Tile(0, 1234067),
    "tile/0/x001/x234/067.p/255": Tile(0, 1234067, 255),
    "tile/1/x001/000": Tile(1, 1000),
    "tile/7/000.p/127": Tile(7, 0, 127),
    "tile/entries/999": Tile(ENTRIES, 999),
    "tile/entries/x001/000.p/1": Tile(ENTRIES, 1000, 1),
    "tile/entries/x036/x028/x797/x018/x963/967.p/255": Tile(ENTRIES, limits.LOG_ENTRIES // 256, 255),
}


@pytest.mark.parametrize(("path", "tile"), PATHS.items())
def test_a_place_has_one_path(path, tile):
    assert tile.path == path
    assert tiles.tile_from_untrusted(path) == tile


def test_paths_are_those_of_go(sumdb):
    for row in sumdb["paths"]:
        tile = Tile(row["level"], row["index"], row["width"])
        assert tile.path == row["path"]
        assert tiles.tile_from_untrusted(row["path"]) == tile


@given(st.integers(-1, 4), st.integers(0, 10**7), st.integers(1, 256))
@always_the_same
def test_what_is_written_is_read(level, index, width):
    tile = Tile(level, index, width)
    assert tiles.tile_from_untrusted(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "tile", "tile/0", "tile/0/", "tile//000", "/tile/0/000", "tile/0/000/", "tile/0//000", "Tile/0/000",
        "tile/00/000", "tile/+0/000", "tile/-1/000", "tile/x0/000", "tile/64/000", "tile/8/000", "tile/63/000",
        "tile/0_0/000",
        "tile/data/000", "tile/8/0/000", "tile/entries/0/000", "tile/0/000/000", "tile/0/x000/000",
        "tile/0/x001/x000",
        "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000", "tile/0/1000", "tile/0/001/000",
        "tile/0/x01/000", "tile/0/X001/000",
        "tile/0/xx001/000", "tile/0/-01", "tile/0/+01", "tile/0/ 01", "tile/0/0_1",
        "tile/0/\u0660\u0660\u0660", "tile/0/00\u00b2",
        "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/01",
        "tile/0/000.p/+1", "tile/0/000.p/1/", "tile/0/000.p/1.p/1", "tile/0/000.P/1", "tile/0/x001.p/5/000",
        "tile/0/.p/1",
        "tile/0/../000", "tile/0/000?x", "tile/0/000\n", "tile/0/000\0", "tile/7/000", "tile/7/000.p/128",
        "tile/7/001.p/1",
        "tile/entries/x036/x028/x797/x018/x963/967", "tile/0/x036/x028/x797/x018/x963/968.p/1",
        "tile/9223372036854775807/000", "tile/9223372036854775808/000",
        "tile/0/" + "x999/" * 7 + "999", "tile/0/" + "x999/" * 10**5 + "999",
        "x" * 10**6,
    ],
    ids=count(),
)  # fmt: skip
def test_what_is_no_path_of_a_tile_is_refused(path):
    with pytest.raises(RemoteProtocolError, match="^tile"):
        tiles.tile_from_untrusted(path)


def test_no_other_text_of_the_same_length_means_a_tile_by_accident():
    """Changed letter by letter, a path is refused or is another tile's only path."""
    for path in PATHS:
        for at in range(len(path)):
            for letter in "0129x/.pe \n\u0661":
                changed = path[:at] + letter + path[at + 1 :]
                try:
                    tile = tiles.tile_from_untrusted(changed)
                except RemoteProtocolError:
                    continue
                assert tile.path == changed


def test_the_tiles_of_the_specifications_example():
    """70,000 entries: 273 full tiles and one of 112, one full and one of 17, one of 1."""
    found = list(new_tiles(0, 70_000))
    assert [tile for tile in found if tile.width == 256] == [*(Tile(0, n) for n in range(273)), Tile(1, 0)]
    assert [tile for tile in found if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(new_tiles(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(new_tiles(0, 0)) == list(new_tiles(256, 256)) == []


def test_the_tiles_of_a_growing_log_are_those_of_go(sumdb):
    for row in sumdb["growth"]:
        found = list(new_tiles(row["old"], row["new"]))
        assert len(found) == row["tiles"]
        assert sha256("".join(f"{tile.path}\n" for tile in found).encode()).hexdigest() == row["paths_sha256"]


SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 131_072]


@pytest.mark.parametrize("old", SIZES)
def test_new_tiles_are_those_that_are_wider_than_before(old):
    """And `width_at` says how wide, also of the bundles."""
    for new in (size for size in SIZES if size >= old):
        wider = [
            Tile(level, index, width_at(level, index, new))
            for level in range(4)
            for index in range(520)
            if width_at(level, index, new) > width_at(level, index, old)
        ]
        assert list(new_tiles(old, new)) == wider
        for tile in wider:
            if tile.level == 0:
                assert width_at(ENTRIES, tile.index, new) == tile.width


def test_a_large_growth_is_not_held_in_memory():
    growth = new_tiles(0, limits.LOG_ENTRIES)
    assert [next(growth), next(growth)] == [Tile(0, 0), Tile(0, 1)]


@pytest.mark.parametrize(("old", "new"), [(-1, 0), (1, 0)])
def test_a_log_does_not_shrink(old, new):
    with pytest.raises(UsageError):
        list(new_tiles(old, new))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
@always_the_same
def test_a_bundle_gives_back_its_entries(entries):
    assert decode_bundle_untrusted(encode_bundle(entries), len(entries)) == entries


def test_a_bundle_has_big_endian_lengths_of_two_bytes():
    longest = bytes(limits.LOG_ENTRY)
    assert encode_bundle([b"", b"ab", longest]) == b"\0\0\0\x02ab\xff\xff" + longest


@pytest.mark.parametrize("entries", [[], [b""] * 257, [bytes(limits.LOG_ENTRY + 1)]])
def test_what_no_bundle_can_hold_is_not_encoded(entries):
    with pytest.raises(UsageError):
        encode_bundle(entries)


def test_a_bundle_that_is_cut_lengthened_or_of_another_width_is_refused():
    data = encode_bundle([b"one", b"", b"three"])
    wrong = [(data[:at], 3) for at in range(len(data))]
    wrong += [
        (data + b"\0", 3),
        (data + b"\0\0", 3),
        (data, 2),
        (data, 4),
        (data, 0),
        (b"", 1),
        (b"\xff\xff", 1),
    ]
    for bundle, width in wrong:
        with pytest.raises(RemoteProtocolError, match="^entry bundle: not"):
            decode_bundle_untrusted(bundle, width)
