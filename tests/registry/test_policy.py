"""Who may register, and how much one caller may bring."""

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from autolink import Agent, Credential, limits
from autolink.errors import EntryRefused, Fault
from autolink.registry.policy import Invited, Open, Rate
from autolink.trust import SelfCertified

from .serving import issue, registration, serving


async def test_rule_41_only_those_who_were_invited_register_themselves(tmp_path: Path) -> None:
    policy = Invited(Rate(anyio.current_time))
    async with serving(tmp_path, policy) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(registration(acme))
            assert refusal.value.fault is Fault.NOT_INVITED
            policy.invite(acme.auto_id)
            await client.submit(registration(acme))
            await client.submit(registration(issue(acme, "echo"), acme))  # below its own name


async def test_who_was_invited_has_a_rate_too(tmp_path: Path) -> None:
    acme = Credential.self_issued("acme")
    policy = Invited(Rate(lambda: 0.0, burst=2), [acme.auto_id])
    async with serving(tmp_path, policy) as served:
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            await client.submit(registration(issue(acme, "first"), acme))
            with pytest.raises(EntryRefused) as refusal:
                await client.submit(registration(issue(acme, "second"), acme))
            assert refusal.value.fault is Fault.TOO_MANY


def test_of_ten_thousand_entries_from_one_caller_the_first_few_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And as many more as a minute allows; nobody else has less for it, and what is remembered of callers is bounded."""
    monkeypatch.setattr("autolink.limits.SUBMITTERS", 3)
    time = 0.0
    rate = Rate(lambda: time)

    def passed(who: str, attempts: int) -> int:
        count = 0
        for _ in range(attempts):
            with suppress(EntryRefused):
                rate.take(who)
                count += 1
        return count

    assert passed("one", 10_000) == limits.ENTRIES_BURST
    assert passed("another", 1) == 1
    time = 60.0
    assert passed("one", 10_000) == limits.ENTRIES_A_MINUTE
    time = 1e9
    assert passed("one", 10_000) == limits.ENTRIES_BURST
    time += 30 / limits.ENTRIES_A_MINUTE
    assert passed("one", 1) == 0  # half an entry is none
    assert sum(passed(f"caller-{number}", 1) for number in range(10)) == 10
    assert len(rate._left) == 3


async def test_registrations_beyond_a_callers_rate_are_not_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, Open(Rate(lambda: 0.0, burst=3))) as served:
        acme = Credential.self_issued("acme")
        async with served.client(served.join(Agent(acme, trust=SelfCertified()))) as client:
            await client.submit(registration(acme))
            faults = []
            for number in range(20):
                try:
                    await client.submit(registration(issue(acme, f"agent-{number}"), acme))
                except EntryRefused as refusal:
                    faults.append(refusal.fault)
            assert faults == [Fault.TOO_MANY] * 18
            assert served.store.head.size == 3
