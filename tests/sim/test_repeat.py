"""A run is a function of the scenario and its seed; captures and failures tell what happened."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mptcp.sim import Bulk, LinkChange, Simulation, Sink
from mptcp.sim.recording import MemoryRecorder

TSHARK = shutil.which("tshark")


def scenario(seed: int, file: io.BytesIO) -> tuple[list[str], int]:
    """Two lossy paths with every mishap; the log of events, bytes received, the capture."""
    sim = Simulation(seed)
    a, b = sim.host("a"), sim.host("b", offload=True)
    mishaps = LinkChange(
        loss=0.005, reorder=0.01, reorder_us=4000, duplicate=0.01, corrupt=0.005, jitter_us=500
    )
    for number in (1, 2):
        sim.connect(
            a,
            f"10.0.{number}.1/24",
            b,
            f"10.0.{number}.2/24",
            rate_bps=8_000_000,
            delay_us=5000 * number,
            forward=mishaps,
            burst_loss=(0.001, 0.3),
            aqm="codel",
        )
    sim.capture(file)
    sink = Sink(b)
    Bulk(a, "10.0.1.2", size=1_000_000, start_us=sim.now + sim.random.randrange(10_000))
    log: list[str] = []
    b.on_event = lambda event: log.append(f"{sim.now} {type(event).__name__}")
    sim.every(100_000, lambda: log.append(f"{sim.now} {sink.received}"))
    sim.run(3_000_000)
    return log, sink.received


def test_the_same_seed_gives_the_same_run() -> None:
    """Bit for bit: events with their times, and every packet of the capture."""
    first, again, other = io.BytesIO(), io.BytesIO(), io.BytesIO()
    log, received = scenario(7, first)
    assert scenario(7, again) == (log, received)
    assert again.getvalue() == first.getvalue()
    assert received > 500_000
    assert scenario(8, other)[0] != log
    assert other.getvalue() != first.getvalue()


def test_recording_changes_nothing() -> None:
    """Who looks on does not change the run."""
    runs = []
    for watched in (False, True):
        sim = Simulation(3)
        a, b = sim.host("a"), sim.host("b")
        path = sim.connect(
            a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=5_000_000, delay_us=3000, loss=0.02
        )
        if watched:
            sim.record(MemoryRecorder(), a, *path)
            sim.capture(io.BytesIO())
        sink = Sink(b)
        Bulk(a, "10.0.0.2")
        sim.run(2_000_000)
        runs.append((sink.received, path[0].link.stats))
    assert runs[0] == runs[1]


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_tshark_opens_a_capture(tmp_path: Path) -> None:
    """Times are virtual, interfaces have names, directions and losses are to be seen."""
    sim = Simulation(5, start_us=10_000_000)
    a, b = sim.host("a"), sim.host("b")
    path = sim.connect(
        a, "10.0.0.1/24", b, "10.0.0.2/24", delay_us=20_000, forward=LinkChange(loss_list=(4,))
    )
    with open(tmp_path / "run.pcapng", "wb") as file:
        sim.capture(file, a, path[0])
        sink = Sink(b)
        Bulk(a, "10.0.0.2", size=20_000)
        assert sim.run(5_000_000, until=lambda: sink.received == 20_000)
        sim.run(100_000)
    fields = (
        "frame.time_epoch",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "tcp.flags.str",
    )
    command = [str(TSHARK), "-r", str(tmp_path / "run.pcapng"), "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    assert {row[1] for row in rows} == {"a", "a>b in", "a>b out"}
    syn = rows[0]
    assert float(syn[0]) == 10.0
    assert syn[1:3] == ["a", "2"] or syn[1:3] == ["a", "0x00000002"]
    arrived = next(row for row in rows if row[1] == "a>b out")
    assert float(arrived[0]) == 10.02
    entered, left = (sum(row[1] == name for row in rows) for name in ("a>b in", "a>b out"))
    assert entered == left + 1
    check = [str(TSHARK), "-r", str(tmp_path / "run.pcapng"), "-q", "-z", "io,stat,0"]
    assert subprocess.run(check, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_failure_tells_its_seed_and_leaves_a_capture(tmp_path: Path) -> None:
    sim = Simulation(41)
    a, b = sim.host("a"), sim.host("b")
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", delay_us=1000)
    Sink(b)
    Bulk(a, "10.0.0.2", size=1000)

    def fail() -> None:
        with sim.explain_failure("goodput: a/b", tmp_path):
            sim.run(250_000)
            raise AssertionError("too slow")

    with pytest.raises(AssertionError) as caught:
        fail()
    path = tmp_path / "goodput-a-b-seed-41.pcapng"
    (note,) = caught.value.__notes__
    assert note.startswith("goodput: a/b: simulation seed 41, 0.250000 s after its begin; ")
    assert str(path) in note
    assert path.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert b"simulation seed 41" in path.read_bytes()[:200]
    with sim.explain_failure("nothing", tmp_path):
        sim.run(1000)
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_of_a_recorder_is_bounded() -> None:
    recorder = MemoryRecorder(packets=3)
    seen = recorder.place("x")
    for number in range(10):
        seen(number, bytes([0x45] + [number] * 20), True)
    file = io.BytesIO()
    assert recorder.write(file) == 3
    assert bytes([9] * 20) in file.getvalue()
    assert bytes([6] * 20) not in file.getvalue()
    assert json.dumps(file.getvalue().hex()).count("45090909") == 1
