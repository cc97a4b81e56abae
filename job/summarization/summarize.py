"""`recap summarize`: files of conversations in, one summary or one reject for each record out.

Any number of workers share the chunks of one input; what they commit is put together by whoever completes it. Knows
nothing of how text is generated, nor of formats.
"""

from collections.abc import Callable
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.conversations.redaction import make_redactor, redacted_errors
from job.errors import RetryError
from job.inference.choose import check_installed
from job.storage.keys import below
from job.storage.open import Inputs
from job.storage.places import cache_folder, work_folder
from job.summarization.chunks import agree_on_chunks, fingerprint
from job.summarization.finish import already_done, finish
from job.summarization.identity import identity, selection
from job.summarization.inputs import check_enough, find_night_inputs
from job.summarization.output import Output, check_apart, check_writable, open_output
from job.summarization.records import Counts
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarizer import Digests, Summarizer, find_digests, open_summarizer
from job.summarization.worker import Night, summarize_missing

Open = Callable[[SummarizeConfig, Path], Summarizer]


def summarize(
    config: SummarizeConfig, open_with: Open = open_summarizer, shard: Shard = WHOLE
) -> Counts:
    """Summarize this shard of everything that `config.input` names, or find that it is done.

    What became of all records where this worker completes the night, or it was done; else of those it did itself.
    An output with the same identity is kept as it is. More rejects than the limit allows raise DataError after
    everything is published, without the success marker; run again with a higher limit, they are accepted as they are.
    """
    check_installed(config.engine)
    inputs = find_night_inputs(config)
    files = inputs.files
    output = open_output(config.output, config.storage)
    check_apart(output, as_list(config.input), files)
    with redacted_errors(make_redactor(config.redaction), [file.uri for file in files]):
        return _summarize(config, inputs, output, open_with, shard)


def _summarize(
    config: SummarizeConfig, inputs: Inputs, output: Output, open_with: Open, shard: Shard
) -> Counts:
    files = inputs.files
    digests = find_digests(config, cache_folder())
    settings = _settings_folder(config, output, digests)
    done = already_done(output, identity(config, files, digests), config, settings)
    if done:
        check_enough(done.records, config)
        return done
    check_writable(output)
    chunks = agree_on_chunks((output.store, settings), files, config)
    wanted = identity(config, chunks.files, digests)
    # The same night, started twice, may have been faster meanwhile.
    done = already_done(output, wanted, config, settings)
    if done:
        return done
    night = Night(config, output, chunks, digests, inputs.left_out)
    with work_folder(config.run) as work:
        mine = summarize_missing(night, shard, work, lambda: _open(config, digests, open_with))
        counts = finish(night, shard, wanted, work)
    return mine if counts is None else counts


def _settings_folder(config: SummarizeConfig, output: Output, digests: Digests) -> str:
    """Where the chunks of these settings lie: below a fingerprint of all that decides their outcomes but the input."""
    settings = identity(config, [], digests) | selection(config)
    settings |= {"input": as_list(config.input), "output": config.output}
    return below(output.chunks, fingerprint(settings))


def _open(config: SummarizeConfig, digests: Digests, open_with: Open) -> Summarizer:
    summarizer = open_with(config, cache_folder())
    if summarizer.digests != digests:
        raise RetryError(
            f"{config.adapter or config.model.base} was replaced while the run began: run again"
        )
    return summarizer
