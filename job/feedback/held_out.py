"""The conversations that evaluations use, and the judged summaries that repeat one of them.

They are named by the config, or by what the champion's records say that it was judged on: the
validation split and the older test sets of its training, and the input of the evaluation that let
it in.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from job.config.commands import FeedbackConfig
from job.config.data_sections import ReadingSection
from job.config.method_sections import Judged
from job.config.sections import StorageSection, as_list
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.conversations.splits import compare
from job.errors import DamagedError, MissingError, naming_key
from job.evaluation.held_out_pairs import PAIRS, read_pairs
from job.evaluation.training_record import read_training_record
from job.model.fetch import read_adapter
from job.storage.folders import read_manifest
from job.storage.open import InputFile, list_inputs, open_store
from job.storage.selection import Selection
from job.telemetry import event

REMEDY = "name the conversations that it was judged on by evaluation_sets, and remove champion"
LEAVE_OUT = "before the first champion, leave the key champion out"


class EvaluationSet(NamedTuple):
    """Conversations that an evaluation uses, and where that is known from."""

    name: str
    conversations: list[Conversation]


@dataclass(frozen=True)
class Leak:
    """A conversation of feedback that an evaluation set has: exactly, or nearly."""

    id: str
    set: str
    evaluation_id: str
    kind: str
    similarity: float


def read_evaluation_sets(config: FeedbackConfig) -> list[EvaluationSet]:
    """Read every evaluation set that the config and the champion's records name.

    Raise MissingError if a champion is named whose records say nothing.
    """
    sets = []
    if config.evaluation_sets is not None:
        with naming_key("evaluation_sets"):
            files = _files(as_list(config.evaluation_sets), config.data, config.storage)
        found = read_strictly(files, config.data)
        sets.append(EvaluationSet("evaluation_sets", found))
    if config.champion is not None:
        with naming_key("champion"):
            sets += _sets_of_champion(config.champion, config.storage)
    for each in sets:
        event("evaluation set", name=each.name, conversations=len(each.conversations))
    return sets


def find_leaks(
    conversations: Sequence[Conversation], sets: Sequence[EvaluationSet]
) -> dict[str, Leak]:
    """Return those of the conversations that a set repeats, by id, which must be unique."""
    leaks: dict[str, Leak] = {}
    for each in sets:
        for overlap in compare(conversations, each.conversations).overlap:
            leak = Leak(
                overlap.train_id,
                each.name,
                overlap.validation_id,
                overlap.kind,
                overlap.similarity,
            )
            leaks.setdefault(overlap.train_id, leak)
    return leaks


def count_leaks(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    """Return the numbers of exact and near repeats of each set."""
    counts = Counter((leak.set, leak.kind) for leak in leaks)
    names = dict.fromkeys(leak.set for leak in leaks)
    return [
        {"set": name, "exact": counts[(name, "exact")], "near": counts[(name, "near")]}
        for name in names
    ]


def _sets_of_champion(uri: str, storage: StorageSection) -> list[EvaluationSet]:
    try:
        adapter = read_adapter(uri, storage)
    except MissingError as error:
        raise MissingError(f"{error}; {LEAVE_OUT}") from error
    folder, _, _ = adapter.uri.rstrip("/").rpartition("/")
    sets = _sets_of_training(adapter.uri, storage)
    if adapter.pointer is not None:
        source = adapter.pointer.champion.evaluation.get("source")
        # The scores of a training are in its own folder.
        is_of_training = bool(sets) and str(source).startswith(f"{folder}/")
        if isinstance(source, str) and not is_of_training:
            sets += _sets_of_evaluation(source, storage)
    if not sets:
        raise MissingError(
            f"champion: no record beside {adapter.uri} says what it was judged on: {REMEDY}"
        )
    return sets


def _sets_of_training(adapter: str, storage: StorageSection) -> list[EvaluationSet]:
    """Return what judged this adapter at the end of its training; none without a record of it."""
    from job.training.examples import read_examples

    try:
        record = read_training_record(adapter, storage)
    except DamagedError as error:
        raise DamagedError(f"{error}: {REMEDY}") from error
    if record is None:
        return []
    config = record.config
    run = f"training {config.run}"
    if config.data.validation is not None:
        uris = as_list(config.data.validation)
        found = _read(uris, config.data, storage, config.judged)
        sets = [EvaluationSet(f"validation of {run}", found)]
    else:
        # With a test set, `uncleaned` would be that. The split depends on neither.
        data = config.data.model_copy(update={"replay": None, "test": None})
        alone = config.model_copy(update={"data": data})
        sets = [EvaluationSet(f"validation of {run}", read_examples(alone).uncleaned)]
    if config.data.test is not None:
        found = _read(as_list(config.data.test), config.data, storage)
        sets.append(EvaluationSet(f"test of {run}", found))
    for section in config.publish.regressions:
        found = _read(as_list(section.input), config.data, storage)
        sets.append(EvaluationSet(f"{section.name} of {run}", found))
    if config.publish.pairs is not None:
        pairs = as_list(config.publish.pairs.input)
        found = read_pairs(_files(pairs, config.data, storage), config.data)
        sets.append(EvaluationSet(f"{PAIRS} of {run}", found))
    return sets


def _sets_of_evaluation(source: str, storage: StorageSection) -> list[EvaluationSet]:
    """Return the input of the `recap evaluate` that wrote the scores at `source`."""
    folder, _, _ = source.rpartition("/")
    facts = read_manifest(open_store(folder, storage), "").extra
    inputs = facts.get("inputs")
    if not isinstance(inputs, dict):
        raise MissingError(
            f"{folder}/manifest.json does not say which conversations were scored, as it is of an "
            f"earlier version of recap: {REMEDY}"
        )
    reading = ReadingSection.model_validate(facts["data"])
    run = f"evaluation {facts.get('run')}"
    sets = []
    for name, uris in inputs.items():
        read = read_pairs if name == PAIRS else read_strictly
        sets.append(
            EvaluationSet(f"{name} of {run}", read(_files(uris, reading, storage), reading))
        )
    return sets


def _read(
    uris: Sequence[str],
    data: ReadingSection,
    storage: StorageSection,
    judged: Judged | None = None,
) -> list[Conversation]:
    return read_strictly(_files(uris, data, storage), data, judged)


def _files(uris: Sequence[str], data: ReadingSection, storage: StorageSection) -> list[InputFile]:
    return list_inputs(uris, storage, Selection.of(data))
