"""The examples of docs/formats.md: files that people have, each with the config that reads it."""

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
    """A piece of a file as the page shows it, with the config below it."""

    name: str
    kind: str
    sample: str
    config: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write the sample to a file in `folder` and return its path."""
        path = folder / f"{self.name.split()[-1]}.{self.kind}"
        path.write_bytes(self.content)
        return path

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        if "Excel" not in self.name:
            return self.sample.encode()
        # A page cannot show the byte order mark and the line ends of Excel's files.
        rows = csv.reader(io.StringIO(self.sample), delimiter=";")
        text = io.StringIO()
        csv.writer(text, delimiter=";", lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode("utf-8-sig")


def least_config() -> dict[str, Any]:
    """Return the part of a config that all entries leave out."""
    return _parts()[0][1]


def entries() -> list[Entry]:
    """Return the entries of the first part, in the order of the page."""
    found = []
    for heading, _, blocks in _parts()[1:]:
        (kind, sample), (language, config) = blocks
        assert language == "yaml", heading
        found.append(Entry(heading, kind, sample, yaml.safe_load(config)))
    return found


def examples() -> list[tuple[str, str]]:
    """Return language and text of each other example, below the first part, but no config."""
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
