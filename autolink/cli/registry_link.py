"""What the commands that talk to a registry share: which one, who dials it, whose ID is meant."""

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import click

from autolink import Agent, Contact, limits
from autolink.cli.edge import about
from autolink.cli.options import Number, as_option, option, passphrase_option
from autolink.cli.passphrase import load_identity
from autolink.cli.seen import held_to
from autolink.cli.trust_option import LOG_KEY_VARIABLE, Spec
from autolink.errors import AutolinkError, CallError, Code, IdentityError, LinkLost, UsageError, display
from autolink.identity import AutoId, Credential, Keystore, PeerId
from autolink.identity.keystore import is_entry_name
from autolink.registry.client import RegistryClient, reader
from autolink.registry.evidence import Evident, evident_in, keep
from autolink.registry.log.note import VerifierKey
from autolink.registry.registration import Registration, registered
from autolink.registry.service_record import describe

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_WAIT: Final = 2 * limits.INCLUSION
"""Seconds that one conversation takes at most: an entry is in the log `INCLUSION` after its receipt, or that convicts."""

_NEARLY_AUTO_ID: Final = re.compile("[0-9a-f]{48,}")
"""What can be an entry's name, but hardly is one."""

EVIDENCE: Final = "evidence"
"""The folder of what shows that a registry lies: in that of who dials, or else where the command runs."""


class LogKeyType(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A log's key in its text form."""

    name = "log key"

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Where it is to be had."""
        return "It is the key of the registry's log, which `autolink registry init` and `serve` print."

    def convert(
        self,
        value: Any,  # noqa: ANN401  click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> VerifierKey:
        """Read it."""
        if isinstance(value, VerifierKey):
            return value
        try:
            return VerifierKey.parse(value.strip())
        except IdentityError as error:
            what = f"{display(value)!r} is no log's key, as `autolink registry init` prints it: {error}"
            raise click.BadParameter(what, ctx, param) from None


def registry_option(*, required: bool = True, help: str = "Contact of the registry.") -> Callable[[F], F]:  # noqa: A002
    """`--registry CONTACT`."""
    return option("--registry", metavar="CONTACT", envvar="AUTOLINK_REGISTRY", required=required, help=help)


def log_key_option(*, required: bool = True) -> Callable[[F], F]:
    """`--log-key KEY`."""
    return option(
        "--log-key", type=LogKeyType(), metavar="KEY", envvar=LOG_KEY_VARIABLE, required=required,
        is_eager=True,  # `--trust registered` asks for it
        help="The public key of its log, as `autolink registry serve` prints it: all that it says is checked against this.",
    )  # fmt: skip


def timeout_option(*, help: str = "Seconds for all of it.", default: float = _WAIT) -> Callable[[F], F]:  # noqa: A002
    """`--timeout` of a conversation with a registry."""
    return option("--timeout", type=Number(0, 86_400, min_open=True), default=default, help=help)


def source_timeout_option(function: F) -> F:
    """`--timeout` of a command that reads a log by its URL: that takes as long as it is."""
    return timeout_option(help="Seconds for each answer, of a URL.", default=limits.FETCH)(function)


def reach_options(*, required: bool = True, timeout: str = "Seconds for all of it.") -> Callable[[F], F]:
    """Which registry, who dials it, how long; taken by `reach`.

    Args:
        timeout: what the time is for, in the help.
    """
    decorators: list[Callable[[Any], Any]] = [
        registry_option(required=required),
        log_key_option(),
        as_option(required=False, help="Who dials the registry; a throw-away identity if not given."),
        timeout_option(help=timeout),
        passphrase_option,
    ]  # fmt: skip

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def standing_options(function: F) -> F:
    """`--registry` and `--log-key` of a command that opens links: which registry its own status is from; see `standing`."""
    what = "Contact of the registry whose status of you is shown to peers."
    for decorator in (log_key_option(required=False), registry_option(required=False, help=what)):
        function = decorator(function)
    return function


Standing = Callable[[], AbstractAsyncContextManager[Registration | None]]
"""Keeps an agent up with its registry, in an event loop; None without one."""


def standing(
    agent: Agent, registry: str | None, log_key: VerifierKey | None, specs: Sequence[Spec] = (),
    addresses: Sequence[str] = (),
) -> Standing:  # fmt: skip
    """What `standing_options` said: nothing to keep up with, or `registered`.

    Args:
        agent: shows its status.
        registry, log_key: of the command line.
        specs: of `--trust`, in which the key may stand instead.
        addresses: where it is to be found; none: that is not put on record.

    Raises:
        UsageError: a registry without its key, no contact, or addresses that cannot be on record or for no registry.
    """
    if registry is None:
        if addresses:
            raise UsageError("where shall it be advertised? Give the registry's contact: --registry")
        return nullcontext
    Contact.parse(registry)
    log_key = key_of_its_log(log_key, specs)
    if addresses:  # what is wrong with them is told before anybody serves
        describe(agent.handlers, addresses, now=datetime.now(UTC))
    folder = agent.credential.folder
    kept = None if folder is None else folder / f"registry-{log_key.key_id.hex()}.status"
    return partial(
        registered, agent, registry, log_key,
        kept=kept, addresses=addresses, evidence=evidence_of(agent.credential),
    )  # fmt: skip


def evidence_of(credential: Credential) -> Path | None:
    """Where an identity keeps what shows that a registry lies; nowhere if it is in no folder."""
    return None if credential.folder is None else credential.folder / EVIDENCE


def key_of_its_log(log_key: VerifierKey | None, specs: Sequence[Spec] = ()) -> VerifierKey:
    """The key given with `--registry`, or the only one that `--trust` names.

    Raises:
        UsageError: there is none.
    """
    trusted = [spec.registered.log_key for spec in specs if spec.registered]
    if log_key is None and len(trusted) == 1:
        log_key = trusted[0]
    if log_key is None:
        raise UsageError(
            f"which key has the log of that registry? Give it: --log-key, or ${LOG_KEY_VARIABLE}"
        )
    return log_key


@contextmanager
def evidence_kept(folder: Path | None) -> Iterator[None]:
    """For the block: what shows that a registry lies is kept, and the error says where."""
    try:
        yield
    except AutolinkError as error:
        evident = evident_in(error)
        if folder is not None and evident is not None:
            vars(error)["then"] = try_keep(folder, evident)[1]
        raise


def try_keep(folder: Path, evident: Evident) -> tuple[Path | None, str]:
    """Keep what an error shows: the file, and in words where it is, or why there is none, which must not hide the lie."""
    try:
        path = keep(folder, evident)
    except OSError as error:
        return None, f"what it shows cannot be kept in {display(str(folder))} ({error.strerror})"
    return path, f"what it shows is in {display(str(path))}"


@dataclass(frozen=True, slots=True)
class Reach:
    """A registry, who dials it (None: nobody in particular), how long, and where what shows that it lies is kept.

    `evidence` is None for who holds the log to what was seen of it, and keeps what shows that it lies, himself.
    """

    contact: str
    log_key: VerifierKey
    dialer: Credential | None
    timeout: float
    evidence: Path | None = Path(EVIDENCE)

    def use(self, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """Do something over a link; the log must go on from what this keystore was shown of it.

        Raises:
            AutolinkError, TimeoutError: with the address noted in it.
        """

        opened = False

        async def held(client: RegistryClient) -> T:
            nonlocal opened
            opened = True
            return await (work(client) if self.evidence is None else held_to(client, work))

        async def run() -> T:
            began = anyio.current_time()
            try:
                with anyio.fail_after(self.timeout) as scope:
                    return await self.run(held)
            except LinkLost as error:
                vars(error)["hint"] = "is the registry running there?"
                raise
            except TimeoutError as error:
                said, waited = "the registry did not answer", anyio.current_time() - began
                if scope.cancelled_caught:
                    said += f" within {self.timeout:g} s: give more time with --timeout"
                elif opened:
                    said += f", given up after {waited:.3g} s: try again"
                else:
                    said += f", given up after {waited:.3g} s: is it running there, and not behind a firewall? Try again"
                raise TimeoutError(said) from error

        with about(f"registry {Contact.parse(self.contact).address}"), evidence_kept(self.evidence):
            return anyio.run(run, backend="trio")

    async def run(self, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """As `use`, in an event loop and without an end."""
        async with reader(self.contact, self.dialer).connect(self.contact) as link:
            return await work(RegistryClient(link, self.log_key))


def reach(
    *, registry: str | None, log_key: VerifierKey, as_name: str | None, timeout: float, passphrase_file: Path | None
) -> Reach:  # fmt: skip
    """What `reach_options` said.

    Raises:
        UsageError, IdentityError, OSError: it cannot be, or something is missing.
    """
    if registry is None:
        raise UsageError("which registry? Give its contact: --registry, or $AUTOLINK_REGISTRY")
    Contact.parse(registry)
    dialer = load_identity(as_name, passphrase_file) if as_name else None
    return Reach(registry, log_key, dialer, timeout)


def auto_id_of(text: str) -> AutoId:
    """Whose: an Auto ID, a peer id, or the name of an identity in the keystore.

    Raises:
        UsageError: it is none of these.
        KeystoreError: there is no identity of this name.
    """
    try:
        found = PeerId.parse(text).auto_id if "?" in text else AutoId.parse(text)
    except IdentityError:
        found = None
    if found is not None:
        return found
    if _NEARLY_AUTO_ID.fullmatch(text) and text not in Keystore().names():
        raise UsageError(
            f"{display(text, 80)} is no Auto ID: that has 64 hex digits, and this has {len(text)}"
        )
    if not is_entry_name(text):
        raise UsageError(
            f"{display(text, 80)!r} is neither an Auto ID (64 hex digits) nor a name in the keystore"
        )
    claimed = Keystore().chain(text)[0].auto_id
    if claimed is None:
        raise UsageError(f"{display(text, 80)!r} has no Auto ID")
    return claimed


class NotOnRecord(AutolinkError):
    """A registry knows nothing of an Auto ID."""

    def __init__(self, auto_id: AutoId) -> None:
        super().__init__(
            f"{auto_id} is not on record there: is it the right registry? Its owner puts it on record: "
            "autolink id register NAME"
        )


@contextmanager
def on_record(auto_id: AutoId) -> Iterator[None]:
    """For the block, in which a registry is asked about an Auto ID: what its `not_found` means."""
    try:
        yield
    except CallError as error:
        if error.code is Code.NOT_FOUND:
            raise NotOnRecord(auto_id) from None
        raise
