"""Make tables of the JSON lines of a run: medians, and ratios of rounds with their spread.

`python -m benchmarks.gpu.tables results.jsonl` prints them again, as Markdown.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.goals import verdicts
from benchmarks.gpu.measurements import Measurement, measurements

Line = Mapping[str, Any]
NOT_SHOWN = ("measurement", "variant", "round", "group")


def tables(lines: Sequence[Line], all_of: Sequence[Measurement]) -> str:
    """Return the machine, one table for each measurement that has results, and the verdicts."""
    parts = []
    for line in lines:
        if "machine" in line:
            parts.append(machine_text(line["machine"]))
    for measurement in all_of:
        its = [line for line in lines if line.get("measurement") == measurement.name]
        if its:
            parts.append(_table(measurement, its))
    if not is_tiny(lines):
        parts.append("\n".join(verdicts(lines)))
    return "\n\n".join(parts)


def is_tiny(lines: Sequence[Line]) -> bool:
    """Return True if only the commands were tried, with shapes that say nothing of speed."""
    return any(line.get("shape") == "tiny" for line in lines)


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return card, CPU and versions in one line."""
    versions = " ".join(f"{name} {text}" for name, text in machine["versions"].items())
    return f"{machine['gpu']}, {machine['cpus']} CPUs; {versions}; recap {machine['revision']}"


def ratios(its: Iterable[Line], key: str, variant: str, first: str, group: int) -> list[float]:
    """Return the ratio of a variant to the first one of its group, by round."""
    by_round: dict[tuple[str, int], float] = {}
    for line in its:
        if line["group"] == group and key in line:
            by_round[line["variant"], line["round"]] = line[key]
    found = []
    for (name, number), value in by_round.items():
        reference = by_round.get((first, number))
        if name == variant and reference:
            found.append(value / reference)
    return found


def _table(measurement: Measurement, its: Sequence[Line]) -> str:
    """Return the table of one measurement, one line a variant; or one a quantity if it names none.

    The warm-up counts only where it is all that there is.
    """
    its = _without_warm_up(its)
    if not measurement.columns:
        return _table_of_quantities(measurement.title, its)
    titles = list(measurement.columns.values())
    if measurement.compared:
        titles.append(f"{measurement.columns[measurement.compared]}: ratio to the first")
    rows = []
    for number, group in enumerate(measurement.groups):
        first = next(iter(group.variants))
        for variant in group.variants:
            own = [each for each in its if each["variant"] == variant and each["group"] == number]
            if not own:
                continue
            if "failed" in own[-1]:
                rows.append([variant, own[-1]["failed"], *[""] * (len(titles) - 1)])
                continue
            cells = [_median_text(own, key) for key in measurement.columns]
            if measurement.compared:
                found = ratios(its, measurement.compared, variant, first, number)
                cells.append(_spread_text(found))
            rows.append([variant, *cells])
    return _markdown(measurement.title, ["variant", *titles], rows)


def _table_of_quantities(title: str, its: Sequence[Line]) -> str:
    variants = list(dict.fromkeys(line["variant"] for line in its))
    last = {line["variant"]: line for line in its}
    keys = dict.fromkeys(key for line in its for key in line if key not in NOT_SHOWN)
    rows = [[key, *[_text(last[each].get(key, "")) for each in variants]] for key in keys]
    return _markdown(title, ["quantity", *variants], rows)


def _without_warm_up(its: Sequence[Line]) -> list[Line]:
    measured = {line["variant"] for line in its if line["round"] > 0}
    return [line for line in its if line["round"] > 0 or line["variant"] not in measured]


def _median_text(lines: Iterable[Line], key: str) -> str:
    values = [line[key] for line in lines if key in line]
    if not values:
        return ""
    if isinstance(values[0], bool):
        return "yes" if all(values) else "no"
    if isinstance(values[0], str):
        return values[0]
    return _text(statistics.median(values))


def _spread_text(found: Sequence[float]) -> str:
    """Return the median with the smallest and the largest."""
    if not found:
        return ""
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _markdown(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"**{title}**", "", _row(heads), _row(["---"] * len(heads))]
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    print(tables(lines, measurements()))


if __name__ == "__main__":
    main()
