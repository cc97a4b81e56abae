"""The conversations that a reward model was trained on, by the records of its training.

run.json beside the adapter names the files. A training that started from an earlier reward model
has learned that one's conversations, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.config.sections import StorageSection, Uris, as_list
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.conversations.splits import find_repeats
from job.errors import RecapError, RetryError
from job.evaluation.training_record import TrainingRecord, read_training_record
from job.storage.open import InputFile, files_digest, list_inputs
from job.storage.selection import Selection
from job.telemetry import warn

NO_RECORD = "no record of its training is beside it"
CHANGED = "files that it was trained on have changed since"


@dataclass(frozen=True)
class Learned:
    """The conversations that a reward model was trained on, as far as they can be read.

    `why_unknown` is empty if they are all there, else a clause that names no location.
    """

    conversations: Sequence[Conversation]
    why_unknown: str = ""


def read_learned(adapter: str, storage: StorageSection) -> Learned:
    """Read what a reward model and those that it started from were trained on.

    A share that `data.validation_fraction` held out counts as trained on. Warn of what cannot be
    read. Raise RetryError of the store.
    """
    learned: list[Conversation] = []
    reasons: list[str] = []
    asked: list[str] = []
    following: str | None = adapter
    while following is not None and following not in asked:
        asked.append(following)
        record = None
        try:
            record = read_training_record(following, storage)
            files = _files_of_training(record) if record else {}
            learned += _trained_on(record, files) if record else []
            why = why_shown = _why_incomplete(record, files)
        except RetryError:
            raise
        except RecapError as error:
            why = str(error)  # may name locations, and stays in the log
            why_shown = f"its training data could not be read ({type(error).__name__})"
        if why:
            warn("what a reward model was trained on is not known", adapter=following, why=why)
            reasons.append(why_shown)
        following = record.start if record else None
    return Learned(learned, "; ".join(dict.fromkeys(reasons)))


def _files_of_training(record: TrainingRecord) -> dict[str, list[InputFile]]:
    """Return the files of both kinds of training data, as they are now."""
    data = record.config.data
    named = {"train": data.train, "replay": data.replay}
    return {split: _files(record, uris) for split, uris in named.items() if uris is not None}


def _trained_on(
    record: TrainingRecord, files: Mapping[str, Sequence[InputFile]]
) -> list[Conversation]:
    """Return the conversations of both kinds of training data, without those held out there."""
    data = record.config.data
    train, replay = (_read(record, files.get(split, ())) for split in ("train", "replay"))
    if replay or data.overlap == "drop":
        others = [_files(record, uris) for uris in (data.validation, data.test) if uris is not None]
        held_out = [each for some in others for each in _read(record, some)]
        replay = _without_repeats(replay, held_out)
        train = _without_repeats(train, held_out) if data.overlap == "drop" else train
    return [*train, *replay]


def _files(record: TrainingRecord, uris: Uris) -> list[InputFile]:
    config = record.config
    return list_inputs(as_list(uris), config.storage, Selection.of(config.data))


def _read(record: TrainingRecord, files: Sequence[InputFile]) -> list[Conversation]:
    config = record.config
    return read_strictly(files, config.data, config.judged) if files else []


def _without_repeats(
    conversations: list[Conversation], held_out: Sequence[Conversation]
) -> list[Conversation]:
    repeated = {overlap.train_id for overlap in find_repeats(conversations, held_out)}
    return [each for each in conversations if each.id not in repeated]


def _why_incomplete(record: TrainingRecord | None, files: Mapping[str, Sequence[InputFile]]) -> str:
    """Return why the conversations of a record are not surely all; an empty text if they are."""
    if record is None:
        return NO_RECORD
    is_changed = any(
        files_digest(some) != record.files_digest(split) for split, some in files.items()
    )
    return CHANGED if is_changed else ""
