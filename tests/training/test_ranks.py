"""Claims about collectives, with processes that share no disk and meet through gloo."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.faults.trials import QUIET, ROOT

# Loads the libraries once for all ranks, which are forks of it.
FORKS = """
import json, os, sys
import torch
from accelerate import PartialState
import job.training.ranks
children = []
for variables in json.loads(sys.argv[1]):
    children.append(os.fork())
    if children[-1] == 0:
        os.environ.update(variables)
        exec(sys.argv[2])
        os._exit(0)
statuses = [os.waitpid(child, 0)[1] for child in children]
print(json.dumps([os.waitstatus_to_exitcode(status) for status in statuses]))
"""

TOGETHER = """
import os
from pathlib import Path
import torch
from accelerate import PartialState
from job.errors import RetryError
from job.training.ranks import agree, bring_together, from_first
rank, disk = int(os.environ["RANK"]), Path(os.environ["DISK"])
PartialState(cpu=True)
folder = disk / "checkpoint-2"
folder.mkdir(parents=True)
for name in ("rng_state", "loss_window"):
    (folder / f"{name}_{rank}.json").write_text(f"{name} of {rank}")
(folder / "weights").write_text("the first one's") if rank == 0 else None
bring_together(folder)
agree("checkpoints", "checkpoint-2")
(disk / "prompt").write_text(from_first(lambda: f"the prompt of {rank}"))
try:
    agree("checkpoints", f"checkpoint-{rank}")
    said = "nothing"
except RetryError as error:
    said = str(error)
(disk / "said").write_text(said)
torch.distributed.destroy_process_group()
"""


def together(code: str, processes: list[tuple[Path, int]], local: int) -> list[int]:
    """Run the code in several processes at once and return their exit codes.

    Each of `processes` is a machine's disk and the local rank there; `local` is LOCAL_WORLD_SIZE.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    met = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    met |= {"WORLD_SIZE": str(len(processes)), "LOCAL_WORLD_SIZE": str(local)}
    ranks = [
        met | {"RANK": str(rank), "LOCAL_RANK": str(place), "DISK": str(disk)}
        for rank, (disk, place) in enumerate(processes)
    ]
    command = [sys.executable, "-W", "ignore", "-c", FORKS, json.dumps(ranks), code]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True, check=True
    )
    codes: list[int] = json.loads(done.stdout)
    return codes


def test_two_machines_gather_their_files_and_must_agree(tmp_path: Path) -> None:
    disks = [tmp_path / str(rank) for rank in range(2)]
    assert together(TOGETHER, [(disk, 0) for disk in disks], 1) == [0, 0]
    gathered = {file.name: file.read_text() for file in (disks[0] / "checkpoint-2").iterdir()}
    assert gathered == {
        "weights": "the first one's",
        "rng_state_0.json": "rng_state of 0",
        "rng_state_1.json": "rng_state of 1",
        "loss_window_0.json": "loss_window of 0",
        "loss_window_1.json": "loss_window of 1",
    }
    assert not (disks[1] / "checkpoint-2").exists(), "it is not needed there any more"
    for disk in disks:
        assert (disk / "prompt").read_text() == "the prompt of 0"
        said = (disk / "said").read_text()
        assert json.dumps(said).count("checkpoint-") == 2
        assert "all must find the same" in said


ONCE = """
import os
from pathlib import Path
from accelerate import PartialState
import torch
from job.training.ranks import once_per_machine
machine = Path(os.environ["DISK"])
PartialState(cpu=True)
def make():
    with (machine / "made").open("a") as file:
        file.write(f"by {os.environ['RANK']}\\n")
    return ["rows", int(os.environ["RANK"])]
got = once_per_machine(make, machine / "rows")
(machine / f"got_{os.environ['LOCAL_RANK']}").write_text(str(got))
torch.distributed.destroy_process_group()
"""


def test_a_result_made_once_per_machine_reaches_all_its_ranks(tmp_path: Path) -> None:
    machines = [tmp_path / name for name in ("a", "b")]
    for machine in machines:
        machine.mkdir()
    assert together(ONCE, [(machines[0], 0), (machines[0], 1), (machines[1], 0)], 2) == [0, 0, 0]
    found = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/[mg]*")}
    assert found == {
        "a/made": "by 0\n", "a/got_0": "['rows', 0]", "a/got_1": "['rows', 0]",
        "b/made": "by 2\n", "b/got_0": "['rows', 2]",
    }  # fmt: skip
