"""The page of a model card: what an adapter is, how good it is, how to use it, how it was made.

Floors and bad news are part of it. It quotes no text of a conversation or a summary.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from job.config.sections import to_plain
from job.evaluation.card.facts import CardFacts, code_of, data_name, fenced, text_of, yaml_of
from job.evaluation.card.metadata import front_matter
from job.evaluation.card.usage import usage
from job.evaluation.floors import CONSTANT
from job.evaluation.gate import GateResult
from job.evaluation.metrics.all_metrics import HEADLINE, available_metrics, quality_metrics
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    HOW_TO_SCORE,
    LEAD,
    Evaluation,
    NotScored,
    comparison_sentence,
    mean_score,
    metric_title,
    model_sentences,
    other_systems,
    ranked_systems,
    size_phrase,
    warnings,
)
from job.evaluation.worth import worth
from job.inference.serving import Serving
from job.printable import visible

FLOORS = (
    f"The {CONSTANT} is one fixed reference, the one that suits the others best: a model that no "
    f"longer reads the conversation scores about as much. {LEAD} is the first two turns as "
    "written. Scores are means over the conversations, and over the references of each where there "
    "are several. In brackets stands the 95% interval of the mean over conversations."
)
LIMITS = (
    "Most scores count words that a summary shares with a reference. They do not see whether it is "
    "true: read summaries before you rely on them, and expect worse where conversations are "
    "longer, in another language or about other things than those it was trained on. Summaries "
    "can name people, orders or accounts that stand in the conversation. Text in a conversation "
    "can try to steer its summary."
)

LIMITS_OF_A_REWARD_MODEL = (
    "A score says which of two summaries of one conversation people would rather have, by the "
    "pairs that it was trained on. Scores of different conversations do not compare, and a summary "
    "that is chosen for its score may please and be wrong. It prefers lengths and phrases that "
    "people preferred: look at what it chooses before you rely on it. Text in a conversation can "
    "try to steer its score."
)


def model_card(facts: CardFacts, evaluation: Evaluation | NotScored) -> str:
    """Return the whole README.md; without scores, it has the reason why."""
    paragraphs = [
        f"---\n{yaml_of(front_matter(facts, evaluation))}---",
        f"# {text_of(facts.config.run)}",
        _introduction(facts),
        "## How good it is",
        *_scores(facts, evaluation),
        "## How to use it",
        usage(facts),
        "## What it was trained on",
        _data(facts),
        "## How it was trained",
        *_recipe(facts),
        "## Limits",
        LIMITS if facts.reward is None else LIMITS_OF_A_REWARD_MODEL,
        _license(facts),
    ]
    return visible("\n\n".join(paragraphs) + "\n")


def _introduction(facts: CardFacts) -> str:
    base = code_of(facts.base_name)
    if facts.is_base_on_hub:
        base += f" at revision {code_of(facts.base['revision'])}"
    if facts.reward is not None:
        return (
            f"A reward model: a LoRA adapter with a head that makes {base} score summaries of "
            "conversations. It writes none. It was trained by recap."
        )
    if facts.merged is None:
        return f"A LoRA adapter that makes {base} summarize conversations. It was trained by recap."
    return (
        f"Weights of 16 bits ({facts.merged.dtype}) that summarize conversations: {base} with a "
        f"LoRA adapter merged into it, which was trained by recap. {facts.merged.agreement}. The "
        "scores below are those of the adapter beside its base."
    )


def _scores(facts: CardFacts, evaluation: Evaluation | NotScored) -> list[str]:
    if facts.reward is not None:
        verdict, *numbers = map(text_of, facts.reward)
        return [verdict, "\n".join(f"- {line}" for line in numbers)]
    if isinstance(evaluation, NotScored):
        why = f"This adapter has no scores: {text_of(evaluation.why)}. {HOW_TO_SCORE}"
        return [_warning(why), *_gate(facts.gate)]

    notes = [_warning(text_of(text)) for text in warnings(evaluation, quoting=False)]
    comparisons = [
        f"- {text_of(comparison_sentence(evaluation, name))}." for name in other_systems(evaluation)
    ]
    metrics = available_metrics(evaluation.models)
    scores = quality_metrics(evaluation.models)
    found = worth(evaluation, facts.gate)  # as in the report
    sentence = text_of(found.sentence)
    return [
        sentence if found.kind == "good" else _warning(sentence),
        *notes,
        *_gate(facts.gate),
        f"On {size_phrase(evaluation)}, by {HEADLINE.title}:",
        "\n".join(comparisons),
        _table(evaluation, scores),
        f"References have {evaluation.reference_words.mean:.1f} words on average. {FLOORS} "
        f"Words are cut by the tokenizer {code_of(evaluation.tokenizer)} (of a-z: Porter stems).",
        *(text_of(sentence) for sentence in model_sentences(evaluation)),
        *_signs(evaluation, [metric for metric in metrics if metric not in scores]),
        *_serving(evaluation),
    ]


def _table(evaluation: Evaluation, metrics: Sequence[Metric]) -> str:
    heads = " | ".join(text_of(metric_title(evaluation, metric)) for metric in metrics)
    lines = [f"| | {heads} | words |", "|---" + "|---:" * (len(metrics) + 1) + "|"]
    for name in ranked_systems(evaluation):
        cells = " | ".join(_cell(evaluation, name, metric) for metric in metrics)
        words = evaluation.systems[name].words.mean
        lines.append(f"| {_label(evaluation, name)} | {cells} | {words:.1f} |")
    return "\n".join(lines)


def _signs(evaluation: Evaluation, metrics: Sequence[Metric]) -> list[str]:
    """Return the table of all that is no score, a metric a line, if there is any."""
    names = ranked_systems(evaluation)
    lines = [
        "| | " + " | ".join(_label(evaluation, name) for name in names) + " |",
        "|---" + "|---:" * len(names) + "|",
    ]
    explained = []
    for metric in metrics:
        scores = [mean_score(evaluation, name, metric) for name in names]
        cells = [f"{score.mean:.3f}" if score else "" for score in scores]
        if any(cells):
            title = text_of(metric_title(evaluation, metric))
            lines.append(f"| {title} | {' | '.join(cells)} |")
            explained.append(f"- {title}: {text_of(metric.about)}")
    if not explained:
        return []
    return ["Form, and what the conversation does not say:", "\n".join(lines), "\n".join(explained)]


def _cell(evaluation: Evaluation, name: str, metric: Metric) -> str:
    score = mean_score(evaluation, name, metric)
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else ""


def _label(evaluation: Evaluation, name: str) -> str:
    return f"**{text_of(name)}**" if name == evaluation.judged else text_of(name)


def _serving(evaluation: Evaluation) -> list[str]:
    """Return the settings by which each system generated the summaries that were scored."""
    lines = []
    for name in ranked_systems(evaluation):
        serving = evaluation.systems[name].serving
        if serving is not None:
            settings = Serving.from_json(dict(serving)).text()
            lines.append(f"- {_label(evaluation, name)}: {text_of(settings)}")
    return ["Scored as it serves. A night takes these settings:", "\n".join(lines)] if lines else []


def _gate(gate: GateResult | None) -> list[str]:
    """Return the verdict of the gate with what it demanded, if there is a gate."""
    if gate is None:
        return []
    checks = [f"- {text_of(check.sentence)}." for check in gate.checks]
    verdict_of_gate = f"{text_of(gate.verdict())}."
    first = f"**Gate:** {verdict_of_gate}" if gate.passed else _warning(verdict_of_gate)
    return [first, "\n".join(checks)] if checks else [first]


def _data(facts: CardFacts) -> str:
    rows = ["| split | data | conversations | SHA-256 of the content |", "|---|---|---:|---|"]
    for split in facts.splits:
        names = text_of(", ".join(map(data_name, split.uris)))
        rows.append(f"| {split.name} | {names} | {split.conversations:,} | `{split.digest}` |")
    return "\n".join(rows)


def _recipe(facts: CardFacts) -> list[str]:
    config = facts.config
    sections = {
        "model": config.model,
        "lora": config.lora,
        "training": config.training,
        "prompt": config.prompt,
        "generation": config.generation,
    }
    shown = {name: to_plain(section) for name, section in sections.items()}
    # The card has both above, as they were resolved.
    del shown["model"]["base"], shown["model"]["revision"]
    if facts.reward is not None:
        del shown["generation"]
    if facts.start:
        del shown["prompt"]  # it is that of the other adapter, and below
    sentences = [f"The base's weights have the digest `{facts.base.get('digest')}`."]
    if facts.start:
        sentences.append(f"Training started from the {text_of(facts.start)}.")
    if facts.weights:
        sentences.append(f"In memory, {facts.weights.sentence()}.")
    if facts.reload:
        sentences.append(f"The adapter was {text_of(facts.reload)}.")
    prompt = json.dumps(asdict(facts.prompt), ensure_ascii=False, indent=2)
    versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    return [
        " ".join(sentences),
        fenced("yaml", yaml_of(shown)),
        "`prompt.json`:",
        fenced("json", prompt),
        f"Versions: {text_of(versions)}.",
    ]


def _license(facts: CardFacts) -> str:
    if facts.license is None:
        return (
            "It is not known under which license the base is. The license of the base applies, and "
            "`publish.license` names it on this card."
        )
    name = facts.license.name or facts.license.id
    return f"License: {text_of(name)}. The license of the base applies as well."


def _warning(text: str) -> str:
    return f"> **Warning:** {text}"
