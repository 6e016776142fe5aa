"""autolink against a second implementation, written from docs/spec.md alone (second.py): what works.

The agent runs on Trio, the other side in a thread with blocking sockets. A thread tells the test what it has seen by
`trio.from_thread`, so nothing here waits for a clock.
"""

import socket
import struct

import anyio
import pytest
import trio

from autolink import (
    Agent,
    AutoId,
    BodyError,
    Call,
    CallError,
    Channel,
    CredentialRequest,
    EntityKind,
    Reason,
    Refused,
)
from autolink.testing import Authority
from autolink.trust import IssuedBy, SelfCertified
from tests.interop import second
from tests.interop import second_certificates as certificates
from tests.interop import second_formats as formats
from tests.interop.loopback import (
    GLOBEX,
    GLOBEX_ROOT,
    LIMITS,
    ME,
    dial,
    dialled,
    listening,
    make_agent,
    second_is_trusted,
    serve_echo,
)
from tests.interop.second import CANCELLED, UNAVAILABLE, Closed, Ended
from tests.interop.second_formats import CALL, CHUNK, END, ERROR, ITEM, OPEN, PUBLISH, REPLY

# Whom it believes


async def test_both_judge_each_other_and_each_knows_the_others_auto_id(handlers):
    """A chain of three, from the specification's profile, passes; so does autolink's, here."""
    seen = []

    @handlers.method
    async def who(call: Call, value: object) -> None:
        seen.append((call.peer.name, call.peer.peer_id.auto_id.value))

    agent = make_agent(handlers)
    async with listening(agent) as port:
        assert await dial(port, lambda link: (link.call("who"), link.peer)[1]) == agent.auto_id.value
    assert seen == [("peer", ME.id)]


async def test_a_bound_self_issued_name_certifies_itself(handlers):
    async with listening(make_agent(handlers, SelfCertified())) as port:
        assert await dial(port, lambda link: link.call("echo", 1), certificates.self_issued("solo")) == 1


async def test_an_agent_below_a_rotated_root_shows_the_way_to_it_in_either_role(handlers):
    """As listener in TLS and in HELLO, as dialer in HELLO; the other side has the anchor from before."""
    organisation = GLOBEX.credential
    for _ in range(2):
        organisation = organisation.rotate(organisation.next_key)
    request = CredentialRequest.new("seller")
    credential = request.complete(organisation.issue(request, kind=EntityKind.AGENT))
    agent = Agent(credential, trust=second_is_trusted(), handlers=handlers)

    def talk(link):
        assert len(link.chain) == 2
        return link.call("echo", 1), link.peer

    async with listening(agent) as port:
        assert await dial(port, talk) == (1, credential.auto_id.value)
    async with dialled(agent, serve_echo) as link:
        assert await link.call("echo", 2) == 2
    credential.evidence = ()
    async with listening(agent) as port:
        with pytest.raises(
            formats.Refused, match="malformed"
        ):  # behind the chain stands what HELLO does not explain
            await dial(port, talk)


async def test_a_stranger_is_refused_as_untrusted_by_either_side(handlers):
    """Whoever refuses sends REFUSE and an orderly end; no policy crosses the wire."""
    async with listening(make_agent(handlers, IssuedBy(Authority("other").anchor))) as port:
        with pytest.raises(formats.Refused, match="untrusted"):
            await dial(port, lambda link: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        stranger = Agent(Authority("other").issue("seller"), trust=second_is_trusted())

        def listen():
            with pytest.raises(formats.Refused, match="unknown_issuer"):  # its own, which stays at home
                second.Link.accept(ME, GLOBEX_ROOT, server)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, listen)
            with pytest.raises(Refused) as refused:
                async with stranger.connect("{}:{}".format(*server.getsockname()), expect=AutoId(ME.id)):
                    pass
        assert (refused.value.reason, refused.value.by) == (Reason.UNTRUSTED, "peer")


# What they do


async def test_calls_and_errors_in_both_directions(handlers):
    """A value, the handler's own error, and a method that does not exist."""

    def calls(link):
        assert link.call("echo", ["tea", 2**64 - 1, -1.5, None, {"a": b"\0"}]) == [
            "tea",
            2**64 - 1,
            -1.5,
            None,
            {"a": b"\0"},
        ]
        for method, answer in (
            ("fail", ("error", "not_found", "no such tea")),
            ("nothing", ("error", "unimplemented")),
        ):
            with pytest.raises(Ended) as ended:
                link.call(method)
            assert ended.value.args[: len(answer)] == answer

    agent = make_agent(handlers)
    async with listening(agent) as port:
        await dial(port, calls)
    async with dialled(agent, serve_echo) as link:
        assert await link.call("echo", {"tea": [1, None]}) == {"tea": [1, None]}
        with pytest.raises(CallError, match="not_found"):
            await link.call("other")


async def test_a_body_that_is_no_value_is_that_calls_fault_alone(handlers):
    """`invalid_argument` for the call, and the link goes on."""

    def talk(link):
        with pytest.raises(Ended, match="invalid_argument"):
            link.call("echo", body=b"\xc1")
        return link.call("echo", 1)

    async with listening(make_agent(handlers)) as port:
        assert await dial(port, talk) == 1


async def test_a_channel_both_ways_and_its_end(handlers):
    def talk(link):
        channel, lane = link.begin(OPEN, "double")
        for number in range(3):
            link.say(channel, ITEM, number)
        link.say(channel, END)
        assert [link.receive(lane) for _ in range(3)] == [0, 2, 4]
        with pytest.raises(Ended, match="end"):
            link.receive(lane)

    def serve(link):
        channel = link.wait("opened")
        lane = link.lanes[channel]
        link.receive(lane)
        link.say(channel, ITEM, link.receive(lane) + 1)
        link.say(channel, END)
        with pytest.raises(Ended, match="end"):
            link.receive(lane)

    agent = make_agent(handlers)
    async with listening(agent) as port:
        await dial(port, talk)
    async with dialled(agent, serve) as link, link.open_channel("double", sends=int, receives=int) as channel:
        await channel.send(41)
        assert [item async for item in channel] == [42]
        await channel.send_eof()


async def test_credit_moves_more_than_a_window_in_both_directions(handlers):
    """Both windows are small beside what is sent; a single message may be larger than the window."""
    sizes = [3000, 9000, 1, 4095, 4096, 4097, 700] * 8
    total = 0

    @handlers.channel
    async def take(channel: Channel[bytes, bytes]) -> None:
        nonlocal total
        async for item in channel:
            total += len(item)
        for size in sizes:
            await channel.send(bytes(size))

    def talk(link):
        channel, lane = link.begin(OPEN, "take")
        for size in sizes:
            link.say(channel, ITEM, bytes(50 * size))
        link.say(channel, END)
        assert [len(link.receive(lane)) for _ in sizes] == sizes
        with pytest.raises(Ended, match="end"):
            link.receive(lane)

    async with listening(make_agent(handlers)) as port:
        await dial(port, talk, hello={"limits": {"channels": 1, "credit": 4096, "message": 2**20}})
    assert total == 50 * sum(sizes)


async def test_nothing_larger_is_sent_than_the_other_said_it_takes(handlers):
    """A reply of 11 bytes to one that takes 10 is `internal`; the agent's own caller is told before anything is sent."""
    small = {"limits": LIMITS | {"message": 10}}

    def talk(link):
        assert link.call("echo", "123456789") == "123456789"
        with pytest.raises(Ended, match="internal"):
            link.call("echo", "1234567890")

    async with listening(make_agent(handlers)) as port:
        await dial(port, talk, hello=small)
    async with dialled(make_agent(), serve_echo, small) as link:
        with pytest.raises(BodyError, match="the peer takes 10"):
            await link.call("echo", "1234567890")
        assert await link.call("echo", "123456789") == "123456789"


async def test_a_byte_stream_in_chunks_arrives_whole_and_proved(handlers):
    """Section "Byte streams", from the second side's own chunks; and those of ours that come back."""
    pieces, received = [b"a" * 65536, b"bc"], []

    async def source():
        for piece in pieces:
            yield piece

    @handlers.channel
    async def store(channel: Channel[bytes, bytes]) -> None:
        async with channel.receive_stream() as chunks:
            async for chunk in chunks:
                received.append(chunk)
        await channel.send_stream(source())

    def talk(link):
        channel, lane = link.begin(OPEN, "store")
        for index, piece in enumerate(pieces):
            link.say(channel, CHUNK, [bytes(16), index, len(piece), formats.sha(b"\0" + piece)], data=piece)
        link.say(channel, CHUNK, [bytes(16), 2, None, 65538, formats.root_of(pieces)])
        link.say(channel, END)
        for index, piece in enumerate(pieces):
            assert link.receive(lane)[1:] == [index, len(piece), formats.sha(b"\0" + piece)]
            assert lane.data.popleft() == piece
        assert link.receive(lane)[1:] == [2, None, 65538, formats.root_of(pieces)]
        with pytest.raises(Ended, match="end"):
            link.receive(lane)

    async with listening(make_agent(handlers)) as port:
        await dial(port, talk)
    assert received == pieces


async def test_a_subscription_starts_with_the_next_number_and_brings_publications():
    agent = make_agent()
    prices = agent.topic("prices", of=int)
    await prices.publish(100)

    def talk(link):
        channel, lane, start = link.subscribe("prices")
        trio.from_thread.run(prices.publish, 101)
        trio.from_thread.run(prices.publish, 102)
        got = [link.receive(lane, proof=True)[0] for _ in range(2)]
        link.cancel(channel)
        link.finish(lane)
        return start, [(message.kind, message.seq, message.value) for message in got]

    async with listening(agent) as port:
        assert await dial(port, talk) == (1, [(PUBLISH, 1, 101), (PUBLISH, 2, 102)])


async def test_publications_of_the_second_side_are_received_and_gaps_are_counted():
    def serve(link):
        channel = link.wait("opened")
        recipient = f"topic:{ME.id.hex()}/prices"
        link.say(channel, ITEM, 7)
        for seq in (7, 9):
            link.say(channel, PUBLISH, seq, seq=seq, recipient=recipient)
        with pytest.raises(Ended, match="cancel"):
            while True:
                link.receive(link.lanes[channel])

    async with dialled(make_agent(), serve) as link, link.subscribe("prices", receives=int) as feed:
        assert [await feed.receive(), await feed.receive(), feed.lost] == [7, 9, 1]


async def test_a_cancel_reaches_the_handler_and_is_answered(handlers):
    """The handler ends, and only then its channel is over."""
    ended = trio.Event()

    @handlers.channel
    async def endless(channel: Channel[str, int]) -> None:
        try:
            await channel.send("started")
            await channel.receive()
        finally:
            ended.set()

    def talk(link):
        channel, lane = link.begin(OPEN, "endless")
        assert link.receive(lane) == "started"
        link.cancel(channel)
        link.finish(lane)
        assert lane.theirs == "cancelled"

    async with listening(make_agent(handlers)) as port:
        await dial(port, talk)
    assert ended.is_set()


async def test_a_callers_cancellation_reaches_the_second_side():
    scope = anyio.CancelScope()

    def serve(link):
        lane = link.lanes[link.wait("opened")]
        link.receive(lane)
        trio.from_thread.run_sync(scope.cancel)
        with pytest.raises(Ended) as ended:
            link.receive(lane)
        assert ended.value.args == ("cancel", CANCELLED)

    async with dialled(make_agent(), serve) as link:
        with scope:
            await link.call("forever")
        assert scope.cancelled_caught


async def test_pings_are_answered_in_order_by_both_sides(handlers):
    async with listening(make_agent(handlers)) as port:
        await dial(port, lambda link: [link.ping(struct.pack(">Q", number)) for number in range(3)])
    async with dialled(make_agent(), serve_echo) as link:
        assert await link.ping() >= 0


async def test_goaway_lets_what_is_open_end_and_serves_nothing_above_last(handlers):
    """The agent drains: channel 1 gets its reply, channel 3 is `unavailable`, then the connection ends in order."""
    release = trio.Event()

    @handlers.method
    async def wait(call: Call, value: object) -> object:
        nursery.start_soon(call.link.drain)
        await release.wait()
        return "done"

    def talk(link):
        _, waiting = link.begin(CALL, "wait")
        assert link.wait("goaway")["last"] == 1
        with pytest.raises(Ended) as ended:
            link.call("echo", 1)
        assert ended.value.args == ("cancel", UNAVAILABLE)
        trio.from_thread.run_sync(release.set)
        assert link.receive(waiting) == "done"
        with pytest.raises(Closed):
            link.pump()

    async with trio.open_nursery() as nursery, listening(make_agent(handlers)) as port:
        await dial(port, talk)


async def test_after_the_second_sides_goaway_the_agent_opens_nothing_more():
    def serve(link):
        channel = link.wait("opened")
        link.goaway(channel, "tired")
        link.say(channel, REPLY, "last one")
        with pytest.raises(Closed):
            link.pump()

    async with dialled(make_agent(), serve) as link:
        assert await link.call("anything") == "last one"
        with pytest.raises(Exception, match="draining"):
            await link.call("more")


async def test_unknown_frame_types_and_fields_are_ignored(handlers):
    """Every extension type, a future field in HELLO, GOAWAY and EVIDENCE, a future element in an ERROR."""

    def talk(link):
        for kind in range(128, 256):
            link.send(kind, bytes(kind))
        link.send(second.EVIDENCE, formats.encode({"chain": ME.der, "future": 1}))
        _, lane = link.begin(CALL, "echo", 5)
        link.send(second.GOAWAY, formats.encode({"last": 0, "reason": "", "future": [None]}))
        return link.receive(lane)

    async with listening(make_agent(handlers)) as port:
        assert await dial(port, talk, hello={"future": {"x": 1}, "limits": LIMITS | {"future": 1}}) == 5

    def serve(link):
        link.say(link.wait("opened"), ERROR, ["a_future_code", "text", None, "more"])
        with pytest.raises(Closed):
            link.pump()

    async with dialled(make_agent(), serve) as link:
        with pytest.raises(CallError, match="unknown"):
            await link.call("x")
