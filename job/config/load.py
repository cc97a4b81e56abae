"""Load a config: text, overrides and variables become one checked config.

A wrong config is one error that lists every mistake, so that a person mends all of them at once.
"""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, overload

import yaml
from pydantic import ValidationError

from job.config.commands import CONFIGS, Command, EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.dates import with_date, with_previous_date
from job.config.document import ConfigText, Document, parse, parse_value
from job.config.mistakes import Mistake, Path, dotted, invalid, place_of, report, secrets_in, shown
from job.config.sections import to_plain
from job.errors import ConfigError

Config = TrainConfig | SummarizeConfig | EvaluateConfig
NAME = r"\{([A-Za-z_][A-Za-z0-9_]*)\}"
VARIABLE = re.compile(rf"\{{{NAME}\}}|{NAME}")
NO_VARIABLES: Mapping[str, str] = {}


@overload
def load_config(
    command: Literal["train"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> TrainConfig: ...
@overload
def load_config(
    command: Literal["summarize"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> SummarizeConfig: ...
@overload
def load_config(
    command: Literal["evaluate"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> EvaluateConfig: ...
@overload
def load_config(
    command: Command | None,
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> Config: ...
def load_config(
    command: Command | None,
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> Config:
    """Return the checked config; without a command, that of the command whose keys fit best.

    `overrides` are `path.to.key=value` with the value in YAML. `{name}` in a value is replaced from
    `variables`, else from RECAP_VAR_NAME in the environment; `{{name}}` becomes `{name}`. The
    variable `date` may be `yesterday`, and `previous_date` is the day before it.

    Raise ConfigError with all mistakes at once.
    """
    document = parse(source)
    for override in overrides:
        _override(document, override)
    variables = with_previous_date(with_date(variables, os.environ, datetime.now(UTC)), os.environ)
    value = _substituted(document.value, (), document, variables)
    if _holds_variable(document.value.get("input")):
        _allow_empty_nights(value)
    mistakes = [*document.mistakes, *secrets_in(value, document.places)]
    fitting = min(CONFIGS, key=lambda name: _misfit(name, value))
    model = CONFIGS[command or fitting]
    try:
        config = model.model_validate(value)
    except ValidationError as error:
        mistakes += invalid(error, value, model.model_json_schema(), document.places)
        config = None
    if mistakes or config is None:
        text = report(source.name, mistakes)
        if command and _misfit(command, value) and not _misfit(fitting, value):
            others = f"its keys are those of `recap {fitting}`, and this is `recap {command}`"
            text = f"{source.name}: {others}\n\n{text}"
        raise ConfigError(text)
    return config


def resolved_yaml(config: Config) -> str:
    """The config with every default written out; loading it again gives the same config. It holds no secret."""
    return yaml.safe_dump(
        _escaped(to_plain(config)), sort_keys=False, allow_unicode=True, width=120
    )


def _override(document: Document, override: str) -> None:
    """Put the value of one `--set` into the document, or note what is wrong with it."""
    name, equals, text = override.partition("=")
    path: list[str | int] = [*name.strip().split(".")]
    if not equals or not all(path):
        document.mistakes.append(Mistake((name,), "wanted --set path.to.key=value", "--set"))
        return
    try:
        # `--set output={day}/x` is a variable, not a mapping: nobody quotes for the shell and for YAML.
        found = Document(text, {(): "--set"}) if re.match(NAME, text) else parse_value(text)
    except yaml.YAMLError:
        message = f"got {shown(text)}, which is no YAML value; put it in quotes: --set {dotted(tuple(path))}='\"…\"'"
        document.mistakes.append(Mistake(tuple(path), message, "--set"))
        return
    document.mistakes.extend(Mistake((*path, *m.path), m.message, "--set") for m in found.mistakes)
    refusal = _put(document.value, path, found.value)
    if refusal:
        document.mistakes.append(Mistake(tuple(path), refusal, "--set"))
        return
    for depth in range(1, len(path)):
        document.places.setdefault(
            tuple(path[:depth]), "--set"
        )  # sections that were made on the way
    document.places.update({(*path, *inner): "--set" for inner in ((), *found.places)})


def _put(container: Any, path: list[str | int], value: Any) -> str | None:
    """Set `value` at `path`, making sections on the way and turning indexes of lists into numbers; or say why not."""
    for depth in range(len(path)):
        part = path[depth]
        is_last = depth == len(path) - 1
        if isinstance(container, list):
            if not str(part).isdecimal() or int(part) >= len(container):
                return f"{dotted(tuple(path[:depth]))} is a list of {len(container)}: wanted an index below that"
            path[depth] = part = int(part)
        elif not isinstance(container, dict):
            return f"{dotted(tuple(path[:depth]))} is {shown(container)}, which has no keys"
        if is_last:
            container[part] = value
        elif isinstance(container, dict) and container.get(part) is None:
            container[part] = {}
        container = container[part]
    return None


def _substituted(value: Any, path: Path, document: Document, variables: Mapping[str, str]) -> Any:
    """The value with its variables replaced; those without a value are noted as mistakes."""
    if isinstance(value, dict):
        return {
            key: _substituted(item, (*path, key), document, variables)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _substituted(item, (*path, index), document, variables)
            for index, item in enumerate(value)
        ]
    return _filled(value, path, document, variables) if isinstance(value, str) else value


def _filled(text: str, path: Path, document: Document, variables: Mapping[str, str]) -> str:
    def value_of(name: str) -> str | None:
        # An empty value is none: it is what a scheduler passes for a variable that it does not know.
        return variables.get(name) or os.environ.get(_environment_name(name)) or None

    missing = {
        match[2]: None
        for match in VARIABLE.finditer(text)
        if match[2] and value_of(match[2]) is None
    }
    if missing:
        message = "; ".join(map(_no_value, missing))
        document.mistakes.append(Mistake(path, message, place_of(path, document.places)))
    return VARIABLE.sub(
        lambda match: (value_of(match[2]) or match[0]) if match[2] else f"{{{match[1]}}}", text
    )


def _holds_variable(uris: Any) -> bool:
    """Return True if a URI, or one of a list, holds a variable: each night it is another place."""
    listed = uris if isinstance(uris, list) else [uris]
    return any(isinstance(uri, str) and any(m[2] for m in VARIABLE.finditer(uri)) for uri in listed)


def _allow_empty_nights(value: dict[str, Any]) -> None:
    """Set `limits.min_records` to 0 where the config does not name it."""
    limits = value.setdefault("limits", {})
    if isinstance(limits, dict):
        limits.setdefault("min_records", 0)


def _no_value(name: str) -> str:
    example = "2026-01-31" if name == "date" else "value"
    return (
        f"{{{name}}} has no value; give --var {name}={example}, or set {_environment_name(name)} in the environment "
        f"(for the text itself write {{{{{name}}}}})"
    )


def _environment_name(name: str) -> str:
    return f"RECAP_VAR_{name.upper()}"


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(NAME, r"{{\1}}", value) if isinstance(value, str) else value


def _misfit(command: Command, value: Mapping[str, Any]) -> int:
    """How many top-level keys a config of `command` does not know, or lacks."""
    fields = CONFIGS[command].model_fields
    return len(value.keys() - fields) + sum(
        field.is_required() and name not in value for name, field in fields.items()
    )
