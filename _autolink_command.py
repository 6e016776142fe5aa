"""What the script `autolink` runs. It stands beside the package, because importing that is what Ctrl-C can interrupt: half
a second passes before there is a command that would tell it.
"""

import sys


def main() -> None:
    """The command; `autolink.cli.edge` has its exit statuses."""
    try:
        from autolink.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    command()
