"""Variables in the values of a config: `{name}` is replaced, `{{name}}` is the text itself."""

import os
import re
from collections.abc import Mapping
from typing import Any

from job.config.document import Document
from job.config.mistakes import Mistake, Path, location_of

NAME = r"\{([A-Za-z_][A-Za-z0-9_]*)\}"
VARIABLE = re.compile(rf"\{{{NAME}\}}|{NAME}")  # group 1 of an escaped one, group 2 of a variable


def replace_variables(
    value: Any,
    path: Path,
    document: Document,
    variables: Mapping[str, str],
) -> Any:
    """Return the value with its variables replaced, in lists and mappings too.

    Values are those of `variables`, else of RECAP_VAR_NAME in the environment. Adds a mistake to
    the document for each text with a variable that has no value.
    """
    if isinstance(value, dict):
        filled = {}
        for key, item in value.items():
            filled[key] = replace_variables(item, (*path, key), document, variables)
        return filled
    if isinstance(value, list):
        return [
            replace_variables(item, (*path, index), document, variables)
            for index, item in enumerate(value)
        ]
    if isinstance(value, str):
        return _replace_in_text(value, path, document, variables)
    return value


def has_variable(uris: Any) -> bool:
    """Return True if a URI, or one of a list, has a variable."""
    listed = uris if isinstance(uris, list) else [uris]
    return any(isinstance(uri, str) and _names_in(uri) for uri in listed)


def begins_with_variable(text: str) -> bool:
    """Return True if the text begins with a variable."""
    return re.match(NAME, text) is not None


def escape_variables(value: Any) -> Any:
    """Return the value with each `{name}` doubled, so that `replace_variables` gives it back."""
    if isinstance(value, dict):
        return {key: escape_variables(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape_variables(item) for item in value]
    return re.sub(NAME, r"{{\1}}", value) if isinstance(value, str) else value


def _replace_in_text(
    text: str,
    path: Path,
    document: Document,
    variables: Mapping[str, str],
) -> str:
    values = {name: _value_of(name, variables) for name in _names_in(text)}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        message = "; ".join(_no_value(name) for name in missing)
        location = location_of(path, document.locations)
        document.mistakes.append(Mistake(path, message, location))

    def replacement(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return f"{{{escaped}}}"
        return values[name] or match[0]

    return VARIABLE.sub(replacement, text)


def _names_in(text: str) -> list[str]:
    """Return the names of the variables in a text, without escaped ones."""
    return [match[2] for match in VARIABLE.finditer(text) if match[2]]


def _value_of(name: str, variables: Mapping[str, str]) -> str | None:
    # A scheduler passes an empty value for a variable that it does not know.
    return variables.get(name) or os.environ.get(_environment_name(name)) or None


def _no_value(name: str) -> str:
    example = "2026-01-31" if name == "date" else "value"
    return (
        f"{{{name}}} has no value; give --var {name}={example}, or set {_environment_name(name)} "
        f"in the environment (for the text itself write {{{{{name}}}}})"
    )


def _environment_name(name: str) -> str:
    return f"RECAP_VAR_{name.upper()}"
