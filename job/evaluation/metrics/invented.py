"""Facts of a summary that the conversation does not have: numbers, names, addresses.

Each metric is the share of summaries with at least one. `inventions` lists them, for a reader.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from job.conversations.record import Turn
from job.evaluation.metrics.contacts import contacts_in, is_contact_known
from job.evaluation.metrics.metric import Metric, Sample, share_of_summaries
from job.evaluation.metrics.names import KnownWords, capitalises_nouns, has_capitals, names_in
from job.evaluation.metrics.numbers import Evidence, evidence_of, numbers_in


class Inventions(NamedTuple):
    """The facts that a summary has and its conversation does not, as they are written.

    `names` is None in a language whose names cannot be told from other words.
    """

    numbers: list[str]
    names: list[str] | None
    contacts: list[str]


class _Known(NamedTuple):
    """The facts of a conversation."""

    text: str  # in lower case
    numbers: Evidence
    words: KnownWords
    has_names: bool


def inventions(sample: Sample) -> Inventions:
    """Return what the summary of a sample invents."""
    return Inventions(invented_numbers(sample), invented_names(sample), invented_contacts(sample))


def invented_numbers(sample: Sample) -> list[str]:
    """Return the numbers, amounts and dates that the conversation does not have."""
    evidence = _known(sample.conversation.turns).numbers
    text = sample.summary
    for contact in contacts_in(text):
        text = text.replace(contact, " ")  # digits of an address belong to the address
    return [number.text for number in numbers_in(text) if not evidence.has(number)]


def invented_names(sample: Sample) -> list[str] | None:
    """Return the names that the conversation does not have, None if none could be seen."""
    known = _known(sample.conversation.turns)
    if not known.has_names or capitalises_nouns(sample.summary):
        return None
    contacts = " ".join(contacts_in(sample.summary))
    return [
        name
        for name in names_in(sample.summary)
        if name not in contacts and not known.words.has(name)
    ]


def invented_contacts(sample: Sample) -> list[str]:
    """Return the e-mail addresses, links and handles that the conversation does not have."""
    known = _known(sample.conversation.turns).text
    return [text for text in contacts_in(sample.summary) if not is_contact_known(text, known)]


def forget_conversations() -> None:
    """Release the conversations that were remembered for further summaries of them."""
    _known.cache_clear()


# Every system has a summary of the same conversations.
@lru_cache(maxsize=1 << 14)
def _known(turns: tuple[Turn, ...]) -> _Known:
    text = "\n".join(f"{turn.role}: {turn.text}" for turn in turns)
    said = "\n".join(turn.text for turn in turns)
    numbers = evidence_of(text)
    has_names = has_capitals(said) and not capitalises_nouns(said)
    return _Known(text.casefold(), numbers, KnownWords(text, numbers), has_names)


def _metric(
    name: str, title: str, short_title: str, what: str, find: Callable[[Sample], list[str] | None]
) -> Metric:
    def has_any(sample: Sample) -> float | None:
        found = find(sample)
        return None if found is None else float(bool(found))

    return share_of_summaries(
        name,
        title,
        short_title,
        f"with {what} that the conversation does not have.",
        ("conversation",),
        has_any,
        lambda sample: find(sample) or (),
    )


INVENTED_NUMBERS = _metric(
    "invented_numbers",
    "Invented numbers",
    "numbers",
    "a number, an amount or a date",
    invented_numbers,
)
INVENTED_NAMES = replace(
    _metric("invented_names", "Invented names", "names", "a name", invented_names),
    no_value_where="nouns are capitalized, as in German, or the script has no capitals",
)
INVENTED_CONTACTS = _metric(
    "invented_contacts",
    "Invented contacts",
    "contacts",
    "an e-mail address, a link or a handle",
    invented_contacts,
)
METRICS = (INVENTED_NUMBERS, INVENTED_NAMES, INVENTED_CONTACTS)
