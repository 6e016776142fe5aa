"""A process that appends until it is killed: `python -m tests.registry.appender FOLDER GROUPS NOW [UID] [MOST]`.

It becomes user UID, may write files of at most MOST bytes, opens the registry in FOLDER, says "open", and appends the groups
of the file GROUPS that are not there yet. It says "begin" before each, and then the index of each entry that is there for
good. What cannot be done ends it with a line on stderr and status 1.
"""

import os
import resource
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from autolink import codec
from autolink.errors import AutolinkError
from autolink.registry.registrar import Appended, Registrar
from autolink.registry.store import SqliteStore

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def main(folder: str, groups: str, now: str, uid: str = "", most: str = "") -> None:
    prepared = codec.decode_untrusted(Path(groups).read_bytes(), what="groups", nodes=1_000_000)
    if uid:
        os.setgid(int(uid))
        os.setuid(int(uid))
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
    with SqliteStore(Path(folder)) as store:
        registrar = Registrar(store, KEY, lambda: int(now))
        say("open")
        begin = 0
        for group in prepared:
            if begin >= store.head.size:
                say("begin")
                for outcome in registrar.append(group):
                    assert isinstance(outcome, Appended), outcome
                    say(outcome.index)
            begin += len(group)
        sys.stdin.read()  # stays until it is told to end


def say(what: object) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AutolinkError as error:
        sys.exit(f"{type(error).__name__}: {error}")
