"""The response functions, against figures worked out by hand from the RFCs' equations."""

from __future__ import annotations

from math import inf

import pytest

from mptcp.bench import response


@pytest.mark.parametrize(("loss", "packets"), [(0.06, 5.0), (0.0006, 50.0), (0.015, 10.0)])
def test_aimd_is_the_square_root_of_three_halves(loss: float, packets: float) -> None:
    """RFC 5681 §3.1, §3.2 as AIMD(1, 1/2): √(1.5 / p), so √25, √2500, √100."""
    assert response.aimd_window(loss) == pytest.approx(packets)
    for rtt in (0.01, 1.0):
        assert response.reno_window(loss, rtt) == pytest.approx(packets)


def test_aimd_with_the_friendly_parameters_of_cubic() -> None:
    """RFC 9438 §4.3: alpha = 3(1-beta)/(1+beta) = 9/17 for beta 0.7 has Reno's mean window."""
    assert response.aimd_window(0.01, 9 / 17, 0.7) == pytest.approx(response.aimd_window(0.01))


@pytest.mark.parametrize(
    ("loss", "rtt", "packets"),
    [
        # (RTT/p)^(3/4) is 10^3 and 10^6; the factor is (0.4·3.7/1.2)^(1/4) = 1.0538 (§5.1: 1.054).
        (1e-5, 0.1, 1053.8),
        (1e-9, 0.1, 1.0538e6),
        # Reno-friendly: √(1.5/0.01) = 12.25 is more than 1.054·1^(3/4).
        (0.01, 0.01, 12.247),
    ],
)
def test_cubic(loss: float, rtt: float, packets: float) -> None:
    """RFC 9438 §5.1, and §4.3 where the window would be less than Reno's."""
    assert response.cubic_window(loss, rtt) == pytest.approx(packets, rel=1e-4)


def test_padhye() -> None:
    """RFC 5348 §3.1 with b = 1: p = 3/128 gives √(2p/3) = 1/8 and √(3p/8) = 3/32."""
    loss, rtt, rto = 3 / 128, 0.1, 0.3
    wait = 0.3 * 3 * (3 / 32) * loss * (1 + 32 * loss * loss)
    assert response.padhye_window(loss, rtt, rto) == pytest.approx(0.1 / (0.0125 + wait))
    assert response.padhye_window(loss, rtt, 0) == pytest.approx(response.aimd_window(loss))


def test_without_loss_the_link_is_the_limit() -> None:
    """1448 of 1500 bytes are payload, with timestamps (RFC 7323 §3.2: 12 bytes)."""
    for window in response.WINDOWS.values():
        assert window(0.0, 0.05) == inf
        found = response.goodput(window(0.0, 0.05), 0.0, 0.05, 100_000_000)
        assert found == pytest.approx(100e6 * 1448 / 1500)
    assert response.padhye_window(0.0, 0.05, 0.2) == inf
    # Far below the link's rate: 10 packets in 0.1 s, one of ten lost.
    assert response.goodput(10, 0.1, 0.1, 100_000_000) == pytest.approx(100 * 1448 * 8 * 0.9)
