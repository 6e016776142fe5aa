"""What the supervisor of workers does by itself: it looks at files, reads them again, waits, and forks only when alone."""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autolink import Agent, Credential, Handlers, limits
from autolink.cli import serving, supervisor, workers
from autolink.cli.reload import Change, Sources, Watch
from autolink.cli.serving import Order
from autolink.cli.supervisor import BackOff, Supervisor
from autolink.cli.trust_option import Spec, build
from autolink.errors import AutolinkError, IdentityError, UsageError
from autolink.identity import Keystore
from autolink.trust import SelfCertified

PINNED = Spec("pinned", Path("pins"))
KNOWN = Spec("known")


# --- files -------------------------------------------------------------------------------------------------


def test_a_file_has_changed_when_it_was_written_replaced_removed_or_made(tmp_path):
    file = tmp_path / "file"
    watch = Watch([file])
    assert not watch.changed()
    file.write_text("one")
    assert watch.changed()
    assert not watch.changed()
    file.write_text("longer")
    assert watch.changed()
    (tmp_path / "other").write_text("longer")
    (tmp_path / "other").rename(file)
    assert watch.changed()
    file.unlink()
    assert watch.changed()
    assert not watch.changed()


@pytest.fixture
def seller(acme):
    """Acme's seller in the keystore, an agent that pins nobody."""
    acme.issued("seller", "acme")
    Path("pins").write_text("")
    credential = Credential.load("seller")
    return Agent(credential, trust=build([PINNED, KNOWN], folder=credential.folder))


def take(sources: Sources, change: Change) -> list[Order | None]:
    orders = []
    for step in sources.steps(change):
        step.take()
        orders.append(step.order)
    return orders


def renew(shell, name: str) -> None:
    request = shell.ok("id", "export", name, "--request")
    shell.ok("id", "accept", name, "-", stdin=shell.ok("id", "issue", "-", "--as", "acme", stdin=request))


def test_each_kind_of_file_is_told_apart_and_read_again(seller, shell):
    """A renewed chain and a changed trust set want new workers; known agents, which the model reads by itself, do not."""
    sources = Sources(seller, [PINNED, KNOWN])
    assert sources.changed() is Change.NOTHING
    before = seller.credential, seller.trust
    renew(shell, "seller")
    assert sources.changed() is Change.CREDENTIAL
    assert take(sources, Change.CREDENTIAL) == [None]
    assert seller.credential.leaf != before[0].leaf
    assert seller.credential.private_key is before[0].private_key
    Path("pins").write_text(f"{before[0].peer_id}\n")
    assert sources.changed() is Change.TRUST
    assert take(sources, Change.TRUST) == [Order.TRUST]
    assert seller.trust is not before[1]
    shell.ok("id", "accept", str(before[0].peer_id), "--as", "seller")
    assert sources.changed() is Change.KNOWN
    assert take(sources, Change.KNOWN) == [Order.JUDGE]
    assert [step.rolls for step in sources.steps(Change.ALL)] == [True, True, False]


def test_what_is_wrong_in_a_file_is_named_and_changes_nothing(seller, shell):
    sources = Sources(seller, [PINNED, KNOWN])
    before = seller.credential, seller.trust
    folder = Keystore().folder("seller")
    Path("pins").write_text("nonsense")
    (folder / "chain.pem").write_text("nonsense")
    (folder / "known_agents").write_text("nonsense")
    for step, named in zip(sources.steps(Change.ALL), ("seller", "pins", "known_agents"), strict=True):
        with pytest.raises(AutolinkError, match=named):
            step.take()
    assert (seller.credential, seller.trust) == before


def test_another_key_of_the_same_id_needs_the_passphrase_and_another_id_is_refused(seller, shell):
    """No command changes an issued identity's key; whoever exchanges the folder by hand is believed, for one id."""
    sources = Sources(seller, [])
    before = seller.credential
    folder = Keystore().folder("seller")
    shell.ok("id", "request", "second", "--unencrypted", "-o", "second.csr", "--common-name", "seller")
    shell.ok("id", "issue", "second.csr", "--as", "acme", "-o", "second.chain")
    shell.ok("id", "accept", "second", "second.chain")
    for file in ("key", "chain.pem"):
        (folder / file).write_bytes((Keystore().folder("second") / file).read_bytes())
    assert take(sources, Change.ALL) == [None, Order.JUDGE]
    assert seller.credential.leaf.spki != before.leaf.spki
    shell.issued("third", "acme")
    for file in ("key", "chain.pem"):
        (folder / file).write_bytes((Keystore().folder("third") / file).read_bytes())
    with pytest.raises(UsageError, match="same Auto ID"):
        take(sources, Change.CREDENTIAL)


def test_an_agent_of_a_modules_own_has_no_files_but_its_credentials(acme):
    """Outside of a keystore not even these."""
    agent = Agent(Credential.self_issued("own"), trust=SelfCertified(), handlers=Handlers())
    sources = Sources(agent, [])
    assert sources.changed() is Change.NOTHING
    trust = agent.trust
    assert take(sources, Change.ALL) == [Order.JUDGE]
    assert agent.trust is trust


def test_what_comes_from_stdin_cannot_be_read_again(seller):
    with pytest.raises(UsageError, match="name a file, not -"):
        Sources(seller, [Spec("pinned", Path("-"))])


async def test_a_worker_that_cannot_read_trust_goes_on_with_what_it_has(seller, caplog):
    async def read_trust():
        raise IdentityError("pins: gone")

    before = seller.trust
    await serving._replace_trust(seller, read_trust)
    assert seller.trust is before
    assert "pins: gone; what was trusted before still is" in caplog.text


async def test_a_worker_whose_supervisor_is_gone_before_it_was_ready_drains(seller):
    """Whether its end of the line was closed, or reset because something on it was unread."""
    for unread in (False, True):
        line, supervisor = socket.socketpair()
        if unread:
            supervisor.send(b"r")
        line.close()
        try:
            with supervisor:
                assert await serving.serve_as_worker(
                    seller, [], 1.0, supervisor, Sources(seller, []).read_trust
                )
        finally:  # a worker ends with it blocked
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


# --- forking -----------------------------------------------------------------------------------------------


def test_the_pause_doubles_while_workers_die_young_and_begins_anew_after_a_long_life():
    back_off = BackOff()
    pauses, now = [], 0.0
    for _ in range(10):
        pauses.append(back_off.died(started=now, now=now + 0.01))
        now = back_off.until
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert back_off.died(started=now, now=now + limits.RETRY_MAX) == limits.RETRY
    assert back_off.until == now + limits.RETRY_MAX + limits.RETRY


def test_workers_that_were_started_together_count_as_one_failure():
    back_off = BackOff()
    assert [back_off.died(started=0.0, now=0.1 + n / 100) for n in range(8)] == [0.1] * 8
    assert back_off.died(started=1.0, now=1.1) == 0.2


def test_a_thread_is_named_that_a_fork_would_lose(monkeypatch):
    """Those of libraries, of which Python knows nothing, are counted where the system tells."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="pollster")
    thread.start()
    try:
        with pytest.raises(UsageError, match="pollster"):
            workers.check_single_threaded()
        if Path("/proc/self/task").exists():
            monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread()])
            with pytest.raises(UsageError, match=r"\d+ of a library"):
                workers.check_single_threaded()
    finally:
        stop.set()
        thread.join()


def test_a_system_without_room_for_processes_is_asked_again_later(seller, monkeypatch, caplog):
    def fork():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(supervisor.os, "fork", fork)
    made = Supervisor(
        seller, Sources(seller, []), lambda _: 0,
        count=2, patience=1.0, announce=lambda: None, stop_listening=lambda: None,
    )  # fmt: skip
    with caplog.at_level(logging.ERROR):
        made._start_missing()
    (told,) = caplog.messages
    assert told == "no worker can be started: Resource temporarily unavailable; again in 0.1 s"
    assert made._workers == []


def test_an_order_to_a_worker_that_is_gone_is_nobodys_error():
    line, far = socket.socketpair()
    far.close()
    with line:
        supervisor.Worker(0, line, 0, 0.0, 0.0).tell(Order.DRAIN)


FORKS = """
import os
from autolink.identity import KeyType, keys

key = keys.generate(KeyType.P256)
key_pair = keys.sign(key, b"before")
for _ in range(2):
    if os.fork() == 0:
        signature = keys.sign(key, b"the same")
        os.write(1, (keys.spki(keys.generate(KeyType.P256).public_key()).hex() + " " + signature.hex() + "\\n").encode())
        os._exit(0)
    os.wait()
"""


def test_forked_processes_share_no_randomness():
    """Two children of one process make different keys, and sign the same bytes differently: an ECDSA nonce that came
    twice would give the key away."""
    out = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True).stdout
    one, other = (line.split() for line in out.splitlines())
    assert one[0] != other[0]
    assert one[1] != other[1]
