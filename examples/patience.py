r"""A subflow heuristic of your own, by name: whether the first path can do it in two seconds.

    python -m mptcp.sim --load examples/patience.py --heuristics patience --set autotune=false \
        --path 10/5 --path 10/40

The second path costs money, so it is opened only when what is left would take longer than that on
the first one, at the rate so far: for the 5 MB that are sent, which take four seconds there, but
not with `--bytes 1000000`; `--heuristics never` does with one path. What is left is what the send
buffer has taken, so that it is to be as large as it may be from the beginning. Rules can be joined:
`patience,close-costly`.
"""

from mptcp.heuristics import Flow, Heuristic, heuristics

PATIENCE_US = 2_000_000
LOOK_US = 100_000
"""Before this nobody knows the rate."""


@heuristics.register("patience")
class Patience(Heuristic):
    def opens(self, flow: Flow) -> bool:
        age = flow.now - flow.since
        left = flow.written - flow.acked
        return age > LOOK_US and left * age > flow.acked * PATIENCE_US
