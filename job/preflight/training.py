"""Plan a training: data, optimizer steps, rows, base, output, Hub, and the state of the run."""

import os

from job.config.commands import TrainConfig
from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.load import resolved_yaml
from job.conversations.record import Conversation
from job.errors import ConfigError, DataError
from job.evaluation.evaluate import why_unscorable
from job.launch.cluster import ALONE, Cluster, check_distribution, find_cluster
from job.model.license import base_license
from job.model.room import missing_weights
from job.preflight.access import (
    SmallFiles,
    check_hub_access,
    describe_base,
    probe_output,
    small_files,
)
from job.preflight.checks import Check, Found, Plan, check, check_value
from job.preflight.contents import contents_checks
from job.preflight.devices import NONE_NAMED, Devices, device_checks
from job.preflight.duration import work_of
from job.preflight.evaluating import others_checks
from job.preflight.gate import gate_checks
from job.preflight.metric_models import metric_model_checks
from job.preflight.models import announce, training_checks
from job.preflight.prompts import Prompting, describe_prompts
from job.preflight.rows import rows_checks
from job.preflight.standing import (
    Standing,
    find_finished_standing,
    find_standing,
    find_standing_without_data,
)
from job.preflight.start import start_check
from job.preflight.steps import describe_steps, rows_at_most
from job.printable import number_of
from job.prompt.template import Prompt
from job.storage.scratch import cache_path
from job.training.data_report import counts_lines
from job.training.examples import Examples
from job.training.planned_steps import with_processes
from job.training.predictions import store_predictions
from job.training.stored_examples import read_examples_once
from job.training.validation import (
    Validation,
    is_chosen_by_its_pairs,
    split_validation,
    summaries_to_make,
)


def plan_training(
    config: TrainConfig,
    fresh: bool = False,
    brief: bool = False,
    devices: Devices = NONE_NAMED,
    gpus: int = 0,
) -> Plan:
    """Plan a training: read its data whole, encode its rows, and count its steps.

    Checks the base, that output and Hub can be written, and the nodes if there are several. A run
    that is done needs none of these checks.

    If `fresh`, and the run's folder belongs to another config, data, versions or files of the base,
    plan a new run beside it. If `brief`, read no data of a finished run, and encode no rows.
    `devices` are those that it might run on. `gpus` is the number of GPUs of this machine, if the
    training is to run here.
    """
    if brief:
        finished = find_finished_standing(config)
        if finished:
            return _plan(config, [Check("run", finished.state)], finished)
    model = config.model
    with small_files(model.base, model.revision, config.storage) as small:
        return _plan_unfinished(config, small, fresh, brief, devices, gpus)


def _plan_unfinished(
    config: TrainConfig, small: SmallFiles, fresh: bool, brief: bool, devices: Devices, gpus: int
) -> Plan:
    nodes, cluster = check_value("nodes", _find_nodes)
    starting, started = start_check(config, config.run, small, brief)
    config = started.config if started else config
    pin = started.pin if started else None
    data, examples = check_value("data", lambda: _read_data(config), "data")
    validation = _validation(config, examples) if examples else None
    if examples and started:
        run, standing = check_value(
            "run", lambda: _found(find_standing(config, examples, fresh, small, pin)), "output"
        )
        of_scores = _scores(config, examples, None if brief else devices)
        checks = [data, *contents_checks(config, examples), *of_scores, run]
    elif started and isinstance(data.error, DataError | ConfigError):
        # The data is wrong, so the run cannot have finished with it.
        checks = [data]
        standing = None
    else:
        run, standing = check_value(
            "run", lambda: _found(find_standing_without_data(config)), "output"
        )
        of_contents = contents_checks(config, examples) if examples else []
        checks = [data, *of_contents, run]

    standing = standing or Standing(config.run, "")
    nodes_there = cluster.nodes if cluster else 1
    if started and standing.run != config.run:
        # The run beside it may have begun with another adapter.
        starting, started = start_check(config, standing.run, small, brief)
        config = started.config if started else config
    here = with_processes(config, gpus)
    if not standing.done:
        checks += starting
        begun = standing.prompt or (started.prompt if started else None)
        read = examples if started else None
        checks += _model(here, small, read, brief or not started, begun, nodes_there, devices)
        checks.append(
            check("output", lambda: probe_output(config.output, config.storage), "output")
        )
        adapter = f"{config.output.rstrip('/')}/{standing.run}/adapter"
        scored = len(validation.scoring) if validation else None
        choosing = len(validation.choosing) if validation and validation.is_held_out else 0
        checks += gate_checks(config, adapter, scored, choosing, examples.train if examples else ())
        if cluster != ALONE:
            checks.append(nodes)
        if config.training.distribution == "fsdp":
            checks.append(check_value("processes", lambda: _processes(here, nodes_there))[0])
        if config.publish.hub:
            repository = config.publish.hub
            checks.append(check("hub", lambda: check_hub_access(repository)))
            checks.append(check_value("license", lambda: _license(config))[0])
    if examples and not any(each.name == "steps" for each in checks):
        most = rows_at_most(config, examples)
        steps, _ = check_value(
            "steps", lambda: describe_steps(here, most, nodes_there, is_exact=False)
        )
        checks.append(steps)
    return _plan(config, checks, standing)


def _plan(config: TrainConfig, checks: list[Check], standing: Standing) -> Plan:
    title = f"plan of training run {standing.run}"
    return Plan(
        title,
        checks,
        resolved_yaml(config),
        standing.run,
        standing.done,
        standing.story,
        not_passed=standing.gate,
    )


def _license(config: TrainConfig) -> Found[None]:
    """Return the license that the adapter's card will name, or that none is known."""
    model = config.model
    if config.publish.license is not None:
        return Found(config.publish.license, None)
    found = base_license(model.base, model.revision, config.storage)
    if found is None:
        text = f"not known: {model.base} has no card that names one; set publish.license"
        return Found(text, None, is_known=False)
    return Found(f"{found.id}, that of {model.base}", None)


def _find_nodes() -> Found[Cluster]:
    cluster = find_cluster(os.environ)
    return Found(str(cluster), cluster)


def _processes(config: TrainConfig, nodes: int) -> Found[None]:
    """Return how many processes share the base. Raise ConfigError if there is only one."""
    processes = config.training.processes
    if processes is None:
        text = "not known here: one for each GPU, and to share the base takes two at least"
        return Found(text, None, is_known=False)
    check_distribution(config.training.distribution, processes * nodes)
    return Found(f"{processes * nodes} share the base", None)


def _found(standing: Standing) -> Found[Standing]:
    return Found(standing.state, standing, standing.is_known)


def _model(
    config: TrainConfig,
    small: SmallFiles,
    examples: Examples | None,
    brief: bool,
    begun: Prompt | None,
    nodes: int,
    devices: Devices,
) -> list[Check]:
    """Return the checks of the base, and of what its small files can be asked, wherever it is.

    A training that starts right after its plan, which is `brief`, asks tokenizer and model itself
    before it fetches weights, and logs its rows: a brief plan imports no torch, which takes
    seconds. `begun` is the prompt of a run that has begun.
    """
    model = config.model
    if not brief:
        announce(model.base, model.trust_remote_code)
    base = check(
        "base",
        lambda: describe_base(
            model.base,
            model.revision,
            config.storage,
            config.prompt,
            model.trust_remote_code,
            None if brief else small,
        ),
        "model.base",
    )
    if brief or base.error:
        return [base]
    cleaning = examples.cleaning if examples else ()
    asked, rendered = training_checks(config, small, cleaning, begun)
    checks = [base, *asked]
    if not examples or not rendered:
        return checks
    of_rows, lengths = rows_checks(config, small, examples, rendered, nodes)
    checks += of_rows
    scored = _scored(config, examples)
    if scored:
        prompting = Prompting.of(rendered.prompt, small, config.generation, config.serve)
        checks.append(check_value("prompts", lambda: describe_prompts(scored, prompting))[0])
    if lengths:
        summaries = summaries_to_make(config, examples.scoring)
        files = missing_weights(model.base, model.revision, config.storage, cache_path())
        work = work_of(config, rendered.base, lengths.splits, lengths.steps, summaries, files)
        found = device_checks(config, small, lengths, work, devices, nodes)
        facts = {each.name: each.facts for each in found}
        if facts["memory"]:
            processes = (config.training.processes or 1) * nodes
            store_predictions(config, lengths.identity, processes, facts)
        checks += found
    return checks


def _read_data(config: TrainConfig) -> Found[Examples]:
    """Read the data whole and count it by split. The training on this machine reads it no more."""
    examples = read_examples_once(config)
    return Found("\n".join(counts_lines(examples)), examples, facts=examples.counts())


def _scored(config: TrainConfig, examples: Examples) -> list[Conversation]:
    """Return the conversations that choose and score the adapter, each once."""
    validation = _validation(config, examples)
    choosing = validation.choosing if validation.is_held_out else []
    return [*choosing, *validation.scoring]


def _scores(config: TrainConfig, examples: Examples, devices: Devices | None) -> list[Check]:
    """Return what choosing and scoring need, if the config asks for it.

    If the adapter cannot be scored, a check that warns of it.
    """
    if not config.writes_summaries:
        return [_reward_scores(config, examples)]
    why = why_unscorable(examples.scoring, config.evaluation.max_conversations)
    if why is None:
        options, validation = config.evaluation, examples.scoring
        return [
            *_selection(config, examples),
            *others_checks(options, config.storage, validation),
            *metric_model_checks(options, config.storage, validation, config.data, devices),
        ]
    warning = f"warning: the adapter will be published without scores: {why}"
    return [Check("scores", warning, is_known=False)]


def _reward_scores(config: TrainConfig, examples: Examples) -> Check:
    """Return by how many pairs a reward model will be judged, with a warning if they are few."""
    count = len(examples.scoring)
    most = config.evaluation.max_conversations
    count = count if most is None else min(count, most)
    split = "test" if examples.test else "validation"
    text = f"{number_of(count, 'pair', 'pairs')} of {split} will show if it agrees with people"
    if is_chosen_by_its_pairs(config):
        text += ", and choose its checkpoint, too (that flatters it: name others by data.test)"
    if count >= MIN_CONVERSATIONS:
        return Check("scores", text)
    why = f"fewer than {MIN_CONVERSATIONS} hardly show that anything is better than chance"
    return Check("scores", f"warning: {text}: {why}", is_known=False)


def _selection(config: TrainConfig, examples: Examples) -> list[Check]:
    """Return which conversations choose the adapter, if any do."""
    if config.training.adapter_from != "best_metric":
        return []
    section = config.training.selection
    validation = split_validation(config, examples.scoring)
    who = f"{len(validation.scoring):,} others score it"
    if not validation.is_held_out:
        who = "they score it, too, since there are few: that flatters it a little"
    text = (
        f"{section.metric} of {len(validation.choosing):,} validation conversations chooses among "
        f"at most {section.candidates} adapters; {who}"
    )
    return [Check("selection", text)]


def _validation(config: TrainConfig, examples: Examples) -> Validation:
    try:
        return split_validation(config, examples.scoring)
    except DataError:
        return Validation([], [], is_held_out=True)  # the check of scores says why
