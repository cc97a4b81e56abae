"""Feedback that is stopped at any operation, or at any moment, is not there or is whole."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import yaml

from job.errors import ExitCode, MissingError
from job.storage.folders import MANIFEST, read_manifest
from job.storage.open import open_store
from tests.faults.nights import Workers
from tests.faults.s3_proxy import FaultyS3, Request, no_faults
from tests.feedback.world import World, conversation, corrected, verdict
from tests.stand_in import NO_WEIGHTS

WEEKS = ("2026-01-05", "2026-01-12")
MOMENTS = 24


@pytest.fixture
def world(tmp_path: Path, places: Path) -> World:
    """Two nights of twelve conversations, each summary corrected."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_bytes(NO_WEIGHTS)
    found = World(tmp_path, base)
    lines = []
    for week, day in enumerate(WEEKS):
        lines += found.night(day, [conversation(12 * week + each) for each in range(12)])
    found.verdicts([verdict(line, edited=corrected(line), by="ann") for line in lines])
    return found


class Runs:
    """Runs of `recap feedback` in processes of their own, each with an output on S3."""

    def __init__(self, world: World, workers: Workers, proxy: FaultyS3, bucket: str) -> None:
        self._world = world
        self._workers = workers
        self._proxy = proxy
        self._bucket = bucket

    def start(self, name: str, after: Callable[[Request], None] = no_faults) -> int:
        """Start a run that writes to the output of this name; return its process number."""
        storage = {"endpoint_url": self._proxy.endpoint, "timeout_seconds": 2}
        content = self._world.content(output=f"{self._bucket}/{name}", storage=storage)
        path = self._world.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        self._proxy.reset(after=after)
        return self._workers.command(["feedback", str(path)], {})

    def stop_at(self, name: str, number: int, sent: signal.Signals) -> int:
        """Send a signal when a request is done but not answered; return the exit code."""
        started: Queue[int] = Queue()

        def after(request: Request) -> None:
            if request.number == number:
                os.kill(started.get(), sent)

        process = self.start(name, after)
        started.put(process)
        return self._workers.wait(process)

    def finish(self, name: str) -> dict[str, bytes]:
        """Run to the end and return every file but the manifest, which has times."""
        code = self._workers.wait(self.start(name))
        assert code == ExitCode.DONE, self._workers.end_of_log()
        return self.files(name)

    def files(self, name: str) -> dict[str, bytes]:
        """Return every file but the manifest, by name."""
        store = open_store(f"{self._bucket}/{name}")
        keys = [entry.key for entry in store.list() if entry.key != MANIFEST]
        return {key: store.read(key) for key in keys}

    def is_there(self, name: str) -> bool:
        """Return True if the output has a manifest."""
        try:
            manifest: Any = read_manifest(open_store(f"{self._bucket}/{name}"), "")
        except MissingError:
            return False
        return bool(manifest.files)


@pytest.fixture
def runs(world, workers, proxy, s3):
    return Runs(world, workers, proxy, s3.uri)


@pytest.mark.faults
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_feedback_stopped_at_any_operation_is_whole_or_not_there(runs, proxy, sent):
    whole = runs.finish("whole")
    count = proxy.requests
    ends: Counter[int] = Counter()
    for number in range(1, count + 1):
        name = f"{sent.name.lower()}-{number}"
        ends[runs.stop_at(name, number, sent)] += 1
        if runs.is_there(name):
            files = runs.files(name)
            assert {key: files[key] for key in whole} == whole, number
        assert runs.finish(name) == whole, number
    print(f"\n{sent.name} at {count} operations: {dict(ends)}, all with the same files at last")
    stopped = -signal.SIGKILL if sent == signal.SIGKILL else int(ExitCode.RETRY)
    assert ends[stopped] > count // 2
    assert ends.keys() <= {stopped, int(ExitCode.DONE)}


@pytest.mark.faults
def test_feedback_stopped_at_random_moments_ends_with_the_same_files(runs, workers):
    draw = random.Random(21)
    began = time.monotonic()
    whole = runs.finish("whole")
    longest = time.monotonic() - began
    ends: Counter[int] = Counter()
    for number in range(MOMENTS):
        name = f"moment-{number // 4}"  # several stops of one output
        process = runs.start(name)
        time.sleep(draw.uniform(0, longest))
        os.kill(process, draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        ends[workers.wait(process)] += 1
        if runs.is_there(name):
            assert {key: runs.files(name)[key] for key in whole} == whole
        if number % 4 == 3:
            assert runs.finish(name) == whole
    print(f"\n{MOMENTS} stops at random moments: {dict(ends)}")
    allowed = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, ExitCode.RETRY, ExitCode.DONE}
    assert ends.keys() <= {int(code) for code in allowed}
