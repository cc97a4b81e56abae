"""Plan a night: its records, what summarizes them, its output, and whether it is done already."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from job.config.commands import SummarizeConfig
from job.config.load import resolved_yaml
from job.config.redaction import RedactionSection
from job.config.sections import as_list
from job.conversations.read import read_conversations
from job.conversations.record import Reject
from job.conversations.redaction import make_redactor, redact_message, redacted_errors
from job.environment import count_gpus
from job.errors import DataError, RecapError
from job.gpus.visible import visible_gpus
from job.model.champion import is_pointer, read_pointer
from job.preflight.access import probe_output
from job.preflight.challenger import challenger_checks
from job.preflight.checks import Check, Found, Plan, check, check_value
from job.preflight.devices import NONE_NAMED, Devices
from job.preflight.metric_models import describe_metric_model
from job.preflight.models import describe_champion, generating_checks
from job.preflight.prompts import Prompting, describe_prompts_of_night
from job.preflight.reward import reward_checks
from job.printable import number_of
from job.storage.open import InputFile
from job.summarization.champion import find_champion, follow
from job.summarization.chunks import count_chunks, size_of
from job.summarization.existing import check_free, find_finished, is_marked
from job.summarization.faithfulness import KEY as FAITHFULNESS_KEY
from job.summarization.inputs import check_enough, find_night_inputs
from job.summarization.night import begin_night
from job.summarization.output import check_apart, open_output
from job.summarization.workers import describe_workers

REJECTS_SHOWN = 3


@dataclass(frozen=True)
class _Input:
    """The files of the input, its records, and the chunks that a night would cut them into."""

    files: Sequence[InputFile]
    records: int
    rejects: int
    chunks: int


class _Counted(NamedTuple):
    """The numbers of records and of rejects among them, and what was found, for people."""

    text: str
    records: int
    rejects: int


def plan_summarizing(config: SummarizeConfig, devices: Devices = NONE_NAMED) -> Plan:
    """Plan a night: read its input whole, and look at its adapter, its base and its output.

    `devices` are those that it might run on.
    """
    redacting = config.model_copy(update={"redaction": _redaction_of(config)})
    input_check, found = check_value("input", lambda: _read_input(redacting), "input")
    files = found.files if found else None
    champion_checks, followed = _follow_champion(config)
    output_check, is_done = check_value("output", lambda: _look_at_output(config, files), "output")

    look = partial(_look_at_prompts, redacting, found) if found else None
    return Plan(
        title=f"plan of summarize run {config.run}",
        checks=[
            input_check,
            *champion_checks,
            *generating_checks(followed, devices, look),
            *challenger_checks(config, followed, found.records if found else None),
            *reward_checks(config, devices),
            _workers_check(config),
            *_faithfulness_checks(config),
            output_check,
        ],
        config=resolved_yaml(config),
        run=config.run,
        done=bool(is_done),
        chunks=found.chunks if found else None,
    )


def _follow_champion(config: SummarizeConfig) -> tuple[list[Check], SummarizeConfig]:
    """Return the check of the champion that a night follows, and a config that names its adapter.

    It is the config itself, unless the night has begun with another champion than that of now.
    """
    pointer = str(config.adapter)
    if not is_pointer(pointer):
        return [], config

    def describe() -> Found[SummarizeConfig]:
        champion = find_champion(config, open_output(config.output, config.storage))
        current = read_pointer(pointer, config.storage)
        text = describe_champion(current)
        if champion is None or champion.digest == current.champion.digest:
            return Found(text, config)
        return Found(
            f"{text}\nthis night began with version {champion.version} at "
            f"{champion.resolved_at}, and follows that: {champion.adapter}",
            follow(config, champion),
        )

    found, followed = check_value("champion", describe, "adapter")
    return [found], followed or config


def _redaction_of(config: SummarizeConfig) -> RedactionSection | None:
    """Return the redaction of the night, which its adapter decides if the config does not."""
    if config.adapter is None or "redaction" in config.model_fields_set:
        return config.redaction
    try:
        return begin_night(config, open_output(config.output, config.storage)).config.redaction
    except RecapError:
        # Another check shows the error. Until it is mended, nobody knows what may be quoted.
        return RedactionSection()


def _workers_check(config: SummarizeConfig) -> Check:
    gpus = visible_gpus(os.environ, count_gpus)
    return check("workers", lambda: describe_workers(config, gpus))


def _faithfulness_checks(config: SummarizeConfig) -> list[Check]:
    section = config.faithfulness_model
    if section is None:
        return []
    describe = partial(describe_metric_model, FAITHFULNESS_KEY, section, config.storage)
    return [check("faithfulness", describe, FAITHFULNESS_KEY)]


def _read_input(config: SummarizeConfig) -> Found[_Input]:
    """Count the records and the chunks of the input."""
    files = find_night_inputs(config).files
    with redacted_errors(make_redactor(config.redaction), [file.uri for file in files]):
        counted = _count_records(files, config)
        chunks = count_chunks(files, config.data, size_of(config.chunks))
    text = f"{counted.text}\n{number_of(chunks, 'chunk', 'chunks')}"
    return Found(text, _Input(files, counted.records, counted.rejects, chunks))


def _look_at_prompts(config: SummarizeConfig, found: _Input, prompting: Prompting) -> Found[None]:
    with redacted_errors(make_redactor(config.redaction), [file.uri for file in found.files]):
        records = read_conversations(found.files, config.data, config.redaction is None)
        counts = found.records, found.rejects
        return describe_prompts_of_night(records, counts, config, prompting)


def _look_at_output(config: SummarizeConfig, files: Sequence[InputFile] | None) -> Found[bool]:
    """Check that the output can be written; the value is True if this night's summaries are in it.

    `files` is None if the input could not be read.
    """
    output = open_output(config.output, config.storage)
    check_apart(output, as_list(config.input), files or [])
    writable = probe_output(output.store.uri, config.storage)
    # The identity of a night contains the digest of its base. An adapter records it, and a folder
    # on this machine can be read; the digest of any other base is known once it is downloaded.
    is_known = config.adapter is not None or Path(str(config.model.base)).is_dir()
    if files is None or not is_known:
        check_free(output)
        return Found(writable, False)

    manifest = find_finished(output, begin_night(config, output).identity(files))
    # A night that was killed between its manifest and its success marker must run once more.
    if manifest is None or not is_marked(output, manifest):
        return Found(writable, False)
    return Found(f"{writable}\nholds this run's summaries already", True)


def _count_records(files: Sequence[InputFile], config: SummarizeConfig) -> _Counted:
    """Return the numbers of conversations and of rejects in the files, with the first rejects.

    Raise MissingError for fewer records than `limits.min_records`, DataError for a larger share of
    rejects than `limits.max_reject_fraction`.
    """
    good = 0
    doubtful = 0
    rejects: list[Reject] = []
    for record in read_conversations(files, config.data, config.redaction is None):
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        good += 1
        if record.doubts:
            doubtful += 1
    records = good + len(rejects)
    check_enough(records, config)

    counts = (
        number_of(len(files), "file", "files"),
        number_of(good, "conversation", "conversations"),
        number_of(len(rejects), "reject", "rejects"),
    )
    lines = [", ".join(counts)]
    if doubtful:
        doubts = number_of(doubtful, "conversation has", "conversations have")
        lines.append(f"{doubts} lines that may be another speaker's")
    redactor = make_redactor(config.redaction)
    for reject in rejects[:REJECTS_SHOWN]:
        lines.append(str(replace(reject, detail=redact_message(reject.detail, redactor))))
    found = "\n".join(lines)

    allowed = config.limits.max_reject_fraction
    if len(rejects) > allowed * records:
        raise DataError(
            f"{found}\nmore rejects than limits.max_reject_fraction allows ({allowed:.2%}), so the "
            "night would end with 65: mend the records, or raise the limit"
        )
    return _Counted(found, records, len(rejects))
