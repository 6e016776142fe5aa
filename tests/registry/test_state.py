"""Every cell of the table: what each entry does in each state, for a self-issued and for an issued ID."""

from typing import Any

import pytest

from autolink.errors import EntryRefused, Fault
from autolink.registry.entries import Op
from autolink.registry.records import State
from autolink.registry.state import TABLE

from .conftest import Log, Party


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
