"""The smallest program: globex's caller asks acme's echo, and each believes only whom the other organisation issued.

In real life this is two programs of two owners; what crosses between them beforehand is one anchor file each way, and
the contact string.

It prints::

    echo heard caller
    caller heard echo: GOOD DAY
    because: IssuedBy: issued below acme~…
"""

import re

import anyio

from autolink import Agent, Call, Credential, CredentialRequest, EntityKind, Handlers
from autolink.trust import IssuedBy

handlers = Handlers()


@handlers.method
async def shout(call: Call, text: str) -> str:
    print("echo heard", call.peer.name)
    return text.upper()


def employ(organisation: Credential, name: str) -> Credential:
    """A request on the agent's side, an answer from its organisation: the key never leaves the agent."""
    request = CredentialRequest.new(name)
    return request.complete(organisation.issue(request, kind=EntityKind.AGENT))


async def main() -> None:
    acme, globex = Credential.self_issued("acme"), Credential.self_issued("globex")
    echo = Agent(employ(acme, "echo"), trust=IssuedBy(globex.anchor), handlers=handlers)
    caller = Agent(employ(globex, "caller"), trust=IssuedBy(acme.anchor))

    async with echo.listening("127.0.0.1:0") as listener, caller.connect(listener.contact) as link:
        answer = await link.call("shout", "good day", returns=str)
        print(f"caller heard {link.peer.name}: {answer}")
        grounds = str(link.peer.grounds)
        print("because:", re.sub("~.*", "~…", grounds))  # the end of a bound name is new in each run


if __name__ == "__main__":
    anyio.run(main, backend="trio")
