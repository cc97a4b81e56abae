"""A night whose workers are killed anywhere, and whose store errs, ends with each record once and in order."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand_in import NO_WEIGHTS
from job.errors import ExitCode
from job.storage.open import open_store
from tests.conftest import S3
from tests.faults.s3_proxy import Fault, FaultyS3
from tests.faults.test_faulty_s3 import PASSING, at_random
from tests.faults.trials import PLACE, QUIET

RECORDS = 26  # chunks of four: 3 of the first file, 1 over the border, 3 of the second
NIGHTLY = (ExitCode.DONE, ExitCode.RETRY, -signal.SIGKILL, -signal.SIGTERM)  # the last: before it could be caught


class Workers:
    """Workers of nights, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._numbers, self.log = itertools.count(), folder / "log"
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("night_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PLACE,
            env=os.environ | QUIET | {"PYTHONPATH": str(PLACE), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    def start(self, config: dict[str, Any], shard: str = "0/1", kill_at_call: int | None = None) -> int:
        """The process number of a new worker."""
        now = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RECAP_"))}
        asked = {"start": config, "shard": shard, "log": str(self.log), "kill_at_call": kill_at_call}
        return self._ask(asked | {"environment": now})

    def wait(self, worker: int) -> int:
        """How a worker ended."""
        return self._ask({"wait": worker})

    def run(self, config: dict[str, Any], shards: int = 1) -> None:
        """All shards, one after the other; each must end well."""
        for index in range(shards):
            code = self.wait(self.start(config, f"{index}/{shards}"))
            assert code == ExitCode.DONE, self.log.read_text()[-3000:]

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()  # type: ignore[union-attr]
        self._server.wait()
        self._server.stdout.close()  # type: ignore[union-attr]

    def _ask(self, asked: dict[str, Any]) -> int:
        self._server.stdin.write(json.dumps(asked) + "\n")  # type: ignore[union-attr]
        self._server.stdin.flush()  # type: ignore[union-attr]
        return int(self._server.stdout.readline())  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    found = Workers(tmp_path_factory.mktemp("nights"))
    yield found
    found.close()


def lines(first: int, count: int) -> str:
    turns = [{"role": "customer", "text": "late"}, {"role": "agent", "text": "sorry"}]
    records: list[Any] = [json.dumps({"id": f"c{first + n}", "turns": turns}) for n in range(count - 2)]
    records.insert(3, "{broken")
    return "\n".join([*records, json.dumps({"id": "c2", "turns": turns})]) + "\n"


@pytest.fixture
def night(tmp_path: Path, places: Path) -> dict[str, Any]:
    """A night of seven chunks in two files, from and to folders."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(NO_WEIGHTS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(lines(0, 14))
    (tmp_path / "in" / "b.jsonl").write_text(lines(50, 12))
    return {
        "run": "night", "input": f"{tmp_path}/in/", "output": f"{tmp_path}/out", "model": {"base": str(base)},
        "chunks": {"records": 4}, "limits": {"max_reject_fraction": 1},
    }  # fmt: skip


@pytest.fixture
def on_s3(night: dict[str, Any], s3: S3, proxy: FaultyS3, tmp_path: Path) -> dict[str, Any]:
    """The same from and to S3, through the proxy."""
    for name in ("a.jsonl", "b.jsonl"):
        s3.client().upload_file(str(tmp_path / "in" / name), s3.bucket, f"in/{name}")
    endpoint = {"endpoint_url": proxy.endpoint, "timeout_seconds": 2}
    return night | {"input": f"{s3.uri}/in/", "output": f"{s3.uri}/out", "storage": endpoint}


def outcomes(config: dict[str, Any], folder: str) -> list[Any]:
    store = open_store(config["output"])
    parts = b"".join(store.read(entry.key) for entry in store.list(folder))
    return [json.loads(line) for line in parts.splitlines()]


def check(config: dict[str, Any]) -> None:
    """Success, and each record once and in order, whether summarized or rejected; nothing else is left."""
    store = open_store(config["output"])
    keys = [entry.key for entry in store.list() if not entry.key.startswith("_chunks/lease/")]
    assert keys == ["_SUCCESS", "manifest.json", "parts/part-00000.jsonl", "rejects/part-00000.jsonl"]
    summaries, rejects = outcomes(config, "parts"), outcomes(config, "rejects")
    for rows in (summaries, rejects):
        places = [(row["source"]["uri"], row["source"]["line"]) for row in rows]
        assert places == sorted(places)
    places = sorted((Path(row["source"]["uri"]).name, row["source"]["line"]) for row in summaries + rejects)
    assert places == [("a.jsonl", n) for n in range(1, 15)] + [("b.jsonl", n) for n in range(1, 13)]
    assert [reject["id"] for reject in rejects] == [None, "c2", None, "c2"]
    assert len(summaries) == RECORDS - 4


def kill_at(workers: Workers, proxy: FaultyS3, config: dict[str, Any], number: int, shards: int) -> bool:
    """Run the shards and kill the worker whose request is the n-th, when it is done but not answered."""
    current = [0]

    def after(request: Any) -> None:
        if request.number == number:
            os.kill(current[0], signal.SIGKILL)

    codes = []
    proxy.reset()
    for index in range(shards):
        before = proxy.requests
        current[0] = workers.start(config, f"{index}/{shards}")
        proxy.after = after
        codes.append(workers.wait(current[0]))
        assert proxy.requests > before
    proxy.reset()
    assert set(codes) <= {ExitCode.DONE, -signal.SIGKILL}, workers.log.read_text()[-3000:]
    return -signal.SIGKILL in codes


def operations(workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int) -> int:
    proxy.reset()
    workers.run(config | {"output": f"{config['output']}-whole"}, shards)
    return proxy.requests


def killed_at(workers: Workers, proxy: FaultyS3, config: dict[str, Any], shards: int, numbers: Any) -> int:
    kills = 0
    for number in numbers:
        hurt = config | {"output": f"{config['output']}-{number}"}
        kills += kill_at(workers, proxy, hurt, number, shards)
        workers.run(hurt, {1: 3, 3: 2}[shards])
        check(hurt)
    return kills


def test_a_night_killed_at_some_operations_is_finished_by_another_number_of_workers(workers, proxy, on_s3):
    count = operations(workers, proxy, on_s3, shards=1)
    assert killed_at(workers, proxy, on_s3, 1, (count // 2, count - 12)) == 2


@pytest.mark.faults
@pytest.mark.parametrize("shards", [1, 3])
def test_a_night_killed_at_every_operation_is_finished_by_another_number_of_workers(workers, proxy, on_s3, shards):
    count = operations(workers, proxy, on_s3, shards)
    kills = killed_at(workers, proxy, on_s3, shards, range(1, count + 1))
    print(f"\n{shards} shards, killed at {kills} operations: each record once, order kept")


@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_a_night_killed_at_every_chunk_is_finished_by_another_number_of_workers(workers, night, shards, then):
    for call in range(8 // shards):
        hurt = night | {"output": f"{night['output']}-{call}"}
        codes = [workers.wait(workers.start(hurt, f"{index}/{shards}", call)) for index in range(shards)]
        assert set(codes) <= {-signal.SIGKILL, ExitCode.DONE}
        assert call == 7 or -signal.SIGKILL in codes
        workers.run(hurt, then)
        check(hurt)


def together(workers: Workers, config: dict[str, Any], shards: int, draw: random.Random | None = None) -> Counter[str]:
    """All shards at once, and one of them twice; some are told to stop, or killed, at any moment."""
    running = [workers.start(config, f"{index % shards}/{shards}") for index in range(shards + 1)]
    for worker in running if draw else ():
        time.sleep(draw.uniform(0, 0.4))
        if draw.random() < 0.6:
            os.kill(worker, draw.choice([signal.SIGKILL, signal.SIGTERM]))
    codes = [workers.wait(worker) for worker in running]
    assert set(codes) <= set(NIGHTLY), workers.log.read_text()[-3000:]
    return Counter(map(str, codes))


def until_done(workers: Workers, config: dict[str, Any]) -> None:
    for shards in (3, 1, 1):
        if "_SUCCESS" in [entry.key for entry in open_store(config["output"]).list()]:
            break
        together(workers, config, shards)
    workers.run(config)
    check(config)


def test_workers_at_once_on_a_store_that_errs_commit_each_chunk_once(workers, proxy, on_s3):
    proxy.reset(at_random(3, 0.1, [*PASSING[:4]]))
    together(workers, on_s3, 3)
    assert proxy.faults
    proxy.reset()
    until_done(workers, on_s3)


@pytest.mark.faults
def test_workers_at_once_killed_at_random_on_a_store_that_errs(workers, proxy, on_s3):
    ends: Counter[str] = Counter()
    faults = [*PASSING[:4], Fault("status", 409)]
    for seed in range(30):
        draw = random.Random(seed)
        hurt = on_s3 | {"output": f"{on_s3['output']}-{seed}"}
        proxy.reset(at_random(seed, 0.08, faults))
        for _ in range(2):
            ends += together(workers, hurt, draw.choice([1, 2, 3, 5]), draw)
        proxy.reset()
        until_done(workers, hurt)
    print(f"\n30 nights ended {dict(ends)}; faults: {proxy.faults}")
