"""Bound the tokens of a batch by the memory of the model's GPU.

What a token takes depends on the family, its kind of attention, and the adapter. So it is measured:
a first batch of moderate size shows the memory that a token takes, and the memory that is free
shows how many more would fit. Without a GPU the size is fixed: on CPUs larger batches gain little.
"""

from typing import Any, Protocol

from job.model.load import free_gpu_bytes
from job.telemetry import event, warn

FIRST_TOKENS = 16_384  # in a padded batch: 9 GB of keys and values for Llama-2-7B, the most greedy
MAX_GROWTH = 4  # from one batch to the next
MAX_SHARE = 0.8  # of the memory; the rest is for what grows faster than the tokens do
SHARE_OF_TOO_MANY = 0.75  # no batch is larger than so much of one that did not fit …
BATCHES_UNTIL_MORE = 32  # … until so many fit: another process may have had the memory then


class Memory(Protocol):
    """The memory of the device that batches are computed on."""

    def begin(self) -> None:
        """Measure the peak from here on."""

    def peak_bytes(self) -> int:
        """Return the bytes that were allocated at the peak, beyond those at the beginning."""

    def free_bytes(self) -> int:
        """Return the bytes that can still be allocated."""


class GpuMemory:
    """The memory of a GPU, as torch's allocator sees it."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._allocated = 0  # bytes at the beginning

    def begin(self) -> None:
        """Measure the peak from here on."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self._allocated = torch.cuda.memory_allocated(self._device)

    def peak_bytes(self) -> int:
        """Return the bytes that were allocated at the peak, beyond those at the beginning."""
        import torch

        peak: int = torch.cuda.max_memory_allocated(self._device)
        return peak - self._allocated

    def free_bytes(self) -> int:
        """Return the bytes that can still be allocated, from torch's cache or from the GPU."""
        return free_gpu_bytes(self._device)


def memory_of(device: Any) -> Memory | None:
    """Return the memory of a model's device; None for a CPU, whose batches do not grow."""
    return GpuMemory(device) if device.type == "cuda" else None


class TokenBudget:
    """The largest number of tokens in a padded batch. Grows with what fits; halved if it does not.

    `tokens` counts prompts and answers with their padding.
    """

    def __init__(self, memory: Memory | None) -> None:
        self.tokens = FIRST_TOKENS
        self._memory = memory
        self._at_most: int | None = None  # tokens; None unless memory ran out lately
        self._fitting = 0  # batches since then

    def limit(self, wanted: int | None) -> int:
        """Return the limit of the next batch: that of the config, unless memory ran out with it."""
        if wanted is None:
            return self.tokens
        return wanted if self._at_most is None else min(wanted, self.tokens)

    def begin(self) -> None:
        """Call before a batch is computed."""
        if self._memory is not None:
            self._memory.begin()

    def succeed(self, prompt_tokens: int, padded_tokens: int) -> None:
        """Grow if memory has room. Call after a batch with so many tokens in its padded prompts.

        `padded_tokens` are those with the answers. These may all be short: so the memory of a token
        is that of the prompts' alone, which is not underestimated.
        """
        if self._memory is None or 2 * padded_tokens < self.tokens:
            return  # in a small batch, what does not depend on the tokens takes the most
        self._fitting += 1
        if self._fitting > BATCHES_UNTIL_MORE:
            self._at_most = None
        bytes_per_token = max(1, self._memory.peak_bytes() // prompt_tokens)
        fitting = int(MAX_SHARE * self._memory.free_bytes()) // bytes_per_token
        tokens = min(fitting, MAX_GROWTH * self.tokens)
        if self._at_most is not None:
            tokens = min(tokens, self._at_most)
        if tokens > self.tokens:
            self.tokens = tokens
            event("larger batches", tokens=tokens, kilobytes_per_token=bytes_per_token >> 10)

    def fail(self, padded_tokens: int, rows: int) -> None:
        """Halve. Call after memory ran out for a batch of so many tokens and rows."""
        self.tokens = padded_tokens // 2
        self._at_most = int(SHARE_OF_TOO_MANY * padded_tokens)
        self._fitting = 0
        warn("out of memory: smaller batches from now on", rows=rows, tokens=self.tokens)
