"""Anonymous network namespaces: networks of their own for tests, experiments and demonstrations.

A `Namespace` is a descriptor; nothing is mounted under /run/netns and nothing can be left behind,
because the kernel removes a namespace with the last descriptor and process in it. That holds for
exceptions, SIGINT and even SIGKILL. Programs started with `run()` are killed by `close()`, and by
the kernel (PR_SET_PDEATHSIG) when this process dies without having closed.

Works as root and inside a user namespace; `enter_user_namespace()` is the way there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, ParamSpec, Self, TypeVar

from . import netlink
from .closing import Closing
from .device import DeviceError, TunDevice
from .interface import Configured, configure_interface, read_setting, write_setting
from .linux import in_namespace, in_thread, open_current_namespace, setns, unshare_network

P = ParamSpec("P")
T = TypeVar("T")

_NO_RIGHTS: Final = (
    "no right to create network namespaces: run as root, or where user namespaces are allowed "
    "(sysctl user.max_user_namespaces above 0, unshare -Urn)"
)
_REEXECUTED: Final = "MPTCP_IN_USER_NAMESPACE"
_CAP_NET_ADMIN: Final = 12
_CAP_SYS_ADMIN: Final = 21
_PATIENCE_S: Final = 5.0  # for a killed program to be reaped


def _new_namespace() -> int:
    try:
        unshare_network()
    except OSError as error:
        if error.errno == errno.EPERM:
            raise DeviceError(errno.EPERM, _NO_RIGHTS) from error
        raise
    with contextlib.suppress(OSError):  # a kernel without IPv6, or /proc/sys read-only
        # Duplicate address detection would keep a new address unusable for a second.
        for scope in ("all", "default"):
            write_setting(f"net.ipv6.conf.{scope}.accept_dad", "0")
            write_setting(f"net.ipv6.conf.{scope}.router_solicitations", "0")
    netlink.set_link("lo", state="up")
    return open_current_namespace()


class Namespace(Closing):
    """One network namespace, kept alive by its descriptor `fd`; use it as a context manager."""

    def __init__(self, label: str, fd: int) -> None:
        """Take over the descriptor `fd`; `create()` and `current()` are the usual ways."""
        self.label = label
        self.fd = fd
        self._programs: list[subprocess.Popen[Any]] = []
        # The thread that starts programs: they die with it, so it lives as long as this object.
        self._starter: ThreadPoolExecutor | None = None

    @classmethod
    def create(cls, label: str = "") -> Self:
        """A new, empty namespace whose loopback is up. Raises DeviceError without the right."""
        return cls(label, in_thread(_new_namespace))

    @classmethod
    def current(cls) -> Self:
        """The namespace the caller is in."""
        return cls("current", open_current_namespace())

    def __repr__(self) -> str:
        return f"Namespace({self.label!r}, fd={self.fd})"

    @property
    def path(self) -> str:
        """A path for other programs, such as nsenter --net=PATH; valid until close()."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Kill the programs still running inside and let the namespace go. May be called twice."""
        for program in self._programs:
            if program.poll() is None:
                program.kill()
                program.wait(_PATIENCE_S)
        self._programs.clear()
        if self._starter is not None:
            self._starter.shutdown()
            self._starter = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # Programs, functions, sockets and devices inside

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `func` in a thread inside the namespace; returns or raises what it does."""
        return in_namespace(self.fd, func, *args, **kwargs)

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside; `options` are subprocess.Popen's. close() kills it.

        Raises FileNotFoundError when there is no such program.
        """
        environment = options.get("env") or os.environ
        program = shutil.which(argv[0], path=environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(errno.ENOENT, "no such program", argv[0])
        command = [program, *argv[1:]]
        # setpriv, not preexec_fn: Python code between fork and exec may hang in a program with
        # threads.
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            command = [setpriv, "--pdeathsig", "KILL", *command]
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1, "mptcp-netns", setns, (self.fd,))
        self._programs = [child for child in self._programs if child.poll() is None]
        child: subprocess.Popen[Any] = self._starter.submit(_popen, command, options).result()
        self._programs.append(child)
        return child

    def output(self, argv: Sequence[str], *, timeout: float = 30.0) -> str:
        """Run a program to its end (at most `timeout` seconds) and return what it printed.

        Raises subprocess.CalledProcessError, whose `stderr` has the reason, or TimeoutExpired.
        """
        child = self.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            printed, complaint = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, list(argv), printed, complaint)
        return str(printed)

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
    ) -> socket.socket:
        """A socket that belongs to the namespace and may be used from anywhere."""
        return self.call(socket.socket, family, kind, protocol)

    def tun(self, name: str | None = None, **options: Any) -> TunDevice:
        """A TunDevice inside; `options` are TunDevice's."""
        return self.call(TunDevice, name, **options)

    def configure(self, name: str, **options: Any) -> Configured:
        """`configure_interface` inside."""
        return self.call(configure_interface, name, **options)

    # Links, addresses, routes, rules, settings

    def veth(
        self,
        other: Namespace,
        name: str,
        other_name: str | None = None,
        *,
        addresses: Iterable[str] = (),
        other_addresses: Iterable[str] = (),
        mtu: int = 1500,
    ) -> None:
        """Join this namespace and `other` by two interfaces that are up, with addresses."""
        peer = other_name or name
        self.call(netlink.add_veth, name, peer, other.fd, mtu)
        other.call(netlink.set_link, peer, state="up")
        self.call(netlink.set_link, name, state="up")
        self.add_addresses(name, addresses)
        other.add_addresses(peer, other_addresses)

    def set_link(self, name: str, **changes: Any) -> None:
        """Change an interface: `up=True/False` or pyroute2's link attributes (mtu=, txqlen=)."""
        if "up" in changes:
            changes["state"] = "up" if changes.pop("up") else "down"
        self.call(netlink.set_link, name, **changes)

    def delete_link(self, name: str) -> None:
        """Delete an interface (of a veth pair: both)."""
        self.call(netlink.delete_link, name)

    def add_addresses(self, name: str, addresses: Iterable[str]) -> None:
        """Give an interface "ip/prefix" addresses, usable at once: no address detection."""
        self.call(netlink.add_link_addresses, name, list(addresses))

    def delete_address(self, name: str, address: str) -> None:
        """Take the "ip/prefix" address from an interface."""
        self.call(netlink.delete_link_address, name, address)

    def add_route(
        self,
        prefix: str,
        *,
        via: str | None = None,
        device: str | None = None,
        source: str | None = None,
        table: int | None = None,
        metric: int | None = None,
    ) -> None:
        """Add a route to `prefix` ("default", "default6" or "net/len")."""
        self.call(
            netlink.add_route,
            prefix,
            via=via,
            device=device,
            source=source,
            table=table,
            metric=metric,
        )

    def add_blackhole(self, prefix: str) -> None:
        """Drop what goes to `prefix` ("net/len") without a word."""
        self.call(netlink.add_blackhole, prefix)

    def add_source_rule(self, source: str, table: int, *, priority: int | None = None) -> None:
        """Packets whose source address is `source` ("ip" or "ip/len") use the routes of `table`."""
        self.call(netlink.add_source_rule, source, table, priority)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Set the sysctl `name` ("net.ipv4.ip_forward") unless `value` is None; its value."""
        if value is not None:
            self.call(write_setting, name, str(value))
        return self.call(read_setting, name)

    def enable_forwarding(self) -> None:
        """Make the namespace a router of IPv4 and IPv6 that takes packets by any interface."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)
        for scope in ("all", "default"):
            self.sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)

    def counters(self) -> dict[str, int]:
        """The protocol counters by nstat's names (TcpRetransSegs, MPTcpExtMPJoinSynRx)."""
        return self.call(netlink.read_counters)

    # The kernel's own MPTCP path manager

    def add_mptcp_endpoint(
        self,
        address: str,
        *,
        flags: Iterable[str] = ("subflow",),
        endpoint_id: int | None = None,
        device: str | None = None,
        port: int | None = None,
    ) -> None:
        """As `ip mptcp endpoint add`; flags: signal, subflow, backup, fullmesh, laminar."""
        self.call(
            netlink.add_mptcp_endpoint,
            address,
            flags=tuple(flags),
            endpoint_id=endpoint_id,
            device=device,
            port=port,
        )

    def delete_mptcp_endpoint(self, endpoint_id: int) -> None:
        """As `ip mptcp endpoint delete id N`."""
        self.call(netlink.delete_mptcp_endpoint, endpoint_id)

    def mptcp_endpoints(self) -> dict[int, tuple[str, frozenset[str]]]:
        """The endpoints: id -> (address, flags)."""
        return self.call(netlink.mptcp_endpoints)

    def set_mptcp_limits(self, *, subflows: int, add_addr_accepted: int) -> None:
        """As `ip mptcp limits set`; both 0 to 8."""
        self.call(netlink.set_mptcp_limits, subflows, add_addr_accepted)


def _popen(command: list[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    return subprocess.Popen(command, **options)


def _has_capabilities() -> bool:
    with open("/proc/thread-self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
                return bool(held >> _CAP_NET_ADMIN & 1 and held >> _CAP_SYS_ADMIN & 1)
    return False


def require_namespaces() -> str | None:
    """None when namespaces and TUN devices can be made here, else one line with the reason."""
    try:
        with Namespace.create("probe") as probe:
            probe.tun("probe0").close()
    except OSError as error:
        return str(error)
    return None


def enter_user_namespace() -> None:
    """Make sure this program may create namespaces and TUN devices, starting it anew if needed.

    Root (or whoever has NET_ADMIN and SYS_ADMIN) just returns. Otherwise the program is executed
    again, with its arguments, as root of a new user and network namespace; so call this first thing
    in main().
    Raises DeviceError where that is impossible.
    """
    if _has_capabilities():
        if os.environ.get(_REEXECUTED):
            in_thread(netlink.set_link, "lo", state="up")
        return
    unshare = shutil.which("unshare")
    if unshare is None or os.environ.get(_REEXECUTED):
        raise DeviceError(errno.EPERM, _NO_RIGHTS)
    enter = [unshare, "--user", "--map-root-user", "--net", "--"]
    trial = subprocess.run([*enter, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        complaint = (trial.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DeviceError(errno.EPERM, f"{_NO_RIGHTS}; unshare says: {complaint}")
    _start_anew(enter)


def _start_anew(prefix: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, _REEXECUTED: "1"}
    command = [*prefix, sys.executable, *sys.orig_argv[1:]]
    os.execve(command[0], command, environment)
