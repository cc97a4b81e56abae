"""Environment variables that recap sets before a process loads torch.

A variable that the user has set is never overridden, except where recap's own launch depends on it.
"""

import os
import re
from collections.abc import Mapping, Sequence

from job.gpus.required import VARIABLE as REQUIRED_GPUS
from job.launch.cluster import TAKEN
from job.launch.outcome import SUPERVISOR
from job.safe_path import safe_variables

# Between two operations OpenMP's threads first spin and then sleep. By default libgomp, which
# torch's wheels bring along, spins for some milliseconds: as long as a scheduler's time slice. On a
# machine where others compute too, threads then spin away the time that the thread they wait for
# needs.
#
# These are about 0.024 ms (24 ns each on an EPYC), less than it costs to sleep and be woken. More
# spins lose time beside other processes and gain none alone
# (docs/decisions/0019-threads-wait-briefly.md).
SPINS = "1000"

# Each of these decides how threads wait.
WAIT_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")

VLLM_BINDING = "VLLM_CPU_OMP_THREADS_BIND"

# Facts of a training's launcher about one of its ranks. vLLM, transformers and accelerate believe
# them.
OF_A_RANK = re.compile(rf"{TAKEN.pattern}|LOCAL_\w+|ROLE_\w+|TORCHELASTIC_\w+|ACCELERATE_\w+")

# The settings of torch's allocator for GPUs; the second is their older name.
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")

# Micro-batches differ in length: blocks of one size would not serve the next.
ALLOCATOR_OF_TRAINING = "expandable_segments:True"


def thread_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to set so that threads wait briefly; nothing if the user has decided."""
    if any(name in environment for name in WAIT_VARIABLES):
        return {}
    return {"GOMP_SPINCOUNT": SPINS}


def training_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a training process that this process supervises."""
    inherited = {}
    for name, value in environment.items():
        # Facts for another launcher would reach torch through ours, and contradict it.
        if not TAKEN.fullmatch(name):
            inherited[name] = value

    own = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        SUPERVISOR: str(os.getpid()),
    }
    if not any(name in inherited for name in ALLOCATOR_VARIABLES):
        own[ALLOCATOR_VARIABLES[0]] = ALLOCATOR_OF_TRAINING
    return inherited | own | safe_variables(inherited) | thread_variables(inherited)


def variables_of_no_rank(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that a rank starts, and that is no rank itself.

    It has torch's own allocator, too: vLLM's processes cannot share memory that grows.
    """
    kept = {name: text for name, text in environment.items() if not OF_A_RANK.fullmatch(name)}
    if kept.get(ALLOCATOR_VARIABLES[0]) == ALLOCATOR_OF_TRAINING:
        del kept[ALLOCATOR_VARIABLES[0]]
    return kept


def has_growing_memory(environment: Mapping[str, str]) -> bool:
    """Return True if a variable lets torch's blocks of GPU memory grow."""
    settings = ",".join(environment.get(name, "") for name in ALLOCATOR_VARIABLES)
    return "expandable_segments:true" in settings.replace(" ", "").lower()


def worker_variables(
    environment: Mapping[str, str], gpus: Sequence[str] | None, workers: int
) -> dict[str, str]:
    """Return the whole environment of one of `workers` on this machine, which sees only `gpus`.

    With None, which is for CPUs, it sees what this process sees.
    """
    own = {SUPERVISOR: str(os.getpid())}
    if gpus is None:
        # vLLM for CPUs would bind every worker to the same cores.
        own[VLLM_BINDING] = environment.get(VLLM_BINDING, "nobind")
    else:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        # This process has checked the GPUs of all workers. Each must find its own.
        if environment.get(REQUIRED_GPUS) != "0":
            own[REQUIRED_GPUS] = str(len(gpus))
    # Otherwise the threads of each worker would take all cores, and wait for each other.
    if "OMP_NUM_THREADS" not in environment:
        own["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // workers))
    return {
        **environment,
        **own,
        **safe_variables(environment),
        **thread_variables(environment),
    }
