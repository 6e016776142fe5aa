"""Every cell of the two tables, legal and illegal, with real frames through a pair of links."""

from pathlib import Path

import pytest

from autolink import codec
from autolink.errors import Code, LocalProtocolError, Reason, RemoteProtocolError
from autolink.protocol.frames import (
    SIZES,
    Frame,
    encode_batch_frame,
    encode_cancel,
    encode_credit,
    encode_frame,
)
from autolink.protocol.table import (
    CHANNEL,
    LINK,
    Act,
    DirectionState,
    LinkState,
    Violation,
    step_channel,
    step_link,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
HELLO = {"clock": 1, "software": "test/1"}
MAPS = {
    Frame.HELLO: {
        **HELLO,
        "versions": [1],
        "limits": {"channels": 256, "credit": 262_144, "message": 1_048_576},
    },
    Frame.ACCEPT: {"version": 1},
    Frame.REFUSE: {"reason": "busy"},
    Frame.EVIDENCE: {},
    Frame.GOAWAY: {"last": 0, "reason": "test"},
}


def bring(pair, sender, state):
    """Take the sender to a state, and the other party to open as far as that is possible."""
    other = pair.other(sender)
    pair.carry(other, other.hello(HELLO))
    if state is LinkState.REFUSED:
        pair.carry(sender, sender.refuse(Reason.BUSY))
        return
    if state is LinkState.SILENT:
        return
    pair.carry(sender, sender.hello(HELLO))
    accepted = other.accept()
    if state is not LinkState.GREETED:
        pair.carry(sender, sender.accept())
    pair.carry(other, accepted)
    if state is LinkState.DRAINING:
        pair.carry(sender, sender.go_away(0, ""))


def payload_of(frame, pair, sender):
    """A payload with nothing wrong but, perhaps, its moment."""
    if frame in MAPS:
        return codec.encode(MAPS[frame])
    channel = 1 if sender is pair.dialer else 2
    return {
        Frame.BATCH: encode_batch_frame(pair.number[sender], b"s", [(channel, 1, b"leaf", b"")])[0][5:],
        Frame.CREDIT: encode_credit(channel, 1),
        Frame.CANCEL: encode_cancel(channel, 1),
        Frame.PING: b"12345678",
        Frame.PONG: b"12345678",
        Frame.EXTENSION: b"",
    }[frame]


def prepare(frame, pair, sender):
    """What a CREDIT, a CANCEL or a PONG is about must be there, where the state lets it be."""
    if sender.state[0] not in (LinkState.OPEN, LinkState.DRAINING):
        return
    if frame is Frame.PONG:
        pair.carry(pair.other(sender), pair.other(sender).ping(b"12345678"))
    if frame in (Frame.CREDIT, Frame.CANCEL):
        pair.channel(sender)
        pair.say(pair.other(sender), (1 if sender is pair.dialer else 2, 0, b"leaf"))


@pytest.mark.parametrize("role", ["dialer", "listener"])
@pytest.mark.parametrize("frame", list(Frame))
@pytest.mark.parametrize("state", list(LinkState))
def test_each_frame_in_each_state_of_its_sender_does_what_the_table_says(pair, state, frame, role):
    """Legal: the receiver's view of the sender moves as the table says. Illegal: RemoteProtocolError, for good."""
    sender = getattr(pair, role)
    bring(pair, sender, state)
    prepare(frame, pair, sender)
    receiver = pair.other(sender)
    data = encode_frame(frame, payload_of(frame, pair, sender))
    after = LINK[state].get(frame)
    if after is not None:
        pair.carry(sender, data)
        assert receiver.state[1] is after
        return
    with pytest.raises(RemoteProtocolError) as first:
        pair.carry(sender, data)
    with pytest.raises(RemoteProtocolError) as second:
        pair.carry(sender, encode_frame(Frame.PING, bytes(8)))
    assert str(first.value) == str(second.value)


def say(party, pair, frame):
    channel = 1 if party is pair.dialer else 2
    return {
        Frame.HELLO: lambda: party.hello(HELLO),
        Frame.ACCEPT: party.accept,
        Frame.REFUSE: lambda: party.refuse(Reason.BUSY),
        Frame.BATCH: lambda: pair.batch(party, (party.open_channel(), 1, b"leaf")),
        Frame.CREDIT: lambda: party.credit(channel, 1),
        Frame.CANCEL: lambda: party.cancel(channel, Code.CANCELLED),
        Frame.PING: lambda: party.ping(b"12345678"),
        Frame.PONG: lambda: party.pong(b"12345678"),
        Frame.EVIDENCE: lambda: party.evidence({}),
        Frame.GOAWAY: lambda: party.go_away(0, ""),
    }[frame]()


@pytest.mark.parametrize("role", ["dialer", "listener"])
@pytest.mark.parametrize("frame", [frame for frame in Frame if frame is not Frame.EXTENSION])
@pytest.mark.parametrize("state", list(LinkState))
def test_the_same_table_binds_our_own_side(pair, state, frame, role):
    """Role-blind: what the peer may not send we cannot send, and a refused operation changes nothing."""
    sender = getattr(pair, role)
    bring(pair, sender, state)
    prepare(frame, pair, sender)
    after = LINK[state].get(frame)
    before = sender.state, sender.statistics()
    if after is None:
        with pytest.raises(LocalProtocolError):
            say(sender, pair, frame)
        assert (sender.state, sender.statistics()) == before
    else:
        assert isinstance(say(sender, pair, frame), bytes)
        assert sender.state[0] is after


# --- channels ----------------------------------------------------------------------------------------------


def at(pair, owner, opener, state):
    """A channel of `opener` on which `owner`'s direction is in `state`, its number, the other direction open."""
    other = pair.other(owner)
    number = opener.open_channel()
    if state is DirectionState.UNOPENED:
        return number
    only = state is DirectionState.ENDED and owner is opener
    pair.say(opener, (number, 3 if only else 1, b"first"))
    if not only and state is DirectionState.ENDED:
        pair.say(owner, (number, 2, b"last"))
    if state is DirectionState.CANCELLED:
        pair.carry(owner, owner.cancel(number, Code.CANCELLED))
    if state is not DirectionState.UNOPENED and opener is owner:
        pair.say(other, (number, 0, b"something to give credit for"))
    return number


def do(pair, owner, act, number):
    """The act past the owner's own checks."""
    if act is Act.CREDIT:
        return pair.raw_credit(owner, number, 1)
    if act is Act.CANCEL:
        return pair.raw_cancel(owner, number)
    return pair.raw(owner, (number, int(act), b"leaf"))


@pytest.mark.parametrize("whose", ["its opener", "the other party"])
@pytest.mark.parametrize("act", list(Act))
@pytest.mark.parametrize("state", list(DirectionState))
def test_each_act_in_each_state_of_a_direction_does_what_the_table_says(linked, state, act, whose):
    """Opening is the opener's alone, so an unopened direction of the other party allows nothing."""
    opener = linked.dialer
    owner = opener if whose == "its opener" else linked.listener
    number = at(linked, owner, opener, state)
    after = CHANNEL[state].get(act) if owner is opener or state is not DirectionState.UNOPENED else None
    if after is None:
        with pytest.raises(RemoteProtocolError, match=f"channel {number}"):
            do(linked, owner, act, number)
    else:
        do(linked, owner, act, number)
        theirs = linked.other(owner)._channels.table()[number][1]
        assert theirs[0] is after


def test_the_tables_raise_for_what_they_do_not_hold():
    """Violation is theirs alone; flags that no act has are shown as a number."""
    with pytest.raises(Violation, match="BATCH from a party that is silent"):
        step_link(LinkState.SILENT, LinkState.OPEN, Frame.BATCH)
    with pytest.raises(Violation, match="channel 9: flags 7"):
        step_channel(DirectionState.OPEN, 7, 9)


def test_accept_needs_the_hello_of_the_party_that_it_accepts(pair):
    """The peer cannot have judged us before we said a word; nor can we accept a peer that was silent."""
    pair.carry(pair.dialer, pair.dialer.hello(HELLO))
    with pytest.raises(LocalProtocolError, match="HELLO"):
        pair.dialer.accept()
    with pytest.raises(RemoteProtocolError, match="before the other party's HELLO"):
        pair.raw_map(pair.dialer, Frame.ACCEPT, {"version": 1})


def table(title, columns, rows):
    lines = [f"| {title} | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    return "\n".join(lines + [f"| **{name}** | " + " | ".join(cells) + " |" for name, cells in rows])


def test_the_document_shows_the_tables_of_the_code():
    """docs/spec.md is normative; it cannot say anything else than the code does."""
    names = ["128-255" if frame is Frame.EXTENSION else frame.name for frame in Frame]
    rows = [(state, [LINK[state].get(frame, "✗") for frame in Frame]) for state in LinkState]
    assert table("sender is", names, rows) in DOCUMENT
    rows = [(state, [CHANNEL[state].get(act, "✗") for act in Act]) for state in DirectionState]
    assert table("direction is", [act.name for act in Act], rows) in DOCUMENT


def test_the_document_shows_the_sizes_and_codes_of_the_code():
    for frame, (least, most) in SIZES.items():
        name = "| 128-255 | extensions |" if frame is Frame.EXTENSION else f"| {frame.value} | {frame.name} |"
        size = f"{least}" if least == most else f"{least:,} to {most:,}"
        assert any(
            line.startswith(name) and line.endswith(f"| {size} |") for line in DOCUMENT.splitlines()
        ), frame
    assert ", ".join(f"{number} `{code.value}`" for number, code in enumerate(Code, 1)) in DOCUMENT
