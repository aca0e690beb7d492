"""A path manager of your own: two subflows on one pair of addresses: `python examples/two_ports.py`

Where routers spread load by ports, the two may take two ways. A lost path is not tried again here.
"""

from dataclasses import replace

from mptcp.path_manager import Path, PathManager, path_managers
from mptcp.sim import Simulation


@path_managers.register("two_ports")
class TwoPorts(PathManager):
    rows: tuple[Path, ...] = ()  # of the path indices 1 and 2
    tried = False

    def on_established(self, now: int) -> None:
        end = self.transport.fendpoint  # which has index 1
        self.rows = (Path(1, end, established=True),)
        if self.transport.is_client and not self.transport.no_join_initial:
            self.rows += (Path(2, replace(end, local_port=0)),)  # 0: the stack chooses a port
            self.transport.paths_changed()

    def on_subflow_opened(self, path_index: int, now: int) -> None:
        self.tried = True

    def path_indices(self, now: int) -> list[int]:
        return [] if self.tried else [path.index for path in self.rows[1:]]

    def path(self, index: int) -> Path:
        return self.rows[index - 1]

    def table(self) -> list[Path]:
        return list(self.rows)


if __name__ == "__main__":
    sim = Simulation(seed=1)
    a, b = sim.host("a", path_manager="two_ports"), sim.host("b")
    sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", rate_bps=10_000_000, delay_us=10_000)
    b.stack.listen(80)
    (connection := a.stack.connect("10.0.1.2", 80)).send(bytes(120_000))
    sim.run(1_000_000)
    for flow in connection.subflows:
        print(f"path {flow.path_index}: port {flow.local_port}, {flow.snd.bytes_acked} bytes")
