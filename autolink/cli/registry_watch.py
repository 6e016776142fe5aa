"""`autolink registry audit|monitor`: whether a log is honest, found out by replaying it with nothing but its public key."""

import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import click

from autolink import limits
from autolink.agent.groups import background_tasks
from autolink.agent.kept import back_off
from autolink.cli.edge import Status, about, shown
from autolink.cli.edge import as_json as error_facts
from autolink.cli.options import FILE, Number, json_lines_option, json_option, option, read
from autolink.cli.registry_link import (
    EVIDENCE,
    Reach,
    auto_id_of,
    log_key_option,
    reach,
    reach_options,
    source_timeout_option,
    try_keep,
)
from autolink.cli.registry_look import entry_facts, entry_text, signers_text, state_facts
from autolink.cli.show import print_facts, print_json, say
from autolink.errors import AutolinkError, LinkLost, RemoteProtocolError, display
from autolink.identity import Certificate, files, key_authority, show_name
from autolink.registry.audit import Audit
from autolink.registry.client import RegistryClient
from autolink.registry.database import StoreFailed
from autolink.registry.evidence import LogConvicted, Unproved, keep_evidence
from autolink.registry.feed import Change
from autolink.registry.folder import audit_folder
from autolink.registry.ledger import standing
from autolink.registry.log.checkpoint import Checkpoint, verify_untrusted
from autolink.registry.log.note import VerifierKey
from autolink.registry.log.proof import LogProof
from autolink.registry.monitor import Monitor
from autolink.registry.served import Served
from autolink.registry.sources import FolderSource, open_source
from autolink.registry.watch import Report

F = TypeVar("F", bound=Callable[..., Any])
Look = Callable[[RegistryClient], Awaitable[None]]

_log: Final = logging.getLogger("autolink.cli")
_TEXT: Final = 2 * limits.DISPLAY
"""Characters of what a report says: a key and two Auto IDs are in it."""

_FOLDER: Final = click.Path(path_type=Path, file_okay=False)


def _evidence_option(function: F) -> F:
    return option(
        "--evidence", type=_FOLDER, default=EVIDENCE,
        help="Folder for what shows that the log is wrong.",
    )(function)  # fmt: skip


@click.command()
@click.argument("where", metavar="FOLDER|URL")
@log_key_option()
@source_timeout_option
@_evidence_option
@json_option
@click.pass_context
def audit(
    ctx: click.Context, where: str, *, log_key: VerifierKey, timeout: float, evidence: Path, as_json: bool
) -> None:
    """Replay a log, and say whether every entry, state and signature of it agree.

    It is read from a registry's FOLDER, which may be served meanwhile, from a folder of tiles (c2sp.org/tlog-tiles), or
    from a registry or any file server by its URL. All entries, records and statuses that a registry serves by URL are
    compared, and their proofs. Exit status 1 if the log is convicted; what shows it is then in a file.
    """
    compared = None
    with about(display(where)), open_source(where, timeout=timeout) as source:
        try:
            if isinstance(source, FolderSource):
                replayed = audit_folder(source, log_key)
            else:
                replayed = Audit(log_key)
                replayed.replay(source)
                if source.is_registry():
                    served = Served(replayed, source)
                    compared = {"entries": served.check_entries(), "ids": served.check_ids()}
        except LogConvicted as convicted:
            _convict(convicted, evidence, as_json=as_json)
            ctx.exit(Status.FAILED)
    facts = _facts(replayed) | {"served": compared}
    if as_json:
        print_json({"ok": True, "log": log_key.name, **facts})
        return
    states = ", ".join(f"{count} {state}" for state, count in facts["states"].items())
    agrees = "not looked at: audit its URL" if isinstance(source, FolderSource) else "nothing beside the log"
    if compared:
        agrees = "agrees (entries: {entries}, records and statuses: {ids})".format_map(compared)
    print_facts({"log": log_key.name, **facts, "states": states or "none", "served": agrees})


def _facts(replayed: Audit) -> dict[str, Any]:
    ledger = replayed.ledger
    found = (record for auto_id in ledger.ids() if (record := ledger.record(auto_id)))
    states = Counter(standing(ledger, record, replayed.time).state.value for record in found)
    return {
        "entries": replayed.size,
        "ids": ledger.count(),
        "states": dict(sorted(states.items())),
        "root": replayed.root.hex(),
    }


def _convict(convicted: LogConvicted, folder: Path, *, as_json: bool) -> None:
    """Tell it, and keep what shows it."""
    kept, where = try_keep(folder, convicted)
    if as_json:
        evidence = None if kept is None else str(kept)
        told = {"convicted": shown(convicted), "index": convicted.index, "evidence": evidence}
        print_json(error_facts(convicted) | told, line=True)
    say(f"THE LOG IS CONVICTED: {shown(convicted)}; {where}")


# --- monitor -----------------------------------------------------------------------------------------------


@click.command()
@option(
    "--id", "who", metavar="AUTOID|NAME", multiple=True, help="Whom to watch; all if not given. Repeatable."
)
@option(
    "--state", type=FILE, default="monitor.checkpoint",
    help="Where the newest checkpoint is kept: the next time the log must go on from it, and what is behind it is told. "
    "Each set of IDs wants its own.",
)  # fmt: skip
@option(
    "--since", type=click.IntRange(0), metavar="INDEX",
    help="The first entry that is told; if not given, what is behind --state, and without that what comes from now on.",
)  # fmt: skip
@option(
    "--seen", type=FILE, multiple=True,
    help="A checkpoint or proof that somebody else was shown: the log must agree with it, too. Repeatable.",
)  # fmt: skip
@option("--every", type=Number(1, 86_400), default=60, help="Seconds between two looks.")
@option("--once", is_flag=True, help="Look once, and end.")
@option(
    "--max-age", type=Number(0, limits.STATUS_AGE, min_open=True), default=300,
    help="Seconds that the registry's word on somebody may be old.",
)  # fmt: skip
@_evidence_option
@reach_options(timeout="Seconds for all of it, with --once.")
@json_lines_option
@click.pass_context
def monitor(
    ctx: click.Context, /, *, who: tuple[str, ...], state: Path, since: int | None, seen: tuple[Path, ...], every: float,
    once: bool, max_age: float, evidence: Path, as_json: bool, **how: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Watch IDs, or a whole log: report every entry, how the IDs given really stand, issuers and time included, every word
    that is old or missing, and every sign of another past.

    It replays the log from its first entry, and tells what is new since --state was kept. Without that it begins with how
    the IDs given stand now; --since 0 tells everything. Exit status 1 if the log is convicted, or with --once if an ID is
    not on record, the registry's word is old or missing, or the log does not go on from what was seen of it: that stays in
    --state.
    """
    reached = replace(reach(**how), evidence=None)  # kept here, where it is said
    log = reached.log_key
    notes, looked = [_checkpoint("--seen", path, log) for path in seen], None
    _check_state(state)
    if state.exists():
        notes.append(kept := _checkpoint("--state", state, log))
        if since is None:
            since, looked = kept.size, datetime.fromtimestamp(state.stat().st_mtime, UTC)
    watching = Monitor(
        log, clock=lambda: datetime.now(UTC), watched=map(auto_id_of, who) if who else None,
        seen=[note.note for note in notes], max_age=max_age, since=since, looked=looked,
    )  # fmt: skip
    odd = agreed = False

    def tell(report: Report) -> None:
        nonlocal odd
        odd = odd or report.odd or report.what == "unknown"
        _tell(report, evidence, as_json=as_json)

    def agree() -> str:
        told = "" if watching.since == 0 else f"; told from entry {watching.since} on"
        return f"{watching.size} entries of {display(log.name)} about {watching.count()} Auto IDs agree{told}"

    async def look(client: RegistryClient) -> None:
        nonlocal looked
        began = datetime.now(UTC)
        with _unproved_kept(evidence, once=once, as_json=as_json):
            await watching.look(client, tell)
        looked = began

    async def look_and_keep(client: RegistryClient) -> None:
        nonlocal agreed
        await look(client)
        _keep_state(state, watching.checkpoint, looked)
        if not agreed:
            say(agree())
        agreed = True

    try:
        if once:
            reached.use(look)
            _keep_state(state, watching.checkpoint, looked)  # what is wrong with it is not the registry's
        else:
            anyio.run(_keep_looking, reached, watching, look_and_keep, every, backend="trio")
    except LogConvicted as convicted:
        _convict(convicted, evidence, as_json=as_json)
        ctx.exit(Status.FAILED)
    status = Status.FAILED if odd else Status.OK
    if as_json:
        counts = {"entries": watching.size, "ids": watching.count(), "since": watching.since}
        print_json({"ok": not odd, "status": status, "log": log.name, **counts}, line=True)
    else:
        say(agree())
    ctx.exit(status)


def _checkpoint(option: str, path: Path, log_key: VerifierKey) -> Checkpoint:
    """The checkpoint in the file of an option, alone or in a proof."""
    with about(f"{option} {display(str(path))}"):
        data = read(path, limits.LOG_PROOF)
        with suppress(RemoteProtocolError):  # then it is alone
            data = LogProof.from_untrusted(data).checkpoint
        with about("no checkpoint of this log"):
            return verify_untrusted(data, log_key)


def _check_state(path: Path) -> None:
    """Before a log is replayed for nothing.

    Raises:
        StoreFailed: its folder cannot have it.
    """
    if not os.access(path.parent, os.W_OK | os.X_OK):
        why = "may not be written" if path.parent.is_dir() else "is no folder"
        raise StoreFailed(f"--state {display(str(path))}: {display(str(path.parent))} {why}")


def _keep_state(path: Path, checkpoint: bytes, looked: datetime | None) -> None:
    """For the next run: up to where, and when it was looked.

    Raises:
        StoreFailed: it cannot be kept.
    """
    try:
        files.write_atomic(str(path), checkpoint, mode=0o644)
        if looked is not None:
            os.utime(path, (looked.timestamp(), looked.timestamp()))
    except OSError as error:
        raise StoreFailed(f"--state {display(str(path))} cannot be written: {error.strerror}") from error


def _tell(report: Report, folder: Path, *, as_json: bool) -> None:
    told: dict[str, Any] = {}
    if report.evidence:
        what = f"{report.what}-{report.auto_id.hex[:8]}"
        try:
            told["evidence"] = str(
                keep_evidence(folder, what, report.evidence, f"{report.auto_id}: {report.text}")
            )
        except OSError as error:  # which must not hide what is told, nor end the watching
            told["evidence"] = None
            say(f"WARNING: what shows it cannot be kept in {display(str(folder))} ({error.strerror})")
    if report.what == "unknown":
        say(
            f"Warning: {report.auto_id} is not on record there: is it the right one? It is watched all the same"
        )
    if as_json:
        print_json(_facts_of(report) | told, line=True)
    elif report.what != "unknown":
        click.echo(_line(report))


def _facts_of(report: Report) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": report.at, "what": report.what, "auto_id": report.auto_id.hex, "common_name": _name(report),
        "index": report.index, "text": report.text,
    }  # fmt: skip
    if report.standing is not None:
        told |= state_facts(report.standing, report.auto_id)
    if report.record is not None:
        own = {"key": key_authority(report.record.key)}
        told |= own if report.entry is None else entry_facts(report.entry, report.record.issuer)
    return told


def _line(report: Report) -> str:
    name, what = _name(report), report.what
    if report.record is not None and report.entry is not None:
        what += f" by {signers_text(report.entry, report.record.issuer, short=True)}"
        what = ", ".join(filter(None, [what, entry_text(report.entry, short=True)]))
    columns = (
        f"{report.at:%F %T} UTC", "" if report.index is None else f"entry {report.index}", str(report.auto_id),
        name and show_name(name), f"{what}: {display(report.text, _TEXT)}",
    )  # fmt: skip
    return "  ".join(filter(None, columns))


def _name(report: Report) -> str | None:
    record = report.record
    return None if record is None else Certificate.parse_untrusted(record.certificate).common_name


@contextmanager
def _unproved_kept(folder: Path, *, once: bool, as_json: bool) -> Iterator[None]:
    """For the block: what shows that a log does not go on is kept, and told if the monitor goes on: the next look may prove
    it."""
    try:
        yield
    except Unproved as error:
        kept, where = try_keep(folder, error)
        if once:
            error.add_note(where)
            raise
        if as_json:
            path = None if kept is None else str(kept)
            told = {"at": datetime.now(UTC), "what": "unproved", "text": shown(error), "evidence": path}
            print_json(told, line=True)
        say(f"THE LOG DOES NOT GO ON FROM WHAT WAS SEEN OF IT: {shown(error)}; {where}")
        raise


async def _keep_looking(reached: Reach, watching: Monitor, look: Look, every: float) -> None:
    """Until the log is convicted, or what was replayed of it is lost. A registry that is down, or answers with nonsense, is
    asked again."""
    failures = 0

    async def use(client: RegistryClient) -> None:
        nonlocal failures
        woken = anyio.Event()

        def heed(change: Change) -> None:
            watching.heed(change)
            woken.set()

        async def follow() -> None:
            try:
                await client.follow(heed, since=watching.heard)
            except (AutolinkError, TimeoutError) as error:
                ended.append(error)
                woken.set()

        ended: list[Exception] = []
        async with background_tasks() as tasks:
            tasks.start_soon(follow)
            while not ended:
                await look(client)
                if failures:  # who was warned is told of the end of it
                    _log.warning("the registry is watched again")
                failures = 0
                with anyio.move_on_after(every):
                    await woken.wait()
                woken = anyio.Event()
        raise ended[0]

    while True:
        try:
            await reached.run(use)
        except (LogConvicted, StoreFailed):
            raise
        except Unproved:  # it was told
            failures += 1
        except (AutolinkError, TimeoutError, OSError) as error:
            failures += 1
            _log.log(
                logging.WARNING if failures == 1 or not isinstance(error, LinkLost) else logging.INFO,
                "the registry cannot be watched at the moment: %s", shown(error),
            )  # fmt: skip
        await anyio.sleep(back_off(max(1, failures)))
