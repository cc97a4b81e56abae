"""Held-out pairs of an agent's edit and what was shown: read, grouped by conversation, and checked.

Pairs of one conversation belong together, since nobody drew them apart. Pairs are of no use as
proof if the adapter was trained on their conversations, exactly or nearly, or if they are few.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from job.config.data_sections import ReadingSection
from job.config.gate_sections import MIN_CONVERSATIONS, PairsSection
from job.config.sections import StorageSection, as_list
from job.conversations.formats.judged import NAME_ANSWERS
from job.conversations.read import read_strictly
from job.conversations.record import Answer, Conversation
from job.conversations.splits import Overlap, content_digest, find_repeats
from job.errors import DataError, RecapError, RetryError, naming_key
from job.evaluation.evaluate import SEED
from job.evaluation.words import words
from job.printable import number_of
from job.storage.open import InputFile, list_inputs
from job.storage.selection import Selection
from job.telemetry import warn

PAIRS = "held-out pairs"  # their name among the inputs of an evaluation
MAX_NAMED = 5  # ids in a message
WANTED = "held-out pairs have chosen and rejected, as pairs/ of `recap feedback`"


class HeldOutPair(NamedTuple):
    """An edit and what had been shown, of the conversation with this number."""

    conversation: int
    chosen: str
    rejected: str

    def answers(self) -> tuple[Answer, Answer]:
        """Return both as judged answers, the wanted one first."""
        return Answer(self.chosen, True), Answer(self.rejected, False)


@dataclass(frozen=True)
class HeldOutPairs:
    """Pairs by agents, with their different conversations, which are not cleaned yet.

    `leaks` are conversations of the training data that repeat one of them. `why` says why there are
    no pairs, without names of places: they could not be read.
    """

    conversations: Sequence[Conversation] = ()
    pairs: Sequence[HeldOutPair] = ()
    leaks: Sequence[Overlap] = field(default_factory=list)
    why: str = ""

    def why_unusable(self) -> str:
        """Return why nobody passes by these pairs; an empty text if somebody may."""
        if self.why:
            return self.why
        if self.leaks:
            return f"{repeats_of(self.leaks)}, so a win would be no proof"
        if len(self.conversations) < MIN_CONVERSATIONS:
            count = number_of(len(self.conversations), "conversation", "conversations")
            return f"they are of {count}, and fewer than {MIN_CONVERSATIONS} never pass"
        return ""


def read_held_out_pairs(
    section: PairsSection,
    reading: ReadingSection,
    storage: StorageSection,
    max_conversations: int | None,
    train: Iterable[Conversation],
) -> HeldOutPairs:
    """Read the pairs, of at most so many conversations, and compare them with the training data.

    Raise DataError for a row that is no pair, MissingError if no file is there.
    """
    with naming_key("publish.pairs.input"):
        files = list_inputs(as_list(section.input), storage, Selection.of(reading))
        conversations = read_pairs(files, reading)
    grouped = group_pairs(conversations)
    leaks = find_repeats(train, grouped.conversations)
    return choose_pairs(
        HeldOutPairs(grouped.conversations, grouped.pairs, leaks), max_conversations
    )


def read_pairs(files: Iterable[InputFile], reading: ReadingSection) -> list[Conversation]:
    """Return the conversations of pairs, each with both answers.

    Their format is found by their keys, whatever the columns of other data are. Raise DataError for
    a row that is no pair.
    """
    own: dict[str, Any] = {"format": "auto", "columns": {}, "turns": {}, "reference": "summary"}
    try:
        return read_strictly(files, reading.model_copy(update=own), judged="pairs")
    except DataError as error:
        message = str(error)
        for no_remedy in (NAME_ANSWERS["pairs"], "correct data.columns.chosen"):
            message = message.replace(no_remedy, WANTED)
        raise DataError(message) from error


def find_held_out_pairs(
    section: PairsSection,
    reading: ReadingSection,
    storage: StorageSection,
    max_conversations: int | None,
    train: Iterable[Conversation],
) -> HeldOutPairs:
    """Read the pairs at the end of a training, or say why they cannot be read: nobody passes then.

    Raise RetryError of the store.
    """
    try:
        found = read_held_out_pairs(section, reading, storage, max_conversations, train)
    except RetryError:
        raise
    except RecapError as error:
        warn("the held-out pairs could not be read", why=str(error))
        return HeldOutPairs(why=f"they could not be read ({type(error).__name__})")
    if found.leaks:
        warn("the training data has conversations of held-out pairs", first=named(found.leaks))
    return found


def check_usable(pairs: HeldOutPairs) -> None:
    """Raise DataError if nobody could pass by these pairs."""
    why = pairs.why_unusable()
    if not why:
        return
    remedy = "give pairs of more weeks (split.test_weeks of recap feedback)"
    if pairs.leaks:
        remedy = f"take them out of the training data: {named(pairs.leaks)}"
    raise DataError(f"publish.pairs: {why}; {remedy}, or remove publish.pairs")


def repeats_of(leaks: Sequence[Overlap]) -> str:
    """Return how many training conversations repeat one of the pairs, as a sentence's beginning."""
    exact = sum(leak.kind == "exact" for leak in leaks)
    count = number_of(len(leaks), "training conversation", "training conversations")
    repeats = "repeats" if len(leaks) == 1 else "repeat"
    return (
        f"{count} {repeats} one of the held-out pairs ({exact} exactly, {len(leaks) - exact} "
        "nearly)"
    )


def named(leaks: Sequence[Overlap]) -> str:
    """Return the ids of the first leaks: of the training data, and of the pairs."""
    shown = [f"{leak.train_id} = {leak.validation_id}" for leak in leaks[:MAX_NAMED]]
    return "; ".join(shown + ["…"] * (len(leaks) > MAX_NAMED))


def group_pairs(conversations: Sequence[Conversation]) -> HeldOutPairs:
    """Return the pairs by their different conversations. Raise DataError for one without a word."""
    different: list[Conversation] = []
    numbers: dict[str, int] = {}
    pairs = []
    for conversation in conversations:
        chosen, rejected = (answer.text for answer in conversation.answers)
        if not words(chosen):
            raise DataError(
                f"{conversation.source}: chosen has no word; wanted the text that an agent made"
            )
        digest = content_digest(conversation)
        if digest not in numbers:
            numbers[digest] = len(different)
            different.append(conversation)
        pairs.append(HeldOutPair(numbers[digest], chosen, rejected))
    return HeldOutPairs(different, pairs)


def choose_pairs(pairs: HeldOutPairs, max_conversations: int | None) -> HeldOutPairs:
    """Return the pairs of a seeded sample of the conversations."""
    count = len(pairs.conversations)
    if max_conversations is None or count <= max_conversations:
        return pairs
    chosen = sorted(random.Random(SEED).sample(range(count), max_conversations))
    numbers = {old: new for new, old in enumerate(chosen)}
    kept = [
        pair._replace(conversation=numbers[pair.conversation])
        for pair in pairs.pairs
        if pair.conversation in numbers
    ]
    return HeldOutPairs([pairs.conversations[row] for row in chosen], kept, pairs.leaks)
