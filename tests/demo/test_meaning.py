"""The demo means something: its tuned base beats all that needs no training.

Judges what `make demo` left in demo-run/, so that the demo is trained once for its screen and for
this claim.
"""

import json
from pathlib import Path

import pytest

from job.environment import versions

BUCKET = Path(__file__).parents[2] / "demo-run" / "bucket"

pytestmark = pytest.mark.demo


def test_the_tuned_base_beats_base_and_floors_on_wording_it_never_saw():
    assert (BUCKET / "summaries" / "_SUCCESS").is_file(), "demo-run/ is incomplete: run `make demo`"
    run = json.loads((BUCKET / "runs" / "demo" / "run.json").read_text(encoding="utf-8"))
    code = run["fingerprint"]["versions"]["recap"]
    assert code == versions()["recap"], "demo-run/ is of other code: run `make demo` again"

    path = BUCKET / "evaluation" / "evaluation.json"
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    assert evaluation["conversations"] == 120
    differences = evaluation["differences"]
    others = {"base without adapter", "constant sentence", "lead-2", "first and last turn"}
    assert set(differences) == {*others, "human"}
    for other in others:
        difference = differences[other]
        for metric in ("rouge1", "rougeL"):
            assert difference[metric]["mean"]["low"] > 0, (
                f"{metric}: tuned does not beat the {other}: {difference}"
            )
