"""How connections with the kernel end: half-closed, reset from either side, refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.interop.lab import PORT, Lab, lab
from tests.interop.script import Script

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("witnessed")]

MIB: Final = 1 << 20
FIRST_TALKS: Final[Script] = [["send", MIB], ["eof"], ["until_eof"]]
SECOND_TALKS: Final[Script] = [["until_eof"], ["send", 3 * MIB], ["eof"]]


@pytest.fixture(params=[(4,), (4, 4)], ids=["one-path", "two-paths"])
def network(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab(*request.param) as made:
        made.signal_far_addresses()
        yield made


def play(
    network: Lab, ours: Script, theirs: Script, *, we_connect: bool = True, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reports of both ends."""
    with contextlib.ExitStack() as stack:
        if we_connect:
            kernel = stack.enter_context(network.kernel("server", theirs, **options))
            node = stack.enter_context(network.node("client", ours))
        else:
            node = stack.enter_context(network.node("server", ours))
            kernel = stack.enter_context(network.kernel("client", theirs, **options))
        return node.result(), kernel.result()


@pytest.mark.row("D11", "D12", "F10", kernel=True)
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
@pytest.mark.parametrize("we_end_first", [True, False], ids=["we-end-first", "kernel-ends-first"])
def test_half_close(network: Lab, we_connect: bool, we_end_first: bool) -> None:
    """The other direction goes on for as long as it likes after one has ended."""
    scripts = (FIRST_TALKS, SECOND_TALKS) if we_end_first else (SECOND_TALKS, FIRST_TALKS)
    ours, theirs = play(network, *scripts, we_connect=we_connect)
    first, second = (ours, theirs) if we_end_first else (theirs, ours)
    assert (first["error"], second["error"]) == (None, None)
    assert (second["received"], second["received_digest"]) == (MIB, first["sent_digest"])
    assert (first["received"], first["received_digest"]) == (3 * MIB, second["sent_digest"])


@pytest.mark.row("F1", kernel=True)
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_the_kernel_resets(network: Lab, we_connect: bool, protocol: str) -> None:
    """SO_LINGER 0: MP_FASTCLOSE (RFC 8684 §3.5), or a plain RST."""
    before = network.far.counters()
    ours, theirs = play(
        network,
        [["trade", 1000], ["error"]],
        [["trade", 1000], ["abort"]],
        we_connect=we_connect,
        protocol=protocol,
    )
    assert (ours["error"], theirs["error"]) == ("ConnectionResetError", None)
    fast = network.far.counters()["MPTcpExtMPFastcloseTx"] - before["MPTcpExtMPFastcloseTx"]
    seen = ours["counters"].get("MPTcpExtMPFastcloseRx", 0)
    if protocol == "mptcp":
        assert fast >= 1
        assert seen >= 1
    else:
        assert (fast, seen) == (0, 0)


@pytest.mark.row("F1", kernel=True)
@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_we_reset(network: Lab, we_connect: bool, protocol: str) -> None:
    """The kernel's program sees ECONNRESET, the kernel our MP_FASTCLOSE."""
    before = network.far.counters()
    ours, theirs = play(
        network,
        [["trade", 1000], ["abort"]],
        [["trade", 1000], ["error"]],
        we_connect=we_connect,
        protocol=protocol,
    )
    assert ours["error"] in (None, "ConnectionAbortedError")
    assert theirs["error"] == "ConnectionResetError"
    fast = ours["counters"].get("MPTcpExtMPFastcloseTx", 0)
    seen = network.far.counters()["MPTcpExtMPFastcloseRx"] - before["MPTcpExtMPFastcloseRx"]
    if protocol == "mptcp":
        assert fast == 1
        assert seen >= 1
    else:
        assert (fast, seen) == (0, 0)


def test_the_kernel_refuses(network: Lab) -> None:
    with network.node("client", []) as node:
        report = node.result()
    assert report["error"] == "ConnectionRefusedError"
    assert report["ever"] == 0


def test_we_refuse_what_nobody_listens_to(network: Lab) -> None:
    """And go on serving the port that is listened to."""
    with network.node("server", [["exchange", MIB]], port=PORT + 1) as node:
        with network.kernel("client", [], port=PORT) as refused:
            assert refused.result()["error"] == "ConnectionRefusedError"
        with network.kernel("client", [["exchange", MIB]], port=PORT + 1) as served:
            theirs, ours = served.result(), node.result()
    assert (ours["error"], theirs["error"]) == (None, None)
    assert (theirs["received"], theirs["received_digest"]) == (MIB, ours["sent_digest"])
    assert (ours["received"], ours["received_digest"]) == (MIB, theirs["sent_digest"])
