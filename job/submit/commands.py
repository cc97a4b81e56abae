"""The command line of `recap submit`: its options, and one command for each scheduler.

Imports only click until a command runs, so that help is printed at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from job.arguments import takes_config

if TYPE_CHECKING:
    from job.submit.submission import Target

MAX_WORKERS_BY_DEFAULT = 8  # each is a machine that is paid for while it loads the model
MAX_ARRAY_SIZE = 10_000  # of AWS Batch


@click.group(epilog="Example: recap submit aws-batch s3://my-bucket/configs/train.yaml --wait")
def submit() -> None:
    """Plan, then submit a training, a night of summaries or an evaluation.

    Prints the job's id, and the commands that follow and stop it.
    """


def _of_every_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every target has."""
    command = click.option(
        "--command",
        type=click.Choice(["train", "summarize", "evaluate"]),
        help="Command that the config is for; by default the one whose keys fit.",
    )
    plan = click.option(
        "--plan/--no-plan", default=True, help="Check first all that the job will need."
    )
    dry_run = click.option("--dry-run", is_flag=True, help="Print the request, and submit nothing.")
    wait = click.option(
        "--wait",
        is_flag=True,
        help="Follow the job with its log, and end with its exit code. Ctrl-C leaves it running; "
        "the same command follows it again.",
    )
    return takes_config(command(plan(dry_run(wait(function)))))


def _of_every_cluster(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of targets that have several machines."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1, MAX_ARRAY_SIZE),
        help="Maximum number of machines that share a night, never more than it has chunks; by "
        f"default `shards` of the config, else {MAX_WORKERS_BY_DEFAULT}.",
    )
    nodes = click.option(
        "--nodes", type=click.IntRange(1), default=1, help="Number of machines that train together."
    )
    return workers(nodes(function))


@submit.command(
    "aws-batch",
    epilog="Example: recap submit aws-batch examples/nightly.yaml --var date=2026-01-31",
)
@_of_every_target
@_of_every_cluster
@click.option(
    "--stack",
    default="recap",
    show_default=True,
    help="CloudFormation stack that infra/aws made.",
)
@click.option("--queue", help="Job queue; by default the stack's.")
@click.option("--job-definition", help="Job definition; by default the stack's.")
def aws_batch(stack: str, queue: str | None, job_definition: str | None, **options: Any) -> int:
    """Submit to AWS Batch: one job, an array of workers, or several nodes."""
    from job.submit.aws_batch import AwsBatch

    return _hand_over(AwsBatch(stack, queue, job_definition), options)


@submit.command(
    epilog="Example: recap submit kubernetes examples/support-chat.yaml --context my-cluster"
)
@_of_every_target
@_of_every_cluster
@click.option("--context", help="Context of kubectl; by default the current one.")
@click.option("--namespace", default="recap", show_default=True, help="Namespace of the Job.")
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="File with the CronJobs; by default those of the namespace.",
)
def kubernetes(context: str | None, namespace: str, template: Path | None, **options: Any) -> int:
    """Submit to Kubernetes: a Job, copied from the template that infra/kubernetes installs."""
    from job.submit.kubernetes import Kubernetes

    return _hand_over(Kubernetes(context, namespace, template), options)


@submit.command(epilog="Example: recap submit docker examples/support-chat.yaml --set output=runs")
@_of_every_target
@click.option(
    "--image", help="Image; by default recap:train, or recap:summarize for nights and evaluations."
)
@click.option("--gpu/--no-gpu", default=True, help="Use all GPUs of this machine, or none.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for what can be fetched again; by default one in the cache.",
)
@click.option("--network", help="Network of the container, as `docker run` takes it.")
def docker(
    image: str | None, gpu: bool, work: Path | None, network: str | None, **options: Any
) -> int:
    """Run in a container on this machine, detached."""
    from job.storage.scratch import cache_folder
    from job.submit.docker import Docker

    folder = (work or cache_folder() / "container").absolute()
    return _hand_over(Docker(folder, image, gpu, network), options)


def _hand_over(target: "Target", options: dict[str, Any]) -> int:
    from job.submit.run import Options, hand_over

    return hand_over(target, Options(**options))
