"""RFC 9293 §3.10.7.4: every synchronized state against every kind of segment, with RFC 5961."""

from __future__ import annotations

import pytest

from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.conformance.peer import Peer
from tests.conformance.states import SYNCHRONIZED, lead
from tests.conformance.vocabulary import Net
from tests.options import Mss
from tests.virtual import ms

every_state = pytest.mark.parametrize("state", SYNCHRONIZED)
RECEIVING = ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2")
not_time_wait = pytest.mark.parametrize("state", SYNCHRONIZED[:-1])


def snd_nxt(state: str) -> int:
    """The system's SND.NXT in a state that `lead` made."""
    return 1 if state in ("ESTABLISHED", "CLOSE-WAIT") else 2


def alive(net: Net, peer: Peer, state: str) -> None:
    """The connection still knows its numbers: something out of window is answered with them."""
    peer.send(ACK, seq=peer.nxt + (1 << 29), data=b"?")
    peer.expect(ACK, seq=snd_nxt(state), ack=peer.nxt)


def gone(net: Net, peer: Peer) -> None:
    """The connection is CLOSED: what comes is answered with a RST (§3.10.7.1)."""
    peer.send(ACK, ack=77, data=b"?")
    answer = peer.expect(RST)
    net.check(answer.seq == 77, "<SEQ=SEG.ACK>")


@every_state
def test_reset_at_rcv_nxt(net: Net, state: str) -> None:
    """§3.10.7.4 second, RFC 5961 §3.2: a RST at RCV.NXT exactly ends the connection."""
    peer, app = lead(net, state)
    peer.send(RST)
    peer.expect_nothing()
    if state in ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2"):
        app.expect_error("reset")
    app.expect_state("CLOSED")
    gone(net, peer)


@every_state
def test_reset_in_the_window(net: Net, state: str) -> None:
    """RFC 5961 §3.2: elsewhere in the window a RST is challenged and changes nothing."""
    peer, _ = lead(net, state)
    nxt = peer.nxt
    peer.send(RST, seq=nxt + 1)
    if state == "TIME-WAIT":
        answers = net.differs(
            "RST in the window of TIME-WAIT: challenged as in the other states (RFC 5961 §3.2); "
            "Linux drops it",
            ours=1,
            kernel=0,
        )
        net.check(len(peer.drain()) == answers, f"{answers} challenge ACKs")
    else:
        peer.expect(ACK, seq=snd_nxt(state), ack=nxt)
    peer.send(RST | ACK, seq=nxt + 1000)
    if state != "TIME-WAIT":
        peer.expect(ACK, seq=snd_nxt(state), ack=nxt)
    peer.drain()
    peer.nxt = nxt
    alive(net, peer, state)


@every_state
def test_reset_outside_the_window(net: Net, state: str) -> None:
    """§3.10.7.4 first, RFC 5961 §3.2: a RST outside the window is dropped without an answer."""
    peer, _ = lead(net, state)
    for seq in (peer.nxt + (1 << 28), peer.nxt - 5000):
        peer.send(RST, seq=seq)
        peer.expect_nothing()
    alive(net, peer, state)


@every_state
def test_reset_at_the_fin(net: Net, state: str) -> None:
    """RFC 5961 §3.2: a RST one below RCV.NXT is outside the window too."""
    peer, _ = lead(net, state)
    peer.send(RST, seq=peer.nxt - 1)
    peer.expect_nothing()
    accepted = net.differs(
        "a RST at the number of the peer's FIN: outside the window (RFC 5961 §3.2); Linux takes it "
        "after a FIN, for the sake of peers that do not count theirs",
        ours=(),
        kernel=("CLOSE-WAIT", "CLOSING", "LAST-ACK"),
    )
    if state in accepted:
        gone(net, peer)
    else:
        alive(net, peer, state)


@not_time_wait
@pytest.mark.parametrize("offset", [-1, 0, 1000, 1 << 29])
def test_syn(net: Net, state: str, offset: int) -> None:
    """RFC 5961 §4.2: a SYN is challenged in every synchronized state, whatever its number."""
    peer, _ = lead(net, state)
    nxt = peer.nxt
    peer.send(SYN, seq=nxt + offset, options=[Mss(1460)])
    peer.expect(ACK, seq=snd_nxt(state), ack=nxt, length=0)
    peer.expect_nothing()
    peer.nxt = nxt
    alive(net, peer, state)


@not_time_wait
@pytest.mark.parametrize("offset", [-3000, 1 << 29])
def test_data_outside_the_window(net: Net, state: str, offset: int) -> None:
    """§3.10.7.4 first: unacceptable: answered with <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
    peer, app = lead(net, state)
    nxt = peer.nxt
    peer.send(ACK, seq=nxt + offset, data=b"?" * 1000)
    peer.expect(ACK, seq=snd_nxt(state), ack=nxt, length=0)
    peer.expect_nothing()
    if state in RECEIVING:
        app.expect_nothing_to_read()
    app.expect_state(state)


@not_time_wait
def test_ack_of_what_was_not_sent(net: Net, state: str) -> None:
    """§3.10.7.4 fifth: SEG.ACK > SND.NXT: send an ACK, drop the segment."""
    peer, app = lead(net, state)
    nxt = peer.nxt
    peer.send(ACK, ack=snd_nxt(state) + 1, data=b"?")
    peer.expect(ACK, seq=snd_nxt(state), ack=nxt, length=0)
    peer.expect_nothing(until=net.time + ms(60))
    if state in RECEIVING:
        app.expect_nothing_to_read()
    app.expect_state(state)


@not_time_wait
def test_ack_of_long_ago(net: Net, state: str) -> None:
    """RFC 5961 §5.2: SEG.ACK < SND.UNA - MAX.SND.WND: challenged, not processed."""
    peer, app = lead(net, state)
    nxt = peer.nxt
    peer.send(ACK, ack=-70000, data=b"?")
    peer.expect(ACK, seq=snd_nxt(state), ack=nxt, length=0)
    peer.expect_nothing(until=net.time + ms(60))
    if state in RECEIVING:
        app.expect_nothing_to_read()
    app.expect_state(state)


@not_time_wait
def test_without_ack(net: Net, state: str) -> None:
    """§3.10.7.4 fifth: if the ACK bit is off, drop the segment and return."""
    peer, app = lead(net, state)
    nxt = peer.nxt
    peer.send(0, seq=nxt, data=b"?")
    peer.expect_nothing(until=net.time + ms(60))
    peer.send(FIN, seq=nxt)
    peer.expect_nothing(until=net.time + ms(60))
    app.expect_state(state)
    peer.nxt = nxt
    alive(net, peer, state)


@pytest.mark.parametrize("state", RECEIVING)
def test_data(net: Net, state: str) -> None:
    """§3.10.7.4 seventh: ESTABLISHED and both FIN-WAITs take data."""
    peer, app = lead(net, state)
    peer.send(ACK, ack=1, data=b"hello")
    peer.expect(ACK, seq=snd_nxt(state), ack=6, within=ms(60))
    app.expect_read(b"hello")
    app.expect_state(state)


@pytest.mark.parametrize("state", ["CLOSE-WAIT", "CLOSING", "LAST-ACK"])
def test_data_after_the_fin(net: Net, state: str) -> None:
    """§3.10.7.4 seventh: after the peer's FIN there can be no data: it is ignored.

    Beyond RCV.NXT + 0 it is not acceptable either (the peer's FIN ends the window in effect).
    """
    peer, app = lead(net, state)
    nxt = peer.nxt
    peer.send(ACK, seq=nxt, ack=1, data=b"more")
    acks = [seen.ack for seen in peer.drain()]
    net.check(all(ack == nxt for ack in acks), f"{acks}: the data is not acknowledged")
    if state == "CLOSE-WAIT":
        app.expect_end()


@pytest.mark.parametrize(
    ("state", "then"),
    [("ESTABLISHED", "CLOSE-WAIT"), ("FIN-WAIT-1", "CLOSING")],
)
def test_fin(net: Net, state: str, then: str) -> None:
    """§3.10.7.4 eighth: the FIN is acknowledged and moves the state on."""
    peer, app = lead(net, state)
    peer.send(FIN | ACK, ack=1)
    peer.expect(ACK, seq=snd_nxt(state), ack=2, within=ms(60))
    app.expect_state(then)
    app.expect_end()


def test_fin_that_acknowledges_ours(net: Net) -> None:
    """§3.10.7.4 eighth, FIN-WAIT-1: with our FIN acknowledged, straight to TIME-WAIT."""
    peer, app = lead(net, "FIN-WAIT-1")
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    app.expect_end()
    time_wait(net, peer)


def test_fin_in_fin_wait_2(net: Net) -> None:
    """§3.10.7.4 eighth, FIN-WAIT-2: acknowledge, TIME-WAIT."""
    peer, app = lead(net, "FIN-WAIT-2")
    peer.send(FIN | ACK, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    app.expect_end()
    time_wait(net, peer)


def time_wait(net: Net, peer: Peer) -> None:
    """The connection is in TIME-WAIT: the peer's FIN again is acknowledged again (§3.10.7.4)."""
    peer.send(FIN | ACK, seq=peer.nxt - 1, ack=2)
    peer.expect(ACK, seq=2, ack=peer.nxt)


def test_ack_in_closing(net: Net) -> None:
    """§3.10.7.4 fifth, CLOSING: the ACK of our FIN leads to TIME-WAIT."""
    peer, _ = lead(net, "CLOSING")
    peer.send(ACK, ack=2)
    peer.expect_nothing()
    time_wait(net, peer)


def test_ack_in_last_ack(net: Net) -> None:
    """§3.10.7.4 fifth, LAST-ACK: the ACK of our FIN ends the connection."""
    peer, app = lead(net, "LAST-ACK")
    peer.send(ACK, ack=2)
    peer.expect_nothing()
    app.expect_state("CLOSED")
    gone(net, peer)


def test_ack_in_fin_wait_1(net: Net) -> None:
    """§3.10.7.4 fifth, FIN-WAIT-1: the ACK of our FIN leads to FIN-WAIT-2."""
    peer, app = lead(net, "FIN-WAIT-1")
    peer.send(ACK, ack=1)
    app.expect_state("FIN-WAIT-1")
    peer.send(ACK, ack=2)
    app.expect_state("FIN-WAIT-2")
    peer.expect_nothing()


@pytest.mark.parametrize("state", ["CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"])
def test_fin_again(net: Net, state: str) -> None:
    """§3.10.7.4 first, eighth: the FIN again is acknowledged again, the state stays."""
    peer, app = lead(net, state)
    peer.send(FIN | ACK, seq=peer.nxt - 1, ack=1 if state != "TIME-WAIT" else 2)
    peer.expect(ACK, seq=snd_nxt(state), ack=2)
    peer.expect_nothing()
    if state != "TIME-WAIT":
        app.expect_state(state)


@pytest.mark.parametrize("state", ["FIN-WAIT-1", "CLOSING", "LAST-ACK"])
def test_fin_is_repeated(net: Net, state: str) -> None:
    """§3.8.1: our FIN takes a number and is repeated until it is acknowledged."""
    peer, _ = lead(net, state)
    again = peer.expect(FIN | ACK, seq=1, within=ms(300))
    net.check(again.ack == peer.nxt, "with the newest ACK")
    peer.send(ACK, ack=2)
    peer.expect_nothing(until=net.time + ms(50))


@pytest.mark.parametrize("state", ["ESTABLISHED", "CLOSE-WAIT"])
def test_send(net: Net, state: str) -> None:
    """§3.10.2: both states send."""
    peer, app = lead(net, state)
    app.write(b"hello")
    peer.expect(ACK, seq=1, ack=peer.nxt, data=b"hello")
    peer.send(ACK, ack=6)
    peer.expect_nothing()


@pytest.mark.parametrize("state", ["FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT"])
def test_send_after_close(net: Net, state: str) -> None:
    """§3.10.2: after CLOSE a SEND is an error."""
    peer, app = lead(net, state)
    app.expect_write_refused()
    peer.expect_nothing()


def abort_case(state: str) -> bool:
    """Whether ABORT sends a RST in this state (§3.10.5)."""
    return state in ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT")


@not_time_wait
def test_abort(net: Net, state: str) -> None:
    """§3.10.5: ABORT sends <SEQ=SND.NXT><CTL=RST> in the states that may still send or receive."""
    peer, app = lead(net, state)
    nxt = peer.nxt
    app.abort()
    if abort_case(state):
        reset = peer.expect(length=0)
        net.check(bool(reset.flags & RST), f"{reset} is a RST")
        net.check(reset.seq == snd_nxt(state), f"at {reset.seq}")
    else:
        resets = net.differs(
            "ABORT in CLOSING and LAST-ACK: RFC 9293 §3.10.5 sends nothing; we tell the peer, "
            "which may still wait for an ACK",
            ours=1,
            kernel=0,
        )
        got = peer.drain()
        net.check(len(got) == resets, f"{len(got)} resets")
    peer.nxt = nxt
    peer.send(ACK, ack=77, data=b"?")
    peer.expect(RST)


def test_half_open_discovery(net: Net) -> None:
    """§3.5.1: a peer that has crashed opens anew: challenged, it resets us, and tries again."""
    peer, app = net.established(active=False)
    crashed = peer.nxt + 100_000  # its new ISN, anywhere
    peer.send(SYN, seq=crashed, options=[Mss(1460)])
    answer = peer.expect(ACK, seq=1, ack=1)
    peer.send(RST, seq=answer.ack)  # §3.10.7.3 first: <SEQ=SEG.ACK><CTL=RST>
    app.expect_error("reset")
    peer.send(SYN, seq=crashed, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=crashed + 1)


def test_half_open_discovery_by_data(net: Net) -> None:
    """§3.5.1 figure 11: we send into a connection that the peer has forgotten."""
    peer, app = net.established()
    app.write(b"x")
    peer.expect(ACK, seq=1, length=1)
    peer.send(RST, seq=1)
    app.expect_error("reset")
    app.expect_write_refused()
    gone(net, peer)


def test_challenge_acks_are_limited(net: Net) -> None:
    """RFC 5961 §7: challenge ACKs of one connection do not answer a flood one by one."""
    net.tune("challenge_acks_per_second", 5, "tcp_invalid_ratelimit", 500)
    peer, app = net.established()
    for _ in range(50):
        peer.send(RST, seq=1000)
    low, high = net.differs(
        "the limit on challenge ACKs: of the host, about `Config.challenge_acks_per_second` "
        "(RFC 5961 §7); Linux answers one per connection in 500 ms as well",
        ours=(3, 7),
        kernel=(1, 1),
    )
    got = len(peer.drain())
    net.check(low <= got <= high, f"{got} challenge ACKs for 50 resets")
    app.expect_state("ESTABLISHED")
    peer.send(ACK, seq=1, data=b"x")
    peer.expect(ACK, ack=2, within=ms(60))
