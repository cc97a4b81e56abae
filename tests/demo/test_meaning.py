"""The demo means something: its tuned base beats all that needs no training, and its gate decides.

Judges what `make demo` left in demo-run/, so that the demo is trained once for its screen and for
this claim.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from job.environment import versions

BUCKET = Path(__file__).parents[2] / "demo-run" / "bucket"

pytestmark = pytest.mark.demo


def left(name: str) -> Any:
    """Return what the demo left at a place of its bucket."""
    return json.loads((BUCKET / name).read_text(encoding="utf-8"))


def test_the_tuned_base_beats_base_and_floors_on_wording_it_never_saw():
    assert (BUCKET / "summaries" / "_SUCCESS").is_file(), "demo-run/ is incomplete: run `make demo`"
    code = left("runs/demo/run.json")["fingerprint"]["versions"]["recap"]
    assert code == versions()["recap"], "demo-run/ is of other code: run `make demo` again"

    evaluation = left("evaluation/evaluation.json")
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


def test_what_passed_its_gate_wrote_the_night():
    gate = left("runs/demo/adapter/gate.json")
    assert gate["passed"]
    assert gate["champion_state"] == "none yet"
    champion = left("champions/demo.json")
    assert champion["adapter"] == "s3://recap-demo/runs/demo/adapter"
    night = left("summaries/manifest.json")["extra"]
    assert night["champion"]["digest"] == champion["digest"]
    parts = sorted((BUCKET / "summaries" / "parts").rglob("*.jsonl"))
    lines = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert {line["adapter"] for line in lines} == {champion["digest"]}


def test_an_adapter_of_too_few_steps_replaced_nobody():
    gate = left("runs/demo-short/adapter/gate.json")
    failed = {check["name"] for check in gate["checks"] if check["passed"] is False}
    assert not gate["passed"]
    assert "no worse than the champion" in failed
    champion = left("champions/demo.json")
    assert champion["version"] == 1
    assert champion["history"] == []
