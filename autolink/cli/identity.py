"""`autolink id`: make, request, issue and accept. Looking is in `look`, taking over from elsewhere in `upstream`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from autolink import limits
from autolink.cli.edge import about
from autolink.cli.lazy import Lazy
from autolink.cli.making import (
    days_option,
    free,
    lifetime_of,
    report,
    save_with_next_key,
    say_where,
    unencrypted_option,
)
from autolink.cli.options import (
    FILE,
    KINDS,
    as_option,
    json_option,
    option,
    output_option,
    passphrase_option,
    read,
    read_chain,
    write,
)
from autolink.cli.passphrase import load_identity, new_passphrase
from autolink.cli.show import print_json, say, utc
from autolink.cli.trust_option import known_file
from autolink.errors import KeystoreError, UsageError, display
from autolink.identity import (
    Certificate,
    Credential,
    CredentialRequest,
    EntityKind,
    Keystore,
    KeyType,
    PeerId,
    dump_chain,
    key_authority,
    show_name,
)
from autolink.identity.credential import PEM_BYTES
from autolink.identity.issuing import check_may_issue
from autolink.identity.rotation import split_chain
from autolink.trust import KnownAgents

F = TypeVar("F", bound=Callable[..., Any])

_KEY_TYPES: Final = [kind.value for kind in KeyType if kind is not KeyType.RSA]

_ON_RECORD: Final = (
    "register", "renew", "record-rotation", "revoke", "deactivate", "delay", "guardians", "recover",
)  # fmt: skip

_ELSEWHERE: Final = {
    "export": "autolink.cli.look:export",
    "list": "autolink.cli.look:list_",
    "show": "autolink.cli.look:show",
    "verify": "autolink.cli.look:verify",
    "import": "autolink.cli.upstream:import_",
    "rotate": "autolink.cli.rotate:rotate",
    "publish-crl": "autolink.cli.crl:publish_crl",
    "countersign": "autolink.cli.countersign:countersign",
    "submit": "autolink.cli.countersign:submit",
    **{name: f"autolink.cli.on_record:{name.replace('-', '_')}" for name in _ON_RECORD},
}


@click.group(
    "id", cls=Lazy, elsewhere=_ELSEWHERE,
    apart=("On record in a registry", {*_ON_RECORD, "countersign", "submit", "publish-crl"}),
)  # fmt: skip
def identity() -> None:
    """Make, request, issue, look at and exchange identities."""


def _key_type_option(function: F) -> F:
    return option("--key-type", type=click.Choice(_KEY_TYPES), default="p256", help="Kind of key.")(function)


@identity.command()
@click.argument("name")
@option("--common-name", help="The name in the certificate, if it is not NAME.")
@option("--kind", type=click.Choice(["person", "organization"]), default="organization", help="What you are.")
@_key_type_option
@option("--plain", is_flag=True, help="A name without commitment to its key: it proves nothing alone.")
@option("--next-key", type=FILE, help="Where to write the next key; NAME.next-key if not given.")
@days_option(limits.LIFETIME_SELF_ISSUED_DAYS, "ten years")
@unencrypted_option
@passphrase_option
@json_option
def new(
    name: str, *, common_name: str | None, kind: str, key_type: str, plain: bool, next_key: Path | None,
    days: float | None, unencrypted: bool, passphrase_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Make an identity NAME that needs nobody else: an organisation or a person.

    It also makes the key that may follow the first one, and writes it to a file of its own. Keep that file
    elsewhere: who holds the next key decides who this identity is after a theft.
    """
    store = free(name)
    credential = Credential.self_issued(
        common_name or name,
        kind=EntityKind(kind),
        key_type=KeyType(key_type),
        plain=plain,
        lifetime=lifetime_of(days),
    )
    if plain and next_key:
        raise UsageError("a --plain name commits to no next key: leave --next-key out")
    kept = save_with_next_key(store, name, credential, next_key, passphrase_file, unencrypted=unencrypted)
    report(name, credential.chain, as_json=as_json, next_key_file=None if kept is None else str(kept))
    if kept and not as_json:
        say_where(kept, unencrypted=unencrypted)


@identity.command()
@click.argument("name")
@option("--common-name", help="The name to ask for, if it is not NAME.")
@_key_type_option
@output_option
@unencrypted_option
@passphrase_option
def request(
    name: str,
    *,
    common_name: str | None,
    key_type: str,
    output: Path,
    unencrypted: bool,
    passphrase_file: Path | None,
) -> None:
    """Make a key for NAME and a request to have it issued; the key stays here.

    Give the request to the issuer (`autolink id issue`), and its answer to `autolink id accept NAME CHAIN`.
    """
    store = free(name)
    asked = CredentialRequest.new(common_name or name, key_type=KeyType(key_type))
    passphrase = new_passphrase(name, passphrase_file, unencrypted=unencrypted)
    store.save_request(name, asked, passphrase=passphrase, unencrypted=unencrypted)
    write(output, asked.pem)
    say(f"{name} waits for its chain: have this request issued, then: autolink id accept {name} CHAIN")


@identity.command()
@click.argument("request", type=FILE, metavar="REQUEST")
@as_option(help="The issuer.")
@option("--kind", type=click.Choice(KINDS), default="agent", help="What the holder is, in your word.")
@option("--common-name", help="The name to issue, if it is not the one asked for.")
@days_option(limits.LIFETIME_ISSUED_DAYS, "90 days")
@option(
    "--may-issue", type=click.IntRange(0, limits.CHAIN), help="Make an issuer, with so many issuers below it."
)
@output_option
@passphrase_option
def issue(
    request: Path, *, as_name: str, kind: str, common_name: str | None, days: float | None, may_issue: int | None,
    output: Path, passphrase_file: Path | None,
) -> None:  # fmt: skip
    """Answer the request in the file REQUEST (- for stdin) with a chain.

    Only the key and, unless you give one, the name are taken from it.
    """
    check_may_issue(Keystore().chain(as_name)[0], may_issue)  # said before anything is read or asked
    with about(display(str(request))):
        asked = CredentialRequest.from_pem(read(request, PEM_BYTES))
    issuer = load_identity(as_name, passphrase_file)
    chain = issuer.issue(
        asked, kind=EntityKind(kind), name=common_name, lifetime=lifetime_of(days), may_issue=may_issue
    )
    write(output, dump_chain(chain))
    key = key_authority(chain[0].spki_sha256)
    say(
        f"issued {show_name(chain[0].common_name)} to the {kind} with the key {key}, until {chain[0].not_after:%F}: "
        "compare the key with what its owner sees in `autolink id show`"
    )


@identity.command()
@click.argument("name", metavar="NAME|PEER_ID")
@click.argument("chain", type=FILE, required=False)
@as_option(required=False, help="Whose known agents PEER_ID joins.")
@option("--known", type=FILE, help="The file that PEER_ID joins, if it is not that of --as.")
@option("--called", default="", help="What people call PEER_ID.")
@option("--older", is_flag=True, help="Take CHAIN even if it ends earlier than the one in place.")
@json_option
def accept(
    name: str, *, chain: Path | None, as_name: str | None, known: Path | None, called: str, older: bool, as_json: bool
) -> None:  # fmt: skip
    """Accept what was waiting for you.

    With CHAIN: the issuer's answer to the request NAME, or a newer chain for the same key. Without: the agent
    PEER_ID, which was refused as unknown, joins the agents that --as knows (`--trust known`).
    """
    if chain is not None:
        certificates, store = read_chain(chain), Keystore()
        if not older and not store.pending(name):
            _check_ends_later(name, certificates, store.chain(name))
        store.accept(name, certificates)
        report(name, certificates, as_json=as_json)
        return
    try:
        peer_id = PeerId.parse(name)
    except ValueError:
        raise UsageError(
            f"{display(name, 80)!r} is no peer id; to complete a request, give the chain too: "
            "autolink id accept NAME CHAIN"
        ) from None
    path = _known_path(as_name, known)
    KnownAgents(path, "refuse").accept(peer_id, called)
    if as_json:
        print_json({"ok": True, "peer_id": str(peer_id), "known": str(path)})
    else:
        say(f"{peer_id} is known from now on, in {display(str(path))}")


@identity.command()
@click.argument("peer_id")
@as_option(required=False, help="Whose known agents.")
@option("--known", type=FILE, help="The file, if it is not that of --as.")
def forget(peer_id: str, *, as_name: str | None, known: Path | None) -> None:
    """Forget a known agent, such as one whose key has changed and whose owner says that it is right."""
    path = _known_path(as_name, known)
    auto_id = PeerId.parse(peer_id).auto_id
    if auto_id is None or not KnownAgents(path, "refuse").forget(auto_id):
        raise KeystoreError(f"{display(peer_id)} is not in {display(str(path))}")
    say(f"{auto_id} is forgotten")


def _known_path(as_name: str | None, known: Path | None) -> Path:
    folder = None
    if as_name is not None:
        store = Keystore()
        store.pending(as_name)  # raises where there is none of this name
        folder = store.folder(as_name)
    return known_file(known, folder)


def _check_ends_later(name: str, new: tuple[Certificate, ...], own: tuple[Certificate, ...]) -> None:
    """A chain found again in some folder must not put an earlier end back unnoticed."""
    ends, until = (min(one.not_after for one in split_chain(certificates)[0]) for certificates in (new, own))
    if ends < until:
        raise UsageError(
            f"this chain of {name} ends {utc(ends)}, before the one in place ({utc(until)}): take it with --older"
        )
