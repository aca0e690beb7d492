"""MPTCP options: one table both ways, property-tested round trips, and rubbish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.wire import ParseError
from mptcp.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcprst,
    RemoveAddr,
    parse_dss,
    parse_mptcp_option,
)

from .cases import HMAC8, IPV4, IPV6, KEY_A, KEY_B, NONCE, OPTION_CASES, Case

_bits16 = st.integers(0, 0xFFFF)
_bits32 = st.integers(0, 0xFFFF_FFFF)
_bits64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
_byte = st.integers(0, 255)
_key = st.binary(min_size=8, max_size=8)
_nonce = st.binary(min_size=4, max_size=4)
_address = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
_port = st.none() | _bits16


@st.composite
def capables(draw: st.DrawFn) -> MpCapable:
    """Every form of MP_CAPABLE with any flags."""
    present = draw(st.integers(0, 4))
    return MpCapable(
        draw(_key) if present > 0 else None,
        draw(_key) if present > 1 else None,
        draw(_bits16) if present > 2 else None,
        draw(_bits16) if present > 3 else None,
        version=draw(st.integers(0, 15)),
        checksum_required=draw(st.booleans()),
        extensibility=draw(st.booleans()),
        no_join_initial=draw(st.booleans()),
        hmac_sha256=draw(st.booleans()),
        other_flags=draw(_byte) & 0x1E,
    )


@st.composite
def signals(draw: st.DrawFn) -> Dss:
    """Every form of DSS."""
    ack_64 = draw(st.booleans())
    dsn_64 = draw(st.booleans())
    dss = Dss()
    if draw(st.booleans()):
        dss.data_ack = draw(_bits64 if ack_64 else _bits32)
        dss.data_ack_64 = ack_64
    if draw(st.booleans()):
        dss.dsn = draw(_bits64 if dsn_64 else _bits32)
        dss.dsn_64 = dsn_64
        dss.ssn = draw(_bits32)
        dss.length = draw(_bits16)
        dss.checksum = draw(st.none() | _bits16)
        dss.data_fin = draw(st.booleans())
    return dss


options: st.SearchStrategy[MptcpOption] = st.one_of(
    capables(),
    signals(),
    st.builds(MpJoinSyn, st.booleans(), _byte, _bits32, _nonce),
    st.builds(MpJoinSynAck, st.booleans(), _byte, _key, _nonce),
    st.builds(MpJoinAck, st.binary(min_size=20, max_size=20)),
    st.builds(AddAddr, _byte, _address, _port, _key),
    st.builds(AddAddr, _byte, _address, _port, echo=st.just(True)),
    st.builds(RemoveAddr, st.lists(_byte, min_size=1, max_size=37).map(tuple)),
    st.builds(MpPrio, st.booleans()),
    st.builds(MpFail, _bits64),
    st.builds(MpFastclose, _key),
    st.builds(MpTcprst, _byte, st.booleans()),
)


@pytest.mark.parametrize("case", OPTION_CASES.values(), ids=OPTION_CASES.keys())
def test_table(case: Case) -> None:
    """Emitter and parser agree with the bytes of the RFC's figures."""
    wire = bytes.fromhex(case.wire)
    assert case.value.emit() == wire
    assert parse_mptcp_option(wire) == case.value
    assert parse_mptcp_option(memoryview(wire)) == case.value
    assert len(wire) == wire[1]


@given(options)
def test_round_trip(value: MptcpOption) -> None:
    """What can be constructed can be emitted, and comes back the same."""
    wire = value.emit()
    assert wire[0] == 30
    assert wire[1] == len(wire) <= 40
    assert parse_mptcp_option(wire) == value


@pytest.mark.parametrize("case", OPTION_CASES.values(), ids=OPTION_CASES.keys())
def test_every_truncation(case: Case) -> None:
    """A prefix is refused; with its length byte corrected it is refused or another legal form."""
    wire = bytes.fromhex(case.wire)
    for size in range(len(wire)):
        with pytest.raises(ParseError):
            parse_mptcp_option(wire[:size])
        if size >= 2:
            try:
                value = parse_mptcp_option(bytes((30, size)) + wire[2:size])
            except ParseError:
                continue
            assert value is not None
            assert len(value.emit()) == size


@given(st.binary(max_size=40), st.booleans())
def test_rubbish(data: bytes, dressed: bool) -> None:
    """Arbitrary bytes give a value, None or a ParseError."""
    if dressed:
        data = bytes((30, len(data) + 2)) + data
    try:
        value = parse_mptcp_option(data)
    except ParseError:
        return
    if value is not None:
        # Reserved bits are not kept, so the second reading is the fixed point.
        assert parse_mptcp_option(value.emit()) == value


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 255))
def test_dss_at_any_offset(data: bytes, offset: int, size: int) -> None:
    """The fast-path parser keeps the promise for offsets and sizes that do not fit."""
    try:
        value = parse_dss(data, offset, size)
    except ParseError:
        return
    assert len(value.emit()) == size


@pytest.mark.parametrize("subtype", range(9, 16))
def test_unknown_subtypes_are_ignored(subtype: int) -> None:
    """RFC 8684 §3: subtype 0xf is for private use, 9..0xe are not assigned."""
    assert parse_mptcp_option(bytes((30, 6, subtype << 4, 1, 2, 3))) is None


@pytest.mark.row("J3", "A3", "F3")
def test_reserved_bits_are_ignored() -> None:
    """RFC 8684 §3: reserved bits are ignored by the receiver, but D..G of MP_CAPABLE are kept."""
    assert parse_mptcp_option(bytes.fromhex("1e035f")) == MpPrio(True)
    assert parse_mptcp_option(bytes.fromhex("1e048f06")) == MpTcprst(6, True)
    assert parse_mptcp_option(bytes.fromhex("1e082fe181828384")) == Dss(0x81828384, False)
    assert parse_mptcp_option(bytes.fromhex("1e04011f")) == MpCapable(other_flags=0x1E)


@pytest.mark.row("D11")
def test_a_data_fin_flag_without_mapping_says_nothing() -> None:
    """RFC 8684 §3.3.3: a DATA_FIN takes a place in the mapping, so there must be one."""
    assert parse_mptcp_option(bytes.fromhex("1e08201181828384")) == Dss(0x81828384, False)


@pytest.mark.parametrize(
    "wire",
    [
        "1e05 01 01 00",  # MP_CAPABLE of 5
        "1e08 01 01 00000000",
        "1e0d 10 00" + "00" * 9,  # MP_JOIN of 13
        "1e03 20",  # DSS without flags
        "1e0e 20 01" + "00" * 10,  # DSS: ack only, with two more
        "1e06 20 00 0000",  # DSS: nothing, with a checksum
        "1e0f 20 04" + "00" * 11,
        "1e15 20 0c" + "00" * 17,
        "1e14 20 05" + "00" * 17,
        "1e08 30 02 c0000221",  # ADD_ADDR without HMAC
        "1e10 31 02" + "00" * 12,  # echo with HMAC
        "1e03 40",  # REMOVE_ADDR of nothing
        "1e04 50 00",  # MP_PRIO of version 0, with an address id
        "1e08 60 00 00000000",
        "1e04 70 00",
        "1e05 80 00 00",
        "1d04 80 00",  # another kind
        "1e05 80 00",  # length beyond the end
        "1e02",
    ],
)
def test_bad_lengths(wire: str) -> None:
    """A length that belongs to no form is a ParseError."""
    with pytest.raises(ParseError):
        parse_mptcp_option(bytes.fromhex(wire))


@pytest.mark.parametrize(
    "value",
    [
        MpCapable(None, KEY_B),
        MpCapable(KEY_A, None, 5),
        MpCapable(KEY_A, KEY_B, None, 5),
        MpCapable(KEY_A[:7]),
        MpCapable(KEY_A, KEY_B, 65536),
        MpJoinSyn(False, 256, 0, NONCE),
        MpJoinSyn(False, 0, 1 << 32, NONCE),
        MpJoinSyn(False, 0, 0, b""),
        MpJoinSynAck(False, 0, HMAC8[:7], NONCE),
        MpJoinAck(HMAC8),
        Dss(1 << 32, False),
        Dss(-1),
        Dss(0, True, 1 << 64),
        Dss(dsn=0, length=65536),
        Dss(dsn=0, checksum=65536),
        Dss(data_fin=True),
        Dss(1, checksum=1),
        AddAddr(1, b"abc", None, HMAC8),
        AddAddr(1, IPV4, 65536, HMAC8),
        AddAddr(1, IPV6),
        AddAddr(1, IPV6, None, HMAC8, echo=True),
        AddAddr(1, IPV6, None, HMAC8[:4]),
        RemoveAddr(()),
        RemoveAddr((256,)),
        RemoveAddr(tuple(range(38))),
        MpFail(1 << 64),
        MpFastclose(b""),
        MpTcprst(256),
    ],
    ids=repr,
)
def test_values_without_a_form(value: MptcpOption) -> None:
    """Emitting what cannot be on the wire is a ValueError, never wrong bytes."""
    with pytest.raises(ValueError, match=r".") as caught:
        value.emit()
    assert not isinstance(caught.value, ParseError)


def test_dss_compares_and_prints() -> None:
    """Dss is a plain class for speed, but behaves like the dataclasses."""
    dss = Dss(1, False, 2, False, 3, 4, 5, True)
    assert dss == Dss(1, False, 2, False, 3, 4, 5, True)
    assert dss != Dss(1, False, 2, False, 3, 4, 5, False)
    assert dss != MpPrio(True)
    text = "Dss(data_ack=1 (32) dsn=2 (32) ssn=3 length=4 checksum=0x0005 DATA_FIN)"
    assert repr(dss) == text
    assert repr(Dss()) == "Dss()"
    assert repr(Dss(1, True, 2)) == "Dss(data_ack=1 dsn=2 ssn=0 length=0)"
