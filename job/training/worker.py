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
from job.errors import ExitCode, PreemptedError, RecapError, Stopped, bug, unwritable
from job.launch.outcome import Outcome, keep_room, write_outcome
from job.printable import entry
from job.telemetry import configure_logging
from job.training.stop import StopSignal
from job.training.watch import Watch

PROBE_BYTES = 1 << 20


def main(work: Path) -> ExitCode:
    """Train, and write down how it ended."""
    configure_logging(quiet=os.environ.get("RANK", "0") != "0")
    warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU", UserWarning)
    stop: StopSignal | None = None
    try:
        keep_room(work)
        watch = Watch(work)
        stop = StopSignal()
        # Imported here: torch takes seconds, and a stop signal or a missing library must find an outcome to write.
        from job.training.run import train

        config = load_config("train", str(work / "config.yaml"))
        assert isinstance(config, TrainConfig)
        train(config, work, stop, watch)
        outcome = Outcome(ExitCode.DONE, "done")
    except RecapError as error:
        outcome = Outcome(error.exit_code, str(error), "signal" if isinstance(error, PreemptedError) else "own")
    except Stopped as error:
        outcome = Outcome(ExitCode.RETRY, str(error), "signal")
    except Exception as error:
        print(entry(traceback.format_exc()), file=sys.stderr)
        stopped = stop is not None and stop.requested  # other processes that stop first break what joins them
        outcome = Outcome(ExitCode.RETRY, "stopped by a signal", "signal") if stopped else _unforeseen(error, work)
    if stop is not None:
        stop.settle()
    write_outcome(work, outcome)
    return ExitCode(outcome.exit_code)


def _unforeseen(error: Exception, work: Path) -> Outcome:
    """What no part of recap foresaw; out of memory and a full disk have remedies, the rest is a bug."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return Outcome(
            ExitCode.CONFIG,
            "the GPU's memory is too small for this config: lower training.batch_size (and raise "
            "gradient_accumulation_steps), lower training.max_tokens, or set training.activation_checkpointing: true",
        )
    if unwritable(error) or _takes_nothing(work):
        return Outcome(ExitCode.OUTPUT, f"{work} cannot be written ({error}): make room, or set RECAP_WORK elsewhere")
    # Where another process is gone, collectives raise this, and nothing else does.
    return Outcome(ExitCode.BUG, bug(error), "unclear" if isinstance(error, RuntimeError) else "own")


def _takes_nothing(work: Path) -> bool:
    """Whether the disk is the cause: torch and safetensors hide the system's error in errors of their own."""
    probe = work / f"probe-{os.getpid()}"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        return unwritable(error) is not None
    finally:
        probe.unlink(missing_ok=True)
    return False


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Python itself would wait for threads that a store holds up
