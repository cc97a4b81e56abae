"""The report of an evaluation: one HTML page that needs nothing else, and the loss curve.

Writes `report.html` (light and dark) and `loss.png`. All text from conversations and models is
escaped.
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
from job.evaluation.metrics.all_metrics import HEADLINE, quality_metrics
from job.evaluation.metrics.metric import BY_REFERENCE
from job.evaluation.result import (
    HOW_TO_SCORE,
    Evaluation,
    NotScored,
    best_score,
    comparison_sentence,
    mean_difference,
    mean_score,
    metric_title,
    model_sentences,
    other_systems,
    ranked_systems,
    verdict,
    warnings,
)
from job.model.quantization import WeightsInMemory
from job.printable import visible
from job.telemetry import warn

# A second defence behind escaping: the browser runs no script and fetches nothing.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# In text that was not cleaned. HTML shows them as blanks, `visible` would as escapes.
BLANKS = str.maketrans("\t\r", "  ")
VERDICT_CLASSES = {"beats": "beats", "loses to": "loses"}
AGGREGATION_TITLES = {
    "first": "first reference",
    "mean": "mean of the references",
    "best": "best reference",
}


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
    """Return a seeded sample of the conversations with references, in order."""
    able = [row for row, conversation in enumerate(conversations) if conversation.references]
    rows = sorted(random.Random(seed).sample(able, min(count, len(able))))
    examples = []
    for row in rows:
        summaries = {name: texts[row] for name, texts in systems.items()}
        examples.append(Example(conversations[row], summaries))
    return examples


def write_report(
    folder: Path,
    evaluation: Evaluation | NotScored,
    examples: Sequence[Example],
    loss_history: LossHistory | None,
    title: str,
    weights: WeightsInMemory | None = None,
) -> None:
    """Write `report.html` into the folder, and `loss.png` if there is a loss history.

    Creates the folder. Logs a warning if the pictures fail, and writes the page without them.
    Raise OutputError if the folder cannot be written.
    """
    pictures = _draw_loss(loss_history) if loss_history else None
    page = report_page(evaluation, examples, pictures, title, weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(page, encoding="utf-8")
        if pictures:
            (folder / "loss.png").write_bytes(pictures.light)
    except OSError as error:
        raise OutputError(
            f"{folder}: the report cannot be written ({error.strerror}); free space or give "
            "another folder"
        ) from error


def report_page(
    evaluation: Evaluation | NotScored,
    examples: Sequence[Example],
    pictures: LossPictures | None,
    title: str,
    weights: WeightsInMemory | None = None,
) -> str:
    """Return the whole page as HTML; without scores, the reason and the loss alone."""
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
            _method(evaluation, weights),
        ]
    body = "\n".join(part for part in parts if part)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )
    return visible(page.translate(BLANKS))


def _draw_loss(history: LossHistory) -> LossPictures | None:
    """Return the pictures; log a warning and return None if they fail."""
    try:
        return loss_pictures(history)
    except Exception as error:
        # matplotlib fails if it cannot write its cache, or a font is damaged.
        why = f"{type(error).__name__}: {error}"
        warn("the loss could not be drawn; the report has no picture", why=why)
        return None


def _reason(reason: NotScored, title: str) -> str:
    return (
        f"<header><h1>{escape(title)}</h1></header>"
        f'<p class="warning">The adapter has no scores: {escape(reason.why)}. '
        f"{escape(HOW_TO_SCORE)}</p>"
        f'<p class="note">{escape(reason.detail)}</p>'
    )


def _headline(evaluation: Evaluation, title: str) -> str:
    cards = []
    for name in other_systems(evaluation):
        by = mean_difference(evaluation, name)
        difference = by.mean if by else 0.0
        sentence = escape(comparison_sentence(evaluation, name))
        sentence = sentence.replace(", ", ",&nbsp;")  # keeps an interval on one line
        kind = VERDICT_CLASSES.get(verdict(evaluation, name), "open")
        cards.append(f'<div class="card {kind}"><b>{difference:+.2f}</b>{sentence}.</div>')
    notes = [f'<p class="warning">{escape(text)}</p>' for text in warnings(evaluation)]
    notes += [f'<p class="note">{escape(text)}</p>' for text in model_sentences(evaluation)]
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="lede">{evaluation.conversations:,} conversations, '
        f"{evaluation.references:,} reference summaries. "
        f"Differences are in {HEADLINE.title}, with 95% intervals, paired over the same "
        "conversations.</p></header>"
        f'<div class="verdicts">{"".join(cards)}</div>{"".join(notes)}'
    )


def _scores(evaluation: Evaluation) -> str:
    tables = []
    for name in ranked_systems(evaluation):
        tables.append(f'<h3 style="margin-top:20px">{escape(name)}</h3>')
        tables.append(_aggregations_table(evaluation, name))
    return (
        f'<h2>Scores</h2><div class="card"><figure>{dot_chart(evaluation)}'
        f"<figcaption>{HEADLINE.title} F-measure, mean over each conversation's references; the "
        "line is the 95% interval of the mean over conversations.</figcaption></figure></div>"
        f'<div class="card"><div class="scroll">{_score_table(evaluation)}</div>'
        "<details><summary>Against the first, mean and best reference</summary>"
        f'<div class="scroll">{"".join(tables)}</div></details></div>'
    )


def _score_table(evaluation: Evaluation) -> str:
    rows = [_score_row(evaluation, name) for name in ranked_systems(evaluation)]
    lengths = evaluation.reference_words
    empty = "<td></td>" * len(quality_metrics(evaluation.models))
    rows.append(
        f"<tr><td>references</td>{empty}<td>{lengths.mean:.1f}"
        f"<small>{lengths.p10:.0f} to {lengths.p90:.0f}</small></td><td></td></tr>"
    )
    heads = _heads(evaluation)
    return (
        f"<table><thead><tr><th>System</th>{heads}<th>Words</th>"
        f"<th>Same summary</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _score_row(evaluation: Evaluation, name: str) -> str:
    system = evaluation.systems[name]
    cells = []
    for metric in quality_metrics(evaluation.models):
        best = best_score(evaluation, metric)
        cells.append(_cell(mean_score(evaluation, name, metric), best))
    words = system.words
    return (
        f'<tr class="{_kind(evaluation, name)}"><td>{escape(name)}</td>{"".join(cells)}'
        f"<td>{words.mean:.1f}<small>{words.p10:.0f} to {words.p90:.0f}</small></td>"
        f"<td>{system.most_common_share:.0%}</td></tr>"
    )


def _aggregations_table(evaluation: Evaluation, name: str) -> str:
    scores = evaluation.systems[name].scores
    rows = []
    for aggregation in BY_REFERENCE:
        cells = [
            _cell(scores.get(metric.name, {}).get(aggregation), None)
            for metric in quality_metrics(evaluation.models)
        ]
        title = AGGREGATION_TITLES[aggregation]
        rows.append(f"<tr><td>{title}</td>{''.join(cells)}</tr>")
    heads = _heads(evaluation)
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _heads(evaluation: Evaluation) -> str:
    titles = [metric_title(evaluation, metric) for metric in quality_metrics(evaluation.models)]
    return "".join(f"<th>{escape(title)}</th>" for title in titles)


def _cell(interval: Interval | None, best: float | None) -> str:
    if interval is None:
        return "<td></td>"
    mark = ' class="best"' if interval.mean == best else ""
    bounds = f"{interval.low:.3f} to {interval.high:.3f}"
    return f"<td{mark}>{interval.mean:.3f}<small>{bounds}</small></td>"


def _loss(pictures: LossPictures) -> str:
    light = b64encode(pictures.light).decode()
    dark = b64encode(pictures.dark).decode()
    return (
        '<h2>Training</h2><div class="card"><figure><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        '<img alt="Training and validation loss over optimizer steps" '
        f'src="data:image/png;base64,{light}"></picture></figure></div>'
    )


def _examples(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    cards = [_example(evaluation, example) for example in examples]
    title = '<h2>Examples</h2><p class="note">Drawn at random, not chosen.</p>'
    return title + "".join(cards)


def _example(evaluation: Evaluation, example: Example) -> str:
    conversation = example.conversation
    turns = [
        f'<div class="who">{escape(turn.role)}</div><p>{escape(turn.text)}</p>'
        for turn in conversation.turns
    ]
    summaries = [
        f'<div class="summary {_kind(evaluation, name)}"><div class="who">{escape(name)}</div>'
        f"<p>{escape(text) or '<em>(empty)</em>'}</p></div>"
        for name, text in example.summaries.items()
    ]
    references = "".join(f"<p>{escape(text)}</p>" for text in conversation.references)
    title = "references" if len(conversation.references) > 1 else "reference"
    return (
        f'<section class="card example"><h3>{escape(conversation.id)}</h3>'
        f'<div class="talk">{"".join(turns)}</div><div>{"".join(summaries)}'
        f'<div class="summary"><div class="who">{title}</div>{references}</div></div></section>'
    )


def _kind(evaluation: Evaluation, name: str) -> str:
    return "judged" if name == evaluation.judged else "other"


def _method(evaluation: Evaluation, weights: WeightsInMemory | None) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in evaluation.versions.items())
    facts = {
        "Conversations": f"{evaluation.conversations:,} scored; "
        f"{evaluation.conversations_without_reference:,} left out because they have no reference",
        "Score": f"F-measure of words as the tokenizer {evaluation.tokenizer} cuts them, "
        "those of a-z by their Porter stems; ROUGE-Lsum by sentences. A conversation's score is "
        "the mean over its references",
        "Intervals": "95%, percentile bootstrap over conversations, "
        f"{evaluation.bootstrap_samples:,} resamples, seed {evaluation.seed}. Differences are "
        "paired: both systems on the same resampled conversations",
        "Words": "per summary, mean and 10th to 90th percentile; signs in scripts without spaces",
        "Same summary": "share of the conversations that got the system's most common summary; a "
        "model that no longer reads shows here",
        **{
            f"System: {name}": system.origin
            for name, system in evaluation.systems.items()
            if system.origin
        },
        "Limits": "ROUGE counts shared words. It does not see whether a summary is true; read the "
        "examples too",
        **({"Weights": weights.sentence()} if weights else {}),
        "Versions": versions,
    }
    rows = [f"<dt>{escape(name)}</dt><dd>{escape(text)}.</dd>" for name, text in facts.items()]
    return f'<h2>How it was measured</h2><div class="card"><dl>{"".join(rows)}</dl></div>'
