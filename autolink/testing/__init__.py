"""Public fakes for tests of agents: throw-away authorities, link pairs without sockets, and a hostile network.

Nothing here weakens a check: the links of `link_pair` do the real TLS handshake, judge and sign. `autolink.testing.target`
is something to put load on.
"""

from autolink.testing.network import MemoryByteStream, Network
from autolink.testing.pairs import Authority, link_pair

__all__ = [
    "MemoryByteStream", "Network",
    "Authority", "link_pair",
]  # fmt: skip
