"""x509-limbo: our chain validation against the suite's expected verdicts (see limbo.py)."""

import importlib.util
import json
import ssl
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509

from autolink.identity.certificate import PARSER_ERRORS
from autolink.identity.der import cut

ROOT = Path(__file__).parents[2]
SUITE = ROOT.parent / "shared" / "reference" / "limbo" / "limbo-half.json"


@pytest.fixture(scope="module")
def limbo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("limbo", Path(__file__).with_name("limbo.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    if not SUITE.exists():
        pytest.skip(f"CHAIN VALIDATION WAS NOT COMPARED WITH X509-LIMBO: {SUITE} is not on this machine")
    loaded: list[dict[str, Any]] = json.loads(SUITE.read_text())["testcases"]
    return loaded


@pytest.mark.parametrize("layer", ["path", "full"])
def test_nothing_is_falsely_accepted(limbo: ModuleType, cases: list[dict[str, Any]], layer: str) -> None:
    """No false accept in either layer; a false reject names a rule of the exception table, and nothing hangs."""
    results = [limbo.run(case, layer) for case in cases if "denial-of-service" not in case["features"]]
    expected = {case["id"]: case["expected_result"] for case in cases}
    wrong = [
        result for result in results if result["actual_result"] not in (expected[result["id"]], "SKIPPED")
    ]
    assert [result["id"] for result in wrong if result["actual_result"] == "SUCCESS"] == []
    assert [result for result in wrong if limbo.rule_of(result) not in limbo.EXCEPTIONS] == []
    assert all(result["context"] for result in results if result["actual_result"] != "SUCCESS")


def test_below_the_naming_most_good_paths_are_accepted(
    limbo: ModuleType, cases: list[dict[str, Any]]
) -> None:
    """The path layer does not just refuse: most good paths pass, and one rule stops most others."""
    good = [limbo.run(case, "path") for case in cases if case["expected_result"] == "SUCCESS"]
    tally = Counter(map(limbo.rule_of, good))
    assert tally[""] >= 0.5 * len(good)
    assert len(good) - tally[""] - tally["extensions"] <= 0.25 * len(good)


def test_pathological_chains_end_in_time(limbo: ModuleType, cases: list[dict[str, Any]]) -> None:
    """Each case that may hang a validator is refused in a process of its own, within 5 s."""
    hard = [case for case in cases if "denial-of-service" in case["features"]]
    assert hard
    assert {limbo.run_in_subprocess(case)["actual_result"] for case in hard} == {"FAILURE"}


def test_parts_of_certificates_lie_where_their_parser_has_them(cases: list[dict[str, Any]]) -> None:
    """What an agent cuts out of a certificate's DER, on the strangest ones that there are."""
    seen = 0
    for case in cases:
        for pem in (case["peer_certificate"], *case["untrusted_intermediates"], *case["trusted_certs"]):
            der = ssl.PEM_cert_to_DER_cert(pem.strip())
            try:
                certificate = x509.load_der_x509_certificate(der)
                if certificate.version is not x509.Version.v3:
                    continue
                expected = certificate.tbs_certificate_bytes, certificate.subject.public_bytes()
                parts = cut(der)
            except PARSER_ERRORS:  # a warning among them, which is an error here
                continue
            seen += 1
            assert (der[parts.signed], der[parts.subject]) == expected
    assert seen > 100
