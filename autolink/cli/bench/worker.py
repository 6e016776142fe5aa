"""One process of a load: `main` is what it runs. It hears its plan on stdin and tells on stdout what it counts.

stdin holds the plan, then, when everybody is ready, one byte; its end means stop, so a parent that dies takes its workers
along. stdout holds ``[what, value]`` in msgpack: ``ready``; ``tally`` twice a second; ``end`` with the last tally and the
error, if one ended the load.
"""

import logging
import os
import struct
import sys
from time import process_time
from typing import Any, Final

import anyio
import msgpack

from autolink.agent.groups import background_tasks
from autolink.cli.bench.loop import Loop
from autolink.cli.bench.operations import Target, prepare
from autolink.cli.bench.plan import Plan
from autolink.cli.bench.tally import Tally
from autolink.cli.edge import about, as_json
from autolink.cli.talk import address_in
from autolink.cli.trust_option import build
from autolink.errors import AutolinkError

COMMAND: Final = (
    sys.executable, "-P", "-c",
    f"import sys; sys.path[:] = {sys.path!r}; from autolink.cli.bench.worker import main; main()",
)  # fmt: skip
"""A new interpreter, which inherits neither event loop nor threads nor keys, and takes its modules from where we did: not
from the working directory, which `-c` alone would search first."""

LENGTH: Final = struct.Struct(">Q")
"""Before the plan: how many bytes it has."""

_TELLING: Final = 0.5


def main() -> None:
    """Do the part of the load that stdin says."""
    logging.getLogger("autolink").setLevel(logging.ERROR)  # lost links are counted, not logged one by one
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is printed by mistake does not get in between
    os.set_blocking(out, False)
    length = _exactly(LENGTH.size)
    plan = _exactly(*LENGTH.unpack(length)) if length else b""
    status = 0
    try:
        if plan:
            anyio.run(_Worker(Plan.from_bytes(plan), out).run, backend="trio")
    except* BrokenPipeError:  # the parent is gone, and nobody is left to be told
        status = 1  # Python 3.11.2 wraps what is raised here, SystemExit too, in a group
    sys.exit(status)


def _exactly(size: int) -> bytes:
    """The next bytes of stdin, nothing if it ends before."""
    data = bytearray()
    while len(data) < size and (piece := os.read(0, size - len(data))):
        data += piece
    return bytes(data) if len(data) == size else b""


class _Worker:
    def __init__(self, plan: Plan, out: int) -> None:
        self._plan = plan
        self._out = out
        self._tally = Tally()
        self._begun = 0.0

    async def run(self) -> None:
        """The load, and what came of it."""
        error = None
        try:
            with about(address_in(self._plan.contact), name=self._plan.name):
                await self._load()
        except (AutolinkError, OSError) as ended:
            error = as_json(ended)
        await self._tell("end", {"tally": self._tally.as_plain(), "error": error})

    async def _load(self) -> None:
        plan = self._plan
        target = Target(plan.contact, plan.anyone, build(plan.specs, folder=None), plan.evidence)
        operations = prepare(plan.work, target, plan.credentials, self._tally)
        loop = Loop(operations.operation, plan.pace, self._tally)
        async with operations.running():
            await self._tell("ready", None)
            if not await _heard():
                return
            self._begun = process_time()
            with anyio.CancelScope() as scope:
                async with background_tasks() as tasks:
                    tasks.start_soon(self._stop, scope)
                    tasks.start_soon(self._report, loop)
                    try:
                        await loop.run()
                    finally:
                        self._tally.cpu = process_time() - self._begun

    async def _report(self, loop: Loop) -> None:
        while True:
            await anyio.sleep(_TELLING)
            loop.note()
            self._tally.cpu = process_time() - self._begun
            await self._tell("tally", self._tally.as_plain())

    async def _stop(self, scope: anyio.CancelScope) -> None:
        while await _heard():
            pass
        scope.cancel()

    async def _tell(self, what: str, value: Any) -> None:  # noqa: ANN401
        """A message for the parent; a parent that does not read does not stop the loop. Never cut in the middle."""
        left = msgpack.packb([what, value])
        with anyio.CancelScope(shield=True):
            while left:
                await anyio.wait_writable(self._out)
                left = left[os.write(self._out, left) :]


async def _heard() -> bytes:
    """The next byte of stdin, nothing at its end."""
    await anyio.wait_readable(0)
    return os.read(0, 1)
