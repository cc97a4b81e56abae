"""One training process: `python -m job.training.worker WORK`, started by the launcher.

It reads the config that the supervisor wrote to the folder WORK, trains, and writes its outcome
there.
"""

import os
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from job.config.commands import TrainConfig
from job.config.load import load_config
from job.errors import (
    ExitCode,
    PreemptedError,
    RecapError,
    Stopped,
    bug,
    is_out_of_memory,
    unwritable,
)
from job.gpus.required import require_gpus
from job.launch.outcome import SUPERVISOR, Outcome, keep_room, write_outcome
from job.model.libraries import import_bitsandbytes, importing
from job.printable import entry
from job.storage.config_file import read_config
from job.telemetry import Phases, configure_logging
from job.training.stop import StopSignal
from job.training.watch import Watch

PROBE_BYTES = 1 << 20


def main(work: Path) -> ExitCode:
    """Train, write the outcome to `work`, and return its exit code."""
    configure_logging(quiet=os.environ.get("RANK", "0") != "0")
    phases = _phases()
    warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU", UserWarning)

    stop: StopSignal | None = None
    try:
        keep_room(work)
        watch = Watch(work)
        stop = StopSignal()

        # Imported within the `try`: torch takes seconds, during which a stop signal may come, and a
        # library may be missing. Both must end in an outcome.
        with importing():
            import_bitsandbytes()
            from job.training.run import train
        phases.end("import")

        # The supervisor asked, too; but a GPU can be lost before this process asks for it.
        require_gpus(os.environ)

        config = load_config("train", read_config(str(work / "config.yaml")))
        assert isinstance(config, TrainConfig)
        train(config, work, stop, watch, phases)
        outcome = Outcome(ExitCode.DONE, "done")
    except PreemptedError as error:
        outcome = Outcome(error.exit_code, str(error), "signal")
    except RecapError as error:
        outcome = Outcome(error.exit_code, str(error), _cause(error.__cause__))
    except Stopped as error:
        outcome = Outcome(ExitCode.RETRY, str(error), "signal")
    except Exception as error:
        print(entry(traceback.format_exc()), file=sys.stderr)
        if stop is not None and stop.requested:
            # Other ranks that stopped first broke the collectives of this one.
            outcome = Outcome(ExitCode.RETRY, "stopped by a signal", "signal")
        else:
            outcome = _outcome_of_exception(error, work)

    if stop is not None:
        stop.settle()
    write_outcome(work, outcome)
    return ExitCode(outcome.exit_code)


def _phases() -> Phases:
    """Return the phases since the start of the command, of which the plan has ended."""
    own = psutil.Process().create_time()
    supervisor = os.environ.get(SUPERVISOR)
    started = own
    if supervisor:
        with suppress(psutil.Error):  # it ended, which the watch of this process notices
            started = psutil.Process(int(supervisor)).create_time()
    phases = Phases(started)
    phases.end("plan", at=own)
    return phases


def _outcome_of_exception(error: Exception, work: Path) -> Outcome:
    """Return the outcome of an exception that recap did not raise.

    Out of memory and a full disk have their own codes and remedies. The rest is a bug.
    """
    if is_out_of_memory(error):
        why = f"memory ran out ({type(error).__name__}: {error}): take a machine with more of it"
        return Outcome(ExitCode.CONFIG, why)
    if unwritable(error) or _is_unwritable(work):
        why = f"{work} cannot be written ({error}): make room, or set RECAP_WORK elsewhere"
        return Outcome(ExitCode.OUTPUT, why)

    return Outcome(ExitCode.BUG, bug(error), _cause(error))


def _cause(error: BaseException | None) -> Literal["own", "unclear"]:
    """Return the cause of an outcome: collectives raise RuntimeError if another process is gone."""
    is_of_collectives = isinstance(error, RuntimeError) and not is_out_of_memory(error)
    return "unclear" if is_of_collectives else "own"


def _is_unwritable(work: Path) -> bool:
    """Return True if the disk is full or read-only, by writing a file.

    torch and safetensors replace the system's error by errors of their own.
    """
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
    # Not `sys.exit`: Python would wait for threads that a store may block.
    os._exit(code)
