"""`autolink registry`: make one, serve it, invite. Asking one is in `registry_look`, watching it in `registry_watch`,
mirroring it in `registry_export`."""

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import click

from autolink import Agent, limits
from autolink.cli.edge import Status
from autolink.cli.lazy import Lazy
from autolink.cli.logs import stamp_logs
from autolink.cli.options import FILE, Number, as_option, json_option, option, passphrase_option
from autolink.cli.passphrase import load_identity, new_passphrase, passphrase_for
from autolink.cli.registry_link import auto_id_of
from autolink.cli.serving import about_listening
from autolink.cli.serving import serve as serve_until_told
from autolink.cli.show import print_facts, print_json, say
from autolink.cli.trust_option import Spec, build, trust_option
from autolink.errors import display
from autolink.messages import microseconds
from autolink.registry import folder as registry_folder
from autolink.registry.claim import LOG_KEY
from autolink.registry.folder import INVITED, PUBLIC_KEY, InvitedFile, create_registry, load_log_key
from autolink.registry.log.note import is_name
from autolink.registry.policy import Invited, Open, Policy, Rate
from autolink.registry.registrar import Registrar
from autolink.registry.service import RegistryService
from autolink.registry.store import SqliteStore, Store
from autolink.transport import Address, TcpAddress, parse_address

_log: Final = logging.getLogger("autolink.cli")

FOLDER: Final = click.Path(path_type=Path, file_okay=False)


_ELSEWHERE: Final = {
    "lookup": "autolink.cli.registry_look:lookup",
    "status": "autolink.cli.registry_look:status",
    "history": "autolink.cli.registry_look:history",
    "audit": "autolink.cli.registry_watch:audit",
    "monitor": "autolink.cli.registry_watch:monitor",
    "export": "autolink.cli.registry_export:export",
}


@click.group("registry", cls=Lazy, elsewhere=_ELSEWHERE)
def registry() -> None:
    """Run a registry of Auto IDs, ask one, and find out whether it is honest."""


def _origin(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refused before anybody is asked for a passphrase."""
    if not is_name(value):
        what = f"{display(value)!r} cannot name a log: no spaces, plus or control characters"
        raise click.BadParameter(what, ctx, param)
    return value


@registry.command()
@click.argument("folder", type=FOLDER)
@option(
    "--origin", required=True, callback=_origin,
    help="Which log it is, for ever: by custom a URL without its scheme, such as registry.example/log.",
)  # fmt: skip
@option("--unencrypted", is_flag=True, help="Store the log's key without a passphrase.")
@passphrase_option
@json_option
def init(
    folder: Path, *, origin: str, unencrypted: bool, passphrase_file: Path | None, as_json: bool
) -> None:
    """Make an empty log and its key in FOLDER.

    Prints the log's public key, and writes it to log.pub there: whoever is to believe the registry needs this one text, and
    nothing else of it.
    """
    passphrase = new_passphrase("the log's key", passphrase_file, unencrypted=unencrypted)
    log_key = create_registry(folder, origin, passphrase, unencrypted=unencrypted)
    if as_json:
        print_json({"ok": True, "log_key": str(log_key), "folder": str(folder), "origin": origin})
        return
    click.echo(str(log_key))
    how = "WITHOUT a passphrase" if unencrypted else "under the passphrase"
    say(
        f"This is the log's public key, also in {display(str(folder / PUBLIC_KEY))}: give it to everybody who is to believe "
        f"the registry ($AUTOLINK_LOG_KEY). The private one is in {display(str(folder / LOG_KEY))}, {how}: whoever has it "
        f"can write another past, so keep it well. Next: autolink registry serve {display(str(folder))} --as NAME"
    )


@registry.command()
@click.argument("folder", type=FOLDER)
@as_option(help="The identity of the agent that serves it.")
@trust_option(required=False, default="By default self-certified.")
@option(
    "--listen", multiple=True, metavar="ADDRESS", default=["127.0.0.1:0"],
    help="host:port, [v6]:port or unix:/path; port 0 takes a free one. Repeatable.",
)  # fmt: skip
@option(
    "--http", multiple=True, metavar="ADDRESS",
    help="Where its public side is served, too: read-only HTTP, for everybody (the extra `registry`). As --listen.",
)  # fmt: skip
@option(
    "--policy", type=click.Choice(["invited", "open"]), default="invited",
    help="Who may register itself. Whoever is on record registers whom it issues.",
)  # fmt: skip
@option(
    "--drain", type=Number(0), default=limits.DRAIN,
    help="Seconds that calls in flight get to end when it is told to stop.",
)  # fmt: skip
@option(
    "--log-key-passphrase-file",
    type=FILE,
    help="Holds the passphrase of the log's key, if it has one of its own.",
)
@passphrase_option
@json_option
@click.pass_context
def serve(
    ctx: click.Context, folder: Path, *, as_name: str, specs: tuple[Spec, ...], listen: tuple[str, ...],
    http: tuple[str, ...], policy: str, drain: float, log_key_passphrase_file: Path | None, passphrase_file: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Serve the registry in FOLDER until told to stop.

    Prints one contact for each address, and the log's key: what others give as --registry and --log-key; then the URLs of
    its public side, if it has one. Without --trust every Auto ID whose name is bound to its key may dial it; entries are
    judged by their own signatures. SIGTERM or SIGINT ends it when what was promised is in the log.
    """
    encrypted = registry_folder.log_key_is_encrypted(folder)
    secret = (
        passphrase_for("the log's key", log_key_passphrase_file or passphrase_file) if encrypted else None
    )
    key = load_log_key(folder, secret)
    credential = load_identity(as_name, passphrase_file)
    trust = build(specs or (Spec("self-certified"),), folder=credential.folder)
    with SqliteStore(folder) as store:
        registrar = Registrar(store, key, lambda: microseconds(datetime.now(UTC)))
        public_side = _public_side(store, registrar, http)

        async def run() -> bool:
            service = RegistryService(store, registrar, _policy(policy, folder))
            agent = Agent(credential, trust=trust, handlers=service.handlers)
            async with service.running(agent), public_side as public:
                urls = [_url(address) for address in public]

                def announce(contacts: Sequence[str]) -> None:
                    where, head = ", ".join([*contacts, *urls]), store.head
                    _log.info("serving %s, of %d entries, at %s", display(store.origin), head.size, where)
                    if as_json:
                        told = {
                            "contacts": list(contacts),
                            "log_key": str(registrar.verifier_key),
                            "http": urls,
                        }
                        print_json({"ok": True, **told, "entries": head.size}, line=True)
                        return
                    for line in (*contacts, registrar.verifier_key, *urls):
                        click.echo(str(line))
                    for url in (url for url in urls if url.startswith("http")):
                        say(
                            f"what is there: {url}/openapi.json; an issuer's revocation list: {url}/v1/ids/AUTOID/crl"
                        )

                return await serve_until_told(agent, listen, drain, announce)

        stamp_logs()
        with about_listening([*listen, *http]):
            drained = anyio.run(run, backend="trio")
    ctx.exit(Status.OK if drained else Status.FAILED)


def _public_side(
    store: Store, registrar: Registrar, http: tuple[str, ...]
) -> AbstractAsyncContextManager[Sequence[Address]]:
    """Serves it for the block, and gives where; nowhere if nobody asked for it, and then nothing of the extra is needed.

    Raises:
        UsageError: it is no address.
        SetupError: the packages that HTTP takes are not installed.
    """
    if not http:
        return nullcontext(())
    from autolink.registry.http import PublicSide
    from autolink.registry.httpd import serving_http

    return serving_http(PublicSide(store, registrar), *map(parse_address, http))


def _url(address: Address) -> str:
    """For who asks over TCP; a Unix socket has none, and is for the proxy in front."""
    return f"http://{address}" if isinstance(address, TcpAddress) else str(address)


def _policy(name: str, folder: Path) -> Policy:
    rate = Rate(anyio.current_time)
    return Open(rate) if name == "open" else Invited(rate, also=InvitedFile(folder / INVITED))


@registry.command()
@click.argument("folder", type=FOLDER)
@click.argument("who", metavar="AUTOID|NAME...", nargs=-1, required=True)
@option("--remark", default="", help="Written beside them, for people.")
@json_option
def invite(folder: Path, *, who: tuple[str, ...], remark: str, as_json: bool) -> None:
    """Let Auto IDs register themselves in the registry in FOLDER; one that runs heeds it at once."""
    new = registry_folder.invite(folder, map(auto_id_of, who), remark)
    if as_json:
        print_json({"ok": True, "invited": [auto_id.hex for auto_id in new]})
        return
    for auto_id in new:
        print_facts({"invited": auto_id})
    if not new:
        say("they were invited already")
