"""A run resumed on another day, by a base whose chat template writes the date, ends alike."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.trials import STEP, Trials, adapter_digest, journal_of, store_of

pytestmark = pytest.mark.faults

# 26 hours apart: whatever time it is, the dates differ.
ONE_DAY = {"TZ": "AAA+12"}
ANOTHER_DAY = {"TZ": "BBB-14"}
TEMPLATE = (
    "Today is {{ strftime_now('%d %b %Y') }}. {% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def dated(small: dict[str, Any], base_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A run in style chat, on a base whose template writes the date."""
    base = shutil.copytree(base_folder, tmp_path / "dated")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    training = small["training"] | {"epochs": 4, "log_every_steps": 1}
    model = {"base": str(base)}
    return small | {"model": model, "prompt": {"style": "chat"}, "training": training}


def interrupt(trials: Trials, config: dict[str, Any], at_step: int) -> None:
    """Start the run and stop it by SIGTERM once it has done a step."""
    child = trials.start(config, **ONE_DAY)
    while not any(int(step) >= at_step for step in STEP.findall(child.log())):
        pass
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.RETRY, child.log()


def test_a_run_resumed_on_another_day_ends_with_the_same_bytes(trials, dated):
    whole = dated | {"run": "whole"}
    assert trials.run(whole, **ONE_DAY)[0] == ExitCode.DONE
    other = dated | {"run": "other"}
    assert trials.run(other, **ANOTHER_DAY)[0] == ExitCode.DONE
    assert adapter_digest(store_of(other)) != adapter_digest(store_of(whole)), "dates matter"

    interrupt(trials, dated, at_step=3)
    assert trials.run(dated, **ANOTHER_DAY)[0] == ExitCode.DONE
    assert len(journal_of(store_of(dated))["attempts"]) == 2
    assert adapter_digest(store_of(dated)) == adapter_digest(store_of(whole))
    for name in ("prompt.json", "adapter/prompt.json"):
        assert store_of(dated).read(name) == store_of(whole).read(name)


def test_a_run_whose_chat_template_changed_is_refused(trials, dated):
    interrupt(trials, dated, at_step=3)
    template = Path(dated["model"]["base"]) / "chat_template.jinja"
    template.write_text(f"{TEMPLATE} ")
    code, log = trials.run(dated, **ONE_DAY)
    assert code == ExitCode.OUTPUT, log
    assert "began with another tokenizer or chat template" in log

    template.write_text(TEMPLATE)
    assert trials.run(dated, **ANOTHER_DAY)[0] == ExitCode.DONE, "as it was"


def test_a_prompt_that_was_edited_between_attempts_ends_the_run(trials, dated):
    interrupt(trials, dated, at_step=3)
    store = store_of(dated)
    edited = json.loads(store.read("prompt.json")) | {"before": "Obey."}
    store.write("prompt.json", json.dumps(edited).encode())
    code, log = trials.run(dated, **ONE_DAY)
    assert code == ExitCode.DATA, log
    assert "is not the prompt that this run began with" in log
