"""Agents that are found by what they have published. The registry is real, and in some tests it lies."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from autolink import Agent, AutoId, Call, Contact, Credential, Handlers, limits
from autolink.errors import (
    BadSignature,
    EntryRefused,
    Fault,
    LinkLost,
    Refused,
    RemoteProtocolError,
    UsageError,
)
from autolink.identity import CredentialRequest, EntityKind
from autolink.messages.merkle import leaf_hash
from autolink.registry import making, word
from autolink.registry import registration as keeping_up
from autolink.registry.addresses import LOOPBACK
from autolink.registry.client import RegistryClient
from autolink.registry.discovery import NotFound, RegistryFinder, find_record, publish
from autolink.registry.entries import Entry, Op, decode_leaf_untrusted, encode_leaf
from autolink.registry.evidence import Unproved
from autolink.registry.making import Slot
from autolink.registry.records import SECOND, State
from autolink.registry.registration import registered
from autolink.registry.service_record import ServiceRecord, describe
from autolink.registry.status import PURPOSE, Newest, Status
from autolink.registry.submitter import Logged
from autolink.transport import TcpAddress, parse_address
from autolink.trust import SelfCertified

from .serving import AT, KEY, ORIGIN, Served, entry, issue, registration, serving, until
from .test_addresses import Names, targets

WHERE = "9.9.9.9:1"


def clock() -> datetime:
    return datetime.now(UTC)


def handlers() -> Handlers:
    made = Handlers()

    @made.method
    async def echo(call: Call, body: str) -> str:
        return body

    return made


@dataclass
class Scene:
    """acme and its agent echo, on record, and somebody who has a client."""

    served: Served
    acme: Credential
    echo: Credential
    client: RegistryClient

    async def submit(self, op: Op, by: Credential | None = None, **fields: Any) -> None:
        """One more entry of echo's, which its own key signs unless somebody else does."""
        signer = by or self.echo
        place = await self.client.place(self.echo.auto_id)
        made = entry(op, self.echo.auto_id, place.head, **fields)
        await self.client.submit(made.signed(signer.auto_id, signer.private_key))

    async def publish(self, *addresses: str) -> ServiceRecord:
        record = describe(handlers(), addresses or [WHERE], now=clock())
        await self.submit(Op.SERVICE, service=record.to_bytes())
        return record

    async def find(self, **options: Any) -> ServiceRecord:
        return await find_record(self.client, self.echo.auto_id, now=clock(), **options)

    def finder(self, **options: Any) -> RegistryFinder:
        contact = Contact(self.served.agent.peer_id, parse_address(AT))
        finder = RegistryFinder(str(contact), self.served.key, **options)
        self.served.join(finder.reader)
        return finder

    def answer(self, method: str) -> Callable[[Any], None]:
        """Have the registry answer a method otherwise: the result of its honest answer, changed."""

        def decorate(change: Callable[[Any], Any]) -> None:
            methods = self.served.agent.handlers.methods
            honest = methods[method]

            async def lie(call: Any, body: Any) -> Any:
                return change(await honest.function(call, body))

            methods[method] = replace(honest, function=lie)

        return decorate


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with serving(folder) as served:
        acme = Credential.self_issued("acme")
        echo = issue(acme, "echo")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            await client.submit(registration(echo, acme))
            yield Scene(served, acme, echo, client)


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
            await here.submit(Op.RENEW, certificate=_renewed(here, number + 1))
        assert await here.find() == newest
        await here.submit(Op.SERVICE, service=b"")
        with pytest.raises(NotFound, match="taken its service record back"):
            await here.find()
        await here.submit(Op.SERVICE, service=b"where and what")
        with pytest.raises(NotFound, match="is no service record"):
            await here.find()


def _renewed(here: Scene, number: int) -> bytes:
    """A newer certificate of echo's over the same key: each begins a second later than the one before."""
    request = CredentialRequest.from_key("echo", here.echo.private_key)
    return here.acme.issue(request, kind=EntityKind.AGENT, now=clock() + timedelta(seconds=number))[0].der


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
        for auto_id, why in ((here.echo.auto_id, "revoked"), (AutoId(bytes(32)), "not_found")):
            with pytest.raises(LinkLost, match=f"no address of {auto_id} is found.*{why}"):
                async with caller.connect(auto_id):
                    pass


# --- a registry that lies ----------------------------------------------------------------------------------


async def test_a_registry_cannot_withhold_an_entry_that_it_has_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish("9.9.9.9:1")
        await here.publish("9.9.9.9:2")
        await here.submit(Op.RENEW, certificate=_renewed(here, 1))
        honest = await here.client.history(here.echo.auto_id)
        shown: list[int] = []
        here.answer("registry.history")(lambda places: list(shown) if places else [])
        for shown in (  # noqa: B007  what the registry shows
            [honest[0], honest[1], honest[3]],  # the newest record left out
            honest[:3],  # the last one left out
            [],
            [-5, *honest[1:]],
            [honest[1], honest[0], *honest[2:]],
            honest[1:],
        ):
            with pytest.raises(BadSignature, match="as many entries as it has signed"):
                await here.find()
        # As many as are counted, another ID's among them: the hashes lead past none.
        shown = [0, honest[0], honest[1], honest[3]]
        with pytest.raises(BadSignature, match="other entries than it has signed"):
            await here.find()


async def test_another_ids_record_is_not_believed(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        record = describe(handlers(), [WHERE], now=clock())
        await publish(here.client, here.acme, record, now=clock())
        of_acme = here.served.registrar.status(here.acme.auto_id)
        assert of_acme is not None
        here.answer("registry.status")(lambda status: of_acme.to_bytes())
        with pytest.raises(BadSignature, match="another Auto ID"):
            await here.find()


async def test_an_older_status_than_was_seen_is_not_believed(tmp_path: Path) -> None:
    """Without it, an older record: what the registry withholds it cannot withhold again from who saw it."""
    async with scene(tmp_path) as here:
        newest = Newest()
        await here.publish("9.9.9.9:1")
        old = here.served.registrar.status(here.echo.auto_id)
        assert old is not None
        last = await here.publish("9.9.9.9:2")
        assert await here.find(newest=newest) == last
        here.answer("registry.status")(lambda status: old.to_bytes())
        assert (await here.find()).addresses == (TcpAddress("9.9.9.9", 1),)  # who has not seen it cannot tell
        with pytest.raises(BadSignature, match="older"):
            await here.find(newest=newest)


@pytest.mark.parametrize(("hours", "says"), [(-2, "too long ago"), (2, "to come")])
async def test_a_status_of_another_time_is_refused_before_it_says_anything(
    tmp_path: Path, hours: int, says: str
) -> None:
    """Not that an ID is revoked which has another key since; nor does it stand in the way of those to come."""
    async with scene(tmp_path) as here:
        record, newest = await here.publish(), Newest()
        methods = here.served.agent.handlers.methods
        honest = methods["registry.status"]
        for lie in ({"state": State.REVOKED}, {"certificate": bytes(32)}):
            here.answer("registry.status")(lambda status, lie=lie: _dated(status, hours, **lie))
            with pytest.raises(Unproved, match=says):
                await here.find(newest=newest)
            methods["registry.status"] = honest
            assert await here.find(newest=newest) == record


def _dated(status: bytes, hours: int, **lie: Any) -> bytes:
    """A status of another time, which says something else too, under the log's signature."""
    said = Status.from_untrusted(status)
    ago = hours * 3600 * SECOND
    said = replace(said, at=said.at + ago, expires_at=said.expires_at + ago, **lie)
    return replace(said, signature=word.sign(KEY, PURPOSE, said.body)).to_bytes()


@pytest.mark.parametrize("method", ["registry.entries", "registry.status", "registry.proof"])
async def test_an_answer_changed_byte_by_byte_finds_nothing_else(tmp_path: Path, method: str) -> None:
    async with scene(tmp_path) as here:
        record = await here.publish()
        honest: list[bytes] = []

        @here.answer(method)
        def changed(answer: Any) -> Any:
            data = answer[-1] if isinstance(answer, list) else answer
            honest[:] = [data]
            if not at:
                return answer
            bad = data[: at[0]] + bytes([data[at[0]] ^ 1]) + data[at[0] + 1 :]
            return [*answer[:-1], bad] if isinstance(answer, list) else bad

        at: list[int] = []
        assert await here.find() == record
        for at in ([place] for place in range(0, len(honest[0]), 7)):  # noqa: B007  where it is changed
            with pytest.raises((BadSignature, RemoteProtocolError, EntryRefused)):
                await here.find()


async def test_a_signature_of_another_key_is_none_even_if_the_log_has_taken_it(tmp_path: Path) -> None:
    """A log that lets in what nobody has signed convicts itself, and has nobody dialled."""
    async with scene(tmp_path) as here:
        await here.publish()
        place = await here.client.place(here.echo.auto_id)
        (leaf,) = await here.client.entries([place.touched])
        logged_at, true = decode_leaf_untrusted(leaf)
        forged = encode_leaf(logged_at, true.with_signatures(
            [replace(true.signatures[0], value=bytes(64))]
        ).to_bytes())  # fmt: skip
        here.answer("registry.entries")(lambda leaves: [*leaves[:-1], forged])
        real_status, real_proved = here.client.status, here.client.proved

        async def status(auto_id: AutoId) -> Any:
            verified = await real_status(auto_id)
            return replace(verified, status=replace(verified.status, head=leaf_hash(forged)))

        async def proved(index: int) -> bytes:
            return forged

        here.client.status, here.client.proved = status, proved  # type: ignore[method-assign]
        with pytest.raises(BadSignature, match="not its current key's"):
            await here.find()
        here.client.proved = real_proved  # type: ignore[method-assign]
        with pytest.raises(BadSignature):
            await here.find()


async def test_an_older_record_is_not_proved_in_the_place_of_the_one_that_was_shown(tmp_path: Path) -> None:
    """It was signed by the same key and is in the log. The registry names its place as the newer one's."""
    async with scene(tmp_path) as here:
        await here.publish("9.9.9.9:1")
        await here.publish("9.9.9.9:2")
        await here.submit(Op.RENEW, certificate=_renewed(here, 1))
        honest = await here.client.history(here.echo.auto_id)
        leaves = await here.client.entries(honest)
        claimed = [0, honest[0], honest[1], honest[3]]
        here.answer("registry.history")(lambda places: claimed if places else [])
        shown = here.client.entries

        async def entries(places: Any) -> list[bytes]:
            return leaves if list(places) == claimed else await shown(places)

        here.client.entries = entries  # type: ignore[method-assign]
        with pytest.raises(BadSignature, match="another entry than it has shown"):
            await here.find()


async def test_another_certificate_than_the_status_names_signs_nothing(tmp_path: Path) -> None:
    """With one of the registry's own, and a log that lets it in, the record would be its word."""
    async with scene(tmp_path) as here:
        await here.publish()
        other = issue(here.acme, "echo").leaf.der
        here.answer("registry.record")(lambda place: place.model_copy(update={"certificate": other}))
        with pytest.raises(BadSignature, match="another certificate than its status names"):
            await here.find()


async def test_the_registrys_word_is_as_old_as_is_asked_for_at_most(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish()
        later = clock() + timedelta(seconds=100)
        for max_age in (60.0, 0.001):
            with pytest.raises(BadSignature, match="too long ago"):
                await find_record(here.client, here.echo.auto_id, now=later, max_age=max_age)
        assert await find_record(here.client, here.echo.auto_id, now=later, max_age=120)
        with pytest.raises(BadSignature, match="too long ago"):
            # By the log's own word, whatever is asked for.
            await find_record(
                here.client, here.echo.auto_id, now=later + timedelta(hours=1), max_age=limits.STATUS_AGE
            )


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
    key = "registry.example/log+00000000+AAAA"
    for options in ({"max_age": 0}, {"max_age": 1e9}):
        with pytest.raises(UsageError, match="max_age"):
            RegistryFinder(contact, key, **options)  # type: ignore[arg-type]


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
