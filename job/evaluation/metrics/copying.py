"""Copying: how much of a summary stands word for word in the conversation.

Coverage and density are those of Grusky, Naaman and Artzi (2018), "Newsroom". A summary is cut
greedily into the longest runs of words that the conversation has in the same order.
"""

from functools import lru_cache
from typing import NamedTuple

from job.conversations.record import Turn
from job.evaluation.metrics.metric import Metric, Sample, each
from job.evaluation.words import words

COPIED_WORDS = 8  # a run of as many words is copied, not phrased alike by chance


def fragments(summary: list[str], positions: dict[str, list[int]], text: list[str]) -> list[int]:
    """Return the lengths of the shared runs of words, in the order of the summary.

    `positions` has where each word of the text stands in it.
    """
    lengths = []
    start = 0
    while start < len(summary):
        longest = 0
        for position in positions.get(summary[start], ()):
            count = 1
            while (
                start + count < len(summary)
                and position + count < len(text)
                and summary[start + count] == text[position + count]
            ):
                count += 1
            longest = max(longest, count)
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths


def coverage(sample: Sample) -> float:
    """Return the share of the summary's words that belong to a shared run."""
    shared = _shared(sample)
    return sum(shared.lengths) / shared.words


def density(sample: Sample) -> float:
    """Return the mean length of the shared run to which a word of the summary belongs."""
    shared = _shared(sample)
    return sum(length**2 for length in shared.lengths) / shared.words


def copied(sample: Sample) -> float:
    """Return the share of the summary's words in runs of at least COPIED_WORDS words."""
    shared = _shared(sample)
    return sum(length for length in shared.lengths if length >= COPIED_WORDS) / shared.words


def forget_conversations() -> None:
    """Release the conversations that were remembered for further summaries of them."""
    _text.cache_clear()


class _Shared(NamedTuple):
    """The lengths of the shared runs, and the number of words in the summary, at least 1."""

    lengths: list[int]
    words: int


class _Text(NamedTuple):
    """The words of a conversation, and the positions of each of them."""

    words: list[str]
    positions: dict[str, list[int]]


def _shared(sample: Sample) -> _Shared:
    text = _text(sample.conversation.turns)
    summary = words(sample.summary)
    return _Shared(fragments(summary, text.positions, text.words), max(len(summary), 1))


# Every system has a summary of the same conversations.
@lru_cache(maxsize=1 << 14)
def _text(turns: tuple[Turn, ...]) -> _Text:
    found = [word for turn in turns for word in words(turn.text)]
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(found):
        positions.setdefault(word, []).append(position)
    return _Text(found, positions)


COVERAGE = Metric(
    name="coverage",
    title="Coverage",
    short_title="cover",
    hub_type="coverage",
    direction="neither",
    low=0,
    high=1,
    unit="ratio",
    needs=("conversation",),
    about="Share of the summary's words that the conversation has, in shared runs (Grusky et al.).",
    measure=each(coverage),
)
DENSITY = Metric(
    name="density",
    title="Density",
    short_title="density",
    hub_type="density",
    direction="neither",
    low=0,
    high=float("inf"),
    unit="count",
    needs=("conversation",),
    about="Words of the run shared with the conversation to which an average word of the summary "
    "belongs (Grusky et al.).",
    measure=each(density),
)
COPIED = Metric(
    name="copied",
    title="Copied",
    short_title="copied",
    hub_type="copied",
    direction="lower",
    low=0,
    high=1,
    unit="share",
    needs=("conversation",),
    about=f"Share of the summary's words that stand in the conversation in runs of at least "
    f"{COPIED_WORDS} words.",
    measure=each(copied),
)
METRICS = (COVERAGE, DENSITY, COPIED)
