"""The last verdict on a published adapter, if a later attempt of its training judged it again.

A published adapter is never written again, since any pointer may name it. The report beside it has
the last verdict, and its manifest says of which adapter.
"""

import json
from dataclasses import dataclass
from typing import Any

from job.config.sections import StorageSection
from job.errors import DamagedError, ForbiddenError, MissingError
from job.evaluation.reload import Reload, reload_in
from job.evaluation.result import Evaluation
from job.model.champion import RELOAD
from job.model.fetch import Adapter
from job.storage.folders import read_manifest
from job.storage.keys import below
from job.storage.open import open_store

ADAPTER = "adapter"  # of the manifest's extra: the digest of the adapter that was judged again
REPORT = "report"  # in the run's folder
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Later:
    """The later scores of a published adapter with its verdict, where they are, and its reload."""

    evaluation: Evaluation
    source: str
    reload: Reload | None


def later_facts(adapter: Adapter, reload: Reload | None) -> dict[str, Any]:
    """Return the facts for the manifest of a report on an adapter that was published before it."""
    facts: dict[str, Any] = {ADAPTER: adapter.digest}
    return facts if reload is None else facts | {RELOAD: reload.facts()}


def find_later(adapter: Adapter, storage: StorageSection) -> Later | None:
    """Return what the report beside an adapter says of it, if it was judged after its publication.

    None if it was not, or if that cannot be read here.
    """
    run, _, name = adapter.uri.rstrip("/").rpartition("/")
    if name != "adapter" or not run:
        return None
    try:
        store = open_store(run, storage)
        about = read_manifest(store, REPORT).extra
        if about.get(ADAPTER) != adapter.digest:
            return None
        key = below(REPORT, EVALUATION)
        evaluation = Evaluation.from_json(json.loads(store.read(key)))
        return Later(evaluation, below(store.uri, key), reload_in(about))
    except (MissingError, ForbiddenError, DamagedError, ValueError):
        return None
