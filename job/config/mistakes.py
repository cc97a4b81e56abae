"""All that is wrong with a config, in one report.

Values and a pydantic validation in → a list of Mistake → text that says for each where it stands, what was found, what
was wanted, and the nearest right name. Values that look like secrets are never shown. Knows nothing of files.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from job.config.renamed import answer, secret_key
from job.config.wording import Schema, is_section, options, wanted
from job.printable import without_secrets

Path = tuple[str | int, ...]
LONGEST_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: the path of its key, what to say of it, and where it stands (`line 7`, `--set`)."""

    path: Path
    message: str
    place: str = ""


def report(source: str, mistakes: Iterable[Mistake]) -> str:
    """The text for a person: a line for each mistaken key, in the order of the file; a key's first mistake is told."""
    first: dict[Path, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.path, mistake)
    ordered = sorted(first.values(), key=_order)
    places = max(len(mistake.place) for mistake in ordered)
    names = max(len(dotted(mistake.path)) for mistake in ordered)
    lines = [f"  {m.place:{places}}  {dotted(m.path):{names}}  {m.message}" for m in ordered]
    if not places:
        lines = [f"  {line.lstrip()}" for line in lines]
    count = f"{len(ordered)} mistake{'s' if len(ordered) > 1 else ''}"
    return "\n".join([f"{count} in {source}", "", *lines])


def secrets_in(value: Any, places: Mapping[Path, str], path: Path = ()) -> Iterator[Mistake]:
    """Every key that is named like a secret, and every value that looks like one."""
    if isinstance(value, dict):
        for key, item in value.items():
            here = (*path, key)
            instead = secret_key(key)
            if instead:
                yield Mistake(here, instead, place_of(here, places))
            else:
                yield from secrets_in(item, places, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secrets_in(item, places, (*path, index))
    elif isinstance(value, str) and without_secrets(value) != value:
        message = (
            "looks like a secret, or a URL with a login or a signature; credentials come from the "
            "environment (HF_TOKEN, the AWS credential chain)"
        )
        yield Mistake(path, message, place_of(path, places))


def invalid(
    error: ValidationError, value: Any, schema: Schema, places: Mapping[Path, str]
) -> Iterator[Mistake]:
    """What pydantic found, in words; the alternatives of a key that takes several types are one mistake."""
    found: dict[Path, Any] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_real_path(detail, value), detail)
    for path, detail in found.items():
        if any(other[: len(path)] == path and len(other) > len(path) for other in found):
            continue  # another alternative of the same key failed deeper inside, which says more
        yield Mistake(path, _message(path, detail, schema), place_of(path, places))


def place_of(path: Path, places: Mapping[Path, str]) -> str:
    """Where the key stands; where its nearest section stands, if it is missing."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, "") if path else ""


def dotted(path: Path) -> str:
    """`a.b.0`, as `--set` takes it."""
    return without_secrets(".".join(str(part) for part in path)) or "config"


def shown(value: Any) -> str:
    """A wrong value for a message: short, and no secret."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if without_secrets(text) != text:
        return "something like a secret"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value))}" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def paths_of(schema: Schema) -> list[str]:
    """Return every key of a config as `key`, `section.key` or `section.section.key`."""
    return list(_paths(schema["properties"], schema))


def _paths(properties: Schema, root: Schema, above: str = "") -> Iterator[str]:
    for name, item in properties.items():
        yield f"{above}{name}"
        for option in options(item, root):
            if "properties" in option:
                yield from _paths(option["properties"], root, f"{above}{name}.")


def _message(path: Path, detail: Any, schema: Schema) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
        return _unknown(path, schema)
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    here = _schema_at(path, schema)
    if kind == "missing":
        return f"is missing; wanted {wanted(here, schema)}"
    hint = ""
    text_wanted = any(option.get("type") == "string" for option in options(here, schema))
    if value is None and is_section(here, schema):
        hint = "; remove it for the defaults"
    elif text_wanted and isinstance(value, int | float) and "enum" not in here:
        hint = f'; write it in quotes: "{value}"'
    elif text_wanted and isinstance(value, dict) and list(value.values()) == [None]:
        hint = f'; write a variable in quotes: "{{{next(iter(value))}}}"'
    return f"got {shown(value)}; wanted {wanted(here, schema)}{hint}"


def _unknown(path: Path, schema: Schema) -> str:
    key = str(path[-1])
    everywhere = paths_of(schema)
    known = answer(key, set(everywhere))
    if known:
        return f"unknown key; {known}"
    names = _names(_schema_at(path[:-1], schema), schema)
    elsewhere = [other for other in everywhere if other.rpartition(".")[2] == key]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(key, names, n=1) or _near_elsewhere(key, everywhere)
    return (
        f"unknown key; did you mean {near[0]}?"
        if near
        else f"unknown key; the keys here are {', '.join(names)}"
    )


def _near_elsewhere(key: str, paths: Sequence[str]) -> list[str]:
    by_name = {path.rpartition(".")[2]: path for path in reversed(paths)}
    return [by_name[name] for name in difflib.get_close_matches(key, by_name, n=1, cutoff=0.8)]


def _names(section: Schema, root: Schema) -> list[str]:
    """The keys that a section takes."""
    for option in options(section, root):
        if "properties" in option:
            return list(option["properties"])
        if "propertyNames" in option:
            return list(option["propertyNames"].get("enum", ()))
    return []


def _schema_at(path: Path, root: Schema) -> Schema:
    here = root
    for part in path:
        found: Schema = {}
        for option in options(here, root):
            items = (
                option.get("items")
                if isinstance(part, int)
                else option.get("properties", {}).get(part)
            )
            found = found or items or (option.get("additionalProperties") or {})
        here = found
    return here


def _real_path(detail: Any, value: Any) -> Path:
    """The path in the file: pydantic puts the names of alternatives between the keys."""
    path: list[str | int] = []
    for part in detail["loc"]:
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int)
        ):
            value = value[part]
            path.append(part)
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else tuple(path)


def _order(mistake: Mistake) -> tuple[int, int]:
    """By line, then what `--set` brought, then what stands nowhere."""
    number = re.fullmatch(r"line (\d+)", mistake.place)
    return (0, int(number[1])) if number else (1 if mistake.place else 2, 0)
