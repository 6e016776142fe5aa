"""What a developer is told when something is used wrongly or goes wrong: whose doing it is, and what to do."""

import gc
import logging

import anyio
import pytest

from autolink import Agent, BodyError, CallError, Channel, Code, Contact, CredentialRequest, UsageError
from autolink.testing import Network, link_pair
from autolink.trust import IssuedBy, Pinned

pytestmark = pytest.mark.anyio


async def test_a_wrong_item_is_its_senders_fault_and_no_traceback_of_ours(agents, caplog):
    seller, buyer = agents

    @seller.channel
    async def typed(channel: Channel[int, int]) -> None:
        async for _ in channel:
            pass

    async with link_pair(buyer, seller) as (link, _), link.open_channel("typed") as channel:
        await channel.send("no number")
        with pytest.raises(CallError) as error:
            await channel.receive()
    assert error.value.code is Code.INVALID_ARGUMENT
    assert "no number" not in str(error.value)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_wrong_reply_says_whose_reply_it_is(agents):
    seller, buyer = agents

    @seller.method
    async def count(call, body):
        return "many"

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(BodyError, match="the reply of 'count'"):
            await link.call("count", returns=int)


async def test_a_call_error_notes_what_was_called_and_who_answered(agents):
    seller, buyer = agents
    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(CallError) as error:
            await link.call("nothing")
    assert any("'nothing'" in note and "seller" in note for note in error.value.__notes__)


async def test_whoever_can_be_addressed_can_be_written_in_any_form(agents):
    seller, buyer = agents
    for recipient in (seller.auto_id, seller.peer_id, str(seller.peer_id), seller.auto_id.hex):
        assert buyer.sign(recipient, "note").claimed.recipient == seller.auto_id
    for wrong in ("seller", None, 7):
        with pytest.raises(UsageError, match="AutoId"):
            buyer.sign(wrong, "note")


def test_a_trust_model_or_a_credential_of_the_wrong_kind_is_told_at_once(acme):
    with pytest.raises(UsageError, match=r"TrustAnchor\.load"):
        IssuedBy("acme.pem")
    with pytest.raises(UsageError, match=r"credential\.anchor"):
        IssuedBy(acme.credential)
    with pytest.raises(UsageError, match=r"Credential\.load"):
        Agent("echo", trust=IssuedBy(acme.anchor))


@pytest.mark.parametrize("wrong", [4433, None, ("127.0.0.1", 4433), b"127.0.0.1:4433"])
async def test_what_is_no_address_and_nobody_is_told_at_once(agents, wrong):
    _, buyer = agents
    with pytest.raises(
        UsageError, match="where= takes a contact or an address, as text, an AutoId or a PeerId, not"
    ):
        async with buyer.connect(wrong):
            pass
    with pytest.raises(UsageError, match="expect= takes a PeerId" if wrong else "whom to expect"):
        async with buyer.connect("127.0.0.1:4433", expect=wrong):
            pass
    with pytest.raises(UsageError, match="an address is host:port"):
        async with buyer.listening(wrong):
            pass
    with pytest.raises(UsageError, match="a contact is autolink://"):
        Contact.parse(wrong)


def test_what_is_no_pin_no_model_no_handlers_and_no_kind_is_told_at_once(acme):
    with pytest.raises(UsageError, match=r"PeerId\.parse"):
        Pinned("acme.pem")
    with pytest.raises(UsageError, match="join trust models"):
        IssuedBy(acme.anchor) & "registered"
    with pytest.raises(UsageError, match="handlers= takes Handlers"):
        Agent(acme.issue("echo"), trust=IssuedBy(acme.anchor), handlers=print)
    with pytest.raises(UsageError, match=r"EntityKind\.AGENT"):
        acme.credential.issue(CredentialRequest.new("echo"), kind="agent")


def test_a_trust_model_does_not_keep_the_agents_that_used_it(acme):
    trust = Pinned(acme.credential.peer_id)
    agent = Agent(acme.issue("short-lived"), trust=trust)
    assert len(trust._listeners) == 1
    del agent
    gc.collect()
    assert trust._listeners == ()


async def test_a_kept_link_to_nobody_says_so_once_and_keeps_the_reason(agents, caplog):
    """The attempts after the first are told at INFO only."""
    seller, buyer = agents
    network = Network()
    network.join(buyer)
    async with network.listening(seller) as listener:
        contact = listener.contact
    async with buyer.keep_link(contact) as kept:
        while kept.error is None:
            await anyio.lowlevel.checkpoint()
    said = [record for record in caplog.records if "trying again" in record.getMessage()]
    assert len([record for record in said if record.levelno == logging.WARNING]) == 1


async def test_a_kept_link_says_once_that_it_is_there_again(agents, caplog, monkeypatch):
    """At the level at which it was missed."""
    monkeypatch.setattr("autolink.agent.kept.back_off", lambda failures: 0.0)
    seller, buyer = agents
    network = Network()
    network.join(buyer)
    async with network.listening(seller) as listener:
        contact = listener.contact
    async with buyer.keep_link(contact) as kept:
        while kept.error is None:
            await anyio.lowlevel.checkpoint()
        async with network.listening(seller, listener.addresses[0]):
            await kept.ready()
    said = [record.levelname for record in caplog.records if "there is a link to" in record.message]
    assert said == ["WARNING"]
