"""Numbers, credit, cancel: what the tables alone do not say."""

import pytest

from autolink import limits
from autolink.errors import Code, LocalProtocolError, RemoteProtocolError
from autolink.protocol import (
    DATA,
    ENDS,
    OPENS,
    BatchReceived,
    ChannelCancelled,
    ChannelRefused,
    CreditReceived,
)
from tests.protocol.conftest import whole

W = 1000
"""Window of the pairs below, in bytes."""


@pytest.fixture
def small(make_pair):
    """Open, with a window of W bytes and at most three channels from each side."""
    return make_pair(credit=W, channels=3).open()


@pytest.fixture
def lane(small):
    """A channel of the dialer in the small pair, nothing outstanding on it."""
    number = small.dialer.open_channel()
    small.say(small.dialer, (number, 1, b"x"))
    small.carry(small.listener, small.listener.credit(number, 1))
    return number


def outstanding(pair, number):
    """The dialer's direction as both ends count it."""
    return pair.dialer._channels.table()[number][0][1], pair.listener._channels.table()[number][1][1]


# --- numbers -----------------------------------------------------------------------------------------------


def test_the_dialer_counts_odd_and_the_listener_even(linked):
    assert [linked.dialer.open_channel() for _ in range(3)] == [1, 3, 5]
    assert [linked.listener.open_channel() for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("number", [0, 2, 2**31, 2**32 - 1])
def test_a_number_that_is_not_the_openers_is_refused(linked, number):
    with pytest.raises(RemoteProtocolError, match="may open"):
        linked.raw(linked.dialer, (number, 1, b"x"))


@pytest.mark.parametrize("again", [1, 3, 5])
def test_a_number_is_used_once_and_upwards_only(linked, again):
    """A number that was skipped is as good as used: only the highest is remembered."""
    linked.raw(linked.dialer, (5, 1, b"x"))
    with pytest.raises(RemoteProtocolError, match="out of order"):
        linked.raw(linked.dialer, (again, 1, b"x"))


def test_numbers_go_upwards_within_one_batch_too(linked):
    with pytest.raises(RemoteProtocolError, match="out of order"):
        linked.raw(linked.dialer, (3, 1, b"x"), (1, 1, b"x"))


@pytest.mark.parametrize("frame", ["item", "credit", "cancel"])
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_everything_on_a_channel_that_was_never_opened_is_an_error(linked, frame, number):
    """Of either side's numbers."""
    send = {
        "item": lambda: linked.raw(linked.dialer, (number, 0, b"x")),
        "credit": lambda: linked.raw_credit(linked.dialer, number, 1),
        "cancel": lambda: linked.raw_cancel(linked.dialer, number),
    }
    with pytest.raises(RemoteProtocolError, match="was never opened"):
        send[frame]()


def test_a_number_we_allotted_and_have_not_used_is_no_channel_yet_for_the_peer(linked):
    """Nor one that was skipped while it waits."""
    waiting, used = linked.dialer.open_channel(), linked.dialer.open_channel()
    linked.say(linked.dialer, (used, 1, b"x"))
    with pytest.raises(RemoteProtocolError, match="unopened"):
        linked.raw_credit(linked.listener, waiting, 1)


def test_of_channels_that_are_over_nothing_is_kept(linked):
    """Ten thousand calls, then: late credit and cancel are ignored, an item is not."""
    for _ in range(10_000):
        number = linked.dialer.open_channel()
        linked.say(linked.dialer, (number, 3, b"call"))
        linked.say(linked.listener, (number, 2, b"reply"))
        assert linked.listener.release(number) == linked.dialer.release(number) == b""
    for party in (linked.dialer, linked.listener):
        assert party._channels.table() == {}
        assert party._served == set()
    assert linked.raw_credit(linked.dialer, 777, 5) == [CreditReceived(777, 5)]
    assert linked.raw_cancel(linked.dialer, 777) == []
    with pytest.raises(RemoteProtocolError, match="after both directions ended"):
        linked.raw(linked.dialer, (777, 0, b"x"))


def test_only_what_open_channel_gave_can_be_opened(linked):
    with pytest.raises(LocalProtocolError, match="not allotted"):
        linked.batch(linked.dialer, (1, 1, b"x"))


def test_a_channel_that_was_never_used_is_withdrawn_without_a_word(small):
    """It gives its place back."""
    numbers = [small.dialer.open_channel() for _ in range(3)]
    assert not small.dialer.places
    assert small.dialer.cancel(numbers[0], Code.CANCELLED) == small.dialer.release(numbers[1]) == b""
    assert small.dialer.statistics().channels_opened == 1


# --- how many ----------------------------------------------------------------------------------------------


def test_no_more_channels_than_the_peer_announced(small):
    """Ours is a LocalProtocolError, the peer's the end of the link."""
    for _ in range(3):
        small.channel(small.dialer)
    with pytest.raises(LocalProtocolError, match="allows no more"):
        small.dialer.open_channel()
    with pytest.raises(RemoteProtocolError, match="3 are open already"):
        small.raw(small.dialer, (7, 1, b"x"))


def test_channels_of_one_batch_count_together(small):
    with pytest.raises(RemoteProtocolError, match="3 are open already"):
        small.raw(small.dialer, (1, 3, b"x"), (3, 1, b"x"), (5, 1, b"x"), (7, 1, b"x"))


def test_a_peer_that_takes_more_channels_does_not_raise_what_we_open(make_pair):
    pair = make_pair(channels=2**31 - 1).open()
    opened = 0
    while pair.dialer.places:
        pair.dialer.open_channel()
        opened += 1
    assert opened == limits.CHANNELS


def test_rule_46_opening_and_cancelling_in_a_loop_goes_no_faster_than_the_handlers_end(small):
    """CVE-2023-44487. The opener's cancel gives it no place back; the end of the handler does."""
    for number in (1, 3, 5):
        small.raw(small.dialer, (number, 3, b"call"))
        assert small.raw_cancel(small.dialer, number) == [
            ChannelCancelled(number, Code.CANCELLED, over=False)
        ]
    with pytest.raises(RemoteProtocolError, match="3 are open already"):
        small.raw(small.dialer, (7, 1, b"x"))


def test_the_end_of_the_handler_answers_the_cancel_and_frees_the_place(small):
    numbers = [small.channel(small.dialer) for _ in range(3)]
    for number in numbers:
        small.carry(small.dialer, small.dialer.cancel(number, Code.CANCELLED))
    assert not small.dialer.places
    answer = small.listener.release(numbers[0])
    assert small.carry(small.listener, answer) == [ChannelCancelled(numbers[0], Code.CANCELLED, over=True)]
    assert small.dialer.places
    small.channel(small.dialer)


def test_a_channel_that_is_over_counts_until_its_handler_has_finished(small):
    """A handler may end its direction early and run on: the peer did nothing wrong, its next channel is refused."""
    for _ in range(3):
        number = small.channel(small.dialer)
        small.say(small.dialer, (number, 2, b"last"))
        small.say(small.listener, (number, 2, b"last"))
    assert small.listener.statistics().channels_accepted == 0
    number = small.dialer.open_channel()
    batch, refused = small.say(small.dialer, (number, 1, b"x"))
    assert batch.dropped == {number}
    assert refused == ChannelRefused(number, Code.RESOURCE_EXHAUSTED)
    cancelled = small.carry(small.listener, small.listener.cancel(number, refused.code))
    assert cancelled == [ChannelCancelled(number, Code.RESOURCE_EXHAUSTED, over=False)]
    small.carry(small.dialer, small.dialer.release(number))
    small.listener.release(1)
    assert len(small.say(small.dialer, (small.dialer.open_channel(), 1, b"x"))) == 1


# --- credit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "size", "allowed"),
    [
        (0, W, True), (0, W + 1, True), (0, 50 * W, True),  # nothing outstanding: a window may be overdrawn
        (W // 2, W // 2, True), (W // 2, W, True), (W // 2, 50 * W, True),  # half of it free: the same
        (W // 2 + 1, W // 2 - 1, True), (W // 2 + 1, W // 2, False), (W // 2 + 1, W, False),
        (W - 1, 1, True), (W, 1, False), (50 * W, 1, False),
    ],
)  # fmt: skip
def test_both_ends_allow_an_item_by_the_same_inequality(small, lane, before, size, allowed):
    """outstanding + size <= window, or half of the window is free."""
    if before:
        small.say(small.dialer, (lane, 0, bytes(before)))
    assert small.dialer.can_send(lane, size) is allowed
    assert outstanding(small, lane) == (before, before)
    if allowed:
        small.say(small.dialer, (lane, 0, bytes(size)))
        assert outstanding(small, lane) == (before + size, before + size)
        return
    with pytest.raises(LocalProtocolError, match=f"{size} bytes with {before} of {W} outstanding"):
        small.batch(small.dialer, (lane, 0, bytes(size)))
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes with {before} of {W} outstanding"):
        small.raw(small.dialer, (lane, 0, bytes(size)))


def test_of_channels_opened_together_those_are_served_for_which_there_is_a_place(small):
    """Two handlers run on: of two new channels in one batch the first has the last place."""
    for _ in range(2):
        number = small.channel(small.dialer)
        small.say(small.dialer, (number, 2, b"last"))
        small.say(small.listener, (number, 2, b"last"))
    served, other = small.dialer.open_channel(), small.dialer.open_channel()
    batch, *refused = small.say(small.dialer, (served, 1, b"x"), (other, 1, b"x"))
    assert batch.dropped == {other}
    assert refused == [ChannelRefused(other, Code.RESOURCE_EXHAUSTED)]


def test_what_waits_for_the_writer_counts_as_sent(small, lane):
    assert small.dialer.can_send(lane, W, waiting=0)
    assert small.dialer.can_send(lane, W, waiting=W // 2)
    assert not small.dialer.can_send(lane, W, waiting=W // 2 + 1)


def test_credit_is_given_back_by_thirds_of_the_window(small, lane):
    small.say(small.dialer, (lane, 0, bytes(400)), (lane, 0, bytes(200)))
    assert small.listener.consumed(lane, 300) == b""
    frame = small.listener.consumed(lane, 300)
    assert small.carry(small.listener, frame) == [CreditReceived(lane, 600)]
    assert outstanding(small, lane) == (0, 0)


@pytest.mark.parametrize("first", [1, 100, 499, 500, 501, 999, 1000])
@pytest.mark.parametrize("second", [1, 500, 501, 1000, 1001, 40_000])
def test_a_receiver_that_has_read_everything_never_leaves_a_sender_waiting(small, lane, first, second):
    """With "an overdraft needs the whole window", 100 bytes and then 1,000 would wait for ever."""
    small.say(small.dialer, (lane, 0, bytes(first)))
    small.carry(small.listener, small.listener.consumed(lane, first))
    assert small.dialer.can_send(lane, second)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_smallest_windows_pass_one_message_at_a_time(make_pair, window):
    pair = make_pair(credit=window).open()
    number = pair.dialer.open_channel()
    for flags in (1, 0, 0):
        assert pair.dialer.can_send(number, 70_000)
        pair.say(pair.dialer, (number, flags, bytes(70_000)))
        assert not pair.dialer.can_send(number, 1)
        pair.carry(pair.listener, pair.listener.consumed(number, 70_000))


def test_rule_46_a_credit_of_nothing_is_an_error(small, lane):
    small.say(small.dialer, (lane, 0, b"x"))
    with pytest.raises(LocalProtocolError, match="a credit of nothing"):
        small.listener.credit(lane, 0)
    with pytest.raises(RemoteProtocolError, match="a credit of nothing"):
        small.raw_credit(small.listener, lane, 0)


@pytest.mark.parametrize("count", [11, 2**31, 2**32 - 1])
def test_rule_46_more_credit_than_is_outstanding_is_an_error_so_none_can_overflow(small, lane, count):
    small.say(small.dialer, (lane, 0, bytes(10)))
    with pytest.raises(LocalProtocolError, match="where 10 are outstanding"):
        small.listener.credit(lane, count)
    with pytest.raises(RemoteProtocolError, match="where 10 are outstanding"):
        small.raw_credit(small.listener, lane, count)


def test_reporting_more_than_was_received_gives_back_no_more_than_that(small, lane):
    small.say(small.dialer, (lane, 0, bytes(600)))
    assert small.carry(small.listener, small.listener.consumed(lane, 10**9)) == [CreditReceived(lane, 600)]


def test_no_credit_is_given_for_a_direction_that_has_ended_or_was_cancelled(small, lane):
    """Nor for a channel that is over, or of a number that means nothing here."""
    other = small.channel(small.dialer)
    small.say(small.dialer, (lane, 2, bytes(600)), (other, 0, bytes(600)))
    small.listener.cancel(other, Code.CANCELLED)
    assert [small.listener.consumed(number, 600) for number in (lane, other, 99)] == [b"", b"", b""]


def test_credit_that_crosses_with_the_end_of_its_direction_is_taken(small, lane):
    small.say(small.dialer, (lane, 0, bytes(600)))
    credit = small.listener.consumed(lane, 600)
    small.say(small.dialer, (lane, 2, b"last"))
    assert small.carry(small.listener, credit) == [CreditReceived(lane, 600)]


# --- cancel ------------------------------------------------------------------------------------------------


def test_what_comes_late_on_a_channel_that_we_cancelled_is_dropped_and_bounded(small, lane):
    """The batch is whole, since its signature covers all of it; the window is not filled up again."""
    other = small.channel(small.dialer)
    small.listener.cancel(lane, Code.CANCELLED)
    (event,) = small.say(small.dialer, (lane, 0, bytes(W)), (other, 0, b"kept"))
    assert event == BatchReceived(
        2, b"signature", [(lane, 0, bytes(W), b""), (other, 0, b"kept", b"")], frozenset({lane})
    )
    assert small.listener.consumed(lane, W) == b""
    with pytest.raises(RemoteProtocolError, match="outstanding"):
        small.raw(small.dialer, (lane, 0, b"x"))


def test_cancels_that_cross_end_the_channel(small, lane):
    ours, theirs = small.dialer.cancel(lane, Code.CANCELLED), small.listener.cancel(lane, Code.ABORTED)
    assert small.carry(small.dialer, ours) == [ChannelCancelled(lane, Code.CANCELLED, over=True)]
    assert small.carry(small.listener, theirs) == [ChannelCancelled(lane, Code.ABORTED, over=True)]
    assert small.dialer._channels.table() == small.listener._channels.table() == {}


def test_a_last_item_answers_a_cancel_too(small, lane):
    small.carry(small.dialer, small.dialer.cancel(lane, Code.CANCELLED))
    (event,) = small.say(small.listener, (lane, 2, b"error"))
    assert event.dropped == {lane}
    assert small.dialer._channels.table() == small.listener._channels.table() == {}


def test_a_handler_that_ends_without_reading_everything_tells_the_sender_to_stop(small, lane):
    """Its own direction has ended; release cancels the other."""
    small.say(small.listener, (lane, 2, b"reply"))
    events = small.carry(small.listener, small.listener.release(lane))
    assert events == [ChannelCancelled(lane, Code.CANCELLED, over=False)]
    assert small.listener.release(lane) == b""
    small.carry(small.dialer, small.dialer.release(lane))
    assert small.listener._channels.table() == {}


@pytest.mark.parametrize(
    ("number", "code"), [(0, "unknown"), (17, "unknown"), (255, "unknown"), (1, "cancelled")]
)
def test_a_code_that_we_do_not_know_is_unknown(small, lane, number, code):
    assert small.raw_cancel(small.dialer, lane, number) == [ChannelCancelled(lane, Code(code), over=False)]


@pytest.mark.parametrize("code", list(Code))
def test_every_code_crosses(small, lane, code):
    cancelled = small.carry(small.dialer, small.dialer.cancel(lane, code))
    assert cancelled == [ChannelCancelled(lane, code, over=False)]


# --- data --------------------------------------------------------------------------------------------------


def test_data_counts_in_the_credit_as_its_leaf_does(small, lane):
    """At both ends, and it is given back with it."""
    (event,) = small.say(small.dialer, (lane, DATA, bytes(100), b"d" * 500))
    assert event.items == [(lane, DATA, bytes(100), b"d" * 500)]
    assert outstanding(small, lane) == (600, 600)
    small.carry(small.listener, small.listener.consumed(lane, 600))
    assert outstanding(small, lane) == (0, 0)
    small.say(small.dialer, (lane, DATA, bytes(100), b"d" * 500))
    assert not small.dialer.can_send(lane, 401)
    with pytest.raises(RemoteProtocolError, match="401 bytes with 600 of 1000 outstanding"):
        small.raw(small.dialer, (lane, DATA, bytes(1), bytes(400)))


def test_data_comes_on_an_open_channel_only(linked):
    """Neither with what opens it or ends it, nor behind the end; on one that its receiver left it is counted and dropped."""
    number = linked.channel(linked.dialer)
    for flags in (DATA | OPENS, DATA | ENDS):
        with pytest.raises(LocalProtocolError, match=f"out of order|flags {flags}"):
            linked.dialer.batch(1, b"signature", whole([(number, flags, b"x")]))
    linked.listener.cancel(number, Code.CANCELLED)
    (event,) = linked.raw(linked.dialer, (number, DATA, b"x", b"data"))
    assert event.dropped == {number}
    linked.raw(linked.dialer, (number, ENDS, b"x"))
    with pytest.raises(RemoteProtocolError, match="after both directions ended"):
        linked.raw(linked.dialer, (number, DATA, b"x", b"data"))


# --- our own mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items",
    [
        [],
        [(1, 0, b"fine"), (1, 0, b"")],
        [(1, 0, b"fine"), (9, 0, b"x")],
        [(1, 0, b"fine"), (3, 1, b"not allotted")],
        [(1, 2, b"fine"), (1, 0, b"after the end")],
        [(1, 0, bytes(900)), (1, 0, bytes(900))],
        [(1, 5, b"x")],
        [(1, DATA, b"x", b"")],
        [(1, DATA, b"x", bytes(limits.CHUNK + 1))],
        [(1, DATA, b"", b"x")],
        [(1, 0, b"x", b"data")],
        [(1, ENDS, b"x", b"data")],
        [(1, DATA, bytes(limits.LEAF - 9), bytes(10))],
        [(1, DATA, bytes(450), bytes(450))] * 2,
        [(1, -1, b"x")],
        [(1, 256, b"x")],
        [(-1, 0, b"x")],
        [(2**32, 1, b"x")],
        [(1, 0, bytes(limits.LEAF + 1))],
        [(1, 0, bytes(1))] * (limits.BATCH_LEAVES + 1),
        [(1, 0, bytes(limits.LEAF)), (1, 0, bytes(limits.BATCH_BYTES))],
    ],
)  # fmt: skip
def test_a_batch_that_is_not_allowed_changes_nothing(small, lane, items):
    """Whichever of its items is wrong: the batch that was meant to follow still goes out, with the same number."""
    before = small.dialer._channels.table(), small.dialer.statistics()
    with pytest.raises(LocalProtocolError):
        small.dialer.batch(1, b"signature", whole(items))
    assert (small.dialer._channels.table(), small.dialer.statistics()) == before
    assert len(small.say(small.dialer, (lane, 0, b"fine"))) == 1


@pytest.mark.parametrize("flags", [5, 6, 7, 8, 12, 128, 254, 255])
def test_flags_that_do_not_exist_are_an_error(small, lane, flags):
    """None of them is taken for the credit or the cancel that share the table with items."""
    with pytest.raises(RemoteProtocolError, match=f"flags {flags}|out of order"):
        small.raw(small.dialer, (lane, flags, b"x"))


@pytest.mark.parametrize("number", [-1, 0, 77, 2**32])
def test_credit_and_cancel_on_a_channel_that_never_was_are_our_own_mistake(small, number):
    with pytest.raises(LocalProtocolError):
        small.dialer.credit(number, 1)
    with pytest.raises(LocalProtocolError):
        small.dialer.cancel(number, Code.CANCELLED)


@pytest.mark.parametrize(
    ("number", "signature"), [(0, b"s"), (2, b"s"), (1, b""), (1, bytes(limits.SIGNATURE + 1))]
)
def test_a_batch_has_the_next_number_and_a_signature(small, lane, number, signature):
    with pytest.raises(LocalProtocolError):
        small.dialer.batch(number, signature, [(lane, 0, b"x", b"")])


@pytest.mark.parametrize("number", [0, 2])
def test_rule_28_a_batch_out_of_its_place_ends_the_link(small, lane, number):
    """Replay on a link is refused by number alone."""
    small.number[small.dialer] = number
    with pytest.raises(RemoteProtocolError, match=f"batch {number} where 1 is next"):
        small.raw(small.dialer, (lane, 0, b"x"))


def test_the_largest_batch_passes(linked):
    """Small messages up to what closes a batch, then one that fills a leaf."""
    numbers = [linked.dialer.open_channel(), linked.dialer.open_channel()]
    items = [(numbers[0], 1, bytes(65_000), b""), (numbers[1], 1, bytes(limits.LEAF), b"")]
    (event,) = linked.say(linked.dialer, *items)
    assert event.items == items
