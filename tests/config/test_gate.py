"""Claims about mistakes of a gate: each is in the one report, with its line, before any run."""

from dataclasses import dataclass

import pytest

from job.config.gate_mistakes import champion_of, needs_base, resolved_gate
from job.config.gate_sections import DEFAULT_GUARDS
from job.config.load import load_config, resolved_yaml
from job.errors import ConfigError

TRAIN = "run: small\nmodel: {base: org/base}\noutput: runs\ndata: {train: train.jsonl}\n"
EVALUATE = "run: again\ninput: test.jsonl\noutput: out\n"
ADAPTER = EVALUATE + "adapter: adapter\n"
FILE = EVALUATE + "summaries: given.jsonl\n"


@dataclass(frozen=True)
class Known:
    name: str
    direction: str = "higher"
    needs: tuple[str, ...] = ("reference",)


METRICS = [
    Known("rougeL"),
    Known("faithfulness", needs=("conversation", "model")),
    Known("length_ratio", "neither"),
    *[Known(name, "lower", ("conversation",)) for name in DEFAULT_GUARDS if name != "cut"],
    Known("cut", "lower", ("finish_reason",)),
]


def load(text, command=None):
    # `command` is by the keys: those of a training or of an evaluation.
    return load_config(command, text, metrics=METRICS)


def mistakes(config_text, text):
    with pytest.raises(ConfigError) as caught:
        load(config_text(text))
    return [" ".join(line.split()) for line in str(caught.value).splitlines()[2:]]


def test_all_mistakes_of_a_gate_are_in_one_report(config_text):
    found = mistakes(
        config_text,
        TRAIN
        + "publish:\n"
        + "  regressions: [{name: old, input: old.jsonl}]\n"
        + "  gate:\n"
        + "    metric: rougel\n"
        + "    better_than: [floor, champion]\n"
        + "    guards:\n"
        + "      length_ratio: 0.1\n",
    )
    assert found == [
        "line 6 publish.regressions older test sets are compared with the champion: set "
        "publish.champion",
        "line 8 publish.gate.metric got rougel, which is no metric; wanted one of "
        f"{', '.join(metric.name for metric in METRICS)}; did you mean rougeL?",
        "line 9 publish.gate.better_than.0 got floor; wanted one of floors, base, champion, "
        "others; did you mean floors?",
        "line 9 publish.gate.better_than.1 there is no champion to compare with: set "
        "publish.champion",
        "line 11 publish.gate.guards.length_ratio neither more nor less length_ratio is better, "
        "so nothing can be compared by it",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            TRAIN + "publish: {champion: champion.json}",
            "publish.champion no adapter becomes champion without a gate: add publish.gate: {} for "
            "the default one",
        ),
        (
            TRAIN + "publish: {champion: adapters/best, gate: {}}",
            "publish.champion 'adapters/best' is no pointer: name a file that ends in .json",
        ),
        (
            TRAIN + "publish: {gate: {no_worse_than: [floors], better_than: [floors]}}",
            "publish.gate.no_worse_than floors is in better_than too, which is more: remove it "
            "here",
        ),
        (
            TRAIN + "publish: {gate: {better_than: []}}",
            "publish.gate names no opponent, so nothing would be proved: name one in better_than",
        ),
        (
            TRAIN + "publish: {gate: {guards: {faithfulness: 0.02}}}",
            "publish.gate.guards.faithfulness faithfulness is measured with a model: set "
            "evaluation.faithfulness_model",
        ),
        (
            TRAIN + "publish: {gate: {}}\nevaluation: {max_conversations: 9}",
            "evaluation.max_conversations got 9; wanted at least 40: fewer never pass a gate",
        ),
        (
            FILE + "publish: {gate: {guards: {cut: 0.02}}}",
            "publish.gate.guards.cut cut needs an adapter: a file of summaries does not say how "
            "each one ended",
        ),
        (
            FILE + "publish: {gate: {better_than: [base]}}",
            "publish.gate.better_than.0 a file of summaries has no base",
        ),
        (
            FILE + "publish: {gate: {}, champion: champion.json}",
            "publish.champion a file of summaries cannot become the champion, which is an adapter; "
            "to compare with the champion, name it under the key champion at the top",
        ),
        (
            TRAIN + "publish: {pairs: {input: pairs.jsonl}}",
            "publish.pairs a gate judges by held-out pairs, and there is none: add publish.gate: "
            "{} for the default one",
        ),
        (
            FILE + "train: t.jsonl\npublish: {gate: {}, pairs: {input: pairs.jsonl}}",
            "publish.pairs a file of summaries has none of held-out pairs: remove this, or name "
            "an adapter",
        ),
        (
            ADAPTER + "publish: {gate: {}, pairs: {input: pairs.jsonl}}",
            "publish.pairs nobody would know if the adapter was trained on these conversations: "
            "name its training data by the key train",
        ),
        (
            ADAPTER + "champion: other.json\npublish: {gate: {}, champion: champion.json}",
            "champion is another than publish.champion (champion.json), which is compared anyway: "
            "remove one of them",
        ),
    ],
)
def test_what_cannot_be_judged_is_a_mistake(config_text, text, line):
    (found,) = mistakes(config_text, text)
    assert found.split(maxsplit=2)[2] == line


@pytest.mark.parametrize(
    ("text", "better_than", "no_worse_than", "is_cut_guarded"),
    [
        (TRAIN + "publish: {gate: {}}", ["floors", "base"], [], True),
        (TRAIN + "publish: {gate: {}, champion: c.json}", ["floors", "base"], ["champion"], True),
        (ADAPTER + "champion: c.json\npublish: {gate: {}}", ["floors", "base"], ["champion"], True),
        (FILE + "publish: {gate: {}}", ["floors"], [], False),
    ],
)
def test_defaults_name_who_can_be_there(
    config_text, text, better_than, no_worse_than, is_cut_guarded
):
    config = load(config_text(text))
    gate = resolved_gate(config)
    assert (gate.better_than, gate.no_worse_than) == (better_than, no_worse_than)
    assert ("cut" in gate.guards) == is_cut_guarded


@pytest.mark.parametrize(
    ("gate", "no_worse_than"),
    [
        ("{no_worse_than: [hosted]}", ["hosted", "champion"]),
        ("{no_worse_than: []}", ["champion"]),
        ("{better_than: [floors]}", ["champion"]),
        ("{no_worse_than: [champion, hosted]}", ["champion", "hosted"]),
        ("{better_than: [champion], no_worse_than: [hosted]}", ["hosted"]),
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        TRAIN + "publish: {champion: c.json, gate: %s}\n",
        ADAPTER + "publish: {champion: c.json, gate: %s}\n",
        ADAPTER + "champion: c.json\npublish: {gate: %s}\n",
    ],
)
def test_a_gate_that_names_others_still_compares_with_the_champion(
    config_text, named, gate, no_worse_than
):
    others = "evaluation: {others: {hosted: hosted.jsonl}}"
    found = resolved_gate(load(config_text(named % gate + others)))
    assert found.no_worse_than == no_worse_than


def test_the_training_processes_read_the_same_gate_again(config_text):
    config = load(config_text(TRAIN + "publish: {gate: {}}"))
    again = load(config_text(resolved_yaml(config)), "train")
    assert again == config


def test_a_gate_that_names_the_base_has_it_scored(config_text):
    without = config_text(TRAIN + "publish: {gate: {better_than: [floors]}}")
    assert needs_base(load(config_text(TRAIN + "publish: {gate: {}}")))
    assert not needs_base(load(without))
    assert not needs_base(load(config_text(TRAIN)))


def test_the_champion_of_an_evaluation_is_the_pointer_or_what_it_names(config_text):
    assert champion_of(load(config_text(ADAPTER + "champion: best"))) == "best"
    pointer = ADAPTER + "publish: {gate: {}, champion: c.json}"
    assert champion_of(load(config_text(pointer))) == "c.json"


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("rougel", "got rougel, which is no metric; wanted one of "),
        ("length_ratio", "neither more nor less length_ratio is better"),
        (
            "faithfulness",
            "faithfulness is measured with a model: set evaluation.faithfulness_model",
        ),
    ],
)
def test_a_metric_that_cannot_select_an_adapter_is_a_mistake(config_text, metric, why):
    (found, *_) = mistakes(config_text, TRAIN + f"training:\n  selection:\n    metric: {metric}\n")
    assert found.startswith(f"line 7 training.selection.metric {why}")


def test_a_gate_demands_no_reload_of_a_base_that_needs_its_own_code(config_text):
    own = TRAIN.replace("org/base", "org/base, trust_remote_code: true, revision: " + "a" * 40)
    (found,) = mistakes(config_text, own + "publish:\n  verify: true\n  gate: {}\n")
    assert found.startswith("line 6 publish.verify a gate demands that the adapter be reloaded")
    assert "set publish.verify: false" in found
    load(config_text(own + "publish: {verify: false, gate: {}}\n"))
    load(config_text(own))
