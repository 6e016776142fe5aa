"""`autolink run --workers N`, put together: what the supervisor and its workers share, and what only one of them does."""

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from autolink import Agent
from autolink.cli.edge import Status
from autolink.cli.logs import stamp_logs
from autolink.cli.registry_link import Standing
from autolink.cli.reload import Sources
from autolink.cli.serving import print_contacts, serve_as_worker
from autolink.cli.supervisor import Supervisor
from autolink.cli.trust_option import Spec
from autolink.errors import UsageError, display
from autolink.transport import Contact, ListeningSocket, listen_blocking, parse_address


def supervise(
    agent: Agent, specs: Sequence[Spec], addresses: Sequence[str], *, workers: int, patience: float, backend: str,
    standing: Standing = nullcontext, announce: Callable[[Sequence[str]], object] = print_contacts,
) -> bool:  # fmt: skip
    """Serve with several processes until told to stop, and print the contacts when the first of them does.

    Args:
        specs: what the agent's trust model was built from; none for a module's own.
        patience: seconds that what is open gets to end.
        standing: around the serving of each worker.
        announce: is told the contacts when the first of them listens.

    Returns:
        Whether all of it ended in time.

    Raises:
        UsageError: a thread runs, the agent has topics, a file of trust cannot be read twice, or nothing can be remembered
            or listened on.
        OSError: an address cannot be listened on.
    """
    check_single_threaded()
    _check_topics(agent)
    sources = Sources(agent, specs)
    with ExitStack() as stack:  # of the supervisor alone: a worker never leaves it
        agent.share_replay(agent.credential.folder or _folder(stack))
        sockets: list[ListeningSocket] = []

        def stop_listening() -> None:
            for one in sockets:
                one.close()

        def work(supervisor: socket.socket) -> Status:
            stamp_logs(of_process=True)

            async def serve() -> bool:
                async with standing():
                    return await serve_as_worker(agent, sockets, patience, supervisor, sources.read_trust)

            return Status.OK if anyio.run(serve, backend=backend) else Status.FAILED

        def listening() -> None:
            announce([str(Contact(agent.peer_id, one.address)) for one in sockets])

        stack.callback(stop_listening)
        for address in [parse_address(text) for text in addresses]:
            sockets += listen_blocking(address)
        supervisor = Supervisor(
            agent, sources, work,
            count=workers, patience=patience, announce=listening, stop_listening=stop_listening,
        )  # fmt: skip
        return supervisor.run()


def check_single_threaded() -> None:
    """Make sure that this process may be forked.

    Raises:
        UsageError: another thread runs.
    """
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    threads = Path("/proc/self/task")  # on Linux, where those of libraries are seen too
    count = len(list(threads.iterdir())) - 1 if threads.exists() else len(names)
    if count:
        who = ", ".join(names) or f"{count} of a library"
        raise UsageError(
            f"--workers forks, and no other thread survives that, but the module has started some ({who}): start them "
            "in a handler, or serve without --workers"
        )


def _check_topics(agent: Agent) -> None:
    if agent.topics:
        raise UsageError(
            f"topic {display(next(iter(agent.topics)))!r}: what one worker publishes, subscribers of the others would never "
            "get: serve it without --workers"
        )


def _folder(stack: ExitStack) -> Path:
    """For an identity that has none: 0700, and gone with the supervisor."""
    return Path(stack.enter_context(TemporaryDirectory(prefix="autolink-")))
