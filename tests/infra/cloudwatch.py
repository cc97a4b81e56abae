"""CloudWatch's filter patterns and queries, evaluated on log lines.

Only the parts of both languages that infra/aws uses: anything else raises ValueError.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

COMPARISON = re.compile(r'\(?\s*\$\.(\w+) = "([^"]*)"\s*\)?')
AGGREGATE = re.compile(r"(avg|max|sum|latest)\((\w+)\)(?: / (\d+))? as (\w+)")
AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "max": max,
    "sum": sum,
    "latest": lambda values: values[-1],
}
CONDITION = re.compile(r'(@?\w+) (=|>|in|like) ("[^"]*"|\[[^\]]*\]|/.*/|[\d.]+)')


def is_matched(pattern: str, line: str) -> bool:
    """Return True if a metric filter with the pattern counts the line."""
    inner = re.fullmatch(r"\{ (.*) \}", pattern)
    if inner is None:
        raise ValueError(f"{pattern}: no pattern for JSON")
    fields = _fields(line)
    return any(
        all(_is_equal(part, fields) for part in either.split(" && "))
        for either in inner[1].split(" || ")
    )


def _is_equal(comparison: str, fields: Mapping[str, Any]) -> bool:
    found = COMPARISON.fullmatch(comparison)
    if found is None:
        raise ValueError(f"{comparison}: not understood")
    # A star stands for any text, as in fnmatch, whose brackets no pattern has.
    return fnmatchcase(str(fields.get(found[1], "")), found[2])


def metrics_of(filters: Sequence[Mapping[str, Any]], line: str) -> dict[str, float]:
    """Return the metrics that the filters (as resources of a stack) make of the line."""
    found: dict[str, float] = {}
    for each in filters:
        properties = each["Properties"]
        (metric,) = properties["MetricTransformations"]
        if not is_matched(properties["FilterPattern"], line):
            continue
        value = metric["MetricValue"]
        if value.startswith("$."):
            value = _fields(line).get(value.removeprefix("$."))
        if value is not None:
            found[metric["MetricName"]] = float(value)
    return found


def ask(query: str, lines: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the rows that a query of Logs Insights finds in the lines of each stream."""
    rows = [
        {"@timestamp": number, "@logStream": stream, "@message": line, **_fields(line)}
        for stream, written in lines.items()
        for number, line in enumerate(written)
    ]
    for command in re.split(r"\s*\n?\| ", query):
        rows = _do(command.strip(), rows)
    return rows


def _fields(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    fields: dict[str, Any] = json.loads(line)
    return fields


def _do(command: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    verb, _, rest = command.partition(" ")
    match verb:
        case "fields":
            names = rest.split(", ")
            return [row | {name: row.get(name) for name in names} for row in rows]
        case "filter":
            return [row for row in rows if _holds(rest, row)]
        case "sort":
            name, direction = rest.split(" ")
            return sorted(rows, key=lambda row: row[name], reverse=direction == "desc")
        case "limit":
            return rows[: int(rest)]
        case "stats":
            return _stats(rest, rows)
    raise ValueError(f"{command}: not understood")


def _holds(expression: str, row: Mapping[str, Any]) -> bool:
    return any(
        all(_is_true(condition, row) for condition in either.split(" and "))
        for either in expression.split(" or ")
    )


def _is_true(condition: str, row: Mapping[str, Any]) -> bool:
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise ValueError(f"{condition}: not understood")
    value = row.get(found[1])
    if value is None:
        return False
    match found[2]:
        case "=":
            return bool(value == json.loads(found[3]))
        case ">":
            return bool(value > float(found[3]))
        case "in":
            return value in json.loads(found[3])
    return re.search(found[3].strip("/"), value) is not None


def _stats(text: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    aggregates, _, by = text.partition(" by ")
    wanted = [AGGREGATE.fullmatch(part) for part in aggregates.split(", ")]
    if not all(wanted):
        raise ValueError(f"{text}: not understood")
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return [
        {by: key}
        | {
            each[4]: AGGREGATES[each[1]]([row[each[2]] for row in group]) / float(each[3] or 1)
            for each in wanted
            if each
        }
        for key, group in groups.items()
    ]
