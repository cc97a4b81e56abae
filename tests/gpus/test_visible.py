"""Claims about the GPUs that a process may use, and the names by which others can select them."""

import pytest

from job.gpus.visible import gpus_of_ranks, visible_gpus

MIG = "MIG-1f0c0a2a-6a1e-5b0e-9d0c-9f6f2d6c1f11"
OTHER_MIG = "MIG-2f0c0a2a-6a1e-5b0e-9d0c-9f6f2d6c1f11"


@pytest.mark.parametrize(
    ("environment", "count", "names"),
    [
        ({}, 0, []),
        ({}, 2, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, 2, ["3", "1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, []),
        ({"CUDA_VISIBLE_DEVICES": "0,1,9,2"}, 2, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, 2, ["GPU-a", "GPU-b"]),
        ({"CUDA_VISIBLE_DEVICES": f"{MIG},{OTHER_MIG}"}, 1, [MIG, OTHER_MIG]),
        ({"NVIDIA_VISIBLE_DEVICES": f"{MIG},{OTHER_MIG}"}, 1, [MIG, OTHER_MIG]),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, 2, ["0", "1"]),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, 2, ["0", "1"]),
        ({"NVIDIA_VISIBLE_DEVICES": MIG}, 0, []),
    ],
)
def test_gpus_have_the_names_by_which_a_worker_can_select_them(environment, count, names):
    assert visible_gpus(environment, lambda: count) == names


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["0"]),
        ({"LOCAL_WORLD_SIZE": "2"}, ["0", "1"]),
        ({"LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "5,7,2"}, ["5", "7"]),
    ],
)
def test_each_rank_of_this_machine_has_a_gpu(environment, expected):
    assert gpus_of_ranks(environment, lambda: 3) == expected
