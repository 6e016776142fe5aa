"""A registry that is served in memory, and agents on record in it. On the real clock: SQLite works in threads."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Credential, CredentialRequest, EntityKind
from autolink.errors import Reason, Refused
from autolink.identity import AutoId, keys
from autolink.messages import instant, microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry.client import RegistryClient
from autolink.registry.entries import FIRST, Entry, Guardians, Op
from autolink.registry.ledger import standing as standing_of
from autolink.registry.policy import Open, Rate
from autolink.registry.records import Record
from autolink.registry.registrar import Registrar
from autolink.registry.service import RegistryService
from autolink.registry.status import sign_status
from autolink.registry.store import SqliteStore
from autolink.registry.trust import Registered
from autolink.testing import Network
from autolink.trust import SelfCertified

from .conftest import new_key

ORIGIN = "registry.example/log"
AT = "registry:1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
"""The log's, where no other is given."""


@dataclass
class Served:
    """A registry that runs, and the network that it is reached in."""

    network: Network
    store: SqliteStore
    registrar: Registrar
    policy: Any
    agent: Agent

    @property
    def key(self) -> Any:
        return self.registrar.verifier_key

    @asynccontextmanager
    async def client(self, agent: Agent) -> AsyncIterator[RegistryClient]:
        async with agent.connect(AT, expect=self.agent.peer_id) as link:
            yield RegistryClient(link, self.key)

    def join(self, agent: Agent) -> Agent:
        self.network.join(agent)
        return agent


def now() -> int:
    return microseconds(datetime.now(UTC))


@asynccontextmanager
async def serving(
    folder: Path, policy: Any = None, key: Any = None, clock: Callable[[], int] = now
) -> AsyncIterator[Served]:
    if not (folder / "log.db").exists():
        SqliteStore.create(folder, ORIGIN)
    with SqliteStore(folder) as store:
        registrar = Registrar(store, key or KEY, clock)
        policy = policy or Open(Rate(anyio.current_time))
        service = RegistryService(store, registrar, policy)
        agent = Agent(
            Credential.self_issued("registry"), trust=SelfCertified(), handlers=service.handlers,
            clock=lambda: instant(clock()),
        )  # fmt: skip
        network = Network()
        network.join(agent)
        async with service.running(agent), network.listening(agent, AT):
            yield Served(network, store, registrar, policy, agent)


def entry(op: Op, auto_id: AutoId, previous: bytes, **fields: Any) -> Entry:
    return Entry(ORIGIN, op, auto_id, previous, now() + 60_000_000, **fields)


def registration(credential: Credential, issuer: Credential | None = None) -> Entry:
    following = credential.next_key or new_key()
    made = entry(
        Op.REGISTER, credential.auto_id, FIRST, issuer=issuer.auto_id if issuer else None,
        certificate=credential.leaf.der, next_key=keys.hash_of_key(following.public_key()), guardians=Guardians(),
    ).signed(credential.auto_id, credential.private_key)  # fmt: skip
    return made.signed(issuer.auto_id, issuer.private_key) if issuer else made


def issue(issuer: Credential, name: str) -> Credential:
    request = CredentialRequest.new(name)
    return request.complete(issuer.issue(request, kind=EntityKind.AGENT))


@dataclass
class Cast:
    """acme and two agents of its, all on record, believing whom the registry says is active."""

    acme: Credential
    echo: Agent
    caller: Agent
    models: tuple[Registered, Registered]


async def cast(served: Served) -> Cast:
    acme = Credential.self_issued("acme")
    agents, models = [], (Registered(served.key), Registered(served.key))
    async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
        await client.submit(registration(acme))
        for name, model in zip(("echo", "caller"), models, strict=True):
            credential = issue(acme, name)
            await client.submit(registration(credential, acme))
            agents.append(served.join(Agent(credential, trust=SelfCertified() & model)))
    await staple(served, *agents)
    return Cast(acme, *agents, models)


async def opens(served: Served, players: Cast) -> Reason | None:
    """Whether a link opens between two agents, and why not."""
    try:
        async with served.network.listening(players.echo, "echo:1"):
            async with players.caller.connect("echo:1", expect=players.echo.peer_id):
                return None
    except Refused as refusal:
        return refusal.reason


async def staple(served: Served, *agents: Agent) -> None:
    """Have agents fetch and show their newest status."""
    for agent in agents:
        status = served.registrar.status(agent.auto_id)
        assert status is not None
        agent.replace_evidence(status.to_bytes())


def signed(served: Served, record: Record, place: int, at: int) -> bytes:
    """A status as the log would sign it at some time, with the proof of the entry at a place."""
    (leaf,) = served.store.read_leaves(record.touched, record.touched + 1)
    return sign_status(
        record, standing_of(served.store, record, at), origin=ORIGIN, leaf=leaf_hash(leaf),
        proof=served.registrar.proof(place), now=at, key=KEY,
    ).to_bytes()  # fmt: skip


async def until(condition: Any) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()
