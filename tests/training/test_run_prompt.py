"""Claims about the prompt that is kept with a run: rendered once, read back, never mixed up."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from job.config.commands import TrainConfig
from job.errors import DamagedError, ExitCode, MissingError, OutputError
from job.model.fetch import small_identity
from job.preflight.training import plan_training
from job.prompt.template import Prompt, prompt_digest
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from job.telemetry import Phases
from job.training import journal
from job.training.examples import read_examples
from job.training.run_prompt import FACT, read_run_prompt, write_run_prompt
from job.training.stop import StopSignal
from job.training.watch import Watch
from tests.tiny import CHAT_TEMPLATE

PROMPT = Prompt("Today is 28 Nov. Sum up.\n", "\n", False, {"agent": "us"}, ("whitespace",))
BASE = {
    "uri": "models/base",
    "revision": None,
    "digest": "d1",
    "tokenizer_digest": "t1",
    "tokenizer_files": {"tokenizer.json": "1", "chat_template.jinja": "2"},
    "generation_digest": "g1",
}


@pytest.fixture
def store(config) -> LocalStore:
    """The folder of a run that has begun with PROMPT and BASE."""
    folder = LocalStore(f"{config['output']}/tiny")
    facts = {FACT: prompt_digest(PROMPT), "base": BASE}
    journal.begin(folder, TrainConfig.model_validate(config), {}, 0, facts)
    write_run_prompt(folder, PROMPT)
    return folder


def test_a_run_that_has_begun_reads_its_prompt_back(store):
    assert read_run_prompt(store) == PROMPT


def test_a_run_that_has_done_no_step_with_a_prompt_renders_one(store, tmp_path):
    assert read_run_prompt(LocalStore(str(tmp_path / "new"))) is None
    store.delete("prompt.json")
    assert read_run_prompt(store) is None, "it died before the prompt was written"
    write_run_prompt(store, PROMPT)
    store.delete("run.json")
    assert read_run_prompt(store) is None, "a file that nobody owns may be of another config"


def test_a_lost_prompt_that_checkpoints_were_trained_with_ends_the_run(store, tmp_path):
    (tmp_path / "step").mkdir()
    publish_folder(tmp_path / "step", store, "checkpoints/step-00000002", {})
    assert read_run_prompt(store) == PROMPT
    store.delete("prompt.json")
    with pytest.raises(MissingError, match=r"tiny: prompt\.json is missing, .*another name"):
        read_run_prompt(store)


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b'{"before": 1}', b"\xff"])
def test_a_damaged_prompt_ends_the_run(store, content):
    store.write("prompt.json", content)
    with pytest.raises(DamagedError, match=r"tiny: prompt\.json is unreadable .*another name"):
        read_run_prompt(store)


def test_a_prompt_that_was_edited_ends_the_run(store):
    edited = json.loads(store.read("prompt.json")) | {"before": "Obey."}
    store.write("prompt.json", json.dumps(edited).encode())
    with pytest.raises(DamagedError, match="is not the prompt that this run began with"):
        read_run_prompt(store)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("digest", "another config.json or weights of models/base"),
        ("tokenizer_digest", "another tokenizer or chat template of models/base"),
        ("generation_digest", r"another generation_config\.json of models/base"),
    ],
)
def test_a_base_that_changed_since_the_run_began_is_refused(store, key, named):
    found = journal.read_journal(store)
    journal.check_same_base(found, store, BASE)
    with pytest.raises(
        OutputError,
        match=f"{named}: put the files of then back, or give .* name",
    ):
        journal.check_same_base(found, store, BASE | {key: "other"})


def test_the_changed_files_of_a_tokenizer_are_named(store):
    files = BASE["tokenizer_files"] | {"chat_template.jinja": "3"}
    other = BASE | {"tokenizer_digest": "t2", "tokenizer_files": files}
    with pytest.raises(OutputError, match=r"models/base \(chat_template\.jinja\): put"):
        journal.check_same_base(journal.read_journal(store), store, other)


@pytest.fixture
def begun(config, places) -> TrainConfig:
    """A run of the real base that has begun with PROMPT, which no config here renders."""
    loaded = TrainConfig.model_validate(config)
    folder = LocalStore(f"{config['output']}/tiny")
    identity = journal.fingerprint(loaded, read_examples(loaded).digests())
    base = small_identity(loaded.model.base, Path(loaded.model.base))
    facts = {FACT: prompt_digest(PROMPT), "base": base | {"digest": "of other weights"}}
    journal.begin(folder, loaded, identity, 0, facts)
    write_run_prompt(folder, PROMPT)
    return loaded


def test_a_later_attempt_encodes_its_rows_with_the_prompt_of_the_first(begun, tmp_path):
    from job.training.prepare import prepare

    run = prepare(begun, tmp_path, LocalStore(f"{begun.output}/tiny"))
    assert run.data.prompt == PROMPT
    first = run.tokenizer.decode(run.data.rows.train.dataset[0]["input_ids"])
    assert "Today is 28 Nov. Sum up." in first
    assert "### Instruction" not in first


def test_weights_that_changed_since_the_run_began_are_refused(begun, tmp_path, monkeypatch):
    from job.training.run import train

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(OutputError, match=r"began with another config\.json or weights of"):
            train(begun, tmp_path, StopSignal(), Watch(tmp_path), Phases(0.0))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_plan_shows_the_prompt_of_a_run_that_has_begun(begun):
    found = {check.name: check.found for check in plan_training(begun).checks}
    shown = "as the run began with it: Today is 28 Nov. Sum up.\\n⟨conversation⟩\\n"
    assert found["prompt"].endswith(shown)
    beside = begun.model_copy(update={"run": "other"})
    new = {check.name: check.found for check in plan_training(beside).checks}
    assert "### Instruction" in new["prompt"]
    assert found["rows"] != new["rows"], "the rows are counted with the prompt that is shown"


def test_a_plan_refuses_a_changed_template_and_begins_beside_if_fresh(
    config, base_folder, tmp_path, places
):
    base = shutil.copytree(base_folder, tmp_path / "base")
    config["model"]["base"] = str(base)
    loaded = TrainConfig.model_validate(config)
    folder = LocalStore(f"{config['output']}/tiny")
    identity = journal.fingerprint(loaded, read_examples(loaded).digests())
    journal.begin(folder, loaded, identity, 0, {"base": small_identity(str(base), base)})
    assert plan_training(loaded, brief=True).error is None

    (base / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    refused = plan_training(loaded, brief=True).error
    assert refused.exit_code == ExitCode.OUTPUT
    assert "another tokenizer or chat template" in str(refused)
    assert "(chat_template.jinja): put the files of then back" in str(refused)
    assert str(refused).endswith("or start beside it with `recap train … --fresh`")
    fresh = plan_training(loaded, fresh=True, brief=True)
    assert (fresh.error, fresh.run) == (None, journal.fresh_name("tiny", identity))


def test_each_change_of_the_bases_files_can_begin_beside_the_last(
    config, base_folder, tmp_path, places
):
    base = shutil.copytree(base_folder, tmp_path / "base")
    config["model"]["base"] = str(base)
    loaded = TrainConfig.model_validate(config)
    identity = journal.fingerprint(loaded, read_examples(loaded).digests())

    names = []
    for change in range(4):
        (base / "chat_template.jinja").write_text(f"{CHAT_TEMPLATE}{'{# #}' * change}")
        (base / "generation_config.json").write_text(f'{{"top_k": {change + 1}}}')
        planned = plan_training(loaded, fresh=True, brief=True)
        assert planned.error is None
        names.append(planned.run)
        folder = LocalStore(f"{config['output']}/{planned.run}")
        journal.begin(folder, loaded, identity, 0, {"base": small_identity(str(base), base)})
        again = plan_training(loaded, fresh=True, brief=True)
        assert (again.run, len(again.story)) == (planned.run, 1), "the same command resumes"
    assert names[:2] == ["tiny", journal.fresh_name("tiny", identity)]
    assert len(set(names)) == 4
