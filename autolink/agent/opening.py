"""How a link opens: both sides say HELLO, both judge, both say ACCEPT or REFUSE (docs/spec.md, "Opening").

1. TLS is done: keys are proved, nobody is trusted yet.
2. HELLO goes out, behind our last words of TLS; the peer's comes in. No common version: REFUSE `version`. Clocks too far
   apart: `clock_skew`.
3. The link enters the agent's live table, so that a change of trust during the judgement reaches it.
4. The trust model judges the peer's whole chain, again if trust changed meanwhile.
5. Only then ACCEPT goes out. The link is open when the peer's ACCEPT is in.

After a resumed handshake TLS remembers the peer's leaf and nothing else, so each HELLO carries what stands above its
sender's leaf, and the judgement starts from scratch. A resumed link whose chain does not join is refused as
`full_handshake_needed`: the dialer forgets the session and dials once more.

Whoever refuses sends REFUSE and drains, so that the refusal arrives; both ends raise `Refused`. One deadline, the
caller's, covers all of it. Frames that ride behind the peer's ACCEPT wait inside the protocol object.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import anyio

from autolink import limits
from autolink.errors import IdentityError, Reason, Refused, RemoteProtocolError, display
from autolink.identity import BOUND, AutoId, Certificate, Credential, PeerId, is_bound_to, key_authority
from autolink.identity.rotation import check_rotations, rotations_in, split_chain
from autolink.protocol import AcceptReceived, Event, HelloReceived, LinkProtocol, RefuseReceived
from autolink.trust import Context, Model, VerifiedPeer, judge, recall
from autolink.version import __version__

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.transport import SecureStream


T = TypeVar("T", bound=Event)

_SOFTWARE: Final = f"autolink/{__version__}"
NO_VERDICT: Final = "the trust model gave no verdict in time"


class Row:
    """A place in the agent's live table, for a link that is being opened."""

    def __init__(self) -> None:
        self.stale = False

    def attend(self, *, stale: bool) -> None:
        """Trust changed: whatever verdict is being made now must be made again."""
        self.stale = self.stale or stale


class Opened(NamedTuple):
    """An opened link's parts, before any task runs.

    Attributes:
        credential: what we have shown; the agent's may be another one by now.
        chain: what was judged, leaf first.
        author: who signs what comes over the link.
        unsaid: our ACCEPT, if it is to go out with the first message.
    """

    credential: Credential
    stream: "SecureStream"
    protocol: LinkProtocol
    chain: tuple[bytes, ...]
    peer: VerifiedPeer
    author: AutoId
    unsaid: bytes = b""


async def open_link(
    agent: "Agent",
    credential: Credential,
    evidence: tuple[bytes, ...],
    stream: "SecureStream",
    row: Row,
    *,
    dialer: bool,
    expect: PeerId | None,
    context: Context,
    key_proved_at: datetime,
    settle: bool,
) -> Opened:
    """Carry the opening through; see the module for the steps.

    Args:
        evidence: the agent's, of when `credential` was its own; the newest is shown if that still is.

    Raises:
        Refused: we refused the peer or it refused us.
        RemoteProtocolError: the peer does not speak the protocol.
        anyio.BrokenResourceError, anyio.EndOfStream: the connection ended.
    """
    protocol = LinkProtocol(dialer)
    try:
        if agent.full:
            raise Refused(Reason.BUSY, by="us", detail=f"{limits.LINKS} links are open")
        stream.say(protocol.hello(_hello(agent, credential, evidence, resumed=stream.resumed)))
        hello = await _next(stream, protocol, HelloReceived)
        if hello.version is None:
            raise Refused(Reason.VERSION, by="us", detail="no protocol version in common")
        _check_clock(hello, agent.clock())
        circumstances: dict[str, Any] = {
            "context": context, "evidence": hello.evidence, "cache": agent.verdicts, "expect": expect,
            "key_proved_at": key_proved_at,
        }  # fmt: skip
        chain, peer, author = await _judge(agent, credential, stream, row, hello, circumstances)
        unsaid = protocol.accept()
        if settle:
            stream.say(unsaid)
            unsaid = b""
        await _next(stream, protocol, AcceptReceived)
        await stream.settle()
    except Refused as refused:
        agent.count_refused(refused)  # before the peer can know of it
        if refused.by == "us":
            await _say_no(stream, protocol, refused)
        raise
    except RemoteProtocolError as error:
        await _say_no(stream, protocol, Refused(Reason.MALFORMED, by="us", detail=str(error)))
        raise
    return Opened(credential, stream, protocol, chain, peer, author, unsaid)


def _hello(
    agent: "Agent", credential: Credential, evidence: tuple[bytes, ...], *, resumed: bool
) -> dict[str, object]:
    now = int(agent.clock().timestamp() * 1_000_000)
    said: dict[str, object] = {"clock": now, "software": _SOFTWARE}
    if resumed:
        said["chain"] = [certificate.der for certificate in credential.chain[1:]]
    if credential is agent.credential:
        evidence = agent.evidence  # else it is of another certificate than TLS has shown
    if shown := [*credential.evidence, *evidence]:
        said["evidence"] = shown
    return said


async def _next(stream: "SecureStream", protocol: LinkProtocol, wanted: type[T]) -> T:
    while True:
        while (event := protocol.next_event()) is None:
            protocol.receive_data(await stream.hear())
        if isinstance(event, RefuseReceived):
            raise Refused(event.reason, by="peer", offset=event.offset)
        if isinstance(event, wanted):
            return event
        raise RemoteProtocolError(f"{type(event).__name__} where {wanted.__name__} is due")


def _check_clock(hello: HelloReceived, now: datetime) -> None:
    offset = hello.clock / 1_000_000 - now.timestamp()
    if abs(offset) > limits.SKEW:
        raise Refused(Reason.CLOCK_SKEW, by="us", offset=offset)


async def _judge(
    agent: "Agent",
    credential: Credential,
    stream: "SecureStream",
    row: Row,
    hello: HelloReceived,
    circumstances: dict[str, Any],
) -> tuple[tuple[bytes, ...], VerifiedPeer, AutoId]:
    """The whole judgement, in time to tell the peer how it ended: what `Opened` holds of it.

    Args:
        circumstances: what `trust.judge` is told beside the chain.
    """
    chain = _without_rotations(stream.peer_chain, hello.evidence)
    if not agent.allow_self and _same_key(chain[0], credential.leaf):
        raise Refused(Reason.SELF, by="us", detail="the peer holds our own key")
    if stream.resumed:
        chain += hello.chain
        if not _ends_in_a_root(chain):
            raise Refused(Reason.FULL_HANDSHAKE_NEEDED, by="us", detail="its chain is not complete")
    try:
        peer = await _verdict(agent, stream, chain, row, circumstances)
    except Refused as refused:
        if stream.resumed and refused.reason is Reason.MALFORMED:
            raise Refused(
                Reason.FULL_HANDSHAKE_NEEDED, by="us", peer=refused.peer, detail=refused.detail
            ) from refused
        raise
    author = author_of(peer)
    if author is None:
        raise Refused(Reason.MALFORMED, by="us", peer=peer.name, detail="its certificate names no Auto ID")
    return chain, peer, author


def _without_rotations(chain: tuple[bytes, ...], evidence: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """A chain as TLS showed it, without the earlier certificates of its root, which HELLO says again. Whatever else stands
    behind it the judgement will refuse."""
    if not evidence:
        return chain
    try:
        earlier = tuple([certificate.der for certificate in reversed(rotations_in(evidence))])
    except IdentityError:
        return chain
    return chain[: -len(earlier)] if earlier and chain[-len(earlier) :] == earlier else chain


def _was_rotated(earlier: tuple[Certificate, ...], root: Certificate) -> bool:
    try:
        check_rotations(earlier, root)
    except IdentityError:
        return False
    return root.self_issued


def author_of(peer: VerifiedPeer) -> AutoId | None:
    """Whom the messages of a link name as their author; of a path that is incomplete the one that it claims."""
    return peer.presented.auto_id or peer.leaf.auto_id


def _ends_in_a_root(chain: tuple[bytes, ...]) -> bool:
    try:
        return Certificate.parse_untrusted(chain[-1]).self_issued
    except IdentityError:
        return False


def _same_key(der: bytes, own: Certificate) -> bool:
    try:
        return Certificate.parse_untrusted(der).public_key == own.public_key
    except IdentityError:
        return False  # the judgement will say what is wrong with it


async def _verdict(
    agent: "Agent",
    stream: "SecureStream",
    chain: tuple[bytes, ...],
    row: Row,
    circumstances: dict[str, Any],
) -> VerifiedPeer:
    """A verdict during which trust did not change."""
    known = recall(agent.trust, chain, **circumstances)
    if known is not None:
        return known
    await stream.flush()  # our HELLO: the peer can judge meanwhile
    with anyio.move_on_after(limits.VERDICT):
        while True:
            row.stale = False
            peer = await judge(agent.trust, chain, **circumstances)
            if not row.stale and not has_ended(peer, agent.trust):
                return peer
    raise Refused(Reason.INTERNAL, by="us", detail=NO_VERDICT)


def has_ended(peer: VerifiedPeer, trust: Model) -> bool:
    """Whether trust has changed since this verdict, as also another process may do, in a file."""
    try:
        return peer.epoch != trust.epoch_of(peer.presented.ids)
    except Exception:  # noqa: BLE001  foreign code; judge asks it, too, and refuses with the cause
        return True


async def _say_no(stream: "SecureStream", protocol: LinkProtocol, refused: Refused) -> None:
    """Best effort by nature: the peer may be gone, and our own error is the one that counts."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(limits.REFUSAL_DRAIN):
        try:
            stream.say(protocol.refuse(refused.reason, refused.offset))
            await stream.settle()
            await stream.shutdown_politely()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            return


def name_of(peer: VerifiedPeer) -> str:
    """A peer for logs and errors."""
    return f"{display(peer.name)} ({peer.principal[:12]}…)"


def early_objection(expect: PeerId, trust: Model) -> Callable[[tuple[bytes, ...]], str | None]:
    """What a dialer looks at before it shows its own certificate: is this the chain of whom we expect?

    It only spares us showing ourselves to an impostor. The judgement proper comes with the trust model, and so does the
    answer where what we expect rests on a key that no chain has, such as a registry's.
    """

    return partial(_objection, expect, expect.auto_id is not None and _rests_on(trust, expect.authority))


def _rests_on(trust: Model, authority: str) -> bool:
    try:
        return trust.rests_on(authority)
    except Exception:  # noqa: BLE001  foreign code: the strict answer, as if it had said nothing
        return False


@lru_cache(maxsize=64)
def _objection(expect: PeerId, elsewhere: bool, chain: tuple[bytes, ...]) -> str | None:
    """A fact about whom we expect and these bytes.

    Args:
        elsewhere: the expected authority need not be in the chain.
    """
    try:
        certificates = [Certificate.parse_untrusted(der) for der in chain]
    except IdentityError as error:
        return str(error)
    chain_only, earlier = split_chain(certificates)
    leaf, root = certificates[0], chain_only[-1]
    if expect.auto_id is not None and leaf.auto_id != expect.auto_id:
        return "another Auto ID answered"
    if expect.authority == BOUND:
        if not (is_bound_to(root.common_name, root.spki, root.next_key_hash) or _was_rotated(earlier, root)):
            return "its name is not bound to its key"
    elif not elsewhere and expect.authority not in {key_authority(one.spki_sha256) for one in chain_only}:
        return "the key is not the expected one"
    return None
