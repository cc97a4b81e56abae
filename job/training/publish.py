"""Publish a trained adapter with its prompt, scores and card; the report; the logs.

Everything is written to local folders first, and then committed by manifest.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.errors import OutputError, RecapError
from job.evaluation.card.page import model_card
from job.evaluation.charts import History
from job.evaluation.contest import verdict_of
from job.evaluation.gate import write_gate
from job.evaluation.later import REPORT
from job.evaluation.reload import Reload
from job.evaluation.report import ReportContent, write_report
from job.evaluation.result import Evaluation, NotScored
from job.evaluation.selection import SelectionCurve
from job.evaluation.systems import Scored
from job.evaluation.table import score_table
from job.inference.choose import expected_serving
from job.inference.open import FetchedModel
from job.inference.serving import Serving, write_serving
from job.model.adapter import save_adapter
from job.model.champion import RELOAD
from job.model.fetch import BASE_KEY
from job.model.kinds import METHOD_KEY
from job.printable import printable
from job.prompt.seen_tokens import SeenTokens, write_seen_tokens
from job.prompt.template import write_prompt
from job.storage.atomic import write_file
from job.storage.folders import publish_folder
from job.telemetry import event, progress, warn
from job.training.attempt import CurrentAttempt
from job.training.batchings import batchings_lines, batchings_of, chosen_way
from job.training.card_facts import gather_facts
from job.training.data_report import data_sections
from job.training.plan_report import Measured, comparison, device_name
from job.training.planned_steps import planned_steps
from job.training.prepare import Run
from job.training.ranks import is_first
from job.training.rows import prompt_ids_of
from job.training.scoring import adapter_folder, serving_wish
from job.training.sharding import trained_weights
from job.training.start import FACT as START
from job.training.tensorboard import publish_results, sync_tensorboard
from job.training.trainer import RecapTrainer


def write_adapter(run: Run, trainer: RecapTrainer) -> None:
    """Write the adapter to the local disk, so that no later failure can reach its weights.

    Collective if the model is sharded. Only rank 0 writes.
    """
    weights = trained_weights(trainer.model) if trainer.is_fsdp_enabled else None
    if not is_first():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_adapter(model, run.tokenizer, run.base, adapter_folder(run), weights)
    write_prompt(adapter_folder(run), run.data.prompt)
    seen = SeenTokens.of(prompt_ids_of(run.data.rows.train.dataset))
    before = run.start.seen if run.start else None
    write_seen_tokens(adapter_folder(run), seen.with_those_of(before))


def publish(
    attempt: CurrentAttempt, history: History, result: Scored | NotScored, reload: Reload | None
) -> None:
    """Commit report, logs and the written adapter, which was reloaded, to storage.

    Notes in `attempt` what was published and what was left out. Prints the score table.
    """
    if isinstance(result, NotScored):
        attempt.left_out["scores"] = result.detail
        warn("the adapter is published without scores", why=result.detail)
    write_findings(attempt, scores_of(result), reload)

    # The adapter last: whoever finds it finds its report and logs, too.
    publish_scores(attempt, history, result, {})
    commit_adapter(attempt, {} if reload is None else {RELOAD: reload.facts()})


def commit_adapter(attempt: CurrentAttempt, more: Mapping[str, Any]) -> None:
    """Commit the written adapter to storage, with its facts and `more` in its manifest."""
    run = attempt.run
    adapter = adapter_folder(run)
    facts = {
        BASE_KEY: run.base.identity(),
        "run": run.config.run,
        "fingerprint": run.identity()["fingerprint"],
        METHOD_KEY: run.config.method,
    }
    if run.start:
        facts[START] = run.start.pin.facts()
    with progress("publishing the adapter", _size(adapter), "B") as bar:
        publish_folder(adapter, run.store, "adapter", {**facts, **more}, bar.advance)
    attempt.published["adapter"] = f"{run.store.uri}/adapter"
    event("adapter", uri=attempt.published["adapter"])


def write_findings(
    attempt: CurrentAttempt, scores: Evaluation | NotScored, reload: Reload | None
) -> None:
    """Write to the local adapter what was found out about it: scores, verdict, settings, card.

    Notes in `attempt` what was left out.
    """
    run = attempt.run
    adapter = adapter_folder(run)
    if isinstance(scores, Evaluation):
        with or_without("evaluation.json", attempt):
            write_json(adapter / "evaluation.json", _without_texts(scores))
    write_gate(adapter, verdict_of(scores, run.config))  # a later attempt may promote by it
    with or_without("serving.json", attempt):
        _write_serving(run, adapter, scores)
    with or_without("card", attempt):
        card = model_card(gather_facts(attempt, reload, scores), scores)
        write_file(adapter / "README.md", card.encode())


def publish_scores(
    attempt: CurrentAttempt,
    history: History,
    result: Scored | NotScored,
    about: Mapping[str, Any],
) -> None:
    """Commit the report and the logs to storage, and print the score table.

    `about` is for the report's manifest. Notes in `attempt` what was left out.
    """
    with or_without("report", attempt):
        _publish_report(attempt, history, result, about)
    with or_without("tensorboard", attempt):
        publish_tensorboard(attempt, history, result)
    if isinstance(result, Scored):
        _print_scores(result.evaluation)


@contextmanager
def or_without(name: str, attempt: CurrentAttempt) -> Iterator[None]:
    """Leave out what the block fails to make: note it in `attempt`, and warn.

    Raises what would keep the adapter from storage as well: no connection, no permission, a lost
    lease.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RecapError) and not isinstance(error, OutputError):
            raise
        attempt.left_out[name] = printable(f"{type(error).__name__}: {error}")
        warn(f"the adapter is published without its {name}", why=attempt.left_out[name])


def scores_of(result: Scored | NotScored) -> Evaluation | NotScored:
    """Return the scores, or the reason why there are none."""
    return result.evaluation if isinstance(result, Scored) else result


def _publish_report(
    attempt: CurrentAttempt,
    history: History,
    result: Scored | NotScored,
    about: Mapping[str, Any],
) -> None:
    """Write and commit the report."""
    run = attempt.run
    folder = run.work / "report"
    title = f"Training run {run.config.run}"
    content = ReportContent(
        title,
        result,
        verdict_of(result, run.config),
        history=history,
        selection=_selection(attempt),
        weights=attempt.weights_in_memory,
        **plan_and_data(attempt, history),
    )
    write_report(folder, content)
    if isinstance(result, Scored):
        write_json(folder / "evaluation.json", result.evaluation.to_json())
    write_gate(folder, verdict_of(result, run.config))
    publish_folder(folder, run.store, REPORT, about)


def plan_and_data(attempt: CurrentAttempt, history: History) -> dict[str, Any]:
    """Return the report's values `plan` and `data`."""
    run = attempt.run
    section = run.config.training
    train = run.data.rows.train
    shares_prompts = bool(attempt.rows.get("pairs_share_prompts"))
    batchings = batchings_of(train, section, run.processes, run.config.method, shares_prompts)
    chosen = chosen_way(section)
    (rows,) = [each.rows for each in batchings if each.way == chosen]
    # `processes` are those of one machine, and the run's those of all.
    alone = run.config.model_copy(
        update={"training": section.model_copy(update={"processes": run.processes})}
    )
    steps = planned_steps(alone, rows, nodes=1)
    measured = Measured(attempt.step, history, attempt.timings, device_name())
    lines = batchings_lines(batchings, chosen)
    sections = data_sections(run.config, run.data.examples, run.data.rows, lines)
    if run.start:
        sections.insert(0, ("Started from", [run.start.pin.sentence()]))
    return {
        "plan": comparison(steps, batchings[0].tokens, run.data.predictions, measured),
        "data": sections,
    }


def publish_tensorboard(
    attempt: CurrentAttempt, history: History, result: Scored | NotScored
) -> None:
    """Commit the logs, with the results of the run."""
    step = attempt.published_step()
    published: dict[str, float] = {"step": step}
    for entry in history:
        if entry.get("step") == step and "eval_loss" in entry:
            published = dict(entry)
    sync_tensorboard(attempt.run)
    publish_results(attempt.run, published, result, _selection(attempt))


def _selection(attempt: CurrentAttempt) -> SelectionCurve | None:
    return SelectionCurve.from_json(attempt.selection) if attempt.selection else None


def _write_serving(run: Run, adapter: Path, scores: Evaluation | NotScored) -> None:
    """Write how the adapter was served when it was scored, or is to be served if it was not."""
    if isinstance(scores, Evaluation):
        judged = scores.systems[scores.judged].serving
        write_serving(adapter, Serving.from_json(judged), is_judged=True)
        return
    wish = serving_wish(run.config)
    model = FetchedModel(run.base, adapter, None, run.tokenizer, run.data.prompt)
    write_serving(adapter, expected_serving(model, wish), is_judged=False)


def _print_scores(evaluation: Evaluation) -> None:
    try:
        print(printable(score_table(evaluation)), flush=True)
    except Exception as error:
        # Nobody reads the output any more, or its encoding is ASCII. The adapter is published.
        warn("the scores could not be printed: the report has them", why=str(error))


def _size(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _without_texts(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as JSON without any words of customers or annotators.

    An adapter may be copied to places where the data may not.
    """
    plain = evaluation.to_json()
    for system in plain["systems"].values():
        system["most_common"] = ""
        if system["kind"] not in ("floor", "human"):
            system["origin"] = ""  # may name a bucket
    return plain


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of JSON for programs and people."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_file(path, f"{text}\n".encode())
