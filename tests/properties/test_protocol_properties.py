"""The link protocol under any bytes, any splitting of them, and any sequence of operations."""

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from autolink.errors import Code, LocalProtocolError, Reason, RemoteProtocolError
from autolink.protocol import (
    BatchReceived,
    ChannelCancelled,
    ChannelRefused,
    CreditReceived,
    LinkProtocol,
    LinkState,
)
from autolink.protocol.frames import (
    DATA,
    Frame,
    encode_batch_frame,
    encode_cancel,
    encode_credit,
    encode_frame,
)
from autolink.protocol.table import DirectionState

always_the_same = settings(deadline=None, derandomize=True, database=None, max_examples=300)
HELLO = {"clock": 1, "software": "test/1"}
WINDOW = 100
CHANNELS = 3


def drain(link):
    found = []
    while (event := link.next_event()) is not None:
        found.append(event)
    return found


def opened(**options):
    pair = LinkProtocol(True, **options), LinkProtocol(False, **options)
    for say in (lambda link: link.hello(HELLO), lambda link: link.accept()):
        for link, other in (pair, pair[::-1]):
            other.receive_data(say(link))
        for link in pair:
            drain(link)
    return pair


def conversation():
    """Everything that a dialer says on a link that it opens, uses and leaves."""
    dialer, listener = LinkProtocol(True), LinkProtocol(False)
    wire = dialer.hello(HELLO)
    hello = listener.hello(HELLO)
    dialer.receive_data(hello)
    listener.receive_data(wire)
    drain(dialer), drain(listener)
    wire += dialer.accept()
    first, second = dialer.open_channel(), dialer.open_channel()
    wire += b"".join(dialer.batch(0, b"signature", [
        (first, 1, b"call", b""), (second, 3, b"x" * 300, b""), (first, DATA, b"more", b"data")
    ]))  # fmt: skip
    wire += dialer.ping(b"12345678") + dialer.evidence({"evidence": [b"status"]})
    wire += encode_frame(200, b"from a newer peer" * 10) + dialer.cancel(first, Code.ABORTED)
    return wire + dialer.go_away(0, "done") + dialer.refuse(Reason.BUSY)


WIRE = conversation()


def heard(pieces):
    """What a listener that accepts makes of the pieces."""
    link = LinkProtocol(False)
    link.hello(HELLO)
    events = []
    for piece in pieces:
        link.receive_data(piece)
        events += drain(link)
        if link.version and link.state[0] is LinkState.GREETED:
            link.accept()
            events += drain(link)
    return events, link.state, link.statistics()


@given(st.lists(st.integers(0, len(WIRE)), max_size=40).map(sorted))
@example(list(range(len(WIRE))))
@always_the_same
def test_however_the_bytes_are_split_nothing_changes(cuts):
    pieces = [WIRE[start:end] for start, end in zip([0, *cuts], [*cuts, len(WIRE)], strict=True)]
    assert heard(pieces) == heard([WIRE])


def small_frames():
    """Frames of the right shape with arbitrary contents, so that the tables are reached and not only the parser."""
    channel = st.integers(0, 8)
    item = st.tuples(channel, st.integers(0, 5), st.binary(min_size=1, max_size=60), st.binary(max_size=60))
    return st.one_of(
        st.builds(encode_credit, channel, st.integers(0, 200)).map(
            lambda payload: encode_frame(Frame.CREDIT, payload)
        ),
        st.builds(encode_cancel, channel, st.integers(0, 20)).map(
            lambda payload: encode_frame(Frame.CANCEL, payload)
        ),
        st.builds(
            encode_batch_frame, st.integers(0, 3), st.just(b"s"), st.lists(item, min_size=1, max_size=4)
        ).map(b"".join),
        st.builds(encode_frame, st.sampled_from([*range(12), 128, 255]), st.binary(max_size=40)),
        st.binary(max_size=40),
    )


pieces_of_anything = st.lists(st.one_of(small_frames(), st.binary(max_size=200)), max_size=8)


@given(pieces_of_anything, st.sampled_from(["fresh", "open", "refused"]))
@always_the_same
def test_any_bytes_raise_remote_protocol_error_and_nothing_else(pieces, state):
    """And once they have, it stays so; after our refusal they raise nothing at all."""
    link = LinkProtocol(False) if state == "fresh" else opened(credit=WINDOW, channels=CHANNELS)[1]
    if state == "refused":
        link.refuse(Reason.BUSY)
    failed = False
    for piece in pieces:
        link.receive_data(piece)
        try:
            drain(link)
            assert not failed
        except RemoteProtocolError:
            failed = True
            assert state != "refused"
        assert link.statistics().bytes_held <= 65_536 + 300
        assert link.statistics().channels_accepted <= CHANNELS
        repr(link)


@given(st.integers(0, len(WIRE) - 1), st.integers(1, 255))
@always_the_same
def test_one_changed_byte_is_another_conversation_or_an_error_and_nothing_else(position, change):
    """A bit flip anywhere: other values, or RemoteProtocolError."""
    wire = WIRE[:position] + bytes([WIRE[position] ^ change]) + WIRE[position + 1 :]
    try:
        events, _, _ = heard([wire])
    except RemoteProtocolError:
        return
    assert len(events) <= 9


class World:
    """Two links, the bytes under way between them, and what a lawful application on top of each would remember."""

    def __init__(self):
        self.links = opened(credit=WINDOW, channels=CHANNELS)
        self.wire = [b"", b""]  # from the dialer, from the listener
        self.batches = [0, 0]
        self.unread = [{}, {}]  # bytes that arrived and were not reported as consumed, by channel
        self.outstanding = [{}, {}]  # our own count: sent and not given back, by channel
        self.sent = [0, 0]
        self.received = [0, 0]

    def send(self, party, channel, flags, size):
        data = size // 2 if flags & DATA else 0
        said = self.links[party].batch(
            self.batches[party], b"s", [(channel, flags, bytes(size - data), bytes(data))]
        )
        self.wire[party] += b"".join(said)
        self.batches[party] += 1
        self.sent[party] += size
        self.outstanding[party][channel] = self.outstanding[party].get(channel, 0) + size

    def deliver(self, party, count):
        """The first `count` bytes under way from a party arrive."""
        data, self.wire[party] = self.wire[party][:count], self.wire[party][count:]
        other = 1 - party
        self.links[other].receive_data(data)
        for event in drain(self.links[other]):
            if isinstance(event, BatchReceived):
                for channel, _, leaf, data in event.items:
                    size = len(leaf) + len(data)
                    self.received[other] += size
                    if channel not in event.dropped:
                        self.unread[other][channel] = self.unread[other].get(channel, 0) + size
            elif isinstance(event, CreditReceived):
                self.outstanding[other][event.channel] -= event.count
            elif isinstance(event, ChannelRefused):
                self.wire[other] += self.links[other].cancel(event.channel, event.code)
            elif isinstance(event, ChannelCancelled) and not event.over:
                self.wire[other] += self.links[other].release(event.channel)

    def settle(self):
        """Everything under way arrives, and what it provokes too."""
        while any(self.wire):
            for party in (0, 1):
                self.deliver(party, len(self.wire[party]))


party = st.integers(0, 1)
channel = st.integers(1, 4)  # few, so that one sequence does much on each
operations = st.one_of(
    st.tuples(st.just("open"), party, st.sampled_from([1, 3]), st.integers(1, 3 * WINDOW)),
    st.tuples(st.just("send"), party, channel, st.sampled_from([0, 0, DATA, 2]), st.integers(2, 2 * WINDOW)),
    st.tuples(st.just("read"), party, channel),
    st.tuples(st.just("cancel"), party, channel),
    st.tuples(st.just("release"), party, channel),
    st.tuples(st.just("go_away"), party),
    st.tuples(st.just("deliver"), party, st.integers(0, 400)),
    st.tuples(st.just("deliver"), party, st.just(1_000_000)),
)  # fmt: skip


def perform(world, operation):
    name, party, *rest = operation
    link = world.links[party]
    if name == "deliver":
        world.deliver(party, rest[0])
    elif name == "open":
        if link.places:
            world.send(party, link.open_channel(), *rest)
    elif name == "send":
        channel, flags, size = rest
        if link.can_send(channel, size):
            world.send(party, channel, flags, size)
    elif name == "read":
        world.wire[party] += link.consumed(rest[0], world.unread[party].pop(rest[0], 0))
    elif name == "cancel":
        try:
            world.wire[party] += link.cancel(rest[0], Code.CANCELLED)
        except LocalProtocolError:
            return  # cancelled before, or never opened: the object said so and changed nothing
    elif name == "release":
        world.wire[party] += link.release(rest[0])
    elif link.state[0] is LinkState.OPEN:
        highest = link._channels.highest(1)
        world.wire[party] += link.go_away(highest, "test")


def check(world):
    """At every moment, at both ends: credit as we counted it and in bounds, no more channels than agreed."""
    for party, link in enumerate(world.links):
        table = link._channels.table()
        for number, ((ours, outstanding), (theirs, held)) in table.items():
            assert {ours, theirs} - {DirectionState.ENDED, DirectionState.CANCELLED}, "over and not forgotten"
            assert outstanding == world.outstanding[party].get(number, 0)
            assert 0 <= held <= world.outstanding[1 - party].get(number, 0) <= WINDOW // 2 + 3 * WINDOW
        assert all(0 <= count <= CHANNELS for count in link._channels.open)
        assert sum(link._channels.open) == len(table)


def finish(world):
    """Once everything has arrived both tables say the same and no byte was lost; once everything was released
    nothing is left."""
    world.settle()
    check(world)
    dialer, listener = (link._channels.table() for link in world.links)
    assert dialer == {number: ways[::-1] for number, ways in listener.items()}
    assert world.received == world.sent[::-1]
    for link, other in (world.links, world.links[::-1]):
        assert link.statistics().bytes_sent == other.statistics().bytes_received
    for party in (0, 1):
        for number in set(dialer) | world.links[party]._served:
            world.wire[party] += world.links[party].release(number)
    world.settle()
    for link in world.links:
        assert link._channels.table() == {}
        assert link._channels.open == [0, 0]


@given(st.lists(operations, min_size=10, max_size=80))
@always_the_same
def test_any_lawful_sequence_keeps_both_ends_in_agreement(sequence):
    """No error at either end, however operations and deliveries interleave."""
    world = World()
    for operation in sequence:
        perform(world, operation)
        check(world)
    finish(world)


@pytest.mark.parametrize("seed", range(10))
def test_a_long_life_keeps_both_ends_in_agreement(seed):
    """Two thousand operations on the channels that are there: deeper than Hypothesis goes, though it cannot shrink."""
    random = Random(seed)  # noqa: S311  nothing secret
    world = World()
    for _ in range(2000):
        party = random.randrange(2)
        link = world.links[party]
        channel = random.choice([*link._channels.table(), *link._served, random.randrange(1, 9)])
        operation = random.choice(
            [
                ("open", party, random.choice([1, 1, 3]), random.randrange(1, 3 * WINDOW)),
                *[("send", party, channel, random.choice([0, 0, DATA, 2]), random.randrange(2, 2 * WINDOW))]
                * 3,
                *[("read", party, channel)] * 3,
                (random.choice(["cancel", "release"]), party, channel),
                *[("deliver", party, random.choice([random.randrange(400), 1_000_000]))] * 4,
            ]
        )
        perform(world, operation)
        check(world)
    assert all(link.statistics().items_sent > 50 for link in world.links)
    finish(world)


@given(st.lists(operations, min_size=10, max_size=60), st.integers(1, 4), st.integers(1, 3 * WINDOW))
@always_the_same
def test_a_receiver_that_reads_everything_never_leaves_a_sender_waiting(sequence, channel, size):
    """After any history, for every channel whose direction is open."""
    world = World()
    for operation in sequence:
        perform(world, operation)
    world.settle()
    for party in (0, 1):
        for number, unread in list(world.unread[party].items()):
            world.wire[party] += world.links[party].consumed(number, unread)
    world.settle()
    for link in world.links:
        for number, (ours, _) in link._channels.table().items():
            if ours[0] is DirectionState.OPEN and number == channel:
                other = world.links[1 - world.links.index(link)]._channels.table()[number]
                assert link.can_send(number, size) or other[0][0] is DirectionState.CANCELLED


@pytest.mark.parametrize("cut", range(0, len(WIRE), 7))
def test_every_prefix_of_a_conversation_is_a_beginning_of_it(cut):
    """Events never depend on bytes that have not come."""
    assert heard([WIRE])[0][: len(heard([WIRE[:cut]])[0])] == heard([WIRE[:cut]])[0]
