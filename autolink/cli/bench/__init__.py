"""`autolink bench`: put load on a running agent, and tell how long it took to answer.

The command (`command`) opens one link in its own process, so that whatever is wrong is told before any load. Then it
starts workers (`workers`), processes that share nothing with it: each gets its part of the load through its standard input
(`plan`), does the operations (`work`) in a closed or an open loop (`loop`), and hands back what it counted (`tally`,
`histogram`) twice a second, so that an interrupted run and the dead worker's share are kept.
"""

from autolink.cli.bench.command import bench

__all__ = [
    "bench",
]  # fmt: skip
