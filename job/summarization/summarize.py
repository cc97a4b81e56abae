"""`recap summarize`: files of conversations in, one summary or one reject for each record out.

Everything is written on this machine first and published at the end, the marker last. Knows nothing of how text is
generated, nor of formats.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.config.sections import as_list, to_plain
from job.conversations.read import read_conversations
from job.conversations.record import BadRecord
from job.errors import DataError, RecapError, RetryError
from job.launch.environment import describe
from job.storage.keys import local_path, scheme_of
from job.storage.open import InputFile, list_inputs
from job.storage.places import cache_folder, work_folder
from job.summarization.identity import identity
from job.summarization.outcomes import outcomes
from job.summarization.output import (
    Output,
    accept,
    check_apart,
    check_writable,
    find_finished,
    open_output,
    publish,
)
from job.summarization.prepare import make_task
from job.summarization.records import Counts, Outcome, Summary, reject_row, summary_row
from job.summarization.summarizer import Digests, Summarizer, find_digests, open_summarizer
from job.telemetry import event, progress, warn

SHOWN_REJECTS = 5
Open = Callable[[SummarizeConfig, Path], Summarizer]


def summarize(config: SummarizeConfig, open_with: Open = open_summarizer) -> Counts:
    """Summarize everything that `config.input` names, or find that it is done; what became of the records.

    An output with the same identity is kept as it is. More rejects than the limit allows raise DataError after
    everything is published, without the success marker; run again with a higher limit, they are accepted as they are.
    """
    started = time.monotonic()
    files, output = input_files(config), open_output(config.output, config.storage)
    check_apart(output, as_list(config.input), files)
    digests = find_digests(config, cache_folder())
    wanted = identity(config, files, digests)
    done = _already_done(output, wanted, config)
    if done:
        return done
    check_writable(output)
    with work_folder(config.run) as work:
        counts = _write_outcomes(config, files, output, work, lambda: _open(config, digests, open_with))
        _check_unchanged(config, files)
        done = _already_done(output, wanted, config)  # the same run, started twice by a scheduler, was faster
        if done:
            return done
        facts = {"identity": wanted, "counts": counts.to_json(), **_facts(config, counts, time.monotonic() - started)}
        publish(output, work, facts)
    _tell("summarized" if counts.records else "nothing to summarize: 0 records", output, counts)
    if _too_many(counts, config):
        raise DataError(_complaint(counts, config, output))
    return counts


def input_files(config: SummarizeConfig) -> list[InputFile]:
    """The files of the input, listed once. An empty folder, or a prefix that ends in a slash, may have none."""
    files: dict[str, InputFile] = {}
    for uri in as_list(config.input):
        is_folder = uri.endswith("/") or (scheme_of(uri) == "file" and Path(local_path(uri)).is_dir())
        files |= {file.uri: file for file in list_inputs([uri], config.storage, allow_empty=is_folder)}
    return list(files.values())


def _already_done(output: Output, wanted: dict[str, Any], config: SummarizeConfig) -> Counts | None:
    """What an earlier run of the same identity left, where this config's limit allows it."""
    manifest = find_finished(output, wanted)
    if manifest is None:
        return None
    counts = Counts.from_json(manifest.extra["counts"])
    if _too_many(counts, config):
        return None
    accept(output, manifest)
    _tell("already done", output, counts)
    return counts


def _open(config: SummarizeConfig, digests: Digests, open_with: Open) -> Summarizer:
    summarizer = open_with(config, cache_folder())
    if summarizer.digests != digests:
        raise RetryError(f"{config.adapter or config.model.base} was replaced while the run began: run again")
    return summarizer


def _write_outcomes(
    config: SummarizeConfig, files: list[InputFile], output: Output, folder: Path, open_model: Callable[[], Summarizer]
) -> Counts:
    """Read twice: once to count, which finds damaged files before a model is loaded, and once to summarize."""
    total = sum(1 for _ in read_conversations(files, config.data))
    event("input", files=len(files), records=total)
    summarizer, counts = open_model() if total else None, Counts()
    with (
        output.write_summaries(folder) as write_summary,
        output.write_rejects(folder) as write_reject,
        progress("summarizing", total, "conversation") as bar,
    ):
        for outcome in _outcomes(config, files, summarizer, bar.advance) if summarizer else ():
            counts = counts.with_one(outcome)
            if isinstance(outcome, Summary):
                write_summary(summary_row(outcome))
                continue
            write_reject(reject_row(outcome))
            if isinstance(outcome, BadRecord) and counts.rejected <= SHOWN_REJECTS:
                warn("rejected", record=str(outcome), reason=outcome.reason)
    if counts.records != total:
        raise RecapError(f"{output.uri}: {total} records were read and {counts.records} have an outcome")
    return counts


def _outcomes(
    config: SummarizeConfig, files: list[InputFile], summarizer: Summarizer, on_done: Callable[[int], None]
) -> Iterator[Outcome]:
    return outcomes(read_conversations(files, config.data), make_task(config, summarizer), on_done)


def _check_unchanged(config: SummarizeConfig, files: list[InputFile]) -> None:
    """RetryError if a file was replaced while it was read; new files beside it are no concern of this run."""
    now = {file.uri: file.version for file in input_files(config)}
    changed = [file.uri for file in files if now.get(file.uri, file.version) != file.version]
    if changed:
        raise RetryError(f"{changed[0]} changed while it was summarized: run again")


def _facts(config: SummarizeConfig, counts: Counts, seconds: float) -> dict[str, Any]:
    """What the manifest tells besides identity and counts."""
    return {
        "run": config.run,
        "state": "too_many_rejects" if _too_many(counts, config) else "finished",
        "seconds": round(seconds, 3),
        "records_per_second": round(counts.records / seconds, 3),
        "config": to_plain(config),
        "environment": describe(),
    }


def _too_many(counts: Counts, config: SummarizeConfig) -> bool:
    return counts.rejected > config.limits.max_reject_fraction * counts.records


def _complaint(counts: Counts, config: SummarizeConfig, output: Output) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejects.items())
    return (
        f"{counts.rejected} of {counts.records} records were rejected ({reasons}), limits.max_reject_fraction allows "
        f"{config.limits.max_reject_fraction:.2%}; see {output.store.uri}/{output.rejects}. The summaries are there, "
        "but not as a success: mend the input, or raise the limit and run again, which generates nothing anew"
    )


def _tell(message: str, output: Output, counts: Counts) -> None:
    numbers = {"summaries": counts.summaries, "rejects": counts.rejected, "skipped": counts.skipped}
    event(message, output=output.uri, records=counts.records, **numbers)
