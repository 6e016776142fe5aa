"""`autolink registry lookup|status|history`: what a registry says of one ID, with its signature and proof checked."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from autolink import limits
from autolink.cli.edge import Status as Exit
from autolink.cli.options import Number, json_option, option
from autolink.cli.registry_link import auto_id_of, on_record, reach, reach_options
from autolink.cli.show import print_facts, print_json, print_table, utc
from autolink.errors import BadSignature
from autolink.identity import AutoId, Certificate, key_authority
from autolink.messages import instant
from autolink.registry.answers import Place
from autolink.registry.client import RegistryClient
from autolink.registry.discovery import NotFound, find_record
from autolink.registry.entries import Entry, Op, decode_leaf_untrusted
from autolink.registry.evidence import against
from autolink.registry.ledger import Standing
from autolink.registry.records import SECOND, State
from autolink.registry.service_record import ServiceRecord
from autolink.registry.status import Status, VerifiedStatus, check_young
from autolink.registry.watch import short_key

F = TypeVar("F", bound=Callable[..., Any])

_TRIES: Final = 3


def state_facts(where: Standing | Status, auto_id: AutoId) -> dict[str, Any]:
    """An ID's effective state, and because of whom else it is not active."""
    own = where.state is State.ACTIVE or where.because == auto_id
    return {"state": where.state.value, "because_of": None if own else where.because.hex}


def status_facts(verified: VerifiedStatus) -> dict[str, Any]:
    """What a status says, and how old it is."""
    said = verified.status
    return {
        "auto_id": said.auto_id.hex,
        **state_facts(said, said.auto_id),
        "key": key_authority(said.key),
        "certificate": f"sha256:{said.certificate.hex()}",
        "entries": said.entries,
        "last_entry": said.proof.index,
        "log": said.origin,
        "log_entries": verified.checkpoint.size,
        "as_of": instant(said.at),
        "valid_until": instant(said.expires_at),
    }


def _max_age_option(function: F) -> F:
    return option(
        "--max-age", type=Number(0, limits.STATUS_AGE, min_open=True), default=limits.STATUS_LIFETIME,
        help="Seconds that the registry's word may be old.",
    )(function)  # fmt: skip


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@_max_age_option
@option("--active", is_flag=True, help="Exit status 1 unless it is active: for scripts.")
@reach_options()
@json_option
@click.pass_context
def status(
    ctx: click.Context, /, *, who: str, max_age: float, active: bool, as_json: bool, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Whether an Auto ID is active, in the signed word of the log; nothing of it rests on who answers.

    Exit status 0 if that was answered, whatever the answer is; with --active only if it is active, its issuers too. 1 also
    if it is not on record, 5 if the registry does not answer.
    """
    auto_id = auto_id_of(who)

    async def work(client: RegistryClient) -> tuple[VerifiedStatus, dict[str, Any]]:
        with on_record(auto_id):
            verified = await client.status(auto_id)
        with against(verified.status.to_bytes()):
            check_young(verified.status, datetime.now(UTC), max_age)
            return verified, await _takes_over(client, verified.status)

    verified, coming = reach(**how).use(work)
    facts = status_facts(verified)
    ok = not active or verified.status.state is State.ACTIVE
    if as_json:
        print_json({"ok": ok, "status": Exit.OK if ok else Exit.FAILED, **facts, **coming})
    else:
        print_facts(facts | _in_words(coming))
    ctx.exit(Exit.OK if ok else Exit.FAILED)


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@_max_age_option
@reach_options()
@json_option
def lookup(who: str, *, max_age: float, as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """Who an Auto ID is, by its current certificate, how it stands, and where it is reached in its own words.

    Nobody has judged the addresses. With --json the methods and channels have their JSON schemas.
    """
    auto_id = auto_id_of(who)

    async def work(
        client: RegistryClient,
    ) -> tuple[VerifiedStatus, Place, dict[str, Any], ServiceRecord | NotFound]:
        with on_record(auto_id):
            for _ in range(_TRIES):
                verified, place = await client.status(auto_id), await client.place(auto_id)
                current = hashlib.sha256(place.certificate).digest() == verified.status.certificate
                if current and verified.status.entries == place.entries:
                    break  # else an entry came in between, or a recovery took place
        with against(verified.status.to_bytes()):
            check_young(verified.status, datetime.now(UTC), max_age)
            if not current:
                raise BadSignature(
                    "the certificate that the registry gives is not the one that its log has signed"
                )
            coming = await _takes_over(client, verified.status)
        try:
            service = await find_record(client, auto_id, now=datetime.now(UTC), max_age=max_age)
        except NotFound as none:
            return verified, place, coming, none
        return verified, place, coming, service

    verified, place, coming, service = reach(**how).use(work)
    certificate = Certificate.parse_untrusted(place.certificate)
    said = status_facts(verified)
    facts = {
        "auto_id": said["auto_id"],
        "common_name": certificate.common_name,
        "kind": None if certificate.kind is None else certificate.kind.value,
        **state_facts(verified.status, auto_id),
        **coming,
        "key_type": certificate.key_type.value,
        "key": said["key"],
        "certificate": said["certificate"],
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "guardians": {"count": place.guardians, "threshold": place.threshold, "delay_seconds": place.delay},
        "recovery_takes": days(place.delay),
        **said,  # the rest of it: the word itself
    }
    if as_json:
        del facts["recovery_takes"]  # it is in `guardians`
        more = _service(service) | {"certificate_pem": certificate.pem.decode()}
        print_json({"ok": True, **facts, **more})
    else:
        facts["guardians"] = f"{place.threshold} of {place.guardians}" if place.guardians else None
        print_facts(facts | _in_words(coming) | _service_in_words(service))


async def _takes_over(client: RegistryClient, said: Status) -> dict[str, Any]:
    """When another key takes over, and which: of an ID that is being recovered, by entries that are proved.

    Raises:
        BadSignature: the registry does not show the recovery that its log has signed.
    """
    if said.state is not State.RECOVERING or said.because != said.auto_id:
        return {"takes_over_at": None, "new_key": None}
    key, ready_at, delays = "", 0, 1
    for place in reversed(await client.places(said)):
        logged_at, entry = _read(place, await client.proved(place), said.auto_id)
        if not key and entry.op is Op.RECOVER:
            key = key_authority(Certificate.parse_untrusted(entry.certificate).spki_sha256)
            ready_at = logged_at
        elif not key:
            delays += entry.op is Op.DELAY
        elif entry.guardians is not None:  # which say how long it takes
            ready_at += delays * entry.guardians.delay * SECOND
            return {"takes_over_at": instant(ready_at), "new_key": key}
    raise BadSignature("the registry does not show the recovery that its log has signed")


def _in_words(coming: dict[str, Any]) -> dict[str, Any]:
    at = coming["takes_over_at"]
    return coming | {"takes_over_at": at and f"{utc(at)}, unless the next key ends the recovery by then"}


def _service(found: ServiceRecord | NotFound) -> dict[str, Any]:
    if isinstance(found, NotFound):
        return {"service_record": None, "no_service_record": str(found)}
    methods, channels = ([asdict(offer) for offer in offers] for offers in (found.methods, found.channels))
    said = {
        "addresses": [str(address) for address in found.addresses],
        "methods": methods,
        "channels": channels,
        "valid_until": instant(found.valid_until),
    }
    return {"service_record": said, "no_service_record": None}


def _service_in_words(found: ServiceRecord | NotFound) -> dict[str, Any]:
    if isinstance(found, NotFound):
        return {"service_record": f"none: {found}"}
    return {
        "addresses": found.addresses,
        "methods": tuple(offer.name for offer in found.methods),
        "channels": tuple(offer.name for offer in found.channels),
        "service_record": f"until {utc(instant(found.valid_until))}",
    }


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@reach_options()
@json_option
def history(who: str, *, as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """Every entry of an Auto ID, each proved to be in the log, and that none is missing."""
    auto_id = auto_id_of(who)

    async def work(client: RegistryClient) -> list[tuple[int, int, Entry]]:
        with on_record(auto_id):
            said = (await client.status(auto_id)).status
        with against(said.to_bytes()):
            places = await client.places(said)
            return [(place, *_read(place, await client.proved(place), auto_id)) for place in places]

    entries = reach(**how).use(work)
    issuer = entries[0][2].issuer
    rows = [{"index": at, "logged_at": instant(time)} for at, time, _ in entries]
    if as_json:
        told = [row | entry_facts(entry, issuer) for row, (*_, entry) in zip(rows, entries, strict=True)]
        print_json({"ok": True, "auto_id": auto_id.hex, "entries": told})
        return
    for row, (place, _, entry) in zip(rows, entries, strict=True):
        signed_by, says = signers_text(entry, issuer), entry_text(entry)
        row |= {"index": str(place), "entry": entry.op.name.lower(), "signed_by": signed_by, "says": says}
    print_table(("index", "logged_at", "entry", "signed_by", "says"), rows)


def _read(place: int, leaf: bytes, auto_id: AutoId) -> tuple[int, Entry]:
    """The time and the entry of a leaf that has to be about an ID."""
    logged_at, entry = decode_leaf_untrusted(leaf)
    if entry.auto_id != auto_id:
        raise BadSignature(f"the registry gives another ID's entry at {place}")
    return logged_at, entry


# --- an entry in words, and in fields ----------------------------------------------------------------------

_OWN_KEY: Final = {
    Op.ROTATE: "next key",
    Op.DEACTIVATE: "next key",
    Op.GUARDIANS: "next key",
    Op.RECOVER: "new key",
}
"""Which of its keys an ID signs with where it is not the one on record."""


def _signers(entry: Entry, issuer: AutoId | None) -> list[tuple[str, AutoId]]:
    """As what, and who has signed an entry that a log has taken."""

    def role(by: AutoId) -> str:
        if by == entry.auto_id:
            return _OWN_KEY.get(entry.op, "own key")
        return "issuer" if by == issuer else "guardian" if entry.revealed else "ancestor"

    return [(role(one.by), one.by) for one in entry.signatures]


def signers_text(entry: Entry, issuer: AutoId | None, *, short: bool = False) -> str:
    """Who has signed an entry: which key of the ID's own, or who else."""

    def told(role: str, by: AutoId) -> str:
        return role if by == entry.auto_id else f"{role} {by.short if short else by}"

    return ", ".join(told(role, by) for role, by in _signers(entry, issuer))


def entry_facts(entry: Entry, issuer: AutoId | None) -> dict[str, Any]:
    """What an entry is, for programs.

    Args:
        entry: that a log has taken.
        issuer: of its ID.
    """
    certificate = Certificate.parse_untrusted(entry.certificate) if entry.certificate else None
    guardians = entry.guardians
    return {
        "entry": entry.op.name.lower(),
        "signed_by": [
            {"auto_id": by.hex, "as": role.replace(" ", "_")} for role, by in _signers(entry, issuer)
        ],
        "key": None if certificate is None else key_authority(certificate.spki_sha256),
        "not_after": None if certificate is None else certificate.not_after,
        "guardians": None
        if guardians is None
        else {
            "count": len(guardians.hashes),
            "threshold": guardians.threshold,
            "delay_seconds": guardians.delay,
        },
        "void_from": entry.void_from,
    }


def days(seconds: float) -> str:
    """A delay for people; under two days in hours."""
    if seconds < 2 * 86_400:
        return "1 hour" if seconds == 3_600 else f"{seconds / 3_600:.4g} hours"
    return f"{seconds / 86_400:.4g} days"


def entry_text(entry: Entry, *, short: bool = False) -> str:
    """What an entry brings, in a few words; with `short` its key is not in full."""
    said: list[str] = []
    if entry.certificate:
        certificate = Certificate.parse_untrusted(entry.certificate)
        key = (short_key if short else key_authority)(certificate.spki_sha256)
        said.append(f"key {key} until {certificate.not_after:%F}")
    if entry.guardians is not None and entry.guardians.hashes:
        said.append(f"{entry.guardians.threshold} of {len(entry.guardians.hashes)} guardians")
    if entry.guardians is not None:
        said.append(f"a recovery takes {days(entry.guardians.delay)}")
    if entry.void_from is not None:
        said.append(f"void from entry {entry.void_from}")
    return ", ".join(said)
