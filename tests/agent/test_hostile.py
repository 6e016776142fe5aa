"""A peer with a real credential that lies about everything else: the link ends, the reason is named, nobody else suffers."""

import anyio
import pytest

from autolink import Reason, RemoteProtocolError, limits
from autolink.messages import LISTENER, ChunkWriter, Kind
from autolink.protocol.frames import DATA, ENDS, OPENS, Frame, encode_batch_frame, encode_frame
from autolink.testing import link_pair


@pytest.fixture
def serving(agents):
    seller, buyer = agents
    seller.ran = []

    @seller.method
    async def echo(call, body) -> object:
        seller.ran.append(body)
        return body

    @seller.channel
    async def swallow(channel) -> None:
        async for item in channel:
            seller.ran.append(item)

    return seller, buyer


def call(peer, channel=1, **fields):
    return channel, OPENS | ENDS, peer.leaf(channel=channel, **fields)


def item(peer, kind=Kind.ITEM, seq=1, **fields):
    return (
        1,
        ENDS if kind in (Kind.END, Kind.REPLY, Kind.ERROR) else 0,
        peer.leaf(kind, seq=seq, method="", **fields),
    )


def chunk_body(writer, data):
    writer.take(data)
    return writer.chunk()[0]


OPEN = {"kind": Kind.OPEN, "method": "swallow"}
BODY, LAST = chunk_body(ChunkWriter(bytes(16)), b"data"), ChunkWriter(bytes(16)).last()


def chunk(data=None, body=BODY, **fields):
    """What a peer sends on the channel that it has just opened: a chunk, with data beside it if that is given."""

    def lie(peer, other):
        leaf = peer.leaf(fields.get("kind", Kind.CHUNK), seq=1, method="", raw=body)
        return [
            (1, OPENS, peer.leaf(**OPEN)),
            (1, fields.get("flags", 0 if data is None else DATA), leaf, data or b""),
        ]

    return lie


LIES = {
    "rule_29_not_from_the_peer": (lambda p, o: [call(p, author=o.auto_id)], Reason.WRONG_PEER),
    "rule_29_not_to_us": (lambda p, o: [call(p, recipient=o.auto_id)], Reason.WRONG_RECIPIENT),
    "rule_29_to_a_topic": (
        lambda p, o: [call(p, recipient=f"topic:{p.credential.auto_id.hex}/x")],
        Reason.WRONG_RECIPIENT,
    ),
    "late": (lambda p, o: [call(p, age=700)], Reason.LATE),
    "from_the_future": (lambda p, o: [call(p, age=-100)], Reason.CLOCK_SKEW),
    "rule_33_the_first_message_of_a_channel_is_not_number_0": (
        lambda p, o: [call(p, seq=1)],
        Reason.MALFORMED,
    ),
    "rule_33_a_gap": (lambda p, o: [(1, OPENS, p.leaf(**OPEN)), item(p), item(p, seq=3)], Reason.MALFORMED),
    "rule_33_a_step_back": (lambda p, o: [(1, OPENS, p.leaf(**OPEN)), item(p), item(p)], Reason.MALFORMED),
    "flags_that_are_not_the_kinds": (lambda p, o: [(1, OPENS, p.leaf())], Reason.MALFORMED),
    "a_signed_channel_that_is_not_the_frames": (
        lambda p, o: [(1, OPENS | ENDS, p.leaf(channel=3))],
        Reason.MALFORMED,
    ),
    "a_reply_to_nothing": (lambda p, o: [(1, OPENS, p.leaf(**OPEN)), item(p, Kind.REPLY)], Reason.MALFORMED),
    "a_publication_that_nobody_subscribed_to": (
        lambda p, o: [(1, OPENS, p.leaf(**OPEN)), item(p, Kind.PUBLISH)],
        Reason.MALFORMED,
    ),
    "an_error_from_whoever_opened": (
        lambda p, o: [(1, OPENS, p.leaf(**OPEN)), item(p, Kind.ERROR)],
        Reason.MALFORMED,
    ),
    "data_beside_an_item": (chunk(b"data", kind=Kind.ITEM), Reason.MALFORMED),
    "data_beside_a_message_that_ends": (chunk(b"data", kind=Kind.END, flags=DATA | ENDS), Reason.MALFORMED),
    "data_beside_the_end_of_a_stream": (chunk(b"data", LAST), Reason.MALFORMED),
    "data_beside_a_chunk_that_is_none": (chunk(b"data", b"\xc0"), Reason.MALFORMED),
    "a_chunk_that_is_none": (chunk(None, b"\xc0"), Reason.MALFORMED),
    "a_chunk_without_its_data": (chunk(), Reason.MALFORMED),
    "no_data_where_data_is_said": (chunk(b"", flags=DATA), Reason.MALFORMED),
    "more_data_than_a_chunk": (chunk(bytes(limits.CHUNK + 1)), Reason.MALFORMED),
    "other_data_than_is_signed": (chunk(b"Data"), Reason.TAMPERED),
    "less_data_than_is_signed": (chunk(b"dat"), Reason.TAMPERED),
    "more_data_than_is_signed": (chunk(b"data!"), Reason.TAMPERED),
    "data_on_a_channel_that_was_never_opened": (lambda p, o: chunk(b"data")(p, o)[1:], Reason.MALFORMED),
    "bytes_that_are_no_message": (lambda p, o: [(1, OPENS | ENDS, b"junk")], Reason.MALFORMED),
    "one_good_one_and_one_bad": (lambda p, o: [call(p), call(p, 3, seq=7)], Reason.MALFORMED),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_in_a_signed_batch_ends_the_link(serving, hostile, globex, lie):
    """Named here by its reason, on the wire by the closed one; a message after it is not looked at."""
    seller, _ = serving
    items, reason = LIES[lie]
    async with hostile(seller) as peer:
        await peer.open()
        await peer.say(*items(peer, globex.credential))
        assert await peer.refused() in (reason.value, "untrusted")
        await peer.stream.send(peer.batch(call(peer, 99, body="later")))
        assert isinstance(await peer.end(), RemoteProtocolError)
    assert seller.statistics().refused == {reason: 1}
    assert "later" not in seller.ran
    assert seller.statistics().handlers == seller.statistics().links == 0


async def test_rule_27_a_signature_counts_for_its_link_direction_number_and_leaves(serving, hostile, globex):
    """Another link's, the other role's, another number's, another key's, junk: none is good here."""
    seller, _ = serving
    other = globex.issue("other")
    async with hostile(seller) as elsewhere:
        await elsewhere.open()
        stolen = elsewhere.batch(call(elsewhere))
        async with hostile(seller, credential=elsewhere.credential) as peer:
            await peer.open()
            await peer.stream.send(stolen)
            assert await peer.refused() == "untrusted"
            assert isinstance(await peer.end(), RemoteProtocolError)
    for how in ({"role": LISTENER}, {"signature": b"x" * 70}, {"signer": other}, {"swapped": True}):
        async with hostile(seller) as peer:
            await peer.open()
            if how.pop("swapped", False):
                one, two = peer.leaf(body=1), peer.leaf(body=2)
                frame = peer.batch((1, OPENS | ENDS, one)).replace(one, two)
                await peer.stream.send(frame)
            else:
                signer, honest = how.pop("signer", None), peer.credential
                leaf = call(peer)
                peer.credential = signer or honest
                await peer.say(leaf, **how)
            assert await peer.refused() == "untrusted"
    assert seller.ran == []
    assert seller.statistics().refused == {Reason.TAMPERED: 5}


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
async def test_rule_27_batch_numbers_go_up_by_one(serving, hostile, number):
    """A replay of the first batch, a gap, a jump."""
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        await peer.call()
        await peer.wait_for(Frame.BATCH)
        await peer.say(call(peer, 3), number=number)
        assert await peer.refused() == "malformed"
    assert seller.ran == [None]


async def test_data_on_a_channel_that_we_left_is_judged_and_dropped(serving, hostile):
    """Right data is let go without a word, other than what was signed ends the link as it does anywhere."""
    seller, _ = serving

    @seller.channel
    async def leave(channel) -> None:
        await channel.aclose()
        await anyio.sleep_forever()

    for data, refused in ((b"data", None), (b"Data", "untrusted")):
        async with hostile(seller) as peer:
            await peer.open()
            await peer.say((1, OPENS, peer.leaf(**OPEN | {"method": "leave"})))
            await peer.wait_for(Frame.CANCEL)
            await peer.say((1, DATA, peer.leaf(Kind.CHUNK, seq=1, method="", raw=BODY), data))
            if refused:
                assert await peer.refused() == refused
                continue
            await peer.call(3, body="fine")
            await peer.wait_for(Frame.BATCH)
    assert seller.ran == ["fine"]


async def test_data_counts_in_the_credit_of_its_channel(serving, hostile):
    """Leaves of a few bytes with a whole chunk beside each, to a handler that reads none of them."""
    seller, _ = serving

    @seller.channel
    async def deaf(channel) -> None:
        await anyio.sleep_forever()

    async with hostile(seller) as peer:
        await peer.open()
        await peer.say((1, OPENS, peer.leaf(**OPEN | {"method": "deaf"})))
        writer, data = ChunkWriter(bytes(16)), bytes(limits.CHUNK)
        for seq in range(1, limits.CREDIT // limits.CHUNK + 2):
            await peer.say(
                (1, DATA, peer.leaf(Kind.CHUNK, seq=seq, method="", raw=chunk_body(writer, data)), data)
            )
        assert await peer.refused() == "malformed"
        assert "outstanding" in str(await peer.end())


async def test_rule_30_message_ids_are_random_and_never_repeat(agents):
    seller, buyer = agents
    ids = []

    @seller.method
    async def look(call, body) -> None:
        ids.append(call.message.id)

    async with link_pair(buyer, seller) as (link, _):
        for _ in range(50):
            await link.call("look")
    assert len(set(ids)) == 50
    assert {len(one) for one in ids} == {16}
    assert len({one[:2] for one in ids}) > 40


async def test_a_peers_lie_costs_only_its_own_link(serving, hostile):
    seller, buyer = serving
    async with link_pair(buyer, seller) as (link, _):
        async with hostile(seller) as peer:
            await peer.open()
            await peer.stream.send(b"\xff" * 100_000)
            await peer.stream.send(b"\x63\x00\x00\x00\x00")
            await peer.end()
        assert await link.call("echo", 1) == 1


async def test_greased_frames_are_ignored_and_unknown_ones_are_not(serving, hostile):
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        for number in (128, 200, 255):
            await peer.stream.send(bytes([number]) + (5).to_bytes(4) + b"hello")
        await peer.call(body="fine")
        await peer.wait_for(Frame.BATCH)
        await peer.stream.send(b"\x0b\x00\x00\x00\x00")
        assert await peer.refused() == "malformed"
    assert seller.ran == ["fine"]


async def test_cancelling_what_never_was_or_twice_ends_the_link(serving, hostile):
    """Twice in one write, so that the handler cannot have ended in between."""
    seller, _ = serving
    for channels in ((7,), (1, 1)):
        async with hostile(seller) as peer:
            await peer.open()
            await peer.say((1, OPENS, peer.leaf(**OPEN)))
            await peer.cancel(*channels)
            assert await peer.refused() == "malformed"


async def test_cancelling_what_is_over_is_no_fault(serving, hostile):
    """The end of its handler crossed the cancel on the wire."""
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        await peer.say((1, OPENS, peer.leaf(**OPEN)))
        await peer.cancel(1)
        await peer.wait_for(Frame.CANCEL)
        await peer.cancel(1)
        await peer.call(3, body="fine")
        await peer.wait_for(Frame.BATCH)
    assert seller.ran == ["fine"]


async def test_a_batch_cut_short_by_the_end_of_the_stream_is_no_clean_end(serving, hostile):
    seller, _ = serving
    async with hostile(seller) as peer:
        await peer.open()
        await peer.stream.send(peer.batch(call(peer))[:-10])
        await anyio.wait_all_tasks_blocked()
        await peer.stream.aclose()
        await peer.over.wait()
        assert isinstance(peer.ended[0], RemoteProtocolError)


async def test_a_reply_that_is_no_error_and_no_answer_ends_the_dialers_link(agents):
    """The listener lies: an ERROR whose body is none."""
    seller, buyer = agents

    @seller.method
    async def odd(call, body) -> None:
        (lane,) = call.link._lanes.values()
        await lane.send(Kind.ERROR, b"\x01")
        await anyio.sleep_forever()

    async with link_pair(buyer, seller) as (link, _):
        with pytest.raises(anyio.BrokenResourceError):
            await link.call("odd")
        assert isinstance(link.lost, RemoteProtocolError)


def test_the_frames_of_this_peer_are_what_the_protocol_writes():
    """The instrument itself: the two encoders the helper uses agree on what a frame is."""
    (frame,) = encode_batch_frame(0, b"s", [(1, 3, b"leaf", b"")])
    assert frame == encode_frame(Frame.BATCH, frame[5:])
    assert frame[:5] == b"\x04" + (len(frame) - 5).to_bytes(4)
