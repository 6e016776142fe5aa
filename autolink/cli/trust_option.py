"""`--trust`: whom the command believes. Repeated, one that vouches is enough and one that contradicts refuses; except that
whoever one vouches for must be active in the registry too, where one is named: a revoked agent that shows no status would
only have to be silent.

issuer:FILE       whom the organisation in an anchor file has issued
pinned:FILE       exactly the agents in a file: certificates in PEM, or a peer id at the start of each line
self-certified    every name that is bound to its own key: a stranger, but exactly that stranger
known[:FILE]      the agents accepted before; FILE is, by default, in the folder of the identity
unsafe-anyone     anyone, as nothing more than the key it holds
registered[:KEY]  who is active in the log of that key, by a status that it shows; with ,max-age=SECONDS one no older. KEY
                  is, by default, that of --log-key or $AUTOLINK_LOG_KEY
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.options import option, read
from autolink.errors import AutolinkError, IdentityError, UsageError, display
from autolink.identity import Certificate, PeerId, TrustAnchor, load_chain, show_name
from autolink.trust import (
    Context,
    IssuedBy,
    KnownAgents,
    Model,
    Pinned,
    Presented,
    SelfCertified,
    UnsafeAnyone,
)

if TYPE_CHECKING:
    from autolink.registry import Registered

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_FORMS: Final = "issuer:FILE, pinned:FILE, known[:FILE], self-certified, unsafe-anyone, registered[:KEY][,max-age=SECONDS]"
_WITH_FILE: Final = ("issuer", "pinned", "known")
_BARE: Final = ("known", "self-certified", "unsafe-anyone")
_ANCHOR_FILE: Final = "an anchor file is what `autolink id export NAME` writes"
_PINS: Final = 512 * limits.KNOWN_AGENTS
KNOWN_FILE: Final = "known_agents"
LOG_KEY_VARIABLE: Final = "AUTOLINK_LOG_KEY"


@dataclass(frozen=True, slots=True)
class Spec:
    """One `--trust`, read."""

    kind: str
    file: Path | None = None
    registered: "Registered | None" = None
    """One and the same however often the others are read again: it remembers."""
    log: str | None = None
    """What `registered` was read from, for another process."""


class SpecType(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """The grammar above; in the variable the parts stand between ``|``."""

    name = "trust"
    envvar_list_splitter = "|"

    def convert(
        self,
        value: Any,  # noqa: ANN401  click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Spec:
        """Read it."""
        if isinstance(value, Spec):
            return value
        kind, colon, file = value.strip().partition(":")
        if colon and file and kind in _WITH_FILE:
            return Spec(kind, Path(file))
        if not colon and kind in _BARE:
            return Spec(kind)
        kind, comma, age = kind.partition(",")
        if kind == "registered" and bool(colon) == bool(file) and not (colon and comma):
            try:
                log = file if colon else _log_key_of(ctx) + comma + age
                return Spec(kind, registered=registered_of(log), log=log)
            except AutolinkError as error:
                raise click.BadParameter(f"{display(value)!r}: {error}", ctx, param) from None
        raise click.BadParameter(f"{display(value)!r} is none of {_FORMS}", ctx, param)


def _log_key_of(ctx: click.Context | None) -> str:
    """The log's key that the command line or the environment names already, in its text form.

    Raises:
        UsageError: neither does.
    """
    from autolink.registry.log.note import VerifierKey

    given = ctx.params.get("log_key") if ctx else None  # not yet a key, nor None, where it was not given
    key = str(given) if isinstance(given, VerifierKey) else os.environ.get(LOG_KEY_VARIABLE, "").strip()
    if not key:
        raise UsageError(f"active in which log? Give its key: registered:KEY, or ${LOG_KEY_VARIABLE}")
    return key


def trust_option(*, required: bool = True, default: str = "There is no default.") -> Callable[[F], F]:
    """`--trust SPEC`, repeatable; `default` is what its help says of none."""
    return option(
        "--trust", "specs", type=SpecType(), multiple=True, required=required, envvar="AUTOLINK_TRUST",
        metavar="WHOM",
        help=f"Whom you believe: {_FORMS}. {default} Repeat it to accept whom any of them vouches for; with "
        "registered, only if the registry says that it is active, too.",
    )  # fmt: skip


@dataclass
class Stranger:
    """The unknown agent that a person is to be asked about, kept while the link is refused.

    A link must open within seconds and a person takes longer, so the question is asked between two links: the first
    shows who is there, and the second one must show the same key.
    """

    known: KnownAgents | None = None
    presented: Presented | None = None

    async def remember(self, presented: Presented, context: Context) -> bool:
        """Answers no, for now."""
        self.presented = presented
        return False


def build(
    specs: Sequence[Spec],
    *,
    folder: Path | None,
    on_first: str | None = "refuse",
    stranger: Stranger | None = None,
) -> Model:
    """The trust model of the command line.

    Args:
        specs: at least one.
        folder: of our identity, for `known` without a file.
        on_first: what `known` does with an unknown agent that we dialled; None if nobody said.
        stranger: takes the question of ``"ask"``.

    Raises:
        UsageError, IdentityError, OSError: a file is missing or not what it must be, or two of them contradict.
    """
    anchors = [anchor for spec in specs for anchor in _read(spec, "issuer", _anchors)]
    pins = [pin for spec in specs for pin in _read(spec, "pinned", _pins)]
    models: list[Model] = []
    if anchors:
        models.append(IssuedBy(*anchors))
    if any(spec.kind == "pinned" for spec in specs):
        models.append(Pinned(*pins))
    known = [known_file(spec.file, folder) for spec in specs if spec.kind == "known"]
    models += [_known(file, on_first, stranger or Stranger()) for file in known]
    kinds = {spec.kind for spec in specs}
    if "self-certified" in kinds:
        models.append(SelfCertified())
    if "unsafe-anyone" in kinds:
        models.append(UnsafeAnyone())
    registries = [spec.registered for spec in specs if spec.registered]
    both = [reduce(or_, each) for each in (models, registries) if each]
    return reduce(and_, both)


def registered_of(text: str) -> "Registered":
    """``KEY`` or ``KEY,max-age=SECONDS``; there may be commas in a key's name."""
    from autolink.registry import Registered  # only who says so waits for it

    key, comma, age = text.rpartition(",max-age=")
    if not comma:
        try:
            return Registered(text)
        except IdentityError as error:
            if "," in text.rpartition("+")[2]:  # there is none in a key behind its name
                raise UsageError("what may follow the key is ,max-age=SECONDS and nothing else") from error
            raise
    try:
        seconds = float(age)
    except ValueError:
        raise UsageError(f"{display(age)!r} is no number of seconds") from None
    if seconds < 2 * limits.STATUS_REFRESH:
        raise UsageError(
            f"max-age is at least {2 * limits.STATUS_REFRESH:.0f}: agents show a status that is up to "
            f"{limits.STATUS_REFRESH:.0f} seconds old, so healthy ones would be refused"
        )
    return Registered(key, max_age=seconds)


def known_file(file: Path | None, folder: Path | None) -> Path:
    """The file of known agents.

    Raises:
        UsageError: neither says which.
    """
    if file is None and folder is None:
        raise UsageError("which file of known agents? Write known:FILE, or say whose with --as NAME")
    return file or (folder or Path()) / KNOWN_FILE


def _read(spec: Spec, kind: str, take: Callable[[Path], Sequence[T]]) -> Sequence[T]:
    """What a file of --trust holds, if the spec is of that kind; what is wrong with it is told with the option."""
    if spec.kind != kind or spec.file is None:
        return ()
    with about(f"--trust {kind}:{display(str(spec.file))}"):
        return take(spec.file)


def _anchors(path: Path) -> Sequence[TrustAnchor]:
    try:
        chain = load_chain(read(path, 2 * limits.CHAIN_BYTES))
    except IdentityError:  # what the parser says of another kind of file helps nobody
        raise IdentityError(f"no certificate can be read from it: {_ANCHOR_FILE}") from None
    if not chain[0].self_issued:
        who = show_name(chain[0].common_name)
        raise IdentityError(f"this is the chain of {who}, not its organisation's anchor: {_ANCHOR_FILE}")
    return [TrustAnchor(chain)]


def _known(path: Path, on_first: str | None, stranger: Stranger) -> KnownAgents:
    match on_first:
        case "ask":
            stranger.known = KnownAgents(path, "ask", ask=stranger.remember)
            return stranger.known
        case "accept" | "refuse":
            return KnownAgents(path, on_first)
    raise UsageError("--trust known needs --on-first refuse, ask or accept: what to do with an unknown agent")


def _pins(path: Path) -> Sequence[Certificate | PeerId]:
    """Certificates in PEM, or lines that begin with a peer id; what follows it is for people, `#` begins a remark."""
    data = read(path, _PINS)
    if b"-----BEGIN" in data:
        return load_chain(data)
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise IdentityError("neither PEM nor text with a peer id on each line") from None
    return [PeerId.parse(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]
