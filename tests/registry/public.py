"""A log with a few hundred entries as it is kept and served, for the tests of its public side."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink.identity import Credential, CredentialRequest, EntityKind
from autolink.messages import instant
from autolink.registry.audit import Audit
from autolink.registry.crl import Issued, make_crl, publish
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.sources import FolderSource
from autolink.registry.store import SqliteStore

from .conftest import ORIGIN, Log, Party, new_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@dataclass
class Kept:
    """A log in memory and the same on disk."""

    log: Log
    folder: Path
    store: SqliteStore
    registrar: Registrar
    acme: Party
    echo: Party

    @property
    def key(self) -> Any:
        return self.registrar.verifier_key

    @property
    def leaves(self) -> list[bytes]:
        return self.store.read_leaves(0, self.store.head.size)

    def add(self, *entries: Any) -> None:
        """Append to both."""
        for entry in entries:
            self.log.append(entry)
        self.flush()

    def flush(self) -> None:
        """Append to the one on disk what the one in memory has more."""
        while missing := self.log.entries[self.store.head.size :][:100]:
            for outcome in self.registrar.append([entry.to_bytes() for entry in missing]):
                assert isinstance(outcome, Appended), outcome


@contextmanager
def kept(folder: Path, *, size: int = 0) -> Iterator[Kept]:
    """A log of at least so many entries: acme, its agent echo, then acme's service records."""
    log = Log()
    acme = organisation(log, "acme")
    echo = agent(log, acme, "echo")
    SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        made = Kept(log, folder, store, Registrar(store, KEY, lambda: log.now), acme, echo)
        while len(log.entries) < size:
            log.append(acme.service(service=bytes([len(log.entries) % 256])))
        made.flush()
        yield made


def organisation(log: Log, name: str, *, plain: bool = False) -> Party:
    """A self-issued party, on record."""
    credential = Credential.self_issued(name, plain=plain, now=instant(log.now), lifetime=timedelta(days=365))
    party = Party(log, credential, credential.next_key or new_key())
    log.append(party.register())
    return party


def agent(log: Log, issuer: Party, name: str, *, may_issue: int | None = None) -> Party:
    """A party that another one has issued, on record."""
    request = CredentialRequest.new(name)
    chain = issuer.credential.issue(request, kind=EntityKind.AGENT, may_issue=may_issue, now=instant(log.now))
    party = Party(log, request.complete(chain), new_key(), issuer=issuer)
    log.append(party.register())
    return party


def issued_by(kept: Kept, issuer: Party) -> Issued:
    """What a replay of the whole log shows that somebody has issued."""
    issued = Issued(issuer.auto_id)
    with FolderSource(kept.folder) as source:
        Audit(kept.key).replay(source, each=issued.take)
    return issued


def publish_crl(kept: Kept, issuer: Party | None = None) -> bytes:
    """Have an issuer, acme if not given, make its revocation list from the log, and the registry serve it."""
    issuer = issuer or kept.acme
    kept.log.wait(1)  # a list is newer than the one before it
    now = instant(kept.log.now)
    der = make_crl(issuer.credential, issued_by(kept, issuer), size=kept.store.head.size, now=now)
    publish(kept.store, issuer.auto_id, der, now=now)
    return der
