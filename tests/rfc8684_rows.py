"""The rules of RFC 8684 that this project is held to, one row each, in its own words.

Tests name rows by the marker `row`; `python -m tests.rfc8684` puts both together in
docs/rfc8684.md. Levels: M is MUST, MN MUST NOT, S SHOULD, SN SHOULD NOT, R RECOMMENDED, MAY, and
"text" what the RFC describes without one of these words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the checklist."""

    id: str
    level: str
    section: str
    """Of RFC 8684."""
    rule: str
    note: str = ""
    """Where we deviate, or chose among what is allowed, and why."""


PARTS = {
    "I": "Initiation of connections",
    "J": "Joining",
    "D": "Data",
    "A": "Addresses",
    "F": "Close, reset, fallback",
}

ROWS = (
    Row(
        "I1",
        "M",
        "3, 3.4.1",
        "RFC 5961's checks of sequence and ACK numbers come before any MPTCP signal is looked at; "
        "initial sequence numbers are RFC 6528's.",
    ),
    Row(
        "I2",
        "MN, SN",
        "3, 3.4.1, 4",
        "A duplicate ACK with an MPTCP option other than DSS is no sign of congestion; no more "
        "than two such in a row are sent.",
        "Each option goes on an ACK of its own. After two the rest waits until data has gone or "
        "come on the subflow, or for a retransmission time-out, when nothing is in flight any "
        "more.",
    ),
    Row(
        "I3",
        "S, M",
        "3.1",
        "A SYN offers the highest version spoken (1); the answer's version is not above the SYN's.",
    ),
    Row(
        "I4",
        "M, S",
        "3.1",
        "Keys are hard to guess; a key whose token is in use on this host is not given out.",
    ),
    Row(
        "I5",
        "M",
        "3.1",
        "A server that keeps no state (SYN cookies) and cannot make a key that it can verify, "
        "unique on the host, answers without MP_CAPABLE.",
        "Ours is made of the cookie and known again when the third ACK brings it back; where its "
        "token is in use there is no MP_CAPABLE, and where it was taken meanwhile the connection "
        "is plain TCP.",
    ),
    Row(
        "I6",
        "M",
        "3.1",
        "Without data to send the third ACK carries MP_CAPABLE with both keys; the first data "
        "repeats it with its length, in the place of a DSS.",
    ),
    Row(
        "I7",
        "text",
        "3.1",
        "If the server speaks first its DSS confirms MP_CAPABLE; MP_CAPABLE with data and a DSS "
        "declare the same mapping, and the same one twice does no harm.",
    ),
    Row("I8", "MN", "3.1", "No further subflow before a DSS has come on the path."),
    Row(
        "I9",
        "S",
        "3.1",
        "A=1 (checksums) is asked for unless the administrator has decided otherwise.",
        "`Config.checksum` is off by default, as in Linux: no device computes these sums, so each "
        "byte would pass through the CPU, and TCP's own checksum covers the segment. The "
        "configuration is the administrator's decision, and a peer's A=1 is always obeyed.",
    ),
    Row("I10", "M", "3.1", "B is sent as 0; a received MP_CAPABLE with B=1 is ignored silently."),
    Row(
        "I11",
        "MN",
        "3.1",
        "After C=1 no subflow is opened towards that source address and port.",
    ),
    Row(
        "I12",
        "M",
        "3.1",
        "H=1 and D to G zero in what is sent; an option with none of D to H set is ignored.",
    ),
    Row(
        "I13",
        "M",
        "3.1, 3.2",
        "Token: the first 32 bits of SHA-256 of the key; IDSN: its last 64 bits.",
    ),
    Row(
        "I14",
        "M",
        "3.1",
        "Checksums are used both ways if either side has set A=1, and the third ACK confirms it.",
        "There is no setting that refuses checksums, so an MP_CAPABLE with A=1 is never ignored "
        "for it.",
    ),
    Row(
        "I15",
        "M",
        "3.1",
        "A responder that supports none of the offered algorithms answers without MP_CAPABLE.",
    ),
    Row(
        "I16",
        "M, MN",
        "3.1, 3.7",
        "A SYN/ACK without the option: plain TCP; no option in answer to a SYN without; a third "
        "packet without it: plain TCP.",
    ),
    Row(
        "I17",
        "S",
        "3.1, 3.9.3",
        "After some SYNs with MP_CAPABLE in vain SYNs go without; how many is policy.",
        "`Config.syn_retries_mptcp`, 2 as in Linux. A destination where the SYNs with the option "
        "were lost and a plain one was answered gets plain ones for a while "
        "(`Config.blackhole_timeout_us`, `mptcpctl blackholes`).",
    ),
    Row(
        "I18",
        "M",
        "3.1",
        "Once the handshake looks compromised MPTCP is not used and no option of it is sent.",
    ),
    Row("I19", "text", "3.1", "The IDSN is the number of the SYN: the first byte has IDSN + 1."),
    Row(
        "J1",
        "M",
        "3.2",
        "The token, not the port, says which connection a SYN with MP_JOIN belongs to; the packets "
        "after it belong by their addresses and ports.",
    ),
    Row(
        "J2",
        "M",
        "3.2",
        "Both sides keep which address has which identifier; the first subflow's have 0.",
    ),
    Row("J3", "M", "3.2", "Reserved bits are sent as zero and ignored."),
    Row(
        "J4",
        "text",
        "3.2",
        "HMAC-SHA256 with the own key before the peer's, over the own nonce before the peer's; "
        "leftmost 64 bits in the SYN/ACK, 160 in the ACK.",
    ),
    Row(
        "J5",
        "S",
        "3.2",
        "A valid token is answered with SYN/ACK and MP_JOIN.",
        "With SYN cookies, or with two joins of a connection under way, nothing but a slot in a "
        "table of fixed size is kept of the SYN until the third ACK.",
    ),
    Row(
        "J6",
        "M",
        "3.2, 3.6",
        "An unknown token, or a subflow that policy refuses: RST.",
        "Reasons: 1 for an unknown token (§3.2 names it), 2 at the limit of subflows. "
        "§3.2 names reason 3 for the unknown token as well; Linux "
        "sends 1, and so do we.",
    ),
    Row(
        "J7",
        "M, S",
        "3.2",
        "A wrong HMAC on either side, a missing one at the server, a SYN/ACK without MP_JOIN: RST, "
        "with reason 1.",
    ),
    Row(
        "J8",
        "M",
        "3.2",
        "The ACK with MP_JOIN is acknowledged at once, repeated until that has come, and before it "
        "no data is sent.",
    ),
    Row(
        "D1",
        "M, S",
        "3.3.1",
        "A checksum that was not agreed, or none where it was: the subflow is reset, reason 1.",
    ),
    Row(
        "D2",
        "MN, S",
        "3.3.1",
        "A mapping does not change once declared; a DSN may be mapped on other subflows too, and "
        "the first copy that arrives counts.",
    ),
    Row(
        "D3",
        "text",
        "3.3.1",
        "SSNs count from the SYN, DSNs are absolute; the checksum's pseudo-header is DSN (64 "
        "bits), SSN, length and two zero octets.",
    ),
    Row("D4", "MN", "3.3.1, 4", "The urgent pointer does not interrupt a mapping."),
    Row(
        "D5",
        "S",
        "3.3.1",
        "Data in the window without a mapping is acknowledged by the subflow; with no mapping in a "
        "window's worth the subflow is reset.",
        "In-order data whose mapping has not come is kept for one receive window and one second: "
        "the RFC has no time, but a sender with little to say would never fill the window. Where "
        "no mapping has ever been seen on the first subflow it is a fallback instead (F5).",
    ),
    Row(
        "D6",
        "M",
        "3.3.1",
        "DSNs are kept with 64 bits; either width is accepted, and 32 bits are promoted with care "
        "for wraps.",
        "64-bit DSNs are sent from the start (`Config.dsn_64`), so none can wrap within an MSL.",
    ),
    Row("D7", "M", "3.3.1", "A mapping covers at least a part of the segment that carries it."),
    Row(
        "D8",
        "M",
        "3.3.2",
        "A 64-bit DSN is answered with 64-bit DATA_ACKs; a 32-bit one with either, and either is "
        "accepted.",
    ),
    Row(
        "D9",
        "MN",
        "3.3.1",
        "The window field says nothing of the connection unless a DATA_ACK comes with it.",
    ),
    Row(
        "D10",
        "MN",
        "3.3.2, 3.3.5",
        "Data is freed when it is DATA_ACKed and acknowledged on each subflow that carried it.",
        "The connection frees its reference at the DATA_ACK; each subflow keeps its own until its "
        "TCP is acknowledged. Both refer to the same bytes.",
    ),
    Row(
        "D11",
        "M",
        "3.3.3",
        "DATA_FIN is one octet of the data sequence space and of the length; alone it has SSN 0 "
        "and length 1, its checksum the pseudo-header's.",
    ),
    Row(
        "D12",
        "MN, M",
        "3.3.3",
        "Not all working subflows are closed before all data is DATA_ACKed; once the DATA_FINs "
        "are, the subflows are closed with FIN.",
    ),
    Row(
        "D13",
        "MN, S",
        "3.3.4, 3.3.5",
        "DATA_ACK + window never moves back; a subflow's backlog does not exceed the connection's.",
        "Received data takes its place in the data sequence space the moment it is in order on its "
        "subflow, so the inequality of §3.3.4 holds by construction.",
    ),
    Row(
        "D14",
        "S, M",
        "3.3.5",
        "The largest of the subflows' windows counts; each subflow's own is obeyed; the send "
        "buffer is no smaller than the peer's receive buffer.",
        "`Config.send_buffer` and `Config.receive_buffer` have the same default.",
    ),
    Row("D15", "M", "3.3.6", "What is reinjected is retransmitted on its first subflow as well."),
    Row(
        "D16",
        "S",
        "3.3.6, 3.6",
        "A RST for bad performance carries reason 5.",
        "A subflow that times out `Config.subflow_retries` times while another works is reset so, "
        "transient.",
    ),
    Row(
        "D17",
        "S",
        "3.3.8",
        "B=1 in MP_JOIN or MP_PRIO is obeyed, for the direction towards its sender only.",
    ),
    Row(
        "D18",
        "text",
        "3.3.4",
        "The receive buffer is bounded: one window for the whole connection, whatever arrives.",
    ),
    Row(
        "A1",
        "M",
        "3.4.1",
        "An identifier is one address's; it may come again with the same address and another port; "
        "a replacement needs REMOVE_ADDR first.",
    ),
    Row(
        "A2",
        "text",
        "3.4.1",
        "ADD_ADDR carries the rightmost 64 bits of the HMAC over identifier, address and port, "
        "zero where there is none.",
    ),
    Row("A3", "S, M", "3.4.1", "A wrong HMAC is ignored silently; unassigned flags are ignored."),
    Row(
        "A4",
        "text",
        "3.4.1",
        "An ADD_ADDR is echoed with E=1 and without HMAC, and repeated until it is.",
        "`Config.add_addr_timeout_us`, doubled, `Config.add_addr_retries` times.",
    ),
    Row(
        "A5",
        "S",
        "3.4.1",
        "Without a port the one of the subflow that brought the option; a new port is tried.",
    ),
    Row(
        "A6",
        "SN",
        "3.4.1, 3.9.3",
        "What failed is not tried again on the connection before a fresh ADD_ADDR.",
        "A path that never worked is tried three times at most when SYNs got no answer, once when "
        "it was refused: a SYN is also lost when the network is merely slow to come up. A path "
        "that has worked is tried again with a growing delay (break before make, §3.5).",
    ),
    Row(
        "A7",
        "M",
        "3.4.1",
        "Announced addresses are soft state: they can be refreshed and lapse by themselves.",
    ),
    Row(
        "A8",
        "S, SN, M",
        "3.4.2, 3.8",
        "The loss of an announced address is told; who is told sends a keep-alive on the path "
        "first and keeps it if that is answered, resets it if not; unknown ones are ignored; "
        "a working subflow is closed with FIN.",
        "Two keep-alives, a retransmission time-out apart. What no subflow could tell waits for "
        "the next one.",
    ),
    Row(
        "F1",
        "text",
        "3.5",
        "Fast close A: MP_FASTCLOSE on the ACK of one subflow, RST on the others, then wait for a "
        "RST; R: RST with MP_FASTCLOSE on all. With the right key either ends the connection.",
        "`abort()` uses R, which holds no state; `Config.fast_close` chooses A. A RST is not "
        "answered with a RST on the subflow it came on.",
    ),
    Row(
        "F2",
        "S, R",
        "3.5",
        "Form A is repeated after one RTO, three times at most, and ends with the RST of form R.",
    ),
    Row(
        "F3",
        "MAY, SN, M",
        "3.6",
        "A RST may say why; with T=0 the path is not tried again, with T=1 it may be, later; the "
        "other flags are zero and ignored.",
        "Sent: 1 for the protocol, 2 (transient) for lack of room, 5 (transient) for time-outs "
        "beside a working subflow, 6 for middleboxes, 0 for addresses that are gone.",
    ),
    Row(
        "F4",
        "M",
        "3.7",
        "Each segment is mapped until one has been acknowledged with a DATA_ACK.",
    ),
    Row(
        "F5",
        "M, S",
        "3.7",
        "Data acknowledged without a DSS: an additional subflow is reset with reason 6; the first, "
        "if it is alone, falls back with a final infinite mapping.",
    ),
    Row(
        "F6",
        "M, S, MN",
        "3.3.1, 3.7",
        "The infinite mapping has length 0 and checksum 0; from there on the subflow's ACKs count, "
        "no DATA_ACK is sent, there is one subflow, and MPTCP does not come back.",
    ),
    Row(
        "F7",
        "M, MN",
        "3.7",
        "A wrong checksum: among several subflows RST with MP_FAIL; alone and contiguous MP_FAIL "
        "both ways and plain TCP; alone and not contiguous RST with MP_FAIL. The data is not "
        "DATA_ACKed.",
        "A connection that has, or had, other subflows, or has sent data again under other "
        "numbers, counts as not contiguous, as in Linux. The infinite mapping begins at the DSN "
        "of MP_FAIL. After a RST with MP_FAIL a new subflow is an ordinary one: §3.7 would have "
        "it begin with an infinite mapping, which Linux refuses on a joined subflow.",
    ),
    Row(
        "F8",
        "S",
        "3.7",
        "Options vanish in mid-life: when a window of unmapped data has come, RST with reason 6.",
    ),
    Row("F9", "text", "3.8", "Data outside the window is dropped and not DATA_ACKed."),
    Row(
        "F10",
        "text",
        "3.3.3, App. D",
        "The connection has TCP's closing states at the data level, TIME-WAIT among them; with all "
        "subflows gone and no DATA_FIN it waits for a new one for a while.",
        "`Config.orphan_timeout_us` is the while. In M_TIMEWAIT the token is kept for 2 MSL, so "
        "that a peer that lost its paths at the last word can join and repeat it; the application "
        "was told before. A peer that knows the token no more when only the acknowledgement of "
        "our DATA_FIN is missing has closed, not reset.",
    ),
    Row(
        "F11",
        "text",
        "App. B, EID 6609",
        "Data of a SYN (Fast Open) lies before the data sequence space; the server's first data "
        "may have a mapping and no DATA_ACK.",
        "Our server waits for the third ACK before it sends: till then it does not know that "
        "MPTCP is in use. As a client it accepts what the erratum describes.",
    ),
    Row(
        "F12",
        "S",
        "3.9.1",
        "SYNs with MP_JOIN use the first subflow's ports, the local one where it is free.",
    ),
)
