"""The files that a served agent's identity and trust were read from, and how both are read again while it serves.

A file has changed when its inode, size or time of change differs (`Watch`); what it holds is found out by reading it. A
file that cannot be read, or holds something else than it must, changes nothing: the agent goes on with what it has.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import Final, final

import anyio
from anyio.to_thread import run_sync

from autolink import Agent, Credential, limits
from autolink.cli.edge import about, shown
from autolink.cli.serving import Order
from autolink.cli.trust_option import Spec, build, known_file
from autolink.errors import AutolinkError, UsageError
from autolink.identity import Keystore, environment_passphrase
from autolink.identity.keystore import CHAIN, KEY
from autolink.identity.rotation import split_chain
from autolink.trust import Model

_log: Final = logging.getLogger("autolink.cli")


class Change(Flag):
    """What has changed."""

    CREDENTIAL = auto()
    TRUST = auto()
    KNOWN = auto()  # the file of known agents, which needs no new TLS keys: it grows with each new one

    NOTHING = 0
    ALL = CREDENTIAL | TRUST | KNOWN


@final
class Watch:
    """Tells which of some files are others than at the last look. A file that is missing is a state too."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._stamps = {file: _stamp(file) for file in files}

    def changed(self) -> bool:
        """Whether one of them is."""
        before = self._stamps
        self._stamps = {file: _stamp(file) for file in before}
        return self._stamps != before


def _stamp(file: Path) -> tuple[int, ...] | str:
    try:
        found = os.stat(file)  # noqa: PTH116  as a number, for whatever is there
    except OSError as error:
        return error.strerror or "unreadable"
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do about a change.

    Attributes:
        take: do it in the supervisor. Raises AutolinkError or OSError, naming what it could not read; then nothing has
            changed.
        order: what to tell the workers after it.
        rolls: whether there must be new ones.
    """

    take: Callable[[], object]
    order: Order | None
    rolls: bool


@final
class Sources:
    """Where an agent's credential and trust come from.

    Args:
        agent: the credential is read again if it lies in a keystore.
        specs: of the command line, from which its trust model was built; none for a model of a module's own.

    Raises:
        UsageError: a spec names stdin, which cannot be read again.
    """

    def __init__(self, agent: Agent, specs: Sequence[Spec]) -> None:
        if any(spec.file == Path("-") for spec in specs):
            raise UsageError(
                "--workers reads the files of --trust again when they change: name a file, not -"
            )
        self._agent = agent
        self._specs = specs
        self._folder = folder = agent.credential.folder
        self._watches: Final = {
            Change.CREDENTIAL: Watch([folder / CHAIN, folder / KEY] if folder else []),
            Change.TRUST: Watch(spec.file for spec in specs if spec.file and spec.kind != "known"),
            Change.KNOWN: Watch(known_file(spec.file, folder) for spec in specs if spec.kind == "known"),
        }

    def changed(self) -> Change:
        """What has changed since the last look."""
        found = Change.NOTHING
        for change, watch in self._watches.items():
            if watch.changed():
                found |= change
        return found

    def steps(self, change: Change) -> list["Step"]:
        """What to do about a change: apart, because a bad file must not keep a good one from being heeded."""
        steps: list[Step] = []
        if change & Change.CREDENTIAL and self._folder is not None:
            steps.append(Step(self._take_credential, None, rolls=True))
        if change & Change.TRUST and self._specs:
            steps.append(Step(self._take_trust, Order.TRUST, rolls=True))
        if change & Change.KNOWN:
            steps.append(Step(self._read_known, Order.JUDGE, rolls=False))
        return steps

    async def read_trust(self) -> Model:
        """The trust model that the files say now, read in a thread.

        Raises:
            UsageError, IdentityError, OSError: as `trust_option.build`.
        """
        return await run_sync(self._trust)

    def _trust(self) -> Model:
        return build(self._specs, folder=self._folder)

    def _take_trust(self) -> None:
        self._agent.replace_trust(self._trust())

    def _read_known(self) -> None:
        """The model reads it by itself: here it is only said what is wrong with it. A module's own reads what it likes."""
        known = [spec for spec in self._specs if spec.kind == "known"]
        if known:
            build(known, folder=self._folder)

    def _take_credential(self) -> None:
        self._agent.replace_credential(credential_on_disk(self._agent.credential))


def credential_on_disk(own: Credential) -> Credential:
    """What the keystore has now where a credential came from.

    Raises:
        IdentityError, OSError: it cannot be read, with the identity named.
    """
    if own.folder is None:
        return own
    store, name = Keystore(own.folder.parent.parent), own.folder.name
    with about(f"identity {name}"):
        chain, rotations = split_chain(store.chain(name))
        if chain[0].spki == own.leaf.spki:  # as `autolink id accept` leaves it: the key is open already
            return Credential(chain, own.private_key, folder=own.folder, rotations=rotations)
        return store.load(name, passphrase=environment_passphrase())


async def follow_credential(agent: Agent, go_on_with: Callable[[Credential], None]) -> None:
    """Hand over every credential that takes the place of the agent's in the keystore, until cancelled; no trust is read."""
    sources, changed, newest = Sources(agent, []), True, agent.credential
    while True:
        if changed:
            try:
                found = await run_sync(credential_on_disk, newest)
                if found.certificates != newest.certificates:
                    go_on_with(found)
                    newest = found
            except (AutolinkError, OSError) as error:
                _log.error("%s; we go on with what we have", shown(error))
        await anyio.sleep(limits.WATCH)
        changed = bool(sources.changed())
