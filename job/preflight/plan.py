"""`recap plan`: find out what can be known before paying for a GPU, and list all that is wrong.

Takes a config and returns a Plan. Reads the data whole and asks every store that the job will use.
Fetches no weights: a base is asked by its small files, as a model without weights, for which torch
is imported (some seconds). One module for each command beside this one: `training`, `summarizing`,
`evaluating`, `feedback`. What every command that runs a model asks is here: the clock of its store,
and this machine.
"""

from dataclasses import replace

from job.config.commands import Config, FeedbackConfig, ModelConfig, SummarizeConfig, TrainConfig
from job.config.sections import as_list
from job.config.watch_config import WatchConfig
from job.environment import count_gpus
from job.errors import ConfigError, ExitCode
from job.preflight.access import check_clock
from job.preflight.checks import Check, Plan, check_value
from job.preflight.devices import NONE_NAMED, Devices
from job.preflight.evaluating import plan_evaluation
from job.preflight.machine import ELSEWHERE, Host, machine_checks
from job.preflight.summarizing import plan_summarizing
from job.preflight.training import plan_training

# After one of these, the service would only refuse once more.
REFUSED = (ExitCode.RETRY, ExitCode.FORBIDDEN)

ROLE = "role"  # name of the check of what a job may do that has rights of its own
AS_A_PERSON = Check(
    ROLE,
    "not checked: S3 was asked with the credentials of this environment, and a job has those of "
    "its role: recap submit aws-batch --dry-run asks what that may do",
    is_known=False,
)


def plan(
    config: Config, devices: Devices = NONE_NAMED, is_here: bool = True, fresh: bool = False
) -> Plan:
    """Plan the command that this config is for.

    `devices` are those that it might run on. `is_here` is False for a job of a cluster. `fresh` is
    that of `recap train`. Raise ConfigError for a command that has nothing to plan.
    """
    if isinstance(config, FeedbackConfig):
        # It draws pages, for which a light installation, which only submits, has no library.
        from job.preflight.feedback import plan_feedback

        return plan_feedback(config)
    if isinstance(config, WatchConfig):
        raise ConfigError("recap watch reads manifests alone: there is nothing to plan, run it")
    planned = _plan_command(config, devices, is_here, fresh)
    if planned.done:
        return planned
    checks = [*planned.checks, *_clock_checks(config, planned)]
    if not is_here:
        return replace(planned, checks=[*checks, ELSEWHERE])
    host = Host()
    if _on_s3(config) and not host.is_the_jobs:
        checks.append(AS_A_PERSON)
    trained = None
    for found in checks:
        trained = found.facts.get("trained_parameters", trained)
    return replace(planned, checks=[*checks, *machine_checks(config, host, trained)])


def _plan_command(config: ModelConfig, devices: Devices, is_here: bool, fresh: bool) -> Plan:
    if isinstance(config, TrainConfig):
        gpus = count_gpus() if is_here and not devices.are_named else 0
        return plan_training(config, fresh, devices=devices, gpus=gpus)
    if isinstance(config, SummarizeConfig):
        return plan_summarizing(config, devices)
    return plan_evaluation(config, devices)


def _clock_checks(config: ModelConfig, planned: Plan) -> list[Check]:
    """Return the check of the clock, which S3 alone compares with its own."""
    uris = _on_s3(config)
    if not uris:
        return []
    if planned.error and planned.error.exit_code in REFUSED:
        return [Check("clock", "not checked: see the errors above", is_known=False)]
    return [check_value("clock", lambda: check_clock(uris[0], config.storage))[0]]


def _on_s3(config: ModelConfig) -> list[str]:
    data = config.data.train if isinstance(config, TrainConfig) else config.input
    return [uri for uri in (config.output, *as_list(data)) if uri.startswith("s3://")]
