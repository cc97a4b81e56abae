"""Claims about the reload of an adapter in a fresh process before anything of it is visible."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.errors import ExitCode
from job.evaluation.reload import Agreement, Compared, Reload, is_close, judge
from job.inference.engine import to_answer
from job.inference.open import FetchedModel, fetch_with_adapter, load
from job.inference.transformers_engine import TransformersEngine
from job.model.libraries import DISABLE_COMPILER
from job.storage.folders import verify_folder
from job.training import plain_load, plain_process
from job.training.plain_process import PlainLoadError, PlainModel, PlainProcess
from tests.adapters import publish_adapter
from tests.faults.trials import journal_of, store_of

SECTION = AdapterModelSection(dtype="float32")
PROMPTS = [[0, *range(60, 60 + length)] for length in (10, 20, 15)]
MODEL = PlainModel(Path("base"), Path("adapter"), "AutoModelForCausalLM", "none", "float32", 1)
QUESTION = plain_process.Question(PROMPTS, [], [], [1], 8)
VERSIONS = {"peft": "0.21.2"}
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def fetched(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    folder = tmp_path_factory.mktemp("adapter")
    publish_adapter(base_folder, folder / "work", str(folder / "published"))
    return fetch_with_adapter(
        str(folder / "published"), SECTION, StorageSection(), folder / "cache"
    )


@pytest.fixture(scope="module")
def engine(fetched: FetchedModel) -> TransformersEngine:
    return TransformersEngine(load(fetched, SECTION), fetched.tokenizer)


def request(fetched: FetchedModel, engine: TransformersEngine, **changes: Any) -> dict[str, Any]:
    return {
        "base": str(fetched.base.path),
        "adapter": str(fetched.adapter),
        "auto_class": "AutoModelForCausalLM",
        "quantization": "none",
        "dtype": "float32",
        "ends": sorted(engine._ends),
        "prompts": PROMPTS,
        "prompt_texts": [],
        "texts": [],
        "max_new_tokens": 12,
        **changes,
    }


@pytest.mark.usefixtures("one_thread")
def test_plain_peft_answers_as_the_engine_does(fetched, engine):
    tokens = plain_load.answer(request(fetched, engine))["answers"]["tokens"]
    scored = engine.generate(PROMPTS, GenerationSection(max_new_tokens=12))
    assert [to_answer(row, engine._ends, fetched.tokenizer) for row in tokens] == scored

    # The tokens of its own answers are those that it expects, and the base expects others.
    again = plain_load.answer(request(fetched, engine, texts=tokens))
    assert again["answers"]["expected"] == [len(row) for row in tokens]
    assert sum(again["answers_of_base"]["expected"]) < sum(map(len, tokens)) / 2


@pytest.mark.usefixtures("one_thread")
def test_the_tokenizer_beside_the_adapter_reads_the_prompts(fetched, engine, tmp_path):
    texts = ["customer: Where is my parcel?", "agent: Here."]
    prompts = [fetched.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    asked = request(fetched, engine, prompts=prompts, prompt_texts=texts)
    assert plain_load.answer(asked)["readings"] == {"ids": prompts, "texts": texts}

    other = tmp_path / "other"
    shutil.copytree(fetched.adapter, other)
    path = other / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"normalizer": {"type": "Lowercase"}}))
    found = plain_load.answer(asked | {"adapter": str(other)})["readings"]
    assert found["ids"] != prompts


@pytest.mark.usefixtures("one_thread")
def test_an_adapter_without_effect_answers_as_its_base_does(fetched, engine, tmp_path):
    texts = plain_load.answer(request(fetched, engine))["answers"]["tokens"]
    silent = tmp_path / "silent"
    shutil.copytree(fetched.adapter, silent)
    zeros = {name: 0 * weight for name, weight in load_file(silent / ADAPTER_WEIGHTS).items()}
    save_file(zeros, silent / ADAPTER_WEIGHTS, {"format": "pt"})
    found = plain_load.answer(request(fetched, engine, adapter=str(silent), texts=texts))
    assert found["answers"] == found["answers_of_base"]


SCORED = ["a parcel is late", "a refund"]


def compared(*summaries: str, expected: int = 0) -> Compared:
    return Compared(SCORED, [4, 2], summaries, [expected, 0])


def test_equal_summaries_need_no_other_agreement():
    found = judge(compared(*SCORED), compared(*SCORED), VERSIONS)
    assert (found.state, found.same) == ("same", 2)
    assert found.sentence() == (
        "reloaded by plain peft 0.21.2 in a fresh process: 2 of 2 summaries the same"
    )


def test_of_an_equal_summary_every_token_counts():
    found = judge(compared("a parcel was", "a refund", expected=3), compared("", ""), VERSIONS)
    assert (found.state, found.same) == ("close", 1)
    assert found.agreement == Agreement(tokens=round(5 / 6, 4), beginning=round(1.5625 / 2, 4))
    assert found.sentence().endswith("1 of 2 summaries the same, and 83.3% of the tokens of those "
        "that were scored")  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "base", "is_same_adapter"),
    [
        (Agreement(0.99, 0.3), Agreement(0.4, 0.1), True),  # another engine or dtype
        (Agreement(0.99, 0.3), Agreement(0.99, 0.3), True),  # an adapter that changes little
        (Agreement(0.98, 0.3), Agreement(0.95, 0.2), True),
        (Agreement(0.85, 0.3), Agreement(0.6, 0.2), True),
        (Agreement(0.6, 0.9), Agreement(0.6, 0.9), True),  # another that changes little
        (Agreement(0.1, 0.7), Agreement(0.1, 0.1), True),  # tokens that no text shows
        (Agreement(0.97, 0.3), Agreement(0.97, 0.3), False),  # an adapter that does nothing
        (Agreement(0.1, 0.7), Agreement(0.1, 0.7), False),
        (Agreement(0.6, 0.2), Agreement(0.3, 0.1), False),  # other weights
    ],
)
def test_other_texts_are_judged_beside_those_of_the_base(adapter, base, is_same_adapter):
    assert is_close(adapter, base) == is_same_adapter


def test_the_facts_of_a_reload_have_no_text_of_a_conversation():
    facts = judge(compared("secret", ""), compared("", ""), VERSIONS).facts()
    assert facts == {
        "state": "different", "compared": 2, "same": 0, "versions": VERSIONS,
        "agreement": {"tokens": 0, "beginning": 0},
        "agreement_of_base": {"tokens": 0, "beginning": 0},
    }  # fmt: skip
    assert Reload("not verified", why="no memory").facts() == {
        "state": "not verified", "compared": 0, "same": 0, "why": "no memory",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("program", "why", "is_of_machine"),
    [
        ("raise ValueError('no such file: /srv/secret')", "loading it failed (ValueError)", False),
        (
            "raise RuntimeError('Error(s) in loading\\n\\tsize mismatch for /srv/secret')",
            "loading it failed (RuntimeError)",
            False,
        ),
        ("{}['prompts']", "loading it failed (KeyError)", False),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
            "there was no memory to load it once more",
            True,
        ),
        ("raise OSError(28, 'No space left on device')", "the disk was full", True),
        ("import os; os.kill(os.getpid(), 9)", "the process was killed by SIGKILL", True),
        (
            "import sys; sys.stdin.readline()",
            "the process ended with 0, and not with an answer",
            False,
        ),
        ("import time; time.sleep(60)", "it took more than 0.5 seconds", True),
    ],
)
def test_a_process_without_an_answer_says_why(program, why, is_of_machine, tmp_path):
    process = PlainProcess(tmp_path / "reload", 0.5, (sys.executable, "-c", program))
    if "sleep" not in program:
        process = PlainProcess(tmp_path / "reload", 60, process.command)
    with pytest.raises(PlainLoadError) as caught:
        process.ask(MODEL, QUESTION)
    assert (caught.value.why, caught.value.is_of_machine) == (why, is_of_machine)
    assert "secret" not in caught.value.why
    assert ("secret" in str(caught.value)) == ("secret" in program)


def ended_program(stdin: str) -> int:
    """Return the exit code of the program: stdin ends, as when the parent is killed."""
    command = [sys.executable, "-P", plain_load.__file__]
    own = os.environ | {DISABLE_COMPILER: "1"}  # as a training starts it
    return subprocess.run(command, input=stdin, text=True, check=False, env=own).returncode


@pytest.mark.quality  # the program loads the libraries: 7 CPU seconds
def test_the_program_ends_with_the_process_that_started_it(fetched, engine, tmp_path):
    answer = tmp_path / "answer.json"
    endless = request(fetched, engine, ends=[1], max_new_tokens=10**6, answer=str(answer))
    assert ended_program(json.dumps(endless) + "\n") == 1
    assert not answer.exists()


def test_a_process_started_ahead_answers_one_question(tmp_path):
    program = "import sys; print(sys.stdin.readline()); sys.exit(3)"
    process = PlainProcess(tmp_path / "reload", 60, (sys.executable, "-c", program))
    with process.started():
        waiting = process._waiting
        for _ in "ab":  # the second one by a process of its own
            with pytest.raises(PlainLoadError, match="ended with 3"):
                process.ask(MODEL, QUESTION)
    assert waiting.returncode == 3


def test_a_process_started_ahead_ends_without_a_question(tmp_path):
    process = PlainProcess(tmp_path / "reload", 60)
    with process.started():
        waiting = process._waiting
        assert waiting.poll() is None
    assert waiting.returncode == -signal.SIGKILL


@pytest.mark.quality  # the program loads the libraries: 7 CPU seconds
def test_the_program_ends_without_a_request():
    assert ended_program("") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is its own")
def test_a_base_beyond_free_memory_is_not_loaded_again(tmp_path):
    huge = replace(MODEL, parameters=10**15)
    with pytest.raises(PlainLoadError, match=r"its base needs 3725290\.3 GiB"):
        PlainProcess(tmp_path / "reload", 1, ("false",)).ask(huge, QUESTION)


# What trains, and starts the real process.


@pytest.fixture
def verified(config: dict[str, Any]) -> dict[str, Any]:
    """A run of two steps whose adapter is verified."""
    config["training"] |= {"max_steps": 2, "save_every_steps": 1, "sample_summaries": 0}
    config["training"] |= {"learning_rate": 0.05, "warmup_ratio": 0.0}  # it must have an effect
    config["publish"] = {"verify": True}
    return config


@pytest.mark.quality
@pytest.mark.usefixtures("places")
def test_a_published_adapter_says_that_it_was_reloaded(verified, trials):
    code, log = trials.run(verified)
    assert code == ExitCode.DONE, log
    adapter = Path(verified["output"]) / "tiny" / "adapter"
    facts = journal_of(store_of(verified))["facts"]
    assert (facts["reload"]["state"], facts["reload"]["same"]) == ("same", 5)
    assert facts["timings"]["reload_seconds"] > 0
    assert verify_folder(adapter).extra["reload"] == facts["reload"]
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "in a fresh process: 5 of 5 summaries the same." in card


@pytest.mark.quality
@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("otherwise", ["load_adapters_otherwise", "write_another_tokenizer"])
def test_an_adapter_that_was_scored_otherwise_is_not_published(verified, trials, otherwise):
    code, log = trials.run(verified, INSTRUMENTS=otherwise)
    assert code == ExitCode.BUG, log
    assert "What was written is not what was scored" in log
    assert ("its tokenizer does not read" in log) == (otherwise == "write_another_tokenizer")
    run = Path(verified["output"]) / "tiny"
    assert not (run / "adapter").exists()
    assert not (run / "report").exists()
    assert (run / "refused" / ADAPTER_WEIGHTS).exists()
    assert not (run / "refused" / "manifest.json").exists()
    assert journal_of(store_of(verified))["state"] == "failed"

    # The same again, by a person who knows better.
    verified["publish"]["verify"] = False
    code, log = trials.run(verified, INSTRUMENTS=otherwise)
    assert code == ExitCode.DONE, log
    assert (run / "adapter" / "manifest.json").exists()


@pytest.mark.quality
@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("has_own_code", [False, True])
def test_an_adapter_that_nobody_can_load_is_not_published(
    has_own_code, verified, trials, base_folder, tmp_path
):
    # The mistake is in what is written: recap cannot load it to score it, either.
    base = Path(shutil.copytree(base_folder, tmp_path / "base"))
    settings = json.loads((base / "config.json").read_text())
    settings |= {"auto_map": {"AutoModel": "own.py"}} if has_own_code else {}
    (base / "config.json").write_text(json.dumps(settings))
    verified["model"]["base"] = str(base)
    code, log = trials.run(verified, INSTRUMENTS="write_another_rank")
    run = Path(verified["output"]) / "tiny"
    if has_own_code:  # of which the plain process runs none: nothing is known
        assert code == ExitCode.DONE, log
        assert verify_folder(run / "adapter").extra["reload"]["state"] == "not verified"
        return
    assert code == ExitCode.BUG, log
    assert "Nobody else could load it" in log
    assert "size mismatch" in log
    assert not (run / "adapter").exists()
    facts = json.loads((run / "refused" / "reload.json").read_text())
    assert (facts["state"], facts["why"]) == ("not loaded", "loading it failed (RuntimeError)")


@pytest.mark.quality
@pytest.mark.usefixtures("places")
def test_a_reload_that_no_process_survives_is_given_up(verified, trials):
    broken = "job.training.plain_process:PlainProcess.ask:kill"
    codes = [trials.run(verified, BROKEN=broken)[0] for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, ExitCode.DONE]
    facts = journal_of(store_of(verified))["facts"]
    assert facts["reload"]["why"] == "2 attempts ended while it was reloaded"
