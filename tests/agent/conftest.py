"""Two organisations and their agents."""

import pytest

from autolink.testing import Authority
from autolink.trust import IssuedBy


@pytest.fixture(scope="session")
def acme():
    return Authority("acme")


@pytest.fixture(scope="session")
def globex():
    return Authority("globex")


@pytest.fixture
def agents(acme, globex):
    """(seller of acme, buyer of globex), each trusting the other's organisation."""
    return acme.agent("seller", trust=IssuedBy(globex.anchor)), globex.agent("buyer", trust=IssuedBy(acme.anchor))
