"""Every knob of the stack, with defaults that need no change.

Times are integer microseconds (suffix `_us`), sizes are bytes. A `Config` is immutable: one object
may serve many stacks. `validate()` runs at construction, so a `Config` that exists is legal.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000
MILLISECOND = 1_000

DEFAULT_HEURISTICS = "after-bytes:14600,after-rtts:2,close-costly,close-share"
"""What needs more than one initial window of 10 segments (RFC 6928) is worth a second subflow, and
so is what lives for more than two round trips: the advice of thesis §5.4.2. And a subflow without
which there would be more is closed, and so is one that brings next to nothing and holds up the
others (§4.6): two paths are not to be slower than the better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of a `Stack`.

    Raises ValueError at construction when a value is out of its range.
    """

    mptcp: bool = True
    """Offer and accept MPTCP; False makes a plain TCP host."""
    scheduler: str = "timedistance"
    """Registered name of the packet scheduler."""
    scheduler_weights: tuple[int, ...] = ()
    """Shares of path 1, 2 and so on for the scheduler `weighted` (1 to 65535 each; a path beyond
    them has 1). Without any it goes by their rates."""
    retransmission: str = "probe"
    """Registered name of the policy that says where data goes again (`mptcp.retransmission`)."""
    opportunistic_retransmission: bool = True
    """A subflow that could send, but for the window or the send buffer that is full of what others
    are late with, sends that again."""
    penalisation: bool = True
    """...and the window of the one that is late is halved, once in its round trip at most."""
    repeat_tail: bool = False
    """A subflow that has nothing left to send repeats what slower ones have yet to deliver, if that
    saves a round trip of its own. Off: it helps where the scheduler was wrong about the last bytes
    (1 MB over 30 Mbit/s of 10 and 80 ms took 326 ms, with it 301, TCP on the better path 300), and
    for traffic of many short bursts a good part goes twice."""
    congestion_control: str = "lia"
    """Registered name: `lia` (RFC 6356), `olia`, `balia` or `wvegas` couple the subflows of a
    connection; `cubic` (RFC 9438) and `newreno` (RFC 5681) do not."""
    hystart: bool = True
    """End the first slow start when the delay grows (RFC 9406), as Linux does in CUBIC; False: only
    a loss ends it. `wvegas` ends it by delay in its own way, always."""
    slow_start_after_idle: bool = True
    """Shrink a congestion window that was not used for a retransmission timeout (RFC 2861), as
    Linux's `net.ipv4.tcp_slow_start_after_idle` says and by default does."""
    path_manager: str = "builtin"
    """Registered name of the path manager: `builtin`, `fullmesh` or `ndiffports`."""
    ndiffports: int = 2
    """Subflows over the first pair of addresses, the first one included, that the path manager
    `ndiffports` wants (1 to 64; `max_subflows` holds, too)."""
    reorder: str = "aggreg"
    """Registered name of the out-of-order queue of connections (thesis §4.3.5, table 5.1):
    `aggreg`; `regular`, `tree` and `shortcuts` are there to compare it with."""
    heuristics: str = DEFAULT_HEURISTICS
    """When a connection opens additional subflows, and when it closes one that costs more than it
    brings: rules by name, or a table of them by port (`mptcp.heuristics.rules`)."""

    checksum: bool = False
    """Require DSS checksums (RFC 8684 §3.3.1). Off as in Linux: no device can compute them, so
    every byte would pass through the CPU; TCP's own checksum still covers the segment. Turn it on
    where a middlebox is known to rewrite payload."""
    dsn_64: bool = True
    """Send 64-bit DSNs (RFC 8684 §3.3.1: needed when 4 GiB could pass within an MSL)."""

    receive_buffer: int = 6 << 20
    """Connection-level receive window, bytes (4 KiB to 1 GiB)."""
    send_buffer: int = 6 << 20
    """Bytes `send()` accepts before they are acknowledged (4 KiB to 1 GiB)."""
    autotune: bool = True
    """Let buffers grow to these two from the next two, as far as the paths and the application
    need (`tuning`, and for plain TCP `tcp.autotune`); False: connections have the whole at once."""
    initial_receive_buffer: int = 128 << 10
    initial_send_buffer: int = 128 << 10
    nodelay: bool = False
    """True turns Nagle's algorithm off (RFC 1122 §4.2.3.4). The stream API turns it off per
    connection, as asyncio does for kernel sockets."""
    pacing: bool = True
    """Spread a window over its round trip (`tcp.pacing`), with Linux's rates."""
    timestamps: bool = True
    """Offer TCP timestamps (RFC 7323)."""
    sack: bool = True
    """Offer selective acknowledgements (RFC 2018)."""
    window_scaling: bool = True
    """Offer window scaling (RFC 7323)."""
    ecn: str = "passive"
    """Explicit Congestion Notification (RFC 3168). "passive": agree when the peer offers it, as
    Linux does by default; "on": offer it too."""
    mtu_probing: str = "blackhole"
    """Path MTU discovery by probes (RFC 4821), beside that by ICMP, which is always on: "off",
    "blackhole" (once full-sized segments time out and nobody says why), "on" (from the start, as
    Linux's `tcp_mtu_probing=2`). Linux's default is off; "blackhole" costs nothing where ICMP comes
    through, and a connection that would hang otherwise goes on."""
    rack_tlp: bool = True
    """Find losses by time and probe for tail losses (RFC 8985); False: RFC 6675's counting alone.
    Either needs SACK."""
    initial_window_segments: int = 10
    """Initial congestion window in segments (RFC 6928), 1 to 10."""

    min_rto_us: int = 200 * MILLISECOND
    """Least retransmission timeout. RFC 6298 §2.4 says one second; 200 ms is what Linux uses, and
    a subflow that waits longer holds up the whole connection's reorder queue."""
    max_rto_us: int = 120 * SECOND
    initial_rto_us: int = 1 * SECOND
    """RFC 6298 §2.1."""
    min_rtt_window_us: int = 300 * SECOND
    """How long the least RTT is remembered (RFC 8985 §6.2; Linux's `tcp_min_rtt_wlen`)."""
    delayed_ack_us: int = 40 * MILLISECOND
    """RFC 1122 §4.2.3.2 allows up to 500 ms; 40 ms is Linux's minimum."""
    time_wait_us: int = 60 * SECOND
    """2 MSL (RFC 9293 §3.4.1), with the MSL of 30 s that Linux uses."""
    syn_retries: int = 6
    """SYN retransmissions before a connect fails."""
    syn_retries_mptcp: int = 2
    """SYNs repeated with MP_CAPABLE before plain TCP is tried (RFC 8684 §3.1, §3.9.3)."""
    blackhole_timeout_us: int = 3600 * SECOND
    """How long a destination gets plain SYNs after those with MP_CAPABLE were lost there and a
    plain one was answered (RFC 8684 §3.9.3); doubled each time, up to 64 times this; 0: never.
    Linux's `net.mptcp.blackhole_timeout`, but for each destination by itself."""
    blackhole_entries: int = 1024
    """Destinations remembered for that."""
    synack_retries: int = 5
    data_retries: int = 15
    """Timeouts in a row on one subflow before it is given up (RFC 1122 §4.2.3.5 R2)."""
    subflow_retries: int = 6
    """As `data_retries`, while the connection has another working subflow."""
    ttl: int = 64
    """TTL, or hop limit, of what is sent (RFC 1122 §4.2.2.1 wants it configurable)."""
    dscp: int = 0
    """Differentiated services code point of what is sent (RFC 2474; RFC 1122 §4.2.4.2's TOS)."""
    r1_retries: int = 3
    """Timeouts in a row after which the application is told (RFC 1122 §4.2.3.5 R1)."""
    user_timeout_us: int = 0
    """How long data may stay undelivered before the connection ends (RFC 5482); it then takes the
    place of `data_retries`. 0: no such limit, as in Linux."""
    user_timeout_option: bool = False
    """Send the User Timeout Option and heed the peer's, within the next two (RFC 5482 §3.1)."""
    user_timeout_lower_us: int = 100 * SECOND
    user_timeout_upper_us: int = 3600 * SECOND
    keepalive: bool = False
    """Probe connections that are idle. Off (RFC 1122 §4.2.3.6: MUST default to off)."""
    keepalive_idle_us: int = 7200 * SECOND
    """Silence before the first probe; two hours at least by default (RFC 1122 §4.2.3.6)."""
    keepalive_interval_us: int = 75 * SECOND
    keepalive_count: int = 9
    """Probes without an answer that end the connection."""
    orphan_timeout_us: int = 60 * SECOND
    """How long a connection without any subflow waits for one (break before make)."""
    fast_close: str = "reset"
    """How a connection is aborted (RFC 8684 §3.5): "reset" sends MP_FASTCLOSE with a RST on every
    subflow and keeps nothing; "ack" sends it on an ACK and repeats it until a RST answers."""
    syn_cookies: str = "auto"
    """Answer SYNs without keeping state (RFC 4987 §3.6): `auto` when a listener's backlog is full
    or too many joins of a connection are under way, `always`, or `never`."""
    fast_open: int = 0
    """Fast Open requests (RFC 7413) that a listener keeps whose handshake is not complete, unless
    `listen()` says otherwise; 0: listeners take no data from SYNs. Off as in Linux: data of a SYN
    may reach the application twice (RFC 7413 §2.1), which it must have agreed to."""
    fast_open_key_us: int = 3600 * SECOND
    """Life of a key for Fast Open cookies; the key before is accepted too."""
    fast_open_cookies: int = 1024
    """Servers whose Fast Open cookies a client remembers."""
    fast_open_retry_us: int = 60 * SECOND
    """After a SYN with Fast Open got lost where a plain one got through, how long that server gets
    plain ones; doubled each time, up to 64 times this."""
    fin_wait_2_us: int = 60 * SECOND
    """How long a closed connection waits for the peer's FIN."""

    time_wait_reuse: bool = True
    """`connect()` may take a pair of addresses and ports that is in TIME-WAIT when timestamps make
    it safe (RFC 6191's reasoning) and no other port is free or this one was asked for."""
    rfc1337: bool = False
    """Ignore resets in TIME-WAIT (RFC 1337 fix F1). Off as in Linux, and as RFC 9293 §3.10.7.4 has
    it; RFC 5961's check that a RST must match RCV.NXT exactly holds either way."""

    max_subflows: int = 8
    """Subflows of one connection, the first included (1 to 64)."""
    max_half_open_joins: int = 1024
    """MP_JOINs of peers, to any connection, that are remembered until their third ACK comes when
    more are under way than a connection keeps subflows for; a new one may take another's place."""
    max_mappings: int = 4096
    """Mappings that wait for their bytes on one subflow: one for each chunk in flight there."""
    max_reorder_runs: int = 4096
    """Runs of data with holes between them that a connection keeps: one for each chunk when a
    subflow stands still and the others go on. A search passes all of them at worst, so a peer that
    sends single bytes is cut off here."""
    max_waiting_signals: int = 16
    """ADD_ADDRs, echoes, REMOVE_ADDRs that wait on one subflow to be sent."""
    max_addresses: int = 8
    """Peer addresses remembered for one connection (RFC 8684 §3.4.1)."""
    allow_join_initial_addr_port: bool = True
    """False sends the C flag: no subflow is to come to the address and port of the first one
    (RFC 8684 §3.1), as where a load balancer stands before it. Linux's sysctl of that name."""
    add_addr_retries: int = 3
    add_addr_timeout_us: int = 1 * SECOND
    """First wait for an ADD_ADDR echo; doubled at each retry."""
    rejoin_delay_us: int = 500 * MILLISECOND
    """First wait before a lost subflow is tried again; doubled up to `rejoin_max_delay_us`."""
    rejoin_max_delay_us: int = 30 * SECOND
    announce_addresses: bool = True
    """Send ADD_ADDR for the stack's other addresses when it is the server."""
    announce_port: int = 0
    """Port told with those addresses (RFC 8684 §3.4.1), where subflows are to go; it needs no
    listener, for a token tells the connection. 0: none is told, so the connection's own."""

    max_buffer_memory: int = 512 << 20
    """Bytes that the buffers of all connections hold together, beside 16 KiB of each buffer (64 KiB
    to 1 TiB; Linux's `tcp_mem`). From three quarters of it on no buffer grows and no window opens
    by more than four segments; beyond it new data is dropped and not acknowledged."""
    max_connections: int = 65536
    max_time_wait: int = 16384
    backlog: int = 1024
    """Half-open connections a listener keeps unless `listen()` says otherwise."""
    max_reassembly_bytes: int = 256 << 10
    """IP fragments held."""
    max_fragmented_datagrams: int = 64
    """IP datagrams of which some fragments are held."""
    challenge_acks_per_second: int = 1000
    """RFC 5961 §7, of the whole host: on average, for each second has a limit of its own between
    half of it and one and a half times (CVE-2016-5696). 1000 since then in Linux; 0: none."""
    resets_per_second: int = 1000
    max_waiting_answers: int = 1024
    """Answers to strangers (SYN cookies, resets, echo replies) that wait for the device."""
    icmp_per_second: int = 1000
    """ICMP messages looked at, echo requests among them (RFC 1812 §4.3.2.8 for answers)."""
    ephemeral_ports: tuple[int, int] = (32768, 60999)

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise ValueError naming the first value out of range."""
        ranges: dict[str, tuple[int, int]] = {
            "receive_buffer": (4096, 1 << 30),
            "send_buffer": (4096, 1 << 30),
            "initial_receive_buffer": (4096, 1 << 30),
            "initial_send_buffer": (4096, 1 << 30),
            "initial_window_segments": (1, 10),
            "min_rto_us": (1_000, 60 * SECOND),
            "max_rto_us": (1 * SECOND, 600 * SECOND),
            "initial_rto_us": (1_000, 60 * SECOND),
            "min_rtt_window_us": (1 * SECOND, 24 * 3600 * SECOND),
            "delayed_ack_us": (0, 500 * MILLISECOND),
            "time_wait_us": (0, 600 * SECOND),
            "syn_retries": (0, 30),
            "syn_retries_mptcp": (0, 30),
            "blackhole_timeout_us": (0, 24 * 3600 * SECOND),
            "blackhole_entries": (0, 1 << 16),
            "synack_retries": (0, 30),
            "data_retries": (1, 30),
            "subflow_retries": (1, 30),
            "ttl": (1, 255),
            "dscp": (0, 63),
            "r1_retries": (1, 30),
            "user_timeout_us": (0, 24 * 3600 * SECOND),
            "user_timeout_lower_us": (1 * SECOND, 24 * 3600 * SECOND),
            "user_timeout_upper_us": (100 * SECOND, 24 * 3600 * SECOND),
            "keepalive_idle_us": (1 * MILLISECOND, 32767 * SECOND),
            "keepalive_interval_us": (1 * MILLISECOND, 32767 * SECOND),
            "keepalive_count": (1, 127),
            "fast_open": (0, 1 << 16),
            "fast_open_key_us": (1 * SECOND, 30 * 24 * 3600 * SECOND),
            "fast_open_cookies": (0, 1 << 16),
            "fast_open_retry_us": (1 * SECOND, 24 * 3600 * SECOND),
            "ndiffports": (1, 64),
            "max_subflows": (1, 64),
            "max_half_open_joins": (1, 1 << 16),
            "max_mappings": (1, 1 << 16),
            "max_reorder_runs": (1, 1 << 16),
            "max_waiting_signals": (1, 1 << 10),
            "max_addresses": (0, 255),
            "add_addr_retries": (0, 10),
            "announce_port": (0, 65535),
            "max_buffer_memory": (1 << 16, 1 << 40),
            "max_connections": (1, 1 << 24),
            "challenge_acks_per_second": (0, 1 << 24),
            "resets_per_second": (0, 1 << 24),
            "icmp_per_second": (0, 1 << 24),
            "backlog": (1, 1 << 16),
            "max_waiting_answers": (1, 1 << 16),
            "max_reassembly_bytes": (1, 1 << 30),
            "max_fragmented_datagrams": (1, 1 << 16),
            "max_time_wait": (1, 1 << 24),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} is out of range: use {low} to {high}")
        choices: dict[str, tuple[str, ...]] = {
            "fast_close": ("reset", "ack"),
            "ecn": ("off", "passive", "on"),
            "syn_cookies": ("auto", "always", "never"),
            "mtu_probing": ("off", "blackhole", "on"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} = {value!r}: use one of {', '.join(allowed)}")
        for weight in self.scheduler_weights:
            if not 1 <= weight <= 65535:
                raise ValueError(f"scheduler_weights has {weight}: use 1 to 65535")
        low_port, high_port = self.ephemeral_ports
        if not 1 <= low_port <= high_port <= 65535:
            raise ValueError(f"ephemeral_ports = {self.ephemeral_ports}: use a range in 1..65535")
