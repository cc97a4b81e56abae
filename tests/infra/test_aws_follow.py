"""Claims about what follows nights on AWS: a watch of each, and each week a challenger."""

import json
import re
import shlex
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest

from job.errors import ExitCode
from job.storage.aws_session import new_session
from tests.infra import stack
from tests.infra.eventbridge import TaskFailed, execute, is_matched, message
from tests.infra.requests import requests_of
from tests.infra.roles import BUCKET, Role
from tests.infra.scripts import load_script

FOLDER = stack.TEMPLATE.parent
deploy = load_script(FOLDER / "deploy.py")
load_script(FOLDER / "push.py")
load_script(FOLDER / "entry_point.py")
follow = load_script(FOLDER / "follow.py")
JOBS = ["WatchJobDefinition", "FeedbackJobDefinition"]
INLINE_LIMIT = 51_200  # bytes of a template in a request of CloudFormation
DUE = "2026-02-02T08:00:00Z"
FINAL = [code for code in ExitCode if code not in (ExitCode.DONE, ExitCode.RETRY, ExitCode.GATE)]


def properties(name: str, **parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.following(**parameters)[name]["Properties"]
    return found


def machine() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(properties("Challenge")["DefinitionString"])
    return found


# Template


def test_the_template_fits_into_a_request():
    assert stack.FOLLOW.stat().st_size < INLINE_LIMIT


@pytest.mark.parametrize(
    "parameters",
    [{}, {"InputBucket": "calls", "NightInput": "calls/*", "HttpsProxy": "http://p:1"}],
)
def test_every_request_is_one_that_its_service_takes(parameters):
    asked = []
    for name, resource in stack.following(**parameters).items():
        kind, found = resource["Type"], dict(resource["Properties"])
        found.pop("State", None) if kind == "AWS::Events::Rule" else None
        if name == "WeekSchedule":  # of a state machine, whose input is its own
            assert json.loads(found["Target"]["Input"]) == {
                "scheduled_at": "<aws.scheduler.scheduled-time>"
            }
            continue
        for request in requests_of(name, kind, found):
            asked.append(request.operation)
            assert request.parameters()
    assert asked.count("RegisterJobDefinition") == 2
    assert asked.count("CreateStateMachine") == 1


# Jobs


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_again_after_what_a_training_does(name):
    training = stack.resources()["TrainJobDefinition"]["Properties"]["RetryStrategy"]
    rules = properties(name)["RetryStrategy"]
    assert rules["EvaluateOnExit"] == training["EvaluateOnExit"]
    again = [each["OnExitCode"] for each in rules["EvaluateOnExit"] if each["Action"] == "RETRY"]
    assert str(int(ExitCode.RETRY)) in again
    assert str(int(ExitCode.GATE)) not in again


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_no_gpu_and_no_way_to_the_metadata_of_its_machine(name):
    found = properties(name)["ContainerProperties"]
    night = stack.resources()["SummarizeJobDefinition"]["Properties"]["ContainerProperties"]
    assert found["User"] == night["User"], "the machines shut this user out"
    assert found["ReadonlyRootFilesystem"] is True
    assert found["Volumes"] == [{"Name": "work"}], "no cache of others"
    assert "GPU" not in {each["Type"] for each in found["ResourceRequirements"]}
    values = {each["Name"]: each["Value"] for each in found["Environment"]}
    of_night = {each["Name"]: each["Value"] for each in night["Environment"]}
    assert values == of_night | {"RECAP_GPUS": "0"}
    assert found["Image"].endswith(":recap-abc")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_reaches_the_store_through_the_proxy_of_nights(name):
    found = properties(name, HttpsProxy="http://proxy:3128", NoProxy="s3")
    values = {each["Name"]: each["Value"] for each in found["ContainerProperties"]["Environment"]}
    proxy = "http://proxy:3128"
    assert [values[key] for key in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")] == [
        proxy,
        proxy,
        "s3",
    ]


# After the night


def done(**detail: Any) -> dict[str, Any]:
    queue = stack.outputs()["NightQueue"]
    night = {"status": "SUCCEEDED", "jobQueue": queue, "jobName": f"{stack.NAME}-night"}
    return {
        "source": "aws.batch",
        "detail-type": "Batch Job State Change",
        "detail": night | detail,
    }


def test_each_scheduled_night_is_watched_once():
    submitted = stack.resources(Night="on")["NightSchedule"]["Properties"]["Target"]["Input"]
    assert json.loads(submitted)["JobName"] == f"{stack.NAME}-night"
    pattern = properties("NightDone")["EventPattern"]
    assert is_matched(pattern, done())
    assert is_matched(pattern, done(arrayProperties={"size": 4}))
    for other in (
        {"arrayProperties": {"index": 0}},
        {"status": "FAILED"},
        {"jobName": f"{stack.NAME}-watch"},
        {"jobQueue": stack.outputs()["Queue"]},
    ):
        assert not is_matched(pattern, done(**other))


def test_a_watch_reads_nights_and_writes_its_page_among_them():
    found = properties("WatchJobDefinition")["ContainerProperties"]
    bucket = stack.outputs()["Bucket"]
    page = f"s3://{bucket}/summaries/nights.html"
    assert found["Command"] == ["watch", f"s3://{bucket}/configs/watch.yaml", "--plot", page]
    assert found["JobRoleArn"].endswith(":role/SummarizeRole")
    night = Role(stack.policy("SummarizeRole"))
    assert night.allows("s3:PutObject", f"{BUCKET}/summaries/nights.html")
    (target,) = properties("NightDone")["Targets"]
    statements = stack.policy("NightDoneRole")
    wanted = {target["Arn"], target["BatchParameters"]["JobDefinition"]}
    assert [(each["Action"], set(each["Resource"])) for each in statements] == [
        (["batch:SubmitJob"], wanted)
    ]


@pytest.mark.parametrize("switch", ["on", "off"])
def test_watch_and_week_are_switched_each_by_its_own_parameter(switch):
    state = "ENABLED" if switch == "on" else "DISABLED"
    assert properties("NightDone", Watch=switch)["State"] == state
    assert properties("WeekSchedule", Week=switch)["State"] == state


def test_an_alarm_of_a_watch_reaches_a_person():
    """Its job is in a queue whose failures are messages."""
    (target,) = properties("NightDone")["Targets"]
    rule = stack.watching()["JobFailed"]
    failed = done(status="FAILED", jobName=f"{stack.NAME}-watch", container={"exitCode": 76})
    assert failed["detail"]["jobQueue"] == target["Arn"]
    assert is_matched(rule["Properties"]["EventPattern"], failed)
    text = message(rule, failed)
    assert "Exit code: 76" in text
    assert "the nights changed" in text


# A week


def test_the_state_machine_is_one():
    package = Path(str(find_spec("cfnlint").origin)).parent  # type: ignore[union-attr]
    schema = package / "data" / "schemas" / "other" / "step_functions" / "statemachine.json"
    jsonschema.validate(machine(), json.loads(schema.read_text()))
    states = machine()["States"]
    reached = {machine()["StartAt"]}
    for state in states.values():
        ways = [state, *state.get("Choices", ()), *state.get("Catch", ())]
        reached |= {way["Next"] for way in ways if "Next" in way} | {state.get("Default")}
    assert reached - {None} == set(states)


class Batch:
    """Jobs that end with these codes, in turn; None for one that Batch does not accept."""

    def __init__(self, *codes: int | None) -> None:
        self._codes = list(codes)
        self.jobs: list[dict[str, Any]] = []
        self.waited: list[int] = []

    def __call__(self, resource: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if resource == "wait":
            self.waited.append(parameters["Seconds"])
            return {}
        assert resource == "arn:aws:states:::batch:submitJob.sync"
        self.jobs.append(parameters)
        code = self._codes.pop(0)
        if code is None:
            raise TaskFailed("AccessDeniedException: not authorized")
        if code:
            raise TaskFailed(json.dumps({"Status": "FAILED", "Container": {"ExitCode": code}}))
        return {"Status": "SUCCEEDED"}

    def run(self) -> str:
        """Return the state in which the week ends."""
        return execute(machine(), {"scheduled_at": DUE}, self)[-1]


def test_feedback_goes_before_the_training_and_both_have_the_weeks_date():
    batch = Batch(0, 0)
    assert batch.run() == "Promoted"
    feedback, training = batch.jobs
    assert feedback["JobDefinition"].endswith(":FeedbackJobDefinition")
    assert training["JobDefinition"] == stack.outputs()["TrainJobDefinition"]
    bucket = stack.outputs()["Bucket"]
    date = ["--var", "date=monday"]
    assert feedback["ContainerOverrides"]["Command"] == [
        "feedback", f"s3://{bucket}/configs/feedback.yaml", *date
    ]  # fmt: skip
    assert training["ContainerOverrides"]["Command"] == [
        f"s3://{bucket}/configs/challenger.yaml", *date
    ]  # fmt: skip
    for job in batch.jobs:
        due = [{"Name": "RECAP_SCHEDULED_AT", "Value": DUE}]
        assert job["ContainerOverrides"]["Environment"] == due
        assert job["JobQueue"] == stack.outputs()["Queue"]


def test_a_week_continues_an_hour_after_75():
    batch = Batch(75, 0, 75, 0, 0)
    assert batch.run() == "Promoted"
    assert batch.waited == [3600, 3600]
    kinds = [job["JobName"].removeprefix(f"{stack.NAME}-") for job in batch.jobs]
    assert kinds == ["feedback", "feedback", "challenger", "feedback", "challenger"]


def test_a_refused_challenger_is_final():
    batch = Batch(0, ExitCode.GATE)
    assert (batch.run(), batch.waited, len(batch.jobs)) == ("Refused", [], 2)


@pytest.mark.parametrize("code", [*FINAL, 134, 137, 139, None])
def test_any_other_end_of_a_job_is_that_of_the_week(code):
    assert Batch(code).run() == "Failed"
    assert Batch(0, code).run() == "Failed"


def test_the_end_of_a_week_without_a_champion_reaches_a_person():
    rule = stack.following()["WeekFailed"]
    arn = rule["Properties"]["EventPattern"]["detail"]["stateMachineArn"][0]
    execution = f"{arn.replace(':stateMachine:', ':execution:')}:week"
    detail = {"stateMachineArn": arn, "executionArn": execution, "error": "recap.Refused"}
    event = {"source": "aws.states", "detail-type": "Step Functions Execution Status Change"}
    for status in ("FAILED", "TIMED_OUT", "ABORTED"):
        ended = event | {"detail": detail | {"status": status}}
        assert is_matched(rule["Properties"]["EventPattern"], ended)
    for status in ("RUNNING", "SUCCEEDED"):
        ended = event | {"detail": detail | {"status": status}}
        assert not is_matched(rule["Properties"]["EventPattern"], ended)
    text = message(rule, event | {"detail": detail | {"status": "FAILED"}})
    assert "FAILED recap.Refused" in text
    assert machine()["States"]["Refused"]["Error"] == "recap.Refused"
    assert rule["Properties"]["Targets"][0]["Arn"] == stack.outputs()["Alarms"]


def test_a_week_has_ended_before_the_next_begins():
    schedule = properties("WeekSchedule")["ScheduleExpression"]
    assert re.fullmatch(r"cron\(0 \d+ \? \* MON \*\)", schedule)
    assert machine()["TimeoutSeconds"] < 7 * 24 * 3600 - 3600


# Roles


def test_the_state_machine_may_submit_the_two_jobs_and_no_other():
    submit, look, stop, hear = stack.policy("ChallengeRole")
    batch = Batch(0, 0)
    batch.run()
    asked = {job[key] for job in batch.jobs for key in ("JobQueue", "JobDefinition")}
    assert (submit["Action"], set(submit["Resource"])) == (["batch:SubmitJob"], asked)
    assert (look["Action"], look["Resource"]) == (["batch:DescribeJobs"], ["*"])
    assert stop["Action"] == ["batch:TerminateJob"]
    assert stop["Resource"][0].endswith(":job/*")
    assert hear["Resource"][0].endswith(":rule/StepFunctionsGetEventsForBatchJobsRule")


def test_the_schedule_may_start_the_week_and_report_that_it_could_not():
    start, tell = stack.policy("WeekScheduleRole")
    target = properties("WeekSchedule")["Target"]
    assert (start["Action"], start["Resource"]) == (["states:StartExecution"], [target["Arn"]])
    assert (tell["Action"], tell["Resource"]) == (
        ["sqs:SendMessage"], [target["DeadLetterConfig"]["Arn"]]
    )  # fmt: skip


def test_feedback_reads_what_it_joins_and_writes_where_trainings_read():
    feedback, training = Role(stack.policy("FeedbackRole")), Role(stack.policy("TrainRole"))
    for read in (
        "verdicts/w05.jsonl",
        "conversations/a.jsonl",
        "summaries/dt=2026-01-31/manifest.json",
        "runs/support/run.json",
        "champions/support.json",
    ):
        assert feedback.allows("s3:GetObject", f"{BUCKET}/{read}")
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert not feedback.allows(action, f"{BUCKET}/{read}")
    written = f"{BUCKET}/data/feedback/2026-02-02/sft/train.jsonl"
    assert feedback.allows("s3:PutObject", written)
    assert training.allows("s3:GetObject", written)
    assert not feedback.allows("s3:PutObject", f"{BUCKET}/data/train.jsonl")


# make follow


@pytest.fixture
def session(s3):
    return boto3.session.Session(botocore_session=new_session())


@pytest.fixture
def name(session):
    """A first stack with the outputs that the third needs, and a definition of nights."""
    name = f"recap-{uuid.uuid4().hex[:8]}"
    proxied = stack.resources(**stack.GIVEN, HttpsProxy="http://proxy:3128")
    night = proxied["SummarizeJobDefinition"]["Properties"]
    (request,) = requests_of("SummarizeJobDefinition", "AWS::Batch::JobDefinition", night)
    made = session.client("batch").register_job_definition(**request.parameters())
    repository = session.client("ecr").create_repository(repositoryName=name)["repository"]
    outputs = stack.outputs(**stack.GIVEN) | {
        "Stack": name,
        "Repository": repository["repositoryUri"],
        "SummarizeJobDefinition": made["jobDefinitionArn"],
    }
    template = {
        "Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    session.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
    return name


@pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")
def test_following_pushes_an_image_of_every_command_and_makes_the_stack(
    session, name, docker, capsys
):
    follow.follow(session, name, ["Week=on"], True, False, stack.follow_for_moto())
    cloudformation = session.client("cloudformation")
    third = deploy.find(cloudformation, f"{name}-follow")
    values = {each["ParameterKey"]: each["ParameterValue"] for each in third["Parameters"]}
    repository = deploy.outputs(deploy.find(cloudformation, name))["Repository"]
    assert values["Image"] == f"{repository}:recap-abc"
    assert (values["Week"], values["HttpsProxy"]) == ("on", "http://proxy:3128")
    assert values["NightRole"].endswith(":role/SummarizeRole")
    _, build, pushed = docker.calls
    assert build.stdin == f'FROM {repository}:train-abc\nENTRYPOINT ["recap"]\n'
    assert pushed.words == ["push", f"{repository}:recap-abc"]
    assert "Add      Challenge " in capsys.readouterr().out


def test_a_dry_run_only_says_what_it_would_do(session, name, docker, capsys):
    follow.follow(session, name, [], True, True)
    build, pushed, third = capsys.readouterr().out.splitlines()
    assert shlex.split(build)[:2] == ["docker", "build"]
    assert shlex.split(pushed)[:2] == ["docker", "push"]
    assert third.startswith(f"stack {name}-follow, with AWS::Batch::JobDefinition, ")
    assert docker.calls == []
    assert deploy.find(session.client("cloudformation"), f"{name}-follow") is None


@pytest.mark.parametrize("parameter", ["Queue=x", "Weekly=on"])
def test_a_parameter_of_another_stack_is_refused(session, name, parameter):
    with pytest.raises(deploy.RefusedError, match=r"follow\.yaml takes no .* it takes .*Week"):
        follow.follow(session, name, [parameter], True, True)


def test_without_a_first_stack_the_remedy_is_to_deploy_one(session):
    with pytest.raises(deploy.RefusedError, match="`make deploy` first"):
        follow.follow(session, "recap-none", [], True, True)
