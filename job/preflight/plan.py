"""`recap plan`: all that can be known before paying for a GPU, and everything that stands in the way, at once.

A config in, a Plan out. Reads the data whole and asks every place that the job will ask; fetches no weights, needs no
torch. Knows nothing of how it is printed beyond plain text.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.load import resolved_yaml
from job.config.sections import PromptSection, as_list
from job.conversations.read import read_conversations
from job.conversations.record import Conversation, Reject
from job.conversations.redaction import make_redactor, redact_message, redacted_errors
from job.errors import ConfigError, DataError, RecapError
from job.evaluation.evaluate import why_unscorable
from job.evaluation.inputs import read_given, read_input, read_train_references
from job.evaluation.output import check_output
from job.identity import differences
from job.launch.cluster import ALONE, Cluster, find_cluster
from job.model.fetch import check_adapter_digest, check_same_base, name_base_of, read_adapter
from job.model.files import weights_digest
from job.preflight.checks import Check, base_is_there, check, hub_accepts, is_writable
from job.preflight.rows import rows_that_fit
from job.storage.open import InputFile, open_store
from job.storage.places import cache_folder
from job.storage.store import Store
from job.summarization.chunks import count_chunks, size_of
from job.summarization.existing import check_free, find_finished
from job.summarization.identity import identity
from job.summarization.inputs import check_enough, find_night_inputs
from job.summarization.output import check_apart, open_output
from job.summarization.summarizer import find_digests
from job.training import checkpoints, journal
from job.training.examples import Examples, files_now, read_examples


@dataclass(frozen=True)
class Plan:
    """What a run would do and meet.

    `done` says that there is nothing left to do, `run` under which name it is done, `story` what was tried before,
    `chunks` into how many a night is cut: more workers than that would find nothing to do.
    """

    title: str
    checks: Sequence[Check]
    config: str
    run: str
    done: bool = False
    story: Sequence[str] = ()
    chunks: int | None = None

    @property
    def error(self) -> RecapError | None:
        """The first thing that stands in the way; nothing does where all is done."""
        return (
            None if self.done else next((found.error for found in self.checks if found.error), None)
        )

    def findings(self) -> str:
        """What was found, for a person."""
        rows = [
            f"  {'✗' if found.error else '✓'} {found.name:12}{_indented(found.found)}"
            for found in self.checks
        ]
        return "\n".join([self.title, "", *rows])

    def text(self) -> str:
        """The plan for a person."""
        return "\n".join(
            [self.findings(), "", "The config, with every default:", "", _quoted(self.config)]
        )


def plan(config: TrainConfig | SummarizeConfig | EvaluateConfig) -> Plan:
    """Ask everything that the command of this config will need."""
    if isinstance(config, TrainConfig):
        return plan_training(config)
    return (
        plan_summarizing(config) if isinstance(config, SummarizeConfig) else plan_evaluation(config)
    )


def plan_summarizing(config: SummarizeConfig) -> Plan:
    """Records, what summarizes, the output, and whether it is all done."""
    listed: list[list[InputFile]] = []
    finished: list[bool] = []
    chunks: list[int] = []

    def read() -> str:
        listed.append(find_night_inputs(config).files)
        uris = [file.uri for file in listed[0]]
        with redacted_errors(make_redactor(config.redaction), uris):
            records = _records(listed[0], config)
            chunks.append(count_chunks(listed[0], config.data, size_of(config.chunks)))
        return f"{records}\n{chunks[0]:,} chunks"

    def look() -> str:
        output = open_output(config.output, config.storage)
        check_apart(output, as_list(config.input), listed[0] if listed else [])
        writable = is_writable(output.store.uri, config.storage)
        if not listed or (config.adapter is None and not Path(str(config.model.base)).is_dir()):
            check_free(output)  # the digest of a base elsewhere is known when its weights are here
            return writable
        wanted = identity(config, listed[0], find_digests(config, cache_folder()))
        manifest = find_finished(output, wanted)
        finished.append(manifest is not None and manifest.extra["state"] == "finished")
        return f"{writable}\nholds this run's summaries already" if any(finished) else writable

    checks = [check("input", read, "input"), *_models(config), check("output", look, "output")]
    title, done = f"plan of summarize run {config.run}", any(finished)
    return Plan(
        title, checks, resolved_yaml(config), config.run, done, chunks=chunks[0] if chunks else None
    )


def plan_evaluation(config: EvaluateConfig) -> Plan:
    """Conversations with references, training references, what is scored, and the output."""
    everything: list[Conversation] = []

    def read() -> str:
        found, chosen = read_input(config)
        everything.extend(found)
        return f"{len(found):,} conversations, {len(chosen):,} to score"

    def look() -> str:
        store = open_store(config.output, config.storage)
        check_output(store)
        return is_writable(store.uri, config.storage)

    checks = [check("input", read, "input")]
    if config.train is not None:
        checks.append(
            check(
                "train", lambda: f"{len(read_train_references(config) or []):,} references", "train"
            )
        )
    if config.summaries is not None and everything:  # which ids are wanted is known from the input
        checks.append(
            check(
                "summaries",
                lambda: f"{len(read_given(config, everything)):,} summaries",
                "summaries",
            )
        )
    checks += [*_models(config), check("output", look, "output")]
    return Plan(f"plan of evaluate run {config.run}", checks, resolved_yaml(config), config.run)


def plan_training(config: TrainConfig, fresh: bool = False, brief: bool = False) -> Plan:
    """Data by split, optimizer steps, base, output, Hub, and where the run stands.

    With `fresh`, a run whose folder belongs to another config, data or versions is one beside it.
    With `brief`, no data of a finished run is read, and no row is encoded.
    """
    standing = Standing(config.run)
    if brief and standing.is_finished(config):
        checks = [Check("run", f"{config.run}: finished, and no file of its data has changed")]
        title = f"plan of training run {config.run}"
        return Plan(
            title, checks, resolved_yaml(config), config.run, done=True, story=standing.story
        )
    examples: list[Examples] = []

    def read() -> str:
        examples.append(read_examples(config))
        return _data_lines(examples[0])

    def base() -> str:
        return base_is_there(
            config.model.base, config.model.revision, config.storage, config.prompt
        )

    clusters: list[Cluster] = []

    def nodes() -> str:
        clusters.append(find_cluster(os.environ))
        return str(clusters[0])

    around, data = check("nodes", nodes), check("data", read, "data")
    if examples:
        steps = Check("steps", _steps(config, examples[0], clusters[0].nodes if clusters else 1))
        run = check("run", lambda: standing.look(config, examples[0], fresh), "output")
        checks = [data, *_scores(config, examples[0]), steps, run]
    elif isinstance(data.error, DataError | ConfigError):
        checks = [data]
    else:  # it cannot be seen
        checks = [data, check("run", lambda: standing.recall(config), "output")]
    if not standing.done:
        if examples and not brief:  # a training that begins now says it itself
            checks += rows_that_fit(config, examples[0])
        checks.append(check("base", base, "model.base"))
        checks.append(check("output", lambda: is_writable(config.output, config.storage), "output"))
        if clusters != [ALONE]:
            checks.append(around)
        if config.publish.hub:
            repository = config.publish.hub
            checks.append(check("hub", lambda: hub_accepts(repository)))
    title = f"plan of training run {standing.run}"
    return Plan(title, checks, resolved_yaml(config), standing.run, standing.done, standing.story)


@dataclass
class Standing:
    """New, to be continued, done, or another run's folder."""

    run: str
    done: bool = False
    story: Sequence[str] = ()

    def look(self, config: TrainConfig, examples: Examples, fresh: bool) -> str:
        """Ask the run's folder, and the one beside it if a fresh one is wanted."""
        wanted = journal.fingerprint(config, examples.digests())
        store = self._store(config)
        found = journal.read_journal(store)
        if fresh and found is not None and differences(found.fingerprint, wanted):
            self.run = journal.fresh_name(config.run, wanted)
            store = self._store(config)
            found = journal.read_journal(store)
        if found is None:
            return f"{self.run}: new"
        journal.check_same_run(found, store, wanted)
        self.done, self.story = (
            journal.is_done(found, store, config.publish.hub),
            journal.story(found),
        )
        newest = checkpoints.newest_step(store)
        state = f"{self.run}: {found.state}, last checkpoint {'none' if newest is None else newest}"
        return "\n".join([state, *self.story[-5:]])

    def recall(self, config: TrainConfig) -> str:
        """Whether this very run ended before its data went out of sight: what it read from the same places counts."""
        self.done = self._ended(config) is not None
        return f"{self.run}: {'finished, with the data of then' if self.done else 'not known without the data'}"

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether this very run ended, and no file of its data has changed since: told without reading any.

        False also where that cannot be seen.
        """
        try:
            found = self._ended(config)
            if found is None or found.facts.get("files") != files_now(config):
                return False
        except RecapError:
            return False
        self.story = journal.story(found)
        return True

    def _ended(self, config: TrainConfig) -> journal.Journal | None:
        """The journal of a run of this config that is done with data from the same places, whatever lies there now."""
        store = self._store(config)
        found = journal.read_journal(store)
        if found is None or not journal.names_same_data(found, config):
            return None
        wanted = journal.fingerprint(config, found.fingerprint["data_digests"])
        same = not differences(found.fingerprint, wanted)
        return found if same and journal.is_done(found, store, config.publish.hub) else None

    def _store(self, config: TrainConfig) -> Store:
        return open_store(f"{config.output.rstrip('/')}/{self.run}", config.storage)


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
    if examples.why_without:
        rows.append(f"without reference: {examples.why_without}")
    return "\n".join(rows)


def _steps(config: TrainConfig, examples: Examples, nodes: int) -> str:
    section = config.training
    rows = (
        len(examples.train)
        if config.data.references == "first"
        else examples.counts()["train"]["references"]
    )
    per_step = (
        section.batch_size * section.gradient_accumulation_steps * (section.processes or 1) * nodes
    )
    per_epoch = math.ceil(rows / per_step)
    steps = section.max_steps or math.ceil(per_epoch * section.epochs)
    each = "" if section.processes else " and process"
    packed = " at the most (packing joins rows)" if section.packing else ""
    return (
        f"{steps:,} of {per_step} rows{each}{packed}; {rows:,} rows, {per_epoch:,} steps an epoch"
    )


def _scores(config: TrainConfig, examples: Examples) -> list[Check]:
    """Return a check that warns of an adapter without scores, or none where it can have some."""
    why = why_unscorable(examples.validation, config.evaluation.max_conversations)
    if why is None:
        return []
    return [Check("scores", f"warning: the adapter will be published without scores: {why}")]


def _records(files: Sequence[InputFile], config: SummarizeConfig) -> str:
    """Return how many records of either kind the files hold.

    Raise MissingError for too few, DataError for more bad ones than the night may reject.
    """
    good, doubtful, bad = 0, 0, []
    for record in read_conversations(files, config.data, config.redaction is None):
        if isinstance(record, Reject):
            bad.append(record)
        else:
            good += 1
            doubtful += bool(record.doubts)
    records = good + len(bad)
    check_enough(records, config)
    lines = [f"{len(files):,} files, {good:,} conversations, {len(bad):,} bad records"]
    if doubtful:
        lines.append(f"{doubtful:,} conversations have lines that may be another speaker's")
    redactor = make_redactor(config.redaction)
    for record in bad[:3]:
        lines.append(str(replace(record, detail=redact_message(record.detail, redactor))))
    found = "\n".join(lines)
    allowed = config.limits.max_reject_fraction
    if len(bad) > allowed * records:
        raise DataError(
            f"{found}\nmore bad records than limits.max_reject_fraction allows ({allowed:.2%}), so the "
            "night would end with 65: mend the records, or raise the limit"
        )
    return found


def _models(config: SummarizeConfig | EvaluateConfig) -> list[Check]:
    """The adapter with its base, or the base; nothing where given summaries are scored."""
    adapter, base = config.adapter, config.model.base
    if adapter is not None:
        return [check("adapter", lambda: _adapter_is_there(adapter, config), "adapter")]
    if base is not None:
        prompt = _prompt(config)
        found = check(
            "base",
            lambda: base_is_there(base, config.model.revision, config.storage, prompt),
            "model.base",
        )
        return [found]
    return []


def _adapter_is_there(uri: str, config: SummarizeConfig | EvaluateConfig) -> str:
    model, storage = config.model, config.storage
    adapter = read_adapter(uri, storage)
    if isinstance(config, SummarizeConfig):
        check_adapter_digest(adapter, config.adapter_digest)
    name, revision = name_base_of(adapter, model)
    base = base_is_there(name, revision, storage)
    if Path(name).is_dir():  # read whole, which is cheap only where it already lies
        check_same_base(adapter, model, weights_digest(Path(name), name))
    return f"{uri}  of run {adapter.manifest.extra.get('run')}\nbase {base}"


def _prompt(config: SummarizeConfig | EvaluateConfig) -> PromptSection:
    return (config.prompt if isinstance(config, SummarizeConfig) else None) or PromptSection()


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 16)


def _quoted(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
