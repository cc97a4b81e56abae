"""Claims about threads, which wait briefly unless the user decides, and about facts of a rank."""

import sys

import pytest

from job.launch.supervisor import supervise
from job.launch.variables import (
    SPINS,
    WAIT_VARIABLES,
    has_growing_memory,
    thread_variables,
    training_variables,
    variables_of_no_rank,
)

LOAD = """
import ctypes, pathlib, sys
from importlib.util import find_spec
folder = pathlib.Path(find_spec("torch").submodule_search_locations[0]) / "lib"
library = next(folder.glob("libgomp*.so*"), None)
sys.exit(77) if library is None else ctypes.CDLL(str(library))
"""


@pytest.mark.parametrize(("given", "wanted"), [(None, SPINS), ("300000", "300000")])
def test_torchs_own_openmp_takes_the_spins_of_a_training_process(
    tmp_path, monkeypatch, capfd, given, wanted
):
    for name in WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")
    if given:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    outcome = supervise([sys.executable, "-c", LOAD], tmp_path, 1, 10)
    if "ended with 77" in outcome.message:
        pytest.skip("this torch computes with another OpenMP than libgomp")
    assert f"GOMP_SPINCOUNT = '{wanted}'" in capfd.readouterr().err


@pytest.mark.parametrize("name", WAIT_VARIABLES)
@pytest.mark.parametrize("value", ["", "0", "active"])
def test_nothing_is_set_beside_what_a_user_set(name, value):
    assert thread_variables({"PATH": "/bin"}) == {"GOMP_SPINCOUNT": SPINS}
    assert thread_variables({"PATH": "/bin", name: value}) == {}


def test_a_gpus_blocks_grow_unless_the_user_has_decided():
    assert training_variables({})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        found = training_variables({name: "backend:native"})
        assert {each: found[each] for each in found if "ALLOC" in each} == {name: "backend:native"}


@pytest.mark.parametrize(
    "name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "ACCELERATE_USE_FSDP", "PET_NNODES"]
)
def test_a_process_below_a_rank_does_not_take_itself_for_it(name):
    assert variables_of_no_rank({"PATH": "/bin", name: "1"}) == {"PATH": "/bin"}


def test_a_process_below_a_training_has_the_allocator_of_a_night():
    below = variables_of_no_rank(training_variables({"PATH": "/bin"}))
    assert not has_growing_memory(below)
    own = {"PYTORCH_ALLOC_CONF": "backend:native", "PATH": "/bin"}
    assert variables_of_no_rank(training_variables(own))["PYTORCH_ALLOC_CONF"] == "backend:native"


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_a_users_memory_that_grows_is_known(name):
    assert has_growing_memory({name: "backend:native, expandable_segments: True"})
    assert not has_growing_memory({name: "expandable_segments:False"})
    assert not has_growing_memory({})
