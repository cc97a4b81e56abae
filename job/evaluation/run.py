"""`recap evaluate`: an adapter, or a file of summaries, scored against references and floors.

EvaluateConfig → evaluation.json, report.html and summaries.jsonl under its output. Knows nothing of training.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from job.config.commands import EvaluateConfig
from job.config.sections import as_list
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.evaluation.evaluate import choose_conversations, evaluate
from job.evaluation.report import choose_examples, write_report
from job.evaluation.result import Evaluation
from job.evaluation.summaries import read_summaries
from job.inference.open import LoadedModel, cleaning_of, open_adapter
from job.inference.summaries import summarize_conversations
from job.inference.transformers_engine import TransformersEngine
from job.storage.folders import publish_folder
from job.storage.open import list_inputs, open_store, read_uri
from job.storage.places import cache_folder, work_folder
from job.telemetry import event, progress

TUNED, BASE, GIVEN = "tuned", "base without adapter", "given summaries"


def run_evaluation(config: EvaluateConfig) -> Evaluation:
    """Score, and publish the result with its manifest last; replaces what an earlier evaluation left there."""
    everything = read_strictly(list_inputs(as_list(config.input), config.storage), config.data)
    chosen = choose_conversations(everything, config.evaluation.max_conversations)
    train_references = _train_references(config)
    if config.summaries:
        conversations = clean_all(chosen, resolve_steps(config.data, everything))
        systems = _given(config, everything, conversations)
    else:
        loaded = open_adapter(str(config.adapter), config.model, config.storage, cache_folder())
        conversations = clean_all(chosen, cleaning_of(loaded.prompt, config.data))
        systems = _generated(config, loaded, conversations)
    evaluation = evaluate(systems, conversations, config.evaluation, train_references)
    with work_folder(config.run) as work:
        folder = work / "evaluation"
        write_report(folder, evaluation, choose_examples(conversations, systems), None, f"Evaluation {config.run}")
        (folder / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=2) + "\n", encoding="utf-8")
        (folder / "summaries.jsonl").write_text("".join(_lines(conversations, systems)), encoding="utf-8")
        store = open_store(config.output, config.storage)
        publish_folder(folder, store, "", {"run": config.run, "adapter": config.adapter, "summaries": config.summaries})
    event("evaluated", report=f"{store.uri}/report.html")
    return evaluation


def _train_references(config: EvaluateConfig) -> list[str] | None:
    if config.train is None:
        return None
    train = read_strictly(list_inputs(as_list(config.train), config.storage), config.data)
    return [text for conversation in train for text in conversation.references]


def _given(
    config: EvaluateConfig, everything: Sequence[Conversation], conversations: Sequence[Conversation]
) -> dict[str, list[str]]:
    """The file must fit all conversations, also where only some of them are scored."""
    assert config.summaries is not None
    lines = read_uri(config.summaries, config.storage).splitlines()
    summaries = read_summaries(lines, config.summaries, everything)
    return {GIVEN: [summaries[conversation.id] for conversation in conversations]}


def _generated(
    config: EvaluateConfig, loaded: LoadedModel, conversations: Sequence[Conversation]
) -> dict[str, list[str]]:
    systems = {TUNED: _summarize(TUNED, loaded, config, conversations)}
    if config.evaluation.base_without_adapter:
        with loaded.model.disable_adapter():
            systems[BASE] = _summarize(BASE, loaded, config, conversations)
    return systems


def _summarize(
    system: str, loaded: LoadedModel, config: EvaluateConfig, conversations: Sequence[Conversation]
) -> list[str]:
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    with progress(f"summarizing ({system})", len(conversations), "conversation") as bar:
        encoding = loaded.prompt, loaded.tokenizer
        return summarize_conversations(conversations, engine, encoding, config.generation, bar.advance)


def _lines(conversations: Sequence[Conversation], systems: dict[str, list[str]]) -> Iterator[str]:
    """One JSON line per conversation: the judged system's summary, the references, and the other systems'."""
    judged, *others = systems
    for row, conversation in enumerate(conversations):
        line: dict[str, Any] = {"id": conversation.id, "summary": systems[judged][row]}
        line |= {"references": conversation.references, "others": {name: systems[name][row] for name in others}}
        yield json.dumps(line, ensure_ascii=False) + "\n"
