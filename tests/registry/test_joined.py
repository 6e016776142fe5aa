"""`Registered` beside other models, joined by `|`: what it knows better counts, whoever else vouches."""

from pathlib import Path

import anyio
import pytest

from autolink import Agent
from autolink.errors import Reason, Refused
from autolink.registry.trust import Registered
from autolink.trust import Pinned, SelfCertified

from .serving import cast, serving, staple


@pytest.mark.parametrize("first", [True, False])
async def test_a_status_that_has_aged_ends_a_link_in_whatever_order_models_are_joined(
    tmp_path: Path, first: bool
) -> None:
    """A pin vouches for ever. But the revocation that is withheld from us is believed for `max_age` at most."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        model, pinned = Registered(served.key, max_age=0.5), Pinned(players.caller.peer_id)
        players.echo.replace_trust(model | pinned if first else pinned | model)
        async with served.network.listening(players.echo, "echo:1"):
            await staple(served, players.caller)
            async with players.caller.connect("echo:1", expect=players.echo.peer_id) as link:
                with anyio.fail_after(5):
                    await link.closed()
    assert players.echo.statistics().refused == {Reason.EXPIRED: 1}


async def test_who_is_known_to_be_on_record_is_not_believed_by_a_verdict_from_before_that(
    tmp_path: Path,
) -> None:
    """Nor does a link go on that was opened without a status: its peer may be the thief of a key that was revoked."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        pinned = Pinned(players.caller.peer_id)
        players.echo.replace_trust(pinned | Registered(served.key))
        silent = served.join(Agent(players.caller.credential, trust=SelfCertified()))
        async with (
            served.network.listening(players.echo, "echo:1"),
            silent.connect("echo:1", expect=players.echo.peer_id) as link,
        ):
            await link.ping()
            async with players.caller.connect("echo:1", expect=players.echo.peer_id) as shown:
                await shown.ping()
                with anyio.fail_after(5):
                    await link.closed()
            with pytest.raises(Refused) as refusal:
                async with silent.connect("echo:1", expect=players.echo.peer_id) as again:
                    await again.ping()
            assert refusal.value.reason is Reason.UNTRUSTED
