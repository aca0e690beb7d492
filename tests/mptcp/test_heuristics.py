"""When subflows are opened and closed: the heuristics of thesis §4.6, by numbers and end to end."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.addressing import parse_address
from mptcp.config import DEFAULT_HEURISTICS
from mptcp.heuristics import Flow, FlowPath, Heuristic, check_heuristics, heuristics
from mptcp.heuristics.rules import parse
from mptcp.meta_socket import MetaSocket
from mptcp.policies import Policies
from mptcp.sim import LinkChange
from mptcp.sim.network import SimHost, Simulation
from mptcp.wire.mptcp_options import RST_UNACCEPTABLE_PERFORMANCE, MpJoinSyn, MpTcprst
from mptcp.wire.tcp import ACK, RST, SYN
from tests.peer import Peer, Wire, ms
from tests.transfers import Path, Program, exchange, network, open_programs, payload

RTT_US = 20_000
TWO = ("10.0.0.1/24", "10.0.1.1/24")


def pair(rule: str, **link: Any) -> tuple[Simulation, SimHost, SimHost]:
    """Two hosts with two paths of 10 Mbit/s and `RTT_US`; the client has the rule."""
    values: dict[str, Any] = {"rate_bps": 10_000_000, "delay_us": RTT_US // 2, **link}
    sim, a, b, _ = network(
        1,
        paths=2,
        a={"heuristics": rule, "nodelay": True},
        b={"nodelay": True},
        **values,
    )
    return sim, a, b


def joined_at(
    rule: str, up: int, down: int = 0, *, writes: list[int] | None = None, **link: Any
) -> int | None:
    """µs after the confirmation at which the client sends its MP_JOIN; None: not at all."""
    sim, a, b = pair(rule, **link)
    sent, received = payload(up), payload(down, 1)
    client, server = open_programs(a, b, sent, received, writes=writes or ())
    connection = client.connection
    assert connection is not None
    confirmed: int | None = None
    joined: int | None = None

    def look() -> bool:
        nonlocal confirmed, joined
        if confirmed is None and connection.confirmed:
            confirmed = sim.now
        if joined is None and a.stack.counters["MPTcpExtMPJoinSynTx"]:
            joined = sim.now
        return client.done and server.done

    sim.run(60_000_000, until=look)
    exchange(sim, client, server, sent, received)
    if joined is None:
        return None
    assert confirmed is not None
    return joined - confirmed


# -- the text ------------------------------------------------------------------------------------


def test_rules_by_port() -> None:
    """The first entry that fits holds; a port in none has the default."""
    text = "22=after-time:1; 80-443=never, close-costly ;*=at-once"
    assert [type(rule).__name__ for rule in parse(text, 22)] == ["AfterTime"]
    assert [type(rule).__name__ for rule in parse(text, 443)] == ["Never", "CloseCostly"]
    assert [type(rule).__name__ for rule in parse(text, 444)] == ["AtOnce"]
    default = [type(rule) for rule in parse(DEFAULT_HEURISTICS, 1)]
    assert [type(rule) for rule in parse("22=never", 23)] == default
    assert parse("never", 1)[0] is not parse("never", 1)[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonesuch", "unknown heuristic 'nonesuch': use one of after-bytes, "),
        ("after-bytes", "heuristic after-bytes takes bytes from 0 to 1.09951e.12, not ''"),
        ("after-rtts:many", "heuristic after-rtts takes round trips from 0 to 1000, not 'many'"),
        ("at-once:1", "heuristic at-once takes no argument, '1' was given"),
        ("at-once,", "'at-once,' names an empty rule"),
        ("", "names an empty rule"),
        ("80=at-once; never", "'never' is not ports=rules"),
        ("0=at-once", "'0' is not a port, a range such as 1-1023, or *"),
        ("http=at-once", "'http' is not a port"),
        ("9-8=at-once", "'9-8' is not a port"),
    ],
)
def test_errors_are_clear(text: str, complaint: str) -> None:
    """They say what was meant to be there; a host with such a text does not start."""
    with pytest.raises(ValueError, match=complaint):
        check_heuristics(text)
    with pytest.raises(ValueError, match=complaint):
        network(1, a={"heuristics": text})


# -- opening -------------------------------------------------------------------------------------


def test_at_once_joins_with_the_confirmation() -> None:
    """RFC 8684 §3.1: not before MPTCP is confirmed; the peer's ADD_ADDR is waited for."""
    at = joined_at("at-once", 1000)
    assert at is not None
    assert at <= RTT_US


def test_never_keeps_to_the_first_path() -> None:
    """Thesis §4.6: as for a port where a second subflow is not wanted."""
    assert joined_at("never", 1_000_000) is None


@pytest.mark.parametrize(("up", "down"), [(40_000, 0), (0, 40_000)])
def test_after_bytes_counts_both_ways(up: int, down: int) -> None:
    """Thesis §4.6: not for a flow that is too short."""
    assert joined_at("after-bytes:50000", up, down) is None
    assert joined_at("after-bytes:30000", up, down) is not None


def test_what_is_written_counts_before_it_is_sent() -> None:
    """Thesis §4.6: who hands over 128 KiB, the first send buffer, has a long flow: the join is not
    later than without a rule."""
    assert joined_at("after-bytes:120000", 1_000_000) == joined_at("at-once", 1_000_000)


def test_write_size_looks_at_one_write() -> None:
    """Thesis §4.6: the size of the write operations, which may be small where the flow is not, and
    larger than what the send buffer takes."""
    assert joined_at("write-size:50000", 100_000, writes=[10_000] * 10) is None
    assert joined_at("write-size:50000", 100_000, writes=[10_000, 90_000]) is not None
    assert joined_at("write-size:400000", 500_000) == joined_at("at-once", 500_000)


def test_after_time() -> None:
    """Thesis §4.6: after some time regardless, for the sake of survival."""
    at = joined_at("after-time:0.5", 1_000_000)
    assert at is not None
    assert 500_000 <= at <= 510_000
    assert joined_at("after-time:2", 1_000_000) is None


def test_after_time_opens_for_an_idle_connection() -> None:
    """No data is needed: the timer is the connection's own."""
    sim, a, b = pair("after-time:2")
    client, _ = open_programs(a, b, b"", payload(10))
    client.shuts_down = False
    sim.run(1_500_000)
    assert client.connection is not None
    assert client.connection.confirmed
    assert len(client.connection.subflows) == 1
    sim.run(1_000_000)
    assert len(client.connection.subflows) == 2


def test_after_rtts() -> None:
    """Thesis §5.4.2: wait two round trips."""
    at = joined_at("after-rtts:8", 1_000_000)
    assert at is not None
    assert 7.9 * RTT_US <= at <= 9 * RTT_US


@pytest.mark.parametrize(("up", "down"), [(2_000_000, 0), (0, 2_000_000)])
def test_after_slow_start(up: int, down: int) -> None:
    """Thesis §4.6: the window of 10 segments has to double a few times until 10 Mbit/s and the
    queue are full; the side that only receives sees it too."""
    at = joined_at("after-slow-start", up, down, rate_bps=20_000_000, queue_bytes=40_000)
    assert at is not None
    assert 2 * RTT_US <= at <= 14 * RTT_US


def test_slow_start_that_does_not_end_opens_nothing() -> None:
    """Thesis §4.6: 30 kB never fill the path."""
    assert joined_at("after-slow-start", 30_000) is None


def test_network_limited() -> None:
    """Thesis §4.6: small writes that leave the window open do not need another path, much data
    does, whichever way it goes."""
    assert joined_at("network-limited:2", 2_000_000) is not None
    assert joined_at("network-limited:2", 0, 2_000_000) is not None
    assert joined_at("network-limited:2", 10_000) is None
    assert joined_at("network-limited:2", 0, 10_000) is None


def test_application_limited_opens_nothing() -> None:
    """Thesis §4.6: a message every 100 ms is paced by the application, on either side."""
    sim, a, b = pair("network-limited:2")
    client, server = open_programs(a, b, b"", b"")
    for program in (client, server):
        program.shuts_down = False
    for _ in range(20):
        sim.run(100_000)
        for program in (client, server):
            program.outgoing = memoryview(payload(8_000))
            program.write()
    assert client.connection is not None
    assert len(client.connection.subflows) == 1


def test_the_default_leaves_short_flows_alone() -> None:
    """Thesis fig. 5.13: nine packets have no packet more than they need; 100 kB have both paths."""
    assert joined_at(DEFAULT_HEURISTICS, 9 * 1428) is None
    assert joined_at(DEFAULT_HEURISTICS, 0, 9 * 1428) is None
    assert joined_at(DEFAULT_HEURISTICS, 100_000) == joined_at("at-once", 100_000)


def test_a_plain_tcp_connection_is_not_asked() -> None:
    """A peer without MPTCP: the heuristics are done with it when the first data moves."""
    sim, a, b, _ = network(2, paths=2, a={"heuristics": "after-bytes:1"}, b={"mptcp": False})
    client, server = open_programs(a, b, payload(50_000), b"")
    exchange(sim, client, server, payload(50_000), b"")
    assert client.connection is not None
    assert client.connection.fallback
    assert not client.connection.asking


@heuristics.register("test-evening")
class Evening(Heuristic):
    """Somebody else's: opens when the host's clock says so, and asks for its own timer."""

    def opens(self, flow: Flow) -> bool:
        return flow.now >= 5_000_000

    def deadline(self, flow: Flow) -> int:
        return 5_000_000


def test_third_party_heuristic() -> None:
    """It is named like the others, and asked at the time it wants."""
    sim, a, b = pair("test-evening")
    client, _ = open_programs(a, b, payload(1_000_000), b"")
    client.shuts_down = False
    sim.run(4_990_000 - sim.now)
    assert client.connection is not None
    assert len(client.connection.subflows) == 1
    sim.run(100_000)
    assert len(client.connection.subflows) == 2


# -- stalls --------------------------------------------------------------------------------------


@pytest.mark.mib("MPTcpExtHeuristicsOverruled")
def test_a_stall_opens_what_is_held_back() -> None:
    """Thesis §4.6: a stalled subflow must not prevent another one, precisely when it is needed:
    the first time-out opens it."""
    wire = Wire(addresses=TWO, heuristics="never", nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    second = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    connection.send(b"x" * 100)
    peer.expect(ACK, data=b"x" * 100)
    wire.advance(ms(150))
    second.expect_nothing()
    wire.advance(ms(700))
    assert second.expect(SYN).option(MpJoinSyn)
    assert wire.stack.counters["MPTcpExtHeuristicsOverruled"] == 1


def test_a_transfer_survives_the_only_path() -> None:
    """RFC 8684 §3.3.6: held back by its rule, the second path takes over from the cut first one."""
    sim, a, b, paths = network(3, paths=2, a={"heuristics": "never"})
    up = payload(2_000_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(800_000)
    assert 0 < len(server.incoming) < len(up)
    for direction in paths[0]:
        direction.change(LinkChange(loss=1.0))
    exchange(sim, client, server, up, b"", goodbye=False, limit_us=60_000_000)
    assert a.stack.counters["MPTcpExtHeuristicsOverruled"] == 1


def test_the_end_of_the_only_subflow_opens_the_other() -> None:
    """RFC 8684 App. D, break before make: a lost interface is a stall, without any time-out."""
    sim, a, b = pair("never")
    up = payload(1_000_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(300_000)
    a.stack.interface_down(sim.now, 1)
    sim.run(200_000)
    assert client.connection is not None
    assert any(s.usable for s in client.connection.subflows)
    assert all(s.local == parse_address("10.0.1.1") for s in client.connection.subflows)
    exchange(sim, client, server, up, b"")


# -- closing, by numbers -------------------------------------------------------------------------


def flow_of(*paths: tuple[int, int, int], **values: float) -> Flow:
    """A period of a connection; `paths` are (index, RTT ms, rate kB/s)."""
    flow = Flow(80, True)
    flow.paths = []
    for index, rtt, rate in paths:
        path = FlowPath(index)
        path.srtt = rtt * 1000
        path.rate = path.best = rate * 1000
        flow.paths.append(path)
    flow.rate = sum(path.rate for path in flow.paths)
    flow.backlog = 100_000
    flow.buffer = 64_000
    flow.blocked = 0.5
    for name, value in values.items():
        setattr(flow, name, value)
    return flow


def verdict(rule: str, flow: Flow, times: int = 3) -> int:
    """What a rule says the third time it sees the same."""
    (heuristic,) = parse(rule, 80)
    answers = [heuristic.closes(flow) for _ in range(times)]
    assert not any(answers[:-1])
    return answers[-1]


def test_close_costly_weighs_buffer_and_delay() -> None:
    """Thesis §4.6, §4.3.5: 64 kB in 200 ms are 320 kB/s; in 20 ms they are 3.2 MB/s, of which the
    first path has shown 1.2: without the slow one there is more."""
    paths = [(1, 20, 270), (2, 200, 50)]
    flow = flow_of(*paths)
    flow.paths[0].best = 1_200_000
    assert verdict("close-costly", flow) == 2
    assert verdict("close-costly:4", flow) == 0
    assert verdict("close-costly", flow, times=2) == 0
    flow.paths[0].best = 350_000  # it could not take over
    assert verdict("close-costly", flow) == 0


def test_close_costly_finds_the_one_in_the_way() -> None:
    """A queue of its own makes the good path the slower one: what counts is what the others can."""
    flow = flow_of((1, 60, 500), (2, 20, 10))
    flow.paths[0].best = 2_000_000
    assert verdict("close-costly", flow) == 2
    flow.paths[0].best = 500_000
    assert verdict("close-costly", flow) == 0


@pytest.mark.parametrize(
    "change",
    [{"blocked": 0.0}, {"backlog": 0}, {"buffer": 6_000}],
    ids=["not blocked", "the application is the limit", "no better without it"],
)
def test_close_costly_wants_harm(change: dict[str, float]) -> None:
    """A slow subflow that holds nobody up stays."""
    flow = flow_of((1, 20, 270), (2, 200, 50), **change)
    flow.paths[0].best = 1_200_000
    assert verdict("close-costly", flow) == 0


def test_close_share() -> None:
    """2 % of the goodput and a blocked window."""
    assert verdict("close-share", flow_of((1, 20, 990), (2, 20, 10))) == 2
    assert verdict("close-share", flow_of((1, 20, 900), (2, 20, 100))) == 0
    assert verdict("close-share:0.2", flow_of((1, 20, 900), (2, 20, 100))) == 2
    assert verdict("close-share", flow_of((1, 20, 990), (2, 20, 10), blocked=0.0)) == 0


def test_close_loss() -> None:
    """A quarter sent again."""
    flow = flow_of((1, 20, 990), (2, 20, 100))
    flow.paths[1].sent, flow.paths[1].resent = 100_000, 30_000
    assert verdict("close-loss", flow) == 2
    assert verdict("close-loss:0.5", flow) == 0
    flow.paths[1].sent, flow.paths[1].resent = 3_000, 1_000  # too few to tell
    assert verdict("close-loss", flow) == 0


def test_a_single_guilty_period_is_forgiven() -> None:
    """Three in a row, of the same subflow."""
    (rule,) = parse("close-share", 80)
    bad, good = flow_of((1, 20, 990), (2, 20, 10)), flow_of((1, 20, 500), (2, 20, 500))
    other = flow_of((1, 20, 10), (2, 20, 990))
    answers = [rule.closes(flow) for flow in (bad, bad, good, bad, bad, other, bad, bad, bad)]
    assert answers == [0] * 8 + [2]


def test_backups_are_no_burden() -> None:
    """RFC 8684 §3.3.8: a subflow in reserve carries nothing and stays."""
    flow = flow_of((1, 20, 990), (2, 20, 0))
    flow.paths[1].backup = True
    assert verdict("close-share", flow) == 0


# -- closing, end to end -------------------------------------------------------------------------

SMALL = {
    "send_buffer": 96 << 10,
    "receive_buffer": 96 << 10,
    "opportunistic_retransmission": False,
    "penalisation": False,
}
"""Little buffer, and none of what else there is against a slow path that blocks it."""


def harmful(
    closing: str, seconds: int, *, closer: str = "a"
) -> tuple[Simulation, SimHost, list[Path], MetaSocket, Program]:
    """A bulk transfer with 96 KiB of buffer: 8 Mbit/s, 10 ms beside 1 Mbit/s and a long queue."""
    sim, a, b, paths = network(
        4,
        paths=2,
        rate_bps=8_000_000,
        delay_us=5_000,
        queue_bytes=20_000,
        a={"heuristics": f"at-once,{closing}" if closer == "a" else "at-once", **SMALL},
        b={"heuristics": f"at-once,{closing}" if closer == "b" else "at-once", **SMALL},
    )
    for direction in paths[1]:
        direction.change(LinkChange(rate_bps=1_000_000, queue_bytes=150_000))
    size = seconds * 1_000_000
    up, down = (size, 0) if closer == "a" else (0, size)
    client, server = open_programs(a, b, payload(up), payload(down))
    client.shuts_down = False
    connection = client.connection
    assert connection is not None
    sim.run(min(seconds, 8) * 1_000_000)
    return sim, a, paths, connection, server if up else client


def test_a_harmful_subflow_is_closed_and_its_path_rests() -> None:
    """Thesis §4.6: significantly higher delay, and the largest buffer is reached; without the
    subflow there is more goodput. RFC 8684 §3.6: a RST with the reason."""
    _, _, _, _, before = harmful("close-costly:100", 8)
    sim, a, _, connection, after = harmful("close-costly", 8)
    assert a.stack.counters["MPTcpExtSubflowsCostly"] == 1
    assert a.stack.counters["MPTcpExtMPRstTx"] == 1
    assert [s.path_index for s in connection.subflows] == [1]
    assert len(after.incoming) > 1.2 * len(before.incoming)
    sim.run(40_000_000)
    assert a.stack.counters["MPTcpExtMPJoinSynTx"] == 1  # it rests


def test_the_path_is_tried_again_after_a_minute() -> None:
    """What was bad may have become better."""
    sim, a, paths, connection, _ = harmful("close-costly", 8)
    for direction in paths[1]:
        direction.change(LinkChange(rate_bps=8_000_000, delay_us=5_000))
    sim.run(65_000_000)
    assert a.stack.counters["MPTcpExtMPJoinSynTx"] == 2
    assert a.stack.counters["MPTcpExtSubflowsCostly"] == 1
    assert len(connection.subflows) == 2


@pytest.mark.parametrize("closer", ["a", "b"])
def test_a_costly_path_is_better_than_none(closer: str) -> None:
    """When the last subflow stalls, the resting path is used at once, whichever side closed it."""
    sim, a, paths, connection, receiver = harmful("close-costly", 8, closer=closer)
    assert len(connection.subflows) == 1
    for direction in paths[0]:
        direction.change(LinkChange(loss=1.0))
    before = len(receiver.incoming)
    if closer == "a":
        sim.run(4_000_000)
        assert len(receiver.incoming) > before
    else:  # who only receives cannot tell a stall from silence: the end of the subflow tells it
        a.stack.interface_down(sim.now, 1)
        sim.run(4_000_000)
        assert len(receiver.incoming) > before


@heuristics.register("test-second")
class Second(Heuristic):
    """Closes the second path, if it works, whenever it is asked."""

    def closes(self, flow: Flow) -> int:
        return 2 if any(path.path_index == 2 for path in flow.paths) else 0


@pytest.mark.mib("MPTcpExtSubflowsCostly")
def test_what_it_carried_goes_on_the_other() -> None:
    """RFC 8684 §3.6, §3.3.6: reset with the reason "unacceptable performance", and what only it
    carried is sent again on the other."""
    wire = Wire(addresses=TWO, nodelay=True, heuristics="test-second")
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(50))
    second = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    wire.advance(ms(150))
    second.accept_join()
    second.subflow().snd.rtt.sample(ms(10), 0)
    second.drain()
    connection.send(b"x" * 100)
    second.expect(ACK, data=b"x" * 100)
    second.send(ACK)
    connection.send(b"y" * 100)
    second.expect(ACK, data=b"y" * 100)
    wire.advance(wire.time + ms(210))
    reset = second.drain()[-1]
    assert reset.flags & RST
    assert reset.option(MpTcprst) == MpTcprst(RST_UNACCEPTABLE_PERFORMANCE)
    assert peer.drain()[-1].data == b"y" * 100
    assert wire.stack.counters["MPTcpExtSubflowsCostly"] == 1


def test_a_closing_that_does_not_help_is_taken_back() -> None:
    """Two even paths, one of which a rule closes: there is less without it, so it comes back and
    stays, whatever the rule says."""
    sim, a, b, _ = network(
        5, paths=2, rate_bps=4_000_000, a={"heuristics": "test-second"}, queue_bytes=20_000
    )
    up = payload(6_000_000)
    client, server = open_programs(a, b, up, b"")
    sim.run(5_000_000)
    assert client.connection is not None
    assert [s.path_index for s in client.connection.subflows if s.usable] == [1, 2]
    assert a.stack.counters["MPTcpExtSubflowsCostly"] == 1
    assert a.stack.counters["MPTcpExtMPJoinSynTx"] == 2
    exchange(sim, client, server, up, b"")
    assert a.stack.counters["MPTcpExtSubflowsCostly"] == 1


def test_policies_of_one_connection() -> None:
    """The rules of a connection or a listener take the place of the host's."""
    sim, a, b, _ = network(6, paths=2, a={"heuristics": "at-once"})
    b.stack.listen(80)
    held = a.stack.connect("10.0.0.2", 80, policies=Policies(heuristics="never"))
    free = a.stack.connect("10.0.0.2", 80)
    for connection in (held, free):
        connection.send(b"x")
    sim.run(1_000_000)
    assert [len(held.subflows), len(free.subflows)] == [1, 2]
    with pytest.raises(ValueError, match="unknown heuristic 'nonesuch'"):
        a.stack.connect("10.0.0.2", 80, policies=Policies(heuristics="nonesuch"))


def test_the_peer_says_so() -> None:
    """RFC 8684 §3.6: MP_TCPRST "unacceptable performance", not transient: we do not come back."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    peer.handshake(mptcp=True, rtt=ms(10))
    second = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    wire.advance(ms(100))
    second.accept_join()
    reset = MpTcprst(RST_UNACCEPTABLE_PERFORMANCE)
    second.send(RST | ACK, options=[reset])
    wire.advance(wire.time + 300_000_000)
    assert not any(seen.flags & SYN for seen in second.drain())
    assert wire.stack.counters["MPTcpExtMPRstRx"] == 1
    assert wire.stack.counters["MPTcpExtMPJoinSynTx"] == 1


def test_no_timer_for_an_idle_connection() -> None:
    """A closing rule is asked while data moves only."""
    sim, a, b = pair("at-once,close-costly")
    client, _ = open_programs(a, b, payload(200_000), b"")
    client.shuts_down = False
    sim.run(3_000_000)
    connection = client.connection
    assert connection is not None
    assert len(connection.subflows) == 2
    assert connection.upkeep.deadline > sim.now + 1_000_000_000
    connection.send(b"more")
    sim.run(100_000)
    assert connection.upkeep.deadline < sim.now + 1_000_000
