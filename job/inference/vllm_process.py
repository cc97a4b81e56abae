"""Imported by vLLM in each of the processes that share a base, so that none of them outlives recap.

By itself, such a process notices the end of its parent only once it is idle, and not while it loads
weights. Until then it would hold its GPU.
"""

import multiprocessing

from job.launch.processes import die_with_parent

NAME = f"{__name__}.EndsWithParent"  # for vLLM, which imports it by its name

parent = multiprocessing.parent_process()
if parent is not None and parent.pid is not None:
    die_with_parent(parent.pid)


class EndsWithParent:
    """An extension of vLLM's worker without any method: only the import of this module counts."""
