"""`autolink registry lookup|status|history`: what a registry says of one ID, with its signature and proof checked."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from autolink import limits
from autolink.cli.options import Number, json_option, option
from autolink.cli.registry_link import auto_id_of, on_record, reach, reach_options
from autolink.cli.show import print_facts, print_json, print_table
from autolink.errors import BadSignature
from autolink.identity import AutoId, Certificate, key_authority
from autolink.messages import instant
from autolink.registry.answers import Place
from autolink.registry.client import RegistryClient
from autolink.registry.discovery import NotFound, find_record
from autolink.registry.entries import Entry, decode_leaf_untrusted
from autolink.registry.evidence import against
from autolink.registry.records import State
from autolink.registry.service_record import ServiceRecord
from autolink.registry.status import VerifiedStatus, check_young

F = TypeVar("F", bound=Callable[..., Any])

_TRIES: Final = 3


def status_facts(verified: VerifiedStatus) -> dict[str, Any]:
    """What a status says, and how old it is."""
    said = verified.status
    return {
        "auto_id": said.auto_id.hex,
        "state": said.state.value,
        "because_of": None
        if said.state is State.ACTIVE or said.because == said.auto_id
        else said.because.hex,
        "certificate": f"sha256:{said.certificate.hex()}",
        "key": key_authority(said.key),
        "entries": said.entries,
        "last_entry": said.proof.index,
        "log": said.origin,
        "log_entries": verified.checkpoint.size,
        "at": instant(said.at).isoformat(),
        "valid_until": instant(said.expires_at).isoformat(),
    }


def _max_age_option(function: F) -> F:
    return option(
        "--max-age", type=Number(0, limits.STATUS_AGE, min_open=True), default=limits.STATUS_LIFETIME, show_default=True,
        help="Seconds that the registry's word may be old.",
    )(function)  # fmt: skip


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@_max_age_option
@reach_options()
@json_option
def status(who: str, *, max_age: float, as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """Whether an Auto ID is active, in the signed word of the log; nothing of it rests on who answers."""
    auto_id = auto_id_of(who)

    async def work(client: RegistryClient) -> VerifiedStatus:
        with on_record(auto_id):
            verified = await client.status(auto_id)
        with against(verified.status.to_bytes()):
            check_young(verified.status, datetime.now(UTC), max_age)
        return verified

    facts = status_facts(reach(**how).use(work))
    if as_json:
        print_json({"ok": True, **facts})
    else:
        print_facts(facts)


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

    async def work(client: RegistryClient) -> tuple[VerifiedStatus, Place, ServiceRecord | NotFound]:
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
        try:
            return verified, place, await find_record(client, auto_id, now=datetime.now(UTC), max_age=max_age)
        except NotFound as none:
            return verified, place, none

    verified, place, service = reach(**how).use(work)
    certificate = Certificate.parse_untrusted(place.certificate)
    facts = {
        "common_name": certificate.common_name,
        "kind": None if certificate.kind is None else certificate.kind.value,
        "key_type": certificate.key_type.value,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        **status_facts(verified),
        "takes_over_at": None if place.recovered_at is None else instant(place.recovered_at).isoformat(),
        "guardians": f"{place.threshold} of {place.guardians}" if place.guardians else None,
        "recovery_takes": days(place.delay),
    }
    if as_json:
        more = _service(service) | {"certificate_der": place.certificate}
        print_json({"ok": True, **facts, **more})
    else:
        print_facts(facts | _service_in_words(service))


def _service(found: ServiceRecord | NotFound) -> dict[str, Any]:
    if isinstance(found, NotFound):
        return {"service_record": None, "no_service_record": str(found)}
    methods, channels = ([asdict(offer) for offer in offers] for offers in (found.methods, found.channels))
    said = {
        "addresses": [str(address) for address in found.addresses],
        "methods": methods,
        "channels": channels,
        "valid_until": instant(found.valid_until).isoformat(),
    }
    return {"service_record": said, "no_service_record": None}


def _service_in_words(found: ServiceRecord | NotFound) -> dict[str, Any]:
    if isinstance(found, NotFound):
        return {"service_record": f"none: {found}"}
    return {
        "addresses": found.addresses,
        "methods": tuple(offer.name for offer in found.methods),
        "channels": tuple(offer.name for offer in found.channels),
        "service_record": f"until {instant(found.valid_until).isoformat()}",
    }


@click.command()
@click.argument("who", metavar="AUTOID|NAME")
@reach_options()
@json_option
def history(who: str, *, as_json: bool, **how: Any) -> None:  # noqa: ANN401
    """Every entry of an Auto ID, each proved to be in the log, and that none is missing."""
    auto_id = auto_id_of(who)

    async def work(client: RegistryClient) -> list[dict[str, Any]]:
        with on_record(auto_id):
            said = (await client.status(auto_id)).status
        with against(said.to_bytes()):
            places = await client.places(said)
            return [_row(place, await client.proved(place), auto_id) for place in places]

    rows = reach(**how).use(work)
    if as_json:
        print_json({"ok": True, "auto_id": auto_id.hex, "entries": rows})
    else:
        print_table(("index", "logged_at", "entry", "signed_by", "says"), rows)


def _row(place: int, leaf: bytes, auto_id: AutoId) -> dict[str, Any]:
    logged_at, entry = decode_leaf_untrusted(leaf)
    if entry.auto_id != auto_id:
        raise BadSignature(f"the registry gives another ID's entry at {place}")
    return {
        "index": str(place),
        "logged_at": instant(logged_at).isoformat(),
        "entry": entry.op.name.lower(),
        "signed_by": ", ".join("itself" if one.by == auto_id else one.by.hex for one in entry.signatures),
        "says": entry_text(entry),
    }


def days(seconds: float) -> str:
    """A delay for people; under two days in hours."""
    if seconds < 2 * 86_400:
        return "1 hour" if seconds == 3_600 else f"{seconds / 3_600:.4g} hours"
    return f"{seconds / 86_400:.4g} days"


def entry_text(entry: Entry) -> str:
    """What an entry brings, in a few words."""
    said: list[str] = []
    if entry.certificate:
        certificate = Certificate.parse_untrusted(entry.certificate)
        said.append(f"key {key_authority(certificate.spki_sha256)} until {certificate.not_after:%F}")
    if entry.guardians is not None and entry.guardians.hashes:
        said.append(f"{entry.guardians.threshold} of {len(entry.guardians.hashes)} guardians")
    if entry.guardians is not None:
        said.append(f"a recovery takes {days(entry.guardians.delay)}")
    if entry.void_from is not None:
        said.append(f"void from entry {entry.void_from}")
    return ", ".join(said)
