"""The benchmark suite: autolink beside its neighbours, measured in one run. See README.md."""

import shlex
import sys
from typing import Final

INSTALL: Final = f"{shlex.quote(sys.executable)} -m pip install -e '.[bench]'"
"""What installs the suite's needs where this Python looks for them: `pip` on the PATH may be another one's."""
