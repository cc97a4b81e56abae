"""`recap summarize`: files of conversations in, one summary or one reject for each record out.

A night is planned, worked on, and finished. Any number of workers share it: they agree on the
chunks of the input, each commits those of its shard, and whoever commits the last one finishes. The
path without faults is, in reading order:

1. `summarize`: the three steps;
2. `night`: what is summarized, where to, and with which weights;
3. `chunks`: how workers agree on the chunks of the input (plan);
4. `worker`: from a chunk's records to its committed outcomes (work);
5. `prepare`: from a record to its prompts;
6. `outcomes`: from prompts to outcomes, window by window;
7. `finish`: from committed chunks to the published output (finish).

Each of the other modules stands behind one call of these, or holds a format: `champion` if the
adapter is a pointer, `challenger` if another adapter is tried, `candidates` and `reward` if a
reward model chooses among several summaries, `rerun` and `existing` if the night is done already,
`skip_done` and `duplicates` if records are, `crash_notes` and `careful_engine` if processes die,
`levels` if conversations are too long for one prompt.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.conversations.redaction import make_redactor, redacted_errors
from job.errors import RetryError
from job.inference.choose import check_installed
from job.inference.taken import Filled
from job.storage.atomic import locked
from job.storage.open import InputFile
from job.storage.scratch import cache_folder, work_folder
from job.summarization.chunks import agree_on_chunks
from job.summarization.faithfulness import fetch_faithfulness_model
from job.summarization.finish import finish
from job.summarization.inputs import check_enough, find_night_inputs
from job.summarization.night import Night, begin_night
from job.summarization.output import check_apart, check_writable, open_output
from job.summarization.records import Counts
from job.summarization.rerun import finish_if_done
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarizer import Digests, Summarizer, open_summarizer
from job.summarization.worker import summarize_missing
from job.telemetry import Phases, event, heartbeat

Open = Callable[[Filled[SummarizeConfig], Path], Summarizer]


def summarize(
    config: SummarizeConfig,
    open_with: Open = open_summarizer,
    shard: Shard = WHOLE,
) -> Counts:
    """Summarize this shard of everything that `config.input` names.

    Return the counts of all records if this worker completes the night or it was done already, else
    of those that this worker summarized. A finished output of the same identity is kept.

    Raise DataError if more records are rejected than the limit allows. Everything is published all
    the same, but without the success marker. Run again with a higher limit, and it is a success.
    """
    check_installed(config.engine, config.tensor_parallel)
    inputs = find_night_inputs(config)
    files = inputs.files
    output = open_output(config.output, config.storage)
    check_apart(output, as_list(config.input), files)
    night = begin_night(config, output, inputs.left_out)
    done = finish_if_done(night, files)
    if done is not None:
        check_enough(done.records, night.config)
        return done

    # Nobody should wait for hours to learn that the output cannot be written, or that a model is
    # missing that is needed at the end.
    check_writable(night.output)
    fetch_faithfulness_model(config)
    if night.pinned:
        # From here on, all workers and attempts follow one champion, whatever the pointer names.
        night.pin()
        night = begin_night(config, night.output, night.left_out)
    _log_adapters(night)
    with redacted_errors(make_redactor(night.config.redaction), [file.uri for file in files]):
        return _summarize(night, files, open_with, shard)


def _summarize(
    night: Night,
    files: Sequence[InputFile],
    open_with: Open,
    shard: Shard,
) -> Counts:
    with heartbeat("planning"), locked(shard.claims.folder) if shard.claims else nullcontext():
        # Of this machine's workers, one cuts the input while the others wait.
        chunks = agree_on_chunks(night.output.store, night.settings_folder, files, night.config)

    # The same night, started twice, may have finished meanwhile.
    done = finish_if_done(night, chunks.files)
    if done is not None:
        return done

    phases = Phases(psutil.Process().create_time())

    def open_it() -> Summarizer:
        phases.end("plan")
        summarizer = _open(night, chunks.records, open_with)
        phases.end("load")
        return summarizer

    with work_folder(night.config.run) as work:
        mine = summarize_missing(night, chunks, shard, work, open_it, phases)
        with heartbeat("finishing"):
            counts = finish(night, chunks, shard, work)
    if counts is None:
        night.check_pinned()
    return mine if counts is None else counts


def _log_adapters(night: Night) -> None:
    """Log the champion that the night follows, and its challenger."""
    champion = night.champion
    if champion is not None:
        event(
            "this night follows the champion",
            pointer=champion.pointer,
            version=champion.version,
            adapter=champion.adapter,
            digest=champion.digest,
        )
    challenger = night.challenger
    if challenger is not None:
        event("this night has a challenger", **challenger.facts())


def _open(night: Night, records: int, open_with: Open) -> Summarizer:
    config = night.config
    # Of the whole night, so that all workers and attempts choose one engine.
    filled = replace(night.filled, conversations=records)
    with heartbeat("loading the model"):
        summarizer = open_with(filled, cache_folder())
    if summarizer.digests != night.digests:
        raise RetryError(
            f"{config.adapter or config.model.base} was replaced while the run began: run again"
        )
    challenger = night.challenger
    if challenger is not None:
        loaded = summarizer.challenger
        if loaded is None or loaded.digests != Digests(challenger.digest, night.digests.base):
            raise RetryError(f"{challenger.adapter} was replaced while the run began: run again")
    reward = night.reward
    if reward is not None:
        scorer = summarizer.scorer
        if scorer is None or scorer.digest != reward.digest:
            raise RetryError(f"{reward.uri} was replaced while the run began: run again")
    return summarizer
