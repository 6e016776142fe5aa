"""Who reads a store does not wait for others who do, and keeps no more connections than there are readers at once."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from autolink.messages.merkle import HASH, leaf_hashes
from autolink.registry.database import DAMAGED, READER_KIB, Readers, StoreFailed, told
from autolink.registry.log.frontier import Frontier
from autolink.registry.log.tiles import SIXTEENTH, WIDTH
from autolink.registry.registrar import Registrar
from autolink.registry.store import Group, Head, SqliteStore

from .appender import KEY
from .conftest import ORIGIN, Log, Party


@pytest.fixture
def store(tmp_path: Path) -> Any:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    with SqliteStore(tmp_path / "registry") as opened:
        yield opened


def test_what_was_acknowledged_is_on_the_disk(store: SqliteStore) -> None:
    """SQLite's word for it is FULL; with less, a power failure takes back what a submitter was told."""
    assert store._writer.execute("PRAGMA synchronous").fetchall() == [(2,)]


def test_a_tile_is_kept_in_sixteenths_of_which_only_those_that_change_are_written(
    store: SqliteStore, acme: Party
) -> None:
    """Whatever it grows by, it is read at each of its widths."""
    leaves = [number.to_bytes(4) for number in range(2 * WIDTH + 40)]
    hashes, frontier = leaf_hashes(leaves), Frontier()
    store._writer.set_trace_callback(lambda query: rows.append(query) if "INTO tiles" in query else None)
    for size in (1, 2, 15, 16, 17, 250, 256, 258, len(leaves)):
        rows: list[str] = []
        first = frontier.size
        frontier, tiles = frontier.extended(hashes[first:size])
        added = leaves[first:size]
        store.append(
            Group(added, [acme.auto_id] * len(added), tiles, {}, (), (), Head(size, 1, b"checkpoint"))
        )
        lowest = range(first // SIXTEENTH, -(-size // SIXTEENTH))
        assert len(rows) == len(lowest) + (size // WIDTH > first // WIDTH)  # and one of the level above
        for index in range(-(-size // WIDTH)):
            row = b"".join(hashes[index * WIDTH : min(size, (index + 1) * WIDTH)])
            for width in range(1, len(row) // HASH + 1):
                assert store.read_tile(0, index, width) == row[: width * HASH]
    assert store.read_tile(0, 1, 48, 32) == b"".join(hashes[WIDTH + 32 : WIDTH + 48])
    with pytest.raises(StoreFailed, match="tile 0/2 has not 41 hashes"):
        store.read_tile(0, 2, 41)
    store._writer.executescript("""
        UPDATE tiles SET hashes = zeroblob(1024) WHERE level = 0 AND place = 0;
        DELETE FROM tiles WHERE level = 0 AND place = 1;
    """)
    with pytest.raises(StoreFailed, match="tile 0/0 has not 32 hashes"):  # no row stands for two
        store.read_tile(0, 0, 32)


def elsewhere(work: Callable[[], object]) -> Any:
    """What another thread gets, which this one waits for."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def test_statuses_proofs_and_appends_go_on_while_somebody_reads(
    store: SqliteStore, log: Log, acme: Party, echo: Party
) -> None:
    registrar = Registrar(store, KEY, lambda: log.now)
    registrar.append([entry.to_bytes() for entry in log.entries])
    size = store.head.size
    with store.snapshot() as head:
        store.read_leaves(0, size)  # a page under way
        before = elsewhere(lambda: registrar.status(echo.auto_id))
        elsewhere(lambda: registrar.append([acme.revoke().to_bytes()]))
        after = elsewhere(lambda: registrar.status(echo.auto_id))
        assert elsewhere(lambda: registrar.consistency(1, size + 1))
        assert elsewhere(lambda: registrar.proof(size)).index == size
        assert elsewhere(lambda: store.record(acme.auto_id)).revoked_by == acme.auto_id
        here = store.record(acme.auto_id)  # of the moment that is held
        assert here is not None
        assert here.revoked_by is None
    assert (before.state, after.state) == ("active", "revoked")
    assert (head.size, store.head.size) == (size, size + 1)


def test_many_threads_find_the_same(store: SqliteStore, log: Log, acme: Party, echo: Party) -> None:
    registrar = Registrar(store, KEY, lambda: log.now)
    registrar.append([entry.to_bytes() for entry in log.entries])
    alone = [registrar.proof(place) for place in range(store.head.size)]
    with ThreadPoolExecutor(8) as threads:
        for proofs in threads.map(
            lambda _: [registrar.proof(place) for place in range(store.head.size)], range(64)
        ):
            assert proofs == alone


def test_as_many_connections_are_open_as_have_read_at_once(store: SqliteStore) -> None:
    for _ in range(10):
        store.changes()
        elsewhere(store.changes)
    assert store._readers._idle is not None
    assert len(store._readers._idle) == 1
    together = Barrier(3)

    def hold() -> None:
        with store.snapshot():
            together.wait()

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(hold) for _ in range(3)]:
            done.result()
    assert len(store._readers._idle) == 3
    for db in store._readers._idle:
        assert db.execute("PRAGMA cache_size").fetchall() == [(-READER_KIB,)]


def test_a_connection_that_is_in_use_is_closed_after_its_use(store: SqliteStore) -> None:
    with store.snapshot():
        assert store.changes() == []
        elsewhere(store._readers.close)
        assert store.changes() == []  # nobody's query is cut short
    with pytest.raises(StoreFailed, match="has been closed"):
        store.changes()
    with pytest.raises(StoreFailed, match="has been closed"), store.snapshot():
        pass


def test_a_connection_that_cannot_be_opened_or_asked_is_said_and_none_is_lost() -> None:
    opened: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        opened.append(sqlite3.connect(":memory:", isolation_level=None))
        return opened[-1]

    readers = Readers(connect)
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError):
            readers.rows("SELECT nothing")
        with pytest.raises(sqlite3.OperationalError), readers.moment():
            readers.rows("SELECT nothing")
    assert readers.rows("SELECT 1") == [(1,)]
    assert len(opened) == 1
    readers.close()
    with pytest.raises(sqlite3.ProgrammingError):
        opened[0].execute("SELECT 1")


def test_what_is_damaged_is_told_as_such_and_what_is_not_in_sqlites_words() -> None:
    def error(statement: str) -> Exception:
        with closing(sqlite3.connect(":memory:")) as db, pytest.raises(sqlite3.Error) as raised:
            db.execute("CREATE TABLE log (size)")
            db.execute("INSERT INTO log VALUES (CAST(x'ff' AS TEXT))")
            db.execute("PRAGMA query_only = ON")
            db.execute(statement).fetchone()
        return raised.value

    for statement in ("SELECT place FROM leaves", "SELECT size FROM log"):
        assert told(error(statement)) == DAMAGED
    for other in (
        TypeError("int() argument must be"),
        sqlite3.DatabaseError("the file is cut short, or too long"),
    ):
        assert told(other) == DAMAGED
    assert told(error("DELETE FROM log")) == "attempt to write a readonly database"
    assert told(sqlite3.ProgrammingError("it has been closed")) == "it has been closed"
