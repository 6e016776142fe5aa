"""Throw-away authorities and link pairs: short to use, and no check is weakened."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from autolink import EntityKind, Handlers, KeyType, PeerId, Reason, Refused
from autolink.testing import Authority, Network, link_pair
from autolink.trust import IssuedBy, Model

pytestmark = pytest.mark.anyio


async def test_a_users_own_test_is_ten_lines(monkeypatch):
    handlers = Handlers()

    @handlers.method
    async def echo(call, body) -> object:
        return body

    acme = Authority("acme")
    async with link_pair(acme.agent("buyer"), acme.agent("seller", handlers=handlers)) as (link, far):
        assert await link.call("echo", 1) == 1
        assert (link.peer.name, far.peer.name) == ("seller", "buyer")
        assert link.tls.version == "TLSv1.3"
        assert far.peer.grounds.model == "IssuedBy"


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519, KeyType.ML_DSA_65])
async def test_every_key_type_makes_a_link(key_type):
    acme = Authority("acme", key_type=key_type)
    assert acme.issue("x").key_type is key_type
    async with link_pair(acme.agent("one"), acme.agent("two")) as (link, _):
        await link.ping()


async def test_the_pair_is_judged_like_any_other():
    acme, globex = Authority("acme"), Authority("globex")
    stranger = globex.agent("stranger", trust=IssuedBy(acme.anchor))
    with pytest.raises(Refused) as error:
        async with link_pair(stranger, acme.agent("seller")):
            pytest.fail("must not open")
    assert (error.value.by, error.value.reason) == ("peer", Reason.UNTRUSTED)
    with pytest.raises(Refused) as error:
        async with link_pair(
            acme.agent("buyer"), acme.agent("seller"), expect=PeerId(globex.credential.auto_id, "bound")
        ):
            pytest.fail("must not open")
    assert (error.value.by, error.value.reason) == ("us", Reason.WRONG_PEER)


async def test_an_authority_of_another_time_issues_in_its_own_time():
    past = datetime.now(UTC) - timedelta(days=3000)
    old = Authority("old", now=past)
    leaf = old.issue("device", kind=EntityKind.DEVICE).leaf
    assert leaf.not_after < datetime.now(UTC)
    assert leaf.kind is EntityKind.DEVICE


async def test_cancelling_a_pair_that_is_opening_closes_the_end_that_is_open():
    """One side has accepted and waits; the other's trust model takes its time."""

    class Slow(Model):
        async def verify(self, presented, context):
            await anyio.sleep_forever()

    acme = Authority("acme")
    seller, buyer = acme.agent("seller", trust=Slow()), acme.agent("buyer")
    with anyio.move_on_after(0.05) as scope:
        async with link_pair(buyer, seller, network=Network()):
            pytest.fail("must not open")
    assert scope.cancelled_caught
    for agent in (seller, buyer):
        assert agent._links == agent._rows == set()
