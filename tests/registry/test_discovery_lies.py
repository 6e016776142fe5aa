"""A registry that lies to whoever looks for an agent is found out."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autolink import AutoId, limits
from autolink.errors import (
    BadSignature,
    EntryRefused,
    RemoteProtocolError,
)
from autolink.messages.merkle import leaf_hash
from autolink.registry import word
from autolink.registry.discovery import find_record, publish
from autolink.registry.entries import Op, decode_leaf_untrusted, encode_leaf
from autolink.registry.evidence import Unproved
from autolink.registry.records import SECOND, State
from autolink.registry.service_record import describe
from autolink.registry.status import PURPOSE, Newest, Status
from autolink.transport import TcpAddress

from .scene import WHERE, clock, handlers, renewed, scene
from .serving import KEY, issue


async def test_a_registry_cannot_withhold_an_entry_that_it_has_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.publish("9.9.9.9:1")
        await here.publish("9.9.9.9:2")
        await here.submit(Op.RENEW, certificate=renewed(here, 1))
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
        await here.submit(Op.RENEW, certificate=renewed(here, 1))
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
