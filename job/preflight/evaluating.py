"""Plan an evaluation: its conversations, what is scored, and its output."""

from collections.abc import Sequence
from functools import partial

from job.config.commands import EvaluateConfig
from job.config.load import resolved_yaml
from job.config.scoring_sections import ScoringSection
from job.config.sections import StorageSection
from job.conversations.record import Conversation
from job.evaluation.evaluate import choose_conversations
from job.evaluation.inputs import (
    Input,
    all_references,
    read_given,
    read_input,
    read_others,
    read_train,
)
from job.evaluation.output import check_output
from job.preflight.access import probe_output
from job.preflight.checks import Check, Found, Plan, check, check_value
from job.preflight.devices import NONE_NAMED, Devices
from job.preflight.gate import gate_checks
from job.preflight.metric_models import metric_model_checks
from job.preflight.models import generating_checks
from job.preflight.prompts import describe_prompts
from job.storage.open import open_store


def plan_evaluation(config: EvaluateConfig, devices: Devices = NONE_NAMED) -> Plan:
    """Plan an evaluation: read its inputs, and look at its model and its output.

    `devices` are those that it might run on.
    """
    input_check, found = check_value("input", lambda: _read_input(config), "input")
    checks = [input_check]
    everything = found.everything if found else None
    scored = len(found.chosen) if found else None
    train: list[Conversation] | None = None
    if config.train is not None:
        train_check, train = check_value("train", lambda: _read_train(config), "train")
        checks.append(train_check)
    # The ids of the input are the ids that the summaries must have.
    if config.summaries is not None and everything:
        checks.append(check("summaries", lambda: _read_given(config, everything), "summaries"))
    if everything:
        checks += others_checks(config.evaluation, config.storage, everything)
        checks += metric_model_checks(
            config.evaluation, config.storage, everything, config.data, devices, train or ()
        )
    look = partial(describe_prompts, found.chosen) if found else None
    checks += generating_checks(config, devices, look)
    checks += gate_checks(config, config.adapter or "", scored, train=train or ())
    checks.append(check("output", lambda: _look_at_output(config), "output"))

    title = f"plan of evaluate run {config.run}"
    return Plan(title, checks, resolved_yaml(config), config.run)


def others_checks(
    options: ScoringSection, storage: StorageSection, conversations: Sequence[Conversation]
) -> list[Check]:
    """Return a check of the files of other systems, if the config names any.

    `conversations` can be scored, at least one of them.
    """
    if not options.others:
        return []

    def read() -> str:
        scored = choose_conversations(conversations, options.max_conversations)
        systems = read_others(options.others, storage, scored)
        return f"{', '.join(system.name for system in systems)}: {len(scored):,} summaries each"

    return [check("others", read, "evaluation.others")]


def _read_input(config: EvaluateConfig) -> Found[Input]:
    found = read_input(config)
    text = f"{len(found.everything):,} conversations, {len(found.chosen):,} to score"
    return Found(text, found)


def _read_train(config: EvaluateConfig) -> Found[list[Conversation]]:
    found = read_train(config) or []
    return Found(f"{len(all_references(found)):,} references", found)


def _read_given(config: EvaluateConfig, everything: Sequence[Conversation]) -> str:
    return f"{len(read_given(config, everything)):,} summaries"


def _look_at_output(config: EvaluateConfig) -> str:
    store = open_store(config.output, config.storage)
    check_output(store)
    return probe_output(store.uri, config.storage, guarded=False)
