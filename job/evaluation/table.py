"""An evaluation as a table for the terminal: plain monospaced text, at most 100 columns. Knows nothing of HTML."""

from textwrap import wrap

from job.evaluation.metrics import METRICS
from job.evaluation.result import (
    Evaluation,
    comparison_sentence,
    other_systems,
    ranked_systems,
    shorten,
    warnings,
)

_NAME, _SCORE, _WORDS = 24, 16, 7


def score_table(evaluation: Evaluation) -> str:
    """Systems with mean F-measures over the references (± half of the 95% interval) and words per summary.

    The best system comes first and each column's best score carries a star; sentences and warnings stand below.
    """
    ranked = ranked_systems(evaluation)
    best = {metric: max(_mean(evaluation, name, metric) for name in ranked) for metric in METRICS}
    lines = [
        f"{evaluation.conversations} conversations, {evaluation.references} references; mean ROUGE F-measure over the "
        "references ± 95%",
        "",
        f"{'':2}{'':{_NAME}}{'R-1':>{_SCORE}}{'R-2':>{_SCORE}}{'R-L':>{_SCORE}}{'R-Lsum':>{_SCORE}}{'words':>{_WORDS}}",
    ]
    for name in ranked:
        cells = "".join(_cell(evaluation, name, metric, best[metric]) for metric in METRICS)
        arrow = "> " if name == evaluation.judged else "  "
        words = evaluation.systems[name].words.mean
        lines.append(f"{arrow}{shorten(name, _NAME):<{_NAME}}{cells}{words:>{_WORDS}.1f}".rstrip())
    lines.append(
        f"{'':2}{'(references)':<{_NAME + 4 * _SCORE}}{evaluation.reference_words.mean:>{_WORDS}.1f}"
    )
    lines += ["", f"By ROUGE-L (tokenizer {evaluation.tokenizer}):"]
    sentences = [f"  {comparison_sentence(evaluation, name)}" for name in other_systems(evaluation)]
    sentences += [f"! {warning}" for warning in warnings(evaluation)]
    lines += [line for text in sentences for line in wrap(text, 100, subsequent_indent="    ")]
    return "\n".join(lines)


def _mean(evaluation: Evaluation, name: str, metric: str) -> float:
    return evaluation.systems[name].scores[metric]["mean"].mean


def _cell(evaluation: Evaluation, name: str, metric: str, best: float) -> str:
    interval = evaluation.systems[name].scores[metric]["mean"]
    star = "*" if interval.mean == best else " "
    return f"{f'{interval.mean:.3f} ±{(interval.high - interval.low) / 2:.3f}{star}':>{_SCORE}}"
