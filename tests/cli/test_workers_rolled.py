"""What changes while `autolink run --workers N` serves reaches every worker: they are rolled, or told."""

import signal
from datetime import datetime, timedelta

import anyio
import pytest
from anyio.to_thread import run_sync

from autolink import Agent, Credential, LinkLost, Reason, Refused, TrustAnchor
from autolink.trust import IssuedBy
from tests.cli.workers import TWO, a_link_to_each, heard, serve, workers_of


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
