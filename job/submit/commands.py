"""`recap submit`: plan first, then hand the job over to where it runs, and tell its id and how to follow it.

Arguments → a Submission → one target. Imports only click until a command runs. Knows nothing of how a target is asked,
nor of what the job does.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from job.arguments import configured, named
from job.errors import ConfigError, ExitCode, RecapError
from job.identity import sha256_of

if TYPE_CHECKING:
    from job.config.commands import SummarizeConfig, TrainConfig
    from job.preflight.checks import Plan
    from job.submit.submission import Submission, Target

MOST_WORKERS = (
    8  # unless somebody says otherwise: each is a machine that is paid for while it loads the model
)
LARGEST_ARRAY = 10_000  # of AWS Batch
ACCESS = (ExitCode.MISSING, ExitCode.OUTPUT, ExitCode.RETRY, ExitCode.FORBIDDEN)
VARIABLE = "RECAP_VAR_"


@dataclass(frozen=True)
class Asked:
    """What a person asks of any target."""

    config: str
    overrides: Sequence[str]
    variables: Sequence[str]
    command: Literal["train", "summarize"] | None
    plan: bool
    dry_run: bool
    workers: int | None = None
    nodes: int = 1


@click.group(epilog="Example: recap submit aws-batch s3://my-bucket/train.yaml")
def submit() -> None:
    """Plan, then submit a training or a night of summaries; print the job's id and how to follow and stop it."""


def _submitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every target."""
    command = click.option(
        "--command",
        type=click.Choice(["train", "summarize"]),
        help="Whose config it is; else by its keys.",
    )
    planned = click.option(
        "--plan/--no-plan", default=True, help="Ask first for all that the job will need."
    )
    dry = click.option("--dry-run", is_flag=True, help="Print the request and submit nothing.")
    return configured(command(planned(dry(function))))


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every cluster."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1, LARGEST_ARRAY),
        help=f"Workers that share a night, at the most (no more than it has chunks); else shards, else {MOST_WORKERS}.",
    )
    nodes = click.option(
        "--nodes", type=click.IntRange(1), default=1, help="Machines that train together."
    )
    return workers(nodes(function))


@submit.command(
    "aws-batch",
    epilog="Example: recap submit aws-batch examples/nightly.yaml --var date=2026-01-31",
)
@_submitted
@_shared
@click.option(
    "--stack", default="recap", show_default=True, help="CloudFormation stack that infra/aws makes."
)
@click.option("--queue", help="Job queue; else the stack's.")
@click.option("--job-definition", help="Job definition; else the stack's.")
def aws_batch(stack: str, queue: str | None, job_definition: str | None, **asked: Any) -> int:
    """Submit to AWS Batch: one job, an array of workers, or several nodes."""
    from job.submit.aws_batch import AwsBatch

    return _hand_over(AwsBatch(stack, queue, job_definition), Asked(**asked), "AWS Batch")


@submit.command(
    epilog="Example: recap submit kubernetes examples/support-chat.yaml --context my-cluster"
)
@_submitted
@_shared
@click.option("--context", help="Context of kubectl; else the current one.")
@click.option("--namespace", default="recap", show_default=True, help="Namespace of the Job.")
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="File with the CronJobs; else those of the namespace.",
)
def kubernetes(context: str | None, namespace: str, template: Path | None, **asked: Any) -> int:
    """Submit to Kubernetes: a Job, copied from the template that infra/kubernetes installs."""
    from job.submit.kubernetes import Kubernetes

    return _hand_over(Kubernetes(context, namespace, template), Asked(**asked), "Kubernetes")


@submit.command(epilog="Example: recap submit docker examples/support-chat.yaml --set output=runs")
@_submitted
@click.option("--image", help="Image; else recap:train or recap:summarize.")
@click.option("--gpu/--no-gpu", default=True, help="All GPUs of this machine, or none.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for what can be fetched again; else in the cache.",
)
@click.option("--network", help="Network of the container, as `docker run` takes it.")
def docker(
    image: str | None, gpu: bool, work: Path | None, network: str | None, **asked: Any
) -> int:
    """Run in a container on this machine, detached."""
    from job.storage.places import cache_folder
    from job.submit.docker import Docker

    folder = (work or cache_folder() / "container").absolute()
    return _hand_over(Docker(folder, image, gpu, network), Asked(**asked), None)


def _hand_over(target: "Target", asked: Asked, cluster: str | None) -> int:
    """Check, plan, and submit; `cluster` is the name of one that cannot see this machine's files."""
    asked = replace(asked, variables=_with_date(asked.variables))
    config = _loaded(asked)
    from job.printable import printable
    from job.submit import places
    from job.submit.submission import shown
    from job.telemetry import event

    if cluster:
        places.check_reachable(config, cluster)
    chunks = None
    if asked.plan:
        found = _planned(config)
        if found.done:
            event("already done: nothing is submitted", run=found.run, output=config.output)
            return ExitCode.DONE
        chunks = found.chunks
    submission, content = _submission(config, asked, chunks, cluster is not None)
    request = target.request(submission)
    if asked.dry_run:
        click.echo(printable(shown(request)))
        return ExitCode.DONE
    if content is not None:
        places.send(content, submission.config, config.storage)
    click.echo(printable(target.submit(submission, request).text()))
    return ExitCode.DONE


def _with_date(variables: Sequence[str]) -> list[str]:
    """The variables with today's answer to `yesterday`: what is planned is what runs, whenever that is."""
    from job.config.dates import with_date

    dated = with_date(named(variables), os.environ, datetime.now(UTC))
    return [f"{name}={value}" for name, value in dated.items()]


def _loaded(asked: Asked) -> "TrainConfig | SummarizeConfig":
    """The config; ConfigError for one of `recap evaluate`."""
    from job.config.commands import EvaluateConfig, TrainConfig
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = named(asked.variables)
    config = load_config(asked.command, read_config(asked.config), asked.overrides, values)
    if isinstance(config, EvaluateConfig):
        raise ConfigError(
            f"{asked.config}: is a config of `recap evaluate`, and the images train and summarize: a training "
            "evaluates its adapter itself; run `recap evaluate` on any machine that has it installed"
        )
    is_training = isinstance(config, TrainConfig)
    if is_training and asked.workers:
        raise click.UsageError(
            "--workers share a night of summaries; machines that train together are --nodes"
        )
    if not is_training and asked.nodes > 1:
        raise click.UsageError(
            "--nodes train together; machines that share a night of summaries are --workers"
        )
    return config


def _planned(config: "TrainConfig | SummarizeConfig") -> "Plan":
    """The plan, told on stderr; what stands in the way ends the command."""
    from job.preflight.plan import plan
    from job.printable import printable

    found = plan(config)
    click.echo(printable(found.findings()) + "\n", err=True)
    if found.error and found.error.exit_code in ACCESS:
        raise _with_remedy(found.error)
    if found.error:
        raise found.error
    return found


def _with_remedy(error: RecapError) -> RecapError:
    """What this machine meets, the job may not: it has a role and a network of its own."""
    return type(error)(
        f"{error}\nwhere this machine lacks what the job will have: --no-plan submits without asking"
    )


def _submission(
    config: "TrainConfig | SummarizeConfig", asked: Asked, chunks: int | None, elsewhere: bool
) -> tuple["Submission", bytes | None]:
    """What is submitted, and the content of a config that is still to be put where the job reads it."""
    from job.config.commands import SummarizeConfig, TrainConfig
    from job.config.load import resolved_yaml
    from job.submit import places
    from job.submit.submission import GRACE_SECONDS, Submission
    from job.telemetry import event

    reads, output = [uri for _, uri in places.local_reads(config)], places.local_output(config)
    name, content, arguments = _config_there(config, asked, elsewhere)
    environment = {key: value for key, value in os.environ.items() if key.startswith(VARIABLE)}
    workers = 1
    if isinstance(config, SummarizeConfig) and elsewhere:
        workers = _workers(config, asked, chunks)
        event("workers", workers=workers, chunks=chunks)
        environment["RECAP_SHARDS"] = str(workers)
        arguments += ["--set", f"shards={workers}"] if config.shards not in (None, workers) else []
    submission = Submission(
        command="summarize" if isinstance(config, SummarizeConfig) else "train",
        run=config.run,
        config=name,
        digest=sha256_of(resolved_yaml(config)),
        arguments=arguments,
        environment=environment,
        workers=workers,
        nodes=asked.nodes,
        grace_seconds=config.limits.grace_seconds
        if isinstance(config, TrainConfig)
        else GRACE_SECONDS,
        reads=reads if name.startswith("s3://") else [name, *reads],
        writes=[output] if output else [],
    )
    return submission, content


def _config_there(
    config: "TrainConfig | SummarizeConfig", asked: Asked, elsewhere: bool
) -> tuple[str, bytes | None, list[str]]:
    """The config's name where the job runs, its content if it must be put there, and the arguments that go with it."""
    from job.config.load import resolved_yaml
    from job.submit.places import place_for

    arguments = [word for text in asked.overrides for word in ("--set", text)]
    arguments += [word for text in asked.variables for word in ("--var", text)]
    if asked.config.startswith("s3://"):
        return asked.config, None, arguments
    if asked.config == "-":  # read already: what it says with every override in it
        content = resolved_yaml(config).encode()
        return place_for(content, config), content, []
    if not elsewhere:
        return str(Path(asked.config).absolute()), None, arguments
    content = Path(asked.config).read_bytes()
    return place_for(content, config), content, arguments


def _workers(config: "SummarizeConfig", asked: Asked, chunks: int | None) -> int:
    """As many as there are chunks, and no more than is allowed; without a plan, as many as somebody named."""
    named = asked.workers or config.shards
    return (named or 1) if chunks is None else max(1, min(named or MOST_WORKERS, chunks))
