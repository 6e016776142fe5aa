"""A log in memory, and parties that register in it and change what is on record about them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autolink.identity import AutoId, Certificate, Credential, CredentialRequest, EntityKind, keys
from autolink.identity.issuing import build_self_issued
from autolink.identity.keys import KeyType, PrivateKey
from autolink.messages import instant, microseconds
from autolink.registry import registration
from autolink.registry.entries import FIRST, Entry, Guardians, Op, guardian_hash
from autolink.registry.ledger import Applied, Standing, standing
from autolink.registry.records import SECOND, Record, State
from autolink.registry.state import apply

ORIGIN = "registry.example/log"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
DELAY = 7 * 24 * 3600


class MemoryLedger:
    """A state in memory."""

    def __init__(self) -> None:
        self.records: dict[AutoId, Record] = {}
        self.used: set[bytes] = set()

    def record(self, auto_id: AutoId) -> Record | None:
        return self.records.get(auto_id)

    def is_used(self, key: bytes) -> bool:
        return key in self.used

    def take(self, applied: Applied) -> None:
        self.records[applied.record.auto_id] = applied.record
        if applied.used is not None:
            self.used.add(applied.used)


@dataclass
class Log:
    """Entries that were taken, and the state that followed."""

    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    now: int = microseconds(START)
    entries: list[Entry] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def append(self, entry: Entry) -> Record:
        entry = Entry.from_untrusted(entry.to_bytes())
        applied = apply(self.ledger, entry, origin=ORIGIN, now=self.now, index=len(self.entries))
        self.ledger.take(applied)
        self.entries.append(entry)
        self.times.append(self.now)
        self.wait(1)
        return applied.record

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def record(self, who: "Party") -> Record:
        found = self.ledger.record(who.auto_id)
        assert found is not None
        return found.at(self.now)

    def standing(self, who: "Party") -> Standing:
        return standing(self.ledger, self.record(who), self.now)

    def state(self, who: "Party") -> State:
        return self.standing(who).state


def new_key() -> PrivateKey:
    return keys.generate(KeyType.P256)


@dataclass
class Party:
    """An ID, the keys that its owner has, and the entries that it can make."""

    log: Log
    credential: Credential
    next_key: PrivateKey
    issuer: "Party | None" = None
    guards: tuple[tuple["Party", bytes], ...] = ()

    @property
    def auto_id(self) -> AutoId:
        return self.credential.auto_id

    @property
    def key(self) -> PrivateKey:
        return self.credential.private_key

    def entry(self, op: Op, **changes: Any) -> Entry:
        """An entry of this kind that would be taken, but for its signatures."""
        known = self.log.ledger.record(self.auto_id)
        values: dict[str, Any] = {
            "origin": ORIGIN,
            "op": op,
            "auto_id": self.auto_id,
            "previous": FIRST if op is Op.REGISTER or known is None else known.head,
            "expires_at": self.log.now + 3600 * SECOND,
        }
        if known is None and op is not Op.REGISTER:
            values["previous"] = bytes(32)
        return Entry(**values | changes)

    def register(self, **changes: Any) -> Entry:
        guardians = Guardians(
            tuple(sorted(guardian_hash(guard.auto_id, salt) for guard, salt in self.guards)),
            min(2, len(self.guards)),
            DELAY,
        )
        entry = self.entry(Op.REGISTER, **{
            "issuer": self.issuer.auto_id if self.issuer else None,
            "certificate": self.credential.leaf.der,
            "next_key": keys.hash_of_key(self.next_key.public_key()), "guardians": guardians,
        } | changes).signed(self.auto_id, self.key)  # fmt: skip
        return entry.signed(self.issuer.auto_id, self.issuer.key) if self.issuer else entry

    def renew(self, **changes: Any) -> Entry:
        values = {"certificate": self.certify(self.key).der} | changes
        return self.entry(Op.RENEW, **values).signed(self.auto_id, self.key)

    def rotate(self, after: PrivateKey | None = None, **changes: Any) -> Entry:
        """To the next key; `after` is the one after that."""
        following = keys.hash_of_key((after or new_key()).public_key())
        values = {"certificate": self.certify(self.next_key, following).der, "next_key": following} | changes
        return self.entry(Op.ROTATE, **values).signed(self.auto_id, self.next_key)

    def revoke(self, by: "Party | None" = None, **changes: Any) -> Entry:
        signer = by or self
        return self.entry(Op.REVOKE, **changes).signed(signer.auto_id, signer.key)

    def deactivate(self, by: "Party | None" = None, **changes: Any) -> Entry:
        entry = self.entry(Op.DEACTIVATE, **changes)
        return (
            entry.signed(by.auto_id, by.key) if by else entry.signed(self.auto_id, self.next_key, reveal=True)
        )

    def recover(self, key: PrivateKey | None = None, *, guards: Any = None, **changes: Any) -> Entry:
        """To a new key, by the issuer or by the guardians."""
        key = key or new_key()
        following = keys.hash_of_key(new_key().public_key())
        chosen = (self.guards if guards is None else guards) if self.issuer is None else ()
        values = {
            "certificate": self.certify(key, following).der, "next_key": following,
            "revealed": tuple((guard.auto_id, salt) for guard, salt in chosen),
        } | changes  # fmt: skip
        entry = self.entry(Op.RECOVER, **values).signed(self.auto_id, key)
        for signer in [self.issuer] if self.issuer else [guard for guard, _ in chosen]:
            entry = entry.signed(signer.auto_id, signer.key)
        return entry

    def delay(self, **changes: Any) -> Entry:
        return self.entry(Op.DELAY, **changes).signed(self.auto_id, self.key)

    def guardians(self, **changes: Any) -> Entry:
        values = {"guardians": Guardians((), 0, DELAY)} | changes
        return self.entry(Op.GUARDIANS, **values).signed(self.auto_id, self.next_key, reveal=True)

    def service(self, **changes: Any) -> Entry:
        values = {"service": b"where and what"} | changes
        return self.entry(Op.SERVICE, **values).signed(self.auto_id, self.key)

    def make(self, op: Op) -> Entry:
        """An entry of this kind as its owner would make it."""
        return {
            Op.REGISTER: self.register, Op.RENEW: self.renew, Op.ROTATE: self.rotate, Op.REVOKE: self.revoke,
            Op.DEACTIVATE: self.deactivate, Op.RECOVER: self.recover, Op.DELAY: self.delay,
            Op.GUARDIANS: self.guardians, Op.SERVICE: self.service,
        }[op]()  # fmt: skip

    def certify(self, key: PrivateKey, following: bytes | None = None) -> Certificate:
        """A certificate of this ID over `key`, as its issuer or it itself would give it now."""
        now = instant(self.log.now)
        leaf = self.credential.leaf
        if self.issuer is not None:
            request = CredentialRequest.from_key(leaf.common_name, key)
            kind = leaf.kind or EntityKind.AGENT
            may_issue = 0 if leaf.x509.extensions.get_extension_for_class(_basic()).value.ca else None
            return self.issuer.credential.issue(request, kind=kind, may_issue=may_issue, now=now)[0]
        following = following if following is not None else leaf.next_key_hash
        return build_self_issued(
            leaf.common_name, key, kind=leaf.kind or EntityKind.ORGANIZATION, now=now,
            next_key_hash=following if "~" in leaf.common_name else None, lifetime=timedelta(days=365),
        )  # fmt: skip

    def take_key(self, key: PrivateKey, next_key: PrivateKey) -> None:
        """Go on as the holder of the key that is on record now."""
        record = self.log.record(self)
        chain: tuple[Certificate, ...] = (Certificate.parse_untrusted(record.certificate),)
        rotations = tuple(map(Certificate.parse_untrusted, record.rotations))
        if self.issuer:
            chain, rotations = (*chain, *self.issuer.credential.chain), self.issuer.credential.rotations
        self.credential = Credential.from_key(chain, key, rotations=rotations)
        self.next_key = next_key


def _basic() -> Any:
    from cryptography import x509

    return x509.BasicConstraints


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that was lost is dialled again at once: no test waits for back-off."""
    monkeypatch.setattr(registration, "back_off", lambda failures: 0.0)
    monkeypatch.setattr(registration, "_SOON", 0.0)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def organisation(log: Log) -> Any:
    """Makes a self-issued party; on record unless told otherwise."""

    def make(name: str, *, plain: bool = False, guards: Any = (), registered: bool = True) -> Party:
        credential = Credential.self_issued(
            name, plain=plain, now=instant(log.now), lifetime=timedelta(days=365)
        )
        party = Party(log, credential, credential.next_key or new_key(), guards=tuple(guards))
        if registered:
            log.append(party.register())
        return party

    return make


@pytest.fixture
def issued(log: Log) -> Any:
    """Makes a party that another one has issued."""

    def make(issuer: Party, name: str, *, may_issue: int | None = None, registered: bool = True) -> Party:
        request = CredentialRequest.new(name)
        chain = issuer.credential.issue(
            request, kind=EntityKind.AGENT, may_issue=may_issue, now=instant(log.now)
        )
        party = Party(log, request.complete(chain), new_key(), issuer=issuer)
        if registered:
            log.append(party.register())
        return party

    return make


@pytest.fixture
def acme(organisation: Any) -> Party:
    """An organisation with three guardians, two of whom must sign."""
    guards = [(organisation(f"guard-{number}"), bytes([number]) * 16) for number in range(3)]
    return organisation("acme", guards=guards)


@pytest.fixture
def echo(acme: Party, issued: Any) -> Party:
    """An agent of acme's."""
    return issued(acme, "echo")
