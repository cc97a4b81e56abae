"""Selection of the adapter by what it generates: `adapter_from: best_metric`.

After the training, its candidates summarize a sample of validation conversations as they would
serve, and the one with the best mean of the metric becomes the adapter.
"""

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation
from job.environment import count_gpus
from job.errors import DataError, RetryError
from job.evaluation.bootstrap import Interval, mean_intervals
from job.evaluation.evaluate import NO_MODELS, SEED
from job.evaluation.metrics.all_metrics import metric_named
from job.evaluation.metrics.metric import Metric
from job.evaluation.metrics.models import MetricModel
from job.evaluation.metrics.named_models import fetch_models
from job.evaluation.score import score_systems
from job.evaluation.selection import CandidateScore, SelectionCurve
from job.evaluation.systems import System
from job.gpus.visible import gpus_of_ranks
from job.inference.from_disk import Place, Summarized, summarize_candidates
from job.inference.summaries import Summaries
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.model.files import ADAPTER_CONFIG
from job.printable import entry, printable
from job.storage.folders import sha256_file
from job.storage.scratch import cache_folder
from job.telemetry import event, heartbeat, warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.candidates import Candidate, candidates_of
from job.training.evaluations import LogEntry, evaluations_of
from job.training.prepare import Run
from job.training.scoring import (
    WITHOUT_VLLM,
    adapter_folder,
    judged_candidate,
    missing_engine,
)
from job.training.stop import StopSignal
from job.training.validation import split_validation

# Returns the summaries of conversations by step, with the adapters in folders by step.
Serve = Callable[[Mapping[int, Path], Sequence[Conversation]], Mapping[int, Summaries]]


def select(attempt: CurrentAttempt, history: Sequence[LogEntry], stop: StopSignal) -> None:
    """Choose among the candidates of a training with this history, if the config says so.

    Replaces the weights in the adapter's folder. Raise what `select_adapter` raises.
    """
    run = attempt.run
    candidates = candidates_of(run)
    if candidates is None:
        return
    with attempt.timed("select_seconds"), heartbeat("selecting"):
        found = candidates.collect(evaluations_of(history))
        select_adapter(attempt, found, adapter_folder(run), partial(summarize_with_each, run), stop)


def summarize_with_each(
    run: Run, folders: Mapping[int, Path], conversations: Sequence[Conversation]
) -> Mapping[int, Summaries]:
    """Return the summaries of the adapters in folders, made as the run's adapter will serve.

    Raise what `summarize_candidates` raises.
    """
    judged = judged_candidate(run, adapter_folder(run), conversations)
    names = {step: f"step {step}" for step in folders}
    servable = []
    for step, folder in folders.items():
        digest = sha256_file(folder / ADAPTER_WEIGHTS)
        model = replace(judged.model, adapter=folder, adapter_digest=digest)
        servable.append(replace(judged, name=names[step], model=model))

    # Those beside their base share it. A merged one has a base of its own, as large as the base:
    # one after the other, each deleted before the next.
    is_merged = judged.wish.adapter_weights == "merged"
    groups = [[each] for each in servable] if is_merged else [servable]
    found: dict[str, Summarized] = {}
    for group in groups:
        with TemporaryDirectory(dir=run.work) as cache:
            place = Place(run.work, Path(cache), gpus_of_ranks(os.environ, count_gpus))
            found |= summarize_candidates(group, place)
    return {step: found[name].summaries for step, name in names.items()}


def select_adapter(
    attempt: CurrentAttempt,
    candidates: Sequence[Candidate],
    adapter: Path,
    serve: Serve,
    stop: StopSignal,
) -> SelectionCurve:
    """Choose a candidate by what it generates, and put its weights into the adapter's folder.

    Where that fails, the smallest validation loss decides, and where there is no candidate, the
    last step: `attempt` notes why. Raises the errors after which another attempt may help.
    """
    curve = _choose_or_fall_back(attempt, candidates, adapter, serve, stop)
    for candidate in candidates:
        if candidate.step == curve.chosen:
            part = adapter / f"{ADAPTER_WEIGHTS}.part"
            shutil.copy(candidate.weights, part)
            part.replace(adapter / ADAPTER_WEIGHTS)
    attempt.selection.update(curve.to_json())
    event(curve.sentence())
    return curve


def _choose_or_fall_back(
    attempt: CurrentAttempt,
    candidates: Sequence[Candidate],
    adapter: Path,
    serve: Serve,
    stop: StopSignal,
) -> SelectionCurve:
    before = _choice_of_before(attempt, candidates)
    if before is not None:
        return before
    metric = attempt.run.config.training.selection.metric
    if attempt.has_crashed_too_often("selecting"):
        why = f"{MAX_CRASHES} attempts ended while the candidates summarized"
        attempt.left_out["selection"] = f"{why}; run.json has how each of them ended"
        return choose_by_loss(candidates, metric, attempt.step, why)

    missing = missing_engine(attempt.run.config)
    if missing is not None:
        warn(
            "no candidate can summarize here: the validation loss chooses the adapter", why=missing
        )
        attempt.left_out["selection"] = missing
        return choose_by_loss(candidates, metric, attempt.step, WITHOUT_VLLM)

    with attempt.noting("selecting"):
        try:
            return _choose_by_metric(attempt, candidates, adapter, serve)
        except Exception as error:
            if stop.requested or isinstance(error, RetryError):
                raise
            print(entry(traceback.format_exc()), file=sys.stderr)
            detail = printable(f"{type(error).__name__}: {error}")
            warn("the selection failed: the validation loss chooses the adapter", why=detail)
            attempt.left_out["selection"] = detail
            # An error's text may contain paths, and the card of an adapter may be public.
            why = f"summarizing with the candidates failed ({type(error).__name__})"
            return choose_by_loss(candidates, metric, attempt.step, why)


def _choice_of_before(
    attempt: CurrentAttempt, candidates: Sequence[Candidate]
) -> SelectionCurve | None:
    """Return what an earlier attempt chose by the metric, if its candidates were the same."""
    if not attempt.selection:
        return None
    curve = SelectionCurve.from_json(attempt.selection)
    there = [(each.step, each.validation_loss) for each in curve.candidates]
    here = [(each.step, each.validation_loss) for each in candidates]
    return curve if there == here and curve.fallback is None else None


def _choose_by_metric(
    attempt: CurrentAttempt, candidates: Sequence[Candidate], adapter: Path, serve: Serve
) -> SelectionCurve:
    run = attempt.run
    config = run.config
    if not candidates:
        raise DataError("no candidate is left")
    metric = metric_named(config.training.selection.metric)
    assert metric is not None, "a config names one that exists"
    # Before anything is generated: a model that is not there costs nothing.
    models = NO_MODELS
    if "model" in metric.needs:
        models = fetch_models(config.evaluation, config.storage, cache_folder())
    validation = split_validation(config, run.data.examples.scoring)
    folders = {candidate.step: candidate.weights.parent for candidate in candidates}
    for folder in folders.values():
        shutil.copy(adapter / ADAPTER_CONFIG, folder)
    summaries = serve(folders, validation.choosing)
    scores = scores_of(candidates, summaries, validation.choosing, metric, models)
    samples = config.evaluation.bootstrap_samples
    return choose(candidates, scores, metric, validation.is_held_out, samples)


def choose(
    candidates: Sequence[Candidate],
    scores: NDArray[np.float64],
    metric: Metric,
    is_held_out: bool,
    bootstrap_samples: int,
) -> SelectionCurve:
    """Choose the candidate with the best mean score; the earlier of two equal ones.

    `scores` has shape (conversations, candidates), NaN where there is none. A conversation without
    a score of one candidate counts for none of them. Raise DataError if no conversation is left.
    """
    common = scores[~np.isnan(scores).any(axis=1)]
    if not len(common):
        raise DataError(f"{metric.name}: no conversation has a value for every candidate")
    shares = [metric.unit == "share"] * len(candidates)
    intervals = mean_intervals(common, bootstrap_samples, SEED, shares)
    scored = []
    for candidate, interval in zip(candidates, intervals, strict=True):
        scored.append(_point(candidate, interval))
    sign = -1 if metric.direction == "higher" else 1
    means = common.mean(axis=0)
    best = min(range(len(candidates)), key=lambda row: (sign * means[row], candidates[row].step))
    return SelectionCurve(
        metric=metric.name,
        conversations=len(common),
        held_out=is_held_out,
        candidates=tuple(scored),
        chosen=candidates[best].step,
    )


def choose_by_loss(
    candidates: Sequence[Candidate], metric: str, last_step: int, why: str
) -> SelectionCurve:
    """Choose the candidate with the smallest validation loss, or the last step without any."""
    best = min(candidates, key=lambda each: (each.validation_loss, each.step), default=None)
    return SelectionCurve(
        metric=metric,
        conversations=0,
        held_out=True,
        candidates=tuple(_point(candidate, None) for candidate in candidates),
        chosen=last_step if best is None else best.step,
        fallback=why,
    )


def scores_of(
    candidates: Sequence[Candidate],
    summaries: Mapping[int, Summaries],
    conversations: Sequence[Conversation],
    metric: Metric,
    models: Mapping[str, MetricModel] = NO_MODELS,
) -> NDArray[np.float64]:
    """Return the scores by conversation and candidate, NaN where there is none."""
    systems = []
    for candidate in candidates:
        made = summaries[candidate.step]
        name = str(candidate.step)
        systems.append(System(name, "judged", made.texts, made.finish_reasons, read=made.read))
    scored = score_systems(systems, conversations, [metric], models)
    return np.stack([scored[each.name][metric.name].of(metric) for each in systems], axis=1)


def _point(candidate: Candidate, score: Interval | None) -> CandidateScore:
    return CandidateScore(candidate.step, candidate.epoch, candidate.validation_loss, score)
