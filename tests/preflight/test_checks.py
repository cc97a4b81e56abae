"""Claims about a plan: it reports everything at once, by the config's keys, and leaves no files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, ExitCode, ForbiddenError, MissingError
from job.model.fetch import fetch_base
from job.preflight.access import check_hub_access, probe_output, why_not_writable
from job.preflight.checks import Check, Found, Plan, check_value
from job.preflight.plan import plan
from job.prompt.template import Prompt, write_prompt
from job.storage.folders import publish_folder
from job.storage.local import LocalStore

RECORD = '{{"id": "{0}", "turns": [{{"role": "customer", "text": "{1}"}}], "summaries": ["{1}"]}}\n'


def train_config(tmp_path: Path, base: Path, **more) -> TrainConfig:
    (tmp_path / "t.jsonl").write_text(RECORD.format("a", "one two"))
    (tmp_path / "v.jsonl").write_text(RECORD.format("b", "three four"))
    data = {"train": str(tmp_path / "t.jsonl"), "validation": str(tmp_path / "v.jsonl")}
    whole = {
        "run": "r",
        "model": {"base": str(base)},
        "data": data,
        "output": str(tmp_path / "deep" / "out"),
    }
    return TrainConfig.model_validate(whole | more)


def test_an_unknown_scheme_is_one_line_of_the_plan_with_its_key(tmp_path, base_folder):
    found = {
        check.name: check
        for check in plan(train_config(tmp_path, base_folder, output="gs://x/y")).checks
    }
    wanted = "'gs://x/y': unknown kind of location; wanted a path, s3://bucket/prefix"
    assert found["output"].found.startswith(f"output: {wanted}")
    assert found["run"].found.startswith("output: 'gs://x/y/r'")
    passed = [name for name, check in found.items() if not check.error]
    of_the_base = ["base", "model", "serving", "prompt", "weights"]
    of_the_rows = ["rows", "batches", "steps", "example", "prompts"]
    assert "a checkpoint: " in found["disk"].found
    of_the_machine = ["memory", "time", "disk", "gpu"]
    assert passed == ["data", "contents", *of_the_base, *of_the_rows, *of_the_machine]


def test_a_plan_leaves_no_folder_behind_and_takes_none_away(tmp_path, base_folder):
    assert plan(train_config(tmp_path, base_folder)).error is None
    assert not (tmp_path / "deep").exists()
    (tmp_path / "mine").mkdir()
    probe_output(str(tmp_path / "mine"), StorageSection())
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_base_that_is_not_the_adapters_is_found_by_the_plan(tmp_path, base_folder):
    recorded = fetch_base(str(base_folder), None, StorageSection(), tmp_path).identity()
    (tmp_path / "adapter").mkdir()
    write_prompt(tmp_path / "adapter", Prompt("", "Summary:", False, {}, cleaning=()))
    for digest, fits in ((recorded["digest"], True), ("0" * 64, False)):
        store = LocalStore(str(tmp_path / "published"))
        publish_folder(
            tmp_path / "adapter", store, "", {"run": "r", "base": recorded | {"digest": digest}}
        )
        train_config(tmp_path, base_folder)
        config = {
            "run": "e",
            "input": str(tmp_path / "t.jsonl"),
            "output": str(tmp_path / "o"),
            "adapter": store.uri,
        }
        error = plan(EvaluateConfig.model_validate(config)).error
        assert (error is None) == fits
    assert str(error) == (
        f"adapter: {store.uri} is an adapter for {base_folder} (digest 000000000000), but the base "
        f"there now, {base_folder}, has digest {recorded['digest'][:12]}: give the base that it "
        "was trained on, or train again"
    )


def token(role: str, *grants: tuple[str, str, str], everywhere: tuple[str, ...] = ()) -> dict:
    """Return the Hub's description of a token. A grant is (kind, name, permission)."""
    scoped = [
        {
            "entity": {"_id": "1", "type": kind, "name": name},
            "permissions": ["repo.content.read", may],
        }
        for kind, name, may in grants
    ]
    fine = {"canReadGatedRepos": True, "global": [*everywhere], "scoped": scoped}
    about = {"displayName": "t", "role": role} | (
        {"fineGrained": fine} if role == "fineGrained" else {}
    )
    return {"auth": {"type": "access_token", "accessToken": about}}


FINE = "the fine-grained token of eva may not write there"
READ_IN = {"orgs": [{"name": "org", "roleInOrg": "read"}, {"name": "other", "roleInOrg": "admin"}]}


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({}, None),
        (token("write"), None),
        (token("god"), None),
        ({"auth": {"type": "oauth", "accessToken": None}}, None),
        (token("read"), "the token of eva may only read"),
        (token("write") | READ_IN, "eva may only read in org"),
        (token("write") | {"orgs": [{"name": "org", "roleInOrg": "contributor"}]}, None),
        (token("fineGrained"), FINE),
        (token("fineGrained", ("org", "org", "repo.write")), None),
        (token("fineGrained", ("org", "org", "discussion.write")), FINE),
        (token("fineGrained", ("user", "eva", "repo.write")), FINE),
        (token("fineGrained", ("model", "org/mine", "repo.write")), None),
        (token("fineGrained", ("model", "org/other", "repo.write")), FINE),
        (token("fineGrained", ("resource-group", "team", "repo.write")), None),
        (token("fineGrained", everywhere=("repo.write",)), None),
        (token("fineGrained", everywhere=("discussion.write",)), FINE),
        ({"auth": {"accessToken": {"role": "fineGrained"}}}, None),
    ],
)
def test_a_token_that_may_only_read_is_found(about, reason):
    assert why_not_writable({"name": "eva", "orgs": []} | about, "org/mine") == reason


def test_a_token_that_may_write_is_named_with_its_account(hub):
    hub.account |= token("write")
    assert check_hub_access("org/mine") == "org/mine  as tester"


def test_a_training_whose_token_may_only_read_ends_before_it_begins(
    hub, tmp_path, base_folder, recap
):
    hub.account |= token("read")
    given = train_config(tmp_path, base_folder, publish={"hub": "org/mine"}).model_dump(mode="json")
    (tmp_path / "train.yaml").write_text(json.dumps(given))
    ended = recap("train", tmp_path / "train.yaml", "--dry-run")
    line = next(line for line in ended.out.splitlines() if " hub " in line)
    assert ended.code == ExitCode.FORBIDDEN
    assert line.startswith("  ✗ hub         publish.hub: org/mine: the ")
    assert "set HF_TOKEN to a token of the kind 'write', or to a fine-grained one" in line
    assert f"{hub.endpoint}/settings/tokens" in line
    assert "  – license     not known: " in ended.out
    assert "set publish.license" in ended.out
    assert [request.path for request in hub.requests] == ["/api/whoami-v2"]


def test_a_command_reports_to_nobody_who_runs_it():
    # huggingface_hub reads the variable when it is imported.
    code = (
        "from job.cli import run; run(['schema', 'train']); "
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"
    }
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_each_state_has_a_mark():
    unknown = check_value("run", lambda: Found("not known without the data", None, is_known=False))
    checks = [
        unknown[0],
        Check("data", "8 rows"),
        Check("base", "x", ConfigError("x")),
        Check("time", "1 h", is_estimate=True),
        Check("scores", "warning: none", is_known=False),
        Check("memory", "warning: tight", is_estimate=True),
    ]
    text = Plan("title", checks, "", "r").findings()
    assert [line.split()[0] for line in text.splitlines()[3:]] == ["–", "✓", "✗", "~", "!", "!"]


@pytest.mark.parametrize("more", [{}, {"is_known": False}, {"is_estimate": True}])
def test_a_line_that_warns_is_the_state_of_its_check(more):
    found = Check("disk", "fine\nwarning: nearly full", **more)
    assert (found.state, found.report()["state"]) == ("warning", "warning")


def test_an_estimate_is_no_check_that_was_left_out():
    checks = [Check("time", "1 h", is_estimate=True), Check("run", "?", is_known=False)]
    assert Plan("title", checks, "", "r").verdict().endswith("0 warnings, 1 not checked")


def test_a_cause_that_several_checks_share_is_told_once():
    cause = "no usable AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
    errors = [ForbiddenError(f"{place}: {cause}") for place in ("data: s3://b/x", "output: s3://b")]
    other = ForbiddenError("base: no such repository, or no access to it: accept its license there")
    checks = [Check("c", str(error), error) for error in (*errors, other)]
    lines = Plan("title", checks, "", "r").findings().splitlines()
    assert lines[3].endswith(f"data: s3://b/x: {cause}")
    assert lines[4].endswith("output: s3://b: as above")
    assert lines[5].endswith(str(other))


def test_a_name_as_long_as_its_column_has_a_line_of_its_own():
    checks = [Check("faithfulness", "not there"), Check("labels", "8 labels")]
    lines = Plan("title", checks, "", "r").findings().splitlines()
    assert [line.split() for line in lines[3:]] == [
        ["✓", "faithfulness"],
        ["not", "there"],
        ["✓", "labels", "8", "labels"],
    ]
    assert lines[4].index("not") == lines[5].index("8")


def failing(*errors):
    return [Check(str(error).split(":")[0].split(".")[-1], str(error), error) for error in errors]


def test_the_text_of_an_error_has_the_name_of_its_check_once():
    errors = MissingError("summaries: s.jsonl: none"), ConfigError("model.base: 'b' is no base")
    text = Plan("title", failing(*errors), "run: r\n", "r").text()
    lines = [line.split() for line in text.splitlines()[3:]]
    assert lines[0][1:3] == ["summaries", "s.jsonl:"]
    assert lines[1][1:3] == ["base", "model.base:"]
    assert "run: r" not in text, "the config is not shown with an error"


def test_a_training_ends_with_all_errors_of_its_plan():
    errors = MissingError("data: none"), ConfigError("model.base: 'b' is no base")
    checks = [Check("rows", "8"), *failing(*errors)]
    found = Plan("title", checks, "", "r").errors
    assert isinstance(found, MissingError)
    assert str(found).splitlines() == ["data: none", "also: model.base: 'b' is no base"]
    assert Plan("title", checks[:1], "", "r").errors is None
