"""Notes of attempts, so that a run which is killed again and again from one step comes to an end.

Where memory runs out, the kernel may kill the whole container, and its scheduler cannot tell that
from a machine that was taken away. So each attempt leaves a note in the run's folder, with the step
that it begins from, and deletes it at its end. A note stays if the attempt was killed, hung, or
lost its machine, and of several processes or nodes if that happened to one of them. A stop signal
is none of these, and a machine that is taken away without one lets some attempt reach a newer
checkpoint.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState

from job.errors import ConfigError
from job.launch.attempt_note import delete_notes, hand_over
from job.launch.memory import own_control_group
from job.launch.outcome import MORE_MEMORY
from job.storage.store import Store
from job.training.checkpoints import newest_step
from job.training.ranks import is_first

FOLDER = "attempts"
NOTE = re.compile(rf"{FOLDER}/(\d{{8}})-[0-9a-f]{{32}}\.json")


@contextmanager
def note_attempt(store: Store, limit: int | None, work: Path) -> Iterator[None]:
    """Leave a note of this attempt for the duration of the block. Only rank 0 does.

    One of several processes may end because another was killed. Then the note is handed over, in
    `work`, to the supervisor.

    The caller holds the run's lease, so the notes that are there are of attempts that ended. Raise
    ConfigError if there are `limit` of them from the step of the newest checkpoint, and delete
    them: whoever starts the run again has as many attempts.
    """
    if not is_first():
        yield
        return

    step = newest_step(store) or 0
    silent = _notes_of(store, step)
    if limit is not None and len(silent) >= limit:
        for key in silent:
            store.delete(key)
        raise ConfigError(_why(len(silent), step))

    own = f"{FOLDER}/{step:08d}-{uuid.uuid4().hex}.json"
    store.write(own, b"{}\n")
    try:
        yield
    except BaseException:
        if PartialState().num_processes > 1:
            hand_over(work, own)
        else:
            delete_notes(store, [own])
        raise
    delete_notes(store, [*silent, own])


def _notes_of(store: Store, step: int) -> list[str]:
    """Return the keys of the notes of this step. Delete others: the run has advanced since."""
    notes = []
    for entry in store.list(FOLDER):
        found = NOTE.fullmatch(entry.key)
        if found and int(found[1]) == step:
            notes.append(entry.key)
        elif found:
            store.delete(entry.key)
    return notes


def _why(attempts: int, step: int) -> str:
    limit = own_control_group().limit_gib()
    here = f", whose limit is {limit:g} GiB here" if limit else ""
    where = f"after step {step}, where they began" if step else "before the first checkpoint"
    return (
        f"{attempts} attempts in a row were killed, hung or lost their machine {where}. Most often "
        f"it is the memory of the container{here}: {MORE_MEMORY}. If it was something else, run "
        "the same command again: it has as many attempts (limits.max_silent_attempts)"
    )
