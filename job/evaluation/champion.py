"""Promotion and rollback of a champion: the adapter is verified first, then its pointer switched.

Of an evaluation, a pointer has the few numbers that a person wants to see, and where the rest is.
"""

import getpass
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from job.config.sections import StorageSection
from job.errors import DamagedError, DataError
from job.evaluation.gate import FILE, GateResult, recorded
from job.evaluation.later import EVALUATION, find_later
from job.evaluation.metrics.all_metrics import HEADLINE
from job.evaluation.metrics.metric import Metric
from job.evaluation.reload import Reload, reload_of
from job.evaluation.result import Evaluation, mean_difference, mean_score
from job.evaluation.systems import CHAMPION
from job.evaluation.win_rate import PairsResult
from job.inference.taken import SERVING
from job.model.champion import (
    GATE,
    MAX_TEXT_CHARACTERS,
    PAIRS,
    RELOAD,
    Pointer,
    Promotion,
    check_nameable,
    find_pointer,
    now,
    read_pointer,
    roll_back,
    switch,
)
from job.model.fetch import Adapter, fetch_adapter, read_adapter
from job.model.files import HUB_ID
from job.printable import visible
from job.storage.keys import below, local_path, scheme_of
from job.storage.scratch import cache_folder

NOT_RELOADED = "nobody asked that it be reloaded before it was published (publish.verify)"


def key_numbers(evaluation: Evaluation, source: str, metric: Metric = HEADLINE) -> dict[str, Any]:
    """Return what a pointer has of an evaluation: the score, the gains, and the serving settings.

    `source` is the URI of the whole. Each number is a list of mean, low and high.
    """
    judged = evaluation.judged
    score = mean_score(evaluation, judged, metric)
    gains = {}
    for name in evaluation.differences:
        difference = mean_difference(evaluation, name, metric)
        if difference is not None:
            gains[name] = [difference.mean, difference.low, difference.high]
    numbers: dict[str, Any] = {
        "source": source,
        "conversations": evaluation.conversations,
        "metric": metric.name,
        "score": [score.mean, score.low, score.high] if score else None,
        "gains": gains,
    }
    if evaluation.pairs is not None:
        numbers[PAIRS] = PairsResult.from_json(evaluation.pairs).key_numbers()
    verdict = recorded(evaluation)
    if verdict is not None:
        numbers[GATE] = _key_checks(verdict)
    serving = evaluation.systems[judged].serving
    return numbers if serving is None else numbers | {SERVING: dict(serving)}


def _key_checks(verdict: GateResult) -> dict[str, Any]:
    """Return what a pointer has of a verdict: the gains are those over the champion `compared`."""
    gains = {
        check.name: check.value
        for check in verdict.checks
        if check.rule in ("no worse", "older set", "agreement")
        and check.opponent == CHAMPION
        and check.value is not None
    }
    return {
        "passed": verdict.passed,
        "verdict": visible(verdict.verdict(), one_line=True)[:MAX_TEXT_CHARACTERS],
        "metric": verdict.metric,
        "compared": verdict.champion,
        "gains": gains,
    }


def key_reload(reload: Reload | None) -> dict[str, Any]:
    """Return what a pointer has of loading the adapter without recap, also if nobody tried."""
    if reload is None:
        return {"state": "not asked for", "sentence": NOT_RELOADED}
    sentence = visible(reload.sentence(), one_line=True)[:MAX_TEXT_CHARACTERS]
    return {"state": reload.state, "sentence": sentence}


def lost_by_check(pointer: Pointer | None, metric: str) -> dict[str, float]:
    """Return how far the champion is behind the best one before it, by the name of the check.

    It is the sum of the gains that were recorded, each over the champion before. A promotion by
    hand of what did not pass its gate, or a gate by another metric, begins a new sum: a person has
    decided.
    """
    if pointer is None:
        return {}
    total: dict[str, float] = {}
    least: dict[str, float] = {}
    for promotion, before in pairwise(pointer.lineage()):
        gate = promotion.evaluation.get(GATE)
        if not isinstance(gate, dict) or gate.get("passed") is not True:
            break
        if gate.get("compared") != before.digest or gate.get("metric") != metric:
            break
        gains = gate.get("gains")
        for name, gain in gains.items() if isinstance(gains, dict) else ():
            if isinstance(gain, int | float):
                total[name] = total.get(name, 0.0) + gain
                least[name] = min(least.get(name, 0.0), total[name])
    return {name: -value for name, value in least.items() if value < 0}


def set_champion(
    uri: str, named: str, storage: StorageSection, by: str, reason: str = ""
) -> Pointer:
    """Make the adapter `named` the champion of the pointer at `uri`, without a gate.

    The adapter may be named by another pointer. It is fetched and verified whole first. Does
    nothing if it is the champion already. Raise OutputError if somebody else is faster.
    """
    before = find_pointer(uri, storage)
    adapter = read_adapter(absolute_uri(named), storage)
    adapter = replace(adapter, uri=absolute_uri(adapter.uri))
    check_nameable(uri, adapter.uri)
    folder = fetch_adapter(adapter, cache_folder())
    if before and (adapter.uri, adapter.digest) == (
        before.champion.adapter,
        before.champion.digest,
    ):
        return before
    promotion = Promotion(
        adapter=adapter.uri,
        digest=adapter.digest,
        at=now(),
        by=by,
        reason=reason,
        evaluation=_evaluation_of(adapter, folder, storage),
    )
    return switch(uri, storage, promotion, before)


def roll_back_champion(uri: str, storage: StorageSection, by: str, reason: str = "") -> Pointer:
    """Bring back the champion before this one, if it is whole, and return the new pointer.

    Raise ConfigError if there is none, DataError if its adapter was replaced since.
    """
    pointer = read_pointer(uri, storage)
    before = pointer.before()
    if before is not None:
        adapter = read_adapter(before.adapter, storage)
        if adapter.digest != before.digest:
            raise DataError(
                f"{uri}: the champion before this one, {before.adapter}, had digest "
                f"{before.digest}, and has {adapter.digest} now: it was replaced. Put it back, or "
                f"name the adapter that shall serve: recap champion set {uri} ADAPTER"
            )
        fetch_adapter(adapter, cache_folder())
    return roll_back(pointer, storage, by, reason)


def who() -> str:
    """Return the user and the machine, for a promotion by hand."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"user {os.getuid()}"
    return f"{user}@{os.uname().nodename}"


def _evaluation_of(adapter: Adapter, folder: Path, storage: StorageSection) -> Mapping[str, Any]:
    """Return the numbers of the evaluation that the pointer of an adapter has.

    Without a pointer, those of a later attempt of its run, or else those that the adapter carries.
    """
    if adapter.pointer is not None:
        return adapter.pointer.champion.evaluation
    later = find_later(adapter, storage)
    if later is not None:
        reload = later.reload or reload_of(adapter)
        return key_numbers(later.evaluation, later.source) | {RELOAD: key_reload(reload)}
    numbers: dict[str, Any] = {RELOAD: key_reload(reload_of(adapter))}
    files = adapter.manifest.files
    with suppress(ValueError, DamagedError):  # of another version of recap
        if EVALUATION in files:
            plain = json.loads((folder / EVALUATION).read_bytes())
            numbers |= key_numbers(Evaluation.from_json(plain), below(adapter.uri, EVALUATION))
            return numbers
        if FILE in files:  # it could not be scored
            verdict = GateResult.from_json(json.loads((folder / FILE).read_bytes()))
            numbers |= {"source": below(adapter.uri, FILE), GATE: _key_checks(verdict)}
    return numbers


def absolute_uri(adapter: str) -> str:
    """Return a URI that means the same adapter everywhere."""
    if HUB_ID.fullmatch(adapter) and not Path(adapter).is_dir():
        return f"hf://{adapter}"
    if scheme_of(adapter) == "file":
        return str(Path(local_path(adapter)).absolute())
    return adapter.rstrip("/")
