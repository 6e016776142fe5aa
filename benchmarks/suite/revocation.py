"""`revocation`: how soon a live link ends once its peer is revoked, while many listen to the registry's feed.

Three processes: the registry, on a core of its own; some agents that follow its feed, and hold links from agents on record;
and a crowd that follows the feed, too, each over a link of its own. In real life the crowd is on as many other machines: so
it has the lowest priority on the core that it shares with the holders, and none of its work is left out.

One agent after the other is revoked, each when everybody has heard of the one before. The time is from the call that
submits the entry to the later end's word that the link is closed: the log's judgement, the disk and the feed are in it.
"""

import os
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from autolink import Agent, Call, Credential, LinkLost
from autolink.cli.serving import collecting_rarely
from autolink.registry import (
    Invited,
    Rate,
    Registered,
    Registrar,
    RegistryClient,
    RegistryService,
    SqliteStore,
    VerifierKey,
    making,
)
from autolink.registry.answers import Place as OnRecord
from autolink.registry.client import show
from autolink.registry.feed import Change
from autolink.trust import SelfCertified
from benchmarks import identities, logs
from benchmarks.harness import Bench
from benchmarks.measuring import PERCENTILES, percentiles_us
from benchmarks.process import Place
from benchmarks.processes import Worker, cores
from benchmarks.result import Result
from benchmarks.stacks import OURS, STACKS, autolink_stack
from benchmarks.stacks.base import Stack
from benchmarks.suite.holding import bearable

LOG_KEY: Final = VerifierKey.of(logs.ORIGIN, logs.KEY.public_key())
OPENING: Final = 16
"""Links that are opened at once."""
HOLDERS: Final = 20
"""Agents that hold the links that end: each is told at another time."""


# --- the registry's process ----------------------------------------------------------------------------------


async def serve(_stack: Stack, place: Place, *, name: str) -> str:
    """Serve an empty registry, to which the run's organisation is invited; returns its contact."""
    contact: str = await place.background.start(
        _serve, place.folder / name, identities.load(place.folder, "root")
    )
    return contact


async def _serve(folder: Path, root: Credential, *, task_status: TaskStatus[str]) -> None:
    SqliteStore.create(folder, logs.ORIGIN)
    with SqliteStore(folder) as store, collecting_rarely():  # as `autolink registry serve` does
        registrar = Registrar(store, logs.KEY, lambda: time.time_ns() // 1000)
        unhurried = Rate(time.monotonic, each_minute=1e6, burst=1_000_000)
        service = RegistryService(store, registrar, Invited(unhurried, [root.auto_id]))
        agent = Agent(Credential.self_issued("registry"), trust=SelfCertified(), handlers=service.handlers)
        async with service.running(agent), agent.listening("127.0.0.1:0") as listener:
            task_status.started(str(listener.contact))
            await anyio.sleep_forever()


# --- the crowd's, and the holders' ---------------------------------------------------------------------------


class _Feed:
    """Subscribers of the feed in this process, each over a link of its own.

    Attributes:
        models: one for each, which heeds what it hears.
        client: of one of these links.
    """

    def __init__(self, subscribers: int) -> None:
        self.models = [Registered(LOG_KEY) for _ in range(subscribers)]
        self.client: RegistryClient
        self._reader = Agent(Credential.self_issued("reader"), trust=SelfCertified(), resume=False)
        self._heard = 0
        self._more = anyio.Event()

    async def subscribe(self, contact: str, background: TaskGroup) -> None:
        room = anyio.CapacityLimiter(OPENING)

        async def one(model: Registered) -> None:
            async with room:
                self.client = await background.start(self._follow, model, contact)

        async with anyio.create_task_group() as tasks:
            for model in self.models:
                tasks.start_soon(one, model)

    async def _follow(
        self, model: Registered, contact: str, *, task_status: TaskStatus[RegistryClient]
    ) -> None:
        def heed(change: Change) -> None:
            model.heed(change)
            self._heard += 1
            if self._heard % len(self.models) == 0:
                self._more.set()
                self._more = anyio.Event()

        async with self._reader.connect(contact) as link:
            client = RegistryClient(link, LOG_KEY)
            task_status.started(client)
            await client.follow(heed)

    async def heard(self, changes: int) -> None:
        """Wait until everybody has heard of so many changes."""
        while self._heard < changes * len(self.models):
            await self._more.wait()


_feed: _Feed
_links: list["_Link"] = []


async def crowd(_stack: Stack, place: Place, *, contact: str, subscribers: int) -> None:
    """Be so many subscribers, in the background."""
    global _feed
    os.nice(19)
    _feed = _Feed(subscribers)
    await _feed.subscribe(contact, place.background)


async def heard(_stack: Stack, _place: Place, *, changes: int) -> float:
    """When everybody in this process had heard of so many changes, by the clock that all processes share."""
    await _feed.heard(changes)
    return time.monotonic()


async def hold(_stack: Stack, place: Place, *, contact: str, holders: int, links: int) -> None:
    """Be so many subscribers, each with an agent that believes it, and open so many links to them."""
    global _feed
    _feed = _Feed(holders)
    await _feed.subscribe(contact, place.background)
    await place.background.start(_as_served)
    root = identities.load(place.folder, "root")
    await _feed.client.submit(making.register(root, _slot()))
    for number in range(links):
        link = _Link(place.folder, root, _feed.models[number % holders], number)
        await place.background.start(link.open)
        _links.append(link)


async def _as_served(*, task_status: TaskStatus[None]) -> None:
    """What `autolink run` does for a process of many links."""
    with collecting_rarely():
        task_status.started()
        await anyio.sleep_forever()


async def revoke(_stack: Stack, place: Place, *, number: int) -> tuple[float, float]:
    """When the revocation of the caller of this link was submitted, and when the link was closed."""
    link, client = _links[number], _feed.client
    slot = _slot(await client.place(link.caller.auto_id))
    entry = making.revoke(link.caller.auto_id, slot, by=identities.load(place.folder, "root"))
    began = time.monotonic()
    await client.submit(entry)
    await link.closed.wait()
    return began, max(link.ends)


class _Link:
    """A link from an agent on record to one that believes whom the registry calls active.

    Attributes:
        ends: when each end has said that it is closed.
    """

    def __init__(self, folder: Path, root: Credential, model: Registered, number: int) -> None:
        trust = autolink_stack.trust(folder)
        self.caller = Agent(identities.issued(root, f"caller-{number}"), trust=trust)
        self.ends: list[float] = []
        self.closed = anyio.Event()
        self._root = root
        self._holder = Agent(identities.issued(root, f"holder-{number}"), trust=trust & model)

    async def open(self, *, task_status: TaskStatus[None]) -> None:
        """Register the caller, dial, and stay until both ends are closed."""
        entry = making.register(self.caller.credential, _slot(), next_key=bytes(32))
        await _feed.client.submit(making.countersign(entry, self._root))
        show(self.caller, await _feed.client.status(self.caller.auto_id))
        handlers = self._holder.handlers

        @handlers.method
        async def stay(_call: Call, _body: None) -> None:
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._end()

        async with self._holder.listening("127.0.0.1:0") as listener:
            with suppress(LinkLost):
                async with self.caller.connect(listener.contact) as link:
                    await link.call("stay", None)
            self._end()
            await self.closed.wait()

    def _end(self) -> None:
        self.ends.append(time.monotonic())
        if len(self.ends) == 2:
            self.closed.set()


def _slot(place: OnRecord | None = None) -> making.Slot:
    return making.Slot.at(logs.ORIGIN, datetime.now(UTC), place)


# --- arrangement ---------------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    sizes = bearable(bench, bench.budget.subscribers)
    bench.progress.expect(2 * len(sizes))
    for subscribers in sizes:
        _measure(bench, subscribers)


def _measure(bench: Bench, subscribers: int) -> None:
    times, progress = bench.budget.revocations, bench.progress
    holders = min(HOLDERS, subscribers // 2)
    here, there = cores()
    with ExitStack() as running:

        def start(core: str) -> Worker:
            worker = Worker(STACKS[OURS], bench.folder, core)
            running.callback(worker.end)
            return worker

        registry, holding, crowding = start(there), start(here), start(here)
        progress.slot(f"revocation · gathering {subscribers:,} subscribers")
        contact = registry.do(serve, 1, name=f"feed-{subscribers}")
        crowding.do(crowd, subscribers / 50, contact=contact, subscribers=subscribers - holders)
        holding.do(hold, times / 20, contact=contact, holders=holders, links=1 + times)
        progress.slot(f"revocation · {times} revocations before {subscribers:,} subscribers")
        closed, last = [], []
        for number in range(1 + times):
            began, ended = holding.do(revoke, 1, number=number)
            told = [worker.do(heard, 1, changes=1 + number) for worker in (holding, crowding)]
            if number:  # the first one finds some who do not listen yet
                closed.append(ended - began)
                last.append(max(told) - began)
    for metric, seconds in (("ms until the link is closed", closed), ("ms until the last has heard", last)):
        found = percentiles_us(seconds)
        p50, p99 = found[PERCENTILES.index(50)], found[-1]
        bench.result(
            Result("revocation", OURS, metric, p50 / 1000, p50, p99, params={"subscribers": subscribers})
        )
