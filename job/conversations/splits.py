"""Splits of training and validation, by the content of conversations.

Conversations → two sides that share none, or the pairs that two given sides share.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Literal, NamedTuple

from job.conversations.nearness import near_pairs
from job.conversations.record import Conversation
from job.errors import DataError
from job.identity import blake2b_16

# Two public copies of one TweetSumm dialog, preprocessed in different ways, have a similarity of
# 0.71 to 0.80; of different dialogs no two have more than 0.14.
NEAR = 0.6
MAX_NAMED_REPEATS = 3
NO_WORD = re.compile(r"[^\w\s]+|_+")
# What NO_WORD deletes of ASCII: in most texts there is no more, and this takes a third of the time.
NO_ASCII_WORD = {code: None for code in range(128) if NO_WORD.fullmatch(chr(code))}


@dataclass(frozen=True)
class Overlap:
    """A training conversation that validation repeats: with the same words, or nearly.

    `similarity` is Jaccard's, of word 5-grams. `validation_id` is the most similar one of
    validation, of `count` that repeat it.
    """

    train_id: str
    validation_id: str
    kind: Literal["exact", "near"]
    similarity: float
    count: int


@dataclass(frozen=True)
class Repeats:
    """The numbers of conversations that repeat an earlier one of their split, and the first."""

    exact: int = 0  # with the same words
    near: int = 0
    first: Sequence[tuple[str, str]] = ()  # ids of some earlier ones, and of what repeats them


@dataclass(frozen=True)
class Comparison:
    """The repeats across train and validation, and within each."""

    overlap: list[Overlap]
    train: Repeats
    validation: Repeats


class _Nearest(NamedTuple):
    """The text of validation that is most similar to one of training."""

    similarity: float
    text: str


def content_digest(conversation: Conversation) -> str:
    """Return 32 hex digits that stand for the words of the turns.

    Case, punctuation, roles, id and references make no difference.
    """
    return _text_digest(_words_of(conversation))


def hold_out(
    conversations: Sequence[Conversation], fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return (train, validation), with about `fraction` of the conversations in validation.

    Both have the input's order. A conversation's side depends on its content and the seed alone, so
    that more data moves none that is there already. Exact and near repeats go to one side, by the
    digest that comes first. Neither side is empty: raise DataError for fewer than two different
    conversations.
    """
    texts = [_words_of(conversation) for conversation in conversations]
    groups = _groups(texts)
    shares = {group: share_of(group, seed) for group in groups}
    if len(shares) < 2:
        raise DataError(
            f"data.train: {len(conversations)} conversations, of which {len(shares)} differ from "
            "each other: too few to hold some out; give data.validation"
        )
    ordered = sorted(shares, key=lambda group: shares[group])
    held = {group for group in ordered if shares[group] < fraction} or {ordered[0]}
    if len(held) == len(ordered):
        held.remove(ordered[-1])
    train: list[Conversation] = []
    validation: list[Conversation] = []
    for conversation, group in zip(conversations, groups, strict=True):
        side = validation if group in held else train
        side.append(conversation)
    return train, validation


def compare(train: Iterable[Conversation], validation: Iterable[Conversation]) -> Comparison:
    """Return which conversations repeat others, within each side and across.

    Of the overlap, exact repeats come first, then the most similar. There is one `Overlap` for each
    conversation of train, however many repeat it: of short conversations thousands can be the same,
    and their pairs are millions.
    """
    train_ids = _ids_by_text(train)
    validation_ids = _ids_by_text(validation)
    texts = list(train_ids | validation_ids)

    # By training text: the most similar text of validation, and how many conversations have it or
    # one like it.
    nearest = {text: _Nearest(1.0, text) for text in train_ids if text in validation_ids}
    counts = Counter({text: len(validation_ids[text]) for text in nearest})
    # By text: the first one of its side that it nearly repeats.
    within_train: dict[str, str] = {}
    within_validation: dict[str, str] = {}
    for pair in near_pairs(texts, None, NEAR):
        earlier, later = texts[pair.left], texts[pair.right]
        if earlier in train_ids and later in train_ids:
            within_train.setdefault(later, earlier)
        if earlier in validation_ids and later in validation_ids:
            within_validation.setdefault(later, earlier)
        for text, other in ((earlier, later), (later, earlier)):
            if text not in train_ids or other not in validation_ids:
                continue
            counts[text] += len(validation_ids[other])
            if text not in validation_ids:  # else an exact repeat is known already
                found = _Nearest(pair.similarity, other)
                nearest[text] = max(found, nearest.get(text, found))

    return Comparison(
        _overlaps(nearest, counts, train_ids, validation_ids),
        _repeats(train_ids, within_train),
        _repeats(validation_ids, within_validation),
    )


def find_repeats(train: Iterable[Conversation], held_out: Iterable[Conversation]) -> list[Overlap]:
    """Return which conversations of train repeat one of those held out, exact ones first.

    It looks across the two only, which takes a fraction of the time of `compare`.
    """
    train_ids = _ids_by_text(train)
    held_out_ids = _ids_by_text(held_out)
    texts = list(train_ids)
    others = list(held_out_ids)
    nearest = {text: _Nearest(1.0, text) for text in train_ids if text in held_out_ids}
    counts = Counter({text: len(held_out_ids[text]) for text in nearest})
    for pair in near_pairs(texts, others, NEAR):
        text, other = texts[pair.left], others[pair.right]
        if text == other:
            continue
        counts[text] += len(held_out_ids[other])
        if text not in held_out_ids:
            found = _Nearest(pair.similarity, other)
            nearest[text] = max(found, nearest.get(text, found))
    return _overlaps(nearest, counts, train_ids, held_out_ids)


def _overlaps(
    nearest: "Mapping[str, _Nearest]",
    counts: Mapping[str, int],
    train_ids: Mapping[str, Sequence[str]],
    validation_ids: Mapping[str, Sequence[str]],
) -> list[Overlap]:
    """Return an overlap for each conversation of train whose text repeats another side's."""
    overlaps = []
    for text, (similarity, other) in nearest.items():
        kind: Literal["exact", "near"] = "exact" if text == other else "near"
        validation_id = validation_ids[other][0]
        for train_id in train_ids[text]:
            overlap = Overlap(train_id, validation_id, kind, round(similarity, 4), counts[text])
            overlaps.append(overlap)
    return sorted(overlaps, key=lambda overlap: (overlap.kind, -overlap.similarity))


def _repeats(ids: Mapping[str, Sequence[str]], near: Mapping[str, str]) -> Repeats:
    """Return the repeats of one side: ids by text, and of texts those which they nearly repeat."""
    exact = 0
    first: list[tuple[str, str]] = []
    for same in ids.values():
        exact += len(same) - 1
        if len(same) > 1 and len(first) < MAX_NAMED_REPEATS:
            first.append((same[0], same[1]))
    for later, earlier in islice(near.items(), MAX_NAMED_REPEATS):
        first.append((ids[earlier][0], ids[later][0]))
    return Repeats(exact, len(near), tuple(first[:MAX_NAMED_REPEATS]))


def _ids_by_text(conversations: Iterable[Conversation]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for conversation in conversations:
        ids[_words_of(conversation)].append(conversation.id)
    return ids


def _groups(texts: Sequence[str]) -> list[str]:
    """Return for each text the digest of its group: of all that repeat it, directly or not."""
    different = list(dict.fromkeys(texts))
    parents = list(range(len(different)))  # a union-find forest

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    digests = [_text_digest(text) for text in different]
    for pair in near_pairs(different, None, NEAR):
        roots = (root(pair.left), root(pair.right))
        first, second = sorted(roots, key=lambda index: digests[index])
        parents[second] = first
    group_by_text = {text: digests[root(index)] for index, text in enumerate(different)}
    return [group_by_text[text] for text in texts]


def share_of(digest: str, seed: int) -> float:
    """Return a number in [0, 1) that is evenly spread over digests."""
    return int.from_bytes(blake2b(f"{seed}:{digest}".encode(), digest_size=8).digest()) / 2**64


def _words_of(conversation: Conversation) -> str:
    """Return the words alone.

    Copies of a conversation differ in case, spacing and punctuation first ("let's" and "Lets").
    """
    text = " ".join(turn.text for turn in conversation.turns)
    if text.isascii():
        text = text.lower()
        words = text.translate(NO_ASCII_WORD)
    else:
        text = unicodedata.normalize("NFKC", text).casefold()
        words = NO_WORD.sub("", text)
    return " ".join(words.split()) or " ".join(text.split())


def _text_digest(text: str) -> str:
    return blake2b_16(text).hex()
