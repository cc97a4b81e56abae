"""Claims about the places of configs on the stack of infra/aws, by the template's own policies."""

import json
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import command_of
from job.config.load import load_config
from job.config.sections import to_plain
from job.errors import ConfigError, ForbiddenError
from job.storage.config_file import read_config
from job.submit.locations import (
    check_reachable,
    config_uri,
    places_read,
    places_written,
)
from job.submit.stack import Stack
from job.submit.submission import Place, Submission
from tests.champions import promote, put_adapter
from tests.infra import stack

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
KUBERNETES = EXAMPLES.parent / "infra" / "kubernetes" / "base" / "config"
PARAMETERS = {"InputBucket": "mine", "TrainInput": "labelled/*", "NightInput": "calls/*"}
OUTPUTS = stack.outputs(**PARAMETERS)
BUCKET = OUTPUTS["Bucket"]
ROLES = {"train": "TrainRole", "summarize": "SummarizeRole", "evaluate": "TrainRole"}
SMALL_ROLES = {"watch": "SummarizeRole", "feedback": "FeedbackRole"}  # of jobs without a GPU
PLACES = [
    f"{BUCKET}/{key}"
    for key in (
        "configs/a.yaml",
        "conversations",
        "conversations2/dt=1/",
        "data/a.jsonl",
        "models/tiny/",
        "runs",
        "runs/x",
        "runs/x/adapter",
        "runs/x/adapter/",
        "runs/x/checkpoints/900",
        "runs/merged/model",
        "summaries/dt=1/",
    )
] + ["mine", "mine/call", "mine/calls", "mine/calls/dt=1/", "mine/labelled/a.jsonl", "other/a"]


def configs_on_s3(roles: Collection[str]) -> list[Any]:
    """Return the parameters of a test: path and config of each example on S3 with such a role."""
    found = []
    for path in sorted([*EXAMPLES.rglob("*.yaml"), *KUBERNETES.glob("*.yaml")]):
        if "s3://my-bucket" not in path.read_text(encoding="utf-8"):
            continue
        config = load_config(None, read_config(str(path)), [], {"date": "2026-01-31"})
        if command_of(config) in roles:
            found.append(pytest.param(config, id=f"{path.parent.name}/{path.name}"))
    return found


def denied_places(role: str, read: Iterable[str], written: Iterable[str]) -> list[tuple[str, str]]:
    """Return what the template's policy for a role denies, with my-bucket for the stack's."""
    policy = stack.policy(role)
    wanted = [("s3:GetObject", uri) for uri in (*read, *written)]
    wanted += [("s3:PutObject", uri) for uri in written]
    denied = []
    for action, uri in wanted:
        if not is_allowed(policy, action, uri.replace("my-bucket", BUCKET)):
            denied.append((action, uri))
    return denied


def is_allowed(policy: list[dict[str, Any]], action: str, uri: str) -> bool:
    """Ask a policy of the template for an object at the place, or below it."""
    arn = f"arn:aws:s3:::{uri.removeprefix('s3://')}"
    objects = [arn, f"{arn.rstrip('/')}/object"]
    for statement in policy:
        for resource in statement["Resource"]:
            fits = [name for name in objects if fnmatchcase(name, resource)]
            if action in statement["Action"] and fits:
                return True
    return False


@pytest.mark.parametrize("config", configs_on_s3(ROLES))
def test_the_stacks_roles_allow_every_place_of_an_example(config):
    if config.model.base is None:  # an adapter's own base would be looked up in its manifest
        model = config.model.model_copy(update={"base": "org/base"})
        config = config.model_copy(update={"model": model})
    read = [each.uri for each in places_read(config)]
    written = [each.uri for each in places_written(config)]
    uploaded = config_uri(b"run: x", config)
    assert read
    assert denied_places(ROLES[command_of(config)], [*read, uploaded], written) == []


@pytest.mark.parametrize("config", configs_on_s3(SMALL_ROLES))
def test_roles_of_small_jobs_allow_every_place_of_an_example(config):
    written = [config.output] if command_of(config) == "feedback" else []
    read = re.findall(r"s3://my-bucket/[^\s\"']*", json.dumps(to_plain(config)))
    assert len(read) > len(written)
    assert denied_places(SMALL_ROLES[command_of(config)], read, written) == []


@pytest.mark.parametrize("command", ROLES)
def test_a_place_is_an_error_if_and_only_if_the_policy_denies_it(command):
    writes = [Place("output", f"s3://{BUCKET}/{OUTPUTS[ROLES[command].replace('Role', 'Writes')]}")]
    passed = set()
    for place in PLACES:
        reads = [Place("input", f"s3://{place}")]
        job = Submission(command, "r", "c.yaml", "ab" * 32, reads=reads, writes=writes)
        with suppress(ForbiddenError):
            Stack("recap", OUTPUTS).check_places(job)
            passed.add(place)
    policy = stack.policy(ROLES[command], **PARAMETERS)
    expected = {each for each in PLACES if is_allowed(policy, "s3:GetObject", each)}
    assert passed == expected
    assert set(PLACES) > passed > set()


def test_an_older_stack_names_neither_patterns_nor_keys():
    older = {name: text for name, text in OUTPUTS.items() if not name.endswith("Input")}
    older["SummarizeReads"] = "configs/ conversations/ models/ runs/ summaries/"
    job = submission(adapter=f"s3://{BUCKET}/runs/x/checkpoints/9", input="s3://mine/any/")
    assert Stack("recap", older).check_places(job) is None


@pytest.mark.parametrize(
    ("keys", "place", "is_read"),
    [
        ("calls/*/day.jsonl", "calls/a/b/day.jsonl", True),
        ("calls/*/day.jsonl", "calls/a/night.jsonl", False),
        ("calls/day-?.jsonl", "calls/day-1.jsonl", True),
        ("calls/day-?.jsonl", "calls/day-10.jsonl", False),
        ("a[bc]/*", "a[bc]/x", True),
        ("a[bc]/*", "ab/x", False),
        ("*", "", True),
    ],
)
def test_keys_of_the_input_bucket_are_patterns_as_in_a_policy(keys, place, is_read):
    outputs = stack.outputs(InputBucket="mine", NightInput=keys)
    denials = Stack("recap", outputs).denials(submission(input=f"s3://mine/{place}"))
    assert (denials is None) is is_read
    assert denials is None or f"read s3://mine/{keys} (InputBucket)" in denials


def submission(**places: str) -> Submission:
    """A night that reads and writes these places."""
    writes = [Place("output", places.pop("output", f"s3://{BUCKET}/summaries/dt=1/"))]
    reads = [Place(key, uri) for key, uri in places.items()]
    return Submission("summarize", "r", "s3://b/c.yaml", "ab" * 32, reads=reads, writes=writes)


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        ("input", "s3://my-bucket/conversations/"),
        ("input", f"s3://{BUCKET}/data/day.jsonl"),
        ("input", f"s3://{BUCKET}/conversations2/day.jsonl"),
        ("input", f"s3://{BUCKET}"),
        ("adapter", f"s3://{BUCKET}/adapters/1"),
        ("model.base", "s3://bases/llama"),
        ("skip_done", f"s3://{BUCKET}/done/"),
        ("output", f"s3://{BUCKET}/runs/"),
        ("output", "s3://mine/summaries/"),
    ],
)
def test_a_place_that_the_role_denies_is_an_error_that_names_it(key, uri):
    with pytest.raises(ForbiddenError) as raised:
        Stack("recap", OUTPUTS).check_places(submission(**{key: uri}))
    assert f"  {key}  {'write' if key == 'output' else 'read '}  {uri}\n" in str(raised.value)
    assert f"read s3://{BUCKET}/ below {OUTPUTS['SummarizeReads']}" in str(raised.value)


@pytest.mark.parametrize(
    "places",
    [
        {"input": f"s3://{BUCKET}/conversations/dt=1/", "adapter": f"s3://{BUCKET}/runs/a/adapter"},
        {"input": f"s3://{BUCKET}/conversations", "skip_done": f"s3://{BUCKET}/summaries/dt=0"},
        {"input": "s3://mine/calls/day.jsonl", "model.base": "hf://org/base"},
    ],
)
def test_a_place_that_the_role_allows_is_no_error(places):
    checked = submission(**places)
    assert Stack("recap", OUTPUTS).check_places(checked) is None


def test_a_stack_that_names_no_prefixes_is_not_compared():
    checked = submission(input="s3://other/x")
    assert Stack("recap", {"Bucket": BUCKET}).check_places(checked) is None


def test_a_training_also_writes_the_pointer_of_its_champion(tmp_path):
    text = (
        "run: r\nmodel: {base: org/base}\noutput: s3://b/runs\n"
        "data: {train: s3://b/train.jsonl}\n"
        "publish: {gate: {}, champion: CHAMPION,"
        " regressions: [{name: old, input: s3://b/old.jsonl}]}\n"
    )
    path = tmp_path / "train.yaml"
    path.write_text(text.replace("CHAMPION", "s3://b/runs/champion.json"))
    config = load_config("train", read_config(str(path)))
    assert Place("publish.champion", "s3://b/runs/champion.json") in places_written(config)
    assert Place("publish.regressions.0.input", "s3://b/old.jsonl") in places_read(config)

    path.write_text(text.replace("CHAMPION", "/models/champion.json"))
    config = load_config("train", read_config(str(path)))
    assert Place("publish.champion", "/models") in places_written(config), "for docker to mount"
    with pytest.raises(ConfigError, match=r"publish\.champion +/models"):
        check_reachable(config, places_read(config), "AWS Batch")


def test_a_night_reads_the_adapter_that_its_pointer_names(tmp_path):
    adapter, pointer = f"{tmp_path}/runs/a", f"{tmp_path}/champions/support.json"
    put_adapter(adapter, tmp_path / "work")
    promote(pointer, adapter)
    path = tmp_path / "night.yaml"
    path.write_text(f"run: r\ninput: s3://b/in/\noutput: s3://b/out/\nadapter: {pointer}\n")
    read = places_read(load_config("summarize", read_config(str(path))))
    assert Place("adapter", pointer) in read
    assert Place("the champion", adapter) in read
    with pytest.raises(ConfigError, match=f"the champion +{adapter}"):
        check_reachable(load_config("summarize", read_config(str(path))), read, "AWS Batch")


EVERY_PLACE = """
run: r
input: s3://b/test.jsonl
train: [s3://b/train/, s3://b/more.jsonl]
output: s3://b/runs/evaluations/r/
adapter: ADAPTER
model: {base: s3://b/models/tiny}
evaluation:
  others: {hosted: s3://b/hosted.jsonl}
  bertscore_model: {model: s3://b/models/reader}
  faithfulness_model: {model: org/classifier}
  faithfulness_labels: s3://b/labels.jsonl
publish:
  champion: CHAMPION
  gate: {}
  regressions: [{name: old, input: s3://b/old.jsonl}]
  pairs: {input: s3://b/pairs.jsonl}
"""


def test_an_evaluation_names_every_place_that_it_reads_and_writes(tmp_path):
    adapter, pointer = f"{tmp_path}/runs/a", f"{tmp_path}/champions/support.json"
    put_adapter(adapter, tmp_path / "work")
    promote(pointer, adapter)
    path = tmp_path / "evaluate.yaml"
    path.write_text(EVERY_PLACE.replace("CHAMPION", pointer).replace("ADAPTER", "s3://b/runs/x"))
    config = load_config("evaluate", read_config(str(path)))
    assert [(each.key, each.uri) for each in places_read(config)] == [
        ("model.base", "s3://b/models/tiny"),
        ("adapter", "s3://b/runs/x"),
        ("the champion", adapter),
        ("evaluation.bertscore_model.model", "s3://b/models/reader"),
        ("input", "s3://b/test.jsonl"),
        ("train", "s3://b/train/"),
        ("train", "s3://b/more.jsonl"),
        ("publish.regressions.0.input", "s3://b/old.jsonl"),
        ("publish.pairs.input", "s3://b/pairs.jsonl"),
        ("evaluation.others.hosted", "s3://b/hosted.jsonl"),
        ("evaluation.faithfulness_labels", "s3://b/labels.jsonl"),
    ]
    assert places_written(config) == [
        Place("output", "s3://b/runs/evaluations/r/"),
        Place("publish.champion", f"{tmp_path}/champions"),
    ]
    with pytest.raises(ConfigError, match=r"publish\.champion"):
        check_reachable(config, places_read(config), "Kubernetes")


def test_an_evaluation_reads_the_champion_that_it_compares_with(tmp_path):
    path = tmp_path / "evaluate.yaml"
    text = "run: r\ninput: s3://b/i.jsonl\noutput: s3://b/o/\nsummaries: s3://b/s.jsonl\n"
    path.write_text(f"{text}champion: {tmp_path}/champion\n")
    read = places_read(load_config("evaluate", read_config(str(path))))
    assert Place("champion", f"{tmp_path}/champion") in read
    assert Place("summaries", "s3://b/s.jsonl") in read
