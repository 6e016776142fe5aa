"""The last scene: everybody goes on record in a registry, and one agent's key is revoked while it is talking.

The organisations sign here; an agent signs its own entry in its own process, and the registry is one more process. Nothing
that it answers is believed because it answers: `RegistryClient` checks the proof that each entry is in the log.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import anyio

from autolink import Agent, AutoId, Contact, Credential
from autolink.registry import Entry, RegistryClient, State, VerifierKey, making
from autolink.trust import Pinned


class Actor(Protocol):
    """A process of the demo, as `launcher.Actor`."""

    async def hear(self) -> dict[str, Any]: ...

    async def answer(self, **answer: object) -> None: ...


class OnRecord:
    """What the two organisations do at the registry.

    Args:
        scene: takes what was seen, a detail of it, and whether it was right.

    Attributes:
        registered: IDs that were put on record.
        proofs: of entries, each verified with the log's key.
        link_closed_ms: from the call that submits the revocation to the later of the two ends' word that their link is
            closed; so the signature, the log's write to the disk and the feed are in it.
        reconnect_refused: whether the revoked agent was turned away when it dialled again.
    """

    def __init__(self, acme: Credential, globex: Credential, scene: Callable[..., object]) -> None:
        self._acme, self._globex, self._scene = acme, globex, scene
        self.registered = 0
        self.proofs = 0
        self.link_closed_ms = 0.0
        self.reconnect_refused = False

    async def play(self, registry: dict[str, Any], echo: Actor, caller: Actor) -> None:
        """Register, link, revoke.

        Args:
            registry: its `contact`, and its log's key.
            echo, caller: agents of acme's and of globex's, told nothing of the registry so far.
        """
        log_key = VerifierKey.parse(registry["log_key"])
        clerk = Agent(self._acme, trust=Pinned(Contact.parse(registry["contact"]).peer_id))
        async with clerk.connect(registry["contact"]) as link:
            client = RegistryClient(link, log_key)
            for organisation in (self._acme, self._globex):
                slot = making.Slot.at(log_key.name, datetime.now(UTC))
                await self._register(
                    client, making.register(organisation, slot, next_key=_spare(organisation))
                )
            await self._take_on(client, echo, self._acme, registry)
            revoked = await self._take_on(client, caller, self._globex, registry)
            self._scene(
                f"{self.registered} Auto IDs go on record",
                f"{self.proofs} proofs that the log {log_key.name} has them",
                ok=self.registered == self.proofs == 4,
            )
            met = await caller.hear()
            await echo.hear()  # its handler runs for the caller
            self._scene(
                "a link opens on the statuses that both show", met["grounds"], ok="active" in met["grounds"]
            )
            await self._revoke(client, revoked, echo, caller)
        told = (await caller.hear())["told"]
        await echo.answer()
        why = (await echo.hear())["reasons"][-1]
        self.reconnect_refused = told == "revoked"
        detail = f"the caller was told {told!r}; echo's log says: {why}"
        self._scene("refused: who was revoked", detail, ok=self.reconnect_refused)

    async def _take_on(
        self, client: RegistryClient, actor: Actor, issuer: Credential, registry: dict[str, Any]
    ) -> AutoId:
        """Have an agent go on record below its issuer, and show its status from then on."""
        await actor.answer(**registry)
        entry = Entry.from_untrusted(bytes.fromhex((await actor.hear())["entry"]))
        await self._register(client, making.countersign(entry, issuer))
        await actor.answer()
        await actor.hear()  # it shows its status, and believes only whom the registry calls active
        return entry.auto_id

    async def _register(self, client: RegistryClient, entry: Entry) -> None:
        await self._submit(client, entry)
        status = (await client.status(entry.auto_id)).status
        self.registered += status.state is State.ACTIVE

    async def _submit(self, client: RegistryClient, entry: Entry) -> None:
        await client.submit(entry)  # returns when its proof is verified
        self.proofs += 1

    async def _revoke(self, client: RegistryClient, auto_id: AutoId, *ends: Actor) -> None:
        slot = making.Slot.at(client.log_key.name, datetime.now(UTC), await client.place(auto_id))
        entry = making.revoke(auto_id, slot, by=self._globex)
        closed: list[float] = []
        began = anyio.current_time()

        async def hear(actor: Actor) -> None:
            await actor.hear()
            closed.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for actor in ends:
                tasks.start_soon(hear, actor)
            await self._submit(client, entry)
        self.link_closed_ms = 1000 * (max(closed) - began)
        self._scene(
            "globex revokes its caller: the link ends at both ends",
            f"{self.link_closed_ms:.0f} ms after the revocation was submitted",
            ok=len(closed) == len(ends),
        )


def spare_key() -> bytes:
    """The hash of a key that may follow. Nobody keeps the key here: in real life it lies in another place."""
    return Credential.self_issued("spare").leaf.spki_sha256


def _spare(organisation: Credential) -> bytes | None:
    """None: a bound name's certificate says itself which key may follow."""
    return None if organisation.leaf.next_key_hash else spare_key()
