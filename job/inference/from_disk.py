"""Summarize conversations by models on disk, through the engines of a night: for scores.

Candidates that are served alike share one loaded base. Where vLLM may serve, they are summarized in
a process of its own: vLLM takes what memory of the GPU is free when it starts, gives it back only
with its process, and brings a torch.distributed along that has no place in a training.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from job.conversations.record import Conversation
from job.conversations.redaction import make_redactor
from job.errors import RecapError
from job.inference.choose import OpenedEngine, open_engine
from job.inference.engine import Engine
from job.inference.open import FetchedModel
from job.inference.reader import Reader
from job.inference.serving import Serving, ServingWish
from job.inference.summaries import (
    Summaries,
    check_budget,
    input_budget,
    summarize_conversations,
    summarizing_bar,
)
from job.inference.vllm_start import is_installed
from job.launch.outcome import MORE_MEMORY
from job.launch.variables import variables_of_no_rank
from job.model.load import free_memory
from job.model.quantization import WeightsInMemory
from job.pace import Pace
from job.prompt.encode import Encoder
from job.prompt.template import prompt_digest
from job.safe_path import safe_variables
from job.telemetry import event


@dataclass(frozen=True)
class Candidate:
    """A model on disk, how it is to be served, and the conversations that it is to summarize.

    They are cleaned; what else the wish's reading does to them is done before the model reads them.
    """

    name: str
    model: FetchedModel
    wish: ServingWish
    conversations: Sequence[Conversation]


@dataclass(frozen=True)
class Summarized:
    """The summaries of a candidate, and the settings that they were made with.

    `weights` are those of the base in memory, which is known of transformers only.
    """

    summaries: Summaries
    serving: Serving
    weights: WeightsInMemory | None


Group = Sequence[Candidate]
Results = dict[str, Summarized]


@dataclass(frozen=True)
class Folders:
    """The folder of this run for passing things on, and the one in which adapters are merged."""

    work: Path
    cache: Path


def summarize_candidates(candidates: Sequence[Candidate], folders: Folders) -> Results:
    """Return the summaries of each candidate by its name.

    A conversation that breaks the engine gets an empty summary. Raise ConfigError if a model does
    not fit into memory or cannot be served, RetryError if a GPU fails, RecapError if the process
    that summarizes dies.
    """
    found: Results = {}
    for group in _groups(candidates):
        if group[0].wish.engine != "transformers" and is_installed():
            found |= summarize_in_child(group, folders)
        else:
            found |= summarize_group(group, folders.cache)
            free_memory()
    return {candidate.name: found[candidate.name] for candidate in candidates}


def _groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the candidates by what is loaded for them: those of one group share it."""
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        for group in groups:
            if _share_a_base(group[0], candidate):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    # vLLM must know when it starts that there will be an adapter.
    return [sorted(group, key=lambda each: each.model.adapter is None) for group in groups]


def _share_a_base(one: Candidate, other: Candidate) -> bool:
    is_merged = one.wish.adapter_weights == "merged"
    is_same_model = one.model.adapter == other.model.adapter
    is_same_base = one.model.base.path == other.model.base.path
    return one.wish == other.wish and is_same_base and (is_same_model or not is_merged)


def summarize_group(
    group: Group, cache: Path, clock: Callable[[], float] = time.monotonic
) -> Results:
    """Load what the candidates share, and summarize with each in this process.

    Logs after each but the last how long the others take.
    """
    first = group[0]
    opened = open_engine(first.model, first.wish, cache)
    found: Results = {}
    pace = Pace()
    left = sum(len(candidate.conversations) for candidate in group)
    for candidate in group:
        engine = opened.engine
        if candidate.model.adapter != first.model.adapter:
            assert opened.with_adapter is not None, "merged weights are of one adapter"
            engine = opened.with_adapter(candidate.model.adapter)
        start = clock()
        found[candidate.name] = _summarize(candidate, engine, opened)
        pace.add(len(candidate.conversations), clock() - start)
        left -= len(candidate.conversations)
        seconds = pace.seconds_for(left)
        if left and seconds is not None:
            event("time left for summaries", done_by=candidate.name, seconds=round(seconds, 1))
    return found


def _summarize(candidate: Candidate, engine: Engine, opened: OpenedEngine) -> Summarized:
    model = candidate.model
    generation = candidate.wish.generation
    reading = candidate.wish.reading
    check_budget(generation, engine.context_tokens)
    encoder = Encoder(
        model.prompt, model.tokenizer, input_budget(engine.context_tokens, generation)
    )
    reader = Reader(encoder, reading.long_conversations, make_redactor(reading.redaction))
    with summarizing_bar(len(candidate.conversations), candidate.name) as done:
        summaries = summarize_conversations(
            candidate.conversations, engine, reader, generation, done
        )
    serving = replace(
        opened.serving,
        prompt=prompt_digest(model.prompt),
        reading=reading.of(model.prompt.cleaning),
    )
    return Summarized(summaries, serving, opened.weights)


# The other process. What passes between the two are pickles in a folder of this run.


@dataclass(frozen=True)
class Request:
    """The candidates without their tokenizers, which the other process loads by itself."""

    group: Group
    tokenizers: Mapping[str, str]  # their folders, by the candidates' names
    cache: Path


@dataclass(frozen=True)
class Failed:
    """The error with which the other process ended. `no_memory` is True if memory ran out."""

    error: RecapError
    no_memory: bool


def summarize_in_child(group: Group, folders: Folders) -> Results:
    """Do what `summarize_group` does in another process, which ends with this one.

    Raise the error that it ended with, and RecapError if it died without one.
    """
    request = folders.work / "candidates.pickle"
    result = folders.work / "summaries.pickle"
    result.unlink(missing_ok=True)
    tokenizers = {each.name: str(each.model.tokenizer.name_or_path) for each in group}
    bare = [replace(each, model=replace(each.model, tokenizer=None)) for each in group]
    request.write_bytes(pickle.dumps(Request(bare, tokenizers, folders.cache)))

    command = [sys.executable, "-m", "job.inference.child", str(request), str(result)]
    kept = variables_of_no_rank(os.environ)
    environment = kept | safe_variables(kept)
    process = subprocess.Popen([*command, str(os.getpid())], env=environment)
    try:
        code = process.wait()
    finally:
        # After a stop signal. It keeps nothing that is worth waiting for.
        process.kill()
        process.wait()
    if not result.is_file():
        raise RecapError(_why_dead(code))
    found: Results | Failed = pickle.loads(result.read_bytes())
    if isinstance(found, Failed):
        raise found.error from (MemoryError(str(found.error)) if found.no_memory else None)
    return found


def _why_dead(code: int) -> str:
    what = "the process that summarizes"
    if code < 0:
        return f"{what} was ended by signal {-code}; if memory ran out: {MORE_MEMORY}"
    return f"{what} ended with {code} and did not say why: see the log above"
