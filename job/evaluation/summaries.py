"""Files of summaries → summaries by conversation.

Purpose: read `id`, `summary` JSON lines (what `recap summarize` writes, or any other system) and match them to
conversations by id, exactly: a summary that is missing, twice there, or for nobody would bend the scores in silence.
Files in (plain, .gz or .zst), a dict out. Text goes through the same cleaning to what UTF-8 can hold as conversations
do. Knows nothing of scores.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from job.conversations.draft import RecordError
from job.conversations.read import read_json_lines
from job.conversations.record import Conversation, Source
from job.errors import DataError
from job.storage.open import InputFile

_NAMED = 5  # ids that a message lists


def read_summaries(
    files: Iterable[InputFile], uri: str, conversations: Sequence[Conversation]
) -> dict[str, str]:
    """Summaries by conversation id; `uri` names the files together in messages.

    Every conversation that has references needs its summary; other keys of a line are left alone. DataError names the
    lines and ids that are wrong.
    """
    known = Counter(conversation.id for conversation in conversations)
    _none(
        "the conversations",
        [id for id, count in known.items() if count > 1],
        "ids that several conversations share",
    )
    summaries: dict[str, str] = {}
    seen_at: dict[str, Source] = {}
    for where, record in (item for file in files for item in read_json_lines(file)):
        id, summary = _id_and_summary(record, where)
        if id in seen_at:
            raise DataError(
                f"{where}: id '{id}' has a summary already, at {seen_at[id]}; keep one of them"
            )
        seen_at[id], summaries[id] = where, summary
    _none(uri, [id for id in summaries if id not in known], "ids that no conversation has")
    wanted = [conversation.id for conversation in conversations if conversation.references]
    _none(uri, [id for id in wanted if id not in summaries], "conversations without a summary")
    return summaries


def _id_and_summary(record: Any, where: Source) -> tuple[str, str]:
    if isinstance(record, RecordError):
        raise DataError(f"{where}: {record.detail}; wanted one object with id and summary a line")
    if not isinstance(record, dict) or "id" not in record or "summary" not in record:
        got = (
            f"the keys {', '.join(record) or 'none'}"
            if isinstance(record, dict)
            else type(record).__name__
        )
        raise DataError(f"{where}: got {got}; wanted an object with id and summary")
    id, summary = record["id"], record["summary"]
    if isinstance(id, bool) or not isinstance(id, str | int) or not isinstance(summary, str):
        raise DataError(
            f"{where}: id is {type(id).__name__} and summary is {type(summary).__name__}; wanted text for both"
        )
    return str(id), summary


def _none(where: str, ids: Sequence[str], what: str) -> None:
    if ids:
        named = ", ".join(f"'{id}'" for id in ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
        raise DataError(
            f"{where}: {len(ids)} {what}: {named}; the summaries must be of exactly the conversations of input, by id"
        )
