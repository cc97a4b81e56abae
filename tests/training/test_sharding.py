"""Claims about a 4-bit base sharded between processes: the adapter is that of whole bases."""

import subprocess
import sys
from pathlib import Path
from typing import Any

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
    words = [sys.executable, "-m", "job", "train", str(path)]
    for setting in settings:
        words += ["--set", setting]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)


def adapter_of(config: dict[str, Any], distribution: str) -> dict[str, torch.Tensor]:
    return load_file(Path(config["output"]) / distribution / WEIGHTS)


def norm_of(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the norm of the matrices that begin as zeros: of what was learned."""
    return torch.stack([weight.norm() for key, weight in weights.items() if "lora_B" in key]).norm()


# float32 rounds sums of shards in another order; bfloat16 rounds also what DDP keeps in float32.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        pytest.param("float32", 1e-4, marks=pytest.mark.quality),
        pytest.param("bfloat16", 0.03, marks=pytest.mark.faults),
    ],
)
def test_fsdp_with_a_4_bit_base_ends_like_ddp(config, write_config, poisoned, dtype, tolerance):
    config["model"]["dtype"] = dtype
    config["training"] |= {
        "processes": 2,
        "max_steps": 5,
        "optimizer": "adamw_torch",
        "evaluate_every_steps": 3,
    }
    config["evaluation"]["max_conversations"] = 2
    path = write_config(config)
    numbers = {}
    for distribution in ("ddp", "fsdp"):
        settings = [f"run={distribution}", f"training.distribution={distribution}"]
        done = train(path, *settings, folder=poisoned)
        assert done.returncode == ExitCode.DONE, done.stderr
        packed = done.stderr.count("4-bit weights are shared by the processes of this machine")
        assert packed == (distribution == "fsdp"), "one process has packed them"
        assert [*poisoned.glob("*.imported")] == [], "nor through accelerate's launcher"
        store = store_of(config | {"run": distribution})
        numbers[distribution] = logged(store)
        points = on_tensorboard(store, "train/loss")
        assert [step for step, _ in points] == [1, 2, 3, 4, 5], distribution

    ddp = adapter_of(config, "ddp")
    fsdp = adapter_of(config, "fsdp")
    assert fsdp.keys() == ddp.keys(), "an ordinary adapter"
    difference = norm_of({key: fsdp[key] - ddp[key] for key in ddp}) / norm_of(ddp)
    print(f"\nfsdp and ddp in {dtype} differ by {difference:.1e} of the norm of what they learned")
    assert difference < tolerance
    assert numbers["fsdp"] == pytest.approx(numbers["ddp"], rel=tolerance)
    _peft_loads(Path(config["output"]) / "fsdp" / "adapter")


def _peft_loads(adapter: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype=torch.float32)
    assert model(input_ids=torch.tensor([[0, 5, 6]])).logits.shape[:2] == (1, 3)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (["training.optimizer=paged_adamw_8bit"], "use adamw_torch or adamw_torch_fused"),
        (["training.processes=1", "training.optimizer=adamw_torch"], "there is one: use ddp"),
    ],
)
def test_what_cannot_be_sharded_is_refused_at_once(config, write_config, settings, remedy):
    done = train(write_config(config), "training.distribution=fsdp", *settings)
    assert done.returncode == ExitCode.CONFIG
    assert remedy in done.stderr
