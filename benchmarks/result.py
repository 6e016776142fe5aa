"""What a run found: results, the table to meet, and both as JSON."""

import json
import os
import platform
import ssl
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from cryptography.hazmat.backends.openssl.backend import backend as openssl

from benchmarks.stacks import STACKS


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    Attributes:
        name: the benchmark.
        stack: whose figure it is.
        metric: what `value` counts, with its unit.
        value: median over the rounds.
        p50_us, p99_us: medians of the rounds' percentiles of latency, microseconds.
        cpu_us: CPU time of both ends for one unit, microseconds.
        baseline, ratio: beside whom, and the median of the rounds' ratios; above 1 `stack` is the better one.
        params: circumstances: sizes, concurrency, key type.
    """

    name: str
    stack: str
    metric: str
    value: float
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None
    baseline: str | None = None
    ratio: float | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def circumstances(self) -> dict[str, Any]:
        """What distinguishes it from others of the same metric: `params` without further findings."""
        return {key: value for key, value in self.params.items() if key not in ("latencies_us", "lacks")}

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "stack": self.stack, "metric": self.metric, "value": self.value, "p50_us": self.p50_us,
            "p99_us": self.p99_us, "cpu_us": self.cpu_us, "baseline": self.baseline, "ratio": self.ratio, **self.params,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the table to meet.

    Attributes:
        what: the row in words.
        bar, goal: what must be reached, and what ought to be.
        most: the figure may be at most that, instead of at least.
        unit: of all three; a ratio is "x".
    """

    what: str
    bar: float
    goal: float
    most: bool = False
    unit: str = "x"

    def meets(self, figure: float, mark: float) -> bool:
        return figure <= mark if self.most else figure >= mark


BARS: Final = {
    "handshake_vs_asyncio_ssl": Bar("full handshake and echo, 16 at once, beside asyncio + ssl", 1.0, 1.25),
    "handshake_vs_trio_ssl": Bar("full handshake and echo, 16 at once, beside trio.SSLStream", 1.4, 2),
    "handshake_vs_grpc": Bar("full handshake and echo, 16 at once, beside grpcio aio", 1.2, 2),
    "handshake_vs_libp2p": Bar("full handshake and echo, 16 at once, beside py-libp2p", 5, 10),
    "handshake_vs_floor": Bar(
        "full handshake and echo beside its floor, CPU, both ends in one process", 0.6, 0.8
    ),
    "resumed_vs_full": Bar("resumed beside full, peer never seen, chain of 2, CPU", 1.4, 1.6),
    "verify_seen_us": Bar("verdict on a peer seen before, µs of CPU", 10, 3, most=True, unit=" µs"),
    "verify_cold_vs_floor": Bar("cold verdict, cost over its floor", 1.5, 1.2, most=True),
    "call_vs_floor": Bar("signed call, one at a time, beside its floor, CPU", 0.5, 0.65),
    "call32_vs_grpc": Bar("signed call, 32 at once, beside grpcio's unsigned one", 3, 6),
    "message_vs_unbatched": Bar("signed 100 B one way, beside one signature a message", 6, 12),
    "message_vs_nats": Bar("signed 100 B one way, beside NATS' unsigned rate", 0.4, 1.0),
    "bulk_vs_asyncio_ssl": Bar("one large body beside asyncio + ssl", 0.7, 1.0),
    "idle_link_kib": Bar("memory of one end of an idle link, KiB", 100, 50, most=True, unit=" KiB"),
    "message_cost_5000_vs_10": Bar("CPU for a message, 5,000 live links over 10", 1.3, 1.05, most=True),
    "call_p99_beside_bulk": Bar(
        "small call's p99 beside bulk on its link, over its quiet p99", 5, 2, most=True
    ),
}
"""The table to meet, by the key in the JSON."""

NEEDS: Final = {
    "handshake_vs_asyncio_ssl": "asyncio+ssl",
    "handshake_vs_trio_ssl": "trio.SSLStream",
    "handshake_vs_grpc": "grpcio",
    "handshake_vs_libp2p": "py-libp2p",
    "call32_vs_grpc": "grpcio",
    "message_vs_nats": "nats",
    "bulk_vs_asyncio_ssl": "asyncio+ssl",
}
"""The neighbour without which a row has no figure."""


@dataclass(slots=True)
class Findings:
    """Everything so far: it is written out whole whenever a run ends, also early."""

    command: str = ""
    results: list[Result] = field(default_factory=list)
    noise: dict[str, float] = field(default_factory=dict)
    table: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # to a key of the table
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # that each benchmark took
    began_with_load: float = field(default_factory=lambda: os.getloadavg()[0])

    def noise_of(self, result: Result) -> float:
        """The factor by which ours differed from itself where this was compared; 1 where nothing was."""
        return self.noise.get(comparison(result.name, result.circumstances), 1.0)

    def bars(self) -> dict[str, dict[str, Any]]:
        """Each row of the table with its marks and whether they are met."""
        rows = {}
        for key, bar in BARS.items():
            figure = self.table.get(key)
            rows[key] = {
                "what": bar.what, "bar": bar.bar, "goal": bar.goal, "at_most": bar.most, "figure": figure,
                "bar_met": None if figure is None else bar.meets(figure, bar.bar),
                "goal_met": None if figure is None else bar.meets(figure, bar.goal),
                "note": self.notes.get(key, "" if figure is not None else "not measured in this run"),
            }  # fmt: skip
        return rows

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": {**machine(), "load_at_start": self.began_with_load},
            "versions": versions(),
            "command": self.command,
            "noise": {
                "median": statistics.median(self.noise.values()) if self.noise else None,
                "by_comparison": self.noise,
            },
            "table": {key: self.table.get(key) for key in BARS},
            "bars": self.bars(),
            "failures": self.failures,
            "seconds": self.seconds,
            "results": [result.as_json() for result in self.results],
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def comparison(name: str, circumstances: dict[str, Any]) -> str:
    """The key of a comparison's noise."""
    return f"{name}: {words(circumstances)}"


def words(circumstances: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in circumstances.items())


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(stacks: Iterable[str] = STACKS) -> dict[str, str]:
    """Of Python, both OpenSSLs and these stacks; of one that is not installed what it needs."""
    return {
        "Python": platform.python_version(),
        "OpenSSL of Python's ssl": ssl.OPENSSL_VERSION,
        "OpenSSL of cryptography": openssl.openssl_version_text(),
        **{name: _version(name) for name in stacks},
    }


def _version(name: str) -> str:
    missing = STACKS[name].missing()
    return STACKS[name].version() if missing is None else f"missing: {missing}"
