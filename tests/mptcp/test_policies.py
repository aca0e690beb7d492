"""Schedulers, coupled congestion control and path managers: by numbers, and from third parties."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.config import Config
from mptcp.coupled_cc import Lia, lia_alpha, lia_increase
from mptcp.path_manager.base import EndpointId, Path, PathManager, path_managers
from mptcp.scheduler import MinRtt, P, Scheduler, schedulers
from mptcp.tcp.congestion import CongestionControl, controllers
from tests.mptcp.views import MSS, View
from tests.transfers import exchange, network, open_programs, payload


def test_minrtt() -> None:
    """Lowest smoothed RTT of those that are ready, regular before backup."""
    fast, slow, spare = View(10_000, 1), View(40_000, 2), View(1_000, 3, backup=True)
    choose = MinRtt().select
    assert choose([slow, fast, spare], 5000) is fast
    assert choose([slow, spare], 5000) is slow
    assert choose([spare], 5000) is spare
    assert choose([View(10_000, 5), fast], 1) is fast


# Checklist §2.6, windows in MSS, RTT in ms: (paths, alpha by RFC 6356 §3.1).
ALPHAS = [
    ([(10, 100), (10, 100)], 0.5),
    ([(20, 100), (5, 100)], 0.8),
    ([(10, 20), (10, 200)], 200 / 121),
    ([(10, 100)], 1.0),
    ([(10, 100)] * 4, 0.25),
    # 30 * (20 / 100^2) / (20/100 + 10/50)^2 = 30 * 0.004 / 0.16 for the second: 10 / 50^2
    ([(20, 100), (10, 50)], 0.75),
]


@pytest.mark.parametrize(("paths", "alpha"), ALPHAS)
def test_alpha(paths: list[tuple[int, int]], alpha: float) -> None:
    """RFC 6356 §3.1."""
    scaled = [(cwnd * MSS, rtt * 1000) for cwnd, rtt in paths]
    assert lia_alpha(scaled) == pytest.approx(alpha, rel=1e-9)


@given(st.lists(st.tuples(st.integers(1, 10**8), st.integers(1, 10**7)), min_size=1, max_size=8))
def test_alpha_keeps_the_goals(paths: list[tuple[int, int]]) -> None:
    """RFC 6356 §2, goal 2: on no path more than a TCP there; and something on every path."""
    alpha = lia_alpha(paths)
    total = sum(cwnd for cwnd, _ in paths)
    assert alpha > 0
    for cwnd, _ in paths:
        assert 0 < lia_increase(alpha, MSS, MSS, cwnd, total) <= MSS * MSS / cwnd * (1 + 1e-9)


def test_increase() -> None:
    """RFC 6356 §3: min(alpha * acked * MSS / cwnd_total, acked * MSS / cwnd_i)."""
    assert lia_increase(0.5, 1000, 1000, 10_000, 20_000) == pytest.approx(25.0)
    # (20, 5; equal RTT): alpha 0.8: 0.8 * 1000 * 1000 / 25,000 on both.
    assert lia_increase(0.8, 1000, 1000, 20_000, 25_000) == pytest.approx(32.0)
    assert lia_increase(0.8, 1000, 1000, 5_000, 25_000) == pytest.approx(32.0)
    # Alone it would be 1000 * 1000 / 100,000: the smaller of both.
    assert lia_increase(5.0, 1000, 1000, 100_000, 110_000) == pytest.approx(10.0)


def controller(siblings: list[CongestionControl], cwnd: int, rtt: int) -> Lia:
    """A LIA controller in congestion avoidance."""
    control = Lia(MSS, cwnd, siblings)
    control.ssthresh = cwnd
    control.srtt = rtt
    siblings.append(control)
    return control


def test_lia_grows_by_the_formula() -> None:
    """Two equal paths of 10 MSS: together one MSS in two windows, not two."""
    siblings: list[CongestionControl] = []
    first = controller(siblings, 10 * MSS, 100_000)
    second = controller(siblings, 10 * MSS, 100_000)
    first.on_ack(10 * MSS)
    assert first.cwnd - 10 * MSS in (249, 250)  # 0.5 * 10,000 * 1000 / 20,000
    assert second.cwnd == 10 * MSS


def test_lia_alone_is_newreno() -> None:
    """RFC 6356 §3: with one path the increase is TCP's."""
    control = controller([], 10 * MSS, 100_000)
    control.on_ack(10 * MSS)
    assert control.cwnd == 11 * MSS


def test_lia_carries_fractions() -> None:
    """RFC 6356 §3: at least something: increases below a byte add up."""
    siblings: list[CongestionControl] = []
    controls = [controller(siblings, 100 * MSS, 100_000) for _ in range(3)]
    for _ in range(200):
        controls[0].on_ack(500)  # 1/3 * 500 * 1000 / 300,000 = 0.56 bytes each
    assert controls[0].cwnd - 100 * MSS in (110, 111)


def test_lia_uses_ssthresh_in_recovery() -> None:
    """RFC 6356 §3: for a subflow in fast retransmit, cwnd_i is replaced by ssthresh_i."""
    siblings: list[CongestionControl] = []
    first = controller(siblings, 10 * MSS, 100_000)
    other = controller(siblings, 10 * MSS, 100_000)
    other.on_loss(10 * MSS)
    other.cwnd = 50 * MSS  # inflated
    first.on_ack(10 * MSS)
    # Windows 10 and 5: alpha = 15 * 10 / 15^2 = 2/3; 2/3 * 10,000 * 1000 / 15,000 = 444.
    assert first.cwnd == 10 * MSS + 444


def test_loss_and_time_out_are_per_subflow() -> None:
    """RFC 6356 §3: only the increase is coupled."""
    siblings: list[CongestionControl] = []
    first = controller(siblings, 10 * MSS, 100_000)
    second = controller(siblings, 10 * MSS, 100_000)
    first.on_loss(10 * MSS)
    assert (first.cwnd, first.ssthresh, second.cwnd) == (5 * MSS, 5 * MSS, 10 * MSS)
    second.on_timeout(10 * MSS, first=True)
    assert (second.cwnd, second.ssthresh) == (MSS, 5 * MSS)


def test_coupling_at_a_shared_bottleneck_is_no_more_than_tcp() -> None:
    """RFC 6356 §2: n equal subflows grow together by at most one MSS for each window of all."""
    for n in (2, 3, 8):
        siblings: list[CongestionControl] = []
        controls = [controller(siblings, 20 * MSS, 50_000) for _ in range(n)]
        for control in controls:
            control.on_ack(20 * MSS)
        assert sum(control.cwnd - 20 * MSS for control in controls) <= MSS


# -- third parties --------------------------------------------------------------------------------


@schedulers.register("test-roundrobin")
class RoundRobin(Scheduler):
    """Turn by turn."""

    def __init__(self) -> None:
        self.last = 0

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        after = [path for path in ready if path.path_index > self.last]
        chosen = min(after or ready, key=lambda path: path.path_index)
        self.last = chosen.path_index
        return chosen


@controllers.register("test-fixed")
class FixedWindow(CongestionControl):
    """Twenty segments, come what may."""

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.cwnd = 20 * mss

    def on_ack(self, acked: int) -> None:
        self.cwnd = 20 * self.mss

    def on_loss(self, in_flight: int) -> None:
        self.in_recovery = True

    def on_timeout(self, in_flight: int, *, first: bool) -> None:
        self.in_recovery = False


@path_managers.register("test-parallel")
class Parallel(PathManager):
    """Three subflows between the same two addresses, from ports of their own (ndiffports)."""

    def on_established(self, now: int) -> None:
        self.used: set[int] = {1}
        end = self.transport.fendpoint
        self.rows = {1: Path(1, end)}
        if self.transport.is_client:
            for index in (2, 3):
                endpoint = EndpointId(end.local, 0, end.remote, end.remote_port)
                self.rows[index] = Path(index, endpoint)
            self.transport.paths_changed()

    def on_subflow_opened(self, path_index: int, now: int) -> None:
        self.used.add(path_index)

    def path_indices(self, now: int) -> list[int]:
        return [index for index in self.rows if index not in self.used]

    def path(self, index: int) -> Path:
        return self.rows[index]

    def table(self) -> list[Path]:
        return list(self.rows.values())


def test_third_party_scheduler() -> None:
    """Round robin over two unequal paths: both carry about the same."""
    sim, a, b, paths = network(
        3, paths=2, rate_bps=20_000_000, a={"scheduler": "test-roundrobin"}, delay_us=5_000
    )
    up = payload(2_000_000)
    client, server = open_programs(a, b, up, b"")
    exchange(sim, client, server, up, b"")
    carried = [path[0].link.stats.bytes for path in paths]
    assert min(carried) > 0.35 * sum(carried)


def test_third_party_congestion_control() -> None:
    """A fixed window: never more than twenty segments in flight."""
    sim, a, b, _ = network(4, paths=1, a={"congestion_control": "test-fixed"}, delay_us=20_000)
    up = payload(1_000_000)
    client, server = open_programs(a, b, up, b"")
    most = 0

    def look() -> bool:
        nonlocal most
        assert client.connection is not None
        for subflow in client.connection.subflows:
            most = max(most, subflow.in_flight)
        return client.done and server.done

    sim.run(60_000_000, until=look)
    exchange(sim, client, server, up, b"")
    assert 15 * 1400 < most <= 20 * 1460


def test_third_party_path_manager() -> None:
    """Subflows of its own making carry data."""
    sim, a, b, _ = network(5, paths=1, a={"path_manager": "test-parallel"})
    up = payload(1_500_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(1_000_000)
    assert client.connection is not None
    ports = {subflow.local_port for subflow in client.connection.subflows}
    assert len(ports) == 3
    assert all(subflow.snd.bytes_acked > 1 for subflow in client.connection.subflows)
    exchange(sim, client, server, up, b"")


@pytest.mark.parametrize("kind", ["scheduler", "congestion_control", "path_manager", "reorder"])
def test_unknown_policy_is_a_clear_error(kind: str) -> None:
    """The error names what there is."""
    with pytest.raises(ValueError, match=r"unknown .* 'nonesuch': use one of .*"):
        network(6, a={kind: "nonesuch"})


def test_config_is_checked() -> None:
    """A value out of range is an error with the name and the range."""
    with pytest.raises(ValueError, match="max_subflows = 0 is out of range: use 1 to 64"):
        Config(max_subflows=0)
