"""Make the reference of every config key: JSON Schema for editors, Markdown for people.

`python -m job.config.reference > docs/configuration.md` writes the page.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from job.config.commands import CONFIGS, Command
from job.config.validate import schema_of
from job.config.wording import Schema, is_section, options, wanted

INTRODUCTION = """\
# Configuration

A run has one config, which is a YAML file. All of it is checked before anything is downloaded, and
all mistakes are reported at once, with their lines. A key that is not on this page is a mistake.
`recap schema train` prints a JSON Schema for your editor. `recap plan CONFIG` prints the config
with all defaults.

- **Source**: CONFIG is a path, `s3://…`, or `-` for standard input. Without it, `$RECAP_CONFIG` is
  used.
- **Overrides**: `--set training.epochs=2` sets a key. The value is YAML. `input.0` is the first
  item of a list. The option can be repeated.
- **Variables**: `{date}` in a value is replaced from `--var date=2026-01-31`, or else from
  `RECAP_VAR_DATE` in the environment. Any other `{name}` works the same way. A variable without a
  value is a mistake. `{{date}}` becomes `{date}`.
- **Dates**: `date` may be `yesterday`, `today`, or `monday`, which is the last one until today. It
  is counted from `RECAP_SCHEDULED_AT`, or else from now, in the time zone `RECAP_TIME_ZONE`, or
  else UTC. `{previous_date}` is the day before `date`, unless it has a value of its own.
- **Secrets** are never in a config. The token of the Hub is `HF_TOKEN`, and AWS credentials come
  from AWS's usual chain.
- **Off** is `null`. Anchors of YAML and repeated keys are mistakes.
- **Locations** are paths and `s3://bucket/key`. Some keys also accept `hf://…` or a Hub id. A
  prefix is written like a folder.

Ready-made configs: [`examples/`](../examples).
"""
ABOUT = {
    "train": "`recap train`: fine-tune, evaluate, and publish the adapter under `<output>/<run>/`",
    "summarize": "`recap summarize`: one summary or one reject for each record of the input",
    "evaluate": "`recap evaluate`: an adapter, or a file of summaries, against references and "
    "floors",
    "feedback": "`recap feedback`: agents' verdicts, joined with the summaries that they are about",
    "watch": "`recap watch`: the figures of nights, compared with those before",
}


def schema(command: Command) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config of `command`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema_of(command)}


def markdown() -> str:
    """Return the whole page: the keys of each command, then every section once."""
    parts = [INTRODUCTION]
    for command in CONFIGS:
        parts.append(f"## {ABOUT[command]}\n\n{_table(schema(command), schema(command), command)}")
    parts.append(
        "## Sections\n\nThe heading of a section names the commands that have it in this form.\n"
    )
    for path, commands in _sections():
        anchor = f'<a id="{_anchor(path, commands)}"></a>'
        title = f"### `{path}` of {', '.join(commands)}"
        parts.append(f"{anchor}\n\n{title}\n\n{_section(path, commands[0])}")
    return "\n".join(parts)


@cache
def _sections() -> list[tuple[str, list[Command]]]:
    """Return each section with the commands that have it in this form, ordered by path."""
    shapes: dict[tuple[str, str], list[Command]] = {}
    for command in CONFIGS:
        whole = schema(command)
        for path, item in _nested(whole, whole):
            shape = json.dumps([_body(item, whole), _defaults(item)], sort_keys=True)
            shapes.setdefault((path, shape), []).append(command)
    found = [(path, commands) for (path, _), commands in shapes.items()]
    return sorted(found, key=lambda section: section[0])


def _nested(body: Schema, whole: Schema, above: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield each section at any depth below `body` with its path, such as `data.csv`."""
    for key, item in body["properties"].items():
        if is_section(item, whole):
            yield f"{above}{key}", item
            yield from _nested(_body(item, whole), whole, f"{above}{key}.")


def _section(path: str, command: Command) -> str:
    whole = schema(command)
    item = dict(_nested(whole, whole))[path]
    body = _body(item, whole)
    optional = " Off (`null`) by default." if item.get("default", {}) is None else ""
    table = _table(body, whole, command, _defaults(item), f"{path}.")
    return f"{body['description']}{optional}\n\n{table}"


def _table(
    body: Schema,
    whole: Schema,
    command: Command,
    defaults: Schema | None = None,
    above: str = "",
) -> str:
    lines = ["| key | type | default | what |", "|---|---|---|---|"]
    for key, item in body["properties"].items():
        if is_section(item, whole):
            path = f"{above}{key}"
            link = f"[section](#{_anchor(path, _sharing(path, command))})"
            about = item.get("description") or _body(item, whole)["description"]
            lines.append(f"| `{key}` | {link} | {_default(key, item, body, {})} | {about} |")
        else:
            default = _default(key, item, body, defaults or {})
            lines.append(
                f"| `{key}` | {_cell(wanted(item, whole))} | {default} | "
                f"{_cell(item['description'])} |"
            )
    return "\n".join(lines) + "\n"


def _default(key: str, item: Schema, body: Schema, defaults: Schema) -> str:
    if key in body.get("required", ()):
        return "**required**"
    value = defaults.get(key, item.get("default", {}))
    if isinstance(value, dict):
        return "" if value or "$ref" in item else "`{}`"
    return f"`{_cell(json.dumps(value) if not isinstance(value, str) else value)}`"


def _defaults(item: Schema) -> Schema:
    """Return the defaults that a command gives to a whole section, before those of the keys."""
    return item.get("default") or {}


def _body(item: Schema, whole: Schema) -> Schema:
    return next(option for option in options(item, whole) if "properties" in option)


def _sharing(key: str, command: Command) -> list[Command]:
    return next(commands for name, commands in _sections() if name == key and command in commands)


def _anchor(key: str, commands: list[Command]) -> str:
    return "-".join([key, *commands])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
