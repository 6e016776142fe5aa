"""What is kept beside an identity of a registry's word: what it has proved, and what it has promised."""

from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Final

from autolink.cli.show import say
from autolink.errors import AutolinkError, EntryRefused, Fault, display
from autolink.identity import Keystore, files
from autolink.registry.entries import Entry

KEPT: Final = "registry"
"""The folder, in that of an identity, of what registries have promised and proved to it."""


def keep_promise(name: str, entry: Entry, promise: bytes, error: BaseException) -> None:
    """Keep what convicts a registry if its log's rules allow the entry, and say where.

    Args:
        name: of the identity in whose folder it goes.
        entry: what was promised, by the receipt.
        promise: the receipt.
        error: what ended the waiting. After a refusal the rules hardly allow it: then nothing is said.
    """
    refused = isinstance(error, EntryRefused) and error.fault is not Fault.UNAVAILABLE
    what = f"{'refused' if refused else 'withheld'}-{entry.hash.hex()[:16]}"
    contents = {"receipt": promise, "entry": entry.to_bytes()}  # a receipt names it by its hash alone
    try:
        then = f"its promise is in {display(f'{keep(name, what, contents)}.receipt')}"
    except (OSError, AutolinkError) as why:
        then = f"its promise cannot be kept ({getattr(why, 'strerror', why)})"
    if not isinstance(error, Exception):  # of which nobody tells more
        say(f"the registry had not answered: {then}")
    elif not refused:
        vars(error)["then"] = "; ".join(filter(None, [vars(error).get("then"), then]))


def keep(name: str, what: str, contents: Mapping[str, bytes]) -> Path:
    """Write to files beside the identity, each named by the entry, and by its suffix.

    What is kept there stays: of the same, told by the first of `contents`, what is missing is added; anything else gets
    a name of its own, for two entries that a log has shown in one place convict it.

    Returns:
        Their path, without a suffix.
    """
    folder = Keystore().folder(name) / KEPT
    folder.mkdir(mode=0o700, exist_ok=True)
    names = chain([what], (f"{what}-{number}" for number in count(2)))
    kept = next(path for name in names if _is_of(path := folder / name, contents))
    for suffix, data in contents.items():
        if not (path := Path(f"{kept}.{suffix}")).exists():
            files.write_atomic(str(path), data, replace=False)
    return kept


def _is_of(kept: Path, contents: Mapping[str, bytes]) -> bool:
    """Whether files of this name are of these contents, or there are none."""
    there = [path for suffix in contents if (path := Path(f"{kept}.{suffix}")).exists()]
    first, told = next(iter(contents.items()))
    return not there or (there[0].name.endswith(f".{first}") and there[0].read_bytes() == told)
