"""The one home of the version; the wire is versioned by ALPN alone, not by this."""

__version__ = "0.1.0"
