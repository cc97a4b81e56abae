"""Claims about the process that simulates: whatever becomes of it, a plan goes on."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.memory.child import answer, ask_child
from job.memory.devices import Rows
from job.memory.estimate import Estimate, Question, Unknown


def question(folder: Path) -> Question:
    return Question(
        folder=folder,
        model=ModelSection(base="org/base"),
        lora=LoraSection(),
        optimizer="adamw_torch_fused",
        rows=Rows(count=2, tokens=64, learned=16),
        levels=(1,),
        filling=None,
        processes=(1,),
        cards=(),
        host_bytes=1 << 30,
    )


def test_a_process_that_dies_leaves_the_memory_unknown(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os.abort()"]
    assert ask_child(question(tmp_path), command) == Unknown(
        "the process that simulates ended with -6"
    )


@pytest.mark.quality  # the process loads the libraries: 12 CPU seconds
def test_the_question_and_the_answer_survive_the_way(tmp_path: Path) -> None:
    script = (
        "import pickle, sys; asked = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(pickle.dumps(asked.levels))"
    )
    assert ask_child(question(tmp_path), [sys.executable, "-c", script]) == (1,)


def test_a_base_that_cannot_be_simulated_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such model"}))
    found = answer(question(tmp_path))
    assert isinstance(found, Unknown)
    assert not found.was_refused
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.bases
def test_a_step_that_a_library_refuses_is_told_apart(base_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "base")
    content = json.loads((folder / "config.json").read_text()) | {"attention_dropout": 2.0}
    (folder / "config.json").write_text(json.dumps(content))
    found = ask_child(question(folder))
    assert isinstance(found, Unknown)
    assert found.was_refused
    assert "dropout probability has to be between 0 and 1" in found.why


@pytest.mark.bases
def test_a_process_of_its_own_predicts_a_step(base_folder: Path) -> None:
    found = ask_child(question(base_folder))
    assert isinstance(found, Estimate)
    assert found.on_cpu is not None
    assert found.on_cpu.parts["base"] > 0
