"""Messages that somebody else carries: an Envelope inside a FORWARD message.

What is handed over is judged by its own author, as a peer would be: the link's peer only vouches for having carried
it. The recipient checks signature, trust, time and address, remembers the message until it expires so that it acts
on it once, and answers with an Envelope of its own, signed for the author. An agent that is not the recipient gives
it to its forwarder, unverified and unchanged, or refuses it as misaddressed.
"""

from typing import TYPE_CHECKING, Final

from autolink import codec
from autolink.agent.call import Call, answer
from autolink.agent.received import Received
from autolink.errors import CallError, Code, EnvelopeRefused, Reason, RemoteProtocolError
from autolink.messages import Envelope, Kind, Message, VerifiedMessage
from autolink.messages.batch import ALONE

if TYPE_CHECKING:
    from autolink.agent.handlers import Method
    from autolink.agent.link import Link

IN_REPLY_TO: Final = "in-reply-to"
"""The header of an answer that holds the id, in hex, of the message it answers: a relay cannot bring an older one."""


async def receive(link: "Link", received: Received) -> bytes:
    """Act on a FORWARD message and return the body of its reply.

    Raises:
        EnvelopeRefused: the envelope, or its author, is refused here or by whom it was passed on to.
        CallError: it asks for what is not served to forwarded messages, or the handler says so.
    """
    agent = link.agent
    try:
        carried = _bytes(received.body)
    except RemoteProtocolError as error:
        raise CallError(Code.INVALID_ARGUMENT, str(error)) from None
    envelope = Envelope.from_untrusted(carried)
    claimed = envelope.claimed
    if claimed.recipient != agent.auto_id:
        if agent.handlers.forwarding is None:
            raise EnvelopeRefused(
                Reason.WRONG_RECIPIENT, by="us", peer=claimed.author.short, detail="not for us"
            )
        call = Call(claimed.method, link.peer, link.peer, link, received.message.headers, received)
        passed_on = await agent.handlers.forwarding(call, envelope)
        return codec.encode(None if passed_on is None else passed_on.to_bytes())
    if claimed.author == agent.auto_id:
        raise EnvelopeRefused(
            Reason.SELF, by="us", peer=claimed.author.short, detail="our own message came back"
        )
    verified = await agent.verify(envelope)
    if envelope.role != ALONE:  # its proof may be shown, but it was acted on once, on its own link
        raise EnvelopeRefused(
            Reason.REPLAYED, by="us", peer=claimed.author.short, detail="it was said on a link"
        )
    await agent.admit_once(verified)
    return codec.encode((await _carry_out(link, envelope, verified)).to_bytes())


async def _carry_out(link: "Link", envelope: Envelope, verified: VerifiedMessage) -> Envelope:
    message = verified.message
    method: Method | None = link.agent.handlers.methods.get(message.method)
    if message.kind is not Kind.CALL or method is None or not method.forwarded:
        raise CallError(Code.UNIMPLEMENTED, "no such method for forwarded messages")
    call = Call(message.method, link.peer, verified.author, link, message.headers, envelope)
    body = await answer(method, call, message.body)
    headers = {IN_REPLY_TO: message.id.hex()}
    return link.agent.seal(message.author, message.method, body, kind=Kind.REPLY, headers=headers)


def answered(body: bytes, question: Message) -> Envelope | None:
    """The answer inside a FORWARD message's reply: of the question's recipient, for its author, to this question.

    That it is signed so, its receiver finds out by `Agent.verify`.

    Raises:
        RemoteProtocolError: it is neither nil nor an envelope's bytes.
        EnvelopeRefused: the envelope is malformed, or answers something else.
    """
    if codec.decode_untrusted(body, what="forwarded answer") is None:
        return None
    envelope = Envelope.from_untrusted(_bytes(body))
    says = envelope.claimed
    if (says.kind, says.author, says.recipient, says.headers.get(IN_REPLY_TO)) != (
        Kind.REPLY, question.recipient, question.author, question.id.hex(),
    ):  # fmt: skip
        raise EnvelopeRefused(
            Reason.REPLAYED, by="us", peer=says.author.short, detail="it is no answer to what was forwarded"
        )
    return envelope


def _bytes(body: bytes) -> bytes:
    value = codec.decode_untrusted(body, what="forwarded envelope")
    if type(value) is not bytes:
        raise RemoteProtocolError("forwarded envelope: not a byte string")
    return value
