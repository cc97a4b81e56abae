"""Claims about mistakes in a config: the exact line that a person reads for each kind."""

import pytest

from job.config.document import ConfigText
from job.config.load import load_config
from job.errors import ConfigError, ExitCode

TOKEN = "hf_" + "aB3" * 11


def lines(source: ConfigText, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config("train", source, overrides)
    assert caught.value.exit_code == ExitCode.CONFIG
    return str(caught.value).splitlines()


def only_line(source: ConfigText, *overrides: str) -> str:
    header, blank, *rest = lines(source, *overrides)
    assert (header, blank, len(rest)) == ("1 mistake in c.yaml", "", 1)
    return rest[0]


def test_one_report_has_all_mistakes_in_the_order_of_the_file(config_text):
    source = config_text(
        """\
        run: small
        model: {base: org/base}
        output: runs
        data:
          train: train.jsonl

        training:
          learning_rat: 0.1
          max_seq_length: 512
        lora:
          r: -4
        """
    )
    assert lines(source) == [
        "3 mistakes in c.yaml",
        "",
        "  line 8   training.learning_rat    unknown key; did you mean learning_rate?",
        "  line 9   training.max_seq_length  unknown key; it is called training.max_tokens here",
        "  line 11  lora.r                   got -4; wanted an integer of at least 1",
    ]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("lora: {r: 1.5}", "line 5  lora.r  got 1.5; wanted an integer of at least 1"),
        ("lora: {r: true}", "line 5  lora.r  got true; wanted an integer of at least 1"),
        (
            "lora: {target_modules: []}",
            "line 5  lora.target_modules  got an empty list; wanted all-linear or a list of text",
        ),
        ("lora: {target_modules: ['']}", 'line 5  lora.target_modules.0  got ""; wanted text'),
        (
            "training: {learning_rate: true}",
            "line 5  training.learning_rate  got true; wanted a number above 0 and at most 1",
        ),
        (
            "training: {epochs: .inf}",
            "line 5  training.epochs  got Infinity; wanted a number above 0 and at most 1000000",
        ),
        (
            "training: {epochs: .nan}",
            "line 5  training.epochs  got NaN; wanted a number above 0 and at most 1000000",
        ),
        (
            "training: {weight_decay: .inf}",
            "line 5  training.weight_decay  got Infinity; wanted a number of at least 0",
        ),
        (
            "training: {max_grad_norm: .inf}",
            "line 5  training.max_grad_norm  got Infinity; wanted a number above 0",
        ),
        (
            "limits: {grace_seconds: .inf}",
            "line 5  limits.grace_seconds  got Infinity; wanted a number above 0",
        ),
        (
            "generation: {temperature: .inf}",
            "line 5  generation.temperature  got Infinity; wanted a number of at least 0",
        ),
        (
            "training: {seed: 4294967296}",
            "line 5  training.seed  got 4294967296; wanted an integer of at least 0 and at most "
            "4294967295",
        ),
        (
            "generation: {seed: 4294967296}",
            "line 5  generation.seed  got 4294967296; wanted an integer of at least 0 and at most "
            "4294967295",
        ),
        (
            "storage: {endpoint_url: 'http://me@host:9000'}",
            "line 5  storage.endpoint_url  looks like a secret, or a URL with a login or a "
            "signature; credentials come from the environment (HF_TOKEN, the AWS credential chain)",
        ),
        (
            "storage: {endpoint_url: 'http://host?region=abc'}",
            "line 5  storage.endpoint_url  is more than http(s)://host:port: take out user, "
            "password and what follows a ? or #; credentials come from the environment (the AWS "
            "credential chain)",
        ),
        (
            "lora: {dropout: 1}",
            "line 5  lora.dropout  got 1; wanted a number of at least 0 and below 1",
        ),
        (
            "lora: sixteen",
            'line 5  lora  got "sixteen"; wanted a section with r, alpha, variant, dropout, '
            "target_modules",
        ),
        (
            "lora:",
            "line 5  lora  got null; wanted a section with r, alpha, variant, dropout, "
            "target_modules; remove it for the defaults",
        ),
        (
            "prompt: {style: chatty}",
            'line 5  prompt.style  got "chatty"; wanted instruction or chat',
        ),
        (
            "prompt: {system: 7}",
            'line 5  prompt.system  got 7; wanted text; write it in quotes: "7"',
        ),
        (
            "prompt: {system: {date}}",
            "line 5  prompt.system  got a mapping with date; wanted text; write a variable "
            'in quotes: "{date}"',
        ),
        ("publish: {hub: name}", "line 5  publish.hub  'name' is not org/name"),
        (
            "prompt: {style: Chat}",
            'line 5  prompt.style  got "Chat"; wanted instruction or chat; did you mean chat?',
        ),
        (
            "evaluation: {others: {theirs: ~/theirs.jsonl}}",
            "line 5  evaluation.others.theirs  '~/theirs.jsonl': ~ is the shell's name of a home "
            "folder, and is not replaced here; write the whole path",
        ),
        (
            "publish: {language: de}",
            'line 5  publish.language  got "de"; wanted a list of a code of two or three '
            'lower-case letters or null; write it as a list: ["de"]',
        ),
        (
            "training: {activation_checkpointing: maybe}",
            'line 5  training.activation_checkpointing  got "maybe"; wanted true, false or auto',
        ),
        (
            "training: {activation_checkpointing: {a: 1}}",
            "line 5  training.activation_checkpointing  got a mapping with a; wanted true, false "
            "or auto",
        ),
        (
            "training: {max_steps: 0}",
            "line 5  training.max_steps  got 0; wanted an integer of at least 1 or null",
        ),
        ("trainig: {}", "line 5  trainig  unknown key; did you mean training?"),
        ("r: 4", "line 5  r  unknown key; did you mean lora.r?"),
        (
            "zebra: 4",
            "line 5  zebra  unknown key; the keys here are run, method, model, data, output, "
            "prompt, lora, training, generation, serve, evaluation, publish, limits, storage",
        ),
        (
            "limits: {stall_minutes: 5}",
            "line 5  limits  stall_minutes 5 is not above upload_minutes 10: no step is done "
            "while the training waits for a checkpoint's upload, so raise one or lower the other",
        ),
        (
            "training: {save_every_steps: 5, save_every_epochs: 1}",
            "line 5  training  save_every_steps and save_every_epochs are both set: keep one of "
            "them",
        ),
        (
            "training: {compile: true, distribution: fsdp, optimizer: adamw_torch}",
            "line 5  training  compile: true is not for distribution: fsdp: leave one of them out",
        ),
        (
            "training: {compile: true, deterministic: true}",
            "line 5  training  deterministic promises the same bytes, which code that is compiled "
            "anew in each process does not give: leave compile or deterministic out",
        ),
        (
            "training: {fused_lora: true, distribution: fsdp, optimizer: adamw_torch}",
            "line 5  training  fused_lora: true is not for distribution: fsdp: leave one of them "
            "out",
        ),
        (
            "training: {fused_lora: true, compile: true}",
            "line 5  training  compile makes few operations of the adapter's, too: leave compile "
            "or fused_lora out",
        ),
        ("lora: {r: 8}\nlora: {r: 9}", "line 6  lora  is set twice, first on line 5; keep one"),
        ("lora: {? [a, b] : 1}", "line 5  lora.?  a key must be a single name"),
    ],
)
def test_a_wrong_value_is_reported_with_what_was_wanted(config_text, more, line):
    assert only_line(config_text(more=more)).strip() == line


def test_types_of_a_key_are_one_mistake_by_the_deepest_of_them(config_text):
    source = config_text(
        """\
        run: small
        model: {base: org/base}
        output: runs
        data:
          train: []
          roles: {bot: robot}
          columns: {ids: number}
          cleaning: [linkz]
        """
    )
    assert [" ".join(line.split()) for line in lines(source)[2:]] == [
        "line 5 data.train got an empty list; wanted text or a list of text",
        'line 6 data.roles.bot got "robot"; wanted customer, agent or system',
        "line 7 data.columns.ids unknown key; did you mean id?",
        'line 8 data.cleaning.0 got "linkz"; wanted links, mentions, signatures, html_entities or '
        "whitespace",
    ]


def test_a_missing_key_has_the_line_of_its_section(config_text):
    source = config_text("run: small\nmodel: {base: org/base}\ndata: {validation: v.jsonl}\n")
    assert [" ".join(line.split()) for line in lines(source)[2:]] == [
        "line 3 data.train is missing; wanted text or a list of text",
        "output is missing; wanted text",
    ]


@pytest.mark.parametrize(
    ("section", "key", "answer"),
    [
        ("training", "max_length", "it is called training.max_tokens here"),
        ("training", "num_train_epochs", "it is called training.epochs here"),
        (
            "training",
            "loss_type",
            "the loss of pairs is DPO's with an SFT term (training.dpo), that "
            "of thumbs is KTO's (training.kto); remove it",
        ),
        ("training", "per_device_train_batch_size", "it is called training.batch_size here"),
        ("training", "lr", "it is called training.learning_rate here"),
        (
            "training",
            "gradient_checkpointing",
            "it is called training.activation_checkpointing here",
        ),
        ("training", "save_steps", "it is called training.save_every_steps here"),
        ("training", "eval_steps", "it is called training.evaluate_every_steps here"),
        ("training", "save_total_limit", "it is called training.keep_last here"),
        (
            "training",
            "eval-strategy",
            "it is called training.evaluate_every_epochs here (a number of epochs; or "
            "training.evaluate_every_steps)",
        ),
        (
            "training",
            "evaluation_strategy",
            "it is called training.evaluate_every_epochs here (a number of epochs; or "
            "training.evaluate_every_steps)",
        ),
        (
            "training",
            "warmup_steps",
            "it is called training.warmup_ratio here (a share of all steps, from 0 to below 1)",
        ),
        ("training", "report_to", "TensorBoard is always written, below the output; remove it"),
        ("training", "push_to_hub", "it is called publish.hub here (org/name)"),
        ("training", "output_dir", "it is called output here"),
        (
            "training",
            "dataset_text_field",
            "rows are made of conversations: data.format, and data.columns for tables; remove it",
        ),
        ("training", "packing_strategy", "packing is on or off: training.packing"),
        (
            "training",
            "bf16",
            "not a switch here: model.dtype is bfloat16, float16, float32 or auto",
        ),
        ("lora", "lora_alpha", "it is called lora.alpha here"),
        ("lora", "lora_r", "it is called lora.r here"),
        (
            "model",
            "load_in_4bit",
            "it is called model.quantization here (nf4, nf4-double, or null for none)",
        ),
        (
            "model",
            "bnb_4bit_quant_type",
            "it is called model.quantization here (nf4 or nf4-double)",
        ),
        (
            "training",
            "load_best_model_at_end",
            "it is called training.adapter_from here (best_evaluation, best_metric or last_step)",
        ),
        ("training", "early_stopping_patience", "it is called training.patience here"),
        (
            "training",
            "evals_per_epoch",
            "it is called training.evaluate_every_epochs here (a number of epochs: 4 of "
            "them an epoch are 0.25)",
        ),
        ("training", "sample_packing", "it is called training.packing here"),
        ("training", "cutoff_len", "it is called training.max_tokens here"),
        ("training", "neftune_noise_alpha", "not offered; remove it"),
        ("lora", "use_dora", "it is called lora.variant here (lora, rslora or dora)"),
        ("lora", "lora_target", "it is called lora.target_modules here (all-linear, or names)"),
        (
            "model",
            "quantization_bit",
            "it is called model.quantization here (nf4, nf4-double, or null for none)",
        ),
        (
            "model",
            "flash_attn",
            "it is called model.attention here "
            "(sdpa, flash_attention_2, flash_attention_3 or eager)",
        ),
        ("model", "tokenizer", "the tokenizer comes with model.base; remove it"),
        ("data", "message_property_mappings", "it is called data.turns here ({role: …, text: …})"),
        ("data", "field_messages", "it is called data.turns here ({list: …})"),
        ("data", "role_tag", "it is called data.turns here ({role: …})"),
        ("data", "user_tag", "it is called data.roles here ({that name: customer})"),
        (
            "data",
            "drop_system_message",
            "it is called data.drop_roles here ([system] leaves system messages out)",
        ),
        ("data", "summary_column", "it is called data.columns here ({summary: …})"),
        ("data", "train_on_inputs", "the loss is always on the summary alone; remove it"),
        ("data", "roles_to_train", "the loss is always on the summary alone; remove it"),
    ],
)
def test_names_of_other_libraries_are_answered_with_the_name_here(
    config_text, section, key, answer
):
    line = next(line for line in lines(config_text(), f"{section}.{key}=1") if key in line)
    assert line.split(None, 2)[2] == f"unknown key; {answer}"


def test_every_renamed_path_exists_in_some_config():
    from job.config.commands import CONFIGS
    from job.config.mistakes import paths_of
    from job.config.renamed import CALLED
    from job.config.renamed_values import VALUES

    known = {path for config in CONFIGS.values() for path in paths_of(config.model_json_schema())}
    assert {path for paths in CALLED.values() for path in paths} <= known
    assert VALUES.keys() <= CALLED.keys()
    assert not CALLED.keys() & {path for path in known if "." not in path} - {"train", "input"}


@pytest.mark.parametrize(
    "key", ["hub_token", "token", "HF_TOKEN", "use_auth_token", "push_to_hub_token"]
)
def test_a_token_is_never_a_key(config_text, key):
    line = only_line(config_text(more=f"publish: {{{key}: something}}"))
    assert line == f"  line 5  publish.{key}  never in a config: set HF_TOKEN in the environment"


@pytest.mark.parametrize(
    "key", ["aws_access_key_id", "aws_secret_access_key", "secret_key", "session_token"]
)
def test_credentials_of_aws_are_never_keys(config_text, key):
    line = only_line(config_text(more=f"storage: {{{key}: something}}"))
    wanted = "never in a config: credentials of AWS come from the environment, a profile or a role"
    assert line == f"  line 5  storage.{key}  {wanted}"


@pytest.mark.parametrize("key", ["max_token", "pad_token", "max_new_token"])
def test_a_misspelled_number_of_tokens_is_no_secret(config_text, key):
    assert "never in a config" not in only_line(config_text(more=f"generation: {{{key}: 3}}"))


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "AKIA" + "ABCDEFGH" * 2,
        "https://user:password@host/path",
        "s3://key:secret@bucket/prefix",
        "https://account.blob.example/x.jsonl?se=2026-01-01&sig=abcdef",
        "https://bucket.example/x.jsonl?Expires=1&Signature=abcdef&Key-Pair-Id=K",
        "https://only-a-token@host/x.jsonl",
        "s3://bucket/x.jsonl?X-Amz-Signature=abcdef",
        "Bearer abcdefgh12345678",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize("key", ["prompt.system", "prompt.style", "lora.r", "zebra", "data.train"])
def test_a_value_that_looks_like_a_secret_is_not_shown(config_text, key, secret):
    text = "\n".join(lines(config_text(), f'{key}="{secret}"'))
    assert f"{key}  looks like a secret" in text
    assert secret not in text


def test_ordinary_names_are_no_secrets(config_text):
    names = [
        "hf_conversations_archive",
        "s3://bucket/a:b/c@d",
        "https://host:9000/path",
        "skip-this-one",
    ]
    config = load_config("train", config_text(), [f"data.train={names}"])
    assert config.data.train == names


def test_broken_yaml_has_line_and_column_and_no_text(config_text):
    source = config_text(f"run: small\nmodel: {{base: {TOKEN}\nrun: x\n")
    with pytest.raises(
        ConfigError, match=r"^c\.yaml line 3 column 4: broken YAML: while parsing a flow mapping"
    ) as it:
        load_config("train", source)
    assert TOKEN not in str(it.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: is empty; wanted keys with values, such as `run: my-run`"),
        ("- a\n", "c.yaml: got a list; wanted keys with values, such as `run: my-run`"),
        ("words\n", "c.yaml: got a single value; wanted keys with values, such as `run: my-run`"),
        (
            "a: &x 1\nb: *x\n",
            "c.yaml line 2 column 4: broken YAML: '*x' stands for a value elsewhere; write the "
            "value out",
        ),
        (
            "a: !!python/name:os.system\n",
            "c.yaml line 1 column 4: broken YAML: could not determine a constructor for "
            "the tag 'tag:yaml.org,2002:python/name:os.system'",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "c.yaml line 2 column 1: broken YAML: expected a single document in the stream, but "
            "found another document",
        ),
        (
            "run: !!int abc\n",
            "c.yaml line 1 column 6: broken YAML: this is no int; take the tag away, or quote the "
            "value",
        ),
        (
            "run: " + "[" * 2000 + "]" * 2000,
            "c.yaml line 1 column 105: broken YAML: nested far deeper than any config "
            "is; check the brackets",
        ),
        (
            "a:\n\tb: c\n",
            "c.yaml line 2 column 1: broken YAML: while scanning for the next token, found "
            "character '\\t' that cannot start any token; keys of one section begin in the same "
            "column, after spaces and no tabs",
        ),
        ("a: \x07\n", "c.yaml: broken YAML: special characters are not allowed"),
    ],
)
def test_a_file_that_is_no_config_is_an_error_of_one_line(config_text, text, message):
    source = config_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("train", source)
    assert str(caught.value) == message


def test_a_config_for_another_command_is_recognized(config_text):
    source = config_text("run: night\ninput: in/\noutput: out/\nadapter: a\n")
    first, blank, *rest = lines(source)
    assert first == "c.yaml: its keys are those of `recap summarize`, and this is `recap train`"
    assert (blank, rest[0]) == ("", "4 mistakes in c.yaml")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("train", "run: r\noutput: out/\nmodel: {base: org/base}\ndata: {train: in/}\n"),
        ("summarize", "run: night\ninput: in/\noutput: out/\nadapter: a\n"),
        ("evaluate", "run: night\ninput: in/\noutput: out/\nadapter: a\n"),
    ],
)
def test_code_of_a_base_needs_a_pinned_commit(config_text, command, text):
    source = config_text(text)
    assert not load_config(command, source).model.trust_remote_code
    for revision in ("null", "main", "a1b2c3d"):
        with pytest.raises(ConfigError, match=r"pin model\.revision to a 40-digit commit"):
            load_config(
                command, source, ["model.trust_remote_code=true", f"model.revision={revision}"]
            )
    pinned = ["model.trust_remote_code=true", f"model.revision={'a1' * 20}"]
    assert load_config(command, source, pinned).model.trust_remote_code
