"""A report with everything in it, and hostile text wherever text from data can stand."""

import math
from dataclasses import replace
from functools import cache

from job.config.gate_sections import GateSection
from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.bootstrap import Interval
from job.evaluation.evaluate import evaluate
from job.evaluation.gate import judge
from job.evaluation.report import ReportContent
from job.evaluation.selection import CandidateScore, SelectionCurve
from job.evaluation.systems import Scored, System
from job.pages.charts import Table
from tests.evaluation.conftest import make_conversations, references_of
from tests.pages.sample import HOSTILE
from tests.serving import SERVING

HISTORY = [
    *(
        {
            "step": step,
            "loss": 1.2 + math.exp(-step / 40),
            "learning_rate": 1e-4 * (1 - step / 200),
            "grad_norm": 0.4 + step % 30 / 100,
            "tokens_per_second": 900.0 + step,
            "memory_gib": 3.5,
        }
        for step in range(10, 201, 10)
    ),
    {"step": 100, "eval_loss": 1.6},
    {"step": 200, "eval_loss": 1.4},
    {"step": 200, "train_runtime": 12.0, "train_loss": 2.0},
]
SELECTION = SelectionCurve(
    "rougeL",
    30,
    True,
    (
        CandidateScore(100, 1.0, 1.6, Interval(0.21, 0.18, 0.24, 30)),
        CandidateScore(200, 2.0, 1.4, Interval(0.26, 0.23, 0.29, 30)),
        CandidateScore(300, 3.0, 1.3, None),
    ),
    chosen=200,
)


@cache
def full_scored() -> Scored:
    """Score a tuned system that invents, a champion, a base and another, in 22 conversations."""
    conversations = make_conversations(21)
    conversations.append(
        Conversation(HOSTILE, (Turn(HOSTILE, HOSTILE),), Source("f", 1), (HOSTILE, "A refund."))
    )
    first = [conversation.references[0] for conversation in conversations]
    tuned = [f"{text} He pays 4711 euros." if row < 3 else text for row, text in enumerate(first)]
    reasons = ["length" if row == 5 else "stop" for row in range(22)]
    last = [conversation.references[-1] for conversation in conversations]
    serving = SERVING.to_json()
    systems = [
        System("tuned", "judged", tuned, reasons, f"s3://bucket/{HOSTILE}", serving),
        System("champion", "champion", last, origin="s3://bucket/champion.json", serving=serving),
        System("base without adapter", "base", ["", *last[1:6], *[HOSTILE] * 16]),
        System(f"hosted {HOSTILE}", "other", [HOSTILE] * 22),
    ]
    options = ScoringSection(bootstrap_samples=100)
    train = references_of(make_conversations(20, seed=1))
    scored = evaluate(systems, conversations, options, train)
    departures = [f"dtype {HOSTILE} here, bfloat16 when it was judged"]
    differences = {
        name: {metric: _of_enough(found) for metric, found in by_metric.items()}
        for name, by_metric in scored.evaluation.differences.items()
    }
    evaluation = replace(scored.evaluation, departures=departures, differences=differences)
    return replace(scored, evaluation=evaluation)


def _of_enough(intervals: dict[str, Interval]) -> dict[str, Interval]:
    """Return the intervals as if there were enough conversations for a gate: a page has room."""
    return {
        name: replace(each, conversations=2 * each.conversations)
        for name, each in intervals.items()
    }


def full_content() -> ReportContent:
    """Return a report of a training with gate, curves, selection and departures."""
    scored = full_scored()
    gate = GateSection(
        better_than=["floors", "base"],
        no_worse_than=["champion"],
        guards={"empty": 0.01, "cut": 0.02, "invented_numbers": 0.05},
    )
    return ReportContent(
        f"Training run {HOSTILE}",
        scored,
        judge(gate, scored.evaluation, (), "compared"),
        HISTORY,
        SELECTION,
        plan=Table(("", "planned", "this run"), [("Optimizer steps", "24", HOSTILE)]),
        data=[("Training", ["conversations: half have at most 7 turns", f"the first: {HOSTILE}"])],
    )
