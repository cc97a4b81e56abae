"""Which node of a run this is, and where node 0 is reached: from what the scheduler says in the environment.

The environment → a Cluster, one node without a word of a scheduler. Knows nothing of processes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORT = 29500  # torch's own default
PORT_OVERRIDE = "RECAP_MAIN_PORT"
# What says the same to other launchers; the training processes get theirs from recap's.
TAKEN = re.compile(r"PET_\w+|RANK|WORLD_SIZE|NODE_RANK|GROUP_RANK|MASTER_ADDR|MASTER_PORT")


@dataclass(frozen=True)
class Cluster:
    """Node `rank`, from 0 on, of `nodes`; `address` and `port` of node 0, as this node reaches it.

    The main node is node 0 whatever its scheduler calls it. It reaches itself by loopback: AWS Batch does not tell it
    its address, and a service's name may not resolve before its pod is ready.
    """

    nodes: int = 1
    rank: int = 0
    address: str = LOOPBACK
    port: int = PORT

    def __str__(self) -> str:
        return f"node {self.rank} of {self.nodes}" + (f", the main one at {self.address}" if self.rank else "")


ALONE = Cluster()


@dataclass(frozen=True)
class _Names:
    """How one scheduler calls things."""

    scheduler: str
    nodes: str
    rank: str
    address: str
    port: str | None = None
    main: str | None = None  # the main node's index, where it need not be 0


BATCH = _Names(
    "a multi-node job of AWS Batch", "AWS_BATCH_JOB_NUM_NODES", "AWS_BATCH_JOB_NODE_INDEX",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", main="AWS_BATCH_JOB_MAIN_NODE_INDEX",
)  # fmt: skip
# The index alone is what every Indexed Job has, and shards of `recap summarize` too: RECAP_NODES makes nodes of it.
INDEXED_JOB = _Names("an Indexed Job of Kubernetes", "RECAP_NODES", "JOB_COMPLETION_INDEX", "RECAP_MAIN_ADDRESS")
TRAIN_JOB = _Names("a TrainJob or torchrun", "PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
PLAIN = _Names("torch.distributed", "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")  # of one process a node


def find_cluster(environment: Mapping[str, str]) -> Cluster:
    """The cluster that the environment tells of; ConfigError, with the remedy, where it tells only half of it."""
    if environment.get("LOCAL_RANK"):
        raise ConfigError(
            "LOCAL_RANK is set: another launcher started recap once per GPU, but recap starts the training processes "
            "itself; start one `recap train` on each node"
        )
    for names in (BATCH, INDEXED_JOB, TRAIN_JOB, PLAIN):
        # Names that others use too tell nothing alone: every Indexed Job has its index.
        own = {names.nodes, names.address} | ({names.rank, names.main} if names is BATCH else set())
        if any(environment.get(name) for name in own if name):
            return _read(names, environment)
    return ALONE


def _read(names: _Names, environment: Mapping[str, str]) -> Cluster:
    nodes, rank = (_number(name, names, environment) for name in (names.nodes, names.rank))
    main = _number(names.main, names, environment) if names.main else 0
    if not nodes or rank >= nodes or main >= nodes:
        raise ConfigError(f"{names.rank} is {rank}, but {names.nodes} is {nodes}: nodes count from 0 to {nodes - 1}")
    if nodes == 1:
        return ALONE
    port = PORT_OVERRIDE if environment.get(PORT_OVERRIDE) else names.port
    ports = _number(port, names, environment) if port and environment.get(port) else PORT
    if rank == main:
        return Cluster(nodes, 0, LOOPBACK, ports)
    return Cluster(nodes, (rank - main) % nodes, _text(names.address, names, environment), ports)


def _number(name: str, names: _Names, environment: Mapping[str, str]) -> int:
    text = _text(name, names, environment)
    if not re.fullmatch(r"\d{1,6}", text):
        raise ConfigError(f"{name} is '{text}' in the environment of {names.scheduler}, wanted a whole number")
    return int(text)


def _text(name: str, names: _Names, environment: Mapping[str, str]) -> str:
    text = environment.get(name)
    if not text:
        there = ", ".join(each for each in (names.nodes, names.rank, names.address) if environment.get(each))
        raise ConfigError(
            f"the environment has {there}, as of {names.scheduler}, but not {name}: set it too (number of nodes, index "
            f"of this one, address of the main one), or unset {there} to train on this machine alone"
        )
    return text
