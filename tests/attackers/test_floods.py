"""Floods: SYNs, ACKs, MP_JOINs, ICMP messages (RFC 4987, RFC 6181, RFC 7430, RFC 8684 §5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from mptcp.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn
from mptcp.wire.tcp import ACK, SYN
from tests.attackers.scene import (
    ASK_PORT,
    SERVER,
    TRANSFER_PORT,
    Scene,
    linux_syn,
    segment,
)
from tests.options import Mss
from tests.peer import Peer

SECOND = 1_000_000


def strangers(scene: Scene) -> Iterator[tuple[bytes, int, int]]:
    """Source addresses nobody answers at, ports, and sequence numbers; all at random."""
    draw = scene.random.getrandbits
    while True:
        yield (0xC612_0000 + draw(17)).to_bytes(4, "big"), 1024 + draw(15), draw(32)


@pytest.mark.parametrize("mptcp", [False, True], ids=["TCP", "MP_CAPABLE"])
def test_syn_flood(mptcp: bool) -> None:
    """RFC 4987 §3.6, RFC 6181 §4: at 10,000 SYNs a second, strangers connect at once, the transfer
    goes on, and half-open connections stay within the backlog."""
    scene = Scene(1, server={"backlog": 64})
    who = strangers(scene)
    more = [MpCapable()] if mptcp else []
    scene.every(1000, lambda: [linux_syn(*next(who), *more) for _ in range(10)])
    scene.finish(connect_us=15_000)
    counters = scene.counters
    assert scene.packets > 8000
    assert counters["TcpExtTCPReqQFullDoCookies"] >= scene.packets - 64 - 10
    assert counters["TcpExtSyncookiesSent"] == counters["TcpExtTCPReqQFullDoCookies"]
    assert counters["TcpExtSyncookiesRecv"] == len(scene.openers)


def test_syn_flood_without_cookies() -> None:
    """RFC 4987 §3.2: a backlog alone only bounds the memory: SYNs beyond it are dropped."""
    scene = Scene(2, server={"backlog": 64, "syn_cookies": "never"}, openers=0)
    who = strangers(scene)
    scene.every(1000, lambda: [linux_syn(*next(who)) for _ in range(10)])
    scene.finish()
    counters = scene.counters
    assert counters["TcpExtTCPReqQFullDrop"] == counters["TcpExtListenDrops"] > 5000
    assert counters["TcpPassiveOpens"] <= 64 + 10


def test_connections_are_bounded() -> None:
    """RFC 4987 §2: what `max_connections` leaves is not exceeded, cookies or not."""
    scene = Scene(3, server={"backlog": 64, "max_connections": 40}, openers=0)
    who = strangers(scene)
    scene.every(1000, lambda: [linux_syn(*next(who)) for _ in range(10)])
    scene.finish()
    assert scene.counters["TcpExtListenDrops"] > 5000
    assert scene.counters["TcpPassiveOpens"] <= 40 + 10


@pytest.mark.mib("TcpOutRstsRateLimited")
def test_guessed_cookies() -> None:
    """RFC 4987 §3.6: ACKs that guess a cookie open nothing; resets for them are limited."""
    scene = Scene(4, server={"backlog": 1, "resets_per_second": 50})
    who = strangers(scene)

    def guesses() -> list[bytes]:
        found = []
        for source, port, seq in (next(who) for _ in range(5)):
            ack = scene.random.getrandbits(32)
            found.append(segment(source, port, SERVER, ASK_PORT, ACK, seq=seq, ack=ack))
        return found

    # Cookies are only looked at while some may be under way.
    for _ in range(5):
        scene.put(linux_syn(*next(who)))
    scene.every(1000, guesses)
    scene.finish()
    counters = scene.counters
    assert counters["TcpExtSyncookiesFailed"] >= scene.packets - 10 - len(scene.openers)
    assert counters["TcpExtSyncookiesRecv"] == len(scene.openers)
    assert counters["TcpOutRsts"] <= 50 * (scene.sim.now // SECOND + 1)
    refused = counters["TcpExtSyncookiesFailed"] - counters["TcpOutRsts"]
    assert counters["TcpOutRstsRateLimited"] == refused


def test_join_flood_with_a_wrong_token() -> None:
    """RFC 8684 §3.2, RFC 6181 §4: a JOIN for no connection is refused, by resets of a limited
    number, and nothing is kept of it."""
    scene = Scene(5, server={"resets_per_second": 50})
    who = strangers(scene)

    def joins() -> list[bytes]:
        draw = scene.random
        return [
            segment(
                *(source, port, SERVER, ASK_PORT, SYN),
                seq=seq,
                options=[Mss(1400), MpJoinSyn(False, 1, draw.getrandbits(32), draw.randbytes(4))],
            )
            for source, port, seq in (next(who) for _ in range(5))
        ]

    scene.every(1000, joins)
    scene.finish()
    counters = scene.counters
    assert counters["MPTcpExtMPJoinNoTokenFound"] == scene.packets > 3000
    assert counters["TcpOutRstsRateLimited"] > 3000
    assert counters["TcpPassiveOpens"] == 2 + len(scene.openers)


@pytest.mark.parametrize("answers", [False, True], ids=["never answers", "wrong HMAC"])
def test_join_flood_with_the_right_token(answers: bool) -> None:
    """RFC 8684 §3.2, §5, RFC 7430 §2: who has seen the token can make a host keep half-open
    subflows, and without the keys nothing else. They are few, take no subflow's place, and do not
    keep the client's second path out."""
    limit = 512
    scene = Scene(6, paths=1, server={"max_subflows": 2, "max_half_open_joins": limit})
    meta = scene.uploaded.connection
    assert meta is not None
    stack = scene.server.stack
    joins: deque[Peer] = deque()

    def strike() -> None:
        if meta.ended is not None:
            return
        number = scene.packets % 30_000
        peer = Peer(
            scene.wire,
            address="10.0.4.1",
            port=20_000 + number,
            local="10.0.4.2",
            local_port=TRANSFER_PORT,
            isn=number << 16,
            interface=4,
        )
        draw = scene.random.randbytes
        syn = MpJoinSyn(False, 1 + number % 250, meta.token, draw(4))
        scene.put(peer.packet(SYN, options=[Mss(1400), syn]), 4)
        joins.append(peer)
        if len(joins) > 5:
            answered = joins.popleft()
            scene.wire.peers.remove(answered)
            if answers and answered.queue:
                scene.put(answered.packet(ACK, options=[MpJoinAck(draw(20))]), 4)
        assert len(meta.subflows) <= 2 + 2
        assert len(stack.connections) <= 2 + 2 + len(scene.openers)

    scene.sim.every(1000, strike)
    scene.sim.run(100_000)
    # In the middle of it the client gets its second path, 3 ms away.
    scene.sim.connect(
        *(scene.client, "10.0.2.1/24", scene.server, "10.0.5.2/24"),
        rate_bps=10_000_000,
        delay_us=1_500,
    )
    scene.sim.run(SECOND, until=lambda: sum(s.fully_established for s in meta.subflows) == 2)
    assert sum(s.fully_established for s in meta.subflows) == 2
    scene.finish()
    counters = scene.counters
    assert counters["MPTcpExtMPJoinSynRx"] > 100
    if answers:
        assert counters["MPTcpExtMPJoinAckHMacFailure"] > 50
    else:
        assert counters["MPTcpExtHalfOpenJoinsDropped"] > 15
