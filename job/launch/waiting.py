"""How the threads of a process wait for each other when a model computes on CPUs.

Between two operations, and for the slowest of them, OpenMP's threads first spin and then sleep. By
itself libgomp, which torch's wheels bring along, spins for some milliseconds: as long as a scheduler's
slice. On a machine where others compute too, threads then spin away the time that the one which they
wait for would need.
"""

from collections.abc import Mapping

# About 0.024 ms (24 ns each on an EPYC), less than it costs to sleep and be woken. More spins lose
# time beside other processes, and gain none alone (docs/decisions/0019-threads-wait-briefly.md).
SPINS = "1000"
# Any of these is a decision about the same thing.
DECISIONS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def waiting_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to set before a process loads torch: nothing where the user has decided."""
    if any(name in environment for name in DECISIONS):
        return {}
    return {"GOMP_SPINCOUNT": SPINS}
