"""tshark as a witness: it reads what was on the wire and complains of what is no good protocol.

`capture` records a lab's far namespace; `clean` asks tshark of a capture. The fixture `witnessed`
(`tests.interop.conftest`) does both for every lab of a test, so that each row of the interop matrix
is also one of packets that tshark finds no fault with.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mptcp.tun.netns import Namespace

TSHARK: Final = shutil.which("tshark")
TCPDUMP: Final = shutil.which("tcpdump")

EXPECTED: Final = (
    # A reset is how these connections end, or how a subflow does (RFC 8684 §3.6).
    r"Connection reset \(RST\)",
    r"Connection finish \(FIN\)",
    r"This frame (initiates|undergoes) the connection closing",
    r"Connection establish (request|acknowledge) \(SYN(\+ACK)?\)",
    # What a path does to segments, and what the ends do then.
    r"(This frame is a )?\(?suspected\)? (fast |spurious )?retransmission",
    r"This frame is a \(suspected\) (fast |spurious )?retransmission",
    r"This frame is a \(suspected\) out-of-order segment",
    r"Previous segment\(s\) not captured",
    r"ACKed segment that wasn't captured",
    r"Duplicate ACK",
    r"D-SACK Sequence",
    r"TCP (Zero Window|window update|Window Full|keep-alive)",
    r"TCP window specified by the receiver is now completely full",
    r"TCP Zero Window",
    r"TCP keep-alive segment",
    r"ACK to a TCP keep-alive segment",
    # It adds up all of a header: two before the timestamps and two behind a DSS, as Linux has them.
    r"\d NOP in a row - a router may have removed some options",
    # A SYN repeated, or a port used again.
    r"A new tcp session is started with the same ports",
    r"TCP port numbers reused",
    r"TCP SYN-ACK accepting TFO data",
    r"TCP SYN with TFO Cookie",
)
"""Expert messages that belong to TCP's life on a network; anything else is a fault."""
NO_MAPPING: Final = "No mapping available"
"""What it also says of a bare ACK or FIN, which maps nothing (a FIN has no `tcp.len`)."""
C_FLAG: Final = "tcp.options.mptcp.nomoresubflows.flag"
ALGORITHM: Final = "Unsupported algorithm"
"""It takes the C flag of an MP_CAPABLE for one more algorithm."""
_EXPECTED: Final = re.compile("|".join(f"(?:{pattern})" for pattern in EXPECTED), re.IGNORECASE)


@contextlib.contextmanager
def capture(namespace: Namespace, target: Path) -> Iterator[None]:
    """Every packet that comes to or leaves the namespace, once; the file is whole after it."""
    command = [str(TCPDUMP), "-i", "any", "-n", "-U", "-s", "0", "-B", "65536", "-w", str(target)]
    # tcpdump as root would give its file to a user of its own.
    dump = namespace.run([*command, "-Z", "root"], stderr=subprocess.PIPE)
    assert dump.stderr is not None
    with dump.stderr as complaints:
        assert any(b"listening on" in line for line in complaints)
        try:
            yield
        finally:
            dump.terminate()
            dump.wait(10)


def ask(target: Path, keep: str, *fields: str, checksums: bool = True) -> list[list[str]]:
    """The fields of the packets that pass the filter, one list per packet."""
    command = [str(TSHARK), "-r", str(target), "-Y", keep, "-T", "fields"]
    command += ["-o", f"tcp.check_checksum:{checksums}", "-o", "mptcp.analyze_mappings:TRUE"]
    # The payload is random bytes, which other dissectors would take for their own.
    command += ["-d", "tcp.port==1-65535,data"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def complaints(target: Path) -> Counter[str]:
    """What tshark finds wrong with a capture: malformed packets, unexpected expert messages.

    Checksums are not looked at: a device may have been left to fill them in.
    """
    found: Counter[str] = Counter()
    fields = ("frame.number", "_ws.malformed", "tcp.len", C_FLAG, "_ws.expert.message")
    faulty = "_ws.malformed or _ws.expert"
    for frame, malformed, length, c_flag, messages in ask(target, faulty, *fields, checksums=False):
        if malformed:
            found[f"malformed: frame {frame}"] += 1
        for message in messages.split(","):
            if message == NO_MAPPING and length in ("", "0"):
                continue
            if message == ALGORITHM and c_flag == "1":
                continue
            if message and not _EXPECTED.match(message):
                found[f"frame {frame}: {message}"] += 1
    return found
