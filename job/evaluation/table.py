"""An evaluation as a table for the terminal, in plain text of at most 100 columns.

A line for each system: the scores that fit, in the order of the metrics; then the shares that
should be small.
"""

from textwrap import wrap
from typing import Any

from job.evaluation.metrics.all_metrics import (
    HEADLINE,
    available_metrics,
    first_metrics,
    quality_metrics,
)
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    MIN_OF_A_SHARE,
    Evaluation,
    best_score,
    comparison_sentence,
    mean_score,
    model_sentences,
    other_systems,
    ranked_systems,
    shorten,
    size_phrase,
    warnings,
)
from job.inference.serving import Serving

MAX_COLUMNS = 100
ARROW_COLUMNS = 2
NAME_COLUMNS = 20
SCORE_COLUMNS = 14
WORDS_COLUMNS = 7
SHARE_COLUMNS = 9
ROOM = MAX_COLUMNS - ARROW_COLUMNS - NAME_COLUMNS


def score_table(evaluation: Evaluation) -> str:
    """Return the systems with their scores (± half of the 95% interval) and words per summary.

    The best system comes first, and a star marks each column's best score. Shares, sentences and
    warnings follow. More metrics than fit are left out, never HEADLINE.
    """
    systems = ranked_systems(evaluation)
    lines = [
        f"{size_phrase(evaluation)}; mean over the references ± 95%; * is the best, people aside",
        "",
        *_scores(evaluation, systems),
        "",
        *_shares(evaluation, systems),
        "",
        f"By {HEADLINE.title} (tokenizer {evaluation.tokenizer}):",
    ]
    texts = [f"  {comparison_sentence(evaluation, name)}" for name in other_systems(evaluation)]
    texts += [f"! {warning}" for warning in warnings(evaluation)]
    texts += [f"  {sentence}" for sentence in model_sentences(evaluation)]
    texts += [f"  {sentence}" for sentence in _servings(evaluation)]
    departs = "Not served by the settings of the adapter"
    texts += [f"! {departs}: {each}." for each in evaluation.departures]
    for text in texts:
        lines += wrap(text, MAX_COLUMNS, subsequent_indent="    ")
    return "\n".join(lines)


def _servings(evaluation: Evaluation) -> list[str]:
    """Return how the judged system was generated, and each other one that was so otherwise."""
    sentences = []
    seen: list[Any] = []
    for name in [evaluation.judged, *other_systems(evaluation)]:
        serving = evaluation.systems[name].serving
        if serving is not None and serving not in seen:
            seen.append(serving)
            settings = Serving.from_json(dict(serving)).text()
            sentences.append(f"{name} was generated with {settings}.")
    return sentences


def shown_scores(evaluation: Evaluation) -> tuple[Metric, ...]:
    """Return the metrics of the table's columns: as many of the evaluation's as fit."""
    count = (ROOM - WORDS_COLUMNS) // SCORE_COLUMNS
    return first_metrics(count, quality_metrics(evaluation.models))


def shown_shares(evaluation: Evaluation) -> tuple[Metric, ...]:
    """Return the metrics of which less is better, as many as fit, if any system has a value."""
    measured = {name for system in evaluation.systems.values() for name in system.scores}
    guards = [
        metric
        for metric in available_metrics(evaluation.models)
        if metric.direction == "lower" and metric.unit == "share" and metric.name in measured
    ]
    return tuple(guards[: ROOM // SHARE_COLUMNS])


def _scores(evaluation: Evaluation, systems: list[str]) -> list[str]:
    metrics = shown_scores(evaluation)
    titles = "".join(f"{metric.short_title:>{SCORE_COLUMNS}}" for metric in metrics)
    lines = [f"  {'':{NAME_COLUMNS}}{titles}{'words':>{WORDS_COLUMNS}}"]
    for name in systems:
        cells = "".join(_score(evaluation, name, metric) for metric in metrics)
        words = evaluation.systems[name].words.mean
        lines += _row(evaluation, name, f"{cells}{words:>{WORDS_COLUMNS}.1f}")
    return lines


def _shares(evaluation: Evaluation, systems: list[str]) -> list[str]:
    metrics = shown_shares(evaluation)
    titles = "".join(f"{metric.short_title:>{SHARE_COLUMNS}}" for metric in metrics)
    lines = [f"{'% (less is better)':<{ARROW_COLUMNS + NAME_COLUMNS}}{titles}"]
    for name in systems:
        cells = "".join(_share(evaluation, name, metric) for metric in metrics)
        lines += _row(evaluation, name, cells)
    return lines


def _row(evaluation: Evaluation, name: str, cells: str) -> list[str]:
    """Return the line of a system. A name that is too long for its column has a line of its own."""
    arrow = "> " if name == evaluation.judged else "  "
    label = f"{arrow}{shorten(name, MAX_COLUMNS - ARROW_COLUMNS)}"
    width = ARROW_COLUMNS + NAME_COLUMNS
    if len(label) <= width:
        return [f"{label:<{width}}{cells}"]
    return [label, f"{'':{width}}{cells}"]


def _score(evaluation: Evaluation, name: str, metric: Metric) -> str:
    score = mean_score(evaluation, name, metric)
    if score is None:
        return f"{'- ':>{SCORE_COLUMNS}}"
    star = "*" if score.mean == best_score(evaluation, metric) else " "
    spread = f"±{(score.high - score.low) / 2:.3f}" if score.is_known else "     -"
    return f"{f'{score.mean:.3f} {spread}{star}':>{SCORE_COLUMNS}}"


def _share(evaluation: Evaluation, name: str, metric: Metric) -> str:
    share = mean_score(evaluation, name, metric)
    if share and share.conversations < min(MIN_OF_A_SHARE, evaluation.conversations):
        share = None  # a share of a handful would look like one of all
    return f"{'-' if share is None else f'{100 * share.mean:.1f}':>{SHARE_COLUMNS}}"
