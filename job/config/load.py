"""Load a config: text, overrides and variables become one checked config.

A wrong config is one error that lists every mistake, so that a person mends all of them at once.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, overload

import yaml

from job.config.commands import (
    CONFIGS,
    Command,
    Config,
    EvaluateConfig,
    FeedbackConfig,
    SummarizeConfig,
    TrainConfig,
)
from job.config.dates import with_date, with_previous_date
from job.config.document import ConfigText, Document, parse, parse_value
from job.config.gate_mistakes import KnownMetric, gate_mistakes
from job.config.method_mistakes import method_mistakes
from job.config.mistakes import Mistake, dotted, paths_of, report, secrets_in, shown
from job.config.renamed import called
from job.config.sections import to_plain
from job.config.serving_section import READING_KEYS, SERVING_KEYS, SERVING_KEYS_BY_SECTION
from job.config.validate import schema_of, validate
from job.config.variables import (
    begins_with_variable,
    escape_variables,
    has_variable,
    replace_variables,
)
from job.config.watch_config import WatchConfig
from job.errors import ConfigError

FROM_SET = "--set"  # the location of a mistake in an override
NO_VARIABLES: Mapping[str, str] = {}


@overload
def load_config(
    command: Literal["train"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> TrainConfig: ...
@overload
def load_config(
    command: Literal["summarize"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> SummarizeConfig: ...
@overload
def load_config(
    command: Literal["evaluate"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> EvaluateConfig: ...
@overload
def load_config(
    command: Literal["feedback"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> FeedbackConfig: ...
@overload
def load_config(
    command: Literal["watch"],
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> WatchConfig: ...
@overload
def load_config(
    command: Command | None,
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> Config: ...
def load_config(
    command: Command | None,
    source: ConfigText,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
    metrics: Sequence[KnownMetric] = (),
) -> Config:
    """Return the checked config; without a command, that of the command whose keys fit best.

    `overrides` are `path.to.key=value` with the value in YAML. `{name}` in a value is replaced from
    `variables`, else from RECAP_VAR_NAME in the environment; `{{name}}` becomes `{name}`. The
    variable `date` may be `yesterday` or `monday`, and `previous_date` is the day before it. The
    names of metrics are checked if all `metrics` there are come with the call.

    Raise ConfigError with all mistakes at once.
    """
    document = parse(source)
    for override in overrides:
        _apply_override(document, override)

    variables = with_date(variables, os.environ, datetime.now(UTC))
    variables = with_previous_date(variables, os.environ)
    value = replace_variables(document.value, (), document, variables)

    mistakes = [*document.mistakes, *secrets_in(value, document.locations)]
    wanted = command or _fitting_command(value)
    # The input of a night with a variable is another one each night, and some have no records.
    if wanted == "summarize" and has_variable(document.value.get("input")):
        _allow_empty_input(value)
    config, found = validate(
        wanted,
        value,
        document.locations,
        lambda config: _further_mistakes(config, metrics),
    )
    mistakes += found
    if mistakes or config is None:
        text = report(source.name, mistakes)
        fitting = _fitting_command(value)
        if command and _is_meant_for(fitting, command, value):
            others = f"its keys are those of `recap {fitting}`, and this is `recap {command}`"
            text = f"{source.name}: {others}\n\n{text}"
        raise ConfigError(text)
    return config


def _further_mistakes(config: Config, metrics: Sequence[KnownMetric]) -> Iterator[Mistake]:
    # A reward model has no gate, and a remedy for one would be another mistake.
    has_gate = not isinstance(config, TrainConfig) or config.writes_summaries
    if isinstance(config, TrainConfig | EvaluateConfig) and has_gate:
        for found in gate_mistakes(config, metrics):
            yield Mistake(found.path, found.message)
    if isinstance(config, TrainConfig):
        yield from method_mistakes(config)


def resolved_yaml(config: Config) -> str:
    """Return the config as YAML with every default, and without secrets.

    Loading it again gives the same config: keys that are not set are left out where they are taken
    from an adapter, as those of serving are, and of a training that starts from one.
    """
    plain = escape_variables(to_plain(config))
    if isinstance(config, TrainConfig) and config.training.start_from is not None:
        for name in ("lora", "prompt"):
            for key in plain[name].keys() - getattr(config, name).model_fields_set:
                del plain[name][key]
        if "cleaning" not in config.data.model_fields_set:
            del plain["data"]["cleaning"]
    if isinstance(config, SummarizeConfig | EvaluateConfig) and config.adapter is not None:
        for name in {*SERVING_KEYS, *READING_KEYS} - config.model_fields_set:
            del plain[name]
        for section, names in SERVING_KEYS_BY_SECTION.items():
            for name in set(names) - getattr(config, section).model_fields_set:
                del plain[section][name]
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)


def _apply_override(document: Document, override: str) -> None:
    """Put the value of one `--set` into the document, or add a mistake to the document."""
    name, equals, text = override.partition("=")
    path: list[str | int] = [*name.strip().split(".")]
    if not equals or not all(path):
        message = "wanted --set path.to.key=value"
        document.mistakes.append(Mistake((name,), message, FROM_SET))
        return

    try:
        found = _parse_override(text)
    except yaml.YAMLError:
        example = f"--set {dotted(tuple(path))}='\"…\"'"
        message = f"got {shown(text)}, which is no YAML value; put it in quotes: {example}"
        document.mistakes.append(Mistake(tuple(path), message, FROM_SET))
        return
    for mistake in found.mistakes:
        inside = (*path, *mistake.path)
        document.mistakes.append(Mistake(inside, mistake.message, FROM_SET))

    try:
        _put(document.value, path, found.value)
    except ValueError as error:
        document.mistakes.append(Mistake(tuple(path), str(error), FROM_SET))
        return

    # Sections that did not exist are located at this override, as is everything in its value.
    for depth in range(1, len(path)):
        document.locations.setdefault(tuple(path[:depth]), FROM_SET)
    document.locations[tuple(path)] = FROM_SET
    for inner in found.locations:
        document.locations[(*path, *inner)] = FROM_SET


def _parse_override(text: str) -> Document:
    # YAML reads `{day}/x` as a mapping, but nobody quotes both for the shell and for YAML.
    if begins_with_variable(text):
        return Document(text, {(): FROM_SET})
    return parse_value(text)


def _put(container: Any, path: list[str | int], value: Any) -> None:
    """Set `value` at `path`, and create the sections of the path that are missing.

    Replaces the indexes of lists in `path` by numbers. Raise ValueError if there can be no value.
    """
    for depth, part in enumerate(path):
        above = dotted(tuple(path[:depth]))
        if isinstance(container, list):
            if not str(part).isdecimal() or int(part) >= len(container):
                raise ValueError(
                    f"{above} is a list of {len(container)}: wanted an index below that"
                )
            part = int(part)
            path[depth] = part
        elif not isinstance(container, dict):
            raise ValueError(f"{above} is {shown(container)}, which has no keys")

        if depth == len(path) - 1:
            container[part] = value
        elif isinstance(container, dict) and container.get(part) is None:
            container[part] = {}
        container = container[part]


def _allow_empty_input(value: dict[str, Any]) -> None:
    """Set `limits.min_records` to 0, unless the config has the key."""
    limits = value.setdefault("limits", {})
    if isinstance(limits, dict):
        limits.setdefault("min_records", 0)


def _fitting_command(value: Mapping[str, Any]) -> Command:
    """Return the command whose keys fit a config best."""
    return min(CONFIGS, key=lambda name: _misfit(name, value))


def _is_meant_for(other: Command, command: Command, value: Mapping[str, Any]) -> bool:
    """Return whether a config has keys that only `other` has, and fits it far better."""
    fields = CONFIGS[other].model_fields.keys() - CONFIGS[command].model_fields.keys()
    has_one = not fields.isdisjoint(value)
    return has_one and _misfit(command, value) > 2 * _misfit(other, value)


def _misfit(command: Command, value: Mapping[str, Any]) -> int:
    """Return how many top-level keys are unknown to a config of `command`, or missing in it.

    A name that another library has for a key of `command` is not unknown.
    """
    fields = CONFIGS[command].model_fields
    unknown = value.keys() - fields
    if unknown:
        paths = set(paths_of(schema_of(command)))
        unknown = {name for name in unknown if not called(name, paths)}
    missing = [name for name, field in fields.items() if field.is_required() and name not in value]
    return len(unknown) + len(missing)
