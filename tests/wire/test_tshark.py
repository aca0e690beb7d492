"""tshark reads what we write: an independent decoder of every MPTCP option and of whole headers."""

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mptcp import keys
from mptcp.wire.tcp import (
    ACK,
    RST,
    SACK_PERMITTED,
    SYN,
    HeaderTemplate,
    emit_options,
    mss_option,
    sack_option,
    timestamps_option,
    window_scale_option,
)

from .cases import KEY_A, KEY_B, OPTION_CASES

TSHARK = shutil.which("tshark")
pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")

LINKTYPE_RAW = 101
V4A, V4B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")


def dissect(path: Path, packets: list[bytes]) -> list[dict[str, list[str]]]:
    """Return, for each packet, tshark's fields with all values of each, in order."""
    with path.open("wb") as pcap:
        pcap.write(struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW))
        for number, packet in enumerate(packets):
            pcap.write(struct.pack("!IIII", number, 0, len(packet), len(packet)) + packet)
    command = [
        str(TSHARK),
        "-r",
        str(path),
        "-T",
        "json",
        "--no-duplicate-keys",
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    return [flatten(frame["_source"]["layers"]) for frame in json.loads(output)]


def flatten(layers: dict[str, Any]) -> dict[str, list[str]]:
    """Collect the leaves of tshark's tree by field name."""
    fields: dict[str, list[str]] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            fields.setdefault(name, [])
            for key, below in value.items():
                walk(key, below)
        elif isinstance(value, list):
            for below in value:
                walk(name, below)
        else:
            fields.setdefault(name, []).append(str(value))

    walk("packet", layers)
    return fields


def same(shown: str, expected: str) -> bool:
    """Compare as numbers where they are numbers: bases and boolean words differ by version."""
    words = {"True": "1", "False": "0"}
    shown = words.get(shown, shown)
    try:
        return int(shown, 0) == int(expected, 0)
    except ValueError:
        return shown == expected


def complaints(fields: dict[str, list[str]]) -> list[str]:
    """Return what tshark calls malformed or of the severity of an error."""
    found = [name for name in fields if "malformed" in name.lower()]
    severities = zip(
        fields.get("_ws.expert.severity", ()), fields.get("_ws.expert.message", ()), strict=True
    )
    error = 0x0080_0000
    return found + [message for severity, message in severities if int(severity) >= error]


def flags_for(name: str) -> int:
    """Return the TCP flags of the segment an option belongs in."""
    if name.endswith("SYN/ACK"):
        return SYN | ACK
    if "SYN" in name or "version 0" in name:
        return SYN
    return RST | ACK if "RST" in name else ACK


def test_every_option(tmp_path: Path) -> None:
    """Subtype, keys, tokens, HMACs, numbers and flags of each case, IPv4 and IPv6 in turn."""
    packets = []
    for number, (name, case) in enumerate(OPTION_CASES.items()):
        addresses = (V6A, V6B) if number & 1 else (V4A, V4B)
        template = HeaderTemplate(*addresses, 10000 + number, 80)
        options = emit_options([case.value.emit()])
        payload = b"" if flags_for(name) & (SYN | RST) else b"x" * 40
        header = template.build(1, 1, flags_for(name), 1000, options, len(payload))
        template.finish_checksum(header, [payload])
        packets.append(bytes(header) + payload)
    frames = dissect(tmp_path / "options.pcap", packets)
    assert len(frames) == len(OPTION_CASES)
    wrong = []
    for (name, case), fields in zip(OPTION_CASES.items(), frames, strict=True):
        if complaints(fields):
            wrong.append(f"{name}: {complaints(fields)}")
        if fields.get("tcp.checksum.status") != ["1"]:
            wrong.append(f"{name}: checksum {fields.get('tcp.checksum.status')}")
        if "tcp.options.mptcp.subtype" not in fields:
            wrong.append(f"{name}: no MPTCP option seen")
        for field, expected in case.tshark.items():
            shown = fields.get(field, [])
            values = expected.split(",")
            if len(shown) != len(values) or not all(map(same, shown, values)):
                wrong.append(f"{name}: {field} is {shown}, not {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("src", "dst"), [(V4A, V4B), (V6A, V6B)], ids=["v4", "v6"])
def test_whole_headers(tmp_path: Path, src: bytes, dst: bytes) -> None:
    """A full SYN and a full ACK: every option with its values, checksums good."""
    template = HeaderTemplate(src, dst, 1234, 80, ttl=61)
    syn = template.build(
        0xFFFFFFFF,
        0,
        SYN,
        65535,
        emit_options(
            [
                mss_option(1460),
                SACK_PERMITTED,
                timestamps_option(11, 12),
                window_scale_option(9),
                OPTION_CASES["MP_JOIN SYN"].value.emit(),
            ]
        ),
        0,
        tos=0x02,
        flow_label=0x12345,
    )
    template.finish_checksum(syn, [])
    ack = template.build(
        0,
        77,
        ACK,
        500,
        emit_options(
            [
                timestamps_option(13, 14),
                sack_option([(100, 200)]),
                OPTION_CASES["DSS ack 64"].value.emit(),
            ]
        ),
        3,
    )
    template.finish_checksum(ack, [b"a", b"bc"])
    first, second = dissect(tmp_path / "headers.pcap", [bytes(syn), bytes(ack) + b"abc"])
    for fields in (first, second):
        assert not complaints(fields)
        assert fields["tcp.checksum.status"] == ["1"]
        if len(src) == 4:
            assert fields["ip.checksum.status"] == ["1"]
    assert first["tcp.options.mss_val"] == ["1460"]
    assert first["tcp.options.wscale.shift"] == ["9"]
    assert first["tcp.options.timestamp.tsval"] == ["11"]
    assert first["tcp.options.timestamp.tsecr"] == ["12"]
    assert "tcp.options.sack_perm" in first or "tcp.options.sack_perm_tree" in first
    assert first["tcp.options.mptcp.recvtok"] == [str(0xCCAD45AC)]
    assert first["tcp.seq_raw"] == [str(0xFFFFFFFF)]
    assert second["tcp.options.timestamp.tsval"] == ["13"]
    assert second["tcp.options.sack.count"] == ["1"]
    assert second["tcp.len"] == ["3"]
    assert second["tcp.window_size_value"] == ["500"]
    if len(src) == 16:
        assert same(first["ipv6.flow"][0], "0x12345")
        assert first["ipv6.hlim"] == ["61"]
    else:
        assert first["ip.ttl"] == ["61"]
        assert same(first["ip.dsfield.ecn"][0], "2")


def test_keys_of_a_handshake(tmp_path: Path) -> None:
    """tshark derives token and IDSN from the keys it sees, with code of its own (RFC 8684 §3.2)."""
    there, back = HeaderTemplate(V4A, V4B, 1234, 80), HeaderTemplate(V4B, V4A, 80, 1234)
    packets = []
    for template, seq, ack, flags, name in (
        (there, 100, 0, SYN, "MP_CAPABLE SYN"),
        (back, 200, 101, SYN | ACK, "MP_CAPABLE SYN/ACK"),
        (there, 101, 201, ACK, "MP_CAPABLE ACK"),
    ):
        options = emit_options([OPTION_CASES[name].value.emit()])
        header = template.build(seq, ack, flags, 1000, options, 0)
        template.finish_checksum(header, [])
        packets.append(bytes(header))
    _, synack, ack_frame = dissect(tmp_path / "handshake.pcap", packets)
    assert not complaints(ack_frame)
    assert "mptcp.connection.echoed_key_mismatch" not in ack_frame
    for fields, key in ((synack, KEY_B), (ack_frame, KEY_A)):
        assert fields["mptcp.expected_token"] == [str(keys.token(key))]
        assert fields["mptcp.expected_idsn"] == [str(keys.idsn(key))]
