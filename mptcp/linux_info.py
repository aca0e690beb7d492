"""What Linux tells of a connection, told of ours: `struct tcp_info` and `struct mptcp_info`.

Fields have the kernel's names without the prefix (`tcpi_`, `mptcpi_`), and its units, which are not
those of the rest of this project: windows are counted in segments, `last_…` in ms; RTTs and time
limits are µs, rates bytes a second. Left out is what has no meaning here: `fackets`,
`rcv_ssthresh`, `reordering` (RACK has no such metric), `max_pacing_rate`, `rehash`,
`total_rto_time`, `fastopen_client_fail`, `last_ack_sent` (0 in the kernel too).

Where segments are counted and this stack counts bytes, the number is bytes by MSS, rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mptcp.tcp.recovery import Recovery
from mptcp.tcp.state import State

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

STATES: Final = {
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RECEIVED: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.CLOSING: 11,
}
"""The kernel's numbers (TCP_ESTABLISHED …)."""
CA_OPEN: Final = 0
CA_DISORDER: Final = 1
CA_CWR: Final = 2
CA_RECOVERY: Final = 3
CA_LOSS: Final = 4
OPT_TIMESTAMPS: Final = 1
OPT_SACK: Final = 2
OPT_WSCALE: Final = 4
OPT_ECN: Final = 8
OPT_SYN_DATA: Final = 32
INFINITE_SSTHRESH: Final = 0x7FFFFFFF
FLAG_FALLBACK: Final = 1
FLAG_REMOTE_KEY_RECEIVED: Final = 2
U32: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """`struct tcp_info` of one subflow."""

    state: int
    ca_state: int
    retransmits: int
    probes: int
    backoff: int
    options: int
    snd_wscale: int
    rcv_wscale: int
    delivery_rate_app_limited: bool
    rto: int
    ato: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    last_data_sent: int
    last_data_recv: int
    last_ack_recv: int
    pmtu: int
    rtt: int
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    rcv_rtt: int
    rcv_space: int
    total_retrans: int
    pacing_rate: int
    bytes_acked: int
    bytes_received: int
    segs_out: int
    segs_in: int
    notsent_bytes: int
    min_rtt: int
    data_segs_in: int
    data_segs_out: int
    delivery_rate: int
    busy_time: int
    rwnd_limited: int
    sndbuf_limited: int
    delivered: int
    delivered_ce: int
    bytes_sent: int
    bytes_retrans: int
    dsack_dups: int
    reord_seen: int
    rcv_ooopack: int
    snd_wnd: int
    rcv_wnd: int
    total_rto: int
    total_rto_recoveries: int


@dataclass(frozen=True, slots=True)
class MptcpKernelInfo:
    """`struct mptcp_info`. In `subflows` the first one does not count, as in the kernel."""

    subflows: int
    add_addr_signal: int
    add_addr_accepted: int
    subflows_max: int
    add_addr_signal_max: int
    add_addr_accepted_max: int
    flags: int
    token: int
    write_seq: int
    snd_una: int
    rcv_nxt: int
    local_addr_used: int
    local_addr_max: int
    csum_enabled: bool
    retransmits: int
    bytes_retrans: int
    bytes_sent: int
    bytes_received: int
    bytes_acked: int
    subflows_total: int
    last_data_sent: int
    last_data_recv: int
    last_ack_recv: int


def tcp_info(subflow: Subflow) -> TcpInfo:
    """The record of a subflow as it is now."""
    snd = subflow.snd
    stats = subflow.stats
    now = subflow.host.now
    mss = snd.cc.mss
    board = snd.board
    busy, rwnd, sndbuf = stats.times(now)
    ssthresh = snd.cc.ssthresh
    tuning = subflow.receive_tuning
    lost = snd.nxt - snd.una - board.in_flight - board.sacked_bytes
    return TcpInfo(
        state=STATES[subflow.state],
        ca_state=_ca_state(subflow),
        retransmits=snd.timeouts,
        probes=subflow.probes_unanswered,
        backoff=snd.rtt.backoff,
        options=_options(subflow),
        snd_wscale=snd.wscale,
        rcv_wscale=subflow.rcv_wscale,
        delivery_rate_app_limited=stats.rate_app_limited,
        rto=snd.rtt.rto,
        ato=subflow.config.delayed_ack_us,
        snd_mss=mss,
        rcv_mss=subflow.rcv_mss,
        unacked=-(-(snd.nxt - snd.una) // mss),
        sacked=-(-board.sacked_bytes // mss),
        lost=-(-lost // mss),
        retrans=-(-_resent_in_flight(subflow) // mss),
        last_data_sent=_ago(now, stats.last_data_sent),
        last_data_recv=_ago(now, stats.last_data_recv),
        last_ack_recv=_ago(now, stats.last_ack_recv),
        pmtu=subflow.pmtu.mtu,
        rtt=snd.rtt.srtt,
        rttvar=snd.rtt.rttvar,
        snd_ssthresh=INFINITE_SSTHRESH if ssthresh >= 1 << 60 else ssthresh // mss,
        snd_cwnd=snd.cc.cwnd // mss,
        advmss=subflow.mss_limit,
        rcv_rtt=tuning.rtt if tuning is not None else 0,
        rcv_space=tuning.space if tuning is not None else subflow.meta.rx.buffer,
        total_retrans=stats.total_retrans,
        pacing_rate=pacing_rate(subflow),
        bytes_acked=snd.bytes_acked,
        bytes_received=subflow.bytes_received,
        segs_out=stats.segs_out,
        segs_in=stats.segs_in,
        notsent_bytes=subflow.meta.tx.queued if subflow.meta.fallback else 0,
        min_rtt=snd.rtt.min_rtt or U32,
        data_segs_in=stats.data_segs_in,
        data_segs_out=stats.data_segs_out,
        delivery_rate=stats.delivery_rate,
        busy_time=busy,
        rwnd_limited=rwnd,
        sndbuf_limited=sndbuf,
        delivered=-(-stats.delivered // mss),
        delivered_ce=-(-stats.delivered_ce // mss),
        bytes_sent=snd.bytes_sent + snd.bytes_retransmitted,
        bytes_retrans=snd.bytes_retransmitted,
        dsack_dups=stats.dsack_dups,
        reord_seen=stats.reord_seen,
        rcv_ooopack=stats.rcv_ooopack,
        snd_wnd=snd.wnd,
        rcv_wnd=max(0, subflow.rcv_adv - subflow.rcv_nxt),
        total_rto=stats.total_rto,
        total_rto_recoveries=stats.total_rto_recoveries,
    )


def pacing_rate(subflow: Subflow) -> int:
    """Bytes a second that pacing allows (`tcp.pacing`); 0 when it does not hold anything back."""
    pacer = subflow.pacer
    if pacer is None or not pacer.cost:
        return 0
    return (1_000_000 << 16) // pacer.cost


def kernel_info(meta: MetaSocket) -> MptcpKernelInfo:
    """The record of a connection as it is now."""
    now = meta.stack.now
    paths = meta.paths
    local = paths.local_addresses()
    subflows = meta.subflows
    first = meta.fendpoint.local
    config = meta.config
    sent, acked, received = data_bytes(meta)
    return MptcpKernelInfo(
        subflows=sum(subflow.is_join for subflow in subflows),
        add_addr_signal=len(paths.announced),
        add_addr_accepted=len(paths.accepted),
        subflows_max=config.max_subflows - 1,
        add_addr_signal_max=max(0, len(local) - 1)
        if config.announce_addresses and not meta.is_client
        else 0,
        add_addr_accepted_max=config.max_addresses,
        flags=FLAG_FALLBACK * meta.fallback
        | FLAG_REMOTE_KEY_RECEIVED * (meta.remote_key != b"" and not meta.fallback),
        token=meta.token,
        write_seq=meta.tx.una + meta.tx.used,
        snd_una=meta.tx.una,
        rcv_nxt=meta.rx.nxt,
        local_addr_used=len({s.local for s in subflows if s.is_join and s.local != first}),
        local_addr_max=max(0, len(local) - 1),
        csum_enabled=meta.checksum and not meta.fallback,
        retransmits=meta.dispatcher.backoff,
        bytes_retrans=meta.tx.retransmit.taken_bytes,
        bytes_sent=sent,
        bytes_received=received,
        bytes_acked=acked,
        subflows_total=len(subflows),
        last_data_sent=_ago(now, max((s.stats.last_data_sent for s in subflows), default=-1)),
        last_data_recv=_ago(now, max((s.stats.last_data_recv for s in subflows), default=-1)),
        last_ack_recv=_ago(now, max((s.stats.last_ack_recv for s in subflows), default=-1)),
    )


def data_bytes(meta: MetaSocket) -> tuple[int, int, int]:
    """Bytes of the application that were sent, acknowledged and received, in data sequence space.

    The DATA_FIN is none of them; what a SYN carried (RFC 7413) lies outside that space.
    """
    start = meta.local_idsn + 1
    fin = meta.data_fin_due or meta.data_fin_acked
    sent = meta.tx.nxt + meta.tx.ahead.size - start - fin
    received = meta.rx.nxt
    if meta.remote_key:
        received -= meta.remote_idsn + 1 + (meta.eof and not meta.fallback)
    return sent, min(sent, meta.tx.una - start), received


def _ago(now: int, at: int) -> int:
    """Milliseconds since `at`; 0 for what has never happened, as in the kernel."""
    return max(0, now - at) // 1000 if at >= 0 else 0


def _ca_state(subflow: Subflow) -> int:
    snd = subflow.snd
    if snd.recovery is Recovery.FAST:
        return CA_RECOVERY
    if snd.recovery is Recovery.LOSS:
        return CA_LOSS
    if snd.una < snd.echo_point:
        return CA_CWR
    return CA_DISORDER if snd.board.sacked_bytes or snd.dup_acks else CA_OPEN


def _options(subflow: Subflow) -> int:
    return (
        OPT_TIMESTAMPS * subflow.ts_ok
        | OPT_SACK * subflow.snd.sack_ok
        | OPT_WSCALE * subflow.wscale_ok
        | OPT_ECN * subflow.ecn.sends
        | OPT_SYN_DATA * bool(subflow.syn_data_in or subflow.syn_data_out)
    )


def _resent_in_flight(subflow: Subflow) -> int:
    chunks = subflow.snd.board.chunks[subflow.snd.board.head :]
    return sum(c.end - c.seq for c in chunks if c.resent and c.status == 0)
