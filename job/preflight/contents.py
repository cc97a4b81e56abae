"""Report what the conversations of a training contain, and what in them hardly teaches anything."""

from typing import Any

from job.config.commands import TrainConfig
from job.errors import DataError
from job.preflight.checks import Check, Found, check_value
from job.training.answer_facts import NO_ANSWERS
from job.training.data_report import contents_lines
from job.training.examples import Examples, SplitFacts, check_contents

# Of conversations of train that are in validation, too: the most similar ones are first.
MAX_NAMED_LEAKS = 3
MAX_LEAKS_FOR_PROGRAMS = 100


def contents_checks(config: TrainConfig, examples: Examples) -> list[Check]:
    """Return the check of what the conversations contain.

    It fails where findings are beyond the limits of the config.
    """
    found, _ = check_value("contents", lambda: _describe(config, examples))
    return [found]


def _describe(config: TrainConfig, examples: Examples) -> Found[None]:
    splits = {"train": examples.of_train, "validation": examples.of_validation}
    lines = [line for name, split in splits.items() for line in contents_lines(name, split)]
    for overlap in examples.overlap[:MAX_NAMED_LEAKS]:
        lines.append(
            f"warning: {overlap.validation_id} of validation repeats {overlap.train_id} of train "
            f"({overlap.similarity:.0%} alike)"
        )
    facts: dict[str, Any] = {name: contents_facts(split) for name, split in splits.items()}
    facts["leaks"] = [
        {"train": each.train_id, "validation": each.validation_id, "similarity": each.similarity}
        for each in examples.overlap[:MAX_LEAKS_FOR_PROGRAMS]
    ]
    error = None
    try:
        check_contents(examples, config.limits)
    except DataError as found:
        error = found
    return Found("\n".join(lines), None, facts=facts, error=error)


def contents_facts(split: SplitFacts) -> dict[str, Any]:
    """Return what the conversations of a split contain, as JSON types."""
    contents = split.contents
    facts: dict[str, Any] = {
        "conversations_by_turns": contents.turns,
        "turns_by_role": contents.turns_by_role,
        "characters_by_role": contents.characters_by_role,
        "references": contents.references,
        "exact_repeats": split.repeats.exact,
        "near_repeats": split.repeats.near,
    }
    for name in ("empty", "short", "repeated"):
        fault = getattr(contents, name)
        facts[f"{name}_references"] = {"count": fault.count, "first": fault.first}
    if split.answers != NO_ANSWERS:
        facts["answers"] = split.answers.to_json()
    return facts
