"""Room for a checkpoint on the disk that a run writes to. Knows nothing of what is in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

from job.errors import OutputError
from job.training.ranks import anywhere

CHECKPOINT_SHARE = 4  # weights, two moments of the optimizer, and one to spare
CHECKPOINT_BYTES = 32 << 20  # tokenizer and small files


def make_room(folder: Path, trainable_bytes: int, wait: Callable[[], None]) -> None:
    """Where there is too little room for a checkpoint, `wait` for those that go when they are in storage.

    For all processes together; OutputError in each if there still is too little on the disk of one.
    """
    needed = CHECKPOINT_SHARE * trainable_bytes + CHECKPOINT_BYTES
    if anywhere(shutil.disk_usage(folder).free < needed):
        wait()
        free = shutil.disk_usage(folder).free
        if anywhere(free < needed):
            found = f"{free / 2**20:,.0f} MiB free" if free < needed else "too little free on another machine"
            raise OutputError(
                f"{folder}: {found}, and a checkpoint needs about {needed / 2**20:,.0f} MiB: make room or set "
                "RECAP_WORK to a larger disk, and run the same command again"
            )
