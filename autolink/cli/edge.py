"""The one edge where an error becomes a line on stderr and an exit status.

====== ===================================================================================================
status meaning
====== ===================================================================================================
0      it went as it should
1      it failed: a file, an identity, a body, the protocol, what this machine has or lacks; an Auto ID is not on record;
       `run`: something was still open and was cut off; `registry status --active`: it is not
2      the command line is wrong
3      refused: we refused the peer, the envelope or the chain, or the peer refused us; or a registry an entry. Also a link
       that was lost by it, and an Auto ID that is not looked for because it is revoked
4      the far handler answered with an error
5      nobody reached, or no agent there, the link lost, or time ran out: trying again may help; `bench`: nothing succeeded
       any more
130    interrupted
====== ===================================================================================================

An error is one line that names the party and, where something can be done about it, says what. Anything that is none of
the errors below is a bug and keeps its traceback.
"""

import errno
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click
from click.exceptions import NoArgsIsHelpError, NoSuchOption

from autolink import limits
from autolink.cli.lazy import Lazy
from autolink.cli.show import print_json
from autolink.errors import (
    AutolinkError,
    BadSignature,
    CallError,
    Code,
    DeliveryUnknown,
    EntryRefused,
    Fault,
    KeystoreError,
    LinkLost,
    LocalProtocolError,
    NotAnAgent,
    NotLocated,
    Reason,
    Refused,
    SetupError,
    UsageError,
    display,
)

P = ParamSpec("P")
R = TypeVar("R")


class Status(IntEnum):
    """Exit statuses; the table above."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    ANSWERED = 4
    UNREACHED = 5
    INTERRUPTED = 130


_WIDTH: Final = 5 * limits.DISPLAY
"""Characters of an error line: several reasons of `limits.DISPLAY` each, and what to do."""

_OTHER_VERSION: Final = "no autolink agent answers there, or one of another version"
_OUR_NO: Final = {
    Reason.UNKNOWN_ISSUER: "if you trust its organisation, get the anchor from there and add --trust issuer:FILE",
    Reason.NOT_VOUCHED: "add a --trust that vouches for it, or choose --on-first with --trust known",
    Reason.IMPOSTOR: "do not go on; ask the owner of that name, on another way, which key is right",
    Reason.WRONG_PEER: "another agent answers there: ask for a new contact",
    Reason.CLOCK_SKEW: "set the clock",
    Reason.SELF: "use another identity with --as",
    Reason.VERSION: _OTHER_VERSION,
    Reason.EXPIRED: "its issuer must issue a new one",
    Reason.NOT_YET_VALID: "set the clock",
    Reason.TAMPERED: "ask its author for the original",
}
_OUR_NO_BY_REGISTRY: Final = {
    "shows no status of": "its owner must put it on record (autolink id register NAME) and run it with --registry",
    "its status is of": "its owner must run it with --registry, which shows a new one again and again",
    "not the current one on record": "its owner must put it on record (autolink id renew NAME), or use the newer one",
    "a fresh one will do": "try again",
    "not signed by this key": "your log key is not its registry's, or it shows the status of another registry than yours: "
    "compare the keys",
}
"""What `Registered` says, and what to do: it knows better than the reason alone."""

_THEIR_NO: Final = {
    Reason.UNTRUSTED: "ask its owner to trust your anchor: autolink id export {NAME}; if it asks a registry: add --registry",
    Reason.EXPIRED: "have a new certificate issued, then: autolink id accept {NAME} CHAIN",
    Reason.CLOCK_SKEW: "set the clock",
    Reason.VERSION: _OTHER_VERSION,
    Reason.BUSY: "try again later",
}
AT_ANOTHER_TIME: Final = dict.fromkeys((Reason.EXPIRED, Reason.NOT_YET_VALID), "--at asks about another time")
"""For `about`, in a command that has `--at`."""

_OF_KEYSTORE: Final = {
    "wrong passphrase": "type it again, or see what --passphrase-file and $AUTOLINK_PASSPHRASE hold",
    "no such identity": "see autolink id list",
}
"""What `KeystoreError` says of an entry, and what to do."""

_OF_ENTRY: Final = {
    Fault.NOT_INVITED: "whoever runs it has to invite this ID first: autolink registry invite FOLDER {AUTOID}",
    Fault.STALE: "somebody was faster, perhaps a thief: see autolink registry history",
}
_ISSUE_AGAIN: Final = (
    "its issuer has another certificate or key on record than the one that issued this: have it issued again (autolink id "
    "export NAME --request, id issue, id accept)"
)
_OF_REFUSAL: Final = {
    "is not on record": "who signs has to be on record first, guardians too: there, autolink id register",
    "its name is bound to another key": "an identity goes on record before its first rotation: make a new one",
    "the leaf is valid outside its issuer's validity": _ISSUE_AGAIN,
    "the leaf does not name its issuer's key identifier": _ISSUE_AGAIN,
    "it does not begin later than the one that it follows": "of an identity that was issued, have a newer one "
    "issued first: autolink id export NAME --request, id issue, id renew NAME CHAIN",
}
"""What a registry says of an entry's certificate or signatures, and what to do."""

_OF_SIGNATURE: Final = {"not signed by this key": "is your --log-key that of this log?"}
"""What a note's signature says, and what to do."""

_OF_SYSTEM: Final = {
    errno.EADDRINUSE: "somebody listens there already: choose another address, or end that program",
    errno.EADDRNOTAVAIL: "this machine has no such address: listen on one of its own, or on 0.0.0.0 or [::] for all of them",
    socket.EAI_NONAME: "this name does not resolve: is it right?",
}
"""An `OSError`'s number, and what to do."""

_OF_NOT_FOUND: Final = {
    "is not on record in": "is it the right registry? Its owner puts it on record there: autolink id register NAME",
    "is not dialled": "--allow a network that is yours",
    "service record": "its owner must run it with --advertise",
}
"""What `RegistryFinder` says of somebody's service record, or of an address in it, and what to do."""


def message_of(error: BaseException) -> str:
    """What happened, with what to do next where that is known; the error's notes, which name the party, first.

    What an error has as `then` comes last: how it stands instead, or where what shows it is kept.
    """
    text = _text(error)
    notes = [note for note in reversed(getattr(error, "__notes__", [])) if note not in text]
    then = vars(error).get("then")
    return ": ".join([*notes, text, *([then] if then else [])])


def _text(error: BaseException) -> str:
    if isinstance(error, click.UsageError) and error.ctx:
        return _of_usage(error, error.ctx)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, Refused):
        return ": ".join(filter(None, [str(error), _of_refusal(error)]))
    if isinstance(error, KeystoreError | BadSignature):
        return ": ".join([str(error), *_hints(_OF_KEYSTORE | _OF_SIGNATURE, error)])
    if isinstance(error, EntryRefused):
        return ": ".join(filter(None, [f"{error} ({error.fault})", _of_entry(error)]))
    if isinstance(error, LinkLost):
        if isinstance(error.__cause__, socket.gaierror):
            return f"{error}: this name does not resolve: is it right?"
        if isinstance(error, NotLocated) and isinstance(error.__cause__, AutolinkError):
            return ": ".join(filter(None, [str(error), _of_finding(error.__cause__)]))
        if _comes_from_refusal(error):
            return str(error)
        return f"{error}: {vars(error).get('hint', 'is the agent running there?')}"
    if isinstance(error, TimeoutError):
        return error.strerror or str(error) or "it took too long: try again"
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        named = error.filename and not getattr(error, "__notes__", ())
        hint = _OF_SYSTEM.get(error.errno or 0)
        return (f"{error.filename}: " if named else "") + what + (f": {hint}" if hint else "")
    return str(error)


def _of_usage(error: click.UsageError, ctx: click.Context) -> str:
    """What is wrong with a command line; of an option of the whole program, such as -v, behind a command, where it goes."""
    root, path = ctx.find_root(), ctx.command_path
    if isinstance(error, NoSuchOption) and root is not ctx:
        option = error.option_name
        if any(option in one.opts for one in root.command.get_params(root)):
            command = path.removeprefix(f"{root.command_path} ")
            return f"{option} goes before the command: {root.command_path} {option} {command}"
    return f"{error.format_message()} (try '{path} --help')"


def _of_refusal(error: Refused) -> str:
    """What there is to do about it."""
    told = vars(error)
    if "hint" in told:
        hint = told["hint"]
    elif error.by == "us":
        known = (hint for what, hint in _OUR_NO_BY_REGISTRY.items() if what in error.detail)
        hint = next(known, _OUR_NO.get(error.reason))
    else:
        hint = _THEIR_NO.get(error.reason, "").format(NAME=told.get("name", "NAME"))
    return "; ".join(filter(None, [hint, told.get("also", {}).get(error.reason)]))


def _hints(table: Mapping[str, str], error: Exception) -> list[str]:
    """What there is to do about an error that says something of the table."""
    return [hint for what, hint in table.items() if what in str(error)]


def _of_entry(error: EntryRefused) -> str:
    """What there is to do about it."""
    hint = _OF_ENTRY.get(error.fault) or next(iter(_hints(_OF_REFUSAL, error)), "")
    return hint.format(AUTOID=vars(error).get("auto_id", "AUTOID"))


def _of_finding(error: AutolinkError) -> str:
    """What there is to do where nothing was lost but somebody is not found."""
    match error:
        case CallError() | Refused() | NotAnAgent():
            return "is this the contact of a registry?"
        case LinkLost():
            return "is the registry running there?"
    return next(iter(_hints(_OF_NOT_FOUND | _OF_SIGNATURE, error)), "")


def status_of(error: BaseException) -> Status:
    """The exit status of an error."""
    match error:
        case click.UsageError() | LocalProtocolError():
            return Status.USAGE
        case Refused() | EntryRefused():
            return Status.REFUSED
        case CallError():
            return Status.ANSWERED
        case LinkLost() if _comes_from_refusal(error):
            return Status.REFUSED
        case NotLocated(__cause__=BadSignature() | AutolinkError(__cause__=CallError(code=Code.NOT_FOUND))):
            return Status.FAILED  # not so, or not on record: as where a registry is asked for it
        case LinkLost() | NotAnAgent() | DeliveryUnknown() | TimeoutError():
            return Status.UNREACHED
        case UsageError() if not isinstance(error, SetupError):
            return Status.USAGE
    return Status.FAILED


def _comes_from_refusal(error: BaseException | None) -> bool:
    """Whether a link is lost, or was not tried for, because one party refused the other: dialling again does not help."""
    while error is not None and not isinstance(error, Refused):
        error = error.__cause__
    return error is not None


def as_json(error: BaseException) -> dict[str, object]:
    """An error for a script: `error` is the line, the rest names what it is, and what was done before it (`facts`)."""
    done: Mapping[str, object] = vars(error).get("facts", {})
    told: dict[str, object] = {**done, "ok": False, "status": status_of(error), "error": shown(error)}
    if isinstance(error, Refused):
        told |= {"refused_by": error.by, "reason": error.reason}
    if isinstance(error, EntryRefused):
        told |= {"fault": error.fault}
    if isinstance(error, CallError):
        told |= {"code": error.code, "message": display(error.message)}
    return told


def shown(error: BaseException) -> str:
    """`message_of` as one line, fit for a terminal whatever is in it."""
    return display(" ".join(message_of(error).split()), _WIDTH)


@contextmanager
def about(party: str, *, name: str | None = None, also: Mapping[Reason, str] | None = None) -> Iterator[None]:
    """Name the party in what goes wrong inside; for what there is to do about it our own identity, and what more this
    command can do about a refusal."""
    try:
        yield
    except (AutolinkError, OSError) as error:
        error.add_note(party)
        if also is not None:
            vars(error)["also"] = also
        if name is not None:
            vars(error)["name"] = name
        raise


class Edge(Lazy):
    """A group whose errors end here."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ANN401  click's own
        """Run the command and exit; see the module for the status."""
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
        except click.Abort:
            click.echo("interrupted", err=True)
            status = Status.INTERRUPTED
        except NoArgsIsHelpError as error:
            error.show()
            status = Status.USAGE
        except (click.ClickException, AutolinkError, OSError) as error:
            click.echo(f"Error: {shown(error)}", err=True)
            status = status_of(error)
        sys.exit(status if isinstance(status, int) else Status.OK)


def tells_json(command: Callable[P, R], *, line: bool) -> Callable[P, R]:
    """For a command with `--json`: what fails is an object on stdout too, beside the line on stderr.

    Args:
        command: it.
        line: as `print_json` takes it.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, AutolinkError, OSError) as error:
            if kwargs.get("as_json"):
                print_json(as_json(error), line=line)
            raise

    return run
