"""Select the files below a folder that are data, by their keys.

There are three rules. Names that start with `.` or `_` and files that tools leave beside data are
left out. So are files that the config's `exclude` matches. With `include`, only files that it
matches are read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from job.config.data_sections import ReadingSection
from job.config.patterns import regex_of
from job.config.sections import as_list
from job.printable import visible
from job.storage.keys import mistake_in
from job.telemetry import event, warn

HIDDEN = (".", "_")
# Checksums, lists of files, half-written copies, folder markers, files of desktops, and pages
# about data. With `roles: as_written`, a README's "Note: …" or a line of a config would be read as
# a turn.
FOREIGN_NAMES = (
    "*.crc", "*.md5", "*.sha1", "*.sha256", "*.sha512", "*md5sum", "*md5sums", "*sha256sum",
    "*sha256sums", "*.metadata", "*manifest", "manifest.json", "*.tmp", "*.inprogress", "*.part",
    "*.partial", "*._copying_", "*.filepart", "*.crdownload", "*.swp", "*~", "~$*", "*_$folder$",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "readme", "readme.*", "license",
    "license.*", "licence", "licence.*", "*.yaml", "*.yml", "dataset_info.json",
    "dataset_infos.json",
)  # fmt: skip
FOREIGN_FOLDERS = frozenset(["@eadir", "$recycle.bin", "system volume information"])
IS_FOREIGN_NAME = re.compile("|".join(map(regex_of, FOREIGN_NAMES)), re.IGNORECASE | re.DOTALL)
# Logs of the table formats Delta, Hudi and Iceberg, which name the files that count.
TABLE_LOG = re.compile(
    r"(?:(?P<table>.*)/)?(?:_delta_log/.+|\.hoodie/.+"
    r"|metadata/(?:[^/]+\.(?:metadata\.json|avro|stats|puffin)|version-hint\.text))",
    re.DOTALL,
)
MAX_NAMED = 20  # files in a manifest; all are counted
MAX_LOGGED = 5


@dataclass(frozen=True)
class Selection:
    """The patterns of a config: of files that are read (none reads all), and of exceptions."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, reading: ReadingSection) -> "Selection":
        """Return the patterns that the config's `data` names."""
        return cls(tuple(as_list(reading.include)), tuple(as_list(reading.exclude)))

    def why_not(self, key: str) -> str | None:
        """Return why the file at `key`, relative to the input, is not read; None if it is."""
        parts = key.split("/")
        if any(part.startswith(HIDDEN) and part not in (".", "..") for part in parts):
            return "its name starts with . or _"
        if TABLE_LOG.fullmatch(key):
            return "the log of a table"
        is_foreign = IS_FOREIGN_NAME.fullmatch(parts[-1])
        if is_foreign or not FOREIGN_FOLDERS.isdisjoint(key.lower().split("/")):
            return "no data, by its name"
        if self.exclude and self._excluded.fullmatch(key):
            return "data.exclude"
        if self.include and not self._included.fullmatch(key):
            return "not in data.include"
        return None

    @cached_property
    def _included(self) -> "re.Pattern[str]":
        return _any_of(self.include)

    @cached_property
    def _excluded(self) -> "re.Pattern[str]":
        return _any_of(self.exclude)


@dataclass
class LeftOut:
    """Files below an input that are not read: their count, and the first of them with the reason.

    `odd` are those that nobody left out on purpose: their keys must not become paths. `tables` are
    folders of tables with a log of their own.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    odd_count: int = 0
    tables: set[str] = field(default_factory=set)

    def add(self, uri: str, why: str) -> None:
        """Count one more file."""
        self.count += 1
        if len(self.first) < MAX_NAMED:
            self.first.append(f"{visible(uri, one_line=True)} ({why})")

    def add_odd(self, key: str, uri: str) -> None:
        """Count one more file, whose key must not become a path."""
        why = f"its key {mistake_in(key)}"
        self.add(uri, why)
        self.odd_count += 1
        if len(self.odd) < MAX_NAMED:
            self.odd.append(f"{visible(uri, one_line=True)} ({why})")

    def extend(self, other: "LeftOut") -> None:
        """Add the files of another input."""
        self.count += other.count
        self.odd_count += other.odd_count
        self.first = [*self.first, *other.first][:MAX_NAMED]
        self.odd = [*self.odd, *other.odd][:MAX_NAMED]
        self.tables |= other.tables


def table_of(key: str) -> str | None:
    """Return the folder of the table that has the file at `key` in its log, else None.

    The empty folder is the input itself.
    """
    found = TABLE_LOG.fullmatch(key)
    return (found["table"] or "") if found else None


def log_left_out(left_out: LeftOut) -> None:
    """Log the files that are left out, in one line.

    Warn of files whose keys must not become paths, and of tables whose log is not read.
    """
    if left_out.count:
        first = left_out.first[:MAX_LOGGED]
        event("files below the input are left out", count=left_out.count, files=first)
    if left_out.odd:
        warn(
            "files of the input are not read, since their keys are unfit: rename them, or name "
            "them in data.exclude",
            count=left_out.odd_count,
            files=left_out.odd[:MAX_LOGGED],
        )
    if left_out.tables:
        # Files of a table still have rows that were deleted or replaced, until it is vacuumed.
        warn(
            "a Delta, Hudi or Iceberg table is read as the files of its folder, which may hold "
            "deleted "
            "rows and rows twice: export its current rows to files, and name those",
            tables=sorted(left_out.tables)[:MAX_LOGGED],
        )


def _any_of(globs: Iterable[str]) -> "re.Pattern[str]":
    return re.compile("|".join(map(regex_of, globs)), re.DOTALL)
