"""autolink against a second implementation, written from docs/spec.md alone (second.py): what is refused, and how.

The agent runs on Trio, the other side in a thread with blocking sockets. A thread tells the test what it has seen by
`trio.from_thread`, so nothing here waits for a clock.
"""

import pytest
import trio

from autolink import (
    Channel,
    LinkLost,
)
from tests.interop import second
from tests.interop import second_formats as formats
from tests.interop.loopback import LIMITS, ME, dial, dialled, listening, make_agent
from tests.interop.second import CANCEL, CREDIT, HELLO
from tests.interop.second_formats import CALL, ITEM, OPEN, REPLY


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"versions": [2, 77]}, "version"),
        ({"clock": formats.now() + 3600 * 10**6}, "clock_skew"),
        ({"clock": -1}, "malformed"),
        ({"software": 7}, "malformed"),
        ({"limits": LIMITS | {"credit": 0}}, "malformed"),
    ],
)
async def test_a_hello_that_does_not_fit_is_refused_with_its_reason(handlers, hello, reason):
    async with listening(make_agent(handlers)) as port:
        with pytest.raises(formats.Refused, match=reason):
            await dial(port, lambda link: None, hello=hello)


# What is refused


def good(link, kind=CALL, **fields):
    made = formats.new_message(ME.id, link.peer, kind, channel=1, method="echo", value=1)
    return made._replace(**fields)


def sends(flags=3, channel=1, **fields):
    return lambda link: link.batch([(channel, flags, good(link, **fields).leaf())])


def sends_living(begin, end):
    """A call for these minutes from when it is sent: the tests before it may have taken some."""

    def attack(link):
        now = formats.now()
        sends(sent_at=now + begin * MINUTE, expires_at=now + end * MINUTE)(link)

    return attack


def twice_the_batch(link):
    """The first one opens a channel on which nobody answers: an answer could come before the refusal."""
    link.begin(OPEN, "hold")
    link.batch([(3, 3, good(link, channel=3).leaf())], number=0)


def overdraft(link):
    """The window is 784 KiB; more than half of it, then more than the rest."""
    channel, _ = link.begin(OPEN, "hold")
    for seq, size in ((1, 450_000), (2, 400_000)):
        leaf = good(
            link, kind=ITEM, channel=channel, method="", seq=seq, body=formats.encode(bytes(size))
        ).leaf()
        link.batch([(channel, 0, leaf)])


def long_integer(link):
    """seq 0 as `cd0000`."""
    leaf = good(link).leaf()
    link.batch([(1, 3, leaf[:19] + b"\xcd\0\0" + leaf[20:])])


MINUTE = 60_000_000
ATTACKS = {
    "bad-signature": (lambda link: link.batch([(1, 3, good(link).leaf())], signature=bytes(70)), "untrusted"),
    "signed-for-another-link": (
        lambda link: link.batch([(1, 3, good(link).leaf())], link=bytes(32)),
        "untrusted",
    ),
    "signed-for-another-number": (
        lambda link: link.batch([(1, 3, good(link).leaf())], number=1),
        "malformed",
    ),
    "replayed-batch-number": (twice_the_batch, "malformed"),
    "for-somebody-else": (sends(recipient=bytes(32)), "untrusted"),
    "from-somebody-else": (sends(author=bytes(32)), "wrong_peer"),
    "call-to-a-topic": (sends(recipient=f"topic:{ME.id.hex()}/x"), "untrusted"),
    "unknown-kind": (sends(kind=11), "malformed"),
    "long-integer": (long_integer, "malformed"),
    "leaf-is-no-value": (lambda link: link.batch([(1, 3, b"\xc1")]), "malformed"),
    "credit-overdraft": (overdraft, "malformed"),
    "second-hello": (lambda link: link.send(HELLO, formats.encode({})), "malformed"),
    "flags-of-another-kind": (sends(flags=1), "malformed"),
    "flags-that-do-not-exist": (sends(flags=7), "malformed"),
    "leaf-of-another-channel": (sends(channel=3), "malformed"),
    "channel-of-the-other-side": (sends(channel=2), "malformed"),
    "seq-1-first": (sends(seq=1), "malformed"),
    "late": (sends_living(-9, -2), "untrusted"),
    "from-the-future": (sends_living(3, 4), "clock_skew"),
    "lives-too-long": (sends_living(-1, 10), "malformed"),
    "a-reply-to-nothing": (sends(kind=REPLY, flags=2), "malformed"),
    "unknown-frame": (lambda link: link.send(11), "malformed"),
    "pong-to-nothing": (lambda link: link.send(second.PONG, bytes(8)), "malformed"),
    "credit-of-nothing": (lambda link: link.send(CREDIT, bytes(8)), "malformed"),
    "cancel-of-channel-0": (lambda link: link.send(CANCEL, bytes(5)), "malformed"),
    "goaway-of-a-channel-that-never-was": (lambda link: link.goaway(2, ""), "malformed"),
}


@pytest.mark.parametrize(("attack", "reason"), ATTACKS.values(), ids=ATTACKS)
async def test_what_the_specification_forbids_ends_the_link_with_the_reason_it_names(
    handlers, attack, reason
):
    """And it costs only this link: the next one is served."""

    @handlers.channel
    async def hold(channel: Channel[int, bytes]) -> None:
        await trio.sleep_forever()

    def talk(link):
        attack(link)
        with pytest.raises(formats.Refused) as refused:
            while True:
                link.pump()
        return refused.value.args

    async with listening(make_agent(handlers)) as port:
        assert await dial(port, talk) == (reason, "by the peer")
        assert await dial(port, lambda link: link.call("echo", 1)) == 1


async def test_the_second_side_ends_the_link_too_and_the_agent_learns_why():
    def serve(link):
        link.wait("opened")
        link.refuse("busy")

    async with dialled(make_agent(), serve) as link:
        with pytest.raises(LinkLost, match="refused us: busy"):
            await link.call("x")
