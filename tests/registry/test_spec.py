"""The table of states in docs/spec.md is the one that the code decides by."""

from pathlib import Path

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
