"""Claims about `make evaluations`, against moto's CloudFormation, ECR and Batch."""

import json
import shlex
import uuid
from typing import Any

import boto3
import pytest

from job.storage.aws_session import new_session
from tests.infra import stack
from tests.infra.requests import requests_of
from tests.infra.scripts import load_script

FOLDER = stack.TEMPLATE.parent
deploy, push = load_script(FOLDER / "deploy.py"), load_script(FOLDER / "push.py")
load_script(FOLDER / "entry_point.py")
evaluations = load_script(FOLDER / "evaluations.py")


@pytest.fixture
def session(s3):
    return boto3.session.Session(botocore_session=new_session())


@pytest.fixture
def name(session):
    """A stack with the template's definition of trainings, its repository and its image tag."""
    name = f"recap-{uuid.uuid4().hex[:8]}"
    properties = stack.resources(**stack.GIVEN)["TrainJobDefinition"]["Properties"]
    (request,) = requests_of("TrainJobDefinition", "AWS::Batch::JobDefinition", properties)
    training = session.client("batch").register_job_definition(**request.parameters())
    repository = session.client("ecr").create_repository(repositoryName=name)["repository"]
    outputs = {
        "Repository": repository["repositoryUri"],
        "ImageTag": "abc",
        "TrainJobDefinition": training["jobDefinitionArn"],
    }
    template = {
        "Resources": {"Logs": {"Type": "AWS::Logs::LogGroup"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    session.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
    return name


def definitions(session: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.client("batch").describe_job_definitions(
        jobDefinitionName=name, status="ACTIVE"
    )["jobDefinitions"]
    return found


def put_image(session: Any, repository: str, tag: str) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "tag": tag})
    session.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)


def test_an_evaluation_is_a_training_in_the_image_of_nights(session, name, docker):
    evaluations.add_evaluations(session, name, False)
    values = deploy.outputs(deploy.find(session.client("cloudformation"), name))
    image = f"{values['Repository']}:evaluate-abc"
    login, build, pushed = docker.calls
    assert login.words[0] == "login"
    assert build.words[-2:] == [image, "-"]
    serving = f"FROM {values['Repository']}:summarize-abc\n"
    assert build.stdin == serving + 'ENTRYPOINT ["recap", "evaluate"]\n'
    assert pushed.words == ["push", image]

    (made,) = definitions(session, f"{name}-evaluate")
    training = definitions(session, "recap-train")[-1]
    container, like = made["containerProperties"], training["containerProperties"]
    assert container["image"] == image
    differ = {key for key in container if container[key] != like.get(key)}
    assert differ == {"image", "logConfiguration"}
    assert container["logConfiguration"]["options"]["awslogs-stream-prefix"] == "evaluate"
    assert made["retryStrategy"] == training["retryStrategy"]
    assert made["timeout"] == training["timeout"]
    assert made["tags"]["recap/command"] == "evaluate"


def test_what_is_there_is_not_made_again(session, name, docker, capsys):
    evaluations.add_evaluations(session, name, False)
    put_image(session, name, "evaluate-abc")
    capsys.readouterr()
    evaluations.add_evaluations(session, name, False)
    assert capsys.readouterr().out.splitlines() == [
        "evaluate-abc is there already",
        f"job definition {name}-evaluate is there already",
    ]
    assert len(docker.calls) == 3
    assert len(definitions(session, f"{name}-evaluate")) == 1


def test_a_dry_run_only_says_what_it_would_do(session, name, docker, capsys):
    evaluations.add_evaluations(session, name, True)
    build, pushed, definition = capsys.readouterr().out.splitlines()
    assert shlex.split(build)[:2] == ["docker", "build"]
    assert shlex.split(pushed)[:2] == ["docker", "push"]
    assert definition.startswith(f"job definition {name}-evaluate: as ")
    assert docker.calls == []
    assert definitions(session, f"{name}-evaluate") == []


def test_without_a_stack_the_remedy_is_to_deploy_one(session):
    with pytest.raises(deploy.RefusedError, match="`make deploy` first"):
        evaluations.add_evaluations(session, "recap-none", True)
