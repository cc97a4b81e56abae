"""Claims about loading: overrides, variables, defaults, and the way back to YAML."""

import pytest

from job.config.commands import CONFIGS
from job.config.load import load_config, resolved_yaml
from job.config.sections import Section
from job.errors import ConfigError

NIGHT = """\
run: night
input: s3://bucket/dt={date}/
output: s3://bucket/out/dt={date}/{shard}.jsonl
adapter: org/adapter
"""


def test_the_smallest_config_gets_an_experts_defaults(config_text):
    config = load_config("train", config_text())
    assert (config.run, config.model.quantization, config.training.learning_rate) == (
        "small",
        "nf4-double",
        2e-4,
    )


def test_a_named_key_of_a_section_leaves_the_others_at_their_defaults(config_text):
    text = "run: r\ninput: t.jsonl\noutput: out\nadapter: a\n"
    whole = load_config("evaluate", config_text(text)).evaluation
    named = load_config("evaluate", config_text(text + "evaluation: {bootstrap_samples: 500}"))
    assert (whole.max_conversations, whole.base_without_adapter) == (None, True)
    assert named.evaluation == whole.model_copy(update={"bootstrap_samples": 500})


def _sections_with_defaults(section, above=""):
    for key, field in section.model_fields.items():
        if isinstance(field.default, Section):
            yield pytest.param(field.default, id=f"{above}{key}")
            yield from _sections_with_defaults(type(field.default), f"{above}{key}.")


@pytest.mark.parametrize(
    "default",
    [
        section
        for command, config in CONFIGS.items()
        for section in _sections_with_defaults(config, f"{command}.")
    ],
)
def test_defaults_of_a_section_are_those_of_its_keys(default):
    # Others would be lost as soon as a config names one key of the section.
    assert default == type(default)()


def test_numbers_without_a_point_are_numbers(config_text):
    assert (
        load_config(
            "train", config_text(more="training: {learning_rate: 1e-4}")
        ).training.learning_rate
        == 1e-4
    )


def test_a_date_in_yaml_stays_text(config_text):
    assert load_config(
        "train", config_text("run: 2026-01-31\nmodel: {base: b}\ndata: {train: t}\noutput: o\n")
    ).run == ("2026-01-31")


def test_keys_stay_as_they_are_written(config_text):
    config = load_config("train", config_text(more="prompt: {labels: {no: nobody, 1: first}}"))
    assert config.prompt.labels == {"no": "nobody", "1": "first"}


def test_override_sets_a_value_and_makes_its_section(config_text):
    config = load_config(
        "train", config_text(), ["training.epochs=1.5", "lora.target_modules=[q_proj, v_proj]"]
    )
    assert (config.training.epochs, config.lora.target_modules) == (1.5, ["q_proj", "v_proj"])


def test_the_last_override_wins_even_over_a_mistake_in_the_file(config_text):
    source = config_text(more="lora: {r: -4}")
    assert load_config("train", source, ["lora.r=4", "lora.r=8"]).lora.r == 8


def test_an_empty_override_is_null(config_text):
    assert load_config("train", config_text(), ["model.quantization="]).model.quantization is None


def test_override_of_a_list_goes_by_index(config_text):
    source = config_text("run: a\nmodel: {base: b}\noutput: o\ndata: {train: [one, two]}\n")
    assert load_config("train", source, ["data.train.1=three"]).data.train == ["one", "three"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epochs", "--set  training.epochs  wanted --set path.to.key=value"),
        ("=1", "--set  config  wanted --set path.to.key=value"),
        ("lora..r=1", "--set  lora..r  wanted --set path.to.key=value"),
        (
            "lora.r=[",
            '--set  lora.r  got "[", which is no YAML value; put it in quotes: --set '
            "lora.r='\"…\"'",
        ),
        (
            "data.train.2=x",
            "--set  data.train.2  data.train is a list of 2: wanted an index below that",
        ),
        ("run.name=x", '--set  run.name  run is "small", which has no keys'),
        ("lora.r=big", '--set  lora.r  got "big"; wanted an integer of at least 1'),
        ("lora={r: 1, r: 2}", "--set  lora.r  is set twice, first on line 1; keep one"),
    ],
)
def test_an_invalid_override_is_a_mistake(config_text, override, line):
    source = config_text("run: small\nmodel: {base: b}\noutput: o\ndata: {train: [one, two]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("train", source, [override])
    assert str(caught.value) == f"1 mistake in c.yaml\n\n  {line}"


def test_variables_come_from_the_command_line_before_the_environment(config_text, monkeypatch):
    monkeypatch.setenv("RECAP_VAR_DATE", "2026-01-01")
    monkeypatch.setenv("RECAP_VAR_SHARD", "7")
    config = load_config("summarize", config_text(NIGHT), (), {"date": "2026-01-31"})
    assert (config.input, config.output) == (
        "s3://bucket/dt=2026-01-31/",
        "s3://bucket/out/dt=2026-01-31/7.jsonl",
    )


def test_an_override_may_hold_a_variable(config_text):
    config = load_config("train", config_text(), ["output={place}/runs"], {"place": "s3://bucket"})
    assert config.output == "s3://bucket/runs"


@pytest.mark.parametrize("environment", [None, ""])
def test_a_variable_without_a_value_is_a_mistake_and_never_today(
    config_text, monkeypatch, environment
):
    monkeypatch.delenv("RECAP_VAR_DATE", raising=False)
    if environment is not None:
        monkeypatch.setenv("RECAP_VAR_DATE", environment)
    with pytest.raises(ConfigError) as caught:
        load_config("summarize", config_text(NIGHT), (), {"shard": "1"})
    say = (
        "{date} has no value; give --var date=2026-01-31, or set RECAP_VAR_DATE in the environment "
        "(for the text itself write {{date}})"
    )
    assert (
        str(caught.value)
        == f"2 mistakes in c.yaml\n\n  line 2  input   {say}\n  line 3  output  {say}"
    )


def test_all_variables_without_a_value_are_named(config_text):
    with pytest.raises(ConfigError, match=r"\{date\} has no value.*; \{shard\} has no value"):
        load_config("summarize", config_text(NIGHT))


def test_double_braces_are_the_text_itself_and_other_braces_stay(config_text):
    source = config_text(more="""prompt: {system: 'Use {{date}} in {"a": {}} and {{{name}}}'}""")
    config = load_config("train", source, (), {"name": "no"})
    assert config.prompt.system == 'Use {date} in {"a": {}} and {{name}}'


@pytest.mark.parametrize(
    "text", ["{date}", "{{date}}", "{{{date}}}", '{"a": {"b": 1}}', "{ date }", "}{", "é: # ñ"]
)
def test_resolved_config_loads_to_the_same_config(config_text, text):
    config = load_config("train", config_text(), ["lora.r=4"])
    config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"system": text})})
    resolved = resolved_yaml(config)
    assert load_config("train", config_text(resolved)) == config
    assert "evaluate_every_steps: null" in resolved


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("run: a\nmodel: {base: b}\ndata: {train: t}\noutput: o\n", "TrainConfig"),
        ("run: a\ninput: i\nadapter: b\noutput: o\nlimits: {}\n", "SummarizeConfig"),
        ("run: a\ninput: i\nadapter: b\noutput: o\n", "SummarizeConfig"),
        ("run: a\ninput: i\nadapter: b\noutput: o\nevaluation: {}\n", "EvaluateConfig"),
        ("run: a\ninput: i\nsummaries: s\noutput: o\n", "EvaluateConfig"),
    ],
)
def test_without_a_command_the_keys_decide_whose_config_it_is(config_text, text, kind):
    assert type(load_config(None, config_text(text))).__name__ == kind


REQUIRED = {
    "train": {"run": "a", "model.base": "b", "data.train": "t", "output": "o"},
    "summarize": {"run": "a", "input": "i", "adapter": "b", "output": "o"},
    "evaluate": {"run": "a", "input": "i", "adapter": "b", "output": "o"},
    "feedback": {"run": "a", "verdicts": "v", "nights": "n", "output": "o"},
    "watch": {"run": "a", "nights": "n"},
}


@pytest.mark.parametrize("command", CONFIGS)
def test_every_required_key_of_a_command_may_have_a_variable(config_text, command):
    plain = [f"{key}={value}-2026" for key, value in REQUIRED[command].items()]
    varied = [f"{key}={value}-{{year}}" for key, value in REQUIRED[command].items()]
    wanted = load_config(command, config_text("{}"), plain)
    config = load_config(command, config_text("{}"), varied, {"year": "2026"})
    if command == "summarize":
        assert (wanted.limits.min_records, config.limits.min_records) == (1, 0)
        wanted = wanted.model_copy(update={"limits": config.limits})
    assert config == wanted


def test_the_keys_decide_whose_config_it_is_with_a_variable_in_the_input(config_text):
    text = "run: a\ninput: '{place}/i'\nadapter: b\noutput: o\n"
    judged = load_config(None, config_text(text + "evaluation: {}\n"), (), {"place": "s3://b"})
    night = load_config(None, config_text(text), (), {"place": "s3://b"})
    assert (type(judged).__name__, judged.input) == ("EvaluateConfig", "s3://b/i")
    assert (type(night).__name__, night.limits.min_records) == ("SummarizeConfig", 0)
