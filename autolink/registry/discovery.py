"""Where an Auto ID is reached, by its own word in a registry.

The word is its newest service record (service_record.py), and what shows it is, in this order:

- a status: the log's signed word on the state of the ID, its current certificate, how many entries it has, and the last;
- the ID's entries from that last one back to its newest SERVICE entry. Each names the hash of the one before, so the
  registry can neither leave one out nor put one in;
- that entry's proof in the log, and its signature under the current certificate's key.

So the record is the word of whoever has the ID's key *now*: a rotation or recovery takes it back, and so does a change of
guardians, which names an earlier entry than the last; its owner publishes it anew (`publish` does when that is so). What
none of this shows is that the registry has no entry newer than the status that it gives: that may be `max_age` old, and
never older than one that was seen before. A registry could call another certificate current; that convicts it, as any
false status does, and only sends us to an address where the handshake, which it has no part in, meets the wrong party.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, final

from autolink import limits
from autolink.errors import (
    AutolinkError,
    BadSignature,
    CallError,
    Code,
    EntryRefused,
    Fault,
    IdentityError,
    Reason,
    Refused,
    RemoteProtocolError,
    display,
)
from autolink.identity import AutoId, Certificate, Credential
from autolink.identity.autoid import auto_id_given
from autolink.messages import instant, microseconds
from autolink.messages.merkle import leaf_hash
from autolink.registry import making
from autolink.registry.addresses import Allowed, NotAllowed, Resolver
from autolink.registry.client import RegistryClient, reader
from autolink.registry.entries import Entry, Op, decode_leaf_untrusted
from autolink.registry.evidence import against
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey, key_given
from autolink.registry.records import State
from autolink.registry.service_record import ServiceRecord
from autolink.registry.status import Newest, Status, check_young, seconds_given
from autolink.registry.submitter import Logged
from autolink.transport import Address, Contact
from autolink.transport.sockets import resolve

_NEW_KEY: Final = frozenset({Op.REGISTER, Op.ROTATE, Op.RECOVER})
"""What another key signed is behind one of these."""

_GROUP: Final = 16
"""Entries asked for at a time, from the last one back: 16 of the largest fit into one answer."""

_ATTEMPTS: Final = 2
"""To publish: who was outrun finds out by whom, and whether anything is left to do."""


class NotFound(AutolinkError):
    """An Auto ID has no service record that counts, or is not on record at all; nobody has lied about it."""


async def find_record(
    client: RegistryClient, auto_id: AutoId, *, now: datetime,
    max_age: float = limits.STATUS_LIFETIME, newest: Newest | None = None,
) -> ServiceRecord:  # fmt: skip
    """The newest service record of an ID, proved as the module says.

    Args:
        client: of the registry.
        auto_id: whose.
        now: the time.
        max_age: seconds that the registry's word may be old.
        newest: what statuses were seen before.

    Raises:
        NotFound: it is not active, or has no record that counts, or that has ended.
        CallError: `not_found`: it is not on record.
        Unproved: the registry shows what does not go together with its status, or the record changed meanwhile.
        LogConvicted, BadSignature, RemoteProtocolError, EntryRefused: the registry shows what is not so.
    """
    verified = await client.status(auto_id)
    status = verified.status
    with against(status.to_bytes()):
        check_young(status, now, max_age)  # before it is remembered, or anything is taken from it
        if newest is not None:
            newest.check(verified)
        if status.state is not State.ACTIVE:
            text = f"{display(status.origin)} says that {status.auto_id.short} is {status.state}"
            refused = Refused(Reason.REVOKED, by="us", peer=str(auto_id), detail=text)
            raise NotFound(text) from refused  # as the peer would be if it were dialled
        place, wanted = await _newest_service(client, status)
        entry = decode_leaf_untrusted(await client.proved(place))[1]
        if entry.hash != wanted:
            raise BadSignature("the registry proves another entry than it has shown")
        await _check_signed(client, status, entry)
    if not entry.service:
        raise NotFound(f"{auto_id.short} has taken its service record back")
    try:
        record = ServiceRecord.from_untrusted(entry.service)
    except RemoteProtocolError as error:  # the ID's doing, not the registry's
        raise NotFound(f"what {auto_id.short} has published is no service record: {error}") from error
    if record.valid_until < microseconds(now):
        ended = instant(record.valid_until)
        raise NotFound(f"the service record of {auto_id.short} was good until {ended:%F %T} UTC")
    return record


async def _newest_service(client: RegistryClient, status: Status) -> tuple[int, bytes]:
    """Place and hash of the newest SERVICE entry, behind which there is no other: see the module."""
    places = await client.places(status, limits.SERVICE_BEHIND)
    wanted, outran = b"", False
    while places:
        group, places = places[-_GROUP:], places[:-_GROUP]
        leaves = await client.entries(group)
        if len(leaves) != len(group):
            raise RemoteProtocolError("the registry does not give the entries that it has")
        for place, leaf in zip(reversed(group), reversed(leaves), strict=True):
            entry = decode_leaf_untrusted(leaf)[1]
            fits = entry.hash == wanted if wanted else leaf_hash(leaf) == status.head
            if not fits and outran:
                raise NotFound(f"{status.auto_id.short} has no service record since its guardians changed")
            if not fits or entry.auto_id != status.auto_id:
                raise BadSignature("the registry shows other entries than it has signed")
            if entry.op is Op.SERVICE:
                return place, entry.hash
            if entry.op in _NEW_KEY:
                since = "was registered" if entry.op is Op.REGISTER else "has its key"
                raise NotFound(f"{status.auto_id.short} has published no service record since it {since}")
            wanted, outran = entry.previous, entry.op is Op.GUARDIANS
    raise NotFound(
        f"{status.auto_id.short} has no service record in its last {limits.SERVICE_BEHIND} entries"
    )


async def _check_signed(client: RegistryClient, status: Status, entry: Entry) -> None:
    """The entry's one signature is by the key that the status calls current."""
    der = (await client.place(status.auto_id)).certificate
    if sha256(der).digest() != status.certificate:
        raise BadSignature("the registry shows another certificate than its status names")
    try:
        certificate = Certificate.parse_untrusted(der)
        if [(one.by, one.key) for one in entry.signatures] != [(status.auto_id, b"")]:
            raise BadSignature("the service record is not signed by its ID alone")
        entry.check_signature(entry.signatures[0], certificate.public_key, certificate.spki)
    except (IdentityError, EntryRefused) as error:
        raise BadSignature(f"the service record is not its current key's: {error}") from error


async def publish(
    client: RegistryClient, credential: Credential, record: ServiceRecord, *, now: datetime
) -> Logged | None:
    """Put an agent's service record on record, unless the one that is found says the same for half as long at least.

    Args:
        client: of the registry.
        credential: the agent's.
        record: see `service_record.describe`.
        now: the time.

    Returns:
        The entry; None where none was needed.

    Raises:
        CallError: `not_found`: the ID is not on record.
        UsageError: the record is larger than a reader would take.
        EntryRefused, BadSignature, RemoteProtocolError: as `RegistryClient.submit` and `find_record`.
    """
    service, time = record.to_bytes(), microseconds(now)
    half = (record.valid_until - time) // 2
    for attempt in range(_ATTEMPTS):
        # Asked for first, so that an entry which is logged after the look makes ours stale, and not a second one.
        place = await client.place(credential.auto_id)
        found = await _found(client, credential.auto_id, now)
        if found is not None and found.says_the_same(record) and found.valid_until - time >= half:
            return None
        slot = making.Slot.at(client.log_key.name, now, place)
        try:
            return await client.submit(making.service(credential, slot, service))
        except EntryRefused as refusal:
            # Another process of this agent may have been faster, with the same record.
            if refusal.fault is not Fault.STALE or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returned or raised")


async def _found(client: RegistryClient, auto_id: AutoId, now: datetime) -> ServiceRecord | None:
    with suppress(NotFound):
        return await find_record(client, auto_id, now=now)
    return None


@final
class RegistryFinder:
    """Finds agents by what they have published in a registry: `agent.finder = RegistryFinder(contact, log_key)`.

    It dials the registry for every question. That registry learns who is looked for, and from which address.

    Args:
        contact: of the agent that serves the registry.
        log_key: of its log, known from elsewhere.
        allow: networks that a record may send us to besides the public Internet: see `addresses.Allowed`.
        max_age: how old the registry's word may be, in seconds or as a timedelta; at most `limits.STATUS_AGE`.
        dialer: who dials the registry; None for a throw-away identity.
        clock: the wall clock, for tests.
        resolver: finds what a name stands for, for tests.

    Attributes:
        reader: the agent that dials the registry.

    Raises:
        UsageError, IdentityError: an argument is not what it must be.
    """

    def __init__(
        self, contact: str, log_key: VerifierKey | str, *, allow: Iterable[str] = (),
        max_age: timedelta | float = limits.STATUS_LIFETIME, dialer: Credential | None = None,
        clock: Callable[[], datetime] | None = None, resolver: Resolver = resolve,
    ) -> None:  # fmt: skip
        self._contact, self._resolver, self._max_age = contact, resolver, seconds_given(max_age)
        self._log_key = key_given(log_key)
        self._allowed = Allowed(allow)
        self._newest = Newest()
        self._seen: Checkpoint | None = None
        self._clock = clock or _now
        self.reader = reader(contact, dialer, clock=clock)

    async def record(self, auto_id: AutoId) -> ServiceRecord:
        """The newest service record of an ID, proved: where it says that it is, and what it offers.

        Raises:
            UsageError: `auto_id` is no AutoId, such as its digits.
            NotFound: as `find_record`, and where the ID is not on record.
            AutolinkError, TimeoutError: as `find_record`, and as `Agent.connect` to the registry; a note names it.
        """
        auto_id_given(auto_id)  # before anybody is asked
        try:
            async with self.reader.connect(self._contact) as link:
                client = RegistryClient(link, self._log_key, seen=self._seen)
                seen = await client.catch_up()
                if self._seen is None or seen.size > self._seen.size:  # another question may have been faster
                    self._seen = seen
                with _on_record(client, auto_id):
                    return await find_record(
                        client, auto_id, now=self._clock(), max_age=self._max_age, newest=self._newest
                    )
        except (AutolinkError, OSError) as error:
            error.add_note(f"registry {Contact.parse(self._contact).address}")
            raise

    async def __call__(self, auto_id: AutoId) -> Sequence[Address]:
        """The addresses of an ID that may be dialled: numeric, judged, and not resolved again.

        Raises:
            NotFound: it has none.
            AutolinkError, TimeoutError: as `record`.
        """
        found: list[Address] = []
        refused: list[str] = []
        for address in (await self.record(auto_id)).addresses:
            try:
                found += await self._allowed.resolve(address, self._resolver)
            except NotAllowed as error:
                refused.append(f"{address} is not dialled: {error}")
            except OSError as error:
                refused.append(f"{address}: {error}")
        if not found:
            raise NotFound(f"{auto_id.short} has no address for us: " + "; ".join(refused))
        return list(dict.fromkeys(found))[: limits.ADDRESSES]


@contextmanager
def _on_record(client: RegistryClient, auto_id: AutoId) -> Iterator[None]:
    """For the block: a registry's answer that it does not know an ID, in words for who does not know that it was asked."""
    try:
        yield
    except CallError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        text = f"{auto_id.short} is not on record in {display(client.log_key.name)}"
        raise NotFound(text) from error


def _now() -> datetime:
    return datetime.now(UTC)
