"""Claims about the methods of a training: what a config of one cannot have, and its remedy."""

import pytest

from job.config.load import load_config
from job.errors import ConfigError


@pytest.mark.parametrize(
    ("method", "override", "line"),
    [
        ("dpo", "training.packing=true", "training.packing: true is not for method: dpo: each"),
        ("kto", "training.distribution=fsdp", "fsdp is not for method: kto: several processes"),
        ("dpo", "lora.dropout=0.1", "lora.dropout: 0.1 is not for method: dpo: the adapter is"),
        ("dpo", "data.format=transcript", "a transcript has no judged answers; give files of"),
        ("kto", "data.references=first", "each pair or thumb is a record of its own; remove it"),
        ("kto", "training.dpo.beta=0.2", "is for method: dpo, and this is method: kto: remove"),
        ("sft", "training.kto.beta=0.2", "is for method: kto, and this is method: sft: remove"),
        ("kto", "data.columns.chosen=a", "is a column of pairs, which method: dpo learns from"),
        ("sft", "data.columns.label=a", "is a column of thumbs, which method: kto learns from"),
        ("reward", "data.columns.label=a", "is a column of thumbs, which method: kto learns from"),
        ("reward", "training.packing=true", "training.packing: true is not for method: reward"),
        ("reward", "training.dpo.beta=0.2", "is for method: dpo, and this is method: reward"),
        ("reward", "training.adapter_from=best_metric", "choose best_evaluation, by the"),
        ("reward", "generation.max_new_tokens=8", "generation is not for method: reward: a reward"),
        ("reward", "serve.dtype=float16", "serve is not for method: reward: a reward model writes"),
        ("reward", "evaluation.as_trained=true", "evaluation.as_trained is not for method: reward"),
        ("reward", "publish.merged=true", "publish.merged is not for method: reward: a reward"),
        ("reward", "publish.gate.margin=0.1", "publish.gate is not for method: reward: a reward"),
        ("reward", "publish.hub=a/b", "for method: reward: it is published in output alone"),
        ("reward", "publish.private=false", "for method: reward: no repository of the Hub is"),
    ],
)
def test_a_key_that_a_method_cannot_have_is_answered(config_text, method, override, line):
    with pytest.raises(ConfigError) as caught:
        load_config("train", config_text(), [f"method={method}", override])
    assert line in str(caught.value)


def test_a_reward_model_is_not_told_to_add_a_gate(config_text):
    overrides = ["method=reward", "publish.champion=champion.json"]
    with pytest.raises(ConfigError) as caught:
        load_config("train", config_text(), overrides)
    assert "publish.champion is not for method: reward" in str(caught.value)
    assert "gate" not in str(caught.value)


def test_a_step_of_one_thumb_is_answered(config_text):
    overrides = ["training.batch_size=1", "training.gradient_accumulation_steps=1"]
    with pytest.raises(ConfigError, match="raise it to 2 at least, or"):
        load_config("train", config_text(), ["method=kto", *overrides])


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("kto", ["training.batch_size=1", "training.gradient_accumulation_steps=2"]),
        ("kto", ["training.batch_size=auto"]),
        ("dpo", ["training.batch_size=1", "training.gradient_accumulation_steps=1"]),
        ("dpo", ["data.replay=earlier.jsonl", "training.compile=true"]),
    ],
)
def test_what_a_method_can_have_is_no_mistake(config_text, method, overrides):
    found = load_config("train", config_text(), [f"method={method}", *overrides])
    assert found.method == method
    assert found.training.learning_rate == pytest.approx(1e-5)


def test_a_reward_model_has_a_learning_rate_of_its_own(config_text):
    overrides = [
        "training.start_from=last-week",
        "data.columns.chosen=better",
        "data.test=pairs.jsonl",
        "training.patience=2",
        "evaluation.max_conversations=9",
    ]
    found = load_config("train", config_text(), ["method=reward", *overrides])
    assert found.judged == "pairs"
    assert found.training.learning_rate == pytest.approx(1e-4)
