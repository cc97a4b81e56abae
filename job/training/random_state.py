"""The random state of a process, and of the GPU that is its own: to keep, and to draw from again.

torch's own functions ask all GPUs of a machine, which costs each process memory on each of them.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """The states of the CPU and of the process's GPU, if it has one."""

    cpu: torch.Tensor
    gpus: list[torch.Tensor]

    def restore(self) -> None:
        """Let this process draw the same numbers again."""
        torch.set_rng_state(self.cpu)
        for gpu, state in zip(own_gpus(), self.gpus, strict=True):
            torch.cuda.set_rng_state(state, gpu)


def random_state() -> RandomState:
    """Return the state of this process."""
    gpus = [torch.cuda.get_rng_state(gpu) for gpu in own_gpus()]
    return RandomState(torch.get_rng_state(), gpus)


def own_gpus() -> list[int]:
    """Return the index of this process's GPU, nothing without one: for `torch.random.fork_rng`."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
