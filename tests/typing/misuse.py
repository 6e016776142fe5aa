"""What must not pass: each line is an error to the type checker, and an `ignore` that is not needed is one too."""

from pydantic import BaseModel

from autolink import Agent, Credential, Handlers, Link, TrustAnchor
from autolink.trust import IssuedBy, KnownAgents


class Price(BaseModel):
    cents: int


handlers = Handlers()


@handlers.method  # type: ignore[type-var]
def blocking(call: object, body: None) -> None:
    """A handler is `async def`."""


def needs_int(number: int) -> None:
    """Takes what no reply in here is."""


async def wrong(agent: Agent, link: Link, credential: Credential, anchor: TrustAnchor) -> None:
    Agent(credential)  # type: ignore[call-arg]  # there is no default trust
    Agent(credential, trust=anchor)  # type: ignore[arg-type]  # an anchor is no trust model
    KnownAgents("known_agents")  # type: ignore[call-arg]  # first use is a named choice
    credential.issue(credential.leaf, kind="agent")  # type: ignore[arg-type]
    agent.topic("prices", of=Price, overflow="drop")  # type: ignore[arg-type]
    await agent.topic("prices", of=Price).publish("3 cents")  # type: ignore[arg-type]
    needs_int(await link.call("price", returns=Price))  # type: ignore[arg-type]
    async with link.open_channel("fills", sends=int, receives=str) as channel:
        await channel.send("three")  # type: ignore[arg-type]
        needs_int(await channel.receive())  # type: ignore[arg-type]
    async with link.open_channel("log", sends=int) as one_way:
        await one_way.send("three")  # type: ignore[arg-type]
    if IssuedBy(anchor) & anchor:  # type: ignore[operator]
        pass
