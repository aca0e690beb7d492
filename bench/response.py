"""Response functions: what a congestion control ought to carry at a loss rate and a round trip.

Loss is a probability per packet, each packet on its own; windows are packets, times seconds. None
of the formulas knows a time-out of recovery, a queue, or the link's rate: `goodput` puts the last
of these on top, so it is what the wire could carry at best. Below the link's rate the RTT is the
propagation delay, since a queue that is never full is nearly empty.

The growth of ours counts bytes (RFC 3465), so that delayed acknowledgements do not slow it: the
factor b of the literature (packets one acknowledgement stands for) is 1 here, not 2.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import Final

CUBIC_C: Final = 0.4
"""RFC 9438 §5: C, in packets per cubic second."""
CUBIC_BETA: Final = 0.7
"""RFC 9438 §4.6: what a loss leaves of the window."""
IP_TCP_HEADERS: Final = 20 + 32
"""IPv4 and TCP with timestamps."""


def aimd_window(loss: float, alpha: float = 1.0, beta: float = 0.5) -> float:
    """Mean window of AIMD(alpha, beta), packets; RFC 5681 is AIMD(1, 1/2), hence √(3/2p).

    RFC 9438 §4.3's AVG_AIMD, the deterministic model of Mathis, Semke, Mahdavi and Ott, "The
    Macroscopic Behavior of the TCP Congestion Avoidance Algorithm" (CCR 27/3, 1997): one loss
    every 1/p packets. Independent losses at random come out within some 7 % of it.
    """
    if not loss:
        return inf
    return sqrt(alpha * (1 + beta) / (2 * (1 - beta) * loss))


def cubic_window(loss: float, rtt: float) -> float:
    """Mean window of CUBIC, packets (RFC 9438 §5.1), at least AIMD's (§4.3, Reno-friendly)."""
    if not loss:
        return inf
    factor = (CUBIC_C * (3 + CUBIC_BETA) / (4 * (1 - CUBIC_BETA))) ** 0.25
    return max(float(factor * (rtt / loss) ** 0.75), aimd_window(loss))


def reno_window(loss: float, rtt: float) -> float:
    """`aimd_window` of RFC 5681; the RTT does not matter to it."""
    return aimd_window(loss)


def padhye_window(loss: float, rtt: float, rto: float) -> float:
    """Mean packets per RTT with time-outs (RFC 5348 §3.1, after Padhye et al. 1998), b = 1.

    A lower mark: it takes three duplicate ACKs for the only way to find a loss. RACK-TLP finds most
    that this model leaves to the timer.
    """
    if not loss:
        return inf
    wait = rto * 3 * sqrt(3 * loss / 8) * loss * (1 + 32 * loss * loss)
    return rtt / (rtt * sqrt(2 * loss / 3) + wait)


Window = Callable[[float, float], float]

WINDOWS: Final[dict[str, Window]] = {"newreno": reno_window, "cubic": cubic_window}
"""The response function of each congestion control, (loss, rtt) to packets."""


def goodput(window: float, loss: float, rtt: float, rate_bps: int, mtu: int = 1500) -> float:
    """Bits of payload a second that arrive with that mean window, at most what the link carries."""
    payload = mtu - IP_TCP_HEADERS
    carried = rate_bps * payload / mtu
    return float(min(window * payload * 8 / rtt, carried) * (1 - loss))
