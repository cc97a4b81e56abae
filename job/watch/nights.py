"""The nights below a prefix, read from their manifests; no summary is read."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Self

from job.config.sections import StorageSection
from job.errors import DamagedError, MissingError
from job.identity import json_digest
from job.storage.folders import MANIFEST, Manifest, read_manifest_file
from job.storage.keys import below, is_below
from job.storage.open import open_store
from job.storage.store import Store
from job.summarization.identity import CANDIDATES, CHALLENGER
from job.summarization.nights_before import DATE
from job.summarization.quality import FACT, FAITHFULNESS, REWARD
from job.summarization.records import Counts
from job.watch.challengers import Tried
from job.watch.measured import Measured, figures_of

SHADOW = "shadow.jsonl"  # of a challenger, which nobody reads
OF_ALL = ("rejected", FAITHFULNESS)  # figures of all records, whichever adapter had them
# Keys of a night's identity that decide a summary, whatever the input is.
SERVING = (
    "weights",
    "model",
    "prompt",
    "generation",
    CANDIDATES,
    "adapter_weights",
    "long_conversations",
)
MANIFESTS_AT_ONCE = 16  # each is a request of some 50 ms in S3


@dataclass(frozen=True)
class WatchedNight:
    """A finished night with what it is compared by.

    `languages` are the sampled conversations by language. `serving` is a digest of weights,
    settings and engines, `measured_by` one of the code that measured the figures, `input` one of
    the versions of the input's files, and `outputs` one of the files of summaries. `tried` is the
    night's challenger, whose lines are not in `figures` (but see `OF_ALL`), and `canary` a digest
    of which one wrote how many of the delivered lines.
    """

    day: date
    uri: str
    records: int
    figures: Mapping[str, Measured]
    serving: str
    measured_by: str
    input: str
    outputs: str
    languages: Mapping[str, int] = field(default_factory=dict)
    judges: Mapping[str, str] = field(default_factory=dict)  # digests of models, by figure
    scored_by: Mapping[str, str] = field(default_factory=dict)  # of code that is a figure's own
    tried: Tried | None = None
    canary: str = ""

    def writing(self, figure: str) -> tuple[str, ...]:
        """Return what wrote the summaries of a figure: the adapter that serves, and a canary."""
        return *self._of_the_adapter(figure), self.canary if figure in OF_ALL else ""

    def measuring(self, figure: str) -> tuple[str, str, str]:
        """Return what measured a figure: the code, its own code and model if it has them."""
        return self.measured_by, self.scored_by.get(figure, ""), self.judges.get(figure, "")

    def kind(self, figure: str) -> Hashable:
        """Return what made a figure, but for the data and a canary: anchors are compared by it."""
        return self._of_the_adapter(figure), self.measuring(figure)

    def _of_the_adapter(self, figure: str) -> tuple[str, str]:
        """Return the adapter that serves, and the reward model that chose among its candidates.

        To the rewards themselves, another reward model is another measure.
        """
        return self.serving, "" if figure == REWARD else self.judges.get(REWARD, "")

    @classmethod
    def from_manifest(cls, day: date, uri: str, manifest: Manifest) -> Self | None:
        """Return the night of this manifest, None for a folder that is no night with figures."""
        facts = manifest.extra
        try:
            block = facts[FACT]
            identity = facts["identity"]
            tried = Tried.from_facts(facts)
            return cls(
                day=day,
                uri=uri,
                records=Counts.from_json(facts["counts"]).records,
                figures=_figures(block, tried),
                serving=json_digest([_serving(identity), sorted(facts["engines"])]),
                measured_by=str(block["measured_by"]),
                input=json_digest(identity["input"]),
                outputs=json_digest(
                    {key: file.sha256 for key, file in manifest.files.items() if _is_output(key)}
                ),
                judges={
                    FAITHFULNESS: str(block.get("faithfulness_model", {}).get("digest", "")),
                    REWARD: json_digest((identity.get(CANDIDATES) or {}).get("reward")),
                },
                scored_by={
                    str(name): str(code) for name, code in block.get("scored_by", {}).items()
                },
                languages={
                    str(name): int(count) for name, count in block.get("languages", {}).items()
                },
                tried=tried,
                canary=json_digest(identity.get(CHALLENGER)) if tried and tried.is_canary else "",
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True)
class Nights:
    """The nights that are compared, one a day in their order, and the URIs of those that are not.

    `without_figures` are damaged, or of an earlier version. The manifests of those `being_replaced`
    were listed, and gone when they were read. Of several nights `of_the_same_day` only the last one
    counts, in the order of names.
    """

    nights: Sequence[WatchedNight]
    without_figures: Sequence[str] = ()
    being_replaced: Sequence[str] = ()
    of_the_same_day: Sequence[str] = ()


def read_nights(uri: str, storage: StorageSection, anchors: str | None = None) -> Nights:
    """Return the nights below `uri` whose names have a date, the earliest first.

    The date is the last one in the path of the manifest. A night without a date in its name, and
    one that is being published, is no night here. What is below `anchors` is none either.
    """
    store = open_store(uri, storage)
    manifests = list(_manifests(store, _left_out(anchors, storage)))
    with ThreadPoolExecutor(MANIFESTS_AT_ONCE) as pool:
        read = list(pool.map(lambda each: _read(store, *each), manifests))
    by_day: dict[date, WatchedNight] = {}
    without_figures = []
    being_replaced = []
    of_the_same_day = []
    for (day, key), night in zip(manifests, read, strict=True):
        if isinstance(night, MissingError):
            being_replaced.append(below(store.uri, key))
            continue
        if night is None:
            without_figures.append(below(store.uri, key))
            continue
        if day in by_day:
            of_the_same_day.append(by_day[day].uri)
        by_day[day] = night
    nights = [by_day[day] for day in sorted(by_day)]
    return Nights(nights, without_figures, being_replaced, of_the_same_day)


def is_there(day: date, uri: str, storage: StorageSection, anchors: str | None = None) -> bool:
    """Return True if a night of this day is below `uri`. Reads no manifest."""
    manifests = _manifests(open_store(uri, storage), _left_out(anchors, storage))
    return any(found == day for found, _ in manifests)


def _left_out(anchors: str | None, storage: StorageSection) -> Sequence[str]:
    """Return the location of `anchors` as stores have it: a path may be written in several ways."""
    return () if anchors is None else (open_store(anchors, storage).uri,)


def _manifests(store: Store, left_out: Sequence[str]) -> Iterator[tuple[date, str]]:
    """Yield the day and the key of each manifest with a date, without those below `left_out`."""
    for entry in store.list(skip=lambda key: not key.endswith(MANIFEST)):
        day = day_of(entry.key)
        if day is None or not entry.key.endswith(MANIFEST):
            continue
        if not is_below(below(store.uri, entry.key), left_out):
            yield day, entry.key


def _read(store: Store, day: date, key: str) -> WatchedNight | MissingError | None:
    """Return a night by its manifest; None for one without figures or damaged.

    Return the error, rather than raise it, if the manifest is gone: a night that is written anew
    deletes it first.
    """
    try:
        manifest = read_manifest_file(store, key)
    except MissingError as error:
        return error
    except DamagedError:
        return None
    return WatchedNight.from_manifest(day, below(store.uri, key), manifest)


def day_of(key: str) -> date | None:
    """Return the last date in a path, None without one."""
    found = DATE.findall(key)
    if not found:
        return None
    try:
        return date.fromisoformat(found[-1])
    except ValueError:  # digits that are no date
        return None


def _figures(block: Mapping[str, Any], tried: Tried | None) -> dict[str, Measured]:
    """Return the figures of the adapter that serves.

    Those of a canary night are of the other lines alone. Which ones those are is chosen by ids, so
    they are like the lines of a night without a challenger. Rejects, of which many have been seen
    by no adapter, and faithfulness are of all records.
    """
    figures = figures_of(block["figures"])
    if tried is None or not tried.is_canary:
        return figures
    return {**tried.beside, **{name: figures[name] for name in OF_ALL if name in figures}}


def _serving(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a summary, whatever the input is, and whichever reward model chooses."""
    found = {key: identity.get(key) for key in SERVING}
    candidates = found[CANDIDATES]
    if candidates:
        found[CANDIDATES] = candidates["count"]
    return found


def _is_output(key: str) -> bool:
    return not key.endswith((".html", SHADOW))
