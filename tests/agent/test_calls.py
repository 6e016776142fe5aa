"""Calls between two agents over a link without sockets, on Trio and on asyncio."""

import anyio
import pytest
from pydantic import BaseModel

from autolink import BodyError, CallError, Code, UsageError
from autolink.testing import link_pair

pytestmark = pytest.mark.anyio


class Ask(BaseModel):
    item: str


class Quote(BaseModel):
    item: str
    cents: int


async def test_a_call_carries_typed_bodies_both_ways(agents):
    seller, buyer = agents

    @seller.method
    async def quote(call, ask: Ask) -> Quote:
        assert call.peer.name == "buyer"
        assert call.author is call.peer
        return Quote(item=ask.item, cents=250)

    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("quote", Ask(item="tea"), returns=Quote) == Quote(item="tea", cents=250)
        assert await link.call("quote", {"item": "tea"}) == {"item": "tea", "cents": 250}
        assert link.peer.name == "seller"


async def test_a_handlers_call_error_reaches_the_caller_and_any_other_exception_only_as_internal(
    agents, caplog
):
    seller, buyer = agents

    @seller.method
    async def known(call, body):
        raise CallError("not_found", "no such item")

    @seller.method
    async def bug(call, body):
        raise RuntimeError("secret")

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("known")
        assert (error.value.code, error.value.message) == (Code.NOT_FOUND, "no such item")
        with pytest.raises(CallError) as error:
            await link.call("bug")
        assert (error.value.code, error.value.message) == (Code.INTERNAL, "")
    assert "secret" in caplog.text


async def test_an_unknown_method_is_unimplemented(agents):
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("nothing")
        assert error.value.code is Code.UNIMPLEMENTED


async def test_a_wrong_body_is_a_clear_error_that_echoes_no_input(agents):
    seller, buyer = agents

    @seller.method
    async def quote(call, ask: Ask) -> Quote:
        raise AssertionError("must not run")

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("quote", {"item": {"password": "hunter2"}})
        assert error.value.code is Code.INVALID_ARGUMENT
        assert "item" in error.value.message
        assert "hunter2" not in error.value.message


async def test_cancelling_a_call_cancels_the_far_handler(agents):
    seller, buyer = agents
    stopped = anyio.Event()
    started = anyio.Event()

    @seller.method
    async def slow(call, body) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with link_pair(buyer, seller) as (link, far), anyio.create_task_group() as tasks:
        tasks.start_soon(link.call, "slow")
        await started.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await stopped.wait()
            await link.ping()
        assert far.statistics().handlers == 0


async def test_the_callers_deadline_is_the_handlers_deadline(agents):
    seller, buyer = agents
    seen = []

    @seller.method
    async def look(call, body) -> None:
        seen.append(anyio.current_effective_deadline() - anyio.current_time())

    async with link_pair(buyer, seller) as (link, _):
        with anyio.fail_after(50):
            await link.call("look")
    assert 0 < seen[0] <= 50


async def test_a_plain_def_is_refused_with_a_pointer_to_threads(agents):
    seller, _ = agents
    with pytest.raises(UsageError, match="anyio.to_thread"):

        @seller.method
        def blocking(call, body):
            return None


async def test_an_exception_in_the_body_comes_out_unchanged(agents):
    seller, buyer = agents
    boom = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as error:
        async with link_pair(buyer, seller):
            raise boom
    assert error.value is boom


async def test_calls_go_both_ways_on_one_link_and_headers_are_signed_with_them(agents):
    seller, buyer = agents

    for agent in agents:

        @agent.method
        async def who(call, body) -> object:
            return [call.peer.name, dict(call.headers), call.method, call.link.peer.name]

    async with link_pair(buyer, seller) as (link, far):
        assert await link.call("who", headers={"traceparent": "00-ab"}) == [
            "buyer", {"traceparent": "00-ab"}, "who", "buyer"
        ]  # fmt: skip
        assert (await far.call("who"))[0] == "seller"


async def test_statistics_count_what_happened(agents):
    """Each message once where it left and once where it was verified; ended links stay in the agent's sum."""
    seller, buyer = agents

    @seller.method
    async def echo(call, body) -> object:
        return body

    for _ in range(2):
        async with link_pair(buyer, seller) as (link, far):
            for number in range(10):
                await link.call("echo", number)
            counts = link.statistics()
            assert (counts.messages_sent, counts.messages_verified, counts.handlers) == (10, 10, 0)
            assert counts.records > 10
            assert far.statistics().messages_verified == 10
            assert seller.statistics().links == 1
    for agent in agents:
        counts = agent.statistics()
        assert (counts.links, counts.opened, counts.messages_sent, counts.messages_verified) == (0, 2, 20, 20)
        assert counts.refused == counts.refused_by_peer == {}


async def test_a_calls_envelope_is_proof_for_a_third_party(agents, acme):
    """Taken out of its batch by the handler, verified by somebody who was not there."""
    seller, buyer = agents
    kept = []

    @seller.method
    async def order(call, body) -> None:
        kept.append(call.envelope())

    async with link_pair(buyer, seller) as (link, _):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(link.call, "order", number)
    verified = [await seller.verify(envelope) for envelope in kept]
    assert sorted(one.message.value for one in verified) == list(range(20))
    assert {one.author.name for one in verified} == {"buyer"}


async def test_a_reply_of_another_type_is_the_callers_body_error(agents):
    seller, buyer = agents

    @seller.method
    async def quote(call, body) -> object:
        return {"item": 5}

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(BodyError, match="item"):
            await link.call("quote", returns=Quote)


async def test_a_handler_that_returns_another_type_is_internal_and_its_log_says_why(agents, caplog):
    seller, buyer = agents

    @seller.method
    async def quote(call, body) -> Quote:
        return {"wrong": 1}

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("quote")
        assert error.value.code is Code.INTERNAL
    assert "cents" in caplog.text
