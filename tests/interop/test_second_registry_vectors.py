"""The vectors of a registry's formats, by the second implementation too (second_registry.py and those around it)."""

import json
from pathlib import Path

import pytest

from tests.interop import second_registry as registry
from tests.interop import second_tlog as tlog
from tests.interop.second_certificates import Refused, certificate_of, sha
from tests.interop.second_crl import open_crl
from tests.interop.second_log import Ledger
from tests.interop.second_service import open_service

VECTORS = Path(__file__).parents[1] / "vectors" / "spec"


def shown(value):
    """Bytes as hexadecimal, everywhere."""
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


def read(value):
    """The input of a vector of bytes, everywhere."""
    return [read(each) for each in value] if isinstance(value, list) else bytes.fromhex(value)


def entry(given):
    parsed = registry.parse_entry(read(given["entry"]))
    said = parsed._asdict() | {"body_hash": sha(parsed.body)}
    return {name: each for name, each in said.items() if name not in ("origin", "body")}


def service(given):
    return open_service(read(given["record"]))


def log(given):
    ledger = Ledger(given["origin"])
    for step in given["steps"]:
        try:
            ledger.append(step["at"], read(step["entry"]))
            gets = "appended"
        except Refused as refused:
            gets = refused.args[0]
        assert gets == step["gets"], step["shows"]
    ledger.time = given["at"]
    leaf_hashes = [sha(b"\0" + leaf) for leaf in ledger.leaves]
    standing = {id_.hex(): ledger.standing(id_) for id_ in ledger.records}
    return {"leaf_hashes": leaf_hashes, "root": ledger.root, "standing": standing}


def of_log(given):
    return tlog.Log(given["origin"], read(given["key"]))


def checkpoint(given):
    size, root = tlog.open_checkpoint(read(given["note"]), of_log(given))
    return {"size": size, "root": root}


def proof(given):
    index, size, root = tlog.open_proof(read(given["proof"]), sha(b"\0" + read(given["leaf"])), of_log(given))
    return {"index": index, "size": size, "root": root}


def consistency(given):
    tlog.check_consistency(given["sizes"], read(given["roots"]), read(given["path"]))
    return {}


def status(given):
    chain, data = map(certificate_of, read(given["chain"])), read(given["status"])
    known = [read(given[name]) for name in ("seen", "changes", "forgotten")]
    return registry.judge_status(data, [*chain], of_log(given), given["at"], given["max_age"], *known)


def again(given):
    shown = [([*map(certificate_of, read(chain))], read(status)) for chain, status in given["shown"]]
    return {"again": [*registry.judged_again(shown, of_log(given))]}


def crl(given):
    certificate, size = certificate_of(read(given["certificate"])), given["size"]
    said = open_crl(read(given["crl"]), certificate, size, given["at"])
    return dict(zip(("size", "this_update", "serial_numbers"), said, strict=True))


def receipt(given):
    submitted = registry.parse_entry(read(given["submitted"]))
    return registry.open_receipt(read(given["word"]), of_log(given), submitted, given["at"])


RUNNERS = {
    "entry": entry, "service": service, "log": log, "checkpoint": checkpoint, "proof": proof,
    "consistency": consistency, "status": status, "again": again, "crl": crl, "receipt": receipt,
    "change": lambda given: registry.open_word("change", read(given["word"]), of_log(given)),
}  # fmt: skip
FILES = [file for subject in RUNNERS for file in sorted((VECTORS / subject).glob("*.json"))]


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_the_vectors_of_a_registry_hold_for_the_second_side_too(file):
    """The same results, and the same classes of failure."""
    scenario, run = json.loads(file.read_text()), RUNNERS[file.parent.name]
    if "refuse" in scenario:
        with pytest.raises(Refused) as refused:
            run(scenario["input"])
        assert refused.value.args[0] == scenario["refuse"]
    else:
        said, wanted = shown(run(scenario["input"])), scenario["expect"]
        said |= (
            {"standing": {id_: said["standing"][id_] for id_ in wanted["standing"]}}
            if "standing" in said
            else {}
        )
        assert {name: said[name] for name in wanted} == wanted
