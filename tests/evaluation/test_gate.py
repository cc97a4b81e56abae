"""Claims about the gate, on made-up records: each rule by the direction of its metric."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from job.config.commands import TrainConfig
from job.config.gate_mistakes import resolved_gate
from job.config.gate_sections import DEFAULT_GUARDS, MIN_CONVERSATIONS, GateSection
from job.errors import DamagedError
from job.evaluation.bootstrap import Interval
from job.evaluation.gate import GateResult, OlderSet, judge, not_scored
from job.evaluation.gate_screen import gate_screen
from job.evaluation.metrics.all_metrics import metric_named
from job.evaluation.reload import Reload, waits_for_reload, with_reload
from job.evaluation.result import Evaluation, Lengths, SystemResult

ROOT = Path(__file__).parents[2]
NAN = float("nan")
KINDS = {
    "tuned": "judged",
    "base without adapter": "base",
    "champion": "champion",
    "vendor": "other",
    "constant sentence": "floor",
    "lead-2": "floor",
    "human": "human",
}
BETTER = (0.05, 0.03, 0.07)
UNCLEAR = (0.01, -0.005, 0.025)
SLIGHTLY_WORSE = (-0.002, -0.008, 0.004)
WORSE = (-0.05, -0.07, -0.03)
SAME = (0.0, 0.0, 0.0)
GATE = GateSection(
    better_than=["floors", "base"], no_worse_than=["champion"], guards={"empty": 0.01}
)


def interval(bounds, conversations=100):
    return {"mean": Interval(*bounds, conversations)}


def evaluation(gains=None, empty=SAME, conversations=100, **changes):
    """Return an evaluation with the judged system's ROUGE-L minus that of each other system.

    `gains` may leave systems out; `empty` is the difference of empty shares to each.
    """
    gains = {name: BETTER for name in KINDS if name != "tuned"} if gains is None else gains
    words = Lengths(10.0, 8.0, 10.0, 12.0)
    scores = {
        "rougeL": interval((0.4, 0.35, 0.45), conversations),
        "empty": interval((0.02, 0.0, 0.05), conversations),
    }
    systems = {
        name: SystemResult(
            KINDS.get(name, "other"), "", None, conversations, scores, words, "", 0.1
        )
        for name in ("tuned", *gains)
    }
    differences = {
        name: {"rougeL": interval(bounds, conversations), "empty": interval(empty, conversations)}
        for name, bounds in gains.items()
    }
    made = Evaluation(
        judged="tuned",
        systems=systems,
        differences=differences,
        conversations=conversations,
        conversations_without_reference=0,
        references=conversations,
        unreadable_references=0,
        reference_words=words,
        bootstrap_samples=1000,
        seed=0,
        versions={},
        tokenizer="",
    )
    return replace(made, **changes)


def with_gain(**gains):
    """Return the evaluation of an adapter that beats everybody but those named (_ is a space)."""
    known = {name: BETTER for name in KINDS if name != "tuned"}
    return evaluation(known | {name.replace("_", " "): gain for name, gain in gains.items()})


def failed(result):
    return [check.name for check in result.failures]


def test_who_beats_every_opponent_passes():
    result = judge(GATE, evaluation(), champion_state="compared", champion="ab" * 32)
    assert result.passed
    assert [check.name for check in result.checks] == [
        "better than the constant sentence",
        "better than lead-2",
        "better than base without adapter",
        "no worse than the champion",
        "Empty, against the champion",
    ]
    assert result.verdict() == "tuned passed the gate: 5 checks on 100 conversations"
    assert result.checks[-1].sentence == (
        "Empty: tuned is no worse than the champion (at most 0.01 allowed)"
    )


@pytest.mark.parametrize(
    ("gains", "fails"),
    [
        ({"constant sentence": UNCLEAR}, ["better than the constant sentence"]),
        ({"base without adapter": SAME}, ["better than base without adapter"]),
        ({"base without adapter": (0.02, 0.0, 0.04)}, ["better than base without adapter"]),
        ({"champion": SLIGHTLY_WORSE}, []),
        ({"champion": SAME}, []),
        ({"champion": (0.0, -0.01, 0.01)}, []),
        ({"champion": (0.0, -0.011, 0.011)}, ["no worse than the champion"]),
        ({"champion": WORSE}, ["no worse than the champion"]),
        ({"vendor": WORSE, "human": WORSE}, []),
    ],
)
def test_better_is_above_zero_and_no_worse_above_the_margin(gains, fails):
    made = with_gain(**{name.replace(" ", "_"): gain for name, gain in gains.items()})
    result = judge(GATE, made, champion_state="compared")
    assert failed(result) == fails
    assert result.passed == (not fails)


def test_of_a_metric_of_which_less_is_better_less_is_a_gain():
    gate = GateSection(metric="empty", better_than=["base"], no_worse_than=[], guards={})
    assert judge(gate, evaluation(empty=(-0.1, -0.2, -0.05))).passed
    assert not judge(gate, evaluation(empty=(0.1, 0.05, 0.2))).passed
    (check,) = judge(gate, evaluation(empty=(-0.1, -0.2, -0.05))).checks
    assert (check.value, check.low, check.high) == (0.1, 0.05, 0.2)


@pytest.mark.parametrize(
    ("difference", "passes"),
    [
        ((0.01, 0.0, 0.03), True),  # one of 100 more is empty
        ((0.02, 0.0, 0.05), False),
        ((-0.3, -0.4, -0.2), True),
    ],
)
def test_a_guard_goes_by_the_mean(difference, passes):
    result = judge(GATE, evaluation(empty=difference), champion_state="compared")
    assert result.passed == passes
    assert failed(result) == ([] if passes else ["Empty, against the champion"])


def test_without_a_champion_a_guard_compares_with_people():
    gains = {"base without adapter": BETTER, "lead-2": BETTER, "human": WORSE}
    result = judge(GATE, evaluation(gains), champion_state="none yet")
    assert result.checks[-1].name == "Empty, against the human references"
    assert result.passed


def test_a_guard_without_a_value_of_people_compares_with_the_best_value():
    made = evaluation({"lead-2": BETTER, "human": WORSE})
    made.differences["human"].pop("empty")
    gate = GATE.model_copy(update={"better_than": ["floors"]})
    (check,) = judge(gate, made, champion_state="none yet").failures
    assert check.name == "Empty, against its best value", "people have none"
    assert check.sentence == (
        "Empty: tuned is 0.020 from the best value that there is (at most 0.01 allowed)"
    )
    loose = gate.model_copy(update={"guards": {"empty": 0.02}})
    assert judge(loose, made, champion_state="none yet").passed


def test_the_best_value_of_a_metric_of_which_more_is_better_is_its_highest():
    made = evaluation({"lead-2": BETTER, "human": WORSE})
    made.differences["human"].pop("rougeL")
    gate = GATE.model_copy(update={"better_than": ["floors"], "guards": {"rougeL": 0.5}})
    (check,) = judge(gate, made, champion_state="none yet").failures
    assert (check.value, check.low, check.high) == pytest.approx((-0.6, -0.65, -0.55))


def against(empty_of_champion, empty_of_people):
    """Return an evaluation with the differences of empty shares to the champion and to people."""
    made = evaluation()
    for name, bounds in (("champion", empty_of_champion), ("human", empty_of_people)):
        made.differences[name]["empty"] = interval(bounds)
    return made


@pytest.mark.parametrize(
    ("champion", "people", "passes", "from_"),
    [
        ((0.01, 0.0, 0.02), (0.01, 0.0, 0.02), True, 0.01),
        ((0.01, 0.0, 0.02), (-0.05, -0.1, 0.0), True, 0.01),  # people leave more empty
        ((0.004, 0.0, 0.02), (0.01, 0.0, 0.02), True, 0.004),
        ((0.01, 0.0, 0.02), (0.014, 0.0, 0.02), False, 0.006),
        ((0.01, 0.0, 0.02), (0.05, 0.0, 0.1), False, 0.0),
        ((0.0, 0.0, 0.0), (0.05, 0.0, 0.1), True, 0.0),  # no worse than what serves now
        ((-0.02, -0.04, 0.0), (0.05, 0.0, 0.1), True, 0.0),
    ],
)
def test_small_steps_down_do_not_add_up(champion, people, passes, from_):
    (check,) = judge(
        GATE.model_copy(update={"better_than": [], "no_worse_than": []}),
        against(champion, people),
        champion_state="compared",
    ).checks
    assert (check.passed, check.margin) == (passes, from_)
    assert ("has used" in check.sentence) == (from_ < 0.01)


def test_what_people_have_no_value_of_has_its_best_value_as_a_limit():
    made = against((0.005, 0.0, 0.02), SAME)
    made.differences["human"].pop("empty")  # 0.02 of tuned are empty, of the champion 0.015
    (check,) = judge(GATE, made, champion_state="compared").failures
    assert check.margin == 0
    assert "beside the best there is" in check.sentence


def test_what_champions_lost_before_is_taken_from_the_margin():
    made = with_gain(champion=SLIGHTLY_WORSE)  # -0.008 at the least
    older = [OlderSet("billing", made)]

    def judged(lost):
        return judge(GATE, made, older, "compared", lost=lost)

    name = "no worse than the champion"
    assert judged({}).passed
    assert judged({name: 0.002, "older set billing": 0.002}).passed
    (check,) = judged({name: 0.003}).failures
    assert (check.name, check.margin) == (name, 0.007)
    assert check.sentence.endswith("from -0.007, as 0.003 were lost before")
    assert failed(judged({"older set billing": 0.02})) == ["older set billing"]
    (check,) = judged({name: 0.02}).failures
    assert check.margin == 0, "more is not demanded than to be no worse"


def test_the_first_champion_is_compared_with_all_but_a_champion():
    gains = {name: BETTER for name in KINDS if name not in ("tuned", "champion")}
    older = [OlderSet("billing", None)]
    result = judge(GATE, evaluation(gains), older, champion_state="none yet")
    assert result.passed
    untold = [check for check in result.checks if check.passed is None]
    assert [check.sentence for check in untold] == [
        "no worse than the champion: there is no champion yet: this would be the first",
        "older set billing: there is no champion yet: this would be the first",
    ]
    assert result.verdict() == "tuned passed the gate: 4 checks on 100 conversations"


def test_nobody_becomes_the_first_champion_without_any_comparison():
    gate = GateSection(better_than=[], no_worse_than=["champion"], guards={})
    result = judge(gate, evaluation({"human": WORSE}), champion_state="none yet")
    assert not result.passed
    assert "there was nobody to compare it with" in result.verdict()


def test_the_champion_itself_passes_though_its_gate_names_nobody_else():
    gate = GateSection(better_than=[], no_worse_than=["champion"], guards={})
    result = judge(gate, evaluation({"human": WORSE}), champion_state="itself")
    assert result.verdict() == "tuned passed the gate: it is the champion already"
    failing = gate.model_copy(update={"better_than": ["floors"]})
    made = evaluation({"lead-2": UNCLEAR, "human": WORSE})
    assert not judge(failing, made, champion_state="itself").passed


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("invented_names", "where nouns are capitalized, as in German, or the script has no"),
        ("speaker_swaps", "where one of the roles customer and agent is missing, or no sentence"),
    ],
)
def test_a_guard_without_values_says_why_and_what_to_do(name, why):
    gate = GATE.model_copy(update={"no_worse_than": [], "guards": {name: 0.1}})
    result = judge(gate, evaluation())
    (check,) = result.failures
    assert check.sentence.startswith("this guard cannot be used on these conversations: no value")
    assert why in check.sentence
    screen = " ".join(gate_screen(result, "adapter", None).split())
    assert "Remove a guard that cannot be used here from publish.gate.guards." in screen
    assert "Read the summaries that a guard counts" not in screen
    gate = gate.model_copy(update={"metric": name, "better_than": ["base"], "guards": {}})
    (compared,) = judge(gate, evaluation()).failures
    assert why in compared.sentence


def test_a_file_of_summaries_is_not_trained_longer():
    result = judge(GATE, with_gain(champion=WORSE), champion_state="compared")
    assert "Train longer" in gate_screen(result, "adapter", None)
    screen = gate_screen(replace(result, judged="given file"), "given.jsonl", None)
    assert "Train longer" not in screen
    assert "examples of what the author of the summaries could do better" in screen


@pytest.mark.parametrize("state", ["compared", "not named"])
def test_an_opponent_that_was_not_scored_is_not_beaten(state):
    gains = {name: BETTER for name in KINDS if name not in ("tuned", "champion")}
    result = judge(GATE, evaluation(gains), champion_state=state)
    assert failed(result) == ["no worse than the champion"]


@pytest.mark.parametrize("bounds", [(NAN, NAN, NAN), (0.1, NAN, 0.2)])
def test_nan_never_passes(bounds):
    result = judge(GATE, with_gain(champion=bounds), champion_state="compared")
    assert failed(result) == ["no worse than the champion"]
    assert not result.passed


def test_an_unknown_metric_never_passes():
    gate = GATE.model_copy(update={"metric": "bleu", "guards": {"nonsense": 1.0}})
    result = judge(gate, evaluation(), champion_state="compared")
    assert len(result.failures) == len(result.checks)


def test_a_metric_without_a_better_direction_never_passes():
    made = evaluation()
    for differences in made.differences.values():
        differences["coverage"] = interval(BETTER)
    gate = GATE.model_copy(update={"metric": "coverage", "guards": {"coverage": 1.0}})
    result = judge(gate, made, champion_state="compared")
    assert len(result.failures) == len(result.checks)


def test_too_few_conversations_never_pass():
    few = evaluation(conversations=MIN_CONVERSATIONS - 1)
    result = judge(GATE, few, champion_state="compared")
    assert not result.passed
    assert result.failures[0].sentence.endswith("of 39 conversations; fewer than 40 never pass")
    enough = evaluation(conversations=MIN_CONVERSATIONS)
    assert judge(GATE, enough, champion_state="compared").passed


def test_all_other_systems_and_single_ones_can_be_opponents():
    for name in ("others", "vendor"):
        gate = GateSection(better_than=[name], no_worse_than=[], guards={})
        (check,) = judge(gate, evaluation()).checks
        assert (check.opponent, check.passed) == ("vendor", True)


def test_an_older_set_must_not_fall_behind_the_champion():
    sets = [
        OlderSet("billing", with_gain(champion=SLIGHTLY_WORSE)),
        OlderSet("travel", with_gain(champion=WORSE)),
        OlderSet("small", evaluation(conversations=39)),
        OlderSet("gone", None, "2025.jsonl does not exist"),
    ]
    result = judge(GATE, evaluation(), sets, champion_state="compared")
    assert failed(result) == ["older set travel", "older set small", "older set gone"]
    assert "2025.jsonl does not exist" in result.failures[-1].sentence


def test_an_adapter_without_scores_did_not_pass():
    result = not_scored("tuned", GATE, "the memory was too small")
    assert not result.passed
    screen = gate_screen(result, "s3://b/run/adapter", "s3://b/champion.json")
    assert "tuned did not pass the gate: it has no scores: the memory was too small." in screen
    assert "`recap evaluate` or `recap submit` with adapter: s3://b/run/adapter" in " ".join(
        screen.split()
    )


@pytest.mark.parametrize(
    ("reload", "waits", "remedy"),
    [
        (Reload("not verified", why="no memory"), True, "Run the training again where"),
        (Reload("different", why="x"), False, "please report it with the log"),
        (Reload("not loaded", why="x"), False, "please report it with the log"),
    ],
)
def test_only_an_adapter_of_which_nothing_is_known_waits_for_a_reload(reload, waits, remedy):
    judged = judge(GATE, evaluation(), champion_state="compared")
    assert not waits_for_reload(judged)
    verdict = with_reload(judged, reload, is_demanded=True)
    assert (verdict.passed, waits_for_reload(verdict)) == (False, waits)
    screen = gate_screen(verdict, "/runs/a", "/c.json")
    assert remedy in screen
    assert ("recap champion set" in screen) == waits, "nobody lets a broken adapter serve"
    assert "by plain  in" not in screen
    assert with_reload(judged, reload, is_demanded=False).passed


def test_swapping_two_systems_flips_the_verdict():
    gate = GateSection(better_than=["others"], no_worse_than=[], guards={})
    forward = evaluation({"vendor": BETTER, "human": WORSE})
    backward = evaluation({"vendor": WORSE, "human": WORSE})
    assert judge(gate, forward).passed
    assert not judge(gate, backward).passed


def test_the_result_is_the_same_from_its_file():
    made = with_gain(champion=WORSE)
    result = judge(GATE, made, champion_state="compared", champion="ab" * 32)
    assert GateResult.from_json(result.to_json()) == result
    with pytest.raises(DamagedError, match="evaluate again"):
        GateResult.from_json({"passed": True})


def test_the_screen_says_verdict_reasons_and_remedies_in_few_lines():
    made = evaluation(
        {
            "constant sentence": BETTER,
            "lead-2": UNCLEAR,
            "base without adapter": BETTER,
            "champion": WORSE,
            "human": WORSE,
        },
        empty=(0.03, 0.0, 0.06),
    )
    result = judge(GATE, made, [OlderSet("billing", None, "it is gone")], "compared")
    screen = gate_screen(result, "s3://b/run/adapter", "s3://b/champion.json")
    assert screen.splitlines() == [
        "tuned did not pass the gate: 4 of 6 checks on 100 conversations failed.",
        "",
        "                                                       gain  95% interval      must be",
        "",
        "  ✓  better than the constant sentence               +0.050  [+0.030, +0.070]  above 0",
        "  ✗  better than lead-2                              +0.010  [-0.005, +0.025]  above 0",
        "  ✓  better than base without adapter                +0.050  [+0.030, +0.070]  above 0",
        "  ✗  no worse than the champion                      -0.050  [-0.070, -0.030]  from -0.01",
        "  ✗  Empty, against the champion                     -0.030  [-0.060, +0.000]  "
        "mean from -0.01",
        "  ✗  older set billing",
        "     it is gone",
        "",
        "  What serves is unchanged. What to do:",
        "  - More conversations make the intervals narrower: raise evaluation.max_conversations, "
        "or add test",
        "    data.",
        "  - Train longer, or on more or better references; the report has examples.",
        "  - Read the summaries that a guard counts: the report lists the worst.",
        "  - If it should serve in spite of this, a person decides:",
        "      recap champion set s3://b/champion.json s3://b/run/adapter",
    ]
    assert max(map(len, screen.splitlines())) <= 100


def gate_of(section):
    config = {"run": "r", "model": {"base": "b"}, "data": {"train": "t"}, "output": "o"}
    return resolved_gate(TrainConfig.model_validate(config | {"publish": section}))


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md"])
def test_a_screen_on_a_page_has_the_checks_of_its_gate(name, monkeypatch):
    example = yaml.safe_load((ROOT / "examples" / "demo" / "train.yaml").read_text("utf-8"))
    section = {"champion": "c.json", "gate": {}}
    gate = gate_of(example["publish"] if name == "README.md" else section)
    monkeypatch.setitem(KINDS, "first and last turn", "floor")
    floors = ("constant sentence", "lead-2", "first and last turn")
    made = evaluation(dict.fromkeys((*floors, "base without adapter", "champion", "human"), BETTER))
    verdict = with_reload(judge(gate, made), Reload("same"), is_demanded=True)
    names = [check.name.partition(", against")[0] for check in verdict.checks]

    page = (ROOT / name).read_text("utf-8")
    (screen,) = re.findall(r"tuned did not pass the gate: (\d+ of .*?)What to do", page, re.DOTALL)
    assert re.match(rf"\d+ of {len(names)} checks on", screen), len(names)
    rows = re.findall(r"^  ([✓✗])  (.*?)(?:, against .*|  .*)?$", screen, re.MULTILINE)
    shown = [row for _, row in rows]
    assert shown == names[: len(shown)]
    if "…" not in screen:
        assert shown == names
        assert screen.startswith(f"{[mark for mark, _ in rows].count('✗')} of")


def test_the_screen_is_no_wider_with_a_long_name():
    long = "the model of the vendor that we had until the end of the year 2025"
    gate = GateSection(better_than=["others"], no_worse_than=[], guards={})
    result = judge(gate, evaluation({long: WORSE, "human": WORSE}))
    assert max(map(len, gate_screen(result, "/runs/a", "/c.json").splitlines())) <= 100


def test_the_command_on_the_screen_can_be_pasted():
    result = judge(GATE, with_gain(champion=WORSE), champion_state="compared")
    command = gate_screen(result, "/my runs/a", "/c.json").splitlines()[-1]
    assert command.strip() == "recap champion set /c.json '/my runs/a'"


def test_one_conversation_is_one():
    result = judge(GATE, evaluation(conversations=1), champion_state="compared")
    assert result.verdict().endswith("checks on 1 conversation failed")
    assert result.failures[0].sentence.endswith(
        "+0.050, of 1 conversation; fewer than 40 never pass"
    )
    assert "fewer than 40 never pass" in gate_screen(result, "a", None)


def test_what_only_rounding_makes_worse_is_not_worse():
    made = evaluation(empty=(1e-17, 0.0, 0.01))
    checks = judge(GATE, made, champion_state="compared").checks
    assert checks[-1].sentence.startswith("Empty: tuned is no worse than the champion")
    near = judge(GATE, with_gain(champion=(-1e-5, -0.001, 0.001)), champion_state="compared")
    assert "-0.000" not in str([check.sentence for check in near.checks])


def test_the_default_gate_names_metrics_that_can_be_better_or_worse():
    for name in ("rougeL", *DEFAULT_GUARDS):
        metric = metric_named(name)
        assert metric is not None, name
        assert metric.direction != "neither", name
