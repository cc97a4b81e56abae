"""The corrections of summaries: how much agents changed, and of which kind.

The distance is Levenshtein's, over words without regard to case. Names, numbers and addresses are
found by the metrics that find inventions, so a correction and a score mean the same by them.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from job.conversations.record import Conversation
from job.evaluation.distances import edit_distance
from job.evaluation.metrics.contacts import contacts_in
from job.evaluation.metrics.invented import inventions
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.names import KnownWords, capitalises_nouns, names_in
from job.evaluation.metrics.numbers import evidence_of, numbers_in
from job.evaluation.words import words

Kind = Literal[
    "inventions_removed",
    "names_added",
    "names_removed",
    "numbers_added",
    "numbers_removed",
    "contacts_added",
    "contacts_removed",
    "shortened",
    "lengthened",
    "rewritten",
    "form_only",
    "wording",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANING: dict[Kind, str] = {
    "inventions_removed": "a number, a name or an address is gone that the conversation does not "
    "have",
    "names_added": "a name is new",
    "names_removed": "a name is gone",
    "numbers_added": "a number, an amount or a date is new",
    "numbers_removed": "a number, an amount or a date is gone",
    "contacts_added": "an address, a link or a handle is new",
    "contacts_removed": "an address, a link or a handle is gone",
    "shortened": "it has at most 4 words of 5",
    "lengthened": "it has at least 5 words for 4",
    "rewritten": "at least 7 words of 10 changed",
    "form_only": "the words are the same: only case, punctuation or layout changed",
    "wording": "none of the others",
}
SHORTENED = 0.8
LENGTHENED = 1.25
REWRITTEN = 0.7
MIN_CORRECTIONS_OF_A_WORD = 3  # of fewer, a list of words could show what is one customer's
MAX_WORDS = 15


@dataclass(frozen=True)
class Correction:
    """One edit of a summary. `share` is the distance over the words of the longer text."""

    distance: int
    share: float
    kinds: tuple[Kind, ...]
    added: frozenset[str]
    removed: frozenset[str]


def correction_of(shown: str, edited: str, conversation: Conversation) -> Correction:
    """Return what an edit changed in the summary of this conversation."""
    before = words(shown)
    after = words(edited)
    distance = edit_distance(before, after)
    longer = max(len(before), len(after))
    share = distance / longer if longer else 0.0
    facts = _changed_facts(shown, edited, conversation)
    length = len(after) / len(before) if before else 1.0
    sizes: dict[Kind, bool] = {
        "shortened": length <= SHORTENED,
        "lengthened": length >= LENGTHENED,
        "rewritten": share >= REWRITTEN,
    }
    kinds = [*facts, *(kind for kind, is_so in sizes.items() if is_so)]
    if not distance:
        kinds = ["form_only"]
    return Correction(
        distance,
        share,
        tuple(kinds) or ("wording",),
        frozenset(after) - frozenset(before),
        frozenset(before) - frozenset(after),
    )


def usual_words(sets: Iterable[Collection[str]]) -> list[tuple[str, int]]:
    """Return the words that are in most of the sets, with the number of sets.

    Only those of at least MIN_CORRECTIONS_OF_A_WORD.
    """
    counts = Counter(word for each in sets for word in each)
    usual = [pair for pair in counts.items() if pair[1] >= MIN_CORRECTIONS_OF_A_WORD]
    return sorted(usual, key=lambda pair: (-pair[1], pair[0]))[:MAX_WORDS]


def _changed_facts(shown: str, edited: str, conversation: Conversation) -> list[Kind]:
    """Return which facts are new or gone."""
    kinds: list[Kind] = []
    if _inventions(shown, conversation) - _inventions(edited, conversation):
        kinds.append("inventions_removed")

    if not capitalises_nouns(shown) and not capitalises_nouns(edited):
        kinds += ["names_added"] if _has_new_name(edited, shown) else []
        kinds += ["names_removed"] if _has_new_name(shown, edited) else []

    contacts_before = set(contacts_in(shown))
    contacts_after = set(contacts_in(edited))
    kinds += ["numbers_added"] if _has_new_number(edited, shown) else []
    kinds += ["numbers_removed"] if _has_new_number(shown, edited) else []
    kinds += ["contacts_added"] if contacts_after - contacts_before else []
    kinds += ["contacts_removed"] if contacts_before - contacts_after else []
    return kinds


def _inventions(summary: str, conversation: Conversation) -> set[str]:
    found = inventions(Sample(summary, conversation))
    return {*found.numbers, *(found.names or ()), *found.contacts}


def _has_new_number(text: str, other: str) -> bool:
    """Return True if the text has a number that the other one lacks in every notation."""
    for contact in contacts_in(text):
        text = text.replace(contact, " ")  # digits of an address belong to the address
    evidence = evidence_of(other)
    return any(not evidence.has(number) for number in numbers_in(text))


def _has_new_name(text: str, other: str) -> bool:
    """Return True if the text has a name that the other one lacks in every form and spelling."""
    known = KnownWords(other, evidence_of(other))
    return any(not known.has(name) for name in names_in(text))
