"""What `--void-from` is going to undo: asked of the registry, and of whoever says it, before anything is done."""

from dataclasses import dataclass
from typing import Final

from autolink.cli.record_options import make_sure
from autolink.cli.registry_link import Reach, on_record
from autolink.cli.show import say
from autolink.cli.submitting import named
from autolink.errors import UsageError
from autolink.identity import AutoId, Certificate
from autolink.registry.client import RegistryClient
from autolink.registry.entries import decode_leaf_untrusted

_PAGE: Final = 100
_SEARCHED: Final = 10_000
"""Entries of a log that are looked through at most."""

_NAMED: Final = 8
"""Auto IDs that are named at most."""


@dataclass(frozen=True, slots=True)
class _Undone:
    """Who has a certificate that the key on record has issued from that entry on; `more`: not every entry was looked at."""

    ids: tuple[AutoId, ...]
    more: bool

    def __str__(self) -> str:
        if not self.ids:
            return "none that was found" if self.more else "none"
        told = ", ".join(map(named, self.ids[:_NAMED])) + (", …" if len(self.ids) > _NAMED else "")
        return f"{'at least ' if self.more else ''}{len(self.ids)}: {told}"


def check_void_from(reached: Reach, auto_id: AutoId, void_from: int | None, *, yes: bool) -> None:
    """Whether a registry can take it, and whether it is meant: what it undoes is named.

    Raises:
        UsageError: the log is not that long, the ID was not on record yet, or nobody is there to say yes.
        click.Abort: it is not meant.
        NotOnRecord, AutolinkError, TimeoutError: nothing is known.
    """
    if void_from is not None:
        confirm_void_from(void_from, reached.use(lambda client: _undone(client, auto_id, void_from)), yes=yes)


def confirm_void_from(void_from: int, undone: object, *, yes: bool) -> None:
    """As `check_void_from`, of what is known; told in any case, for that is who is to be issued again."""
    means = (
        f"--void-from {void_from}: nothing stands that the old key has signed from entry {void_from} on. Agents whose "
        "certificate of its issuing went on record since then, and all below them, count as revoked at once, until they are "
        f"issued again and put on record again (id renew). Directly below: {undone}"
    )
    if yes:
        say(means)
    make_sure("Is that meant?", means, yes=yes)


async def _undone(client: RegistryClient, auto_id: AutoId, void_from: int) -> _Undone:
    with on_record(auto_id):
        place = await client.place(auto_id)
    size = (await client.catch_up()).size
    if void_from > size:
        raise UsageError(
            f"--void-from {void_from}: the log has {size} entries, and what is still to come cannot be void"
        )
    first = (await client.history(auto_id))[:1]
    if first and void_from < first[0]:
        raise UsageError(
            f"--void-from {void_from}: {auto_id.short} is on record since entry {first[0]} only; entries are numbered in "
            "the log, not in the ID's history"
        )
    issuer, found = Certificate.parse_untrusted(place.certificate), dict[AutoId, None]()
    at, end = void_from, min(size, void_from + _SEARCHED)
    while at < end and (leaves := await client.entries(range(at, min(at + _PAGE, end)))):
        for leaf in leaves:
            entry = decode_leaf_untrusted(leaf)[1]
            if entry.certificate and entry.auto_id != auto_id and _by(issuer, entry.certificate):
                found[entry.auto_id] = None
        at += len(leaves)
    return _Undone(tuple(found), more=at < size)


def _by(issuer: Certificate, certificate: bytes) -> bool:
    return Certificate.parse_untrusted(certificate).is_issued_by(issuer)
