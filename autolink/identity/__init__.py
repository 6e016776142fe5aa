"""Who I am: Auto IDs, the keys and certificates behind them, and where they are kept."""

from autolink.identity.anchor import TrustAnchor as TrustAnchor
from autolink.identity.autoid import BOUND as BOUND
from autolink.identity.autoid import AutoId as AutoId
from autolink.identity.autoid import PeerId as PeerId
from autolink.identity.autoid import key_authority as key_authority
from autolink.identity.certificate import OID_KIND as OID_KIND
from autolink.identity.certificate import OID_NEXT_KEY as OID_NEXT_KEY
from autolink.identity.certificate import Certificate as Certificate
from autolink.identity.certificate import EntityKind as EntityKind
from autolink.identity.certificate import dump_chain as dump_chain
from autolink.identity.certificate import load_chain as load_chain
from autolink.identity.credential import Credential as Credential
from autolink.identity.credential import CredentialRequest as CredentialRequest
from autolink.identity.keys import KeyType as KeyType
from autolink.identity.keystore import Keystore as Keystore
from autolink.identity.keystore import default_home as default_home
from autolink.identity.keystore import environment_passphrase as environment_passphrase
from autolink.identity.keystore import use_passphrase as use_passphrase
from autolink.identity.names import is_bound_to as is_bound_to
from autolink.identity.names import show_name as show_name
from autolink.identity.sealed import load_key as load_key
from autolink.identity.sealed import save_key as save_key
from autolink.identity.upstream import UpstreamIdentity as UpstreamIdentity
