"""Report all that is wrong with a config at once.

Each mistake has its location, what was found, what was wanted, and the nearest right name. Values
that look like secrets are never shown.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from job.config.renamed import answer, called, meant, secret_key
from job.config.wording import Schema, is_section, options, required_keys, wanted
from job.printable import without_secrets

Path = tuple[str | int, ...]
MAX_SHOWN_CHARACTERS = 60  # of a wrong value
KEYS_HERE = "the keys here are"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong; the location of its key is `line 7` or `--set`."""

    path: Path
    message: str
    location: str = ""


def report(source: str, mistakes: Iterable[Mistake]) -> str:
    """Return a line for each key with a mistake, in the order of the file.

    Of several mistakes of one key, the first counts.
    """
    first: dict[Path, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.path, mistake)
    ordered = _without_repetition(sorted(first.values(), key=_order))
    widest_location = max(len(mistake.location) for mistake in ordered)
    widest_name = max(len(dotted(mistake.path)) for mistake in ordered)
    lines = []
    for mistake in ordered:
        location = f"{mistake.location:{widest_location}}  " if widest_location else ""
        name = f"{dotted(mistake.path):{widest_name}}"
        lines.append(f"  {location}{name}  {mistake.message}")

    count = f"{len(ordered)} mistake{'s' if len(ordered) > 1 else ''}"
    return "\n".join([f"{count} in {source}", "", *lines])


def secrets_in(value: Any, locations: Mapping[Path, str], path: Path = ()) -> Iterator[Mistake]:
    """Yield a mistake for each key named like a secret, and each value that looks like one."""
    if isinstance(value, dict):
        for key, item in value.items():
            here = (*path, key)
            instead = secret_key(key)
            if instead:
                yield Mistake(here, instead, location_of(here, locations))
            else:
                yield from secrets_in(item, locations, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secrets_in(item, locations, (*path, index))
    elif isinstance(value, str) and without_secrets(value) != value:
        message = (
            "looks like a secret, or a URL with a login or a signature; credentials come from the "
            "environment (HF_TOKEN, the AWS credential chain)"
        )
        yield Mistake(path, message, location_of(path, locations))


def invalid(
    error: ValidationError, value: Any, schema: Schema, elsewhere: Mapping[str, Sequence[str]]
) -> Iterator[Mistake]:
    """Yield the mistakes that pydantic found, one for each key, without their locations.

    `elsewhere` has the keys of the configs of other commands, as `paths_of` returns them.
    """
    found: dict[Path, Any] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_real_path(detail, value), detail)
    for path, detail in found.items():
        if any(other[: len(path)] == path and len(other) > len(path) for other in found):
            # A key may have several types. Another of them failed at a key inside, which is more
            # precise.
            continue
        if detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
            yield Mistake(path, _unknown(path, _value_at(path, value), schema, elsewhere))
        else:
            yield Mistake(path, _message(path, detail, schema))


def location_of(path: Path, locations: Mapping[Path, str]) -> str:
    """Return the location of a key, or of the nearest section around it if it is missing."""
    while path and path not in locations:
        path = path[:-1]
    return locations.get(path, "") if path else ""


def dotted(path: Path) -> str:
    """Return the path as `a.b.0`, which is the form of `--set`."""
    return without_secrets(".".join(str(part) for part in path)) or "config"


def shown(value: Any) -> str:
    """Return a wrong value for a message: short, and without a secret."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if without_secrets(text) != text:
        return "something like a secret"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value))}" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 1]}…"


def paths_of(schema: Schema) -> list[str]:
    """Return every key of a config as `key`, `section.key` or `section.section.key`."""
    return list(_paths(schema["properties"], schema))


def schema_at(path: Path, root: Schema) -> Schema:
    """Return the schema of the key at `path`, empty if there is no such key."""
    here = root
    for part in path:
        found: Schema = {}
        for option in options(here, root):
            if isinstance(part, int):
                inner = option.get("items")
            else:
                inner = option.get("properties", {}).get(part)
            found = found or inner or option.get("additionalProperties") or {}
        here = found
    return here


def _paths(properties: Schema, root: Schema, above: str = "") -> Iterator[str]:
    for name, item in properties.items():
        yield f"{above}{name}"
        for option in options(item, root):
            if "properties" in option:
                yield from _paths(option["properties"], root, f"{above}{name}.")


def _message(path: Path, detail: Any, schema: Schema) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    here = schema_at(path, schema)
    if kind == "missing":
        needed = required_keys(here, schema)
        section = f"a section with {', '.join(needed)}" if needed else wanted(here, schema)
        return f"is missing; wanted {section}"
    return f"got {shown(value)}; wanted {wanted(here, schema)}{_hint(path, value, here, schema)}"


def _hint(path: Path, value: Any, here: Schema, schema: Schema) -> str:
    """Return what to write in place of a wrong value, empty if that is not known."""
    texts = [each for each in options(here, schema) if each.get("type") == "string"]
    any_text_wanted = any("enum" not in each and "const" not in each for each in texts)
    in_lower_case = str(value).lower()
    needed = required_keys(here, schema)
    if value is None and is_section(here, schema):
        return "; remove it for the defaults"
    if value is True and is_section(here, schema) and not needed:
        return "; write {} for the defaults"
    if any_text_wanted and isinstance(value, int | float):
        return f'; write it in quotes: "{value}"'
    if meant(dotted(path), value):
        return f"; did you mean {meant(dotted(path), value)}?"
    if any(in_lower_case in each.get("enum", [each.get("const")]) for each in texts):
        return f"; did you mean {in_lower_case}?"
    if texts and isinstance(value, dict) and list(value.values()) == [None]:
        return f'; write a variable in quotes: "{{{next(iter(value))}}}"'
    if len(needed) == 1 and isinstance(value, str | list):
        return f"; did you mean {dotted((*path, *needed))}?"
    if isinstance(value, str) and any("items" in each for each in options(here, schema)):
        return f"; write it as a list: [{shown(value)}]"
    return ""


def _unknown(path: Path, value: Any, schema: Schema, elsewhere: Mapping[str, Sequence[str]]) -> str:
    key = str(path[-1])
    everywhere = paths_of(schema)
    known = answer(key, set(everywhere), value, str(path[0]))
    if known:
        return f"unknown key; {known}"
    names = _names(schema_at(path[:-1], schema), schema)
    if isinstance(value, str) and value in names:
        return f"unknown key; did you mean {value}: {key}?"
    same = [other for other in everywhere if other.rpartition(".")[2] == key]
    # The command that has this very key comes before those that have the name elsewhere.
    whole = dotted(path)
    ordered = sorted(elsewhere.items(), key=lambda item: whole not in item[1])
    for command, paths in ordered:
        there = [whole] if whole in paths else []
        there += [each for each in paths if each == key or each.endswith(f".{key}")]
        there += called(key, set(paths))
        if there and not same:
            # The line begins with the key, which need not be repeated.
            named = "is" if there[0] == whole else f"{there[0]} is"
            return f"{named} a key of `recap {command}` and not of this command; remove it"
    near = same or difflib.get_close_matches(key, names, n=1) or _near_elsewhere(key, everywhere)
    if near:
        right = [_with_value(other, value) for other in near]
        return f"unknown key; did you mean {' or '.join(right)}?"
    return f"unknown key; {KEYS_HERE} {', '.join(names)}"


def _with_value(path: str, value: Any) -> str:
    """Return `path: value` if the value is another library's, else the path alone."""
    instead = meant(path, value)
    return f"{path}: {instead}" if instead else path


def _without_repetition(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Return the mistakes. The keys of a section are listed for its first unknown key alone."""
    shown_at: dict[str, Mistake] = {}
    result = []
    for mistake in mistakes:
        before = shown_at.setdefault(mistake.message, mistake)
        if before is not mistake and KEYS_HERE in mistake.message:
            mistake = replace(mistake, message=f"unknown key; see {dotted(before.path)} above")
        result.append(mistake)
    return result


def _near_elsewhere(key: str, paths: Sequence[str]) -> list[str]:
    by_name = {path.rpartition(".")[2]: path for path in reversed(paths)}
    return [by_name[name] for name in difflib.get_close_matches(key, by_name, n=1, cutoff=0.8)]


def _names(section: Schema, root: Schema) -> list[str]:
    """Return the keys of a section."""
    for option in options(section, root):
        if "properties" in option:
            return list(option["properties"])
        if "propertyNames" in option:
            return list(option["propertyNames"].get("enum", ()))
    return []


def _value_at(path: Path, value: Any) -> Any:
    """Return the value at a path that is there."""
    for part in path:
        value = value[part]
    return value


def _real_path(detail: Any, value: Any) -> Path:
    """Return the path in the file: pydantic adds the names of types between the keys."""
    path: list[str | int] = []
    for part in detail["loc"]:
        is_key = isinstance(value, dict) and part in value
        is_index = isinstance(value, list) and isinstance(part, int)
        if is_key or is_index:
            value = value[part]
            path.append(part)
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path)


def _order(mistake: Mistake) -> tuple[int, int]:
    """Return the sort key: first by line, then those of `--set`, then those without a location."""
    number = re.fullmatch(r"line (\d+)", mistake.location)
    if number:
        return 0, int(number[1])
    return (1, 0) if mistake.location else (2, 0)
