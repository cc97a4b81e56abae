"""Claims about `recap submit` with any target, before anything is submitted."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from job.config.commands import EvaluateConfig, SummarizeConfig
from job.errors import ExitCode
from job.storage.folders import write_manifest
from job.submit.locations import places_read
from tests.submit.conftest import put, written

ROOT = Path(__file__).parent.parent.parent
CLUSTERS = ("aws-batch", "kubernetes")
TARGETS = (*CLUSTERS, "docker")


@pytest.mark.parametrize("target", TARGETS)
def test_help_and_readme_name_the_target(recap, target):
    assert f"Example: recap submit {target} " in recap("submit", target, "--help").out
    assert f"  {target} " in recap("submit", "--help").out
    targets = "\\|".join(TARGETS)
    assert f"`recap submit {targets} CONFIG`" in (ROOT / "README.md").read_text()
    assert f"recap submit {target}" in (ROOT / "docs" / "operations.md").read_text()


def test_help_imports_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom job.cli import run\nrun(['submit', 'aws-batch', '--help'])\n"
        "print([name for name in ('pydantic', 'boto3', 'yaml', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.stdout.endswith(b"[]\n"), done.stderr


# Let nothing be imported but Python's own modules, recap, and these packages.
ONLY = """
import importlib.util, sys
from importlib.abc import MetaPathFinder
class Only(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in {names!r} or top in sys.stdlib_module_names or top.startswith("_")
        if not known:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Only())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "torch" else found(name)
"""
IMPORTED = {"pyyaml": ["yaml"], "pydantic": ["pydantic_core", "annotated_types"]}
OF_THESE = ["typing_extensions", "typing_inspection", "botocore", "jmespath", "s3transfer"]
OF_THESE += ["dateutil", "six", "urllib3", "certifi", "cython_runtime", "job"]


def test_a_light_installation_submits_without_torch(tmp_path):
    page = (ROOT / "docs" / "operations.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("pip install boto3")]
    names = [*OF_THESE]
    for package in line.split()[2:]:
        names += [package, *IMPORTED.get(package, [])]
    config = str(ROOT / "examples" / "nightly.yaml")
    words = ["submit", "docker", config, "--var", "date=2026-01-31", "--dry-run"]
    words += ["--set", "model.base=org/base"]
    code = ONLY.format(names=names) + (
        "from job.cli import run\nimport job.submit.aws_batch, job.submit.kubernetes, boto3\n"
        f"print(run({[*words, '--no-plan']}), run({words}))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.endswith(b"\n0 64\n"), done.stderr
    assert b"a plan needs torch and transformers" in done.stderr


@pytest.mark.parametrize("target", CLUSTERS)
def test_everything_that_only_this_machine_has_is_listed_first(recap, tmp_path, target):
    local = {
        "run": "r",
        "model": {"base": str(tmp_path)},
        "data": {"train": ["a.jsonl", "s3://b/c.jsonl"], "validation": "file:///v.jsonl"},
        "output": "runs",
        "storage": {"endpoint_url": "http://127.0.0.1:9000"},
    }
    ended = recap("submit", target, written(tmp_path / "c.yaml", local))
    assert (ended.code, ended.out) == (ExitCode.CONFIG, "")
    rows = [
        f"model.base            {tmp_path}",
        "data.train            a.jsonl",
        "data.validation       file:///v.jsonl",
        "output                runs",
        "storage.endpoint_url  http://127.0.0.1:9000",
    ]
    assert "\n".join(f"  {row}" for row in rows) in ended.err
    assert "recap submit docker" in ended.err


def test_a_hub_id_is_not_on_this_machine(recap, night, tmp_path):
    hub = night | {"adapter": "org/adapter", "input": "x.jsonl", "skip_done": "done"}
    ended = recap(
        "submit",
        "kubernetes",
        written(tmp_path / "c.yaml", hub | {"model": {}}),
        "--var",
        "date=2026-01-31",
    )
    assert "  input      x.jsonl\n  skip_done  done\n" in ended.err
    assert "org/adapter" not in ended.err


@pytest.mark.parametrize("target", CLUSTERS)
def test_a_reward_model_of_a_night_is_one_of_its_places(recap, night, tmp_path, target):
    judge = {"adapter": "/models/tuned", "base": "/models/judge"}
    generation = {"temperature": 0.7, "candidates": 2, "reward_model": judge}
    config = written(tmp_path / "c.yaml", night | {"generation": generation})
    ended = recap("submit", target, config, "--var", "date=2026-01-31", "--no-plan")
    assert ended.code == ExitCode.CONFIG
    assert "  generation.reward_model.adapter  /models/tuned\n" in ended.err
    assert "  generation.reward_model.base     /models/judge\n" in ended.err


def adapter_of(base: str, folder: Path, method: str = "sft") -> str:
    """A published adapter folder that records this base."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    write_manifest(folder, {"base": {"uri": base}, "method": method})
    return str(folder)


@pytest.mark.parametrize("command", ["summarize", "evaluate"])
def test_the_base_that_a_reward_model_records_is_one_of_the_places(tmp_path, command):
    judge = {"adapter": adapter_of("/models/small", tmp_path / "judge", "reward")}
    named = {"run": "r", "input": "s3://b/in.jsonl", "output": "s3://b/out", "adapter": "org/a"}
    if command == "summarize":
        generation = {"temperature": 0.7, "candidates": 2, "reward_model": judge}
        config = SummarizeConfig.model_validate(named | {"generation": generation})
    else:
        section = {"reward_model": judge | {"pairs": "s3://b/pairs.jsonl"}}
        config = EvaluateConfig.model_validate(named | {"evaluation": section})
    read = {place.key: place.uri for place in places_read(config)}
    assert read["the reward model's base"] == "/models/small"


@pytest.mark.parametrize("target", CLUSTERS)
def test_the_base_that_an_adapter_records_must_be_where_a_cluster_reaches(
    recap, s3, night, tmp_path, target
):
    adapter = Path(adapter_of("/models/x", tmp_path / "adapter"))
    for file in adapter.iterdir():
        put(s3, f"adapter/{file.name}", file.read_bytes())
    config = written(tmp_path / "c.yaml", night | {"adapter": f"{s3.uri}/adapter", "model": {}})
    ended = recap("submit", target, config, "--var", "date=2026-01-31", "--no-plan")
    assert (ended.code, ended.out) == (ExitCode.CONFIG, "")
    assert "  the adapter's base  /models/x\n" in ended.err


def test_docker_mounts_the_base_that_an_adapter_records(
    recap, stand_in, night, base_folder, tmp_path
):
    stand_in("docker")
    adapter = adapter_of(str(base_folder), tmp_path / "adapter")
    config = written(tmp_path / "c.yaml", night | {"adapter": adapter, "model": {}})
    words = ("submit", "docker", config, "--var", "date=2026-01-31", "--no-plan", "--dry-run")
    mount = f"type=bind,source={base_folder},target={base_folder},readonly"
    assert mount in shlex.split(recap(*words).out)
    config = written(
        tmp_path / "c.yaml", night | {"adapter": adapter, "model": {"base": "org/base"}}
    )
    assert mount not in shlex.split(recap(*words).out), "the config names another"


def test_what_the_plan_finds_ends_it_with_the_plans_code(recap, s3, training, tmp_path):
    put(s3, "broken.jsonl", b"{broken\n")
    config = written(tmp_path / "c.yaml", training)
    ended = recap("submit", "docker", config, "--set", f"data.train={s3.uri}/broken.jsonl")
    assert (ended.code, ended.out) == (ExitCode.DATA, "")
    assert "✗ data" in ended.err
    assert "--no-plan" not in ended.err


def test_an_access_problem_of_this_machine_names_the_way_around_it(
    recap, training, tmp_path, aws_environment
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name)
    config = written(tmp_path / "c.yaml", training)
    ended = recap("submit", "docker", config)
    assert ended.code == ExitCode.FORBIDDEN
    assert "--no-plan submits without asking" in ended.err
    without = recap("submit", "aws-batch", config, "--no-plan")
    assert without.code == ExitCode.FORBIDDEN
    assert "reading stack recap: no usable AWS credentials" in without.err


def test_an_unreachable_service_ends_with_75_and_no_region_with_64(
    recap, training, tmp_path, aws_environment
):
    words = ("submit", "aws-batch", written(tmp_path / "c.yaml", training), "--no-plan")
    aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws_environment.setenv("AWS_MAX_ATTEMPTS", "1")
    ended = recap(*words)
    assert ended.code == ExitCode.RETRY
    assert "reading stack recap: AWS cannot be reached" in ended.err
    aws_environment.delenv("AWS_DEFAULT_REGION")
    assert recap(*words).code == ExitCode.CONFIG


def test_with_both_names_a_dry_run_asks_nobody(recap, training, tmp_path, aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws_environment.delenv("AWS_DEFAULT_REGION")
    config = written(tmp_path / "train.yaml", training)
    names = ["--queue", "q", "--job-definition", "d", "--nodes", "2"]
    ended = recap("submit", "aws-batch", config, *names, "--no-plan", "--dry-run")
    request = json.loads(ended.out)
    assert (request["jobQueue"], request["jobDefinition"]) == ("q", "d")
    assert request["nodeOverrides"]["numNodes"] == 2


def test_what_is_done_is_not_submitted(recap, night, tmp_path, base_folder):
    done = night | {"limits": {"max_reject_fraction": 1}, "generation": {"max_new_tokens": 1}}
    config = written(
        tmp_path / "c.yaml", done | {"model": {"base": str(base_folder)}}
    )  # its digest is cheap here
    assert recap("summarize", config, "--var", "date=2026-01-31").code == 0
    ended = recap("submit", "docker", config, "--var", "date=2026-01-31", "--dry-run")
    assert (ended.code, ended.out) == (0, "")
    assert "already done: nothing is submitted" in ended.err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("training", ["--workers", "2"]),
        ("night", ["--nodes", "2"]),
        ("judging", ["--workers", "2"]),
        ("judging", ["--nodes", "2"]),
    ],
)
def test_workers_are_for_nights_and_nodes_for_trainings(recap, request, tmp_path, kind, words):
    config = written(tmp_path / "c.yaml", request.getfixturevalue(kind))
    ended = recap("submit", "aws-batch", config, "--var", "date=2026-01-31", *words)
    assert ended.code == ExitCode.USAGE


def test_a_config_from_standard_input_travels_with_every_override(
    recap, s3, training, tmp_path, stand_in, monkeypatch
):
    stand_in("docker")
    text = yaml.safe_dump(training | {"run": "{who}"})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    words = ["--var", "who=me", "--set", "training.epochs=1", "--no-plan", "--dry-run"]
    ended = recap("submit", "docker", "-", *words)
    assert ended.code == 0, ended.err
    assert ended.out.split()[-1].startswith(f"{s3.uri}/runs/_configs/me-")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    local = recap("submit", "docker", "-", *words, "--set", f"output={tmp_path}/out")
    assert local.code == ExitCode.CONFIG
    assert "save the config as a file" in local.err
