"""Trust on first use, as ssh has it, for peers that a person dialled.

It learns only when *we* dial, an address that a person gave: there the person's word stands behind the
address. Whoever dials us chose the moment and the name, so an inbound stranger would merely be squatting; a
person may accept one by name (`accept`). What is remembered is the AutoId with its authority: `bound`, or
the key of its self-issued root. From then on this model is authoritative for that id, and another key is a
loud contradiction.

Theory of the file. One line per agent, the PeerId and a name for people:

    # autolink known agents
    <64 hex>?key=sha256:<64 hex> echo

Every process that uses the file reads it again when it has changed. A change is made under an exclusive
lock on ``<file>.lock`` (the file itself is replaced, so a lock on it would be a lock on the past), from the
content read under that lock, and written whole under a new name that then takes the place. Links are not
followed, and a file that others could have written is refused: its content is whom we trust.
"""

import fcntl
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Literal, final

import anyio.to_thread

from autolink import limits
from autolink.errors import KeystoreError, UsageError, display
from autolink.identity import files
from autolink.identity.autoid import BOUND, AutoId, PeerId, key_authority
from autolink.identity.names import show_name
from autolink.trust.model import Context, Contradicted, Grounds, Model, NotVouched
from autolink.trust.presented import Presented

_HEADER: Final = "# autolink known agents\n"
_LINE: Final = 512
"""Bytes of a line: a PeerId has 141, a shown name at most 200 characters."""
_LOCK_WAIT: Final = 5.0
"""Seconds to wait for another process that holds the lock: it only ever writes one small file under it."""

Agents = dict[AutoId, tuple[PeerId, str]]
Ask = Callable[[Presented, Context], Awaitable[bool]]


@final
class KnownAgents(Model):
    """Believes the agents in a file, and learns new ones as `on_first` says.

    Args:
        path: the file; absent means empty, and it is made at the first learning.
        on_first: what happens with an unknown agent when a person's address was dialled: ``"refuse"`` it,
            ``"accept"`` and remember it, or ``"ask"``. There is no default.
        ask: for ``"ask"``: shows the presented chain to a person and returns their answer.

    Raises:
        UsageError: `ask` is missing, or given and never used; or `on_first` is none of the three.
        KeystoreError: the file is malformed, too large, a link, or writable by others.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_first: Literal["refuse", "ask", "accept"],
        *,
        ask: Ask | None = None,
    ) -> None:
        if on_first not in ("refuse", "ask", "accept"):
            raise UsageError("on_first is 'refuse', 'ask' or 'accept'")
        if (on_first == "ask") != (ask is not None):
            raise UsageError("ask= is the question that on_first='ask' needs, and only that")
        self._path = Path(path)
        self._shown = display(str(self._path))
        self._on_first = on_first
        self._ask = ask
        self._stamp: tuple[int, ...] | None = None
        self._agents: Agents = {}
        self._refresh()

    @property
    def epoch(self) -> int:
        """Also counts what other processes did to the file."""
        self._refresh()
        return self._changes

    @property
    def agents(self) -> dict[PeerId, str]:
        """Who is known, and the name each had when it was learned (safe to show)."""
        self._refresh()
        return dict(self._agents.values())

    async def verify(self, presented: Presented, context: Context) -> Grounds:
        self._refresh()
        if presented.auto_id is None:
            raise NotVouched("the chain stops before its self-issued root: nobody to remember")
        name = show_name(presented.name)
        known = None
        for auto_id, shown in zip(presented.ids, presented.names, strict=True):
            # Also its issuers, root first.
            known = self._agents.get(auto_id)
            if known and presented.denies(known[0]):
                raise Contradicted(
                    f"THE KEY OF {show_name(shown)} HAS CHANGED: somebody may be impersonating it. If its owner "
                    f"says that the new key is right, forget {auto_id} in {self._shown} and dial again"
                )
        if known:
            return Grounds("KnownAgents", f"known as {known[1]}", authority=known[0].authority)
        if presented.succeeds_in is not None:
            raise NotVouched(f"{name} was recovered: a registry's word is needed each time, and not learned")
        if context.direction != "outbound" or not context.given_by_person or self._on_first == "refuse":
            raise NotVouched(
                f"{name} is not known; if a person vouches for it, accept it by its id {seen(presented)}"
            )

        async def learn() -> None:
            if self._ask and not await self._ask(presented, context):
                raise NotVouched(f"{name} was not accepted")
            # It waits for a lock and the disk, and is not abandoned half-way when cancelled.
            await anyio.to_thread.run_sync(self._add, seen(presented), name)
            self._changed()

        return Grounds(
            "KnownAgents", f"first use of {name}, dialled at {context.address}", once_accepted=learn
        )

    def accept(self, peer_id: PeerId, name: str = "") -> None:
        """Remember an agent on a person's word.

        Raises:
            UsageError: it is a key principal, or known under another authority (forget that first).
            KeystoreError: the file is full, unreadable, or locked for too long.
            OSError: it cannot be written.
        """
        self._add(peer_id, name)
        self._changed()

    def forget(self, auto_id: AutoId) -> bool:
        """Forget an agent; whether it was known. Live links that rested on it are judged again.

        Raises:
            KeystoreError, OSError: as for `accept`.
        """
        with self._locked():
            if auto_id not in self._agents:
                return False
            self._write({known: agent for known, agent in self._agents.items() if known != auto_id})
        self._changed()
        return True

    def _add(self, peer_id: PeerId, name: str) -> None:
        if peer_id.auto_id is None:
            raise UsageError("a key principal has no name to be known by: pin it")
        with self._locked():
            known = self._agents.get(peer_id.auto_id)
            if known and known[0] != peer_id:  # learned by another process since we looked
                raise UsageError(f"{peer_id.auto_id} is known under {known[0].authority}: forget that first")
            if len(self._agents) >= limits.KNOWN_AGENTS:
                raise KeystoreError(f"{self._shown} is full: forget somebody first")
            self._write({**self._agents, peer_id.auto_id: (peer_id, display(name))})

    def _refresh(self) -> None:
        """Read the file if it is not the one read last."""
        try:
            stamp = _stamp_of(self._path.lstat())
        except FileNotFoundError:
            stamp = None
        if stamp == self._stamp:
            return
        self._agents = {} if stamp is None else _parse(self._path)
        self._stamp = stamp
        self._changes += 1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, with the newest content read."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(f"{self._path}.lock", flags, 0o600)
        try:
            until = monotonic() + _LOCK_WAIT
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() > until:
                        raise KeystoreError(f"another process keeps {self._shown} locked") from None
                    sleep(0.01)
            self._refresh()
            yield
        finally:
            os.close(lock)

    def _write(self, agents: Agents) -> None:
        lines = sorted(f"{peer_id} {name}\n" for peer_id, name in agents.values())
        files.write_atomic(os.fspath(self._path), (_HEADER + "".join(lines)).encode())
        self._agents, self._stamp = agents, _stamp_of(self._path.lstat())

    def __repr__(self) -> str:
        return f"KnownAgents({self._shown!r}, on_first={self._on_first!r})"


def seen(presented: Presented) -> PeerId:
    """What of a complete path is remembered: its AutoId with `bound` or its root's key."""
    authority = BOUND if presented.bound else key_authority(presented.root.spki_sha256)
    return PeerId(presented.auto_id, authority)


def _stamp_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _parse(path: Path) -> Agents:
    shown = display(str(path))
    agents: Agents = {}
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        text, _, name = line.partition(" ")
        try:
            peer_id = PeerId.parse(text)
        except ValueError as error:
            raise KeystoreError(f"{shown}, line {number}: {error}") from None
        if peer_id.auto_id is None or peer_id.auto_id in agents:
            raise KeystoreError(f"{shown}, line {number}: not an AutoId, or one that stands there already")
        agents[peer_id.auto_id] = peer_id, display(name)
    return agents


def _read(path: Path) -> str:
    """The whole file, if it is one that only we can have written."""
    shown = display(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeystoreError(f"{shown} cannot be opened (a link is not followed): {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise KeystoreError(f"{shown} must be a file of your own that nobody else can write: chmod 600")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(limits.KNOWN_AGENTS * _LINE + 1)
    finally:
        os.close(descriptor)
    if len(data) > limits.KNOWN_AGENTS * _LINE or data.count(b"\n") > limits.KNOWN_AGENTS + 100:
        raise KeystoreError(f"{shown} is larger than {limits.KNOWN_AGENTS} agents")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KeystoreError(f"{shown} is not UTF-8") from None
