"""What goes over a link: its lanes, and what each event of its peer does. How it runs and ends is `life`.

Events are handled synchronously in the reader's task. What the peer makes us do at once is bounded: answers by the
writer's queue of control frames, handlers by `limits.CHANNELS`, messages by the credit that was given for them.
"""

import math
from collections.abc import Mapping
from typing import Final

import anyio

from autolink import limits
from autolink.agent.kinds import FROM_OPENER, TO_OPENER
from autolink.agent.lane import Lane, check_sequence
from autolink.agent.life import LinkLife
from autolink.agent.received import Received
from autolink.errors import CallError, Code, LinkLost, LocalProtocolError, Refused, RemoteProtocolError
from autolink.identity import Credential
from autolink.messages import Kind
from autolink.protocol import (
    OPENS,
    BatchReceived,
    ChannelCancelled,
    ChannelRefused,
    CreditReceived,
    Event,
    EvidenceReceived,
    GoAwayReceived,
    PingReceived,
    PongReceived,
    RefuseReceived,
)  # fmt: skip
from autolink.protocol.frames import LAST_CHANNEL

_OPEN: Final = Kind.OPEN  # looked up on its enumeration, a member costs as much as a call


class LinkCore(LinkLife):
    """See the module. `Link` adds what applications call."""

    # --- lanes -----------------------------------------------------------------------------------------

    async def open_lane(
        self, kind: Kind, method: str, body: bytes, *, deadline: float = math.inf,
        headers: Mapping[str, str] | None = None, topic: str = "",
    ) -> Lane:  # fmt: skip
        """Open a channel of ours with its first message; waits while the peer allows no more of them at once.

        Cancelled while waiting: nothing was sent. What is left until `deadline`, by the event loop's clock, travels along.

        Raises:
            LinkLost: the link is gone.
            LocalProtocolError: the link is draining.
            UsageError: a name or headers that no peer would take.
        """
        lane = Lane(self.traffic, method, TO_OPENER[kind], opened_here=True)
        lane.topic = topic
        await self.traffic.loop.checkpoint_if_cancelled()
        while True:
            if self._cause is not None:
                raise NotSent(str(self.lost_error())) from self._cause
            if self._unusable.is_set or self.traffic.outbox.may_open:
                break
            await self.traffic.outbox.wait_for_place()
        if self._unusable.is_set:
            raise LocalProtocolError("this link is draining and opens no new channel; open another link")
        number = self.protocol.open_channel()
        self._lanes[number] = lane
        try:
            timeout = _microseconds_until(deadline)  # now: waiting for a place has taken its part
            lane.open(number, kind, body, timeout=timeout, headers=dict(headers) if headers else {})
        except BaseException:  # a name or headers that no peer would take
            self.leave(lane)
            raise
        if number + 2 > LAST_CHANNEL:
            self.go_away("age")  # the numbers are used up: nobody shall wait for another one
        return lane

    def leave(self, lane: Lane, code: Code = Code.CANCELLED) -> None:
        """Nothing of ours uses the lane any more; the peer is told unless it knows."""
        lane.close()
        if self._lanes.pop(lane.id, None) is not None and self._cause is None:
            self.traffic.release(lane.id, code)
            if self._said_go_away and self.drained:
                self.attend()

    # --- events ----------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case BatchReceived():
                dropped = event.dropped
                for received in self.traffic.open_batch(event):
                    if received.channel not in dropped:
                        self._take(received)
                if dropped:  # the last items of channels that we cancelled give their places back
                    self.traffic.outbox.room_changed()
            case CreditReceived():
                self.traffic.outbox.room_changed()
            case ChannelCancelled(channel, code):
                if lane := self._lanes.get(channel):
                    lane.end(CallError(code, "the peer ended the channel", received=True))
                else:  # the answer to our own cancel, which gives the place back
                    self.traffic.outbox.room_changed()
            case ChannelRefused(channel, code):
                self.traffic.control(self.protocol.cancel(channel, code))
            case _:
                self._handle_own(event)

    def _handle_own(self, event: Event) -> None:
        """An event of the link itself, not of a channel."""
        match event:
            case PingReceived(data):
                self.traffic.control(self.protocol.pong(data))
            case PongReceived(data):
                if answered := self._pings.get(data):
                    answered.set()
            case EvidenceReceived():
                self.evidence = event
                self.attend(stale=True)
            case GoAwayReceived(last):
                self._peer_goes_away(last)
            case RefuseReceived(reason, offset):
                raise Refused(reason, by="peer", peer=self.named, offset=offset)

    def _take(self, received: Received) -> None:
        if received.flags & OPENS:
            self._open_for_peer(received)
            return
        lane = self._lanes.get(received.channel)
        if lane is None:
            return  # left after the batch was taken apart, perhaps by an earlier message of it
        if received.kind not in lane.allowed:
            raise RemoteProtocolError(f"channel {lane.id}: {received.kind.name} cannot come here")
        check_sequence(lane, received)
        lane.deliver(received)

    def _open_for_peer(self, received: Received) -> None:
        lane = Lane(self.traffic, received.method, FROM_OPENER[received.kind], opened_here=False)
        lane.id = received.channel
        check_sequence(lane, received)
        lane.headers = received.headers
        lane.eof = received.kind is not _OPEN
        self._lanes[lane.id] = lane
        self._last_opened_by_peer = lane.id
        if not lane.eof:
            self.traffic.consumed(lane.id, received.size)
        self.server.start(lane, received)

    def _peer_goes_away(self, last: int) -> None:
        """Channels of ours above `last` were never looked at: whoever opened them may safely try elsewhere."""
        self._stop_opening()
        for lane in list(self._lanes.values()):
            if lane.opened_here and lane.id > last:
                lane.end(NotServed(Code.UNAVAILABLE, "the peer is draining", received=True))

    # --- our standing ----------------------------------------------------------------------------------

    def go_on_with(self, credential: Credential) -> None:
        """The agent has another credential now. The peer can go on believing us if it is one over the same key, and is
        shown the renewed chain; otherwise the link is drained."""
        if credential.leaf.spki != self.credential.leaf.spki:
            self.go_away("credential")
        else:
            self.credential = credential
            self.show_evidence()

    def show_evidence(self) -> None:
        """Show the peer our chain and all our evidence anew, unless that is of another key than the link was opened with."""
        if self._cause is None and self.credential is self.agent.credential:
            fields = {"chain": [certificate.der for certificate in self.credential.chain]}
            if evidence := [*self.credential.evidence, *self.agent.evidence]:
                fields["evidence"] = evidence
            self.traffic.control(self.protocol.evidence(fields))


def _microseconds_until(deadline: float) -> int:
    """The remaining time as it travels: at least 1, because 0 means no deadline."""
    if deadline == math.inf:
        return 0
    left = max(deadline - anyio.current_time(), 0)  # the deadline of a cancelled scope is minus infinity
    return min(max(int(left * 1_000_000), 1), limits.TIMEOUT)


class NotSent(LinkLost):
    """The link was lost before anything of this operation had been handed to it."""


class NotServed(CallError):
    """The peer was draining and promises that it has not looked at this call."""
