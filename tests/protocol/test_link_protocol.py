"""A link from HELLO to its end: opening, unknown things, early frames, pings, drain, refusal."""

import struct

import pytest

from autolink import codec, limits
from autolink.errors import Code, LocalProtocolError, Reason, RemoteProtocolError
from autolink.protocol import (
    AcceptReceived,
    BatchReceived,
    ChannelRefused,
    EvidenceReceived,
    GoAwayReceived,
    HelloReceived,
    Limits,
    LinkProtocol,
    LinkState,
    PingReceived,
    PongReceived,
    RefuseReceived,
)  # fmt: skip
from autolink.protocol.frames import GREASE, SIZES, Frame, encode_frame

HELLO = {"clock": 1_700_000_000_000_000, "software": "test/1"}
TAKES = {"channels": 1, "credit": 2, "message": 3}
FIELDS = {**HELLO, "versions": [1], "limits": TAKES}


# --- opening -----------------------------------------------------------------------------------------------


def test_a_link_opens_in_one_round_trip(pair):
    hello = pair.dialer.hello({**HELLO, "features": ["x"], "chain": [b"der"], "evidence": [b"status"]})
    (event,) = pair.carry(pair.dialer, hello)
    assert isinstance(event, HelloReceived)
    assert (event.version, event.clock, event.software) == (1, 1_700_000_000_000_000, "test/1")
    assert (event.features, event.chain, event.evidence) == (("x",), (b"der",), (b"status",))
    assert event.limits == Limits(limits.CHANNELS, limits.CREDIT, limits.MESSAGE) == pair.listener.peer_limits
    pair.carry(pair.listener, pair.listener.hello(HELLO))
    assert pair.carry(pair.listener, pair.listener.accept()) == [AcceptReceived()]
    assert pair.carry(pair.dialer, pair.dialer.accept()) == [AcceptReceived()]
    assert pair.dialer.state == pair.listener.state == (LinkState.OPEN, LinkState.OPEN)


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [([1], [1], 1), ([1, 2], [2, 3, 1], 2), ([1, 5], [5, 9], 5), ([1], [2, 3], None), ([1], [], None)],
)
def test_the_highest_common_version_is_spoken(ours, theirs, common):
    link = LinkProtocol(False, versions=ours)
    link.hello(HELLO)
    link.receive_data(encode_frame(Frame.HELLO, codec.encode({**FIELDS, "versions": theirs})))
    assert link.next_event().version == link.version == common
    if common is None:
        with pytest.raises(LocalProtocolError, match="version in common"):
            link.accept()
        link.refuse(Reason.VERSION)


def test_accept_names_the_version_that_both_hellos_give(pair):
    pair.greet()
    with pytest.raises(RemoteProtocolError, match="another version"):
        pair.raw_map(pair.dialer, Frame.ACCEPT, {"version": 2})


@pytest.mark.parametrize(
    "frame", [frame for frame in Frame if frame not in (Frame.HELLO, Frame.REFUSE, Frame.ACCEPT)]
)
def test_rule_19_before_its_accept_a_party_says_only_hello_or_refuse(pair, frame):
    """Judged by the header: a payload of a megabyte is not waited for from somebody who was not accepted."""
    pair.greet()
    with pytest.raises(RemoteProtocolError, match="from a party that is greeted"):
        pair.carry(pair.dialer, struct.pack(">BI", frame, SIZES[frame][1]))


def test_rule_19_a_hello_of_more_than_64_kib_is_refused_by_its_header(pair):
    with pytest.raises(RemoteProtocolError, match="HELLO of 65537 bytes"):
        pair.carry(pair.listener, b"\x01" + (limits.HELLO + 1).to_bytes(4, "big"))
    with pytest.raises(LocalProtocolError, match="are possible"):
        pair.dialer.hello({**HELLO, "evidence": [bytes(limits.HELLO)]})


@pytest.mark.parametrize(
    "change",
    [
        {"versions": None}, {"versions": 1}, {"versions": ["1"]}, {"versions": [True]}, {"versions": [1, None]},
        {"clock": None}, {"clock": 1.5}, {"clock": -1}, {"clock": 2**63}, {"clock": True},
        {"software": None}, {"software": b"x"}, {"features": "abc"}, {"features": [1]}, {"features": None},
        {"chain": b"der"}, {"chain": ["der"]}, {"chain": [b"der"] * (limits.CHAIN + 1)},
        {"evidence": [[b"x"]]}, {"evidence": [b"x"] * (limits.EVIDENCE + 1)},
        {"limits": None}, {"limits": [1, 2, 3]}, {"limits": {}},
        {"limits": {**TAKES, "channels": -1}}, {"limits": {**TAKES, "channels": 2**31}},
        {"limits": {**TAKES, "credit": 0}}, {"limits": {**TAKES, "credit": 2**32}},
        {"limits": {**TAKES, "message": 0}}, {"limits": {**TAKES, "message": True}},
    ],
    ids=str,
)  # fmt: skip
def test_a_hello_with_a_wrong_field_is_refused(pair, change):
    """Present and wrong, or missing where it is needed."""
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        pair.raw_map(pair.dialer, Frame.HELLO, {**FIELDS, **change})


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (Frame.HELLO, []), (Frame.ACCEPT, {}), (Frame.ACCEPT, {"version": True}), (Frame.ACCEPT, 1),
        (Frame.REFUSE, {}), (Frame.REFUSE, {"reason": 7}), (Frame.REFUSE, {"reason": "busy", "offset": "1"}),
        (Frame.EVIDENCE, {"chain": "x"}), (Frame.EVIDENCE, {"evidence": [None]}), (Frame.EVIDENCE, 0),
        (Frame.GOAWAY, {"last": 0}), (Frame.GOAWAY, {"reason": "x"}), (Frame.GOAWAY, {"last": -1, "reason": ""}),
        (Frame.GOAWAY, {"last": 2, "reason": ""}),
    ],
    ids=str,
)  # fmt: skip
def test_a_map_with_a_wrong_field_is_refused(pair, frame, fields):
    """In the moment where the frame itself would be right."""
    if frame is Frame.ACCEPT:
        pair.greet()
    elif frame in (Frame.EVIDENCE, Frame.GOAWAY):
        pair.open()
    with pytest.raises(RemoteProtocolError, match=frame.name):
        pair.raw_map(pair.dialer, frame, fields)


def test_rule_45_a_map_that_is_no_clean_msgpack_is_refused(pair):
    """An amplifying payload: 64 KiB of empty maps in an array."""
    payload = b"\xdc\xff\xff" + b"\x80" * (limits.HELLO - 3)
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        pair.carry(pair.dialer, encode_frame(Frame.HELLO, payload))


def test_rule_45_a_stranger_does_not_get_a_large_map_built(pair):
    """Before anybody is judged: a good HELLO, and in a field that nobody knows an array of empty maps."""
    unknown = {"x": [{}] * limits.CONTROL_NODES}
    with pytest.raises(RemoteProtocolError, match=f"HELLO: more than {limits.CONTROL_NODES} elements"):
        pair.carry(pair.dialer, pair.dialer.hello({"clock": 1, "software": "x"} | unknown))


# --- unknown things ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grease", range(8))
def test_our_own_hello_and_accept_carry_grease(make_pair, grease):
    """Each of the reserved types is sent by some choice; none of them stops a link from opening."""
    pair = make_pair(grease=grease)
    (hello,) = pair.carry(pair.dialer, pair.dialer.hello(HELLO))
    assert hello.fields[f"grease-{grease}"] == grease
    pair.carry(pair.listener, pair.listener.hello(HELLO))
    assert pair.dialer.accept().endswith(encode_frame(GREASE[grease], b""))


@pytest.mark.parametrize("number", [128, 0x8A, 200, 255])
def test_frames_and_fields_of_a_newer_peer_are_ignored(linked, number):
    """Behind ACCEPT, with or without a payload, between the frames that we know."""
    assert linked.carry(
        linked.dialer, encode_frame(number, b"from the future") + linked.dialer.ping(b"12345678")
    ) == [PingReceived(b"12345678")]
    (event,) = linked.raw_map(
        linked.dialer, Frame.EVIDENCE, {"evidence": [b"x"], "colour": {"deep": [1, 2, 3]}}
    )
    assert event == EvidenceReceived((), (b"x",))


def test_unknown_fields_of_every_map_are_ignored(pair):
    new = {"new": [None]}
    (hello,) = pair.raw_map(
        pair.dialer, Frame.HELLO, {**FIELDS, **new, "limits": {**FIELDS["limits"], "speed": 9}}
    )
    assert hello.fields["new"] == [None]
    pair.listener.hello(HELLO)
    pair.listener.accept()
    assert pair.raw_map(pair.dialer, Frame.ACCEPT, {"version": 1, **new}) == [AcceptReceived()]
    assert pair.raw_map(pair.dialer, Frame.GOAWAY, {"last": 0, "reason": "x", **new}) == [
        GoAwayReceived(0, "x")
    ]
    assert pair.raw_map(pair.dialer, Frame.REFUSE, {"reason": "busy", **new}) == [
        RefuseReceived(Reason.BUSY, None)
    ]


# --- frames behind ACCEPT ----------------------------------------------------------------------------------


def test_rule_16_frames_behind_an_accept_wait_for_our_own_verdict(pair):
    """Unread, then all there in their order."""
    pair.greet()
    assert pair.carry(pair.dialer, pair.dialer.accept()) == [AcceptReceived()]
    number = pair.dialer.open_channel()
    early = pair.batch(pair.dialer, (number, 1, b"early")) + pair.dialer.ping(b"12345678")
    assert pair.carry(pair.dialer, early) == []
    assert pair.listener.statistics().items_received == 0
    pair.listener.accept()
    batch, ping = pair.events(pair.listener)
    assert isinstance(batch, BatchReceived)
    assert ping == PingReceived(b"12345678")


def test_rule_16_a_refusal_guarantees_that_nothing_early_took_effect(pair):
    """Not even an error in it: it is dropped."""
    pair.greet()
    number = (pair.carry(pair.dialer, pair.dialer.accept()), pair.dialer.open_channel())[1]
    pair.carry(pair.dialer, pair.batch(pair.dialer, (number, 1, b"early")) + b"\x0b nonsense")
    refusal = pair.listener.refuse(Reason.NOT_VOUCHED)
    assert pair.events(pair.listener) == []
    assert pair.listener.statistics().items_received == pair.listener.statistics().bytes_held == 0
    assert pair.carry(pair.listener, refusal) == [RefuseReceived(Reason.UNTRUSTED, None)]


def test_early_bytes_are_bounded_by_backpressure(pair):
    """At `limits.EARLY` the reader is told to stop; our verdict lets it go on."""
    pair.greet()
    pair.carry(pair.dialer, pair.dialer.accept())
    while pair.listener.wants_data:
        pair.carry(pair.dialer, encode_frame(Frame.PING, bytes(8)) * 1000)
    held = pair.listener.statistics().bytes_held
    assert limits.EARLY <= held < limits.EARLY + 13_000
    pair.listener.accept()
    assert pair.listener.wants_data
    assert len(pair.events(pair.listener)) == held // 13


def test_application_frames_need_our_own_accept_and_not_the_peers(pair):
    pair.greet()
    with pytest.raises(LocalProtocolError, match="we are greeted"):
        pair.dialer.open_channel()
    assert not pair.dialer.places
    pair.dialer.accept()
    assert pair.batch(pair.dialer, (pair.dialer.open_channel(), 1, b"x"))


# --- refusal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_rule_18_only_closed_reasons_cross(pair, reason):
    """Facts the refused one knows about itself, or `untrusted`."""
    own = {"expired", "not_yet_valid", "malformed", "revoked", "wrong_peer", "version", "busy", "clock_skew"}
    own |= {"full_handshake_needed", "internal"}
    (event,) = pair.carry(pair.dialer, pair.dialer.refuse(reason))
    assert event.reason == (reason if reason in own else "untrusted")


@pytest.mark.parametrize(
    "text", ["impostor", "unknown_issuer", "tampered", "", "EXPIRED", "no such thing", "\x1b[31m"]
)
def test_rule_18_a_reason_that_may_not_cross_is_read_as_untrusted(pair, text):
    assert pair.raw_map(pair.dialer, Frame.REFUSE, {"reason": text}) == [
        RefuseReceived(Reason.UNTRUSTED, None)
    ]


def test_a_clock_refusal_says_by_how_much(pair):
    (event,) = pair.carry(pair.dialer, pair.dialer.refuse(Reason.CLOCK_SKEW, -3600.25))
    assert event == RefuseReceived(Reason.CLOCK_SKEW, -3600.25)


def test_after_our_refusal_everything_from_the_peer_is_dropped(linked):
    """Also nonsense, and without end: the reader goes on so that the refusal can arrive."""
    linked.dialer.refuse(Reason.REVOKED)
    assert linked.dialer.wants_data
    for _ in range(10):
        assert linked.carry(linked.listener, b"\xff" * 100_000 + b"\x00" * 10) == []
    linked.dialer.receive_end()
    assert linked.dialer.statistics().bytes_held == 0
    with pytest.raises(LocalProtocolError, match="that is refused"):
        linked.dialer.refuse(Reason.REVOKED)


def test_after_the_peers_refusal_only_a_refusal_can_be_said(linked):
    linked.carry(linked.dialer, linked.dialer.refuse(Reason.REVOKED))
    assert not linked.listener.wants_data
    with pytest.raises(LocalProtocolError, match="has refused"):
        linked.listener.ping(bytes(8))
    with pytest.raises(LocalProtocolError, match="no channel can be opened"):
        linked.listener.open_channel()
    linked.listener.refuse(Reason.BUSY)


def test_a_broken_peer_can_still_be_told(linked):
    """The object stays failed; REFUSE `malformed` is the only thing left to say."""
    with pytest.raises(RemoteProtocolError):
        linked.carry(linked.dialer, b"\x00" * 5)
    assert not linked.listener.wants_data
    with pytest.raises(LocalProtocolError, match="that the peer has broken"):
        linked.listener.ping(bytes(8))
    assert linked.carry(linked.listener, linked.listener.refuse(Reason.MALFORMED)) == [
        RefuseReceived(Reason.MALFORMED, None)
    ]


# --- ping --------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_bytes_in_order(linked):
    pings = linked.dialer.ping(b"11111111") + linked.dialer.ping(b"22222222")
    answers = b"".join(linked.listener.pong(event.data) for event in linked.carry(linked.dialer, pings))
    assert linked.carry(linked.listener, answers) == [PongReceived(b"11111111"), PongReceived(b"22222222")]


@pytest.mark.parametrize("data", [b"22222222", b"33333333"])
def test_rule_46_a_pong_that_answers_nothing_is_an_error(linked, data):
    """Also out of order."""
    linked.dialer.ping(b"11111111")
    linked.dialer.ping(b"22222222")
    with pytest.raises(RemoteProtocolError, match="PONG that answers no PING"):
        linked.carry(linked.listener, linked.listener.pong(data))


def test_our_own_unanswered_pings_are_bounded(linked):
    for _ in range(limits.REPLIES):
        linked.dialer.ping(bytes(8))
    with pytest.raises(LocalProtocolError, match="unanswered"):
        linked.dialer.ping(bytes(8))
    with pytest.raises(LocalProtocolError, match="PING of 3 bytes"):
        linked.listener.ping(b"abc")


def test_rule_46_a_flood_of_frames_without_an_item_is_counted(linked):
    """Pings, credits and extensions raise the count that the link's owner bounds; an item, either way, resets it."""
    number = linked.channel(linked.listener)
    assert linked.listener.statistics().frames_since_item == 0
    flood = linked.dialer.ping(bytes(8)) * 50 + encode_frame(200, b"") * 50
    linked.carry(linked.dialer, flood)
    linked.raw_credit(linked.dialer, number, 1)
    assert linked.listener.statistics().frames_since_item == 101
    linked.say(linked.listener, (number, 0, b"x"))
    assert linked.listener.statistics().frames_since_item == 0


# --- drain -------------------------------------------------------------------------------------------------


def test_after_go_away_new_channels_are_refused_and_open_ones_go_on(linked):
    """One that was under way is cancelled as unavailable: nothing of it was carried out."""
    number = linked.channel(linked.dialer)
    away = linked.listener.go_away(number, "restart")
    late = linked.dialer.open_channel()
    batch, refused = linked.say(linked.dialer, (late, 1, b"x"), (number, 0, b"more"))
    assert batch.dropped == {late}
    assert refused == ChannelRefused(late, Code.UNAVAILABLE)
    assert linked.carry(linked.listener, away) == [GoAwayReceived(number, "restart")]
    assert linked.dialer.draining
    assert not linked.dialer.places
    with pytest.raises(LocalProtocolError, match="draining"):
        linked.dialer.open_channel()
    linked.say(linked.listener, (number, 2, b"reply"))
    linked.channel(linked.listener)  # who drains may still open
    assert linked.dialer.state[1] is LinkState.DRAINING


@pytest.mark.parametrize("last", [-1, 3, 2**31])
def test_go_away_names_nothing_that_was_not_opened(linked, last):
    linked.channel(linked.dialer)
    with pytest.raises(LocalProtocolError, match="has not opened"):
        linked.listener.go_away(last, "")
    with pytest.raises(RemoteProtocolError, match="have not opened"):
        linked.raw_map(linked.listener, Frame.GOAWAY, {"last": last, "reason": ""})


# --- evidence, ends, what people see -----------------------------------------------------------------------


def test_rule_17_fresh_evidence_crosses_on_a_live_link(linked):
    said = linked.dialer.evidence({"chain": [b"new"], "evidence": [b"status"]})
    assert linked.carry(linked.dialer, said) == [EvidenceReceived((b"new",), (b"status",))]


def test_an_end_inside_a_frame_is_an_error(linked):
    """Between two frames it is none; in an ignored payload it is one too."""
    linked.listener.receive_end()
    for cut in (encode_frame(200, bytes(9))[:-1], linked.dialer.ping(bytes(8))[:3]):
        linked.carry(linked.dialer, cut)
        with pytest.raises(RemoteProtocolError, match="inside a frame"):
            linked.listener.receive_end()
        linked = type(linked)().open()


def test_statistics_and_repr_say_how_a_link_stands(linked):
    number = linked.channel(linked.dialer)
    linked.say(linked.listener, (number, 0, b"x"))
    ours, theirs = linked.dialer.statistics(), linked.listener.statistics()
    assert (ours.frames_sent, ours.bytes_sent) == (theirs.frames_received, theirs.bytes_received)
    assert (ours.frames_received, ours.bytes_received) == (theirs.frames_sent, theirs.bytes_sent)
    assert (ours.items_sent, ours.items_received, ours.channels_opened, theirs.channels_accepted) == (
        1,
        1,
        1,
        1,
    )
    assert (
        repr(linked.dialer)
        == "<LinkProtocol dialer: we are open, the peer is open, 1 channels opened, 0 accepted>"
    )
    with pytest.raises(RemoteProtocolError):
        linked.carry(linked.dialer, b"\x00" * 5)
    assert repr(linked.listener).endswith("1 accepted, failed>")
