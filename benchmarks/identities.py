"""The keys and chains of one run, in a folder that every stack reads.

The folder itself holds P-256, the folders `ed25519` and `ml-dsa-65` in it the same in those keys:

    root.pem            the organisation's certificate: what both ends trust
    root.key.pem        its key, for the benchmarks that need many callers
    server.chain.pem    leaf and root       server.key.pem
    client.chain.pem    leaf and root       client.key.pem

They are Auto IDs, which any X.509 tool accepts.
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autolink import Credential, CredentialRequest, EntityKind
from autolink.identity import KeyType, dump_chain

FOLDERS: Final = {KeyType.P256: ".", KeyType.ED25519: "ed25519", KeyType.ML_DSA_65: "ml-dsa-65"}


def make(folder: Path) -> None:
    """Write all of it."""
    for key_type, name in FOLDERS.items():
        inner = folder / name
        inner.mkdir(exist_ok=True)
        root = Credential.self_issued("bench", key_type=key_type)
        root.anchor.save(inner / "root.pem")
        _save_key(root, inner / "root.key.pem")
        for holder in ("server", "client"):
            credential = issued(root, holder)
            (inner / f"{holder}.chain.pem").write_bytes(dump_chain(credential.chain))
            _save_key(credential, inner / f"{holder}.key.pem")


def load(folder: Path, holder: str) -> Credential:
    """The credential of `server`, `client` or `root`."""
    chain = "root.pem" if holder == "root" else f"{holder}.chain.pem"
    return Credential.from_pem(folder / chain, folder / f"{holder}.key.pem")


def issued(issuer: Credential, name: str, *, may_issue: int | None = None) -> Credential:
    """A fresh credential below `issuer`, over a key of the same type."""
    request = CredentialRequest.new(name, key_type=issuer.key_type)
    kind = EntityKind.AGENT if may_issue is None else EntityKind.ORGANIZATION
    return request.complete(issuer.issue(request, kind=kind, may_issue=may_issue))


def _save_key(credential: Credential, path: Path) -> None:
    path.write_bytes(credential.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
