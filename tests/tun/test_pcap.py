"""Capture files, read back by scapy and by tshark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from mptcp.tun.pcap import PcapWriter

STAMP = 1_700_000_000_123_456
V4 = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, flags="S") / b"payload")
V6 = bytes(IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=3, dport=4, flags="A"))


def test_scapy_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "both.pcap"
    with PcapWriter(path) as writer:
        writer.write(STAMP, V4[:20], memoryview(V4)[20:])
        writer.write(STAMP + 1, bytearray(V6))
        assert (writer.written, writer.skipped) == (2, 0)
        assert path.stat().st_size == 0  # buffered
        writer.flush()
        assert path.stat().st_size == writer.size
    first, second = rdpcap(str(path))
    assert bytes(first) == V4
    assert bytes(second) == V6
    assert int(first.time * 1_000_000) == STAMP
    assert int(second.time * 1_000_000) == STAMP + 1


def test_tshark_reads_what_was_written(tmp_path: Path) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is missing")
    path = tmp_path / "both.pcap"
    with PcapWriter(path) as writer:
        writer.write(STAMP, V4)
        writer.write(STAMP + 2_000_000, V6)
    fields = ["frame.time_epoch", "ip.src", "ipv6.src", "tcp.dstport", "_ws.malformed"]
    command = [tshark, "-r", str(path), "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert [line.split("\t")[1:] for line in done.stdout.splitlines()] == [
        ["10.0.0.1", "", "2", ""],
        ["", "fd00::1", "4", ""],
    ]
    assert "1700000000.123456" in done.stdout or "22:13:20.123456" in done.stdout


def test_a_snaplen_cuts_and_keeps_the_true_length(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    with PcapWriter(path, snaplen=24) as writer:
        writer.write(STAMP, V4)
    (packet,) = rdpcap(str(path))
    assert bytes(packet.original)[:24] == V4[:24]
    assert len(packet.original) == 24
    assert packet.wirelen == len(V4)


def test_the_file_stops_at_its_limit_for_good(tmp_path: Path) -> None:
    path = tmp_path / "limited.pcap"
    limit = 24 + 2 * (16 + len(V4))
    with PcapWriter(path, max_bytes=limit) as writer:
        for _ in range(3):
            writer.write(STAMP, V4)
        writer.write(STAMP, b"E")
        assert (writer.written, writer.skipped) == (2, 2)
    assert path.stat().st_size == limit
    assert len(rdpcap(str(path))) == 2
    writer.close()


@pytest.mark.parametrize("snaplen", [0, 262_145])
def test_bad_snaplens_are_refused(tmp_path: Path, snaplen: int) -> None:
    with pytest.raises(ValueError, match="snaplen"):
        PcapWriter(tmp_path / "never.pcap", snaplen)
    assert not (tmp_path / "never.pcap").exists()
