"""The schedulers that come with the stack, by numbers: thesis §4.3.6 and the papers they are of."""

from __future__ import annotations

from collections import Counter

import pytest

from mptcp.scheduler import Scheduler, schedulers
from mptcp.schedulers.blest import Blest
from mptcp.schedulers.daps import Daps
from mptcp.schedulers.ecf import Ecf
from mptcp.schedulers.lookahead import LookAhead
from mptcp.schedulers.redundant import Redundant
from mptcp.schedulers.services import Aggregate, Handover, Interactive
from mptcp.schedulers.spare import Backup, Overflow
from mptcp.schedulers.timedistance import TimeDistance
from mptcp.schedulers.turns import RoundRobin, Weighted
from mptcp.tcp.state import NEVER
from tests.mptcp.views import MSS, Connection, View

NAMES = [
    "aggregate",
    "backup",
    "blest",
    "daps",
    "ecf",
    "handover",
    "interactive",
    "lookahead",
    "minrtt",
    "overflow",
    "redundant",
    "roundrobin",
    "timedistance",
    "weighted",
]


def attached(scheduler: Scheduler, *paths: View) -> Connection:
    """The connection of `paths` that `scheduler` has been given."""
    connection = Connection(paths)
    scheduler.attach(connection)
    return connection


def test_names() -> None:
    """Every scheduler of thesis §4.3.6 and of the papers is there by name."""
    assert set(NAMES) <= set(schedulers.names())


@pytest.mark.parametrize("name", NAMES)
def test_backup_paths_wait(name: str) -> None:
    """RFC 8684 §3.3.8: with a regular path ready no scheduler takes the peer's backup path."""
    regular, spare = View(50_000, 2), View(1_000, 1, backup=True)
    scheduler = schedulers.get(name)()
    connection = attached(scheduler, regular)
    assert scheduler.select([spare, regular], 5000) is regular
    connection.paths = [spare]
    assert scheduler.select([spare], 5000) is spare


def test_round_robin() -> None:
    """One chunk each, whatever the delays; a path that is not ready loses its turn."""
    one, two, three = View(10_000, 1), View(99_000, 2), View(5_000, 3)
    scheduler = RoundRobin()
    attached(scheduler, one, two, three)
    turns = [scheduler.select([three, one, two], 5000) for _ in range(4)]
    assert turns == [one, two, three, one]
    assert scheduler.select([three, one], 5000) is three
    assert scheduler.select([three, one], 5000) is one


def shares(scheduler: Weighted, paths: list[View], chunks: int) -> list[int]:
    """How many of `chunks` chunks of 1000 bytes each path gets while all have room."""
    got: Counter[int] = Counter()
    for _ in range(chunks):
        chosen = scheduler.select(paths, 5000)
        assert chosen is not None
        chosen.bytes_sent += MSS
        got[chosen.path_index] += 1
    return [got[path.path_index] for path in paths]


def test_weighted_by_rate() -> None:
    """Without weights the shares are those of cwnd / RTT: 10 kB / 10 ms to 10 kB / 40 ms."""
    paths = [View(10_000, 1), View(40_000, 2)]
    scheduler = Weighted()
    attached(scheduler, *paths)
    assert shares(scheduler, paths, 500) == [400, 100]


def test_weighted_by_configuration() -> None:
    """3 : 1 as asked for, whatever the rates; no debt is kept of a path that was not ready."""
    paths = [View(40_000, 1), View(10_000, 2)]
    scheduler = Weighted()
    attached(scheduler, *paths).weights = (3, 1)
    assert shares(scheduler, paths, 400) == [300, 100]
    assert shares(scheduler, paths[1:], 400) == [400]
    assert shares(scheduler, paths, 400) == pytest.approx([300, 100], abs=1)


def test_a_path_without_a_weight_counts_as_one() -> None:
    """Config.scheduler_weights: a rate, in bytes a second, is no weight beside 3 and 1."""
    paths = [View(40_000, 1), View(10_000, 2), View(1_000, 3)]
    scheduler = Weighted()
    attached(scheduler, *paths).weights = (3, 1)
    assert shares(scheduler, paths, 500) == [300, 100, 100]


def test_backup_waits_for_the_first_path() -> None:
    """Thesis §4.3.6: the other path only when the first has failed, not while it is full."""
    first, other = View(90_000, 1), View(10_000, 2)
    scheduler = Backup()
    connection = attached(scheduler, other, first)
    assert scheduler.select([other, first], 5000) is first
    assert scheduler.select([other], 5000) is None
    connection.paths = [other]
    assert scheduler.select([other], 5000) is other


def test_overflow_takes_the_next_path_when_the_first_is_full() -> None:
    """Thesis §4.3.6: the next only when all before it have a window in flight."""
    first, other = View(90_000, 1), View(10_000, 2)
    scheduler = Overflow()
    attached(scheduler, first, other)
    assert scheduler.select([other, first], 5000) is first
    assert scheduler.select([other], 5000) is other


def test_redundant_duplicates_and_others_do_not() -> None:
    """Only `redundant` asks that all subflows carry all of the data."""
    assert [name for name in NAMES if schedulers.get(name)().duplicates()] == ["redundant"]
    assert isinstance(schedulers.get("redundant")(), Redundant)


def test_look_ahead_leaves_18_segments_to_the_fast_path() -> None:
    """Thesis fig. 4.8: RTTs 100 and 10 ms, windows of 2 segments each; 1 and 2 are in flight on
    the fast path, so 3 to 18 are left to it and 19, 20 go to the slow one."""
    slow = View(100_000, 1, cwnd=3000, smss=1500)
    fast = View(10_000, 2, cwnd=3000, in_flight=3000, smss=1500)
    scheduler = LookAhead()
    attached(scheduler, slow, fast)
    assert scheduler.looks_ahead()
    assert scheduler.select([slow], 60_000) is slow
    assert scheduler.skip(slow, 60_000) == 16 * 1500
    assert scheduler.skip(fast, 60_000) == 0


def test_daps_deals_out_in_the_order_of_arrival() -> None:
    """Kuhn 2014: with forward delays of 50 and 5 ms the fast path's rounds at 0, 10, ... 40 ms
    arrive before what the slow one sends now: 5 windows, the first of them as full as it is."""
    slow = View(100_000, 1, cwnd=3000, smss=1500)
    fast = View(10_000, 2, cwnd=3000, in_flight=1500, smss=1500)
    scheduler = Daps()
    attached(scheduler, slow, fast)
    assert scheduler.looks_ahead()
    assert scheduler.skip(slow, 60_000) == 1500 + 4 * 3000
    fast.bytes_sent += 3000  # it has taken the first part and half of the second
    assert scheduler.skip(slow, 60_000) == 1500 + 3 * 3000
    slow.bytes_sent += 3000
    assert scheduler.skip(fast, 60_000) == 0


def ecf_paths() -> tuple[View, View]:
    """A fast path that is full and a slow one with room, windows of 10 segments."""
    return View(10_000, 1, in_flight=10 * MSS, room=0), View(100_000, 2)


@pytest.mark.parametrize(("queued", "waits"), [(44, True), (45, False), (1, True)])
def test_time_distance_leaves_the_end_to_the_fast_path(queued: int, waits: bool) -> None:
    """Thesis §4.3.6: queue / bandwidth + RTT. At 10 segments in 10 ms, 44 of them are there after
    44 + 5 ms, before the 50 ms of the slow path's way there; 45 are as late."""
    fast, slow = ecf_paths()
    fast.waiting_since = 0
    scheduler = TimeDistance()
    connection = attached(scheduler, fast, slow)
    assert scheduler.select([fast, slow], queued * MSS) is fast
    assert scheduler.select([slow], queued * MSS) is (None if waits else slow)
    connection.more_waits = True  # it is not the end
    assert scheduler.select([slow], queued * MSS) is slow


def test_time_distance_does_not_wait_for_a_path_that_is_silent() -> None:
    """RFC 8985 §7.2: two round trips of silence. Nor for one that awaits nothing."""
    fast, slow = ecf_paths()
    fast.waiting_since = 5_000
    scheduler = TimeDistance()
    connection = attached(scheduler, fast, slow)
    connection.now = 25_000
    assert scheduler.select([slow], MSS) is None
    connection.now = 25_001
    assert scheduler.select([slow], MSS) is slow
    fast.waiting_since = -1
    assert scheduler.select([slow], MSS) is slow


def test_ecf_waits_for_the_fast_path() -> None:
    """Lim 2017, algorithm 1: (1 + k / cwnd) RTT_f < RTT_s + delta, and the slow path would need
    k / cwnd RTT_s >= 2 RTT_f + delta."""
    fast, slow = ecf_paths()
    scheduler = Ecf()
    attached(scheduler, fast, slow)
    assert scheduler.select([fast, slow], 5 * MSS) is fast
    # (1 + 8) * 10 ms < 100 ms; 8 * 100 ms >= 20 ms
    assert scheduler.select([slow], 80 * MSS) is None
    # (1 + 10) * 10 ms: now beta's 1.25 counts, for it waits: 110 < 125 ms
    assert scheduler.select([slow], 100 * MSS) is None
    # (1 + 12) * 10 ms >= 125 ms: the queue is long enough for both
    assert scheduler.select([slow], 120 * MSS) is slow
    # and from here on without beta: 110 >= 100 ms
    assert scheduler.select([slow], 100 * MSS) is slow


def test_ecf_gives_the_slow_path_what_it_delivers_soon() -> None:
    """Lim 2017, second condition: k / cwnd_s RTT_s < 2 RTT_f + delta: no use in waiting."""
    fast, slow = ecf_paths()
    scheduler = Ecf()
    attached(scheduler, fast, slow)
    assert scheduler.select([slow], 1 * MSS) is slow  # 10 ms < 20 ms
    slow.rttvar = 10_000
    assert scheduler.select([slow], 2 * MSS) is slow  # 20 ms < 30 ms
    assert scheduler.select([slow], 3 * MSS) is None


def test_blest_estimates_the_window() -> None:
    """Ferlin 2016: RTTs 1 : 10, so the fast path sends (10 + 9 / 2) * 10 = 145 segments meanwhile,
    174 with lambda 1.2; what is in flight on the slow path and the segment itself come on top."""
    fast, slow = ecf_paths()
    slow.in_flight = 4 * MSS
    scheduler = Blest()
    connection = attached(scheduler, fast, slow)
    connection.window = 179 * MSS
    assert scheduler.select([slow], 500 * MSS) is slow
    connection.window = 179 * MSS - 1
    assert scheduler.select([slow], 500 * MSS) is None
    assert scheduler.select([slow, fast], 500 * MSS) is fast


def test_blest_learns_from_a_window_that_fills() -> None:
    """Ferlin 2016: lambda follows what happened, once a round trip of the slow path."""
    fast, slow = ecf_paths()
    scheduler = Blest()
    connection = attached(scheduler, fast, slow)
    connection.window = 179 * MSS - 4 * MSS
    assert scheduler.select([slow], 500 * MSS) is slow
    connection.now, connection.window_blocks = 100_000, 3
    assert scheduler.select([slow], 500 * MSS) is None  # 145 * 1.24 = 179.8
    connection.now = 150_000
    connection.window_blocks = 9  # not a round trip yet
    assert scheduler.select([slow], 500 * MSS) is None
    for _ in range(40):
        connection.now += 100_000
        scheduler.select([slow], 500 * MSS)
    connection.window = 146 * MSS
    assert scheduler.select([slow], 500 * MSS) is slow  # lambda is 1 now, and not less


def test_handover_leaves_a_path_whose_acks_are_overdue() -> None:
    """The first path, full or not, until an ACK is late by a round trip, four deviations and at
    least 50 ms; again when it answers."""
    wifi, mobile = View(20_000, 1, rttvar=2_000), View(60_000, 2)
    scheduler = Handover()
    connection = attached(scheduler, mobile, wifi)
    assert scheduler.select([wifi, mobile], 5000) is wifi
    wifi.waiting_since, wifi.acked_at = 1_000_000, 990_000
    connection.now = 1_070_000
    assert scheduler.select([mobile], 5000) is None
    connection.now = 1_070_001
    assert scheduler.select([mobile], 5000) is mobile
    wifi.waiting_since = 1_071_000  # a probe has gone, no answer has come
    connection.now = 1_080_000
    assert scheduler.select([mobile, wifi], 5000) is mobile
    wifi.acked_at = 1_081_000
    assert scheduler.select([mobile, wifi], 5000) is wifi


def test_interactive_takes_the_earliest_arrival() -> None:
    """RTT, two deviations and what does not fit the window, at the rate of the path."""
    fast, slow = View(10_000, 1, in_flight=10 * MSS), View(60_000, 2)
    scheduler = Interactive()
    attached(scheduler, fast, slow)
    # 10 ms + 20 segments at 1 a ms, against 60 ms + 10 segments at 1/6 a ms.
    assert scheduler.select([slow], 20 * MSS) is None
    # 10 + 100 ms against 60 ms
    slow.cwnd = 200 * MSS
    assert scheduler.select([slow], 100 * MSS) is slow
    fast.in_flight = 0
    fast.rttvar = 30_000  # jitter counts
    assert scheduler.select([fast, slow], 1 * MSS) is slow


def test_aggregate_fills_every_path() -> None:
    """The fast path first, the slow one when that is full."""
    fast, slow = ecf_paths()
    scheduler = Aggregate()
    attached(scheduler, fast, slow)
    assert scheduler.select([slow, fast], 5000) is fast
    assert scheduler.select([slow], 5000) is slow


def test_who_waits_says_until_when() -> None:
    """`Scheduler.again`: time-distance until two round trips of silence are over, handover until an
    ACK is overdue; the others wait for acknowledgements."""
    fast, slow = ecf_paths()
    fast.waiting_since = 1_000_000
    for scheduler, until in ((TimeDistance(), 1_020_001), (Handover(), 1_060_001)):
        attached(scheduler, fast, slow).now = 1_000_000
        assert scheduler.again() == NEVER
        assert scheduler.select([slow], MSS) is None
        assert scheduler.again() == until
    waiting = Ecf()
    attached(waiting, fast, slow)
    assert waiting.select([slow], 80 * MSS) is None
    assert waiting.again() == NEVER
