"""`autolink id publish-crl`: an issuer's revocation list, made from the log, for software that knows no registry."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.serialization import Encoding

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.options import FILE, Number, json_option, option, write
from autolink.cli.passphrase import load_identity
from autolink.cli.registry_link import NotOnRecord, reach, reach_options
from autolink.cli.show import print_facts, print_json, say
from autolink.errors import EntryRefused, Fault
from autolink.identity import AutoId
from autolink.identity.issuing import check_may_issue
from autolink.registry.client import RegistryClient
from autolink.registry.crl import Issued, check_may_sign, check_untrusted, load_untrusted, make_crl
from autolink.registry.monitor import Monitor
from autolink.registry.watch import Report

_DAY: Final = timedelta(days=1)


@click.command("publish-crl")
@click.argument("name")
@option(
    "--days", type=Number(0, limits.CRL_LIFETIME_MOST / _DAY.total_seconds(), min_open=True),
    default=limits.CRL_LIFETIME / _DAY.total_seconds(),
    help="Until its nextUpdate; who checks lists refuses every certificate of NAME's after that.",
)  # fmt: skip
@option(
    "-o", "--output", type=FILE,
    help="Write the list there instead, for who serves it himself: DER, or PEM if the name ends in .pem; - is stdout.",
)  # fmt: skip
@reach_options()
@json_option
def publish_crl(
    name: str, *, days: float, output: Path | None, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Sign, as NAME, which of the certificates that it has issued are revoked, and have the registry serve that list, or
    write it to a file with -o.

    The log is replayed from its first entry, so that the list rests on nothing that the registry says. It is of the moment:
    make another one after each revocation, and before this one runs out.
    """
    reached = reach(passphrase_file=passphrase_file, **how)
    issuer = load_identity(name, passphrase_file)
    with about(name):
        check_may_issue(issuer.leaf, None)
        check_may_sign(issuer.leaf)
    issued = Issued(issuer.auto_id)
    odd: list[Report] = []
    log = Monitor(
        reached.log_key, clock=lambda: datetime.now(UTC), watched=[issuer.auto_id], each=issued.take
    )

    async def work(client: RegistryClient) -> bytes:
        await log.look(client, lambda report: odd.append(report) if report.odd else None)
        if odd:
            raise click.ClickException(f"the registry's log is not to be gone by: {odd[0].text}")
        der = make_crl(issuer, issued, size=log.size, now=datetime.now(UTC), lifetime=days * _DAY)
        if output is None:
            await _publish(client, issuer.auto_id, der)
        return der

    der = reached.use(work)
    if output is not None:
        write(output, _pem(der) if output.suffix == ".pem" else der)
    made = check_untrusted(der, issuer.leaf.der)
    facts = {
        "auto_id": issuer.auto_id.hex,
        "number": f"0x{made.number:X}",
        "this_update": made.this_update,
        "next_update": made.next_update,
        "revoked": made.count,
        "log_entries": made.size,
        "path": f"/v1/ids/{issuer.auto_id.hex}/crl" if output is None else None,
    }
    if as_json:
        print_json({"ok": True, **facts})
    elif str(output) != "-":
        print_facts(facts)
        if output is None:
            say(
                "The registry's public side serves it at this path of its URL, which its keeper knows (serve --http)."
            )


async def _publish(client: RegistryClient, issuer: AutoId, der: bytes) -> None:
    try:
        await client.publish_crl(issuer, der)
    except EntryRefused as refusal:
        if refusal.fault is Fault.STALE:  # the hint of this fault is about entries
            raise click.ClickException("the registry serves a list that is as new, or newer") from None
        if refusal.fault is Fault.UNKNOWN:
            raise NotOnRecord(issuer) from None
        raise


def _pem(der: bytes) -> bytes:
    return load_untrusted(der).public_bytes(Encoding.PEM)
