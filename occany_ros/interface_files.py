# SPDX-License-Identifier: Apache-2.0
"""Writes from the tables of topics, services and parameters: page, schema, security policy.

    dev/run exec python -m occany_ros.interface_files

Files of the checkout: tables in docs/ros_interface.md, config/parameters.schema.json and
config/occany.policy.xml. A test holds them to what is written here. Without ROS.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from occany_ros import interface
from occany_ros.declaration import Declaration, Value
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations
from occany_ros.interface import Service, Topic

ROOT = Path(__file__).resolve().parents[1]
PAGE, SCHEMA = Path("docs/ros_interface.md"), Path("config/parameters.schema.json")
POLICY = Path("config/occany.policy.xml")
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array"}


# --- tables of the page -------------------------------------------------------------------------


def _shown(value: Value) -> str:
    if isinstance(value, tuple):
        return f"`[{', '.join(str(item) for item in value)}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def _limits(one: Declaration) -> str:
    if one.least is None and one.most is None:
        return ""
    if one.most is None:
        return f"; at least {one.least:g}"
    return f"; {one.least:g} to {one.most:g}"


def parameter_table(declarations: Iterable[Declaration]) -> str:
    """Return a table in Markdown."""
    rows = ["| Parameter | Default | Live | Meaning |", "|---|---|---|---|"]
    for one in declarations:
        choices = f" ({', '.join(choice or 'empty' for choice in one.choices)})"
        meaning = one.description + (choices if one.choices else _limits(one))
        live = "yes" if one.is_live else ""
        rows.append(f"| `{one.name}` | {_shown(one.default)} | {live} | {meaning} |")
    return "\n".join(rows)


def _short(name: str) -> str:
    return name.replace("/msg/", "/").replace("/srv/", "/")


def topic_table(topics: Iterable[Topic]) -> str:
    """Return a table in Markdown."""
    rows = ["| Topic | Type | QoS, depth | |", "|---|---|---|---|"]
    rows += [f"| `{t.name}` | `{_short(t.type)}` | {t.qos} | {t.note} |" for t in topics]
    return "\n".join(rows)


def service_table(services: Iterable[Service]) -> str:
    """Return a table in Markdown."""
    rows = ["| Service | Type | |", "|---|---|---|"]
    rows += [f"| `{one.name}` | `{_short(one.type)}` | {one.note} |" for one in services]
    return "\n".join(rows)


def page(text: str) -> str:
    """Return the page with its tables as they should be."""
    tables = {
        "Subscriptions": topic_table(interface.SUBSCRIPTIONS),
        "Publications": topic_table(interface.PUBLICATIONS),
        "Services": service_table(interface.SERVICES),
        "Parameters": parameter_table((*NODE_DECLARATIONS, *core_declarations())),
        "Camera parameters": parameter_table(camera_declarations("NAME")),
    }
    for name, table in tables.items():
        before, rest = text.split(begin := f"<!-- {name}: begin -->\n", 1)
        _, after = rest.split(end := f"<!-- {name}: end -->", 1)
        text = f"{before}{begin}{table}\n{end}{after}"
    return text


# --- schema of parameters -----------------------------------------------------------------------


def _property(one: Declaration) -> dict:
    default = list(one.default) if isinstance(one.default, tuple) else one.default
    found = {"type": JSON_TYPES[type(one.default)], "default": default}
    live = "live" if one.is_live else "while unconfigured"
    found["description"] = f"{one.description}; changes: {live}"
    if one.choices:
        found["enum"] = list(one.choices)
    if one.least is not None:
        found["minimum"] = one.least
    if one.most is not None:
        found["maximum"] = one.most
    return found


def _pattern(declarations: Iterable[Declaration]) -> dict:
    """Describe parameters under their dotted names and, for YAML, as nested groups."""
    tree: dict = {"type": "object", "properties": {}, "additionalProperties": False}
    for one in declarations:
        *groups, leaf = one.name.split(".")
        branch = tree
        for group in groups:
            empty = {"type": "object", "properties": {}, "additionalProperties": False}
            branch = branch["properties"].setdefault(group, empty)
        branch["properties"][leaf] = _property(one)
        tree["properties"][one.name] = _property(one)
    return tree


def schema() -> str:
    """Return the JSON schema of a parameter file, dotted names or nested groups."""
    tree = _pattern((*NODE_DECLARATIONS, *core_declarations()))
    cameras = _pattern(
        Declaration(
            name=one.name.removeprefix("camera.NAME."), default=one.default,
            description=one.description, choices=one.choices, is_live=one.is_live,
        )
        for one in camera_declarations("NAME")
    )  # fmt: skip
    tree["properties"]["camera"] = {"type": "object", "additionalProperties": cameras}
    tree["properties"]["use_sim_time"] = {"type": "boolean", "default": False}
    tree["patternProperties"] = {
        rf"^camera\.[A-Za-z_]\w*\.{name}$": shape for name, shape in cameras["properties"].items()
    }
    tree["patternProperties"][r"^qos_overrides(\.|$)"] = {}
    node = {"type": "object", "properties": {"ros__parameters": tree}}
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameter files of the node occany",
        "type": "object",
        "additionalProperties": node,
    }
    return json.dumps(content, indent=1) + "\n"


# --- security policy ----------------------------------------------------------------------------


def _allow(profile: ElementTree.Element, kind: str, verb: str, names: Iterable[str]) -> None:
    group = ElementTree.SubElement(profile, f"{kind}s", {verb: "ALLOW"})
    for name in sorted({name.replace("NAME", "*") for name in names}):
        ElementTree.SubElement(group, kind).text = name


def policy() -> str:
    """Return the SROS2 policy: what the node needs and nothing else."""
    root = ElementTree.Element("policy", version="0.2.0")
    enclave = ElementTree.SubElement(
        ElementTree.SubElement(root, "enclaves"), "enclave", path="/occany"
    )
    profiles = ElementTree.SubElement(enclave, "profiles")
    profile = ElementTree.SubElement(profiles, "profile", ns="/", node="occany")
    published = [topic.name for topic in interface.PUBLICATIONS]
    published += [*interface.OF_EVERY_NODE, *interface.OF_LIFECYCLE_NODES]
    subscribed = [topic.name for topic in interface.SUBSCRIPTIONS]
    subscribed += [*interface.INPUTS_OF_PRESETS, "/parameter_events"]
    services = [service.name for service in interface.SERVICES]
    services += [*interface.SERVICES_OF_EVERY_NODE, *interface.SERVICES_OF_LIFECYCLE_NODES]
    _allow(profile, "topic", "publish", published)
    _allow(profile, "topic", "subscribe", subscribed)
    _allow(profile, "service", "reply", services)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def contents(root: Path = ROOT) -> dict[Path, str]:
    """Return what should stand in each file, by path relative to the checkout."""
    return {PAGE: page((root / PAGE).read_text()), SCHEMA: schema(), POLICY: policy()}


def main() -> int:
    """Write the files that differ."""
    if not (ROOT / PAGE).exists():
        sys.stderr.write(f"{ROOT / PAGE} is not there; run this in a checkout of the sources\n")
        return 1
    for path, text in contents().items():
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text:
            (ROOT / path).write_text(text)
            sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
