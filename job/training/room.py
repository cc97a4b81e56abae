"""Disk space for the next checkpoint in the run's work folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

from job.errors import OutputError
from job.training.ranks import anywhere

# The size of a checkpoint, in multiples of the trained weights: themselves, the two moments of the
# optimizer, and one to spare; and the bytes of the tokenizer and small files.
COPIES_OF_TRAINED_WEIGHTS = 4
OTHER_FILES_BYTES = 32 << 20


def make_room(folder: Path, trainable_bytes: int, wait: Callable[[], None]) -> None:
    """Collective: make sure that the disk of every rank has room for a checkpoint.

    If one has not, call `wait`, which returns once earlier checkpoints are in storage and deleted
    here. Raise OutputError on every rank if it still has not.
    """
    needed = COPIES_OF_TRAINED_WEIGHTS * trainable_bytes + OTHER_FILES_BYTES
    if not anywhere(shutil.disk_usage(folder).free < needed):
        return

    wait()
    free = shutil.disk_usage(folder).free
    if not anywhere(free < needed):
        return

    found = "too little free on another machine"
    if free < needed:
        found = f"{free / 2**20:,.0f} MiB free"
    raise OutputError(
        f"{folder}: {found}, and a checkpoint needs about {needed / 2**20:,.0f} MiB: make room or "
        "set RECAP_WORK to a larger disk, and run the same command again"
    )
