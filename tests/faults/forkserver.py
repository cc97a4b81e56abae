"""Start training processes without loading the libraries each time: a process that has loaded them, and forks.

Reads a JSON line per trial from stdin: {"work": folder, "environment": {…}}; the child runs what `python -m
job.training.worker` runs. Answers with two lines: the child's process number, and how it ended (negative: by a signal).

BROKEN in the environment of a trial names functions that fail in it, as `module:function:way` with spaces between:
`raise` an error of a library, `disk` is full, `memory` is too small, or the system will `kill` the process.
"""

import errno
import importlib
import json
import os
import signal
import sys
from pathlib import Path

from tests.faults.forks import load

HEAVY = (
    "bitsandbytes", "peft", "transformers.models.llama.modeling_llama", "trl", "job.evaluation.report",
    "job.training.run", "matplotlib.pyplot", "rouge_score.rouge_scorer",
)  # fmt: skip


def main() -> None:
    load(HEAVY)
    from job.training import worker

    for line in sys.stdin:
        trial = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(trial["environment"])
            for broken in trial["environment"].get("BROKEN", "").split():
                _break(*broken.split(":"))
            log = os.open(Path(trial["work"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os._exit(_train(worker, Path(trial["work"])))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _break(module: str, function: str, way: str) -> None:
    def fail(*_: object, **__: object) -> None:
        import torch

        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {
            "raise": ValueError("broken on purpose"),
            "disk": OSError(errno.ENOSPC, "No space left on device"),
            "memory": torch.OutOfMemoryError("out of memory, on purpose"),
        }[way]

    found = importlib.import_module(module)
    *owner, name = function.split(".")
    setattr(getattr(found, owner[0]) if owner else found, name, fail)


def _train(worker, work: Path) -> int:  # type: ignore[no-untyped-def]
    import torch

    torch.set_num_threads(1)
    return int(worker.main(work))


if __name__ == "__main__":
    main()
