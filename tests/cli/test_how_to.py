"""The page docs/howto/two-organisations.md, carried out: real shells, real processes, two keystores, TCP on loopback."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "two-organisations.md"
BLOCKS = re.findall(r"^```(\w+) ([^\n]+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_walk_of_two_organisations_goes_as_the_how_to_says(tmp_path):
    """Every block of the page in order; the serving one keeps running until the end and is then drained by SIGTERM."""

    def environment(organisation: str, contact: str = "") -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AUTOLINK_HOME": str(tmp_path / organisation),
            "AUTOLINK_PASSPHRASE": f"the passphrase of {organisation}",
            "CONTACT": contact,
        }

    def run(organisation: str, script: str, contact: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", script], cwd=tmp_path, env=environment(organisation, contact),
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    serving, contact, said = None, "", ""
    try:
        for language, what, text in BLOCKS:
            if language == "python":
                (tmp_path / what).write_text(text)
            elif what.endswith(" serves"):
                serving = subprocess.Popen(
                    ["sh", "-euc", f"exec {text}"], cwd=tmp_path, env=environment(what.split()[0]),
                    stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                contact = serving.stdout.readline().strip()
            else:
                said = run(what, text, contact)
        pinged, reply = said.split("{", 1)
        assert "IssuedBy: issued below acme~" in pinged
        assert json.loads("{" + reply) == {"item": "tea", "cents": 250, "for": "buyer"}
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0
    finally:
        if serving is not None:
            serving.kill()
            serving.wait()
            serving.stdout.close()
    assert (tmp_path / "acme.next-key").stat().st_mode & 0o777 == 0o600
