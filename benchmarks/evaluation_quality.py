"""Floors, people, and how far the metrics of errors can be trusted, on TweetSumm.

`TWEETSUMM=folder python -m benchmarks.evaluation_quality` reads `train.json` and `validation.json`
in the shape of DialogStudio from the folder, measures, and writes the tables of docs/evaluation.md
between the marks of the page. The data are not ours to ship; without them, it writes the table of
metrics alone.
"""

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.config.data_sections import ReadingSection
from job.config.sections import StorageSection
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.evaluation.bootstrap import mean_intervals
from job.evaluation.evaluate import SEED
from job.evaluation.floors import added_systems
from job.evaluation.metrics.all_metrics import METRICS, available_metrics
from job.evaluation.metrics.copying import COPIED, COVERAGE, DENSITY
from job.evaluation.metrics.form import LENGTH_RATIO, REPEATING
from job.evaluation.metrics.invented import INVENTED_CONTACTS, INVENTED_NAMES, INVENTED_NUMBERS
from job.evaluation.metrics.metric import Metric, Sample
from job.evaluation.metrics.names import names_in
from job.evaluation.metrics.speakers import SPEAKER_SWAPS
from job.evaluation.result import MIN_OF_A_SHARE
from job.evaluation.score import Scores, score_systems
from job.storage.open import list_inputs
from job.storage.selection import Selection

PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
MARKS = {
    "metrics": ("<!-- the metrics, by the program -->", "<!-- end of the metrics -->"),
    "rows": ("<!-- rows on TweetSumm -->", "<!-- end of the rows -->"),
    "errors": ("<!-- errors found on TweetSumm -->", "<!-- end of the errors -->"),
}
RESAMPLES = 10_000
SCORES = [metric for metric in METRICS if metric.unit == "score" and "model" not in metric.needs]
FORMS = [LENGTH_RATIO, REPEATING, COVERAGE, DENSITY, COPIED]
ERRORS = [INVENTED_NUMBERS, INVENTED_NAMES, INVENTED_CONTACTS, SPEAKER_SWAPS]
AGGREGATIONS = {"first": "first reference", "mean": "mean", "best": "best of one fewer"}
OTHER_ROLE = {"customer": "agent", "agent": "customer"}
# None of them is a word of these conversations; some begin like one, as Theodore like "the".
_PEOPLE = (
    "Theodore Youssef Butler Howard Carter Hansen Bethany Hasan Billy Harriet Norman Winston"
    " Rosalind Gareth Imogen Fordham Youngman Canning Anders Mohan Isadora Walter"
)
PEOPLE = _PEOPLE.split()


def main() -> None:
    """Measure and write the tables into the page."""
    tables = {"metrics": metrics_table()}
    if "TWEETSUMM" in os.environ:
        folder = os.environ["TWEETSUMM"]
        train, validation = (read(f"{folder}/{name}.json") for name in ("train", "validation"))
        tables["rows"] = rows(validation, train)
        tables["errors"] = errors([*train, *validation])
    page = PAGE.read_text(encoding="utf-8")
    for name, lines in tables.items():
        page = replaced(page, name, "\n".join(lines))
    PAGE.write_text(page, encoding="utf-8")


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with the text between the marks of this name."""
    start, end = MARKS[name]
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    assert after, f"{PAGE} has no {start} … {end}"
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def metrics_table() -> Iterator[str]:
    """Yield the table of all metrics: what each is, and which way is better."""
    yield "| name | is | range | better |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        high = "∞" if metric.high == float("inf") else f"{metric.high:g}"
        low = "-∞" if metric.low == -float("inf") else f"{metric.low:g}"
        better = "neither" if metric.direction == "neither" else metric.direction
        yield f"| `{metric.name}` | {metric.about} | {low} to {high} | {better} |"


def rows(scored: Sequence[Conversation], train: Sequence[Conversation]) -> Iterator[str]:
    """Yield a table of floors and people by each metric, with 95 % intervals."""
    references = [text for conversation in train for text in conversation.references]
    systems = added_systems(scored, references, SEED)
    metrics = available_metrics(())
    scores = score_systems(systems, scored, metrics, {})
    yield "| in hundredths | " + " | ".join(system.name for system in systems) + " |"
    yield "|---" + "|---:" * len(systems) + "|"
    for metric in (*SCORES, *FORMS, *ERRORS):
        for aggregation in metric.aggregations:
            cells = [
                cell(scores[system.name][metric.name], metric, aggregation) for system in systems
            ]
            title = metric.title
            if len(metric.aggregations) > 1:
                title += f", {AGGREGATIONS[aggregation]}"
            yield f"| {title} | {' | '.join(cells)} |"


def cell(scores: Scores, metric: Metric, aggregation: str) -> str:
    """Return a mean with its interval: of scores and shares in hundredths.

    The best is that over as many references as a person is compared with.
    """
    values = scores.best_of_fewer if aggregation == "best" else scores.of(metric, aggregation)
    (interval,) = mean_intervals(values[:, None], RESAMPLES, SEED, [metric.unit == "share"])
    if interval is None or interval.conversations < MIN_OF_A_SHARE:
        return "–"
    scale = 100 if metric.unit in ("score", "share") else 1
    digits = 1 if scale == 100 else 2
    low, high = max(interval.low, metric.low) * scale, min(interval.high, metric.high) * scale
    return f"{interval.mean * scale:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@dataclass(frozen=True)
class Damage:
    """A way to put an error into a human summary: returns None where it cannot be put."""

    metric: Metric
    what: str
    apply: Callable[[str, random.Random, Sequence[Conversation]], str | None]


def errors(everyone: Sequence[Conversation]) -> Iterator[str]:
    """Yield how often each metric flags human summaries, and the same with an error put in."""
    yield "| metric | flagged as written | error put in | found |"
    yield "|---|---:|---|---:|"
    samples = [
        Sample(text, conversation) for conversation in everyone for text in conversation.references
    ]
    for damage in DAMAGES:
        rng = random.Random(SEED)
        damaged = [
            Sample(text, sample.conversation)
            for sample in samples
            if (text := damage.apply(sample.summary, rng, everyone)) is not None
        ]
        flagged = share(damage.metric, samples)
        found = share(damage.metric, damaged)
        count = f"{len(damaged):,} summaries"
        yield (
            f"| {damage.metric.title} | {flagged} of {len(samples):,} | {damage.what}, {count} "
            f"| {found} |"
        )


def share(metric: Metric, samples: Sequence[Sample]) -> str:
    """Return the share of samples that a metric flags, among those that it can judge."""
    return f"{100 * np.nanmean(metric.scores(samples)):.1f} %"


def change_a_number(summary: str, rng: random.Random, _: Sequence[Conversation]) -> str | None:
    """Return the summary with another number of as many digits in place of one of its own."""
    written = list(re.finditer(r"(?<!\d)\d+(?!\d)", summary))
    if not written:
        return None
    match = rng.choice(written)
    digits = len(match[0])
    others = [n for n in range(10 ** (digits - 1), min(10**digits, 10**6)) if str(n) != match[0]]
    number = str(rng.choice(others)) if digits <= 6 else match[0][::-1]
    return summary[: match.start()] + number + summary[match.end() :]


def change_a_name(summary: str, rng: random.Random, everyone: Sequence[Conversation]) -> str | None:
    """Return the summary with a name of another summary in place of one of its own."""
    own = names_in(summary)
    while own:
        other = rng.choice(rng.choice(everyone).references)
        names = [name for name in names_in(other) if name not in summary]
        if names:
            name = rng.choice(own)
            return re.sub(rf"\b{re.escape(name)}\b", rng.choice(names), summary)
    return None


def name_the_agent(
    summary: str, rng: random.Random, everyone: Sequence[Conversation]
) -> str | None:
    """Return the summary with a person's name after its first "agent"."""
    named, count = re.subn(
        r"\bagent\b(?!['’])", rf"\g<0> {rng.choice(PEOPLE)}", summary, count=1, flags=re.IGNORECASE
    )
    return named if count else None


def name_the_agent_first(
    summary: str, rng: random.Random, everyone: Sequence[Conversation]
) -> str | None:
    """Return the summary with a person's name for its first "agent" that begins a sentence."""
    begins = r"(?:^|(?<=[.!?] ))(?:the )?agent\b(?!['’])"
    named, count = re.subn(begins, rng.choice(PEOPLE), summary, count=1, flags=re.IGNORECASE)
    return named if count else None


def add_an_address(summary: str, rng: random.Random, _: Sequence[Conversation]) -> str:
    """Return the summary with an address of a company that is not in any conversation."""
    address = rng.choice(["help@example.org", "https://example.org/help", "@example_help"])
    return f"{summary.rstrip('. ')} at {address}."


def swap_roles(summary: str, _: random.Random, __: Sequence[Conversation]) -> str | None:
    """Return the summary with the customer for the agent, and the agent for the customer."""

    def other(match: re.Match[str]) -> str:
        role = OTHER_ROLE[match[0].lower()]
        return role.capitalize() if match[0][0].isupper() else role

    swapped, count = re.subn(r"\b(customer|agent)\b", other, summary, flags=re.IGNORECASE)
    return swapped if count else None


DAMAGES = (
    Damage(INVENTED_NUMBERS, "another number of as many digits", change_a_number),
    Damage(INVENTED_NAMES, "a name of another conversation", change_a_name),
    Damage(INVENTED_NAMES, "a person that no conversation names", name_the_agent),
    Damage(INVENTED_NAMES, "such a person as a sentence's first word", name_the_agent_first),
    Damage(INVENTED_CONTACTS, "an address", add_an_address),
    Damage(SPEAKER_SWAPS, "customer and agent exchanged", swap_roles),
)


def read(path: str) -> list[Conversation]:
    """Return the conversations of a file, cleaned as an evaluation cleans them."""
    data = ReadingSection()
    files = list_inputs([path], StorageSection(), Selection.of(data))
    conversations = read_strictly(files, data)
    return clean_all(conversations, resolve_steps(data, conversations))


if __name__ == "__main__":
    main()
