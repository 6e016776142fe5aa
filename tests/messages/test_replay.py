"""The replay window: durable, shared, bounded, and in doubt it refuses."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from autolink.errors import EnvelopeRefused, Reason, UsageError
from autolink.identity import AutoId, PeerId
from autolink.messages import ReplayWindow, microseconds

AUTHOR = PeerId(AutoId.derive("acme"), "bound")
SECOND = 1_000_000


@pytest.fixture
def start(now):
    """Two minutes after the window was made: its first minute is over."""
    return microseconds(now) + 120 * SECOND


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replay.db"


def admit(window, number, at, *, author=AUTHOR, sent=0, life=10):
    """Admit message `number`, sent `sent` seconds before `at`."""
    sent_at = at - sent * SECOND
    window.admit(
        author, number.to_bytes(16, "big"), expires_at=sent_at + life * SECOND, sent_at=sent_at, now=at
    )


def refused(reason, window, number, at, **how):
    with pytest.raises(EnvelopeRefused) as caught:
        admit(window, number, at, **how)
    assert caught.value.reason is reason


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "in a file"])
def test_rule_28_a_message_is_taken_once(path, now, start, in_memory):
    """Twice from one author is a replay; another id or another author is not."""
    with ReplayWindow(None if in_memory else path, started=now) as window:
        admit(window, 1, start)
        refused(Reason.REPLAYED, window, 1, start)
        refused(Reason.REPLAYED, window, 1, start + 5 * SECOND, sent=5)
        admit(window, 2, start)
        admit(window, 1, start, author=PeerId(AUTHOR.auto_id, "sha256:" + "00" * 32))


def test_rule_28_a_captured_envelope_is_refused_by_another_worker_and_after_a_restart(path, now, start):
    """Two windows on one file are two workers; opening it again is a restart."""
    with ReplayWindow(path, started=now) as first, ReplayWindow(path, started=now) as second:
        admit(first, 1, start)
        refused(Reason.REPLAYED, second, 1, start)
    with ReplayWindow(path, started=now) as again:
        refused(Reason.REPLAYED, again, 1, start)


def test_rule_28_of_many_processes_at_once_exactly_one_takes_a_message(path, now, start):
    """Real processes race for fifty messages, from the making of the file on; each is taken exactly once."""
    program = f"""
import sys
from datetime import datetime
from pathlib import Path
from autolink.errors import EnvelopeRefused
from autolink.identity import AutoId, PeerId
from autolink.messages import ReplayWindow
author = PeerId(AutoId.derive("acme"), "bound")
taken = 0
with ReplayWindow(Path({str(path)!r}), started=datetime.fromisoformat({now.isoformat()!r})) as window:
    for number in range(50):
        try:
            id = number.to_bytes(16, "big")
            window.admit(author, id, expires_at={start + SECOND}, sent_at={start}, now={start})
            taken += 1
        except EnvelopeRefused as refused:
            assert refused.reason == "replayed", refused
print(taken)
"""
    workers = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    taken = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(taken) == 50
    assert {worker.returncode for worker in workers} == {0}


def test_rule_28_two_windows_of_one_process_and_one_of_another_that_closes_remember_for_each_other(
    path, now, start
):
    """SQLite's locks are a process's, and end with the first descriptor of the file that it closes: while ours has none,
    another process that closes its window takes what we remember with it."""
    program = f"""
import sys
from datetime import datetime
from pathlib import Path
from autolink.errors import EnvelopeRefused
from autolink.identity import AutoId, PeerId
from autolink.messages import ReplayWindow
with ReplayWindow(Path({str(path)!r}), started=datetime.fromisoformat({now.isoformat()!r})) as window:
    for number in map(int, sys.argv[1:]):
        try:
            window.admit(
                PeerId(AutoId.derive("acme"), "bound"), number.to_bytes(16, "big"),
                expires_at={start + 10 * SECOND}, sent_at={start}, now={start},
            )
            print("taken")
        except EnvelopeRefused as refused:
            print(refused.reason)
"""

    def elsewhere(*numbers: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, *numbers], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    with ReplayWindow(path, started=now) as first, ReplayWindow(path, started=now) as second:
        admit(first, 1, start)
        assert elsewhere() == []
        admit(first, 2, start)
        admit(second, 3, start)
        assert elsewhere("1", "2", "3") == ["replayed"] * 3


def test_of_two_that_make_the_file_at_once_both_have_the_first_ones(path, tmp_path, now, start, monkeypatch):
    """It is whole from the moment at which it is there: nobody meets one that another is still setting up."""
    link = os.link
    others = []

    def overtaken(source, target):
        monkeypatch.setattr(os, "link", link)
        with closing(sqlite3.connect(source)) as made:
            assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert made.execute("SELECT count(*) FROM state").fetchone() == (1,)
        others.append(ReplayWindow(path, started=now))
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with ReplayWindow(path, started=now) as window, others[0] as other:
        admit(other, 1, start)
        refused(Reason.REPLAYED, window, 1, start)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_rule_28_of_many_threads_at_once_exactly_one_takes_a_message(now, start):
    """One window serves the worker threads of one process."""
    with ReplayWindow(None, started=now) as window, ThreadPoolExecutor(8) as pool:
        gate = threading.Barrier(8)

        def attempt():
            gate.wait()
            try:
                admit(window, 1, start)
            except EnvelopeRefused as error:
                return error.reason
            return None

        results = [pool.submit(attempt) for _ in range(8)]
        assert sorted(str(result.result()) for result in results) == ["None", *["replayed"] * 7]


def test_rule_28_a_full_window_refuses_and_forgets_nothing(path, now, start):
    """Full of unexpired messages: busy, however many come; room comes only with expiry."""
    with ReplayWindow(path, started=now, capacity=3) as window:
        for number in range(3):
            admit(window, number, start + number * SECOND)
        for number in range(3, 10):
            refused(Reason.BUSY, window, number, start + 3 * SECOND)
        refused(Reason.REPLAYED, window, 0, start + 3 * SECOND, sent=3)
        later = start + 71 * SECOND  # message 0 expired 61 s ago, beyond the skew
        admit(window, 10, later)
        refused(Reason.BUSY, window, 11, later)


def test_rule_28_what_a_lost_window_may_have_known_is_refused(path, now):
    """A new file refuses whatever was signed before its start, and for the skew after it: that clock may be
    ahead."""
    began = microseconds(now)
    with ReplayWindow(path, started=now) as window:
        refused(Reason.LATE, window, 1, began + 30 * SECOND, sent=40, life=600)
        refused(Reason.LATE, window, 1, began + 59 * SECOND, life=600)
        admit(window, 1, began + 60 * SECOND)
    path.unlink()
    with ReplayWindow(path, started=now.replace(hour=13)) as fresh:
        refused(Reason.LATE, fresh, 1, began + 3600 * SECOND, sent=3540, life=86_400)


def test_a_file_that_was_kept_is_not_treated_as_lost(path, now, start):
    """Opened again an hour later it knows its past, so what was signed meanwhile is taken."""
    ReplayWindow(path, started=now).close()
    with ReplayWindow(path, started=now.replace(hour=13)) as window:
        admit(window, 1, start, sent=30)


def test_an_expired_message_is_late_whatever_the_caller_checked(path, now, start):
    """The window forgets by expiry, so it must be the one to refuse by it."""
    with ReplayWindow(path, started=now) as window:
        later = start + 60 * SECOND
        admit(window, 1, later, sent=70, life=10)  # the skew is allowed for
        refused(Reason.LATE, window, 2, later, sent=71, life=10)


def test_rule_46_a_clock_stepped_by_an_hour_and_back_lets_nothing_in_twice(path, now, start):
    """While the clock was ahead an entry was forgotten; set back, the same message would look unexpired."""
    hour = 3600 * SECOND
    with ReplayWindow(path, started=now) as window:
        admit(window, 1, start, life=600)
        admit(window, 2, start + hour)
        refused(Reason.LATE, window, 1, start, life=600)
        admit(window, 3, start, life=7200)


def test_a_locked_file_is_busy_and_nothing_is_taken(path, now, start, monkeypatch):
    """Another process holds the file for longer than we wait: what cannot be remembered is not taken."""
    monkeypatch.setattr("autolink.messages.replay.LOCKED", 0.05)
    with ReplayWindow(path, started=now) as window:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused(Reason.BUSY, window, 1, start)
        other.execute("ROLLBACK")
        other.close()
        admit(window, 1, start)


def test_rule_28_a_file_that_is_at_its_place_no_longer_is_busy(path, now, start):
    """Another process would look for it there, and find nothing or another one: what only we remember is not taken."""
    with ReplayWindow(path, started=now) as window:
        admit(window, 1, start)
        for file in path.parent.glob("replay.db*"):
            file.unlink()
        refused(Reason.BUSY, window, 2, start)
        with ReplayWindow(path, started=now) as other:
            admit(other, 1, start)
            refused(Reason.BUSY, window, 2, start)


def test_rule_46_a_full_disk_is_busy_and_nothing_is_taken(path, now, start):
    """SQLite finds no page to write; when there is room again, the same messages are taken."""
    with ReplayWindow(path, started=now) as window:
        (pages,) = window._db.execute("PRAGMA page_count").fetchone()
        window._db.execute(f"PRAGMA max_page_count = {pages}")
        taken = 0
        with suppress(EnvelopeRefused):
            while taken < 10_000:
                admit(window, taken, start)
                taken += 1
        refused(Reason.BUSY, window, taken, start)
        window._db.execute("PRAGMA max_page_count = 100000")
        refused(Reason.REPLAYED, window, taken - 1, start)
        admit(window, taken, start)


def test_rule_46_the_file_is_ours_alone_and_no_link_is_followed(path, tmp_path, now):
    """Mode 0600 from its first moment; a symbolic link in its place is refused."""
    before = os.umask(0)
    try:
        with ReplayWindow(path, started=now):
            modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {0o600}
    trap = tmp_path / "trap.db"
    trap.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(UsageError, match="cannot be used"):
        ReplayWindow(trap, started=now)
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.parametrize("content", [b"this is no database" * 100, None], ids=["junk", "a folder"])
def test_a_file_that_is_no_window_is_a_usage_error_naming_it(path, now, content):
    """And it is left as it was."""
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"replay\.db cannot be used"):
        ReplayWindow(path, started=now)
    assert content is None or path.read_bytes() == content
