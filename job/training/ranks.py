"""Operations of all processes of a run together, on one machine or several without a shared disk.

Most are collectives: every rank must call them, or the others wait forever.
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
    """Return True on rank 0, the one that writes to storage."""
    first: bool = PartialState().is_main_process
    return first


def first_then_others(work: Callable[[], T]) -> T:
    """Collective: call `work` on the first rank of each machine, then on the others.

    Return its result. For work that finds itself done the second time, such as a download.
    """
    with PartialState().local_main_process_first():
        return work()


def once_per_machine(make: Callable[[], T], file: Path) -> T:
    """Collective: return the result of `make`, which only the first rank of each machine calls.

    The other ranks unpickle it from `file`, which must be where only this run can write.
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


def from_first(make: Callable[[], T]) -> T:
    """Collective: return, on every rank, the result of `make`, which only rank 0 calls.

    For what may differ from machine to machine, such as a text with the date.
    """
    made = [make() if is_first() else None]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(made, src=0)
    result: T = made[0]  # type: ignore[assignment]
    return result


def anywhere(flag: bool) -> bool:
    """Collective: return True on every rank if `flag` is True on any."""
    if not torch.distributed.is_initialized():
        return flag
    found = torch.tensor([int(flag)], device=PartialState().device)
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return bool(found.item())


def least(number: int) -> int:
    """Collective: return, on every rank, the least of all ranks' numbers."""
    if not torch.distributed.is_initialized():
        return number
    found = torch.tensor([number], device=PartialState().device)
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MIN)
    return int(found.item())


def share_stop(stop: StopSignal) -> bool:
    """Collective: return True on every rank once any rank has received a stop signal.

    Sets `stop.requested` on every rank then. Every rank must call it.
    """
    is_stopped = anywhere(stop.requested)
    if is_stopped:
        stop.requested = True
    # Not `stop.requested`: a signal that arrived here meanwhile is not known to the other ranks.
    return is_stopped


def agree(what: str, found: str) -> None:
    """Collective: raise RetryError on every rank unless all found the same.

    No rank may continue alone from a different state.
    """
    if not torch.distributed.is_initialized():
        return
    everywhere: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everywhere, found)
    if len(set(everywhere)) > 1:
        each = "; ".join(f"process {rank}: {text}" for rank, text in enumerate(everywhere))
        raise RetryError(
            f"the processes found different {what} ({each}): all must find the same; run again",
        )


def bring_together(folder: Path) -> None:
    """Collective: gather each rank's own files (`*_<rank>.*`) in `folder` of rank 0.

    Deletes the files on the other machines, which do not need them any more.
    """
    if not torch.distributed.is_initialized():
        return
    state = PartialState()
    own_files = sorted(folder.glob(f"*_{state.process_index}.*"))

    # The first machine has the first ranks, so on it both indices are equal. Its files are in the
    # right folder already.
    is_elsewhere = state.process_index != state.local_process_index
    parts: dict[str, bytes] = {}
    if is_elsewhere:
        parts = {file.name: file.read_bytes() for file in own_files}

    gathered: list[dict[str, bytes]] | None = None
    if state.is_main_process:
        gathered = [{}] * state.num_processes
    torch.distributed.gather_object(parts, gathered, dst=0)

    for part in gathered or []:
        for name, content in part.items():
            (folder / name).write_bytes(content)

    if is_elsewhere:
        for file in own_files:
            file.unlink()
        with suppress(OSError):  # other ranks of this machine may still have files in it
            folder.rmdir()
