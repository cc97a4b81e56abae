"""Where a config comes from, what `--set` and variables do to it, and that nothing is lost on the way out."""

import io
import os
import sys
from pathlib import Path

import pytest

from job.config.load import load_config, resolved_yaml
from job.errors import ConfigError, ForbiddenError, MissingError

NIGHT = """\
run: night
input: s3://bucket/dt={date}/
output: s3://bucket/out/dt={date}/{shard}.jsonl
adapter: org/adapter
"""


def test_the_least_config_gets_an_experts_defaults(write):
    config = load_config("train", write())
    assert (config.run, config.model.quantization, config.training.learning_rate) == (
        "small",
        "nf4-double",
        2e-4,
    )


def test_numbers_without_a_point_are_numbers(write):
    assert (
        load_config("train", write(more="training: {learning_rate: 1e-4}")).training.learning_rate
        == 1e-4
    )


def test_a_day_is_a_name_and_no_object(write):
    assert load_config(
        "train", write("run: 2026-01-31\nmodel: {base: b}\ndata: {train: t}\noutput: o\n")
    ).run == ("2026-01-31")


def test_keys_are_names_as_they_are_written(write):
    config = load_config("train", write(more="prompt: {labels: {no: nobody, 1: first}}"))
    assert config.prompt.labels == {"no": "nobody", "1": "first"}


def test_override_sets_a_value_and_makes_its_section(write):
    config = load_config(
        "train", write(), ["training.epochs=1.5", "lora.target_modules=[q_proj, v_proj]"]
    )
    assert (config.training.epochs, config.lora.target_modules) == (1.5, ["q_proj", "v_proj"])


def test_later_override_wins_and_replaces_what_was_wrong_in_the_file(write):
    source = write(more="lora: {r: -4}")
    assert load_config("train", source, ["lora.r=4", "lora.r=8"]).lora.r == 8


def test_override_to_nothing_is_off(write):
    assert load_config("train", write(), ["model.quantization="]).model.quantization is None


def test_override_of_a_list_goes_by_index(write):
    source = write("run: a\nmodel: {base: b}\noutput: o\ndata: {train: [one, two]}\n")
    assert load_config("train", source, ["data.train.1=three"]).data.train == ["one", "three"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epochs", "--set  training.epochs  wanted --set path.to.key=value"),
        ("=1", "--set  config  wanted --set path.to.key=value"),
        ("lora..r=1", "--set  lora..r  wanted --set path.to.key=value"),
        (
            "lora.r=[",
            '--set  lora.r  got "[", which is no YAML value; put it in quotes: --set lora.r=\'"…"\'',
        ),
        (
            "data.train.2=x",
            "--set  data.train.2  data.train is a list of 2: wanted an index below that",
        ),
        ("run.name=x", '--set  run.name  run is "small", which has no keys'),
        ("lora.r=big", '--set  lora.r  got "big"; wanted an integer of at least 1'),
        ("lora={r: 1, r: 2}", "--set  lora.r  stands twice, first on line 1; keep one"),
    ],
)
def test_an_override_that_makes_no_sense_is_a_mistake(write, override, line):
    source = write("run: small\nmodel: {base: b}\noutput: o\ndata: {train: [one, two]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("train", source, [override])
    assert str(caught.value) == f"1 mistake in c.yaml\n\n  {line}"


def test_variables_come_from_the_command_line_before_the_environment(write, monkeypatch):
    monkeypatch.setenv("RECAP_VAR_DATE", "2026-01-01")
    monkeypatch.setenv("RECAP_VAR_SHARD", "7")
    config = load_config("summarize", write(NIGHT), (), {"date": "2026-01-31"})
    assert (config.input, config.output) == (
        "s3://bucket/dt=2026-01-31/",
        "s3://bucket/out/dt=2026-01-31/7.jsonl",
    )


def test_an_override_may_hold_a_variable(write):
    config = load_config("train", write(), ["output={place}/runs"], {"place": "s3://bucket"})
    assert config.output == "s3://bucket/runs"


@pytest.mark.parametrize("environment", [None, ""])
def test_a_variable_without_value_is_a_mistake_and_never_today(write, monkeypatch, environment):
    monkeypatch.delenv("RECAP_VAR_DATE", raising=False)
    if environment is not None:
        monkeypatch.setenv("RECAP_VAR_DATE", environment)
    with pytest.raises(ConfigError) as caught:
        load_config("summarize", write(NIGHT), (), {"shard": "1"})
    say = (
        "{date} has no value; give --var date=2026-01-31, or set RECAP_VAR_DATE in the environment "
        "(for the text itself write {{date}})"
    )
    assert (
        str(caught.value)
        == f"2 mistakes in c.yaml\n\n  line 2  input   {say}\n  line 3  output  {say}"
    )


def test_several_variables_of_one_value_are_all_told(write):
    with pytest.raises(ConfigError, match=r"\{date\} has no value.*; \{shard\} has no value"):
        load_config("summarize", write(NIGHT))


def test_double_braces_are_the_text_itself_and_other_braces_are_left_alone(write):
    source = write(more="""prompt: {system: 'Use {{date}} in {"a": {}} and {{{name}}}'}""")
    config = load_config("train", source, (), {"name": "no"})
    assert config.prompt.system == 'Use {date} in {"a": {}} and {{name}}'


@pytest.mark.parametrize(
    "text", ["{date}", "{{date}}", "{{{date}}}", '{"a": {"b": 1}}', "{ date }", "}{", "é: # ñ"]
)
def test_resolved_config_loads_to_the_same_config(write, text):
    config = load_config("train", write(), ["lora.r=4"])
    config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"system": text})})
    resolved = resolved_yaml(config)
    assert load_config("train", write(resolved)) == config
    assert "evaluate_every_steps: null" in resolved


def test_standard_input_is_a_source(monkeypatch, write):
    text = Path(write()).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert load_config("train", "-").run == "small"


def test_mistakes_of_standard_input_name_it(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"run: 'a b'")))
    with pytest.raises(ConfigError, match=r"^4 mistakes in standard input\n"):
        load_config("train", "-")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: is empty; wanted keys with values, such as `run: my-run`"),
        (b"run: [", "standard input line 1 column 7: broken YAML: while parsing a flow node, expected the node "
         "content, but found '<stream end>'"),
        (b"run: \xff", "standard input: byte 5 is not UTF-8; save the file as UTF-8"),
    ],
)  # fmt: skip
def test_standard_input_that_is_no_config_is_called_by_its_name(monkeypatch, data, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(ConfigError) as caught:
        load_config("train", "-")
    assert str(caught.value) == message


def test_a_byte_order_mark_is_no_mistake(write):
    source = write()
    Path(source).write_bytes(b"\xef\xbb\xbf" + Path(source).read_bytes())
    assert load_config("train", source).run == "small"


def test_text_that_is_not_utf8_is_told_with_its_byte(write):
    source = write()
    Path(source).write_bytes("run: café".encode("latin-1"))
    with pytest.raises(
        ConfigError, match=r"^c\.yaml: byte 8 is not UTF-8; save the file as UTF-8$"
    ):
        load_config("train", source)


def test_a_missing_file_is_missing(write, tmp_path):
    write()
    with pytest.raises(
        MissingError,
        match=r"^d\.yaml: no such file; give a config's path, s3://… or - for standard",
    ):
        load_config("train", "d.yaml")
    with pytest.raises(MissingError, match="is a folder"):
        load_config("train", str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_forbidden(write):
    source = write()
    Path(source).chmod(0)
    with pytest.raises(ForbiddenError, match="may not be read"):
        load_config("train", source)


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
def test_without_a_command_the_keys_say_whose_config_it_is(write, text, kind):
    assert type(load_config(None, write(text))).__name__ == kind
