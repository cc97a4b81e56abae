"""The verdict of a report, on made-up differences."""

import pytest

from job.evaluation.bootstrap import Interval
from job.evaluation.gate import Check, GateResult
from job.evaluation.result import Evaluation, Kind, Lengths, SystemResult
from job.evaluation.worth import worth

KINDS: dict[str, Kind] = {
    "tuned": "judged",
    "champion": "champion",
    "base without adapter": "base",
    "hosted": "other",
    "constant sentence": "floor",
    "lead-2": "floor",
    "human": "human",
}


def evaluation(conversations: int = 100, **differences: tuple[float, float]) -> Evaluation:
    """Return an evaluation with the bounds of the judged system's differences to others."""
    words = Lengths(20, 10, 20, 30)
    named = {name.replace("_", " "): bounds for name, bounds in differences.items()}
    systems, found = {}, {}
    for name, (low, high) in {"tuned": (0.0, 0.0), **named}.items():
        name = name.replace("lead 2", "lead-2")
        mean = 0.3 - (low + high) / 2
        scores = {"rougeL": {"mean": Interval(mean, mean - 0.02, mean + 0.02, conversations)}}
        systems[name] = SystemResult(KINDS[name], "", None, conversations, scores, words, "", 0.0)
        if name != "tuned":
            by = Interval((low + high) / 2, low, high, conversations)
            found[name] = {"rougeL": {"mean": by}}
    return Evaluation(
        "tuned", systems, found, conversations, 0, conversations, 0, words, 100, 0, {}, "words"
    )


FLOORS = {"constant_sentence": (0.1, 0.2), "lead_2": (0.05, 0.1)}
AHEAD, EVEN, BEHIND = (0.02, 0.06), (-0.02, 0.04), (-0.06, -0.02)


@pytest.mark.parametrize(
    ("differences", "kind", "start"),
    [
        ({}, "good", "Worth using: tuned beats lead-2 by 0.075 [0.050, 0.100] in ROUGE-L."),
        ({"base_without_adapter": AHEAD}, "good", "Worth using: tuned beats base without adapter"),
        (
            {"champion": AHEAD},
            "good",
            "Worth using: tuned beats the champion by 0.040 [0.020, 0.060]",
        ),
        ({"lead_2": EVEN}, "bad", "Not worth using: tuned cannot be told apart from lead-2"),
        ({"base_without_adapter": EVEN}, "bad", "Not worth using: tuned cannot be told apart from"),
        ({"champion": EVEN}, "open", "No reason to switch yet: tuned cannot be told apart from"),
        ({"champion": BEHIND}, "bad", "Keep the champion: tuned loses to the champion by 0.040"),
        ({"hosted": BEHIND}, "bad", "Keep hosted: tuned loses to hosted by 0.040 [0.020, 0.060]"),
        ({"human": BEHIND}, "good", "Worth using: tuned beats lead-2"),
        # A loss is told before a tie.
        (
            {"constant_sentence": EVEN, "lead_2": BEHIND},
            "bad",
            "Not worth using: tuned loses to lead-2",
        ),
        (
            {"constant_sentence": EVEN, "base_without_adapter": BEHIND, "champion": BEHIND},
            "bad",
            "Not worth using: tuned loses to base without adapter",
        ),
        ({"hosted": EVEN, "champion": BEHIND}, "bad", "Keep the champion: tuned loses to"),
        # What hardly reads decides before everything else.
        ({"champion": BEHIND, "lead_2": BEHIND}, "bad", "Not worth using: tuned loses to lead-2"),
        ({"champion": BEHIND, "lead_2": EVEN}, "bad", "Not worth using: tuned cannot be told"),
    ],
)
def test_comparisons_decide_where_there_is_no_gate(differences, kind, start) -> None:
    found = worth(evaluation(**{**FLOORS, **differences}))
    assert found.kind == kind
    assert found.sentence.startswith(start)


def test_a_few_conversations_or_no_rivals_decide_nothing() -> None:
    few = worth(evaluation(39, **FLOORS))
    assert (few.kind, few.sentence) == (
        "open",
        "Nobody can tell: 39 conversations are too few (at least 40).",
    )
    one = worth(evaluation(1, **FLOORS)).sentence
    assert one == "Nobody can tell: 1 conversation is too few (at least 40)."
    assert worth(evaluation()).kind == "open"


def test_the_context_has_people_and_what_the_metric_is() -> None:
    context = worth(evaluation(**FLOORS, human=BEHIND)).context
    assert context[0] == "It beats lead-2 and the constant sentence."
    assert context[1] == (
        "Beside people: tuned loses to the human references by 0.040 [0.020, 0.060] in ROUGE-L."
    )
    assert context[-1].startswith("ROUGE-L: F-measure of")


@pytest.mark.parametrize("differences", [{"lead_2": AHEAD}, {**FLOORS, "champion": EVEN}])
def test_the_context_names_who_is_beaten_only_if_all_of_several_are(differences) -> None:
    assert not worth(evaluation(**differences)).context[0].startswith("It beats")


def test_of_a_metric_of_which_less_is_better_the_strongest_floor_has_least() -> None:
    found = evaluation(**FLOORS)
    tables = [system.scores for system in found.systems.values()]
    for scores in (*tables, *found.differences.values()):
        scores["empty"] = scores["rougeL"]
    passed = GateResult(True, "tuned", "empty", 100, "not named")
    # 0.15 of the constant sentence, 0.22 of lead-2
    assert "tuned loses to the constant sentence" in worth(found, passed).sentence


def check(name: str, rule: str, passed: bool | None, metric: str = "rougeL") -> Check:
    return Check(name, "champion", metric, rule, 0.0, passed, name)


def test_the_verdict_of_a_gate_stands() -> None:
    found = evaluation(**FLOORS, champion=AHEAD)
    checks = [check("no worse than the champion", "no worse", True), check("x", "guard", None)]
    passed = worth(found, GateResult(True, "tuned", "rougeL", 100, "compared", None, checks))
    assert passed.kind == "good"
    assert passed.sentence == (
        "Worth using: tuned passed all checks of its gate (1); tuned beats the champion by "
        "0.040 [0.020, 0.060] in ROUGE-L."
    )
    checks.append(check("invented_numbers, against the champion", "guard", False, "empty"))
    failed = worth(found, GateResult(False, "tuned", "rougeL", 100, "compared", None, checks))
    assert failed.kind == "bad"
    assert "tuned failed 1 of 2 checks of its gate (empty)" in failed.sentence
    nothing = GateResult(False, "tuned", "rougeL", 0, "not named", reason="it has no opponent")
    assert worth(found, nothing).sentence == "Not worth using yet: it has no opponent."
