"""Claims about what a stranger does with a card: its lines to the letter, in a process of its own.

That process knows nothing of recap. It loads the libraries, which takes seconds.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from job.config.commands import TrainConfig
from job.config.sections import AdapterModelSection, StorageSection
from job.evaluation.card.facts import CardFacts, Split
from job.evaluation.card.page import model_card
from job.evaluation.result import Evaluation
from job.inference.open import fetch_with_adapter, load
from job.prompt.template import read_prompt
from job.storage.publish_hub import publish_to_hub
from tests.adapters import publish_adapter
from tests.conftest import S3
from tests.storage.hub_server import Hub

pytestmark = [pytest.mark.quality, pytest.mark.usefixtures("one_thread")]
IDS = [0, *range(60, 90)]
BLOCK = r"```python\n(.*?)```"
PRINT = f"""
import torch
logits = model(input_ids=torch.tensor([{IDS}])).logits[0, -1]
print(logits.topk(5).indices.tolist())
"""


@pytest.fixture
def on_hub(base_folder: Path, hub: Hub) -> str:
    files = {file.name: file.read_bytes() for file in base_folder.iterdir()}
    hub.add("org/base", {**files, "README.md": b"---\nlicense: mit\n---\n"})
    return "org/base"


@pytest.fixture
def on_s3(base_folder: Path, s3: S3) -> str:
    for file in base_folder.iterdir():
        s3.client().upload_file(str(file), s3.bucket, f"models/base/{file.name}")
    return f"{s3.uri}/models/base"


def publish_with_card(base: str, folder: Path, evaluation: Evaluation) -> list[int]:
    """Write an adapter with its card to `folder`; return the tokens that it expects after IDS."""
    published = folder.with_name("published")
    publish_adapter(base, folder.with_name("work"), str(published))
    section = AdapterModelSection(dtype="float32")
    fetched = fetch_with_adapter(
        str(published), section, StorageSection(), folder.with_name("fetched")
    )
    model = load(fetched, section)
    config = TrainConfig.model_validate(
        {"run": "tiny", "model": {"base": base}, "data": {"train": "t.jsonl"}, "output": "runs"}
    )
    facts = CardFacts(
        config,
        fetched.base.identity(),
        read_prompt(published),
        [Split("validation", ["hf://datasets/org/tweets"], 40, "f" * 64)],
        {"recap": "0.1.0"},
        [1],
    )
    shutil.copytree(published, folder)
    (folder / "README.md").write_text(model_card(facts, evaluation), encoding="utf-8")
    found: list[int] = model(input_ids=torch.tensor([IDS])).logits[0, -1].topk(5).indices.tolist()
    return found


def run_as_stranger(folder: Path, rest: str, **environment: str) -> str:
    """Run the first block of Python on the card in a folder, and `rest` after it."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    lines = re.search(BLOCK, card, re.DOTALL)[1]
    assert len(lines.splitlines()) <= 3
    return run_python(lines + rest, folder, **environment)[-1]


def run_python(program: str, folder: Path, **environment: str) -> list[str]:
    """Run a program in a process of its own, in a folder, and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def path_with_aws() -> str:
    """A PATH with the command line of AWS that RECAP_AWS names, or with the machine's own."""
    program = os.environ.get("RECAP_AWS") or shutil.which("aws") or "aws"
    assert Path(program).exists(), f"there is no {program}: `make test-quality` installs it"
    return f"{Path(program).absolute().parent}{os.pathsep}{os.environ['PATH']}"


def test_three_lines_load_an_adapter_whose_base_is_on_s3(on_s3, good, tmp_path, path_with_aws):
    folder = tmp_path / "adapter"
    expected = publish_with_card(on_s3, folder, good)
    assert f'"s3", "sync", "{on_s3}"' in (folder / "README.md").read_text(encoding="utf-8")
    place = {"HF_HUB_OFFLINE": "1", "PATH": path_with_aws}
    assert run_as_stranger(folder, PRINT, **place) == str(expected)


def test_two_lines_load_an_adapter_whose_base_is_a_folder(base_folder, good, tmp_path):
    folder = tmp_path / "adapter"
    expected = publish_with_card(str(base_folder), folder, good)
    assert run_as_stranger(folder, PRINT, HF_HUB_OFFLINE="1") == str(expected)


def test_a_pushed_adapter_is_read_back_from_the_hub_as_by_anybody(on_hub, good, tmp_path, hub):
    folder = tmp_path / "adapter"
    expected = publish_with_card(on_hub, folder, good)
    publish_to_hub(folder, "org/tiny", private=True, message="recap run tiny")
    assert any("/api/validate-yaml" in request.path for request in hub.requests)

    # First the model by its name, and then by the card's own lines in a copy of the repository.
    program = f"""
import os, re
from huggingface_hub import ModelCard, snapshot_download
card = ModelCard.load("org/tiny")
assert (card.data.base_model, card.data.library_name) == ("org/base", "peft"), card.data
assert card.data.eval_results[2].metric_name == "ROUGE-L", card.data.eval_results
assert "# tiny" in card.text

from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("org/tiny")
{PRINT}
del model
os.chdir(snapshot_download("org/tiny", local_dir="copy"))
names = {{}}
exec(re.search({BLOCK!r}, card.text, re.DOTALL)[1], names)
model = names["model"]
{PRINT}
"""
    place = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint}
    printed = run_python(program, tmp_path, **place)
    assert printed[-2:] == [str(expected)] * 2
