"""A link to somebody whose address is not known: it is found, and each address tried until one opens.

Addresses that are found were chosen by others. That whoever answers is who was meant, the handshake sees to, as for any
address; which of them may be dialled at all is the finder's to judge. Here is that all of it ends: so many addresses, each
with its share of the time that is left, in one deadline.
"""

from typing import TYPE_CHECKING

import anyio

from autolink import limits
from autolink.errors import AutolinkError, LinkLost, Refused, RemoteProtocolError, UsageError
from autolink.identity import PeerId
from autolink.transport import Address

if TYPE_CHECKING:
    from autolink.agent.agent import Agent
    from autolink.agent.link import Link


async def dial_found(agent: "Agent", who: PeerId) -> "Link":
    """One attempt at a link to `who`, wherever the agent's finder finds it.

    Raises:
        Refused: at every address.
        LinkLost: it is not found, or no address gave a link: the text names each, and why.
        TimeoutError: none within `limits.FINDING` seconds.
    """
    with anyio.fail_after(limits.FINDING) as scope:
        addresses = (await _find(agent, who))[: limits.ADDRESSES]
        failures: dict[Address, Exception] = {}
        for number, address in enumerate(addresses):
            left = scope.deadline - anyio.current_time()
            try:
                with anyio.fail_after(left / (len(addresses) - number)):
                    return await agent.dial(address, who)
            except (Refused, LinkLost, RemoteProtocolError, TimeoutError) as error:
                failures[address] = error
    raise _failed(who, failures)


async def _find(agent: "Agent", who: PeerId) -> list[Address]:
    if agent.finder is None or who.auto_id is None:
        raise UsageError("the agent's finder was taken away")
    try:
        return list(await agent.finder(who.auto_id))
    except UsageError:
        raise
    except (AutolinkError, OSError) as error:  # a registry's refusal, too, is none of the peer's
        raise LinkLost(f"no address of {who} is found: {str(error) or 'it took too long'}") from error


def _failed(who: PeerId, failures: dict[Address, Exception]) -> Exception:
    """One error for all of them."""
    if not failures:
        return LinkLost(f"no address of {who} is found")
    told = [f"at {address}: {str(error) or 'it took too long'}" for address, error in failures.items()]
    errors = list(failures.values())
    failed = errors[0] if all(isinstance(error, Refused) for error in errors) else LinkLost(
        f"no link to {who}; " + "; ".join(told)
    )  # fmt: skip
    if isinstance(failed, Refused):
        failed.add_note("; ".join(told))
    failed.__cause__ = ExceptionGroup("each address", errors) if failed not in errors else None
    return failed
