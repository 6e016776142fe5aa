"""A registry whose clock is wrong, that is down, or slow: who depends on it says so, and tries again.

On the real clock: SQLite works in threads.
"""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import Agent, Contact
from autolink.errors import Reason
from autolink.registry import registration as module
from autolink.registry.evidence import Unproved
from autolink.registry.records import SECOND
from autolink.registry.registration import registered
from autolink.registry.trust import Registered
from autolink.testing import Network
from autolink.trust import SelfCertified

from .serving import cast, now, opens, serving, signed, staple, until
from .test_monitor import replaced
from .test_registered import _address, contact, register

pytestmark = pytest.mark.usefixtures("soon")

HOUR = 3600 * SECOND


# --- time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "max_age", "reason"),
    [
        (50, None, None), (90, None, Reason.NOT_YET_VALID), (-3000, None, None), (-3700, None, Reason.EXPIRED),
        (-3000, 3060.0, None), (-3000, 2900.0, Reason.EXPIRED),
    ],
)  # fmt: skip
async def test_a_registry_whose_clock_is_ahead_or_behind(
    tmp_path: Path, seconds: int, max_age: float | None, reason: Reason | None
) -> None:
    """A minute is forgiven to come, and what is behind has aged by as much."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        players.echo.replace_trust(SelfCertified() & Registered(served.key, max_age=max_age))
        record = served.store.record(players.caller.auto_id)
        assert record is not None
        players.caller.replace_evidence(signed(served, record, record.touched, now() + seconds * SECOND))
        assert await opens(served, players) is reason


@pytest.mark.parametrize("seconds", [-90, -50, 50, 90])
async def test_a_peer_whose_clock_is_ahead_or_behind(tmp_path: Path, seconds: int) -> None:
    """Its status is of the log's time, so only how far apart two agents are counts, as for every link."""
    async with serving(tmp_path) as served:
        players = await cast(served)
        skewed = Agent(
            players.caller.credential, trust=SelfCertified() & players.models[1],
            clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds),
        )  # fmt: skip
        players.caller = served.join(skewed)
        await staple(served, skewed)
        reason = await opens(served, players)
        assert reason is None if abs(seconds) < 60 else reason in (Reason.CLOCK_SKEW, Reason.NOT_YET_VALID)


@pytest.mark.parametrize(("hours", "says"), [(-2, "too long ago"), (2, "to come: set the clock")])
async def test_an_agent_takes_no_status_of_another_time_for_itself(
    tmp_path: Path, hours: int, says: str
) -> None:
    """What was shown before goes on being shown, what shows the lie is kept, and the next good one is taken."""
    evidence = tmp_path / "evidence"
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        record = served.store.record(echo.auto_id)
        assert record is not None
        lie = signed(served, record, record.touched, now() + hours * HOUR)

        async def lies(call: Any, auto_id: bytes) -> bytes:
            return lie

        answer = served.agent.handlers.methods["registry.status"]
        agent, started = (served.join(Agent(echo, trust=SelfCertified())) for _ in range(2))
        async with registered(agent, contact(served), served.key, evidence=evidence) as standing:
            shown, before = agent.evidence, standing.status
            assert shown
            replaced(served, "status", lies)
            standing.refresh()
            await until(lambda: evidence.exists() and [*evidence.glob("*.evidence")])
            assert isinstance(standing.error, Unproved)
            assert (agent.evidence, standing.status, standing.missing) == (shown, before, "")
            async with registered(started, contact(served), served.key) as anew:
                assert (started.evidence, anew.status) == ((), None)
                assert says in anew.missing
            served.agent.handlers.methods["registry.status"] = answer
            standing.refresh()
            await until(lambda: standing.error is None)
            assert agent.evidence != shown
    (kept,) = evidence.glob("*.evidence")
    assert kept.read_bytes() == lie
    assert says in kept.with_suffix(".evidence.txt").read_text()


# --- down, and slow ----------------------------------------------------------------------------------------


async def test_a_registry_that_is_down_is_logged_and_dialled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "autolink")
    key = Ed25519PrivateKey.generate()
    async with serving(tmp_path, key=key) as served:
        _, (echo,) = await register(served, "echo")
        where, log_key, peer_id = contact(served), served.key, served.agent.peer_id
    agent, file = Agent(echo, trust=SelfCertified()), tmp_path / "kept.status"
    Network().join(agent)
    async with registered(agent, where, log_key, kept=file) as standing:
        assert standing.status is None
        assert standing.error is not None
        assert agent.evidence == ()
        assert standing.missing == f"we have no status to show: {standing.error}"
    assert "we have no status to show" in caplog.text
    assert not file.exists()
    async with serving(tmp_path, key=key) as served:
        served.join(agent)
        expected = Contact(served.agent.peer_id, _address())
        assert peer_id != expected.peer_id
        async with registered(agent, str(expected), log_key, kept=file) as standing:
            assert standing.status is not None
            served.network.cut()
            await until(lambda: standing.error is not None)
            await until(lambda: standing.error is None)
    told = [
        record.levelname
        for record in caplog.records
        if "answers again; our status is good until" in record.message
    ]
    assert told == ["WARNING"]  # at the level at which its end was told, and once
    shown = agent.evidence
    restarted = Agent(echo, trust=SelfCertified())
    Network().join(restarted)
    async with registered(restarted, where, log_key, kept=file) as standing:
        assert restarted.evidence == shown
        assert not standing.missing
        assert "our status is good until" in caplog.text
    late = Agent(echo, trust=SelfCertified(), clock=lambda: datetime.now(UTC) + timedelta(hours=2))
    Network().join(late)
    async with registered(late, where, log_key, kept=file) as standing:
        assert standing.missing.startswith("our status was good until ")


async def test_a_slow_registry_is_given_up_and_dialled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    async with serving(tmp_path) as served:
        _, (echo,) = await register(served, "echo")
        agent = served.join(Agent(echo, trust=SelfCertified()))
        answer = served.agent.handlers.methods.pop("registry.consistency")

        @served.agent.handlers.method("registry.consistency")
        async def silent(call: Any, asked: Any) -> None:
            await anyio.sleep_forever()

        async with registered(agent, contact(served), served.key) as standing:
            assert isinstance(standing.error, TimeoutError)
            assert standing.status is None
            monkeypatch.setattr(module, "_PATIENCE", 5)
            served.agent.handlers.methods["registry.consistency"] = answer
            await until(lambda: standing.status is not None)
