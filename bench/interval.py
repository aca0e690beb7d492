"""The 95 % interval of a mean: Student's t, for samples as small as seeds are few."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

_T: Final = (
    # The 97.5 % points for 1 to 30 degrees of freedom (any table of Student's distribution).
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def student_t(freedom: int) -> float:
    """The 97.5 % point of Student's distribution; `freedom` is 1 or more.

    Beyond the table by the expansion around the normal distribution's (Abramowitz and Stegun,
    26.7.5), which is exact there to four places.
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean lies with 95 %, if what is measured is normally distributed.

    One value says nothing of its spread: then it is everywhere. Raises StatisticsError for none.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return -math.inf, math.inf
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half
