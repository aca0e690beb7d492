"""The configuration file of mptcpd: what it may hold, and one clear line for what is wrong.

`load()` gives a `Settings` that is legal as a whole, or raises `ConfigurationError` naming file,
line and key. pydantic checks shapes and types; what concerns several keys at once is checked here.
The keys of `[stack]` are the fields of `mptcp.Config`; a field `name_us` is the key `name`, whose
value is a time ("200ms").
"""

from __future__ import annotations

import dataclasses
import difflib
import grp
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

# The stack's module registers the built-in policies that [stack] may name.
import mptcp.stack
from mptcp.config import DEFAULT_HEURISTICS, Config
from mptcp.daemon import toml_lines
from mptcp.daemon.configuration_checks import Complaint, check_together, complain_of
from mptcp.daemon.values import (
    Endpoint,
    parse_address,
    parse_duration,
    parse_endpoint,
    parse_mode,
    parse_route,
    show,
)
from mptcp.heuristics import check_heuristics
from mptcp.path_manager.base import path_managers
from mptcp.policies import Policies, load_entry_points
from mptcp.registry import Registry
from mptcp.reorder import reorder_queues
from mptcp.retransmission import policies
from mptcp.scheduler import schedulers
from mptcp.tcp.congestion import controllers
from mptcp.tun.device import MAX_MTU, MIN_MTU, DeviceError, check_name
from mptcp.tun.interface import check_stack_address, kernel_side_address

MAX_FILE: Final = 256 << 10
"""Longest configuration file, bytes."""

_REGISTRIES: Final[dict[str, Registry[Any]]] = {
    "scheduler": schedulers,
    "congestion_control": controllers,
    "retransmission": policies,
    "path_manager": path_managers,
    "reorder": reorder_queues,
}
assert mptcp.stack.BUILT_IN_POLICIES


class ConfigurationError(ValueError):
    """A configuration that cannot be used; str() is the one line for the user."""

    def __init__(self, file: str, line: int | None, text: str) -> None:
        super().__init__(f"{file}:{line}: {text}" if line else f"{file}: {text}")
        self.line = line


def _device_name(name: str) -> str:
    try:
        check_name(name)
    except DeviceError as error:
        raise ValueError(str(error).replace(": use", "; use", 1)) from None
    if "%" in name:
        raise ValueError(f'"{name}" holds a "%"; spell the whole name, e.g. "tun1"')
    return name


def _interface_address(text: str) -> str:
    try:
        check_stack_address(text)
        kernel_side_address(text)
    except ValueError as error:
        raise ValueError(f'{error}; write e.g. "10.9.1.2/24"') from None
    return text


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _group_id(name: Any) -> int:
    if not isinstance(name, str):
        raise ValueError(f'{show(name)} is no group name; write e.g. "mptcp"')
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f'there is no group "{name}"; create it or leave the key out') from None


def _pcap_file(name: str) -> str:
    folder = Path(name).expanduser().parent
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} does not exist; create it or name another")
    return str(Path(name).expanduser())


def _socket_file(name: str) -> str:
    # sun_path of a Unix socket address has 108 bytes, its terminator included (unix(7)).
    if not name.startswith("/") or len(name.encode()) > 107 or "\0" in name:
        raise ValueError(f'"{name}" cannot be a socket; use an absolute path of at most 107 bytes')
    return name


def _plain_text(text: str) -> str:
    if not re.fullmatch(r"[\w .:/-]{1,64}", text):
        raise ValueError("is no name; use 1 to 64 letters, digits, spaces or .:/-_")
    return text


def _some_address(addresses: list[str]) -> list[str]:
    if not addresses:
        raise ValueError('an interface needs an address; write e.g. "10.9.1.2/24"')
    return addresses


Port = Annotated[int, Field(ge=1, le=65535)]
Connections = Annotated[int, Field(ge=1, le=65536)]
Host = Annotated[Endpoint, BeforeValidator(parse_endpoint)]
Address = Annotated[str, BeforeValidator(parse_address)]
RuleName = Annotated[str, AfterValidator(_plain_text)]


class Table(BaseModel):
    """Base of the tables: unknown keys and near-miss types are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DaemonTable(Table):
    """`[daemon]`: the program itself."""

    socket: Annotated[str, AfterValidator(_socket_file)] | None = None
    mode: Annotated[int, BeforeValidator(parse_mode)] = 0o660
    group: Annotated[int, BeforeValidator(_group_id)] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    pcap: Annotated[str, AfterValidator(_pcap_file)] | None = None
    max_clients: Connections = 1024


class InterfaceTable(Table):
    """`[[interface]]`: a TUN device and the stack's addresses on it."""

    name: Annotated[str, AfterValidator(_device_name)]
    address: Annotated[
        list[Annotated[str, AfterValidator(_interface_address)]],
        BeforeValidator(_one_or_many),
        AfterValidator(_some_address),
    ]
    mtu: Annotated[int, Field(ge=MIN_MTU, le=MAX_MTU)] = 1500
    offload: bool = True
    routes: list[Annotated[str, BeforeValidator(parse_route)]] | None = None
    backup: bool = False


class PolicyTable(Table):
    """What `[[listen]]` and `[[forward]]` may have instead of `[stack]`'s."""

    scheduler: str | None = None
    congestion_control: str | None = None
    path_manager: str | None = None
    heuristics: str | None = None

    @property
    def policies(self) -> Policies:
        """Of the rule's connections."""
        return Policies(
            scheduler=self.scheduler,
            congestion_control=self.congestion_control,
            path_manager=self.path_manager,
            heuristics=self.heuristics,
        )


class ListenTable(PolicyTable):
    """`[[listen]]`: accept MPTCP connections and hand each to a local TCP service."""

    port: Port
    address: Address | None = None
    to: Host
    name: RuleName | None = None
    max_connections: Connections = 4096

    @property
    def title(self) -> str:
        """What logs and counters call the rule."""
        return self.name or f"listen {self.address or '*'} port {self.port}"


class ForwardTable(PolicyTable):
    """`[[forward]]`: accept TCP connections here and open an MPTCP connection for each."""

    listen: Host
    to: Host
    local_address: Address | None = None
    name: RuleName | None = None
    max_connections: Connections = 4096

    @property
    def title(self) -> str:
        """What logs and counters call the rule."""
        return self.name or f"forward {self.listen}"


def _stack_table() -> type[Table]:
    """The model of `[stack]`, made from the fields of Config so that the two cannot differ."""
    kinds: dict[str, Any] = {
        "bool": bool,
        "int": Annotated[int, Field(ge=0)],
        "str": str,
        "tuple[int, int]": Annotated[list[Port], Field(min_length=2, max_length=2)],
        "tuple[int, ...]": Annotated[list[int], Field(max_length=64)],
    }
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        kind = kinds[str(field.type)]
        if field.name.endswith("_us"):
            kind = Annotated[int, BeforeValidator(parse_duration)]
        fields[field.name.removesuffix("_us")] = (kind | None, None)
    return create_model("StackTable", __base__=Table, __doc__="`[stack]`.", **fields)


StackTable: Final = _stack_table()


class Settings(Table):
    """A whole configuration file."""

    daemon: DaemonTable = DaemonTable()
    stack: StackTable = StackTable()  # type: ignore[valid-type]
    interface: list[InterfaceTable]
    listen: list[ListenTable] = []
    forward: list[ForwardTable] = []

    def stack_config(self) -> Config:
        """The `Config` of the stack. Raises ValueError naming a field out of range."""
        given = self.stack.model_dump(exclude_none=True)  # type: ignore[attr-defined]
        names = {field.name.removesuffix("_us"): field.name for field in dataclasses.fields(Config)}
        values = {names[key]: value for key, value in given.items()}
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(value)
        return Config(**values)


def load(file: str | Path) -> Settings:
    """Read and check the configuration in `file`. Raises ConfigurationError."""
    name = str(file)
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_FILE + 1)
    except OSError as error:
        mend = "give the path of a configuration file (examples/ has some)"
        raise ConfigurationError(name, None, f"cannot be read: {error.strerror}; {mend}") from None
    if len(content) > MAX_FILE:
        raise ConfigurationError(name, None, f"is longer than {MAX_FILE >> 10} KiB; shorten it")
    return parse(content, name)


def parse(content: bytes, file: str) -> Settings:
    """Check the bytes of a configuration; `file` is for the messages. Raises ConfigurationError."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        complaint = "TOML syntax: the file is not UTF-8; save it as UTF-8"
        raise ConfigurationError(file, line, complaint) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(file, text, str(error)) from None
    except RecursionError:
        complaint = "TOML syntax: nested too deeply; no key needs more than a list"
        raise ConfigurationError(file, 1, complaint) from None
    try:
        settings = Settings.model_validate(values)
        _check_policies(settings)
        check_together(settings)
    except ValidationError as error:
        complaints = [complain_of(dict(item), values, Settings) for item in error.errors()]
    except Complaint as complaint:
        complaints = [complaint]
    else:
        return settings
    # One line: the first in the file, which is where the reader would look first.
    index = toml_lines.LineIndex(text)
    first = min(complaints, key=lambda complaint: index.find(complaint.path))
    raise ConfigurationError(file, index.find(first.path), str(first))


def _syntax_error(file: str, text: str, message: str) -> ConfigurationError:
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    what = message[: found.start()] if found else message
    if found and found[1]:
        line = int(found[1])
        what += f" at column {found[2]}"
    else:
        line = len(text.rstrip("\n").split("\n"))
    mend = "texts need quotes, tables are [name] or [[name]], see toml.io"
    return ConfigurationError(file, line, f"TOML syntax: {what}; {mend}")


def _check_policies(settings: Settings) -> None:
    load_entry_points()
    _check_names(("stack",), settings.stack)
    for number, listen in enumerate(settings.listen):
        _check_names(("listen", number), listen)
    for number, forward in enumerate(settings.forward):
        _check_names(("forward", number), forward)


def _check_names(path: tuple[str | int, ...], table: Table) -> None:
    text: str | None = getattr(table, key := "heuristics")
    if text is not None:
        try:
            check_heuristics(text)
        except ValueError as error:
            mend = f'rules look like "{DEFAULT_HEURISTICS}", or by port "80=never; *=at-once"'
            raise Complaint((*path, key), f"{error}; {mend}") from None
    for key, registry in _REGISTRIES.items():
        # A rule has fewer of them than [stack].
        name = getattr(table, key) if key in type(table).model_fields else None
        if name is None or name in registry.names():
            continue
        known = registry.names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f'did you mean "{near[0]}"? known are' if near else "use one of"
        raise Complaint(
            (*path, key), f'unknown {registry.kind} "{name}"; {hint} {", ".join(known)}'
        )
