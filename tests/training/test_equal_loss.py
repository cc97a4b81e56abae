"""Claims about loss: what makes a training fast leaves it as good as TRL's plain trainer does.

The demo's base learns from the demo's conversations. Each path is trained with three seeds, and
judged by one sum over the learned tokens of validation, computed here row by row.
"""

import math
from pathlib import Path
from statistics import mean, variance
from typing import Any

import pytest
import torch
from trl import SFTConfig, SFTTrainer

from job.config.commands import TrainConfig
from job.model.adapter import lora_config
from job.model.families import keep_adapter_in_float32
from job.model.load import load_base
from job.prompt.encode import IGNORED
from job.storage.local import LocalStore
from job.training.batches import Budget, Collator
from job.training.build import build_trainer
from job.training.prepare import prepare
from tests.training.row_kernel import rows_by_sdpa

pytestmark = [pytest.mark.quality, pytest.mark.timeout(1200)]

DEMO = Path(__file__).parents[2] / "examples" / "demo"
SEEDS = (1, 2, 3)
STEPS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a folder for a run, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        found = tmp_path_factory.mktemp("equal-loss")
        patch.setenv("RECAP_CACHE", str(found / "cache"))
        patch.setenv("RECAP_WORK", str(found / "work"))
        yield found


def config_of(folder: Path, dropout: float = 0.05, **training: Any) -> TrainConfig:
    plain = {
        "max_steps": STEPS,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 2e-3,
        "max_tokens": 512,
        "evaluate_every_steps": STEPS,
        "sample_summaries": 0,
        "save_every_steps": 10 * STEPS,
    }
    return TrainConfig.model_validate(
        {
            "run": "equal",
            "model": {"base": str(DEMO / "base"), "quantization": None, "dtype": "float32"},
            "data": {
                "train": str(DEMO / "train.jsonl"),
                "validation": str(DEMO / "validation.jsonl"),
                "references": "first",
            },
            "output": str(folder / "runs"),
            "lora": {"r": 16, "alpha": 32, "dropout": dropout},
            "training": plain | training,
        }
    )


def validation_loss(model: Any, rows: Any) -> float:
    """Return the mean loss by learned token."""
    model.eval()
    loss = tokens = 0.0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        tokens += int((labels != IGNORED).sum())
    return loss / tokens


def train_plainly(run: Any, seed: int) -> Any:
    """Return the model after a training by TRL: padded batches, their mask, unfused AdamW."""
    torch.manual_seed(seed)
    model = load_base(run.base, run.config.model, False)
    section = run.config.training
    trainer = SFTTrainer(
        model=model,
        processing_class=run.tokenizer,
        train_dataset=run.data.rows.train.dataset,
        peft_config=lora_config(run.config.lora, model, run.base.revision),
        args=SFTConfig(
            output_dir=str(run.work / "plain"),
            max_steps=STEPS,
            per_device_train_batch_size=section.batch_size,
            gradient_accumulation_steps=section.gradient_accumulation_steps,
            learning_rate=section.learning_rate,
            lr_scheduler_type=section.scheduler,
            warmup_steps=section.warmup_ratio,
            max_length=section.max_tokens,
            optim="adamw_torch",
            train_sampling_strategy="group_by_length",
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            data_seed=seed,
        ),
    )
    keep_adapter_in_float32(trainer.model)
    trainer.train()
    return trainer.model


def train_fast(run: Any, seed: int) -> Any:
    """Return the model after a training by recap."""
    torch.manual_seed(seed)
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    trainer.train()
    return trainer.model


@pytest.fixture(scope="module")
def losses(folder: Path) -> Any:
    """Return a function that trains with each seed in a way and returns the validation losses."""

    def train(way: Any, **changes: Any) -> list[float]:
        found = []
        for seed in SEEDS:
            run = prepare_run(folder, seed=seed, **changes)
            found.append(validation_loss(way(run, seed), run.data.rows.validation.dataset))
        return found

    return train


def prepare_run(folder: Path, **changes: Any) -> Any:
    return prepare(config_of(folder, **changes), folder, LocalStore(str(folder)))


@pytest.fixture(scope="module")
def plain(losses: Any) -> list[float]:
    """Return the losses of TRL's trainer by seed."""
    return losses(train_plainly)


def assert_equal_within_noise(some: list[float], others: list[float]) -> None:
    """Assert that the means differ by at most two standard errors of their difference."""
    noise = math.sqrt((variance(some) + variance(others)) / len(SEEDS))
    assert abs(mean(some) - mean(others)) <= 2 * noise, (some, others)


def test_recap_learns_as_well_as_trls_trainer(losses, plain):
    """By micro-batches of tokens, without a mask, with a fused optimizer."""
    assert_equal_within_noise(losses(train_fast), plain)


@pytest.mark.parametrize("packs", [False, True])
def test_recomputed_activations_end_with_the_same_weights(folder, packs, monkeypatch):
    """They draw the same dropout, too."""
    monkeypatch.setattr("job.training.forward.torch_kernel", lambda: rows_by_sdpa)
    weights = []
    for recomputes in (False, True):
        changes = {"packing": packs, "max_steps": 4, "activation_checkpointing": recomputes}
        model = train_fast(prepare_run(folder, **changes), 1)
        weights.append([each for each in model.parameters() if each.requires_grad])
    assert all(map(torch.equal, *weights))


def unpacked(collator: Any, rows: list[Any], budget: Budget) -> list[Any]:
    """Return the micro-batches of packed rows, each conversation of them by itself."""
    batches = []
    for row in rows:
        ids = torch.tensor(row["input_ids"]).split(row["seq_lengths"])
        labels = torch.tensor(row["labels"]).split(row["seq_lengths"])
        for alone, wanted in zip(ids, labels, strict=True):
            batches.append({"input_ids": alone[None], "labels": wanted[None]})
    return batches


@pytest.mark.parametrize("kernel", [None, rows_by_sdpa])
def test_packed_rows_learn_what_their_conversations_do_alone(folder, kernel, monkeypatch):
    """Under the dense mask of sdpa, and by a kernel that knows their ends."""
    monkeypatch.setattr("job.training.forward.torch_kernel", lambda: kernel)
    changes = {"packing": True, "max_steps": 15, "dropout": 0.0}
    found = []
    for is_packed in (True, False):
        if not is_packed:
            monkeypatch.setattr(Collator, "micro_batches", unpacked)
        run = prepare_run(folder, **changes)
        model = train_fast(run, 1)
        found.append(validation_loss(model, run.data.rows.validation.dataset))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_an_adapter_in_fused_operations_learns_what_it_does_in_peft(folder):
    found = []
    for is_fused in (True, False):
        run = prepare_run(folder, fused_lora=is_fused, max_steps=15, dropout=0.0)
        model = train_fast(run, 1)
        found.append(validation_loss(model, run.data.rows.validation.dataset))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
