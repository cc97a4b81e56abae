"""The first part of docs/formats.md: files that people have, each with the `data` that reads it."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
PART = re.compile(r"^## I have this: write that\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A piece of a file as the page shows it, and the config under it."""

    name: str
    kind: str
    sample: str
    config: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write the sample as a file."""
        path = folder / f"{self.name.split()[-1]}.{self.kind}"
        path.write_bytes(self.content)
        return path

    @property
    def content(self) -> bytes:
        """The bytes of the file; what a page cannot show of Excel's is added."""
        if "Excel" not in self.name:
            return self.sample.encode()
        rows = csv.reader(io.StringIO(self.sample), delimiter=";")
        text = io.StringIO()
        csv.writer(text, delimiter=";", lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode("utf-8-sig")


def least_config() -> dict[str, Any]:
    """The config that the entries leave out."""
    return _parts()[0][1]


def entries() -> list[Entry]:
    """Every entry of the part, in its order."""
    found = []
    for heading, _, blocks in _parts()[1:]:
        (kind, sample), (language, config) = blocks
        assert language == "yaml", heading
        found.append(Entry(heading, kind, sample, yaml.safe_load(config)))
    return found


def examples() -> list[tuple[str, str]]:
    """Language and text of every example below the first part that is no config."""
    page = PART.sub("", PAGE.read_text("utf-8"))
    return [(kind, text) for kind, text in BLOCK.findall(page) if kind != "yaml"]


def _parts() -> list[Any]:
    part = PART.search(PAGE.read_text("utf-8"))
    assert part
    introduction, *sections = re.split(r"^### ", part[1], flags=re.MULTILINE)
    ((_, config),) = BLOCK.findall(introduction)
    parts: list[Any] = [("", yaml.safe_load(config))]
    for section in sections:
        heading, _, rest = section.partition("\n")
        parts.append((heading, rest, BLOCK.findall(rest)))
    return parts
