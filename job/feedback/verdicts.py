"""Files of verdicts → rows that are a verdict, or the reason why they are none.

JSON lines, CSV and Parquet are read as files of conversations are: by their content, plain or
compressed. Names of agents never leave this module: a verdict has a digest of them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from job.config.data_sections import ReadingSection
from job.config.document import as_yaml
from job.config.feedback_sections import FieldsSection, VerdictField, verdict_word
from job.conversations.draft import RecordError, id_of, kind, names, shown, without_bytes
from job.conversations.opening import plain_stream
from job.conversations.read import rows_of
from job.conversations.record import Source
from job.conversations.references import MISSING_MARKS
from job.conversations.turn_objects import MISSING, value_at
from job.errors import DataError
from job.identity import blake2b_16
from job.storage.open import InputFile
from job.summarization.identity import DIGEST_BYTES

Thumb = Literal["up", "down"]
Reason = Literal[
    "invalid_row",  # no verdict: broken JSON, no id, no field of a verdict, a wrong value
    "not_judged",  # the fields of verdict and edit are there, and blank or `none`
    "no_digest",  # the row has no digest of the summary's line
    "unknown_id",  # no night that was read has a summary with this id
    "other_digest",  # summaries of this id have another digest: the agent saw another one
    "ambiguous",  # two nights have this line with different summaries
    "no_conversation",  # the summary's conversation is gone, or has changed since
    "superseded",  # the same agent's later verdict on the same summary replaced it
]
REASONS: tuple[Reason, ...] = get_args(Reason)
NO_MISTAKE: tuple[Reason, ...] = ("not_judged", "superseded")
AGENT_DIGITS = 12  # of the digest of an agent's name
LONGEST_TEXT = 100_000  # characters of an edit: more is a file that lost its quotes
EPOCH_IN_MILLISECONDS = 1e11  # seconds of the year 5138
FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # what is before counts something else
CLOCK_SLACK = timedelta(days=1)  # local times without a zone are up to 14 hours ahead
DIGITS_OF_A_DATE = 8  # 20260131 is a date of ISO 8601
HEX_DIGITS = frozenset("0123456789abcdef")
NAMED = {
    "true": "up",
    "false": "down",
    "t": "up",  # as PostgreSQL writes true
    "f": "down",
    "1": "up",
    "0": "down",
    "-1": "down",
}


@dataclass(frozen=True)
class Verdict:
    """An agent's verdict on one line of a night; `verdict`, `edited` or both are set.

    `by` is a digest of the agent, empty if the file names none, and `at` the time in UTC.
    `has_unknown_time` is True if the file has something at `at` that is no time.
    """

    source: Source
    id: str
    digest: str
    verdict: Thumb | None
    edited: str | None
    reason: str = ""
    by: str = ""
    at: datetime | None = None
    has_unknown_time: bool = False


@dataclass(frozen=True)
class Unmatched:
    """A row that joined nothing, and why; `id` is None if none could be read.

    `unknown_verdict` is the value of the verdict if that has no known meaning.
    """

    source: Source
    reason: Reason
    detail: str
    id: str | None = None
    unknown_verdict: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row of unmatched.jsonl. It has no text of the agent."""
        source = {"uri": self.source.uri, "line": self.source.line}
        return {"id": self.id, "source": source, "reason": self.reason, "detail": self.detail}


class UnknownVerdictError(RecordError):
    """Raised for a row whose verdict has a value without a known meaning."""

    def __init__(self, value: str, detail: str) -> None:
        super().__init__(detail)
        self.value = value


def read_verdicts(
    files: Iterable[InputFile], fields: FieldsSection
) -> Iterator[Verdict | Unmatched]:
    """Yield every row of the files, in order.

    Raise DataError for a file that cannot be read to its end, or that lacks the column of the id.
    """
    # The column that must be there is the one that a table of conversations calls conversation.
    reading = ReadingSection(
        format="table", columns={"conversation": fields.name_of("id")}, csv=fields.csv
    )
    for file in files:
        try:
            with closing(file.store.open(file.key)) as stored:
                for line, row in rows_of(plain_stream(stored, file.uri), file.uri, reading):
                    yield verdict_of(row, Source(file.uri, line), fields)
        except DataError as error:
            raise DataError(_with_own_keys(str(error))) from error


def _with_own_keys(message: str) -> str:
    """Return a reader's message with the keys that a config of feedback has, and no others."""
    message = message.replace("data.columns.conversation", "fields.names: {id: …}")
    # Every file below `verdicts` is read: a config of feedback selects conversations only.
    message = message.replace("leave it out by data.exclude", "move it out of `verdicts`")
    message = message.replace("leave the file out by data.exclude", "move it out of `verdicts`")
    message = re.sub(r" \(data\.format: transcript [^)]*\)", "", message)
    return message.replace("data.csv", "fields.csv")


def verdict_of(row: Any, source: Source, fields: FieldsSection) -> Verdict | Unmatched:
    """Return the verdict that a row is, or why it is none."""
    id = None
    try:
        if isinstance(row, RecordError):
            raise RecordError(_with_own_keys(row.detail))
        if not isinstance(row, dict):
            raise RecordError(f"the row is {kind(row)}, wanted an object")
        id = _id(row, fields)
        verdict = _thumb(row, fields)
        edited = _text(row, fields, "edited")
        if verdict is None and edited is None:
            return _without_verdict(row, source, fields, id)
        digest = (_text(row, fields, "digest") or "").strip().lower()
        agent = _integer(_value(row, fields, "by"))
        stamp = _value(row, fields, "at")
        reason = _reason(_value(row, fields, "reason"))
    except RecordError as error:
        unknown = error.value if isinstance(error, UnknownVerdictError) else None
        return Unmatched(source, "invalid_row", error.detail, id, unknown)
    if len(digest) != 2 * DIGEST_BYTES or not HEX_DIGITS.issuperset(digest):
        what = "no digest" if not digest else f"a digest of {len(digest)} characters"
        name = fields.name_of("digest")
        detail = f"{name} is {what}, wanted the {2 * DIGEST_BYTES} hexadecimal digits of the line"
        return Unmatched(source, "no_digest", detail, id)
    by = "" if agent is None else blake2b_16(str(agent).strip()).hex()[:AGENT_DIGITS]
    at = None if stamp is None else _time(stamp)
    is_unknown = stamp is not None and at is None
    return Verdict(source, id, digest, verdict, edited, reason, by, at, is_unknown)


def _without_verdict(
    row: Mapping[str, Any], source: Source, fields: FieldsSection, id: str
) -> Unmatched:
    """Return why a row has neither a verdict nor an edit: nobody judged, or it has no such field.

    A row without both fields may be of a file that names them otherwise.
    """
    verdict = fields.name_of("verdict")
    edited = fields.name_of("edited")
    states = []
    for name in (verdict, edited):
        value = value_at(row, name)
        is_blank = not str(value).strip() or value is None
        state = "missing" if value is MISSING else "blank" if is_blank else f"'{shown(str(value))}'"
        states.append(f"{name} is {state}")
    if all(value_at(row, name) is MISSING for name in (verdict, edited)):
        wanted = f"{verdict} or {edited}"
        detail = f"has neither a verdict nor an edit ({wanted}); found {names(row)}"
        return Unmatched(source, "invalid_row", detail, id)
    return Unmatched(source, "not_judged", " and ".join(states), id)


def _id(row: Mapping[str, Any], fields: FieldsSection) -> str:
    value = _value(row, fields, "id")
    if value is None:
        raise RecordError(f"has no {fields.name_of('id')}; found {names(row)}")
    return id_of({"id": value}, "id")


def _value(row: Mapping[str, Any], fields: FieldsSection, field: VerdictField) -> Any:
    """Return the value of a field, None for a blank and for a mark of a missing value."""
    value = value_at(row, fields.name_of(field))
    if value is MISSING:
        return None
    if isinstance(value, str) and (not value.strip() or value.strip() in MISSING_MARKS):
        return None
    return value


def _text(row: Mapping[str, Any], fields: FieldsSection, field: VerdictField) -> str | None:
    value = _value(row, fields, field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise RecordError(f"{fields.name_of(field)} is {kind(value)}, wanted text")
    if len(value) > LONGEST_TEXT:
        length = f"{len(value):,} characters, and at most {LONGEST_TEXT:,} are read"
        raise RecordError(f"{fields.name_of(field)} has {length}")
    return value.strip()


def _reason(value: Any) -> str:
    """Return the words of a reason, which costs no verdict: of a list, its items, else JSON."""
    if value is None:
        return ""
    items = [_integer(item) for item in (value if isinstance(value, list) else [value])]
    texts = [item if isinstance(item, str) else json.dumps(without_bytes(item)) for item in items]
    return ", ".join(text.strip() for text in texts)[:LONGEST_TEXT]


def _thumb(row: Mapping[str, Any], fields: FieldsSection) -> Thumb | None:
    name = fields.name_of("verdict")
    value = value_at(row, name)
    meanings = {verdict_word(key): meaning for key, meaning in fields.values.items()}
    word = verdict_word(value)
    # `values` may give a meaning to a mark of a missing value, too.
    if not isinstance(value, str) or word not in meanings:
        value = _value(row, fields, "verdict")
    if value is None:
        return None
    if not isinstance(value, str | bool | int | float):
        raise UnknownVerdictError(kind(value), f"{name} is {_unusable(value, name)}")
    match meanings.get(word) or NAMED.get(word, word):
        case "none":
            return None
        case "up":
            return "up"
        case "down":
            return "down"
    found = str(value).strip()
    remedy = "fields.values"
    if shown(found) == found:
        remedy += f": {as_yaml({found: 'none'})}"
    raise UnknownVerdictError(
        word,
        f"{name} is '{shown(found)}', wanted up or down; say what it means, up, down or none "
        f"({remedy})",
    )


def _unusable(value: Any, name: str) -> str:
    """Return what a verdict is that has parts, and where to find the one that counts."""
    text = f"{kind(value)}, wanted up or down"
    if not isinstance(value, Mapping):
        return text
    text += f"; found {names(value)} in it"
    usable = [key for key, item in value.items() if isinstance(item, str | bool | int | float)]
    if usable:
        path = as_yaml({"verdict": f"{name}.{usable[0]}"})
        text += f"; name the one that counts (fields.names: {path})"
    return text


def _integer(value: Any) -> Any:
    """Return 7 for 7.0 and "7.0": pandas writes a column of numbers with gaps so."""
    if isinstance(value, str) and value.strip().removesuffix(".0").isdecimal():
        return value.strip().removesuffix(".0")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _time(value: Any) -> datetime | None:
    """Return the time in UTC: ISO 8601 (without a zone, UTC), or seconds or ms of the epoch.

    None for what is no time, for one before FIRST_TIME, such as a number that counts rows, and for
    one that is still to come: it would pass for the last word of its agent.
    """
    try:
        number = _number(value)
        if number is None:
            found = datetime.fromisoformat(str(value).strip())
            found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
        else:
            seconds = number / 1000 if abs(number) > EPOCH_IN_MILLISECONDS else number
            found = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if FIRST_TIME <= found <= datetime.now(UTC) + CLOCK_SLACK else None


def _number(value: Any) -> float | None:
    """Return the number that a value is or has as text, None for a date and for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if len(text) == DIGITS_OF_A_DATE and text.isdecimal():
            return None
        try:
            return float(text)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) else None
