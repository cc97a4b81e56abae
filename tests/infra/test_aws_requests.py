"""The stack's requests to AWS's services fit the services' own models, and moto's services."""

import boto3
import pytest

from tests.infra import stack
from tests.infra.requests import Request, requests_of

MADE_BY_CLOUDFORMATION = {  # moto's, in tests/infra/test_aws_deploy.py
    "AWS::EC2::InternetGateway",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::Role",
}
ALL = {  # with every option on
    "AlarmEmail": "someone@example.org",
    "HfTokenSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf-AbCdEf",
    "InputBucket": "conversations",
    "TrainInput": "labelled/*",
    "NightInput": "calls/*",
    "Night": "on",
    "NightWorkers": "4",
}
ELSEWHERE = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
}
# The requests for what moto's CloudFormation cannot make, or not completely. Composite alarms and
# saved queries are left out, since moto's server answers 500, and so is what needs other resources
# of the stack.
SENT = {
    "CreateScheduleGroup",
    "CreateSchedule",
    "PutMetricAlarm",
    "CreateBucket",
    "PutPublicAccessBlock",
    "PutBucketEncryption",
    "PutBucketVersioning",
    "PutBucketLifecycleConfiguration",
    "PutBucketPolicy",
    "RegisterJobDefinition",
    "CreateLogGroup",
    "PutRetentionPolicy",
    "PutMetricFilter",
    "PutMetricData",
    "PutDashboard",
    "CreateStateMachine",
}


def all_requests(**parameters: str) -> list[tuple[str, Request]]:
    found = stack.both(**parameters)
    return [
        (name, request)
        for name, resource in found.items()
        for request in requests_of(name, resource["Type"], resource["Properties"])
    ]


@pytest.mark.parametrize("parameters", [{}, ALL, ELSEWHERE], ids=["defaults", "all", "elsewhere"])
def test_every_request_is_one_that_the_service_takes(parameters):
    requests = all_requests(**parameters)
    for _, request in requests:
        request.parameters()
    spoken_for = {name for name, _ in requests}
    rest = {r["Type"] for name, r in stack.both(**parameters).items() if name not in spoken_for}
    assert rest <= MADE_BY_CLOUDFORMATION


def test_what_the_service_does_not_know_is_told():
    for properties, message in [
        (
            {"JobDefinitionName": "x", "Type": "container", "Retries": 1},
            r"\['Retries'\] is not among",
        ),
        ({"JobDefinitionName": "x", "Type": "pod"}, "pod is not one of"),
        ({"Type": "container"}, "Missing required parameter"),
    ]:
        with pytest.raises(AssertionError, match=message):
            Request("batch", "RegisterJobDefinition", properties).parameters()


def test_what_moto_cannot_make_in_a_stack_its_services_take_one_by_one(s3):
    session, sent = boto3.session.Session(), set()
    for _, request in all_requests(**ALL):
        if request.operation in SENT:
            getattr(session.client(request.service), request.method)(**request.parameters())
            sent.add(request.operation)
    assert sent == SENT

    bucket = session.client("s3").get_bucket_lifecycle_configuration(Bucket="recap-bucket")
    assert {rule["ID"] for rule in bucket["Rules"]} == {
        "unfinished-uploads",
        "old-checkpoints",
        "replaced",
    }
    definitions = session.client("batch").describe_job_definitions(
        jobDefinitionName="recap-train-nodes"
    )
    assert definitions["jobDefinitions"][0]["type"] == "multinode"
    schedule = session.client("scheduler").get_schedule(Name="NightSchedule", GroupName="recap")
    assert schedule["State"] == "ENABLED"
    alarms = session.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {a["AlarmName"] for a in alarms} >= {
        "NightNotStarted",
        "GpuIdle",
        "TooManyRejects",
        "NightIsDue",
        "NoNightEnded",
    }
