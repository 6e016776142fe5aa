"""`autolink demo`: agents of two organisations, in processes of their own, six who are turned away and one who is revoked.

Written on public names only, so it is also the longest example. `launcher` plays the organisations and reads what
happened, `on_record` what they do at the registry; `cast` holds one function for each process.
"""

from autolink.demo.launcher import Outcome, run_demo

__all__ = [
    "Outcome", "run_demo",
]  # fmt: skip
