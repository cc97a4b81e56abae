"""How GPUs are counted: without torch, which takes seconds to load, where there can be none."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from pydantic_core import _pydantic_core

from job.environment import count_gpus

COUNT = "import sys; from job.environment import count_gpus; print(count_gpus(), 'torch' in sys.modules)"


def counted(libraries: str) -> str:
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.strip()


def test_gpus_are_those_that_torch_sees():
    assert count_gpus() == torch.cuda.device_count()


def test_torch_is_asked_where_a_driver_can_be_loaded_and_only_there(tmp_path):
    shutil.copy(
        _pydantic_core.__file__, tmp_path / "libcuda.so.1"
    )  # any library that can be loaded
    assert counted(str(tmp_path)).endswith("True")
    if counted("").endswith("True"):
        pytest.skip("this machine has a driver")
    assert counted("") == "0 False"
