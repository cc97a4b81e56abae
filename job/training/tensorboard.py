"""TensorBoard's files: the curves of each attempt, and the results of the run.

Each attempt has a file of its own in one folder, and TensorBoard shows them as one run. The results
are files of fixed names, which a later attempt replaces: nothing appears twice. They are

- scores of every system, the curve of a selection, and the serving settings, beside the curves;
- in `final/`, the config's values with the final metrics of the adapter. It is a run of its own,
  since TensorBoard takes each curve of its run for a metric of the tab HPARAMS.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from job.evaluation.result import NotScored
from job.evaluation.selection import SelectionCurve
from job.evaluation.systems import Scored, System
from job.identity import json_digest
from job.training.evaluations import LogEntry
from job.training.prepare import Run
from job.training.samples import literal

FOLDER = "tensorboard"
# "tfevents" makes it a file of events. It sorts behind those of attempts: TensorBoard reads the
# files of a folder in order, and never goes back to an earlier one.
RESULTS = "events.out.tfevents.results"
FINAL = "final"

MAX_SHOWN_CHARACTERS = 60  # of a hyperparameter; a longer one has its digest too
DIGEST_CHARACTERS = 8
DIGEST = re.compile("[0-9a-f]{64}")
NOT_PLAIN = re.compile(r"[^ !#-\[\]-~]")  # TensorBoard would escape it, as in JSON


@contextmanager
def open_events(run: Run, step: int) -> Iterator[SummaryWriter]:
    """Open the event file of an attempt that begins after `step`.

    Points that an earlier file has of later steps become void.
    """
    with SummaryWriter(str(run.work / FOLDER), purge_step=step + 1) as writer:
        yield writer


def sync_tensorboard(run: Run) -> None:
    """Copy the event files of this attempt to storage."""
    for file in sorted((run.work / FOLDER).glob("events.*")):
        run.store.upload(file, f"{FOLDER}/{file.name}")


def publish_results(
    run: Run,
    published: LogEntry,
    result: Scored | NotScored,
    selection: SelectionCurve | None,
) -> None:
    """Write scores, selection and hyperparameters for TensorBoard, and copy them to storage.

    `published` is the entry in the trainer's history of the published adapter's evaluation.
    """
    step = int(published["step"])

    def write_scores(writer: SummaryWriter) -> None:
        if selection:
            _write_selection(writer, selection)
        if isinstance(result, Scored):
            _write_scores(writer, result, step)

    def write_final(writer: SummaryWriter) -> None:
        values = hyperparameters(run.fingerprint())
        if isinstance(result, Scored):
            values |= _flat({"serving": _judged(result).serving or {}})
        # Without the list of metrics, which TensorBoard would take from one run for all.
        _, begun, ended = hparams(values, {})
        writer.file_writer.add_summary(begun)
        for metric, value in _final_metrics(published, result).items():
            writer.add_scalar(metric, value, step)
        writer.file_writer.add_summary(ended)

    _publish(run, f"{FOLDER}/{RESULTS}", write_scores)
    _publish(run, f"{FOLDER}/{FINAL}/{RESULTS}", write_final)


def hyperparameters(fingerprint: Mapping[str, Any]) -> dict[str, float | str]:
    """Return the values of a run that decide its adapter, by dotted keys, as TensorBoard has them.

    Without versions, and without the keys that are null.
    """
    parts = {name: part for name, part in fingerprint.items() if name != "versions"}
    return _flat(parts)


def _publish(run: Run, key: str, write: Callable[[SummaryWriter], None]) -> None:
    with TemporaryDirectory(dir=run.work) as folder:
        with SummaryWriter(folder) as writer:
            write(writer)
        (file,) = Path(folder).iterdir()
        run.store.upload(file, key)


def _write_selection(writer: SummaryWriter, selection: SelectionCurve) -> None:
    for candidate in selection.candidates:
        if candidate.score is not None:
            tag = f"selection/{selection.metric}"
            writer.add_scalar(tag, candidate.score.mean, candidate.step)
    writer.add_text("selection", literal(selection.sentence()), selection.chosen)


def _write_scores(writer: SummaryWriter, result: Scored, step: int) -> None:
    for name, system in result.evaluation.systems.items():
        for metric, by_aggregation in system.scores.items():
            writer.add_scalar(f"scores/{metric}/{name}", by_aggregation["mean"].mean, step)
    serving = _judged(result).serving
    if serving is not None:
        lines = [f"- {literal(key)}: {literal(str(value))}" for key, value in serving.items()]
        writer.add_text("serving", "\n".join(lines), step)


def _judged(result: Scored) -> System:
    return next(each for each in result.systems if each.name == result.evaluation.judged)


def _final_metrics(published: LogEntry, result: Scored | NotScored) -> dict[str, float]:
    metrics = {}
    if math.isfinite(published.get("eval_loss", math.nan)):
        metrics["final/validation_loss"] = published["eval_loss"]
    if isinstance(result, Scored):
        system = result.evaluation.systems[result.evaluation.judged]
        for metric, by_aggregation in system.scores.items():
            metrics[f"final/{metric}"] = by_aggregation["mean"].mean
    return metrics


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float | str]:
    flat: dict[str, float | str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            flat[name] = _short(", ".join(map(str, value)))
        elif isinstance(value, str | bool):
            flat[name] = _short(str(value))
        elif value is not None:
            flat[name] = value
    return flat


def _short(text: str) -> str:
    """Return a text as a value of the tab HPARAMS, where only plain ASCII can be filtered by."""
    if DIGEST.fullmatch(text):
        return text[:DIGEST_CHARACTERS]
    plain = NOT_PLAIN.sub("?", text)
    if plain == text and len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{plain[:MAX_SHOWN_CHARACTERS]}... ({json_digest(text)[:DIGEST_CHARACTERS]})"
