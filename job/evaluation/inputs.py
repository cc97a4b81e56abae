"""The input of an evaluation: conversations to score, training references and given summaries.

Given summaries are `id`, `summary` JSON lines, as `recap summarize` or any other system writes
them, perhaps with `finish_reason`. They are matched to conversations by id, exactly: a summary that
is missing, repeated, or nobody's would change the scores without a word.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from job.config.commands import EvaluateConfig
from job.config.sections import StorageSection, as_list
from job.conversations.draft import RecordError
from job.conversations.read import read_json_lines, read_strictly
from job.conversations.record import Conversation, Source
from job.conversations.references import why_missing
from job.errors import DataError, naming_key
from job.evaluation.evaluate import choose_conversations
from job.evaluation.result import Kind
from job.evaluation.systems import System
from job.storage.open import InputFile, list_inputs
from job.storage.selection import Selection
from job.telemetry import warn

SHOWN_IDS = 5  # in a message


class GivenSummary(NamedTuple):
    """A summary of a file; `finish_reason` is None unless the file has it."""

    text: str
    finish_reason: str | None = None


class Input(NamedTuple):
    """All conversations of the input, and those of them to score."""

    everything: list[Conversation]
    chosen: list[Conversation]


def read_input(config: EvaluateConfig) -> Input:
    """Read the conversations and choose those to score. Warns of those without a reference.

    Raise DataError if there are none, or none can be scored.
    """
    with naming_key("input"):
        files = list_inputs(as_list(config.input), config.storage, Selection.of(config.data))
    everything = read_strictly(files, config.data)
    chosen = choose_conversations(everything, config.evaluation.max_conversations)
    missing = [conversation for conversation in everything if not conversation.references]
    if missing:
        warn(
            "conversations without a reference summary are not scored",
            conversations=len(missing),
            of=len(everything),
            first=str(missing[0].source),
            why=why_missing(missing),
        )
    return Input(everything, chosen)


def read_train(config: EvaluateConfig) -> list[Conversation] | None:
    """Read the training conversations; None if the config names none."""
    if config.train is None:
        return None
    with naming_key("train"):
        files = list_inputs(as_list(config.train), config.storage, Selection.of(config.data))
    return read_strictly(files, config.data)


def all_references(conversations: Iterable[Conversation]) -> list[str]:
    """Return the references of all conversations."""
    return [text for conversation in conversations for text in conversation.references]


def read_given(
    config: EvaluateConfig, everything: Sequence[Conversation]
) -> dict[str, GivenSummary]:
    """Read the given summaries by id.

    They must fit all conversations of the input, also where only some of them are scored.
    """
    assert config.summaries is not None
    files = _summary_files("summaries", config.summaries, config.storage)
    return read_summaries(files, config.summaries, everything)


def read_others(
    others: Mapping[str, str],
    storage: StorageSection,
    conversations: Sequence[Conversation],
) -> list[System]:
    """Read other systems' summaries of the conversations that are scored, by name and URI.

    Summaries of other conversations are ignored: a file of production has more of them. Raise
    DataError if one is missing.
    """
    systems = []
    for name, uri in others.items():
        files = _summary_files("evaluation.others", uri, storage)
        given = read_summaries(files, uri, conversations, may_have_more=True)
        systems.append(given_system(name, "other", uri, given, conversations))
    return systems


def given_system(
    name: str,
    kind: Kind,
    uri: str,
    given: Mapping[str, GivenSummary],
    conversations: Sequence[Conversation],
) -> System:
    """Return the system whose summaries were read from `uri`."""
    own = [given[conversation.id] for conversation in conversations]
    texts = [summary.text for summary in own]
    reasons = [summary.finish_reason for summary in own]
    return System(name, kind, texts, reasons, origin=f"the summaries of {uri}")


def read_summaries(
    files: Iterable[InputFile],
    uri: str,
    conversations: Sequence[Conversation],
    may_have_more: bool = False,
) -> dict[str, GivenSummary]:
    """Read summaries by id; other keys of a line are ignored.

    Each conversation with a reference needs a summary. With `may_have_more`, summaries of other
    conversations are ignored, also if one has several. `uri` names all files together in messages.
    Raise DataError with the lines and ids that are wrong.
    """
    known = Counter(conversation.id for conversation in conversations)
    shared = [id for id, count in known.items() if count > 1]
    remedy = "summaries are matched by id, so give each conversation one of its own"
    _check_none("the conversations", shared, "ids that several conversations share", remedy)

    summaries: dict[str, GivenSummary] = {}
    sources: dict[str, Source] = {}
    for file in files:
        for source, record in read_json_lines(file):
            id, summary = _id_and_summary(record, source)
            if may_have_more and id not in known:
                continue
            if id in sources:
                raise DataError(
                    f"{source}: id '{id}' has a summary already, at {sources[id]}; keep one of them"
                )
            sources[id] = source
            summaries[id] = summary

    unknown = [id for id in summaries if id not in known]
    remedy = "remove these summaries, or add their conversations to input"
    _check_none(uri, unknown, "ids that no conversation has", remedy)
    wanted = [conversation.id for conversation in conversations if conversation.references]
    missing = [id for id in wanted if id not in summaries]
    remedy = "add a summary of each, or remove them from input"
    _check_none(uri, missing, "conversations without a summary", remedy)
    return summaries


def _summary_files(key: str, uri: str, storage: StorageSection) -> list[InputFile]:
    with naming_key(key):
        files = list_inputs([uri], storage, own_outputs=True)
    # The output of `recap summarize` has rejects and a manifest beside the parts.
    parts = [file for file in files if file.key.startswith("parts/")]
    return parts or files


def _id_and_summary(record: Any, source: Source) -> tuple[str, GivenSummary]:
    """Return id and summary of a line; raise DataError if it is no such line."""
    if isinstance(record, RecordError):
        raise DataError(f"{source}: {record.detail}; wanted one object with id and summary a line")
    if not isinstance(record, dict):
        got = type(record).__name__
        raise DataError(f"{source}: got {got}; wanted an object with id and summary")
    if "id" not in record or "summary" not in record:
        keys = ", ".join(record) or "none"
        raise DataError(f"{source}: got the keys {keys}; wanted an object with id and summary")

    id = record["id"]
    summary = record["summary"]
    is_id = isinstance(id, str | int) and not isinstance(id, bool)
    if not is_id or not isinstance(summary, str):
        raise DataError(
            f"{source}: id is {type(id).__name__} and summary is {type(summary).__name__}; "
            "wanted text for both"
        )
    reason = record.get("finish_reason")
    return str(id), GivenSummary(summary, reason if isinstance(reason, str) else None)


def _check_none(where: str, ids: Sequence[str], what: str, remedy: str) -> None:
    """Raise DataError if there are such ids."""
    if not ids:
        return
    shown = ", ".join(f"'{id}'" for id in ids[:SHOWN_IDS])
    if len(ids) > SHOWN_IDS:
        shown += ", …"
    raise DataError(f"{where}: {len(ids)} {what}: {shown}; {remedy}")
