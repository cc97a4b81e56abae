"""The form of a summary: its length, and signs of a model that fails."""

import statistics

import regex

from job.evaluation.metrics.metric import Metric, Sample, each, share_of_summaries
from job.evaluation.metrics.sentences import sentences
from job.evaluation.words import length, words

# A summary repeats itself if as many words as these occur in the same order three times, or if a
# sentence of as many words occurs twice. People write "The customer asks" twice, rarely more.
REPEATED_WORDS = 4
REPEATED_SIGNS = 10  # in scripts without spaces, whose words are of one to three signs
MIN_OCCURRENCES = 3
_READABLE = regex.compile(r"[\p{L}\p{N}]")
# A model that is stuck in a word or in signs: "sssss…", "hahaha…". People write "soooo", "=====".
_STUCK = regex.compile(r"([^\s\p{Pd}_=*#.]\P{Z}{0,3}?)\1{19,}")


def length_ratio(sample: Sample) -> float | None:
    """Return the words of the summary per word of a reference, on average over references."""
    lengths = [length(text) for text in sample.references]
    if not lengths or not sum(lengths):
        return None
    return length(sample.summary) / statistics.fmean(lengths)


def is_empty(sample: Sample) -> float:
    """Return 1 for a summary without a letter or a digit."""
    return float(not _READABLE.search(sample.summary))


def is_cut(sample: Sample) -> float | None:
    """Return 1 for a summary that ended at `max_new_tokens`; None if nobody knows why it ended."""
    return None if sample.finish_reason is None else float(sample.finish_reason == "length")


def is_repeating(sample: Sample) -> float:
    """Return 1 for a summary that says the same again and again, or a sentence twice."""
    if _STUCK.search(sample.summary):
        return 1.0
    found = words(sample.summary)
    has_spaces = len(sample.summary.split()) * 2 > len(found)
    size = REPEATED_WORDS if has_spaces else REPEATED_SIGNS
    counts: dict[tuple[str, ...], int] = {}
    for start in range(len(found) - size + 1):
        run = tuple(found[start : start + size])
        counts[run] = counts.get(run, 0) + 1
        if counts[run] >= MIN_OCCURRENCES:
            return 1.0

    seen = set()
    for sentence in sentences(sample.summary):
        key = tuple(words(sentence))
        if len(key) >= size and key in seen:
            return 1.0
        seen.add(key)
    return 0.0


LENGTH_RATIO = Metric(
    name="length_ratio",
    title="Length ratio",
    short_title="length",
    hub_type="length_ratio",
    direction="neither",
    low=0,
    high=float("inf"),
    unit="ratio",
    needs=("references",),
    about="Words of the summary divided by the words of a reference; 1 is as long.",
    measure=each(length_ratio),
)
EMPTY = share_of_summaries("empty", "Empty", "empty", "without a letter or a digit.", (), is_empty)
CUT = share_of_summaries(
    "cut",
    "Cut",
    "cut",
    "that ended because they reached max_new_tokens.",
    ("finish_reason",),
    is_cut,
)
REPEATING = share_of_summaries(
    "repeating",
    "Repeating",
    "repeats",
    f"that say {REPEATED_WORDS} words {MIN_OCCURRENCES} times in the same order, a sentence twice, "
    "or up to 4 characters 20 times in a row.",
    (),
    is_repeating,
)
METRICS = (LENGTH_RATIO, EMPTY, CUT, REPEATING)
