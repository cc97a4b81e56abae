"""Claims about vLLM's memory without vLLM; tests/vllm has those with it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.errors import RetryError
from job.inference.vllm_engine import VllmEngine
from job.inference.vllm_start import _share_of_memory


def engine_that_recovers() -> VllmEngine:
    """The engine over a vLLM that lets go of its requests."""
    stand_in = SimpleNamespace(
        model_config=SimpleNamespace(get_vocab_size=lambda: 9, max_model_len=9),
        vllm_config=SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=4)),
        abort_request=lambda requests: None,
        step=lambda: [],
        reset_prefix_cache=lambda: True,
    )
    tokenizer: Any = None
    return VllmEngine(stand_in, tokenizer, frozenset())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ],
)
def test_memory_that_runs_out_is_the_batchs_and_not_the_gpus(error, caplog):
    engine = engine_that_recovers()
    engine._recover(error, {"1": 0, "2": 1, "3": 2, "4": 3})
    (record,) = caplog.records
    assert record.getMessage().startswith("out of memory: fewer prompts at once")
    assert record.fields == {"prompts": 2}
    with pytest.raises(type(error)):
        engine._recover(error, {"1": 0})


def test_a_gpu_that_fails_is_worth_another_run():
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RetryError, match="the GPU failed"):
        engine_that_recovers()._recover(error, {"1": 0, "2": 1})


def test_vllm_leaves_the_memory_of_a_model_that_was_loaded_before(monkeypatch):
    assert _share_of_memory(0.9, 1) == 0.9, "there is no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 << 30, 80 << 30))
    assert _share_of_memory(0.9, 8 << 30) == pytest.approx(0.8)
    assert _share_of_memory(0.9, 0) == 0.9
