"""A log of 70,000 entries, once for all tests that only read it."""

import json
from pathlib import Path

import pytest

from autolink.messages import merkle
from tests.registry.log.reference import Store, entry

VECTORS = Path(__file__).parents[2] / "vectors" / "tlog"


@pytest.fixture(scope="package")
def store():
    store = Store()
    hashes = [merkle.leaf_hash(entry(number)) for number in range(70_000)]
    store.append(hashes[:1])
    store.append(hashes[1:])
    return store


@pytest.fixture(scope="package")
def sumdb():
    """What Go's golang.org/x/mod/sumdb makes of the same log."""
    return json.loads((VECTORS / "sumdb.json").read_text())


@pytest.fixture(scope="package")
def ct():
    """Certificate transparency's proofs, good and spoiled."""
    return json.loads((VECTORS / "ct.json").read_text())
