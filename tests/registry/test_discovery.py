"""Agents that are found by what they have published, in a real registry."""

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, AutoId, Call, Contact, Credential
from autolink.errors import (
    BadSignature,
    EntryRefused,
    Fault,
    LinkLost,
    Refused,
    UsageError,
)
from autolink.registry import Registered, making
from autolink.registry import registration as keeping_up
from autolink.registry.addresses import LOOPBACK
from autolink.registry.client import RegistryClient
from autolink.registry.discovery import NotFound, RegistryFinder, find_record, publish
from autolink.registry.entries import Entry, Op
from autolink.registry.log.note import VerifierKey
from autolink.registry.making import Slot
from autolink.registry.records import State
from autolink.registry.registration import registered
from autolink.registry.service_record import describe
from autolink.registry.submitter import Logged
from autolink.transport import parse_address
from autolink.trust import SelfCertified

from .scene import WHERE, clock, handlers, renewed, scene
from .serving import AT, ORIGIN, issue, registration, serving, until
from .test_addresses import Names, targets

# --- what is published is found ----------------------------------------------------------------------------


async def test_an_agent_is_found_by_its_id_and_called(tmp_path: Path) -> None:
    async with scene(tmp_path) as here, AsyncExitStack() as stack:
        record = await here.publish()
        assert await here.find() == record
        echo = here.served.join(Agent(here.echo, trust=SelfCertified(), handlers=handlers()))
        caller = here.served.join(Agent(issue(here.acme, "caller"), trust=SelfCertified()))
        await stack.enter_async_context(here.served.network.listening(echo, WHERE))
        for where in (echo.auto_id, echo.peer_id):
            with pytest.raises(UsageError, match=r"agent\.finder = RegistryFinder"):
                async with caller.connect(where):
                    pass
        caller.finder = here.finder()
        for where in (echo.auto_id, echo.peer_id):
            async with caller.connect(where) as link:
                assert await link.call("echo", "hello", returns=str) == "hello"
        async with caller.keep_link(echo.auto_id) as kept:
            assert await kept.call("echo", "kept", returns=str) == "kept"
        found = await caller.finder.record(echo.auto_id)
        assert [offer.name for offer in found.methods] == ["echo"]


async def test_a_kept_link_finds_its_peer_anew_where_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolink.agent.kept.back_off", lambda failures: 0.0)
    async with scene(tmp_path) as here:
        await here.publish(WHERE)
        echo = here.served.join(Agent(here.echo, trust=SelfCertified(), handlers=handlers()))
        caller = here.served.join(Agent(issue(here.acme, "caller"), trust=SelfCertified()))
        caller.finder = here.finder()
        async with caller.keep_link(echo.auto_id) as kept:
            with anyio.fail_after(10):
                async with here.served.network.listening(echo, WHERE):
                    assert await kept.call("echo", "here", returns=str) == "here"
                await here.publish("9.9.9.9:2")
                async with here.served.network.listening(echo, "9.9.9.9:2"):
                    assert await kept.call("echo", "there", returns=str) == "there"


async def test_the_newest_record_counts_behind_renewals_and_other_ids_entries(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish("9.9.9.9:1")
        newest = await here.publish("9.9.9.9:2")
        for number in range(20):
            await here.client.submit(registration(Credential.self_issued(f"org-{number}")))
            await here.submit(Op.RENEW, certificate=renewed(here, number + 1))
        assert await here.find() == newest
        await here.submit(Op.SERVICE, service=b"")
        with pytest.raises(NotFound, match="taken its service record back"):
            await here.find()
        await here.submit(Op.SERVICE, service=b"where and what")
        with pytest.raises(NotFound, match="is no service record"):
            await here.find()


async def test_only_the_current_keys_word_counts(tmp_path: Path) -> None:
    """After a rotation the former key's record is void, and after a change of guardians it must be said again."""
    async with serving(tmp_path) as served:
        corp = Credential.self_issued("corp")
        assert corp.next_key is not None
        async with served.client(served.join(Agent(corp, trust=SelfCertified()))) as client:
            await client.submit(registration(corp))
            record = describe(handlers(), [WHERE], now=clock())
            with pytest.raises(NotFound, match="since it was registered"):
                await find_record(client, corp.auto_id, now=clock())
            assert await publish(client, corp, record, now=clock()) is not None
            assert await publish(client, corp, record, now=clock()) is None
            slot = Slot.at(ORIGIN, clock(), await client.place(corp.auto_id))
            chosen, _ = making.choose_guardians([], threshold=0, delay=7200)
            await client.submit(making.guardians(corp.auto_id, slot, chosen, next_key=corp.next_key))
            with pytest.raises(NotFound, match="guardians changed"):
                await find_record(client, corp.auto_id, now=clock())
            assert await publish(client, corp, record, now=clock()) is not None
            assert await find_record(client, corp.auto_id, now=clock()) == record
            rotated = corp.rotate(corp.next_key, now=clock() + timedelta(seconds=5))
            slot = Slot.at(ORIGIN, clock(), await client.place(corp.auto_id))
            await client.submit(making.rotate(rotated, slot))
            with pytest.raises(NotFound, match="since it has its key"):
                await find_record(client, corp.auto_id, now=clock())
            assert await publish(client, rotated, record, now=clock()) is not None
            assert await find_record(client, corp.auto_id, now=clock()) == record


async def test_who_is_outrun_by_another_process_of_the_same_agent_need_not_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as here:
        submit, faster = RegistryClient.submit, [WHERE, "9.9.9.9:2", "9.9.9.9:3"]

        async def outrun(client: RegistryClient, made: Entry) -> Logged:
            if made.service and client is not here.client:
                await here.publish(faster.pop(0))
            return await submit(client, made)

        monkeypatch.setattr(RegistryClient, "submit", outrun)
        record = describe(handlers(), [WHERE], now=clock())
        async with here.served.client(here.served.join(Agent(here.echo, trust=SelfCertified()))) as client:
            assert await publish(client, here.echo, record, now=clock()) is None
            assert (await here.find()).says_the_same(record)
            moved = describe(handlers(), ["9.9.9.9:9"], now=clock())
            with pytest.raises(EntryRefused) as refused:  # by one that says something else, again and again
                await publish(client, here.echo, moved, now=clock())
            assert (refused.value.fault, faster) == (Fault.STALE, [])


async def test_who_is_revoked_unknown_or_has_moved_out_is_not_found(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        record = await here.publish()
        later = clock() + timedelta(days=31)
        with pytest.raises(BadSignature, match="too long ago"):
            await find_record(here.client, here.echo.auto_id, now=later)
        with pytest.raises(BadSignature, match="to come"):
            await find_record(here.client, here.echo.auto_id, now=clock() - timedelta(hours=1))
        await here.submit(Op.SERVICE, service=replace(record, valid_until=1).to_bytes())
        with pytest.raises(NotFound, match="was good until 1970-01-01"):
            await here.find()
        assert await publish(here.client, here.echo, record, now=clock()) is not None
        await here.submit(Op.REVOKE, by=here.acme)
        with pytest.raises(NotFound, match="revoked") as found:
            await here.find()
        assert isinstance(found.value.__cause__, Refused)  # as at the agent itself
        caller = here.served.join(Agent(issue(here.acme, "caller"), trust=SelfCertified()))
        caller.finder = here.finder()
        for auto_id, why in (
            (here.echo.auto_id, "revoked"),
            (AutoId(bytes(32)), f"00… is not on record in {ORIGIN}$"),
        ):
            with pytest.raises(LinkLost, match=f"no address of {auto_id} is found.*{why}"):
                async with caller.connect(auto_id):
                    pass


# --- addresses are attacker-chosen -------------------------------------------------------------------------


async def test_rule_42_a_record_that_points_inside_has_nobody_dialled(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish("127.0.0.1:22", "169.254.169.254:80", "10.0.0.1:1", "inside.example:1")
        caller = here.served.join(Agent(issue(here.acme, "caller"), trust=SelfCertified()))
        names = Names(targets("127.0.0.1"), targets("169.254.169.254"), targets("10.0.0.1"), targets("::1"))
        finder = caller.finder = here.finder(resolver=names)
        dialled: list[Any] = []

        async def reach(address: Any) -> Any:
            dialled.append(address)
            raise OSError

        caller.reach = reach
        with pytest.raises(LinkLost) as error:
            async with caller.connect(here.echo.auto_id):
                pass
        for told in (
            "127.0.0.1:22 is not dialled: 127.0.0.1 is loopback",
            "metadata",
            "private",
            "inside.example:1",
        ):
            assert told in str(error.value)
        assert dialled == []
        assert finder.reader.links == ()


async def test_rule_42_a_name_that_turns_inside_is_dialled_where_it_was_judged(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish("rebinding.example:1")
        echo = here.served.join(Agent(here.echo, trust=SelfCertified(), handlers=handlers()))
        caller = here.served.join(Agent(issue(here.acme, "caller"), trust=SelfCertified()))
        caller.finder = here.finder(resolver=Names(targets("9.9.9.9"), targets("127.0.0.1")))
        async with here.served.network.listening(echo, WHERE), caller.connect(echo.auto_id) as link:
            assert await link.call("echo", "judged", returns=str) == "judged"
        with pytest.raises(LinkLost, match="loopback"):
            async with caller.connect(echo.auto_id):
                pass


def test_a_finders_arguments_are_looked_at() -> None:
    registry = Credential.self_issued("registry")
    contact = str(Contact(registry.peer_id, parse_address(AT)))
    key = VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate().public_key())
    wrong: Any
    for wrong in (0, 1e9, "600", timedelta(days=8), None):
        with pytest.raises(UsageError, match="max_age is"):
            RegistryFinder(contact, key, max_age=wrong)
    for wrong in (None, b"key"):
        with pytest.raises(UsageError, match="a log's key is a VerifierKey, or its text form, not"):
            RegistryFinder(contact, wrong, max_age=timedelta(minutes=10))
        with pytest.raises(UsageError, match="a log's key is a VerifierKey, or its text form, not"):
            Registered(wrong)
    with pytest.raises(UsageError, match="a list of networks"):
        RegistryFinder(contact, key, allow="10.0.0.0/8")
    wrong = None
    with pytest.raises(UsageError, match="a contact is autolink://"):
        RegistryFinder(wrong, key)


async def test_what_is_no_auto_id_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        digits: Any = here.echo.auto_id.hex
        answer = r"give AutoId\.parse\('[0-9a-f]{64}'\)"
        finder, asks = here.finder(), here.client
        finder.reader.reach = None  # type: ignore[assignment]  # nobody is reached
        for question in (
            finder.record(digits), finder(digits), asks.status(digits), asks.place(digits), asks.history(digits),
            asks.publish_crl(digits, b""), find_record(asks, digits, now=clock()),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=answer):
                await question
        peer_id: Any = here.echo.peer_id
        with pytest.raises(UsageError, match="give its auto_id"):
            await asks.status(peer_id)
        number: Any = 7
        with pytest.raises(UsageError, match="an AutoId is needed here, not 7"):
            await asks.status(number)


async def test_what_keeps_no_agent_up_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        acme: Any = Credential.self_issued("acme")
        contact = str(Contact(served.agent.peer_id, parse_address(AT)))
        agent = served.join(Agent(acme, trust=SelfCertified()))
        with pytest.raises(UsageError, match="keeps an Agent up"):
            async with registered(acme, contact, served.key):
                pass
        with pytest.raises(UsageError, match="a list of addresses"):
            async with registered(agent, contact, served.key, addresses=WHERE):
                pass


# --- an agent that publishes itself ------------------------------------------------------------------------


async def test_an_agent_publishes_itself_once_and_again_when_its_handlers_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeping_up, "back_off", lambda failures: 0.0)
    caplog.set_level(logging.INFO, "autolink")
    async with scene(tmp_path) as here:
        contact = str(Contact(here.served.agent.peer_id, parse_address(AT)))
        agent = here.served.join(Agent(here.echo, trust=SelfCertified(), handlers=handlers()))
        with pytest.raises(UsageError):
            async with registered(agent, contact, here.served.key, addresses=["unix:/run/agent"]):
                pass
        async with registered(agent, contact, here.served.key, addresses=[WHERE]) as standing:
            await until(lambda: "our service record is on record" in caplog.text)
            assert [offer.name for offer in (await here.find()).methods] == ["echo"]
            await until(lambda: standing.status and standing.status.status.entries == 2)
        async with registered(agent, contact, here.served.key, addresses=[WHERE]) as standing:
            assert standing.status is not None
            size = here.served.store.head.size

            @agent.method
            async def more(call: Call, body: str) -> str:
                return body

            standing.refresh()
            await until(lambda: here.served.store.head.size == size + 1)
            assert standing.status.status.state is State.ACTIVE
            await until(lambda: caplog.text.count("our service record is on record") == 2)
            assert [offer.name for offer in (await here.find()).methods] == ["echo", "more"]


async def test_whose_key_was_rotated_away_publishes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log would refuse it, behind a receipt: an honest one would seem to have broken a promise."""
    monkeypatch.setattr(keeping_up, "back_off", lambda failures: 0.0)
    caplog.set_level(logging.INFO, "autolink")
    async with serving(tmp_path) as served:
        corp = Credential.self_issued("corp")
        assert corp.next_key is not None
        contact = str(Contact(served.agent.peer_id, parse_address(AT)))
        agent = served.join(Agent(corp, trust=SelfCertified(), handlers=handlers()))
        async with served.client(served.join(Agent(corp, trust=SelfCertified()))) as client:
            await client.submit(registration(corp))
            evidence = tmp_path / "evidence"
            async with registered(
                agent, contact, served.key, addresses=[WHERE], evidence=evidence
            ) as standing:
                await until(lambda: "our service record is on record" in caplog.text)
                rotated = corp.rotate(corp.next_key, now=clock() + timedelta(seconds=5))
                await client.submit(
                    making.rotate(rotated, Slot.at(ORIGIN, clock(), await client.place(corp.auto_id)))
                )
                size = served.store.head.size
                await until(lambda: "has another key of ours on record" in caplog.text)
                for _ in range(3):
                    standing.tried = anyio.Event()
                    standing.refresh()
                    await standing.tried.wait()
                assert "refused" not in caplog.text
                assert served.store.head.size == size
                assert not evidence.exists() or not list(evidence.iterdir())


async def test_over_real_sockets_where_loopback_is_allowed(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        echo = Agent(here.echo, trust=SelfCertified(), handlers=handlers())
        caller = Agent(issue(here.acme, "caller"), trust=SelfCertified())
        async with echo.listening("127.0.0.1:0") as listener:
            await here.publish(*listener.addresses)
            caller.finder = here.finder()
            with pytest.raises(LinkLost, match="127.0.0.1 is loopback"):
                async with caller.connect(echo.auto_id):
                    pass
            caller.finder = here.finder(allow=LOOPBACK)
            async with caller.connect(echo.auto_id) as link:
                assert await link.call("echo", "socket", returns=str) == "socket"
