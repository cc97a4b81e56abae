"""A few conversations and a config: training on them takes seconds and is real in every part."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import TrainConfig
from job.storage.local import LocalStore

TOPICS = ["phone", "parcel", "refund", "flight", "invoice", "router", "booking", "password"]


def records(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return different conversations with two references each."""
    return [
        {
            "id": f"c{n}",
            "turns": [
                {
                    "role": "customer",
                    "text": f"My {TOPICS[n % 8]} number {n} does not work since day {n * 7 % 31}.",
                },
                {
                    "role": "agent",
                    "text": f"Sorry! Please restart the {TOPICS[n % 8]} and tell me code {n * 13}.",
                },
                {"role": "customer", "text": f"It says {n * 17 + 5} now, and it works again."},
            ],
            "summaries": [
                f"{TOPICS[n % 8]} {n} fixed by a restart.",
                f"Customer {n} restarts a {TOPICS[n % 8]}.",
            ],
        }
        for n in range(first, first + count)
    ]


def write_jsonl(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def judged_records(method: str, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return pairs or thumbs. The shorter summary of a conversation is the one that is wanted."""
    found: list[dict[str, Any]] = []
    for number, record in enumerate(records(count, first)):
        wanted, unwanted = record.pop("summaries")
        if method in ("dpo", "reward"):
            found.append(record | {"chosen": wanted, "rejected": unwanted})
        else:
            answer = unwanted if number % 3 == 0 else wanted
            found.append(record | {"completion": answer, "label": number % 3 > 0})
    return found


def learn_by(method: str, config: dict[str, Any], folder: Path) -> None:
    """Let a config learn by a method, from judged answers in `folder` if it takes them."""
    config["method"] = method
    if method == "sft":
        return
    references = config["data"]["validation"]
    config["data"] = {
        name: str(write_jsonl(folder / f"{name}-judged.jsonl", judged_records(method, *rows)))
        for name, rows in {"train": (24, 0), "validation": (6, 100)}.items()
    }
    if method == "reward":
        del config["generation"]
    else:
        config["data"]["test"] = references


def gradients_of(model: Any) -> Any:
    """Return the gradients of all trained weights as one vector."""
    import torch

    trained = [weight.grad for weight in model.parameters() if weight.requires_grad]
    return torch.cat([gradient.flatten() for gradient in trained])


def first_step(trainer: Any) -> tuple[float, Any]:
    """Return the loss and the gradients of a trainer's first step, on the CPU."""
    import torch

    trainer.choose_forward(trainer.model)
    trainer.prepare_rows(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(1)
    batches = iter(trainer.get_train_dataloader())
    (step,), learned = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    loss = trainer.training_step(trainer.model, step, learned).item()
    return loss, gradients_of(trainer.model)


@pytest.fixture
def config(tmp_path: Path, base_folder: Path) -> dict[str, Any]:
    """Return a config that trains for a few steps, with all its data under tmp_path."""
    return {
        "run": "tiny",
        "model": {"base": str(base_folder)},
        "data": {
            "train": str(write_jsonl(tmp_path / "train.jsonl", records(24))),
            "validation": str(write_jsonl(tmp_path / "validation.jsonl", records(6, first=100))),
        },
        "output": str(tmp_path / "runs"),
        "lora": {"r": 4, "alpha": 8},
        "training": {
            "epochs": 2,
            "learning_rate": 1e-3,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_tokens": 512,
            "optimizer": "paged_adamw_32bit",
            "save_every_steps": 5,
            "evaluate_every_steps": 10,
            "log_every_steps": 1,
            "sample_summaries": 1,
        },
        "generation": {"max_new_tokens": 8},
        "evaluation": {"max_conversations": 6, "bootstrap_samples": 100},
        "publish": {"verify": False},  # each reload is a process that loads the libraries
    }


@pytest.fixture
def as_accelerate_prepares(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that prepares a model as a training in a dtype does, on the CPU."""

    def prepare(model: Any, dtype: str) -> Any:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        # Its dtype is that of the whole process otherwise.
        monkeypatch.setattr(AcceleratorState, "_shared_state", {})
        return Accelerator(mixed_precision=dtype, cpu=True).prepare_model(model)

    return prepare


@pytest.fixture
def write_config(tmp_path: Path) -> Any:
    """Return a function that writes a config to a file and returns its path."""

    def write(content: dict[str, Any], name: str = "train.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def trainer_of(tmp_path: Path) -> Any:
    """Return a function that makes the trainer of a config, before the first step."""

    def make(config: dict[str, Any], **training: Any) -> Any:
        from job.training.build import build_trainer
        from job.training.prepare import prepare

        section = config["training"] | training
        loaded = TrainConfig.model_validate(config | {"training": section})
        run = prepare(loaded, tmp_path, LocalStore(str(tmp_path)))
        return build_trainer(run, wait_for_uploads=lambda: None)

    return make
