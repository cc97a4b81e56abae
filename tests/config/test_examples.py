"""Every config in examples/ is correct."""

from pathlib import Path

import pytest

from job.config.load import load_config, resolved_yaml
from job.storage.config_file import read_config

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FILES = sorted(
    [*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("demo/*.yaml"), *EXAMPLES.glob("weekly/*.yaml")]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_example_loads_and_loads_again_when_resolved(path, tmp_path):
    config = load_config(None, read_config(str(path)), (), {"date": "2026-01-31"})
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(resolved_yaml(config), encoding="utf-8")
    assert load_config(None, read_config(str(resolved))) == config


def test_the_classic_recipe_is_the_classic_recipe():
    config = load_config("train", read_config(str(EXAMPLES / "tweetsumm-llama2-7b.yaml")))
    lora, training = config.lora, config.training
    assert (config.model.base, config.model.quantization) == ("meta-llama/Llama-2-7b-hf", "nf4")
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (
        16,
        32,
        0.05,
        ["q_proj", "v_proj"],
    )
    assert (training.batch_size, training.gradient_accumulation_steps, training.epochs) == (4, 4, 2)
    assert (training.learning_rate, training.scheduler, training.warmup_ratio) == (
        1e-4,
        "cosine",
        0.05,
    )
    assert (training.optimizer, training.max_grad_norm, training.seed) == (
        "paged_adamw_32bit",
        0.3,
        42,
    )
    assert (training.evaluate_every_epochs, training.save_every_epochs) == (0.2, 1)
    assert (training.group_by_length, training.max_tokens) == (True, 4096)
    assert (config.prompt.style, config.prompt.labels) == ("instruction", {"customer": "user"})
    assert (config.data.references, config.data.cleaning) == ("first", "tweets")


def test_the_run_of_nightly_has_its_date():
    config = load_config(
        "summarize", read_config(str(EXAMPLES / "nightly.yaml")), (), {"date": "2026-01-31"}
    )
    assert config.run == "nightly-2026-01-31"
    assert config.output == "s3://my-bucket/summaries/dt=2026-01-31/"


def test_the_weekly_configs_differ_in_what_they_learn_alone():
    edits, pairs = (
        load_config(
            "train", read_config(str(EXAMPLES / "weekly" / name)), (), {"date": "2026-01-31"}
        )
        for name in ("train.yaml", "preferences.yaml")
    )
    for section in ("model", "output", "prompt", "generation", "serve", "publish"):
        assert getattr(edits, section) == getattr(pairs, section)
    assert (edits.method, pairs.method) == ("sft", "dpo")
    assert edits.training.start_from == pairs.training.start_from
    assert edits.data.validation == pairs.data.test, "both are scored by the same"
    folder = edits.data.train.removesuffix("/sft/train.jsonl")
    assert pairs.data.train == f"{folder}/pairs/train.jsonl"


def test_a_night_can_name_the_reward_model_of_the_week():
    path = str(EXAMPLES / "weekly" / "reward.yaml")
    judge = load_config("train", read_config(path), (), {"date": "2026-02-02"})
    text = (EXAMPLES / "nightly.yaml").read_text(encoding="utf-8")
    assert f"reward_model: {{adapter: {judge.output}/{judge.run}/adapter}}" in text
