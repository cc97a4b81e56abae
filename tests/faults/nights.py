"""Nights over two files of conversations: workers to start and kill, and what must be there in the end."""

import json
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.open import open_store
from tests.faults.trials import LineServer, handed_on

RECORDS = 26  # chunks of four: 3 of the first file, 1 over the border, 3 of the second


class Workers(LineServer):
    """Workers of nights, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__("night_server.py")
        self.log = folder / "log"

    def start(
        self,
        config: dict[str, Any],
        shard: str = "0/1",
        kill_at_call: int | None = None,
        deadly: str | None = None,
    ) -> int:
        """The process number of a new worker; its engine kills it at that call, or when it is given the deadly text."""
        asked = {
            "start": config,
            "shard": shard,
            "log": str(self.log),
            "kill_at_call": kill_at_call,
            "deadly": deadly,
        }
        return self.ask(asked | {"environment": handed_on()})

    def wait(self, worker: int) -> int:
        """How a worker ended."""
        return self.ask({"wait": worker})

    def run(self, config: dict[str, Any], shards: int = 1) -> None:
        """All shards, one after the other; each must end well."""
        for index in range(shards):
            code = self.wait(self.start(config, f"{index}/{shards}"))
            assert code == ExitCode.DONE, self.log.read_text()[-3000:]


def lines(first: int, count: int) -> str:
    turns = [{"role": "customer", "text": "late"}, {"role": "agent", "text": "sorry"}]
    records: list[Any] = [
        json.dumps({"id": f"c{first + n}", "turns": turns}) for n in range(count - 2)
    ]
    records.insert(3, "{broken")
    return "\n".join([*records, json.dumps({"id": "c2", "turns": turns})]) + "\n"


def outcomes(config: dict[str, Any], folder: str) -> list[Any]:
    store = open_store(config["output"])
    parts = b"".join(store.read(entry.key) for entry in store.list(folder))
    return [json.loads(line) for line in parts.splitlines()]


def check(config: dict[str, Any]) -> None:
    """Success, and each record once and in order, whether summarized or rejected; nothing else is left."""
    store = open_store(config["output"])
    keys = [entry.key for entry in store.list() if not entry.key.startswith("_chunks/lease/")]
    assert keys == [
        "_SUCCESS",
        "manifest.json",
        "parts/part-00000.jsonl",
        "rejects/part-00000.jsonl",
    ]
    summaries, rejects = outcomes(config, "parts"), outcomes(config, "rejects")
    for rows in (summaries, rejects):
        places = [(row["source"]["uri"], row["source"]["line"]) for row in rows]
        assert places == sorted(places)
    places = sorted(
        (Path(row["source"]["uri"]).name, row["source"]["line"]) for row in summaries + rejects
    )
    assert places == [("a.jsonl", n) for n in range(1, 15)] + [("b.jsonl", n) for n in range(1, 13)]
    assert [reject["id"] for reject in rejects] == [None, "c2", None, "c2"]
    assert len(summaries) == RECORDS - 4
