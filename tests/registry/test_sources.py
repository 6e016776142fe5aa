"""A log read from wherever it is: audited there by its key alone, and nothing else passes for it."""

import gzip
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import limits
from autolink.errors import BadSignature, UsageError
from autolink.registry.audit import Audit
from autolink.registry.evidence import LogConvicted
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.tiles import ENTRIES, Tile, encode_bundle
from autolink.registry.source import SourceFailed, SourceLost
from autolink.registry.sources import FolderSource, open_source
from autolink.registry.tile_sources import TileFolderSource, UrlSource
from autolink.registry.tiling import export_tiles

from .conftest import ORIGIN
from .public import KEY, Kept, kept

SIZE = 600


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A log that the tests only read."""
    with kept(tmp_path_factory.mktemp("public") / "registry", size=SIZE) as made:
        yield made


@pytest.fixture(scope="module")
def exported(public: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tiles, as files that the tests only read."""
    folder = tmp_path_factory.mktemp("exported")
    with FolderSource(public.folder) as source:
        export_tiles(source, folder, public.key)
    return folder


@pytest.fixture
def tiles(exported: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "tiles"))


@pytest.fixture
def small(tmp_path: Path) -> Any:
    with kept(tmp_path / "registry") as made:
        yield made


def audited(where: Any, key: VerifierKey) -> Audit:
    audit = Audit(key)
    with where if not isinstance(where, str | Path) else open_source(str(where)) as source:
        audit.replay(source)
    return audit


# --- where a log may be --------------------------------------------------------------------------------------


def test_a_folder_is_audited_while_its_registry_runs(public: Kept) -> None:
    told: list[tuple[int, int]] = []
    audit = Audit(public.key)
    with FolderSource(public.folder) as source:  # `public` has the lock
        signed = audit.replay(source, progress=lambda done, of: told.append((done, of)))
        assert signed.size == audit.size == SIZE
        assert told == [(256, SIZE), (512, SIZE), (SIZE, SIZE)]
        assert not source.is_registry()
        with pytest.raises(UsageError, match="by its URL"):
            source.status(public.acme.auto_id)


def test_an_audit_goes_on_where_it_was(small: Kept) -> None:
    audit = Audit(small.key)
    with FolderSource(small.folder) as source:
        audit.replay(source)
        small.add(small.acme.service(), small.echo.renew())
        assert audit.replay(source).size == 4
        assert audit.replay(source).size == 4  # nothing new
    assert {who.value for who in audit.ledger.ids()} == {small.acme.auto_id.value, small.echo.auto_id.value}


def test_a_moment_that_sqlite_has_ended_hides_no_error(public: Kept) -> None:
    """It does so by itself where a page cannot be read."""
    with (
        FolderSource(public.folder) as source,
        pytest.raises(SourceFailed, match="this one"),
        source.snapshot(),
    ):
        source._db.execute("ROLLBACK")
        raise SourceFailed("this one")


def test_a_folder_that_nobody_may_write_is_audited(public: Kept, tmp_path: Path) -> None:
    """A copy on a read-only disk, whose registry was closed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with sqlite3.connect(public.folder / "log.db") as db, sqlite3.connect(copy / "log.db") as to:
        db.backup(to)
    db.close()
    to.close()
    copy.chmod(0o500)
    try:
        assert audited(copy, public.key).size == SIZE
        assert [path.name for path in copy.iterdir()] == ["log.db"]
    finally:
        copy.chmod(0o700)


VIEW = """
CREATE TABLE log (checkpoint);
CREATE VIEW leaves AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS place, i AS leaf FROM n;
"""


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, VIEW], ids=["empty", "nonsense", "endless"])
def test_a_file_that_is_no_registrys_is_not_read(tmp_path: Path, content: bytes | str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "log.db").write_bytes(content)
    else:
        db = sqlite3.connect(tmp_path / "log.db")
        db.executescript(content)
        db.close()
    with pytest.raises(UsageError, match="cannot be read"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("table", ["tiles", "records", "used", "changes", "history", "ended"])
def test_a_table_that_is_a_query_is_not_read(public: Kept, tmp_path: Path, table: str) -> None:
    with (
        closing(sqlite3.connect(public.folder / "log.db")) as db,
        closing(sqlite3.connect(tmp_path / "log.db")) as to,
    ):
        db.backup(to)
        to.executescript(
            f"DROP TABLE {table}; CREATE VIEW {table} AS SELECT 0 AS level, 0 AS place, 0 AS hashes"
        )
    with pytest.raises(UsageError, match="cannot be read"):
        FolderSource(tmp_path)


def test_of_a_table_without_its_key_no_more_is_read_than_of_one_with_it(public: Kept, tmp_path: Path) -> None:
    """A thousand rows of one place, none of which takes room in the file."""
    with (
        closing(sqlite3.connect(public.folder / "log.db")) as db,
        closing(sqlite3.connect(tmp_path / "log.db")) as to,
    ):
        db.backup(to)
        to.executescript("""
            DROP TABLE tiles;
            CREATE TABLE tiles (level, place, hashes GENERATED ALWAYS AS (zeroblob(64 * 1024)));
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
                INSERT INTO tiles SELECT 0, 0 FROM n;
        """)
    with FolderSource(tmp_path) as source:
        tracemalloc.start()
        try:
            source.tile(0, 0, 256)
            assert tracemalloc.get_traced_memory()[1] < 20 * limits.MIB
        finally:
            tracemalloc.stop()


def test_a_file_that_sqlite_cannot_open_is_not_read(tmp_path: Path) -> None:
    """Here its path is longer than SQLite takes; whose it is can do the same."""
    folder = tmp_path / ("a" * 200) / ("b" * 200) / ("c" * 200)
    folder.mkdir(parents=True)
    (folder / "log.db").touch()
    with pytest.raises(UsageError, match="cannot be read: unable to open database file"):
        FolderSource(folder)


def test_a_folder_that_lost_entries_or_holds_others_is_found_out(public: Kept, tmp_path: Path) -> None:
    def changed(statement: str) -> Path:
        copy = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        copy.mkdir()
        with sqlite3.connect(public.folder / "log.db") as db, sqlite3.connect(copy / "log.db") as to:
            db.backup(to)
            to.execute(statement)
        db.close()
        to.close()
        return copy

    with pytest.raises(SourceFailed, match="are missing"):
        audited(changed("DELETE FROM leaves WHERE place = 300"), public.key)
    with pytest.raises(SourceFailed, match="no bytes"):
        audited(changed("UPDATE leaves SET leaf = 'text' WHERE place = 300"), public.key)
    with pytest.raises(SourceFailed, match="too big"):
        audited(changed("UPDATE leaves SET leaf = zeroblob(2000000) WHERE place = 300"), public.key)
    swapped = "UPDATE leaves SET leaf = (SELECT leaf FROM leaves AS o WHERE o.place = leaves.place - 1) WHERE place = 300"
    with pytest.raises(LogConvicted):
        audited(changed(swapped), public.key)


def test_tile_files_are_audited(public: Kept, exported: Path) -> None:
    audit = audited(exported, public.key)
    assert audit.size == SIZE
    assert audit.root == verify_untrusted(public.store.head.checkpoint, public.key).root
    with open_source(str(exported)) as source, pytest.raises(UsageError, match="by its URL"):
        source.status(public.acme.auto_id)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """The plainest there is."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            assert found
            yield found[0]
        finally:
            server.terminate()


def test_tiles_behind_a_plain_file_server_are_audited_by_url(public: Kept, exported: Path) -> None:
    with file_server(exported) as url:
        assert audited(url, public.key).size == SIZE
        assert audited(f"{url}/", public.key).size == SIZE
        with open_source(url) as source:
            assert not source.is_registry()
        with pytest.raises(SourceFailed, match="no checkpoint"):
            audited(f"{url}/tile", public.key)


@pytest.mark.parametrize("where", ["/nowhere", ".", "ftp://registry/", "http://[::1", "http://a b/"])
def test_what_is_no_log_is_said_to_be_none(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, SourceFailed)):
        with open_source(where) as source:
            source.checkpoint()


def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UsageError, match=r"pip install 'autolink-agents\[registry\]'"):
        open_source("http://registry.example")


@pytest.mark.parametrize(("module", "missing"), [("http", "starlette.responses"), ("httpd", "h11")])
def test_without_the_servers_packages_the_error_says_what_to_install(module: str, missing: str) -> None:
    script = f"import sys; sys.modules['{missing}'] = None; import autolink.registry.{module}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "SetupError" in done.stderr
    assert "pip install 'autolink-agents[registry]'" in done.stderr


# --- lies ----------------------------------------------------------------------------------------------------

Spoil = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("tile", "spoil", "said"),
    [
        (Tile(ENTRIES, 0), lambda data: data[:-1] + bytes([data[-1] ^ 1]), "not those that were signed"),
        (Tile(ENTRIES, 1), lambda data: data[:-1], "not 256 entries"),
        (Tile(ENTRIES, 2, SIZE - 512), lambda data: data + b"\0\0", "not 88 entries"),
        (Tile(0, 0), lambda data: data[32:] + data[:32], "is not the one that was signed"),
        (Tile(0, 1), lambda data: data[:-1], "not 256 hashes"),
        (Tile(0, 2, SIZE - 512), lambda data: bytes(len(data)), "not those of the tree"),
        (Tile(1, 0, 2), lambda data: bytes(len(data)), "not those of the tree"),
        (Tile(0, 0), lambda data: data * 2, "more than 8192 bytes"),
    ],
)
def test_a_changed_tile_or_bundle_is_not_taken(
    public: Kept, tiles: Path, tile: Tile, spoil: Spoil, said: str
) -> None:
    path = tiles / tile.path
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SourceFailed, match=said):
        audited(tiles, public.key)


@pytest.mark.parametrize("tile", [Tile(ENTRIES, 0), Tile(ENTRIES, 2, SIZE - 512), Tile(0, 1), Tile(1, 0, 2)])
def test_a_withheld_tile_or_bundle_is_missed(public: Kept, tiles: Path, tile: Tile) -> None:
    (tiles / tile.path).unlink()
    with pytest.raises(SourceFailed, match="missing"):
        audited(tiles, public.key)


def test_a_pipe_or_a_folder_where_a_file_should_be_does_not_hang_the_audit(public: Kept, tiles: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        path = tiles / Tile(ENTRIES, 0).path
        path.unlink()
        make(path)
        with pytest.raises(SourceFailed, match="is no file"):
            audited(tiles, public.key)
        path.rmdir() if path.is_dir() else path.unlink()
        path.touch()


def test_another_logs_checkpoint_is_not_taken(public: Kept, tiles: Path) -> None:
    key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(BadSignature):
        audited(tiles, key)


def test_a_partial_tile_that_is_gone_is_read_from_the_full_one(small: Kept, tmp_path: Path) -> None:
    """Who has an older checkpoint reads files of a log that has gone on."""
    folder, old = tmp_path / "tiles", small.store.head.checkpoint
    while small.store.head.size < 256:
        small.log.append(small.acme.service())
        small.flush() if len(small.log.entries) % 50 == 0 or len(small.log.entries) == 256 else None
    with FolderSource(small.folder) as source:
        export_tiles(source, folder, small.key)
    audit = Audit(small.key)
    with TileFolderSource(folder) as source:
        assert audit.replay(source, old).size == 2
        assert audit.replay(source).size == 256


def test_a_forked_log_is_convicted_with_both_checkpoints(public: Kept, exported: Path) -> None:
    audit = audited(exported, public.key)
    other = Checkpoint(ORIGIN, SIZE, bytes(32)).signed(KEY)
    with open_source(str(exported)) as source, pytest.raises(LogConvicted, match="root") as conviction:
        audit.replay(source, other)
    assert (conviction.value.evidence, audit.checkpoint) == (other, public.store.head.checkpoint)


def test_a_log_that_became_shorter_is_not_gone_on_with(public: Kept, small: Kept, exported: Path) -> None:
    audit = audited(exported, public.key)
    with FolderSource(small.folder) as source, pytest.raises(SourceFailed, match="were seen before"):
        audit.replay(source)


# --- a server that is hostile, or broken ---------------------------------------------------------------------


def url_source(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> UrlSource:
    return UrlSource("http://registry", transport=httpx.MockTransport(answer), **options)


class Endless(httpx.SyncByteStream):
    def __init__(self, part: bytes) -> None:
        self.part, self.given = part, 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.given += len(self.part)
            yield self.part


def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    stream = Endless(b"x" * 1000)
    with url_source(lambda _: httpx.Response(200, stream=stream)) as source:
        with pytest.raises(SourceFailed, match="more than 131072 bytes"):
            source.checkpoint()
    assert stream.given < 140_000


def test_an_answer_that_drips_is_given_up() -> None:
    ticks = iter(range(10_000))
    stream = Endless(b"x")
    with url_source(lambda _: httpx.Response(200, stream=stream), clock=lambda: next(ticks)) as source:
        with pytest.raises(SourceLost, match="not all of it within 60 s"):
            source.checkpoint()
    assert stream.given < 70


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://registry:80/v1/", r"there\? A registry's URL is that of its root, http://registry/$"),
        ("http://registry", r"there is no checkpoint: is a registry's public side, or a mirror, there\?$"),
    ],
)
def test_a_url_below_a_registrys_is_told(url: str, says: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404))
    with UrlSource(url, transport=transport) as source, pytest.raises(SourceFailed, match=says):
        source.checkpoint()


def test_who_does_not_answer_is_asked_again_within_the_time_that_was_given() -> None:
    """Each try waits for as long as is left, and the error says how long it was."""
    for timeout, each, said in ((60.0, [10, 10, 10], "30 s"), (15.0, [10, 5], "15 s"), (3.0, [3], "3 s")):
        now, waited = [100.0], []

        def silent(
            request: httpx.Request, now: list[float] = now, waited: list[float] = waited
        ) -> httpx.Response:
            patience = request.extensions["timeout"]["read"]
            waited.append(patience)
            now[0] += patience
            raise httpx.ReadTimeout("timed out")

        with url_source(silent, timeout=timeout, clock=lambda now=now: now[0]) as source:
            with pytest.raises(SourceLost, match=f"checkpoint: no answer within {said}$"):
                source.checkpoint()
        assert waited == each


def test_a_small_answer_that_expands_without_end_is_not_expanded() -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)[:120_000]
    assert len(bomb) < 131_072
    for content in (bomb, gzip.compress(bytes(200_000)), b"no gzip", gzip.compress(b"x")[:-1]):
        headers = {"content-encoding": "gzip"}
        with url_source(
            lambda _, c=content, h=headers: httpx.Response(200, headers=h, stream=httpx.ByteStream(c))
        ) as source:
            with pytest.raises(SourceFailed, match="not gzip of at most"):
                source.checkpoint()
    for encoding in ("br", "gzip, gzip", "deflate"):
        headers = {"content-encoding": encoding}
        with url_source(
            lambda _, h=headers: httpx.Response(200, headers=h, stream=httpx.ByteStream(b"x"))
        ) as source:
            with pytest.raises(SourceFailed, match="not gzip"):
                source.checkpoint()


def test_compressed_bundles_are_read(public: Kept) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/checkpoint":
            return httpx.Response(200, stream=httpx.ByteStream(public.store.head.checkpoint))
        path = request.url.path
        for level, index, width in ((0, 0, 256), (0, 1, 256), (0, 2, 88), (1, 0, 2)):
            if path == "/" + Tile(level, index, width).path:
                row = public.store.read_tile(level, index, width)
                return httpx.Response(200, stream=httpx.ByteStream(row))
        index = int(path.split("/")[3].split(".")[0])
        bundle = encode_bundle(public.leaves[index * 256 : index * 256 + 256])
        body = httpx.ByteStream(gzip.compress(bundle))
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=body)

    assert audited(url_source(answer), public.key).size == SIZE


@pytest.mark.parametrize("status", [204, 301, 302, 400, 403, 500, 503])
def test_an_answer_that_is_none_is_said_to_be_so(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "http://169.254.169.254/"})

    with url_source(answer) as source, pytest.raises(SourceFailed, match=f"HTTP status {status}"):
        source.checkpoint()
    assert asked == ["http://registry/checkpoint"]


def test_a_connection_that_breaks_is_tried_again_a_few_times() -> None:
    tries: list[int] = []

    def answer(request: httpx.Request, *, works: int) -> httpx.Response:
        tries.append(1)
        if len(tries) < works:
            raise httpx.ReadError("reset")
        return httpx.Response(200, stream=httpx.ByteStream(b"note"))

    with url_source(partial(answer, works=3)) as source:
        assert source.checkpoint() == b"note"
    tries.clear()
    with url_source(partial(answer, works=4)) as source, pytest.raises(SourceLost, match="reset"):
        source.checkpoint()
    assert len(tries) == 3


# --- tiles as files ------------------------------------------------------------------------------------------


def test_an_export_goes_on_and_is_the_same_as_one_in_one_piece(small: Kept, tmp_path: Path) -> None:
    folder, sizes = tmp_path / "grown", []
    with FolderSource(small.folder) as source:
        for size in (2, 3, 255, 256, 257, 511, 513):
            while len(small.log.entries) < size:
                small.log.append(small.acme.service())
            small.flush()
            sizes.append(export_tiles(source, folder, small.key).size)
            assert audited(folder, small.key).size == size
            assert export_tiles(source, folder, small.key).size == size  # again, with nothing new
        export_tiles(source, tmp_path / "at-once", small.key)
    assert sizes == [2, 3, 255, 256, 257, 511, 513]
    at_once = {
        path.relative_to(tmp_path / "at-once"): path
        for path in (tmp_path / "at-once").rglob("*")
        if path.is_file()
    }
    for name, path in at_once.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    assert not (folder / "tile/0/000.p").exists()  # the full one has come
    assert not (folder / "tile/entries/001.p").exists()
    assert (folder / "tile/1/000.p/1").is_file()
    assert (folder / "checkpoint").stat().st_mode & 0o777 == 0o644


def test_an_export_mirrors_a_log_that_somebody_else_serves(
    public: Kept, exported: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    with file_server(exported) as url, open_source(url) as source:
        export_tiles(source, tmp_path, public.key, progress=lambda done, of: told.append((done, of)))
    assert told == [(256, SIZE), (512, SIZE), (SIZE, SIZE)]
    for path in exported.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(exported)).read_bytes() == path.read_bytes()


def test_an_export_does_not_go_on_with_what_is_not_this_logs(public: Kept, small: Kept, tiles: Path) -> None:
    with FolderSource(small.folder) as source, pytest.raises(SourceFailed, match="has 600 entries"):
        export_tiles(source, tiles, public.key)
    before = (tiles / "checkpoint").read_bytes()
    (tiles / Tile(1, 0, 2).path).write_bytes(bytes(64))
    with FolderSource(public.folder) as source, pytest.raises(SourceFailed, match="not those of the tree"):
        export_tiles(source, tiles, public.key)
    assert (tiles / "checkpoint").read_bytes() == before


def test_an_export_does_not_write_what_was_not_signed(public: Kept, tmp_path: Path) -> None:
    with FolderSource(public.folder) as source:
        source.leaves = lambda start, signed: iter([*public.leaves[: signed.size - 1], b"another"])  # type: ignore[method-assign]
        with pytest.raises(SourceFailed, match="not those that were signed"):
            export_tiles(source, tmp_path / "out", public.key)
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_an_export_into_a_folder_that_cannot_be_written_says_so(public: Kept, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with FolderSource(public.folder) as source, pytest.raises(UsageError, match="cannot be written"):
        export_tiles(source, tmp_path / "file", public.key)


def test_an_audit_reads_beside_appends(small: Kept) -> None:
    """One thread appends while another audits again and again."""
    ended = threading.Event()
    faults: list[Exception] = []

    def audits() -> None:
        try:
            while not ended.is_set():
                assert audited(small.folder, small.key).size >= 2
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=audits)
    thread.start()
    for _ in range(30):
        small.add(small.acme.service())
    ended.set()
    thread.join()
    assert not faults
