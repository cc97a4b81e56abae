"""Claims about configs that were copied from other programs: each of their names is answered."""

import re

import pytest
import yaml

from job.config.commands import TrainConfig
from job.config.load import load_config
from job.config.mistakes import paths_of
from job.config.not_settings import ANSWERS
from job.config.renamed import CALLED
from job.config.renamed_values import MEANT
from job.errors import ConfigError
from tests.config.foreign import SOURCES, foreign_names
from tests.config.foreign_configs import CONFIGS

PROGRAMS = [*SOURCES, "axolotl", "LLaMA-Factory", "Unsloth", "the notebook"]
ANSWER = re.compile(r"it is called \S+ here|did you mean [a-z_.]+|never in a config|remove it|: ")


def answers(source):
    """Return the answer to each key at the top level of a config that has mistakes."""
    with pytest.raises(ConfigError) as caught:
        load_config("train", source)
    lines = str(caught.value).splitlines()[2:]
    return dict(re.fullmatch(r"  line \d+ +(\S+) +(.*)", line).groups() for line in lines)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_name_of_another_program_is_answered_at_once(config_text, program):
    own = {"run", "model", "data", "output", "training"}
    names = [name for name in foreign_names(program) if name not in own]
    found = answers(config_text(more="".join(f"{name}: x\n" for name in names)))
    assert found.keys() == set(names)
    unanswered = {name: text for name, text in found.items() if not ANSWER.search(text)}
    assert not unanswered
    assert not [name for name, text in found.items() if "the keys here are" in text]


@pytest.mark.parametrize("command", ["summarize", "evaluate"])
def test_each_name_of_generation_is_answered_for_commands_that_generate(config_text, command):
    names = foreign_names("generation")
    own = {"run": "n", "input": "i", "output": "o/", "adapter": "a"}
    text = "".join(f"{name}: {value}\n" for name, value in own.items())
    with pytest.raises(ConfigError) as caught:
        load_config(command, config_text(text + "".join(f"{name}: x\n" for name in names)))
    lines = str(caught.value).splitlines()[2:]
    found = dict(re.fullmatch(r"  line \d+ +(\S+) +(.*)", line).groups() for line in lines)
    assert found.keys() == set(names)
    assert not {name: text for name, text in found.items() if not ANSWER.search(text)}


@pytest.mark.parametrize("name", ["hf_hub_token", "hf_use_auth_token", "push_to_hub_token"])
def test_a_token_by_any_name_is_never_a_key(config_text, name):
    assert answers(config_text(more=f"{name}: x\n"))[name].startswith("never in a config")


def test_a_name_with_a_counterpart_in_trainings_has_no_other_answer():
    paths = set(paths_of(TrainConfig.model_json_schema()))
    both = ANSWERS.keys() & CALLED.keys()
    assert not [name for name in both if paths & set(CALLED[name])]


def placed(path, value):
    """Return the smallest config of a training with a value at a path of its keys."""
    config = {"run": "r", "model": {"base": "b"}, "data": {"train": "t"}, "output": "o"}
    *sections, key = path.replace("*", "them").split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return yaml.safe_dump(config)


@pytest.mark.parametrize(("path", "value"), [(p, v) for p, vs in MEANT.items() for v in vs])
def test_a_value_of_another_program_is_answered_with_ours(config_text, path, value):
    (found,) = answers(config_text(placed(path, value))).values()
    assert found.endswith(f"; did you mean {MEANT[path][value]}?")


@pytest.mark.parametrize(("path", "value"), [(p, v) for p, vs in MEANT.items() for v in vs])
def test_what_is_meant_is_a_value_of_the_key(config_text, path, value):
    meant = yaml.safe_load(MEANT[path][value])
    config = load_config("train", config_text(placed(path, meant)))
    found = config.model_dump()
    for name in path.replace("*", "them").split("."):
        found = found[name]
    assert found == meant


def test_mistakes_across_keys_are_in_the_report_with_those_of_single_keys(config_text):
    """A key that is wrong hides no other mistake, and what is missing hides none, either."""
    found = answers(
        config_text(
            """\
            run: small
            model: {base: org/base, trust_remote_code: true}
            data: {train: t, format: tables, columns: {id: [a, b]}}
            output: runs.jsonl
            training: {learning_rate: 5, save_every_steps: 5, save_every_epochs: 1}
            limits: {grace_seconds: 0, stall_minutes: 5}
            lora: {rank: 8}
            publish: {gate: {better_than: [champion]}}
            """
        )
    )
    assert found.keys() == {
        "model",
        "data",
        "data.format",
        "output",
        "training",
        "training.learning_rate",
        "limits",
        "limits.grace_seconds",
        "lora.rank",
        "publish.gate.better_than.0",
    }
    assert "save_every_epochs are both set" in found["training"]
    assert "is not above upload_minutes" in found["limits"]


def test_a_wrong_value_is_not_blamed_for_what_it_would_mean(config_text):
    """A check of two keys says nothing where one of them is wrong already."""
    found = answers(config_text(more="limits: {upload_minutes: 40, stall_minutes: -1}\n"))
    assert list(found) == ["limits.stall_minutes"]


def test_what_is_missing_hides_no_other_mistake(config_text):
    text = "run: r\nmodel: {base: b}\npublish: {gate: {better_than: [champion]}}\n"
    with pytest.raises(ConfigError) as caught:
        load_config("train", config_text(text))
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()[2:]]
    assert len(lines) == 3
    assert lines[0].startswith("line 3 publish.gate.better_than.0 ")
    assert lines[1].startswith("data is missing; ")
    assert lines[2].startswith("output is missing; ")


@pytest.mark.parametrize("program", CONFIGS)
def test_a_whole_config_of_another_program_is_answered(config_text, program):
    """Without a command, too: the answers are those of a training."""
    settings = CONFIGS[program]
    with pytest.raises(ConfigError) as caught:
        load_config(None, config_text("\n".join(settings) + "\n"))
    lines = str(caught.value).splitlines()[2:]
    found = [re.fullmatch(r" +(?:line (\d+))? +(\S+) +(.*)", line).groups() for line in lines]
    answered = {int(line): text for line, _, text in found if line}
    for number, (setting, ours) in enumerate(settings.items(), 1):
        wanted = re.escape(ours) if ours else "remove it|not offered"
        assert re.search(wanted, answered[number]), (setting, answered[number])
    # What is there under another name is not missing, too.
    missing = {name for line, name, _ in found if not line}
    assert missing <= {"run", "model", "data", "output"} - set(settings.values())


def test_only_the_first_unknown_key_lists_those_of_its_section(config_text):
    found = answers(config_text(more="zebra: 1\nyak: 2\ntraining: {zebra: 1}\n"))
    assert found["zebra"].startswith("unknown key; the keys here are run, method, model, data, ")
    assert found["yak"] == "unknown key; see zebra above"
    assert found["training.zebra"].startswith("unknown key; the keys here are epochs, ")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("training: {}", "training  is a key of `recap train`"),
        ("epochs: 3", "training.epochs is a key of `recap train`"),
        ("num_train_epochs: 3", "training.epochs is a key of `recap train`"),
        ("summaries: s", "summaries  is a key of `recap evaluate`"),
    ],
)
def test_a_key_of_another_command_is_answered_with_that_command(config_text, key, told):
    night = "run: n\ninput: i\noutput: o/\nmodel: {base: b}\n"
    with pytest.raises(ConfigError) as caught:
        load_config("summarize", config_text(f"{night}{key}\n"))
    assert f"{told} and not of this command; remove it" in str(caught.value)
