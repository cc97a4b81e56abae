"""What belongs to which split: by conversation and by its content, never by reference or position.

Conversations → two sides that share none, or the pairs that two given sides share. Knows nothing of files or cleaning.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from job.conversations.nearness import near_pairs
from job.conversations.record import Conversation
from job.errors import DataError

# Two public copies of one TweetSumm dialog, preprocessed in different ways, have a similarity of 0.71 to 0.80; of
# different dialogs no two have more than 0.14.
NEAR = 0.6
NO_WORD = re.compile(r"[^\w\s]+|_+")


@dataclass(frozen=True)
class Overlap:
    """A training conversation that also stands in validation: with the same words, or nearly (Jaccard, 5-grams).

    `validation_id` is the one of validation that is most like it, of `count` that repeat it.
    """

    train_id: str
    validation_id: str
    kind: Literal["exact", "near"]
    similarity: float
    count: int


def content_digest(conversation: Conversation) -> str:
    """32 hex digits, the same for the same words, whatever their case, punctuation and roles, the id and references."""
    return _text_digest(_normalized(conversation))


def hold_out(
    conversations: Sequence[Conversation], fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(train, validation), with about `fraction` of the conversations in validation and the input's order in both.

    A conversation's side depends on its content and the seed alone, so that more data moves none that is there already;
    exact and near repeats go together, by the one whose digest comes first. Neither side is empty: DataError for fewer
    than two different conversations.
    """
    texts = [_normalized(conversation) for conversation in conversations]
    groups = _groups(texts)
    shares = {group: _share(group, seed) for group in groups}
    if len(set(shares)) < 2:
        raise DataError(
            f"data.train: {len(conversations)} conversations, of which {len(set(shares))} differ from each other: "
            "too few to hold some out; give data.validation"
        )
    ordered = sorted(shares, key=lambda group: shares[group])
    held = {group for group in ordered if shares[group] < fraction} or {ordered[0]}
    held -= {ordered[-1]} if len(held) == len(ordered) else set()
    sides: tuple[list[Conversation], list[Conversation]] = ([], [])
    for conversation, group in zip(conversations, groups, strict=True):
        sides[group in held].append(conversation)
    return sides


def find_overlap(
    train: Sequence[Conversation], validation: Sequence[Conversation]
) -> list[Overlap]:
    """Every training conversation that one of validation repeats, exact ones first, the most similar first.

    One of each, however many repeat it: of short conversations thousands can be the same, and their pairs millions.
    """
    train_ids, validation_ids = _ids_by_text(train), _ids_by_text(validation)
    left, right = list(train_ids), list(validation_ids)
    nearest = {text: (1.0, text) for text in left if text in validation_ids}
    counts = Counter({text: len(validation_ids[text]) for text in nearest})
    for one, other, similarity in near_pairs(left, right, NEAR):
        if left[one] != right[other]:
            counts[left[one]] += len(validation_ids[right[other]])
            if left[one] not in validation_ids:  # else an exact one is known already
                nearest[left[one]] = max(
                    (similarity, right[other]), nearest.get(left[one], (0.0, ""))
                )
    overlaps = [
        Overlap(
            train_id,
            validation_ids[other][0],
            "exact" if text == other else "near",
            round(similarity, 4),
            counts[text],
        )
        for text, (similarity, other) in nearest.items()
        for train_id in train_ids[text]
    ]
    return sorted(overlaps, key=lambda pair: (pair.kind, -pair.similarity))


def _ids_by_text(conversations: Iterable[Conversation]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for conversation in conversations:
        ids[_normalized(conversation)].append(conversation.id)
    return ids


def _groups(texts: Sequence[str]) -> list[str]:
    """For each text, the digest that stands for it and all that repeat it, over any number of steps."""
    different = list(dict.fromkeys(texts))
    parents = list(range(len(different)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    digests = [_text_digest(text) for text in different]
    for one, other, _ in near_pairs(different, None, NEAR):
        first, second = sorted((root(one), root(other)), key=lambda index: digests[index])
        parents[second] = first
    group_by_text = {text: digests[root(index)] for index, text in enumerate(different)}
    return [group_by_text[text] for text in texts]


def _share(digest: str, seed: int) -> float:
    """A number in [0, 1) that is evenly spread over digests."""
    return int.from_bytes(blake2b(f"{seed}:{digest}".encode(), digest_size=8).digest()) / 2**64


def _normalized(conversation: Conversation) -> str:
    """The words alone: copies of a conversation differ in case, spacing and punctuation first ("let's" and "Lets")."""
    text = unicodedata.normalize(
        "NFKC", " ".join(turn.text for turn in conversation.turns)
    ).casefold()
    return " ".join(NO_WORD.sub("", text).split()) or " ".join(text.split())


def _text_digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
