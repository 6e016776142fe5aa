"""`autolink verify`: who signed a message, found out from a file, offline."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click

from autolink import Envelope, VerifiedMessage, limits
from autolink.cli.edge import AT_ANOTHER_TIME, about
from autolink.cli.options import FILE, as_option, json_option, moment, option, read
from autolink.cli.show import body_value, describe_peer, print_facts, print_json, utc
from autolink.cli.trust_option import Spec, build, trust_option
from autolink.errors import EnvelopeRefused, Reason, UsageError, display
from autolink.identity import Keystore
from autolink.messages import instant
from autolink.messages import verify as verify_envelope


def _past(text: str) -> datetime:
    at = moment(text)
    if at > datetime.now(UTC):
        raise click.BadParameter(f"{utc(at)} has not come: nobody can know that the message exists then")
    return at


@click.command()
@click.argument("envelope", type=FILE)
@option("--anchor", type=FILE, multiple=True, help="Short for --trust issuer:FILE. Repeatable.")
@trust_option(required=False)
@as_option(required=False, help="Whose known agents --trust known means.")
@option(
    "--at", type=_past, metavar="TIME", required=True,
    help="A time at which you know the message to have existed, such as now. Its own word is no evidence.",
)  # fmt: skip
@json_option
def verify(
    envelope: Path, *, anchor: tuple[Path, ...], specs: tuple[Spec, ...], as_name: str | None, at: datetime,
    as_json: bool,
) -> None:  # fmt: skip
    """Find out who signed the message in the file ENVELOPE (- for stdin), and whether to believe it.

    Nothing is asked of anybody: the file, the anchors and the time decide. Shown are the author and the grounds, the
    time that the message claims, and the time that evidence in it proves.
    """
    specs += tuple(Spec("issuer", file) for file in anchor)
    if not specs:
        raise UsageError("whom do you believe? Give the anchor of the author's organisation: --anchor FILE")
    model = build(specs, folder=None if as_name is None else Keystore().folder(as_name))
    with about(display(str(envelope)), also=AT_ANOTHER_TIME):
        data = read(envelope, limits.LEAF)
        if data.startswith(b"-----BEGIN "):
            what = "this is PEM and no envelope; autolink id verify judges certificates"
            raise EnvelopeRefused(Reason.MALFORMED, by="us", peer="the file", detail=what)
        parsed = Envelope.from_untrusted(data)

        async def check() -> VerifiedMessage:
            return await verify_envelope(parsed, trust=model, at=at)

        verified = anyio.run(check, backend="trio")
        found = {
            "author": describe_peer(verified.author),
            "claimed_time": verified.claimed_time,
            "proved_time": verified.proved_time,
            "at": verified.at,
            "message": {
                "message_kind" if key == "kind" else key: value for key, value in parsed.summary().items()
            }
            | {key: instant(getattr(parsed.claimed, key)) for key in ("sent_at", "expires_at")},
            "body": body_value(verified.message.body),
        }
    if as_json:
        print_json({"ok": True, **found})
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    message = found["message"]
    print_facts({
        **found["author"],
        "claimed_time": found["claimed_time"],
        "proved_time": found["proved_time"] or f"by nothing in the file; you say that it existed at {utc(found['at'])}",
        **{key: message[key] for key in ("recipient", "message_kind", "method", "id", "expires_at")},
    })  # fmt: skip
    print_json(found["body"])
