"""What can happen to a folder: its process is killed, its disk is full or closed, its files rot. What was acknowledged is
not lost, and what cannot go on says why.

`AUTOLINK_KILLS=200` kills so many processes instead of 20, and `AUTOLINK_FLIPS=2000` flips so many bits instead of 60.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest

from autolink import codec
from autolink.errors import AutolinkError, UsageError
from autolink.messages.merkle import leaf_hash
from autolink.registry.database import DAMAGED, StoreFailed
from autolink.registry.entries import encode_leaf
from autolink.registry.folder import audit_folder
from autolink.registry.log.note import VerifierKey
from autolink.registry.records import Record
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.source import SourceFailed
from autolink.registry.sources import FolderSource
from autolink.registry.store import SqliteStore

from .appender import KEY
from .conftest import ORIGIN, Log, Party

KILLS = int(os.environ.get("AUTOLINK_KILLS", "20"))
BATCH = 20
SEED = "1"
FLIPS = int(os.environ.get("AUTOLINK_FLIPS", "60"))
NOBODY = 65534
REPOSITORY = Path(__file__).parents[2]

Groups = list[list[bytes]]


@pytest.fixture
def groups(log: Log, organisation: Any) -> Groups:
    """Four registrations, then service records of these four in groups of 1 to 32."""
    parties: list[Party] = [organisation(f"org-{number}") for number in range(4)]
    made: Groups = [[entry.to_bytes() for entry in log.entries]]
    heads = {party.auto_id: party.log.record(party).head for party in parties}
    chosen = Random(SEED)  # noqa: S311  the same in every run
    for _ in range(80):
        made.append([])
        for _ in range(chosen.randint(1, 32)):
            party = chosen.choice(parties)
            entry = party.service(service=chosen.randbytes(200), previous=heads[party.auto_id])
            heads[party.auto_id] = entry.hash
            made[-1].append(entry.to_bytes())
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    return tmp_path / "registry"


@contextmanager
def appending(folder: Path, groups: Groups, log: Log, *more: object) -> Iterator[subprocess.Popen[str]]:
    """The process of appender.py; killed at the block's end if it lives."""
    prepared = folder.with_suffix(".groups")
    prepared.write_bytes(codec.encode(groups))
    command = [sys.executable, "-m", "tests.registry.appender", folder, prepared, log.now, *more]
    # Not measured: it is killed, or is somebody who may not write where the measurements go.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with subprocess.Popen(
        list(map(str, command)), cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return map(str.strip, process.stdout)


def last_words(process: subprocess.Popen[str]) -> str:
    """Of one that has ended by itself, with status 1."""
    assert process.stderr is not None
    text = process.stderr.read()
    assert process.wait() == 1, text
    return text.strip()


def audited(folder: Path, registrar: Registrar) -> int:
    """How many entries there are, once all that is in the folder was compared with them."""
    with FolderSource(folder) as source:
        return audit_folder(source, registrar.verifier_key).size


def check(folder: Path, groups: Groups, log: Log, least: int) -> int:
    """Whole groups, at least so many entries, are in the log, every byte as it was sent; it is what was signed, stands an
    audit and goes on. Returns how many entries there were."""
    entries = [entry for group in groups for entry in group]
    ends = [0, *accumulate(map(len, groups))]
    with SqliteStore(folder) as store:
        size = store.head.size
        assert size >= least
        assert size in ends
        leaves = store.read_leaves(0, size)
        assert leaves == [encode_leaf(log.now, entry) for entry in entries[:size]]
        registrar = Registrar(store, KEY, lambda: log.now)  # the frontier's root is the one that was signed
        assert audited(folder, registrar) == size
        for index in range(0, size, 7):
            registrar.proof(index).verify(leaf_hash(leaves[index]), registrar.verifier_key)
        following = groups[bisect_right(ends, size) - 1]
        assert all(isinstance(outcome, Appended) for outcome in registrar.append(following))
    return size


# --- killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", range(KILLS // BATCH))
def test_a_process_that_is_killed_loses_nothing_that_it_has_acknowledged(
    folder: Path, groups: Groups, log: Log, batch: int
) -> None:
    """At random moments, again and again in one folder, and the next one goes on each time."""
    seed = f"{SEED}-{batch}"
    print(f"seed {seed}")
    chosen = Random(seed)  # noqa: S311  the same in every run
    before, left_behind = 0, 0
    for _ in range(BATCH):
        with appending(folder, groups, log) as process:
            lines = said(process)
            assert next(lines) == "open"
            last = before - 1
            for _, line in zip(range(chosen.randint(1, 60)), lines, strict=False):
                last = last if line == "begin" else int(line)
            for _ in range(chosen.randrange(100_000)):
                pass  # so that it dies anywhere in its work, not just after it has said something
            process.kill()
            process.wait()
            for line in lines:  # what it had said by then
                last = last if line == "begin" or not line else int(line)
        left_behind += (folder / "log.db-wal").stat().st_size > 0
        before = check(folder, groups, log, last + 1)
        before += len(groups[bisect_right([0, *accumulate(map(len, groups))], before) - 1])
        if before > sum(map(len, groups[:-10])):
            shutil.rmtree(folder)
            SqliteStore.create(folder, ORIGIN)
            before = 0
    assert left_behind, "no process has left a write-ahead log"


def _killed_after(folder: Path, groups: Groups, log: Log) -> None:
    """A process has appended these groups, acknowledged the last entry, and is killed."""
    last = str(sum(map(len, groups)) - 1)
    with appending(folder, groups, log) as process:
        for line in said(process):
            if line == last:
                break
        process.kill()
        process.wait()


def test_a_write_ahead_log_that_ends_anywhere_holds_whole_groups(
    folder: Path, groups: Groups, log: Log, tmp_path: Path
) -> None:
    """As a machine leaves it that stops in the middle of a write, before anything was acknowledged."""
    _killed_after(folder, groups[:12], log)
    size = (folder / "log.db-wal").stat().st_size
    found = set()
    for cut in range(0, size, size // 23):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(folder, copy)
        os.truncate(copy / "log.db-wal", cut)
        (copy / "signed").unlink()
        found.add(check(copy, groups, log, 0))
    assert len(found) > 5


def test_a_write_ahead_log_that_has_rotted_is_not_gone_on_without(
    folder: Path, groups: Groups, log: Log, tmp_path: Path
) -> None:
    """What was acknowledged is there, or the registry does not open, says how much is lost and throws nothing away."""
    total = sum(map(len, groups[:12]))
    _killed_after(folder, groups[:12], log)
    wal = (folder / "log.db-wal").read_bytes()
    chosen, refused = Random(SEED), 0  # noqa: S311  the same in every run
    for number in range(20):
        copy = tmp_path / f"rotten-{number}"
        shutil.copytree(folder, copy)
        bit = chosen.randrange(8 * len(wal))
        changed = bytearray(wal)
        changed[bit // 8] ^= 1 << bit % 8
        (copy / "log.db-wal").write_bytes(changed)
        before = {path.name: path.read_bytes() for path in copy.iterdir() if path.name != "log.db-shm"}
        try:
            assert check(copy, groups, log, total) == total
        except UsageError as error:
            words = str(error)
        else:
            continue
        assert f" has lost entries that it has signed: of {total} there are " in words
        assert before == {path.name: path.read_bytes() for path in copy.iterdir() if path.name in before}
        with FolderSource(copy) as source, pytest.raises(SourceFailed, match=f" {total} were signed"):
            audit_folder(source, VerifierKey.of(ORIGIN, KEY.public_key()))
        (copy / "signed").unlink()
        assert check(copy, groups, log, 0) < total
        refused += 1
    assert refused > 10


def test_what_says_how_much_was_signed_may_be_missing_old_or_damaged(
    folder: Path, groups: Groups, log: Log
) -> None:
    """A power failure may leave any of these: it says nothing against the log, and is written anew."""
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        before = (folder / "signed").read_bytes()
        registrar.append(groups[0])
        newest = (folder / "signed").read_bytes()
    assert (int(before[:20]), int(newest[:20])) == (0, 4)
    for left in (
        None,
        before,
        b"",
        newest[:10],
        bytes(30),
        b"9" + newest[1:],
        newest + newest,
        b"nonsense\n",
    ):
        (folder / "signed").unlink()
        if left is not None:
            (folder / "signed").write_bytes(left)
        SqliteStore(folder).close()
        assert (folder / "signed").read_bytes() == newest


# --- disks that are full, or closed ------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 768 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(
            f"no file system can be mounted here ({mounted.stderr.strip()}): see the limit on a file's size"
        )
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_stops_a_log_and_loses_nothing(groups: Groups, log: Log, small_disk: Path) -> None:
    """A real one. There is no room for the next group until somebody makes some; then the same group is taken."""
    folder, ballast = small_disk / "registry", small_disk / "ballast"
    SqliteStore.create(folder, ORIGIN)
    ballast.write_bytes(bytes(256 << 10))
    done = 0
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        with pytest.raises(StoreFailed, match=rf"^the registry in {folder}: .*full") as failed:
            for group in groups:
                registrar.append(group)
                done += len(group)
        assert store.head.size == done
        with pytest.raises(StoreFailed):
            registrar.append(groups[list(accumulate(map(len, groups))).index(done) + 1])
        assert audited(folder, registrar) == done
        ballast.unlink()
        (outcome, *_) = registrar.append(groups[list(accumulate(map(len, groups))).index(done) + 1])
        assert isinstance(outcome, Appended)
        assert outcome.index == done
    print(f"a tmpfs was full after {done} entries: {failed.value}")
    assert check(folder, groups, log, done + 1)


def test_a_limit_on_a_files_size_stops_a_log_and_loses_nothing(
    folder: Path, groups: Groups, log: Log
) -> None:
    """RLIMIT_FSIZE, which every system has, in a process of its own."""
    with appending(folder, groups, log, "", 400_000) as process:
        indexes = [int(line) for line in said(process) if line.isdigit()]
        words = last_words(process)
    assert words.startswith(f"StoreFailed: the registry in {folder}: ")
    assert check(folder, groups, log, len(indexes)) == len(indexes) > 0


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that others may look into: those above pytest's own they may not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("closed", ["for all", "folder", "lock", "file"])
def test_a_folder_that_may_not_be_written_is_refused(
    anybodys: Path, groups: Groups, log: Log, closed: str
) -> None:
    """As a user who may at most read it: the folder, its lock, or only its database."""
    folder = anybodys / "registry"
    SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        Registrar(store, KEY, lambda: log.now).append(groups[0])
    modes = {
        "for all": (0o000, 0o666, 0o666),
        "folder": (0o555, None, 0o666),
        "lock": (0o777, 0o444, 0o666),
        "file": (0o777, 0o666, 0o444),
    }
    (folder / "signed").chmod(0o666)
    for path, mode in reversed(
        list(zip((folder, folder / "lock", folder / "log.db"), modes[closed], strict=True))
    ):
        path.unlink() if mode is None else path.chmod(mode)
    with appending(folder, groups, log, _nobody()) as process:
        assert list(said(process)) == []
        words = last_words(process)
    says = {
        "for all": "log.db: Permission denied",
        "folder": "lock: Permission denied",
        "lock": "lock: Permission denied",
        "file": "log.db: attempt to write a readonly database",
    }
    assert words == f"SetupError: the registry in {folder} cannot be used: {says[closed]}"
    folder.chmod(0o700)
    (folder / "log.db").chmod(0o600)
    (folder / "lock").unlink(missing_ok=True)
    assert check(folder, groups, log, len(groups[0]))


def _nobody() -> object:
    """Whom the system does not let pass, as it does with root."""
    return NOBODY if os.geteuid() == 0 else ""


# --- two at a time -----------------------------------------------------------------------------------------


def test_another_process_has_the_folder_until_it_ends(folder: Path, groups: Groups, log: Log) -> None:
    """However it ends."""
    with appending(folder, groups[:1], log) as process:
        assert next(said(process)) == "open"
        with pytest.raises(
            UsageError, match=rf"^another process has the registry in {folder} open: .*end that one first$"
        ):
            SqliteStore(folder)
        process.kill()
        process.wait()
        SqliteStore(folder).close()


@pytest.mark.parametrize("name", ["lock", "signed"])
def test_a_file_beside_the_log_that_leads_elsewhere_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """Whoever may write the folder could have us open, or make, any file of ours."""
    for target in (tmp_path / "elsewhere", tmp_path / "nothing"):
        (folder / name).symlink_to(target)
        (tmp_path / "elsewhere").write_text("mine")
        with pytest.raises(
            UsageError, match=rf"^the registry in {folder} cannot be used: {name}: Too many levels"
        ):
            SqliteStore(folder)
        (folder / name).unlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


# --- files that rot ----------------------------------------------------------------------------------------


def kept(store: SqliteStore, groups: Groups, log: Log) -> Any:
    """All that a store can be asked."""
    ids = list(log.ledger.records)
    records: list[Record | None] = [store.record(auto_id) for auto_id in ids]
    return store.head, records, store.read_leaves(0, store.head.size), [store.history(one) for one in ids]


@pytest.fixture
def filled(folder: Path, groups: Groups, log: Log) -> Path:
    with SqliteStore(folder) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        for group in groups[:20]:
            registrar.append(group)
    return folder


def test_an_audit_of_a_damaged_file_says_what_to_do(filled: Path) -> None:
    """And not what SQLite calls the byte that is wrong: here, of how many a page says that they are lost to fragments."""
    data = bytearray((filled / "log.db").read_bytes())
    data[4096 + 7] += 1
    (filled / "log.db").write_bytes(data)
    key = VerifierKey.of(ORIGIN, KEY.public_key())
    with FolderSource(filled) as source, pytest.raises(SourceFailed, match=f"^{filled}: {DAMAGED}$"):
        audit_folder(source, key)


COLUMNS = {
    "log size": "UPDATE log SET size = 'many'",
    "log time": "UPDATE log SET time = x'00'",
    "log checkpoint": "UPDATE log SET checkpoint = CAST(checkpoint AS TEXT)",
    "log row": "DELETE FROM log",
    "record": "UPDATE records SET record = 'text'",
    "tile": "UPDATE tiles SET hashes = 'text'",
    "leaf": "UPDATE leaves SET leaf = 'text'",
    "place": "UPDATE history SET place = x'00' || place",
}


@pytest.mark.parametrize("statement", COLUMNS.values(), ids=COLUMNS)
def test_a_column_that_is_of_another_type_is_damage(
    filled: Path, groups: Groups, log: Log, statement: str
) -> None:
    """While it is served, and at the next start or audit; no fault of ours, wherever it is met."""
    (auto_id, *_), wrong = log.ledger.records, None
    with SqliteStore(filled) as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        with closing(sqlite3.connect(filled / "log.db")) as db:
            db.execute(statement)
            db.commit()
        for ask in (
            lambda: registrar.status(auto_id),
            lambda: store.read_leaves(0, 1),
            lambda: store.history(auto_id, 0),
        ):
            try:
                ask()
            except StoreFailed as error:
                wrong = str(error)
        assert wrong is not None
        assert wrong.startswith(f"the registry in {filled}: ")
    try:
        with SqliteStore(filled) as store:
            audited(filled, Registrar(store, KEY, lambda: log.now))
    except AutolinkError:
        return
    pytest.fail("nobody has noticed")


def test_a_file_that_is_cut_short_is_refused(filled: Path, groups: Groups, log: Log) -> None:
    whole = (filled / "log.db").read_bytes()
    for cut in (0, 1, 100, 4095, 4096, 8192, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        (filled / "log.db").write_bytes(whole[:cut])
        with pytest.raises(
            UsageError, match=rf"^the registry in {filled} cannot be used: log\.db: {DAMAGED}$"
        ):
            SqliteStore(filled)
        assert (filled / "log.db").read_bytes() == whole[:cut]
    (filled / "log.db").write_bytes(whole)
    assert check(filled, groups, log, sum(map(len, groups[:20])))


def test_a_flipped_bit_is_found_or_changes_nothing(filled: Path, groups: Groups, log: Log) -> None:
    """At opening, or by the audit of the whole store at the latest: what it lets pass is what was written."""
    with SqliteStore(filled) as store:
        before = kept(store, groups, log)
    path = filled / "log.db"
    whole = path.read_bytes()
    chosen = Random(SEED)  # noqa: S311  the same in every run
    outcomes: dict[str, int] = {}
    for _ in range(FLIPS):
        bit = chosen.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            with SqliteStore(filled) as store:
                registrar = Registrar(store, KEY, lambda: log.now)
                audited(filled, registrar)
                assert kept(store, groups, log) == before, bit
            outcome = "none of the content"
        except AutolinkError as error:
            outcome = type(error).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)
    assert {"SourceFailed"} <= outcomes.keys()
