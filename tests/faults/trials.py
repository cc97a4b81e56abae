"""Training runs that are hurt: how they are started, what must hold after each, and what they are compared with."""

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

QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
}  # fmt: skip
WEIGHTS = "adapter_model.safetensors"
PLACE = Path(__file__).parents[2]
STEP = re.compile(r'"message": "step", "step": (\d+)')  # in a log


class LineServer:
    """A process that loads the libraries once, then does what lines of JSON ask and answers with numbers."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PLACE,
            env=os.environ | QUIET | {"PYTHONPATH": str(PLACE), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    def ask(self, asked: dict[str, Any]) -> int:
        """Its first answer to this."""
        self._process.stdin.write(json.dumps(asked) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def answer(self) -> int:
        """Its next answer, which it may take its time for."""
        return int(self._process.stdout.readline())  # type: ignore[union-attr]

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


def handed_on() -> dict[str, str]:
    """What a process of a server must know of the environment of now."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RECAP_"))
    }


@dataclass
class Child:
    """A training process of the fork server."""

    pid: int
    work: Path
    server: LineServer

    def send(self, number: signal.Signals) -> None:
        """Tell it to stop, or kill it as a machine dies; it may have ended already."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended: its exit code, or the negative number of a signal."""
        return self.server.answer()

    def log(self) -> str:
        """What it said until now."""
        log = self.work / "log"
        return log.read_text(encoding="utf-8") if log.exists() else ""


class Trials(LineServer):
    """Starts training processes, one at a time, in a folder of its own each."""

    def __init__(self, folder: Path) -> None:
        super().__init__("forkserver.py")
        self._folder, self._numbers = folder, itertools.count()

    def start(self, config: dict[str, Any], **environment: str) -> Child:
        """Start a training process; it runs when this returns."""
        work = self._folder / f"work-{next(self._numbers)}"
        work.mkdir(parents=True)
        (work / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        trial = {"work": str(work), "environment": {**handed_on(), **environment}}
        return Child(self.ask(trial), work, self)

    def start_until(self, config: dict[str, Any], reached: Callable[[str], bool]) -> Child:
        """Start a training process, and give it when its log has come so far."""
        child = self.start(config)
        while not reached(child.log()):
            time.sleep(0.01)
        return child

    def run(self, config: dict[str, Any], **environment: str) -> tuple[int, str]:
        """Run to whatever end; its exit code, and what it said and left for the supervisor to say."""
        child = self.start(config, **environment)
        code = child.wait()
        return code, child.log() + "".join(
            outcome.message for outcome in read_outcomes(child.work).values()
        )

    def finish(self, config: dict[str, Any], tries: int = 1) -> int:
        """Run until it is done, at most so often; how often it took."""
        for attempt in range(1, tries + 1):
            child = self.start(config)
            code = child.wait()
            if code == ExitCode.DONE:
                return attempt
            assert code == ExitCode.RETRY, child.log()
        raise AssertionError(f"not done after {tries} tries: {child.log()}")


class TrialRun:
    """A config's training process, as often as it takes: a `RealRun` without launcher and supervisor."""

    def __init__(self, config: dict[str, Any], trials: Trials) -> None:
        self._config, self._trials, self.said = config, trials, ""

    def finish(self) -> None:
        """Run to the end."""
        self._trials.finish(self._config)

    def interrupt(self, at_step: int, number: signal.Signals) -> int:
        """Run until the log tells of a step, and send a signal; how it ended."""
        child = self._trials.start_until(
            self._config, lambda log: any(int(step) >= at_step for step in STEP.findall(log))
        )
        child.send(number)
        code = child.wait()
        self.said = child.log()
        return code


def store_of(config: dict[str, Any]) -> Store:
    """The run's folder."""
    return open_store(f"{config['output']}/{config['run']}")


def published(store: Store) -> dict[str, str]:
    """Fetch every folder that has a manifest, as any reader would: each verifies, or this raises.

    Their names, with the SHA-256 of their adapter's weights (a report has none).
    """
    digests = {}
    names = {
        entry.key.removesuffix(f"/{MANIFEST}")
        for entry in store.list()
        if entry.key.endswith(f"/{MANIFEST}")
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(sorted(names)):
            fetch_folder(store, name, Path(folder) / str(number))
            digests[name] = (
                "" if name == "report" else sha256_file(Path(folder) / str(number) / WEIGHTS)
            )
    return digests


def adapter_digest(store: Store) -> str:
    """SHA-256 of the adapter's weights, verified."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_folder(store, "adapter", Path(folder) / "adapter")
        return sha256_file(Path(folder) / "adapter" / WEIGHTS)


def logged(store: Store) -> dict[tuple[int, str], Any]:
    """What the trainer logged and counted, by step and name, as the last checkpoint has it."""
    states = sorted(
        entry.key for entry in store.list("checkpoints") if entry.key.endswith("trainer_state.json")
    )
    state = json.loads(store.read(states[-1]))
    names = ("loss", "grad_norm", "learning_rate", "eval_loss")
    found = {
        (entry["step"], name): entry[name]
        for entry in state["log_history"]
        for name in names
        if name in entry
    }
    return found | {(state["global_step"], "tokens"): state["num_input_tokens_seen"]}


def on_tensorboard(store: Store, tag: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard shows it: step and value, in the order of the files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as folder:
        for entry in store.list("tensorboard"):
            store.download(entry.key, Path(folder) / Path(entry.key).name)
        events = EventAccumulator(folder, size_guidance={"scalars": 0})
        events.Reload()
    return (
        [(event.step, event.value) for event in events.Scalars(tag)]
        if tag in events.Tags()["scalars"]
        else []
    )


def journal_of(store: Store) -> Any:
    """What run.json says."""
    return json.loads(store.read("run.json"))
