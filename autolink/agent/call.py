"""What a handler is told about the message it answers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

from autolink.agent.handlers import Method
from autolink.agent.received import Received
from autolink.errors import BodyError, CallError, Code, display
from autolink.messages import Envelope, Message
from autolink.trust import VerifiedPeer

if TYPE_CHECKING:
    from autolink.agent.link import Link


@final
class Call:
    """One call, as its handler sees it. The caller's deadline is the current cancel scope's.

    Attributes:
        method: the method's name.
        peer: the far end of the link.
        author: who signed the message; `peer` itself, except on a method registered with ``forwarded=True``.
        link: the link it came on; a handler may call back on it.
        headers: strings beside the body, W3C `traceparent` among them; signed like the body.
    """

    __slots__ = ("_source", "author", "headers", "link", "method", "peer")

    def __init__(
        self, method: str, peer: VerifiedPeer, author: VerifiedPeer, link: "Link", headers: Mapping[str, str],
        source: Received | Envelope,
    ) -> None:  # fmt: skip
        self.method = method
        self.peer = peer
        self.author = author
        self.link = link
        self.headers = headers
        self._source = source

    @property
    def message(self) -> Message:
        """The signed message itself."""
        return self._source.claimed if isinstance(self._source, Envelope) else self._source.message

    def envelope(self) -> Envelope:
        """The message with its proof: exact bytes that anyone can verify later, offline."""
        if isinstance(self._source, Envelope):
            return self._source
        return self._source.envelope()

    def __repr__(self) -> str:
        return f"<Call {self.method!r} by {display(self.author.name)}>"


async def answer(method: Method, call: Call, body: bytes) -> bytes:
    """Run a method on a body.

    Raises:
        CallError: `invalid_argument` for a body of the wrong type; whatever the method raises.
    """
    try:
        argument = method.takes.decode_untrusted(body)
    except BodyError as error:
        raise CallError(Code.INVALID_ARGUMENT, str(error)) from None
    return method.returns.encode(await method.function(call, argument))
