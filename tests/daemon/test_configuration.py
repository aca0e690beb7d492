"""The configuration file: what it becomes, and every mistake as one line with its place."""

from __future__ import annotations

import dataclasses
import grp
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.config import Config
from mptcp.daemon.configuration import (
    MAX_FILE,
    ConfigurationError,
    DaemonTable,
    ForwardTable,
    InterfaceTable,
    ListenTable,
    load,
    parse,
)
from mptcp.daemon.toml_lines import LineIndex
from mptcp.daemon.toml_lines import Path as Key
from mptcp.daemon.values import Endpoint, format_duration, parse_duration

GOOD = """\
[[interface]]
name = "tun1"
address = "10.9.1.2/24"
"""
SECOND = '[[interface]]\nname = "tun2"\naddress = "10.9.2.2/24"\n'

# name: (text, line, parts of the message); the line is None where there is none to name.
MISTAKES: dict[str, tuple[str, int | None, tuple[str, ...]]] = {
    "nothing": ("", 1, ("interface", "add an [[interface]] table")),
    "no interfaces": ("interface = []", 1, ("interface", "add an [[interface]] table")),
    "syntax": (GOOD + "[stack\n", 4, ("TOML syntax", "quotes")),
    "text without quotes": (GOOD + "[stack]\nscheduler = minrtt\n", 5, ("TOML syntax",)),
    "end inside a text": (GOOD + 'routes = ["10.0.0.0/8"', 4, ("TOML syntax",)),
    "key twice": (GOOD + 'name = "x"\n', 4, ("TOML syntax", "overwrite")),
    "nested deeply": ("a = " + "[" * 5000, 1, ("TOML syntax", "nested too deeply")),
    "unknown table": ("[stak]\n" + GOOD, 1, ("stak: unknown key", 'did you mean "stack"?')),
    "unknown key": (GOOD + "mtuu = 1400\n", 4, ("interface.mtuu", 'did you mean "mtu"?')),
    "key like no other": (
        GOOD + "colour = 1\n",
        4,
        ("interface.colour", "known are address, backup, mtu"),
    ),
    "unknown stack key": (
        GOOD + '[stack]\n\n# a comment\nschedulr = "minrtt"\n',
        7,
        ("stack.schedulr", 'did you mean "scheduler"?'),
    ),
    "field name with its unit": (
        GOOD + "[stack]\nmin_rto_us = 5\n",
        5,
        ("stack.min_rto_us", 'did you mean "min_rto"?'),
    ),
    "first of two mistakes": (GOOD + "mtu = 1\noffload = 1\n", 4, ("interface.mtu",)),
    "text for number": (GOOD + 'mtu = "big"\n', 4, ("interface.mtu", '"big"', "a whole number")),
    "number for truth": (GOOD + "offload = 1\n", 4, ("interface.offload", "true or false")),
    "truth for number": (GOOD + "mtu = true\n", 4, ("interface.mtu", "true", "whole number")),
    "number for text": (GOOD.replace('"tun1"', "5"), 2, ("interface.name", "a text in quotes")),
    "table for list": ("[interface]\nname = 'a'\n", 1, ("write [[interface]]",)),
    "number for table": ("daemon = 3\n" + GOOD, 1, ("write [daemon]",)),
    "missing key": ('[[interface]]\nname = "tun1"\n', 1, ("interface.address: is missing",)),
    "missing in the second": (
        GOOD + '[[interface]]\nname = "tun2"\n',
        4,
        ("interface.address: is missing",),
    ),
    "mtu too small": (GOOD + "mtu = 10\n", 4, ("10 is out of range", "68 to 65535")),
    "mtu too small for IPv6": (
        GOOD.replace("10.9.1.2/24", "fd00::2/64") + "mtu = 1000\n",
        4,
        ("too small for IPv6", "1280"),
    ),
    "device name too long": (GOOD.replace("tun1", "abcdefghijklmnop"), 2, ("1 to 15 bytes",)),
    "address without prefix": (
        '[[interface]]\nname = "a"\naddress = "10.9.1.2"\n',
        3,
        ("interface.address", "prefix", "10.9.1.2/24"),
    ),
    "address of the network": (
        '[[interface]]\nname = "a"\naddress = "10.9.1.0/24"\n',
        3,
        ("no host address",),
    ),
    "loopback address": (
        GOOD.replace("10.9.1.2/24", "127.0.0.2/8"),
        3,
        ("interface.address: 127.0.0.2/8 is a loopback address",),
    ),
    "multicast address": (GOOD.replace("10.9.1.2", "224.0.0.2"), 3, ("a multicast address",)),
    "bad address in a list": (
        '[[interface]]\nname = "a"\naddress = [\n  "10.9.1.2/24",\n  "10.9.1/24",\n]\n',
        3,
        ("'10.9.1/24'",),
    ),
    "bad route": (GOOD + 'routes = ["10.0.0.300/8"]\n', 4, ("interface.routes", "no prefix")),
    "two of one name": (GOOD + SECOND.replace("tun2", "tun1"), 5, ("names two interfaces",)),
    "two of one address": (
        GOOD + SECOND.replace("10.9.2.2", "10.9.1.2"),
        6,
        ("interface.address", 'also the address of "tun1"'),
    ),
    "two in one subnet": (
        GOOD + SECOND.replace("10.9.2.2", "10.9.1.3"),
        6,
        ("lies in the subnet of 10.9.1.2/24",),
    ),
    "unknown scheduler": (
        GOOD + '[stack]\nscheduler = "minrt"\n',
        5,
        ('unknown scheduler "minrt"', 'did you mean "minrtt"?', "known are"),
    ),
    "unknown scheduler of a rule": (
        GOOD + '[[listen]]\nport = 80\nto = "127.0.0.1:80"\nscheduler = "eff"\n',
        7,
        ("listen.scheduler", 'unknown scheduler "eff"', 'did you mean "ecf"?'),
    ),
    "unknown controller": (
        GOOD + '[stack]\ncongestion_control = "zzz"\n',
        5,
        ("unknown congestion control", "use one of", "lia", "newreno"),
    ),
    "unknown path manager": (GOOD + '[stack]\npath_manager = "x"\n', 5, ("builtin", "fullmesh")),
    "unknown heuristic": (
        GOOD + '[stack]\nheuristics = "22=x"\n',
        5,
        ("stack.heuristics", "unknown heuristic 'x'", "at-once"),
    ),
    "wrong heuristic": (
        GOOD + '[stack]\nheuristics = "after-time:soon"\n',
        5,
        ("takes seconds from 0 to 86400",),
    ),
    "time without unit": (GOOD + '[stack]\nmin_rto = "200"\n', 5, ("stack.min_rto", '"200ms"')),
    "time too short": (
        GOOD + '[stack]\nmin_rto = "2us"\n',
        5,
        ("stack.min_rto: 2us is out of range; use 1ms to 1min",),
    ),
    "negative time": (GOOD + "[stack]\nrejoin_delay = -1\n", 5, ("negative",)),
    "times the wrong way round": (
        GOOD + '[stack]\nmin_rto = "20s"\nmax_rto = "5s"\n',
        5,
        ("stack.min_rto: min_rto 20s is longer than max_rto 5s; choose",),
    ),
    "time below another's default": (
        GOOD + '[stack]\nrejoin_max_delay = "400ms"\n',
        5,
        ("stack.rejoin_max_delay: rejoin_delay 500ms is longer than rejoin_max_delay 400ms",),
    ),
    "too many subflows": (GOOD + "[stack]\nmax_subflows = 65\n", 5, ("65", "use 1 to 64")),
    "negative limit": (GOOD + "[stack]\nmax_time_wait = -1\n", 5, ("use 0 or more",)),
    "ports the wrong way round": (
        GOOD + "[stack]\nephemeral_ports = [5, 1]\n",
        5,
        ("stack.ephemeral_ports", "1..65535"),
    ),
    "one port": (GOOD + "[stack]\nephemeral_ports = [5]\n", 5, ("[lowest, highest]",)),
    "listen without to": (GOOD + "[[listen]]\nport = 80\n", 4, ("listen.to: is missing",)),
    "port out of range": (
        GOOD + '[[listen]]\nport = 80000\nto = "a:1"\n',
        5,
        ("80000", "1 to 65535"),
    ),
    "endpoint without port": (
        GOOD + '[[listen]]\nport = 80\nto = "localhost"\n',
        6,
        ("listen.to", "lacks host or port"),
    ),
    "endpoint with bad port": (
        GOOD + '[[forward]]\nlisten = "127.0.0.1:0"\nto = "10.9.2.2:80"\n',
        5,
        ("forward.listen", "use 1 to 65535"),
    ),
    "IPv6 without brackets": (
        GOOD + '[[forward]]\nlisten = "::1:80"\nto = "10.9.2.2:80"\n',
        5,
        ("brackets",),
    ),
    "listen on a foreign address": (
        GOOD + '[[listen]]\nport = 80\naddress = "10.9.7.7"\nto = "127.0.0.1:80"\n',
        6,
        ("listen.address", "no address of an interface", "10.9.1.2"),
    ),
    "two listen on one port": (
        GOOD + '[[listen]]\nport = 80\nto = "127.0.0.1:80"\n' * 2,
        8,
        ("listen.port", "taken by another"),
    ),
    "two forwards on one port": (
        GOOD + '[[forward]]\nlisten = "127.0.0.1:80"\nto = "10.9.2.2:80"\n' * 2,
        8,
        ("forward.listen", "taken by another"),
    ),
    "forward from a foreign address": (
        GOOD + '[[forward]]\nlisten="127.0.0.1:80"\nto="10.9.2.2:80"\nlocal_address="1.2.3.4"\n',
        7,
        ("forward.local_address", "no address of an interface"),
    ),
    "log level": (GOOD + '[daemon]\nlog_level = "loud"\n', 5, ("daemon.log_level", "'warning'")),
    "decimal mode": (GOOD + "[daemon]\nmode = 660\n", 5, ("daemon.mode", '"0660"')),
    "unknown group": (GOOD + '[daemon]\ngroup = "no-such"\n', 5, ("daemon.group", "no-such")),
    "number for group": (GOOD + "[daemon]\ngroup = 0\n", 5, ("daemon.group", "no group name")),
    "relative socket": (GOOD + '[daemon]\nsocket = "x"\n', 5, ("daemon.socket", "absolute path")),
    "long socket": (GOOD + f'[daemon]\nsocket = "/{"x" * 108}"\n', 5, ("at most 107 bytes",)),
    "pcap nowhere": (GOOD + '[daemon]\npcap = "/nowhere/x.pcap"\n', 5, ("daemon.pcap", "/nowhere")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_and_what(name: str) -> None:
    text, line, parts = MISTAKES[name]
    with pytest.raises(ConfigurationError) as caught:
        parse(text.encode(), "my.toml")
    message = str(caught.value)
    assert message.startswith(f"my.toml:{line}: ")
    assert "\n" not in message
    assert ";" in message  # what is wrong; how to mend it
    for part in parts:
        assert part in message


def test_not_utf8_names_the_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^f:4: .*UTF-8"):
        parse(GOOD.encode() + b"[daemon]#\xff\n", "f")


def test_a_missing_or_huge_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigurationError, match="longer than 256 KiB"):
        load(huge)


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    settings = parse(
        f"""
[daemon]
socket = "{tmp_path}/control"
mode = "0600"
group = "{group}"
log_level = "debug"
pcap = "{tmp_path}/all.pcap"
max_clients = 7

[stack]
scheduler = "minrtt"
congestion_control = "newreno"
path_manager = "fullmesh"
min_rto = "300ms"
delayed_ack = 20_000
time_wait = "1.5s"
orphan_timeout = "2min"
receive_buffer = 1048576
ephemeral_ports = [40000, 50000]
checksum = true

[[interface]]
name = "tun1"
address = ["10.9.1.2/24", "fd00:9:1::2/64"]
mtu = 1400
offload = false
routes = ["10.0.0.0/8", "::/0"]

[[listen]]
port = 80
address = "fd00:9:1::2"
to = "[::1]:8080"

[[forward]]
listen = "127.0.0.1:3128"
to = "proxy.example:3128"
local_address = "10.9.1.2"
name = "proxy"
""".encode(),
        "f",
    )
    assert settings.daemon.model_dump() == {
        "socket": f"{tmp_path}/control",
        "mode": 0o600,
        "group": os.getgid(),
        "log_level": "debug",
        "pcap": f"{tmp_path}/all.pcap",
        "max_clients": 7,
    }
    assert settings.stack_config() == Config(
        scheduler="minrtt",
        congestion_control="newreno",
        path_manager="fullmesh",
        min_rto_us=300_000,
        delayed_ack_us=20_000,
        time_wait_us=1_500_000,
        orphan_timeout_us=120_000_000,
        receive_buffer=1 << 20,
        ephemeral_ports=(40000, 50000),
        checksum=True,
    )
    (interface,) = settings.interface
    assert interface.model_dump() == {
        "name": "tun1",
        "address": ["10.9.1.2/24", "fd00:9:1::2/64"],
        "mtu": 1400,
        "offload": False,
        "routes": ["10.0.0.0/8", "::/0"],
        "backup": False,
    }
    (listen,), (forward,) = settings.listen, settings.forward
    assert (listen.to, listen.title) == (Endpoint("::1", 8080), "listen fd00:9:1::2 port 80")
    assert (forward.to, forward.title) == (Endpoint("proxy.example", 3128), "proxy")
    assert str(listen.to) == "[::1]:8080"


def test_defaults_are_those_of_config() -> None:
    settings = parse(GOOD.encode(), "f")
    assert settings.stack_config() == Config()
    assert settings.daemon.mode == 0o660
    assert settings.interface[0].mtu == 1500


@pytest.mark.parametrize("file", sorted(Path("examples").glob("*.toml")), ids=lambda f: f.name)
def test_the_examples_are_right(file: Path) -> None:
    assert load(file).interface


def test_the_reference_knows_every_key_and_its_default() -> None:
    text = Path("docs/daemon.md").read_text()
    rows = {
        match[1]: match[2]
        for match in re.finditer(r"^\| `(\w+)` \| `(.+?)` \|", text.split("### `[stack]`")[1], re.M)
    }
    assert set(rows) == {field.name.removesuffix("_us") for field in dataclasses.fields(Config)}
    settings = parse(
        (GOOD + "[stack]\n" + "\n".join(f"{k} = {rows[k]}" for k in rows)).encode(), "f"
    )
    assert settings.stack_config() == Config()
    for table in (DaemonTable, InterfaceTable, ListenTable, ForwardTable):
        for key in table.model_fields:
            assert f"`{key}`" in text


def test_there_are_examples() -> None:
    assert {"client.toml", "server.toml"} <= {path.name for path in Path("examples").iterdir()}


@given(st.integers(0, 10**12))
def test_times_read_back_what_was_written(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds)) == microseconds


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("40us", 40), ("1.5 s", 1_500_000), ("2min", 120_000_000), ("0ms", 0), (7, 7)],
)
def test_times(text: str | int, microseconds: int) -> None:
    assert parse_duration(text) == microseconds


@pytest.mark.parametrize("text", ["", "5", "ms", "-1ms", "1h", "1e3s", "1.s", None, True, 1.5])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_duration(text)


def test_lines_of_nested_and_continued_keys() -> None:
    index = LineIndex(
        'a.b = 1\nc = [\n  1,\n  2, # [x]\n]\ntext = """\n[t]\nk = 1\n"""\n'
        "[t]\nk = {x = 1}\n[[l]]\nk = 1\n[[l]]\n[l.sub]\nz = 1\n"
    )
    lines: dict[Key, int] = {
        ("a", "b"): 1,
        ("c", 1): 2,
        ("text",): 6,
        ("t",): 10,
        ("t", "k", "x"): 11,
        ("l", 0, "k"): 13,
        ("l", 1): 14,
        ("l", 1, "sub", "z"): 16,
        ("t", "unknown"): 10,
        ("nowhere",): 1,
    }
    assert {path: index.find(path) for path in lines} == lines


def complaint(content: bytes) -> str:
    """What is wrong with a configuration, "" if nothing."""
    try:
        parse(content, "f")
    except ConfigurationError as error:
        return str(error)
    return ""


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_one_line(content: bytes) -> None:
    assert "\n" not in complaint(content)


@given(
    st.sampled_from(
        ["mtu", "name", "offload", "routes", "stack", "daemon", "listen.to", "stack.min_rto"]
    ),
    st.sampled_from(["1", "-1", '"x"', "true", "[]", "{}", "1.5", "2020-01-01", "[[1]]", "nan"]),
)
def test_any_value_anywhere_is_settings_or_one_line(key: str, value: str) -> None:
    text = f"{key} = {value}\n{GOOD}" if "." in key else f"{GOOD}{key} = {value}\n"
    assert "\n" not in complaint(text.encode())


def test_an_octal_number_is_a_mode() -> None:
    settings = parse(f"{GOOD}[daemon]\nmode = 0o640\n".encode(), "a.toml")
    assert settings.daemon.mode == 0o640
