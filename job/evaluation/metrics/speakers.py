"""Speaker swaps: a summary says of one speaker what only the other one said.

The sentences of a summary whose subject is a customer or an agent are compared with the turns of
both. If a sentence has no word that only its subject used, but several that only the other one
used, the speakers are swapped. A heuristic: it needs English names of roles, and sees plain swaps.
"""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import regex

from job.conversations.record import Turn
from job.evaluation.metrics.metric import Sample, share_of_summaries
from job.evaluation.metrics.sentences import sentences
from job.evaluation.words import words

MIN_WORDS_OF_THE_OTHER = 4  # fewer are shared by chance
MIN_LETTERS = 4  # shorter words say too little
_NAMES = {
    "customer": ("customer", "client", "user", "caller", "buyer"),
    "agent": ("agent", "representative", "advisor"),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_SUBJECT = regex.compile(
    rf"\s*(?:(?:here|then)\s+)?(?:(?:the|an?)\s+)?({'|'.join(_ROLES)})s?\b", regex.IGNORECASE
)
# "Customer was told that …" is about what the other one said.
_LISTENS = regex.compile(
    r"\s*(?:['’]s\b|(?:is|was|were|has been|had been|gets|got)\s+(?:being\s+)?\w+(?:ed|ld|en)\b"
    r"|receiv|got\b|gets\b|hear)",
    regex.IGNORECASE,
)


class _Clause(NamedTuple):
    """A sentence about a role, after the name of the role."""

    role: str
    text: str


def has_swap(sample: Sample) -> float | None:
    """Return 1 if the summary says of one speaker what the other one said.

    None if the conversation has not both roles, or the summary names none.
    """
    own = _own_words(sample.conversation.turns)
    clauses = _clauses(sample.summary)
    if own is None or not clauses:
        return None
    return float(any(_is_swapped(clause, own) for clause in clauses))


def swapped(sample: Sample) -> list[str]:
    """Return what the summary says of the wrong one."""
    own = _own_words(sample.conversation.turns)
    if own is None:
        return []
    return [clause.text.strip() for clause in _clauses(sample.summary) if _is_swapped(clause, own)]


def _clauses(summary: str) -> list[_Clause]:
    found = []
    for sentence in sentences(summary):
        subject = _SUBJECT.match(sentence)
        if subject is None:
            continue
        text = sentence[subject.end() :]
        if not _LISTENS.match(text):
            found.append(_Clause(_ROLES[subject[1].lower()], text))
    return found


def _is_swapped(clause: _Clause, own: dict[str, frozenset[str]]) -> bool:
    other = "agent" if clause.role == "customer" else "customer"
    used = set(words(clause.text))
    if used & own[clause.role]:
        return False
    return len(used & own[other]) >= MIN_WORDS_OF_THE_OTHER


@lru_cache(maxsize=1 << 14)
def _own_words(turns: tuple[Turn, ...]) -> dict[str, frozenset[str]] | None:
    """Return the words that only one of the two used, by role; None unless both spoke."""
    used: dict[str, set[str]] = {role: set() for role in _NAMES}
    for turn in turns:
        if turn.role in used:
            used[turn.role] |= {word for word in words(turn.text) if len(word) >= MIN_LETTERS}
    if not all(used.values()):
        return None
    customer, agent = used["customer"], used["agent"]
    return {"customer": frozenset(customer - agent), "agent": frozenset(agent - customer)}


SPEAKER_SWAPS = replace(
    share_of_summaries(
        "speaker_swaps",
        "Speaker swaps",
        "swaps",
        "that say of customer or agent what only the other one said; of summaries in English that "
        "name them.",
        ("conversation",),
        has_swap,
        swapped,
    ),
    no_value_where="one of the roles customer and agent is missing, or no sentence of a summary "
    "begins with one of them in English",
)
METRICS = (SPEAKER_SWAPS,)
