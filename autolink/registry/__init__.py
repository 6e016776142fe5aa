"""A registry of Auto IDs: an append-only log that anybody can check, and agents that believe what it says.

`Registered` is the trust model, and `registered` keeps an agent up with its registry: both are all that an agent needs. To
change what is on record, make an entry (`making`) and submit it with `RegistryClient`. To run a registry, serve a
`RegistryService` over a folder (`create_registry`, `SqliteStore`, `Registrar`). Its public side over HTTP is in
`autolink.registry.http` and `httpd`, which need the extra `registry`.
"""

from autolink.registry import making
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Entry
from autolink.registry.folder import create_registry, load_log_key
from autolink.registry.log.note import VerifierKey
from autolink.registry.policy import Invited, Open, Rate
from autolink.registry.records import State
from autolink.registry.registrar import Registrar
from autolink.registry.registration import Registration, registered
from autolink.registry.service import RegistryService
from autolink.registry.store import SqliteStore
from autolink.registry.submitter import Logged, Withheld
from autolink.registry.trust import Registered

__all__ = [
    "making", "Entry",
    "Logged", "RegistryClient", "Withheld",
    "create_registry", "load_log_key", "SqliteStore", "Registrar", "RegistryService",
    "Invited", "Open", "Rate",
    "State", "VerifierKey",
    "Registration", "registered", "Registered",
]  # fmt: skip
