"""The nights before one whose output has a date in its name, read from their manifests."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Self

from job.config.sections import StorageSection
from job.errors import DamagedError, ForbiddenError, MissingError
from job.storage.folders import read_manifest_file
from job.storage.keys import relative_to
from job.summarization.output import open_output
from job.summarization.records import Counts
from job.summarization.sample import Lengths

MAX_NIGHTS = 14
ANCHORS = "anchors"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class ComparedNight:
    """A night with the numbers by which it is compared.

    `name` is its date if it is an earlier one, and `adapter` the digest of its adapter, None for
    the base alone. `lengths` is None if it wrote no summary.
    """

    name: str
    counts: Counts
    records_per_second: float  # of each worker
    adapter: str | None
    lengths: Lengths | None

    @property
    def reject_share(self) -> float | None:
        """The share of rejects among the records that were not skipped, None if all were."""
        return self.counts.rejected / self.counts.new if self.counts.new else None

    @classmethod
    def from_facts(cls, name: str, facts: Mapping[str, Any]) -> Self:
        """Return the night with these facts in its manifest.

        Raise KeyError, TypeError or ValueError for those of a version of recap that had others.
        """
        lengths = facts.get("summary_characters")
        return cls(
            name,
            Counts.from_json(facts["counts"]),
            float(facts["records_per_second"]),
            facts["identity"]["weights"]["adapter"],
            None if lengths is None else Lengths(**lengths),
        )


def inside_anchors(above: str, uris: Iterable[str]) -> list[str]:
    """Return the outputs that lie in a folder `anchors`, where the pages put anchors, by URI.

    `above` is the folder or prefix that all are at or below: its own name does not count.
    """
    return sorted(uri for uri in uris if ANCHORS in relative_to(above, uri).split("/"))


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
            nights.append(ComparedNight.from_facts(earlier, manifest.extra))
        except (MissingError, DamagedError, ForbiddenError):
            # S3 answers "forbidden" for a key that is not there to a role that may not list.
            continue
        except (KeyError, TypeError, ValueError):  # of another version, or no night
            continue
    return nights
