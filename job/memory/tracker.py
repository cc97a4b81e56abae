"""Sum the bytes of the tensors that are alive while fake ones are computed with.

Python keeps a fake tensor's storage alive as long as a real one's would be: by the graph of
autograd, by variables, by a module.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from job.memory.allocator import CachingAllocator, Extent

# (operator, arguments, named arguments) → its result, or NotImplemented.
Answer = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]
# (operator, arguments) → the bytes of each tensor that it allocates and frees before it returns.
Scratch = Callable[[Any, Sequence[Any]], Sequence[int]]


@dataclass(frozen=True)
class Rules:
    """The ways of a device that no fake tensor shows. Sizes are multiples of `block_bytes`."""

    answer: Answer
    scratch: Scratch
    block_bytes: int = 1


@dataclass
class _Storage:
    size: int
    part: str
    extent: Extent | None
    reference: weakref.ref[Any]


class Tracker(TorchDispatchMode):  # type: ignore[misc]
    """The bytes of all live storages, by part, and the peak of each phase.

    `part` is that of the tensors which are made from now on; `phase` is the present one.
    """

    def __init__(self, rules: Rules, allocator: CachingAllocator | None) -> None:
        super().__init__()
        self.part = ""
        self.phase = ""
        self.peaks: dict[str, dict[str, int]] = {}  # bytes by part, by phase
        self._rules = rules
        self._allocator = allocator
        self._storages: dict[int, _Storage] = {}
        self._now = 0
        self._by_part: dict[str, int] = {}
        self._peak_of_phase: dict[str, int] = {}

    @contextmanager
    def within(self, phase: str, part: str) -> Iterator[None]:
        """Let tensors made in the block belong to the part, and their peak to the phase."""
        before = self.phase, self.part
        self.phase, self.part = phase, part
        self._compare(self._now)
        try:
            yield
        finally:
            self.phase, self.part = before

    def assign(self, tensor: torch.Tensor, part: str) -> None:
        """Move a live tensor to another part."""
        storage = self._storages.get(tensor.untyped_storage()._cdata)
        if storage is not None:
            self._by_part[storage.part] -= storage.size
            self._by_part[part] = self._by_part.get(part, 0) + storage.size
            storage.part = part

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        result = self._rules.answer(func, args, named)
        if result is NotImplemented:
            result = func(*args, **named)
        results = result if isinstance(result, tuple | list) else (result,)
        for each in results:
            if isinstance(each, torch.Tensor):
                self._add(each)
        # The result is there already while a kernel has its scratch.
        sizes = self._rules.scratch(func, args)
        if sizes:
            self._pass(sizes)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):  # a sparse one has none
            return
        key = storage._cdata
        if key in self._storages or not storage.nbytes():
            return
        size = self._rounded(storage.nbytes())
        extent = self._allocator.allocate(size) if self._allocator else None

        def drop(_: Any) -> None:
            self._drop(key)

        reference = weakref.ref(storage, drop)
        self._storages[key] = _Storage(size, self.part, extent, reference)
        self._now += size
        self._by_part[self.part] = self._by_part.get(self.part, 0) + size
        self._compare(self._now)

    def _drop(self, key: int) -> None:
        storage = self._storages.pop(key)
        self._now -= storage.size
        self._by_part[storage.part] -= storage.size
        if self._allocator and storage.extent:
            self._allocator.release(storage.extent)

    def _pass(self, sizes: Sequence[int]) -> None:
        """Take what a kernel allocates and frees before it returns."""
        rounded = [self._rounded(size) for size in sizes]
        self._by_part[self.part] = self._by_part.get(self.part, 0) + sum(rounded)
        self._compare(self._now + sum(rounded))
        self._by_part[self.part] -= sum(rounded)
        if self._allocator:
            extents = [self._allocator.allocate(size) for size in rounded]
            for extent in extents:
                self._allocator.release(extent)

    def _rounded(self, size: int) -> int:
        step = self._rules.block_bytes
        return -(-size // step) * step

    def _compare(self, total: int) -> None:
        if total > self._peak_of_phase.get(self.phase, -1):
            self._peak_of_phase[self.phase] = total
            self.peaks[self.phase] = dict(self._by_part)
