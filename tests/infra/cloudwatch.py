"""CloudWatch's filter patterns and queries, evaluated on log lines, and its alarms, on metrics.

Only the parts of both languages that infra/aws uses: anything else raises ValueError.
"""

import ast
import json
import operator
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


Point = tuple[float, float]  # its minute and its value
Series = list[float | None]  # a value for each period, None where there is none
STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "SampleCount": len,
}
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
}
ARITHMETIC: Mapping[type, Callable[[float, float], float]] = {
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
}


def is_in_alarm(
    alarm: Mapping[str, Any], told: Mapping[tuple[str, str], Sequence[Point]], minute: float
) -> bool:
    """Return True if an alarm whose missing data do not breach is in the state ALARM.

    `told` has the points of each metric, by its namespace and name.
    """
    properties = alarm["Properties"]
    if properties["TreatMissingData"] != "notBreaching":
        raise ValueError("not understood")
    metrics = properties.get("Metrics") or [{"MetricStat": _only_metric(properties)}]
    statistics = [each["MetricStat"] for each in metrics if "MetricStat" in each]
    (period,) = {float(each["Period"]) / 60 for each in statistics}
    newest, count = int(minute // period), int(properties["EvaluationPeriods"])
    periods = range(newest - count + 1, newest + 1)
    found = {
        each.get("Id", "metric"): _series(each["MetricStat"], told, periods)
        for each in metrics
        if "MetricStat" in each
    }
    (expression,) = [each["Expression"] for each in metrics if "Expression" in each] or ["metric"]
    values = calculate(expression, found, [60 * period * number for number in periods])
    breaches = OPERATORS[properties["ComparisonOperator"]]
    threshold = float(properties["Threshold"])
    breaching = [value for value in values if value is not None and breaches(value, threshold)]
    return len(breaching) >= int(properties.get("DatapointsToAlarm", count))


def _only_metric(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Metric": properties,
        "Stat": properties["Statistic"],
        "Period": properties["Period"],
    }


def _series(
    statistic: Mapping[str, Any],
    told: Mapping[tuple[str, str], Sequence[Point]],
    periods: Sequence[int],
) -> Series:
    metric, minutes = statistic["Metric"], float(statistic["Period"]) / 60
    points = told.get((metric["Namespace"], metric["MetricName"]), [])
    series: Series = []
    for period in periods:
        values = [value for minute, value in points if minute // minutes == period]
        series.append(STATISTICS[statistic["Stat"]](values) if values else None)
    return series


def calculate(expression: str, series: Mapping[str, Series], times: Sequence[float]) -> Series:
    """Return the values of an expression of metric math at these times."""
    return _value(ast.parse(expression, mode="eval").body, series, times)


def _value(node: ast.expr, series: Mapping[str, Series], times: Sequence[float]) -> Series:
    match node:
        case ast.Name(id=name):
            return series[name]
        case ast.Constant(value=int(number)):
            return [number] * len(times)
        case ast.BinOp(left=left, op=operation, right=right):
            pass
        case ast.Compare(left=left, ops=[operation], comparators=[right]):
            pass
        case ast.Call(func=ast.Name(id="FILL"), args=[of, ast.Name(id="REPEAT")]):
            return _repeated(_value(of, series, times))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _called(name, [_value(each, series, times) for each in arguments], times)
        case _:
            raise ValueError(f"{ast.unparse(node)}: not understood")
    pairs = zip(_value(left, series, times), _value(right, series, times), strict=True)
    calculation = ARITHMETIC[type(operation)]
    return [
        None
        if a is None or b is None or (b == 0 and isinstance(operation, ast.Div))
        else float(calculation(a, b))
        for a, b in pairs
    ]


def _repeated(values: Series) -> Series:
    found: Series = []
    for value in values:
        found.append(found[-1] if value is None and found else value)
    return found


def _called(name: str, arguments: Sequence[Series], times: Sequence[float]) -> Series:
    match name, arguments:
        case "IF", [condition, then]:
            otherwise: Series = [None] * len(then)
        case "IF", [condition, then, otherwise]:
            pass
        case "EPOCH", [of]:
            # The strictest reading: whether it has a value where there is no point is not tried.
            return [None if value is None else time for value, time in zip(of, times, strict=True)]
        case "FILL", [of, filler]:
            if not any(value is not None for value in of):
                return of  # of nothing, it makes nothing
            return [f if value is None else value for value, f in zip(of, filler, strict=True)]
        case _:
            raise ValueError(f"{name}: not understood")
    rows = zip(condition, then, otherwise, strict=True)
    return [a if holds else b for holds, a, b in rows]
