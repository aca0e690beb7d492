"""Scheduler, congestion control and path manager of one connection, one listener, and of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mptcp.events import Accepted, Event
from mptcp.meta_socket import MetaSocket
from mptcp.path_manager.builtin import FullMeshPathManager
from mptcp.policies import Policies
from mptcp.scheduler import P, Scheduler, schedulers
from mptcp.schedulers.ecf import Ecf
from mptcp.schedulers.timedistance import TimeDistance
from mptcp.schedulers.turns import RoundRobin
from mptcp.tcp.congestion import NewReno
from mptcp.tcp.cubic import Cubic
from tests.peer import Peer, Wire
from tests.transfers import network

ROOT = Path(__file__).parents[2]
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def test_of_a_connection_and_of_a_listener() -> None:
    """RFC 8684 §2.4 leaves these choices to the host: each connection has its own, joins too."""
    sim, a, b, _ = network(1, paths=2)
    accepted: list[MetaSocket] = []

    def take(event: Event) -> None:
        if isinstance(event, Accepted):
            accepted.append(event.connection)

    b.on_event = take
    b.stack.listen(80)
    b.stack.listen(81, policies=Policies(scheduler="ecf", congestion_control="newreno"))
    plain = a.stack.connect("10.0.0.2", 80)
    own = a.stack.connect(
        "10.0.0.2",
        81,
        policies=Policies(
            scheduler="roundrobin", congestion_control="cubic", path_manager="fullmesh"
        ),
    )
    own.send(b"x")  # a DSS confirms MPTCP, so that it joins
    sim.run(2_000_000)
    assert type(plain.dispatcher.scheduler) is TimeDistance
    assert type(own.dispatcher.scheduler) is RoundRobin
    assert type(own.paths.manager) is FullMeshPathManager
    assert [type(subflow.cc) for subflow in own.subflows] == 4 * [Cubic]
    assert own.info().scheduler == "roundrobin"
    (first, second) = sorted(accepted, key=lambda connection: connection.fendpoint.local_port)
    assert [first.info().scheduler, second.info().scheduler] == ["timedistance", "ecf"]
    assert type(second.dispatcher.scheduler) is Ecf
    assert [type(subflow.cc) for subflow in second.subflows] == 4 * [NewReno]
    assert a.stack.config.scheduler == "timedistance"


@pytest.mark.parametrize("kind", ["scheduler", "congestion_control", "path_manager"])
def test_an_unknown_name_fails_at_the_call(kind: str) -> None:
    """The error names what there is, and nothing was opened."""
    wire = Wire()
    policies = Policies(**{kind: "nonesuch"})
    with pytest.raises(ValueError, match=r"unknown .* 'nonesuch': use one of \w+"):
        wire.stack.connect("10.0.0.2", 80, policies=policies)
    with pytest.raises(ValueError, match=r"unknown .* 'nonesuch': use one of \w+"):
        wire.stack.listen(80, policies=policies)
    assert not wire.stack.metas
    assert not wire.stack.listeners


class Waits(Scheduler):
    """Waits, come what may."""

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return None


@pytest.fixture
def waits() -> Iterator[str]:
    schedulers.add("test-waits", Waits)
    yield "test-waits"
    schedulers.unregister("test-waits")


@pytest.mark.mib("SchedulerWaitsForNothing")
def test_a_scheduler_that_waits_for_nothing_is_not_heeded(waits: str) -> None:
    """docs/stack-api.md: with nothing in flight no acknowledgement would ask again: the subflow
    that asked takes the data. With something in flight it is waited for."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True)
    wire.stack.listen(5000, policies=Policies(scheduler=waits))
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    connection.send(b"x" * 100)
    assert sum(len(seen.data) for seen in [*caller.drain(), *flow.drain()]) == 100
    assert wire.stack.mib()["SchedulerWaitsForNothing"] == 1


PROGRAM = """
from mptcp.policies import Policies, load_entry_points
from mptcp.sim import Simulation
load_entry_points()
sim = Simulation(seed=1)
a, b = sim.host("a"), sim.host("b")
sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=10_000_000, delay_us=1_000)
b.stack.listen(80)
own = Policies(scheduler="theirs", congestion_control="their-control", path_manager="their-paths")
connection = a.stack.connect("10.0.0.2", 80, policies=own)
assert sim.run(1_000_000, until=lambda: connection.established)
for made in (connection.dispatcher.scheduler, connection.subflows[0].cc, connection.paths.manager):
    print(type(made).__name__)
"""

THEIRS = """
from mptcp.path_manager.base import PathManager
from mptcp.scheduler import Scheduler
from mptcp.tcp.congestion import CongestionControl

class Theirs(Scheduler):
    def select(self, ready, queued):
        return ready[0]

class TheirControl(CongestionControl):
    def on_ack(self, acked):
        pass

class TheirPaths(PathManager):
    pass
"""

ENTRY_POINTS = """
[mptcp.schedulers]
theirs = their_policies:Theirs
[mptcp.congestion_control]
their-control = their_policies:TheirControl
[mptcp.path_managers]
their-paths = their_policies:TheirPaths
"""


def test_an_installed_package_brings_policies_of_all_three_kinds(tmp_path: Path) -> None:
    """docs/daemon.md "Policies of your own": a distribution on the search path announces them."""
    metadata = tmp_path / "their_policies-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-policies\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "their_policies.py").write_text(THEIRS)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["Theirs", "TheirControl", "TheirPaths"]
