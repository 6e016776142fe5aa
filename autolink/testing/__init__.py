"""Public fakes for tests of agents: throw-away authorities, link pairs without sockets, and a hostile network.

Nothing here weakens a check: the links of `link_pair` do the real TLS handshake, judge and sign.
"""

from autolink.testing.network import MemoryByteStream as MemoryByteStream
from autolink.testing.network import Network as Network
from autolink.testing.pairs import Authority as Authority
from autolink.testing.pairs import link_pair as link_pair
