"""A link to somebody whose address is not known: it is found, and each address tried until one opens.

Addresses that are found were chosen by others. That whoever answers is who was meant, the handshake sees to, as for any
address; which of them may be dialled at all is the finder's to judge. Here is that all of it ends: so many addresses, each
with its share of the time that is left, in one deadline.
"""

from typing import TYPE_CHECKING

import anyio

from autolink import limits
from autolink.errors import (
    AutolinkError,
    LinkLost,
    LocalProtocolError,
    NotLocated,
    Refused,
    RemoteProtocolError,
    UsageError,
)
from autolink.identity import PeerId
from autolink.transport import Address

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.agent.link import Link


async def dial_found(agent: "Agent", who: PeerId) -> "Link":
    """One attempt at a link to `who`, wherever the agent's finder finds it.

    Raises:
        Refused: at every address; the first of them, with a note that names its address and tells of the others.
        LinkLost: it is not found, or no address gave a link: the text names each, and why.
        TimeoutError: it was not found within `limits.FINDING` seconds.
    """
    failures: dict[Address, Exception] = {}
    with anyio.move_on_after(limits.FINDING) as scope:
        addresses = (await _find(agent, who))[: limits.ADDRESSES]
        for number, address in enumerate(addresses):
            share = (scope.deadline - anyio.current_time()) / (len(addresses) - number)
            failures[address] = TimeoutError()  # unless it says something else
            try:
                with anyio.fail_after(share):
                    return await agent.dial(address, who)
            except (Refused, LinkLost, RemoteProtocolError, TimeoutError) as error:
                failures[address] = error
    if scope.cancelled_caught and not failures:
        raise TimeoutError(f"{who} was not found within {limits.FINDING:.0f} s")
    raise _failed(who, failures)


async def _find(agent: "Agent", who: PeerId) -> list[Address]:
    if agent.finder is None or who.auto_id is None:
        raise UsageError("the agent's finder was taken away")
    try:
        return list(await agent.finder(who.auto_id))
    except (AutolinkError, OSError) as error:  # a registry's refusal, too, is none of the peer's
        # That a link is draining, such as the registry's, is nobody's mistake, and over when it is dialled again.
        if isinstance(error, UsageError) and not isinstance(error, LocalProtocolError):
            raise
        told = [*reversed(getattr(error, "__notes__", [])), str(error) or "it took too long"]
        raise NotLocated(f"no address of {who} is found: {': '.join(told)}") from error


def _failed(who: PeerId, failures: dict[Address, Exception]) -> Exception:
    """One error for all of them."""
    if not failures:
        return LinkLost(f"no address of {who} is found")
    told = [f"at {address}: {str(error) or 'it took too long'}" for address, error in failures.items()]
    errors = list(failures.values())
    if all(isinstance(error, Refused) for error in errors):
        errors[0].add_note("; ".join([*told[1:], f"at {next(iter(failures))}"]))  # its own text follows
        return errors[0]
    failed = LinkLost(f"no link to {who}; " + "; ".join(told))
    failed.__cause__ = ExceptionGroup("each address", errors)
    return failed
