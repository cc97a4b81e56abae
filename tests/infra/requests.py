"""The requests to AWS for the stack's resources, held against botocore's models of the services.

CloudFormation's properties are the services' own parameters in other letters. The differences are
written here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator


@dataclass(frozen=True)
class Request:
    """One call of a service.

    CloudFormation does not send the keys `dropped`, or sends them by another call.
    """

    service: str
    operation: str
    properties: dict[str, Any]

    def parameters(self) -> dict[str, Any]:
        """As boto3 takes them; an AssertionError tells what the service does not know."""
        shape = _operation(self.service, self.operation).input_shape
        found: dict[str, Any] = _fitted(self.properties, shape, self.operation)
        report = ParamValidator().validate(found, shape)
        assert not report.has_errors(), f"{self.operation}: {report.generate_report()}"
        return found

    @property
    def method(self) -> str:
        """boto3's name of the operation."""
        return str(botocore.xform_name(self.operation))


def requests_of(name: str, kind: str, properties: dict[str, Any]) -> Iterator[Request]:
    """Return the requests for a resource.

    There are none for the network and the roles, which moto's CloudFormation makes.
    """
    p = properties
    match kind:
        case "AWS::Batch::ComputeEnvironment":
            changes = {key: p.pop(key) for key in ("ReplaceComputeEnvironment", "UpdatePolicy")}
            newest = p["ComputeResources"].pop("UpdateToLatestImageVersion")
            yield Request("batch", "CreateComputeEnvironment", {"ComputeEnvironmentName": name} | p)
            update = {
                "UpdatePolicy": changes["UpdatePolicy"],
                "ComputeResources": {"UpdateToLatestImageVersion": newest},
            }
            yield Request(
                "batch", "UpdateComputeEnvironment", {"ComputeEnvironment": name} | update
            )
        case "AWS::Batch::JobQueue":
            yield Request("batch", "CreateJobQueue", p)
        case "AWS::Batch::JobDefinition":
            yield Request("batch", "RegisterJobDefinition", p)
        case "AWS::Scheduler::Schedule":
            yield Request("scheduler", "CreateSchedule", {"Name": name} | p)
            service, operation = p["Target"]["Arn"].rsplit(":", 2)[1:]
            yield Request(
                service, operation[0].upper() + operation[1:], json.loads(p["Target"]["Input"])
            )
        case "AWS::Scheduler::ScheduleGroup":
            yield Request("scheduler", "CreateScheduleGroup", p)
        case "AWS::S3::Bucket":
            yield from _bucket(p)
        case "AWS::S3::BucketPolicy":
            yield Request(
                "s3",
                "PutBucketPolicy",
                {"Bucket": p["Bucket"], "Policy": json.dumps(p["PolicyDocument"])},
            )
        case "AWS::ECR::Repository":
            policy, _ = p.pop("LifecyclePolicy")["LifecyclePolicyText"], p.pop("EmptyOnDelete")
            yield Request("ecr", "CreateRepository", p)
            named = {"RepositoryName": p["RepositoryName"]}
            yield Request("ecr", "PutLifecyclePolicy", named | {"LifecyclePolicyText": policy})
        case "AWS::EC2::LaunchTemplate":
            yield Request("ec2", "CreateLaunchTemplate", {"LaunchTemplateName": name} | p)
        case "AWS::EC2::SecurityGroupEgress":
            peer = {"GroupId": p["DestinationSecurityGroupId"], "Description": p["Description"]}
            one = {key: p[key] for key in ("IpProtocol", "FromPort", "ToPort")} | {
                "UserIdGroupPairs": [peer]
            }
            yield Request(
                "ec2",
                "AuthorizeSecurityGroupEgress",
                {"GroupId": p["GroupId"], "IpPermissions": [one]},
            )
        case "AWS::Logs::LogGroup":
            yield Request("logs", "CreateLogGroup", {"LogGroupName": p["LogGroupName"]})
            yield Request("logs", "PutRetentionPolicy", p)
        case "AWS::Logs::MetricFilter":
            yield Request("logs", "PutMetricFilter", {"FilterName": name} | p)
        case "AWS::Logs::QueryDefinition":
            yield Request("logs", "PutQueryDefinition", p)
        case "AWS::CloudWatch::Dashboard":
            yield Request("cloudwatch", "PutDashboard", p)
        case "AWS::StepFunctions::StateMachine":
            definition = {"Definition": p["DefinitionString"], "RoleArn": p["RoleArn"]}
            yield Request("stepfunctions", "CreateStateMachine", {"Name": name} | definition)
        case "AWS::CloudWatch::Alarm":
            yield Request("cloudwatch", "PutMetricAlarm", {"AlarmName": name} | p)
        case "AWS::CloudWatch::CompositeAlarm":
            yield Request("cloudwatch", "PutCompositeAlarm", {"AlarmName": name} | p)
        case "AWS::Events::Rule":
            rule = {
                "Name": name,
                "EventPattern": json.dumps(p.pop("EventPattern")),
                "Description": p["Description"],
            }
            yield Request("events", "PutRule", rule)
            yield Request("events", "PutTargets", {"Rule": name, "Targets": p["Targets"]})
        case "AWS::SNS::Topic":
            yield Request("sns", "CreateTopic", {"Name": name, "Attributes": p})
        case "AWS::SNS::TopicPolicy":
            policy = json.dumps(p["PolicyDocument"])
            wanted = {"AttributeName": "Policy", "AttributeValue": policy}
            yield Request("sns", "SetTopicAttributes", {"TopicArn": p["Topics"][0]} | wanted)
        case "AWS::SNS::Subscription":
            yield Request("sns", "Subscribe", p)
        case "AWS::SQS::Queue":
            yield Request(
                "sqs",
                "CreateQueue",
                {"QueueName": name, "Attributes": {k: str(v) for k, v in p.items()}},
            )


def _bucket(p: dict[str, Any]) -> Iterator[Request]:
    bucket = {"Bucket": "recap-bucket"}
    for rule in p["LifecycleConfiguration"]["Rules"]:
        rule["ID"], rule["Filter"] = rule.pop("Id"), {"Prefix": rule.pop("Prefix", "")}
        if "ExpiredObjectDeleteMarker" in rule:
            rule["Expiration"] = {
                "ExpiredObjectDeleteMarker": rule.pop("ExpiredObjectDeleteMarker")
            }
    (encryption,) = p["BucketEncryption"].pop("ServerSideEncryptionConfiguration")
    encryption["ApplyServerSideEncryptionByDefault"] = encryption.pop(
        "ServerSideEncryptionByDefault"
    )
    yield Request(
        "s3",
        "CreateBucket",
        bucket | {"ObjectOwnership": p["OwnershipControls"]["Rules"][0]["ObjectOwnership"]},
    )
    access = "PublicAccessBlockConfiguration"
    yield Request("s3", "PutPublicAccessBlock", bucket | {access: p[access]})
    rules = {"ServerSideEncryptionConfiguration": {"Rules": [encryption]}}
    yield Request("s3", "PutBucketEncryption", bucket | rules)
    yield Request(
        "s3",
        "PutBucketVersioning",
        bucket | {"VersioningConfiguration": p["VersioningConfiguration"]},
    )
    lifecycle = {"LifecycleConfiguration": p["LifecycleConfiguration"]}
    yield Request("s3", "PutBucketLifecycleConfiguration", bucket | lifecycle)


@cache
def _operation(service: str, operation: str) -> OperationModel:
    return botocore.session.get_session().get_service_model(service).operation_model(operation)


def _fitted(value: Any, shape: Shape, where: str) -> Any:
    """Return the value as the shape spells and types it.

    Raise AssertionError for a key or a word that the service does not know.
    """
    match shape.type_name:
        case "structure":
            members = {name.lower(): name for name in shape.members}
            unknown = [key for key in value if key.lower() not in members]
            assert not unknown, f"{where}: {unknown} is not among {sorted(shape.members)}"
            names = {key: members[key.lower()] for key in value}
            return {
                names[key]: _fitted(item, shape.members[names[key]], f"{where}.{key}")
                for key, item in value.items()
            }
        case "list":
            return [
                _fitted(item, shape.member, f"{where}[{index}]") for index, item in enumerate(value)
            ]
        case "map":
            return {
                key: _fitted(item, shape.value, f"{where}.{key}") for key, item in value.items()
            }
        case "integer" | "long":
            return int(value)
        case "float" | "double":
            return float(value)
        case "string":
            words = getattr(shape, "enum", [])
            assert not words or value in words, f"{where}: {value} is not one of {words}"
            return str(value)
    return value
