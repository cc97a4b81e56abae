"""What the processes of a run do together, on one machine or on several that share no disk.

Knows nothing of what is trained.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState

from job.errors import RetryError
from job.training.stop import StopSignal

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process is the one that writes."""
    first: bool = PartialState().is_main_process
    return first


def first_does(work: Callable[[], T]) -> T:
    """Let the first process of each machine do it (fetch, say) before the others find it done."""
    with PartialState().local_main_process_first():
        return work()


def once_per_machine(make: Callable[[], T], file: Path) -> T:
    """What `make` gives: the first process of each machine calls it, and the others read it from `file`.

    `file` lies where nobody but this run writes.
    """
    state = PartialState()
    with state.local_main_process_first():
        if not state.is_local_main_process:
            others: T = pickle.loads(file.read_bytes())
            return others
        made = make()
        if state.num_processes > 1:
            file.write_bytes(pickle.dumps(made))
        return made


def anywhere(flag: bool) -> bool:
    """Whether it is so in any process; all must ask."""
    if not torch.distributed.is_initialized():
        return flag
    found = torch.tensor([int(flag)], device=PartialState().device)
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return bool(found.item())


def told_to_stop(stop: StopSignal) -> bool:
    """Whether any process was; from then on all were. All must ask."""
    told = anywhere(stop.requested)
    if told:
        stop.requested = True  # never False: a signal may have come meanwhile
    return told


def agree(what: str, found: str) -> None:
    """RetryError in every process where not all of them found the same: none may go on from another place alone."""
    if not torch.distributed.is_initialized():
        return
    everywhere: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everywhere, found)
    if len(set(everywhere)) > 1:
        told = "; ".join(f"process {rank}: {text}" for rank, text in enumerate(everywhere))
        raise RetryError(f"the processes found different {what} ({told}): all must find the same; run again")


def bring_together(folder: Path) -> None:
    """Copy the files that each process wrote of itself (`*_<rank>.*`) to `folder` of the first one; waits for all.

    What lies on other machines is not needed there any more, and goes.
    """
    if not torch.distributed.is_initialized():
        return
    state = PartialState()
    mine = sorted(folder.glob(f"*_{state.process_index}.*"))
    elsewhere = state.process_index != state.local_process_index  # the first machine has the first ranks
    parts = {file.name: file.read_bytes() for file in mine} if elsewhere else {}
    everything: list[dict[str, bytes]] | None = [{}] * state.num_processes if state.is_main_process else None
    torch.distributed.gather_object(parts, everything, dst=0)
    for name, content in ((name, content) for part in everything or [] for name, content in part.items()):
        (folder / name).write_bytes(content)
    if elsewhere:
        for file in mine:
            file.unlink()
        with suppress(OSError):  # others of this machine may still have theirs in it
            folder.rmdir()
