"""Claims about a disk that fills up while a run trains."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.storage.folders import verify_folder

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 MiB as the run's work folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    monkeypatch.setenv("RECAP_WORK", str(disk))
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("too little", marks=pytest.mark.faults),
        pytest.param("nothing", marks=pytest.mark.quality),
    ],
)
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_intact(
    config, write_config, recap, small_disk, left
):
    config["training"] |= {"epochs": 30, "save_every_steps": 3, "optimizer": "adamw_torch"}
    config["training"] |= {"evaluate_every_steps": 999}
    process = subprocess.Popen(
        [sys.executable, "-m", "job", "train", str(write_config(config))],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    run = Path(config["output"]) / "tiny"
    while not (run / "checkpoints" / "step-00000003" / "manifest.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        for _ in range(50 if left == "too little" else 64):
            filler.write(bytes(MIB))
        while left == "nothing":
            filler.write(bytes(4096))
    _, log = process.communicate()
    assert process.returncode == ExitCode.OUTPUT, log
    assert "MiB free, and a checkpoint needs about" in log or "cannot be written" in log
    newest = max((run / "checkpoints").iterdir())
    verify_folder(newest)
    assert not (run / "adapter").exists()
    journal = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert journal["state"] == "failed"

    (small_disk / "filler").unlink()
    assert "attempt 1" in recap("train", run / "config.yaml", "--dry-run").out


@pytest.mark.faults
def test_files_that_may_not_grow_are_no_bug(config, write_config, places):
    def limit() -> None:
        # To less than a checkpoint, as a quota would.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "job", "train", str(write_config(config))], preexec_fn=limit,
        capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == ExitCode.OUTPUT, done.stderr
    assert "set RECAP_WORK elsewhere" in done.stderr
