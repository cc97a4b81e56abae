"""Claims about `make submit-check`, against moto and stand-ins of Batch and ECS.

It was never run on AWS. What moto can do is done by moto; what a container would do, recap does.
"""

import json
import re
import sys
import urllib.request
import uuid
from functools import partial
from typing import Any

import boto3
import pytest

from job.config.document import ConfigText
from job.config.load import load_config
from job.storage.aws_session import new_session
from tests.infra import stack
from tests.infra.roles import BUCKET, Role, recap
from tests.infra.submit_check import (
    Batch,
    Process,
    Without,
    check,
    left,
    make_all,
    removal,
    steps,
    submit_check,
)

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")

Result, Step = steps.Result, submit_check.Step


# The course of a check


class Course:
    """Steps and a removal that note what was run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def step(self, title: str, end: Any = (), needed: bool = False) -> Any:
        def run() -> Any:
            self.ran.append(title)
            if isinstance(end, BaseException):
                raise end
            return list(end)

        return Step(title, "1", "none", run, needed)

    def remove(self) -> list[str]:
        self.ran.append("remove")
        return []


GOOD, BAD = Result("exit code", "0", "0"), Result("exit code", "64", "75")


@pytest.mark.parametrize(
    ("ends", "ran", "code"),
    [
        ([[GOOD], [GOOD]], ["0", "1", "remove"], 0),
        ([[BAD], [GOOD]], ["0", "1", "remove"], 1),
        ([ValueError("no"), [GOOD]], ["0", "1", "remove"], 1),
        ([SystemExit("no"), [GOOD]], ["0", "1", "remove"], 1),
        ([[], []], ["0", "1", "remove"], 1),
    ],
    ids=["all well", "a wrong code", "an error", "an exit", "nothing looked at"],
)
def test_everything_is_removed_however_the_steps_end(ends, ran, code):
    course = Course()
    made = [course.step(str(number), end) for number, end in enumerate(ends)]
    assert submit_check.run(made, course.remove, False, "n") == code
    assert course.ran == ran


def test_everything_is_removed_after_ctrl_c():
    course = Course()
    made = [course.step("0", KeyboardInterrupt()), course.step("1")]
    with pytest.raises(KeyboardInterrupt):
        submit_check.run(made, course.remove, False, "n")
    assert course.ran == ["0", "remove"]


def test_steps_after_a_needed_one_that_failed_are_left_out(capsys):
    course = Course()
    made = [course.step("0", ValueError("no"), needed=True), course.step("1")]
    assert submit_check.run(made, course.remove, False, "n") == 1
    assert course.ran == ["0", "remove"]
    assert "✗ 0  ValueError: no, not done" in capsys.readouterr().out


def test_what_is_left_fails_the_check():
    course = Course()
    made = [course.step("0", [GOOD])]
    assert submit_check.run(made, lambda: ["a bucket"], False, "n") == 1


def test_a_kept_stack_is_not_removed(capsys):
    course = Course()
    assert submit_check.run([course.step("0", [GOOD])], course.remove, True, "n") == 0
    assert course.ran == ["0"]
    assert "make submit-check REMOVE=n" in capsys.readouterr().out


def test_a_dry_run_asks_nobody(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["submit_check.py", "--dry-run"])
    monkeypatch.setattr(boto3.session, "Session", None)
    submit_check.main()
    told = capsys.readouterr().out
    assert told.startswith(submit_check.NOT_RUN)
    for step in submit_check.steps(steps.Check(None, "n", "t")):
        assert step.title in told


def test_only_what_a_check_made_can_be_removed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["submit_check.py", "--remove", "recap"])
    with pytest.raises(SystemExit):
        submit_check.main()
    assert "recap is none of a check's" in capsys.readouterr().err


# The removal, of what moto made


@pytest.fixture
def session(s3):
    return boto3.session.Session(botocore_session=new_session())


@pytest.fixture
def name():
    return f"{submit_check.PREFIX}{uuid.uuid4().hex[:8]}"


@pytest.mark.infra
def test_nothing_with_the_checks_name_is_left(session, name):
    make_all(session, name)
    assert len(left(session, name)) >= 5
    assert removal.remove(session, name) == []
    assert left(session, name) == []
    assert removal.remove(session, name) == [], "a second time finds nothing to do"


@pytest.mark.infra
def test_images_are_removed_with_their_repository(session, name):
    ecr = session.client("ecr")
    ecr.create_repository(repositoryName=name)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    ecr.put_image(repositoryName=name, imageTag="train-abc", imageManifest=json.dumps(manifest))
    assert removal.remove(session, name) == []
    assert left(session, name) == []


@pytest.mark.infra
def test_a_deletion_that_fails_is_told_and_ends_no_other(session, name):
    bucket = removal.bucket(session, name)
    session.client("s3").create_bucket(Bucket=bucket)
    session.client("sqs").create_queue(QueueName=removal.messages_queue(name))
    (problem,) = removal.remove(Without(session, "ecr"), name)
    assert problem.startswith(f"repository {name}: Could not connect")
    assert left(session, name) == []


# The steps


@pytest.mark.parametrize(
    ("attempts", "code", "found"),
    [([75, 0], 0, ("75, 0", "0")), ([0], 0, ("0", "0")), ([75, 64], 64, ("75, 64", "64"))],
    ids=["run again", "not stopped", "fails then"],
)
def test_a_stopped_training_must_be_run_again(s3, name, monkeypatch, attempts, code, found):
    batch, commands = Batch(attempts), []

    def start(command: list[str]) -> Process:
        commands.append(command)
        return Process(code)

    results = check(batch, name, monkeypatch, start=start).train()
    assert tuple(result.found for result in results) == found
    assert all(result.ok for result in results) == (found == ("75, 0", "0"))
    assert [stopped["cluster"] for stopped in batch.stopped] == ["recap_Batch_0123"]
    assert commands[0][2:5] == ["job", "submit", "aws-batch"]
    assert commands[0][-3:] == ["--stack", name, "--wait"]


def test_a_training_that_never_runs_is_given_up(s3, name, monkeypatch):
    process = Process(0)
    made = check(Batch([], running=False), name, monkeypatch, start=lambda command: process)
    with pytest.raises(TimeoutError, match="still not: the training runs"):
        made.train()
    assert process.is_terminated


def test_each_failure_is_submitted_and_its_codes_are_compared(s3, name, monkeypatch):
    batch = Batch([])
    made = check(batch, name, monkeypatch)
    results = made.fail_in_each_way()
    assert [(result.wanted, result.ok) for result in results] == [
        (str(code), True) for code in (64, 65, 66, 77)
    ]
    assert {request["jobQueue"] for request in batch.submitted} == {"q"}
    assert made.expected["message of exit code 64"] == "(CHECK-64) failed"


@pytest.mark.infra
def test_the_alarms_reach_the_checks_own_queue(s3, name, monkeypatch):
    made = check(Batch([]), name, monkeypatch)
    topic = boto3.client("sns").create_topic(Name=name)["TopicArn"]
    made.outputs["Alarms"] = topic
    assert made.subscribe() == []
    cloudwatch = boto3.client("cloudwatch")
    for alarm, actions in (("TooManyRejects-1", [topic]), ("NightIsDue-1", [])):
        cloudwatch.put_metric_alarm(
            AlarmName=f"{name}-watch-{alarm}",
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            MetricName="m",
            Namespace="n",
            Period=60,
            Statistic="Sum",
            Threshold=1,
            AlarmActions=actions,
        )
    (result,) = made.set_alarms_off()
    assert result.ok
    assert made.expected == {"message of TooManyRejects-1": f"{name}-watch-TooManyRejects-1"}
    made.block_a_queue()
    message = "check-too-large (CHECK-TOO-LARGE) finds no machine, and blocks the queue"
    boto3.client("sns").publish(TopicArn=topic, Message=message)
    results = {result.what: result.found for result in made.await_messages()}
    # Moto sends nothing when an alarm is set by hand.
    assert results == {
        "message of TooManyRejects-1": "missing",
        "message of a blocked queue": "received",
        "message of a job that waits": "missing",
    }


# The stack of a check


def test_the_checks_parameters_are_values_of_the_templates():
    known = stack.load()["Parameters"] | stack.load(stack.WATCH)["Parameters"]
    for name, value in steps.PARAMETERS.items():
        parameter = known[name]
        assert value in map(str, parameter.get("AllowedValues", [value])), name
        assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value), name
        if parameter["Type"] == "Number":
            assert float(value) >= parameter.get("MinValue", 0), name
            assert float(value) <= parameter.get("MaxValue", float(value)), name
    assert "BucketName" in known


@pytest.mark.infra
def test_make_deploy_makes_both_stacks_of_a_check(session, name, monkeypatch):
    made = steps.Check(session, name, "abc")
    monkeypatch.setattr(
        steps.deploy, "deploy", partial(steps.deploy.deploy, templates=stack.for_moto())
    )
    (result,) = made.deploy()
    assert result.ok
    (found,) = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    values = {each["ParameterKey"]: each["ParameterValue"] for each in found["Parameters"]}
    assert (values["Gpus"], values["BucketName"]) == ("0", made.bucket)
    assert session.client("cloudformation").describe_stacks(StackName=f"{name}-watch")["Stacks"]


def test_the_jobs_of_a_check_require_no_gpu():
    first = stack.load()["Parameters"].keys()
    values = {name: value for name, value in steps.PARAMETERS.items() if name in first}
    for name, resource in stack.resources(**values).items():
        if resource["Type"] == "AWS::Batch::JobDefinition" and name != stack.NODES:
            container = resource["Properties"]["ContainerProperties"]
            kinds = {each["Type"] for each in container["ResourceRequirements"]}
            assert kinds == {"VCPU", "MEMORY"}, name
            assert {"Name": "RECAP_GPUS", "Value": "0"} in container["Environment"], name


def test_the_messages_that_a_check_waits_for_are_those_of_the_rules(s3, name, monkeypatch):
    made = check(Batch([]), name, monkeypatch)
    made.block_a_queue()
    made.fail_in_each_way()
    rules = {
        name: target["InputTransformer"]["InputTemplate"]
        for name, resource in stack.both(Night="on").items()
        if resource["Type"] == "AWS::Events::Rule"
        for target in resource["Properties"]["Targets"]
        if "InputTransformer" in target
    }
    blocked = made.expected["message of a blocked queue"].replace("CHECK-TOO-LARGE", "<id>")
    assert blocked in rules["QueueBlocked"]
    waits = made.expected["message of a job that waits"].replace("CHECK-TOO-LARGE", "{}")
    assert waits in stack.watching()["LookLater"]["Properties"]["DefinitionString"]
    failed = made.expected["message of exit code 64"].replace("CHECK-64", "<id>")
    assert failed in rules["JobFailed"]


# What is uploaded, under the stack's roles


@pytest.fixture
def uploaded(s3, name, monkeypatch):
    """A check whose bucket has what the check uploads."""
    made = check(Batch([]), name, monkeypatch)
    s3.client().create_bucket(Bucket=made.bucket)
    made.upload()
    return made


@pytest.mark.infra
@pytest.mark.parametrize(
    ("config", "role"), [("train.yaml", "TrainRole"), ("summarize.yaml", "SummarizeRole")]
)
def test_the_demos_places_are_those_of_the_roles(s3, uploaded, config, role):
    body = s3.client().get_object(Bucket=uploaded.bucket, Key=f"configs/{config}")["Body"]
    text = body.read().decode()
    assert "recap-demo" not in text
    loaded = load_config(None, ConfigText(config, text), [], {})
    allowed = Role(stack.policy(role))
    if config == "train.yaml":
        read = [loaded.model.base + "/config.json", loaded.data.train, loaded.data.validation]
    else:
        adapter = f"s3://{uploaded.bucket}/runs/demo/adapter"  # that of the training
        read = [loaded.input, loaded.adapter, f"{adapter}/adapter_config.json"]
    for place in read:
        key = place.removeprefix(f"s3://{uploaded.bucket}/")
        assert allowed.allows("s3:GetObject", f"{BUCKET}/{key}"), key
    written = [f"{loaded.output.rstrip('/')}/x"]
    if config == "train.yaml":
        written.append(loaded.publish.champion)
    for place in written:
        key = place.removeprefix(f"s3://{uploaded.bucket}/")
        assert allowed.allows("s3:PutObject", f"{BUCKET}/{key}"), key


@pytest.mark.infra
@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", steps.FAILURES)
def test_recap_ends_as_the_check_expects(s3, uploaded, guarded, code):
    made = Batch([])
    uploaded.session.batch = made
    uploaded.fail_in_each_way()
    (request,) = [r for r in made.submitted if r["jobName"] == f"check-{code}"]
    config, *arguments = request["containerOverrides"]["command"]
    role = Role(stack.policy("TrainRole"))
    guarded.reset(role.plan)
    found, said = recap("train", config, arguments=arguments)
    assert found == code, said


@pytest.fixture
def batch_without_docker(s3):
    """Moto's Batch, whose jobs succeed at once."""

    def use_docker(value: bool) -> None:
        body = json.dumps({"batch": {"use_docker": value}}).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{s3.endpoint}/moto-api/config"
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        urllib.request.urlopen(request).close()

    use_docker(False)
    yield
    use_docker(True)


@pytest.mark.infra
@pytest.mark.timeout(600)
def test_recap_submit_accepts_the_checks_stack_and_training(session, name, batch_without_docker):
    """Plan, places, image, submission and waiting, by the command that the check starts."""
    made = steps.Check(session, name, "abc")
    values = steps.PARAMETERS | {"ImageTag": "abc", "BucketName": made.bucket}
    first = stack.load()["Parameters"].keys()
    session.client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=stack.for_moto()["recap.yaml"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in values.items()
            if key in first
        ],
    )
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    session.client("ecr").put_image(
        repositoryName=name, imageTag="train-abc", imageManifest=json.dumps(manifest)
    )
    made.upload()
    assert made._follow("train.yaml").wait() == 0
    (job,) = session.client("batch").list_jobs(
        jobQueue=made.outputs["Queue"], jobStatus="SUCCEEDED"
    )["jobSummaryList"]
    assert job["jobName"].startswith("recap-train-demo-")
