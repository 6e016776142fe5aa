"""How a link talks: frames, opening, channels, credit, drain. No sockets, keys, clock or randomness.

`LinkProtocol` is the whole of it for whoever moves the bytes; `docs/spec.md` is the normative text.
"""

from autolink.protocol.events import (
    AcceptReceived,
    BatchReceived,
    ChannelCancelled,
    ChannelRefused,
    CreditReceived,
    Event,
    EvidenceReceived,
    GoAwayReceived,
    HelloReceived,
    Limits,
    LinkStatistics,
    PingReceived,
    PongReceived,
    RefuseReceived,
)  # fmt: skip
from autolink.protocol.frames import DATA, ENDS, OPENS, Gathered, Item, OwnItem, Part
from autolink.protocol.link_protocol import LinkProtocol
from autolink.protocol.table import LinkState

__all__ = [
    "LinkProtocol", "LinkState", "LinkStatistics", "Limits", "Item", "OwnItem", "Gathered", "Part", "OPENS", "ENDS", "DATA",
    "Event", "HelloReceived", "AcceptReceived", "RefuseReceived", "BatchReceived", "ChannelRefused", "CreditReceived",
    "ChannelCancelled", "PingReceived", "PongReceived", "EvidenceReceived", "GoAwayReceived",
]  # fmt: skip
