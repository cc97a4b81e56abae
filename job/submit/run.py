"""The steps of `recap submit` that all targets share: check, plan, submit, print, follow."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click

from job.arguments import parse_variables
from job.config.commands import (
    Command,
    FeedbackConfig,
    ModelConfig,
    SummarizeConfig,
    TrainConfig,
    command_of,
)
from job.config.dates import with_date
from job.config.load import load_config, resolved_yaml
from job.config.watch_config import WatchConfig
from job.errors import ConfigError, ExitCode, RecapError, RetryError
from job.evaluation.metrics.all_metrics import METRICS
from job.identity import sha256_of
from job.preflight.checks import Plan
from job.preflight.plan import ROLE, plan
from job.printable import printable
from job.storage.config_file import read_config
from job.submit.commands import MAX_WORKERS_BY_DEFAULT
from job.submit.follow import follow
from job.submit.locations import (
    check_reachable,
    config_uri,
    hub_models,
    models_read,
    places_read,
    places_written,
    upload_config,
)
from job.submit.submission import GRACE_SECONDS, Place, Submission, Target, request_text
from job.telemetry import event

ACCESS_CODES = (ExitCode.MISSING, ExitCode.OUTPUT, ExitCode.RETRY, ExitCode.FORBIDDEN)
VARIABLE = "RECAP_VAR_"

# How a cluster starts the commands that are not submitted, by command and cluster.
SMALL_JOBS: Mapping[tuple[Command, str | None], str] = {
    ("watch", "AWS Batch"): ", or start the stack's own job (infra/aws/README.md, What follows the "
    "nights): aws batch submit-job --job-name watch --job-queue QUEUE --job-definition recap-watch",
    ("feedback", "AWS Batch"): ", or start the stack's own job (infra/aws/README.md, What follows "
    "the nights): aws batch submit-job --job-name feedback --job-queue QUEUE --job-definition "
    """recap-feedback --container-overrides '{"command": ["feedback", "s3://…/feedback.yaml"]}'""",
    ("watch", "Kubernetes"): ", or start the cluster's own job (infra/kubernetes/README.md): "
    "kubectl -n recap create job --from=cronjob/recap-watch watch-now",
    ("feedback", "Kubernetes"): ", or start the week, which begins with it "
    "(infra/kubernetes/README.md): kubectl -n recap create job --from=cronjob/recap-train-weekly "
    "week-now",
}


@dataclass(frozen=True)
class Options:
    """The user's options besides the target's own, which are fields of the `Target`.

    Only clusters have `workers` and `nodes`; for other targets they keep their defaults.
    """

    config: str
    overrides: Sequence[str]
    variables: Sequence[str]
    command: Command | None
    plan: bool
    dry_run: bool
    wait: bool
    workers: int | None = None
    nodes: int = 1


@dataclass(frozen=True)
class JobConfig:
    """The config as the job reads it."""

    location: str  # a path or s3://…
    arguments: list[str]  # of the command line, after the location
    content: bytes | None = None  # to upload to the location; None if it is there


def hand_over(target: Target, options: Options) -> int:
    """Check, plan, and submit to the target; print the receipt, and return the exit code.

    A dry run prints the request and submits nothing. A plan that finds the output complete submits
    nothing either. With `wait`, the exit code is the job's, and a job of the same config that runs
    already is followed instead of another one.
    """
    options = replace(options, variables=_with_date(options.variables))
    config = _load(options, target)
    models = models_read(config)
    reads = places_read(config, models)
    if target.cluster:
        check_reachable(config, reads, target.cluster)
    job_config = _job_config(config, options, target)
    submission = _submission(config, reads, job_config, options)
    submission = replace(submission, hub=hub_models(models))

    if options.wait and not options.dry_run:
        running = target.running(submission)
        if running:
            if isinstance(config, SummarizeConfig):
                submission = replace(submission, workers=_max_workers(config, options))
            return _wait(target, submission, running, "running")

    # Without a plan, a dry run asks as few as it can: nobody, if all names are given.
    if options.plan or not options.dry_run:
        target.check(submission, strict=options.plan)
    chunks = None
    if options.plan:
        found = _plan_or_raise(config, target, submission)
        if found.done:
            event("already done: nothing is submitted", run=found.run, output=config.output)
            return ExitCode.DONE
        chunks = found.chunks

    if isinstance(config, SummarizeConfig) and target.cluster:
        workers = _workers(config, options, chunks)
        event("workers", workers=workers, chunks=chunks)
        submission = _with_workers(submission, workers, config.shards)

    request = target.request(submission)
    if options.dry_run:
        click.echo(printable(request_text(request)))
        return ExitCode.DONE

    if job_config.content is not None:
        upload_config(job_config.content, job_config.location, config.storage)
    _refuse_if_running(target, submission)
    id = target.submit(submission, request)
    if options.wait:
        return _wait(target, submission, id, "submitted")
    click.echo(printable(target.receipt(submission, id).text("submitted")))
    return ExitCode.DONE


def _refuse_if_running(target: Target, submission: Submission) -> None:
    """Raise RetryError if a job with the same config runs already."""
    running = target.running(submission)
    if running:
        stop = target.receipt(submission, running).command("stop")
        raise RetryError(
            f"job {running} of the same config runs already: wait for it (--wait follows it), or "
            f"stop it and run again: {stop}"
        )


def _wait(target: Target, submission: Submission, id: str, how: str) -> int:
    """Print the receipt, follow the job to its end, and return its exit code."""
    receipt = target.receipt(submission, id)
    click.echo(printable(receipt.text(how)))
    outcome = follow(target.watch(submission, id), receipt.command("stop"))
    why = {"why": outcome.why} if outcome.why else {}
    event("the job has ended", job=id, exit_code=outcome.code, **why)
    return outcome.code


def _with_date(variables: Sequence[str]) -> list[str]:
    """Return the variables with `yesterday` as a date.

    The job may start after midnight. It must do what was planned.
    """
    dated = with_date(parse_variables(variables), os.environ, datetime.now(UTC))
    return [f"{name}={value}" for name, value in dated.items()]


def _load(options: Options, target: Target) -> ModelConfig:
    """Return the config. Raise UsageError if it is for one machine, and the options for several."""
    config = load_config(
        options.command,
        read_config(options.config),
        options.overrides,
        parse_variables(options.variables),
        METRICS,
    )
    if isinstance(config, FeedbackConfig | WatchConfig):
        command = command_of(config)
        start = SMALL_JOBS.get((command, target.cluster), "")
        raise ConfigError(
            f"{options.config}: its keys are those of `recap {command}`, which needs no GPU and is "
            f"not submitted: run `recap {command} {options.config}` where it reaches the "
            f"nights{start}"
        )
    if not isinstance(config, SummarizeConfig) and options.workers:
        raise click.UsageError(
            "--workers share a night of summaries; machines that train together are --nodes"
        )
    if not isinstance(config, TrainConfig) and options.nodes > 1:
        raise click.UsageError(
            "--nodes train together; machines that share a night of summaries are --workers"
        )
    return config


def _plan_or_raise(config: ModelConfig, target: Target, submission: Submission) -> Plan:
    """Plan the job, print the findings on stderr, and raise the first error among them."""
    if find_spec("torch") is None:
        # A scheduler may take 66 for a night without conversations.
        raise ConfigError(
            "a plan needs torch and transformers, which a light installation leaves out: "
            "--no-plan submits without it, or install all of recap"
        )
    found = plan(config, is_here=target.cluster is None)
    if not found.done:
        asked = [each for each in found.checks if each.name != ROLE]
        found = replace(found, checks=[*asked, *target.rights(submission)])
    click.echo(printable(found.without_example().findings()) + "\n", err=True)
    error = found.error
    if error and error.exit_code in ACCESS_CODES:
        # The job may have what this machine lacks: it has a role and a network of its own.
        raise _with_remedy(error)
    if error:
        raise error
    return found


def _with_remedy(error: RecapError) -> RecapError:
    return type(error)(
        f"{error}\nwhere this machine lacks what the job will have: --no-plan submits without "
        "asking"
    )


def _job_config(config: ModelConfig, options: Options, target: Target) -> JobConfig:
    """Return the config as the job reads it; it is not uploaded yet."""
    # Standard input can be read once. The checked config has every override and variable in it.
    if options.config == "-":
        content = resolved_yaml(config).encode()
        return JobConfig(config_uri(content, config), [], content)

    arguments = []
    for override in options.overrides:
        arguments += ["--set", override]
    for variable in options.variables:
        arguments += ["--var", variable]

    if options.config.startswith("s3://"):
        return JobConfig(options.config, arguments)
    if not target.cluster:
        return JobConfig(str(Path(options.config).absolute()), arguments)
    content = Path(options.config).read_bytes()
    return JobConfig(config_uri(content, config), arguments, content)


def _submission(
    config: ModelConfig,
    reads: Sequence[Place],
    job_config: JobConfig,
    options: Options,
) -> Submission:
    """Return the submission, with one worker."""
    grace_seconds: float = GRACE_SECONDS
    if isinstance(config, TrainConfig):
        grace_seconds = config.limits.grace_seconds

    environment = {}
    for name, value in os.environ.items():
        if name.startswith(VARIABLE):
            environment[name] = value

    return Submission(
        command=command_of(config),
        run=config.run,
        config=job_config.location,
        digest=sha256_of(resolved_yaml(config)),
        arguments=job_config.arguments,
        environment=environment,
        nodes=options.nodes,
        grace_seconds=grace_seconds,
        reads=[Place("the config", job_config.location), *reads],
        writes=places_written(config),
        endpoint_url=config.storage.endpoint_url,
    )


def _workers(config: SummarizeConfig, options: Options, chunks: int | None) -> int:
    """Return the number of workers: one for each chunk, within the limit.

    Without a plan the number of chunks is unknown. Then it is the number that the user named.
    """
    if chunks is None:
        return options.workers or config.shards or 1
    return max(1, min(_max_workers(config, options), chunks))


def _max_workers(config: SummarizeConfig, options: Options) -> int:
    return options.workers or config.shards or MAX_WORKERS_BY_DEFAULT


def _with_workers(submission: Submission, workers: int, shards: int | None) -> Submission:
    arguments = list(submission.arguments)

    # A worker takes the number of shards from its config first. With seven shards there and three
    # workers, four shards would be nobody's.
    if shards not in (None, workers):
        arguments += ["--set", f"shards={workers}"]
    environment = {**submission.environment, "RECAP_SHARDS": str(workers)}
    return replace(submission, arguments=arguments, environment=environment, workers=workers)
