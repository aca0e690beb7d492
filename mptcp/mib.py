"""The counters of a host: their names, what they mean, and what they are now.

`KERNEL` has the names and meanings of Linux (`net/ipv4/proc.c`, `net/mptcp/mib.h`, 6.18), so that
`nstat` and `mptcpctl counters` tell the same of the same thing; `OWN` is what the kernel does not
count. docs/counters.md is made of both, and a test keeps it so: what the code raises stands here,
and what stands here is raised by a test.

Most are raised where the event is, in `Stack.counters`. `GAUGES` are states, worked out when
somebody asks; what every segment would raise is kept by its connection (`tcp.stats`) and added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.tcp.state import State

if TYPE_CHECKING:
    from mptcp.stack import Stack

GAUGES: Final = {
    "TcpCurrEstab": "Subflows and plain connections in ESTABLISHED or CLOSE-WAIT now",
    "MPTcpExtMPCurrEstab": "MPTCP connections established now; those that fell back are none",
}

KERNEL: Final = {
    # IP, ICMP
    "IpInHdrErrors": "Packets whose IP header, or what it holds, cannot be read",
    "IpInAddrErrors": "Packets to an address that is not ours, or from one that is no host's",
    "IpInUnknownProtos": "Packets of a protocol that is neither TCP nor ICMP",
    "IpOutDiscards": "Packets that the device refused",
    "IpReasmFails": "Packets not put together: overlapping, malformed, late, or too many",
    "IpReasmReqds": "Fragments received",
    "IpReasmOKs": "Packets put together from fragments",
    "IpExtInCEPkts": "Segments with data that came with Congestion Experienced",
    "IcmpInEchos": "Echo requests",
    "IcmpInDestUnreachs": "Destination unreachable, quoting a connection of ours",
    "IcmpInSrcQuenchs": "Source quench, which is ignored (RFC 6633)",
    # TCP (RFC 4022)
    "TcpActiveOpens": "SYNs that open a connection or a subflow",
    "TcpPassiveOpens": "Handshakes with a listener, or joins of the peer, that were completed",
    "TcpAttemptFails": "From SYN-SENT or SYN-RECEIVED to CLOSED",
    "TcpEstabResets": "From ESTABLISHED or CLOSE-WAIT to CLOSED",
    "TcpInSegs": "Segments received",
    "TcpOutSegs": "Segments sent, without those that only repeat",
    "TcpRetransSegs": "Segments sent again, SYNs included",
    "TcpInErrs": "Segments that cannot be read, or with a wrong checksum",
    "TcpOutRsts": "RSTs sent",
    "TcpInCsumErrors": "Segments with a wrong checksum",
    # TcpExt: opening and closing
    "TcpExtSyncookiesSent": "SYNs answered with a SYN cookie",
    "TcpExtSyncookiesRecv": "SYN cookies that came back",
    "TcpExtSyncookiesFailed": "ACKs whose cookie was none of ours",
    "TcpExtEmbryonicRsts": "RSTs in SYN-RECEIVED",
    "TcpExtListenOverflows": "Cookies that came back and found no room",
    "TcpExtListenDrops": "SYNs dropped",
    "TcpExtTCPReqQFullDoCookies": "SYNs at a full backlog that got a cookie",
    "TcpExtTCPReqQFullDrop": "SYNs at a full backlog that were dropped",
    "TcpExtTW": "TIME-WAITs that ended by their timer",
    "TcpExtTWRecycled": "TIME-WAITs that a new connection took over",
    "TcpExtTCPTimeWaitOverflow": "TIME-WAITs that ended early: there were too many",
    "TcpExtTCPAbortOnData": "Connections reset for data after the application had closed",
    "TcpExtTCPAbortOnClose": "Connections reset because data was unread at the close",
    "TcpExtTCPAbortOnTimeout": "Connections and subflows given up: the peer did not answer",
    "TcpExtTCPKeepAlive": "Keep-alive probes sent",
    # TcpExt: validity
    "TcpExtPAWSEstab": "Segments with an old timestamp (RFC 7323 §5)",
    "TcpExtBeyondWindow": "Segments that begin after the window",
    "TcpExtOutOfWindowIcmps": "ICMP errors that quote a sequence number not in flight",
    "TcpExtTCPChallengeACK": "Challenge ACKs sent (RFC 5961)",
    "TcpExtTCPSYNChallenge": "SYNs on an open connection",
    # TcpExt: receiving
    "TcpExtDelayedACKs": "ACKs that the delayed-ACK timer sent",
    "TcpExtDelayedACKLost": "Segments that had been received and acknowledged before",
    "TcpExtTCPOFOQueue": "Segments kept out of order",
    "TcpExtTCPOFODrop": "Segments out of order that found no room",
    "TcpExtTCPDSACKOldSent": "DSACKs sent for data acknowledged before (RFC 2883)",
    "TcpExtTCPDSACKOfoSent": "DSACKs sent for data held out of order",
    "TcpExtTCPRcvQDrop": "Segments in order that found no room in the host's memory",
    "TcpExtTCPMemoryPressures": "Times the host's memory for buffers became short",
    "TcpExtTCPMemoryPressuresChrono": "Milliseconds for which it was short, up to the last end",
    # TcpExt: loss
    "TcpExtTCPTimeouts": "Expiries of the retransmission timer, SYNs' included",
    "TcpExtTCPSynRetrans": "SYNs and SYN/ACKs sent again",
    "TcpExtTCPRenoRecovery": "Fast recoveries without SACK",
    "TcpExtTCPSackRecovery": "Fast recoveries with SACK",
    "TcpExtTCPSACKReneging": "Receivers that threw away what they had SACKed (RFC 2018 §8)",
    "TcpExtTCPSACKReorder": "Reorderings seen (RFC 8985 §6.2)",
    "TcpExtTCPFullUndo": "Fast recoveries taken back at their end, by timestamps",
    "TcpExtTCPPartialUndo": "Fast recoveries taken back before their end, by timestamps",
    "TcpExtTCPDSACKUndo": "Recoveries taken back by DSACKs",
    "TcpExtTCPLossUndo": "Recoveries from a time-out taken back",
    "TcpExtTCPSpuriousRTOs": "Time-outs that F-RTO found to be needless (RFC 5682)",
    "TcpExtTCPLostRetransmit": "Times a retransmission was found lost",
    "TcpExtTCPFastRetrans": "Segments sent again in fast recovery",
    "TcpExtTCPSlowStartRetrans": "Segments sent again after a time-out",
    "TcpExtTCPLossProbes": "Tail loss probes sent (RFC 8985 §7)",
    "TcpExtTCPLossProbeRecovery": "Losses that a probe repaired",
    "TcpExtTCPDSACKRecv": "DSACKs received for data acknowledged before",
    "TcpExtTCPDSACKOfoRecv": "DSACKs received for data held out of order",
    "TcpExtTCPOrigDataSent": "Segments with data sent for the first time",
    "TcpExtTCPWinProbe": "Probes of a closed window",
    "TcpExtTCPMTUPSuccess": "Path MTU probes that arrived",
    "TcpExtTCPMTUPFail": "Path MTU probes that were lost",
    # TcpExt: Fast Open (RFC 7413)
    "TcpExtTCPFastOpenActive": "SYNs whose data was taken",
    "TcpExtTCPFastOpenActiveFail": "SYNs whose data was not",
    "TcpExtTCPFastOpenPassive": "SYNs accepted with their data",
    "TcpExtTCPFastOpenPassiveFail": "SYNs with a bad cookie, early opens whose handshake failed",
    "TcpExtTCPFastOpenListenOverflow": "SYNs with a good cookie beyond the limit",
    "TcpExtTCPFastOpenCookieReqd": "SYNs that asked for a cookie, received or sent",
    "TcpExtTCPFastOpenBlackhole": "Servers to which Fast Open was turned off for a while",
    "TcpExtTCPFastOpenPassiveAltKey": "Good cookies of the key before",
    # MPTcpExt: MP_CAPABLE
    "MPTcpExtMPCapableSYNRX": "SYNs received with MP_CAPABLE",
    "MPTcpExtMPCapableSYNTX": "Connections opened with MP_CAPABLE",
    "MPTcpExtMPCapableSYNACKRX": "SYN/ACKs received with MP_CAPABLE",
    "MPTcpExtMPCapableACKRX": "Third ACKs received with MP_CAPABLE",
    "MPTcpExtMPCapableFallbackACK": "Fallbacks of a server in the handshake",
    "MPTcpExtMPCapableFallbackSYNACK": "Fallbacks of a client in the handshake",
    "MPTcpExtMPCapableSYNTXDrop": "Fallbacks of a client whose SYNs were not answered",
    "MPTcpExtMPCapableSYNTXDisabled": "SYNs sent without MP_CAPABLE: it was lost there before",
    "MPTcpExtBlackhole": "Destinations found where SYNs with MP_CAPABLE are lost",
    "MPTcpExtMPFallbackTokenInit": "Handshakes without MP_CAPABLE: the token was taken",
    "MPTcpExtSimultConnectFallback": "Fallbacks because both ends sent a SYN",
    "MPTcpExtMPCapableDataFallback": "Fallbacks because the first data had no DSS",
    # MPTcpExt: MP_JOIN
    "MPTcpExtMPJoinNoTokenFound": "MP_JOINs with an unknown token",
    "MPTcpExtMPJoinSynRx": "SYNs received with MP_JOIN",
    "MPTcpExtMPJoinSynBackupRx": "SYNs received with MP_JOIN and B",
    "MPTcpExtMPJoinSynAckRx": "SYN/ACKs received with MP_JOIN",
    "MPTcpExtMPJoinSynAckBackupRx": "SYN/ACKs received with MP_JOIN and B",
    "MPTcpExtMPJoinSynAckHMacFailure": "Wrong HMACs in SYN/ACKs",
    "MPTcpExtMPJoinAckRx": "Third ACKs received with MP_JOIN",
    "MPTcpExtMPJoinAckHMacFailure": "Wrong or missing HMACs in third ACKs",
    "MPTcpExtMPJoinRejected": "MP_JOINs refused: too many subflows",
    "MPTcpExtMPJoinSynTx": "SYNs sent with MP_JOIN",
    "MPTcpExtMPJoinSynTxBindErr": "MP_JOINs not sent: no local address or port",
    "MPTcpExtMPJoinPortSynRx": "SYNs with MP_JOIN to another port than the first subflow's",
    "MPTcpExtMPJoinPortSynAckRx": "SYN/ACKs with MP_JOIN from another port",
    "MPTcpExtMPJoinPortAckRx": "Third ACKs with MP_JOIN to another port",
    # MPTcpExt: data
    "MPTcpExtMPTCPRetrans": "Stretches of data sent again on another subflow",
    "MPTcpExtDSSNotMatching": "Mappings that contradict one received before",
    "MPTcpExtDSSNoMatchTCP": "Subflows reset because no mapping came for their data",
    "MPTcpExtDataCsumErr": "Wrong DSS checksums",
    "MPTcpExtInfiniteMapTx": "Infinite mappings sent",
    "MPTcpExtInfiniteMapRx": "Infinite mappings received",
    "MPTcpExtFallbackFailed": "Fallbacks asked for where there were, or had been, other subflows",
    "MPTcpExtOFOQueue": "Segments kept out of order at data level",
    "MPTcpExtOFOQueueTail": "Of those the ones at the end of the queue",
    "MPTcpExtOFOMerge": "Of those the ones that continued what was there",
    "MPTcpExtNoDSSInWindow": "Data outside the window",
    "MPTcpExtDuplicateData": "Data that had come before",
    "MPTcpExtRcvPruned": "Data dropped because out-of-order data took its room (to Linux 6.0)",
    # MPTcpExt: addresses
    "MPTcpExtAddAddrDrop": "ADD_ADDRs not taken: no host's address, ours, or one too many",
    "MPTcpExtAddAddr": "ADD_ADDRs received",
    "MPTcpExtAddAddrTx": "ADD_ADDRs sent, repeated ones too",
    "MPTcpExtAddAddrTxDrop": "ADD_ADDRs not sent: too many options wait",
    "MPTcpExtEchoAdd": "Echoes of ADD_ADDR received",
    "MPTcpExtEchoAddTx": "Echoes of ADD_ADDR sent",
    "MPTcpExtEchoAddTxDrop": "Echoes of ADD_ADDR not sent: too many options wait",
    "MPTcpExtPortAdd": "ADD_ADDRs received with a port",
    "MPTcpExtRmAddr": "Identifiers in REMOVE_ADDRs received",
    "MPTcpExtRmAddrTx": "REMOVE_ADDRs sent",
    "MPTcpExtRmAddrTxDrop": "REMOVE_ADDRs not sent: too many options wait",
    "MPTcpExtRmSubflow": "Subflows closed because their local address is gone",
    # MPTcpExt: the rest
    "MPTcpExtMPPrioTx": "MP_PRIOs sent",
    "MPTcpExtMPPrioRx": "MP_PRIOs received",
    "MPTcpExtMPFailTx": "MP_FAILs sent",
    "MPTcpExtMPFailRx": "MP_FAILs received",
    "MPTcpExtMPFastcloseTx": "MP_FASTCLOSEs sent, one for a connection",
    "MPTcpExtMPFastcloseRx": "MP_FASTCLOSEs received",
    "MPTcpExtMPRstTx": "RSTs sent with MP_TCPRST",
    "MPTcpExtMPRstRx": "RSTs received with MP_TCPRST",
    "MPTcpExtSubflowStale": "Subflows whose retransmission timer expired",
    "MPTcpExtSubflowRecover": "Of those the ones that were acknowledged again",
}

OWN: Final = {
    "IpOutAnswersDropped": "Answers to strangers that found the queue to the device full",
    "TcpOutRstsRateLimited": "Resets not sent: more than `resets_per_second`",
    "MPTcpExtHalfOpenJoinsDropped": "Joins whose third ACK had not come, pushed out by another",
    "IpReasmEvicted": "Packets not put together: there were too many fragments",
    "MPTcpExtFallback": "Fallbacks of every kind that are told to the application",
    "MPTcpExtInvalidDataAck": "DATA_ACKs of data never sent",
    "MPTcpExtAddAddrHMacFailure": "ADD_ADDRs with a wrong HMAC (the kernel ignores them uncounted)",
    "TcpExtTCPUrgentReceived": "Urgent pointers that moved ahead",
    "TcpEcnReductions": "Reductions of the window because of ECE",
    "TcpPathMtuReduced": "Path MTUs lowered by ICMP",
    "TcpPathMtuPending": "ICMP messages that wait for a time-out to confirm them",
    "TcpPathMtuIgnored": "ICMP messages that cannot be about the path MTU",
    "TcpMtuBlackHoles": "Segment sizes lowered because full-sized segments timed out",
    "IcmpInUnmatched": "ICMP errors that quote no connection of ours",
    "IcmpInRateLimited": "ICMP messages beyond `icmp_per_second`",
    "SchedulerChoiceNotReady": "Times a scheduler chose a subflow that could not send",
    "SchedulerChoiceSilent": "Times a scheduler's choice sent nothing",
    "SchedulerWaitsForNothing": "Times a scheduler waited while no other subflow was to move",
    "SchedulerDuplicates": "Segments or chunks sent again on another subflow by `redundant`",
    "MPTcpExtOpportunisticRetrans": "Pieces sent again because the connection's window was full",
    "MPTcpExtPenalised": "Windows halved of subflows late with half of what they carried",
    "MPTcpExtHeuristicsOverruled": "Subflows opened early because the only one stalled",
    "MPTcpExtSubflowsCostly": "Subflows closed because they cost more than they bring",
    "EngineErrors": "Errors of ours that the engine survived; see the log",
}

NOT_HERE: Final = {
    "MPCapableEndpAttempt": "there is no endpoint that only begins connections",
    "MPJoinSynTxCreatSkErr, MPJoinSynTxConnectErr": "there is no socket to make or to connect",
    "MismatchPortSynRx, MismatchPortAckRx": "the token is enough: every port may be joined",
    "DSSCorruptionFallback, DSSCorruptionReset": "see DSSNotMatching and DSSNoMatchTCP",
    "RmAddrDrop": "a path manager is told at once, there is no queue to overflow",
    "SndWndShared, RcvWndShared, RcvWndConflict, RcvWndConflictUpdate": (
        "subflows have no windows of their own to disagree with the connection's"
    ),
    "MD5SigFallback": "there are no TCP MD5 signatures",
    "DssFallback": "see InfiniteMapRx, MPCapableDataFallback and MPFailRx, which say why",
    "WinProbe": "a closed window is probed on each subflow: see TcpExtTCPWinProbe",
}
"""Counters of Linux's MPTcpExt that are left out, and why."""

EVERY: Final = {**GAUGES, **KERNEL, **OWN}
"""All of them: name -> meaning."""


def snapshot(stack: Stack) -> dict[str, int]:
    """Every counter, in the order of the table; names that are not in it come last."""
    values = dict.fromkeys(EVERY, 0)
    values.update(stack.counters)
    for connection in stack.connections.values():
        for name, count in connection.stats.totals():
            values[name] += count
        if connection.state is State.ESTABLISHED or connection.state is State.CLOSE_WAIT:
            values["TcpCurrEstab"] += 1
    values["MPTcpExtMPCurrEstab"] = sum(
        meta.established and not meta.fallback for meta in stack.metas
    )
    return values
