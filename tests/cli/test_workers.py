"""`autolink run --workers N`: one address served by several real processes, which are killed, rolled and drained here."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest
from anyio.to_thread import run_sync

from autolink import Agent, Credential, EnvelopeRefused, LinkLost, Reason, Refused, TrustAnchor
from autolink.trust import IssuedBy, SelfCertified
from tests.cli.market import Market, Process

TWO = ("--workers", "2")

SITE = """
import os
import signal

import anyio

from autolink import Handlers, limits

handlers = Handlers()


@handlers.method(forwarded=True)
async def pid(call, body) -> int:
    return os.getpid()


@handlers.method
async def environment(call, body) -> list[str]:
    return [name for name in os.environ if "PASSPHRASE" in name]


@handlers.method
async def hold(call, path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    print("holding", flush=True)
    await anyio.wait_readable(descriptor)
    os.close(descriptor)
    return os.getpid()


@handlers.method
async def block(call, path: str) -> int:
    print("blocking", flush=True)
    open(path).close()  # the whole process, until somebody writes
    return os.getpid()
"""


@pytest.fixture
def site(market: Market) -> Market:
    """A market whose module tells which process answers; `block` keeps one from accepting, so another one must."""
    (market.path / "site_of_acme.py").write_text(SITE)
    os.mkfifo(market.path / "fifo")
    return market


def serve(
    site: Market, *options: str, target: str = "site_of_acme:handlers", trust: str = "issuer:acme.pem"
) -> Process:
    server = site.start("-v", "run", target, "--as", "seller", "--trust", trust, *TWO, *options)
    server.contact = server.line()
    return server


def workers_of(server: Process, count: int = 2) -> list[int]:
    """The next `count` that are ready."""
    return [int(re.findall(r"worker (\d+)", server.log_until("is ready"))[0]) for _ in range(count)]


@pytest.fixture
def buyer(site: Market) -> Agent:
    return Agent(Credential.load("buyer"), trust=IssuedBy(TrustAnchor.load("acme.pem")))


@asynccontextmanager
async def a_link_to_each(buyer: Agent, server: Process, site: Market) -> AsyncIterator[list]:
    """One link to each of two workers: while the first one blocks, only the other can accept."""
    async with buyer.connect(server.contact) as one, anyio.create_task_group() as tasks:
        tasks.start_soon(one.call, "block", str(site.path / "fifo"))
        assert await run_sync(server.line) == "blocking"
        async with buyer.connect(server.contact) as other:
            await run_sync((site.path / "fifo").write_bytes, b"")
            yield [one, other]


async def heard(server: Process, word: str) -> str:
    return await run_sync(server.log_until, word)


async def test_workers_share_an_address_and_whoever_is_free_answers(site, buyer):
    server = serve(site)
    both = set(workers_of(server))
    async with a_link_to_each(buyer, server, site) as links:
        assert {await link.call("pid", returns=int) for link in links} == both


async def test_rule_4_a_ticket_of_one_worker_is_good_with_the_other_until_the_workers_are_rolled(site, buyer):
    """They inherit one TLS context, and with it the key of the tickets; a new generation has another."""
    server = serve(site)
    old = workers_of(server)
    async with a_link_to_each(buyer, server, site) as (one, other):
        assert await one.call("pid", returns=int) != await other.call("pid", returns=int)
        assert not one.tls.resumed
        assert other.tls.resumed
    async with buyer.connect(server.contact) as link:
        assert link.tls.resumed
    server.process.send_signal(signal.SIGHUP)
    await run_sync(workers_of, server)
    for _ in old:
        await heard(server, "ended with status 0")
    async with buyer.connect(server.contact) as link:
        assert not link.tls.resumed
    async with buyer.connect(server.contact) as link:
        assert link.tls.resumed


async def test_who_is_killed_is_started_again_and_another_takes_over(site, buyer):
    """A kept link goes on with the worker that is left, and the new one serves too."""
    server = serve(site)
    both = set(workers_of(server))
    async with buyer.keep_link(server.contact) as kept:
        first = await kept.call("pid", returns=int)
        os.kill(first, signal.SIGKILL)
        assert f"worker {first} was ended by SIGKILL; another one starts" in await heard(server, "SIGKILL")
        (new,) = await run_sync(workers_of, server, 1)
        assert new not in both
        async with a_link_to_each(buyer, server, site) as links:
            assert {await link.call("pid", returns=int) for link in links} == (both - {first}) | {new}
        assert await kept.call("pid", returns=int) != first


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_every_worker_and_the_status_is_0(site, buyer, backend, stop):
    """The call that is open gets its reply; nobody is accepted any more."""
    server = serve(site, "--backend", backend)
    workers_of(server)
    got = []
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            got.append(await link.call("hold", str(site.path / "fifo"), returns=int))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "holding"
        server.process.send_signal(stop)
        await heard(server, f"told to stop by {stop.name}")
        await link.no_longer_usable()
        await heard(server, "ended with status 0")  # the other worker
        with pytest.raises(LinkLost):
            async with buyer.connect(server.contact):
                pytest.fail("must not open")
        await run_sync((site.path / "fifo").write_bytes, b"now")
    assert got
    assert await run_sync(server.process.wait, 30) == 0


async def test_a_second_signal_ends_every_worker_at_once_and_the_status_is_1(site, buyer):
    server = serve(site, "--drain", "600")
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(LinkLost):
                await link.call("hold", str(site.path / "fifo"))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "holding"
        server.process.terminate()
        await heard(server, "told to stop by SIGTERM")
        server.process.terminate()
        assert await run_sync(server.process.wait, 30) == 1


async def test_a_signal_to_the_whole_group_is_one_signal_for_a_worker(site, buyer):
    """A terminal sends SIGINT, a service manager SIGTERM, to supervisor and workers alike: the open call still ends."""
    server = serve(site, "--drain", "600")
    workers = workers_of(server)
    got = []
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            got.append(await link.call("hold", str(site.path / "fifo"), returns=int))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "holding"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            for pid in workers:
                os.kill(pid, number)
        server.process.terminate()
        await heard(server, "told to stop by SIGTERM")
        await run_sync((site.path / "fifo").write_bytes, b"now")
    assert got
    assert await run_sync(server.process.wait, 30) == 0


async def test_sighup_rolls_the_workers_and_a_kept_link_loses_no_call(site, buyer):
    """New connections are accepted at every moment, and calls go on over the kept link while its worker changes."""
    server = serve(site)
    old = workers_of(server)
    rolled = anyio.Event()
    answered_by, opened = set(), 0
    async with buyer.keep_link(server.contact) as kept, anyio.create_task_group() as tasks:

        async def call() -> None:
            while not rolled.is_set():
                answered_by.add(await kept.call("pid", returns=int))

        async def dial() -> None:
            nonlocal opened
            while not rolled.is_set():
                async with buyer.connect(server.contact):
                    opened += 1

        answered_by.add(await kept.call("pid", returns=int))
        tasks.start_soon(call)
        tasks.start_soon(dial)
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
            new = await run_sync(workers_of, server)
            for _ in old:
                await heard(server, "ended with status 0")
            assert not set(old) & set(new)
            old = new
        rolled.set()
        assert await kept.call("pid", returns=int) in new
    assert opened > 0
    server.process.terminate()
    assert await run_sync(server.process.wait, 30) == 0


async def test_a_renewed_certificate_is_served_by_new_workers(site, shell, buyer):
    """As soon as `autolink id accept` has stored it: no signal is needed, and no passphrase is asked for again."""
    server = serve(site)
    old = workers_of(server)
    async with buyer.connect(server.contact) as link:
        before = link.peer.leaf
    request = shell.ok("id", "export", "seller", "--request")
    shell.ok("id", "accept", "seller", "-", stdin=shell.ok("id", "issue", "-", "--as", "acme", stdin=request))
    new = await run_sync(workers_of, server)
    for _ in old:
        await heard(server, "ended with status 0")
    async with buyer.connect(server.contact) as link:
        assert (await link.call("pid", returns=int)) in new
        assert link.peer.leaf != before
        assert link.peer.leaf.spki == before.spki


async def test_a_removed_known_agent_loses_its_live_links_on_every_worker(site, shell, buyer):
    known = str(buyer.peer_id)
    shell.ok("id", "accept", known, "--as", "seller")
    server = serve(site, trust="known")
    workers_of(server)
    async with a_link_to_each(buyer, server, site) as links:
        shell.ok("id", "forget", known, "--as", "seller")
        for link in links:
            await link.closed()
            assert isinstance(link.lost, Refused)
            assert (link.lost.by, link.lost.reason) == ("peer", Reason.UNTRUSTED)
        with pytest.raises(Refused):
            async with buyer.connect(server.contact):
                pytest.fail("must not open")


async def test_a_removed_pin_reaches_the_workers_that_are_still_draining(site, buyer):
    """The file of --trust is read again: new workers do not accept whom it does not name, and the old ones end the live
    link although a call is open on it."""
    pins = site.path / "pins"
    pins.write_text(f"{buyer.peer_id}\n")
    server = serve(site, trust="pinned:pins")
    workers_of(server)
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(LinkLost):
                await link.call("hold", str(site.path / "fifo"))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "holding"
        pins.write_text("")
        await link.closed()
        assert (link.lost.by, link.lost.reason) == ("peer", Reason.UNTRUSTED)
    await run_sync(workers_of, server)
    with pytest.raises(Refused):
        async with buyer.connect(server.contact):
            pytest.fail("must not open")


async def test_a_file_that_is_wrong_changes_nothing_and_is_told_once(site, buyer):
    server = serve(site)
    old = workers_of(server)
    good = (site.path / "acme.pem").read_bytes()
    (site.path / "acme.pem").write_text("not an anchor")
    line = await heard(server, "ERROR")
    assert "acme.pem" in line
    assert "the workers go on with what they have" in line
    assert datetime.fromisoformat(line.split()[0]).utcoffset() == timedelta()
    async with buyer.connect(server.contact) as link:
        assert await link.call("pid", returns=int) in old
    (site.path / "acme.pem").write_bytes(good)
    while "is ready" not in (line := await heard(server, "")):
        assert "ERROR" not in line


def test_a_module_that_starts_a_thread_cannot_be_forked(site, shell):
    (site.path / "threaded.py").write_text(
        "import threading\nfrom site_of_acme import handlers\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, name='pollster', daemon=True).start()\n"
    )
    server = site.start("run", "threaded:handlers", "--as", "seller", "--trust", "self-certified", *TWO)
    assert "the module has started some (pollster): start them in a handler" in server.log_until("Error")
    assert server.process.wait(30) == 2


def test_a_fault_in_a_worker_is_told_with_its_traceback_and_stays_in_the_worker(site):
    """It must not run on in the supervisor's code, which would clean up what the others still use."""
    (site.path / "faulty.py").write_text(
        "import anyio\nfrom site_of_acme import handlers\nanyio.run = None\n"
    )
    server = site.start("-v", "run", "faulty:handlers", "--as", "seller", "--trust", "self-certified", *TWO)
    server.log_until("a worker ended by a fault")
    server.log_until("TypeError")
    server.log_until("ended with status 1; another one starts")
    server.process.terminate()
    assert server.process.wait(30) == 0


def test_an_agent_with_topics_is_not_served_by_several(site):
    """Its subscribers are one worker's, and would never get what another one publishes."""
    (site.path / "paper.py").write_text(NOTING + "agent.topic('news', of=str)\n")
    server = site.start("run", "paper:agent", *TWO)
    assert "topic 'news': what one worker publishes" in server.log_until("Error")
    assert server.process.wait(30) == 2


def test_workers_that_die_at_once_are_started_less_and_less_often(site):
    """Both die in their first moment, again and again; a signal still ends it all, and nothing was lost."""
    (site.path / "dying.py").write_text(
        "import os\nfrom site_of_acme import handlers\nos.register_at_fork(after_in_child=lambda: os._exit(7))\n"
    )
    server = site.start("-v", "run", "dying:handlers", "--as", "seller", "--trust", "self-certified", *TWO)
    pauses = []
    while 0.8 not in pauses:
        told = re.findall(
            r"ended with status 7; another one starts in ([\d.]+) s", server.log_until("status 7")
        )
        pauses += map(float, told)
    # Two that start together count as one; whether they do, one that dies at once may have died before.
    assert pauses == sorted(pauses)
    assert set(pauses) >= {0.1, 0.2, 0.4, 0.8}
    assert all(later in (before, 2 * before) for before, later in pairwise(pauses))
    server.process.terminate()
    assert server.process.wait(30) == 0


async def test_workers_whose_supervisor_was_killed_drain_and_free_the_address(site, buyer):
    """They cannot know who supervises them next, so they stop accepting at once; the call that is open still ends."""
    server = serve(site)
    workers_of(server)
    got = []
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            got.append(await link.call("hold", str(site.path / "fifo"), returns=int))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "holding"
        server.process.kill()
        await link.no_longer_usable()
        await run_sync((site.path / "fifo").write_bytes, b"now")
    assert got
    assert await run_sync(server.process.stdout.read) == ""  # each worker had it open
    address = server.contact.rpartition("@")[2]
    serve(site, "--listen", address)


async def test_the_socket_of_a_unix_path_is_the_supervisors(site, buyer, tmp_path_factory):
    """It stays when a worker ends, whichever way, and goes with the supervisor."""
    path = tmp_path_factory.mktemp("s") / "sock"  # a short path
    server = serve(site, "--listen", f"unix:{path}")
    first, second = workers_of(server)
    os.kill(first, signal.SIGTERM)
    await heard(server, f"worker {first} ended with status 0; another one starts")
    os.kill(second, signal.SIGKILL)
    await run_sync(workers_of, server)
    assert path.stat().st_mode & 0o777 == 0o600
    async with buyer.connect(server.contact) as link:
        assert await link.call("pid", returns=int) not in (first, second)
    server.process.terminate()
    assert await run_sync(server.process.wait, 30) == 0
    assert not path.exists()


async def test_a_handler_that_blocks_its_worker_does_not_keep_it_alive(site, buyer):
    """It heeds no order and is killed; what was open is lost, and the status says so."""
    (site.path / "short.py").write_text(
        "from autolink import limits\nfrom site_of_acme import handlers\nlimits.WORKER_GRACE = 0.1\n"
    )
    server = serve(site, "--drain", "0.1", target="short:handlers")
    async with buyer.connect(server.contact) as link, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(LinkLost):
                await link.call("block", str(site.path / "fifo"))

        tasks.start_soon(call)
        assert await run_sync(server.line) == "blocking"
        server.process.terminate()
        await heard(server, "does not answer and is killed")
        assert await run_sync(server.process.wait, 30) == 1


async def test_the_ticket_key_is_changed_by_new_workers(site, buyer):
    (site.path / "hasty.py").write_text(
        "from autolink import limits\nfrom site_of_acme import handlers\nlimits.TICKET_KEY = limits.WORKER_START + 0.5\n"
    )
    server = serve(site, target="hasty:handlers")
    old = workers_of(server)
    assert not set(await run_sync(workers_of, server)) & set(old)


async def test_rule_46_passphrases_reach_no_workers_environment_and_a_renewal_needs_none(site, shell):
    """The key is sealed: the supervisor has opened it once, and joins a newer chain with it."""
    (site.path / "pass").write_text("secret\n")
    request = shell.ok("id", "request", "locked", "--passphrase-file", "pass")
    issued = [shell.ok("id", "issue", "-", "--as", "acme", stdin=request) for _ in range(2)]
    shell.ok("id", "accept", "locked", "-", stdin=issued[0])
    site.environment["AUTOLINK_PASSPHRASE"] = "secret"
    site.environment["AUTOLINK_AS"] = "locked"
    server = site.start("-v", "run", "site_of_acme:handlers", "--trust", "self-certified", *TWO)
    server.contact = server.line()
    workers_of(server)
    caller = Agent(Credential.self_issued("caller"), trust=IssuedBy(TrustAnchor.load("acme.pem")))
    async with caller.connect(server.contact) as link:
        assert await link.call("environment", returns=list[str]) == []
        before = link.peer.leaf
    shell.ok("id", "accept", "locked", "-", stdin=issued[1])
    await run_sync(workers_of, server)
    for _ in range(2):
        await heard(server, "ended with status 0")
    async with caller.connect(server.contact) as link:
        assert link.peer.leaf != before


NOTING = """
from autolink import Agent, Credential
from autolink.trust import SelfCertified
from site_of_acme import handlers

agent = Agent(Credential.self_issued("noting"), trust=SelfCertified(), handlers=handlers)
"""


@pytest.mark.parametrize("target", ["noting:agent", "site_of_acme:handlers"], ids=["no folder", "keystore"])
async def test_rule_28_a_captured_envelope_is_refused_by_every_other_worker(site, target):
    """Whether the identity has a folder of its own or not; and by one that was started after it was taken."""
    (site.path / "noting.py").write_text(NOTING)
    # Else what is signed in the first minute is refused as late.
    arrived = datetime.now(UTC) - timedelta(minutes=5)
    (site.path / "home" / "identities" / "seller" / "unused-since").write_text(arrived.isoformat())
    who = () if target.startswith("noting") else ("--as", "seller", "--trust", "self-certified")
    server = site.start("-v", "run", target, *who, *TWO)
    server.contact = server.line()
    workers_of(server)
    trust = SelfCertified() | IssuedBy(TrustAnchor.load("acme.pem"))
    buyer = Agent(Credential.self_issued("caller"), trust=trust)
    async with a_link_to_each(buyer, server, site) as (one, other):
        envelope = buyer.sign(one.peer.auto_id, "pid")
        taken = await one.forward(envelope)
        assert taken is not None
        for link in (one, other):
            with pytest.raises(EnvelopeRefused) as refused:
                await link.forward(envelope)
            assert refused.value.reason is Reason.REPLAYED
    server.process.send_signal(signal.SIGHUP)
    await run_sync(workers_of, server)
    for _ in range(2):
        await heard(server, "ended with status 0")
    async with buyer.connect(server.contact) as link:
        with pytest.raises(EnvelopeRefused) as refused:
            await link.forward(envelope)
        assert refused.value.reason is Reason.REPLAYED
