"""What a summarizer must beat to be worth anything.

Purpose: two summarizers that do not read, or hardly. One always says the same sentence, the one reference that suits
the other conversations best: what a collapsed model does. The other repeats the first and the last turn. References or
a conversation in, text out. Knows nothing of models or intervals.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation
from job.evaluation.words import RougeTokenizer

MAX_CANDIDATES = 300  # 300 x 300 comparisons of 40 words take about a second
MAX_TARGETS = 300


def constant_sentence(train_references: Sequence[str], seed: int = 0) -> str:
    """The training reference with the best mean ROUGE-L against (a seeded sample of) the others."""
    assert train_references, "no references to take a sentence from"
    picked = _sample(len(train_references), max(MAX_CANDIDATES, MAX_TARGETS), seed)
    texts = [train_references[index] for index in picked]
    agreement = _agreement(texts[:MAX_CANDIDATES], [[text] for text in texts[:MAX_TARGETS]])
    np.fill_diagonal(agreement, 0.0)  # a sentence is not compared with itself
    return texts[int(agreement.mean(axis=1).argmax())]


def leave_one_out_sentences(references: Sequence[Sequence[str]], seed: int = 0) -> list[str] | None:
    """For each conversation the constant sentence that the other conversations' references would have chosen.

    For when there are no training references. None with fewer than two conversations: there are no others.
    """
    if len(references) < 2:
        return None
    owners = _sample(len(references), MAX_TARGETS, seed)
    candidates = [(place, text) for place, owner in enumerate(owners) for text in references[owner]]
    candidates = [candidates[index] for index in _sample(len(candidates), MAX_CANDIDATES, seed)]
    agreement = _agreement(
        [text for _, text in candidates], [references[owner] for owner in owners]
    )
    itself = (np.arange(len(candidates)), np.array([place for place, _ in candidates]))
    agreement[itself] = 0.0
    totals = agreement.sum(axis=1)  # (candidates,)
    without = (
        totals[:, None] - agreement
    )  # (candidates, owners): what each would score without that owner
    without[itself] = -1.0  # and an owner's own references are not to be chosen
    chosen = dict(zip(owners, without.argmax(axis=0), strict=True))
    return [
        candidates[int(chosen.get(owner, totals.argmax()))][1] for owner in range(len(references))
    ]


def lead(conversation: Conversation) -> str:
    """The first and the last turn, as written; system turns are not part of the talk."""
    turns = [turn for turn in conversation.turns if turn.role != "system"] or list(
        conversation.turns
    )
    return "\n".join(turn.text for turn in (turns if len(turns) < 2 else [turns[0], turns[-1]]))


def _sample(count: int, at_most: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), min(count, at_most))


def _agreement(candidates: Sequence[str], targets: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Mean ROUGE-L F-measure of each candidate against each target's references: (candidates, targets)."""
    tokenizer = RougeTokenizer()
    said = [tokenizer.tokenize(text) for text in candidates]
    wanted = [[tokenizer.tokenize(text) for text in texts] for texts in targets]
    return np.array(
        [
            [sum(rouge_l(words, other) for other in texts) / len(texts) for texts in wanted]
            for words in said
        ]
    )


def rouge_l(left: Sequence[str], right: Sequence[str]) -> float:
    """ROUGE-L F-measure of two lists of words: rouge_score's number, some 20 times faster.

    The length of the longest common subsequence by bit-parallel addition (Crochemore et al. 2001; Hyyrö 2004): a whole
    row of the table is one integer. Only to choose a sentence; the scores that are reported are the library's own.
    """
    if not left or not right:
        return 0.0
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(left)) - 1
    row = everywhere
    for word in right:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & everywhere
    common = len(left) - row.bit_count()
    return 2 * common / (len(left) + len(right))
