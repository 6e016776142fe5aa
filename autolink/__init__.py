"""Agents of different owners prove who they are with mutual TLS and exchange signed messages.

Start with `Credential` (who I am), a trust model from `autolink.trust` (whom I believe), `Handlers` (what I do) and
`Agent`, which brings them together. Errors are in `autolink.errors`, fakes for your tests in `autolink.testing`.
"""

from autolink.agent import (
    ANYONE_TRUSTED,
    Agent,
    Call,
    Channel,
    Handlers,
    KeptLink,
    Link,
    Listener,
    Received,
    Subscription,
    Topic,
)
from autolink.errors import (
    AutolinkError,
    BodyError,
    CallError,
    Code,
    DeliveryUnknown,
    EnvelopeRefused,
    IdentityError,
    LinkLost,
    Reason,
    Refused,
    RemoteProtocolError,
    UsageError,
)
from autolink.identity import AutoId, Credential, CredentialRequest, EntityKind, KeyType, PeerId, TrustAnchor
from autolink.messages import Envelope, Message, VerifiedMessage
from autolink.transport import Contact, TlsInfo
from autolink.trust import VerifiedPeer
from autolink.version import __version__

__all__ = [
    "ANYONE_TRUSTED", "Agent", "Call", "Channel", "Handlers", "KeptLink", "Link", "Listener", "Received", "Subscription",
    "Topic",
    "AutolinkError", "BodyError", "CallError", "Code", "DeliveryUnknown", "EnvelopeRefused", "IdentityError", "LinkLost",
    "Reason", "Refused", "RemoteProtocolError", "UsageError",
    "AutoId", "Credential", "CredentialRequest", "EntityKind", "KeyType", "PeerId", "TrustAnchor",
    "Envelope", "Message", "VerifiedMessage",
    "Contact", "TlsInfo",
    "VerifiedPeer",
    "__version__",
]  # fmt: skip
