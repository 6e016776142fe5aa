"""Two organisations, an agent of one, and a fixed time."""

from datetime import UTC, datetime

import pytest

from autolink.identity import Credential, CredentialRequest, EntityKind

NOW = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def now():
    return NOW


@pytest.fixture(scope="session")
def acme():
    return Credential.self_issued("acme", now=NOW)


@pytest.fixture(scope="session")
def globex():
    return Credential.self_issued("globex", now=NOW)


@pytest.fixture(scope="session")
def seller(acme):
    """An agent whose chain is acme's root and its own leaf."""
    request = CredentialRequest.new("seller")
    return request.complete(acme.issue(request, kind=EntityKind.AGENT, now=NOW))
