"""`autolink run`: serve the handlers of a module until told to stop."""

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import click
from click.core import ParameterSource

from autolink import Agent, Handlers, limits
from autolink.agent.groups import background_tasks
from autolink.cli.edge import Status
from autolink.cli.logs import stamp_logs
from autolink.cli.options import Number, as_option, option, passphrase_option
from autolink.cli.passphrase import load_identity, passphrase_for, warn_if_own
from autolink.cli.registry_link import standing, standing_options
from autolink.cli.reload import follow_credential
from autolink.cli.serving import about_listening, print_contacts, serve
from autolink.cli.show import say
from autolink.cli.trust_option import Spec, build, trust_option
from autolink.cli.workers import supervise
from autolink.errors import UsageError, display
from autolink.identity import use_passphrase
from autolink.registry.log.note import VerifierKey
from autolink.transport import Contact, parse_address

_log: Final = logging.getLogger("autolink.cli")


@click.command()
@click.argument("target", metavar="MODULE:NAME")
@as_option(required=False, help="Who it is, if NAME is Handlers.")
@trust_option(required=False)
@option(
    "--listen", multiple=True, metavar="ADDRESS", default=["127.0.0.1:0"],
    help="host:port, [v6]:port or unix:/path; port 0 takes a free one. Repeatable.",
)  # fmt: skip
@option(
    "--app-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), default=".",
    help="Where MODULE is looked for first.",
)  # fmt: skip
@option("--backend", type=click.Choice(["trio", "asyncio"]), default="trio", help="Event loop.")
@option(
    "--drain", type=Number(0), default=limits.DRAIN,
    help="Seconds that calls in flight get to end when it is told to stop.",
)  # fmt: skip
@option(
    "--workers", type=click.IntRange(1, limits.WORKERS), default=1,
    help="Processes that serve the addresses together. With 2 and more a supervisor restarts who dies, and new ones take "
    "over when files of identity or trust change, or at SIGHUP.",
)  # fmt: skip
@standing_options
@option(
    "--advertise", metavar="ADDRESS", multiple=True,
    help="With --registry: host:port or [v6]:port where others reach it, the best first. It is put on record with the "
    "methods and channels, and kept current. Repeatable.",
)  # fmt: skip
@passphrase_option
@click.pass_context
def run(
    ctx: click.Context, target: str, *, as_name: str | None, specs: tuple[Spec, ...], listen: tuple[str, ...],
    app_dir: Path, backend: str, drain: float, workers: int, passphrase_file: Path | None, registry: str | None,
    log_key: VerifierKey | None, advertise: tuple[str, ...],
) -> None:  # fmt: skip
    """Serve NAME of MODULE: Handlers, which need --as and --trust, or an Agent, which has both.

    Prints one contact string for each address when it listens: where to dial, and whom to expect there. With --advertise
    these are of the advertised addresses. SIGTERM or SIGINT ends it: nothing new is accepted, what is open may end; a
    second one ends it at once. The exit status is then 0 if everything ended in time, else 1.

    With --registry it shows its status there to its peers, and heeds the revocations that the registry tells. With
    --advertise, too, whoever has its Auto ID finds it there.

    With --trust known, an agent that dials and is not known is refused; the warning names the id for
    `autolink id accept`.
    """
    sys.path.insert(0, str(app_dir.resolve()))
    if passphrase_file is not None:  # for the module too, which may load an identity on its own
        use_passphrase(passphrase_for(target, passphrase_file))
    found = find(target)
    if isinstance(found, Agent):
        for name in ("as_name", "specs"):
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise UsageError(f"{display(target)} is an Agent and has its own: leave out --as and --trust")
        agent = found
    elif as_name is None or not specs:
        raise UsageError(
            f"{display(target)} is Handlers, which know no key and no trust: add --as and --trust"
        )
    else:
        credential = load_identity(as_name, None)
        agent = Agent(credential, trust=build(specs, folder=credential.folder), handlers=found)
    warn_if_own(agent.credential)
    kept_up = standing(agent, registry, log_key, specs, advertise)
    if registry is None and any(spec.kind == "registered" for spec in specs):
        say("WARNING: without --registry we show no status: peers that ask a registry about us refuse us.")
    advertised = [str(Contact(agent.peer_id, parse_address(address))) for address in advertise]

    def announce(listening: Sequence[str]) -> None:
        print_contacts(advertised or listening)

    async def serve_alone() -> bool:
        async with kept_up() as standing, background_tasks() as tasks:
            go_on_with = standing.go_on_with if standing else agent.replace_credential
            tasks.start_soon(follow_credential, agent, go_on_with)
            drained = await serve(agent, listen, drain, announce)
            tasks.cancel_scope.cancel()
        return drained

    stamp_logs()
    with about_listening(listen):
        if workers == 1:
            drained = anyio.run(serve_alone, backend=backend)
        else:
            drained = supervise(
                agent, specs, listen,
                workers=workers, patience=drain, backend=backend, standing=kept_up, announce=announce,
            )  # fmt: skip
    ctx.exit(Status.OK if drained else Status.FAILED)


def find(target: str) -> Handlers | Agent:
    """What ``module:name`` names. Importing runs the module, as it is meant to.

    Raises:
        UsageError: it is not written so, or there is no such module or name, or it is neither Handlers nor an Agent.
        click.ClickException: the module itself failed.
    """
    module, _, path = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UsageError(f"{display(target)!r} is not module:name, such as shop:handlers")
    found: Any = _import(module)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module {display(module)} has no {display(path)}; {_offer(module)}")
        found = getattr(found, part)
    if not isinstance(found, Handlers | Agent):
        raise UsageError(
            f"{display(target)} is of type {type(found).__name__}, neither Handlers nor an Agent; {_offer(module)}"
        )
    return found


def _offer(module: str) -> str:
    """What a module that is imported has to serve."""
    served = [
        name for name, value in vars(sys.modules[module]).items() if isinstance(value, Handlers | Agent)
    ]
    return f"it has {display(', '.join(served)) or 'neither Handlers nor an Agent'}"


def _import(module: str) -> object:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {display(module)}: is --app-dir right?") from None
        raise _broken(module, error) from error
    except Exception as error:  # the user's own code may raise anything: told in one line, in full with -vv
        raise _broken(module, error) from error


def _broken(module: str, error: Exception) -> click.ClickException:
    _log.debug("module %s failed", display(module), exc_info=error)
    return click.ClickException(
        f"module {display(module)} fails when imported: {type(error).__name__}: {error} (-vv shows where)"
    )
