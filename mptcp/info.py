"""Snapshots of connections for people and programs: `writer.get_extra_info("mptcp_info")`.

Times are microseconds, sizes bytes, addresses text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mptcp.addressing import format_address

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
    subflows: list[SubflowInfo] = field(default_factory=list)
    paths: list[PathInfo] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


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
    )


def mptcp_info(meta: MetaSocket) -> MptcpInfo:
    """Snapshot of a connection."""
    end = meta.fendpoint
    return MptcpInfo(
        number=meta.number,
        fallback=meta.fallback,
        fallback_reason=meta.fallback_reason,
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
        reinjected_bytes=meta.tx.reinjected_bytes,
        checksum=meta.checksum and not meta.fallback,
        eof=meta.eof,
        ended=meta.ended.value if meta.ended is not None else None,
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
