"""Anchors, requests, issuing, models of one's own, and models joined."""

from typing import assert_type

from autolink import Agent, AutoId, Credential, CredentialRequest, EntityKind, KeyType, PeerId, TrustAnchor
from autolink.trust import (
    AllOf,
    AnyOf,
    Context,
    Contradicted,
    Grounds,
    IssuedBy,
    KnownAgents,
    Model,
    NotVouched,
    Pinned,
    Presented,
    SelfCertified,
    UnsafeAnyone,
)

acme = Credential.self_issued("acme", kind=EntityKind.ORGANIZATION, key_type=KeyType.ED25519)
assert_type(acme, Credential)
assert_type(acme.anchor, TrustAnchor)
assert_type(acme.auto_id, AutoId)
assert_type(acme.peer_id, PeerId)
acme.anchor.save("acme.pem")

request = CredentialRequest.new("clerk")
clerk = request.complete(acme.issue(request, kind=EntityKind.AGENT))
assert_type(clerk, Credential)


class NotOnHolidays(Model):
    def __init__(self, *holidays: str) -> None:
        self.holidays = frozenset(holidays)

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if presented.name == "impostor":
            raise Contradicted("we know that name")
        if f"{context.now:%m-%d}" in self.holidays:
            raise NotVouched("closed today")
        return Grounds("NotOnHolidays", "open", valid_until=None)


async def ask(presented: Presented, context: Context) -> bool:
    return presented.name == "friend"


partners = IssuedBy(TrustAnchor.load("globex.pem"), acme.anchor)
both = partners & NotOnHolidays("12-25")
assert_type(both, AllOf)
either = both | KnownAgents("known_agents", on_first="refuse") | Pinned(acme.peer_id, acme.leaf)
assert_type(either, AnyOf)
asking: Model = KnownAgents("known_agents", "ask", ask=ask) | SelfCertified() | UnsafeAnyone()
agent = Agent(clerk, trust=either)
