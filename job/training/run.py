"""The training run: read, train, evaluate, publish.

Config → an adapter in storage that carries its scores. Runs in every training process; only the first one writes.
Knows nothing of clusters or launchers.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter

from job.config.commands import TrainConfig
from job.errors import PreemptedError
from job.launch.environment import describe
from job.model import context_tokens, fetch_base, load_tokenizer
from job.prompt import make_prompt
from job.storage.open import open_store
from job.storage.places import cache_folder
from job.telemetry import event
from job.training import checkpoints, journal
from job.training.callbacks import PublishCheckpoints, SampleSummaries, StopAtStep, TellProgress
from job.training.examples import read_examples
from job.training.publish import publish, sync_tensorboard, write_config
from job.training.rows import RowSettings, make_rows, row_tokens
from job.training.scoring import score, summarizer
from job.training.state import Run
from job.training.stop import StopSignal
from job.training.trainer import build_trainer

T = TypeVar("T")


def train(config: TrainConfig, work: Path, stop: StopSignal) -> None:
    """Fine-tune, evaluate and publish; a RecapError says why not, PreemptedError that it can go on later."""
    run = prepare(config, work)
    checkpoint = first_does(lambda: checkpoints.fetch_newest(run.store, work / "checkpoints", run.identity()))
    trainer = build_trainer(config, run.base, run.tokenizer, run.splits, work / "checkpoints")
    with SummaryWriter(str(work / "tensorboard")) as writer, _journaled(run, trainer, checkpoint) as timings:
        for callback in _callbacks(run, trainer, writer, stop):
            trainer.add_callback(callback)
        with _timed(timings, "train_seconds"), stop.between_steps():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if is_first():
            writer.flush()
            with _timed(timings, "evaluate_seconds"):
                scored = score(run, trainer.model)
            with _timed(timings, "publish_seconds"):
                publish(run, trainer, scored)


def prepare(config: TrainConfig, work: Path) -> Run:
    """Read and encode everything, and say where the run is and what it has."""
    event("environment", **describe(), processes=PartialState().num_processes)
    base = first_does(lambda: fetch_base(config.model.base, config.model.revision, config.storage, cache_folder()))
    tokenizer = load_tokenizer(base.path, config.model.trust_remote_code)
    examples = read_examples(config)
    prompt = make_prompt(config.prompt, tokenizer, examples.cleaning)
    settings = RowSettings(
        prompt,
        tokenizer,
        row_tokens(config.training.max_tokens, context_tokens(base.path)),
        config.data.references,
        config.limits.max_excluded_fraction,
    )
    splits = make_rows(examples.train, settings), make_rows(examples.validation, settings)
    event("rows", train=splits[0].counts(), validation=splits[1].counts())
    store = open_store(f"{config.output.rstrip('/')}/{config.run}", config.storage)
    return Run(config, store, work, base, tokenizer, prompt, examples, splits)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    first: bool = PartialState().is_main_process
    return first


def first_does(work: Callable[[], T]) -> T:
    """Let the first process of each machine do it (fetch, say) before the others find it done."""
    with PartialState().local_main_process_first():
        return work()


def _callbacks(run: Run, trainer: Any, writer: SummaryWriter, stop: StopSignal) -> list[Any]:
    callbacks: list[Any] = [StopAtStep(stop), PublishCheckpoints(lambda folder, step: _commit(run, folder, step))]
    if is_first():
        samples = run.examples.validation[: run.config.training.sample_summaries]
        callbacks.append(TellProgress(writer.add_scalar))
        callbacks.append(SampleSummaries(samples, summarizer(run, trainer.model), writer.add_text))
    return callbacks


def _commit(run: Run, folder: Path, step: int) -> None:
    checkpoints.publish_checkpoint(folder, run.store, step, run.identity())
    checkpoints.prune(run.store, run.config.training.keep_last)
    sync_tensorboard(run)


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    timings[name] = round(time.monotonic() - start, 3)


@contextmanager
def _journaled(run: Run, trainer: Any, checkpoint: Path | None) -> Iterator[dict[str, float]]:
    """Write down in run.json that the attempt began, and how it ended; yields the timings that go there too."""
    timings: dict[str, float] = {}
    if not is_first():
        yield timings
        return
    write_config(run)
    first_step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    facts = {
        "environment": describe(),
        "processes": PartialState().num_processes,
        "data": run.counts(),
        "base": run.base.identity(),
        "timings": timings,
    }
    wanted = journal.fingerprint(run.config, run.examples.digests())
    entry = journal.begin(run.store, run.config, wanted, first_step, facts)
    try:
        yield timings
    except BaseException as error:
        state: journal.State = "preempted" if isinstance(error, PreemptedError) else "failed"
        journal.end(run.store, entry, state, trainer.state.global_step, f"{type(error).__name__}: {error}")
        raise
    journal.end(run.store, entry, "finished", trainer.state.global_step, "finished")
