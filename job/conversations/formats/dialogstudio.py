"""DialogStudio dialogs: a `log` of pairs, the customer's utterance, then the response.

Either side of a pair may be blank, also at the start and the end of a dialog. Side information,
dialog histories and prompts are no metadata: they repeat the dialog many times over.
"""

from collections.abc import Mapping
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import Draft, RecordError, draft, kind, metadata_of, names, role_of
from job.conversations.json_text import parse_json
from job.conversations.record import Turn
from job.conversations.references import references_of, summary_keys

INFO = "original dialog info"
SIDES = (("user utterance", "customer"), ("system response", "agent"))


def parse(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return one dialog. Raise RecordError if it is not one."""
    if "log" not in record:
        raise RecordError(f"has no 'log'; found {names(record)}")
    log = record["log"]
    if not isinstance(log, list):
        raise RecordError(f"log is {kind(log)}, wanted a list of turn pairs")
    turns: list[Turn] = []
    for number, pair in enumerate(log, 1):
        turns += _turns(pair, number)
    if reading.drop_roles:
        turns = [turn for turn in turns if role_of(turn.role, reading) is not None]
    info = _info(record.get(INFO))
    keys = summary_keys(record, reading)
    references = [
        *_abstractive(info),
        *references_of(info | {"summaries": None}),
        *references_of(record, keys),
    ]
    used = {"log", "prompt", INFO, *keys, "summaries", id_key}
    return draft(turns, references, metadata_of(record, used))


def _turns(pair: Any, number: int) -> list[Turn]:
    if not isinstance(pair, Mapping) or not any(key in pair for key, _ in SIDES):
        found = names(pair) if isinstance(pair, Mapping) else kind(pair)
        raise RecordError(
            f"log item {number} has neither 'user utterance' nor 'system response'; found {found}"
        )
    turns = []
    for key, role in SIDES:
        text = pair.get(key)
        if text is not None and not isinstance(text, str):
            raise RecordError(f"log item {number}: {key} is {kind(text)}, wanted text")
        turns.append(Turn(role, text or ""))
    return turns


def _info(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = parse_json(value) if value.strip() else {}
    if value is not None and not isinstance(value, dict):
        raise RecordError(f"{INFO} is {kind(value)}, wanted an object, or one as JSON text")
    return value or {}


def _abstractive(info: Mapping[str, Any]) -> list[str]:
    summaries = info.get("summaries")
    if not isinstance(summaries, Mapping):
        return references_of({"summary": summaries})
    listed = summaries.get("abstractive_summaries") or []
    if not isinstance(listed, list):
        raise RecordError(
            f"abstractive_summaries is {kind(listed)}, wanted a list of lists of sentences"
        )
    references = []
    for item in listed:
        sentences = [item] if isinstance(item, str) else item
        if not isinstance(sentences, list) or not all(
            isinstance(sentence, str) for sentence in sentences
        ):
            raise RecordError(
                "abstractive_summaries: a reference is neither text nor a list of sentences"
            )
        references.append(" ".join(sentences))
    return references
