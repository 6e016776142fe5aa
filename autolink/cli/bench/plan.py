"""What a worker is told: the load, whom to put it on, and who it is. It travels through a pipe and nowhere else.

A command line, an environment and a file can be read by others of this user, and stay; a pipe is read once.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import msgpack
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from autolink import Credential
from autolink.cli.bench.loop import Pace
from autolink.cli.trust_option import Spec, registered_of
from autolink.identity import dump_chain

Kind = Literal["handshake", "call", "message"]


@dataclass(frozen=True, slots=True)
class Work:
    """The operation.

    Attributes:
        kind: which one.
        name: of the method or the channel; empty for a handshake.
        body: what is sent, as a plain value.
        resume: the share of handshakes that try to resume, 0 to 1.
    """

    kind: Kind
    name: str = ""
    body: Any = None
    resume: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One worker's part.

    Attributes:
        contact, anyone: whom to dial, as the command line says it.
        name: our identity in the keystore, for what there is to do about an error.
        trust: whom we believe: kinds of `--trust`, with the file or the log's key of each.
        callers: chain and private key of each caller, in PEM. **The keys are not encrypted.**
        evidence: what each caller shows for its standing, such as a registry's status.
    """

    work: Work
    pace: Pace
    contact: str
    anyone: bool
    name: str
    trust: list[list[str | None]]
    callers: list[list[bytes]] = field(repr=False)
    evidence: list[bytes] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """For the pipe."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        packed: bytes = msgpack.packb({**plain, "work": _values(self.work), "pace": _values(self.pace)})
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> Self:
        """What came through the pipe, from our own parent."""
        plain = msgpack.unpackb(packed)
        return cls(**{**plain, "work": Work(*plain["work"]), "pace": Pace(*plain["pace"])})

    @property
    def specs(self) -> list[Spec]:
        """`trust`, as the command line gives it."""
        return [_spec(kind, value) for kind, value in self.trust if kind]

    @property
    def credentials(self) -> list[Credential]:
        """`callers`, read."""
        return [Credential.from_pem(chain, key) for chain, key in self.callers]


def _spec(kind: str, value: str | None) -> Spec:
    if value is not None and kind == "registered":
        return Spec(kind, registered=registered_of(value), log=value)
    return Spec(kind, None if value is None else Path(value))


def unencrypted(credential: Credential) -> list[bytes]:
    """A caller for `Plan.callers`."""
    key = credential.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return [dump_chain(credential.certificates), key]


def _values(value: Work | Pace) -> list[Any]:
    return [getattr(value, each.name) for each in fields(value)]
