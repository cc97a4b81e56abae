"""Claims about asking CUDA's library itself: one that is compiled here, and found by the loader."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
#include <string.h>
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuInit(unsigned flags) { return STATUS; }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_UNKNOWN"; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Ada", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{ *value = attribute == 75 ? 8 : 9; return 0; }
"""
ASK = """
import json
from job.gpus.machine import ask_driver
driver = ask_driver()
print(json.dumps([driver.library, driver.cuda, driver.error, [str(gpu) for gpu in driver.gpus]]))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    ("status", "error", "gpus"),
    [(0, None, ["Ada (8.9)", "Ada (8.9)"]), (999, "cuInit: CUDA_ERROR_UNKNOWN (999)", [])],
)
def test_the_library_that_the_loader_finds_answers(
    tmp_path: Path, status: int, error: str | None, gpus: list[str]
):
    library = tmp_path / "libcuda.so.570.86.15"
    compiler = ["cc", "-shared", "-fPIC", f"-DSTATUS={status}", "-x", "c", "-", "-o", str(library)]
    subprocess.run(compiler, input=SOURCE, text=True, check=True)
    (tmp_path / "libcuda.so.1").symlink_to(library.name)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [str(library), [12, 8], error, gpus]
