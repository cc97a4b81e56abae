"""What the tests of a GPU share. Without one they are skipped, and say why.

`make test-gpu DRY_RUN=1` runs on a CPU those that do not need what a GPU alone has: it finds
mistakes in the tests before a GPU is rented.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

# cuBLAS reads it once: strict algorithms need it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

IS_DRY_RUN = os.environ.get("RECAP_DRY_RUN_GPU_TESTS") == "1"
NO_GPU = "needs a CUDA GPU (make test-gpu DRY_RUN=1 tries some of these tests on a CPU)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them without a GPU."""
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if not torch.cuda.is_available() and not IS_DRY_RUN:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


@pytest.fixture
def cuda() -> torch.device:
    """A GPU, also in a dry run: without one, the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return torch.device("cuda", 0)


@pytest.fixture
def limited_memory(cuda: torch.device) -> Iterator[Callable[[int], None]]:
    """A function that leaves torch's allocator so many bytes beyond those in use."""
    total = torch.cuda.get_device_properties(cuda).total_memory

    def limit(more: int) -> None:
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved(cuda) + more
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), cuda)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, cuda)


@pytest.fixture
def train_steps(tmp_path: Path) -> Callable[..., Any]:
    """A function that trains recap's own trainer on a tiny random base, for six steps.

    It takes the run's name, sections of the config, and a checkpoint to resume from; it returns a
    `Trained`, with weights and the losses of all steps.
    """
    from benchmarks.gpu.measurements import merged
    from benchmarks.gpu.trainers import train_once

    def train(
        name: str, sections: Mapping[str, Any] | None = None, resume_from: Path | None = None
    ) -> Any:
        few = {"training": {"max_steps": 6, "save_every_steps": 3, "log_every_steps": 1}}
        config = merged(few, sections or {})
        specification = {"shape": "tiny", "rows": "48x24", "config": config}
        return train_once(specification, tmp_path / name, resume_from)

    return train
