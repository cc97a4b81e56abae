"""Read the conversations of both splits, clean them, and check them against each other.

Does not import torch, so that a plan can do it before a GPU is paid for.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from job.config.commands import TrainConfig
from job.config.data_sections import CleaningStep
from job.config.limits_section import TrainLimitsSection
from job.config.method_sections import Judged
from job.config.sections import as_list
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.contents import Contents, contents_of
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.conversations.splits import Overlap, Repeats, compare, content_digest, hold_out
from job.errors import DataError, naming_key
from job.evaluation.held_out_pairs import read_pairs
from job.printable import number_of
from job.storage.open import InputFile, files_digest, list_inputs
from job.storage.selection import Selection
from job.telemetry import warn
from job.training.answer_facts import NO_ANSWERS, AnswerFacts, answer_facts
from job.training.replay import Replay, choose_replay
from job.training.usable import check_both_thumbs, sort_out

NO_REPEATS = Repeats()


@dataclass(frozen=True)
class Examples:
    """The conversations of both splits, and what was left out.

    Each has at least one reference, or the judged answers that the method learns from. `test` has
    references, or pairs for a reward model; it is empty if those of validation score the adapter.
    """

    train: Iterable[Conversation]
    validation: list[Conversation]
    without_reference: int  # or answers that teach something, or text after cleaning
    why_without: str  # a clause for a message; empty if there are none
    overlap: list[Overlap]  # of train with validation
    dropped_overlap: int  # conversations of train that were left out for it
    cleaning: tuple[CleaningStep, ...]
    uncleaned: list[Conversation]  # those that score the adapter, as they were read
    files: dict[str, str]  # by split, a digest of the files' names, sizes and versions
    of_train: "SplitFacts"
    of_validation: "SplitFacts"
    replay: Replay | None = None  # the last ones of `train`, which `of_train` leaves out
    test: list[Conversation] = field(default_factory=list)
    stored_as: str | None = None  # the name of their folder in the cache, if they are there

    @property
    def scoring(self) -> list[Conversation]:
        """The conversations of which some choose and score the adapter."""
        return self.test or self.validation

    def digests(self) -> dict[str, str]:
        """Return a digest of the content by split, which must be the same in a resumed run."""
        digests = {"train": self.of_train.digest, "validation": self.of_validation.digest}
        if self.replay:
            digests["replay"] = self.replay.digest
        if self.test:
            digests["test"] = split_facts(self.test).digest
        return digests

    def counts(self) -> dict[str, Any]:
        """Return the numbers of conversations by split, and of those left out."""
        test = {"test": {"conversations": len(self.test)}} if self.test else {}
        return {
            "train": self.of_train.counts(),
            "validation": self.of_validation.counts(),
            **test,
            "without_reference": self.without_reference,
            "overlapping": len(self.overlap),
            "dropped_overlap": self.dropped_overlap,
            "unclear_speakers": self.of_train.unclear + self.of_validation.unclear,
            **({"replay": self.replay.counts()} if self.replay else {}),
        }


@dataclass(frozen=True)
class SplitFacts:
    """The digest of a split's content, and its counts. A run asks for them again and again."""

    digest: str
    conversations: int
    references: int
    turns: int
    unclear: int  # conversations with doubts about a speaker
    contents: Contents
    repeats: Repeats  # within the split, before any is dropped for an overlap
    answers: AnswerFacts = NO_ANSWERS

    def counts(self) -> dict[str, int]:
        """Return the numbers of conversations, references and turns as JSON."""
        return {
            "conversations": self.conversations,
            "references": self.references,
            "turns": self.turns,
        }


def read_examples(config: TrainConfig) -> Examples:
    """Read, clean, split and check the conversations.

    Raise DataError if a split is empty, has too many conversations without a reference, or overlaps
    the other one.
    """
    data = config.data
    files = list_files(config)
    read = _read_files(config, files)
    usable, why = sort_out(read, _judged(config), config.limits.max_unreferenced_fraction)

    cleaning = resolve_steps(data, read["train"])
    train, validation, test = (
        clean_all(usable[split], cleaning) for split in ("train", "validation", "test")
    )
    without = len(read["train"]) + len(read["validation"]) - len(train) - len(validation)
    if data.validation is None and train:
        train, validation = hold_out(train, data.validation_fraction, config.training.seed)
    if not train or not validation:
        remedy = f"; {why}" if why else ""
        of = "a reference summary" if config.judged is None else f"usable {config.judged}"
        raise DataError(
            f"data: {len(train)} training and {len(validation)} validation conversations have "
            f"{of}; both need at least one{remedy}"
        )

    # Without a given validation there is no overlap with it: what repeats another is on its side.
    compared = compare(train, validation)
    overlap = compared.overlap
    if test:
        overlap = [*overlap, *compare(train, test).overlap]
    others_are = "validation or test" if test else "validation"
    kept = _without_overlap(train, overlap, data.overlap, others_are)
    dropped = len(train) - len(kept)
    sources = {conversation.source for conversation in test or validation}
    as_read = read["test"] or read["validation"] or read["train"]
    uncleaned = [each for each in as_read if each.source in sources]
    replayed: list[Conversation] = []
    replay = None
    if data.replay:
        again = clean_all(usable["replay"], cleaning)
        held_out = [*validation, *test, *clean_all(_read_judging(config, files), cleaning)]
        replayed, replay = choose_replay(again, kept, held_out, data, config.training.seed)
    if config.judged == "thumbs":
        check_both_thumbs([*kept, *replayed])
    return Examples(
        [*kept, *replayed],
        validation,
        without,
        why,
        overlap,
        dropped,
        cleaning,
        uncleaned,
        _digests(files),
        split_facts(kept, compared.train),
        split_facts(validation, compared.validation),
        replay,
        test,
    )


def _read_files(
    config: TrainConfig, files: Mapping[str, Sequence[InputFile]]
) -> dict[str, list[Conversation]]:
    """Return what the files of each split hold."""
    read: dict[str, list[Conversation]] = {}
    for split, judged in _judged(config).items():
        some = files.get(split)
        is_judged_replay = split == "replay" and judged
        key = f"data.replay, which has {judged} with method: {config.method}"
        with naming_key(key) if is_judged_replay else nullcontext():
            read[split] = read_strictly(some, config.data, judged) if some else []
    return read


def _judged(config: TrainConfig) -> dict[str, Judged | None]:
    """Return the kind of answers in each split, None for references. They score summaries."""
    own = config.judged
    of_test = None if config.writes_summaries else own
    return {"train": own, "validation": own, "replay": own, "test": of_test}


def _read_judging(
    config: TrainConfig, files: Mapping[str, Sequence[InputFile]]
) -> list[Conversation]:
    """Return the conversations of older test sets and of held-out pairs, as they were read."""
    return [
        *read_strictly(files.get("regressions", ()), config.data),
        *read_pairs(files.get("pairs", ()), config.data),
    ]


def split_facts(conversations: Iterable[Conversation], repeats: Repeats = NO_REPEATS) -> SplitFacts:
    """Return the digest and the counts of a split."""
    digest = hashlib.sha256()
    count = references = turns = unclear = 0
    for conversation in conversations:
        parts: tuple[object, ...] = (content_digest(conversation), conversation.references)
        if conversation.answers:
            parts += (tuple(map(tuple, conversation.answers)),)
        digest.update(repr(parts).encode())
        count += 1
        references += len(conversation.references)
        turns += len(conversation.turns)
        unclear += bool(conversation.doubts)
    return SplitFacts(
        digest.hexdigest(),
        count,
        references,
        turns,
        unclear,
        contents_of(conversations),
        repeats,
        answer_facts(conversations),
    )


def check_contents(examples: Examples, limits: TrainLimitsSection) -> None:
    """Raise DataError if more of a split's conversations are poor or repeated than `limits` allow.

    Apart from reading, which a cache may replace: it knows no limits.
    """
    for name, facts in (("train", examples.of_train), ("validation", examples.of_validation)):
        contents = facts.contents
        allowed = limits.max_poor_fraction
        if allowed is not None and contents.poor > allowed * contents.references:
            raise DataError(
                f"{contents.poor:,} of {contents.references:,} references of {name} are empty, too "
                "short, or those of another conversation; limits.max_poor_fraction allows "
                f"{allowed:.0%}: mend or remove them, or raise the limit"
            )
        repeated = facts.repeats.exact + facts.repeats.near
        allowed = limits.max_repeated_fraction
        if allowed is not None and repeated > allowed * facts.conversations:
            raise DataError(
                f"{repeated:,} of {facts.conversations:,} conversations of {name} repeat another "
                f"one; limits.max_repeated_fraction allows {allowed:.0%}: remove them, or raise "
                "the limit"
            )


def files_now(config: TrainConfig) -> dict[str, str]:
    """Return the present value of `Examples.files` without reading any file.

    Raise MissingError if there is none.
    """
    return _digests(list_files(config))


def list_files(config: TrainConfig) -> dict[str, list[InputFile]]:
    """Return the files of each split, and with replay those of `publish` that judge the adapter.

    Raise MissingError if there is none.
    """
    data = config.data
    publish = config.publish
    selection = Selection.of(data)
    validation = as_list(data.validation) if data.validation else []

    def listed(key: str, uris: Sequence[str]) -> list[InputFile]:
        with naming_key(key):
            return list_inputs(uris, config.storage, selection)

    files = {
        "train": listed("data.train", as_list(data.train)),
        "validation": listed("data.validation", validation),
    }
    if data.replay:
        files["replay"] = listed("data.replay", as_list(data.replay))
        older = [uri for each in publish.regressions for uri in as_list(each.input)]
        if older:
            files["regressions"] = listed("publish.regressions", older)
        if publish.pairs:
            files["pairs"] = listed("publish.pairs.input", as_list(publish.pairs.input))
    if data.test:
        files["test"] = listed("data.test", as_list(data.test))
    return files


def _digests(files: dict[str, list[InputFile]]) -> dict[str, str]:
    return {split: files_digest(some) for split, some in files.items()}


def _without_overlap(
    train: list[Conversation], overlap: list[Overlap], policy: str, others: str
) -> list[Conversation]:
    """Warn of an overlap, and return the training conversations to keep.

    Raise DataError if the policy says so, or if none is left.
    """
    exact = [pair for pair in overlap if pair.kind == "exact"]
    named = "; ".join(f"{pair.train_id} = {pair.validation_id}" for pair in (exact or overlap)[:5])
    if exact and policy == "error":
        one, several = "training conversation is", "training conversations are"
        raise DataError(
            f"data: {number_of(len(exact), one, several)} also in {others} ({named}): scores "
            "would flatter; take them out, or set data.overlap: drop (from train) or allow"
        )
    if policy != "drop":
        if overlap:
            warn(
                f"train and {others} overlap",
                conversations=len(overlap),
                exact=len(exact),
                examples=named,
            )
        return train

    overlapping = {pair.train_id for pair in overlap}
    kept = [conversation for conversation in train if conversation.id not in overlapping]
    if not kept:
        raise DataError(
            f"data: every training conversation is also in {others}; nothing is left to learn from"
        )
    return kept
