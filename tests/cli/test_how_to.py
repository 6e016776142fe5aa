"""The pages of docs/howto that are walks, carried out: real shells, real processes, keystores, TCP on loopback."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(
    300
)  # each walk is dozens of commands, and each of them opens a key under a passphrase

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "howto"
BLOCK = re.compile(r"^```(\w+) ([^\n]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@contextmanager
def walked(
    page: str, folder: Path, *, instead: tuple[str, str] = ("", "")
) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """Every block of a page in order: what its scripts said, and the process of the one that serves, still running.

    Args:
        instead: of these words in scripts, those.
    """

    def environment(organisation: str, contact: str = "") -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AUTOLINK_HOME": str(folder / organisation),
            "AUTOLINK_PASSPHRASE": f"the passphrase of {organisation}",
            "CONTACT": contact,
        }

    def run(organisation: str, script: str, contact: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", script], cwd=folder, env=environment(organisation, contact),
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    serving, contact, said = None, "", []
    try:
        for language, what, text in BLOCK.findall((HOW_TO / page).read_text()):
            if language == "python":
                (folder / what).write_text(text)
            elif what.endswith(" serves"):
                serving = subprocess.Popen(
                    ["sh", "-euc", f"exec {text}"], cwd=folder, env=environment(what.split()[0]),
                    stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                contact = serving.stdout.readline().strip()
            else:
                said.append(run(what, text.replace(*instead), contact))
        yield said, serving
    finally:
        if serving is not None:
            serving.kill()
            serving.wait()
            serving.stdout.close()


def test_the_walk_of_two_organisations_goes_as_the_how_to_says(tmp_path):
    """The serving process keeps running until the end and is then drained by SIGTERM."""
    with walked("two-organisations.md", tmp_path) as (said, serving):
        pinged, reply = said[-1].split("{", 1)
        assert "IssuedBy: issued below acme~" in pinged
        assert json.loads("{" + reply) == {"item": "tea", "cents": 250, "for": "buyer"}
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0
    assert (tmp_path / "acme.next-key").stat().st_mode & 0o777 == 0o600


def test_load_is_put_on_an_agent_as_the_how_to_says(tmp_path):
    """Each load for a moment instead of ten seconds; the outputs have the lines that the page shows."""
    page = (HOW_TO / "load-testing.md").read_text()
    facts = [line.split()[0] for line in re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].splitlines()]
    with walked("load-testing.md", tmp_path, instead=("--duration 10", "--duration 0.3")) as (said, _):
        loads = [line for line in "".join(said).splitlines() if line.split("  ")[0] in facts]
    assert [line.split("  ")[0] for line in loads] == facts * 5
    done = [line for line in loads if line.startswith("done")]
    words = ["links opened", "calls answered", "messages confirmed", "calls answered", "links opened"]
    assert all(word in line for word, line in zip(words, done, strict=True))
    assert "2 workers, 20 identities" in loads[-len(facts) + 1]


def test_a_registry_is_run_as_the_how_to_says(tmp_path):
    """Made, served; an organisation and its agent on record, renewed, revoked, rotated, recovered; audited, mirrored."""
    with walked("registry.md", tmp_path) as (said, serving):
        states = [re.search(r"^state +(\w+)$", text, re.MULTILINE) for text in said]
        told = " ".join(found[1] for found in states if found)
        assert told == "active active revoked active recovering"
        *_, watched, mirrored = said
        assert "entry 5  " in watched
        assert ": it is recovering now, and sha256:" in watched
        assert re.findall(r"^entries +(\d+)$", mirrored, re.MULTILINE) == ["6", "6"]  # written and audited
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0
    assert (tmp_path / "registry" / "log.key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_rotated_as_the_how_to_says(tmp_path):
    """And the machine is lost afterwards: an agent issued in between is believed by the first anchor to the end."""
    with walked("rotate-a-key.md", tmp_path) as (said, _):
        facts = [[line.split(maxsplit=1) for line in one.splitlines()] for one in said]
    assert ["rotations", "1"] in facts[2]
    assert ["rotations", "2"] in facts[-1]
    assert "IssuedBy: issued below acme~" in said[-1]
    ids = [{line[1] for line in one if line and line[0] == "peer"} for one in facts]
    assert len(ids[0]) == 1
    assert ids[0] < ids[-1]  # the same again, and the seller's
    assert sorted(path.name for path in (tmp_path / "safe").iterdir()) == [
        "acme-chain.pem", "acme.next-key", "acme.next-key-2",
    ]  # fmt: skip
