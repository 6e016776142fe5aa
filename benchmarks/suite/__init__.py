"""The benchmarks, one module each: jobs first (they run in the processes), then `run`, which arranges them."""

from collections.abc import Callable
from typing import Final

from benchmarks.harness import Bench
from benchmarks.suite import (
    bulk,
    call,
    fairness,
    growth,
    handshake,
    idle,
    message,
    registry,
    revocation,
    verify,
)

SUITE: Final[dict[str, Callable[[Bench], None]]] = {
    "handshake": handshake.run,
    "verify": verify.run,
    "call": call.run,
    "message": message.run,
    "bulk": bulk.run,
    "idle": idle.run,
    "fairness": fairness.run,
    "growth": growth.run,
    "registry": registry.run,
    "revocation": revocation.run,
}
"""By name, in the order in which they run."""
