"""What an audit remembers does not grow with the log: counted in bytes, never timed."""

import gc
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest

from autolink.identity import AutoId
from autolink.registry.database import StoreFailed
from autolink.registry.entries import Guardians
from autolink.registry.ledger import Applied
from autolink.registry.records import Record, Recovery
from autolink.registry.temporary import CACHE_KIB, TemporaryLedger

from .conftest import Log, MemoryLedger, Party


def record(number: int, touched: int) -> Record:
    """A synthetic one of ordinary size."""
    name = sha256(number.to_bytes(8)).digest()
    return Record(
        AutoId(name), None, False, name * 20, name, (), name, Guardians(), name, name, 1, touched, touched, touched
    )  # fmt: skip


def test_a_state_takes_a_few_mib_whatever_its_size() -> None:
    """Thirty thousand records are 30 MB: twice what stays of the database in memory, and next to nothing of Python's."""
    ledger = TemporaryLedger()
    assert ledger._rows("PRAGMA cache_size") == [(-CACHE_KIB,)]
    ledger.take(Applied(record(0, 0), b"0"))
    gc.collect()
    tracemalloc.start()
    for number in range(1, 30_000):
        ledger.take(Applied(record(number, number), sha256(str(number).encode()).digest()))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
    ((pages,),), ((size,),) = ledger._rows("PRAGMA page_count"), ledger._rows("PRAGMA page_size")
    assert pages * size > CACHE_KIB << 10
    assert ledger.count() == sum(1 for _ in ledger.ids()) == sum(1 for _ in ledger.used()) == 30_000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows a process's files")
def test_what_does_not_fit_lies_in_a_file_without_a_name() -> None:
    def unnamed() -> list[Path]:
        found = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [path for path in found if str(path.readlink()).endswith(" (deleted)")]

    before = len(unnamed())
    ledger = TemporaryLedger()
    ledger._db.execute("PRAGMA cache_size = 10")
    for number in range(1000):
        ledger.take(Applied(record(number, number)))
    assert len(unnamed()) == before + 1
    del ledger
    assert len(unnamed()) == before


def test_recoveries_are_found_by_when_they_take_place() -> None:
    """A page and more at one moment, some that were cancelled, by an index that holds nobody else."""
    ledger, moment = TemporaryLedger(), 1_000
    name = sha256(b"next").digest()
    for number in range(1_000):
        one = record(number, number)
        ready = moment + number % 2
        coming = Recovery(b"certificate", name, name, (), ready, None, number, one.auto_id)
        ledger.take(Applied(one._replace(recovery=coming)))
        if number >= 900:
            ledger.take(Applied(one._replace(touched=1_000 + number)))
    assert [one.touched for one in ledger.recovered(0, moment)] == list(range(0, 900, 2))
    assert [one.touched for one in ledger.recovered(moment, moment + 9)] == list(range(1, 900, 2))
    assert list(ledger.recovered(moment + 1, moment + 9)) == list(ledger.recovered(0, moment - 1)) == []
    assert [ledger.next_recovery(time) for time in (0, moment, moment + 1)] == [moment, moment + 1, None]
    plan = ledger._rows(
        "EXPLAIN QUERY PLAN SELECT touched FROM records WHERE (ready, touched) > (0, 0) AND ready <= 9"
    )
    assert "INDEX recovering" in plan[0][3]


def test_it_answers_as_memory_does(log: Log, acme: Party, echo: Party) -> None:
    """Records that change, and keys that are used up; who was touched last, and when."""
    ledger, memory = TemporaryLedger(), MemoryLedger()
    parties = [record(number, number) for number in range(600)]
    taken = [Applied(one, one.key) for one in parties]
    taken += [Applied(one._replace(touched=600 + at, entries=2)) for at, one in enumerate(parties[::3])]
    for applied in taken:
        ledger.take(applied)
        memory.take(applied)
    for auto_id, expected in memory.records.items():
        assert ledger.record(auto_id) == expected
        assert ledger.is_used(expected.key)
    assert ledger.record(acme.auto_id) is ledger.kept(acme.auto_id) is None
    assert not ledger.is_used(bytes(32))
    assert list(ledger.ids()) == sorted(memory.records)
    assert set(ledger.used()) == memory.used
    in_order = sorted((one.touched, one.auto_id) for one in memory.records.values())
    assert list(ledger.touched(0, 800)) == in_order
    assert list(ledger.touched(10, 700)) == [(place, who) for place, who in in_order if 10 <= place < 700]
    for one in log.ledger.records.values():  # real ones, with guardians and an issuer
        ledger.take(Applied(one._replace(touched=one.touched + 1000)))
        assert ledger.record(one.auto_id) == one._replace(touched=one.touched + 1000)


def test_entries_may_be_taken_while_the_ids_are_gone_through() -> None:
    """Each that was there is given once, wherever it has been moved to."""
    ledger = TemporaryLedger()
    for number in range(1000):
        ledger.take(Applied(record(number, number)))
    found = []
    for at, auto_id in enumerate(ledger.ids()):
        found.append(auto_id)
        ledger.take(Applied(record(at, 1000 + at)))
    assert found == sorted(record(number, 0).auto_id for number in range(1000))


def test_what_cannot_be_kept_is_said_and_nobody_goes_on_with_the_half_of_it() -> None:
    """Also when there is room again."""
    ledger, full = TemporaryLedger(), "what an audit has found cannot be kept for its time: .* full"
    ledger._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreFailed, match=full):
        for number in range(1000):
            ledger.take(Applied(record(number, number)))
    ledger._db.execute("PRAGMA max_page_count = 100000")
    for call in (ledger.count, lambda: ledger.record(record(0, 0).auto_id), lambda: ledger.is_used(b"")):
        with pytest.raises(StoreFailed, match=full):
            call()
