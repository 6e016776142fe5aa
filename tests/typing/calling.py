"""A caller with a deadline, every error it can meet, and a link that is kept."""

from typing import Any, assert_type

import anyio
from pydantic import BaseModel

import autolink
from autolink import (
    Agent,
    AutoId,
    BodyError,
    CallError,
    Channel,
    Code,
    Credential,
    DeliveryUnknown,
    KeptLink,
    Link,
    LinkLost,
    PeerId,
    Reason,
    Refused,
    Subscription,
    TrustAnchor,
)
from autolink.trust import IssuedBy


class Weight(BaseModel):
    grams: int


async def once(contact: str) -> None:
    agent = Agent(Credential.from_pem("tls.crt", "tls.key"), trust=IssuedBy(TrustAnchor.load("globex.pem")))
    try:
        async with agent.connect(contact) as link:
            assert_type(link, Link)
            with anyio.fail_after(2):
                weight = await link.call(
                    "weigh", {"parcel": 1}, returns=Weight, headers={"traceparent": "00-…"}
                )
            assert_type(weight, Weight)
            assert_type(await link.call("weigh", Weight(grams=1)), Any)
            assert_type(await link.call("list", returns=list[int]), list[int])
            assert_type(await link.ping(), float)
    except Refused as error:
        assert_type(error.reason, Reason)
    except CallError as error:
        assert_type(error.code, Code)
    except (LinkLost, TimeoutError, BodyError):
        pass


async def whom(agent: Agent, peer_id: PeerId, auto_id: AutoId) -> None:
    for expect in (peer_id, auto_id, str(peer_id), autolink.ANYONE_TRUSTED):
        async with agent.connect("post.example:7600", expect=expect):
            pass


async def always(agent: Agent, contact: str) -> None:
    async with agent.keep_link(contact) as kept:
        assert_type(kept, KeptLink)
        try:
            assert_type(await kept.call("weigh", returns=Weight), Weight)
            assert_type(await kept.call("weigh"), Any)
        except DeliveryUnknown:
            pass
        async with kept.open_channel("scale", sends=int, receives=Weight) as channel:
            assert_type(channel, Channel[int, Weight])
        async with kept.subscribe("weights", receives=Weight) as feed:
            assert_type(feed, Subscription[Weight])
