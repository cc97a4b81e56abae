"""Publish the adapter merged into its base: plain weights of 16 bits, for what loads no adapter.

Rounding to 16 bits changes what the model answers. How much is measured on summaries of the same
conversations, by the adapter beside its base and by the merged weights, each as a stranger would
load them.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection
from job.errors import ConfigError, OutputError
from job.evaluation.card.facts import MergedFacts
from job.evaluation.card.page import model_card
from job.evaluation.reload import MIN_TOKENS, Reload
from job.evaluation.result import Evaluation, NotScored
from job.model.fetch import BASE_KEY
from job.model.files import files_in_folder, tokenizer_names
from job.model.merge import merge_adapter
from job.printable import printable
from job.prompt.template import FILE as PROMPT_FILE
from job.storage.atomic import write_file
from job.storage.folders import publish_folder
from job.telemetry import event, progress, warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.card_facts import gather_facts
from job.training.plain_process import Answers, PlainLoadError, PlainModel
from job.training.plain_question import (
    choose_prompts,
    has_own_code,
    make_question,
    plain_model,
    plain_process,
    reads_alike,
    summaries_of,
)
from job.training.prepare import Run

FOLDER = "merged"  # in the run's folder
SUMMARIES = 20  # to compare
BYTES_PER_PARAMETER = 2
ROOM = 1.05  # of the weights: config, tokenizer, what a file system takes for itself
GIB = 2**30
MERGED_KEY = "merged"  # of the manifest's extra


@dataclass(frozen=True)
class Likeness:
    """The agreement of merged weights with the adapter beside its base.

    `same` of `compared` greedy summaries are equal. `tokens` is the share of the tokens of the
    adapter's summaries that the merged weights, reading on, expect most. `why` is the reason why
    nothing was compared.
    """

    compared: int = 0
    same: int = 0
    tokens: float | None = None
    why: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return the facts as JSON types, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def sentence(self) -> str:
        """Return a sentence for people, without a full stop."""
        if self.tokens is None:
            return f"Nobody measured how they agree with the adapter beside its base: {self.why}"
        return (
            f"Of {self.compared} greedy summaries, {self.same} are those of the adapter beside its "
            f"base, word for word; they expect {self.tokens:.1%} of its tokens"
        )


def publish_merged(
    attempt: CurrentAttempt,
    adapter: Path,
    digest: str,
    reload: Reload | None,
    scores: Evaluation | NotScored,
) -> None:
    """Merge the adapter in a folder into its base, measure the agreement, and commit the weights.

    `digest` is that of the published adapter. Notes in `attempt` where they are. Raise OutputError
    if the disk or the memory has no room for them, or if they cannot be loaded or answer otherwise
    than the adapter.
    """
    run = attempt.run
    if attempt.has_crashed_too_often("merging"):
        raise OutputError(f"{MAX_CRASHES} attempts ended while the adapter was merged")
    if attempt.weights_in_memory is None:
        raise OutputError("run.json does not say any more how the base was loaded")
    serving = None
    if isinstance(scores, Evaluation):
        serving = scores.systems[scores.judged].serving
    separate = plain_model(attempt, adapter, serving)
    check_room(run.work, separate.parameters)
    dtype = "bfloat16" if separate.dtype == "float32" else separate.dtype
    model = run.config.model
    section = AdapterModelSection(
        base=model.base,
        revision=model.revision,
        dtype=dtype,
        attention=model.attention,
        trust_remote_code=model.trust_remote_code,
    )
    with attempt.noting("merging"):
        try:
            folder = merge_adapter(run.base, adapter, digest, section, run.work).path
        except ConfigError as error:
            raise OutputError(f"the adapter could not be merged: {error}") from error
    for name in (*tokenizer_names(files_in_folder(adapter, str(adapter))), PROMPT_FILE):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(adapter / name, folder / name)

    # Read into the dtype that serves: a CPU computes in 16 bits far slower than in 32.
    merged = replace(separate, base=folder, adapter=None, quantization="none")
    found = _measure(run, separate, merged)
    facts = gather_facts(attempt, reload, scores)
    card = model_card(replace(facts, merged=MergedFacts(dtype, found.sentence())), scores)
    write_file(folder / "README.md", card.encode())

    about = {"adapter": digest, "dtype": dtype, "agreement": found.facts()}
    # The base is named below this key: no reader takes the folder for that of an adapter.
    extra = {MERGED_KEY: about | {BASE_KEY: run.base.identity()}, "run": run.config.run}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    with progress("publishing the merged weights", size, "B") as bar:
        publish_folder(folder, run.store, FOLDER, extra, bar.advance)
    attempt.published[FOLDER] = f"{run.store.uri}/{FOLDER}"
    event("merged weights", uri=attempt.published[FOLDER], **about)


def check_room(work: Path, parameters: int) -> None:
    """Raise OutputError if the disk has no room for the merged weights."""
    needed = merged_bytes(parameters)
    free = shutil.disk_usage(work).free
    if needed > free:
        raise OutputError(
            f"{work}: the merged weights need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are "
            "free: make room, or set RECAP_WORK to a larger disk"
        )


def merged_bytes(parameters: int) -> float:
    """Return the bytes that merged weights of so many parameters take on a disk."""
    return parameters * BYTES_PER_PARAMETER * ROOM


def _measure(run: Run, separate: PlainModel, merged: PlainModel) -> Likeness:
    """Ask the adapter beside its base for summaries, and the merged weights about the same.

    Raise OutputError if the merged weights cannot be loaded, or answer otherwise.
    """
    prompts = choose_prompts(run, SUMMARIES)
    if not prompts:
        return Likeness(why="no conversation has a whole prompt")
    process = plain_process(run)
    try:
        of_adapter = process.ask(separate, make_question(run, prompts, [])).answers
        question = make_question(run, prompts, of_adapter.tokens)
        answer = process.ask(merged, question)
    except PlainLoadError as error:
        why = printable(str(error))
        if not error.is_of_machine and not has_own_code(run):
            raise OutputError(f"nobody else could load them, or the adapter: {why}") from error
        warn("the merged weights could not be compared with the adapter", why=why)
        return Likeness(why=error.why)
    if not reads_alike(run, question, answer.readings):
        raise OutputError("their tokenizer does not read the prompts as that of the training does")
    found = answer.answers
    alike = likeness(
        of_adapter, found, summaries_of(run, of_adapter.tokens), summaries_of(run, found.tokens)
    )
    if alike.tokens is not None and alike.tokens < MIN_TOKENS:
        raise OutputError(
            f"they answer otherwise than the adapter: they expect {alike.tokens:.1%} of its tokens"
        )
    return alike


def likeness(
    adapter: Answers, merged: Answers, summaries: list[str], merged_summaries: list[str]
) -> Likeness:
    """Return how the answers of the merged weights agree with those of the adapter."""
    tokens = sum(map(len, adapter.tokens))
    return Likeness(
        len(summaries),
        sum(map(str.__eq__, summaries, merged_summaries)),
        round(sum(merged.expected) / max(1, tokens), 4),
    )
