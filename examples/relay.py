"""A message that somebody else carries: globex's relay forwards a customer's signed order to acme's warehouse.

The warehouse judges the author by its own trust model, not the bearer; the bearer cannot alter a letter, and cannot
hand the order in twice.

It prints::

    warehouse: 3 x tea, ordered by customer, brought by relay
    customer: warehouse answers 'shipped 3 x tea'
    the same order again: replayed
    an altered order: tampered
"""

from dataclasses import replace

import anyio

from autolink import Call, Envelope, EnvelopeRefused, Handlers
from autolink.testing import Authority
from autolink.trust import IssuedBy

handlers = Handlers()


@handlers.method(forwarded=True)  # opting in: call.author is not call.peer
async def order(call: Call, what: str) -> str:
    print(f"warehouse: {what}, ordered by {call.author.name}, brought by {call.peer.name}")
    return f"shipped {what}"


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    both = IssuedBy(acme.anchor, globex.anchor)
    warehouse = acme.agent("warehouse", trust=both, handlers=handlers)
    relay, customer = (globex.agent(name, trust=both) for name in ("relay", "customer"))
    signed = customer.sign(warehouse.auto_id, "order", "3 x tea")
    altered = replace(signed, leaf=signed.leaf.replace(b"3 x tea", b"9 x tea"))

    async with warehouse.listening("127.0.0.1:0") as far, relay.keep_link(far.contact) as onwards:

        @relay.forwarder
        async def carry(call: Call, envelope: Envelope) -> Envelope | None:
            return await onwards.forward(envelope)

        async with relay.listening("127.0.0.1:0") as near, customer.connect(near.contact) as link:
            if answer := await link.forward(signed):
                verified = await customer.verify(answer)
                print(f"customer: {verified.author.name} answers {verified.message.value!r}")
            for what, envelope in ("the same order again", signed), ("an altered order", altered):
                try:
                    await link.forward(envelope)
                except EnvelopeRefused as refused:
                    print(f"{what}: {refused.reason}")


if __name__ == "__main__":
    anyio.run(main, backend="trio")
