"""One table of MPTCP options, value beside bytes, read by parser, emitter and tshark tests.

The bytes are written by hand from the figures of RFC 8684 §3. tshark does not show the checksum of
a DSS, so nothing is said of it there.
"""

from typing import Final, NamedTuple

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
)

KEY_A: Final = bytes.fromhex("0102030405060708")
KEY_B: Final = bytes.fromhex("1112131415161718")
NONCE: Final = bytes.fromhex("a1a2a3a4")
HMAC8: Final = bytes.fromhex("864b40428762fd06")
HMAC20: Final = bytes.fromhex("53037f2899475529844115fd07e665d23d3554fb")
IPV4: Final = bytes([192, 0, 2, 33])
IPV6: Final = bytes.fromhex("20010db8000000000000000000000021")

_A, _B = KEY_A.hex(), KEY_B.hex()
_ACK64, _DSN64 = 0x8182838485868788, 0x9192939495969798


class Case(NamedTuple):
    """An option, its bytes, and what tshark's fields must say of it (field -> value)."""

    value: MptcpOption
    wire: str
    tshark: dict[str, str]


def _m(name: str) -> str:
    return f"tcp.options.mptcp.{name}"


OPTION_CASES: Final[dict[str, Case]] = {
    "MP_CAPABLE SYN": Case(
        MpCapable(),
        "1e04 01 01",
        {_m("subtype"): "0", _m("version"): "1", _m("sha256.flag"): "1"},
    ),
    "MP_CAPABLE SYN/ACK": Case(
        MpCapable(KEY_B, checksum_required=True),
        "1e0c 01 81" + _B,
        {_m("sendkey"): str(int(_B, 16)), _m("checksumreq.flags"): "1"},
    ),
    "MP_CAPABLE ACK": Case(
        MpCapable(KEY_A, KEY_B, no_join_initial=True),
        "1e14 01 21" + _A + _B,
        {
            _m("sendkey"): str(int(_A, 16)),
            _m("recvkey"): str(int(_B, 16)),
            _m("nomoresubflows.flag"): "1",
        },
    ),
    "MP_CAPABLE data": Case(
        MpCapable(KEY_A, KEY_B, 1400),
        "1e16 01 01" + _A + _B + "0578",
        {_m("recvkey"): str(int(_B, 16)), _m("datalvllen"): "1400"},
    ),
    "MP_CAPABLE data checksum": Case(
        MpCapable(KEY_A, KEY_B, 1400, 0xBEEF, checksum_required=True),
        "1e18 01 81" + _A + _B + "0578 beef",
        {_m("datalvllen"): "1400", _m("checksum"): "0xbeef"},
    ),
    "MP_CAPABLE version 0 and all flags": Case(
        MpCapable(
            version=0,
            checksum_required=True,
            extensibility=True,
            no_join_initial=True,
            other_flags=0x1E,
        ),
        "1e04 00 ff",
        {_m("version"): "0", _m("extensibility.flag"): "1"},
    ),
    "MP_JOIN SYN": Case(
        MpJoinSyn(True, 3, 0xCCAD45AC, NONCE),
        "1e0c 11 03 ccad45ac a1a2a3a4",
        {
            _m("subtype"): "1",
            _m("backup.flag"): "1",
            _m("addrid"): "3",
            _m("recvtok"): str(0xCCAD45AC),
            _m("sendrand"): str(0xA1A2A3A4),
        },
    ),
    "MP_JOIN SYN/ACK": Case(
        MpJoinSynAck(False, 4, HMAC8, NONCE),
        "1e10 10 04 864b40428762fd06 a1a2a3a4",
        {
            _m("addrid"): "4",
            _m("sendtrunchmac"): str(0x864B40428762FD06),
            _m("sendrand"): str(0xA1A2A3A4),
        },
    ),
    "MP_JOIN ACK": Case(
        MpJoinAck(HMAC20),
        "1e18 10 00" + HMAC20.hex(),
        {_m("subtype"): "1", _m("sendhmac"): HMAC20.hex(":")},
    ),
    "DSS empty": Case(Dss(), "1e04 20 00", {_m("subtype"): "2"}),
    "DSS ack 32": Case(
        Dss(0x81828384, False),
        "1e08 20 01 81828384",
        {_m("rawdataack"): str(0x81828384), _m("dataack8.flag"): "0"},
    ),
    "DSS ack 64": Case(
        Dss(_ACK64),
        "1e0c 20 03 8182838485868788",
        {_m("rawdataack"): str(_ACK64), _m("dataack8.flag"): "1"},
    ),
    "DSS map 32": Case(
        Dss(None, True, 0x91929394, False, 7, 512),
        "1e0e 20 04 91929394 00000007 0200",
        {
            _m("rawdataseqno"): str(0x91929394),
            _m("subflowseqno"): "7",
            _m("datalvllen"): "512",
            _m("dseqn8.flag"): "0",
        },
    ),
    "DSS map 32 checksum": Case(
        Dss(None, True, 0x91929394, False, 7, 512, 0x1234),
        "1e10 20 04 91929394 00000007 0200 1234",
        {_m("rawdataseqno"): str(0x91929394)},
    ),
    "DSS map 64": Case(
        Dss(None, True, _DSN64, True, 7, 65535),
        "1e12 20 0c 9192939495969798 00000007 ffff",
        {_m("rawdataseqno"): str(_DSN64), _m("datalvllen"): "65535", _m("dseqn8.flag"): "1"},
    ),
    "DSS map 64 checksum": Case(
        Dss(None, True, _DSN64, True, 7, 512, 0),
        "1e14 20 0c 9192939495969798 00000007 0200 0000",
        {_m("rawdataseqno"): str(_DSN64)},
    ),
    "DSS ack 32 map 32": Case(
        Dss(0x81828384, False, 0x91929394, False, 7, 512),
        "1e12 20 05 81828384 91929394 00000007 0200",
        {_m("rawdataack"): str(0x81828384), _m("rawdataseqno"): str(0x91929394)},
    ),
    "DSS ack 32 map 64": Case(
        Dss(0x81828384, False, _DSN64, True, 7, 512),
        "1e16 20 0d 81828384 9192939495969798 00000007 0200",
        {_m("rawdataack"): str(0x81828384), _m("rawdataseqno"): str(_DSN64)},
    ),
    "DSS ack 64 map 32 checksum": Case(
        Dss(_ACK64, True, 0x91929394, False, 7, 512, 0x1234),
        "1e18 20 07 8182838485868788 91929394 00000007 0200 1234",
        {_m("rawdataack"): str(_ACK64), _m("rawdataseqno"): str(0x91929394)},
    ),
    "DSS ack 64 map 64": Case(
        Dss(_ACK64, True, _DSN64, True, 0xF0000007, 512),
        "1e1a 20 0f 8182838485868788 9192939495969798 f0000007 0200",
        {
            _m("rawdataack"): str(_ACK64),
            _m("rawdataseqno"): str(_DSN64),
            _m("subflowseqno"): str(0xF0000007),
        },
    ),
    "DSS ack 64 map 64 checksum": Case(
        Dss(_ACK64, True, _DSN64, True, 7, 512, 0xFFFF),
        "1e1c 20 0f 8182838485868788 9192939495969798 00000007 0200 ffff",
        {_m("rawdataack"): str(_ACK64)},
    ),
    "DSS DATA_FIN alone": Case(
        Dss(_ACK64, True, _DSN64, True, 0, 1, None, True),
        "1e1a 20 1f 8182838485868788 9192939495969798 00000000 0001",
        {_m("datafin.flag"): "1", _m("datalvllen"): "1"},
    ),
    "DSS DATA_FIN without ack": Case(
        Dss(None, True, _DSN64, True, 0, 1, 0x5A5A, True),
        "1e14 20 1c 9192939495969798 00000000 0001 5a5a",
        {_m("datafin.flag"): "1", _m("dataackpresent.flag"): "0"},
    ),
    "DSS infinite mapping": Case(
        Dss(None, True, 0x91929394, False, 7, 0),
        "1e0e 20 04 91929394 00000007 0000",
        {_m("datalvllen"): "0"},
    ),
    "ADD_ADDR IPv4": Case(
        AddAddr(2, IPV4, None, HMAC8),
        "1e10 30 02 c0000221" + HMAC8.hex(),
        {
            _m("subtype"): "3",
            _m("echo"): "0",
            _m("addrid"): "2",
            _m("ipv4"): "192.0.2.33",
            _m("addaddrtrunchmac"): str(int(HMAC8.hex(), 16)),
        },
    ),
    "ADD_ADDR IPv4 port": Case(
        AddAddr(2, IPV4, 5001, HMAC8),
        "1e12 30 02 c0000221 1389" + HMAC8.hex(),
        {
            _m("ipv4"): "192.0.2.33",
            _m("port"): "5001",
            _m("addaddrtrunchmac"): str(int(HMAC8.hex(), 16)),
        },
    ),
    "ADD_ADDR IPv6": Case(
        AddAddr(255, IPV6, None, HMAC8),
        "1e1c 30 ff" + IPV6.hex() + HMAC8.hex(),
        {_m("addrid"): "255", _m("ipv6"): "2001:db8::21"},
    ),
    "ADD_ADDR IPv6 port": Case(
        AddAddr(2, IPV6, 5001, HMAC8),
        "1e1e 30 02" + IPV6.hex() + "1389" + HMAC8.hex(),
        {_m("ipv6"): "2001:db8::21", _m("port"): "5001"},
    ),
    "ADD_ADDR echo IPv4": Case(
        AddAddr(2, IPV4, echo=True),
        "1e08 31 02 c0000221",
        {_m("echo"): "1", _m("ipv4"): "192.0.2.33"},
    ),
    "ADD_ADDR echo IPv4 port": Case(
        AddAddr(2, IPV4, 5001, echo=True),
        "1e0a 31 02 c0000221 1389",
        {_m("echo"): "1", _m("port"): "5001"},
    ),
    "ADD_ADDR echo IPv6": Case(
        AddAddr(2, IPV6, echo=True),
        "1e14 31 02" + IPV6.hex(),
        {_m("echo"): "1", _m("ipv6"): "2001:db8::21"},
    ),
    "ADD_ADDR echo IPv6 port": Case(
        AddAddr(2, IPV6, 0, echo=True),
        "1e16 31 02" + IPV6.hex() + "0000",
        {_m("echo"): "1", _m("ipv6"): "2001:db8::21", _m("port"): "0"},
    ),
    "REMOVE_ADDR one": Case(
        RemoveAddr((9,)), "1e04 40 09", {_m("subtype"): "4", _m("addrid"): "9"}
    ),
    "REMOVE_ADDR many": Case(
        RemoveAddr((0, 7, 255)), "1e06 40 00 07 ff", {_m("subtype"): "4", _m("addrid"): "0,7,255"}
    ),
    "MP_PRIO backup": Case(MpPrio(True), "1e03 51", {_m("subtype"): "5", _m("backup.flag"): "1"}),
    "MP_PRIO regular": Case(MpPrio(False), "1e03 50", {_m("backup.flag"): "0"}),
    "MP_FAIL": Case(
        MpFail(_DSN64), "1e0c 60 00 9192939495969798", {_m("rawdataseqno"): str(_DSN64)}
    ),
    "MP_FASTCLOSE": Case(
        MpFastclose(KEY_B), "1e0c 70 00" + _B, {_m("subtype"): "7", _m("recvkey"): str(int(_B, 16))}
    ),
    "MP_TCPRST": Case(
        MpTcprst(6, True),
        "1e04 81 06",
        {_m("subtype"): "8", _m("rst_reason"): "0x06", _m("flag_T.flag"): "1"},
    ),
}
