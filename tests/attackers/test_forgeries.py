"""Forged segments for somebody else's connection (RFC 5961, RFC 8684 §3 and §5, RFC 6181 §4).

The forger knows addresses and ports. One who is not on the path has to guess the numbers, and one
guess in the window is not enough; who reads along knows them, and can do what the RFCs say cannot
be helped (end a subflow), but not what they say must not happen.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp.subflow import Subflow
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import AddAddr, MpCapable, MpFail, MpFastclose, MpPrio, RemoveAddr
from mptcp.wire.seq import MASK64
from mptcp.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.attackers.scene import MASK32, Scene, forge
from tests.options import Mss

OUTSIDE = 1 << 30
"""Far from every window."""
TARGETS = pytest.mark.parametrize("at_client", [False, True], ids=["at server", "at client"])


def all_subflows(
    scene: Scene, make: Callable[[Subflow], bytes], *, at_client: bool, period_us: int = 2000
) -> None:
    """The forgery for each subflow, again and again."""
    scene.every(
        period_us,
        lambda: [make(subflow) for subflow in scene.subflows(of_client=at_client)],
        at_client=at_client,
    )


def attacked(scene: Scene, at_client: bool) -> dict[str, int]:
    return (scene.client if at_client else scene.server).stack.counters


@TARGETS
@pytest.mark.parametrize("flags", [RST, RST | ACK, SYN, SYN | ACK, ACK, FIN | ACK])
def test_blind_guesses(flags: int, at_client: bool) -> None:
    """RFC 5961 §3.2, §4.2, §5.2: numbers at random: nothing happens to the transfer, and challenge
    ACKs are limited."""
    scene = Scene(11, openers=2)
    draw = scene.random.getrandbits

    def make(subflow: Subflow) -> bytes:
        return forge(subflow, flags, seq=draw(32), ack=draw(32), data=b"evil" * (flags == ACK))

    all_subflows(scene, make, at_client=at_client, period_us=500)
    scene.finish()
    counters = attacked(scene, at_client)
    assert scene.packets > 1000
    if flags & SYN:
        # Each is challenged, up to the limit, which is drawn anew each second (RFC 5961 §7).
        limit = scene.client.stack.config.challenge_acks_per_second * 3 // 2
        assert counters["TcpExtTCPSYNChallenge"] > 1000
        assert 500 < counters["TcpExtTCPChallengeACK"] <= limit * (scene.sim.now // 1_000_000 + 1)


@TARGETS
@pytest.mark.parametrize("flags", [RST, SYN], ids=["RST", "SYN"])
def test_in_the_window(flags: int, at_client: bool) -> None:
    """RFC 5961 §3.2 (2), §4.2: in the window but not its first number: a challenge ACK."""
    scene = Scene(12, openers=2)
    all_subflows(scene, lambda s: forge(s, flags, seq=3000, options=[Mss(1)] * (flags == SYN)),
                 at_client=at_client)  # fmt: skip
    scene.finish()
    assert attacked(scene, at_client)["TcpExtTCPChallengeACK"] > 50


def test_one_subflow_is_reset() -> None:
    """RFC 8684 §5, RFC 6181 §5: who is on one path can end that subflow, as in TCP; the connection
    goes on over the other, and nothing is lost."""
    scene = Scene(13, openers=2)
    victim = scene.subflows()[0]
    scene.put(forge(victim, RST))
    assert victim not in scene.subflows()
    scene.finish()
    assert scene.uploaded.connection is not None
    assert scene.uploaded.connection.past_subflows >= 1


@TARGETS
@pytest.mark.parametrize("in_window", [True, False], ids=["in window", "outside"])
def test_fast_close_without_the_key(at_client: bool, in_window: bool) -> None:
    """RFC 8684 §3.5: MP_FASTCLOSE is for who knows the receiver's key; and outside the window it is
    not looked at whatever it says (§3)."""
    scene = Scene(14, openers=2)

    def make(subflow: Subflow) -> bytes:
        key = scene.random.randbytes(8) if in_window else subflow.meta.local_key
        seq = 0 if in_window else OUTSIDE
        return forge(subflow, ACK, seq=seq, options=[MpFastclose(key)])

    all_subflows(scene, make, at_client=at_client)
    scene.finish()
    assert attacked(scene, at_client)["MPTcpExtMPFastcloseRx"] == 0
    assert scene.packets > 300


@TARGETS
@pytest.mark.parametrize(
    "option",
    [
        pytest.param(MpFail(1 << 40), id="MP_FAIL"),
        pytest.param(RemoveAddr((0, 1, 2, 3)), id="REMOVE_ADDR"),
        pytest.param(MpPrio(True), id="MP_PRIO"),
        pytest.param(MpCapable(b"12345678", b"abcdefgh"), id="MP_CAPABLE"),
        pytest.param(Dss(77, True, 99, True, 1, 0, None, False), id="infinite mapping"),
        pytest.param(Dss(None, False, 5, True, 0, 1, None, True), id="DATA_FIN"),
    ],
)
def test_signals_outside_the_window(option: MpFail, at_client: bool) -> None:
    """RFC 8684 §3, §3.4.1: the window check of RFC 5961 comes before any MPTCP signal: who cannot
    see the numbers cannot signal."""
    scene = Scene(15, openers=2)
    all_subflows(scene, lambda s: forge(s, ACK, seq=OUTSIDE, options=[option]), at_client=at_client)
    scene.finish()
    counters = attacked(scene, at_client)
    for name in ("MPTcpExtMPFailRx", "MPTcpExtRmAddr", "MPTcpExtMPPrioRx", "MPTcpExtInfiniteMapRx"):
        assert counters[name] == 0
    connection = scene.uploaded.connection
    assert connection is not None
    assert not connection.fallback
    assert scene.packets > 300


@TARGETS
def test_an_address_without_its_hmac(at_client: bool) -> None:
    """RFC 8684 §3.4.1, RFC 7430 §2.1: an ADD_ADDR is believed only with the HMAC of the keys: the
    host of the forger is never joined."""
    scene = Scene(16, openers=2)

    def make(subflow: Subflow) -> bytes:
        number = 10 + scene.random.randrange(200)
        mac = scene.random.randbytes(8)
        address = bytes((10, 0, 4, 1))
        return forge(subflow, ACK, options=[AddAddr(number, address, 666, mac)])

    all_subflows(scene, make, at_client=at_client)
    scene.finish()
    assert attacked(scene, at_client)["MPTcpExtAddAddrHMacFailure"] > 300
    assert not [p for p in scene.wire.raw if p[16:20] == bytes((10, 0, 4, 1))]
    connection = scene.uploaded.connection
    assert connection is not None
    assert sum(s.fully_established for s in connection.subflows) <= 2


@TARGETS
def test_removed_addresses(at_client: bool) -> None:
    """RFC 8684 §3.4.2, §5: REMOVE_ADDR has no HMAC, so who reads along can send it: the connection
    keeps one subflow at least, and all bytes arrive."""
    scene = Scene(17, openers=2)
    all_subflows(
        scene,
        lambda s: forge(s, ACK, options=[RemoveAddr(tuple(range(20)))]),
        at_client=at_client,
        period_us=50_000,
    )
    scene.finish()
    assert attacked(scene, at_client)["MPTcpExtRmAddr"] > 3


@TARGETS
def test_failed_checksums_that_did_not(at_client: bool) -> None:
    """RFC 8684 §3.7: an MP_FAIL in the window, while there are two subflows, ends the one it came
    on: it cannot make the connection fall back to plain TCP."""
    scene = Scene(18, openers=2)
    victim = scene.subflows(of_client=at_client)[1]
    scene.put(forge(victim, ACK, options=[MpFail(1)]), 2, at_client=at_client)
    assert attacked(scene, at_client)["MPTcpExtMPFailRx"] == 1
    scene.finish()
    for program in (scene.uploaded, scene.downloaded):
        assert program.connection is not None
        assert not program.connection.fallback


@TARGETS
def test_acknowledged_before_it_was_sent(at_client: bool) -> None:
    """RFC 8684 §3.3.2, RFC 9293 §3.10.7.4: a DATA_ACK for data that was never sent frees none."""
    scene = Scene(19, openers=2)

    def make(subflow: Subflow) -> bytes:
        tx = subflow.meta.tx
        ahead = scene.random.choice((1, 1000, 1 << 20, 1 << 31, 1 << 62))
        beyond = Dss((tx.nxt + ahead) & MASK64, True, None, False, 0, 0, None, False)
        return forge(subflow, ACK, options=[beyond])

    all_subflows(scene, make, at_client=at_client)
    scene.finish()
    assert attacked(scene, at_client)["MPTcpExtInvalidDataAck"] > 300


@TARGETS
def test_data_outside_of_the_connection_window(at_client: bool) -> None:
    """RFC 8684 §3.3.5: data mapped outside the connection's window is not kept."""
    scene = Scene(20, openers=2)

    def make(subflow: Subflow) -> bytes:
        rx = subflow.meta.rx
        dsn = (rx.nxt + rx.buffer + scene.random.randrange(1 << 30)) & MASK64
        # A segment beyond what the peer has sent so far, so that nothing true is in its place.
        ahead = 60_000
        ssn = subflow.next_ssn + ahead
        mapping = Dss(None, False, dsn, True, ssn & MASK32, 4, None, False)
        return forge(subflow, ACK | PSH, seq=ahead, options=[mapping], data=b"evil")

    # The forger fills the subflow's own place with that, and so spoils one subflow: TCP cannot help
    # it (RFC 6181 §5). One path only, early, so that the other one shows that nothing else breaks.
    scene.put(make(scene.subflows(of_client=at_client)[1]), 2, at_client=at_client)
    scene.finish()
    assert b"evil" not in scene.uploaded.incoming + scene.downloaded.incoming
