"""`autolink id import`: keys and names from elsewhere.

A chain of our own profile is taken as it is. Anything else is read as one certificate made by upstream's SDKs, which
no trust model accepts: its key and its names are kept, and a certificate of our profile is written over them, by
itself, by its issuer if that is in the keystore, or not yet, as a request.
"""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from autolink import limits
from autolink.cli.options import FILE, KINDS, json_option, option, passphrase_option, read
from autolink.cli.passphrase import load_identity, new_passphrase, passphrase_for
from autolink.cli.show import describe, print_facts, print_json, say
from autolink.errors import IdentityError, display
from autolink.identity import (
    Credential,
    EntityKind,
    Keystore,
    UpstreamIdentity,
    load_chain,
    show_name,
)
from autolink.identity.credential import PEM_BYTES
from autolink.identity.rotation import split_chain
from autolink.trust.profile import check_profile


@click.command("import")
@click.argument("name")
@option("--certificate", type=FILE, required=True, help="PEM: a chain of ours, or upstream's certificate.")
@option("--key", type=FILE, required=True, help="PEM: its PKCS#8 private key.")
@option("--key-passphrase-file", type=FILE, help="Holds the passphrase of --key; else you are asked.")
@option("--kind", type=click.Choice(KINDS), help="What it is; organization, or agent if it was issued.")
@option(
    "--may-issue",
    type=click.IntRange(0, limits.CHAIN),
    help="Issued again as an issuer, with so many below it.",
)
@option("--unencrypted", is_flag=True, help="Store the private key without a passphrase.")
@passphrase_option
@json_option
def import_(
    name: str, *, certificate: Path, key: Path, key_passphrase_file: Path | None, kind: str | None,
    may_issue: int | None, unencrypted: bool, passphrase_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Take over an identity from PEM files, as NAME: one of ours, or one made by the Auto ID SDKs."""
    store = Keystore()
    store.folder(name)
    pem, key_pem = read(certificate, PEM_BYTES), read(key, PEM_BYTES)
    secret = passphrase_for(str(key), key_passphrase_file) if b"ENCRYPTED PRIVATE KEY" in key_pem else None
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    facts: dict[str, Any] = {"name": name}
    if _is_ours(pem):
        credential: Credential | None = Credential.from_pem(pem, key_pem, passphrase=secret)
    else:
        upstream = UpstreamIdentity.from_pem(pem, key_pem, passphrase=secret)
        facts["upstream_san"] = None if upstream.san is None else display(upstream.san)
        credential = _take_over(store, upstream, kind, may_issue, passphrase_file)
    if credential is None:
        store.save_request(name, upstream.request(), passphrase=passphrase, unencrypted=unencrypted)
        facts |= {"common_name": upstream.name, "issued_by": show_name(upstream.issuer_name or "")}
        facts["state"] = "waits for its chain"
        say(
            f"its issuer is not in this keystore: have it issued (autolink id export {name} --request), then: "
            f"autolink id accept {name} CHAIN"
        )
    else:
        store.save_new(name, credential, passphrase=passphrase, unencrypted=unencrypted)
        facts |= describe(credential.certificates)
    if as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)


def _is_ours(pem: bytes) -> bool:
    """Whether it is a chain of our profile; whatever else it is, reading it as upstream's will say."""
    try:
        chain, _ = split_chain(load_chain(pem))
        check_profile([certificate.x509 for certificate in chain])
    except IdentityError:
        return False
    return True


def _take_over(
    store: Keystore,
    upstream: UpstreamIdentity,
    kind: str | None,
    may_issue: int | None,
    passphrase_file: Path | None,
) -> Credential | None:
    """A credential of our profile over upstream's key, or None if its issuer is not here."""
    if upstream.issuer_name is None:
        return upstream.self_issue(kind=EntityKind(kind or "organization"), now=datetime.now(UTC))
    for candidate in store.names():
        with suppress(IdentityError):
            # A request without a chain, or an entry that cannot be read, issued nothing.
            if upstream.was_issued_by(store.chain(candidate)[0]):
                break
    else:
        return None
    request = upstream.request()
    issuer = load_identity(candidate, passphrase_file)
    return request.complete(issuer.issue(request, kind=EntityKind(kind or "agent"), may_issue=may_issue))
