"""Nights over two files of conversations: workers to start and kill, and the complete result."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.folders import MANIFEST, read_manifest_file
from job.storage.open import open_store
from tests.faults.s3_proxy import FaultyS3, Request
from tests.faults.trials import LineServer, environment_of_children

KILLED = -signal.SIGKILL
STOPPED_BEFORE_ITS_HANDLER = -signal.SIGTERM
ALLOWED = {ExitCode.DONE, ExitCode.RETRY, KILLED, STOPPED_BEFORE_ITS_HANDLER}
DEADLY = "a conversation to die of"
RECORDS = 26  # chunks of four: 3 of the first file, 1 over the border, 3 of the second


class Workers(LineServer):
    """Workers of nights, each in a process of its own. All write to one log."""

    def __init__(self, folder: Path) -> None:
        super().__init__("night_server.py")
        self.log = folder / "log"

    def start(
        self,
        config: dict[str, Any],
        shard: str = "0/1",
        kill_at_call: int | None = None,
        deadly: str | None = None,
        deadly_for: str | None = None,
        kill_while_loading: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a worker and return its process number.

        Its engines kill it at call number `kill_at_call` of both, or when a prompt holds the text
        `deadly`; with `deadly_for`, only that one of "adapter" and "challenger" does.
        `environment` is added to this process's.
        """
        request = {
            "start": config,
            "shard": shard,
            "log": str(self.log),
            "kill_at_call": kill_at_call,
            "deadly": deadly,
            "deadly_for": deadly_for,
            "kill_while_loading": kill_while_loading,
            "environment": environment_of_children() | dict(environment or {}),
        }
        return self.ask(request)

    def command(self, words: list[str], environment: Mapping[str, str]) -> int:
        """Start `recap` with these words in a process of its own; return its number."""
        request = {
            "command": words,
            "log": str(self.log),
            "environment": environment_of_children() | dict(environment),
        }
        return self.ask(request)

    def wait(self, worker: int) -> int:
        """Return a worker's exit code, or the negative number of the signal that ended it."""
        return self.ask({"wait": worker})

    def run(self, config: dict[str, Any], shards: int = 1) -> None:
        """Run all shards, one after the other; each must end well."""
        for index in range(shards):
            code = self.wait(self.start(config, f"{index}/{shards}"))
            assert code == ExitCode.DONE, self.end_of_log()

    def end_of_log(self) -> str:
        """Return the last lines of the log, to explain a failure."""
        return self.log.read_text()[-3000:]


def lines(first: int, count: int) -> str:
    """Return so many lines of a file: one is broken, and the last one repeats the id c2."""
    turns = [{"role": "customer", "text": "late"}, {"role": "agent", "text": "sorry"}]
    records: list[Any] = [
        json.dumps({"id": f"c{first + n}", "turns": turns}) for n in range(count - 2)
    ]
    records.insert(3, "{broken")
    return "\n".join([*records, json.dumps({"id": "c2", "turns": turns})]) + "\n"


def rows_of(config: dict[str, Any], folder: str) -> list[Any]:
    """Return the rows of all files below `parts` or `rejects`."""
    store = open_store(config["output"])
    content = b"".join(store.read(entry.key) for entry in store.list(folder))
    return [json.loads(line) for line in content.splitlines()]


def assert_complete(config: dict[str, Any]) -> None:
    """Assert that the night succeeded, has each record once and in order, and nothing else."""
    store = open_store(config["output"])
    keys = [entry.key for entry in store.list() if not entry.key.startswith("_chunks/lease/")]
    assert keys == [
        "_SUCCESS",
        "manifest.json",
        "parts/part-00000.jsonl",
        "rejects/part-00000.jsonl",
        "report.html",
        *(["shadow.jsonl"] if "shadow" in config.get("challenger", {}) else []),
    ]

    summaries = rows_of(config, "parts")
    rejects = rows_of(config, "rejects")
    for rows in (summaries, rejects):
        sources = [(row["source"]["uri"], row["source"]["line"]) for row in rows]
        assert sources == sorted(sources)

    found = sorted(
        (Path(row["source"]["uri"]).name, row["source"]["line"]) for row in summaries + rejects
    )
    first = [("a.jsonl", line) for line in range(1, 15)]
    second = [("b.jsonl", line) for line in range(1, 13)]
    assert found == first + second
    assert [reject["id"] for reject in rejects] == [None, "c2", None, "c2"]
    assert len(summaries) == RECORDS - 4


def content_of(config: dict[str, Any], block: str) -> tuple[dict[str, bytes], Any]:
    """Return the bytes of all lines by file, and a block of the manifest."""
    store = open_store(config["output"])
    keys = [entry.key for entry in store.list() if entry.key.endswith(".jsonl")]
    found = read_manifest_file(store, MANIFEST).extra[block]
    return {key: store.read(key) for key in keys}, found


def kill_at_each_call(
    workers: Workers, config: dict[str, Any], shards: int, then: int, block: str, content: Any
) -> int:
    """Kill a night at each call of its engines, and finish each by `then` shards.

    Asserts that each has the same `content`, by `content_of`. Return the number of kills.
    """
    call = 0
    while True:
        hurt = config | {"output": f"{config['output']}-{call}"}
        codes = {
            workers.wait(workers.start(hurt, f"{index}/{shards}", call)) for index in range(shards)
        }
        assert codes <= {KILLED, ExitCode.DONE}, workers.end_of_log()
        workers.run(hurt, then)
        assert_complete(hurt)
        assert content_of(hurt, block) == content
        if KILLED not in codes:
            return call
        call += 1


def kill_at(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], number: int, shards: int
) -> bool:
    """Run the shards in turn, and kill the worker when its n-th request is done but not answered.

    Return True if a worker was killed.
    """
    current = 0

    def after(request: Request) -> None:
        if request.number == number:
            os.kill(current, signal.SIGKILL)

    codes = []
    proxy.reset()
    for index in range(shards):
        before = proxy.requests
        current = workers.start(config, f"{index}/{shards}")
        proxy.after = after
        codes.append(workers.wait(current))
        assert proxy.requests > before
    proxy.reset()
    assert set(codes) <= {ExitCode.DONE, KILLED}, workers.end_of_log()
    return KILLED in codes


def number_of_operations(
    workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int
) -> int:
    """Run a night undisturbed and return the number of its requests."""
    proxy.reset()
    workers.run(config | {"output": f"{config['output']}-whole"}, shards)
    return proxy.requests


def run_at_once(
    workers: Workers, config: dict[str, Any], shards: int, draw: random.Random | None = None
) -> Counter[int]:
    """Run all shards at once, and the first one twice; return the number of ends by exit code.

    With `draw`, stop or kill some of them at random moments.
    """
    running = [workers.start(config, f"{index % shards}/{shards}") for index in range(shards + 1)]
    for worker in running if draw else ():
        time.sleep(draw.uniform(0, 0.4))
        if draw.random() < 0.6:
            os.kill(worker, draw.choice([signal.SIGKILL, signal.SIGTERM]))
    codes = [workers.wait(worker) for worker in running]
    assert set(codes) <= ALLOWED, workers.end_of_log()
    return Counter(codes)


def run_until_done(
    workers: Workers, config: dict[str, Any], tries: int = 10, deadly_for: str | None = None
) -> list[int]:
    """Run at most so often, and return each exit code."""
    codes: list[int] = []
    while codes[-1:] != [ExitCode.DONE] and len(codes) < tries:
        codes.append(workers.wait(workers.start(config, deadly=DEADLY, deadly_for=deadly_for)))
    return codes
