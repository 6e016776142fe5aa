"""Writes the vectors: ``python generate.py [FOLDER]``. Imports nothing of the package that they test.

One scenario a file: `name`, `shows`, `input`, and either `expect` or `refuse`, a class of failure. Bytes are
hexadecimal. A folder in `spec` is a subject, and docs/spec.md, "Vectors", says what each subject's input means.
"""

import json
import sys
from pathlib import Path

import scenarios_bad
import scenarios_crl
import scenarios_entries
import scenarios_good
import scenarios_links
import scenarios_log
import scenarios_recovery
import scenarios_streams
import scenarios_tlog
import scenarios_words

HERE = Path(__file__).resolve().parent / "spec"


def jsonable(value):
    """Bytes as hexadecimal, everywhere."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: jsonable(entry) for key, entry in value.items()}
    return [jsonable(entry) for entry in value] if isinstance(value, list | tuple) else value


def main(folder):
    written = set()
    for subject, name, shows, given, outcome in (
        *scenarios_good.scenarios(),
        *scenarios_bad.scenarios(),
        *scenarios_streams.scenarios(),
        *scenarios_links.scenarios(),
        *scenarios_entries.scenarios(),
        *scenarios_log.scenarios(),
        *scenarios_recovery.scenarios(),
        *scenarios_tlog.scenarios(),
        *scenarios_words.scenarios(),
        *scenarios_crl.scenarios(),
    ):
        path = folder / subject / f"{name}.json"
        if path in written:
            raise SystemExit(f"two scenarios are called {subject}/{name}")
        written.add(path)
        result = {"refuse": outcome} if isinstance(outcome, str) else {"expect": outcome}
        path.parent.mkdir(parents=True, exist_ok=True)
        scenario = {"name": name, "shows": shows, "input": given, **result}
        path.write_text(json.dumps(jsonable(scenario), indent=1, ensure_ascii=True) + "\n")
    for stale in set(folder.glob("*/*.json")) - written:
        stale.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
