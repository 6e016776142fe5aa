"""`autolink run --workers N`: one address, served by N processes that the supervisor forks.

The supervisor builds the TLS contexts and listens; its workers inherit both. So a TLS ticket that one worker gave is good
with each of them (the keys of tickets live in the context and cannot be had otherwise), and a connection that nobody has
accepted waits in the one queue they share, whoever of them dies. It runs no event loop and no thread, because a fork
copies only the thread that forks: a lock that another one held would stay locked in the child for ever.

It is one loop that compares what is with what should be: `count` workers of the newest generation. Who dies is started
again, after a pause that grows while they die young. A new credential, trust set or ticket key is a new context and so a
new generation: its workers start, and once all of them are ready the older ones drain, so that at no moment nobody
accepts. Trust that has changed also reaches the older ones at once, over the socket between each worker and its supervisor:
they judge the peers of their live links again.

The supervisor learns of signals and of dead children by one descriptor (`signal.set_wakeup_fd`), and of workers by their
sockets; it sleeps in `poll` on all of these. Signals are blocked around a fork, so that none which a child gets is written
to its parent's descriptor; SIGTERM stays blocked until the child hears it, because before that it would kill and not drain.
A child never returns into the supervisor's code: it ends by `os._exit`, which leaves alone what the parent cleans up.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Final, NoReturn, final

from autolink import Agent, limits
from autolink.cli.edge import Status, shown
from autolink.cli.reload import Change, Sources
from autolink.cli.serving import Order
from autolink.errors import AutolinkError

_HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_NAMES: Final = {number.value: number.name for number in signal.Signals}

_log: Final = logging.getLogger("autolink.cli")


@final
class BackOff:
    """When the next worker may be started, after one that died.

    The pause doubles from `limits.RETRY` to `limits.RETRY_MAX` while workers die younger than that, and begins anew when one
    has lived longer. Those that were started together count as one.
    """

    def __init__(self) -> None:
        self.until = -inf
        self._failures = 0
        self._counted = -inf

    def died(self, started: float, now: float) -> float:
        """One that was started then has died now; returns the seconds to wait."""
        if now - started >= limits.RETRY_MAX:
            self._failures = 1
        elif started >= self._counted:
            self._failures += 1
            self._counted = now
        pause: float = min(limits.RETRY_MAX, limits.RETRY * 2 ** min(self._failures - 1, 30))
        self.until = now + pause
        return pause


@dataclass(eq=False)
class Worker:
    """A forked process that has not been reaped, so its id is nobody else's."""

    pid: int
    line: socket.socket
    generation: int
    started: float
    overdue: float
    ready: bool = False
    told: bool = False

    def tell(self, order: Order) -> None:
        """It may be dying, or blocked by a handler: what comes of that is seen elsewhere."""
        with suppress(OSError):
            self.line.send(bytes([order]))


@final
class Supervisor:
    """See the module.

    Args:
        agent: the one that the workers inherit.
        sources: of its credential and trust.
        work: what a worker does with the socket to its supervisor, in the child; returns its exit status.
        count: how many of them.
        patience: seconds for draining.
        announce: called when the first worker accepts links.
        stop_listening: called when they drain for good.
    """

    def __init__(
        self, agent: Agent, sources: Sources, work: Callable[[socket.socket], int], *, count: int, patience: float,
        announce: Callable[[], None], stop_listening: Callable[[], None],
    ) -> None:  # fmt: skip
        self._agent = agent
        self._sources = sources
        self._work = work
        self._count = count
        self._patience = patience
        self._announce: Callable[[], None] | None = announce
        self._stop_listening = stop_listening
        self._workers: list[Worker] = []
        self._generation = 0
        self._made_at = time.monotonic()
        self._back_off = BackOff()
        self._roll_due = False
        self._serving = True
        self._clean = True
        self._poll = selectors.PollSelector()  # unlike epoll it shares nothing with a forked child

    def run(self) -> bool:
        """Until told to stop and every worker has ended; whether all of them had drained."""
        with self._hearing_signals():
            self._reload(Change.ALL)  # what changed after it was first read and before `sources` watched
            self._roll_due = False
            while self._serving or self._workers:
                if self._serving:
                    self._look()
                    self._roll()
                    self._start_missing()
                self._kill_overdue()
                self._wait()
                self._reap()
        return self._clean

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """The handlers stay: whoever sends a signal after all has ended would only change the exit status."""
        self._heard, bell = socket.socketpair()
        with self._heard, bell:
            bell.setblocking(False)
            for number in _HEARD:
                signal.signal(number, lambda *_: None)
            signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
            self._poll.register(self._heard, selectors.EVENT_READ)
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                self._poll.close()

    # --- what should be ----------------------------------------------------------------------------------

    @property
    def _current(self) -> list[Worker]:
        return [one for one in self._workers if one.generation == self._generation]

    def _look(self) -> None:
        """Files, and the age of the ticket key."""
        self._reload(self._sources.changed())
        if time.monotonic() - self._made_at >= limits.TICKET_KEY - limits.WORKER_START:
            self._roll_due = True

    def _reload(self, change: Change) -> None:
        for step in self._sources.steps(change):
            try:
                step.take()
            except (AutolinkError, OSError) as error:
                _log.error("%s; the workers go on with what they have", shown(error))
                continue
            self._roll_due |= step.rolls
            if step.order is not None:
                for worker in self._workers:
                    worker.tell(step.order)

    def _roll(self) -> None:
        """Let the older generations drain once the newest one serves; begin another one if that is due."""
        if sum(one.ready for one in self._current) < self._count:
            return
        for worker in self._workers:
            if worker.generation < self._generation:
                self._retire(worker)
        if not self._roll_due or len(self._workers) > limits.OLD_WORKERS * self._count:
            return
        self._roll_due = False
        self._agent.renew_server_context()
        self._made_at = time.monotonic()
        self._generation += 1

    def _start_missing(self) -> None:
        while len(self._current) < self._count and time.monotonic() >= self._back_off.until:
            self._start()

    # --- one worker ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        line, supervisor = socket.socketpair()
        _flush()  # or the child would write it again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        now = time.monotonic()
        try:
            pid = os.fork()
            if pid == 0:
                line.close()
                self._become_worker(supervisor, mask)
        except OSError as error:
            pause = self._back_off.died(now, now)
            _log.error("no worker can be started: %s; again in %.1f s", error.strerror, pause)
            line.close()
            return
        finally:
            supervisor.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        line.setblocking(False)
        worker = Worker(pid, line, self._generation, now, now + limits.WORKER_START)
        self._workers.append(worker)
        self._poll.register(line, selectors.EVENT_READ, worker)
        _log.info("worker %d started", pid)

    def _become_worker(self, supervisor: socket.socket, mask: set[signal.Signals | int]) -> NoReturn:
        """In the child: let go of what is the parent's, work, and end."""
        status: int = Status.FAILED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # to the others it listens itself, in a moment
            signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, signal.SIGTERM})
            self._heard.close()
            for sibling in self._workers:  # a line that a sibling holds too does not end with the supervisor
                sibling.line.close()
            status = self._work(supervisor)
        except BaseException:  # noqa: BLE001  whatever it is, it must not get into the parent's code
            _log.exception("a worker ended by a fault")
        finally:
            _flush()
            os._exit(status)

    def _retire(self, worker: Worker) -> None:
        if worker.told:
            return
        worker.tell(Order.DRAIN)
        worker.told = True
        worker.overdue = time.monotonic() + self._patience + limits.WORKER_GRACE

    def _cut(self, worker: Worker) -> None:
        worker.tell(Order.CUT)
        worker.told = True
        worker.overdue = min(worker.overdue, time.monotonic() + limits.WORKER_GRACE)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if now >= worker.overdue:
                _log.warning("worker %d does not answer and is killed", worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
                worker.overdue = inf

    def _reap(self) -> None:
        for worker in list(self._workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._workers.remove(worker)
                self._hang_up(worker)
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        how = f"ended with status {code}" if code >= 0 else f"was ended by {_NAMES.get(-code, -code)}"
        if worker.told:
            # One that was not ready has served nobody.
            self._clean = self._clean and (code == Status.OK or self._serving or not worker.ready)
            level = logging.INFO if code == Status.OK else logging.WARNING
            _log.log(level, "worker %d %s", worker.pid, how)
            return
        pause = self._back_off.died(worker.started, time.monotonic())
        _log.warning("worker %d %s; another one starts in %.1f s", worker.pid, how, pause)

    # --- what is heard -------------------------------------------------------------------------------------

    def _wait(self) -> None:
        now = time.monotonic()
        due = [limits.WATCH, *(worker.overdue - now for worker in self._workers)]
        if self._serving and len(self._current) < self._count:
            due.append(self._back_off.until - now)
        for key, _ in self._poll.select(max(0.0, min(due))):
            if key.data is None:
                for number in self._heard.recv(4096):
                    self._heed(number)
            else:
                self._hear(key.data)

    def _hear(self, worker: Worker) -> None:
        """READY, or the end of its line, which is the end of it."""
        try:
            said = worker.line.recv(64)
        except OSError:  # reset: it died with an order unread
            said = b""
        if not said:
            self._hang_up(worker)
            return
        worker.ready, worker.overdue = True, worker.overdue if worker.told else inf
        _log.info("worker %d is ready", worker.pid)
        if self._announce is not None:
            self._announce()
            self._announce = None

    def _hang_up(self, worker: Worker) -> None:
        if worker.line.fileno() >= 0:
            self._poll.unregister(worker.line)
            worker.line.close()

    def _heed(self, number: int) -> None:
        if number == signal.SIGHUP and self._serving:
            _log.info("told by SIGHUP to read everything again")
            self._reload(Change.ALL)
            self._roll_due = True
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._serving:
                _log.info("told to stop by %s: draining", _NAMES[number])
                self._serving = False
                self._stop_listening()
                for worker in self._workers:
                    self._retire(worker)
            else:
                for worker in self._workers:
                    self._cut(worker)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads, or a stream that is closed
            stream.flush()
