"""Nights over two files of conversations: workers to start and kill, and the complete result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.open import open_store
from tests.faults.trials import LineServer, environment_of_children

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
        kill_while_loading: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a worker and return its process number.

        Its engine kills it at call number `kill_at_call`, or when a prompt holds the text `deadly`.
        `environment` is added to this process's.
        """
        request = {
            "start": config,
            "shard": shard,
            "log": str(self.log),
            "kill_at_call": kill_at_call,
            "deadly": deadly,
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
