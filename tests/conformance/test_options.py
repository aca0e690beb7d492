"""Options: MSS (RFC 6691), window scale and timestamps (RFC 7323), and what is no known option."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.conformance.peer import Peer
from tests.conformance.vocabulary import App, Net
from tests.options import Mss, SackPermitted, Timestamps, WindowScale, has, lacks
from tests.virtual import ms


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes in the place of an option."""

    block: bytes

    def emit(self) -> bytes:
        return self.block


@pytest.mark.parametrize("mtu", [1500, 1400, 1280])
def test_mss_offered(net: Net, mtu: int) -> None:
    """RFC 6691 §2: the MTU less 40, whatever options segments will carry."""
    net.configure(mtu=mtu)
    peer = net.peer()
    net.connected(peer)
    peer.expect(SYN, options=has(Mss(mtu - 40)))


@pytest.mark.parametrize("mss", [100, 536, 1000, 1460, 9000])
def test_segments_respect_the_mss(net: Net, mss: int) -> None:
    """RFC 9293 §3.7.1 (MUST-16): Eff.snd.MSS = min(SendMSS, MMS_S) less options."""
    peer, app = net.established(mss=mss)
    app.write(b"x" * 5 * min(mss, 1460))
    for n in range(5):
        peer.expect(ACK, seq=1 + n * min(mss, 1460), length=min(mss, 1460))


def test_mss_counts_options(net: Net) -> None:
    """RFC 6691 §3: the sender takes the options it adds from the MSS."""
    peer, app = net.established(mss=1000, timestamps=True)
    app.write(b"x" * 2000)
    peer.expect(ACK, seq=1, length=988, options=has(Timestamps))
    peer.expect(ACK, seq=989, length=988)


@pytest.mark.parametrize(("ipv6", "mss"), [(False, 536), (True, 1220)])
def test_default_mss(net: Net, ipv6: bool, mss: int) -> None:
    """RFC 9293 §3.7.1 (MUST-15): without the option 536 over IPv4, 1220 over IPv6."""
    peer, app = net.established(mss=None, ipv6=ipv6)
    app.write(b"x" * 2 * mss)
    peer.expect(ACK, seq=1, length=mss)
    peer.expect(ACK, seq=1 + mss, length=mss)


@pytest.mark.parametrize("mss", [0, 1, 40])
def test_tiny_mss(net: Net, mss: int) -> None:
    """RFC 9293 §3.7.1: a tiny MSS is raised to a floor that cannot be an attack on the CPU."""
    peer, app = net.established(mss=mss)
    app.write(b"x" * 3000)
    first = peer.expect(ACK, seq=1)
    floor = net.differs(
        "the least send MSS: 88, so that MPTCP's options leave room for payload; Linux: "
        "`tcp_min_snd_mss` 48 with the options",
        ours=88,
        kernel=48,
    )
    wanted = 536 if mss == 0 else floor
    net.check(len(first.data) == wanted, f"{len(first.data)} bytes in a segment")


def test_window_of_a_syn_is_not_scaled(net: Net) -> None:
    """RFC 7323 §2.2: the window of a SYN or SYN/ACK is taken as it stands."""
    peer, app = net.established(wscale=7, window=1000)
    app.set(nodelay=True)
    app.write(b"x" * 5000)
    net.check(sum(len(seen.data) for seen in peer.drain()) == 1000, "1000 bytes, not 128,000")
    peer.send(ACK, ack=1001, window=1000 >> 3)  # 16,000 now
    net.check(sum(len(seen.data) for seen in peer.drain()) == 4000, "all the rest")


def test_windows_are_scaled(net: Net) -> None:
    """RFC 7323 §2.3: SND.WND = SEG.WND << Snd.Wind.Shift in every segment after the SYN."""
    peer, app = net.established(wscale=4, window=5000)
    peer.send(ACK, window=100)  # 1600
    app.set(nodelay=True)
    app.write(b"x" * 1600)
    peer.expect(ACK, seq=1, length=1460)
    peer.expect(ACK, seq=1461, length=140)


@pytest.mark.parametrize("shift", [14, 15, 255])
def test_window_scale_above_14(net: Net, shift: int) -> None:
    """RFC 7323 §2.3: a shift above 14 is used as 14."""
    peer, app = net.established(wscale=shift, window=64000)
    peer.send(ACK, window=1)  # 16,384
    app.write(b"x" * 60000)
    first = sum(len(seen.data) for seen in peer.drain())
    net.check(first == 14600, f"{first}: the initial window, IW10")
    peer.send(ACK, window=1)
    second = sum(len(seen.data) for seen in peer.drain())
    net.check(14600 <= second <= 16384, f"{second}: what a window of 16,384 allows")


def test_own_window_is_scaled(net: Net) -> None:
    """RFC 7323 §2.3: our window field is shifted by what our SYN said, in ACKs and data."""
    peer, app = net.established(wscale=7)
    net.check(peer.stack_wscale > 0, "the SYN offered a scale")
    peer.send(ACK, data=b"x" * 1460)
    app.expect_read(b"x" * 1460)
    seen = peer.expect(ACK, ack=1461, within=ms(60))
    edge = seen.window << peer.stack_wscale
    net.check(32_000 <= edge <= 64 << 20, f"a window of {edge}")


def test_timestamps_on_every_segment(net: Net) -> None:
    """RFC 7323 §3.2: once agreed, in every segment but RSTs."""
    peer, app = net.established(timestamps=True)
    app.set(nodelay=True)
    app.write(b"x" * 2000)
    peer.expect(ACK, seq=1, options=has(Timestamps))
    peer.expect(ACK, seq=1449, options=has(Timestamps))
    peer.send(ACK, data=b"y" * 1000)
    peer.expect(ACK, ack=1001, options=has(Timestamps), within=ms(60))
    app.expect_read(b"y" * 1000)
    app.shutdown()
    peer.expect(FIN | ACK, options=has(Timestamps))


def test_no_timestamps_without_agreement(net: Net) -> None:
    """RFC 7323 §3.2: not agreed: never sent."""
    peer, app = net.established(timestamps=False)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1, options=lacks(Timestamps))
    peer.send(ACK, data=b"y" * 1000, options=[Timestamps(5, 5)])
    peer.expect(ACK, ack=1001, options=lacks(Timestamps), within=ms(60))


def stamped(val: int) -> Timestamps:
    """A timestamp option with a TSval relative to a start that is far from the clock's zero."""
    return Timestamps(1_000_000 + val, 0)


def test_echo_of_the_newest(net: Net) -> None:
    """RFC 7323 §4.3: TSecr is the TSval of the last segment that moved RCV.NXT."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460), SackPermitted(), stamped(0)])
    answer = peer.expect(SYN | ACK)
    net.check(answer.option(Timestamps).ecr == 1_000_000, "the SYN's TSval is echoed")
    peer.send(ACK, options=[stamped(1)])
    app = listener.expect_accept()
    for n in range(2, 6):
        peer.send(ACK, data=b"x" * 1460, options=[stamped(n)])
        app.expect_read(b"x" * 1460)
        seen = peer.drain()
        net.check(
            all(s.option(Timestamps).ecr == 1_000_000 + n for s in seen), f"{n} is echoed: {seen}"
        )


def passive(net: Net) -> tuple[Peer, App]:
    """A connection accepted from a peer whose clock the script sets."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460), SackPermitted(), stamped(0)])
    peer.expect(SYN | ACK)
    peer.send(ACK, options=[stamped(0)])
    app = listener.expect_accept()
    net.mark()
    return peer, app


def test_echo_with_a_delayed_ack(net: Net) -> None:
    """RFC 7323 §4.3, §4.2 (A): an ACK for several segments echoes the earliest of them."""
    peer, app = passive(net)
    app.set(quickack=False)
    peer.send(ACK, data=b"x" * 1000, options=[stamped(10)])
    peer.send(ACK, data=b"x" * 100, options=[stamped(11)])
    seen = peer.expect(ACK, ack=1101, within=ms(60))
    net.check(seen.option(Timestamps).ecr == 1_000_010, f"{seen}: the earliest TSval")


def test_echo_beyond_a_hole(net: Net) -> None:
    """RFC 7323 §4.2 (B), (C): not what came out of order, but what fills the hole, is echoed."""
    peer, app = passive(net)
    peer.send(ACK, seq=1001, data=b"x" * 1000, options=[stamped(20)])
    seen = peer.expect(ACK, ack=1)
    net.check(seen.option(Timestamps).ecr == 1_000_000, f"{seen}: the last in order")
    peer.send(ACK, seq=1, data=b"x" * 1000, options=[stamped(21)])
    seen = peer.expect(ACK, ack=2001, within=ms(60))
    net.check(seen.option(Timestamps).ecr == 1_000_021, f"{seen}: what filled the hole")
    app.expect_read(b"x" * 2000)


def test_paws(net: Net) -> None:
    """RFC 7323 §5.3 R1: a TSval before TS.Recent: the segment is acknowledged and dropped."""
    peer, app = passive(net)
    peer.send(ACK, data=b"new", options=[stamped(1000)])
    peer.expect(ACK, ack=4, within=ms(60))
    app.expect_read(b"new")
    peer.send(ACK, data=b"old", options=[stamped(500)])
    peer.expect(ACK, ack=4, length=0)
    app.expect_nothing_to_read()
    peer.send(ACK, seq=4, data=b"now", options=[stamped(1001)])
    peer.expect(ACK, ack=7, within=ms(60))
    app.expect_read(b"now")


def test_paws_spares_resets(net: Net) -> None:
    """RFC 7323 §5.2: a RST is taken whatever its timestamp."""
    peer, app = passive(net)
    peer.send(ACK, data=b"new", options=[stamped(1000)])
    app.expect_read(b"new")
    peer.drain()
    peer.send(RST, options=[stamped(10)])
    app.expect_error("reset")


def test_paws_wraps(net: Net) -> None:
    """RFC 7323 §5.3: timestamps are compared modulo 2^32."""
    listener = net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Mss(1460), Timestamps(0xFFFFFFF0, 0)])
    peer.expect(SYN | ACK)
    peer.send(ACK, options=[Timestamps(0xFFFFFFF1, 0)])
    app = listener.expect_accept()
    peer.send(ACK, data=b"x", options=[Timestamps(5, 0)])
    peer.expect(ACK, ack=2, within=ms(60))
    app.expect_read(b"x")


def test_segment_without_a_timestamp(net: Net) -> None:
    """RFC 7323 §3.2 says SHOULD drop; like Linux we take it: a middlebox may have stripped it."""
    peer, app = passive(net)
    peer.send(ACK, data=b"bare")
    peer.expect(ACK, ack=5, options=has(Timestamps), within=ms(60))
    app.expect_read(b"bare")


def test_ack_with_an_old_timestamp(net: Net) -> None:
    """RFC 7323 §5.3 R1: PAWS holds for bare ACKs too; one that is merely late is acknowledged."""
    peer, app = passive(net)
    app.write(b"x" * 1000)
    peer.expect(ACK, seq=1, length=1000)
    peer.send(ACK, data=b"y", options=[stamped(1000)], ack=1)
    peer.drain()
    app.expect_read(b"y")
    peer.send(ACK, ack=1001, options=[stamped(-5000)])
    peer.drain()
    peer.expect(ACK, seq=1, length=1000, within=ms(400))  # it was not acknowledged


def test_clock_runs(net: Net) -> None:
    """RFC 7323 §5.4: TSval is a clock of 1 ms to 1 s per tick; both systems tick each 1 ms."""
    peer, app = net.established(timestamps=True)
    app.set(nodelay=True)
    app.write(b"x")
    first = peer.expect(ACK, seq=1, length=1)
    peer.send(ACK)
    net.advance(ms(500))
    app.write(b"x")
    second = peer.expect(ACK, seq=2, length=1)
    gap = (second.option(Timestamps).val - first.option(Timestamps).val) & 0xFFFFFFFF
    took = (second.sent_at - first.sent_at) // 1000
    net.check(abs(gap - took) <= 5, f"{gap} ticks in {took} ms")


@pytest.mark.parametrize(
    "block",
    [
        b"\xfd\x06\x12\x34\x56\x78\x01\x01",
        b"\x4d\x12" + bytes(16) + b"\x01\x01",
        b"\x00\xff\xff\xff",
        b"\x02\x04\x01\x00",
        b"\x03\x03\x09\x01",
        b"\x08\x00\x01\x01",
        b"\x05\x09" + bytes(8) + b"\x01\x01",
        b"\xff\x28\x01\x01",
        b"\x01\x01\x01\x08",
    ],
)
def test_unknown_and_malformed_options(net: Net, block: bytes) -> None:
    """RFC 9293 §3.1 (MUST-6, MUST-7): unknown options are skipped, malformed ones do no harm."""
    peer, app = net.established()
    peer.send(ACK, data=b"hello", options=[Raw(block)])
    peer.expect(ACK, ack=6, within=ms(60))
    app.expect_read(b"hello")


@pytest.mark.parametrize(
    "block", [b"\xfd\x04\x12\x34", b"\x1c\x04\x80\x05", b"\x01\x01\x01\x01", b"\x02\x03\x05\x01"]
)
def test_unknown_options_of_a_syn(net: Net, block: bytes) -> None:
    """RFC 9293 §3.1 (MUST-6): a SYN with an option we do not know is answered as if without."""
    net.listen(5000)
    peer = net.peer(local_port=5000)
    peer.send(SYN, options=[Raw(block), SackPermitted()])
    peer.expect(SYN | ACK, ack=1, options=has(SackPermitted()))


def test_scale_outside_a_syn(net: Net) -> None:
    """RFC 7323 §2.2: window scale in a segment without SYN is ignored."""
    peer, app = net.established(window=1000)
    peer.send(ACK, options=[WindowScale(5)], window=1000)
    app.set(nodelay=True)
    app.write(b"x" * 3000)
    net.check(sum(len(seen.data) for seen in peer.drain()) == 1000, "a window of 1000")
