"""Validate a config until all of its mistakes are known.

pydantic checks keys against each other only where each of them is right by itself. So what is wrong
is left out, and the rest is validated again: one report has the mistakes of both kinds.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from pydantic import ValidationError

from job.config.commands import CONFIGS, Command, Config
from job.config.mistakes import Mistake, Path, dotted, invalid, location_of, paths_of, schema_at
from job.config.wording import Schema, options

MAX_ROUNDS = 8  # of checks that hide each other; each round finds at least one mistake
ANY_TEXT = "any"  # for a text that is missing, or wrong


def validate(
    command: Command,
    value: Mapping[str, Any],
    locations: Mapping[Path, str],
    further: Callable[[Config], Iterable[Mistake]],
) -> tuple[Config | None, list[Mistake]]:
    """Return the config, None if there is a mistake, and all mistakes.

    `further` checks a config of which each key is right by itself. A check of several keys is left
    out if one of those that it names is wrong already.
    """
    mistakes: list[Mistake] = []
    rest = deepcopy(dict(value))
    for _ in range(MAX_ROUNDS):
        try:
            config = CONFIGS[command].model_validate(rest)
        except ValidationError as error:
            schema = schema_of(command)
            every = invalid(error, rest, schema, keys_elsewhere(command))
            found = [each for each in every if _is_new(each, mistakes)]
            mistakes += found
            if not found or () in [each.path for each in found]:
                break  # a check of the whole config cannot be left out
            for each in found:
                _leave_out(each.path, rest, schema)
            continue
        mistakes += [each for each in further(config) if _is_new(each, mistakes)]
        if not mistakes:
            return config, []
        break
    return None, [
        Mistake(each.path, each.message, location_of(each.path, locations))
        for each in mistakes
        if not _has_another_name(each, mistakes)
    ]


@cache
def schema_of(command: Command) -> Schema:
    """Return the JSON Schema of a command's config."""
    return CONFIGS[command].model_json_schema()


def keys_elsewhere(command: Command) -> dict[str, list[str]]:
    """Return the keys of the configs of all other commands."""
    return {other: paths_of(schema_of(other)) for other in CONFIGS if other != command}


def _is_new(mistake: Mistake, known: Iterable[Mistake]) -> bool:
    """Return True unless the mistake is known, or names a key that is wrong already."""
    for other in known:
        if other.path == mistake.path:
            return False
        name = next(part for part in reversed(other.path) if isinstance(part, str))
        if re.search(rf"\b{re.escape(name)}\b", mistake.message):
            return False
    return True


def _has_another_name(missing: Mistake, mistakes: Iterable[Mistake]) -> bool:
    """Return True if a key is missing only because it is there under another library's name."""
    if not missing.message.startswith("is missing"):
        return False
    called = re.compile(rf"it is called {re.escape(dotted(missing.path))}[. ]")
    return any(called.search(each.message) for each in mistakes)


def _leave_out(path: Path, value: Any, schema: Schema) -> None:
    """Delete a key, or the list around it; set it to what is right for one that is required."""
    names: list[str] = []
    for part in path:
        if isinstance(part, int):
            break  # without one of its items, a list may be wrong in another way
        names.append(part)
    *above, name = names
    for part in above:
        value = value[part]
    value.pop(name, None)
    section = schema_at(tuple(above), schema)
    is_required = any(name in option.get("required", ()) for option in options(section, schema))
    if is_required:
        value[name] = _anything(schema_at(tuple(names), schema), schema)


def _anything(wanted: Schema, schema: Schema) -> Any:
    """Return a value that a required key may have: a text, or a section of what is required."""
    for option in options(wanted, schema):
        if "properties" in option:
            required = option.get("required", ())
            return {name: _anything(option["properties"][name], schema) for name in required}
    return ANY_TEXT
