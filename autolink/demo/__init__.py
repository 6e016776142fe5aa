"""`autolink demo`: agents of two organisations, in processes of their own, and six who are turned away.

Written on public names only, so it is also the longest example. `launcher` plays the organisations and reads what
happened; `cast` holds one function for each process.
"""

from autolink.demo.launcher import Outcome, run_demo

__all__ = [
    "Outcome", "run_demo",
]  # fmt: skip
