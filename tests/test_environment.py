"""Claims about counting GPUs: torch, which takes seconds to load, is asked only where it must."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic_core import _pydantic_core

from job.environment import count_gpus

COUNT = """
import sys
from job.environment import count_gpus
print(count_gpus(), 'torch' in sys.modules)
"""


def gpus_and_torch(libraries: str) -> str:
    """Return the number of GPUs, and True if torch was imported, in a process of its own."""
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_gpus_are_those_that_torch_sees():
    assert count_gpus() == torch.cuda.device_count()


def test_torch_is_asked_only_where_a_driver_can_be_loaded(tmp_path: Path):
    any_library = _pydantic_core.__file__
    shutil.copy(any_library, tmp_path / "libcuda.so.1")
    assert gpus_and_torch(str(tmp_path)).endswith("True")
    if gpus_and_torch("").endswith("True"):
        pytest.skip("this machine has a driver")
    assert gpus_and_torch("") == "0 False"
