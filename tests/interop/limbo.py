"""The x509-limbo harness: a suite's JSON on stdin, one JSON object of results on stdout, a summary on stderr.

    python tests/interop/limbo.py [--layer path|full] < suite.json > results.json

A case goes through stages, and the first that refuses gives the result and its rule:

1. `engine`: OpenSSL finds a valid path (autolink.trust.chain).
2. `chain-length`: the path is no longer than autolink's cap, nor than the case's.
3. The standard rules of the profile, by name: what holds for any X.509 path.
4. `usage` and `peer-name`: what the case itself asks for. Done here: autolink has neither server names nor
   a choice of usages.
5. autolink's own rules, by name, `naming` last: no certificate of the suite carries an Auto ID.

``--layer full``, the default, is what an agent does, so every case that expects SUCCESS ends in a rule of
`EXCEPTIONS`. ``--layer path`` stops after stage 4 and shows how the validation below the naming agrees with
other validators.
"""

import argparse
import ipaddress
import json
import ssl
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

sys.path.append(str(Path(__file__).parents[2]))  # run as a script from a checkout

from autolink import limits
from autolink.errors import IdentityError
from autolink.trust.chain import verify_path
from autolink.trust.profile import RULES, STANDARD, check_profile

EXCEPTIONS = {
    "key-identifiers": "an issuer without key identifiers is nothing this system makes",
    "chain-length": "a chain has at most limits.CHAIN certificates, root included",
    "extensions": "name constraints bind names that no Auto ID has: not part of the profile",
    "key": "P-384 and P-521 are off the allow-list, and each key has one signature algorithm",
    "serial": "a serial number has at most 159 bits, so that its DER has at most 20 octets",
    "basic-constraints": "who issues says so in a critical extension, and a CA is no leaf",
    "key-usage": "keyUsage is there, critical, and says only what the certificate's place needs",
    "extended-key-usage": "a leaf is for both sides of TLS: an agent dials and listens with one",
    "issuer": "no self-issued certificate inside a path: it would put one name there twice",
    "lifetime": "lifetimes are capped and lie inside the issuer's",
    "subject": "the subject is one common name: nothing that is not in the AutoId may look as if it were",
    "peer-name": "a common name that looks like a host must be a subjectAltName too (Web PKI)",
    "naming": "exactly one subjectAltName, an autoid URI: the suite has none",
}
"""Rule -> why autolink refuses what the suite accepts."""

SKIPS = {
    "pedantic-public-suffix-wildcard": "needs the Public Suffix List",
    "pedantic-webpki-eku": "Web PKI only",
}
"""Features that the path layer does not judge. The full layer skips nothing."""

DEFAULT_TIME = "2024-01-01T00:00:00+00:00"
SECONDS = 5


class RefusedBy(Exception):
    """A stage refused."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")


def run(case: dict[str, Any], layer: str = "full") -> dict[str, str | None]:
    """One result as the suite's contract wants it; the context of a refusal begins with its rule."""
    if layer == "path":
        for feature in case["features"]:
            if feature in SKIPS:
                return _result(case, "SKIPPED", f"feature {feature}: {SKIPS[feature]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # cryptography warns about the hostile values that the rules then refuse
            _validate(case, layer)
    except RefusedBy as refusal:
        return _result(case, "FAILURE", str(refusal))
    except Exception as error:  # the contract: any exception inside validation is a result
        return _result(case, "FAILURE", f"parse: {type(error).__name__}: {error}")
    return _result(case, "SUCCESS", None)


def run_in_subprocess(case: dict[str, Any], layer: str = "full") -> dict[str, str | None]:
    """The same where a case is meant to hang a naive validator."""
    suite = json.dumps({"version": 1, "testcases": [case | {"features": []}]})
    command = [sys.executable, __file__, "--layer", layer]
    try:
        done = subprocess.run(
            command, input=suite, capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        return _result(case, "HANG", f"no answer in {SECONDS} s")
    result: dict[str, str | None] = json.loads(done.stdout)["results"][0]
    return result


def rule_of(result: dict[str, str | None]) -> str:
    """The rule that refused; empty for a case that was not refused."""
    return (result["context"] or "").partition(":")[0] if result["actual_result"] == "FAILURE" else ""


def _result(case: dict[str, Any], actual: str, context: str | None) -> dict[str, str | None]:
    return {"id": case["id"], "actual_result": actual, "context": context}


def _validate(case: dict[str, Any], layer: str) -> None:
    try:
        path_der = verify_path(  # 1
            _der(case["peer_certificate"]),
            [_der(pem) for pem in case["untrusted_intermediates"]],
            [_der(pem) for pem in case["trusted_certs"]],
            now=datetime.fromisoformat(case["validation_time"] or DEFAULT_TIME),
            crls=[x509.load_pem_x509_crl(pem.encode()) for pem in case["crls"]],
        )
    except IdentityError as error:
        raise RefusedBy("engine", str(error)) from None
    path = [x509.load_der_x509_certificate(der) for der in path_der]
    if len(path) > limits.CHAIN:  # 2
        raise RefusedBy("chain-length", f"{len(path)} certificates")
    intermediates = sum(certificate.subject != certificate.issuer for certificate in path[1:-1])
    if case["max_chain_depth"] is not None and intermediates > case["max_chain_depth"]:
        raise RefusedBy("chain-length", f"{intermediates} intermediates")
    _check_rules(path, STANDARD)  # 3
    _check_usage(path[0], case["key_usage"], case["extended_key_usage"])  # 4
    _check_names(path[0], case)
    if layer == "full":
        _check_rules(path, [rule for rule in RULES if rule not in STANDARD])  # 5


def _der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.strip())


def _check_rules(path: Sequence[x509.Certificate], rules: Sequence[Any]) -> None:
    for rule in rules:
        try:
            check_profile(path, rules=[rule])
        except IdentityError as error:
            raise RefusedBy(rule.name, str(error)) from None


def _check_usage(leaf: x509.Certificate, key_usage: Sequence[str], extended: Sequence[str]) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        attribute = {
            "digitalSignature": "digital_signature",
            "keyCertSign": "key_cert_sign",
            "cRLSign": "crl_sign",
        }
        for wanted in key_usage:
            if not getattr(usage, attribute.get(wanted, wanted)):
                raise RefusedBy("usage", f"no {wanted}")
    except x509.ExtensionNotFound:
        pass  # without keyUsage every usage is allowed (RFC 5280, section 4.2.1.3)
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # the same (section 4.2.1.12)
    oids = {
        "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
        "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
        "anyExtendedKeyUsage": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
    for wanted in extended or ["serverAuth"]:
        oid = oids.get(wanted) or x509.ObjectIdentifier(wanted)
        if oid not in purposes and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
            raise RefusedBy("usage", f"not for {wanted}")


def _check_names(leaf: x509.Certificate, case: dict[str, Any]) -> None:
    expected = case["expected_peer_names"] + (
        [case["expected_peer_name"]] if case["expected_peer_name"] else []
    )
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        if expected:
            raise RefusedBy("peer-name", "no subjectAltName") from None
        return
    if not list(leaf.subject) and not extension.critical:
        raise RefusedBy(
            "peer-name", "an empty subject needs a critical subjectAltName (RFC 5280, section 4.2.1.6)"
        )
    dns = extension.value.get_values_for_type(x509.DNSName)
    ips = [str(ip) for ip in extension.value.get_values_for_type(x509.IPAddress)]
    mails = extension.value.get_values_for_type(x509.RFC822Name)
    for name in dns:
        if not _well_formed(name):
            raise RefusedBy("peer-name", f"malformed DNS name {name!a}")
    for name in expected:
        kind, value = name["kind"], name["value"]
        if kind == "DNS":
            matches = any(_matches(pattern.lower(), value.lower()) for pattern in dns)
        elif kind == "IP":
            matches = str(ipaddress.ip_address(value)) in ips
        else:
            local, _, domain = value.partition("@")
            matches = any(mail in (value, f"{local}@{domain.lower()}") for mail in mails)
        if not matches:
            raise RefusedBy("peer-name", f"no match for {value!a}")
    for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if ("." in attribute.value or ":" in attribute.value) and attribute.value not in [*dns, *ips, *mails]:
            raise RefusedBy(
                "peer-name", "the common name repeats no subjectAltName (Baseline Requirements 7.1.4.3)"
            )


def _well_formed(pattern: str) -> bool:
    """Letters, digits, hyphens in labels; a wildcard only as the whole first of at least three."""
    labels = pattern.split(".")
    if labels[0] == "*" and len(labels) >= 3:
        labels = labels[1:]
    return all(
        label and label.isascii() and label.replace("-", "a").replace("_", "a").isalnum() for label in labels
    )


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.startswith("*.") and pattern[1:] == name[name.find(".") :])


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--layer", choices=["path", "full"], default="full")
    layer = options.parse_args().layer
    cases = json.load(sys.stdin)["testcases"]
    results = [
        (run_in_subprocess if "denial-of-service" in case["features"] else run)(case, layer) for case in cases
    ]
    json.dump({"version": 1, "harness": "autolink", "results": results}, sys.stdout, indent=1)
    tally = Counter(
        f"expected {case['expected_result']}, got {result['actual_result']} {rule_of(result)}"
        for case, result in zip(cases, results, strict=True)
    )
    for line, count in sorted(tally.items()):
        print(f"{count:4}  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
