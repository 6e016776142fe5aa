"""What people and scripts see on stdout. Nothing here reads markup: a name is text, whatever brackets are in it.

What lays it out takes a tenth of the command's start, and is imported when there is something to lay out.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from pydantic_core import to_json

from autolink import codec
from autolink.errors import display
from autolink.identity import Certificate, key_authority, show_name
from autolink.identity.autoid import BOUND, PeerId
from autolink.identity.credential import check_chain
from autolink.identity.names import split_bound
from autolink.identity.rotation import split_chain
from autolink.trust import VerifiedPeer

if TYPE_CHECKING:
    from rich.console import Console

_NAMES: Final = ("common_name", "asks_for")
"""Facts that scripts get as they are, and people by `show_name`."""

_PIPE: Final = 1000
"""Columns where no terminal says how many: enough for every line."""


def say(text: str) -> None:
    """A remark for a person, beside the output."""
    click.echo(text, err=True)


def print_json(value: object, *, line: bool = False) -> None:
    """One JSON text. Bytes appear as base64url (RFC 4648, section 5), times as in RFC 3339: 2026-07-01T12:00:00Z.

    Args:
        value: what it says.
        line: on one line, for a command that prints several or goes on afterwards.
    """
    plain = json.loads(to_json(value, bytes_mode="base64", inf_nan_mode="strings"))
    click.echo(visible(json.dumps(plain, ensure_ascii=False, indent=None if line else 2)))


def visible(text: str) -> str:
    """JSON text in which whatever a terminal would not print stands as its JSON escape, so that it stays the same."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def print_facts(facts: Mapping[str, object]) -> None:
    """A fact a line, what is None or empty left out. Lines are not broken, so that an id can be copied. Times are as in
    every sentence: 2026-07-01 12:00:00 UTC."""
    from rich.text import Text

    told = {name: value for name, value in facts.items() if value not in (None, ())}
    lines = {name.replace("_", " "): _cell(name, value) for name, value in told.items()}
    width = max(map(len, lines))
    for name, text in lines.items():
        _console().print(Text.assemble((name.ljust(width), "bold"), "  ", text), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """A row for each mapping; its cells are safe whatever they hold. No line ends in spaces."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.replace("_", " ")), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(column, row.get(column) or "")) for column in columns))
    console = _console()
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().removesuffix("\n").split("\n"):
        click.echo(line.rstrip())


def describe(chain: Sequence[Certificate]) -> dict[str, Any]:
    """What a complete chain says of its holder, without a verdict about it.

    Args:
        chain: leaf first; behind a rotated root its earlier certificates.

    Raises:
        IdentityError: it does not join up to a self-issued root.
    """
    chain, rotations = split_chain(chain)
    auto_id, authority = check_chain(chain, rotations)
    leaf = chain[0]
    recovered = authority != BOUND and split_bound(chain[-1].common_name) is not None
    return {
        "common_name": leaf.common_name,
        "auto_id": auto_id.hex,
        "peer_id": str(PeerId(auto_id, authority)),
        "issued_by": "/".join(show_name(one.common_name) for one in reversed(chain[1:])) or "itself",
        "kind": None if leaf.kind is None else leaf.kind.value,
        "key_type": leaf.key_type.value,
        "key": key_authority(leaf.spki_sha256),
        "not_before": leaf.not_before,
        "not_after": leaf.not_after,
        # Of the root, whose certificates show them: whose next key a registry alone knows has its own in the log.
        "rotations": len(rotations) or (None if leaf.next_key_hash is None else 0),
        "recovered_in": authority if recovered else None,
        "next_key": None if leaf.next_key_hash is None else f"sha256:{leaf.next_key_hash.hex()}",
    }


def describe_peer(peer: VerifiedPeer) -> dict[str, Any]:
    """Who was verified, and on what grounds."""
    return {
        "name": "/".join(show_name(name) for name in peer.presented.names),
        "peer_id": str(peer.peer_id),
        "kind": None if peer.kind is None else peer.kind.value,
        "grounds": str(peer.grounds),
        "valid_until": peer.valid_until,
    }


def body_value(body: bytes) -> Any:  # noqa: ANN401
    """The value of a message's body, as `print_json` takes it.

    Raises:
        RemoteProtocolError: it holds none.
    """
    return codec.decode_untrusted(body, what="body")


def utc(time: datetime) -> str:
    """A time for people."""
    return f"{time.astimezone(UTC):%F %T} UTC"


def _console() -> "Console":
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE
    return console


def _cell(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_cell(name, item) for item in value)
    if isinstance(value, datetime):
        return utc(value)
    return show_name(str(value)) if name in _NAMES else display(str(value))
