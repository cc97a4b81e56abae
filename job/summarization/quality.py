"""The quality of a night: figures of a sample of its records, in the block `quality` of a manifest.

The sample is chosen by the ids, so that workers, shards, kills and the size of chunks do not change
it. A record's figures travel with its outcome as whole numbers of thousandths, whose sums are the
same in any order. `recap watch` compares the blocks of nights.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from job.conversations.language import language_of
from job.conversations.record import Conversation, Reject
from job.evaluation.metrics import copying, invented
from job.evaluation.metrics.form import is_empty, is_repeating
from job.evaluation.metrics.metric import Sample
from job.evaluation.words import length
from job.identity import sha256_of
from job.inference.reader import Prompts
from job.prompt.seen_tokens import SeenTokens
from job.summarization.figure_sums import SCALE, FigureSums, RewardSums
from job.summarization.records import Counts, Result, Summary
from job.summarization.sample import NightSample
from job.telemetry import warn_once

FACT = "quality"  # key of the block in a manifest
MAX_SAMPLED = 200  # records of a night, on average; each takes some 2 ms of a core
MAX_CHARACTERS = 50_000  # of a conversation with which its summary is compared
ID_BITS = 64  # of an id's digest, which choose the sample
LANGUAGE = "language"  # key of a record's language beside its figures


class Figure(NamedTuple):
    """A figure of a night: its key, its name for people, what it describes, and how it counts.

    A figure of the input does not depend on the model. `is_share` figures are from 0 to 1.
    """

    name: str
    title: str
    of: Literal["input", "output"]
    about: str
    is_share: bool = False


class Faithfulness(NamedTuple):
    """Scores of sampled summaries, 0 to 1, and the classifier that gave them."""

    scores: Sequence[float]
    model: str
    digest: str


FAITHFULNESS = "faithfulness"
REWARD = "reward"
# Code that changes these figures alone, and is not in `measured_by`: modules of the package.
SCORED_BY = {
    FAITHFULNESS: ("summarization/faithfulness.py", "summarization/read_again.py"),
    REWARD: ("inference/reward.py", "model/reward.py"),
}
OTHER_LANGUAGE = "other_language"  # `recap watch` counts it of the languages of nights
FIGURES = (
    Figure("characters", "Characters of a summary", "output", "All summaries count."),
    Figure(
        "empty",
        "Summaries without a letter or a digit",
        "output",
        "Empty answers, which are rejects, count too.",
        is_share=True,
    ),
    Figure(
        "cut",
        "Summaries that reached max_new_tokens",
        "output",
        "All summaries count.",
        is_share=True,
    ),
    Figure(
        "repeating",
        "Summaries that repeat themselves",
        "output",
        "They say the same three times.",
        is_share=True,
    ),
    Figure(
        "copied",
        "Words copied in runs of 8 or more",
        "output",
        "The share of a summary's words, the mean over summaries.",
        is_share=True,
    ),
    Figure(
        "invented_numbers",
        "Summaries with an invented number",
        "output",
        "The conversation does not have it, in digits or words.",
        is_share=True,
    ),
    Figure(
        "invented_names",
        "Summaries with an invented name",
        "output",
        "The conversation does not have it. Languages that capitalize every noun do not count.",
        is_share=True,
    ),
    Figure(
        "rejected",
        "Rejected records",
        "output",
        "Of all records that were not skipped.",
        is_share=True,
    ),
    Figure(
        FAITHFULNESS,
        "Faithfulness of a summary",
        "output",
        "Probability, by the named classifier, that the conversation supports its sentences.",
        is_share=True,
    ),
    Figure(
        REWARD,
        "Reward of a summary",
        "output",
        "By the reward model that chose it among candidates. All summaries count.",
    ),
    Figure("turns", "Turns of a conversation", "input", "After cleaning."),
    Figure(
        "conversation_words",
        "Words of a conversation",
        "input",
        "Between spaces; signs in scripts without spaces.",
    ),
    Figure(
        "characters_per_token",
        "Characters per token of a conversation",
        "input",
        "Low where the base's tokenizer does not know the language. The instruction counts.",
    ),
    Figure(
        "other_scripts",
        "Characters outside ASCII",
        "input",
        "The share of a conversation, the mean over conversations.",
        is_share=True,
    ),
    Figure(
        OTHER_LANGUAGE,
        "Conversations in another language",
        "input",
        "Another one than most conversations of the first watched night are in.",
        is_share=True,
    ),
    Figure(
        "unseen_tokens",
        "Tokens that no training conversation had",
        "input",
        "The share of a conversation, the mean over conversations, by the adapter's record.",
        is_share=True,
    ),
    Figure("redactions", "Values redacted in a conversation", "input", "0 without redaction."),
)


class QualitySample:
    """The choice of records by the digests of their ids: the same in each attempt of a night."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._below = int(share * 2**ID_BITS)

    @classmethod
    def of(cls, records: int) -> Self:
        """Return the sample of a night of so many records: all of a night of MAX_SAMPLED."""
        return cls(min(1.0, MAX_SAMPLED / max(records, 1)))

    def has(self, id_digest: bytes) -> bool:
        """Return True if the record with this digest of its id is in the sample."""
        return int.from_bytes(id_digest[: ID_BITS // 8]) < self._below


NO_SAMPLE = QualitySample(0.0)


def size_of(conversation: Conversation) -> int:
    """Return the number of characters in all turns."""
    return sum([len(turn.text) for turn in conversation.turns])


def measure(
    conversation: Conversation,
    prompts: Prompts,
    result: Result,
    seen: SeenTokens | None = None,
    tokens_around: int = 0,
) -> bytes:
    """Return language and figures of one record as JSON, in thousandths; or empty bytes.

    `conversation` is as the model read it. `seen` are the tokens of the adapter's training, if they
    are known, and `tokens_around` those of a prompt without a conversation. An error in measuring
    is a warning: no summary may be lost by it.
    """
    try:
        figures = _of_input(conversation, prompts, result) | _of_output(conversation, result)
        if seen is not None:
            ids = [part.ids for part in prompts.parts]
            figures["unseen_tokens"] = seen.unseen_share(ids, tokens_around)
        language = language_of(_text_of(conversation))
    except Exception as error:  # of a text that nobody has foreseen
        warn_once("a record is left out of the quality figures", why=type(error).__name__)
        return b""
    scaled = {name: round(value * SCALE) for name, value in figures.items() if value is not None}
    return json.dumps(scaled | {LANGUAGE: language}, separators=(",", ":")).encode()


def _text_of(conversation: Conversation) -> str:
    return "\n".join([turn.text for turn in conversation.turns])


def _of_input(
    conversation: Conversation, prompts: Prompts, result: Result
) -> dict[str, float | None]:
    text = _text_of(conversation)
    tokens = sum([len(part.ids) for part in prompts.parts])
    # Tokens of turns that no prompt has are not known.
    has_all = tokens > 0 and not prompts.dropped_turns
    # Once there is a summary, the placeholders have counted what was replaced in it, too.
    redactions = prompts.placeholders.replaced if prompts.placeholders else 0
    if isinstance(result, Summary):
        redactions = result.redactions
    others = 0 if text.isascii() else sum([not sign.isascii() for sign in text])
    return {
        "turns": len(conversation.turns),
        "conversation_words": length(text),
        "characters_per_token": len(text) / tokens if has_all else None,
        "other_scripts": others / max(len(text), 1),
        "redactions": redactions,
    }


def _of_output(conversation: Conversation, result: Result) -> dict[str, float | None]:
    if isinstance(result, Reject):
        # Other rejects are counted as such, and have no text.
        return {"empty": 1.0} if result.reason == "empty_summary" else {}
    assert isinstance(result, Summary), "only records that were summarized are measured"
    sample = Sample(result.summary, conversation, (), result.finish_reason)
    found: dict[str, float | None] = {
        "empty": is_empty(sample),
        "repeating": is_repeating(sample),
    }
    if size_of(conversation) > MAX_CHARACTERS:
        return found
    names = invented.invented_names(sample)
    found["copied"] = copying.copied(sample)
    found["invented_numbers"] = float(bool(invented.invented_numbers(sample)))
    found["invented_names"] = None if names is None else float(bool(names))
    # Evaluations compare several summaries with a conversation. Here each has one.
    copying.forget_conversations()
    invented.forget_conversations()
    return found


class QualitySums:
    """Sums of all figures over the records of a night."""

    def __init__(self) -> None:
        self.records = 0
        self.languages: Counter[str] = Counter()
        self._sums: dict[str, FigureSums] = {}

    def add(self, figures: bytes) -> None:
        """Add what `measure` returned for one record."""
        if not figures:
            return
        self.records += 1
        found = json.loads(figures)
        # A chunk that an earlier version committed has none.
        if LANGUAGE in found:
            self.languages[found.pop(LANGUAGE)] += 1
        for name, value in found.items():
            self._sums.setdefault(name, FigureSums()).add(value)

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return number, mean and standard deviation by figure, sorted by name."""
        return {name: self._sums[name].to_json() for name in sorted(self._sums)}


def quality_block(
    sums: QualitySums,
    sample: QualitySample,
    night: NightSample,
    counts: Counts,
    faithfulness: Faithfulness | None = None,
) -> dict[str, Any]:
    """Return the block of a manifest: the sample, what measured it, and the figures.

    Lengths, cut summaries and rejects are of all records, as finish sees each row.
    """
    figures = figures_of_outcomes(sums, night.lengths, night.cut_summaries, counts, night.rewards)
    judge: dict[str, Any] = {}
    if faithfulness is not None and faithfulness.scores:
        figures[FAITHFULNESS] = _scores(faithfulness.scores)
        judge["faithfulness_model"] = {"model": faithfulness.model, "digest": faithfulness.digest}
    return {
        "sample": {"records": sums.records, "share": round(sample.share, 9)},
        "measured_by": measuring_code(),
        "scored_by": {name: scoring_code(name) for name in SCORED_BY if name in figures},
        **judge,
        "languages": dict(sorted(sums.languages.items())),
        "figures": figures,
    }


def figures_of_outcomes(
    sums: QualitySums,
    characters: "array[int]",
    cut: int,
    counts: Counts,
    rewards: RewardSums,
) -> dict[str, dict[str, float]]:
    """Return the measured figures with those of all outcomes: lengths, cuts, rejects, rewards."""
    figures = sums.to_json()
    if rewards.chosen.records:
        figures[REWARD] = rewards.chosen.to_json()
    if characters:
        lengths = np.frombuffer(characters, dtype=np.uint32).astype(np.uint64)
        total = int(lengths.sum()) * SCALE
        squares = int((lengths * lengths).sum()) * SCALE**2
        figures["characters"] = FigureSums(len(lengths), total, squares).to_json()
        figures["cut"] = _share(cut, len(lengths))
    if counts.new:
        figures["rejected"] = _share(counts.rejected, counts.new)
    return figures


def _share(count: int, records: int) -> dict[str, float]:
    """Return the figure of so many ones among the records, which are zeros otherwise."""
    return FigureSums(records, count * SCALE, count * SCALE**2).to_json()


def _scores(scores: Sequence[float]) -> dict[str, float]:
    sums = FigureSums()
    for score in scores:
        sums.add(round(score * SCALE))
    return sums.to_json()


@cache
def measuring_code() -> str:
    """Return a digest of the code that measures, as 12 hexadecimal digits.

    Figures of two nights with the same digest differ by what was measured alone.
    """
    evaluation = files("job.evaluation")
    summarization = files("job.summarization")
    own = ("quality.py", "sample.py", "figure_sums.py")
    sources = [evaluation / "words.py", *(summarization / name for name in own)]
    sources.append(files("job.conversations") / "language.py")
    sources.append(files("job.prompt") / "seen_tokens.py")
    sources += [item for item in (evaluation / "metrics").iterdir() if item.name.endswith(".py")]
    return _digest_of(sources)


@cache
def scoring_code(figure: str) -> str:
    """Return a digest, as `measuring_code`, of what alone computes this figure by a model."""
    return _digest_of([files("job").joinpath(name) for name in SCORED_BY[figure]])


def _digest_of(sources: Iterable[Traversable]) -> str:
    parts = [f"{item.name}\n".encode() + item.read_bytes() for item in sources]
    return sha256_of(b"\0".join(sorted(parts)))[:12]
