"""The bodies that a registry and its users exchange, besides bytes: checked on both sides like every typed body."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from autolink import limits
from autolink.messages.merkle import HASH
from autolink.messages.message import TIME_MAX

CHANGES: Final = "registry.changes"
"""The topic of the feed."""

_Hash = Annotated[bytes, Field(min_length=HASH, max_length=HASH)]
Number = Annotated[int, Field(ge=0, le=TIME_MAX)]
"""A count, or a place in the log: no larger than a store can look for."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Place(_Body):
    """Where an ID's next entry goes.

    Attributes:
        head: what it names as `previous`.
        authority: what an entry may name instead that takes the ID out of a thief's hands (`state.OUTRUNS`).
        entries: how many the ID has.
        touched: place of the last one in the log.
        certificate: DER of the current one.
        rotations: DER of those before it, of a bound name.
        delay: seconds that a recovery takes.
        threshold, guardians: how many of how many must sign it.
        recovered_at: log time in microseconds at which the one that is under way takes place; None for none.
    """

    head: _Hash
    authority: _Hash
    entries: Number
    touched: Number
    certificate: Annotated[bytes, Field(max_length=limits.CERTIFICATE)]
    rotations: Annotated[list[bytes], Field(max_length=limits.ROTATIONS)]
    delay: Number
    threshold: Number
    guardians: Number
    recovered_at: Number | None


class Consistency(_Body):
    """The newest checkpoint, and the hashes that lead to it from an earlier one."""

    checkpoint: Annotated[bytes, Field(max_length=limits.NOTE)]
    path: Annotated[list[_Hash], Field(max_length=64)]


class Answer(_Body):
    """What became of an entry: first a receipt alone, then either a fault, or its place and proof.

    Attributes:
        number: the submitter's own, of the entry.
    """

    number: int
    receipt: Annotated[bytes, Field(max_length=limits.CONTROL)] = b""
    fault: str = ""
    text: str = ""
    index: Number = 0
    logged_at: Number = 0
    proof: Annotated[bytes, Field(max_length=limits.LOG_PROOF)] = b""
