"""Sort out conversations from which nothing can be learned: without references, or useless answers.

They are left out with a warning, and are an error beyond a limit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from job.config.method_sections import Judged
from job.conversations.formats.judged import why_useless
from job.conversations.record import Conversation
from job.conversations.references import why_missing
from job.errors import DataError
from job.telemetry import warn

Splits = Mapping[str, Sequence[Conversation]]
Usable = dict[str, list[Conversation]]


def sort_out(
    splits: Splits, judged: Mapping[str, Judged | None], allowed: float
) -> tuple[Usable, str]:
    """Return what is usable of each split, and why the rest is not, as a clause.

    `judged` has the kind of answers of each split, None for references. Warns of what is left out.
    Raise DataError if it is more than the share `allowed` of a split, or all of test.
    """
    answered = {split: records for split, records in splits.items() if judged[split]}
    usable, why = with_answers(answered, allowed)
    others = {split: records for split, records in splits.items() if not judged[split]}
    with_some, why_others = with_references(others, allowed)
    usable |= with_some
    test = splits["test"]
    if test and not usable["test"]:
        what = "conversations has a reference summary; " + why_missing(test)
        if judged["test"]:
            what = f"records teaches anything: {why}"
        raise DataError(f"data.test: none of its {len(test)} {what}")
    return usable, why or why_others


def with_references(splits: Splits, allowed: float) -> tuple[Usable, str]:
    """Return the conversations that have a reference, and what the others have, as a clause.

    Warns of the others. Raise DataError if more than the share `allowed` of a split has none. If a
    whole split has none, only return: `read_examples` raises for it, with the clause.
    """
    usable: Usable = {}
    why = ""
    for split, conversations in splits.items():
        usable[split] = [conversation for conversation in conversations if conversation.references]
        missing = [conversation for conversation in conversations if not conversation.references]
        if not missing:
            continue
        why = why or why_missing(missing)
        if len(missing) == len(conversations):
            continue
        if len(missing) > allowed * len(conversations):
            raise DataError(
                f"data.{split}: {len(missing)} of {len(conversations)} conversations have no "
                f"reference summary (the first: {missing[0].source}); {why}; "
                f"limits.max_unreferenced_fraction allows {allowed:.0%}"
            )
        warn(
            "conversations without a reference summary are left out",
            split=split,
            conversations=len(missing),
            of=len(conversations),
            first=str(missing[0].source),
            why=why,
        )
    return usable, why


def with_answers(splits: Splits, allowed: float) -> tuple[Usable, str]:
    """Return the pairs or thumbs that teach something, and why the others do not, as a clause.

    Warns of the others. Raise DataError if they are more than the share `allowed` of a split.
    """
    usable: Usable = {}
    reasons: Counter[str] = Counter()
    for split, records in splits.items():
        found = [why_useless(record.answers) for record in records]
        usable[split] = [record for record, why in zip(records, found, strict=True) if why is None]
        useless = [record for record, why in zip(records, found, strict=True) if why is not None]
        if not useless:
            continue
        own = Counter(why for why in found if why is not None)
        reasons += own
        first = useless[0].source
        if len(useless) > allowed * len(records):
            raise DataError(
                f"data.{split}: {len(useless)} of {len(records)} records teach nothing "
                f"({_listed(own)}; the first: {first}); limits.max_unreferenced_fraction allows "
                f"{allowed:.0%}: mend or remove them"
            )
        warn(
            "records with answers that teach nothing are left out",
            split=split,
            records=len(useless),
            of=len(records),
            first=str(first),
            why=_listed(own),
        )
    return usable, _listed(reasons)


def check_both_thumbs(train: Sequence[Conversation]) -> None:
    """Raise DataError unless some thumbs are up and some down."""
    check_kinds([answer.is_wanted for each in train for answer in each.answers])


def check_kinds(labels: Iterable[bool]) -> None:
    """Raise DataError unless some labels of thumbs are True and some False."""
    counts = Counter(labels)
    if len(counts) == 1:
        side = "up" if True in counts else "down"
        number = counts.total()
        each = f"each of the {number} thumbs is" if number > 1 else "the only thumb is"
        raise DataError(
            f"data.train: {each} {side}, and method: kto learns "
            "from the difference: add summaries with the other one, or take method: sft for "
            "references"
        )


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
