"""Claims about what processes do together, with two that share no disk and meet through gloo."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.faults.trials import PLACE, QUIET

CODE = """
import json, sys
from pathlib import Path
import torch
from accelerate import PartialState
from job.errors import RetryError
from job.training.ranks import agree, bring_together
rank, disk = int(sys.argv[1]), Path(sys.argv[2])
PartialState(cpu=True)
folder = disk / "checkpoint-2"
folder.mkdir(parents=True)
for name in ("rng_state", "loss_window"):
    (folder / f"{name}_{rank}.json").write_text(f"{name} of {rank}")
(folder / "weights").write_text("the first one's") if rank == 0 else None
bring_together(folder)
agree("checkpoints", "checkpoint-2")
try:
    agree("checkpoints", f"checkpoint-{rank}")
    said = "nothing"
except RetryError as error:
    said = str(error)
(disk / "said").write_text(said)
torch.distributed.destroy_process_group()
"""


def test_two_machines_bring_their_files_together_and_go_on_from_one_place_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    disks = [tmp_path / str(rank) for rank in range(2)]
    met = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CODE, str(rank), str(disk)],
            cwd=PLACE, env=os.environ | QUIET | met | {"RANK": str(rank)},
        )
        for rank, disk in enumerate(disks)
    ]  # fmt: skip
    assert [process.wait() for process in processes] == [0, 0]
    gathered = {file.name: file.read_text() for file in (disks[0] / "checkpoint-2").iterdir()}
    assert gathered == {
        "weights": "the first one's",
        **{f"{name}_{rank}.json": f"{name} of {rank}" for name in ("rng_state", "loss_window") for rank in (0, 1)},
    }
    assert not (disks[1] / "checkpoint-2").exists(), "it is not needed there any more"
    for disk in disks:
        said = (disk / "said").read_text()
        assert json.dumps(said).count("checkpoint-") == 2
        assert "all must find the same" in said
