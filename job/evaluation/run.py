"""`recap evaluate`: score an adapter, or a file of summaries, against references and floors.

Writes evaluation.json, report.html and summaries.jsonl to the output.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.config.commands import EvaluateConfig
from job.config.data_sections import CleaningStep
from job.config.gate_mistakes import needs_base
from job.config.sections import as_list, to_plain
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.record import Conversation
from job.errors import RetryError
from job.evaluation.contest import (
    Contest,
    begin_contest,
    judge_contest,
    judge_reload,
    summarize_rivals,
)
from job.evaluation.evaluate import SEED, evaluate
from job.evaluation.gate import recorded, write_gate
from job.evaluation.held_out_pairs import PAIRS
from job.evaluation.inputs import (
    all_references,
    given_system,
    read_given,
    read_input,
    read_others,
    read_train,
)
from job.evaluation.metrics.models import MetricModel
from job.evaluation.metrics.named_models import compare_with_labels, fetch_models
from job.evaluation.output import check_output, publish_evaluation
from job.evaluation.promotion import Champion, Judged, promote
from job.evaluation.reload import reload_of
from job.evaluation.report import ReportContent, write_report
from job.evaluation.result import Evaluation
from job.evaluation.reward_pairs import RewardPairs, read_reward_pairs, with_trust
from job.evaluation.served import Served, serve_judged
from job.evaluation.systems import GIVEN, TUNED, Scored, System
from job.inference.choose import check_installed
from job.inference.from_disk import Candidate, Place
from job.inference.open import FetchedModel, cleaning_of, fetch_with_adapter
from job.inference.serving import differences
from job.inference.taken import Filled, departures_of_config, fill, serving_of
from job.model.fetch import Adapter, read_adapter
from job.model.quantization import WeightsInMemory
from job.storage.open import open_store
from job.storage.scratch import cache_folder, work_folder
from job.telemetry import event, heartbeat, warn


def run_evaluation(config: EvaluateConfig) -> Scored:
    """Score, judge by the gate, publish the result, and return it.

    Replaces what an earlier evaluation left at the output, and nothing else. Makes the adapter the
    champion if it passed: raises RetryError if somebody has switched the champion meanwhile.
    """
    store = open_store(config.output, config.storage)
    check_output(store)
    everything, chosen = read_input(config)
    train = read_train(config)
    references = None if train is None else all_references(train)
    others = read_others(config.evaluation.others, config.storage, chosen)
    contest = begin_contest(config, train or [])
    options = config.evaluation
    pairs = read_reward_pairs(options.reward_model, config.data, config.storage, train or [])
    del train  # it may be large
    model = None if config.summaries else _fetch(config, contest.champion)
    steps = model.steps if model else resolve_steps(config.data, everything)
    conversations = clean_all(chosen, steps)
    kept = {conversation.source for conversation in conversations}
    rows = [row for row, conversation in enumerate(chosen) if conversation.source in kept]
    others = [other.at(rows) for other in others]
    models = _metric_models(config, pairs, everything, steps)
    contest = replace(contest, models=models)
    if model is not None and departures_of_config(model.filled, model.fetched.prompt.cleaning):
        contest = replace(contest, champion=replace(contest.champion, is_served_otherwise=True))
    with work_folder(config.run) as work:
        place = Place(work, cache_folder())
        judged = _judged(model, conversations)
        if judged is None or model is None:
            served = Served([_given(config, everything, conversations)])
        else:
            served = _summarize(config, judged, model.adapter.uri, place)
        rivals = summarize_rivals(contest, judged, conversations, chosen, place)
        systems = [*served.systems, *rivals.champion, *others]
        scored = evaluate(systems, conversations, options, references, models)
        evaluation = replace(scored.evaluation, departures=_departures(model, served))
        digest = judged.model.adapter_digest if judged else None
        scored = judge_contest(contest, replace(scored, evaluation=evaluation), rivals, digest)
        if model is not None:
            scored = judge_reload(scored, reload_of(model.adapter), is_demanded=False)
        folder = work / "evaluation"
        _write_files(folder, f"Evaluation {config.run}", scored, served.weights)
        publish_evaluation(folder, store, _facts(config, model))
    event("evaluated", report=f"{store.uri}/report.html")
    if model is not None:
        _promote_if_passed(config, model.adapter, contest, scored.evaluation)
    return scored


def _write_files(folder: Path, title: str, scored: Scored, weights: WeightsInMemory | None) -> None:
    """Write all that an evaluation leaves, but its manifest, and create the folder."""
    gate = recorded(scored.evaluation)
    write_report(folder, ReportContent(title, scored, gate, weights=weights))
    numbers = json.dumps(scored.evaluation.to_json(), indent=2) + "\n"
    (folder / "evaluation.json").write_text(numbers, encoding="utf-8")
    with (folder / "summaries.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(_lines(scored))
    write_gate(folder, gate)


def _promote_if_passed(
    config: EvaluateConfig, adapter: Adapter, contest: Contest, evaluation: Evaluation
) -> None:
    """Make the adapter the champion, if it passed its gate and the config names a pointer."""
    verdict = recorded(evaluation)
    if config.publish.champion is None or verdict is None or not verdict.passed:
        return
    source = f"{config.output.rstrip('/')}/evaluation.json"
    by = f"recap evaluate {config.run}"
    judged = Judged(adapter, evaluation, source, by, reload_of(adapter))
    promote(contest.champion, judged, config.storage)


@dataclass(frozen=True)
class _Model:
    """The adapter and its files on disk, the config with what is taken, and the cleaning of data.

    The adapter is what the config named when the evaluation began: a pointer is resolved once.
    """

    adapter: Adapter
    filled: Filled[EvaluateConfig]
    fetched: FetchedModel
    steps: tuple[CleaningStep, ...]


def _fetch(config: EvaluateConfig, champion: Champion) -> _Model:
    check_installed(config.engine, config.tensor_parallel)
    adapter = read_adapter(str(config.adapter), config.storage)
    is_champion = champion.digest == adapter.digest
    pointer = (champion.pointer if is_champion else None) or adapter.pointer
    filled = fill(config.model_copy(update={"adapter": adapter.uri}), serving_of(pointer))
    fetched = fetch_with_adapter(adapter.uri, config.model, config.storage, cache_folder())
    if fetched.adapter_digest != adapter.digest:
        raise RetryError(f"{adapter.uri} was replaced while the evaluation began: run again")
    return _Model(adapter, filled, fetched, cleaning_of(fetched.prompt, filled.config.data))


def _facts(config: EvaluateConfig, model: _Model | None) -> dict[str, Any]:
    """Return what the manifest has beside its files."""
    facts: dict[str, Any] = {"run": config.run, "summaries": config.summaries, "adapter": None}
    # What was scored: data to train on must not have it.
    inputs = {"input": as_list(config.input)}
    for section in config.publish.regressions:
        inputs[f"older set {section.name}"] = as_list(section.input)
    if config.publish.pairs is not None:
        inputs[PAIRS] = as_list(config.publish.pairs.input)
    facts |= {"inputs": inputs, "data": to_plain(config.data)}
    if model is None:
        return facts
    adapter = model.adapter
    facts |= {"adapter": adapter.uri, "adapter_digest": adapter.digest}
    if adapter.pointer is not None:
        facts["champion"] = {
            "pointer": adapter.pointer.uri,
            "version": adapter.pointer.champion.version,
        }
    return facts


def _metric_models(
    config: EvaluateConfig,
    pairs: RewardPairs | None,
    everything: Sequence[Conversation],
    steps: Sequence[CleaningStep],
) -> dict[str, MetricModel]:
    """Return the models of metrics by metric: a mistake ends the run before it costs anything."""
    options = config.evaluation
    models = fetch_models(options, config.storage, cache_folder())
    models = with_trust(models, pairs, options.bootstrap_samples)
    if options.faithfulness_labels is None:
        return models
    conversations = clean_all(everything, steps)
    return compare_with_labels(models, options, config.storage, conversations, SEED)


def _given(
    config: EvaluateConfig,
    everything: Sequence[Conversation],
    conversations: Sequence[Conversation],
) -> System:
    """Return the summaries of the file that the config names."""
    given = read_given(config, everything)
    return given_system(GIVEN, "judged", str(config.summaries), given, conversations)


def _judged(model: _Model | None, conversations: Sequence[Conversation]) -> Candidate | None:
    """Return the adapter as it is to be served; None if a file of summaries is judged."""
    if model is None:
        return None
    return Candidate(TUNED, model.fetched, model.filled.wish(), conversations)


def _summarize(config: EvaluateConfig, judged: Candidate, origin: str, place: Place) -> Served:
    """Summarize with the adapter, and without it if it is to be compared with its base."""
    event("loading", base=judged.model.base.uri, adapter=origin)
    with heartbeat("summarizing"):
        return serve_judged(judged, needs_base(config), origin, place)


def _departures(model: _Model | None, served: Served) -> list[str]:
    """Return what differs from the settings that the adapter carries, and log it."""
    if model is None or model.filled.judged is None or served.serving is None:
        return []
    departures = differences(model.filled.judged, served.serving)
    if departures:
        warn("the adapter is not served here as its settings say", departures=departures)
    return departures


def _lines(scored: Scored) -> Iterator[str]:
    """Yield a JSON line per conversation.

    It has the judged system's summary, the references, the other systems' summaries, and all
    scores by system and metric.
    """
    judged, *others = scored.systems
    for row, conversation in enumerate(scored.conversations):
        scores: dict[str, dict[str, float]] = {}
        for name, by_metric in scored.scores.items():
            values = {metric: float(values[row]) for metric, values in by_metric.items()}
            scores[name] = {
                metric: round(value, 6) for metric, value in values.items() if value == value
            }
        line = {
            "id": conversation.id,
            "summary": judged.summaries[row],
            "references": conversation.references,
            "others": {
                other.name: other.summaries[row] for other in others if other.kind != "human"
            },
            "scores": scores,
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
