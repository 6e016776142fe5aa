"""Options that several commands share, each with its environment variable."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
from click.core import ParameterSource

from autolink.cli.edge import about, tells_json
from autolink.errors import IdentityError, display
from autolink.identity import Certificate, EntityKind, files, load_chain
from autolink.identity.credential import PEM_BYTES

F = TypeVar("F", bound=Callable[..., Any])

KINDS: Final = [kind.value for kind in EntityKind]
FILE: Final = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


class Option(click.Option):
    """An option whose help names its variable and its default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  click's own
        super().__init__(*args, **{"show_envvar": True, "show_default": True, **kwargs})
        if isinstance(self.type, click.IntRange) and self.metavar is None:
            self.metavar = "INTEGER"  # the range stands behind the text

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's own
        """What stands behind the text; a whole number without its fraction."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.type, Number) and "default" in extra:
            extra["default"] = extra["default"].removesuffix(".0")
        return extra

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """What a value that is wrong is named by: its variable only if it came from there, and not from the command line."""
        source = ctx.get_parameter_source(self.name or "") if ctx else None
        if source is ParameterSource.COMMANDLINE:
            return click.Parameter.get_error_hint(self, ctx)
        hint = super().get_error_hint(ctx)
        if ctx and source is ParameterSource.ENVIRONMENT and not self.envvar:  # which click leaves out
            hint += f" (env var: '{ctx.auto_envvar_prefix}_{(self.name or '').upper()}')"
        return hint


def option(*declarations: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401  click's own
    """As `click.option`, showing the variable and the default."""
    return click.option(*declarations, cls=Option, **attributes)


def as_option(*, required: bool = True, help: str = "Your identity in the keystore.") -> Callable[[F], F]:  # noqa: A002
    """`--as NAME`."""
    return option("--as", "as_name", metavar="NAME", envvar="AUTOLINK_AS", required=required, help=help)


def passphrase_option(function: F) -> F:
    """`--passphrase-file FILE`; AUTOLINK_PASSPHRASE and a prompt are the other two ways."""
    return option(
        "--passphrase-file", type=FILE, envvar="AUTOLINK_PASSPHRASE_FILE",
        help="Holds the passphrase. Without it $AUTOLINK_PASSPHRASE counts, else you are asked.",
    )(function)  # fmt: skip


def json_option(function: F) -> F:
    """`--json`: one object on stdout, errors included."""
    return _json_option(function, "Print one JSON object.", line=False)


def json_lines_option(function: F) -> F:
    """`--json` of a command that tells several things: each is an object on a line, errors included."""
    return _json_option(function, "Print JSON objects, one a line.", line=True)


def _json_option(function: F, what: str, *, line: bool) -> F:
    told = cast("F", tells_json(function, line=line))
    return option("--json", "as_json", is_flag=True, envvar="AUTOLINK_JSON", help=what)(told)


def output_option(function: F) -> F:
    """`-o FILE`."""
    return option("-o", "--output", type=FILE, default="-", help="Where to write; - is stdout.")(function)


class Number(click.FloatRange):
    """A number in a range; NaN, which compares with nothing, is in none."""

    name = "number"
    _what = "a number"

    def _describe_range(self) -> str:  # click's, which shows a large bound as a power
        low = "" if self.min is None else f"{self._shown(self.min)}{'<' if self.min_open else '<='}"
        high = "" if self.max is None else f"{'<' if self.max_open else '<='}{self._shown(self.max)}"
        return f"{low}x{high}"

    def _shown(self, bound: float) -> str:
        return f"{bound:,.10g}"

    def _read(self, text: Any) -> float:  # noqa: ANN401  a default is a number
        return float(text)

    def convert(
        self,
        value: Any,  # noqa: ANN401  click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Read it."""
        try:
            number = self._read(value)
        except ValueError:
            asked = f"{'over' if self.min_open else 'from'} {self._shown(self.min or 0)}"
            asked += f" up to {self._shown(self.max)}" if self.max is not None else ""
            raise click.BadParameter(f"{display(value)!r} is not {self._what} {asked}", ctx, param) from None
        number = super().convert(number, param, ctx)
        if math.isnan(number):
            raise click.BadParameter("nan is no number", ctx, param)
        return number


class Days(Number):
    """A number of days, such as 7 or 7d, or of hours: 1h."""

    name = "days"
    _what = "a number of days or hours, such as 7d or 1h,"

    def _shown(self, bound: float) -> str:
        return f"{bound * 24:,.10g}h" if 0 < bound < 1 else f"{bound:,.10g}d"

    def _read(self, text: Any) -> float:  # noqa: ANN401  a default is a number
        number, unit = (text[:-1], text[-1:]) if str(text)[-1:] in ("d", "h") else (text, "d")
        return float(number) / (24 if unit == "h" else 1)


def moment(text: str) -> datetime:
    """For `type=`: a time with its offset, ISO 8601, or ``now``."""
    if text == "now":
        return datetime.now(UTC)
    with suppress(ValueError, OverflowError):  # told below, for both and for a time without offset
        read = datetime.fromisoformat(text)
        if read.tzinfo is not None:
            return read.astimezone(UTC)
    raise click.BadParameter(
        f"{display(text)!r} is no time with its offset, such as 2026-07-01T12:00:00Z, nor 'now'"
    )


def read(path: Path, limit: int) -> bytes:
    """A file the user named, or stdin for ``-``; bounded.

    Raises:
        IdentityError: it is larger than `limit` bytes.
        OSError: it cannot be read.
    """
    if str(path) != "-":
        return files.read_bounded(path, limit)
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise IdentityError(f"stdin holds more than {limit} bytes")
    return data


def read_chain(path: Path) -> tuple[Certificate, ...]:
    """The certificates in a file or on stdin, leaf first.

    Raises:
        IdentityError, OSError: it cannot be read, or holds none; with the file named.
    """
    with about(display(str(path))):
        data = read(path, PEM_BYTES)
        if b"CERTIFICATE REQUEST-----" in data:
            raise IdentityError("this is a request: have it issued first (autolink id issue)")
        return load_chain(data)


def write(path: Path, data: bytes) -> None:
    """Write what others may read to a file, in one step; to stdout for ``-``; into the device, pipe or link that is there.

    Raises:
        OSError: it cannot be written.
    """
    if str(path) == "-":
        click.echo(data, nl=False)
    elif path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(
            data
        )  # a file of this name would take its place: /dev/null would be gone for everybody
    else:
        files.write_atomic(str(path), data, mode=0o644)
