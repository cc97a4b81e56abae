"""The end of a reward training: score its pairs from the disk, report and publish.

A reward model writes no summaries, so there is nothing to compare with references, no gate, and no
champion.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.errors import RecapError, is_out_of_memory
from job.evaluation.card.page import model_card
from job.evaluation.charts import History
from job.evaluation.held_out_pairs import HeldOutPairs, choose_pairs, group_pairs
from job.evaluation.later import REPORT
from job.evaluation.reload import Reload
from job.evaluation.report import ReportContent, write_report
from job.evaluation.result import NotScored
from job.evaluation.reward_pairs import RewardOnPairs, judge_on_pairs
from job.evaluation.worth import Worth
from job.inference.open import model_on_disk
from job.inference.reward import RewardModel, reward_model_of
from job.model.attach import REWARD_MODEL
from job.model.champion import RELOAD
from job.model.kinds import ROW_TOKENS_KEY
from job.model.load import compute_dtype, context_tokens, free_memory, load_base
from job.printable import printable
from job.storage.atomic import write_file
from job.storage.folders import publish_folder
from job.telemetry import event, heartbeat, warn
from job.training.attempt import MAX_CRASHES, CurrentAttempt
from job.training.card_facts import gather_facts
from job.training.plain_load import digest_of_adapter
from job.training.plain_question import ScoredRows
from job.training.prepare import Run
from job.training.publish import (
    commit_adapter,
    or_without,
    plan_and_data,
    publish_tensorboard,
    write_json,
)
from job.training.scoring import adapter_folder, ends_run, serving_wish
from job.training.stop import StopSignal
from job.training.validation import is_chosen_by_its_pairs
from job.training.verify import process_ahead, verify_reward_model

FILE = "reward.json"  # of the adapter and of the report: what the reward model is worth
NO_SCORES = NotScored("a reward model writes no summaries", "")
PAIRS_TO_COMPARE = 5  # after a reload
MAX_PAIRS_ENCODED = 50  # of which those are the shortest


@dataclass(frozen=True)
class _Scored:
    """The result of the written reward model on pairs, and some rows with their scores."""

    found: RewardOnPairs
    rows: ScoredRows


def score_and_publish_reward(attempt: CurrentAttempt, history: History, stop: StopSignal) -> None:
    """Judge the written reward model on pairs, and publish it with the result.

    Raise the errors for which `ends_run` returns True, ReloadError if a fresh process cannot load
    it or scores otherwise.
    """
    folder = adapter_folder(attempt.run)
    with process_ahead(attempt) as process:
        with attempt.timed("evaluate_seconds"), heartbeat("scoring pairs"):
            scored = _score_or_none(attempt, folder, stop)
        free_memory()
        with attempt.timed("publish_seconds"), heartbeat("publishing"):
            rows = None if scored is None else scored.rows
            reload = verify_reward_model(attempt, folder, rows, process)
            _publish(attempt, history, None if scored is None else scored.found, reload)


def _publish(
    attempt: CurrentAttempt, history: History, found: RewardOnPairs | None, reload: Reload | None
) -> None:
    """Commit report, logs and the reward model with what it is worth, if that is known."""
    folder = adapter_folder(attempt.run)
    sentences = [attempt.left_out.get("scores", "")] if found is None else _sentences(found)
    if found is not None:
        write_json(folder / FILE, found.to_json())
        event("reward model", verdict=found.verdict())
        print(printable("\n".join(sentences)), flush=True)
    with or_without("card", attempt):
        card = model_card(gather_facts(attempt, reload, NO_SCORES, sentences), NO_SCORES)
        write_file(folder / "README.md", card.encode())
    with or_without("report", attempt):
        _publish_report(attempt, history, found, sentences)
    with or_without("tensorboard", attempt):
        publish_tensorboard(attempt, history, NO_SCORES)
    facts: dict[str, Any] = {ROW_TOKENS_KEY: _row_tokens(attempt.run)}
    if reload is not None:
        facts[RELOAD] = reload.facts()
    commit_adapter(attempt, facts)


def _score_or_none(attempt: CurrentAttempt, folder: Path, stop: StopSignal) -> _Scored | None:
    """Return what the reward model in a folder is worth, or note why that is not known."""
    if attempt.has_crashed_too_often("scoring"):
        why = f"{MAX_CRASHES} attempts ended while it was scored"
    else:
        with attempt.noting("scoring"):
            try:
                return _score(attempt.run, folder)
            except Exception as error:
                is_ours = isinstance(error, RecapError) or is_out_of_memory(error)
                if ends_run(error, stop) or not is_ours:
                    raise
                why = printable(f"{type(error).__name__}: {error}")
    attempt.left_out["scores"] = f"its pairs were not scored: {why}"
    warn("the reward model is published without its accuracy", why=why)
    return None


def _score(run: Run, folder: Path) -> _Scored:
    """Load the reward model as it was trained, and score the pairs that judge it."""
    config = run.config
    section = serving_wish(config).section.model_copy(
        update={"quantization": config.model.quantization, "dtype": config.model.dtype}
    )
    on_disk = model_on_disk(run.base, folder, None, section)
    base = load_base(run.base, section).eval()
    dtype = compute_dtype(section.dtype)
    model = reward_model_of(base, on_disk, _row_tokens(run), dtype)
    pairs = judging_pairs(run)
    found = judge_on_pairs(model, pairs, config.evaluation.bootstrap_samples)
    found = replace(found, has_chosen=is_chosen_by_its_pairs(config))
    return _Scored(found, _score_some(model, pairs, dtype))


def _score_some(model: RewardModel, pairs: HeldOutPairs, dtype: Any) -> ScoredRows:
    """Return both rows of a few short pairs, with their scores, computed in `dtype`."""
    prompts: list[list[int]] = []
    texts: list[list[int]] = []
    encoded = []
    for pair in pairs.pairs[:MAX_PAIRS_ENCODED]:
        conversation = pairs.conversations[pair.conversation]
        found = model.encode(conversation._replace(answers=pair.answers()))
        if found is not None:
            encoded.append(found)
    encoded.sort(key=lambda each: len(each.prompt_ids))
    for each in encoded[:PAIRS_TO_COMPARE]:
        prompts += [each.prompt_ids] * len(each.answers)
        texts += each.answers
    adapter = digest_of_adapter(model.model, dtype, REWARD_MODEL)
    return ScoredRows(prompts, texts, model.score(prompts, texts), adapter)


def judging_pairs(run: Run) -> HeldOutPairs:
    """Return the pairs of test or validation, of at most `evaluation.max_conversations`."""
    pairs = group_pairs(run.data.examples.scoring)
    return choose_pairs(pairs, run.config.evaluation.max_conversations)


def _row_tokens(run: Run) -> int:
    wanted = run.config.training.max_tokens
    return min(wanted, context_tokens(run.base.path) or wanted)


def _sentences(found: RewardOnPairs) -> list[str]:
    return [found.verdict(), *found.lines()]


def _publish_report(
    attempt: CurrentAttempt, history: History, found: RewardOnPairs | None, sentences: list[str]
) -> None:
    run = attempt.run
    folder = run.work / "report"
    verdict, *numbers = sentences
    worth = Worth("open", verdict)
    if found is not None:
        worth = Worth("good" if found.is_trusted else "bad", verdict, numbers)
    content = ReportContent(
        f"Training run {run.config.run}",
        NO_SCORES,
        history=history,
        weights=attempt.weights_in_memory,
        verdict=worth,
        **plan_and_data(attempt, history),
    )
    write_report(folder, content)
    if found is not None:
        write_json(folder / FILE, found.to_json())
    publish_folder(folder, run.store, REPORT, {})
