"""`recap evaluate`: an adapter, or a file of summaries, scored against references and floors.

EvaluateConfig → evaluation.json, report.html and summaries.jsonl under its output. Knows nothing of training.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from job.config.commands import EvaluateConfig
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.record import Conversation
from job.evaluation.evaluate import evaluate
from job.evaluation.inputs import read_given, read_input, read_train_references
from job.evaluation.place import check_place, publish
from job.evaluation.report import choose_examples, write_report
from job.evaluation.result import Evaluation
from job.inference.each import OneByOne
from job.inference.open import FetchedModel, cleaning_of, fetch_with_adapter, load
from job.inference.summaries import check_budget, input_budget, summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.prompt.encode import Encoder
from job.storage.open import open_store
from job.storage.places import cache_folder, work_folder
from job.telemetry import event, progress

TUNED, BASE, GIVEN = "tuned", "base without adapter", "given summaries"


def run_evaluation(config: EvaluateConfig) -> Evaluation:
    """Score, and publish the result with its manifest last; replaces what an earlier evaluation left, nothing else."""
    store = open_store(config.output, config.storage)
    check_place(store)
    everything, chosen = read_input(config)
    train_references = read_train_references(config)
    if config.summaries:
        conversations = clean_all(chosen, resolve_steps(config.data, everything))
        summaries = read_given(config, everything)
        systems = {GIVEN: [summaries[conversation.id] for conversation in conversations]}
    else:
        uri = str(config.adapter)
        fetched = fetch_with_adapter(uri, config.model, config.storage, cache_folder())
        conversations = clean_all(chosen, cleaning_of(fetched.prompt, config.data))
        systems = _generated(config, fetched, conversations)
    evaluation = evaluate(systems, conversations, config.evaluation, train_references)
    with work_folder(config.run) as work:
        folder = work / "evaluation"
        write_report(
            folder,
            evaluation,
            choose_examples(conversations, systems),
            None,
            f"Evaluation {config.run}",
        )
        (folder / "evaluation.json").write_text(
            json.dumps(evaluation.to_json(), indent=2) + "\n", encoding="utf-8"
        )
        (folder / "summaries.jsonl").write_text(
            "".join(_lines(conversations, systems)), encoding="utf-8"
        )
        publish(
            folder,
            store,
            {"run": config.run, "adapter": config.adapter, "summaries": config.summaries},
        )
    event("evaluated", report=f"{store.uri}/report.html")
    return evaluation


def _generated(
    config: EvaluateConfig, fetched: FetchedModel, conversations: Sequence[Conversation]
) -> dict[str, list[str]]:
    quantization = config.model.quantization or "none"
    event("loading", base=fetched.base.uri, adapter=config.adapter, quantization=quantization)
    model = load(fetched, config.model)
    engine = OneByOne(TransformersEngine(model, fetched.tokenizer))
    check_budget(config.generation, engine.context_tokens)
    budget = input_budget(engine, config.generation)
    encoder = Encoder(fetched.prompt, fetched.tokenizer, budget)

    def summarize(system: str) -> list[str]:
        with progress(f"summarizing ({system})", len(conversations), "conversation") as bar:
            return summarize_conversations(
                conversations, engine, encoder, config.generation, bar.advance
            )

    systems = {TUNED: summarize(TUNED)}
    if config.evaluation.base_without_adapter:
        with model.disable_adapter():
            systems[BASE] = summarize(BASE)
    return systems


def _lines(conversations: Sequence[Conversation], systems: dict[str, list[str]]) -> Iterator[str]:
    """One JSON line per conversation: the judged system's summary, the references, and the other systems'."""
    judged, *others = systems
    for row, conversation in enumerate(conversations):
        line: dict[str, Any] = {"id": conversation.id, "summary": systems[judged][row]}
        line |= {
            "references": conversation.references,
            "others": {name: systems[name][row] for name in others},
        }
        yield json.dumps(line, ensure_ascii=False) + "\n"
