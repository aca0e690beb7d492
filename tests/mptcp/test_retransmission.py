"""Where data goes again that a subflow has not delivered: thesis §4.3.6, table 4.2, and SCTP-CMT's
policies (Iyengar et al. 2006); in each the first subflow repairs itself too (RFC 8684 §3.3.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.retransmission import P, Retransmission, policies
from mptcp.tcp.congestion import INFINITE_SSTHRESH
from mptcp.wire.tcp import ACK
from tests.mptcp.test_failover import SECOND_PATH, spans
from tests.peer import Peer, Wire, ms
from tests.transfers import exchange, network, open_programs, payload

NAMES = ["probe", "rto", "rtx-same", "rtx-asap", "rtx-cwnd", "rtx-ssthresh", "rtx-lossrate"]
THIRD_PATH = {"address": "10.0.2.2", "local": "10.0.2.1", "interface": 3}
MSS = 1376
"""What a segment of a joined flow carries: 1400 without timestamps, less a DSS."""


@dataclass
class View:
    """What a policy sees of a subflow."""

    path_index: int
    cwnd: int = 10_000
    ssthresh: int = INFINITE_SSTHRESH
    room: int = 1_000
    loss_rate: float = 0.0


def last(count: int) -> int:
    """A lot that falls on the last."""
    return count - 1


@pytest.mark.parametrize(
    ("name", "paths", "failed", "chosen"),
    [
        ("rto", [View(1), View(2)], 1, None),
        ("probe", [View(1), View(2)], 1, None),
        # "any destination for which the sender has cwnd space available"
        ("rtx-asap", [View(1), View(2), View(3), View(4, room=0)], 1, 3),
        ("rtx-asap", [View(1), View(2, room=0)], 1, None),
        # "the destination for which the sender has the largest cwnd", of equals by lot
        ("rtx-cwnd", [View(1), View(2, cwnd=20_000, room=0), View(3)], 1, 2),
        ("rtx-cwnd", [View(1, cwnd=30_000), View(2, cwnd=20_000)], 1, 1),
        ("rtx-cwnd", [View(1), View(2), View(3)], 1, 3),
        ("rtx-ssthresh", [View(1, ssthresh=5_000), View(2, ssthresh=9_000)], 1, 2),
        ("rtx-ssthresh", [View(1, ssthresh=5_000), View(2), View(3, ssthresh=9_000)], 1, 2),
        ("rtx-lossrate", [View(1, loss_rate=0.02), View(2, loss_rate=0.01)], 1, 2),
        ("rtx-lossrate", [View(1, loss_rate=0.01), View(2, loss_rate=0.02)], 1, 1),
    ],
)
def test_the_destination(name: str, paths: list[View], failed: int, chosen: int | None) -> None:
    """Iyengar et al. 2006, §IV: the definitions of the five, and the thesis's, which leaves it to
    whoever has room."""
    found = policies.get(name)(last).destination(paths, paths[failed - 1])
    assert (found.path_index if found else None) == chosen


def set_rtt(peer: Peer, rtt: int) -> None:
    """The stack measures it, and forgets what it measured before."""
    estimator = peer.subflow().snd.rtt
    estimator.srtt = 0
    estimator.sample(rtt, 0)


def flows(name: str, third: bool = False) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """A connection whose second subflow has five segments in flight, the first none."""
    wire = Wire(
        addresses=("10.0.0.1/24", "10.0.1.1/24", "10.0.2.1/24"),
        nodelay=True,
        pacing=False,
        retransmission=name,
    )
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, rtt=ms(50))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.join()
    set_rtt(second, ms(10))
    if third:
        other = first.beside(port=40002, local_port=5000, isn=5, **THIRD_PATH)
        other.join()
        set_rtt(other, ms(30))
    connection.send(bytes(5 * MSS))
    assert spans(second.drain())[-1][1] == 1 + 5 * MSS
    assert spans(first.drain()) == []
    return wire, connection, first, second


def lose_the_first(wire: Wire, second: Peer) -> None:
    """SACKs for all but the first segment: it is lost (RFC 8985 §6.2, RFC 6675 §5)."""
    wire.advance(wire.time + ms(12))
    second.send(ACK, ack=1, options=[second.sacked((1 + MSS, 1 + 5 * MSS)), second.dss(data_ack=1)])
    wire.advance(wire.time + ms(5))


@pytest.mark.parametrize("name", NAMES)
def test_a_single_loss(name: str) -> None:
    """Table 4.2, "3 duplicate ACKs": the thesis resends on the same subflow only; RTX-ASAP, -CWND,
    -SSTHRESH and -LOSSRATE on the other one too, each for a reason of its own."""
    wire, connection, first, second = flows(name)
    other = connection.subflows[0].snd
    other.cc.cwnd = 40 * MSS  # the largest, and its ssthresh is infinite
    lose_the_first(wire, second)
    assert spans(second.drain())[:1] == [(1, 1 + MSS)]
    cloned = name not in ("probe", "rto", "rtx-same")
    assert spans(first.drain()) == ([(1, 1 + MSS)] if cloned else [])
    assert connection.tx.retransmit.taken_bytes == (MSS if cloned else 0)


@pytest.mark.parametrize(
    ("name", "cloned"), [("rtx-cwnd", False), ("rtx-ssthresh", False), ("rtx-lossrate", False)]
)
def test_a_loss_that_stays(name: str, cloned: bool) -> None:
    """Iyengar et al. 2006: the destination may be the one that lost it, and that one repairs itself
    anyhow (RFC 8684 §3.3.6): nothing goes twice."""
    wire, connection, first, second = flows(name)
    other = connection.subflows[0].snd
    other.cc.cwnd = other.cc.ssthresh = 2 * MSS - 1
    other.bytes_sent = other.bytes_retransmitted = 100_000
    lose_the_first(wire, second)
    assert spans(second.drain())[:1] == [(1, 1 + MSS)]
    assert (spans(first.drain()) != []) == cloned
    assert connection.tx.used == 5 * MSS


@pytest.mark.parametrize("name", NAMES)
def test_a_time_out(name: str) -> None:
    """Figure 4.10: at a time-out all that the subflow has not delivered is cloned, and it repeats
    the first segment itself; RTX-SAME clones nothing."""
    wire, connection, first, second = flows(name)
    wire.advance(wire.time + ms(230))
    again = {span for span in spans(first.drain()) if span[0] == 1}
    assert spans(second.drain())  # RFC 8684 §3.3.6: it repairs itself whatever the others do
    if name == "rtx-same":
        assert again == set()
    else:
        assert {start for start, _ in again} == {1}
        first.send(ACK)
        assert connection.tx.used == 0


def test_rtx_same_ends_with_the_subflow() -> None:
    """§3.3.6: what a subflow leaves behind goes on the others whatever the policy."""
    wire, connection, first, second = flows("rtx-same")
    second.subflow().abort()
    assert spans(first.drain())[0][0] == 1
    first.send(ACK)
    assert connection.tx.used == 0
    assert wire.stack.counters["MPTcpExtMPTCPRetrans"] > 0


def test_only_what_is_outstanding_is_cloned() -> None:
    """Table 4.2: what was acknowledged at subflow level has no copy there any more, so a time-out
    does not clone it; it waits for its DATA_ACK."""
    wire, connection, first, second = flows("rto")
    second.send(ACK, ack=1 + 2 * MSS, options=[second.dss(data_ack=1)])
    wire.advance(wire.time + ms(400))
    assert min(start for start, _ in spans(first.drain())) == 1 + 2 * MSS
    assert connection.tx.una - connection.local_idsn == 1


@pytest.mark.parametrize(("rttvar", "after"), [(2, 20), (5, 30)])
def test_probe_begins_after_two_round_trips(rttvar: int, after: int) -> None:
    """RFC 8985 §7.2: PTO is 2 SRTT here; SRTT + 4 RTTVAR if that is more (RFC 6298 §2.3 without the
    floor): long before the time-out the other subflow has it all."""
    wire, connection, first, second = flows("probe")
    second.subflow().snd.rtt.rttvar = ms(rttvar)
    began = wire.time
    wire.advance(began + ms(after) - 100)
    assert spans(first.drain()) == []
    wire.advance(began + ms(after) + 100)
    sent = spans(first.drain())
    assert (sent[0][0], sent[-1][1]) == (1, 1 + 5 * MSS)
    assert spans(second.drain()) == [(1 + 4 * MSS, 1 + 5 * MSS)]  # TLP: the last again
    connection.send(b"x" * MSS)
    assert spans(second.drain()) == []
    assert spans(first.drain()) == [(1 + 5 * MSS, 1 + 6 * MSS)]
    first.send(ACK)
    assert connection.tx.used == 0


def test_an_unsteady_path_answers_in_time() -> None:
    """RFC 6298 §2.3: with an RTT that varies two round trips of silence are no sign."""
    wire, connection, first, second = flows("probe")
    wire.advance(wire.time + ms(25))
    second.send(ACK, ack=1 + MSS, options=[second.dss(data_ack=1 + MSS)])
    wire.advance(wire.time + ms(10))
    assert spans(first.drain()) == []
    assert connection.tx.retransmit.taken_bytes == 0
    connection.send(b"x" * MSS)
    assert spans(second.drain())[-1] == (1 + 5 * MSS, 1 + 6 * MSS)


def test_an_answer_withdraws_what_the_probe_began() -> None:
    """§3.3.6 lets a sender reinject when it likes; once the silent subflow answers it need not."""
    wire, connection, first, second = flows("probe")
    connection.subflows[0].snd.cc.cwnd = MSS  # room for one segment
    wire.advance(wire.time + ms(31))
    assert len(spans(first.drain())) == 1
    assert connection.tx.retransmit.items
    second.send(ACK, ack=1 + MSS, options=[second.dss(data_ack=1 + MSS)])
    assert not connection.tx.retransmit.items
    first.send(ACK)
    assert spans(first.drain()) == []


def test_what_waits_for_a_dead_target_is_for_any() -> None:
    """RTX-CWND may wait for room; when that subflow times out, others take what it was to carry."""
    wire, connection, first, second = flows("rtx-cwnd", third=True)
    one, two, three = connection.subflows
    three.snd.cc.cwnd = 60 * MSS
    chunk = connection.tx.chunks[0]
    connection.tx.retransmit.offer(chunk, three)
    assert connection.tx.retransmit.first_for(one) is None
    assert connection.tx.retransmit.first_for(two) is None  # it has carried it
    item = connection.tx.retransmit.first_for(three)
    assert item is not None
    connection.tx.retransmit.release(three)
    assert connection.tx.retransmit.first_for(one) is item
    assert len(first.drain()) == 0
    assert second.subflow() is two
    assert wire.stack.counters["MPTcpExtMPTCPRetrans"] == 0


def test_the_scheduler_chooses_among_several() -> None:
    """Thesis §4.3.6: "if several subflows are eligible for retransmission, the scheduler decides
    which one": the one with the least RTT, though another asks first."""
    wire, connection, first, _ = flows("rto", third=True)
    one, _, three = connection.subflows
    assert one.srtt > three.srtt
    wire.advance(wire.time + ms(230))
    assert spans(first.drain()) == []
    assert connection.tx.retransmit.taken_bytes == 5 * MSS
    assert three.snd.bytes_sent >= 5 * MSS


class Nowhere(Retransmission):
    """A third party's: whatever is lost, its own subflow repairs."""

    def destination(self, candidates: Sequence[P], failed: P) -> P | None:
        return failed


@pytest.fixture
def nowhere() -> Iterator[str]:
    policies.register("test-nowhere")(Nowhere)
    yield "test-nowhere"
    policies.unregister("test-nowhere")


def test_a_policy_of_somebody_else(nowhere: str) -> None:
    """Its answer is followed; the subflow goes on by itself (§3.3.6)."""
    wire, connection, first, second = flows(nowhere)
    wire.advance(wire.time + ms(300))
    assert spans(first.drain()) == []
    assert (1, 1 + MSS) in spans(second.drain())
    assert connection.tx.used == 5 * MSS


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_survives_a_cut(name: str) -> None:
    """§3.3.6: one of two paths is cut in mid-transfer and stays cut: every byte arrives."""
    sim, a, b, paths = network(
        23, paths=2, rate_bps=8_000_000, delay_us=10_000, a={"retransmission": name}
    )
    up = payload(2_000_000, 9)
    client, server = open_programs(a, b, up, b"")
    sim.run(600_000)
    sim.set_down(paths[1], True)
    exchange(sim, client, server, up, b"", limit_us=300_000_000)
    assert client.connection is not None
