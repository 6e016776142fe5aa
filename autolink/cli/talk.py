"""`autolink call` and `autolink ping`: open one link, say something, and tell who answered."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NoReturn, TypeVar

import anyio
import click

from autolink import ANYONE_TRUSTED, Agent, Contact, Link, limits
from autolink.agent.core import NotSent, NotServed
from autolink.cli.edge import about
from autolink.cli.options import Number, as_option, json_option, option, passphrase_option, read
from autolink.cli.passphrase import has_person, load_identity, warn_if_own
from autolink.cli.registry_link import (
    Standing,
    evidence_kept,
    evidence_of,
    key_of_its_log,
    standing,
    standing_options,
)
from autolink.cli.show import describe_peer, print_facts, print_json, say
from autolink.cli.trust_option import Spec, Stranger, build, trust_option
from autolink.errors import (
    BodyError,
    IdentityError,
    LocalProtocolError,
    Reason,
    Refused,
    UsageError,
    display,
)
from autolink.identity import PeerId, show_name
from autolink.registry.discovery import RegistryFinder
from autolink.registry.log.note import VerifierKey
from autolink.registry.registration import Registration
from autolink.transport import parse_address
from autolink.trust.known import seen

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_WAIT: Final = 30.0
"""Seconds that a call takes at most when nobody says: a script must not hang on a peer."""


_STANDING: Final = (Reason.UNTRUSTED, Reason.REVOKED, Reason.EXPIRED)
"""What a peer says of an agent that lacks its registry's good word."""


@dataclass(frozen=True, slots=True)
class Dialer:
    """Our end of one link: who we are (and our name for it), whom we believe, whom we dial (`found`: wherever it is)."""

    agent: Agent
    name: str
    contact: str
    anyone: bool
    stranger: Stranger
    timeout: float
    standing: Standing = nullcontext
    found: PeerId | None = None

    def talk(self, work: Callable[[Link], Awaitable[T]], *, awaited: str, whole: bool = True) -> T:
        """Open a link, do the work on it and close it; a person is asked about a stranger in between.

        Args:
            work: one operation. It is done on another link, once, where the peer was leaving and has not looked at it.
            awaited: what is missing when time runs out, for the error.
            whole: the time is for all of it; else for opening the link, and `work` sees to what comes after.

        Raises:
            AutolinkError, TimeoutError: with the address noted in it.
        """
        evidence = evidence_of(self.agent.credential)
        with about(address_in(self.contact), name=self.name), evidence_kept(evidence):
            try:
                return anyio.run(self._talk, work, awaited, whole, backend="trio")
            except Refused:
                if not self._accepted():
                    raise
            return anyio.run(self._talk, work, awaited, whole, backend="trio")

    async def _talk(self, work: Callable[[Link], Awaitable[T]], awaited: str, whole: bool) -> T:
        expect = ANYONE_TRUSTED if self.anyone else None
        where = self.found or self.contact
        opened = False

        async def on_a_link() -> T:
            nonlocal opened
            opened = False
            async with self.agent.connect(where, expect=expect) as link:
                opened = True
                if not whole:
                    scope.deadline = inf
                try:
                    return await work(link)
                except (LocalProtocolError, NotServed) as error:
                    if not link.draining:
                        raise
                    leaving = NotSent("the peer is draining")
                    vars(leaving)["hint"] = "try again"
                    raise leaving from error

        try:
            with anyio.fail_after(self.timeout) as scope:
                async with self.standing() as stands:
                    with _knowing(stands):
                        try:
                            return await on_a_link()
                        except NotSent:
                            if not whole:
                                raise
                        # Nobody has looked at it, and what is at that address from now on may.
                        return await on_a_link()
        except TimeoutError as error:
            raise TimeoutError(self._too_late(awaited if opened else "")) from error

    def _too_late(self, awaited: str) -> str:
        """What did not come in time, after how long, and what to do."""
        if awaited:
            return f"{awaited} within {self.timeout:g} s: give more time with --timeout"
        most = limits.FINDING if self.found else limits.OPENING
        if self.timeout < most:
            return f"no link opened within {self.timeout:g} s: give more time with --timeout"
        return (
            f"no link opened within {most:g} s, and none gets longer: see whether the agent runs there "
            "and is not blocked by a firewall, and try again"
        )

    def _accepted(self) -> bool:
        """Whether there was a stranger and a person says that it is right."""
        known, presented = self.stranger.known, self.stranger.presented
        if known is None or presented is None:
            return False
        say(
            f"{presented} is not known. Its id is {seen(presented)}, its key sha256:{presented.leaf.spki_sha256.hex()}"
        )
        if not click.confirm("Have you compared this with its owner, and shall it be known?", err=True):
            return False
        known.accept(seen(presented), show_name(presented.name))
        return True


@contextmanager
def _knowing(stands: Registration | None) -> Iterator[None]:
    """For the block: a peer that does not trust us may miss what our registry should have said of us."""
    try:
        yield
    except Refused as error:
        if stands is not None and stands.missing and error.by == "peer" and error.reason in _STANDING:
            vars(error)["hint"] = f"it may go by our registry: {stands.missing}"
        raise


def address_in(contact: str) -> str:
    """Where a contact, or an address alone, says to dial, fit to be shown."""
    return display(contact.partition("@")[2].partition("?")[0] or contact)


def link_options(*, timeout: str = "Seconds for all of it.") -> Callable[[F], F]:
    """What it takes to open a link: who, whom to believe, how long.

    Args:
        timeout: what the time is for, in the help.
    """
    decorators = [
        as_option(),
        trust_option(),
        option(
            "--on-first", type=click.Choice(["refuse", "ask", "accept"]), envvar="AUTOLINK_ON_FIRST",
            help="With --trust known: what to do with an agent that is not known. There is no default.",
        ),
        option("--anyone-trusted", is_flag=True, help="CONTACT is an address alone, and whom you trust may answer."),
        option("--timeout", type=Number(0, 86_400, min_open=True), default=_WAIT, help=timeout),
        passphrase_option,
    ]  # fmt: skip

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def finding_options(function: F) -> F:
    """`standing_options`, of a registry in which the peer can be found, too."""
    allow = option(
        "--allow", metavar="NETWORK", multiple=True,
        help="With an Auto ID: a network that its addresses may lie in besides the public Internet, such as 10.0.0.0/8. "
        "Repeatable.",
    )  # fmt: skip
    return standing_options(allow(function))


@click.command(context_settings={"ignore_unknown_options": True})  # a body may be -7
@click.argument("contact", metavar="CONTACT|AUTOID")
@click.argument("method")
@click.argument("body", required=False, metavar="[BODY-JSON]")
@option("-H", "--header", multiple=True, metavar="NAME=VALUE", help="Sent along, signed. Repeatable.")
@link_options()
@finding_options
@json_option
def call(method: str, *, body: str | None, header: tuple[str, ...], as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """Call METHOD of the agent at CONTACT and print its reply as JSON.

    CONTACT is what `autolink run` printed. With --registry it may be an Auto ID, or a peer id, alone: that agent is dialled
    where it has said in the registry that it is (`autolink run --advertise`). BODY-JSON is the argument, null if not given;
    - reads it from stdin. In the reply bytes appear as base64url.
    """
    value, told = json_body(body), _headers(header)
    dial = dialer(**how)

    async def work(link: Link) -> dict[str, Any]:
        try:
            reply = await link.call(method, value, headers=told)
        except BodyError as error:
            error.add_note(f"{show_name(link.peer.name)} on {display(method)}")
            raise
        return {"ok": True, "reply": reply, "peer": describe_peer(link.peer)}

    done = dial.talk(work, awaited=f"no reply of {display(method)}")
    print_json(done if as_json else done["reply"])


@click.command()
@click.argument("contact", metavar="CONTACT|AUTOID")
@option("-c", "--count", type=click.IntRange(1, 1_000_000), default=4, help="Round trips.")
@option("--interval", type=Number(0, 3600), default=0.2, help="Seconds between them.")
@link_options(timeout="Seconds to open the link, and for each round trip.")
@finding_options
@json_option
def ping(*, count: int, interval: float, as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """See who answers at CONTACT, on what grounds you believe it, and how long a round trip takes.

    CONTACT may be an Auto ID, as for `autolink call`.
    """
    dial = dialer(**how)

    async def work(link: Link) -> dict[str, Any]:
        met = {**describe_peer(link.peer), "tls": link.tls.version, "group": link.tls.group}
        if not as_json:
            print_facts(met)
        trips: list[float] = []
        for number in range(count):
            if number:
                await anyio.sleep(interval)
            with anyio.fail_after(dial.timeout):
                trips.append(1000 * await link.ping())
            if not as_json:
                click.echo(f"{number + 1}: {trips[-1]:.3f} ms")
        return {"ok": True, **met, "round_trips_ms": [round(trip, 3) for trip in trips]}

    done = dial.talk(work, awaited="no round trip", whole=False)
    if as_json:
        print_json(done)
    else:
        trips = done["round_trips_ms"]
        click.echo(f"round trip min {min(trips):.3f} ms, mean {fmean(trips):.3f} ms, max {max(trips):.3f} ms")


def dialer(
    *, contact: str, as_name: str, specs: tuple[Spec, ...], on_first: str | None, anyone_trusted: bool, timeout: float,
    passphrase_file: Path | None, issues: bool = False, registry: str | None = None, log_key: VerifierKey | None = None,
    allow: tuple[str, ...] = (),
) -> Dialer:  # fmt: skip
    """What `link_options` said, and perhaps `finding_options`.

    Args:
        issues: the identity makes those who dial, and does not dial itself.

    Raises:
        UsageError, IdentityError, OSError: it cannot be, or something is missing.
    """
    found = _peer_id(contact)
    if found is not None and registry is None:
        raise UsageError(
            f"where is {found}? Give its contact (autolink://…), or for `autolink call` and `ping` the registry that knows: "
            "--registry"
        )
    if found is not None or contact.startswith("autolink://"):
        anyone_trusted = False
    if found is None:
        _check_contact(contact, anyone_trusted=anyone_trusted)
    if on_first == "ask" and not has_person():
        raise UsageError("nobody is here to be asked: use --on-first refuse or accept, or autolink id accept")
    credential = load_identity(as_name, passphrase_file)
    if not issues:
        warn_if_own(credential)
    stranger = Stranger()
    trust = build(specs, folder=credential.folder, on_first=on_first, stranger=stranger)
    agent = Agent(credential, trust=trust)
    kept_up = standing(agent, registry, log_key, specs)
    if found is not None and registry is not None:
        agent.finder = RegistryFinder(registry, key_of_its_log(log_key, specs), allow=allow)
    return Dialer(agent, as_name, contact, anyone_trusted, stranger, timeout, kept_up, found)


def _peer_id(text: str) -> PeerId | None:
    """Whom an Auto ID or a peer id alone means; None where the text is neither."""
    try:
        peer_id = PeerId.parse(text)
    except IdentityError:
        return None
    if peer_id.auto_id is None:
        raise UsageError(f"a key alone is not found, only an Auto ID is: where is {peer_id}?")
    return peer_id


def _check_contact(contact: str, *, anyone_trusted: bool) -> None:
    """It says where, and whom to expect there."""
    if contact.startswith("autolink://"):
        Contact.parse(contact)
    elif "://" in contact or not (anyone_trusted or _is_address(contact)):
        raise UsageError(
            f"{display(contact)!r} is no contact: one looks like autolink://<64 hex>@host:port, and `autolink run` "
            "prints it; and no Auto ID, which is 64 hexadecimal digits"
        )
    elif not anyone_trusted:
        raise UsageError(
            f"whom to expect at {display(contact)}? Give the contact that `autolink run` printed (autolink://…), or "
            "--anyone-trusted"
        )


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except UsageError:
        return False
    return True


def _headers(pairs: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or name in headers:
            raise UsageError(f"a header is NAME=VALUE, once each, not {display(pair)!r}")
        headers[name] = value
    return headers


def json_body(text: str | None) -> Any:  # noqa: ANN401
    """The value of a JSON text, ``-`` for stdin: no constants that JSON does not have, no key twice; None for none.

    Raises:
        UsageError, IdentityError: it is no such text, or too long.
    """
    if text is None:
        return None
    raw = read(Path("-"), limits.MESSAGE) if text == "-" else text
    try:
        return json.loads(raw, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else display(str(error))
        raise UsageError(f"""the body is no JSON ({what}); text needs its quotes: '"text"'""") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError("a key stands twice")
    return built
