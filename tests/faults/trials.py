"""Training processes that a test interrupts, and readers of what they leave in the store."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from job.errors import ExitCode
from job.launch.outcome import read_outcomes
from job.storage.folders import MANIFEST, fetch_folder, sha256_file
from job.storage.open import open_store
from job.storage.store import Store

ROOT = Path(__file__).parents[2]
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_USE_CPU": "true",
    "OMP_NUM_THREADS": "1",
}
WEIGHTS = "adapter_model.safetensors"
LOGGED = (
    "loss", "grad_norm", "learning_rate", "eval_loss",
    "rewards/chosen", "rewards/rejected", "kl", "eval_rewards/chosen", "eval_kl",
)  # fmt: skip
STEP = re.compile(r'"message": "step", "step": (\d+)')  # in a log


class LineServer:
    """A process that loads the libraries once, reads requests as JSON lines and answers numbers."""

    def __init__(self, script: str) -> None:
        python_path = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | QUIET | python_path,
        )

    def ask(self, request: dict[str, Any]) -> int:
        """Send a request and return its first answer."""
        self._process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def answer(self) -> int:
        """Block until the next answer and return it."""
        return int(self._process.stdout.readline())  # type: ignore[union-attr]

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


def environment_of_children() -> dict[str, str]:
    """Return the variables that a test may have set since the server started."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RECAP_"))
    }


@dataclass
class Child:
    """A training process of the server."""

    pid: int
    work: Path
    server: LineServer

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended already."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Return its exit code, or the negative number of the signal that ended it."""
        return self.server.answer()

    def log(self) -> str:
        """Return its log so far."""
        log = self.work / "log"
        return log.read_text(encoding="utf-8") if log.exists() else ""


class Trials(LineServer):
    """Starts training processes, one at a time, each in a work folder of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__("training_server.py")
        self._folder = folder
        self._numbers = itertools.count()

    def start(self, config: dict[str, Any], **environment: str) -> Child:
        """Start a training process."""
        work = self._folder / f"work-{next(self._numbers)}"
        work.mkdir(parents=True)
        (work / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        trial = {"work": str(work), "environment": environment_of_children() | environment}
        return Child(self.ask(trial), work, self)

    def start_until(self, config: dict[str, Any], is_reached: Callable[[str], bool]) -> Child:
        """Start a training process and return it once its log is as wanted."""
        child = self.start(config)
        while not is_reached(child.log()):
            time.sleep(0.01)
        return child

    def run(self, config: dict[str, Any], **environment: str) -> tuple[int, str]:
        """Run to whatever end; return the exit code, and the log with the outcomes' messages."""
        child = self.start(config, **environment)
        code = child.wait()
        messages = [outcome.message for outcome in read_outcomes(child.work).values()]
        return code, child.log() + "".join(messages)

    def finish(self, config: dict[str, Any], tries: int = 1) -> int:
        """Run until it is done, and return the number of tries that it took.

        Raise AssertionError if it is not done after `tries`, or fails for good.
        """
        for attempt in range(1, tries + 1):
            child = self.start(config)
            code = child.wait()
            if code == ExitCode.DONE:
                return attempt
            assert code == ExitCode.RETRY, child.log()
        raise AssertionError(f"not done after {tries} tries: {child.log()}")


class TrialRun:
    """A `RealRun` without launcher and supervisor: the training process of a config alone."""

    def __init__(self, config: dict[str, Any], trials: Trials) -> None:
        self._config = config
        self._trials = trials
        self.log = ""

    def finish(self) -> None:
        """Run to the end."""
        self._trials.finish(self._config)

    def interrupt(self, at_step: int, number: signal.Signals) -> int:
        """Send a signal once the log reports the step; return the exit code."""
        child = self._trials.start_until(
            self._config, lambda log: any(int(step) >= at_step for step in STEP.findall(log))
        )
        child.send(number)
        code = child.wait()
        self.log = child.log()
        return code


def store_of(config: dict[str, Any]) -> Store:
    """Return the store at the run's folder."""
    return open_store(f"{config['output']}/{config['run']}")


def published_folders(store: Store) -> dict[str, str]:
    """Fetch and verify every folder that has a manifest; raise if one does not verify.

    Return their names with the SHA-256 of their adapter's weights (a report has none).
    """
    ending = f"/{MANIFEST}"
    names = {entry.key.removesuffix(ending) for entry in store.list() if entry.key.endswith(ending)}
    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(sorted(names)):
            copy = Path(folder) / str(number)
            fetch_folder(store, name, copy)
            digests[name] = "" if name == "report" else sha256_file(copy / WEIGHTS)
    return digests


def adapter_digest(store: Store) -> str:
    """Verify the adapter and return the SHA-256 of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_folder(store, "adapter", Path(folder) / "adapter")
        return sha256_file(Path(folder) / "adapter" / WEIGHTS)


def logged(store: Store) -> dict[tuple[int, str], Any]:
    """Return the trainer's numbers by step and name, from the last checkpoint."""
    states = sorted(
        entry.key for entry in store.list("checkpoints") if entry.key.endswith("trainer_state.json")
    )
    state = json.loads(store.read(states[-1]))
    found = {(state["global_step"], "tokens"): state["num_input_tokens_seen"]}
    for entry in state["log_history"]:
        found |= {(entry["step"], name): entry[name] for name in LOGGED if name in entry}
    return found


def on_tensorboard(store: Store, tag: str) -> list[tuple[int, float]]:
    """Return a curve as TensorBoard shows it: steps and values, in the order of the files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as folder:
        for entry in store.list("tensorboard"):
            path = Path(folder) / entry.key.removeprefix("tensorboard/")
            path.parent.mkdir(exist_ok=True)
            store.download(entry.key, path)
        events = EventAccumulator(folder, size_guidance={"scalars": 0})
        events.Reload()
    if tag not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]


def journal_of(store: Store) -> Any:
    """Return the content of run.json."""
    return json.loads(store.read("run.json"))
