"""One training process: `python -m job.training.worker WORK`, started by the launcher below the supervisor.

Reads the config that the supervisor put into WORK, trains, and leaves its outcome there. Knows nothing of arguments.
"""

import os
import sys
import traceback
import warnings
from pathlib import Path

from job.config.commands import TrainConfig
from job.config.load import load_config
from job.errors import ExitCode, RecapError
from job.launch.outcome import Outcome, write_outcome
from job.telemetry import configure_logging, masked


def main(work: Path) -> ExitCode:
    """Train, and write down how it ended."""
    configure_logging(quiet=os.environ.get("RANK", "0") != "0")
    warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU", UserWarning)
    try:
        # Imported here: torch takes seconds, and a stop signal or a missing library must find an outcome to write.
        from job.training.run import train
        from job.training.stop import StopSignal

        stop = StopSignal()
        config = load_config("train", str(work / "config.yaml"))
        assert isinstance(config, TrainConfig)
        train(config, work, stop)
        outcome = Outcome(ExitCode.DONE, "done")
    except RecapError as error:
        outcome = Outcome(error.exit_code, str(error))
    except Exception as error:
        print(masked(traceback.format_exc()), file=sys.stderr)
        outcome = _unforeseen(error)
    write_outcome(work, outcome)
    return ExitCode(outcome.exit_code)


def _unforeseen(error: Exception) -> Outcome:
    """What no part of recap foresaw; out of memory and a full disk have remedies, the rest is a bug."""
    import errno

    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return Outcome(
            ExitCode.CONFIG,
            "the GPU's memory is too small for this config: lower training.batch_size (and raise "
            "gradient_accumulation_steps), lower training.max_tokens, or set training.activation_checkpointing: true",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS):
        return Outcome(ExitCode.OUTPUT, f"cannot write {error.filename}: {error.strerror}; see RECAP_WORK, RECAP_CACHE")
    return Outcome(ExitCode.BUG, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
