"""What keeps a link honest while nothing happens on it: silence, age, a peer that drains it and does not end it, and the end
of the verdict it rests on.

It has no task of its own: the link's reader looks when the next thing is due, and at the wall clock at least every
`limits.KEEPALIVE` seconds, so a stepped clock is noticed. It is made to look at once when trust changed or the peer
sent fresh evidence. Judging takes as long as the trust model does, so that is a task, started for the occasion; the
reader goes on meanwhile.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from autolink import limits
from autolink.agent.opening import NO_VERDICT, author_of, has_ended
from autolink.errors import LinkLost, Reason, Refused
from autolink.loop import Scope
from autolink.trust import judge

if TYPE_CHECKING:
    from autolink.agent.life import LinkLife


class Keeper:
    """Of one link; see the module."""

    __slots__ = ("_asked_at", "_judgement", "_left_at")

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._left_at: float | None = None
        self._judgement: Scope | None = None  # while one is being made

    @property
    def judging(self) -> bool:
        """A verdict is being made, by a task."""
        return self._judgement is not None

    def next_look(self, link: "LinkLife") -> float:
        """When something is due, by the event loop's clock; a verdict stands to its last microsecond."""
        now = link.traffic.loop.current_time()
        if self._judgement is not None:
            return now + limits.KEEPALIVE
        if link.needs_care:
            return now
        left = (link.peer.valid_until - link.agent.clock()).total_seconds() + 0.001
        return now + min(limits.KEEPALIVE, max(left, 0.001))

    def look(self, link: "LinkLife") -> None:
        """Do what is due."""
        ended = has_ended(link.peer, link.agent.trust)
        due = link.stale or ended or link.agent.clock() > link.peer.valid_until
        if due and self._judgement is None:
            self._judgement = link.traffic.loop.scope()
            link.tasks.start_soon(self._judge, link, self._judgement)
        self._asked_at = _listen_for(link, self._asked_at)
        self._left_at = _leave(link, self._left_at)
        if link.traffic.records >= limits.RECORDS or anyio.current_time() - link.opened_at >= limits.LINK_AGE:
            link.go_away("age")
        if link.traffic.records >= limits.RECORDS_MOST:  # a channel that never ends has kept it from draining
            link.end(LinkLost("as many TLS records as one key may protect"))

    def stop(self) -> None:
        """The link is lost: nobody waits for a verdict any more."""
        if self._judgement is not None:
            self._judgement.cancel()

    async def _judge(self, link: "LinkLife", scope: Scope) -> None:
        try:
            with scope:
                await _judge_again(link)
        finally:
            self._judgement = None
            link.attend()  # trust may have changed again meanwhile


def _listen_for(link: "LinkLife", asked_at: float | None) -> float | None:
    """Ping a peer that has been silent, end the link if it still is long after; returns when it was pinged."""
    now, heard_at = anyio.current_time(), link.traffic.heard_at
    if asked_at is not None and heard_at < asked_at:
        if now - asked_at >= limits.KEEPALIVE:
            link.end(LinkLost(f"the peer has been silent for {now - heard_at:.0f} s"))
        return asked_at
    if now - heard_at < limits.KEEPALIVE:
        return None
    link.ping_nowait()
    return now


def _leave(link: "LinkLife", left_at: float | None) -> float | None:
    """End a link that its peer drains when long nothing was open on it: whoever makes new ones shall not gather old ones.
    Returns since when that has been so."""
    if not link.left:
        return None
    now = anyio.current_time()
    if left_at is None:
        return now
    if now - left_at >= limits.KEEPALIVE:
        link.go_away("drained")
    return left_at


async def _judge_again(link: "LinkLife") -> None:
    """Evidence that comes while other is being judged counts, but once: who goes on sending it is refused all the same."""
    shown = link.evidence
    refused = await _objection(link)
    if refused is not None and link.evidence is not shown:
        refused = await _objection(link)
    if refused is not None:
        link.refuse(refused)


async def _objection(link: "LinkLife") -> Refused | None:
    """None: there is a new verdict."""
    link.stale = False
    evidence = link.evidence
    chain = evidence.chain if evidence and evidence.chain else link.chain
    # Nobody dials now: whom a person has had forgotten must not be learned again from a link that was dialled once.
    context = replace(link.context, now=link.agent.clock(), given_by_person=False)
    try:
        with anyio.fail_after(limits.VERDICT):
            peer = await judge(
                link.agent.trust, chain, context=context,
                evidence=evidence.evidence if evidence else link.peer.presented.evidence,
                cache=link.agent.verdicts, expect=link.peer.peer_id, key_proved_at=link.peer.key_proved_at,
            )  # fmt: skip
    except Refused as refused:
        return refused
    except TimeoutError:
        return Refused(Reason.INTERNAL, by="us", peer=link.named, detail=NO_VERDICT)
    if peer.leaf.spki != link.peer.leaf.spki or author_of(peer) != link.traffic.peer_id:
        detail = "fresh evidence about another key or name"
        return Refused(Reason.WRONG_PEER, by="us", peer=link.named, detail=detail)
    link.peer = peer
    link.traffic.incoming.prove_by(peer.presented)
    return None
