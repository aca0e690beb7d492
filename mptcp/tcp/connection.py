"""One TCP connection: its variables, its timers, and the hooks an upper layer overrides.

Owns the state of RFC 9293 §3.3.1 and the moves that neither a segment nor a timer causes (open,
close, abort). Segment arrival is in `input`, transmission in `output`, time-outs in `deadlines`,
the SYN exchange's options in `handshake`; all of them work on this class. It knows no MPTCP:
`subflow.Subflow` extends it through the methods under "hooks".

Invariants
  * Sequence numbers are unbounded ints congruent to the wire's modulo 2^32.
  * RCV.NXT + window never shrinks (`rcv_adv` is the right edge promised so far).
  * `next_deadline()` is the least of all timers; a late or spurious `handle_timeout` is harmless.
"""

from __future__ import annotations

from collections import deque

from mptcp.errors import ConnectionEnd
from mptcp.tcp import output, recovery
from mptcp.tcp.autotune import ReceiveTuning
from mptcp.tcp.chunks import SentChunk
from mptcp.tcp.congestion import CongestionControl, controllers
from mptcp.tcp.deadlines import run_timers
from mptcp.tcp.ecn import Ecn
from mptcp.tcp.fastopen import ClientFastOpen, ServerFastOpen
from mptcp.tcp.handshake import take_syn
from mptcp.tcp.host import Host, Interface, Transmit
from mptcp.tcp.keepalive import KeepAlive
from mptcp.tcp.memory import FREE
from mptcp.tcp.pacing import Pacer
from mptcp.tcp.pmtu import PathMtu
from mptcp.tcp.reassembly import Reassembly
from mptcp.tcp.rtt import RttEstimator
from mptcp.tcp.sender import Sender
from mptcp.tcp.state import FLUSHING, NEVER, State
from mptcp.tcp.stats import Stats
from mptcp.tcp.user_timeout import UserTimeout, retries
from mptcp.wire.icmp import IcmpKind
from mptcp.wire.tcp import HeaderTemplate, Segment

IPV4_TCP_HEADERS = 40
IPV6_TCP_HEADERS = 60


class TcpConnection:
    """RFC 9293 connection. Construct, then `open_active()` or `open_passive()`."""

    def __init__(
        self,
        host: Host,
        interface: Interface,
        local: bytes,
        local_port: int,
        remote: bytes,
        remote_port: int,
        iss: int,
        siblings: list[CongestionControl],
        congestion_control: str,
        ts_offset: int = 0,
    ) -> None:
        config = host.config
        self.host = host
        self.config = config
        self.interface = interface
        self.local = local
        self.local_port = local_port
        self.remote = remote
        self.remote_port = remote_port
        self.template = HeaderTemplate(local, remote, local_port, remote_port, ttl=config.ttl)
        self.state = State.CLOSED
        self.mss_limit = interface.mtu - (IPV4_TCP_HEADERS if len(local) == 4 else IPV6_TCP_HEADERS)
        mss = self.mss_limit
        self.cc = controllers.get(congestion_control)(mss, self.initial_window(mss), siblings)
        rtt = RttEstimator(
            config.initial_rto_us, config.min_rto_us, config.max_rto_us, config.min_rtt_window_us
        )
        self.stats = Stats(host.counters)
        self.snd = Sender(iss, mss, self.cc, rtt, rack_tlp=config.rack_tlp, stats=self.stats)
        self.snd.validation.decay = config.slow_start_after_idle
        if not config.hystart:
            self.cc.hystart = None
        # RCV (RFC 9293 §3.3.1)
        self.irs = 0  # IRS
        self.rcv_nxt = 0  # RCV.NXT
        self.rcv_up = 0  # RCV.UP: the octet after the urgent data
        self.rcv_adv = 0  # right edge of the window promised to the peer
        self.rcv_wscale = 0  # Rcv.Wind.Shift (RFC 7323 §2.2)
        self.reassembly = Reassembly()
        self.memory = host.memory
        self.reserved = FREE  # the account of `reassembly` there
        self.rcv_mss = 536  # largest segment seen: what "full-sized" means for delayed ACKs
        # options in use
        self.wscale_ok = False
        self.ts_ok = False
        self.ts_recent = 0  # TS.Recent
        self.ts_recent_at = 0
        self.ts_offset = ts_offset
        self.last_ack_sent = 0  # Last.ACK.sent (RFC 7323 §4.3)
        self.pmtu = PathMtu(len(local) == 4, interface.mtu)
        self.soft_error: IcmpKind | None = None  # the last ICMP error since an ACK made progress
        self.ecn = Ecn(config.ecn)
        # acknowledgement
        self.ack_pending = 0  # in-order bytes not yet acknowledged
        self.acks_owed = 0  # ACKs to send at once
        self.dsack: tuple[int, int] | None = None  # received twice, to report (RFC 2883)
        self.last_oow_ack = -NEVER  # when an unacceptable bare ACK was answered
        self.quick_acks = 16  # segments acknowledged without delay while the peer slow-starts
        self.delack_deadline = NEVER
        # output requests
        self.syn_pending = False
        self.syn_sent_at = -1  # of the last SYN or SYN/ACK; -1: none that we know of
        self.syn_rtt = -1  # least RTT that ACKs of our SYN/ACK have told, µs; -1: none has
        self.reset_pending: bytes | None = None  # options of the RST to send
        self.probe_pending = False
        self.controls: deque[bytes] = deque()  # options, each to go on a pure ACK of its own
        # Fast Open (RFC 7413)
        self.fast_open: ClientFastOpen | ServerFastOpen | None = None
        self.early = False  # open for the application though in SYN-RECEIVED
        self.syn_data_in = 0  # bytes of the peer's SYN that were taken
        self.syn_data_out = 0  # bytes of our SYN that the peer has taken
        # close
        self.fin_queued = False
        self.fin_sent = False
        self.fin_received = False
        self.orphan = False  # the application has closed: FIN-WAIT-2 must end
        # timers
        self.persist_deadline = NEVER
        self.persist_backoff = 0
        self.probes_unanswered = 0
        self.linger_deadline = NEVER  # TIME-WAIT, FIN-WAIT-2
        self.upper_deadline = NEVER  # for the upper layer
        self.tos = config.dscp << 2
        self.receive_tuning: ReceiveTuning | None = None
        self.pacer = Pacer() if config.pacing else None
        self.pace_deadline = NEVER  # when what pacing holds back may go
        self.keepalive = KeepAlive(config) if config.keepalive else None
        self.keepalive_deadline = NEVER
        limited = config.user_timeout_us or config.user_timeout_option
        self.user_timeout = UserTimeout(config) if limited else None
        self.user_timeout_deadline = NEVER
        self.last_sent_at = 0
        self.bytes_received = 0
        self.ready = False  # kept by the host: queued for polling
        self.heap_deadline = NEVER  # kept by the host: earliest entry in its timer heap
        self.nodelay = config.nodelay

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.local.hex()}:{self.local_port} > "
            f"{self.remote.hex()}:{self.remote_port} {self.state.name}>"
        )

    @property
    def closed(self) -> bool:
        """CLOSED: what was called meanwhile may have ended the connection."""
        return self.state is State.CLOSED

    def initial_window(self, mss: int) -> int:
        """RFC 6928 §2: IW = min(10*MSS, max(2*MSS, 14600)); options are not counted."""
        return min(self.config.initial_window_segments * mss, max(2 * mss, 14600))

    # -- hooks: what the layer above supplies --------------------------------------------------

    def queued(self) -> int:
        """Bytes the upper layer would let this connection send now."""
        return 0

    def has_unsent(self) -> bool:
        """Whether data is still to come that a FIN has to wait for."""
        return self.queued() > 0

    def has_more(self) -> bool:
        """Whether new data follows what was just pulled (PSH: RFC 9293 §3.9.1.2)."""
        return self.queued() > 0

    def held_by_buffer(self) -> bool:
        """Whether the upper layer has no more to send because its send buffer is full."""
        return False

    def pull(self, limit: int, now: int) -> tuple[list[memoryview], object | None] | None:
        """Give up to `limit` new bytes and the mapping to keep with them; None for nothing."""
        return None

    def deliver(self, seq: int, view: memoryview, now: int) -> None:
        """Take in-order payload that begins at `seq`."""

    def receive_window(self) -> int:
        """Bytes the upper layer can take beyond RCV.NXT."""
        return self.config.receive_buffer

    def refuses_data(self) -> bool:
        """The host's memory is full: whether the next bytes are to come again later."""
        return False

    def extra_options(self, kind: output.Kind, chunk: SentChunk | None, room: int) -> list[bytes]:
        """Options of the upper layer for a segment, at most `room` bytes when padded."""
        return []

    def prepared_options(self, chunk: SentChunk | None, now: int) -> bytes | None:
        """The whole option block of a data segment or bare ACK where it can be made in one go.

        It must be what `output.options_for` would make; None: take the general way.
        """
        return None

    def extra_options_length(self) -> int:
        """The most `extra_options` takes on a data segment, padded."""
        return 0

    def may_signal(self) -> bool:
        """Whether the options in `controls` fit beside what a bare ACK must carry now."""
        return True

    def on_options(self, seg: Segment, now: int) -> bool:
        """Look at an acceptable segment before its payload; False drops the rest of it."""
        return True

    def send_window(self) -> int:
        """Bytes the peer's windows allow beyond SND.NXT."""
        return self.snd.window_room()

    def on_syn(self, seg: Segment) -> bool:
        """The peer's SYN or SYN/ACK: take its options; False when the connection must end."""
        return True

    def peek_syn_data(self, limit: int) -> list[memoryview]:
        """Up to `limit` bytes from the front of what waits to be sent, left there."""
        return []

    def syn_data_acked(self, count: int) -> None:
        """The peer has taken `count` bytes of what `peek_syn_data` gave: remove them."""

    def takes_syn_ack_data(self) -> bool:
        """Whether payload of a SYN/ACK is data."""
        return True

    def on_early_open(self, payload: memoryview, now: int) -> None:
        """A SYN with a good cookie: open for the application, with the SYN's payload."""

    def on_upper_timeout(self, now: int) -> None:
        """`upper_deadline` has come."""

    def accept_third_ack(self, seg: Segment, now: int) -> bool:
        """The ACK of our SYN/ACK; False when the upper layer drops or resets it."""
        return True

    def on_reset_options(self, seg: Segment) -> None:
        """A valid RST arrived: look at its options before the connection ends."""

    def on_established(self, now: int) -> None:
        """The three-way handshake is complete."""

    def on_acked(self, acked: int, now: int) -> None:
        """`acked` bytes of ours were newly acknowledged."""

    def on_urgent(self, ahead: int) -> None:
        """The peer calls the next `ahead` bytes from RCV.NXT urgent."""

    def on_fin(self, now: int) -> None:
        """The peer will send no more on this connection."""

    def on_time_wait(self, now: int) -> None:
        """Both FINs are acknowledged."""

    def on_soft_error(self, kind: IcmpKind | None) -> None:
        """An ICMP error that does not end the connection; None when it works again."""

    def on_rto(self, now: int) -> None:
        """The retransmission timer expired."""

    def on_probe(self, now: int) -> None:
        """The probe time-out expired (RFC 8985 §7.2): a probe goes out next."""

    def on_syn_timeout(self, now: int) -> None:
        """A SYN was not answered and will be sent again."""

    def on_closed(self, end: ConnectionEnd, now: int) -> None:
        """The connection is over."""

    def retry_limit(self) -> int:
        """Time-outs in a row that end the connection (RFC 1122 §4.2.3.5)."""
        return retries(self)

    # -- opening and closing -------------------------------------------------------------------

    def open_active(self, now: int) -> None:
        """RFC 9293 §3.10.1: send a SYN."""
        self.host.counters["TcpActiveOpens"] += 1
        self.state = State.SYN_SENT
        self.syn_pending = True
        self.host.mark_ready(self)

    def open_passive(self, seg: Segment, now: int) -> None:
        """RFC 9293 §3.10.7.2: a SYN arrived for a listener."""
        self.state = State.SYN_RECEIVED
        if take_syn(self, seg, now):
            self.syn_pending = True
            self.host.mark_ready(self)

    def close(self) -> None:
        """RFC 9293 §3.10.4: send FIN after what is queued. Idempotent."""
        if self.state is State.SYN_SENT:
            self.terminate(ConnectionEnd.CLOSED, self.host.now)
            return
        if not self.fin_queued and self.state is not State.CLOSED:
            self.fin_queued = True
            self.host.mark_ready(self)

    def abort(self, options: bytes = b"", end: ConnectionEnd = ConnectionEnd.ABORTED) -> None:
        """RFC 9293 §3.10.5: RST (with `options`) if the peer knows us, then CLOSED."""
        if self.state is State.CLOSED:
            return
        if self.state not in (State.SYN_SENT, State.TIME_WAIT):
            self.reset_pending = options
            self.host.mark_ready(self)
        self.terminate(end, self.host.now)

    def terminate(self, end: ConnectionEnd, now: int) -> None:
        """Enter CLOSED and tell both sides of this object."""
        if self.state is State.CLOSED:
            return
        if (
            self.fast_open is not None
            and self.state is State.SYN_SENT
            and end in (ConnectionEnd.TIMED_OUT, ConnectionEnd.UNREACHABLE)
        ):
            self.fast_open.gave_up(self, now)
        self.stats.on_end(self.state, timed_out=end is ConnectionEnd.TIMED_OUT)
        self.state = State.CLOSED
        self.snd.stop_timers()
        self.delack_deadline = NEVER
        self.persist_deadline = NEVER
        self.linger_deadline = NEVER
        self.upper_deadline = NEVER
        self.keepalive_deadline = NEVER
        self.user_timeout_deadline = NEVER
        self.pace_deadline = NEVER
        self.syn_pending = False
        self.acks_owed = 0
        self.controls.clear()
        self.reassembly.clear()
        self.memory.release(self.reserved)
        self.reserved = FREE
        self.host.forget(self)
        self.on_closed(end, now)

    def enter_time_wait(self, now: int) -> None:
        """RFC 9293 §3.10.7.4: start (or restart) the 2 MSL timer."""
        entered = self.state is not State.TIME_WAIT
        if entered:
            self.state = State.TIME_WAIT
            self.on_time_wait(now)
        self.snd.stop_timers()
        self.persist_deadline = NEVER
        self.linger_deadline = now + self.config.time_wait_us
        if entered:
            self.host.enter_time_wait(self)  # once: it counts them
        self.host.rearm(self)

    def mtu_changed(self, mtu: int, now: int) -> None:
        """The interface takes packets of up to `mtu` bytes."""
        self.mss_limit = mtu - self.pmtu.headers
        self.pmtu.on_interface_mtu(self, mtu, now)
        self.host.mark_ready(self)

    # -- acknowledgements ----------------------------------------------------------------------

    def ack_soon(self, now: int) -> None:
        """RFC 1122 §4.2.3.2: an ACK within the delayed-ACK time."""
        if self.delack_deadline == NEVER:
            # RFC 9293 §3.8.6.3; never longer than half the least RTO an estimator may have.
            self.delack_deadline = now + self.config.delayed_ack_us
            self.host.rearm(self)

    def set_orphan(self, now: int) -> None:
        """No application reads this any more: do not wait for ever for the peer's FIN."""
        self.orphan = True
        if self.state is State.FIN_WAIT_2 and self.linger_deadline == NEVER:
            self.linger_deadline = now + self.config.fin_wait_2_us
            self.host.rearm(self)

    def ack_now(self) -> None:
        """An ACK without delay."""
        if self.acks_owed < 4:
            self.acks_owed += 1
        self.host.mark_ready(self)

    def window_opened(self) -> None:
        """The upper layer can take more: tell the peer."""
        if self.state in (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2):
            if not self.acks_owed:
                self.acks_owed = 1
            self.host.mark_ready(self)

    def timestamp(self, now: int) -> int:
        """TSval (RFC 7323 §3.2): a clock of 1 ms with an offset of its own per connection."""
        return (now // 1000 + self.ts_offset) & 0xFFFFFFFF

    # -- time and output -----------------------------------------------------------------------

    def next_deadline(self) -> int:
        """When `handle_timeout` has something to do; NEVER if nothing is pending."""
        snd = self.snd
        return min(
            snd.rto_deadline,
            snd.reorder_deadline,
            snd.tlp.deadline,
            self.delack_deadline,
            self.pace_deadline,
            self.persist_deadline,
            self.linger_deadline,
            self.upper_deadline,
            self.keepalive_deadline,
            self.user_timeout_deadline,
        )

    def handle_timeout(self, now: int) -> None:
        """Run the timers that are due."""
        run_timers(self, now)

    def poll_transmit(self, now: int) -> Transmit | None:
        """The next packet this connection wants to send, or None."""
        return output.poll_output(self, now)

    def transmit_refused(self, chunk: SentChunk | None, now: int) -> None:
        """The device did not take a packet: it is a loss (RFC 9293 allows the network any)."""
        if chunk is not None and self.state in FLUSHING:
            recovery.on_refused(self.snd, chunk)
