"""Claims about errors of libraries: the config's until the first step, and recap's own are bugs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from job.errors import ConfigError, DataError, ExitCode
from job.training.causes import STEPPING, blaming_the_config, explaining
from job.training.intervals import interval
from job.training.worker import _outcome_of_exception


@pytest.fixture(scope="module")
def model() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )


def test_an_error_of_peft_is_blamed_on_lora(model, capsys):
    with (
        pytest.raises(ConfigError, match=r"^lora: .*; peft: NoMatching.*Error: Target") as caught,
        blaming_the_config(),
    ):
        get_peft_model(model, LoraConfig(target_modules=["no_such"]))
    assert "\n" not in str(caught.value)
    assert "inject_adapter" in capsys.readouterr().err, "the traceback is in the log"


def test_an_error_in_a_models_code_is_blamed_on_the_base(model):
    message = r"^model.base: .*transformers: IndexError: index out of"
    with pytest.raises(ConfigError, match=message), blaming_the_config():
        model(torch.tensor([[9]]))


def test_an_error_in_the_trainers_code_is_blamed_on_the_training(tmp_path):
    message = r"^training: .*transformers: ValueError: "
    with pytest.raises(ConfigError, match=message), blaming_the_config():
        TrainingArguments(str(tmp_path), lr_scheduler_type="no_such")


def test_an_error_of_recaps_own_code_stays_a_bug():
    with pytest.raises(TypeError), blaming_the_config():
        interval(None, "x", 1)  # type: ignore[arg-type]


def test_an_error_after_the_first_step_stays_what_it_is(model):
    with pytest.raises(IndexError), blaming_the_config(lambda: True):
        model(torch.tensor([[9]]))


def test_an_error_that_recap_raised_stays_what_it_is():
    with pytest.raises(DataError), explaining(STEPPING), blaming_the_config():
        raise DataError("no rows")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_has_the_remedy_of_its_phase(error, tmp_path: Path):
    with (
        pytest.raises(
            ConfigError, match=r"^memory ran out while computing a training step .*batch"
        ),
        explaining(STEPPING),
        blaming_the_config(),
    ):
        raise error
    outside = _outcome_of_exception(error, tmp_path)
    assert (outside.exit_code, outside.cause) == (ExitCode.CONFIG, "own")


def test_a_broken_collective_may_be_the_effect_of_another_process(tmp_path):
    outcome = _outcome_of_exception(RuntimeError("Connection closed by peer"), tmp_path)
    assert (outcome.exit_code, outcome.cause) == (ExitCode.BUG, "unclear")
