"""The supervisor: the container's first process, above the launcher and the training processes.

It starts the launcher, forwards stop signals to every process below it, bounds the time to the end,
leaves no process behind, and returns the outcome that the training processes wrote.
"""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from job.config.commands import TrainConfig
from job.config.load import resolved_yaml
from job.environment import count_gpus
from job.errors import ConfigError
from job.gpus.lines import gpu_lines
from job.gpus.required import required_gpus
from job.launch.attempt_note import settle
from job.launch.cluster import ALONE, Cluster, check_distribution, find_cluster
from job.launch.memory import ControlGroup, own_control_group
from job.launch.outcome import End, Outcome, judge, read_outcomes
from job.launch.peers import Peers
from job.launch.processes import ProcessTree, adopt_orphans
from job.launch.spot import NOTICE_SECONDS, SpotNotice, notice_url, spot_watch
from job.launch.variables import training_variables
from job.storage.scratch import work_folder
from job.telemetry import event

WORKER = "job.training.worker"


def run_training(config: TrainConfig) -> Outcome:
    """Train as the config says, in processes of their own, and return the outcome.

    On several nodes each of them calls this, and all return the same outcome. Raise ConfigError if
    the config does not fit this machine.
    """
    gpus = count_gpus()
    wanted = required_gpus(os.environ)
    if wanted > gpus:
        raise ConfigError(
            f"RECAP_GPUS={wanted}, but {gpus} of them can train: of several MIG devices CUDA gives "
            "a process one. Take whole GPUs, or one MIG device"
        )
    cluster = find_cluster(os.environ)
    processes = config.training.processes or max(1, gpus)
    if gpus and processes > gpus:
        raise ConfigError(
            f"training.processes: {processes}, but this machine has {gpus} GPUs: {gpus} at the most"
        )
    check_distribution(config.training.distribution, processes * cluster.nodes)
    url = notice_url(config.limits.spot_notice, os.environ)
    notice = SpotNotice(url) if url else None

    with work_folder(config.run) as work:
        (work / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
        os.environ["ACCELERATE_USE_CPU"] = str(gpus == 0).lower()
        minutes = config.limits.rendezvous_minutes
        command = launch_command(work, processes, gpus > 0, cluster, minutes)
        peers = None
        if cluster != ALONE:
            event(
                "training on several nodes",
                node=cluster.rank,
                nodes=cluster.nodes,
                main=cluster.address,
            )
            peers = Peers(cluster, config.run)
        with gpu_lines():
            grace_seconds = config.limits.grace_seconds
            outcome = supervise(command, work, processes, grace_seconds, notice, peers)
        settle(work, outcome, f"{config.output.rstrip('/')}/{config.run}", config.storage)
        return outcome


def launch_command(
    work: Path,
    processes: int,
    has_gpu: bool,
    cluster: Cluster,
    rendezvous_minutes: float,
) -> list[str]:
    """Return the command that starts `processes` training processes on this machine.

    The launchers of a cluster's nodes wait `rendezvous_minutes` for each other.
    """
    # One process needs no launcher: it would only be one more process that loses signals.
    if processes * cluster.nodes == 1:
        return [sys.executable, "-m", WORKER, str(work)]

    # --multi_gpu selects accelerate's launcher of several processes, on CPUs too: there they
    # communicate through gloo, because of ACCELERATE_USE_CPU. Its --cpu would start one process.
    options = {
        "--num_machines": cluster.nodes,
        "--num_processes": processes * cluster.nodes,
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
        "--main_process_port": _free_port() if cluster == ALONE else cluster.port,
    }
    flags = ["--multi_gpu"]
    if cluster != ALONE:
        options["--machine_rank"] = cluster.rank
        options["--main_process_ip"] = cluster.address
        options["--rdzv_conf"] = f"timeout={round(rendezvous_minutes * 60)}"
        flags.append("--same_network")
    if not has_gpu:
        cores = os.cpu_count() or 1
        options["--num_cpu_threads_per_process"] = max(1, cores // processes)

    command = [sys.executable, "-m", "accelerate.commands.launch", *flags]
    for name, value in options.items():
        command += [name, str(value)]
    return [*command, "--module", WORKER, str(work)]


def supervise(
    command: Sequence[str],
    work: Path,
    processes: int,
    grace_seconds: float,
    spot_notice: SpotNotice | None = None,
    peers: Peers | None = None,
    memory: ControlGroup | None = None,
) -> Outcome:
    """Run `command` to its end, at most to `grace_seconds` after a stop; return the outcome.

    A stop is a signal to this process, or the `spot_notice`. With `peers`, the run ends on all
    nodes when it ends on one, and with the outcome that node 0 decides. `memory` is by default the
    control group of this process.
    """
    adopt_orphans()
    environment = training_variables(os.environ)
    several = processes > 1 or peers is not None
    tree = ProcessTree(grace_seconds, "all but launcher" if several else "all")
    memory = memory or own_control_group()
    counts = memory.counts()

    def stop_for_spot_notice() -> None:
        tree.request_stop("spot notice", NOTICE_SECONDS)

    with peers.connection(tree.on_failure_elsewhere) if peers else nullcontext():
        with tree.handling_stop_signals(), spot_watch(spot_notice, stop_for_spot_notice):
            returned = tree.run(command, environment)

        end = End(
            returned,
            processes,
            several,
            stop_asked=tree.deadline is not None,
            at_memory_limit=memory.kill_since(counts),
            absent_nodes=peers.absent() if peers else None,
        )
        outcome = judge(read_outcomes(work), end)
        return peers.agree(outcome) if peers else outcome


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
