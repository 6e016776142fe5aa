"""Registering what an agent does: every mistake is told at the decorator, with what to do instead."""

from typing import Annotated

import anyio
import pytest
from pydantic import Field

from autolink import Agent, Call, CallError, Channel, Handlers, UsageError
from autolink.testing import link_pair
from autolink.trust import SelfCertified


async def test_handlers_and_the_agents_own_decorators_are_the_same_thing(acme, globex):
    """One set of Handlers serves two agents; `@agent.method` puts into the agent's own."""
    handlers = Handlers()

    @handlers.method
    async def first(call: Call, body: int) -> int:
        return body + 1

    @handlers.channel("second")
    async def another_name(channel: Channel[int, int]) -> None:
        await channel.send(await channel.receive() + 1)

    decorated = acme.agent("decorated")
    decorated.method("first")(first)
    decorated.channel("second")(another_name)
    for seller in (acme.agent("one", handlers=handlers), acme.agent("two", handlers=handlers), decorated):
        buyer = acme.agent("buyer")
        async with link_pair(buyer, seller) as (link, _):
            assert await link.call("first", 1) == 2
            async with link.open_channel("second") as channel:
                await channel.send(1)
                assert await channel.receive() == 2


async def test_what_an_annotation_adds_to_a_type_is_checked_too(acme):
    """Such as pydantic's constraints, at any depth: without them the handler would meet what it has excluded."""
    few = Annotated[int, Field(ge=0, le=9)]
    seller, buyer = acme.agent("seller"), acme.agent("buyer")

    @seller.method
    async def count(call: Call, body: tuple[str, few]) -> few:
        return body[1]

    @seller.channel
    async def counts(channel: Channel[few, few]) -> None:
        await channel.send(await channel.receive())

    async with link_pair(buyer, seller) as (link, _):
        assert await link.call("count", ["a", 9]) == 9
        with pytest.raises(CallError, match="invalid_argument: 1: Input should be less than or equal to 9"):
            await link.call("count", ["a", 10])
        async with link.open_channel("counts") as channel:
            await channel.send(10)
            with pytest.raises(CallError, match="invalid_argument"):
                await channel.receive()


@pytest.mark.parametrize("decorator", ["method", "channel", "forwarder"])
def test_a_plain_def_is_refused_with_a_pointer_to_threads(decorator):
    def blocking(call, body):
        return None

    with pytest.raises(UsageError, match="anyio.to_thread"):
        getattr(Handlers(), decorator)(blocking)


def test_an_annotation_that_cannot_be_found_says_where_to_define_it():
    """A class of the enclosing function, named as a string, is invisible from the handler's module."""

    class Local:
        pass

    async def handler(call, body: "Local") -> None:
        return None

    with pytest.raises(UsageError, match=r"names 'Local'.*define it there"):
        Handlers().method(handler)


@pytest.mark.parametrize("wrong", [dict[str, int], list[int], "tuple[int, int]"])
def test_a_channel_handler_takes_a_channel(wrong):
    async def handler(channel: wrong) -> None:
        return None

    with pytest.raises(UsageError, match=r"Channel\[S, R\]"):
        Handlers().channel(handler)


def test_other_parameters_than_call_and_body_are_refused():
    class Handler:
        async def __call__(self, call):
            return None

    with pytest.raises(UsageError, match=r"takes 1 parameter, and must be `async def name\(call, body\)`"):
        Handlers().method("x")(Handler())


@pytest.mark.parametrize("name", ["", "x" * 256, "line\nbreak"])
def test_a_name_that_cannot_travel_or_be_shown_is_refused(name):
    async def handler(call, body):
        return None

    with pytest.raises(UsageError, match="cannot be a name"):
        Handlers().method(name)(handler)


def test_a_name_is_taken_once():
    handlers = Handlers()

    @handlers.method
    async def same(call, body):
        return None

    with pytest.raises(UsageError, match="already"):
        handlers.channel("same")(same_channel)

    @handlers.forwarder
    async def carry(call, envelope):
        return None

    with pytest.raises(UsageError, match="already"):
        handlers.forwarder(carry)


async def same_channel(channel):
    """Never runs."""


def test_a_type_that_cannot_be_a_body_is_refused_at_the_decorator():
    async def handler(call, body: anyio.Event) -> None:
        return None

    with pytest.raises(UsageError, match="cannot be a body"):
        Handlers().method(handler)


def test_there_is_no_default_trust_model(acme):
    with pytest.raises(UsageError, match="trust="):
        Agent(acme.issue("x"), trust=None)


def test_a_topic_has_one_declaration_with_sensible_arguments(acme):
    agent = acme.agent("x", trust=SelfCertified())
    agent.topic("news", of=str)
    with pytest.raises(UsageError, match="already"):
        agent.topic("news", of=str)
    with pytest.raises(UsageError, match="overflow"):
        agent.topic("a", of=str, overflow="sometimes")
    with pytest.raises(UsageError, match="at least 1"):
        agent.topic("b", of=str, buffer=0)
    with pytest.raises(UsageError, match="name"):
        agent.topic("", of=str)
