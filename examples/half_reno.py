"""A congestion controller of your own: `python examples/half_reno.py [NAME ...]`, any names.

At a loss it gives up a quarter of its window, NewReno half, and so it gets more out of a path that
loses packets for other reasons than congestion. In virtual time, on one path.
"""

import sys

from mptcp.sim import Bulk, LinkChange, Simulation, Sink
from mptcp.tcp.congestion import NewReno, controllers

SIZE, START_US = 5_000_000, 1_000_000


@controllers.register("half_reno")
class HalfReno(NewReno):
    def reduced(self, flight_size: int) -> int:
        return flight_size * 3 // 4


def experiment(controller: str) -> int:
    """µs that SIZE bytes take over 20 Mbit/s, 40 ms round trip, one packet of 300 lost."""
    sim = Simulation(seed=1, start_us=START_US)
    a, b = sim.host("a", congestion_control=controller), sim.host("b")
    path = sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", rate_bps=20_000_000, delay_us=20_000)
    path[0].change(LinkChange(loss=1 / 300))
    sink = Sink(b)
    Bulk(a, "10.0.1.2", size=SIZE)
    assert sim.run(until=lambda: sink.received == SIZE)
    return sim.now - START_US


if __name__ == "__main__":
    for name in sys.argv[1:] or ("newreno", "half_reno"):
        time = experiment(name)
        print(f"{name:9}  {time / 1e6:.2f} s  {SIZE * 8 / time:.1f} Mbit/s")
