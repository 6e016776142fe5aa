"""No submitter can make a promise of an honest registry's one that was not kept, whatever it submits, and in what order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autolink import limits
from autolink.errors import EntryRefused, Fault
from autolink.registry.audit import Audit
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.receipt import Receipt
from autolink.registry.records import SECOND
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.state import apply
from autolink.registry.store import SqliteStore

from .appender import KEY
from .conftest import ORIGIN, Log, Party


def convicts(promise: Receipt, made: Entry, leaves: Sequence[bytes], key: Any) -> bool:
    """As the threat model says: it was not logged by the deadline, and the rules would have taken it at every moment."""
    replayed, since = Audit(key), 0
    for leaf in [*leaves, None]:
        until = promise.deadline if leaf is None else decode_leaf_untrusted(leaf)[0]
        for moment in (max(since, promise.received_at), min(until, promise.deadline)):
            if max(since, promise.received_at) <= moment <= min(until, promise.deadline):
                try:
                    apply(replayed.ledger, made, origin=ORIGIN, now=moment, index=replayed.size)
                except EntryRefused:
                    return False
        if leaf is None:
            return True
        taken = replayed.take(leaf)
        since = taken.logged_at
        if taken.entry.hash == made.hash:
            return since > promise.deadline
    raise AssertionError("the last one returns")


@pytest.mark.parametrize(
    "case", ["two of one place", "in the wrong order", "expires at once", "clock set back"]
)
def test_rule_39_an_honest_registry_is_convicted_by_no_promise(
    tmp_path: Path, log: Log, acme: Party, echo: Party, case: str
) -> None:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    with SqliteStore(tmp_path / "registry") as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        registrar.append([entry.to_bytes() for entry in log.entries])
        log.wait(1)
        made = [acme.service(), acme.service(service=b"another")]
        if case == "in the wrong order":
            made = [acme.service(previous=made[0].hash), made[0]]
        if case == "expires at once":
            made = [acme.service(expires_at=log.now)]
        if case == "clock set back":
            made = [acme.service(expires_at=log.now + int(limits.ENTRY_LIFETIME * SECOND))]
        promises = [registrar.receipt(entry.hash) for entry in made]
        log.wait(-1 if case == "clock set back" else 1)
        outcomes = registrar.append(
            [entry.to_bytes() for entry in made], since=max(promise.received_at for promise in promises)
        )
        faults = [None if isinstance(each, Appended) else each.fault for each in outcomes]
        assert faults == {
            "two of one place": [None, Fault.STALE], "in the wrong order": [Fault.STALE, None],
            "expires at once": [Fault.EXPIRED], "clock set back": [None],
        }[case]  # fmt: skip
        leaves = store.read_leaves(0, store.head.size)
        for promise, entry in zip(promises, made, strict=True):
            assert not convicts(promise, entry, leaves, registrar.verifier_key)


def test_rule_39_a_registry_that_withholds_an_entry_is_convicted(
    tmp_path: Path, log: Log, acme: Party
) -> None:
    SqliteStore.create(tmp_path / "registry", ORIGIN)
    with SqliteStore(tmp_path / "registry") as store:
        registrar = Registrar(store, KEY, lambda: log.now)
        registrar.append([entry.to_bytes() for entry in log.entries])
        log.wait(1)
        made = acme.service()
        promise = registrar.receipt(made.hash)
        leaves = store.read_leaves(0, store.head.size)
        assert convicts(promise, made, leaves, registrar.verifier_key)
        log.wait(limits.INCLUSION + 1)  # a minute late is too late
        registrar.append([made.to_bytes()])
        leaves = store.read_leaves(0, store.head.size)
        assert convicts(promise, made, leaves, registrar.verifier_key)
