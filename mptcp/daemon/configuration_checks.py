"""Wording of configuration mistakes, and the checks that look at several keys at once.

A `Complaint` is the path of a key and one sentence: what is wrong; how to mend it.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from mptcp.daemon.toml_lines import Path
from mptcp.daemon.values import format_duration, show

if TYPE_CHECKING:
    from mptcp.daemon.configuration import Settings

_EXAMPLES: Final = {
    "name": 'name = "tun1"',
    "address": 'address = "10.9.1.2/24"',
    "port": "port = 5001",
    "to": 'to = "127.0.0.1:8080"',
    "listen": 'listen = "127.0.0.1:8080"',
    "interface": "an [[interface]] table with name and address",
}
_WANTED: Final = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "list_type": "a list in brackets",
}
_RANGE: Final = re.compile(r"(\w+) = (.+) is out of range: use (\d+) to (\d+)")


class Complaint(Exception):
    """One mistake: the path of its key and what to say of it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        key = ".".join(str(part) for part in path if isinstance(part, str))
        super().__init__(f"{key}: {text}" if key else text)


def complain_of(error: dict[str, Any], values: dict[str, Any], model: type[BaseModel]) -> Complaint:
    """The complaint for one of pydantic's errors about `values`."""
    path, value = _existing(error["loc"], values)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return Complaint(path, _unknown(str(path[-1]), _fields_at(model, path[:-1])))
    if kind == "missing":
        key = str(error["loc"][-1])
        example = _EXAMPLES.get(key, f"{key} = ...")
        text = f"is missing; add {example}" if path else f"none is there; add {example}"
        return Complaint((*path, key), text)
    if kind == "value_error":
        return Complaint(path, str(context["error"]))
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _range_at(model, error["loc"])
        limits = f"{low} to {high}" if high is not None else f"{low} or more"
        return Complaint(path, f"{value} is out of range; use {limits}")
    if kind == "literal_error":
        return Complaint(path, f"{show(value)} is unknown; use one of {context['expected']}")
    if kind in ("too_short", "too_long"):
        return Complaint(path, f"{show(value)} has the wrong length; write [lowest, highest]")
    if kind in ("model_type", "list_type") and len(path) == 1:
        brackets = f"[[{path[0]}]]" if kind == "list_type" else f"[{path[0]}]"
        return Complaint(path, f"is no table of this kind; write {brackets} on a line of its own")
    if kind in _WANTED:
        what = {str: "text", bool: "truth value", int: "number", float: "number"}
        given = f"the {what.get(type(value), 'value')} {show(value)}"
        return Complaint(path, f"{given} has the wrong type; it must be {_WANTED[kind]}")
    return Complaint(path, f"{error['msg']}; see docs/daemon.md for what it may be")


def _existing(loc: tuple[str | int, ...], values: Any) -> tuple[Path, Any]:
    """The part of pydantic's location that is in the file, and the value there.

    Union members and validators put names of their own into the location.
    """
    path: Path = ()
    for part in loc:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue
        path += (part,)
    return path, values


def _fields_at(model: type[BaseModel], path: Path) -> list[str]:
    for part in path:
        if isinstance(part, str):
            inner = model.model_fields[part].annotation
            inner = (typing.get_args(inner) or (inner,))[0]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return sorted(model.model_fields)


def _range_at(model: type[BaseModel], loc: Path) -> tuple[Any, Any]:
    """The bounds of the field at `loc`."""
    names = [part for part in loc if isinstance(part, str)]
    table = typing.get_args(model.model_fields[names[0]].annotation)
    inner = table[0] if table else model.model_fields[names[0]].annotation
    schema = inner.model_json_schema()["properties"][names[1]]  # type: ignore[union-attr]
    while "minimum" not in schema:
        schema = schema["anyOf"][0] if "anyOf" in schema else schema["items"]
    return schema["minimum"], schema.get("maximum")


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.removesuffix("_us"), known, 1, 0.6)
    mend = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
    return f"unknown key; {mend}"


def check_together(settings: Settings) -> None:
    """What only the whole file can show. Raises Complaint."""
    _check_stack(settings)
    _check_interfaces(settings)
    _check_rules(settings)


def _check_stack(settings: Settings) -> None:
    try:
        config = settings.stack_config()
    except ValueError as error:
        text = str(error)
        found = _RANGE.fullmatch(text)
        field = re.match(r"\w*", text)
        name = field[0] if field else ""
        if found is not None:
            name, value, low, high = found.groups()
            if name.endswith("_us"):
                value, low, high = (format_duration(int(item)) for item in (value, low, high))
            text = f"{value} is out of range; use {low} to {high}"
        else:
            text = text.removeprefix(f"{name} = ").replace(": ", "; ", 1)
        raise Complaint(("stack", name.removesuffix("_us")), text) from None
    for low, high in (("min_rto", "max_rto"), ("rejoin_delay", "rejoin_max_delay")):
        least, most = (getattr(config, f"{name}_us") for name in (low, high))
        if least > most:
            # Either may be the default: the complaint goes to one that stands in the file.
            key = low if getattr(settings.stack, low) is not None else high
            raise Complaint(
                ("stack", key),
                f"{low} {format_duration(least)} is longer than {high} {format_duration(most)}; "
                "choose the first no longer than the second",
            )


def _check_interfaces(settings: Settings) -> None:
    names: dict[str, int] = {}
    networks: list[tuple[Any, str, int, str]] = []
    for number, interface in enumerate(settings.interface):
        if interface.name in names:
            raise Complaint(
                ("interface", number, "name"),
                f'"{interface.name}" names two interfaces; give each its own',
            )
        names[interface.name] = number
        for position, text in enumerate(interface.address):
            path: Path = ("interface", number, "address", position)
            own = ipaddress.ip_interface(text)
            for other, other_text, other_number, other_name in networks:
                if other.ip == own.ip:
                    raise Complaint(
                        path, f'{text} is also the address of "{other_name}"; give each its own'
                    )
                # The kernel would route the answers of both by one of the two devices.
                if other_number != number and other.network.overlaps(own.network):
                    raise Complaint(
                        path,
                        f'{text} lies in the subnet of {other_text} on "{other_name}"; '
                        "give each interface a subnet of its own",
                    )
            networks.append((own, text, number, interface.name))
        _check_mtu(number, interface)
    if not settings.interface:
        raise Complaint(("interface",), f"none is there; add {_EXAMPLES['interface']}")


def _check_mtu(number: int, interface: Any) -> None:
    # RFC 8200 §5: every link that carries IPv6 has an MTU of 1280 or more.
    if interface.mtu < 1280 and any(":" in address for address in interface.address):
        raise Complaint(
            ("interface", number, "mtu"),
            f"{interface.mtu} is too small for IPv6; use 1280 or more",
        )


def _check_rules(settings: Settings) -> None:
    own = {
        str(ipaddress.ip_interface(address).ip)
        for interface in settings.interface
        for address in interface.address
    }
    taken: dict[int, list[str | None]] = {}
    for number, rule in enumerate(settings.listen):
        if rule.address is not None and rule.address not in own:
            raise Complaint(
                ("listen", number, "address"),
                f"{rule.address} is no address of an interface; use one of "
                f"{', '.join(sorted(own))}, or leave it out for all",
            )
        others = taken.setdefault(rule.port, [])
        if rule.address in others or (others and None in (rule.address, *others)):
            raise Complaint(
                ("listen", number, "port"),
                f"{rule.port} is taken by another [[listen]]; use another port or address",
            )
        others.append(rule.address)
    listens: set[tuple[str, int]] = set()
    for number, forward in enumerate(settings.forward):
        if forward.listen in listens:
            raise Complaint(
                ("forward", number, "listen"),
                f"{forward.listen} is taken by another [[forward]]; use another port",
            )
        listens.add(forward.listen)
        if forward.local_address is not None and forward.local_address not in own:
            raise Complaint(
                ("forward", number, "local_address"),
                f"{forward.local_address} is no address of an interface; use one of "
                f"{', '.join(sorted(own))}",
            )
