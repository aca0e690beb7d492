"""What can be set on a link, and what it counts. Plain values: they cross a socket as JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final, Literal

Aqm = Literal["droptail", "red", "codel"]
"""Queue disciplines: drop-tail, RED (Floyd and Jacobson 1993, RFC 2309), CoDel (RFC 8289)."""

_AQMS: Final = ("droptail", "red", "codel")
_PACES: Final = ("rate_bps", "rate_trace", "delivery_trace")
_COUNTS: Final = frozenset(
    (
        "rate_bps",
        "delay_us",
        "queue_bytes",
        "queue_packets",
        "jitter_us",
        "reorder_us",
        "mtu",
        "red_min_bytes",
        "red_max_bytes",
        "codel_target_us",
        "codel_interval_us",
    )
)
_SHARES: Final = frozenset(("loss", "duplicate", "reorder", "corrupt", "red_max_p"))


@dataclass(slots=True)
class LinkStats:
    """Counters of one direction since its start; `queued` is a state."""

    packets: int = 0  # delivered, duplicates included
    bytes: int = 0  # delivered, IP bytes
    drops_queue: int = 0  # packets that found the queue full
    drops_loss: int = 0  # packets lost on the way: at random, in a burst, by the list
    drops_down: int = 0  # packets that came, waited or flew while the link was cut
    drops_refused: int = 0  # packets the device at the far end did not take
    queued: int = 0  # bytes waiting now, the packet being sent included
    drops_aqm: int = 0  # packets that RED or CoDel dropped
    drops_mtu: int = 0  # packets larger than the link's MTU
    marked: int = 0  # packets that RED or CoDel marked CE instead (RFC 3168)
    duplicated: int = 0  # copies made
    reordered: int = 0  # packets held back
    corrupted: int = 0  # packets with a bit flipped


@dataclass(slots=True, kw_only=True)
class LinkChange:
    """What to change on a link; None leaves it as it is. Raises ValueError for a bad value."""

    rate_bps: int | None = None  # bits of IP packets per second; 0: unlimited; ends any trace
    delay_us: int | None = None  # one way, 0 or more
    queue_bytes: int | None = None  # 0: unlimited
    queue_packets: int | None = None  # 0: unlimited
    loss: float | None = None  # 0 to 1, each packet by itself
    down: bool | None = None
    burst_loss: tuple[float, ...] | None = None
    """Gilbert-Elliott: (good to bad, bad to good, loss while bad, loss while good), the first two
    after each packet; the last two may be left out (1, 0). Empty: none."""
    loss_list: tuple[int, ...] | None = None
    """Exactly these packets are lost: 1 is the first that is sent from the change on."""
    duplicate: float | None = None  # 0 to 1: how many are delivered twice
    reorder: float | None = None  # 0 to 1: how many are held back and overtaken
    reorder_us: int | None = None  # for how long
    corrupt: float | None = None  # 0 to 1: how many get one bit flipped
    jitter_us: int | None = None  # an extra delay, uniform from 0 to this
    jitter_reorders: bool | None = None  # False (default): the order is kept all the same
    mtu: int | None = None  # larger packets are dropped; 0: no limit
    aqm: Aqm | None = None
    ecn: bool | None = None  # RED and CoDel mark ECT packets instead of dropping them
    red_min_bytes: int | None = None  # RED's thresholds; 0: a sixth and a half of queue_bytes
    red_max_bytes: int | None = None
    red_max_p: float | None = None  # RED's probability at the upper threshold, default 0.1
    codel_target_us: int | None = None  # default 5 ms (RFC 8289 §4.3)
    codel_interval_us: int | None = None  # default 100 ms (RFC 8289 §4.2)
    rate_trace: tuple[tuple[int, int], ...] | None = None
    """((µs since the change, bit/s), ...): the rate from then on; repeated after the last one's
    time, so that one's rate counts for nothing but the period. Times grow from 0."""
    delivery_trace: tuple[int, ...] | None = None
    """µs since the change at which up to 1500 bytes may leave (a Mahimahi trace has ms): never
    falling, repeated after the last."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if item.name in _COUNTS:
                if not isinstance(value, int) or value < 0:
                    raise ValueError(f"{item.name} {value!r} is no integer from 0 up")
            elif item.name in _SHARES:
                _share(item.name, value)
        if self.aqm is not None and self.aqm not in _AQMS:
            raise ValueError(f"aqm {self.aqm!r} is none of {', '.join(_AQMS)}")
        if self.burst_loss is not None:
            self.burst_loss = tuple(self.burst_loss)
            if len(self.burst_loss) not in (0, 2, 3, 4):
                raise ValueError("burst_loss takes 2 to 4 probabilities, or none")
            for value in self.burst_loss:
                _share("burst_loss", value)
        if self.loss_list is not None:
            self.loss_list = tuple(self.loss_list)
            if not all(isinstance(number, int) and number > 0 for number in self.loss_list):
                raise ValueError("loss_list counts packets from 1")
        self._check_traces()

    def _check_traces(self) -> None:
        if self.rate_trace is not None:
            self.rate_trace = tuple((at, rate) for at, rate in self.rate_trace)
            times = [at for at, _ in self.rate_trace]
            if len(times) < 2 or times[0] != 0 or any(b <= a for a, b in pairwise(times)):
                raise ValueError("rate_trace: two times or more, growing from 0")
            if any(rate < 0 for _, rate in self.rate_trace):
                raise ValueError("rate_trace: a rate is negative")
        if self.delivery_trace is not None:
            self.delivery_trace = tuple(self.delivery_trace)
            marks = self.delivery_trace
            if (
                not marks
                or marks[0] < 0
                or marks[-1] <= 0
                or any(b < a for a, b in pairwise(marks))
            ):
                raise ValueError("delivery_trace: times that never fall and end above 0")
        if sum(getattr(self, name) is not None for name in _PACES) > 1:
            raise ValueError(f"only one of {', '.join(_PACES)}")

    def merged(self, over: LinkChange | None) -> LinkChange:
        """This change with what `over` gives in the place of its own.

        A rate, a rate trace and a delivery trace take each other's place.
        """
        if over is None:
            return self
        own, others = self.given(), over.given()
        if any(name in others for name in _PACES):
            own = {name: value for name, value in own.items() if name not in _PACES}
        return LinkChange(**{**own, **others})

    def given(self) -> dict[str, Any]:
        """What is not None, by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def _share(name: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} {value!r} is not within 0 to 1")
