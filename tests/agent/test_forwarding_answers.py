"""An answer that a relay brings is an answer to what was asked."""

import pytest

from autolink import EnvelopeRefused, Reason
from autolink.testing import link_pair
from autolink.trust import IssuedBy

pytestmark = pytest.mark.anyio


async def test_a_relay_cannot_bring_the_answer_to_another_question(acme, globex):
    """It carries the first message honestly, and for the second shows the answer to the first."""
    both = IssuedBy(acme.anchor, globex.anchor)
    bank, relay, customer = (
        acme.agent("bank", trust=both),
        globex.agent("relay", trust=both),
        globex.agent("customer", trust=both),
    )

    @bank.method(forwarded=True)
    async def whose(call, body: str) -> str:
        return body.upper()

    async with link_pair(relay, bank) as (to_bank, _):
        kept = []

        @relay.forwarder
        async def carry(call, envelope):
            kept.append(await to_bank.forward(envelope))
            return kept[0]

        async with link_pair(customer, relay) as (link, _):
            mine = await link.forward(customer.sign(bank.auto_id, "whose", "mine"))
            assert (await customer.verify(mine)).message.value == "MINE"
            with pytest.raises(EnvelopeRefused) as refused:
                await link.forward(customer.sign(bank.auto_id, "whose", "yours"))
            assert refused.value.reason is Reason.REPLAYED


async def test_a_caller_can_keep_the_proof_of_a_reply(agents):
    seller, buyer = agents

    @seller.method
    async def quote(call, body: str) -> int:
        return 250

    async with link_pair(buyer, seller) as (link, _):
        reply = await link.call_signed("quote", "tea")
        assert reply.message.value == 250
        proof = reply.envelope()
    verified = await buyer.verify(proof)
    assert verified.author.name == "seller"
