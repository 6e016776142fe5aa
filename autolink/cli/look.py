"""`autolink id list|show|export|verify`: looking at identities and handing out what others need of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click

from autolink.cli.edge import AT_ANOTHER_TIME, about
from autolink.cli.options import (
    FILE,
    as_option,
    json_option,
    moment,
    option,
    output_option,
    passphrase_option,
    read,
    read_chain,
    write,
)
from autolink.cli.passphrase import load_identity
from autolink.cli.show import describe, describe_peer, print_facts, print_json, print_table, say
from autolink.cli.trust_option import Spec, build, trust_option
from autolink.errors import EntryRefused, IdentityError, UsageError, display
from autolink.identity import (
    CredentialRequest,
    Keystore,
    TrustAnchor,
    dump_chain,
    key_authority,
    keys,
    load_chain,
    save_key,
)
from autolink.identity.credential import PEM_BYTES
from autolink.identity.names import split_bound
from autolink.identity.rotation import encode_rotations, split_chain
from autolink.trust import Context, VerifiedPeer, judge


@click.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Who you are: the identities in the keystore."""
    store = Keystore()
    entries = [_entry(store, name) for name in store.names()]
    if as_json:
        print_json({"ok": True, "home": str(store.home), "identities": entries})
        return
    if not entries:
        say(f"there are no identities in {display(str(store.home))}; make one: autolink id new NAME")
        return
    print_table(("name", "common_name", "kind", "issued_by", "not_after", "state"), entries)


@click.command()
@click.argument("name", required=False)
@option(
    "--file",
    type=FILE,
    help="A file instead, such as one you were sent: a chain, an anchor, a request, or an entry that waits for signatures.",
)
@option("--field", metavar="FIELD", help="Print this one alone, such as auto_id: a key of --json.")
@json_option
def show(name: str | None, *, file: Path | None, field: str | None, as_json: bool) -> None:
    """Show an identity, or what a file holds. Nothing is believed by that: compare the key with its owner."""
    if (name is None) == (file is None):
        raise UsageError("show what? Give a NAME from autolink id list, or --file FILE")
    if file is not None:
        with about(display(str(file))):
            facts = _file_facts(read(file, PEM_BYTES), names=not as_json and field is None)
    else:
        store = Keystore()
        facts = _identity_facts(store, name or "") | {"folder": str(store.folder(name or ""))}
    if field is not None:
        _print_field(facts, field)
    elif as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)


def _print_field(facts: dict[str, Any], field: str) -> None:
    """Its value on a line, as in JSON but without quotes and brackets; fit for a terminal."""
    if field not in facts:
        raise UsageError(f"there is no field {display(field)!r} here; there are {', '.join(facts)}")
    value = facts[field]
    if value in (None, ()):
        raise IdentityError(f"it has no {field}")
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    if isinstance(value, datetime):
        text = f"{value:%FT%TZ}"
    click.echo(display(text, 10 * len(text)))  # nothing cut off: an escape has at most so many characters


@click.command()
@click.argument("name")
@option(
    "--anchor",
    "what",
    flag_value="anchor",
    default=True,
    show_default=False,
    allow_from_autoenv=False,
    help="What others need to trust whom you issue (the default).",
)
@option("--chain", "what", flag_value="chain", allow_from_autoenv=False, help="The certificate chain.")
@option("--request", "what", flag_value="request", allow_from_autoenv=False, help="The request, again.")
@option(
    "--unencrypted-key",
    "what",
    flag_value="unencrypted-key",
    allow_from_autoenv=False,
    help="The private key as plain PKCS#8; needs -o.",
)
@output_option
@passphrase_option
def export(name: str, *, what: str, output: Path, passphrase_file: Path | None) -> None:
    """Write out a part of an identity, in PEM."""
    store = Keystore()
    if what == "unencrypted-key":
        key = load_identity(name, passphrase_file).private_key
        if str(output) == "-":
            raise UsageError("a private key goes to a file of its own: give -o FILE")
        save_key(output, key, None, unencrypted=True)
        say(f"{display(str(output))} holds the private key of {name} WITHOUT a passphrase")
    elif what == "request":
        write(output, store.request_pem(name))
    else:
        certificates = store.chain(name)
        chain, rotations = split_chain(certificates)
        anchor = rotations[:1] or chain[-1:]
        write(output, dump_chain(certificates) if what == "chain" else TrustAnchor(anchor).to_pem())


@click.command()
@click.argument("chain", type=FILE)
@trust_option()
@option("--at", type=moment, metavar="TIME", default="now", help="The time to ask about.")
@as_option(required=False, help="Whose known agents --trust known means.")
@json_option
def verify(chain: Path, *, specs: tuple[Spec, ...], at: datetime, as_name: str | None, as_json: bool) -> None:
    """Judge the certificates in the file CHAIN (leaf first, those of `id export --chain`) as a peer's, without one.

    That its holder has the key is not shown by this; a link or a signature shows that.
    """
    folder = None if as_name is None else Keystore().folder(as_name)
    model = build(specs, folder=folder)
    certificates, rotations = split_chain(read_chain(chain))
    evidence = [encode_rotations(rotations)] if rotations else []

    async def ask() -> VerifiedPeer:
        shown = [certificate.der for certificate in certificates]
        return await judge(model, shown, context=Context(now=at, direction="message"), evidence=evidence)

    with about(display(str(chain)), also=AT_ANOTHER_TIME):
        verified = describe_peer(anyio.run(ask, backend="trio"))
    if as_json:
        print_json({"ok": True, "at": at, **verified})
    else:
        print_facts(verified)


def _entry(store: Keystore, name: str) -> dict[str, Any]:
    """One line of the list. An identity that cannot be read is listed with the reason, beside the others."""
    try:
        facts = _identity_facts(store, name)
    except IdentityError as error:
        return {"name": name, "state": str(error)}
    if "not_after" in facts:
        over = facts["not_after"] < datetime.now(UTC)
        facts["state"] = "expired" if over else "ready"
    return facts


def _identity_facts(store: Keystore, name: str) -> dict[str, Any]:
    if store.pending(name):
        return {"name": name, **_request_facts(store.request_pem(name)), "state": "waits for its chain"}
    return {"name": name, **describe(store.chain(name))}


def _request_facts(pem: bytes) -> dict[str, Any]:
    asked = CredentialRequest.from_pem(pem)
    return {"asks_for": asked.name, "key": key_authority(keys.hash_of_key(asked.public_key))}


def _file_facts(pem: bytes, *, names: bool) -> dict[str, Any]:
    if b"-----BEGIN " not in pem:
        return _entry_facts(pem, names=names)
    if b"REQUEST-----" in pem:
        return _request_facts(pem)
    chain = load_chain(pem)
    alone, more = split_chain(chain)
    if len(alone) == 1 and more and split_bound(chain[0].common_name) is None:  # an anchor of several keys
        all_keys = tuple(key_authority(certificate.spki_sha256) for certificate in chain)
        return describe(TrustAnchor(chain).certificates[:1]) | {"keys": all_keys}
    return describe(chain)


def _entry_facts(data: bytes, *, names: bool) -> dict[str, Any]:
    from autolink.cli.submitting import (
        describe_entry,  # not for every look at an identity: it takes all of the registry's
    )
    from autolink.registry.entries import Entry

    try:
        entry = Entry.from_untrusted(data)
    except EntryRefused:
        raise IdentityError("it holds no certificates, no request and no entry") from None
    return describe_entry(entry, names=names)
