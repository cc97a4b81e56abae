"""Parse the text of a config into plain values, with the line of each.

Two things that YAML allows are mistakes here: a repeated key, whose first value would be lost
silently, and anchors, by which a small file can grow without end.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from job.config.mistakes import Mistake, Path
from job.errors import ConfigError

# What the parser says of keys in different columns, and of tabs before them.
INDENTATION = re.compile(
    r"mapping values are not allowed|expected <block end>|found character .\\t. that cannot start"
)
MAX_DEPTH = 100
TOO_DEEP = "nested far deeper than any config is; check the brackets"
KEPT_AS_TEXT = "tag:yaml.org,2002:timestamp"  # 2026-01-31 is the name of a day, not an object


@dataclass(frozen=True)
class ConfigText:
    """The text of a config, and the name of its source for error messages."""

    name: str
    text: str


@dataclass(frozen=True)
class Document:
    """Plain values, the location of each (`line 7`), and what is wrong with the text itself."""

    value: Any
    locations: dict[Path, str]
    mistakes: list[Mistake] = field(default_factory=list)


def parse(source: ConfigText) -> Document:
    """Parse the text as a YAML mapping.

    Raise ConfigError, with line and column, if it is not YAML or not a mapping.
    """
    name = source.name
    try:
        document = parse_value(source.text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}{_position(error)}: broken YAML: {_problem(error)}") from None

    if document.value is None:
        raise ConfigError(f"{name}: is empty; wanted keys with values, such as `run: my-run`")
    if not isinstance(document.value, dict):
        kind = "a list" if isinstance(document.value, list) else "a single value"
        raise ConfigError(f"{name}: got {kind}; wanted keys with values, such as `run: my-run`")
    return document


def as_yaml(value: Mapping[str, str]) -> str:
    """Return the mapping as YAML on one line, quoted where it must be: `{a: up, 'b: c': down}`."""
    text = yaml.safe_dump(
        dict(value), default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    )
    return text.rstrip("\n")


def parse_value(text: str) -> Document:
    """Parse any YAML value. Raise yaml.YAMLError if it is not one."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            remedy = f"'*{event.anchor}' stands for a value elsewhere; write the value out"
            raise yaml.MarkedYAMLError(problem=remedy, problem_mark=mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=mark)
    loader = yaml.SafeLoader(text)
    document = Document(None, {})
    node = loader.get_single_node()
    value = None if node is None else _value(node, (), loader, document)
    return Document(value, document.locations, document.mistakes)


def _value(node: yaml.Node, path: Path, loader: yaml.SafeLoader, document: Document) -> Any:
    document.locations.setdefault(path, _line(node))
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(item, (*path, index), loader, document) for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, loader, document)
    if node.tag == KEPT_AS_TEXT:
        return node.value
    try:
        return loader.construct_object(node, deep=True)
    # The constructors of tags raise any of these for a value that does not fit the tag.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        remedy = (
            f"this is no {node.tag.removeprefix('tag:yaml.org,2002:')}; take the tag away, "
            "or quote the value"
        )
        raise yaml.MarkedYAMLError(problem=remedy, problem_mark=node.start_mark) from None


def _mapping(
    node: yaml.MappingNode, path: Path, loader: yaml.SafeLoader, document: Document
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, item in node.value:
        # A key is used as it is written: `no` and `1` are names, not a boolean and a number.
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
        location = _line(key)
        if name == "?":
            document.mistakes.append(
                Mistake((*path, name), "a key must be a single name", location)
            )
        elif name in mapping:
            first = document.locations[*path, name]
            document.mistakes.append(
                Mistake((*path, name), f"is set twice, first on {first}; keep one", location)
            )
        else:
            document.locations[*path, name] = location
            mapping[name] = _value(item, (*path, name), loader, document)
    return mapping


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f" line {mark.line + 1} column {mark.column + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    """Return the parser's message without its snippet of the file, which may have a secret."""
    parts = [
        getattr(error, "context", None),
        getattr(error, "problem", None) or getattr(error, "reason", None),
    ]
    problem = ", ".join(part for part in parts if part) or str(error) or "not readable"
    if INDENTATION.search(problem):
        problem += "; keys of one section begin in the same column, after spaces and no tabs"
    return problem
