"""A scheduler of your own, against min-RTT in virtual time: `python examples/round_robin.py`.

An application sends 50 messages over two unlike paths, the next one when the last has arrived.
Min-RTT keeps to the fast path while that has room; round-robin sends on both, so that most
messages wait for the slow one.
"""

from collections.abc import Sequence

from mptcp.events import Event, Readable
from mptcp.info import mptcp_info
from mptcp.scheduler import P, Scheduler, schedulers
from mptcp.sim import Simulation

MESSAGES, SIZE = 50, 40_000


@schedulers.register("rr")
class RoundRobin(Scheduler):
    def __init__(self) -> None:
        self.last = 0

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        # RFC 8684 §3.3.8: a backup only while there is no other.
        paths = sorted([p for p in ready if not p.backup] or ready, key=lambda p: p.path_index)
        chosen = next((p for p in paths if p.path_index > self.last), paths[0])
        self.last = chosen.path_index
        return chosen


def experiment(scheduler: str) -> tuple[list[int], int]:
    """Bytes sent on each path, and µs until the last has arrived."""
    sim = Simulation(seed=1)
    a, b = sim.host("a", scheduler=scheduler, nodelay=True), sim.host("b")
    sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", rate_bps=30_000_000, delay_us=5_000)
    sim.connect(a, "10.0.2.1/24", b, "10.0.2.2/24", rate_bps=30_000_000, delay_us=40_000)
    sent = received = 0

    def read(event: Event) -> None:
        nonlocal received
        if isinstance(event, Readable):
            received += len(event.connection.recv())

    def arrived() -> bool:
        return received == sent

    b.on_event = read
    b.stack.listen(80)
    connection = a.stack.connect("10.0.1.2", 80)
    sim.run(500_000)  # both handshakes
    start = sim.now
    for _ in range(MESSAGES):
        sent += connection.send(bytes(SIZE))
        assert sim.run(until=arrived)
    return [s.bytes_sent for s in mptcp_info(connection).subflows], sim.now - start


if __name__ == "__main__":
    for name in ("minrtt", "rr"):
        sent, elapsed = experiment(name)
        print(f"{name:6}  path 1 {sent[0]:7} B  path 2 {sent[1]:7} B  in {elapsed / 1e3:.0f} ms")
