"""The report of an evaluation: one HTML page that stands alone, and the loss curve.

Purpose: an evaluation, some examples and the loss history in; `report.html` (no outside assets, light and dark) and
`loss.png` out. Everything that comes from conversations or models is escaped. Knows nothing of where the folder goes.
"""

import random
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from job.conversations.record import Conversation
from job.errors import OutputError
from job.evaluation.bootstrap import Interval
from job.evaluation.charts import LossHistory, LossPictures, dot_chart, loss_pictures
from job.evaluation.metrics import AGGREGATIONS, METRIC_LABELS, METRICS
from job.evaluation.result import (
    HEADLINE,
    HOW_TO_SCORE,
    Evaluation,
    NotScored,
    comparison_sentence,
    other_systems,
    ranked_systems,
    verdict,
    warnings,
)
from job.printable import visible
from job.telemetry import warn

# Every text is escaped. Should one not be, the browser still runs no script and fetches nothing.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# Of a text that was not cleaned: HTML shows them as blanks, `visible` would as escapes.
BLANKS = str.maketrans("\t\r", "  ")
VERDICT_CLASSES = {"beats": "beats", "loses to": "loses"}


@dataclass(frozen=True)
class Example:
    """One conversation with the systems' summaries of it, by the systems' names."""

    conversation: Conversation
    summaries: Mapping[str, str]


def choose_examples(
    conversations: Sequence[Conversation],
    systems: Mapping[str, Sequence[str]],
    count: int = 5,
    seed: int = 0,
) -> list[Example]:
    """Examples drawn at random, in order, so that nobody picks the nice ones; only conversations with references."""
    able = [row for row, conversation in enumerate(conversations) if conversation.references]
    rows = sorted(random.Random(seed).sample(able, min(count, len(able))))
    return [
        Example(conversations[row], {name: given[row] for name, given in systems.items()})
        for row in rows
    ]


def write_report(
    folder: Path,
    evaluation: Evaluation | NotScored,
    examples: Sequence[Example],
    loss_history: LossHistory | None,
    title: str,
) -> None:
    """Write `report.html`, and `loss.png` where there is a loss history, into the folder.

    Creates the folder. Logs a warning where the pictures fail, and writes the page without them. Raises
    OutputError where the folder cannot be written.
    """
    pictures = _pictures(loss_history) if loss_history else None
    page = report_page(evaluation, examples, pictures, title)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(page, encoding="utf-8")
        if pictures:
            (folder / "loss.png").write_bytes(pictures.light)
    except OSError as error:
        raise OutputError(
            f"{folder}: the report cannot be written ({error.strerror}); free space or give another folder"
        ) from error


def _pictures(history: LossHistory) -> LossPictures | None:
    try:
        return loss_pictures(history)
    except (
        Exception
    ) as error:  # of matplotlib: a cache that it cannot write, fonts that are damaged
        why = f"{type(error).__name__}: {error}"
        warn("the loss could not be drawn; the report has no picture", why=why)
        return None


def report_page(
    evaluation: Evaluation | NotScored,
    examples: Sequence[Example],
    pictures: LossPictures | None,
    title: str,
) -> str:
    """Return the whole page as HTML; without scores it has the reason and the loss alone."""
    style = files("job.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    loss = _loss(pictures) if pictures else ""
    if isinstance(evaluation, NotScored):
        parts = [_reason(evaluation, title), loss]
    else:
        parts = [
            _headline(evaluation, title),
            _scores(evaluation),
            loss,
            _examples(evaluation, examples) if examples else "",
            _method(evaluation),
        ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main></body></html>\n"
    )
    return visible(page.translate(BLANKS))


def _reason(reason: NotScored, title: str) -> str:
    return (
        f"<header><h1>{escape(title)}</h1></header>"
        f'<p class="warning">The adapter has no scores: {escape(reason.why)}. {escape(HOW_TO_SCORE)}</p>'
        f'<p class="note">{escape(reason.detail)}</p>'
    )


def _headline(evaluation: Evaluation, title: str) -> str:
    cards = []
    for name in other_systems(evaluation):
        difference = evaluation.differences[name][HEADLINE]["mean"]
        sentence = escape(comparison_sentence(evaluation, name)).replace(
            ", ", ",&nbsp;"
        )  # an interval stays whole
        kind = VERDICT_CLASSES.get(verdict(evaluation, name), "open")
        cards.append(f'<div class="card {kind}"><b>{difference.mean:+.2f}</b>{sentence}.</div>')
    notes = "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings(evaluation))
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="lede">{evaluation.conversations:,} conversations, {evaluation.references:,} reference summaries. '
        f"Differences are in ROUGE-L, with 95% intervals, paired over the same conversations.</p></header>"
        f'<div class="verdicts">{"".join(cards)}</div>{notes}'
    )


def _scores(evaluation: Evaluation) -> str:
    every = "".join(
        f'<h3 style="margin-top:20px">{escape(name)}</h3>{_aggregations_table(evaluation, name)}'
        for name in ranked_systems(evaluation)
    )
    return (
        f'<h2>Scores</h2><div class="card"><figure>{dot_chart(evaluation)}'
        "<figcaption>ROUGE-L F-measure, mean over each conversation's references; the line is the 95% interval of the "
        f'mean over conversations.</figcaption></figure></div><div class="card"><div class="scroll">'
        f"{_score_table(evaluation)}</div><details><summary>Against the first, mean and best reference</summary>"
        f'<div class="scroll">{every}</div></details></div>'
    )


def _score_table(evaluation: Evaluation) -> str:
    names = ranked_systems(evaluation)
    best = {
        metric: max(evaluation.systems[name].scores[metric]["mean"].mean for name in names)
        for metric in METRICS
    }
    rows = []
    for name in names:
        system = evaluation.systems[name]
        cells = "".join(_cell(system.scores[metric]["mean"], best[metric]) for metric in METRICS)
        rows.append(
            f'<tr class="{_kind(evaluation, name)}"><td>{escape(name)}</td>{cells}'
            f"<td>{system.words.mean:.1f}<small>{system.words.p10:.0f} to {system.words.p90:.0f}</small></td>"
            f"<td>{system.empty_summaries}</td><td>{system.most_common_share:.0%}</td></tr>"
        )
    lengths = evaluation.reference_words
    rows.append(
        f"<tr><td>references</td>{'<td></td>' * len(METRICS)}<td>{lengths.mean:.1f}"
        f"<small>{lengths.p10:.0f} to {lengths.p90:.0f}</small></td><td></td><td></td></tr>"
    )
    heads = "".join(f"<th>{METRIC_LABELS[metric]}</th>" for metric in METRICS)
    return (
        f"<table><thead><tr><th>System</th>{heads}<th>Words</th><th>Empty</th><th>Same summary</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _aggregations_table(evaluation: Evaluation, name: str) -> str:
    scores = evaluation.systems[name].scores
    rows = "".join(
        f"<tr><td>{'mean of the references' if aggregation == 'mean' else f'{aggregation} reference'}</td>"
        + "".join(_cell(scores[metric][aggregation], None) for metric in METRICS)
        + "</tr>"
        for aggregation in AGGREGATIONS
    )
    heads = "".join(f"<th>{METRIC_LABELS[metric]}</th>" for metric in METRICS)
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(interval: Interval, best: float | None) -> str:
    mark = ' class="best"' if interval.mean == best else ""
    return f"<td{mark}>{interval.mean:.3f}<small>{interval.low:.3f} to {interval.high:.3f}</small></td>"


def _loss(pictures: LossPictures) -> str:
    light, dark = (b64encode(picture).decode() for picture in pictures)
    return (
        '<h2>Training</h2><div class="card"><figure><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        f'<img alt="Training and validation loss over optimizer steps" src="data:image/png;base64,{light}">'
        "</picture></figure></div>"
    )


def _examples(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    return '<h2>Examples</h2><p class="note">Drawn at random, not chosen.</p>' + "".join(
        _example(evaluation, example) for example in examples
    )


def _example(evaluation: Evaluation, example: Example) -> str:
    talk = "".join(
        f'<div class="who">{escape(turn.role)}</div><p>{escape(turn.text)}</p>'
        for turn in example.conversation.turns
    )
    references = "".join(f"<p>{escape(text)}</p>" for text in example.conversation.references)
    many = "references" if len(example.conversation.references) > 1 else "reference"
    said = [
        f'<div class="summary {_kind(evaluation, name)}"><div class="who">{escape(name)}</div>'
        f"<p>{escape(text) or '<em>(empty)</em>'}</p></div>"
        for name, text in example.summaries.items()
    ]
    return (
        f'<section class="card example"><h3>{escape(example.conversation.id)}</h3><div class="talk">{talk}</div>'
        f'<div>{"".join(said)}<div class="summary"><div class="who">{many}</div>{references}</div></div></section>'
    )


def _kind(evaluation: Evaluation, name: str) -> str:
    return "judged" if name == evaluation.judged else "other"


def _method(evaluation: Evaluation) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in evaluation.versions.items())
    facts = {
        "Conversations": f"{evaluation.conversations:,} scored; {evaluation.conversations_without_reference:,} left "
        "out because they have no reference",
        "Score": f"ROUGE F-measure of words as the tokenizer {evaluation.tokenizer} cuts them, "
        "those of a-z by their Porter stems; ROUGE-Lsum by sentences. A conversation's score is "
        "the mean over its references",
        "Intervals": f"95%, percentile bootstrap over conversations, {evaluation.bootstrap_samples:,} resamples, seed "
        f"{evaluation.seed}. Differences are paired: both systems on the same resampled conversations",
        "Words": "per summary, mean and 10th to 90th percentile; signs in scripts without spaces",
        "Same summary": "share of the conversations that got the system's most common summary; a model that no longer "
        "reads shows here",
        **{f"Floor: {name}": text for name, text in evaluation.floors_from.items()},
        "Limits": "ROUGE counts shared words. It does not see whether a summary is true; read the examples too",
        "Versions": versions,
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}.</dd>" for name, text in facts.items()
    )
    return f'<h2>How it was measured</h2><div class="card"><dl>{rows}</dl></div>'
