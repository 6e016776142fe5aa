"""`python -m benchmarks [handshake] [message] [--quick] [--json FILE]`: rates beside bare asyncio + `ssl`.

Server and client are separate processes on loopback. The stacks run in alternation; the figure that counts is the
median of the per-round ratios, because the machine's own speed cancels out in it. The bare stack against itself, run
the same way, is the noise: differences below it mean nothing.
"""

import argparse
import json
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
from cryptography.hazmat.backends.openssl.backend import backend as openssl
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from rich.table import Table

from autolink import Credential, CredentialRequest, EntityKind
from autolink.identity import dump_chain
from benchmarks.stacks import CLIENTS, SERVERS

BASELINE = "asyncio+ssl"
CONCURRENCY = {"handshake": 16, "message": 1}
UNIT = {
    "handshake": "links opened, judged and used, per second, 16 at once",
    "message": "100-byte messages one way, per second",
}


def make_identities(folder: Path) -> None:
    root = Credential.self_issued("bench")
    root.anchor.save(folder / "root.pem")
    for name in ("server", "client"):
        request = CredentialRequest.new(name)
        credential = request.complete(root.issue(request, kind=EntityKind.AGENT))
        (folder / f"{name}.chain.pem").write_bytes(dump_chain(credential.chain))
        key = credential.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key.pem").write_bytes(key)


@contextmanager
def server(stack: str, folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.stacks", stack, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(name: str, stack: str, folder: Path, where: str, seconds: float) -> float:
    backend, client = CLIENTS[name, stack]
    return anyio.run(client, folder, where, seconds, CONCURRENCY[name], backend=backend)


def compare(name: str, rounds: int, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        make_identities(folder)
        where = {one: stack.enter_context(server(one, folder)) for one in SERVERS}
        for one in SERVERS:
            measure(name, one, folder, where[one], seconds / 4)  # warm-up
        order = [BASELINE, "autolink", BASELINE]
        results = [[measure(name, one, folder, where[one], seconds) for one in order] for _ in range(rounds)]
    return {
        "name": name,
        "unit": UNIT[name],
        "autolink": statistics.median(ours for _, ours, _ in results),
        BASELINE: statistics.median((before + after) / 2 for before, _, after in results),
        "ratio": statistics.median(2 * ours / (before + after) for before, ours, after in results),
        "noise": statistics.median(max(before, after) / min(before, after) for before, _, after in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="handshake, message; all of them by default")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 s instead of 7 of 3 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(UNIT):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(UNIT)}")
    rounds, seconds = (3, 1.0) if arguments.quick else (7, 3.0)
    results = [compare(name, rounds, seconds) for name in arguments.names or UNIT]
    console = Console()
    table = Table("benchmark", "autolink", BASELINE, "ratio", "noise", "what")
    for one in results:
        table.add_row(
            str(one["name"]), f"{one['autolink']:,.0f}", f"{one[BASELINE]:,.0f}", f"{one['ratio']:.2f}",
            f"{one['noise']:.2f}", str(one["unit"]),
        )  # fmt: skip
    console.print(table)
    ours = openssl.openssl_version_text()
    versions = f"Python {platform.python_version()}; {BASELINE}: {ssl.OPENSSL_VERSION}; autolink: {ours}"
    console.print(versions)
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": results, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
