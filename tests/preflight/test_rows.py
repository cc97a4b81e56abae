"""Claims about a plan that has the base's tokenizer at hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.errors import ExitCode
from job.preflight.checks import Plan
from job.preflight.training import plan_training
from tests.tiny import CHAT_TEMPLATE
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def training(tmp_path: Path, base_folder: Path, places: Path) -> Any:
    """The plan of a training, some of whose conversations have one huge turn."""

    def make(huge: int, base: str = str(base_folder), unfit: int = 0, **keys: Any) -> Plan:
        lines = records(20)
        for record in lines[:huge]:
            record["turns"][0]["text"] = "very long " * 400
        others = records(4, first=100)
        for record in others[:unfit]:
            record["turns"][0]["text"] = "very long " * 400
        data = {
            "train": str(write_jsonl(tmp_path / "train.jsonl", lines)),
            "validation": str(write_jsonl(tmp_path / "validation.jsonl", others)),
        }
        content = {"run": "r", "model": {"base": base}, "data": data, "output": f"{tmp_path}/runs"}
        rest = {"training": {"max_tokens": 400}, "generation": {"max_new_tokens": 8}}
        return plan_training(TrainConfig.model_validate(content | rest | keys))

    return make


def test_rows_that_fit_are_counted(training):
    found = training(huge=0)
    assert found.error is None
    assert "train: 40 rows" in found.findings()
    assert "validation: 8 rows" in found.findings()


def test_rows_that_fit_no_way_end_a_plan_as_they_would_end_the_training(training):
    found = training(huge=3)
    assert found.error is not None
    assert found.error.exit_code == ExitCode.DATA
    assert "6 of 40 rows of train do not fit into training.max_tokens (400)" in found.findings()
    assert "train.jsonl line 1" in found.findings()


def test_rows_that_the_base_is_too_short_for_name_its_context(training, base_folder, tmp_path):
    base = shutil.copytree(base_folder, tmp_path / "short")
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 20}
    (base / "config.json").write_text(json.dumps(config))
    found = training(huge=0, base=str(base)).findings()
    assert "none of its 40 fits into the context of model.base (20 tokens)" in found
    assert "use a base with a longer one" in found
    assert "raise training.max_tokens" not in found
    assert "tokens leaves no room for a prompt in 20 tokens" in found


def test_rows_that_may_be_left_out_are_a_warning(training):
    found = training(huge=3, limits={"max_excluded_fraction": 0.2})
    assert found.error is None
    assert "warning: 6 fit no way and are left out" in found.findings()


def test_a_split_of_which_no_row_fits_ends_a_plan_whatever_the_limit(training):
    found = training(huge=0, unfit=4, limits={"max_excluded_fraction": 1.0})
    assert found.error is not None
    assert found.error.exit_code == ExitCode.DATA
    assert (
        "no row is left in validation: none of its 8 fits into training.max_tokens (400)"
        in found.findings()
    )
    assert "allows" not in found.findings()


def test_a_base_that_may_think_is_a_warning(training, base_folder, tmp_path):
    base = shutil.copytree(base_folder, tmp_path / "thinking")
    (base / "chat_template.jinja").write_text(f"{CHAT_TEMPLATE}{{# <think> #}}")
    found = training(huge=0, base=str(base), prompt={"style": "chat"})
    assert found.error is None
    assert "warning: it may think before it answers" in found.findings()

    (base / "chat_template.jinja").write_text("{{ messages + 1 }}")
    found = training(huge=0, base=str(base), prompt={"style": "chat"})
    assert found.error.exit_code == ExitCode.CONFIG
    assert "prompt.style is chat, but the chat template of model.base fails" in found.findings()


def test_scores_of_conversations_that_fit_into_no_prompt_are_a_warning(training):
    fits = "4 conversations fit into prompts of at most 504 tokens"
    assert f"✓ prompts     {fits}" in training(huge=0).findings()
    keys = {"generation": {"max_new_tokens": 511}}
    found = training(huge=0, **keys)
    assert found.error is None
    assert "4 of 4 conversations have no prompt of at most 1 tokens" in found.findings()
    keys = {"generation": {"max_new_tokens": 8, "max_input_tokens": 16}}
    warned = "no prompt of at most 16 tokens (generation.max_input_tokens): their summaries will be"
    assert warned in training(huge=0, **keys).findings()


def test_a_base_without_a_limit_takes_prompts_of_any_length(training, base_folder, tmp_path):
    base = shutil.copytree(base_folder, tmp_path / "endless")
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 10**12}
    (base / "config.json").write_text(json.dumps(config))
    found = training(huge=0, base=str(base)).findings()
    assert "4 conversations fit into prompts of any length" in found


def test_without_the_tokenizer_at_hand_nothing_is_said_of_rows(training, tmp_path):
    found = training(huge=3, base=str(tmp_path / "nowhere"))
    assert "rows" not in [each.name for each in found.checks]
