"""The nights before one whose output has a date in its name, read from their manifests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from job.config.sections import StorageSection
from job.errors import DamagedError, ForbiddenError, MissingError
from job.storage.folders import read_manifest_file
from job.summarization.output import open_output

MAX_NIGHTS = 14
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class ComparedNight:
    """A night by its name, which is its date if it is an earlier one, with its manifest's facts."""

    name: str
    facts: Mapping[str, Any]


def read_nights_before(uri: str, storage: StorageSection) -> list[ComparedNight]:
    """Return the nights of the 14 days before that left a manifest, the latest first.

    Their outputs have the name of this one but for its last date. Return none if it has no date.
    """
    dates = list(DATE.finditer(uri))
    if not dates:
        return []
    last = dates[-1]
    try:
        day = date.fromisoformat(last[0])
    except ValueError:  # digits that are no date
        return []

    nights = []
    for days in range(1, MAX_NIGHTS + 1):
        earlier = (day - timedelta(days=days)).isoformat()
        output = open_output(f"{uri[: last.start()]}{earlier}{uri[last.end() :]}", storage)
        try:
            manifest = read_manifest_file(output.store, output.manifest)
        except (MissingError, DamagedError, ForbiddenError):
            # S3 answers "forbidden" for a key that is not there to a role that may not list.
            continue
        if isinstance(manifest.extra.get("counts"), dict):
            nights.append(ComparedNight(earlier, manifest.extra))
    return nights
