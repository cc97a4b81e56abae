"""Find out which node of a run this is, and where node 0 can be reached.

The scheduler sets environment variables, which become a `Cluster`. Without them there is one node.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORT = 29500  # torch's own default
PORT_OVERRIDE = "RECAP_MAIN_PORT"

# The same facts under the names of other launchers. They are not passed on to training processes,
# which get theirs from recap's own launcher.
TAKEN = re.compile(r"PET_\w+|RANK|WORLD_SIZE|NODE_RANK|GROUP_RANK|MASTER_ADDR|MASTER_PORT")


@dataclass(frozen=True)
class Cluster:
    """Node `rank`, from 0 on, of `nodes`; and the address and port of node 0, as this node sees it.

    The main node is node 0, whatever its scheduler calls it. It reaches itself by loopback: AWS
    Batch does not give it its address, and a service's name may not resolve before its pod is
    ready.
    """

    nodes: int = 1
    rank: int = 0
    address: str = LOOPBACK
    port: int = PORT

    def __str__(self) -> str:
        text = f"node {self.rank} of {self.nodes}"
        if self.rank:
            text += f", the main one at {self.address}"
        return text


ALONE = Cluster()


def check_distribution(distribution: str, processes: int) -> None:
    """Raise ConfigError if a single process, of all nodes, is to share the base with others."""
    if distribution == "fsdp" and processes == 1:
        raise ConfigError(
            "training.distribution: fsdp shares the base between processes, and there is one: "
            "use ddp"
        )


@dataclass(frozen=True)
class _Names:
    """The names of one scheduler's environment variables."""

    scheduler: str
    nodes: str
    rank: str
    address: str
    port: str | None = None
    main: str | None = None  # the main node's index, where it need not be 0


BATCH = _Names(
    scheduler="a multi-node job of AWS Batch",
    nodes="AWS_BATCH_JOB_NUM_NODES",
    rank="AWS_BATCH_JOB_NODE_INDEX",
    address="AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS",
    main="AWS_BATCH_JOB_MAIN_NODE_INDEX",
)

# Every Indexed Job has an index, the shards of `recap summarize` too. RECAP_NODES makes them nodes.
INDEXED_JOB = _Names(
    scheduler="an Indexed Job of Kubernetes",
    nodes="RECAP_NODES",
    rank="JOB_COMPLETION_INDEX",
    address="RECAP_MAIN_ADDRESS",
)
TRAIN_JOB = _Names(
    scheduler="a TrainJob or torchrun",
    nodes="PET_NNODES",
    rank="PET_NODE_RANK",
    address="PET_MASTER_ADDR",
    port="PET_MASTER_PORT",
)

# torch's own variables count processes, so they describe nodes only with one process on each.
PLAIN = _Names(
    scheduler="torch.distributed",
    nodes="WORLD_SIZE",
    rank="RANK",
    address="MASTER_ADDR",
    port="MASTER_PORT",
)


def find_cluster(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster that the environment describes, or ALONE if it describes none.

    Raise ConfigError if the description is incomplete or contradicts itself, or if another launcher
    has started this process.
    """
    if environment.get("LOCAL_RANK"):
        raise ConfigError(
            "LOCAL_RANK is set: another launcher started recap once per GPU, but recap starts the "
            "training processes itself; start one `recap train` on each node"
        )

    for names in (BATCH, INDEXED_JOB, TRAIN_JOB, PLAIN):
        # A rank alone proves nothing, since every Indexed Job has its index. Only the names of AWS
        # Batch are nobody else's.
        own = {names.nodes, names.address}
        if names is BATCH:
            own |= {names.rank, names.main or names.rank}
        if any(environment.get(name) for name in own):
            return _read_cluster(names, environment)
    return ALONE


def _read_cluster(names: _Names, environment: Mapping[str, str]) -> Cluster:
    nodes = _read_number(names.nodes, names, environment)
    rank = _read_number(names.rank, names, environment)
    main = _read_number(names.main, names, environment) if names.main else 0
    if not nodes or rank >= nodes or main >= nodes:
        last = nodes - 1
        raise ConfigError(
            f"{names.rank} is {rank}, but {names.nodes} is {nodes}: nodes count from 0 to {last}",
        )
    if nodes == 1:
        return ALONE

    port = PORT
    port_name = PORT_OVERRIDE if environment.get(PORT_OVERRIDE) else names.port
    if port_name and environment.get(port_name):
        port = _read_number(port_name, names, environment)

    if rank == main:
        return Cluster(nodes, 0, LOOPBACK, port)
    address = _read_text(names.address, names, environment)
    return Cluster(nodes, (rank - main) % nodes, address, port)


def _read_number(name: str, names: _Names, environment: Mapping[str, str]) -> int:
    text = _read_text(name, names, environment)
    if not re.fullmatch(r"\d{1,6}", text):
        raise ConfigError(
            f"{name} is '{text}' in the environment of {names.scheduler}, wanted a whole number",
        )
    return int(text)


def _read_text(name: str, names: _Names, environment: Mapping[str, str]) -> str:
    """Return the variable's value. Raise ConfigError if it is missing or empty."""
    text = environment.get(name)
    if not text:
        expected = (names.nodes, names.rank, names.address)
        there = ", ".join(each for each in expected if environment.get(each))
        raise ConfigError(
            f"the environment has {there}, as of {names.scheduler}, but not {name}: set it too "
            "(number of nodes, index of this one, address of the main one), or unset "
            f"{there} to train on this machine alone"
        )
    return text
