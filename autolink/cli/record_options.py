"""Options of the commands of `on_record`: guardians, next keys, and entries that travel in files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from autolink import limits
from autolink.cli.options import FILE, Days, option
from autolink.cli.passphrase import has_person
from autolink.cli.registry_link import NotOnRecord, Reach, auto_id_of, on_record
from autolink.cli.show import say
from autolink.cli.submitting import GUARDIANS_BYTES, guardians_text, load_guardians
from autolink.errors import EntryRefused, Fault, UsageError, display
from autolink.identity import AutoId, Certificate, Credential, files, show_name
from autolink.registry import making
from autolink.registry.client import RegistryClient
from autolink.registry.entries import Guardians

F = TypeVar("F", bound=Callable[..., Any])

_DAY: Final = 24 * 3600


def guardian_options(function: F) -> F:
    """Who may recover, how many of them must, how long it takes; taken by `chosen_guardians`."""
    decorators: list[Callable[[Any], Any]] = [
        option("--guardian", metavar="AUTOID|NAME", multiple=True, help="Who may recover it. Repeatable."),
        option(
            "--threshold", type=click.IntRange(1, limits.GUARDIANS),
            help="How many of them must sign a recovery; more than half of them if not given.",
        ),
        option(
            "--delay", type=Days(limits.RECOVERY_DELAY_LEAST / _DAY, limits.RECOVERY_DELAY_MOST / _DAY),
            default=f"{limits.RECOVERY_DELAY / _DAY:g}d",
            help="From the beginning of a recovery to the new key's taking over: in days, such as 7 or 7d, or hours, 1h.",
        ),
        option(
            "--guardians-file", type=FILE,
            help="Where who the guardians are is written down; NAME.guardians if not given.",
        ),
    ]  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def next_key_options(function: F) -> F:
    """For an identity whose certificate commits to no next key."""
    unencrypted = option("--unencrypted", is_flag=True, help="Store a next key without a passphrase.")
    return option(
        "--next-key", type=FILE,
        help="The key that may follow, where the certificate does not say; made if the file is not there. "
        "NAME.next-key if not given.",
    )(unencrypted(function))  # fmt: skip


def void_from_option(function: F) -> F:
    return option(
        "--void-from", type=click.IntRange(0),
        help="Log index from which nothing stands that the old key has signed: whom it has issued and put on record since "
        "then counts as revoked until that is done again. Asks before that.",
    )(yes_option(function))  # fmt: skip


def yes_option(function: F) -> F:
    """`--yes`, taken by `make_sure`."""
    return option("--yes", is_flag=True, help="Do not ask.")(function)


def make_sure(question: str, why: str, *, yes: bool) -> None:
    """Ask before what cannot be undone.

    Args:
        why: what is going to happen.
        yes: it was said that nobody is to be asked.

    Raises:
        UsageError: nobody is there to answer.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not has_person():
        raise UsageError(f"{why}: {question} Nobody is there to answer: say --yes")
    click.confirm(f"{why}\n{question}", abort=True, err=True)


def out_option(function: F) -> F:
    return option(
        "--out", type=FILE, help="Write the entry there instead, for others to sign (id countersign)."
    )(function)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The guardians of the command line, and what is to be written down of them.

    Attributes:
        guardians: what goes on record.
        path, text: the file, and what it is to say; None where there are none.
    """

    guardians: Guardians
    path: Path | None = None
    text: bytes = b""

    @contextmanager
    def written_down(self) -> Iterator[None]:
        """For the block, in which they are submitted: who they are is in the file before, for nobody can tell it afterwards.

        After a refusal the file says again what it said. A new one is set aside and not removed: a registry that lies may
        say so of what it has taken.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is None:
            yield
            return
        before = files.read_bounded(self.path, GUARDIANS_BYTES) if self.path.exists() else None
        if before != self.text:
            files.write_atomic(str(self.path), self.text, replace=before is not None)
        shown = display(str(self.path))
        try:
            yield
        except (EntryRefused, NotOnRecord) as error:
            if isinstance(error, EntryRefused) and error.fault is Fault.UNAVAILABLE:
                raise  # which says nothing of the entry
            if before is None:
                self.path.replace(f"{self.path}.refused")
                then = f"{shown}, of which nothing is on record, is {shown}.refused now"
                vars(error)["then"] = "; ".join(filter(None, [vars(error).get("then"), then]))
            else:
                files.write_atomic(str(self.path), before)
            raise
        finally:
            if before is None and self.path.exists():
                say(f"Who the guardians are is in {shown}: nothing is recovered without it, so keep it well.")


def chosen_guardians(
    name: str, credential: Credential, reached: Reach | None, guardian: tuple[str, ...], threshold: int | None,
    days: float, file: Path | None,
) -> Chosen:  # fmt: skip
    """The guardians of the command line.

    Args:
        reached: the registry, which is asked about them; None for an identity that was issued, and has none.
    """
    chosen = [auto_id_of(text) for text in guardian]
    if not chosen and (threshold or file):
        raise UsageError("--threshold and --guardians-file are about guardians: name them with --guardian")
    if chosen and len(credential.chain) > 1:
        raise UsageError(f"{name} was issued: its issuer recovers it, and it has no guardians")
    if credential.auto_id in chosen:
        raise UsageError("nobody is their own guardian: that would help a thief alone")
    needed = threshold or (len(chosen) // 2 + 1 if chosen else 0)
    path = file or Path(f"{name}.guardians")
    salts = None
    if chosen and path.exists():  # on record, or not answered: the same guardians keep their salts
        found, salts = load_guardians(path, credential.auto_id)
        if (found, set(salts)) != (needed, set(chosen)):
            raise UsageError(f"{display(str(path))} names other guardians: choose another --guardians-file")
    guardians, salts = making.choose_guardians(
        chosen, threshold=needed, delay=round(days * _DAY), salts=salts
    )
    if not chosen or reached is None:
        return Chosen(guardians)
    _check_on_record(chosen, credential.chain[0], reached)
    return Chosen(guardians, path, guardians_text(credential.auto_id, reached.log_key.name, guardians, salts))


def _check_on_record(chosen: Sequence[AutoId], owner: Certificate, reached: Reach) -> None:
    """Who is on no record may still register, so nothing is refused; but until then nobody recovers anything with them.

    Raises:
        UsageError: one was issued by the owner, whose current key alone could make it sign.
    """

    async def unknown(client: RegistryClient) -> list[AutoId]:
        found = []
        for auto_id in chosen:
            try:
                with on_record(auto_id):
                    place = await client.place(auto_id)
            except NotOnRecord:
                found.append(auto_id)
                continue
            if Certificate.parse_untrusted(place.certificate).is_issued_by(owner):
                raise UsageError(
                    f"{auto_id} is no guardian: {show_name(owner.common_name)} has issued it, so whoever steals that key "
                    "could make it sign"
                )
        return found

    if away := reached.use(unknown):
        log = display(reached.log_key.name)
        say(
            f"WARNING: not on record in {log}: {', '.join(map(str, away))}. As long as they are not (autolink id register), "
            "these guardians can sign no recovery."
        )
