"""A trust model of one's own, joined to a given one: issued by globex, and on acme's guest list of this moment.

It prints::

    mallory was told: untrusted
    alice: IssuedBy: issued below globex~… and GuestList: alice is on the list
    alice is no longer welcome: Refused
    the vault refused 2 as not_vouched
"""

import re

import anyio

from autolink import Refused
from autolink.testing import Authority
from autolink.trust import Context, Grounds, IssuedBy, Model, NotVouched, Presented


class GuestList(Model):
    """Vouches for names on a list that may change at any time. It has no opinion about others: somebody else may."""

    def __init__(self, *names: str) -> None:
        self._names = set(names)

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        if presented.name not in self._names:
            raise NotVouched(f"{presented.name} is not on the list")
        return Grounds("GuestList", f"{presented.name} is on the list")

    def remove(self, name: str) -> None:
        self._names.discard(name)
        self._changed()  # live links that rested on it are judged again, at once


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    guests = GuestList("alice")
    vault = acme.agent("vault", trust=IssuedBy(globex.anchor) & guests)
    alice, mallory = (globex.agent(name, trust=IssuedBy(acme.anchor)) for name in ("alice", "mallory"))
    async with vault.listening("127.0.0.1:0") as listener:
        try:
            async with mallory.connect(listener.contact):
                pass
        except Refused as refused:  # a stranger learns nothing about our policy, our own statistics tell all
            print("mallory was told:", refused.reason)
        async with alice.connect(listener.contact) as link:
            await link.ping()
            grounds = vault.links[0].peer.grounds
            print("alice:", re.sub("~....…", "~…", grounds.text))
            guests.remove("alice")
            await link.closed()
            print("alice is no longer welcome:", type(link.lost).__name__)
    for reason, count in vault.statistics().refused.items():
        print(f"the vault refused {count} as {reason}")


if __name__ == "__main__":
    anyio.run(main, backend="trio")
