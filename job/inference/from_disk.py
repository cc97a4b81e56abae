"""Summarize conversations by models on disk, through the engines of a night: for scores.

Candidates that are served alike share one loaded base. Where vLLM may serve, they are summarized in
a process of its own: vLLM takes what memory of the GPU is free when it starts, gives it back only
with its process, and brings a torch.distributed along that has no place in a training. Where
several GPUs are free, each has such a process, with a share of the conversations.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

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

LOOK_SECONDS = 0.5  # at a process, before the next is looked at
WORTH_A_PROCESS = 32  # conversations of all candidates: fewer take no longer than to load a model


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
Process: TypeAlias = "subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Place:
    """Where candidates are summarized: folders and GPUs.

    `work` is the folder of this run for passing things on, and in `cache` adapters are merged.
    `gpus` are those that may be used at once, as CUDA_VISIBLE_DEVICES names them; with none or one,
    what this process sees is used.
    """

    work: Path
    cache: Path
    gpus: Sequence[str] = ()


def summarize_candidates(candidates: Sequence[Candidate], place: Place) -> Results:
    """Return the summaries of each candidate by its name.

    A conversation that breaks the engine gets an empty summary. Raise ConfigError if a model does
    not fit into memory or cannot be served, RetryError if a GPU fails, RecapError if a process
    that summarizes dies.
    """
    found: Results = {}
    for group in _groups(candidates):
        shares = shares_of(group, place.gpus)
        if len(shares) > 1 or (group[0].wish.engine != "transformers" and is_installed()):
            found |= _put_together(group, shares, summarize_in_children(shares, place))
        else:
            found |= summarize_group(group, place.cache)
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
    group: Group,
    cache: Path,
    clock: Callable[[], float] = time.monotonic,
    has_bar: bool = True,
) -> Results:
    """Load what the candidates share, and summarize with each in this process.

    Logs after each but the last how long the others take. `has_bar` shows the progress of each.
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
        found[candidate.name] = _summarize(candidate, engine, opened, has_bar)
        pace.add(len(candidate.conversations), clock() - start)
        left -= len(candidate.conversations)
        seconds = pace.seconds_for(left)
        if left and seconds is not None:
            event("time left for summaries", done_by=candidate.name, seconds=round(seconds, 1))
    return found


def _summarize(
    candidate: Candidate, engine: Engine, opened: OpenedEngine, has_bar: bool
) -> Summarized:
    model = candidate.model
    generation = candidate.wish.generation
    reading = candidate.wish.reading
    check_budget(generation, engine.context_tokens)
    encoder = Encoder(
        model.prompt, model.tokenizer, input_budget(engine.context_tokens, generation)
    )
    reader = Reader(encoder, reading.long_conversations, make_redactor(reading.redaction))
    shown = len(candidate.conversations) if has_bar else 0
    with summarizing_bar(shown, candidate.name) as done:
        summaries = summarize_conversations(
            candidate.conversations, engine, reader, generation, done
        )
    serving = replace(
        opened.serving,
        prompt=prompt_digest(model.prompt),
        reading=reading.of(model.prompt.cleaning),
    )
    return Summarized(summaries, serving, opened.weights)


# Shares: each candidate has its part of the conversations in each.


@dataclass(frozen=True)
class Share:
    """A group with some of its conversations, and the GPUs that a process of its own is to see.

    `rows` has the places of the conversations among all, by the candidates' names. With no `gpus`,
    the process sees what this one does.
    """

    group: Group
    rows: Mapping[str, Sequence[int]]
    gpus: Sequence[str] = ()


def shares_of(group: Group, gpus: Sequence[str]) -> list[Share]:
    """Return a share for as many GPUs as are worth a process, or one with everything.

    All have like numbers of long conversations and of short ones.
    """
    size = group[0].wish.tensor_parallel
    most = sum(len(each.conversations) for each in group)
    count = max(1, min(len(gpus) // size, most // WORTH_A_PROCESS))
    shares = []
    for number in range(count):
        rows = {each.name: _longest_first(each)[number::count] for each in group}
        part = [
            replace(each, conversations=[each.conversations[row] for row in rows[each.name]])
            for each in group
        ]
        own = gpus[number * size : (number + 1) * size] if count > 1 else ()
        shares.append(Share(part, rows, own))
    return shares


def _longest_first(candidate: Candidate) -> list[int]:
    sizes = [sum(len(turn.text) for turn in each.turns) for each in candidate.conversations]
    return sorted(range(len(sizes)), key=lambda row: -sizes[row])


def _put_together(group: Group, shares: Sequence[Share], parts: Sequence[Results]) -> Results:
    """Return the results of a group from those of its shares."""
    return {each.name: _of_all(each, shares, parts) for each in group}


def _of_all(candidate: Candidate, shares: Sequence[Share], parts: Sequence[Results]) -> Summarized:
    name = candidate.name
    count = len(candidate.conversations)
    texts = [""] * count
    reasons: list[str | None] = [None] * count
    read = list(candidate.conversations)
    is_redacted = False
    for share, part in zip(shares, parts, strict=True):
        summaries = part[name].summaries
        is_redacted = summaries.read is not None
        for place, row in enumerate(share.rows[name]):
            texts[row] = summaries.texts[place]
            reasons[row] = summaries.finish_reasons[place]
            if summaries.read is not None:
                read[row] = summaries.read[place]
    first = parts[0][name]
    return replace(first, summaries=Summaries(texts, reasons, read if is_redacted else None))


# The other processes. What passes between them and this one are pickles in a folder of this run.


@dataclass(frozen=True)
class Request:
    """The candidates without their tokenizers, which the other process loads by itself."""

    group: Group
    tokenizers: Mapping[str, str]  # their folders, by the candidates' names
    cache: Path
    has_bar: bool


@dataclass(frozen=True)
class Failed:
    """The error with which the other process ended. `no_memory` is True if memory ran out."""

    error: RecapError
    no_memory: bool


def summarize_in_children(shares: Sequence[Share], place: Place) -> list[Results]:
    """Do what `summarize_group` does in a process for each share, which ends with this one.

    Raise the error that one ended with, and RecapError if it died without one.
    """
    processes: list[Process] = []
    try:
        for number, share in enumerate(shares):
            processes.append(_start(share, number, place))
        found: dict[int, Results] = {}
        for number, process in _as_they_end(processes):
            found[number] = _result(_result_file(place, number), process.returncode)
        return [found[number] for number in range(len(shares))]
    finally:
        # After a stop signal, or the failure of another. They keep nothing worth waiting for.
        for process in processes:
            process.kill()
            process.wait()


def _as_they_end(processes: Sequence[Process]) -> Iterator[tuple[int, Process]]:
    """Yield each process with its number once it has ended: none waits for one before it."""
    left = dict(enumerate(processes))
    while left:
        for number, process in list(left.items()):
            try:
                process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            del left[number]
            yield number, process


def _start(share: Share, number: int, place: Place) -> Process:
    """Start the process of a share."""
    request = place.work / f"candidates-{number}.pickle"
    result = _result_file(place, number)
    result.unlink(missing_ok=True)
    tokenizers = {each.name: str(each.model.tokenizer.name_or_path) for each in share.group}
    bare = [replace(each, model=replace(each.model, tokenizer=None)) for each in share.group]
    asked = Request(bare, tokenizers, place.cache, has_bar=number == 0)
    request.write_bytes(pickle.dumps(asked))

    kept = variables_of_no_rank(os.environ)
    environment = kept | safe_variables(kept)
    if share.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
    command = [sys.executable, "-m", "job.inference.child", str(request), str(result)]
    return subprocess.Popen([*command, str(os.getpid())], env=environment)


def _result_file(place: Place, number: int) -> Path:
    return place.work / f"summaries-{number}.pickle"


def _result(file: Path, code: int) -> Results:
    """Return what a process that ended with `code` has written; raise its error."""
    if not file.is_file():
        raise RecapError(_why_dead(code))
    found: Results | Failed = pickle.loads(file.read_bytes())
    if isinstance(found, Failed):
        raise found.error from (MemoryError(str(found.error)) if found.no_memory else None)
    return found


def _why_dead(code: int) -> str:
    what = "the process that summarizes"
    if code < 0:
        return f"{what} was ended by signal {-code}; if memory ran out: {MORE_MEMORY}"
    return f"{what} ended with {code} and did not say why: see the log above"
