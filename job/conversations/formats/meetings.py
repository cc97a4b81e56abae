"""Meetings and interviews: QMSum and MediaSum, as the data sets are published.

QMSum has a list of turns, and its references among questions about the meeting. MediaSum has the
speakers in one list and their utterances in another.
"""

from collections.abc import Mapping
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import Draft, RecordError, draft, kind, metadata_of, names, role_of
from job.conversations.record import Turn
from job.conversations.references import references_of, summary_keys
from job.conversations.turn_objects import turns_from_objects

TRANSCRIPT, GENERAL = "meeting_transcripts", "general_query_list"
# Answers about parts of the meeting: many times the summary, and of no use beside it.
QUERIES = (GENERAL, "specific_query_list", "topic_list")


def parse_qmsum(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return one meeting; its reference is the answer to the first general query.

    Its own summary takes precedence. Raise RecordError if it is not a meeting.
    """
    if TRANSCRIPT not in record:
        raise RecordError(f"has no '{TRANSCRIPT}'; found {names(record)}")
    transcript = turns_from_objects(record[TRANSCRIPT], TRANSCRIPT, reading)
    keys = summary_keys(record, reading)
    references = references_of(record, keys) or _general_answer(record.get(GENERAL))
    used = {TRANSCRIPT, *QUERIES, *keys, "summaries", id_key}
    return draft(transcript.turns, references, metadata_of(record, used), transcript.doubts)


def parse_mediasum(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return one interview. Raise RecordError if it is not one."""
    said, speakers = (record.get(key) for key in ("utt", "speaker"))
    if not isinstance(said, list) or not isinstance(speakers, list) or len(said) != len(speakers):
        found = f"utt is {_size_of(said)} and speaker {_size_of(speakers)}"
        raise RecordError(f"{found}, wanted two lists of one length")
    turns = []
    for number, (label, text) in enumerate(zip(speakers, said, strict=True), 1):
        role = role_of(label, reading)
        if not isinstance(text, str):
            raise RecordError(f"utt {number} is {kind(text)}, wanted text")
        if role is not None:
            turns.append(Turn(role, text))
    keys = summary_keys(record, reading)
    used = {"utt", "speaker", *keys, "summaries", id_key}
    return draft(turns, references_of(record, keys), metadata_of(record, used))


def is_mediasum(record: Mapping[str, Any]) -> bool:
    """Return True for a record with both lists of MediaSum."""
    return "utt" in record and "speaker" in record


def _general_answer(queries: Any) -> list[str]:
    if queries is None:
        return []
    if not isinstance(queries, list) or not all(isinstance(query, Mapping) for query in queries):
        raise RecordError(f"{GENERAL} is {kind(queries)}, wanted a list of queries with answers")
    answers = [query["answer"] for query in queries if query.get("answer") is not None]
    for answer in answers:
        if not isinstance(answer, str):
            raise RecordError(f"{GENERAL}: an answer is {kind(answer)}, wanted text")
    return answers[:1]


def _size_of(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else kind(value)
