"""acme and its agent echo, on record in a real registry that a test can have lie, and somebody who looks for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autolink import Agent, Call, Contact, Credential, Handlers
from autolink.identity import CredentialRequest, EntityKind
from autolink.registry.client import RegistryClient
from autolink.registry.discovery import RegistryFinder, find_record
from autolink.registry.entries import Op
from autolink.registry.service_record import ServiceRecord, describe
from autolink.transport import parse_address
from autolink.trust import SelfCertified

from .serving import AT, Served, entry, issue, registration, serving

WHERE = "9.9.9.9:1"


def clock() -> datetime:
    return datetime.now(UTC)


def handlers() -> Handlers:
    made = Handlers()

    @made.method
    async def echo(call: Call, body: str) -> str:
        return body

    return made


@dataclass
class Scene:
    """acme and its agent echo, on record, and somebody who has a client."""

    served: Served
    acme: Credential
    echo: Credential
    client: RegistryClient

    async def submit(self, op: Op, by: Credential | None = None, **fields: Any) -> None:
        """One more entry of echo's, which its own key signs unless somebody else does."""
        signer = by or self.echo
        place = await self.client.place(self.echo.auto_id)
        made = entry(op, self.echo.auto_id, place.head, **fields)
        await self.client.submit(made.signed(signer.auto_id, signer.private_key))

    async def publish(self, *addresses: str) -> ServiceRecord:
        record = describe(handlers(), addresses or [WHERE], now=clock())
        await self.submit(Op.SERVICE, service=record.to_bytes())
        return record

    async def find(self, **options: Any) -> ServiceRecord:
        return await find_record(self.client, self.echo.auto_id, now=clock(), **options)

    def finder(self, **options: Any) -> RegistryFinder:
        contact = Contact(self.served.agent.peer_id, parse_address(AT))
        finder = RegistryFinder(str(contact), self.served.key, **options)
        self.served.join(finder.reader)
        return finder

    def answer(self, method: str) -> Callable[[Any], None]:
        """Have the registry answer a method otherwise: the result of its honest answer, changed."""

        def decorate(change: Callable[[Any], Any]) -> None:
            methods = self.served.agent.handlers.methods
            honest = methods[method]

            async def lie(call: Any, body: Any) -> Any:
                return change(await honest.function(call, body))

            methods[method] = replace(honest, function=lie)

        return decorate


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with serving(folder) as served:
        acme = Credential.self_issued("acme")
        echo = issue(acme, "echo")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            await client.submit(registration(echo, acme))
            yield Scene(served, acme, echo, client)


def renewed(here: Scene, number: int) -> bytes:
    """A newer certificate of echo's over the same key: each begins a second later than the one before."""
    request = CredentialRequest.from_key("echo", here.echo.private_key)
    return here.acme.issue(request, kind=EntityKind.AGENT, now=clock() + timedelta(seconds=number))[0].der
