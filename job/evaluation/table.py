"""An evaluation as a table for the terminal, in plain text of at most 100 columns."""

from textwrap import wrap

from job.evaluation.metrics.all_metrics import HEADLINE, first_metrics
from job.evaluation.result import (
    Evaluation,
    best_score,
    comparison_sentence,
    mean_score,
    model_sentences,
    other_systems,
    ranked_systems,
    shorten,
    warnings,
)

MAX_COLUMNS = 100
ARROW_COLUMNS = 2
NAME_COLUMNS = 24
SCORE_COLUMNS = 16
WORDS_COLUMNS = 7
ROOM_FOR_SCORES = MAX_COLUMNS - ARROW_COLUMNS - NAME_COLUMNS - WORDS_COLUMNS
SHOWN_METRICS = first_metrics(ROOM_FOR_SCORES // SCORE_COLUMNS)


def score_table(evaluation: Evaluation) -> str:
    """Return the systems with their scores (± half of the 95% interval) and words per summary.

    The best system comes first, and a star marks each column's best score. Sentences and warnings
    follow the table. More metrics than fit are left out, never HEADLINE.
    """
    titles = "".join(f"{metric.short_title:>{SCORE_COLUMNS}}" for metric in SHOWN_METRICS)
    lines = [
        f"{evaluation.conversations} conversations, {evaluation.references} references; "
        "mean over the references ± 95%",
        "",
        f"  {'':{NAME_COLUMNS}}{titles}{'words':>{WORDS_COLUMNS}}",
    ]
    lines += [_row(evaluation, name) for name in ranked_systems(evaluation)]
    label_columns = NAME_COLUMNS + len(SHOWN_METRICS) * SCORE_COLUMNS
    words = evaluation.reference_words.mean
    lines.append(f"  {'(references)':<{label_columns}}{words:>{WORDS_COLUMNS}.1f}")

    lines += ["", f"By {HEADLINE.title} (tokenizer {evaluation.tokenizer}):"]
    texts = [f"  {comparison_sentence(evaluation, name)}" for name in other_systems(evaluation)]
    texts += [f"! {warning}" for warning in warnings(evaluation)]
    texts += [f"  {sentence}" for sentence in model_sentences(evaluation)]
    for text in texts:
        lines += wrap(text, MAX_COLUMNS, subsequent_indent="    ")
    return "\n".join(lines)


def _row(evaluation: Evaluation, name: str) -> str:
    system = evaluation.systems[name]
    arrow = "> " if name == evaluation.judged else "  "
    cells = ""
    for metric in SHOWN_METRICS:
        score = mean_score(evaluation, name, metric)
        if score is None:
            cells += f"{'':{SCORE_COLUMNS}}"
            continue
        star = "*" if score.mean == best_score(evaluation, metric) else " "
        cell = f"{score.mean:.3f} ±{(score.high - score.low) / 2:.3f}{star}"
        cells += f"{cell:>{SCORE_COLUMNS}}"
    label = f"{shorten(name, NAME_COLUMNS):<{NAME_COLUMNS}}"
    return f"{arrow}{label}{cells}{system.words.mean:>{WORDS_COLUMNS}.1f}".rstrip()
