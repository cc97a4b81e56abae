"""Report what the conversations of a training contain, and what in them hardly teaches anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from job.config.commands import TrainConfig
from job.conversations.contents import Contents, contents_of
from job.conversations.record import Conversation
from job.conversations.splits import Repeats, find_repeats
from job.errors import DataError
from job.preflight.checks import Check, Found, check_value
from job.preflight.histogram import histogram, summary
from job.printable import number_of
from job.training.examples import Examples

# Of conversations of train that are in validation, too: the most similar ones are first.
MAX_NAMED_LEAKS = 3
MAX_LEAKS_FOR_PROGRAMS = 100


@dataclass(frozen=True)
class _Split:
    """The contents and the repeats of one split."""

    name: str
    contents: Contents
    repeats: Repeats

    def facts(self) -> dict[str, Any]:
        return self.contents.facts() | {
            "exact_repeats": self.repeats.exact,
            "near_repeats": self.repeats.near,
        }


def contents_checks(config: TrainConfig, examples: Examples, brief: bool) -> list[Check]:
    """Return the check of what the conversations contain.

    It fails where findings are beyond the limits of the config. A `brief` plan asks only if there
    are such limits: it takes a fraction of the time of reading, and nobody reads its findings.
    """
    limits = config.limits
    if brief and limits.max_poor_fraction is None and limits.max_repeated_fraction is None:
        return []
    found, _ = check_value("contents", lambda: _describe(config, examples))
    return [found]


def _describe(config: TrainConfig, examples: Examples) -> Found[None]:
    sides: list[tuple[str, Iterable[Conversation]]] = [
        ("train", examples.train),
        ("validation", examples.validation),
    ]
    splits = []
    for name, conversations in sides:
        splits.append(_Split(name, contents_of(conversations), find_repeats(conversations)))
    lines = [line for split in splits for line in _lines(split)]
    for overlap in examples.overlap[:MAX_NAMED_LEAKS]:
        lines.append(
            f"warning: {overlap.validation_id} of validation repeats {overlap.train_id} of train "
            f"({overlap.similarity:.0%} alike)"
        )
    text = "\n".join(lines)
    for split in splits:
        _check_limits(config, split, text)
    facts: dict[str, Any] = {split.name: split.facts() for split in splits}
    facts["leaks"] = [
        {"train": each.train_id, "validation": each.validation_id, "similarity": each.similarity}
        for each in examples.overlap[:MAX_LEAKS_FOR_PROGRAMS]
    ]
    return Found(text, None, facts=facts)


def _lines(split: _Split) -> list[str]:
    contents = split.contents
    roles = ", ".join(f"{role} {share:.0%}" for role, share in contents.shares().items())
    lines = [
        f"{split.name}: {summary(contents.conversations)} turns; of the text, {roles}",
        *histogram(contents.conversations),
    ]
    for finding, fault in (
        (contents.empty, "empty"),
        (contents.short, "too short for a summary"),
        (contents.repeated, "also the reference of another conversation"),
    ):
        if finding.count:
            references = number_of(finding.count, "reference is", "references are")
            lines.append(f"warning: {references} {fault}; the first: {finding.first}")
    repeats = split.repeats
    if repeats.exact or repeats.near:
        named = "; ".join(f"{later} repeats {earlier}" for earlier, later in repeats.first)
        lines.append(
            f"warning: {number_of(repeats.exact, 'conversation', 'conversations')} with the words "
            f"of an earlier one, {repeats.near:,} nearly: {named}"
        )
    return lines


def _check_limits(config: TrainConfig, split: _Split, found: str) -> None:
    """Raise DataError, with all that was found, if a limit of the config is exceeded."""
    limits = config.limits
    contents = split.contents
    allowed = limits.max_poor_fraction
    if allowed is not None and contents.poor > allowed * contents.references:
        raise DataError(
            f"{found}\n{contents.poor:,} of {contents.references:,} references of {split.name} are "
            "empty, too short, or those of another conversation; limits.max_poor_fraction allows "
            f"{allowed:.0%}: mend or remove them, or raise the limit"
        )
    allowed = limits.max_repeated_fraction
    repeated = split.repeats.exact + split.repeats.near
    conversations = contents.conversations.total()
    if allowed is not None and repeated > allowed * conversations:
        raise DataError(
            f"{found}\n{repeated:,} of {conversations:,} conversations of {split.name} repeat "
            f"another one; limits.max_repeated_fraction allows {allowed:.0%}: remove them, or "
            "raise the limit"
        )
