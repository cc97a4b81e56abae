"""`recap plan`: find out what can be known before paying for a GPU, and list all that is wrong.

Takes a config and returns a Plan. Reads the data whole and asks every store that the job will use.
Fetches no weights: a base is asked by its small files, as a model without weights, for which torch
is imported (some seconds). One module for each command beside this one: `training`, `summarizing`,
`evaluating`.
"""

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.preflight.checks import Plan
from job.preflight.devices import NONE_NAMED, Devices
from job.preflight.evaluating import plan_evaluation
from job.preflight.summarizing import plan_summarizing
from job.preflight.training import plan_training


def plan(
    config: TrainConfig | SummarizeConfig | EvaluateConfig,
    devices: Devices = NONE_NAMED,
) -> Plan:
    """Plan the command that this config is for. `devices` are those that it might run on."""
    if isinstance(config, TrainConfig):
        return plan_training(config, devices=devices)
    if isinstance(config, SummarizeConfig):
        return plan_summarizing(config, devices)
    return plan_evaluation(config)
