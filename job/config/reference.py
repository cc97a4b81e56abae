"""The reference of every config key, from the sections themselves: JSON Schema for editors, Markdown for people.

Nothing in, text out; `python -m job.config.reference > docs/configuration.md` writes the page. Knows nothing of files.
"""

import json
from collections.abc import Iterator
from typing import Any

from job.config.commands import CONFIGS, Command
from job.config.wording import Schema, is_section, options, wanted

INTRODUCTION = """\
# Configuration

One YAML file is one run. It is checked whole before anything is downloaded, and every mistake is reported at once, with
its line. Keys that are not listed here are mistakes. Print a schema for your editor with `recap schema train`, and the
file with all defaults filled in with `recap plan CONFIG`.

- **Where it is**: a path, `s3://…`, or `-` for standard input; without an argument, `$RECAP_CONFIG`.
- **Overrides**: `--set training.epochs=2` (the value is YAML; `input.0` is the first of a list), as often as needed.
- **Variables**: `{date}`, or any other `{name}`, in a value is replaced from `--var date=2026-01-31`, or else from
  `RECAP_VAR_DATE` in the environment. One without a value is a mistake. `{{date}}` stays as `{date}`.
  `date` may be `yesterday`: of `RECAP_SCHEDULED_AT`, else of now; in `RECAP_TIME_ZONE`, else UTC.
  `{previous_date}` is the day before `date`, unless it is given too.
- **Secrets** are never in a config: the Hub's token is `HF_TOKEN`, and AWS credentials come from the usual chain.
- **Off** is `null`. YAML's anchors and repeated keys are not allowed.
- **Places** are paths, `s3://bucket/key`, and where it says so `hf://…` or a Hub id. A prefix is written like a folder.

Ready-made configs: [`examples/`](../examples).
"""
ABOUT = {
    "train": "`recap train`: fine-tune, evaluate, and publish the adapter under `<output>/<run>/`",
    "summarize": "`recap summarize`: one summary or one reject for each record of the input",
    "evaluate": "`recap evaluate`: an adapter, or a file of summaries, against references and floors",
}


def schema(command: Command) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the config of `command`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | CONFIGS[
        command
    ].model_json_schema()


def markdown() -> str:
    """The whole page: the keys of each command, then every section once."""
    parts = [INTRODUCTION]
    for command in CONFIGS:
        parts.append(f"## {ABOUT[command]}\n\n{_table(schema(command), schema(command), command)}")
    parts.append("## Sections\n\nA section that differs between commands says whose it is.\n")
    parts += [
        f'<a id="{_anchor(key, commands)}"></a>\n\n### {_title(key, commands)}\n\n{_section(key, commands[0])}'
        for key, commands in _sections()
    ]
    return "\n".join(parts)


def _sections() -> list[tuple[str, list[Command]]]:
    """Each section with the commands that have it in this shape, in the order of the commands' keys."""
    shapes: dict[tuple[str, str], list[Command]] = {}
    for command in CONFIGS:
        whole = schema(command)
        for path, item in _nested(whole, whole):
            shape = json.dumps([_body(item, whole), _defaults(item)], sort_keys=True)
            shapes.setdefault((path, shape), []).append(command)
    return sorted(
        ((path, commands) for (path, _), commands in shapes.items()), key=lambda pair: pair[0]
    )


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
                f"| `{key}` | {_cell(wanted(item, whole))} | {default} | {_cell(item['description'])} |"
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
    """The defaults that a command gives to a section as a whole: they go before the keys' own."""
    return item.get("default") or {}


def _body(item: Schema, whole: Schema) -> Schema:
    return next(option for option in options(item, whole) if "properties" in option)


def _sharing(key: str, command: Command) -> list[Command]:
    return next(commands for name, commands in _sections() if name == key and command in commands)


def _title(key: str, commands: list[Command]) -> str:
    return f"`{key}` of {', '.join(commands)}"


def _anchor(key: str, commands: list[Command]) -> str:
    return "-".join([key, *commands])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
