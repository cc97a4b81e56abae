"""Claims about `recap submit aws-batch`, with S3, CloudFormation and Batch on loopback."""

import json
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from job.errors import ExitCode
from job.submit.batch_job import BatchJob
from tests.command_line import Ended, Recap
from tests.conftest import S3
from tests.infra.stack import GIVEN, for_moto
from tests.submit.conftest import RECORDS, keys_of, put, written
from tests.submit.iam import simulate_policies

ACCOUNT = "123456789012"
QUEUES = ("Queue", "NodesQueue")
DEFINITIONS = {"Train": "container", "Summarize": "container", "TrainNodes": "multinode"}


@dataclass(frozen=True)
class Stack:
    """The outputs of a stack of recap, and a client of Batch."""

    outputs: dict[str, str]
    batch: Any

    def jobs(self, s3: S3) -> list[dict[str, Any]]:
        """Return the jobs whose config is in the test's bucket, as Batch describes them."""
        anything = [{"name": "JOB_NAME", "values": ["*"]}]
        listed = self.batch.list_jobs(jobQueue=self.outputs["Queue"], filters=anything)
        ids = [job["jobId"] for job in listed["jobSummaryList"]]
        if not ids:
            return []
        jobs = self.batch.describe_jobs(jobs=ids)["jobs"]
        return [job for job in jobs if job["container"]["command"][0].startswith(s3.uri)]


@pytest.fixture(scope="module")
def stack(s3_endpoint: str) -> Stack:
    """Queues and job definitions, and a stack with their names as outputs, as in infra/aws."""
    # Without docker a job ends at once.
    settings = json.dumps({"batch": {"use_docker": False}}).encode()
    header = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{s3_endpoint}/moto-api/config", settings, header)
    urllib.request.urlopen(request).close()
    session = boto3.session.Session("testing-key-id", "testing-secret", region_name="us-east-1")
    batch = session.client("batch", endpoint_url=s3_endpoint)
    iam = session.client("iam", endpoint_url=s3_endpoint)
    cloudformation = session.client("cloudformation", endpoint_url=s3_endpoint)
    role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    environment = {"type": "UNMANAGED", "state": "ENABLED", "serviceRole": role}
    arn = batch.create_compute_environment(computeEnvironmentName="any", **environment)[
        "computeEnvironmentArn"
    ]
    queue = {
        "priority": 1,
        "state": "ENABLED",
        "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": arn}],
    }
    outputs = {
        name: batch.create_job_queue(jobQueueName=name, **queue)["jobQueueArn"] for name in QUEUES
    }
    outputs["ImageTag"] = "abc"
    logs = {"logDriver": "awslogs", "options": {"awslogs-group": "/recap"}}
    needs = [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "1024"}]
    container = {"image": "recap", "resourceRequirements": needs, "logConfiguration": logs}
    nodes = {
        "mainNode": 0,
        "numNodes": 2,
        "nodeRangeProperties": [{"targetNodes": "0:", "container": container}],
    }
    of_kind = {
        "container": {"containerProperties": container},
        "multinode": {"nodeProperties": nodes},
    }
    for name, kind in DEFINITIONS.items():
        properties = of_kind[kind]
        made = batch.register_job_definition(jobDefinitionName=name, type=kind, **properties)
        outputs[f"{name}JobDefinition"] = made["jobDefinitionArn"]
    template = {
        "Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    cloudformation.create_stack(StackName="recap", TemplateBody=json.dumps(template))
    return Stack(outputs, batch)


@pytest.fixture
def submit(recap: Recap, stack: Stack) -> Recap:
    return lambda *words: recap("submit", "aws-batch", *words)


def requested(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    request: dict[str, Any] = json.loads(ended.out)
    return request


def environment_of(overrides: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in overrides["environment"]}


def test_a_training_is_submitted_with_its_config_beside_the_output(
    submit, stack, s3, training, tmp_path
):
    config = written(tmp_path / "train.yaml", training)
    ended = submit(config, "--set", "training.epochs=1")
    assert ended.code == 0, ended.err
    (job,) = stack.jobs(s3)
    (there,) = [key for key in keys_of(s3) if "_configs" in key]
    assert there.startswith("runs/_configs/support-")
    assert (
        s3.client().get_object(Bucket=s3.bucket, Key=there)["Body"].read()
        == Path(config).read_bytes()
    )
    assert job["container"]["command"] == [f"{s3.uri}/{there}", "--set", "training.epochs=1"]
    assert job["jobName"].startswith("recap-train-support-")
    assert job["jobDefinition"] == stack.outputs["TrainJobDefinition"]
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["submitted"] == job["jobId"]
    assert (
        lines["logs"]
        == "CloudWatch log group /recap; `state` shows this job's own stream once it runs"
    )
    assert "log: container.logStreamName" in lines["state"]
    terminate = f"aws batch terminate-job --region us-east-1 --job-id {job['jobId']}"
    assert lines["stop"] == f"{terminate} --reason 'stopped by hand'"
    assert lines["follow"] == "aws logs tail /recap --region us-east-1 --follow"
    assert "✓ data" in ended.err


def test_a_dry_run_prints_what_would_be_submitted_and_changes_nothing(
    submit, stack, s3, training, tmp_path
):
    config = written(tmp_path / "train.yaml", training)
    before = keys_of(s3)
    request = requested(submit(config, "--dry-run"))
    assert (keys_of(s3), stack.jobs(s3)) == (before, [])
    names = {"jobName", "jobQueue", "jobDefinition", "containerOverrides", "tags"}
    assert set(request) == names
    submit(config)
    assert stack.jobs(s3)[0]["container"]["command"] == request["containerOverrides"]["command"]
    assert request["containerOverrides"]["command"][0].removeprefix(f"{s3.uri}/") in keys_of(s3)


def test_a_submitted_config_is_in_nobodys_way(submit, recap, night, training, tmp_path):
    config = written(tmp_path / "night.yaml", night)
    for _ in range(2):
        assert submit(config, "--var", "date=2026-01-31").code == 0
    assert recap("plan", config, "--var", "date=2026-01-31").code == 0


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--set", "chunks.records=5"], 3),
        (["--set", "chunks.records=5", "--workers", "2"], 2),
        ([], None),
    ],
)
def test_a_night_has_as_many_workers_as_chunks_and_no_more_than_allowed(
    submit, night, tmp_path, words, size
):
    config = written(tmp_path / "night.yaml", night)
    request = requested(submit(config, "--var", "date=2026-01-31", "--dry-run", *words))
    assert request.get("arrayProperties") == ({"size": size} if size else None)
    assert environment_of(request["containerOverrides"])["RECAP_SHARDS"] == str(size or 1)
    assert request["containerOverrides"]["command"][1:] == [*words[:2], "--var", "date=2026-01-31"]


def test_shards_of_the_config_bound_the_workers_and_follow_them_down(submit, night, tmp_path):
    config = written(tmp_path / "night.yaml", night | {"shards": 7, "chunks": {"records": 4}})
    request = requested(submit(config, "--var", "date=2026-01-31", "--dry-run"))
    assert request["arrayProperties"] == {"size": 3}
    # A worker takes the number of shards from its config first. With seven shards and three
    # workers, four shards would be nobody's.
    assert request["containerOverrides"]["command"][-2:] == ["--set", "shards=3"]


def test_the_number_of_chunks_is_what_the_run_cuts(submit, recap, night, s3, tmp_path):
    turns = [{"role": "agent", "text": "x"}]
    put(s3, "dt=2026-01-31/more.jsonl", [{"id": f"m{i}", "turns": turns} for i in range(9)])
    config = written(tmp_path / "night.yaml", night | {"chunks": {"records": 2}})
    words = ["--var", "date=2026-01-31"]
    request = requested(submit(config, *words, "--workers", "100", "--dry-run"))
    ended = recap("summarize", config, *words, "--set", "generation.max_new_tokens=1")
    (line,) = [line for line in ended.err.splitlines() if "the input is cut into chunks" in line]
    assert json.loads(line)["chunks"] == 11
    assert request["arrayProperties"]["size"] == 11


def test_a_variable_of_the_environment_travels(submit, night, tmp_path, monkeypatch):
    monkeypatch.setenv("RECAP_VAR_DATE", "2026-01-31")
    request = requested(submit(written(tmp_path / "night.yaml", night), "--no-plan", "--dry-run"))
    assert environment_of(request["containerOverrides"])["RECAP_VAR_DATE"] == "2026-01-31"
    assert request["jobName"].startswith("recap-summarize-nightly-2026-01-31-")


def test_yesterday_is_that_of_the_plan_however_late_the_job_begins(
    submit, night, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECAP_SCHEDULED_AT", "2026-02-01T02:00:00Z")
    request = requested(
        submit(written(tmp_path / "night.yaml", night), "--var", "date=yesterday", "--dry-run")
    )
    assert request["containerOverrides"]["command"][1:] == ["--var", "date=2026-01-31"]


def test_several_nodes_are_a_job_of_their_own_queue_and_definition(
    submit, stack, training, tmp_path
):
    config = written(tmp_path / "train.yaml", training)
    request = requested(submit(config, "--no-plan", "--nodes", "3", "--dry-run"))
    assert request["jobQueue"] == stack.outputs["NodesQueue"]
    assert request["jobDefinition"] == stack.outputs["TrainNodesJobDefinition"]
    assert request["nodeOverrides"]["numNodes"] == 3
    (each,) = request["nodeOverrides"]["nodePropertyOverrides"]
    assert each["targetNodes"] == "0:"
    assert each["containerOverrides"]["command"][0].endswith(".yaml")
    # botocore checks every name of the request.
    assert submit(config, "--no-plan", "--nodes", "3").code == 0
    wrong = submit(
        config, "--no-plan", "--nodes", "3", "--job-definition", stack.outputs["TrainJobDefinition"]
    )
    assert wrong.code == ExitCode.CONFIG
    assert "is for one node, and --nodes is 3" in wrong.err


def test_a_config_on_s3_is_named_and_not_copied(submit, s3, training, tmp_path):
    put(s3, "train.yaml", Path(written(tmp_path / "c", training)).read_bytes())
    request = requested(submit(f"{s3.uri}/train.yaml", "--no-plan", "--dry-run"))
    assert request["containerOverrides"]["command"] == [f"{s3.uri}/train.yaml"]


def test_queue_and_definition_by_name_need_no_stack(recap, stack, training, tmp_path):
    words = [
        "--queue",
        stack.outputs["Queue"],
        "--job-definition",
        stack.outputs["TrainJobDefinition"],
    ]
    ended = recap(
        "submit",
        "aws-batch",
        written(tmp_path / "c.yaml", training),
        "--no-plan",
        "--stack",
        "none",
        *words,
    )
    assert ended.code == 0, ended.err


def running(job_id: str) -> None:
    """Let moto report a job as running."""
    from moto.batch.models import batch_backends

    batch_backends[ACCOUNT]["us-east-1"]._jobs[job_id].status = "RUNNING"


def test_the_same_config_is_not_submitted_twice_while_it_runs(
    submit, stack, s3, training, tmp_path
):
    config = written(tmp_path / "train.yaml", training)
    submit(config, "--no-plan")
    (first,) = stack.jobs(s3)
    running(first["jobId"])
    again = submit(config, "--no-plan")
    assert again.code == ExitCode.RETRY
    assert f"job {first['jobId']} of the same config runs already" in again.err
    stop = f"aws batch terminate-job --region us-east-1 --job-id {first['jobId']}"
    assert stop in again.err
    assert len(stack.jobs(s3)) == 1
    other = submit(config, "--no-plan", "--set", "training.epochs=1")
    assert other.code == 0
    assert "another config is under way" in other.err
    namesake = submit(config, "--no-plan", "--set", "run=support-2")
    assert namesake.code == 0
    assert "under way" not in namesake.err


def test_wait_follows_the_job_and_ends_with_its_exit_code(
    submit, stack, s3, training, tmp_path, monkeypatch
):
    monkeypatch.setattr(BatchJob, "seconds_between_looks", 0.0)
    waited = submit(written(tmp_path / "train.yaml", training), "--no-plan", "--wait")
    assert waited.code == 0, waited.err
    (job,) = stack.jobs(s3)
    assert f"submitted  {job['jobId']}" in waited.out
    last = json.loads(waited.err.splitlines()[-1])
    assert (last["message"], last["job"]) == ("the job has ended", job["jobId"])


def test_a_job_has_tags_for_bills(submit, stack, s3, training, tmp_path):
    submit(written(tmp_path / "train.yaml", training | {"run": "support.chat"}), "--no-plan")
    (job,) = stack.jobs(s3)
    tags = job["tags"]
    assert (tags["recap/run"], tags["recap/command"]) == ("support.chat", "train")
    assert tags["recap/config"].startswith(job["jobName"].rpartition("-")[2])


def test_an_evaluation_needs_a_definition_that_the_page_adds_to_the_stack(
    submit, stack, s3, judging, tmp_path
):
    config = written(tmp_path / "c.yaml", judging)
    ended = submit(config, "--dry-run")
    assert (ended.code, ended.out) == (ExitCode.MISSING, "")
    assert "job definition recap-evaluate does not exist" in ended.err
    assert "infra/aws/README.md, Evaluations" in ended.err

    (training,) = stack.batch.describe_job_definitions(jobDefinitionName="Train")["jobDefinitions"]

    def define(image):
        properties = training["containerProperties"] | {"image": image}
        stack.batch.register_job_definition(
            jobDefinitionName="recap-evaluate", type="container", containerProperties=properties
        )

    define("recap:evaluate-old")
    ended = submit(config, "--dry-run")
    assert ended.code == ExitCode.CONFIG
    assert "judge with what serves (`make evaluations`)" in ended.err

    define("recap:evaluate-abc")
    ended = submit(config)
    assert ended.code == 0, ended.err
    (job,) = stack.jobs(s3)
    assert "/recap-evaluate:" in job["jobDefinition"] or job["jobDefinition"] == "recap-evaluate"
    assert job["jobName"].startswith("recap-evaluate-judged-")
    assert job["tags"]["recap/command"] == "evaluate"

    define("recap:evaluate-old")
    ended = submit(config, "--no-plan")
    assert ended.code == 0
    assert "evaluations have the image recap:evaluate-old" in ended.err, "told, and submitted"


def test_an_ended_job_may_be_submitted_again(submit, stack, s3, training, tmp_path):
    config = written(tmp_path / "train.yaml", training)
    assert [submit(config, "--no-plan").code, submit(config, "--no-plan").code] == [0, 0]
    assert len(stack.jobs(s3)) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--stack", "none"], ExitCode.MISSING, "stack none does not exist"),
        (["--queue", "none"], ExitCode.MISSING, "queue none does not exist"),
        (["--job-definition", "none"], ExitCode.MISSING, "job definition none does not exist"),
    ],
)
def test_what_is_not_there_is_named_with_66(submit, training, tmp_path, words, code, message):
    ended = submit(written(tmp_path / "train.yaml", training), "--no-plan", *words)
    assert ended.code == code
    assert message in ended.err
    assert ended.out == ""


def test_a_stack_that_is_not_recaps_is_refused(recap, s3, training, tmp_path):
    template = {"Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}}}
    name = f"other-{uuid.uuid4().hex[:8]}"
    boto3.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
    ended = recap(
        "submit", "aws-batch", written(tmp_path / "c.yaml", training), "--no-plan", "--stack", name
    )
    assert ended.code == ExitCode.MISSING
    assert "has no output Queue and no output TrainJobDefinition" in ended.err


def push_image(repository: str, tag: str) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": {"digest": tag}, "layers": []}
    boto3.client("ecr").put_image(
        repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag
    )


def fill(bucket: S3, base_folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fill a stack's bucket as its page says; return a training's and a night's config."""
    for file in base_folder.iterdir():
        put(bucket, f"models/base/{file.name}", file.read_bytes())
    put(bucket, "data/train.jsonl", RECORDS)
    put(bucket, "conversations/dt=2026-01-31/day.jsonl", RECORDS)
    model = {"base": f"{bucket.uri}/models/base"}
    data = {"train": f"{bucket.uri}/data/train.jsonl", "validation_fraction": 0.3}
    training = {"run": "support", "model": model, "data": data, "output": f"{bucket.uri}/runs"}
    night = {"run": "nightly", "model": model, "chunks": {"records": 4}}
    places = {"input": "conversations/dt={date}/", "output": "summaries/dt={date}/"}
    return training, night | {key: f"{bucket.uri}/{place}" for key, place in places.items()}


@pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")
def test_the_stack_that_infra_deploys_takes_trainings_and_nights(
    recap, stack, s3, base_folder, tmp_path, monkeypatch
):
    simulate_policies(monkeypatch)
    name = f"recap-{uuid.uuid4().hex[:8]}"
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in GIVEN.items()]
    cloudformation = boto3.client("cloudformation")
    template = for_moto()["recap.yaml"]
    cloudformation.create_stack(StackName=name, TemplateBody=template, Parameters=parameters)
    (made,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in made["Outputs"]}
    training, night = fill(S3(s3.endpoint, outputs["Bucket"]), base_folder)

    words = ("--stack", name, "--var", "date=2026-01-31")
    without = recap("submit", "aws-batch", written(tmp_path / "train.yaml", training), *words)
    assert without.code == ExitCode.MISSING
    assert f"/{name}:train-abc of the job definition does not exist: push it" in without.err
    for image in ("train-abc", "summarize-abc"):
        push_image(name, image)
    trained = recap("submit", "aws-batch", written(tmp_path / "train.yaml", training), *words)
    assert trained.code == 0, trained.err
    shared = recap("submit", "aws-batch", written(tmp_path / "night.yaml", night), *words)
    assert shared.code == 0, shared.err
    assert "✓ role" in trained.err
    assert "✓ role" in shared.err
    there = night | {"input": f"s3://{outputs['Bucket']}/data/train.jsonl"}
    denied = recap("submit", "aws-batch", written(tmp_path / "night.yaml", there), *words)
    assert denied.code == ExitCode.FORBIDDEN
    assert "✓ input" in denied.err, "this machine may read what the role may not"
    assert f"input  s3:GetObject        {there['input']}" in denied.err
    ids = [ended.out.split()[1] for ended in (trained, shared)]
    jobs = stack.batch.describe_jobs(jobs=ids)["jobs"]
    definitions = [job["jobDefinition"].rpartition("/")[2].rpartition(":")[0] for job in jobs]
    assert definitions == [f"{name}-train", f"{name}-summarize"]
    assert jobs[1]["arrayProperties"]["size"] == 3
    assert (
        f"aws logs tail /recap/{name} --region us-east-1 --log-stream-name-prefix train/ --follow"
        in trained.out
    )
