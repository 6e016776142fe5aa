"""Every cell of the table: what each entry does in each state, for a self-issued and for an issued ID."""

import random
from contextlib import suppress
from typing import Any

import pytest

from autolink.errors import EntryRefused, Fault
from autolink.identity import keys
from autolink.registry.entries import Guardians, Op
from autolink.registry.records import SECOND, State
from autolink.registry.state import TABLE

from .conftest import Log, Party, new_key


def bring(log: Log, party: Party, state: State) -> None:
    """Have the ID on record in a state."""
    if state is State.REVOKED:
        log.append(party.revoke())
    elif state is State.RECOVERING:
        log.append(party.recover())
    elif state is State.DEACTIVATED:
        log.append(party.deactivate())


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("who", ["acme", "echo"])
def test_each_entry_in_each_state(who: str, state: State, op: Op, log: Log, request: Any) -> None:
    party = request.getfixturevalue(who)
    bring(log, party, state)
    assert log.state(party) is state
    outcome = TABLE[state][op]
    before = log.record(party)
    if isinstance(outcome, State):
        after = log.append(party.make(op))
        assert after.state is outcome
        assert after.entries == before.entries + 1
        return
    with pytest.raises(EntryRefused) as refusal:
        log.append(party.make(op))
    assert refusal.value.fault is outcome
    assert log.record(party) == before


@pytest.mark.parametrize("op", list(Op))
def test_each_entry_about_an_id_that_is_not_on_record(op: Op, log: Log, organisation: Any) -> None:
    stranger = organisation("stranger", registered=False)
    if op is Op.REGISTER:
        assert log.append(stranger.register()).state is State.ACTIVE
        return
    with pytest.raises(EntryRefused) as refusal:
        log.append(stranger.make(op))
    assert refusal.value.fault is TABLE[None][op] is Fault.UNKNOWN


def test_the_table_has_every_cell() -> None:
    assert set(TABLE) == {None, *State}
    assert all(set(row) == set(Op) for row in TABLE.values())


@pytest.mark.parametrize("seed", range(8))
def test_no_entry_is_taken_twice_whatever_happened_since(
    seed: int, log: Log, acme: Party, issued: Any
) -> None:
    """A walk through the table, recoveries that take place by themselves among it: all that was taken is tried again, while
    it lives and whoever signed it, and so is what was made for a state that has passed."""
    choose = random.Random(seed)  # noqa: S311
    echo = issued(acme, "quick", registered=False)
    log.append(echo.register(guardians=Guardians((), 0, 3600)))
    key, after, made = echo.next_key, new_key(), []
    for _ in range(60):
        op = choose.choice([op for op in Op if op not in (Op.REGISTER, Op.DEACTIVATE)])
        lasting = {"expires_at": log.now + 7 * 24 * 3600 * SECOND}
        following = {"next_key": keys.hash_of_key(after.public_key())}
        if op is Op.REVOKE:
            entry = echo.revoke(by=choose.choice([acme, echo]), **lasting)
        elif op is Op.ROTATE:
            entry = echo.rotate(after, **lasting)
        elif op is Op.RECOVER:
            entry = echo.recover(fresh := new_key(), **following, **lasting)
        elif op is Op.GUARDIANS:
            entry = echo.guardians(guardians=Guardians((), 0, 3600), **lasting)
        else:
            entry = getattr(echo, op.name.lower())(**lasting)
        with suppress(EntryRefused):
            log.append(entry)
            made.append(entry)
            if op is Op.RECOVER:
                key = fresh
        log.wait(choose.choice([1, 60, 4000]))
        record = log.record(echo)
        current = keys.hash_of_key(key.public_key())
        if op is Op.ROTATE and record.key == keys.hash_of_key(echo.next_key.public_key()):
            echo.take_key(echo.next_key, after)
            after = new_key()
        elif record.key == current != echo.credential.leaf.spki_sha256:
            echo.take_key(key, after)
            after = new_key()
        for again in made:
            with pytest.raises(EntryRefused):
                log.append(again)
    assert len(made) > 15
