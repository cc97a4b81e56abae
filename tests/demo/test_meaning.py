"""The demo means something: its tuned base beats all that needs no training.

Half of the demo's steps must do. The validation is nearly left out, since it proves nothing about
the held-out wording. `make demo` runs the demo whole.
"""

from pathlib import Path
from typing import Any

import pytest

from job.config.load import load_config
from job.errors import ExitCode
from job.evaluation.run import run_evaluation
from job.launch.supervisor import run_training
from job.storage.config_file import read_config

EXAMPLES = Path(__file__).parents[2] / "examples" / "demo"


def config_of(command: Any, *overrides: str) -> Any:
    return load_config(command, read_config(str(EXAMPLES / f"{command}.yaml")), overrides)


@pytest.mark.timeout(900)
def test_the_tuned_base_beats_base_and_floors_on_wording_it_never_saw(tmp_path, places):
    rows = (EXAMPLES / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "validation.jsonl").write_text("".join(rows[:8]), encoding="utf-8")
    outcome = run_training(
        config_of(
            "train",
            f"model.base={EXAMPLES / 'base'}",
            f"data.train={EXAMPLES / 'train.jsonl'}",
            f"data.validation={tmp_path / 'validation.jsonl'}",
            f"output={tmp_path}",
            "training.max_steps=150",
            "training.evaluate_every_steps=150",
            "training.sample_summaries=0",
            "evaluation.max_conversations=1",
        )
    )
    assert outcome.exit_code == ExitCode.DONE, outcome.message
    evaluation = run_evaluation(
        config_of(
            "evaluate",
            f"adapter={tmp_path / 'demo' / 'adapter'}",
            f"input={EXAMPLES / 'heldout.jsonl'}",
            f"train={EXAMPLES / 'train.jsonl'}",
            f"output={tmp_path / 'evaluation'}",
        )
    )
    assert evaluation.conversations == 120
    assert set(evaluation.differences) == {"base without adapter", "constant sentence", "lead"}
    for other, difference in evaluation.differences.items():
        for metric in ("rouge1", "rougeL"):
            assert difference[metric]["mean"].low > 0, (
                f"{metric}: tuned does not beat the {other}: {difference}"
            )
