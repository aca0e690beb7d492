"""Namespaces: what is inside stays inside, and goes with them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from mptcp.tun.device import DeviceError
from mptcp.tun.netns import Namespace

pytestmark = pytest.mark.netns

IPPROTO_MPTCP = 262


def test_namespaces_are_apart_and_the_caller_stays_where_it_was(
    left: Namespace, right: Namespace
) -> None:
    def inode() -> int:
        return os.stat("/proc/thread-self/ns/net").st_ino

    assert len({inode(), left.call(inode), right.call(inode)}) == 3
    assert left.output(["readlink", "/proc/self/ns/net"]).strip() == f"net:[{left.call(inode)}]"


def test_call_hands_on_results_and_errors(left: Namespace) -> None:
    assert left.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        left.call(divmod, 7, 0)


def test_veth_joins_two_namespaces_for_both_families(left: Namespace, right: Namespace) -> None:
    left.veth(
        right,
        "v0",
        "v1",
        addresses=["10.1.0.1/24", "fd01::1/64"],
        other_addresses=["10.1.0.2/24", "fd01::2/64"],
        mtu=1400,
    )
    assert "mtu 1400" in right.output(["ip", "link", "show", "dev", "v1"])
    for family, address in ((socket.AF_INET, "10.1.0.2"), (socket.AF_INET6, "fd01::2")):
        with right.socket(family) as server, left.socket(family) as client:
            server.bind((address, 0))
            server.listen()
            client.connect((address, server.getsockname()[1]))
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"over the pair")
                assert accepted.recv(100) == b"over the pair"


def test_routes_rules_and_forwarding(left: Namespace, right: Namespace) -> None:
    with Namespace.create("router") as router:
        left.veth(router, "v0", "r0", addresses=["10.1.0.2/24"], other_addresses=["10.1.0.1/24"])
        right.veth(router, "v0", "r1", addresses=["10.2.0.2/24"], other_addresses=["10.2.0.1/24"])
        router.enable_forwarding()
        right.add_route("default", via="10.2.0.1")
        left.add_route("10.2.0.0/24", via="10.1.0.1", device="v0", table=100)
        left.add_source_rule("10.1.0.2", 100, priority=50)
        assert "from 10.1.0.2 lookup 100" in left.output(["ip", "rule"])
        with right.socket() as server, left.socket() as client:
            server.bind(("10.2.0.2", 5000))
            server.listen()
            client.bind(("10.1.0.2", 0))
            client.connect(("10.2.0.2", 5000))
            assert client.getpeername() == ("10.2.0.2", 5000)
        before = router.counters()["IpForwDatagrams"]
        assert before >= 3


def test_ipv6_default_route(left: Namespace, right: Namespace) -> None:
    left.veth(right, "v0", addresses=["fd01::1/64"], other_addresses=["fd01::2/64"])
    left.add_route("default6", via="fd01::2", device="v0", metric=7)
    assert re.search(r"default via fd01::2 dev v0 .*metric 7 ", left.output(["ip", "-6", "route"]))


def test_sysctl_is_the_namespaces_own(left: Namespace, right: Namespace) -> None:
    assert left.sysctl("net.ipv4.ip_forward", 1) == "1"
    assert right.sysctl("net.ipv4.ip_forward") == "0"
    with pytest.raises(ValueError, match="bad sysctl name"):
        left.sysctl("net/../../etc/hostname")


def test_a_bad_request_is_one_clear_line(left: Namespace) -> None:
    with pytest.raises(DeviceError, match="there is no interface 'v9'"):
        left.set_link("v9", up=True)
    with pytest.raises(DeviceError, match=r"route to 10.7.0.0/24 cannot be added: \w"):
        left.add_route("10.7.0.0/24", via="10.8.0.1")


def test_addresses_and_links_can_be_taken_away(left: Namespace, right: Namespace) -> None:
    left.veth(right, "v0", addresses=["10.1.0.1/24"])
    left.delete_address("v0", "10.1.0.1/24")
    assert "10.1.0.1" not in left.output(["ip", "address", "show", "dev", "v0"])
    left.set_link("v0", up=False, mtu=1300)
    shown = left.output(["ip", "link", "show", "dev", "v0"])
    assert "mtu 1300" in shown
    assert "state DOWN" in shown
    left.delete_link("v0")
    assert "v0" not in right.output(["ip", "link"])


def test_the_kernels_mptcp_path_manager(left: Namespace, right: Namespace) -> None:
    left.veth(
        right,
        "v0",
        addresses=["10.1.0.1/24", "10.3.0.1/24"],
        other_addresses=["10.1.0.2/24", "10.3.0.2/24"],
    )
    for namespace in (left, right):
        namespace.set_mptcp_limits(subflows=4, add_addr_accepted=4)
    left.add_mptcp_endpoint("10.3.0.1", flags=["subflow", "backup"], endpoint_id=7, device="v0")
    left.add_mptcp_endpoint("fd01::1", flags=["signal"], endpoint_id=8)
    assert left.mptcp_endpoints() == {
        7: ("10.3.0.1", frozenset({"subflow", "backup"})),
        8: ("fd01::1", frozenset({"signal"})),
    }
    left.delete_mptcp_endpoint(8)
    assert set(left.mptcp_endpoints()) == {7}
    with pytest.raises(ValueError, match="unknown endpoint flags"):
        left.add_mptcp_endpoint("10.3.0.1", flags=["signall"])
    with (
        right.socket(protocol=IPPROTO_MPTCP) as server,
        left.socket(protocol=IPPROTO_MPTCP) as client,
    ):
        server.bind(("10.1.0.2", 5000))
        server.listen()
        client.connect(("10.1.0.2", 5000))
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
            accepted.sendall(b"y")
            assert client.recv(1) == b"y"
            assert right.counters()["MPTcpExtMPCapableSYNRX"] == 1


def test_close_kills_the_programs_inside() -> None:
    with Namespace.create("short") as namespace:
        child = namespace.run(["sleep", "100"])
        assert child.poll() is None
    assert child.returncode == -9
    namespace.close()


def test_an_unknown_program_is_reported(left: Namespace) -> None:
    with pytest.raises(FileNotFoundError, match="no such program"):
        left.run(["no-such-program-anywhere"])
    with pytest.raises(subprocess.CalledProcessError):
        left.output(["false"])


def test_programs_die_with_a_killed_parent() -> None:
    """Even SIGKILL leaves nothing behind: the program's pipe closes, so it has ended."""
    source = """
import os, signal, sys
from mptcp.tun.netns import Namespace
namespace = Namespace.create("parent")
namespace.run(["sleep", "100"], stdout=int(sys.argv[1]), pass_fds=())
os.kill(os.getpid(), signal.SIGKILL)
"""
    reader, writer = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", source, str(writer)], pass_fds=(writer,))
    os.close(writer)
    try:
        assert os.read(reader, 1) == b""  # blocks while any process holds the other end
        assert parent.wait(10) == -9
    finally:
        os.close(reader)


def test_without_rights_a_user_namespace_or_a_clear_reason() -> None:
    """Without capabilities the program comes back as root of a user namespace, or says why not."""
    source = """
import os, sys
from mptcp.tun.netns import Namespace, enter_user_namespace
try:
    enter_user_namespace()
except OSError as error:
    print("refused:", error)
    sys.exit()
with Namespace.create("inside") as namespace:
    tcp_sack = namespace.sysctl("net.ipv4.tcp_sack", 0)
    print("entered:", os.environ["MPTCP_IN_USER_NAMESPACE"], tcp_sack)
"""
    command = [sys.executable, "-c", source]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv (util-linux) is missing, so root cannot drop its capabilities")
        # SETFCAP alone stays: Linux asks for it where uid 0 is to be mapped to itself.
        command = [setpriv, "--inh-caps=-all", "--bounding-set=-all,+setfcap", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    printed = done.stdout.strip()
    assert printed == "entered: 1 0" or printed.startswith("refused: no right"), done.stderr
    assert "\n" not in printed
