"""The kernel's side of an interface: its address, and undoing the set-up."""

from __future__ import annotations

import asyncio
import errno
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.tun.device import DeviceError, TunDevice
from mptcp.tun.interface import (
    check_addresses_free,
    check_stack_address,
    configure_interface,
    kernel_side_address,
)
from mptcp.tun.netns import Namespace


@pytest.mark.parametrize(
    ("stack", "kernel"),
    [
        ("10.9.1.2/24", "10.9.1.1/24"),
        ("10.9.1.1/24", "10.9.1.2/24"),
        ("10.9.1.129/25", "10.9.1.130/25"),
        ("10.9.1.200/25", "10.9.1.129/25"),
        ("10.0.0.1/30", "10.0.0.2/30"),
        ("10.0.0.0/31", "10.0.0.1/31"),
        ("10.0.0.1/31", "10.0.0.0/31"),
        ("fd00::2/64", "fd00::1/64"),
        ("fd00::1/64", "fd00::2/64"),
        ("fd00::1/126", "fd00::2/126"),
        ("fd00::/127", "fd00::1/127"),
        ("::2/120", "::1/120"),
    ],
)
def test_the_kernel_takes_the_lowest_other_host_address(stack: str, kernel: str) -> None:
    assert kernel_side_address(stack) == kernel


@pytest.mark.parametrize(
    "stack",
    [
        "10.9.1.2",
        "10.9.1.2/32",
        "fd00::1/128",
        "10.9.1.0/24",
        "10.9.1.255/24",
        "fd00::/64",
        "nonsense/24",
    ],
)
def test_an_address_that_leaves_no_room_is_refused(stack: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        kernel_side_address(stack)


@given(st.integers(1, 2**32 - 2), st.integers(8, 30))
def test_the_ipv4_kernel_address_is_another_host_of_the_subnet(number: int, prefix: int) -> None:
    own = ipaddress.IPv4Interface((number, prefix))
    hosts = (own.network.network_address, own.network.broadcast_address)
    if own.ip in hosts:
        return
    other = ipaddress.IPv4Interface(kernel_side_address(str(own)))
    assert other.network == own.network
    assert other.ip not in (*hosts, own.ip)
    assert int(other.ip) - int(own.network.network_address) <= 2


@given(st.integers(1, 2**128 - 1), st.integers(8, 126))
def test_the_ipv6_kernel_address_is_never_the_anycast_one(number: int, prefix: int) -> None:
    own = ipaddress.IPv6Interface((number, prefix))
    if own.ip == own.network.network_address:
        return
    other = ipaddress.IPv6Interface(kernel_side_address(str(own)))
    assert other.network == own.network
    assert other.ip not in (own.network.network_address, own.ip)


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        ("127.0.0.2/8", "a loopback"),
        ("::1/127", "a loopback"),
        ("224.0.0.5/24", "a multicast"),
        ("ff02::1/64", "a multicast"),
        ("0.0.0.0/31", "the unspecified"),
        ("::/127", "the unspecified"),
    ],
)
def test_an_address_that_packets_cannot_carry_is_refused(stack: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"^{stack} is {kind} address: choose another one$"):
        check_stack_address(stack)
    check_stack_address("10.9.1.2/24")
    check_stack_address("fe80::2/64")


@pytest.mark.netns
@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("10.9.1.2/24", "10.9.1.2/24 (tun7) overlaps 10.9.1.1/24 on tun1"),
        ("10.9.0.2/16", "10.9.0.2/16 (tun7) overlaps 10.9.1.1/24 on tun1"),
        ("10.9.1.130/25", "10.9.1.130/25 (tun7) overlaps 10.9.1.1/24 on tun1"),
        ("10.9.1.1/30", "10.9.1.1/30 (tun7) overlaps 10.9.1.1/24 on tun1"),
        ("fd00::9/48", "fd00::9/48 (tun7) overlaps fd00::1/64 on tun1"),
        ("10.8.0.2/24", "10.8.0.2/24 (tun7) overlaps 10.7.0.1/32 on tun1"),
        ("10.7.0.1/24", "10.7.0.1/24 (tun7) overlaps 10.7.0.1/32 on tun1"),
        ("169.254.3.1/16", "169.254.3.1/16 (tun7) overlaps 169.254.3.1/16 on tun1"),
        ("10.9.2.0/23", None),
        ("fd00:0:0:1::2/64", None),
        ("fe80::7/64", None),
        ("169.254.3.2/16", None),
    ],
)
def test_a_subnet_that_is_in_use_is_refused(
    left: Namespace, address: str, complaint: str | None
) -> None:
    with left.tun("tun1"):
        ours = ["10.9.1.1/24", "fd00::1/64", "fe80::7/64", "169.254.3.1/16"]
        left.configure("tun1", addresses=ours)
        left.output(["ip", "address", "add", "10.7.0.1", "peer", "10.8.0.1/32", "dev", "tun1"])
        if complaint is None:
            left.call(check_addresses_free, "tun7", ["10.99.0.2/24", address])
            return
        with pytest.raises(DeviceError) as caught:
            left.call(check_addresses_free, "tun7", ["10.99.0.2/24", address])
        assert str(caught.value) == f"{complaint}: choose a subnet of its own"
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.netns
def test_the_device_itself_may_have_its_subnet_already(left: Namespace) -> None:
    with left.tun("tun1"):
        left.configure("tun1", addresses=["10.9.1.1/24"])
        left.call(check_addresses_free, "tun1", ["10.9.1.2/24"])
        with pytest.raises(DeviceError, match="is the kernel's own address on tun1: choose an"):
            left.call(check_addresses_free, "tun1", ["10.9.1.1/24"])


@pytest.mark.netns
def test_remove_puts_everything_back(left: Namespace) -> None:
    before = "10.9.9.1/24"
    with left.tun("tun5") as device:
        left.add_addresses("tun5", [before])
        setting = left.sysctl("net.ipv6.conf.tun5.accept_dad")
        done = left.configure(
            "tun5", mtu=1400, addresses=["10.9.1.1/24", "fd00::1/64", before], txqueuelen=77
        )
        shown = left.output(["ip", "address", "show", "dev", "tun5"])
        assert "mtu 1400" in shown
        assert "qlen 77" in shown
        assert "10.9.1.1/24" in shown
        assert "fd00::1/64 scope global nodad" in shown
        assert "UP" in shown
        assert "fe80" not in shown  # no link-local address, so nothing is announced
        assert left.sysctl("net.ipv6.conf.tun5.router_solicitations") == "0"
        done.remove()
        done.remove()
        shown = left.output(["ip", "address", "show", "dev", "tun5"])
        assert "mtu 1500" in shown
        assert "10.9.1.1" not in shown
        assert before in shown
        assert "UP" not in shown
        assert left.sysctl("net.ipv6.conf.tun5.accept_dad") == setting
        assert device.name == "tun5"


@pytest.mark.netns
def test_remove_after_the_device_has_gone_is_quiet(left: Namespace) -> None:
    device = left.tun("tun5")
    done = left.configure("tun5", addresses=["10.9.1.1/24"])
    device.close()
    done.remove()


@pytest.mark.netns
def test_a_failure_half_way_is_undone(left: Namespace) -> None:
    with left.tun("tun5"):
        # A multicast address is none of an interface.
        with pytest.raises(DeviceError, match="address ff02::1/64 cannot be added"):
            left.configure("tun5", mtu=1400, addresses=["10.9.1.1/24", "ff02::1/64"])
        shown = left.output(["ip", "address", "show", "dev", "tun5"])
        assert "10.9.1.1" not in shown
        assert "mtu 1500" in shown


@pytest.mark.netns
def test_a_missing_interface_is_a_clear_error(left: Namespace) -> None:
    with pytest.raises(DeviceError, match="there is no interface 'nothere'"):
        left.configure("nothere", addresses=["10.9.1.1/24"])


@pytest.mark.netns
def test_an_interface_is_configured_inside_a_running_event_loop(left: Namespace) -> None:
    async def engine() -> None:
        with TunDevice("tun6"):
            configure_interface("tun6", addresses=["10.9.2.1/24"]).remove()

    left.call(asyncio.run, engine())
