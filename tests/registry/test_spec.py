"""The table of states, the bounds and the names of docs/spec.md are the ones that the code goes by."""

import inspect
import re
from pathlib import Path

import pytest

from autolink import limits
from autolink.errors import Fault
from autolink.identity.certificate import OID_RECOVERED_IN
from autolink.registry import answers, entries, feed, receipt, service, service_record, status
from autolink.registry.answers import Answer, Consistency, Place
from autolink.registry.entries import Op
from autolink.registry.records import State
from autolink.registry.state import TABLE

SPEC = Path(__file__).parents[2] / "docs" / "spec.md"


def test_the_specifications_table_of_states_is_the_codes() -> None:
    section = SPEC.read_text().split("## 21. States")[1].split("\n## ")[0]
    head, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    ops = [Op[name.strip()] for name in head.split("|")[2:-1]]
    assert ops == list(Op)
    said = {}
    for row in rows:
        name, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        state = None if name == "not on record" else State(name)
        said[state] = dict(zip(ops, (cell.strip("`") for cell in cells), strict=True))
        for op, cell in zip(ops, cells, strict=True):
            assert cell.startswith("`") != isinstance(TABLE[state][op], State)
    assert said == {state: {op: outcome.value for op, outcome in row.items()} for state, row in TABLE.items()}


@pytest.mark.parametrize(
    "name",
    ["ENTRY", "RECOVERY_DELAY_LEAST", "RECOVERY_DELAY_MOST", "VOIDS", "SERVICE", "SERVICE_OFFERS", "SERVICE_SCHEMA",
     "SERVICE_NODES", "STATUS", "NOTE", "NOTE_SIGNATURES", "CHECKPOINT_EXTENSIONS", "SUBMISSIONS", "LOG_PAGE", "CRL",
     "INCLUSION"],
)  # fmt: skip
def test_every_bound_of_a_registrys_formats_stands_in_the_specification(name: str) -> None:
    section = SPEC.read_text().split("## 20. Registry entries")[1]
    assert re.search(rf"(?<![\d,]){int(getattr(limits, name)):,}(?![\d,])", section)


def test_the_names_of_a_registrys_formats_stand_in_the_specification() -> None:
    """Tags, purposes, methods, the fields of its answers, and why it refuses."""
    text = SPEC.read_text()
    methods = set(re.findall(r'"(registry\.[a-z_]+)"', inspect.getsource(service))) | {answers.CHANGES}
    assert methods == set(re.findall(r"`(registry\.[a-z_]+)`", text))
    fields = {name for body in (Place, Consistency, Answer) for name in body.model_fields}
    for name in {*methods, *fields, *Fault}:
        assert f"`{name}`" in text
    tags = [module.TAG for module in (entries, feed, receipt, service_record, status)]
    purposes = [entries.PURPOSE, entries.GUARDIAN, feed.PURPOSE, receipt.PURPOSE, status.PURPOSE]
    for name in [*tags, *(purpose[:-1].decode() + r"\0" for purpose in purposes)]:
        assert f'"{name}"' in text
    assert OID_RECOVERED_IN.dotted_string.rpartition(".")[2] == "3"
