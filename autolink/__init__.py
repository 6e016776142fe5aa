"""Agents of different owners prove who they are with mutual TLS and exchange signed messages.

Start with `Credential` (who I am), a trust model from `autolink.trust` (whom I believe), `Handlers` (what I do) and
`Agent`, which brings them together. Errors are in `autolink.errors`, fakes for your tests in `autolink.testing`.
"""

from autolink.agent import ANYONE_TRUSTED as ANYONE_TRUSTED
from autolink.agent import Agent as Agent
from autolink.agent import Call as Call
from autolink.agent import Channel as Channel
from autolink.agent import Handlers as Handlers
from autolink.agent import KeptLink as KeptLink
from autolink.agent import Link as Link
from autolink.agent import Listener as Listener
from autolink.agent import Received as Received
from autolink.agent import Subscription as Subscription
from autolink.agent import Topic as Topic
from autolink.errors import AutolinkError as AutolinkError
from autolink.errors import BodyError as BodyError
from autolink.errors import CallError as CallError
from autolink.errors import Code as Code
from autolink.errors import DeliveryUnknown as DeliveryUnknown
from autolink.errors import EnvelopeRefused as EnvelopeRefused
from autolink.errors import IdentityError as IdentityError
from autolink.errors import LinkLost as LinkLost
from autolink.errors import Reason as Reason
from autolink.errors import Refused as Refused
from autolink.errors import RemoteProtocolError as RemoteProtocolError
from autolink.errors import UsageError as UsageError
from autolink.identity import AutoId as AutoId
from autolink.identity import Credential as Credential
from autolink.identity import CredentialRequest as CredentialRequest
from autolink.identity import EntityKind as EntityKind
from autolink.identity import KeyType as KeyType
from autolink.identity import PeerId as PeerId
from autolink.identity import TrustAnchor as TrustAnchor
from autolink.messages import Envelope as Envelope
from autolink.messages import Message as Message
from autolink.messages import VerifiedMessage as VerifiedMessage
from autolink.transport import Contact as Contact
from autolink.transport import TlsInfo as TlsInfo
from autolink.trust import VerifiedPeer as VerifiedPeer
from autolink.version import __version__ as __version__
