"""An agent that keeps up with a registry: it shows its newest status, and hears of every change.

One task dials the registry, again and again where it must, with back-off. While there is a link, the agent's status is
fetched every `limits.STATUS_REFRESH` seconds, and at once when the feed tells a change of the agent or of one above it;
every change is heeded by the agent's `Registered` models. A registry that is down costs nothing before the status has
aged: it is logged, and what was shown is still shown, after a restart too where it is kept in a file.

A status of another time than about now is not taken: the registry withholds what is newer, or a clock is wrong, ours
perhaps. It is kept as evidence, what was shown is still shown, and the next one that is of now is taken.

A status fits one certificate. While the registry has another one on record than ours, a status of ours that fits goes on
being shown, and the registry, whose feed tells no renewals, is asked again every few seconds.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import anyio
from anyio import to_thread

from autolink import limits
from autolink.agent.agent import Agent
from autolink.agent.groups import background_tasks
from autolink.agent.kept import back_off
from autolink.errors import (
    AutolinkError,
    BadSignature,
    CallError,
    Code,
    IdentityError,
    RemoteProtocolError,
    UsageError,
    display,
)
from autolink.identity import Certificate, Credential, files
from autolink.messages import instant, microseconds
from autolink.registry.client import RegistryClient, beside, reader, show
from autolink.registry.discovery import publish
from autolink.registry.evidence import against, both, evident_in, keep_evidence
from autolink.registry.feed import Change
from autolink.registry.log.checkpoint import Checkpoint
from autolink.registry.log.note import VerifierKey, key_given
from autolink.registry.records import SECOND, State
from autolink.registry.service_record import describe
from autolink.registry.status import Newest, Status, VerifiedStatus, check_young, verify_untrusted
from autolink.registry.submitter import promise_in
from autolink.registry.trust import Registered, models_in

_SOON: Final = 5.0
"""Seconds until the registry is asked again whether our certificate is on record: somebody is about to put it there."""

_PATIENCE: Final = limits.INCLUSION
"""Seconds for what a registry answers in milliseconds: one that is silent is dialled again."""

_REFUSED: Final = "whoever goes by it refuses us and ends our links"
_NOT_ACTIVE: Final = {
    State.REVOKED: f"{_REFUSED}, until we serve with another key of this ID (`autolink id rotate`, or else `id recover`)",
    State.RECOVERING: f"{_REFUSED}, until another key takes over; if that is a thief's, `autolink id rotate` ends it",
    State.DEACTIVATED: f"{_REFUSED}, for good: serve as another identity",
}
"""What that means for us, and what its owner can do. We go on serving all the same: others do not go by it, and what brings
an ID back, a rotation in our keystore, is taken up without a restart."""

_log: Final = logging.getLogger("autolink")


@asynccontextmanager
async def registered(
    agent: Agent, contact: str, log_key: VerifierKey | str, model: Registered | None = None, *,
    dialer: Credential | None = None, kept: Path | None = None, addresses: Sequence[str] = (),
    evidence: Path | None = None,
) -> AsyncIterator["Registration"]:  # fmt: skip
    """Have an agent show its status in a registry and heed its changes, for the block.

    The block begins when the first attempt has succeeded or failed. No failure of the registry's is raised.

    Args:
        agent: on record there, or about to be.
        contact: of the agent that serves the registry.
        log_key: of its log, known from elsewhere; as `VerifierKey` or its text form.
        model: heeds the changes, as does every `Registered` of this log in the agent's trust model of the moment; for one
            that cannot be found there, because another model asks it.
        dialer: who dials the registry; None for a throw-away identity.
        kept: a file for the newest status, which is shown from there at the next start; the log must go on from it.
        addresses: where the agent is to be found: with its methods and channels they are published as its service record,
            now, when its handlers have changed, and before that record ends. Empty: nothing is published.
        evidence: a folder for what shows that the registry lies, a few times in a run; and for receipts, with their entries
            (`submitter.promise_in`), of what it did not take: whether that convicts it, only the log's entries show.

    Raises:
        UsageError, IdentityError: the agent, the contact or the key is none, or there can be no such service record.
    """
    if not isinstance(agent, Agent):
        raise UsageError("registered() keeps an Agent up, and needs one")
    log_key = key_given(log_key)
    dialing = reader(contact, dialer, clock=agent.clock)
    dialing.reach = agent.reach
    if addresses:
        describe(agent.handlers, addresses, now=agent.clock())
    registration = Registration(agent, log_key, model, kept, addresses, evidence)
    await registration.show_kept()
    async with background_tasks() as tasks:
        tasks.start_soon(registration.keep_up, dialing, contact)
        with anyio.move_on_after(limits.OPENING):
            await registration.tried.wait()
        yield registration


@final
class Registration:
    """How an agent stands with a registry. Made by `registered`.

    Attributes:
        status: the newest one that the agent shows; None before the first.
        error: why the last attempt at something failed; None after one that did not.
        tried: set when there was a first one.
    """

    def __init__(
        self, agent: Agent, log_key: VerifierKey, model: Registered | None, kept: Path | None,
        addresses: Sequence[str] = (), evidence: Path | None = None,
    ) -> None:  # fmt: skip
        self._agent, self._log_key, self._model, self._kept = agent, log_key, model, kept
        self._addresses = addresses
        self._evidence, self._pieces = evidence, Counter[str]()
        self._seen: Checkpoint | None = None
        self._newest = Newest()
        self._heard: int | None = None
        self._told: Change | None = None  # of the farthest place
        self._again = anyio.Event()
        self._renewed: Credential | None = None
        self._settled = True
        self._logged: State | None = None
        self.status: VerifiedStatus | None = None
        self.error: Exception | None = None
        self.tried = anyio.Event()

    @property
    def missing(self) -> str:
        """What peers that go by the registry miss of us, in words; empty if nothing is known to be missing."""
        status = None if self.status is None else self.status.status
        if status is None or status.expires_at < microseconds(self._agent.clock()):
            return f"{self._shown()}: {self._what(self.error)}"
        if status.state is not State.ACTIVE:
            return f"we are {status.state} there"
        current = status.certificate == self._agent.credential.leaf.fingerprint
        return "" if current else "our certificate is not the one on record there (autolink id renew NAME)"

    def refresh(self) -> None:
        """Fetch a new status soon, such as after the agent's credential was replaced and its renewal is on record."""
        self._again.set()

    def go_on_with(self, credential: Credential) -> None:
        """Have the agent use another credential of its Auto ID as soon as that is on record, with a status that fits it.

        Until then it goes on with the one it has, for as long as that one and its status are good.

        Raises:
            UsageError: it is another Auto ID's.
        """
        if credential.peer_id != self._agent.peer_id:
            raise UsageError(
                "a credential is replaced by one of the same Auto ID; another ID is another agent"
            )
        self._renewed = credential
        self._wait_no_longer_than_we_stand()
        self.refresh()

    def _wait_no_longer_than_we_stand(self) -> None:
        if self._renewed and not self._stands():
            self._take_over(self._renewed)

    def _stands(self) -> bool:
        """Whether our peers may still believe us by the certificate and the status that we show."""
        if self.status is None:
            return False
        shown, chain, now = self.status.status, self._agent.credential.chain, self._agent.clock()
        return (
            shown.state is State.ACTIVE
            and _fits(shown, chain[0])
            and microseconds(now) <= shown.expires_at
            and now <= min(certificate.not_after for certificate in chain)
        )

    def _take_over(self, renewed: Credential, evidence: Sequence[bytes] | None = None) -> None:
        self._renewed = None
        self._agent.replace_credential(renewed, evidence=evidence)
        _log.info("we go on with another certificate, which ends %s UTC", f"{renewed.leaf.not_after:%F %T}")

    async def show_kept(self) -> None:
        """Show the status of the last time, if there is one and it may still be believed."""
        if self._kept is None:
            return
        try:
            data = await to_thread.run_sync(files.read_bounded, self._kept, limits.STATUS)
            verified = verify_untrusted(data, self._log_key)
        except FileNotFoundError:
            return
        except (IdentityError, OSError, BadSignature, RemoteProtocolError) as error:
            _log.warning("the status in %s is not used: %s", display(str(self._kept)), error)
            return
        if verified.status.auto_id == self._agent.auto_id:
            self.status, self._seen = verified, verified.checkpoint
            self._newest.check(verified)
            show(self._agent, verified)

    async def keep_up(self, dialing: Agent, contact: str) -> None:
        """Dial, staple and follow, until cancelled."""
        failures = 0
        while True:
            began = anyio.current_time()
            try:
                async with dialing.connect(contact) as link:
                    await self._use(RegistryClient(link, self._log_key, seen=self._seen))
            except (AutolinkError, TimeoutError, OSError) as error:
                await self._failed(error)
            failures = 0 if anyio.current_time() - began >= limits.RETRY_MAX else failures + 1
            await anyio.sleep(back_off(max(1, failures)))

    async def _use(self, client: RegistryClient) -> None:
        """One link: raises when it is of no use any more."""
        with anyio.fail_after(_PATIENCE):
            self._seen = await client.catch_up()
            self._check_told(self._seen)
            if self._heard is None:  # changes from before any status that is still believed say nothing new
                oldest = microseconds(self._agent.clock()) - int((limits.STATUS_AGE + limits.SKEW) * SECOND)
                self._heard = await client.first_since(oldest)
        try:
            async with background_tasks() as tasks:
                tasks.start_soon(self._renew, client)
                await client.follow(self._heed, since=self._heard)
        finally:
            self._heard = max(self._heard, client.heard)

    def _check_told(self, newest: Checkpoint) -> None:
        """A change of an entry that there is not would have all up to there count as heard."""
        told = self._told
        if told is not None and told.index >= newest.size:
            self._told = self._heard = None  # the next link begins anew
            with against(both(told.to_bytes(), newest.note)):
                raise BadSignature(
                    f"the registry has told a change of entry {told.index}, and has {newest.size}"
                )

    async def _renew(self, client: RegistryClient) -> None:
        while True:
            self._again = anyio.Event()
            wait = limits.RETRY_MAX
            try:
                status = await self._staple(client)
                if self._addresses and self._speaks(status) and await self._publish(client):
                    await self._staple(client)
                wait = limits.STATUS_REFRESH if self._settled else _SOON
            except (AutolinkError, TimeoutError) as error:  # what is wrong with the link, `follow` raises
                await self._failed(error)
            with anyio.move_on_after(wait):
                await self._again.wait()

    async def _staple(self, client: RegistryClient) -> Status:
        with anyio.fail_after(_PATIENCE):
            await client.catch_up()
            verified = await client.status(self._agent.auto_id)
            self._seen = client.seen
        with against(verified.status.to_bytes()):
            check_young(verified.status, self._agent.clock(), limits.STATUS_LIFETIME)
            self._newest.check(verified)
        trouble, self.error = self.error, None
        shown = self._show_if_it_fits(verified)
        if trouble is not None:  # who was warned of it is told of its end
            _log.warning("the registry %s answers again; %s", display(self._log_key.name), self._shown())
        if shown:
            await self._keep_status(verified.status)
        self.tried.set()
        return verified.status

    def _show_if_it_fits(self, verified: VerifiedStatus) -> bool:
        """Show a status, unless it fits another certificate than ours and the shown one fits; whether it is shown now."""
        status, before = verified.status, self.status
        if self._renewed and _fits(status, self._renewed.leaf):
            self._take_over(self._renewed, beside(self._agent, verified))
        self._wait_no_longer_than_we_stand()
        ours = self._agent.credential.leaf
        others = status.state is State.ACTIVE and not _fits(status, ours)
        settled = not others and not self._renewed
        if self._settled and not settled:
            _log.warning("the registry %s has another %s", display(status.origin), _what_else(status, ours))
        elif settled and not self._settled and _fits(status, ours):
            _log.warning("the registry %s has the certificate that we use", display(status.origin))
        self._settled = settled
        if others and before is not None and _fits(before.status, ours):
            return False
        show(self._agent, verified)
        self.status = verified
        if self._logged is not status.state:
            # What it was before was told as an error: so is the end of that told without -v.
            well = _log.info if self._logged is None else _log.warning
            self._logged = status.state
            say = well if status.state is State.ACTIVE else _log.error
            say("the registry %s says that we are %s%s", display(status.origin), status.state, _means(status))
        return True

    async def _keep_status(self, status: Status) -> None:
        if self._kept is not None:
            try:
                await to_thread.run_sync(files.write_atomic, str(self._kept), status.to_bytes())
            except OSError as error:
                _log.warning("our status cannot be kept for the next start: %s", error)

    def _speaks(self, status: Status) -> bool:
        """The log goes by our key: of one that was rotated away it takes no word, and a receipt for it would look like
        evidence."""
        return status.state is State.ACTIVE and status.key == self._agent.credential.leaf.spki_sha256

    async def _publish(self, client: RegistryClient) -> bool:
        """Have where we are and what we offer on record; whether it was not."""
        agent = self._agent
        now = agent.clock()
        with anyio.fail_after(2 * _PATIENCE):  # once it is promised, the registry has that long
            record = describe(agent.handlers, self._addresses, now=now)
            published = await publish(client, agent.credential, record, now=now)
        if published is not None:
            _log.info("our service record is on record in %s", display(self._log_key.name))
        return published is not None

    def _heed(self, change: Change) -> None:
        if self._told is None or change.index > self._told.index:
            self._told = change
        given = () if self._model is None else (self._model,)
        for model in dict.fromkeys((*given, *models_in(self._agent.trust, self._log_key))):
            model.heed(change)
        if any(certificate.auto_id == change.auto_id for certificate in self._agent.credential.chain):
            self.refresh()

    async def _failed(self, error: Exception) -> None:
        say = _log.warning if type(error) is not type(self.error) else _log.info  # the first of a row
        self.error = error
        self._wait_no_longer_than_we_stand()
        say("registry %s: %s; %s", display(self._log_key.name), self._what(error), self._shown())
        if (evident := evident_in(error)) is not None:
            await self._keep(
                "what shows that the registry lies", evident.what, evident.evidence, str(evident)
            )
        elif promise := promise_in(error):
            await self._keep("what the registry has promised and not shown", "promise", promise, str(error))
        self.tried.set()

    def _what(self, error: Exception | None) -> str:
        if isinstance(error, CallError) and error.code is Code.NOT_FOUND:
            return f"{self._agent.auto_id} is not on record there (autolink id register NAME)"
        return str(error or "") or "it took too long"

    def _shown(self) -> str:
        if self.status is None:
            return "we have no status to show"
        if self.status.status.state is not State.ACTIVE:
            return f"by the status that we show we are {self.status.status.state}"
        now, until = microseconds(self._agent.clock()), self.status.status.expires_at
        return f"our status {'is' if now <= until else 'was'} good until {instant(until):%F %T} UTC"

    async def _keep(self, it: str, what: str, evidence: bytes, text: str) -> None:
        """Not as often as the registry likes, because the disk is ours; each kind of its own, or it could fill up the room
        for a lie with promises of which it is right that it did not keep them."""
        if self._evidence is None or self._pieces[it] == limits.EVIDENCE_PIECES:
            return
        self._pieces[it] += 1
        try:
            path = await to_thread.run_sync(keep_evidence, self._evidence, what, evidence, text)
        except OSError as error:
            _log.error("%s cannot be kept: %s", it, error)
        else:
            _log.error("%s is in %s", it, display(str(path)))


def _fits(status: Status, certificate: Certificate) -> bool:
    """Whether whoever shows this certificate may be believed by this status."""
    return status.certificate == certificate.fingerprint


def _means(status: Status) -> str:
    """What follows from a state, as the end of a sentence."""
    if status.state is State.ACTIVE:
        return ""
    if status.because != status.auto_id:
        return f", because of {status.because}, above us: {_REFUSED}, until that one is active again"
    return f": {_NOT_ACTIVE[status.state]}"


def _what_else(status: Status, ours: Certificate) -> str:
    """What is on record of us that we do not use, and how that is mended."""
    if status.key != ours.spki_sha256:
        return f"key of ours on record: {_REFUSED}, until we serve with that one, which is where it was rotated or recovered"
    renew, accept = "`autolink id renew` puts a newer one there", "`autolink id accept` has us use it"
    return f"certificate of ours on record: {renew}, and {accept}"
