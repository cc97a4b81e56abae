"""The page about a night, for people: counts, rejects, quality, cost, and random summaries.

It is one file beside the manifest, which needs no network. It has texts of conversations, redacted
where the night is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.config.data_sections import CleaningStep
from job.conversations.record import Turn
from job.conversations.redaction import make_redactor
from job.pages.charts import (
    Group,
    IntervalPlot,
    Measure,
    Spread,
    Table,
    histograms,
    interval_plot,
)
from job.pages.conversations import (
    Badge,
    Gallery,
    Order,
    ShownConversation,
    ShownSummary,
    fit,
)
from job.pages.render import render
from job.printable import number_of
from job.storage.atomic import write_file
from job.summarization.challenger_page import BY_CHALLENGER, challenger_part, shown_beside
from job.summarization.chunks import Chunks
from job.summarization.identity import CANDIDATES
from job.summarization.night import Night
from job.summarization.nights_before import ComparedNight, read_nights_before
from job.summarization.quality import FACT as QUALITY
from job.summarization.quality_table import (
    figures_table,
    language_pairs,
    meanings,
    sample_sentence,
)
from job.summarization.read_again import read_again, turns_as_read
from job.summarization.records import Counts
from job.summarization.sample import NightSample
from job.summarization.sides import Pair

TEMPLATE = "night_report.html"
CUT, SHORTENED, LEAKED = "cut", "shortened", "leaked"  # tags of summaries
TAGS = {
    CUT: "Cut off",
    SHORTENED: "Turns dropped",
    LEAKED: "Redacted in the summary",
    BY_CHALLENGER: "Challenger",
}
ORDERS = (
    Order("longest summary", "characters", is_descending=True),
    Order("shortest summary", "characters"),
    Order("longest conversation", "input", is_descending=True),
)
DIGEST_DIGITS = 12  # enough to tell adapters apart


@dataclass(frozen=True)
class Verdict:
    """One sentence about a night; `kind` is good, open (somebody should look) or bad."""

    kind: str
    sentence: str


@dataclass(frozen=True)
class NightPage:
    """A finished night for its page: the facts of its manifest, and the sample of its rows."""

    night: Night
    chunks: Chunks
    facts: Mapping[str, Any]
    sample: NightSample
    pairs: Sequence[Pair]  # of records that a challenger has summarized, too
    cleaning: Sequence[CleaningStep] | None  # of its conversations, None if it is not known

    @property
    def counts(self) -> Counts:
        """The counts of all records."""
        return Counts.from_json(self.facts["counts"])


def write_night_report(path: Path, page: NightPage) -> None:
    """Write the page to `path`. Reads the sampled conversations and the nights before again."""
    night = page.night
    before = read_nights_before(night.output.uri, night.config.storage)
    nights = [ComparedNight.from_facts("this night", page.facts), *before]
    lengths = [Group("this night", page.sample.lengths, "judged")]
    text = render(
        "job.summarization",
        TEMPLATE,
        title=f"Night {night.config.run}",
        output=night.output.uri,
        verdict=_verdict(page),
        tiles=_tiles(page),
        remarks=_remarks(page),
        rejects=_rejects_table(page),
        examples=_reject_examples(page.sample),
        lengths=histograms("lengths", "Characters of the summaries", lengths, "characters"),
        nights=_nights_plot(nights),
        before=_nights_table(nights),
        quality=figures_table(page.facts[QUALITY]),
        quality_note=sample_sentence(page.facts[QUALITY]),
        languages=language_pairs(page.facts[QUALITY]),
        meanings=meanings(page.facts[QUALITY]),
        challenger=challenger_part(page.facts),
        speed=_speed(page),
        gallery=_gallery(page),
        is_redacted=night.config.redaction is not None,
        made_by=_made_by(page),
    )
    write_file(path, text.encode())


def _verdict(page: NightPage) -> Verdict:
    counts = page.counts
    if not counts.records:
        return Verdict("open", "The input has no records.")
    if not counts.new:
        done = number_of(counts.skipped, "conversation was", "conversations were")
        return Verdict("good", f"Nothing new: {done} summarized before.")
    share = counts.rejected / counts.new
    limit = page.night.config.limits.max_reject_fraction
    conversations = number_of(counts.new, "new conversation was", "new conversations were")
    summarized = f"{counts.summaries:,} of {conversations} summarized"
    if page.facts["state"] != "finished":
        sentence = f"{summarized}; {share:.1%} were rejected, more than the limit of {limit:.1%}."
        return Verdict("bad", sentence)
    if not counts.rejected:
        return Verdict("good", f"{summarized}, and none was rejected.")
    sentence = f"{summarized}; {share:.1%} were rejected, within the limit of {limit:.1%}."
    return Verdict("open", sentence)


def _tiles(page: NightPage) -> list[tuple[str, str, str]]:
    counts = page.counts
    tiles = [
        (f"{counts.records:,}", "record" if counts.records == 1 else "records", ""),
        (f"{counts.summaries:,}", "summary" if counts.summaries == 1 else "summaries", ""),
        (f"{counts.rejected:,}", "reject" if counts.rejected == 1 else "rejects", ""),
    ]
    if counts.skipped:
        tiles.append((f"{counts.skipped:,}", "skipped", "summarized before"))
    tiles.append((_duration(page.facts["seconds"]), "work", "of all workers together"))
    if page.facts.get("cost_per_1000_records") is not None:
        per_1000 = page.facts["cost_per_1000_records"]
        tiles.append((_cost(per_1000), "for 1,000 records", "in the currency of cost_per_hour"))
    return tiles


def _cost(amount: float) -> str:
    """Return an amount of any currency: two decimals, more if it is less than 1."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _remarks(page: NightPage) -> list[str]:
    """Return what a reader should know before trusting the night, a sentence each."""
    counts, sample = page.counts, page.sample
    remarks = []
    for doubt in page.night.champion.doubts if page.night.champion else ():
        remarks.append(f"The champion serves although {doubt}.")
    for departure, chunks in page.facts["departures"].items():
        where = number_of(chunks, "chunk", "chunks")
        remarks.append(f"Not served by the settings of the adapter: {departure} ({where}).")
    unscored = page.facts.get(CANDIDATES, {}).get("unscored", 0)
    found = (
        (
            unscored,
            ("summary was", "summaries were"),
            "not chosen: the reward model scored none of the candidates",
        ),
        (
            sample.cut_summaries,
            ("summary was", "summaries were"),
            "cut off at generation.max_new_tokens",
        ),
        (
            sample.shortened_conversations,
            ("conversation was", "conversations were"),
            "too long: turns were dropped",
        ),
        (
            counts.unclear_speakers,
            ("transcript has", "transcripts have"),
            "lines that may be another speaker's",
        ),
        (
            counts.leaks,
            ("value was", "values were"),
            "redacted in what the model had written",
        ),
    )
    for count, nouns, what in found:
        if count:
            remarks.append(f"{number_of(count, *nouns)} {what}.")
    left_out = page.night.left_out
    if left_out.count:
        files = number_of(left_out.count, "file below the input was", "files below the input were")
        remarks.append(f"{files} not read.")
    return remarks


def _rejects_table(page: NightPage) -> Table | None:
    counts = page.counts
    if not counts.rejects:
        return None
    rows = []
    for reason, count in sorted(counts.rejects.items(), key=lambda item: -item[1]):
        rows.append((reason, f"{count:,}", f"{count / counts.records:.2%}"))
    return Table(("reason", "rejects", "of all records"), rows)


def _reject_examples(sample: NightSample) -> list[tuple[str, str]]:
    """Return sources with what was wrong there."""
    pairs = []
    for examples in sample.rejects.values():
        for row in examples:
            source = f"{row['source']['uri']} line {row['source']['line']}"
            pairs.append((source, f"{row['reason']}: {row['detail']}"))
    return pairs


def _nights_plot(nights: Sequence[ComparedNight]) -> IntervalPlot | None:
    """Return the medians of this night, the first, and others with 10th and 90th percentile."""
    rows = []
    for number, night in enumerate(nights):
        lengths = night.lengths
        if lengths is not None:
            kind = "other" if number else "judged"
            rows.append(Spread(night.name, lengths.median, lengths.p10, lengths.p90, kind))
    if not rows:
        return None
    measure = Measure("median", "10th to 90th percentile", digits=0)
    return interval_plot("nights", "Characters of a summary by night", rows, measure)


def _nights_table(nights: Sequence[ComparedNight]) -> Table | None:
    if len(nights) == 1:
        return None
    head = (
        "night",
        "records",
        "rejects",
        "characters (median)",
        "records per worker and second",
        "adapter",
    )
    return Table(head, [_night_row(night) for night in nights])


def _night_row(night: ComparedNight) -> tuple[str, ...]:
    return (
        night.name,
        f"{night.counts.records:,}",
        "" if night.reject_share is None else f"{night.reject_share:.1%}",
        "" if night.lengths is None else f"{night.lengths.median:,.0f}",
        f"{night.records_per_second:,.2f}",
        night.adapter[:DIGEST_DIGITS] if night.adapter else "none",
    )


def _speed(page: NightPage) -> list[tuple[str, str]]:
    facts = page.facts
    pairs = [
        ("Records per worker and second", f"{facts['records_per_second']:,.2f}"),
        ("Tokens read per worker and second", f"{facts['input_tokens_per_second']:,.0f}"),
        ("Tokens written per worker and second", f"{facts['output_tokens_per_second']:,.0f}"),
        ("GPU hours", f"{facts['gpu_seconds'] / 3600:,.2f}"),
    ]
    if "cost" in facts:
        pairs.append(("Cost", _cost(facts["cost"])))
    return pairs


def _made_by(page: NightPage) -> list[tuple[str, str]]:
    weights = page.facts["identity"]["weights"]
    config = page.night.config
    pairs = [
        ("Adapter", config.adapter or "none: the base alone"),
        ("Adapter's digest", weights["adapter"] or ""),
        ("Base's digest", weights["base"]),
        ("Engine", ", ".join(page.facts["engines"])),
    ]
    if page.night.named is not None:
        pairs.append(("Challenger", page.night.named.adapter))
        pairs.append(("Challenger's digest", page.night.named.digest))
    if page.night.champion is not None:
        champion = page.night.champion
        pairs.insert(1, ("Champion", f"{champion.adapter}, version {champion.version}"))
    return [(name, text) for name, text in pairs if text]


def _gallery(page: NightPage) -> Gallery:
    config = page.night.config
    beside = {pair.delivered.position: pair for pair in page.pairs}
    sampled = [pair.delivered for pair in page.pairs]
    sampled += [each for each in page.sample.summaries() if each.position not in beside]
    found = read_again(page.chunks, sampled, page.night)
    redactor = make_redactor(config.redaction)
    challenger = page.night.challenger
    shown = []
    for summary in sampled:
        turns = turns_as_read(found.get(summary.position), page.cleaning, redactor)
        one = _shown(summary.row, turns)
        if summary.position in beside:
            both = [*one.summaries, shown_beside(beside[summary.position])]
            one = replace(one, summaries=both, tags=[*one.tags, BY_CHALLENGER])
        elif challenger is not None and summary.row["adapter"] == challenger.digest:
            one = replace(one, tags=[*one.tags, BY_CHALLENGER])
        shown.append(one)
    return Gallery(fit(shown), TAGS, ORDERS, page.counts.summaries)


def _shown(row: Mapping[str, Any], turns: Sequence[Turn]) -> ShownConversation:
    tags, badges = [], []
    if row["finish_reason"] == "length":
        tags.append(CUT)
        badges.append(Badge("cut off", "bad"))
    if row["dropped_turns"]:
        tags.append(SHORTENED)
        badges.append(Badge(f"{number_of(row['dropped_turns'], 'turn', 'turns')} dropped"))
    if row["leaks"]:
        tags.append(LEAKED)
        badges.append(Badge(f"{number_of(row['leaks'], 'value', 'values')} redacted", "bad"))
    summary = ShownSummary("Summary", row["summary"], "judged", badges)
    numbers = {"characters": len(row["summary"]), "input": row["input_tokens"]}
    return ShownConversation(row["id"], turns, (), [summary], tags, numbers=numbers)
