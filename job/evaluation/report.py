"""The report of a training or an evaluation: one HTML page that needs nothing else.

Text and numbers are chosen here, and report.html says where they stand. All text from conversations
and models is escaped by `job.pages`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DamagedError
from job.evaluation.charts import (
    History,
    difference_plot,
    length_chart,
    measured_metrics,
    score_plot,
    selection_plot,
    training_charts,
)
from job.evaluation.gallery import gallery
from job.evaluation.gate import GateResult
from job.evaluation.metrics.all_metrics import HEADLINE
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    HOW_TO_SCORE,
    Evaluation,
    NotScored,
    comparison_sentence,
    metric_title,
    model_sentences,
    other_systems,
    size_phrase,
    warnings,
)
from job.evaluation.score_table import ARROWS, aggregation_rows, columns, score_rows
from job.evaluation.selection import SelectionCurve
from job.evaluation.systems import Scored
from job.evaluation.win_rate import PairsResult, pairs_table
from job.evaluation.worth import Worth, worth
from job.inference.serving import Serving
from job.model.quantization import WeightsInMemory
from job.pages.charts import Table
from job.pages.render import render
from job.storage.atomic import writing

FILE = "report.html"


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows.

    `weights` is what of the base was in memory, `plan` what was planned and what the run did, and
    `data` has lines about the data, by title. `verdict` stands in place of that of scores.
    """

    title: str
    result: Scored | NotScored
    gate: GateResult | None = None
    history: History | None = None
    selection: SelectionCurve | None = None
    weights: WeightsInMemory | None = None
    plan: Table | None = None
    data: Sequence[tuple[str, Sequence[str]]] = ()
    verdict: Worth | None = None


def write_report(folder: Path, content: ReportContent) -> None:
    """Write `report.html` into the folder, and create the folder.

    Raise OutputError if the folder cannot be written.
    """
    page = report_page(content)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(page, encoding="utf-8")


def report_page(content: ReportContent) -> str:
    """Return the whole page as HTML; without scores, the reason and the curves alone."""
    values: dict[str, Any] = {
        "title": content.title,
        "gate": content.gate,
        "curves": training_charts(content.history or []),
        "plan": content.plan,
        "data": content.data,
        "selection": content.selection,
        "selection_plot": selection_plot(content.selection) if content.selection else None,
        "scored": None,
        "pairs": None,
    }
    if isinstance(content.result, NotScored):
        values |= {"verdict": content.verdict or _no_verdict(content.result), "lede": ""}
    else:
        values |= _scored_values(content, content.result)
    return render("job.evaluation", FILE, **values)


def _no_verdict(reason: NotScored) -> Worth:
    context = [HOW_TO_SCORE, reason.detail]
    return Worth("open", f"Nobody can tell, as the adapter has no scores: {reason.why}.", context)


def _scored_values(content: ReportContent, scored: Scored) -> dict[str, Any]:
    evaluation = scored.evaluation
    metrics = measured_metrics(evaluation)
    names = [metric.name for metric in metrics]
    headline = content.gate.metric if content.gate else HEADLINE.name
    if headline not in names:
        headline = names[0]
    guards = _guards(content.gate)
    return {
        "verdict": worth(evaluation, content.gate),
        "lede": f"{size_phrase(evaluation)}. Intervals are 95%; differences are paired over the "
        "same conversations.",
        "departures": evaluation.departures,
        "warnings": warnings(evaluation),
        "scored": evaluation,
        "pairs": _pairs(evaluation),
        "served_as": _served_as(evaluation),
        "headline": headline,
        "plots": [
            (metric, score_plot(evaluation, metric), difference_plot(evaluation, metric))
            for metric in metrics
        ],
        "choices": [(metric.name, metric_title(evaluation, metric)) for metric in metrics],
        "comparisons": [
            comparison_sentence(evaluation, name) for name in other_systems(evaluation)
        ],
        "headline_title": HEADLINE.title,
        "columns": columns(evaluation),
        "rows": score_rows(evaluation, metrics, guards),
        "aggregations": aggregation_rows(evaluation, metrics),
        "lengths": length_chart(scored),
        "gallery": gallery(scored),
        "systems": _systems(evaluation),
        "method": _method(evaluation, content.weights),
        "glossary": [(metric_title(evaluation, metric), _meaning(metric)) for metric in metrics],
        "models": model_sentences(evaluation),
    }


def _pairs(evaluation: Evaluation) -> Table | None:
    """Return the comparison on held-out pairs, if there is one."""
    if evaluation.pairs is None:
        return None
    return pairs_table(PairsResult.from_json(evaluation.pairs), evaluation.judged)


def _guards(gate: GateResult | None) -> Collection[str]:
    return {check.metric for check in gate.checks if check.rule == "guard"} if gate else ()


def _served_as(evaluation: Evaluation) -> str:
    serving = evaluation.systems[evaluation.judged].serving
    return _serving_text(serving) if serving else ""


def _serving_text(plain: Any) -> str:
    try:
        return Serving.from_json(plain).text()
    except DamagedError:
        # Of another version of recap: its values are still worth reading.
        return "; ".join(f"{name} {value}" for name, value in dict(plain).items())


def _systems(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return where each system's summaries come from, and how they were generated."""
    found = []
    for name, system in evaluation.systems.items():
        parts = [system.origin or "not recorded"]
        if system.serving:
            parts.append(_serving_text(system.serving))
        found.append((name, ". Settings: ".join(parts)))
    return found


def _meaning(metric: Metric) -> str:
    _, direction = ARROWS[metric.direction]
    bounds = f"{metric.low:g} to {metric.high:g}" if metric.high < float("inf") else "from 0"
    if metric.low == -float("inf"):
        bounds = "any number"
    return f"{metric.about} Range {bounds}; {direction}."


def _method(evaluation: Evaluation, weights: WeightsInMemory | None) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number}" for name, number in evaluation.versions.items())
    facts = {
        "Conversations": f"{evaluation.conversations:,} scored; "
        f"{evaluation.conversations_without_reference:,} left out because they have no reference",
        "Scores": "a conversation's score is the mean over its references, and a system's the mean "
        f"over conversations. Words are cut by the tokenizer {evaluation.tokenizer}; those of a-z "
        "count by their Porter stems",
        "Intervals": "95%, studentized bootstrap over conversations, "
        f"{evaluation.bootstrap_samples:,} resamples, seed {evaluation.seed}. Differences are "
        "paired: both systems on the same resampled conversations. Shares of conversations have "
        "Wilson's intervals, and their differences those of Bonett and Price",
        "Share of the most common summary": "of the conversations that got one and the same text; "
        "a model that no longer reads shows here",
        "Limits": "a metric that compares with references counts what they share. It does not see "
        "whether a summary is true; read the conversations too",
        **({"Weights": weights.sentence()} if weights else {}),
        "Versions": versions,
    }
    return [(name, f"{text}.") for name, text in facts.items()]
