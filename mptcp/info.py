"""Snapshots of connections: `connection.info()`, `writer.get_extra_info("mptcp_info")`.

Times are microseconds, sizes bytes, rates bytes a second, addresses text. What Linux's `mptcp_info`
and `tcp_info` say stands in records of those names, under the kernel's names and in its units
(`linux_info`); beside them is what the kernel does not tell.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mptcp.addressing import format_address
from mptcp.linux_info import MptcpKernelInfo, TcpInfo, kernel_info, pacing_rate, tcp_info

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow


@dataclass(frozen=True, slots=True)
class SubflowInfo:
    """One subflow as it is now."""

    path_index: int
    interface: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int
    remote_id: int
    state: str
    backup: bool
    stale: bool
    srtt: int
    rttvar: int
    rto: int
    cwnd: int
    ssthresh: int | None
    in_flight: int
    mss: int
    path_mtu: int
    ecn: bool
    bytes_sent: int
    bytes_acked: int
    bytes_retransmitted: int
    bytes_received: int
    role: str
    """How it came to be: initial-active, initial-passive, join-active, join-passive."""
    congestion_control: str
    recovery: str
    """open, fast or loss."""
    spurious: int
    """Recoveries that were taken back: nothing had been lost."""
    min_rtt: int
    rack_rtt: int
    """RACK.rtt: of the newest segment known to be delivered (RFC 8985 §5.2)."""
    reordering_seen: bool
    pacing_rate: int
    """0: pacing holds nothing back."""
    delivery_rate: int
    """Of the last whole round trip."""
    backup_request: bool
    """We asked the peer to use it as backup; `backup`: the peer asked us."""
    reset_reason: int | None
    """MP_TCPRST's code, received or sent (RFC 8684 §3.6)."""
    tcp_info: TcpInfo


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A row of the path manager's mapping table (thesis §4.2.1)."""

    index: int
    local: str
    remote: str
    remote_port: int
    established: bool
    failures: int


@dataclass(frozen=True, slots=True)
class MptcpInfo:
    """A connection as it is now."""

    number: int
    fallback: bool
    fallback_reason: str
    token: int
    remote_token: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    snd_una: int
    snd_nxt: int
    rcv_nxt: int
    send_queued: int
    receive_queued: int
    receive_window: int
    reinjected_bytes: int
    checksum: bool
    eof: bool
    ended: str | None
    established: bool
    server_side: bool
    scheduler: str
    reorder_queued: int
    """Bytes of memory that out-of-order data takes."""
    reorder: str
    """Registered name of the out-of-order queue."""
    reorder_runs: int
    """Contiguous runs in it."""
    reorder_hits: int
    """Insertions there so far whose place the subflow's shortcut named (thesis §4.3.5)."""
    reorder_misses: int
    """Those that were searched for."""
    reorder_steps: int
    """What the searches passed."""
    past_subflows: int
    """Subflows that are gone."""
    mptcp_info: MptcpKernelInfo
    subflows: list[SubflowInfo] = field(default_factory=list)
    paths: list[PathInfo] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def brief(self) -> dict[str, Any]:
        """As `to_dict`, without the kernel's records."""
        values = asdict(self)
        del values["mptcp_info"]
        for subflow in values["subflows"]:
            del subflow["tcp_info"]
        return values


def subflow_info(subflow: Subflow) -> SubflowInfo:
    """Snapshot of a subflow."""
    snd = subflow.snd
    ssthresh = snd.cc.ssthresh
    return SubflowInfo(
        path_index=subflow.path_index,
        interface=subflow.interface.name,
        local=format_address(subflow.local),
        local_port=subflow.local_port,
        remote=format_address(subflow.remote),
        remote_port=subflow.remote_port,
        local_id=subflow.local_id,
        remote_id=subflow.remote_id,
        state=subflow.state.name,
        backup=subflow.backup,
        stale=subflow.stale,
        srtt=snd.rtt.srtt,
        rttvar=snd.rtt.rttvar,
        rto=snd.rtt.rto,
        cwnd=snd.cc.cwnd,
        ssthresh=ssthresh if ssthresh < 1 << 60 else None,
        in_flight=snd.board.in_flight,
        mss=snd.mss,
        path_mtu=subflow.pmtu.mtu,
        ecn=subflow.ecn.sends,
        bytes_sent=snd.bytes_sent,
        bytes_acked=snd.bytes_acked,
        bytes_retransmitted=snd.bytes_retransmitted,
        bytes_received=subflow.bytes_received,
        role=subflow.role.name.lower().replace("_", "-"),
        congestion_control=subflow.meta.congestion_control,
        recovery=snd.recovery.name.lower(),
        spurious=snd.spurious,
        min_rtt=snd.rtt.min_rtt,
        rack_rtt=snd.rack.rtt,
        reordering_seen=snd.rack.reordering_seen,
        pacing_rate=pacing_rate(subflow),
        delivery_rate=subflow.stats.delivery_rate,
        backup_request=subflow.backup_request,
        reset_reason=(
            subflow.reset_reason if subflow.reset_reason is not None else subflow.reset_sent
        ),
        tcp_info=tcp_info(subflow),
    )


def mptcp_info(meta: MetaSocket) -> MptcpInfo:
    """Snapshot of a connection."""
    end = meta.fendpoint
    reorder = meta.rx.reorder
    return MptcpInfo(
        number=meta.number,
        fallback=meta.fallback,
        fallback_reason=meta.fallback_reason.value if meta.fallback_reason is not None else "",
        token=meta.token,
        remote_token=meta.remote_token,
        local=format_address(end.local),
        local_port=end.local_port,
        remote=format_address(end.remote),
        remote_port=end.remote_port,
        snd_una=meta.tx.una,
        snd_nxt=meta.tx.nxt,
        rcv_nxt=meta.rx.nxt,
        send_queued=meta.tx.used,
        receive_queued=meta.rx.unread,
        receive_window=max(0, meta.rx.adv - meta.rx.nxt),
        reinjected_bytes=meta.tx.retransmit.taken_bytes,
        checksum=meta.checksum and not meta.fallback,
        eof=meta.eof,
        ended=meta.ended.value if meta.ended is not None else None,
        established=meta.established,
        server_side=not meta.is_client,
        scheduler=meta.config.scheduler,
        reorder_queued=reorder.memory,
        reorder=meta.config.reorder,
        reorder_runs=reorder.runs,
        reorder_hits=reorder.hits,
        reorder_misses=reorder.misses,
        reorder_steps=reorder.steps,
        past_subflows=meta.past_subflows,
        mptcp_info=kernel_info(meta),
        subflows=[subflow_info(subflow) for subflow in meta.subflows],
        paths=[
            PathInfo(
                index=path.index,
                local=format_address(path.endpoint.local),
                remote=format_address(path.endpoint.remote),
                remote_port=path.endpoint.remote_port,
                established=path.established,
                failures=path.failures,
            )
            for path in meta.paths.manager.table()
        ],
    )
