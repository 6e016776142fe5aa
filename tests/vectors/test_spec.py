"""The specification's numbers and names are those of the code."""

import re
from pathlib import Path

import pytest

from autolink import limits
from autolink.identity import OID_KIND, OID_NEXT_KEY, EntityKind, rotation
from autolink.messages import Kind, batch, message
from autolink.messages.envelope import TAG

SPEC = (Path(__file__).resolve().parents[2] / "docs" / "spec.md").read_text()


@pytest.mark.parametrize(
    "name",
    ["NODES", "CONTROL_NODES", "LEAF", "MESSAGE", "HEADERS", "HEADERS_BYTES", "METHOD", "CHAIN", "CHAIN_BYTES",
     "CERTIFICATE", "CERTIFICATE_REST", "SIGNATURE",
     "EVIDENCE", "EVIDENCE_BYTES", "ROTATIONS", "ROTATIONS_BYTES", "CHUNK", "PIECE", "DEPTH", "COMMON_NAME",
     "LIFETIME_SELF_ISSUED_DAYS",
     "LIFETIME_ISSUED_DAYS", "SKEW", "MESSAGE_LIFETIME"],
)  # fmt: skip
def test_every_bound_of_the_formats_stands_in_the_specification(name):
    """A limit changed in one place only is found here."""
    assert re.search(rf"(?<![\d,]){int(getattr(limits, name)):,}(?![\d,])", SPEC)
    assert limits.ENVELOPE_LIFETIME == 24 * 3600
    assert 2**limits.PROOF == 65_536


def test_the_kinds_of_messages_are_those_of_the_specification():
    """Number and name, row by row."""
    section = SPEC[SPEC.index("## 4. Messages") : SPEC.index("## 5. Batches")]
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", section, re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(kind.value, kind.name) for kind in Kind]


@pytest.mark.parametrize(
    "text",
    [
        TAG,
        rotation.TAG,
        batch.PURPOSE[:-1].decode(),
        str(message.TIME_MAX),
        OID_KIND.dotted_string.removesuffix(".1"),
        OID_NEXT_KEY.dotted_string.removesuffix(".2"),
        *(f"`{kind.value}`" for kind in EntityKind),
        ", ".join(message.Message._fields),
    ],
    ids=range(13),
)
def test_the_constants_of_the_formats_stand_in_the_specification(text):
    """Tags, purposes, object identifiers, names of fields."""
    assert text in SPEC
