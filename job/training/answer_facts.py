"""Count judged answers: how many of each kind, and how long they are.

A method that prefers answers learns length first, if those that are wanted are longer or shorter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from job.conversations.record import Conversation
from job.conversations.splits import content_digest
from job.printable import number_of

# Of the pairs in which one answer has more words, and between the medians of both kinds.
BIASED_SHARE = 0.75
BIASED_RATIO = 1.25
MIN_OF_A_KIND = 20  # answers without which lengths say nothing
UNBALANCED_RATIO = 4  # of thumbs of one kind to those of the other


@dataclass(frozen=True)
class AnswerFacts:
    """The answers by number of words, and the pairs in which one has more words than the other."""

    wanted: Mapping[int, int] = field(default_factory=dict)
    unwanted: Mapping[int, int] = field(default_factory=dict)
    pairs: int = 0
    longer_wanted: int = 0
    longer_unwanted: int = 0
    contradictions: int = 0  # answers to one conversation that are wanted here and not there

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of wanted and unwanted answers."""
        return sum(self.wanted.values()), sum(self.unwanted.values())

    @property
    def medians(self) -> tuple[float, float]:
        """The median words of wanted and unwanted answers, 0 of none."""
        return _median(self.wanted), _median(self.unwanted)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        wanted, unwanted = self.counts
        words = self.medians
        return {
            "wanted": wanted,
            "unwanted": unwanted,
            "median_words": {"wanted": words[0], "unwanted": words[1]},
            "pairs": self.pairs,
            "longer_wanted": self.longer_wanted,
            "longer_unwanted": self.longer_unwanted,
            "contradictions": self.contradictions,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "AnswerFacts":
        """Return the facts that `dataclasses.asdict` and JSON made of some."""
        kinds = {
            kind: {int(words): count for words, count in content[kind].items()}
            for kind in ("wanted", "unwanted")
        }
        return cls(**dict(content) | kinds)


NO_ANSWERS = AnswerFacts()


def answer_facts(conversations: Iterable[Conversation]) -> AnswerFacts:
    """Return the facts of the judged answers of some conversations."""
    by_kind: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    verdicts: dict[tuple[str, str], set[bool]] = {}
    pairs = longer_wanted = longer_unwanted = 0
    for conversation in conversations:
        words = [len(answer.text.split()) for answer in conversation.answers]
        digest = content_digest(conversation) if words else ""
        for answer, count in zip(conversation.answers, words, strict=True):
            by_kind[answer.is_wanted][count] += 1
            text = " ".join(answer.text.split())
            verdicts.setdefault((digest, text), set()).add(answer.is_wanted)
        if len(words) == 2:
            pairs += 1
            longer_wanted += words[0] > words[1]
            longer_unwanted += words[1] > words[0]
    return AnswerFacts(
        dict(sorted(by_kind[True].items())),
        dict(sorted(by_kind[False].items())),
        pairs,
        longer_wanted,
        longer_unwanted,
        contradictions=sum(len(both) > 1 for both in verdicts.values()),
    )


def answers_lines(facts: AnswerFacts) -> list[str]:
    """Return what the answers of a split are, for people; nothing if there are none."""
    wanted, unwanted = facts.counts
    words = facts.medians
    if not wanted + unwanted:
        return []
    if facts.pairs:
        lines = [
            f"{number_of(facts.pairs, 'pair', 'pairs')}: chosen has a median of {words[0]:g} words,"
            f" rejected of {words[1]:g}; chosen is longer in {facts.longer_wanted:,}, shorter in "
            f"{facts.longer_unwanted:,}"
        ]
    else:
        lines = [
            f"thumbs: {wanted:,} up (median of {words[0]:g} words), {unwanted:,} down "
            f"({words[1]:g} words)"
        ]
        fewer, more = sorted((wanted, unwanted))
        if more > UNBALANCED_RATIO * fewer:
            lines.append(
                f"warning: {more / max(fewer, 1):.1f} times as many of one kind: the few decide "
                "little, or weigh much (training.kto.undesirable_weight)"
            )
    if facts.contradictions:
        answers = number_of(facts.contradictions, "answer is", "answers are")
        lines.append(
            f"warning: {answers} wanted in one record and not in another of the same "
            "conversation: together they teach nothing"
        )
    bias = _bias(facts)
    return lines + ([bias] if bias else [])


def _bias(facts: AnswerFacts) -> str | None:
    """Return a warning if length alone tells wanted answers from the others."""
    if min(facts.counts) < MIN_OF_A_KIND:
        return None
    wanted, unwanted = facts.medians
    ratio = max(wanted, unwanted) / max(min(wanted, unwanted), 1)
    unequal = facts.longer_wanted + facts.longer_unwanted
    share = max(facts.longer_wanted, facts.longer_unwanted) / max(unequal, 1)
    if facts.pairs and share < BIASED_SHARE:
        return None
    if ratio < BIASED_RATIO:
        return None
    side = "longer" if wanted > unwanted else "shorter"
    return (
        f"warning: what is wanted is {side} by the median ({wanted:g} words, not {unwanted:g}): "
        f"the adapter may learn to write {side} summaries, and little else"
    )


def _median(by_words: Mapping[int, int]) -> float:
    return float(median(Counter(by_words).elements())) if by_words else 0.0
