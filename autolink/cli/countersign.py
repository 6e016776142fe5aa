"""`autolink id countersign|submit`: entries that wait in files for the signatures of several."""

from pathlib import Path
from typing import Any

import click

from autolink.cli.edge import about
from autolink.cli.options import FILE, json_option, option, write
from autolink.cli.passphrase import load_identity
from autolink.cli.record_options import make_sure, yes_option
from autolink.cli.registry_link import reach, reach_options
from autolink.cli.show import print_facts, print_json, say
from autolink.cli.submitting import check_complete, check_log, describe_entry, read_entry, submit_entry
from autolink.errors import display
from autolink.identity import Keystore
from autolink.registry import making


@click.command()
@click.argument("name")
@click.argument("entry", type=FILE)
@option("--submit", is_flag=True, help="Submit it, too: nobody else has to sign.")
@option("-o", "--output", type=FILE, help="Where to write it with the signature; over ENTRY if not given.")
@yes_option
@reach_options(required=False)
@json_option
def countersign(
    name: str, *, entry: Path, submit: bool, output: Path | None, yes: bool, as_json: bool, passphrase_file: Path | None,
    **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Sign the entry of somebody else in the file ENTRY as NAME: its issuer, or a guardian of it.

    Shows what it says and asks before that: it gives the key that is shown to that Auto ID. `autolink id show --file ENTRY`
    shows it, too. With --submit the file has the signature, too, and what proves the entry is kept with NAME.
    """
    waiting = read_entry(entry)
    reached = reach(passphrase_file=passphrase_file, **how) if submit else None
    if reached is None:
        check_log(waiting, how["log_key"])
    facts, to = describe_entry(waiting, names=not as_json), output or entry
    if not as_json and str(to) != "-":
        print_facts(facts)
    signer = load_identity(name, passphrase_file)
    again = any(signature.by == signer.auto_id for signature in waiting.signatures)
    signed = waiting if again else making.countersign(waiting, signer)  # in this process alone until the yes
    what = f"{facts['entry']} {facts['auto_id']}: {facts['says']}"
    make_sure(f"Sign that as {name}?", what, yes=yes or again)
    if reached is not None:
        if str(to) != "-":  # stdout is for what became of it
            write(to, signed.to_bytes())
        with about("signed, and not submitted"):
            check_complete(signed, reached.log_key)
        submit_entry(signed, reached, name, as_json=as_json)
        return
    write(to, signed.to_bytes())
    facts = describe_entry(signed)
    if as_json:
        print_json({"ok": True, **facts})
    if away := facts["missing"]:
        say(f"signed; still missing: {', '.join(away)}")
    else:
        say(f"it has all its signatures: autolink id submit NAME {display(str(to))}")


@click.command()
@click.argument("name")
@click.argument("entry", type=FILE)
@reach_options()
@json_option
def submit(name: str, *, entry: Path, as_json: bool, passphrase_file: Path | None, **how: Any) -> None:  # noqa: ANN401
    """Submit an entry that has all its signatures; what proves that it is in the log is kept with NAME."""
    signed = read_entry(entry)
    Keystore().pending(name)  # raises where there is none of this name
    reached = reach(passphrase_file=passphrase_file, **how)
    check_complete(signed, reached.log_key)
    submit_entry(signed, reached, name, as_json=as_json)
