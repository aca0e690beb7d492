"""TUN devices: packets in and out with and without offload, and errors that say what to do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
import pytun
from scapy.layers.inet import IP, TCP, UDP

from mptcp.tun.device import (
    F_NEEDS_CSUM,
    GSO_NONE,
    GSO_TCPV4,
    VNET_HDR,
    VNET_HDR_LEN,
    VNET_HDR_NONE,
    BytesLike,
    DeviceError,
    TunDevice,
    describe_open_failure,
)
from mptcp.tun.netns import Namespace

KERNEL, STACK = "10.9.1.1", "10.9.1.2"
CHUNK = 20_000


def read_packet(device: TunDevice, timeout: float = 5.0) -> tuple[tuple[int, ...], IP]:
    """The next IPv4 packet the kernel sends, as (vnet header fields, scapy packet)."""
    poller = select.poll()
    poller.register(device, select.POLLIN)
    while True:
        packet = device.read()
        if packet is None:
            assert poller.poll(timeout * 1000), "the kernel sent nothing"
        elif packet[VNET_HDR_LEN] >> 4 == 4:
            return VNET_HDR.unpack_from(packet), IP(packet[VNET_HDR_LEN:])


def pseudo_header_sum(packet: IP, length: int) -> int:
    """What the checksum field of an unfinished packet holds (RFC 9293 §3.1), not inverted."""
    pseudo = socket.inet_aton(packet.src) + socket.inet_aton(packet.dst)
    total: int = sum(struct.unpack("!4H", pseudo)) + socket.IPPROTO_TCP + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Peer:
    """Just enough TCP behind the TUN device to accept one connection from the kernel."""

    def __init__(self, device: TunDevice, client: socket.socket) -> None:
        self.device = device
        self.client = client
        self.mss = 1460
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((STACK, 5001))
        _, syn = read_packet(device)
        self.port = syn.sport
        self.rcv_nxt = syn.seq + 1
        self.snd_nxt = 1000
        self.send(self.segment("SA", options=[("MSS", self.mss), ("WScale", 7)]))
        self.snd_nxt += 1
        _, ack = read_packet(device)
        assert ack[TCP].flags == "A"
        client.setblocking(True)
        client.settimeout(5)

    def segment(
        self, flags: str, payload: bytes = b"", options: list[tuple[str, int]] | None = None
    ) -> IP:
        return IP(src=STACK, dst=KERNEL) / (
            TCP(
                sport=5001,
                dport=self.port,
                flags=flags,
                seq=self.snd_nxt,
                ack=self.rcv_nxt,
                window=65535,
                options=options or [],
            )
            / payload
        )

    def send(self, packet: IP) -> None:
        assert self.device.write(VNET_HDR_NONE, [bytes(packet)])


@pytest.fixture
def offloading(left: Namespace) -> Iterator[TunDevice]:
    with left.tun("tun0") as device:
        left.configure("tun0", addresses=[f"{KERNEL}/24"])
        yield device


@pytest.fixture
def plain(left: Namespace) -> Iterator[TunDevice]:
    with left.tun("tun0", offload=False) as device:
        left.configure("tun0", addresses=[f"{KERNEL}/24"])
        yield device


@pytest.mark.netns
def test_a_chunk_larger_than_the_mtu_arrives_whole(left: Namespace, offloading: TunDevice) -> None:
    assert offloading.offload
    with left.socket() as client:
        peer = Peer(offloading, client)
        client.sendall(bytes(CHUNK))
        header, packet = read_packet(offloading)
        flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = header
        assert flags == F_NEEDS_CSUM
        assert gso_type == GSO_TCPV4
        assert (hdr_len, csum_start, csum_offset) == (40, 20, 16)
        assert gso_size == peer.mss
        assert packet.len > 1500
        assert packet[TCP].seq == peer.rcv_nxt


@pytest.mark.netns
def test_a_chunk_written_unfinished_is_accepted(left: Namespace, offloading: TunDevice) -> None:
    with left.socket() as client:
        peer = Peer(offloading, client)
        payload = bytes(range(256)) * (CHUNK // 256)
        packet = peer.segment("PA", payload)
        raw = bytearray(bytes(packet))
        struct.pack_into("!H", raw, 36, pseudo_header_sum(packet, len(raw) - 20))
        header = VNET_HDR.pack(F_NEEDS_CSUM, GSO_TCPV4, 40, peer.mss, 20, 16)
        parts: list[BytesLike] = [raw[:40], memoryview(payload)[:7000], memoryview(payload)[7000:]]
        before = left.counters()
        assert offloading.write(header, parts)
        received = b""
        while len(received) < len(payload):
            received += client.recv(CHUNK)
        assert received == payload
        after = left.counters()
        assert after["TcpInCsumErrors"] == before["TcpInCsumErrors"]
        # The kernel acknowledges all of it.
        _, ack = read_packet(offloading)
        while ack[TCP].ack != peer.snd_nxt + len(payload):
            _, ack = read_packet(offloading)


@pytest.mark.netns
def test_without_offload_segments_fit_the_mtu_and_are_finished(
    left: Namespace, plain: TunDevice
) -> None:
    assert not plain.offload
    with left.socket() as client:
        peer = Peer(plain, client)
        client.sendall(bytes(CHUNK))
        received = 0
        while received < 10 * peer.mss:
            header, packet = read_packet(plain)
            assert header[0] & F_NEEDS_CSUM == 0
            assert header[1] == GSO_NONE
            assert packet.len <= 1500
            stated = packet[TCP].chksum
            del packet[TCP].chksum
            assert IP(bytes(packet))[TCP].chksum == stated
            received += len(packet[TCP].payload)


@pytest.mark.netns
@pytest.mark.parametrize("vnet_header", [True, False])
def test_datagrams_pass_both_ways(left: Namespace, vnet_header: bool) -> None:
    with left.tun(None, offload=False, vnet_header=vnet_header, mtu=1400) as device:
        assert device.vnet_header is vnet_header
        assert (device.name, device.mtu, device.created) == ("tun0", 1400, True)
        left.configure(device.name, addresses=[f"{KERNEL}/24"])
        with left.socket(kind=socket.SOCK_DGRAM) as client:
            client.bind((KERNEL, 4000))
            client.settimeout(5)
            client.sendto(b"out", (STACK, 5001))
            header, packet = read_packet(device)
            assert VNET_HDR.pack(*header) == VNET_HDR_NONE
            assert bytes(packet[UDP].payload) == b"out"
            answer = IP(src=STACK, dst=KERNEL) / UDP(sport=5001, dport=4000) / b"in"
            assert device.write(VNET_HDR_NONE, [bytes(answer)])
            assert client.recv(100) == b"in"


@pytest.mark.netns
def test_nothing_to_read_is_none_and_small_packets_stay_small(
    left: Namespace, offloading: TunDevice
) -> None:
    while offloading.read() is not None:
        pass
    assert offloading.read() is None
    with left.socket(kind=socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (STACK, 9))
    # The kernel may have said something about IPv6 in between.
    packet = next(p for p in iter(offloading.read, None) if p[VNET_HDR_LEN] >> 4 == 4)
    assert len(packet) == VNET_HDR_LEN + 20 + 8 + 1
    assert packet.__sizeof__() < 100


@pytest.mark.netns
def test_refused_writes_are_counted_by_reason(left: Namespace) -> None:
    with left.tun("tun0") as device:  # down: nothing is accepted
        packet = bytes(IP(src=STACK, dst=KERNEL) / UDP())
        assert not device.write(VNET_HDR_NONE, [packet])
        left.configure("tun0")
        assert not device.write(VNET_HDR_NONE, [b"\0" * 20])  # no IP version
        assert not device.write(VNET_HDR.pack(F_NEEDS_CSUM, GSO_NONE, 0, 0, 900, 16), [packet])
        assert device.write(VNET_HDR_NONE, [packet])
        assert device.refusals == {errno.EIO: 1, errno.EINVAL: 2}
        assert device.refused == 3


@pytest.mark.netns
def test_an_unfinished_packet_needs_the_header(left: Namespace) -> None:
    with left.tun("tun0", vnet_header=False) as device:
        assert not device.offload
        left.configure("tun0")
        packet = bytes(IP(src=STACK, dst=KERNEL) / UDP())
        assert not device.write(VNET_HDR.pack(F_NEEDS_CSUM, GSO_NONE, 0, 0, 20, 6), [packet])
        assert device.refusals == {errno.EINVAL: 1}


@pytest.mark.netns
def test_a_deleted_device_is_an_error_not_a_loss(left: Namespace) -> None:
    with left.tun("tun0") as device:
        left.configure("tun0")
        left.delete_link("tun0")
        with pytest.raises(DeviceError, match="'tun0' has gone"):
            device.read()
        with pytest.raises(DeviceError, match="'tun0' has gone"):
            device.write(VNET_HDR_NONE, [bytes(IP(src=STACK, dst=KERNEL))])
    with pytest.raises(DeviceError, match="'tun0' is closed"):
        device.read()
    device.close()


@pytest.mark.netns
def test_a_device_that_existed_is_attached_to_and_left_as_it_was(left: Namespace) -> None:
    left.output(["ip", "tuntap", "add", "dev", "tun7", "mode", "tun"])
    left.set_link("tun7", mtu=1300)
    with left.tun("tun7", mtu=1500) as device:
        assert not device.created
        assert device.mtu == 1300
    assert "mtu 1300" in left.output(["ip", "link", "show", "dev", "tun7"])


@pytest.mark.netns
def test_a_created_device_goes_with_its_last_descriptor(left: Namespace) -> None:
    descriptor = left.tun("tun7").detach()
    assert "tun7" in left.output(["ip", "link"])
    os.close(descriptor)
    assert "tun7" not in left.output(["ip", "link"])


@pytest.mark.netns
def test_a_name_in_use_or_of_another_kind(left: Namespace) -> None:
    with left.tun("tun0"), pytest.raises(DeviceError, match="in use by another program") as raised:
        left.tun("tun0")
    assert raised.value.errno == errno.EBUSY
    with pytest.raises(DeviceError, match="'lo' exists and is no single-queue TUN device"):
        left.tun("lo")


@pytest.mark.netns
def test_a_system_without_the_vnet_header_still_works(
    left: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pytun.TunTapDevice

    def old_kernel(name: str, flags: int) -> object:
        if flags & pytun.IFF_VNET_HDR:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name=name, flags=flags)

    monkeypatch.setattr(pytun, "TunTapDevice", old_kernel)
    with left.tun("tun0") as device:
        assert not device.vnet_header
        assert not device.offload


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "a/b", "a b", "eth0:1", "..", "%s", "ä" * 8, "tab\t"]
)
def test_bad_names_are_refused_before_the_kernel_is_asked(name: str) -> None:
    with pytest.raises(DeviceError, match="bad device name") as raised:
        TunDevice(name)
    assert raised.value.errno == errno.EINVAL


@pytest.mark.parametrize("mtu", [0, 67, 65_536])
def test_bad_mtus_are_refused(mtu: int) -> None:
    with pytest.raises(DeviceError, match=f"bad MTU {mtu}"):
        TunDevice("tun0", mtu=mtu)


@pytest.mark.parametrize(
    ("code", "what", "cure"),
    [
        (errno.ENOENT, "/dev/net/tun is missing", "modprobe tun"),
        (errno.ENODEV, "/dev/net/tun is missing", "modprobe tun"),
        (errno.EPERM, "no right to open TUN device 'tun0'", "unshare -Urn"),
        (errno.EACCES, "/dev/net/tun may not be opened by this user", "chmod 666 /dev/net/tun"),
        (errno.EBUSY, "in use", "choose another name"),
        (errno.EINVAL, "exists", "choose another name"),
        (errno.EMFILE, "cannot be opened", os.strerror(errno.EMFILE)),
    ],
)
def test_every_error_is_one_line_with_its_cure(
    code: int, what: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mptcp.tun.device.in_user_namespace", lambda: False)
    text = describe_open_failure(code, "tun0")
    assert what in text
    assert cure in text
    assert "\n" not in text


def test_a_user_namespace_is_no_cure_inside_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mptcp.tun.device.in_user_namespace", lambda: True)
    text = describe_open_failure(errno.EPERM, "tun0")
    assert "user namespace" not in text
    assert "unshare -n" in text


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_user_namespace_is_recognised() -> None:
    ask = "from mptcp.tun.device import in_user_namespace as f; print(f())"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.stdout, done.stderr) == ("True\n", "")


def give_up_rights() -> None:
    """Become nobody; where there is no such user (a user namespace), give up all capabilities."""
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    version_3 = struct.pack("=II", 0x20080522, 0)
    if ctypes.CDLL(None).capset(version_3, bytes(24)):
        raise OSError("capset failed")


def test_a_user_without_rights_is_told_what_to_do() -> None:
    """In a forked child that has given root up."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            give_up_rights()
            try:
                TunDevice("tun0")
            except DeviceError as error:
                os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told.startswith(("no right to open TUN device 'tun0': ", "/dev/net/tun is missing: "))
    assert "\n" not in told
