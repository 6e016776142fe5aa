"""`autolink run --workers N`: one address served by several real processes, which are killed and drained here."""

import os
import re
import signal
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest
from anyio.to_thread import run_sync

from autolink import Agent, Credential, EnvelopeRefused, LinkLost, Reason, TrustAnchor
from autolink.trust import IssuedBy, SelfCertified
from tests.cli.workers import TWO, a_link_to_each, heard, serve, workers_of


async def test_workers_share_an_address_and_whoever_is_free_answers(site, buyer):
    server = serve(site)
    both = set(workers_of(server))
    async with a_link_to_each(buyer, server, site) as links:
        assert {await link.call("pid", returns=int) for link in links} == both


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
    server.process.terminate()  # who is killed leaves the folder that it made behind
    assert await run_sync(server.process.wait, 30) == 0
