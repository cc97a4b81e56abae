"""A 4-bit base that is shared between processes: the adapter is the one that whole bases make."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from job.errors import ExitCode
from tests.faults.trials import logged, on_tensorboard, store_of

pytestmark = pytest.mark.usefixtures("places")
WEIGHTS = "adapter/adapter_model.safetensors"


def train(
    path: Path, *settings: str, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    named = [word for setting in settings for word in ("--set", setting)]
    words = [sys.executable, "-m", "job", "train", str(path), *named]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    (
        "dtype",
        "tolerance",
    ),  # float32 rounds sums of shares in another order; bfloat16 also what stays float32 in DDP
    [("float32", 1e-4), pytest.param("bfloat16", 0.03, marks=pytest.mark.faults)],
)
def test_fsdp_with_a_4_bit_base_ends_like_ddp_and_its_adapter_loads(
    config, write_config, poisoned, dtype, tolerance
):
    from peft import AutoPeftModelForCausalLM

    config["model"]["dtype"] = dtype
    config["training"] |= {
        "processes": 2,
        "max_steps": 8,
        "optimizer": "adamw_torch",
        "evaluate_every_steps": 3,
    }
    path, adapters, numbers = write_config(config), {}, {}
    for distribution in ("ddp", "fsdp"):
        settings = [f"run={distribution}", f"training.distribution={distribution}"]
        done = train(path, *settings, folder=poisoned)
        assert done.returncode == ExitCode.DONE, done.stderr
        assert [*poisoned.glob("*.imported")] == [], "nor through accelerate's launcher"
        folder = Path(config["output"]) / distribution
        adapters[distribution] = load_file(folder / WEIGHTS)
        store = store_of(config | {"run": distribution})
        numbers[distribution] = logged(store)
        assert [step for step, _ in on_tensorboard(store, "train/loss")] == list(range(1, 9)), (
            distribution
        )
    assert adapters["fsdp"].keys() == adapters["ddp"].keys(), "an ordinary adapter"
    learned, difference = (
        torch.stack(
            [weights(key).norm() for key in adapters["ddp"] if "lora_B" in key]
        ).norm()  # which begins as zeros
        for weights in (
            adapters["ddp"].get,
            lambda key: adapters["fsdp"][key] - adapters["ddp"][key],
        )
    )
    print(
        f"\nfsdp and ddp in {dtype}: what they learned differs by {difference / learned:.1e} of its norm"
    )
    assert difference / learned < tolerance
    assert numbers["fsdp"] == pytest.approx(numbers["ddp"], rel=tolerance)
    model = AutoPeftModelForCausalLM.from_pretrained(str(folder / "adapter"), dtype=torch.float32)
    assert model(input_ids=torch.tensor([[0, 5, 6]])).logits.shape[:2] == (1, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.optimizer=paged_adamw_8bit"], "use adamw_torch or adamw_torch_fused"),
        (["training.processes=1", "training.optimizer=adamw_torch"], "there is one: use ddp"),
    ],
)
def test_what_cannot_be_sharded_is_told_at_once(config, write_config, settings, said):
    done = train(write_config(config), "training.distribution=fsdp", *settings)
    assert done.returncode == ExitCode.CONFIG
    assert said in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_base_is_shared_between_gpus(config, write_config):
    config["training"] |= {"max_steps": 4, "optimizer": "adamw_torch", "distribution": "fsdp"}
    done = train(write_config(config))
    assert done.returncode == ExitCode.DONE, done.stderr
