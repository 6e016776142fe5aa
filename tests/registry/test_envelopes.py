"""An author's status goes with what it signs: who believes a registry believes its Envelopes, too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autolink import Agent, Call, Envelope, EnvelopeRefused, Link, Reason
from autolink.identity import CredentialRequest, EntityKind
from autolink.messages import verify
from autolink.registry.trust import Registered
from autolink.trust import SelfCertified

from .serving import Cast, Served, cast, issue, registration, serving, staple, until


@asynccontextmanager
async def linked(served: Served, players: Cast, taken: list[Envelope]) -> AsyncIterator[Link]:
    """A link from caller to echo, which keeps what it is asked."""

    @players.echo.method(forwarded=True)
    async def order(call: Call, what: str) -> str:
        taken.append(call.envelope())
        return what.upper()

    async with (
        served.network.listening(players.echo, "echo:1"),
        players.caller.connect("echo:1", expect=players.echo.peer_id) as link,
    ):
        yield link


async def test_an_envelope_shows_its_authors_status(tmp_path: Path) -> None:
    """For the recipient, by way of somebody else, and for anybody offline with the log's key alone."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        author = served.join(Agent(issue(players.acme, "author"), trust=SelfCertified()))
        async with served.client(served.join(Agent(players.acme, trust=SelfCertified()))) as client:
            await client.submit(registration(author.credential, players.acme))
        async with linked(served, players, []) as link:
            silent = author.sign(players.echo.auto_id, "order", "tea")
            with pytest.raises(EnvelopeRefused):  # it shows no status
                await link.forward(silent)
            await staple(served, author)
            answer = await link.forward(author.sign(players.echo.auto_id, "order", "tea"))
        assert answer is not None
        assert answer.evidence == players.echo.evidence
        verified = await verify(answer, trust=Registered(served.key), at=datetime.now(UTC))
        assert verified.message.value == "TEA"
        later = datetime.now(UTC) + timedelta(hours=2)  # it says nothing of a time then
        with pytest.raises(EnvelopeRefused) as refused:
            await verify(answer, trust=Registered(served.key), at=later)
        assert refused.value.reason is Reason.EXPIRED


async def test_what_is_kept_of_a_link_shows_the_status_of_its_time(tmp_path: Path) -> None:
    """Not that of its opening, which may be hours old by then; but with the certificate that signs on this link."""
    async with serving(tmp_path) as served:
        players, taken = await cast(served), []
        async with linked(served, players, taken) as link:
            await link.call("order", "tea")
            assert taken[-1].evidence == players.caller.evidence
            (far,) = players.echo.links

            async def shown(evidence: tuple[bytes, ...]) -> None:
                await until(lambda: far.peer.presented.evidence == evidence)
                await link.call("order", "tea")

            await staple(served, players.caller)
            newest = players.caller.evidence
            await shown(newest)
            assert (taken[-1].evidence, taken[-1].chain) == (newest, taken[0].chain)
            assert newest != taken[0].evidence
            await verify(taken[-1], trust=Registered(served.key), at=datetime.now(UTC))

            players.echo.replace_trust(SelfCertified())
            credential = players.caller.credential
            request = CredentialRequest.from_key("caller", credential.private_key)
            renewed = players.acme.issue(request, kind=EntityKind.AGENT, lifetime=timedelta(days=9))
            players.caller.replace_credential(request.complete(renewed))
            players.caller.replace_evidence(b"of the renewed certificate")
            await shown((b"of the renewed certificate",))
            assert (taken[-1].evidence, taken[-1].chain) == (newest, taken[0].chain)
            assert far.peer.leaf != credential.leaf
