"""Claims about `make deploy` and `make push`, against moto's CloudFormation over HTTP."""

import io
import json
import subprocess
import sys
import uuid
from datetime import datetime
from typing import Any

import boto3
import pytest

from job.storage.aws_session import new_session
from tests.infra import stack
from tests.infra.scripts import load_script

# moto's CloudFormation does not know these types. tests/infra/test_aws_requests.py sends each of
# them to its service instead.
UNKNOWN_TO_MOTO = {
    "AWS::S3::BucketPolicy",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::Scheduler::Schedule",
    "AWS::Scheduler::ScheduleGroup",
    "AWS::Logs::QueryDefinition",
    "AWS::SNS::TopicPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::Logs::MetricFilter",
}
OUTPUTS = {
    "Bucket",
    "Repository",
    "ImageTag",
    "Queue",
    "NightQueue",
    "NodesQueue",
    "TrainJobDefinition",
    "SummarizeJobDefinition",
    stack.NODES,
}
OUTPUTS |= {"TrainReads", "TrainWrites", "SummarizeReads", "SummarizeWrites"}
OUTPUTS |= {"Stack", "LogGroup", "Night", "NightSchedule", "NightDeadLetters", "TimeZone", "Alarms"}
OUTPUTS |= {"ScheduleGroup", "ExecutionRole", "NightRole"}

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")


FOLDER = stack.TEMPLATE.parent
deploy, push = load_script(FOLDER / "deploy.py"), load_script(FOLDER / "push.py")


@pytest.fixture
def session(s3):
    return boto3.session.Session(botocore_session=new_session())


@pytest.fixture
def name():
    return f"recap-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def deployed(session, name):
    """A first stack that moto made at once: its change sets leave no outputs."""
    cloudformation = session.client("cloudformation")
    parameters = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in stack.GIVEN.items()
    ]
    template = stack.for_moto()["recap.yaml"]
    cloudformation.create_stack(StackName=name, TemplateBody=template, Parameters=parameters)
    return deploy.outputs(deploy.find(cloudformation, name))


def run(session: Any, name: str, yes: bool = True, **parameters: str) -> None:
    deploy.deploy(
        session,
        name,
        [f"{key}={value}" for key, value in (stack.GIVEN | parameters).items()],
        yes,
        stack.for_moto(),
    )


def put_image(session: Any, repository: str, tag: str) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "tag": tag,
    }
    session.client("ecr").put_image(
        repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest)
    )


def told_by_push(
    session: Any, stack_name: str, tag: str, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    capsys.readouterr()
    push.push(session, stack_name, tag, True)
    return capsys.readouterr().out.splitlines()


def test_deploying_shows_what_it_will_make_and_makes_all_that_moto_knows(session, name, capsys):
    run(session, name, Night="on")
    wanted = {
        key: resource["Type"]
        for key, resource in stack.both(**stack.GIVEN, Night="on").items()
        if key not in (stack.NODES, stack.DASHBOARD)
    }
    told = dict(
        line.split()[1:3]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("Add ")
    )
    assert told.items() >= wanted.items()

    cloudformation = session.client("cloudformation")
    made = {
        resource["LogicalResourceId"]: resource["ResourceType"]
        for each in (name, f"{name}-watch")
        for resource in cloudformation.describe_stack_resources(StackName=each)["StackResources"]
        if "ResourceType" in resource
    }
    assert made == {key: kind for key, kind in wanted.items() if kind not in UNKNOWN_TO_MOTO}
    assert {kind for kind in wanted.values() if kind in UNKNOWN_TO_MOTO} == UNKNOWN_TO_MOTO


def test_the_second_stack_gets_the_outputs_of_the_first(session, name, deployed):
    for target in ("train", "summarize"):
        put_image(session, name, f"{target}-abc")
    run(session, name, MaxRejectPercent="7", NightDue="cron(0 7 * * ? *)")
    second = deploy.find(session.client("cloudformation"), f"{name}-watch")
    values = {p["ParameterKey"]: p["ParameterValue"] for p in second["Parameters"]}
    shared = values.keys() & deployed.keys()
    assert shared >= {"Stack", "LogGroup", "Queue", "NodesQueue", "Alarms", "NightDeadLetters"}
    assert {key: values[key] for key in shared} == {key: deployed[key] for key in shared}
    assert (values["MaxRejectPercent"], values["NightDue"]) == ("7", "cron(0 7 * * ? *)")


def test_parameters_without_a_default_are_outputs_and_no_others_are():
    first, second = stack.load(), stack.load(stack.WATCH)["Parameters"]
    passed = {name for name, parameter in second.items() if "Default" not in parameter}
    assert passed == second.keys() & first["Outputs"].keys()
    named_twice = second.keys() & first["Parameters"].keys()
    assert named_twice <= passed, "a value for both stacks is given once"


@pytest.mark.parametrize("template", [stack.TEMPLATE, stack.WATCH], ids=["recap", "watch"])
def test_a_template_is_small_enough_to_be_sent_without_a_bucket(template):
    assert len(template.read_bytes()) <= 51_200


def test_the_outputs_name_what_is_there(session, name, deployed):
    assert set(stack.load()["Outputs"]) == OUTPUTS | {"InputBucket", "TrainInput", "NightInput"}
    assert set(deployed) == OUTPUTS - {stack.NODES, "NightSchedule", "ScheduleGroup"}, (
        "all but those of what moto does not know"
    )
    batch = session.client("batch")
    queues = [deployed["Queue"], deployed["NightQueue"], deployed["NodesQueue"]]
    assert {
        queue["state"] for queue in batch.describe_job_queues(jobQueues=queues)["jobQueues"]
    } == {"ENABLED"}
    for command in ("train", "summarize"):
        arn = deployed[f"{command.capitalize()}JobDefinition"]
        (definition,) = batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
        assert definition["jobDefinitionName"] == f"{name}-{command}"
        assert (
            definition["containerProperties"]["image"] == f"{deployed['Repository']}:{command}-abc"
        )
    session.client("s3").head_bucket(Bucket=deployed["Bucket"])
    assert session.client("ecr").describe_repositories(repositoryNames=[name])["repositories"]
    assert session.client("logs").describe_log_groups(logGroupNamePrefix=deployed["LogGroup"])[
        "logGroups"
    ]


def test_a_deleted_stack_that_worked_leaves_its_bucket_and_its_guards():
    stays = {
        name: resource
        for name, resource in stack.load()["Resources"].items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
        or resource.get("UpdateReplacePolicy")
    }
    assert set(stays) == {"Bucket", "BucketPolicy"}
    for name, resource in stays.items():
        policies = (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])
        assert policies == ("RetainExceptOnCreate", "Retain"), name


def test_spot_comes_first_and_nights_before_trainings(session, deployed):
    batch = session.client("batch")
    kinds = {
        machines["computeEnvironmentArn"]: machines.get("computeResources", {}).get("type")
        for machines in batch.describe_compute_environments()["computeEnvironments"]
    }
    asked = [deployed["Queue"], deployed["NightQueue"], deployed["NodesQueue"]]
    queues = {
        queue["jobQueueArn"]: queue
        for queue in batch.describe_job_queues(jobQueues=asked)["jobQueues"]
    }
    machines = [
        [each["computeEnvironment"] for each in queues[arn]["computeEnvironmentOrder"]]
        for arn in asked
    ]
    orders = [[kinds[each] for each in order] for order in machines]
    assert orders == [["SPOT", "EC2"], ["SPOT", "EC2"], ["EC2"]]
    train, night, nodes = machines
    assert train == night
    assert not set(nodes) & set(train), "no other job reaches the nodes of a training"
    assert queues[asked[1]]["priority"] > queues[asked[0]]["priority"]


def test_a_stack_that_works_gets_no_images_that_are_not_there(session, name, deployed, capsys):
    with pytest.raises(
        deploy.RefusedError, match="lacks train-next and summarize-next: `make push` first"
    ):
        run(session, name, ImageTag="next")
    put_image(session, name, "train-next")
    with pytest.raises(deploy.RefusedError, match="lacks summarize-next: `make push` first"):
        run(session, name, ImageTag="next")
    for target in ("train", "summarize"):
        put_image(session, name, f"{target}-abc")
    run(session, name)
    assert f"Repository               {deployed['Repository']}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["Nigth=on"], "no parameter Nigth; they have AlarmEmail, "),
        (["on"], "'on' is not NAME=VALUE"),
    ],
)
def test_a_parameter_that_is_none_is_told(session, name, parameters, message):
    with pytest.raises(deploy.RefusedError, match=message):
        deploy.deploy(session, name, ["ImageTag=abc", *parameters], True, stack.for_moto())


def test_without_a_yes_nothing_is_made(session, name, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(deploy.RefusedError, match="nothing was changed"):
        run(session, name, yes=False)
    cloudformation = session.client("cloudformation")
    assert deploy.find(cloudformation, name) is None
    assert deploy.find(cloudformation, f"{name}-watch") is None


def test_both_change_sets_are_shown_before_the_one_question(session, name, monkeypatch, capsys):
    asked = []

    def answer(question):
        asked.append((question, capsys.readouterr().out))
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    run(session, name, yes=False)
    ((question, shown),) = asked
    assert question == "Change it so? [y/N] "
    assert "Add      Queue " in shown
    assert "Add      JobFailed " in shown


@pytest.mark.infra
def test_a_second_stack_whose_parameters_do_not_exist_yet_is_announced(session, name, capsys):
    templates = stack.for_moto()
    watch = json.loads(templates["watch.yaml"])
    # An output that moto does not make, as before the first deployment.
    del watch["Parameters"]["NightQueue"]["Default"]
    templates["watch.yaml"] = json.dumps(watch)
    deploy.deploy(session, name, [f"{k}={v}" for k, v in stack.GIVEN.items()], True, templates)
    told = capsys.readouterr().out
    assert f"stack {name}-watch, after it, with AWS::CloudWatch::Alarm, " in told


@pytest.mark.infra
def test_everything_in_both_stacks_has_the_tag_of_the_first(session, name):
    run(session, name)
    cloudformation = session.client("cloudformation")
    for each in (name, f"{name}-watch"):
        tags = cloudformation.describe_stacks(StackName=each)["Stacks"][0]["Tags"]
        assert tags == [{"Key": "recap/stack", "Value": name}]


def test_types_that_the_region_lacks_are_refused_before_anything_is_made(session, name):
    with pytest.raises(deploy.RefusedError, match=r"us-east-1 has no g99\.large: name types"):
        run(session, name, InstanceTypes="g6.2xlarge,g99.large,g5")
    assert deploy.find(session.client("cloudformation"), name) is None


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"VpcId": "vpc-0"}, "VpcId without SubnetIds"),
        ({"VpcId": "vpc-0", "SecurityGroupIds": "sg-0"}, "VpcId without SubnetIds"),
        ({"SubnetIds": "subnet-0"}, "SubnetIds without VpcId"),
        ({"SubnetIds": "subnet-0", "SecurityGroupIds": "sg-0"}, "SubnetIds and SecurityGroupIds w"),
    ],
)
def test_a_part_of_a_network_is_refused_before_anything_is_made(session, name, given, refused):
    with pytest.raises(deploy.RefusedError, match=refused):
        run(session, name, **given)
    assert deploy.find(session.client("cloudformation"), name) is None


def test_a_whole_network_is_not_refused():
    whole = {"VpcId": "vpc-0", "SubnetIds": "subnet-0", "SecurityGroupIds": ""}
    assert deploy.check_network(whole) is None
    assert deploy.check_network(dict.fromkeys(whole, "")) is None


def test_deploying_needs_boto3_and_nothing_else():
    loaded = "import sys, deploy, push; print(*{name.partition('.')[0] for name in sys.modules})"
    folder = stack.TEMPLATE.parent
    command = [sys.executable, "-c", loaded]
    told = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    others = set(told.split()) - sys.stdlib_module_names - {"deploy", "push", "__mp_main__"}
    needed = {"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"}
    assert {name for name in others if not name.startswith("_")} <= needed | {"certifi", "awscrt"}


def test_both_images_are_built_for_the_stacks_machines_and_pushed_by_tag(
    session, name, deployed, capsys
):
    lines = told_by_push(session, name, "0123456789ab", capsys)
    for line, target in zip(lines[0:4:2], ("train", "summarize"), strict=True):
        image = f"{deployed['Repository']}:{target}-0123456789ab"
        assert line.startswith(
            f"docker build --platform linux/amd64 --target {target} --tag {image} --build-arg "
        )
        assert "REVISION=0123456789ab" in line
        assert lines[lines.index(line) + 1] == f"docker push {image}"
    assert lines[4:] == [f"the jobs of stack {name} take the images of abc: now `make deploy`"]


def test_a_push_that_broke_off_goes_on_with_what_is_missing(session, name, deployed, capsys):
    put_image(session, name, "train-abc")
    there, build, pushed = told_by_push(session, name, "abc", capsys)
    assert there == "train-abc is there already"
    assert "--target summarize" in build
    assert pushed == f"docker push {deployed['Repository']}:summarize-abc"
    put_image(session, name, "summarize-abc")
    assert told_by_push(session, name, "abc", capsys) == [
        "train-abc is there already",
        "summarize-abc is there already",
    ]


def test_an_image_that_is_built_again_says_the_same_of_itself():
    once, again = (list(push.commands("r/recap", "abc", ["train"], {})) for _ in range(2))
    assert once == again
    (created,) = [word.removeprefix("CREATED=") for word in once[0] if word.startswith("CREATED=")]
    command = ["git", "log", "-1", "--format=%ct"]
    committed = subprocess.run(
        command, cwd=push.ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert datetime.fromisoformat(created).timestamp() == int(committed)


def test_a_companys_network_is_told_to_the_build(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "PIP_CERT": "ca.pem",
        "PIP_CONFIG_FILE": "/etc/pip.conf",
        "APT_SOURCES": "/etc/apt/mirror.list",
        "BASE_IMAGE": "mirror/python:3.11",
        "HTTPS_PROXY": "http://user:secret@proxy:3128",
    }
    unset = {"no_proxy": ""}
    build, pushed = push.commands("r/recap", "abc", ["train"], settings | unset)
    secrets = [build[place + 1] for place, word in enumerate(build) if word == "--secret"]
    assert secrets == [
        f"id=pip_ca,src={tmp_path}/ca.pem",
        "id=pip_conf,src=/etc/pip.conf",
        "id=apt_sources,src=/etc/apt/mirror.list",
    ]
    assert "BASE_IMAGE=mirror/python:3.11" in build
    assert build[build.index("HTTPS_PROXY") - 1] == "--build-arg"
    assert not [word for word in build if "secret@proxy" in word or word == "no_proxy"]
    assert "--secret" not in pushed
    page = (push.ROOT / "infra" / "docker" / "README.md").read_text(encoding="utf-8")
    assert all(name in page for name in settings)


def test_what_no_commit_has_is_neither_deployed_nor_pushed(session, name):
    with pytest.raises(
        deploy.RefusedError, match="0123456789ab-dirty: such images are never pushed: commit first"
    ):
        run(session, name, ImageTag="0123456789ab-dirty")
    assert deploy.find(session.client("cloudformation"), name) is None
    with pytest.raises(deploy.RefusedError, match="changes that no commit has"):
        push.push(session, name, "0123456789ab-dirty", True)
    with pytest.raises(
        deploy.RefusedError, match="is not there, in this account and region: `make deploy` first"
    ):
        push.push(session, name, "0123456789ab", True)
