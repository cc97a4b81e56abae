"""`recap evaluate`: score an adapter, or a file of summaries, against references and floors.

Writes evaluation.json, report.html and summaries.jsonl to the output.
"""

import json
from collections.abc import Iterator, Sequence

from job.config.commands import EvaluateConfig
from job.config.data_sections import CleaningStep
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.record import Conversation
from job.evaluation.evaluate import SEED, evaluate
from job.evaluation.inputs import (
    given_system,
    read_given,
    read_input,
    read_others,
    read_train_references,
)
from job.evaluation.metrics.models import MetricModel
from job.evaluation.metrics.named_models import compare_with_labels, fetch_models
from job.evaluation.output import check_output, publish_evaluation
from job.evaluation.report import ReportContent, write_report
from job.evaluation.systems import BASE, GIVEN, TUNED, Scored, System
from job.inference.each import OneByOne
from job.inference.open import FetchedModel, cleaning_of, fetch_with_adapter, load
from job.inference.summaries import check_budget, input_budget, summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.model.quantization import WeightsInMemory
from job.prompt.encode import Encoder
from job.storage.open import open_store
from job.storage.scratch import cache_folder, work_folder
from job.telemetry import event, heartbeat, progress


def run_evaluation(config: EvaluateConfig) -> Scored:
    """Score, publish the result and return it.

    Replaces what an earlier evaluation left at the output, and nothing else.
    """
    store = open_store(config.output, config.storage)
    check_output(store)
    everything, chosen = read_input(config)
    train_references = read_train_references(config)
    others = read_others(config.evaluation.others, config.storage, chosen)
    weights = None
    if config.summaries:
        steps = resolve_steps(config.data, everything)
        conversations = clean_all(chosen, steps)
        models = _metric_models(config, everything, steps)
        given = read_given(config, everything)
        systems = [given_system(GIVEN, "judged", config.summaries, given, conversations)]
    else:
        uri = str(config.adapter)
        fetched = fetch_with_adapter(uri, config.model, config.storage, cache_folder())
        steps = cleaning_of(fetched.prompt, config.data)
        conversations = clean_all(chosen, steps)
        models = _metric_models(config, everything, steps)
        systems, weights = _summarize(config, fetched, conversations)
    systems += others
    scored = evaluate(systems, conversations, config.evaluation, train_references, models)
    with work_folder(config.run) as work:
        folder = work / "evaluation"
        content = ReportContent(f"Evaluation {config.run}", scored, weights=weights)
        write_report(folder, content)
        numbers = json.dumps(scored.evaluation.to_json(), indent=2) + "\n"
        (folder / "evaluation.json").write_text(numbers, encoding="utf-8")
        lines = "".join(_lines(scored))
        (folder / "summaries.jsonl").write_text(lines, encoding="utf-8")
        facts = {"run": config.run, "adapter": config.adapter, "summaries": config.summaries}
        publish_evaluation(folder, store, facts)
    event("evaluated", report=f"{store.uri}/report.html")
    return scored


def _metric_models(
    config: EvaluateConfig, everything: Sequence[Conversation], steps: Sequence[CleaningStep]
) -> dict[str, MetricModel]:
    """Return the models of metrics by metric: a mistake ends the run before it costs anything."""
    options = config.evaluation
    models = fetch_models(options, config.storage, cache_folder())
    if options.faithfulness_labels is None:
        return models
    conversations = clean_all(everything, steps)
    return compare_with_labels(models, options, config.storage, conversations, SEED)


def _summarize(
    config: EvaluateConfig,
    fetched: FetchedModel,
    conversations: Sequence[Conversation],
) -> tuple[list[System], WeightsInMemory]:
    """Summarize with the adapter, and without it if configured.

    Return the systems, the judged one first, and what of the base was in memory.
    """
    event("loading", base=fetched.base.uri, adapter=config.adapter)
    with heartbeat("loading"):
        model = load(fetched, config.model)
    engine = OneByOne(TransformersEngine(model, fetched.tokenizer))
    check_budget(config.generation, engine.context_tokens)
    budget = input_budget(engine, config.generation)
    encoder = Encoder(fetched.prompt, fetched.tokenizer, budget)

    def summarize(system: str) -> list[str]:
        with progress(f"summarizing ({system})", len(conversations), "conversation") as bar:
            return summarize_conversations(
                conversations, engine, encoder, config.generation, bar.advance
            ).texts

    systems = [System(TUNED, "judged", summarize(TUNED), origin=str(config.adapter))]
    if config.evaluation.base_without_adapter:
        with model.disable_adapter():
            systems.append(System(BASE, "base", summarize(BASE), origin=fetched.base.uri))
    return systems, model.weights_in_memory


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
