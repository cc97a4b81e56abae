"""Read and encode everything that a run trains on, before anything is computed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from job.config.commands import TrainConfig
from job.environment import describe
from job.evaluation.evaluate import why_unscorable
from job.evaluation.metrics.named_models import fetch_models
from job.identity import json_digest
from job.model import Tokenizer
from job.model.control_tokens import recorded_end_ids
from job.model.fetch import (
    Base,
    fetch_base,
    fetch_base_of,
    fetch_small_files,
    open_remote_base,
)
from job.model.load import context_tokens, load_tokenizer
from job.model.thoughts import warn_of_thoughts
from job.prompt.encode import Encoder
from job.prompt.template import Prompt, make_prompt, prompt_digest
from job.prompt.vocabulary import check_vocabulary
from job.storage.scratch import cache_folder
from job.storage.store import Store
from job.telemetry import event, warn
from job.training import journal
from job.training.causes import READING, explaining
from job.training.compiled import check_compiler
from job.training.examine import Examined, examine_base
from job.training.examples import Examples, check_contents
from job.training.predictions import Predictions, find_predictions
from job.training.ranks import first_then_others, from_first, is_first, once_per_machine
from job.training.rows import RowSettings, Splits, row_tokens
from job.training.run_prompt import read_run_prompt
from job.training.start import (
    Start,
    check_all_linear,
    open_start,
    pin_start,
    take_from_start,
)
from job.training.stored_examples import read_examples_once
from job.training.stored_rows import check_splits, encode_once, rows_identity


@dataclass(frozen=True)
class Data:
    """The conversations, the prompt that they are shown in, and both as token ids."""

    examples: Examples
    prompt: Prompt
    rows: Splits
    predictions: Predictions = field(default_factory=dict)  # of a plan on this machine


@dataclass(frozen=True)
class Run:
    """A run whose data has been read and encoded."""

    config: TrainConfig
    store: Store  # the run's folder, <output>/<run>
    work: Path  # on the local disk; deleted when the run ends
    base: Base
    examined: Examined
    tokenizer: Tokenizer
    data: Data
    processes: int
    start: Start | None = None  # the adapter that the training starts from

    def fingerprint(self) -> dict[str, Any]:
        """Return what config, data and versions contribute to the adapter, as JSON."""
        start = self.start.pin.digest if self.start else None
        return journal.fingerprint(self.config, self.data.examples.digests(), start)

    def identity(self) -> dict[str, Any]:
        """Return all that the adapter depends on, as JSON. Every checkpoint carries it."""
        return {
            "fingerprint": json_digest(self.fingerprint()),
            "base": self.base.digest,
            "tokenizer": self.base.tokenizer_digest,
            "generation": self.base.generation_digest,
            "prompt": prompt_digest(self.data.prompt),
            "processes": self.processes,
        }

    def counts(self) -> dict[str, Any]:
        """Return the numbers of conversations, references, turns, rows and tokens, by split."""
        counts = self.data.examples.counts()
        counts["train"] |= self.data.rows.train.counts()
        counts["validation"] |= self.data.rows.validation.counts()
        return counts


def prepare(config: TrainConfig, work: Path, store: Store) -> Run:
    """Collective: fetch the base, read and encode the data, and return the run.

    Its config has what is taken from the adapter that the training starts from, if there is one.
    Raises ConfigError, DataError or a storage error for whatever can be known before training.
    """
    processes = PartialState().num_processes
    event("environment", **describe(), processes=processes)
    if config.training.compile:
        check_compiler(has_gpu=torch.cuda.is_available())

    start = _find_start(config, store)
    config = take_from_start(config, start)
    examined = _examine_before_fetching(config, work)
    model = config.model
    base = first_then_others(lambda: _fetch_base(config, start))
    context = context_tokens(base.path)
    examined = examined or examine_base(base.path, config)
    check_all_linear(config, start, base.path)
    event(examined.adapter_text())
    tokenizer = load_tokenizer(base.path, model.trust_remote_code)
    warn_of_thoughts(tokenizer)
    max_tokens = row_tokens(config.training.max_tokens, context)

    examples = once_per_machine(lambda: read_examples_once(config), work / "examples.pickle")
    check_contents(examples, config.limits)
    why = why_unscorable(examples.scoring, config.evaluation.max_conversations)
    if why and config.writes_summaries:
        warn("the adapter will be published without scores", why=why)
    # They score the adapter at the end: one that cannot would otherwise show after hours.
    from_first(lambda: fetch_models(config.evaluation, config.storage, cache_folder()))

    # From storage, if the run has begun: rendered again, the chat template may write another date.
    ends = recorded_end_ids(base.path)
    own = start.prompt if start else None
    prompt = from_first(
        lambda: (
            read_run_prompt(store)
            or own
            or make_prompt(config.prompt, tokenizer, examples.cleaning, ends)
        )
    )
    check_vocabulary(tokenizer, prompt, examined.base.embeddings)
    encoder = Encoder(prompt, tokenizer, max_tokens)
    settings = RowSettings.of(config, encoder, examined.base.embeddings, context)
    identity = rows_identity(config, examples, base.path, settings)
    with explaining(READING):
        rows = once_per_machine(
            lambda: encode_once(examples, settings, identity, work), work / "rows.pickle"
        )
    check_splits(rows, settings)
    event("rows", train=rows.train.counts(), validation=rows.validation.counts())
    predictions = find_predictions(config, identity, processes) if is_first() else {}
    data = Data(examples, prompt, rows, predictions)
    return Run(config, store, work, base, examined, tokenizer, data, processes, start)


def _find_start(config: TrainConfig, store: Store) -> Start | None:
    """Collective: return the adapter to start from, the same on every rank.

    It is the one that the run began with, or else what the config names now.
    """
    pin = from_first(lambda: pin_start(config, journal.read_journal(store)))
    if pin is None:
        return None
    event("starts from an adapter", adapter=pin.sentence())
    return open_start(config, pin)


def _fetch_base(config: TrainConfig, start: Start | None) -> Base:
    """Bring the base to disk. Raise ConfigError if it is not that of the adapter to start from."""
    model = config.model
    if start is not None:
        return fetch_base_of(start.adapter, model, config.storage, cache_folder())
    return fetch_base(
        model.base, model.revision, config.storage, cache_folder(), model.trust_remote_code
    )


def _examine_before_fetching(config: TrainConfig, work: Path) -> Examined | None:
    """Examine a base elsewhere, and its tokenizer, by its small files, before fetching weights.

    Return None for a base here, and for one whose own code must be fetched to make it.
    """
    model = config.model
    is_remote = open_remote_base(model.base, model.revision, config.storage) is not None
    if not is_remote or model.trust_remote_code:
        return None
    # A folder for each process: one might read a file while another writes it.
    folder = work / f"small-files-{PartialState().process_index}"
    folder.mkdir(exist_ok=True)
    small = fetch_small_files(model.base, model.revision, config.storage, folder)
    make_prompt(config.prompt, load_tokenizer(small, uri=model.base))
    return examine_base(small, config)
