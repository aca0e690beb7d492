"""The counters: what the code raises is in the table, and what is in it a test has raised."""

from __future__ import annotations

from mptcp.config import Config
from mptcp.mib import EVERY, GAUGES, KERNEL, NOT_HERE, OWN
from mptcp.stack import Stack
from tests.counters import marks, raised, table, written

LINUX = """
    MPCapableSYNRX MPCapableSYNTX MPCapableSYNACKRX MPCapableACKRX MPCapableFallbackACK
    MPCapableFallbackSYNACK MPCapableSYNTXDrop MPCapableSYNTXDisabled MPCapableEndpAttempt
    MPFallbackTokenInit MPTCPRetrans MPJoinNoTokenFound MPJoinSynRx MPJoinSynBackupRx MPJoinSynAckRx
    MPJoinSynAckBackupRx MPJoinSynAckHMacFailure MPJoinAckRx MPJoinAckHMacFailure MPJoinRejected
    MPJoinSynTx MPJoinSynTxCreatSkErr MPJoinSynTxBindErr MPJoinSynTxConnectErr DSSNotMatching
    DSSCorruptionFallback DSSCorruptionReset InfiniteMapTx InfiniteMapRx DSSNoMatchTCP DataCsumErr
    OFOQueueTail OFOQueue OFOMerge NoDSSInWindow DuplicateData AddAddr AddAddrTx AddAddrTxDrop
    EchoAdd EchoAddTx EchoAddTxDrop PortAdd AddAddrDrop MPJoinPortSynRx MPJoinPortSynAckRx
    MPJoinPortAckRx MismatchPortSynRx MismatchPortAckRx RmAddr RmAddrDrop RmAddrTx RmAddrTxDrop
    RmSubflow MPPrioTx MPPrioRx MPFailTx MPFailRx MPFastcloseTx MPFastcloseRx MPRstTx MPRstRx
    SubflowStale SubflowRecover SndWndShared RcvWndShared RcvWndConflictUpdate RcvWndConflict
    MPCurrEstab Blackhole MPCapableDataFallback MD5SigFallback DssFallback SimultConnectFallback
    FallbackFailed WinProbe
"""
"""MPTcpExt of Linux 6.18 (`/proc/net/netstat`)."""


def test_what_the_code_raises_is_in_the_table() -> None:
    """A counter that nobody can look up says nothing."""
    assert sorted(raised() - set(EVERY)) == []
    assert sorted(set(EVERY) - set(GAUGES) - raised()) == []


def test_what_is_in_the_table_is_raised_by_a_test() -> None:
    """Each row has a test that says so, and names that nobody knows are slips."""
    named = set(marks())
    assert sorted(set(EVERY) - named) == []
    assert sorted(named - set(EVERY)) == []


def test_the_document_is_up_to_date() -> None:
    """`python -m tests.counters` was run after the last change."""
    assert written() == table()


def test_every_counter_of_the_kernel_is_accounted_for() -> None:
    """MPTcpExt: raised here, or left out for a reason that the document gives."""
    left_out = ", ".join(NOT_HERE).split(", ")
    for name in LINUX.split():
        here = f"MPTcpExt{name}" in {**GAUGES, **KERNEL}
        assert here != (name in left_out), name
    for name in {**GAUGES, **KERNEL}:
        kernel = name.removeprefix("MPTcpExt")
        if kernel != name:
            assert kernel in [*LINUX.split(), "RcvPruned"], name
    assert not set(KERNEL) & set(OWN)


def test_a_snapshot_has_every_name() -> None:
    """`nstat -az`: zeros too, in the order of the table; counting goes on undisturbed."""
    stack = Stack(Config(), lambda count: bytes(count))
    assert stack.mib() == dict.fromkeys(EVERY, 0)
    assert list(stack.mib()) == list(EVERY)
    assert not stack.counters
