"""Scenarios as hypothesis draws them: every field by itself, so that a failure shrinks."""

from __future__ import annotations

from hypothesis import strategies as st

from soak.scenario import CONTROLLERS, ECN, ENDINGS, Scenario, Side


def sides(size: st.SearchStrategy[int], ending: st.SearchStrategy[str]) -> st.SearchStrategy[Side]:
    """One host and its program."""
    return st.builds(
        Side,
        mptcp=st.booleans(),
        offload=st.booleans(),
        sack=st.booleans(),
        timestamps=st.booleans(),
        window_scaling=st.booleans(),
        nodelay=st.booleans(),
        checksum=st.booleans(),
        ecn=st.sampled_from(ECN),
        congestion_control=st.sampled_from(CONTROLLERS),
        receive_buffer=st.sampled_from([1 << 16, 4096, 5000, 1 << 18]),
        send_buffer=st.sampled_from([1 << 16, 4096, 5000]),
        size=size,
        write_size=st.sampled_from([4000, 1, 300, 1 << 16]),
        write_pause_us=st.sampled_from([0, 100, 30_000]),
        read_size=st.sampled_from([1 << 16, 200, 3000]),
        read_pause_us=st.sampled_from([0, 500, 50_000]),
        ending=ending,
        ending_at=st.one_of(st.just(-1), st.integers(0, 500_000)),
    )


def scenarios(
    *,
    endings: st.SearchStrategy[str] = st.sampled_from(ENDINGS),  # noqa: B008
    most: int = 12_000,
    interface_losses: int = 1,
) -> st.SearchStrategy[Scenario]:
    """A whole session; `most` bytes each way."""
    # Writes of one byte make a packet each: fewer of those.
    side = sides(st.integers(0, most), endings).filter(
        lambda side: side.size <= 60 * side.write_size and side.size <= 60 * side.read_size
    )
    return st.builds(
        Scenario,
        seed=st.integers(0, 1 << 20),
        paths=st.integers(1, 3),
        ipv6=st.booleans(),
        mtu=st.sampled_from([576, 1500, 1280, 300, 240]),
        delay_us=st.sampled_from([5000, 0, 100, 100_000]),
        drop=st.integers(0, 150),
        corrupt=st.integers(0, 100),
        duplicate=st.integers(0, 200),
        late=st.integers(0, 500),
        late_us=st.sampled_from([20_000, 100, 300_000]),
        burst=st.integers(0, 4),
        mark=st.integers(0, 300),
        cuts=st.integers(0, 3),
        interface_losses=st.integers(0, interface_losses),
        isn=st.one_of(st.none(), st.integers((1 << 32) - 12_000, (1 << 32) - 1)),
        idsn=st.one_of(
            st.none(),
            st.integers((1 << 32) - 12_000, (1 << 32) - 1),
            st.integers((1 << 64) - 12_000, (1 << 64) - 1),
        ),
        client=side,
        server=side,
    )
