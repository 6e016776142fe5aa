"""How what is logged stands on stderr. The library installs no handlers; the command does, for as long as it runs."""

import logging
import sys
import time
from typing import Final, final

_LINE: Final = "%(levelname)s %(name)s: %(message)s"
_STAMPED: Final = "%(asctime)s.%(msecs)03dZ " + _LINE
_OF_PROCESS: Final = _STAMPED.replace("%(name)s", "%(name)s[%(process)d]")


@final
class StderrLog(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the type stubs only
    """To stderr, a line each."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter(_LINE))


def stamp_logs(*, of_process: bool = False) -> None:
    """Begin each line with its time, in UTC, for a command that serves: nobody looks on when it says something.

    Args:
        of_process: with the number of this process, one of several.
    """
    formatter = logging.Formatter(_OF_PROCESS if of_process else _STAMPED, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StderrLog):
            handler.setFormatter(formatter)
