"""A log in tiles and bundles, as C2SP lays them out (c2sp.org/tlog-tiles): in a folder, or behind a URL.

What a log has signed is its checkpoint; tiles are checked against that, and bundles of entries against the tiles, before an
entry is handed on: so whoever serves a log, or sits in between, cannot show other entries than the log's.
"""

import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from autolink import limits
from autolink.errors import RemoteProtocolError, SetupError, UsageError, display
from autolink.identity import AutoId
from autolink.messages.merkle import HASH, leaf_hashes
from autolink.registry.checked_tiles import CheckedTiles
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.tiles import ENTRIES, WIDTH, Tile, decode_bundle_untrusted, width_at
from autolink.registry.source import SourceFailed, SourceLost, Unserved

if TYPE_CHECKING:
    import httpx

CHECKPOINT: Final = "checkpoint"

_TILE_BYTES: Final = WIDTH * HASH
_BUNDLE_BYTES: Final = WIDTH * (limits.LOG_ENTRY + 2)

Fetch = Callable[[str, int], bytes | None]
"""Gives the content of a path below the log's prefix, of at most so many bytes; None if there is none."""


class _TileSource(Unserved):
    """Such a log, wherever its files are."""

    def __init__(self, name: str, fetch: Fetch, *, hint: str = "") -> None:
        self._name, self._fetch, self._hint = display(name), fetch, hint

    def checkpoint(self) -> bytes:
        note = self._fetch(CHECKPOINT, limits.NOTE)
        if note is None:
            raise SourceFailed(f"{self._name}: there is no checkpoint{self._hint}")
        return note

    def leaves(self, start: int, signed: Checkpoint) -> Iterator[bytes]:
        tiles = CheckedTiles(self.read_tile, signed)
        while start < signed.size:
            index, first = divmod(start, WIDTH)
            bundle = self._bundle(index, width_at(0, index, signed.size))
            if b"".join(leaf_hashes(bundle)) != tiles.tile(0, index):
                raise SourceFailed(
                    f"{self._name}: the entries of bundle {index} are not those that were signed"
                )
            yield from bundle[first:]
            start = index * WIDTH + len(bundle)

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        """The hashes of a tile, unchecked.

        Raises:
            SourceFailed: it is missing, or has another size.
        """
        row = self._fetch(Tile(level, index, width).path, _TILE_BYTES)
        if row is None and width < WIDTH:  # a partial tile may be gone once there is the full one
            row = (self._fetch(Tile(level, index).path, _TILE_BYTES) or b"")[: width * HASH]
        if row is None or len(row) != width * HASH:
            raise SourceFailed(f"{self._name}: tile {level}/{index} is missing, or not {width} hashes")
        return row

    def _bundle(self, index: int, width: int) -> list[bytes]:
        data, there = self._fetch(Tile(ENTRIES, index, width).path, _BUNDLE_BYTES), width
        if data is None and width < WIDTH:
            data, there = self._fetch(Tile(ENTRIES, index).path, _BUNDLE_BYTES), WIDTH
        if data is None:
            raise SourceFailed(f"{self._name}: bundle {index} of entries is missing")
        try:
            return decode_bundle_untrusted(data, there)[:width]
        except RemoteProtocolError as error:
            raise SourceFailed(f"{self._name}: bundle {index}: {error}") from None


@final
class TileFolderSource(_TileSource):
    """A folder of tile files, as `tiling.export_tiles` or another log writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(str(folder), self._read)

    def _read(self, path: str, limit: int) -> bytes | None:
        try:
            descriptor = os.open(self._folder / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceFailed(f"{self._name}: {path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceFailed(f"{self._name}: {path} is no file")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise SourceFailed(f"{self._name}: {path} has more than {limit} bytes")
        return data


@final
class UrlSource(_TileSource):
    """A registry's public side, or any server of tile files. Redirects are not followed.

    Args:
        url: the log's prefix, ``http://`` or ``https://``.
        timeout: seconds for one answer, however often it is asked for.
        transport: of httpx, for tests.
        clock: seconds.

    Raises:
        UsageError: no URL.
        SetupError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = limits.FETCH,
        transport: "httpx.BaseTransport | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._timeout = clock, timeout
        try:
            import httpx
        except ImportError as error:
            raise SetupError(
                f"to read a log by its URL takes the extra `registry` ({error}): pip install 'autolink-agents[registry]', "
                "in a checkout '.[registry]'"
            ) from error
        self._broken: type[Exception] = httpx.TransportError
        self._silent: type[Exception] = httpx.TimeoutException
        try:
            self._client = httpx.Client(
                base_url=url.rstrip("/") + "/", transport=transport, follow_redirects=False,
                headers={"accept-encoding": "gzip, identity", "cache-control": "no-cache"},
            )  # fmt: skip
        except httpx.InvalidURL as error:
            raise UsageError(f"{display(url)} is no URL: {error}") from None
        root = str(self._client.base_url.copy_with(raw_path=b"/"))
        hint = ": is a registry's public side, or a mirror, there?"
        if root != str(self._client.base_url):
            hint += f" A registry's URL is that of its root, {display(root)}"
        super().__init__(url, self._get, hint=hint)

    def is_registry(self) -> bool:
        return self._get("v1/log", limits.LOG_VIEW) is not None

    def status(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}/status", limits.STATUS)

    def status_json(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}/status", limits.LOG_VIEW, accept="application/json")

    def record_json(self, auto_id: AutoId) -> bytes | None:
        return self._get(f"v1/ids/{auto_id.hex}", limits.LOG_VIEW)

    def entry_json(self, index: int) -> bytes | None:
        return self._get(f"v1/entries/{index}", limits.LOG_VIEW)

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, limit: int, accept: str = "*/*") -> bytes | None:
        began = now = self._clock()
        until = began + self._timeout
        for left in reversed(range(limits.FETCH_TRIES)):
            try:
                return self._try(path, limit, accept, until, patience=min(limits.FETCH_SILENCE, until - now))
            except self._broken as error:
                now = self._clock()
                if left and now < until:
                    continue
                why = display(str(error)).rstrip(".")
                if isinstance(error, self._silent):
                    why = f"no answer within {now - began:.3g} s"
                raise SourceLost(f"{self._name}: {path}: {why}") from error
        raise AssertionError("the last try returns or raises")

    def _try(self, path: str, limit: int, accept: str, until: float, *, patience: float) -> bytes | None:
        data = bytearray()
        with self._client.stream("GET", path, headers={"accept": accept}, timeout=patience) as response:
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                raise SourceFailed(f"{self._name}: {path}: HTTP status {response.status_code}")
            for part in response.iter_raw():
                data += part
                if len(data) > limit:
                    raise SourceFailed(f"{self._name}: {path}: more than {limit} bytes")
                if self._clock() > until:
                    raise SourceLost(f"{self._name}: {path}: not all of it within {self._timeout:g} s")
            headers: Mapping[str, str] = response.headers
        return self._decoded(bytes(data), headers.get("content-encoding", "identity"), path, limit)

    def _decoded(self, data: bytes, encoding: str, path: str, limit: int) -> bytes:
        """The content; httpx would expand a small answer a thousand times before it can be counted."""
        if encoding == "identity":
            return data
        expanding = zlib.decompressobj(wbits=31)
        try:
            expanded = expanding.decompress(data, limit + 1) if encoding == "gzip" else b""
        except zlib.error:
            expanded = b""
        if not expanding.eof or len(expanded) > limit:
            raise SourceFailed(f"{self._name}: {path}: not gzip of at most {limit} bytes")
        return expanded
