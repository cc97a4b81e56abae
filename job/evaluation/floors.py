"""Floors and ceiling: summarizers that hardly read, and people.

A model must beat the floors to be worth using. The constant sentence is one reference that suits
the other conversations best, as a collapsed model would write. The others repeat turns.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation, Turn
from job.evaluation.result import LEAD
from job.evaluation.subsequences import rouge_l
from job.evaluation.systems import System
from job.evaluation.words import RougeTokenizer

CONSTANT, ENDS, HUMAN = "constant sentence", "first and last turn", "human"
# Of the constant sentence by training references: how many are compared at the most, and then by
# rounds, how many candidates are compared with how many references.
MAX_REFERENCES = 3000
ROUNDS = ((MAX_REFERENCES, 50), (300, 300), (20, MAX_REFERENCES))
# Of the one by the scored conversations' own references.
MAX_CANDIDATES = 300
MAX_TARGETS = 300


class _Candidate(NamedTuple):
    """A reference, and the index of its conversation in the sample."""

    text: str
    owner: int


def constant_sentence(
    train_references: Sequence[str], seed: int = 0, rounds: Sequence[tuple[int, int]] = ROUNDS
) -> str:
    """Return the training reference with the best mean ROUGE-L against the others.

    Of more than MAX_REFERENCES, a seeded sample. All are candidates, and those that agree best with
    some references are compared with more, the last few with all: comparing each pair would take
    minutes. `rounds` has the numbers of candidates and of references.
    """
    assert train_references, "no references to take a sentence from"
    picked = _sample(len(train_references), MAX_REFERENCES, seed)
    texts = [train_references[index] for index in picked]
    left = np.arange(len(texts))
    for candidates, targets in rounds:
        left = left[:candidates]
        compared = min(targets, len(texts))
        agreement = _agreement([texts[row] for row in left], [[text] for text in texts[:compared]])
        agreement[left[:, None] == np.arange(compared)] = np.nan  # none is compared with itself
        counts = np.maximum(np.count_nonzero(~np.isnan(agreement), axis=1), 1)
        means = np.nansum(agreement, axis=1) / counts
        left = left[np.argsort(-means, kind="stable")]
    return texts[int(left[0])]


def leave_one_out_sentences(references: Sequence[Sequence[str]], seed: int = 0) -> list[str] | None:
    """Return for each conversation the constant sentence by the others' references.

    Serves where there are no training references. None for fewer than two conversations, because
    then there are no others.
    """
    if len(references) < 2:
        return None
    sample = _sample(len(references), MAX_TARGETS, seed)
    candidates = []
    for owner, index in enumerate(sample):
        candidates += [_Candidate(text, owner) for text in references[index]]
    candidates = [candidates[index] for index in _sample(len(candidates), MAX_CANDIDATES, seed)]

    texts = [candidate.text for candidate in candidates]
    agreement = _agreement(texts, [references[index] for index in sample])
    owners = np.array([candidate.owner for candidate in candidates])
    own = (np.arange(len(candidates)), owners)
    agreement[own] = 0.0
    totals = agreement.sum(axis=1)  # (candidates,)

    # (candidates, owners): the total of each candidate if one conversation is left out, which then
    # may not choose a reference of its own.
    without = totals[:, None] - agreement
    without[own] = -1.0
    chosen = dict(zip(sample, without.argmax(axis=0), strict=True))

    best = totals.argmax()  # for conversations outside the sample, which have no candidate
    return [texts[int(chosen.get(index, best))] for index in range(len(references))]


def added_systems(
    scored: Sequence[Conversation], train_references: Sequence[str] | None, seed: int
) -> list[System]:
    """Return the floors and the human references, which are added to each evaluation.

    No constant sentence if there is no reference to take it from.
    """
    added = []
    if train_references:
        sentence = constant_sentence(train_references, seed)
        origin = "the training reference that suits the others best"
        if len(train_references) > MAX_REFERENCES:
            origin += f", of {MAX_REFERENCES:,} that were drawn (seed {seed})"
        added.append(System(CONSTANT, "floor", [sentence] * len(scored), origin=origin))
    else:
        references = [conversation.references for conversation in scored]
        sentences = leave_one_out_sentences(references, seed)
        if sentences:
            origin = (
                "no training references were given: for each conversation, the reference of the "
                "other scored conversations that suits those best (leave one out)"
            )
            added.append(System(CONSTANT, "floor", sentences, origin=origin))

    leads = [lead(conversation) for conversation in scored]
    origin = "the first two turns of the conversation, as written"
    added.append(System(LEAD, "floor", leads, origin=origin))
    ends = [first_and_last(conversation) for conversation in scored]
    origin = "the first and the last turn of the conversation, as written"
    added.append(System(ENDS, "floor", ends, origin=origin))

    humans = [conversation.references[0] for conversation in scored]
    origin = (
        "each reference as a summary, compared with the conversation's other references "
        "(leave one out), and the mean over them"
    )
    return [*added, System(HUMAN, "human", humans, origin=origin)]


def lead(conversation: Conversation) -> str:
    """Return the first two turns as written."""
    return "\n".join(turn.text for turn in _talk(conversation)[:2])


def first_and_last(conversation: Conversation) -> str:
    """Return the first and the last turn as written."""
    turns = _talk(conversation)
    ends = [turns[0], turns[-1]] if len(turns) > 1 else turns
    return "\n".join(turn.text for turn in ends)


def _talk(conversation: Conversation) -> list[Turn]:
    """Return the turns without those of the system, which are no part of the talk."""
    turns = [turn for turn in conversation.turns if turn.role != "system"]
    return turns or list(conversation.turns)


def _sample(count: int, at_most: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), min(count, at_most))


def _agreement(candidates: Sequence[str], targets: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return the mean ROUGE-L of each candidate against each target's references.

    The shape is (candidates, targets).
    """
    tokenizer = RougeTokenizer()
    owners = [column for column, texts in enumerate(targets) for _ in texts]
    references = [tokenizer.tokenize(text) for texts in targets for text in texts]
    pairs = rouge_l([tokenizer.tokenize(text) for text in candidates], references)

    # One reference after the other: sums in another order would break ties in another way.
    agreement = np.zeros((len(candidates), len(targets)))
    for pair, owner in enumerate(owners):
        agreement[:, owner] += pairs[:, pair]
    agreement /= np.array([len(texts) for texts in targets])
    return agreement
