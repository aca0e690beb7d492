"""Nothing stays: no namespace, device, process or descriptor, whatever way a test has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.interop.lab import Emulated, Lab, lab
from tests.interop.script import Script

pytestmark = pytest.mark.netns

SMALL: Script = [["exchange", 100_000]]


def namespace_of(thread: str) -> str:
    """The namespace of a process or thread, as text; "" when it has gone."""
    try:
        return os.readlink(f"/proc/{thread}/ns/net")
    except OSError:
        return ""


def users(namespaces: set[str]) -> list[str]:
    """The processes that live in one of the namespaces."""
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if namespace_of(pid) in namespaces]


def open_descriptors() -> set[str]:
    return {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


def namespaces(network: Lab) -> set[str]:
    """The two of a lab."""
    return {each.call(namespace_of, "thread-self") for each in (network.near, network.far)}


@pytest.mark.parametrize("how", ["in good order", "in the middle", "by an error"])
def test_nothing_stays(how: str) -> None:
    devices = socket.if_nameindex()
    link = Emulated(rate_bps=20_000_000, delay_us=1_000)
    made: set[str] = set()
    pids = []
    script: Script = SMALL if how == "in good order" else [["trade", 1000], ["gate"], ["until_eof"]]
    try:
        with lab(4, 4, emulated=(link, link)) as network:
            made = namespaces(network)
            assert network.emulator is not None
            pids.append(network.emulator.pid)
            with network.kernel("server", script) as peer, network.node("client", script) as node:
                pids += [peer.process.pid, node.process.pid]
                assert set(map(str, pids[1:])) <= set(users(made))
                if how == "in good order":
                    assert node.result()["error"] is None
                    assert peer.result()["error"] is None
                else:
                    node.expect("gate")
                    assert {"t1", "t2"} <= {name for _, name in network.near.call(list_devices)}
                    if how == "by an error":
                        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert how == "by an error"
    assert len(made) == 2
    assert users(made) == []
    assert open_descriptors().isdisjoint(made)
    assert socket.if_nameindex() == devices
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


def list_devices() -> list[tuple[int, str]]:
    """The devices of this thread's namespace."""
    return socket.if_nameindex()
