"""Reference summaries of records, and the explanation for conversations that have none."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import ALIASES, RecordError, kind, shown
from job.conversations.listed import list_in
from job.conversations.record import Conversation

SUMMARY_KEYS = ("summary",)
JUDGED_KEYS = {"dpo": {"chosen", "rejected"}, "kto": {"completion", "label"}}  # by method
SHOWN_KEYS = 10
# R, pandas, databases and spreadsheets write these into a file of text for a missing value.
MISSING_MARKS = frozenset(
    ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "\\N", "\\\\N")
)


def references_of(record: Mapping[str, Any], keys: Sequence[str] = SUMMARY_KEYS) -> list[str]:
    """Return the references under `keys`, in their order, and under `summaries`.

    Each is a text, a list of texts, a text that holds such a list, or null. A text that is a mark
    of a missing value is none. Raise RecordError for anything else.
    """
    found: list[str] = []
    for key in (*keys, "summaries"):
        value = record.get(key)
        if value is None:
            continue
        if isinstance(value, str):
            listed = list_in(value, key)
            value = value if listed is None else listed
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                found += [] if item.strip() in MISSING_MARKS else [item]
            elif item is not None:
                raise RecordError(f"{key} holds {kind(item)}, wanted text")
    return found


def summary_keys(record: Mapping[str, Any], reading: ReadingSection) -> Sequence[str]:
    """Return the keys of a record's references: those of `columns` that it has, or `summary`.

    Files of one input may differ in this; a table without a named column is refused before.
    """
    if "summary" not in reading.columns:
        return SUMMARY_KEYS
    return [key for key in reading.summary_columns if key in record] or SUMMARY_KEYS


def why_missing(conversations: Sequence[Conversation]) -> str:
    """Return a clause for a message: what these conversations have instead, and the remedy."""
    if any(one.answers for one in conversations):
        return "thumbs have none: name conversations with references by data.test"
    keys = Counter(key for one in conversations for key in one.metadata)
    found = ", ".join(shown(key) for key, _ in keys.most_common(SHOWN_KEYS))
    hint = (
        f"found {found}: if one of them is the summary, name it (data.columns: {{summary: …}})"
        if found
        else "they have no other keys: add a key or a column summary (an empty one is none)"
    )
    for method, answers in JUDGED_KEYS.items():
        if answers <= keys.keys():
            hint += f"; judged answers are for data.train with method: {method}"
    answered = sum(_ends_with_the_assistant(one) for one in conversations)
    if answered * 2 > len(conversations):
        hint += (
            "; if they are chats whose last assistant message is the summary, set "
            "data.reference: last_assistant (it is read as talk now)"
        )
    return hint


def _ends_with_the_assistant(conversation: Conversation) -> bool:
    role = conversation.turns[-1].role
    return ALIASES.get(role.casefold(), role) == "agent"
