"""The memory that a training step frees serves the next: seen in the page faults of a process of its own."""

import subprocess
import sys

import pytest

LOGITS = "torch.ones(48 << 20, dtype=torch.uint8)"  # beyond the largest block that glibc would keep by itself
STEPS = f"""
import resource, sys, torch
from job.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(50):  # the first ones lie where chance has it
    {LOGITS}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    {LOGITS}
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is Linux's")
def test_freed_memory_is_not_faulted_in_again() -> None:
    """Ten tensors of 12,288 pages each, one after the other."""

    def faults(way: str) -> int:
        done = subprocess.run([sys.executable, "-c", STEPS, way], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 1_000 < 10_000 < faults("given back")
