"""Short transfers that cross the end of a number space: TCP's 32 bits, the DSN's lower 32, its 64.

With the kernel the IDSN follows from the key, so the key is searched for: one in 4096 puts it
within 1 MiB of a 32-bit wrap. Its own ISN and IDSN the kernel keeps to itself; those of both
directions start below a wrap between two of our stacks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from mptcp import keys
from mptcp.config import Config
from tests.interop.driver import Host, drive
from tests.interop.lab import PORT, Lab, lab
from tests.interop.test_transfers import bad_counters, check_bytes

pytestmark = pytest.mark.netns

MIB: Final = 1 << 20
SIZE: Final = 4 * MIB
BELOW_32: Final = (1 << 32) - MIB
BELOW_64: Final = (1 << 64) - MIB


def key_below_the_wrap() -> bytes:
    """The first of the counted keys whose IDSN's lower half is within 1 MiB below 2^32."""
    for number in itertools.count():
        key = number.to_bytes(8, "big")
        if keys.idsn(key) & 0xFFFFFFFF >= BELOW_32:
            return key
    raise AssertionError("unreachable")


def entropy_with_key(key: bytes) -> Callable[[int], bytes]:
    """Random bytes, but `key` for the first eight asked for: those of the connection's key."""
    given = [key]
    return lambda count: given.pop() if count == len(key) and given else os.urandom(count)


@contextlib.contextmanager
def host(network: Lab, **options: Any) -> Iterator[Host]:
    with contextlib.closing(Host(network, SIZE, **options)) as made:
        yield made


def exchange_with_kernel(
    network: Lab, ours: Host, we_connect: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """SIZE bytes both ways at once; the reports."""
    before = network.far.counters()
    with contextlib.ExitStack() as stack:
        script = [["exchange", SIZE]]
        if we_connect:
            kernel = stack.enter_context(network.kernel("server", script))
            ours.stack.connect(network.far_address(), PORT)
        else:
            ours.stack.listen(PORT)
            kernel = stack.enter_context(network.kernel("client", script))
        drive([ours], lambda: ours.closed is not None)
        theirs = kernel.result()
    near = ours.ledger.result()
    check_bytes(near, theirs, SIZE)
    assert ours.fallback is None
    assert theirs["fallback"] is False
    assert bad_counters(ours.stack.counters) == {}
    assert bad_counters(network.far.counters(), before) == {}
    return near, theirs


@pytest.mark.parametrize("families", [(4,), (6, 6)], ids=["v4", "v6-v6"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_isn_below_the_wrap_with_the_kernel(families: tuple[int, ...], we_connect: bool) -> None:
    with lab(*families) as network:
        network.signal_far_addresses()
        with host(network, isn=lambda key: BELOW_32) as ours:
            exchange_with_kernel(network, ours, we_connect)
            assert len(ours.subflows) == len(families)
            assert {subflow.snd.iss for subflow in ours.subflows} == {BELOW_32}
            assert max(subflow.snd.nxt for subflow in ours.subflows) > (1 << 32) + MIB


@pytest.mark.row("I19", "D6", kernel=True)
@pytest.mark.parametrize("dsn_64", [True, False], ids=["dsn64", "dsn32"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_idsn_below_the_32_bit_wrap_with_the_kernel(we_connect: bool, dsn_64: bool) -> None:
    """With 32-bit DSNs on the wire too: both ends must count the wraps themselves."""
    key = key_below_the_wrap()
    with (
        lab(4) as network,
        host(network, config=Config(dsn_64=dsn_64), entropy=entropy_with_key(key)) as ours,
    ):
        exchange_with_kernel(network, ours, we_connect)
        assert ours.connection is not None
        first = ours.connection.local_idsn
        assert first == keys.idsn(key)
        assert ours.connection.tx.una >> 32 == (first >> 32) + 1


@pytest.mark.parametrize("dsn_64", [True, False], ids=["dsn64", "dsn32"])
@pytest.mark.parametrize("families", [(4,), (4, 6)], ids=["v4", "v4-v6"])
def test_every_wrap_between_ourselves(families: tuple[int, ...], dsn_64: bool) -> None:
    """ISN and 64-bit IDSN of both ends start 1 MiB below their wraps."""
    options: dict[str, Any] = {
        "config": Config(dsn_64=dsn_64),
        "isn": lambda key: BELOW_32,
        "idsn": lambda key: BELOW_64,
    }
    with (
        lab(*families, far_is_ours=True) as network,
        host(network, **options) as near,
        host(network, far=True, **options) as far,
    ):
        far.stack.listen(PORT)
        near.stack.connect(network.far_address(), PORT)
        drive([near, far], lambda: None not in (near.closed, far.closed))
        check_bytes(near.ledger.result(), far.ledger.result(), SIZE)
        for end in (near, far):
            assert end.fallback is None
            assert bad_counters(end.stack.counters) == {}
            assert {subflow.snd.iss for subflow in end.subflows} == {BELOW_32}
            assert max(subflow.snd.nxt for subflow in end.subflows) > 1 << 32
            assert end.connection is not None
            assert end.connection.tx.una > 1 << 64
