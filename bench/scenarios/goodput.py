"""Bulk goodput over two paths: ours beside the kernel's own MPTCP, and beside the bare device.

One connection, one direction, memory to memory. Each case runs in a network of its own, built anew,
and the runs of all cases are interleaved, so that noise of the machine falls on all alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..nodes import Node
from ..registry import BenchError, Options, Progress, scenario
from ..results import Report, Row
from ..topology import MTU, PATHS, BarePath, Side, TwoPaths

KERNEL_CONTROLS: Final = ("bbr", "cubic", "reno")
PEER_CONTROL: Final = "cubic"
_GRACE_S: Final = 10.0
_STALL_MS: Final = 100.0
_LEAST_SHARE: Final = 0.02
"""A path that carries less than this was not used."""


@dataclass(frozen=True, slots=True)
class Case:
    """Who sends, who receives."""

    key: str
    label: str
    sender: str
    receiver: str
    control: str = PEER_CONTROL

    @property
    def ours(self) -> frozenset[Side]:
        """The ends that are our stack."""
        roles = ((Side.A, self.sender), (Side.B, self.receiver))
        return frozenset(side for side, role in roles if role == "ours")


CASES: Final = (
    *(
        Case(f"kernel-{control}", f"kernel → kernel, {control}", "kernel", "kernel", control)
        for control in KERNEL_CONTROLS
    ),
    Case("ours-kernel", "ours → kernel", "ours", "kernel"),
    Case("kernel-ours", f"kernel ({PEER_CONTROL}) → ours", "kernel", "ours"),
    Case("ours-ours", "ours → ours", "ours", "ours"),
    Case("limit", "bare TUN loop", "bare", "bare"),
)


@dataclass(frozen=True, slots=True)
class _Lengths:
    runs: int
    seconds: float
    warmup: float


def _lengths(options: Options) -> _Lengths:
    if options.quick:
        return _Lengths(options.runs or 1, options.seconds or 0.5, 0.3)
    return _Lengths(options.runs or 3, options.seconds or 3.0, 1.0)


@scenario
class Goodput:
    """`python -m bench run goodput`."""

    name = "goodput"
    summary = "bulk over two paths: ours and the kernel's MPTCP, each way, and the bare TUN limit"
    needs_rights = True
    source = ""

    def cases(self) -> list[str]:
        """See `Scenario`."""
        return [case.key for case in CASES]

    def run(self, options: Options, progress: Progress) -> Report:
        """See `Scenario`."""
        lengths = _lengths(options)
        chosen = [case for case in CASES if not options.only or case.key in options.only]
        rows = {case.key: Row(case.key, case.label, "Gbit/s") for case in chosen}
        total = len(chosen) * lengths.runs
        for number in range(lengths.runs):
            for place, case in enumerate(chosen):
                progress(case.label, number * len(chosen) + place, total)
                tag = f"{case.key}-{number + 1}"
                try:
                    details = _measure(case, lengths, options, tag)
                except BenchError as error:
                    raise BenchError(f"{case.label}: {error}") from error
                rows[case.key].values.append(details["gbit_per_s"])
                rows[case.key].details.append(details)
        progress("done", total, total)
        report = Report(
            self.name,
            f"Goodput over {PATHS} paths, MTU {MTU}, offload on, "
            f"median of {lengths.runs} × {lengths.seconds:g} s",
            {
                "paths": PATHS,
                "mtu": MTU,
                "offload": True,
                "runs": lengths.runs,
                "seconds": lengths.seconds,
                "warmup": lengths.warmup,
                "peer_congestion_control": PEER_CONTROL,
            },
            list(rows.values()),
        )
        _explain(report)
        return report


def _measure(case: Case, lengths: _Lengths, options: Options, tag: str) -> dict[str, Any]:
    """One run of one case; what the receiver told, with what else was seen."""
    arguments = [
        f"--cc={case.control}",
        f"--warmup={lengths.warmup}",
        f"--seconds={lengths.seconds}",
    ]
    if case.sender == "bare":
        with BarePath() as bare:
            a, b = bare.ends[Side.A], bare.ends[Side.B]
            details, _ = _transfer(a, b, case, arguments, lengths, options, tag)
            return details
    with TwoPaths(ours=case.ours) as network:
        a, b = network.ends[Side.A], network.ends[Side.B]
        details, sender = _transfer(a, b, case, arguments, lengths, options, tag)
        sent = network.bytes_sent(Side.A)
        details["sender"] = sender
        details["path_shares"] = [round(part / max(1, sum(sent)), 3) for part in sent]
        for side in Side:
            if side not in case.ours:
                details[f"kernel_counters_{side.name}"] = network.counters(side)
        return details


def _transfer(
    a: Any,
    b: Any,
    case: Case,
    arguments: list[str],
    lengths: _Lengths,
    options: Options,
    tag: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Receiver's and sender's result lines."""

    def start(namespace: Any, kind: str, end: str) -> Node:
        extra = []
        if options.profile is not None and kind == "ours":
            extra = [f"--profile={options.profile / f'{tag}-{end}.pstats'}"]
        return Node(namespace, f"{kind}-{end}", [*arguments, *extra])

    receiver = start(b, case.receiver, "recv")
    sender: Node | None = None
    try:
        receiver.line(_GRACE_S)
        sender = start(a, case.sender, "send")
        try:
            received = receiver.line(lengths.warmup + lengths.seconds + _GRACE_S)
        except BenchError as error:
            raise BenchError(_blame(error, sender)) from error
        if case.sender == "bare":
            return received, {}
        told = sender.line(_GRACE_S)
        for node in (sender, receiver):
            node.close(_GRACE_S)  # a profile may have to be written
        return received, told
    finally:
        if sender is not None:
            sender.close()
        receiver.close()


def _blame(error: BenchError, sender: Node) -> str:
    """The receiver's complaint, and the sender's when it has failed too."""
    complaint = sender.complaint()
    return f"{error}; {complaint}" if complaint else str(error)


def _explain(report: Report) -> None:
    """Ratios, remarks on single rows, and what the columns are."""
    for key in ("ours-kernel", "kernel-ours", "ours-ours"):
        for control in KERNEL_CONTROLS:
            report.compare(key, f"kernel-{control}", control)
        report.compare(key, "limit", "limit")
    for row in report.rows:
        row.remark = "; ".join(_remarks(row))
    report.notes += [
        f"÷ {', '.join(KERNEL_CONTROLS)}: the kernel's own MPTCP with that congestion control on "
        "the same veth pairs and router.",
        "÷ limit: two Python processes that only write and read 64 KiB chunks, TUN - veth - TUN.",
        "CPU: share of one CPU that the process used, sender then receiver.",
    ]


def _remarks(row: Row) -> list[str]:
    remarks = []
    detail = row.details[-1] if row.details else {}
    cpu = [f"{100 * part['cpu']:.0f}" for part in (detail.get("sender"), detail) if part]
    if cpu:
        remarks.append(f"CPU {' / '.join(cpu)} %")
    gap = max((part["longest_gap_ms"] for part in row.details), default=0.0)
    if gap >= _STALL_MS:
        remarks.append(f"stalled for {gap:.0f} ms")
    for detail in row.details:
        shares = detail.get("path_shares")
        if shares and min(shares) < _LEAST_SHARE:
            remarks.append("one path was hardly used")
            break
    for detail in row.details:
        reason = detail.get("fallback") or detail.get("sender", {}).get("fallback")
        if reason:
            remarks.append(f"fell back to TCP: {reason}")
            break
    return remarks
