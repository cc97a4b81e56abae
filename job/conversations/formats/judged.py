"""Records with judged answers: pairs of a preferred and another one, and answers with a thumb.

The conversation is that of any other format (`turns`, `messages`, a table's column), or a prompt:
TRL's `prompt`, the messages with which both answers of a pair begin, or OpenAI's `input`. System
messages of a prompt instruct the summarizer and are dropped, and a single message of the user is
the whole transcript, as in chats that end with their summary.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from job.config.data_sections import ReadingSection
from job.config.method_sections import Judged
from job.conversations.draft import (
    ALIASES,
    Draft,
    RecordError,
    draft,
    kind,
    metadata_of,
    names,
    shown,
)
from job.conversations.formats.choose import conversation_key, parse
from job.conversations.listed import list_in
from job.conversations.record import Answer
from job.conversations.references import MISSING_MARKS, references_of, summary_keys
from job.conversations.transcript import Transcript
from job.conversations.turn_objects import (
    canonical_role,
    conversation_of_prompt,
    transcript_of_message,
    turns_from_objects,
)
from job.errors import DataError

Record = Mapping[str, Any]

ANSWER: Mapping[Judged, str] = {"pairs": "chosen", "thumbs": "completion"}
NAME_ANSWERS: Mapping[Judged, str] = {
    "pairs": "name the answers (data.columns: {chosen: …, rejected: …})",
    "thumbs": "name the answers (data.columns: {completion: …, label: …})",
}
PROMPT = "prompt"
OPENAI_INPUT = "input"
OPENAI_ANSWERS = ("preferred_output", "non_preferred_output")
LABELS = {
    "true": True, "1": True, "up": True,
    "false": False, "0": False, "-1": False, "down": False,
}  # fmt: skip
HEADING = re.compile(r"([^\W\d_][\w;]*)[ \t]*:[ \t]*")  # in front of an answer
SUMMARY_HEADINGS = ("summary", "tl;dr", "tldr")


def reading_of_rows(reading: ReadingSection, judged: Judged) -> ReadingSection:
    """Return how files become records: all have the answer's key, whatever their conversations."""
    columns = {use: name for use, name in reading.columns.items() if use == "id"}
    column = _column(reading, ANSWER[judged])
    update = {"format": "table", "columns": columns | {"conversation": column}, "turns": {}}
    return reading.model_copy(update=update)


def own_error(error: DataError, judged: Judged) -> DataError:
    """Return an error of reading by `reading_of_rows` with the key that a config of answers has."""
    message = str(error).replace("data.columns.conversation", f"data.columns.{ANSWER[judged]}")
    return DataError(message)


def parse_judged(
    record: Record, reading: ReadingSection, id_key: str | None, judged: Judged
) -> Draft:
    """Return the conversation of a record with its judged answers.

    Answers are as they are written, even if nothing can be learned from them; there is none without
    a label. Raise RecordError if the record has not what a pair or a thumb consists of.
    """
    return (_parse_pair if judged == "pairs" else _parse_thumb)(record, reading, id_key)


def why_useless(answers: Sequence[Answer]) -> str | None:
    """Return why nothing can be learned from a record's answers, None if something can."""
    texts = [" ".join(answer.text.split()) for answer in answers]
    match texts:
        case []:
            return "no label"
        case [completion]:
            return None if completion else "the completion is empty"
        case ["", _]:
            return "the preferred answer is empty"
        case [_, ""]:
            return "the other answer is empty"
        case [chosen, rejected]:
            return "both answers are equal" if chosen == rejected else None
    raise AssertionError("a record has at most two answers")


def _parse_pair(record: Record, reading: ReadingSection, id_key: str | None) -> Draft:
    keys = (_column(reading, "chosen"), _column(reading, "rejected"))
    if keys[0] not in record and any(key in record for key in OPENAI_ANSWERS):
        keys = OPENAI_ANSWERS
    for key in keys:
        _check_answer(record, key, reading, "pairs")
    both = [_listed(record[key], key) for key in keys]
    rest = {key: value for key, value in record.items() if key not in keys}
    beginning: list[Any] | str = []
    if all(isinstance(each, list) for each in both):
        shared = _shared(*both)
        beginning = both[0][:shared]
        both = [each[shared:] for each in both]
    elif all(isinstance(each, str) for each in both) and not _has_conversation(rest, reading):
        beginning, *both = _without_shared_lines(*both)
    texts = [_text_of(each, key, reading) for each, key in zip(both, keys, strict=True)]
    found = _conversation_of(rest, reading, id_key, beginning)
    answers = (Answer(texts[0], True), Answer(texts[1], False))
    references = [texts[0], *found.references] if texts[0].strip() else found.references
    return found._replace(answers=answers, references=tuple(references))


def _parse_thumb(record: Record, reading: ReadingSection, id_key: str | None) -> Draft:
    keys = (_column(reading, "completion"), _column(reading, "label"))
    for key in keys:
        _check_answer(record, key, reading, "thumbs")
    rest = {key: value for key, value in record.items() if key not in keys}
    text = _text_of(_listed(record[keys[0]], keys[0]), keys[0], reading)
    is_wanted = _label(record[keys[1]], keys[1])
    answers = () if is_wanted is None else (Answer(text, is_wanted),)
    return _conversation_of(rest, reading, id_key, [])._replace(answers=answers)


def _column(reading: ReadingSection, use: str) -> str:
    """Return the key of an answer or a label: that of `columns`, or its usual name."""
    return next((str(name) for key, name in reading.columns.items() if str(key) == use), use)


def _check_answer(record: Record, key: str, reading: ReadingSection, judged: Judged) -> None:
    """Raise RecordError if the record lacks the key, with the method that learns from it, if any.

    Files of `recap feedback` are easily taken for one another.
    """
    if key in record:
        return
    remedy = NAME_ANSWERS[judged]
    if judged == "thumbs" and (ANSWER["pairs"] in record or OPENAI_ANSWERS[0] in record):
        remedy = "method: dpo learns from pairs; thumbs/ of `recap feedback` has thumbs"
    elif judged == "pairs" and ANSWER["thumbs"] in record and "label" in record:
        remedy = "method: kto learns from thumbs; pairs/ of `recap feedback` has pairs"
    elif any(name in record for name in (*summary_keys(record, reading), "summaries")):
        remedy = (
            f"method: sft learns from references; {judged}/ of `recap feedback` has {judged}, "
            f"or {remedy}"
        )
    raise RecordError(f"has no '{key}'; found {names(record)}; {remedy}")


def _listed(value: Any, key: str) -> Any:
    """Return messages as a list, also a single one, and those in a text, as in a cell of CSV."""
    if isinstance(value, str):
        listed = list_in(value, key)
        return value if listed is None else listed
    return [value] if isinstance(value, Mapping) else value


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many items begin both sequences, not counting the last of either."""
    shared = 0
    for left, right in zip(one[:-1], other[:-1], strict=False):
        if left != right:
            break
        shared += 1
    return shared


def _without_shared_lines(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return the lines with which both texts begin, and the rest of each.

    A heading in front of both rests, such as `Assistant:`, belongs to neither.
    """
    lines = [text.splitlines(keepends=True) for text in (chosen, rejected)]
    shared = _shared(*lines)
    rests = ["".join(some[shared:]) for some in lines]
    headings = [HEADING.match(rest) for rest in rests]
    if all(heading and _heads_an_answer(heading[1]) for heading in headings):
        rests = [HEADING.sub("", rest, count=1) for rest in rests]
    return "".join(lines[0][:shared]), rests[0], rests[1]


def _heads_an_answer(heading: str) -> bool:
    name = heading.casefold()
    return name in SUMMARY_HEADINGS or ALIASES.get(name) == "agent"


def _text_of(value: Any, key: str, reading: ReadingSection) -> str:
    """Return the text of an answer: a text, or the one message of the assistant. Null is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return "" if value.strip() in MISSING_MARKS else value
    if not isinstance(value, list):
        raise RecordError(f"{key} is {kind(value)}, wanted text or a message")
    turns = turns_from_objects(value, key, reading).turns
    if len(turns) != 1:
        raise RecordError(f"{key} has {len(turns)} messages behind the prompt, wanted one")
    if canonical_role(turns[0]) != "agent":
        raise RecordError(f"{key} is a message by '{shown(turns[0].role)}', wanted the assistant's")
    return turns[0].text


def _label(value: Any, key: str) -> bool | None:
    """Return the label of an answer, None if there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes a column of numbers with gaps so
    word = "" if value is None else str(value).strip()
    if not word or word in MISSING_MARKS:
        return None
    label = LABELS.get(word.casefold())
    if label is None:
        raise RecordError(f"{key} is {shown(word)}, wanted true or false (or 1, 0, -1, up, down)")
    return label


def _has_conversation(rest: Record, reading: ReadingSection) -> bool:
    is_prompt = _holds_prompt(rest, reading) or _openai_messages(rest) is not None
    return is_prompt or conversation_key(reading, rest) is not None


def _holds_prompt(rest: Record, reading: ReadingSection) -> bool:
    return PROMPT in rest and reading.column("conversation") in (None, PROMPT)


def _openai_messages(rest: Record) -> Any:
    found = rest.get(OPENAI_INPUT)
    return found.get("messages") if isinstance(found, Mapping) else None


def _conversation_of(
    rest: Record, reading: ReadingSection, id_key: str | None, beginning: list[Any] | str
) -> Draft:
    """Return the conversation of a record without its answers, which have that `beginning`."""
    key = None
    messages = _openai_messages(rest)
    if messages is not None:
        key, prompt = OPENAI_INPUT, messages
    elif _holds_prompt(rest, reading):
        key, prompt = PROMPT, _listed(rest[PROMPT], PROMPT)
    elif conversation_key(reading, rest) is not None:
        return parse(rest, reading, id_key)
    elif beginning:
        prompt = beginning
    else:
        raise RecordError(
            f"has no conversation: neither {PROMPT}, turns, messages nor a beginning that both "
            f"answers share; found {names(rest)}; name its key (data.columns: {{conversation: …}})"
        )
    transcript = _transcript_of(prompt, key or "the beginning of both answers", reading)
    keys = summary_keys(rest, reading)
    references = references_of(rest, keys)
    metadata = metadata_of(rest, {key, *keys, "summaries", id_key})
    return draft(transcript.turns, references, metadata, transcript.doubts)


def _transcript_of(prompt: Any, where: str, reading: ReadingSection) -> Transcript:
    if prompt is None:
        return Transcript([])
    if isinstance(prompt, str):
        return transcript_of_message(prompt, reading, where)
    return conversation_of_prompt(turns_from_objects(prompt, where, reading), reading)
