"""`autolink registry export`: a log as files that any file server serves."""

from pathlib import Path

import click

from autolink.cli.edge import about
from autolink.cli.options import json_option
from autolink.cli.registry_link import log_key_option, source_timeout_option
from autolink.cli.show import print_facts, print_json
from autolink.errors import display
from autolink.registry.log.note import VerifierKey
from autolink.registry.sources import open_source
from autolink.registry.tiling import export_tiles


@click.command()
@click.argument("where", metavar="FOLDER|URL")
@click.argument("mirror", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@log_key_option()
@source_timeout_option
@json_option
def export(where: str, mirror: Path, *, log_key: VerifierKey, timeout: float, as_json: bool) -> None:
    """Write a log into DIR as tiles (c2sp.org/tlog-tiles): a mirror, which any file server or CDN serves.

    It is read as `audit` reads one, while it is served or not, and compared with what its key has signed. Run again, what is
    new is written.
    """
    with about(display(where)), open_source(where, timeout=timeout) as source:
        signed = export_tiles(source, mirror, log_key)
    facts = {"log": signed.origin, "entries": signed.size, "root": signed.root.hex(), "mirror": str(mirror)}
    if as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)
