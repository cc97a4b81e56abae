"""The demo means something: its tuned base beats all that needs no training.

Half of the demo's steps must do, and what says nothing of the held-out wording is left out. `make
demo` runs it whole.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "demo"


def recap(command: str, *overrides: str) -> None:
    sets = [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        [sys.executable, "-m", "job", command, str(EXAMPLES / f"{command}.yaml"), *sets],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
def test_the_tuned_base_beats_base_and_floors_on_wording_it_never_saw(tmp_path, places):
    recap(
        "train",
        f"model.base={EXAMPLES / 'base'}",
        f"data.train={EXAMPLES / 'train.jsonl'}",
        f"data.validation={EXAMPLES / 'validation.jsonl'}",
        f"output={tmp_path}",
        "training.max_steps=150",
        "training.evaluate_every_steps=150",
        "evaluation.max_conversations=4",
    )
    recap(
        "evaluate",
        f"adapter={tmp_path / 'demo' / 'adapter'}",
        f"input={EXAMPLES / 'heldout.jsonl'}",
        f"train={EXAMPLES / 'train.jsonl'}",
        f"output={tmp_path / 'evaluation'}",
    )
    evaluation = json.loads(
        (tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8")
    )
    assert evaluation["conversations"] == 120
    assert set(evaluation["differences"]) == {"base without adapter", "constant sentence", "lead"}
    for other, difference in evaluation["differences"].items():
        for metric in ("rouge1", "rougeL"):
            assert difference[metric]["mean"]["low"] > 0, (
                f"{metric}: tuned does not beat the {other}: {difference}"
            )
