"""Who I am: Auto IDs, the keys and certificates behind them, and where they are kept."""

from autolink.identity.anchor import TrustAnchor
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.certificate import (
    OID_KIND,
    OID_NEXT_KEY,
    OID_RECOVERED_IN,
    Certificate,
    EntityKind,
    dump_chain,
    load_chain,
)
from autolink.identity.credential import Credential
from autolink.identity.keys import KeyType
from autolink.identity.keystore import Keystore, default_home, environment_passphrase, use_passphrase
from autolink.identity.names import is_bound_to, show_name
from autolink.identity.request import CredentialRequest
from autolink.identity.sealed import load_key, save_key
from autolink.identity.upstream import UpstreamIdentity

__all__ = [
    "TrustAnchor",
    "BOUND", "AutoId", "PeerId", "key_authority",
    "OID_KIND", "OID_NEXT_KEY", "OID_RECOVERED_IN", "Certificate", "EntityKind", "dump_chain", "load_chain",
    "Credential", "CredentialRequest",
    "KeyType",
    "Keystore", "default_home", "environment_passphrase", "use_passphrase",
    "is_bound_to", "show_name",
    "load_key", "save_key",
    "UpstreamIdentity",
]  # fmt: skip
