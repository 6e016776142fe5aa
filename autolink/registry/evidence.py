"""What shows that a registry lies: the two errors that carry it, and the files in which it is kept.

`LogConvicted` rests on what the log's key has signed, and convicts it before anybody who has that key. `Unproved` does not:
it may be the registry, an old state of its log, or somebody in between. Both are worth keeping, because the next look
may be shown something else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from autolink.errors import AutolinkError, BadSignature
from autolink.identity import files
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.tree import check_consistency


class LogConvicted(AutolinkError):
    """A log has signed what is not so, or has taken what it must not take.

    Attributes:
        index: of the entry that shows it; None where no single one does.
        evidence: bytes that show it to anybody who has the log's key: the leaf, the checkpoint, the status.
        what: names a file of it.
    """

    def __init__(self, text: str, *, index: int | None = None, evidence: bytes = b"") -> None:
        super().__init__(text if index is None else f"entry {index}: {text}")
        self.index, self.evidence = index, evidence
        self.what = "log" if index is None else f"entry-{index}"


class Unproved(BadSignature):
    """What a registry shows does not go together with what it has signed, but nothing that is signed proves it: it may
    be an old state of the log, another log, or somebody in between. `evidence` holds the checkpoints, or the status."""

    what = "unproved"

    def __init__(self, text: str, evidence: bytes) -> None:
        super().__init__(text)
        self.evidence = evidence


Evident = LogConvicted | Unproved


def both(one: bytes, other: bytes) -> bytes:
    """Two signed notes as one piece of evidence; the first may be none."""
    return one + b"\n" + other if one else other


def check_one_past(one: Checkpoint, other: Checkpoint) -> None:
    """Two checkpoints that a log has signed are not of one size with two roots.

    Raises:
        LogConvicted: they are.
    """
    if one.size == other.size and one.root != other.root:
        raise LogConvicted("two logs of one size were signed", evidence=both(one.note, other.note))


def check_goes_on(seen: Checkpoint, newest: Checkpoint, path: Sequence[bytes]) -> None:
    """A log goes on from what was seen of it before.

    Raises:
        LogConvicted: no log of this key can.
        Unproved: the path does not show it, or the log has become shorter.
    """
    check_one_past(seen, newest)
    with against(both(seen.note, newest.note)):
        if newest.size < seen.size:
            raise BadSignature(
                f"the registry shows {newest.size} entries, and its log had {seen.size} before"
            )
        try:
            check_consistency(seen.size, seen.root, newest.size, newest.root, path)
        except BadSignature as error:
            raise BadSignature(f"the log does not go on from what was seen of it: {error}") from error


@contextmanager
def against(signed: bytes) -> Iterator[None]:
    """For the block: what is not so is not so beside these bytes, which the log has signed, and is raised with them.

    Raises:
        Unproved: for a `BadSignature`.
    """
    try:
        yield
    except Unproved:
        raise
    except BadSignature as error:
        raise Unproved(str(error), signed) from error


def evident_in(error: BaseException | None) -> Evident | None:
    """What an error comes from that carries evidence, if it does."""
    while error is not None and not isinstance(error, Evident):
        error = error.__cause__
    return error


def keep(folder: Path, error: Evident) -> Path:
    """`keep_evidence` of an error.

    Raises:
        OSError: it cannot be written.
    """
    return keep_evidence(folder, error.what, error.evidence, str(error))


def keep_evidence(folder: Path, what: str, evidence: bytes, text: str) -> Path:
    """Write evidence to a file of its own, with a text beside it that says what it shows; once, whoever finds it again.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{what}-{sha256(evidence).hexdigest()[:16]}.evidence"
    if not path.exists():  # it comes last: where it is, both are
        files.write_atomic(f"{path}.txt", (text + "\n").encode(), mode=0o644)
        files.write_atomic(str(path), evidence, mode=0o644)
    return path
