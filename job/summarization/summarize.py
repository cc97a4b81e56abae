"""`recap summarize`: files of conversations in, one summary or one reject for each record out.

Any number of workers share the chunks of one input; what they commit is put together by whoever completes it. Knows
nothing of how text is generated, nor of formats.
"""

from collections.abc import Callable
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.errors import DataError, RetryError
from job.inference.choose import check_installed
from job.storage.keys import below, local_path, scheme_of
from job.storage.open import InputFile, list_inputs
from job.storage.places import cache_folder, work_folder
from job.summarization.chunks import agree_on_chunks, fingerprint, size_of
from job.summarization.finish import already_done, finish, too_many
from job.summarization.identity import identity
from job.summarization.output import Output, check_apart, check_writable, open_output
from job.summarization.records import Counts
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarizer import Digests, Summarizer, find_digests, open_summarizer
from job.summarization.worker import Night, summarize_missing

Open = Callable[[SummarizeConfig, Path], Summarizer]


def summarize(config: SummarizeConfig, open_with: Open = open_summarizer, shard: Shard = WHOLE) -> Counts:
    """Summarize this shard of everything that `config.input` names, or find that it is done.

    What became of all records where this worker completes the night, or it was done; else of those it did itself.
    An output with the same identity is kept as it is. More rejects than the limit allows raise DataError after
    everything is published, without the success marker; run again with a higher limit, they are accepted as they are.
    """
    check_installed(config.engine)
    files, output = input_files(config), open_output(config.output, config.storage)
    check_apart(output, as_list(config.input), files)
    digests = find_digests(config, cache_folder())
    done = already_done(output, identity(config, files, digests), config)
    if done:
        return done
    check_writable(output)
    night = _night(config, output, files, digests)
    wanted = identity(config, night.chunks.files, digests)
    done = already_done(output, wanted, config)  # the same night, started twice, was faster and took its chunks away
    if done:
        return done
    with work_folder(config.run) as work:
        mine = summarize_missing(night, shard, work, lambda: _open(config, digests, open_with))
        counts = finish(night, wanted, work)
    if counts is None:
        return mine
    if too_many(counts, config):
        raise DataError(_complaint(counts, config, output))
    return counts


def input_files(config: SummarizeConfig) -> list[InputFile]:
    """The files of the input, listed once. An empty folder, or a prefix that ends in a slash, may have none."""
    files: dict[str, InputFile] = {}
    for uri in as_list(config.input):
        is_folder = uri.endswith("/") or (scheme_of(uri) == "file" and Path(local_path(uri)).is_dir())
        files |= {file.uri: file for file in list_inputs([uri], config.storage, allow_empty=is_folder)}
    return list(files.values())


def _night(config: SummarizeConfig, output: Output, files: list[InputFile], digests: Digests) -> Night:
    """The chunks that all workers of this run agree on, below a fingerprint of what decides their outcomes."""
    settings = identity(config, [], digests) | {"input": as_list(config.input), "output": config.output}
    place = output.store, below(output.chunks, fingerprint(settings))
    return Night(config, output, agree_on_chunks(place, files, config.data, size_of(config.chunks)))


def _open(config: SummarizeConfig, digests: Digests, open_with: Open) -> Summarizer:
    summarizer = open_with(config, cache_folder())
    if summarizer.digests != digests:
        raise RetryError(f"{config.adapter or config.model.base} was replaced while the run began: run again")
    return summarizer


def _complaint(counts: Counts, config: SummarizeConfig, output: Output) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejects.items())
    return (
        f"{counts.rejected} of {counts.records} records were rejected ({reasons}), limits.max_reject_fraction allows "
        f"{config.limits.max_reject_fraction:.2%}; see {output.store.uri}/{output.rejects}. The summaries are there, "
        "but not as a success: mend the input, or raise the limit and run again, which generates nothing anew"
    )
