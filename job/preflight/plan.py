"""`recap plan`: all that can be known before paying for a GPU, and everything that stands in the way, at once.

A config in, a Plan out. Reads the data whole and asks every place that the job will ask; fetches no weights, needs no
torch. Knows nothing of how it is printed beyond plain text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.base_files import weights_digest
from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.load import resolved_yaml
from job.config.sections import AdapterModelSection, PromptSection, StorageSection, as_list
from job.conversations.read import read_conversations
from job.conversations.record import BadRecord
from job.errors import RecapError
from job.model import adapter_store, base_named, check_same_base, recorded_base
from job.preflight.checks import Check, base_is_there, check, hub_accepts, is_writable
from job.storage.folders import read_manifest
from job.storage.open import list_inputs, open_store
from job.summarization.summarize import input_files
from job.training import checkpoints, journal
from job.training.examples import Examples, read_examples


@dataclass(frozen=True)
class Plan:
    """What a run would do and meet. `done` says that there is nothing left to do."""

    title: str
    checks: Sequence[Check]
    config: str
    done: bool = False

    @property
    def error(self) -> RecapError | None:
        """The first thing that stands in the way."""
        return next((found.error for found in self.checks if found.error), None)

    def text(self) -> str:
        """The plan for a person."""
        rows = [f"  {'✗' if found.error else '✓'} {found.name:12}{_indented(found.found)}" for found in self.checks]
        return "\n".join([self.title, "", *rows, "", "The config, with every default:", "", _quoted(self.config)])


def plan(config: TrainConfig | SummarizeConfig | EvaluateConfig) -> Plan:
    """Ask everything that the command of this config will need."""
    if isinstance(config, TrainConfig):
        return plan_training(config)
    checks = [check("input", lambda: _input_is_readable(config), "input")]
    if config.adapter:
        adapter = config.adapter
        checks.append(check("adapter", lambda: _adapter_is_there(adapter, config.model, config.storage), "adapter"))
    elif config.model.base:
        base, prompt = config.model.base, _prompt(config)
        checks.append(
            check("base", lambda: base_is_there(base, config.model.revision, config.storage, prompt), "model.base")
        )
    checks.append(check("output", lambda: is_writable(_folder(config.output), config.storage), "output"))
    command = "summarize" if isinstance(config, SummarizeConfig) else "evaluate"
    return Plan(f"plan of {command} run {config.run}", checks, resolved_yaml(config))


def plan_training(config: TrainConfig) -> Plan:
    """Data by split, optimizer steps, base, output, Hub, and where the run stands."""
    examples: list[Examples] = []

    def read() -> str:
        examples.append(read_examples(config))
        return _data_lines(examples[0])

    def base() -> str:
        return base_is_there(config.model.base, config.model.revision, config.storage, config.prompt)

    checks = [check("data", read, "data")]
    checks.append(check("base", base, "model.base"))
    checks.append(check("output", lambda: is_writable(config.output, config.storage), "output"))
    if config.publish.hub:
        repository = config.publish.hub
        checks.append(check("hub", lambda: hub_accepts(repository)))
    done = False
    if examples:
        checks.insert(1, Check("steps", _steps(config, examples[0])))
        state, done = _state(config, examples[0])
        checks.append(state)
    return Plan(f"plan of training run {config.run}", checks, resolved_yaml(config), done)


def _state(config: TrainConfig, examples: Examples) -> tuple[Check, bool]:
    """New, to be continued, done, or another run's folder."""
    finished: list[bool] = []

    def look() -> str:
        store = open_store(f"{config.output.rstrip('/')}/{config.run}", config.storage)
        found = journal.read_journal(store)
        if found is None:
            return "new"
        journal.check_same_run(found, store, journal.fingerprint(config, examples.digests()))
        finished.append(found.state == "finished")
        steps = checkpoints.list_steps(store)
        attempts = "; ".join(
            f"{attempt.started} from step {attempt.first_step}: {attempt.reason or 'no end written'}"
            for attempt in found.attempts[-3:]
        )
        return f"{found.state}, last checkpoint {steps[-1] if steps else 'none'}; attempts: {attempts}"

    state = check("run", look, "output")
    return state, any(finished)


def _data_lines(examples: Examples) -> str:
    counts = examples.counts()
    rows = [
        f"{split:11}{counts[split]['conversations']:>7,} conversations  {counts[split]['references']:>7,} references  "
        f"{counts[split]['turns']:>8,} turns"
        for split in ("train", "validation")
    ]
    rows.append(
        f"{counts['without_reference']:,} without reference left out, {counts['overlapping']:,} of train also in "
        f"validation, {counts['dropped_overlap']:,} dropped from train"
    )
    return "\n".join(rows)


def _steps(config: TrainConfig, examples: Examples) -> str:
    section = config.training
    rows = len(examples.train) if config.data.references == "first" else examples.counts()["train"]["references"]
    per_step = section.batch_size * section.gradient_accumulation_steps * (section.processes or 1)
    per_epoch = math.ceil(rows / per_step)
    steps = section.max_steps or math.ceil(per_epoch * section.epochs)
    each = "" if section.processes else " and process"
    packed = " at the most (packing joins rows)" if section.packing else ""
    return f"{steps:,} of {per_step} rows{each}{packed}; {rows:,} rows, {per_epoch:,} steps an epoch"


def _input_is_readable(config: SummarizeConfig | EvaluateConfig) -> str:
    if isinstance(config, SummarizeConfig):
        files = input_files(config)
    else:
        files = list_inputs(as_list(config.input), config.storage)
    good, bad = 0, []
    for record in read_conversations(files, config.data):
        if isinstance(record, BadRecord):
            bad.append(record)
        else:
            good += 1
    lines = [f"{len(files):,} files, {good:,} conversations, {len(bad):,} bad records"]
    return "\n".join(lines + [str(record) for record in bad[:3]])


def _adapter_is_there(uri: str, model: AdapterModelSection, storage: StorageSection) -> str:
    manifest = read_manifest(adapter_store(uri, storage), "")
    recorded = recorded_base(uri, manifest)
    name, revision = base_named(uri, recorded, model)
    base = base_is_there(name, revision, storage)
    if Path(name).is_dir():  # read whole, which is cheap only where it already lies
        check_same_base(uri, recorded, model, weights_digest(Path(name), name))
    return f"{uri}  of run {manifest.extra.get('run')}\nbase {base}"


def _prompt(config: SummarizeConfig | EvaluateConfig) -> PromptSection:
    return (config.prompt if isinstance(config, SummarizeConfig) else None) or PromptSection()


def _folder(output: str) -> str:
    return output.rpartition("/")[0] or "." if output.endswith((".jsonl", ".csv", ".parquet")) else output


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 16)


def _quoted(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
