"""A log written out as files that any file server or CDN serves (c2sp.org/tlog-tiles), and gone on with later.

The tiles are computed from the entries, and compared with what the log has signed before its checkpoint is written, which
is last: a reader who has seen a checkpoint finds all that it covers. Run again, it writes what is new. Partial tiles go when
the full one has come and no checkpoint here needs them.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from autolink import limits
from autolink.errors import SetupError, display
from autolink.identity import files
from autolink.messages.merkle import leaf_hashes
from autolink.registry.checked_tiles import CheckedTiles
from autolink.registry.log import checkpoint
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tiles import ENTRIES, WIDTH, Tile, encode_bundle, width_at
from autolink.registry.source import Progress, Source, SourceFailed
from autolink.registry.tile_sources import CHECKPOINT, TileFolderSource

_MODE: Final = 0o644


def export_tiles(
    source: Source, folder: Path, key: VerifierKey, *, progress: Progress | None = None
) -> Checkpoint:
    """Write the log of a source, up to its newest checkpoint, as files below `folder`.

    Args:
        source: any: so a log that somebody serves is mirrored, too.
        folder: made if it is not there; or one that an earlier call has written for this log.
        key: the log's.

    Raises:
        RemoteProtocolError, BadSignature: a checkpoint, here or there, is none of this log's.
        SourceFailed: entries are missing or not what was signed, or the folder is ahead of the source.
        SetupError: the folder cannot be written.
    """
    note = source.checkpoint()
    signed = checkpoint.verify_untrusted(note, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = _begun(folder, key)
        if begun.size > signed.size:
            raise SourceFailed(
                f"{display(str(folder))} has {begun.size} entries, and the source {signed.size}"
            )
        full = _grow(source, folder, begun, signed, progress)
        files.write_atomic(str(folder / CHECKPOINT), note, mode=_MODE)
        for tile in full:
            shutil.rmtree(folder / f"{tile.path}.p", ignore_errors=True)
    except OSError as error:
        raise SetupError(f"{display(str(folder))} cannot be written: {error.strerror}") from error
    return signed


def _begun(folder: Path, key: VerifierKey) -> Checkpoint:
    """What is there already."""
    with suppress(FileNotFoundError):
        note = files.read_bounded(folder / CHECKPOINT, limits.NOTE)
        return checkpoint.verify_untrusted(note, key)
    return Checkpoint(key.name, 0, Frontier().root())


def _grow(
    source: Source, folder: Path, begun: Checkpoint, signed: Checkpoint, progress: Progress | None
) -> list[Tile]:
    """Write what is new, but for the checkpoint; gives the tiles that became full."""
    whole = begun.size - begun.size % WIDTH  # the last bundle is written again, wider
    checked = CheckedTiles(TileFolderSource(folder).read_tile, begun)
    frontier = Frontier.restored(whole, lambda level, index, _: checked.tile(level, index))
    full: list[Tile] = []
    partial: dict[int, tuple[Tile, bytes]] = {}
    for bundle in _bundles(source.leaves(whole, signed)):
        place = Tile(ENTRIES, frontier.size // WIDTH, len(bundle))
        frontier, tiles = frontier.extended(leaf_hashes(bundle))
        for tile, data in [(place, encode_bundle(bundle)), *tiles]:
            if tile.width == WIDTH:
                _write(folder, tile, data)
                full.append(tile)
            else:
                partial[tile.level] = tile, data
        if progress is not None:
            progress(frontier.size, signed.size)
    if frontier.root() != signed.root:
        raise SourceFailed("the entries are not those that were signed")
    for tile, data in partial.values():
        if tile.width == width_at(tile.level, tile.index, signed.size):
            _write(folder, tile, data)
    return full


def _bundles(leaves: Iterator[bytes]) -> Iterator[list[bytes]]:
    bundle: list[bytes] = []
    for leaf in leaves:
        bundle.append(leaf)
        if len(bundle) == WIDTH:
            yield bundle
            bundle = []
    if bundle:
        yield bundle


def _write(folder: Path, tile: Tile, data: bytes) -> None:
    path = folder / tile.path
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(str(path), data, mode=_MODE)
