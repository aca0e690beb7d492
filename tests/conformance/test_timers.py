"""Keep-alive (RFC 1122 §4.2.3.6, RFC 9293 §3.8.4), user timeout (RFC 5482, RFC 9293 §3.9.1)."""

from __future__ import annotations

from mptcp.wire.tcp import ACK, RST
from tests.conformance.vocabulary import Net
from tests.virtual import ms, seconds


def test_keepalive_probe(net: Net) -> None:
    """RFC 9293 §3.8.4: an idle connection is probed below SND.NXT, without data."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 3))
    net.mark()
    peer.expect_nothing(until=ms(900))
    probe = peer.expect(ACK, at=seconds(1), slack=ms(40))
    net.check(probe.seq == 0, f"{probe}: at SND.NXT - 1")
    net.check(len(probe.data) <= 1, f"{probe}: an octet at most")
    peer.send(ACK)
    peer.expect_nothing(until=net.time + ms(800))
    app.expect_state("ESTABLISHED")


def test_keepalive_answered(net: Net) -> None:
    """RFC 1122 §4.2.3.6: an answered probe starts the idle time again."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 1))
    for _ in range(2):
        peer.expect(ACK, within=ms(1100))
        peer.send(ACK)
    app.expect_state("ESTABLISHED")


def test_keepalive_gives_up(net: Net) -> None:
    """RFC 9293 §3.8.4: after so many probes without an answer the connection is over."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 2))
    peer.expect(ACK, within=ms(1100))
    peer.expect(ACK, within=ms(1100))
    last = peer.expect(within=ms(1200))
    net.check(bool(last.flags & RST), f"{last}: a RST, in case the peer is there after all")
    app.expect_error("timed out")


def test_keepalive_waits_for_idleness(net: Net) -> None:
    """RFC 1122 §4.2.3.6 (MUST): only when nothing has come for the idle time."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 2))
    net.mark()
    peer.send(ACK, data=b"x", at=ms(700))
    peer.expect(ACK, ack=2, within=ms(60))
    peer.expect_nothing(until=ms(1600))
    peer.expect(ACK, seq=0, ack=2, within=ms(300))


def test_keepalive_of_a_dead_peer(net: Net) -> None:
    """RFC 1122 §4.2.3.6: a peer that has forgotten the connection answers with a RST."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 3))
    probe = peer.expect(ACK, within=ms(1100))
    peer.send(RST, seq=probe.ack)
    app.expect_error("reset")


def test_user_timeout_of_data(net: Net) -> None:
    """RFC 5482 §1, RFC 9293 §3.9.1: data unacknowledged for so long ends the connection."""
    peer, app = net.established()
    app.set(user_timeout_ms=700)
    app.write(b"x")
    peer.expect(ACK, seq=1, length=1)
    net.mark()
    net.advance(ms(600))
    app.expect_state("ESTABLISHED")
    net.advance(ms(1600))
    app.expect_error("timed out")
    app.expect_state("CLOSED")


def test_user_timeout_is_refreshed(net: Net) -> None:
    """RFC 9293 §3.9.1: progress starts the time again."""
    peer, app = net.established()
    app.set(user_timeout_ms=800, nodelay=True)
    for n in range(1, 4):
        app.write(b"x")
        net.advance(net.time + ms(500))
        peer.drain()
        peer.send(ACK, ack=1 + n)
    app.expect_state("ESTABLISHED")


def test_user_timeout_of_an_idle_connection(net: Net) -> None:
    """RFC 5482 §1: it is about data that waits; an idle connection lasts."""
    peer, app = net.established()
    app.set(user_timeout_ms=300)
    peer.expect_nothing(until=net.time + ms(900))
    app.expect_state("ESTABLISHED")


def test_user_timeout_of_a_closed_window(net: Net) -> None:
    """RFC 5482 §1, RFC 9293 §3.8.6.1: a window that stays closed for so long ends it as well."""
    peer, app = net.established()
    app.set(user_timeout_ms=700)
    peer.send(ACK, window=0)
    app.write(b"x" * 1000)
    net.advance(net.time + ms(2000))
    app.expect_error("timed out")


def test_user_timeout_and_keepalive(net: Net) -> None:
    """RFC 5482 §4.2: with a user timeout it decides when probes have failed."""
    peer, app = net.established()
    app.set(keepalive=(1, 1, 5), user_timeout_ms=1500)
    peer.expect(ACK, within=ms(1100))
    net.advance(net.time + ms(1500))
    app.expect_error("timed out")
