"""The tables of docs/bases.md, written from what the tests saw.

`make test-bases` deletes RESULTS, tries each base, which adds a row to RESULTS, and then runs
`python -m tests.bases.page`. A base that fails has no row: the page is then left as it is.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bases.base import Family
from tests.bases.families import GROUPS
from tests.bases.odd import ODD

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bases.md"
RESULTS = ROOT / "build" / "bases.jsonl"

HEAD = (
    "| family | class in transformers | train | in 4 bits | adapter on | merge | batches | vLLM "
    "| set, note |\n|---|---|---|---|---|---|---|---|---|"
)
REFUSED_HEAD = "| family | class in transformers | the plan ends with |\n|---|---|---|"
ODD_HEAD = "| base | outcome |\n|---|---|"


@dataclass(frozen=True)
class Row:
    """The line of the page for one base, and the table that it is in."""

    table: str
    name: str
    cells: list[str]

    @property
    def line(self) -> str:
        """Return the line as the page has it."""
        return f"| {' | '.join([self.name, *self.cells])} |"


def write_row(row: Row) -> None:
    """Append a row to RESULTS. Several processes may do so at once."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def code(names: Iterable[str]) -> str:
    """Return names as code of a cell."""
    return ", ".join(f"`{name}`" for name in names)


def settings_text(entry: Family) -> str:
    """Return the settings and the note of an entry as text of a cell."""
    keys = []
    for section, values in entry.settings.items():
        keys += [f"{section}.{key}: {value}" for key, value in values.items()]
    return "; ".join(part for part in [code(keys), entry.note] if part)


def wanted_names() -> dict[str, list[str]]:
    """Return the names of the rows that each table must have, in their order."""
    names = {group: [entry.name for entry in entries] for group, entries in GROUPS.items()}
    return names | {"Odd bases": [entry.name for entry in ODD]}


def marks(table: str) -> tuple[str, str]:
    """Return the comments between which the page has a table."""
    return f"<!-- {table}: written by make test-bases -->", f"<!-- end of {table} -->"


def lines_of(text: str, table: str) -> list[str]:
    """Return the rows of one table of the page."""
    begin, end = marks(table)
    _, _, rest = text.partition(begin)
    return [line for line in rest.partition(end)[0].splitlines() if line.startswith("| ")][1:]


def page_with(text: str, rows: Mapping[tuple[str, str], Row]) -> str:
    """Return the page with its tables replaced. Raise KeyError for a base without a row."""
    for table, names in wanted_names().items():
        begin, end = marks(table)
        before, found, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        assert found, f"the page has no place for {table}"
        head = {"Odd bases": ODD_HEAD, "Refused": REFUSED_HEAD}.get(table, HEAD)
        lines = [rows[table, name].line for name in names]
        text = "\n".join([f"{before}{begin}", head, *lines, f"{end}{after}"])
    return text


def main() -> int:
    """Write the page, and return 1 if a base has no row."""
    rows = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        row = Row(**json.loads(line))
        rows[row.table, row.name] = row
    missing = [
        name
        for table, names in wanted_names().items()
        for name in names
        if (table, name) not in rows
    ]
    if missing:
        print(f"docs/bases.md is not written: no result of {', '.join(missing)}", file=sys.stderr)
        return 1
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
