"""Our chains in other people's X.509: Go's crypto/x509, which is no OpenSSL, and Node's.

Go refuses a whole certificate for an extension that it need not know, if a component of its object identifier is
large. The openssl command is asked in `tests/identity/test_issuing.py`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autolink import Credential, CredentialRequest, EntityKind
from autolink.identity import OID_KIND, OID_NEXT_KEY, Certificate, KeyType, dump_chain

HERE = Path(__file__).parent
asks_go = pytest.mark.timeout(600)  # a Go since 1.20 first compiles its own library: a minute has been seen
KIND, NEXT_KEY = OID_KIND.dotted_string, OID_NEXT_KEY.dotted_string


def chains_of(key_type: KeyType) -> list[tuple[Certificate, ...]]:
    """A self-issued one, an agent's, and an agent's of a department."""
    acme = Credential.self_issued("acme", key_type=key_type)
    wanted = CredentialRequest.new("sales", key_type=key_type)
    sales = wanted.complete(acme.issue(wanted, kind=EntityKind.ORGANIZATION, may_issue=0))
    agent = CredentialRequest.new("agent", key_type=key_type)
    return [acme.chain, *(issuer.issue(agent, kind=EntityKind.AGENT) for issuer in (acme, sales))]


def files(folder: Path, chains: list[tuple[Certificate, ...]]) -> list[Path]:
    paths = [folder / f"{number}.pem" for number in range(len(chains))]
    for path, chain in zip(paths, chains, strict=True):
        path.write_bytes(dump_chain(chain))
    return paths


def report_of(command: list[str], paths: list[Path], **environment: str) -> list[dict[str, Any]]:
    """What the program prints of each chain, or why it could not read them."""
    ran = subprocess.run(
        [*command, *paths], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)["Chains"]


def names_and_ids(chains: list[tuple[Certificate, ...]]) -> list[tuple[list[str], list[str]]]:
    return [([each.common_name for each in chain], [each.auto_id.uri for each in chain]) for chain in chains]


def ask_go(paths: list[Path]) -> list[dict[str, Any]]:
    """No C compiler, no network, no other toolchain than the one that is here."""
    if not shutil.which("go"):
        pytest.skip("GO HAS NOT VERIFIED OUR CHAINS: the go command is not installed")
    program = str(HERE / "chains.go")
    return report_of(["go", "run", program], paths, CGO_ENABLED="0", GOTOOLCHAIN="local", GOPROXY="off")


@asks_go
@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519])
def test_go_verifies_our_chains_for_servers_and_for_clients(key_type, tmp_path):
    """Chains of one, two and three, each through every certificate of it, with nothing but the root trusted."""
    chains = chains_of(key_type)
    told = ask_go(files(tmp_path, chains))
    assert [len(chain) for chain in chains] == [1, 2, 3]
    assert [(chain["Server"], chain["Client"]) for chain in told] == [("", "")] * 3
    assert [(chain["Subjects"], chain["URIs"]) for chain in told] == names_and_ids(chains)
    for chain in told:
        assert all(KIND in extensions for extensions in chain["Extensions"])
        assert NEXT_KEY in chain["Extensions"][-1]


@asks_go
def test_go_refuses_a_chain_below_another_root_of_the_same_name(tmp_path):
    """So what it verifies above, it verifies by the signatures."""
    real, false = (Credential.self_issued("acme", plain=True) for _ in range(2))
    (leaf, _) = real.issue(CredentialRequest.new("agent"), kind=EntityKind.AGENT)
    (told,) = ask_go(files(tmp_path, [(leaf, false.leaf)]))
    assert "x509: certificate signed by unknown authority" in told["Server"]


@asks_go
def test_go_parses_what_it_cannot_verify(tmp_path):
    """ML-DSA-65: a program in Go can still say whose chain it is shown."""
    chains = chains_of(KeyType.ML_DSA_65)
    told = ask_go(files(tmp_path, chains))
    assert [(chain["Subjects"], chain["URIs"]) for chain in told] == names_and_ids(chains)


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.ED25519])
def test_node_reads_our_chains_and_finds_each_signed_by_the_next(key_type, tmp_path):
    """It reads the same names and ids; the program throws where a signature or an issuer's name is wrong."""
    if not shutil.which("node"):
        pytest.skip("NODE HAS NOT READ OUR CHAINS: the node command is not installed")
    chains = chains_of(key_type)
    told = report_of(["node", str(HERE / "chains.mjs")], files(tmp_path, chains))
    assert [(chain["Subjects"], chain["URIs"]) for chain in told] == names_and_ids(chains)
