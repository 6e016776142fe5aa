"""Handlers apart from any key and address, bodies with and without models, and an agent that serves them."""

from typing import assert_type

import anyio
from pydantic import BaseModel

from autolink import (
    Agent,
    Call,
    CallError,
    Code,
    Credential,
    Envelope,
    Handlers,
    Link,
    TrustAnchor,
    VerifiedPeer,
)
from autolink.trust import IssuedBy


class Parcel(BaseModel):
    grams: int


handlers = Handlers()


@handlers.method
async def weigh(call: Call, parcel: Parcel) -> int:
    assert_type(call.peer, VerifiedPeer)
    assert_type(call.peer.name, str)
    assert_type(call.link, Link)
    if parcel.grams < 0:
        raise CallError("out_of_range", "parcels do not float")
    return parcel.grams


@handlers.method("stamp", forwarded=True)
async def put_a_stamp(call: Call, body: dict[str, object]) -> dict[str, object]:
    if call.author is not call.peer:
        raise CallError(Code.PERMISSION_DENIED)
    return body


@handlers.method()
async def nothing(call: Call, body: None) -> None:
    pass


@handlers.method
async def anything(call: object, body: object) -> object:
    return body


@handlers.forwarder
async def carry(call: Call, envelope: Envelope) -> Envelope | None:
    return await call.link.forward(envelope)


async def main() -> None:
    agent = Agent(Credential.load("post"), trust=IssuedBy(TrustAnchor.load("acme.pem")), handlers=handlers)
    assert_type(await weigh(*one_call()), int)  # a decorated function is still itself

    @agent.method
    async def more(call: Call, body: str) -> str:
        return body

    await agent.serve("127.0.0.1:7600", "[::1]:7600", "unix:/run/post.sock")


def one_call() -> tuple[Call, Parcel]:
    raise NotImplementedError


if __name__ == "__main__":
    anyio.run(main, backend="trio")
