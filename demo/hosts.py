"""The programs of the two hosts: `mptcpd`, the HTTP server, the download.

Each runs in its host's namespace, in a session of its own (a Ctrl-C at the terminal is for the
demonstration, which ends them in order), and writes to a log of its own. What does not start, or
ends early, becomes a `DemoError` with the last line it wrote.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from demo.interrupts import Interrupts
from demo.network import PATHS, stack_address, stack_prefix
from mptcp.tun.netns import Namespace

HTTP_PORT: Final = 8000
"""Of the HTTP server behind mptcpd, on host b's loopback."""
MPTCP_PORT: Final = 8080
"""Where host b serves the file to host a."""
PROXY_PORT: Final = 8080
"""On host a's loopback: what is asked here is fetched over MPTCP."""
_START_S: Final = 20.0
_STOP_S: Final = 5.0
_POLL_S: Final = 0.02


class DemoError(Exception):
    """The demonstration cannot run; one line."""


class TransferError(DemoError):
    """It ran, and the file did not arrive; one line."""


class Program:
    """A running program of a host."""

    def __init__(self, title: str, process: subprocess.Popen[Any], log: Path) -> None:
        self.title = title
        self.process = process
        self.log = log

    def check(self) -> None:
        """Raise DemoError if it has ended."""
        if self.process.poll() is not None:
            raise DemoError(f"{self.title} has ended: {self.last_words()}")

    def last_words(self) -> str:
        """The last line it wrote."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
            for line in reversed(lines):
                if line.strip():
                    return line.strip()
        return f"exit status {self.process.returncode}, and no word in {self.log}"

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End it in good order, or at all."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def _supervised(program: Program) -> Iterator[None]:
    """While it runs; an end on its own is an error, and the reason of a transfer that failed."""
    try:
        yield
        program.check()
    except TransferError as error:
        if program.process.poll() is None:
            raise
        raise TransferError(f"{program.title} has ended: {program.last_words()}") from error
    finally:
        program.stop()


def start(
    namespace: Namespace,
    title: str,
    command: Sequence[str],
    log: Path,
    *,
    output: bool = False,
) -> Program:
    """Start a Python program (`command` are the interpreter's arguments) inside a namespace.

    `output`: its standard output is a pipe for the caller to read, and only its errors are logged.
    """
    with open(log, "wb") as file:
        process = namespace.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output else file,
            stderr=file,
            start_new_session=True,
        )
    return Program(title, process, log)


def wait_for(ready: Callable[[], bool], program: Program, interrupts: Interrupts) -> None:
    """Wait until `ready()`. Raises DemoError when the program ends first or takes too long."""
    deadline = time.monotonic() + _START_S
    while not ready():
        program.check()
        if time.monotonic() > deadline:
            raise DemoError(
                f"{program.title} is not ready after {_START_S:.0f} s: see {program.log}"
            )
        select.select([interrupts], [], [], _POLL_S)
        interrupts.check()


def daemon_configuration(host: str, control: Path, pcap: Path) -> str:
    """The file for the mptcpd of host "a" (fetches) or "b" (serves)."""
    # Names of files are texts of TOML, whose basic strings are JSON's.
    lines = [
        "[daemon]",
        f"socket = {json.dumps(str(control))}",
        f"pcap = {json.dumps(str(pcap))}",
    ]
    other = "b" if host == "a" else "a"
    for path in PATHS:
        lines += [
            "",
            "[[interface]]",
            f'name = "mp{path.number}"',
            f'address = "{stack_address(host, path.number)}/24"',
            f'routes = ["{stack_prefix(other, path.number)}"]',
        ]
    if host == "a":
        lines += [
            "",
            "[[forward]]",
            f'listen = "127.0.0.1:{PROXY_PORT}"',
            f'to = "{stack_address("b", 1)}:{MPTCP_PORT}"',
        ]
    else:
        lines += ["", "[[listen]]", f"port = {MPTCP_PORT}", f'to = "127.0.0.1:{HTTP_PORT}"']
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def mptcpd(
    namespace: Namespace, host: str, work: Path, output: Path, interrupts: Interrupts
) -> Iterator[Path]:
    """Run the mptcpd of a host until the end of the block; gives the path of its capture."""
    control, capture = work / f"control-{host}", output / f"host-{host}.pcap"
    configuration = output / f"host-{host}.toml"
    configuration.write_text(daemon_configuration(host, control, capture), encoding="utf-8")
    program = start(
        namespace,
        f"mptcpd of host {host}",
        ["-m", "mptcp.daemon", "--config", str(configuration)],
        output / f"host-{host}.log",
    )
    with _supervised(program):
        wait_for(lambda: _answers(control), program, interrupts)
        yield capture


def _answers(control: Path) -> bool:
    """Whether a daemon answers on its control socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_START_S)
        try:
            sock.connect(str(control))
            sock.sendall(b'{"op": "ping"}\n')
            return bool(sock.recv(1))
        except OSError:
            return False


@contextlib.contextmanager
def http_server(
    namespace: Namespace, folder: Path, output: Path, interrupts: Interrupts
) -> Iterator[None]:
    """Python's own HTTP server on the host's loopback, kernel TCP."""
    command = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder)]
    log = output / "http-server.log"
    program = start(namespace, "the HTTP server", [*command, str(HTTP_PORT)], log)
    with _supervised(program):
        address = ("127.0.0.1", HTTP_PORT)
        wait_for(lambda: _accepts(namespace, address), program, interrupts)
        yield


@contextlib.contextmanager
def kernel_http_server(
    namespace: Namespace, folder: Path, output: Path, interrupts: Interrupts
) -> Iterator[str]:
    """An HTTP server on the kernel's MPTCP; gives its default congestion control."""
    try:
        enabled = namespace.sysctl("net.mptcp.enabled")
    except FileNotFoundError:
        raise DemoError("this kernel has no MPTCP: use PEER=ours") from None
    if enabled != "1":
        namespace.sysctl("net.mptcp.enabled", 1)
    namespace.set_mptcp_limits(subflows=len(PATHS), add_addr_accepted=0)
    # The address of path 1 is the connection's own; the others are announced.
    for path in PATHS[1:]:
        namespace.add_mptcp_endpoint(
            stack_address("b", path.number), flags=("signal",), device=f"link{path.number}"
        )
    script = str(Path(__file__).with_name("kernel_server.py"))
    log = output / "http-server.log"
    program = start(
        namespace, "the kernel's HTTP server", [script, str(folder), str(MPTCP_PORT)], log
    )
    with _supervised(program):
        address = (stack_address("b", 1), MPTCP_PORT)
        wait_for(lambda: _accepts(namespace, address), program, interrupts)
        yield namespace.sysctl("net.ipv4.tcp_congestion_control")


def _accepts(namespace: Namespace, address: tuple[str, int]) -> bool:
    """Whether something listens on a TCP address, asked from inside the namespace."""
    with namespace.socket() as sock:
        try:
            sock.connect(address)
        except OSError:
            return False
    return True


def start_download(namespace: Namespace, file_name: str, target: Path, output: Path) -> Program:
    """Start the program that knows only TCP, on host a."""
    script = str(Path(__file__).with_name("fetch.py"))
    url = f"http://127.0.0.1:{PROXY_PORT}/{file_name}"
    return start(
        namespace, "the download", [script, url, str(target)], output / "fetch.log", output=True
    )
