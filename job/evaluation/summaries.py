"""A file of summaries → summaries by conversation.

Purpose: read `id`, `summary` JSON lines (what `recap summarize` writes, or any other system) and match them to
conversations by id, exactly: a summary that is missing, twice there, or for nobody would bend the scores in silence.
Lines in, a dict out. Knows nothing of scores or of where the file lies.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from job.conversations.record import Conversation
from job.errors import DataError

_NAMED = 5  # ids that a message lists


def read_summaries(lines: Iterable[bytes | str], uri: str, conversations: Sequence[Conversation]) -> dict[str, str]:
    """Summaries by conversation id; `uri` names the file in messages.

    Every conversation that has references needs its summary; other keys of a line are left alone. DataError names the
    lines and ids that are wrong.
    """
    known = Counter(conversation.id for conversation in conversations)
    _none("the conversations", [id for id, count in known.items() if count > 1], "ids that several conversations share")
    summaries: dict[str, str] = {}
    seen_at: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        id, summary = _record(line, f"{uri} line {number}")
        if id in seen_at:
            raise DataError(
                f"{uri} line {number}: id '{id}' has a summary on line {seen_at[id]} already; keep one of them"
            )
        seen_at[id], summaries[id] = number, summary
    _none(uri, [id for id in summaries if id not in known], "ids that no conversation has")
    wanted = [conversation.id for conversation in conversations if conversation.references]
    _none(uri, [id for id in wanted if id not in summaries], "conversations without a summary")
    return summaries


def _record(line: bytes | str, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); wanted one object with id and summary a line") from error
    if not isinstance(record, dict) or "id" not in record or "summary" not in record:
        got = f"the keys {', '.join(record) or 'none'}" if isinstance(record, dict) else type(record).__name__
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
