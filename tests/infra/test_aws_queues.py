"""Claims about queues and their machines, what the night is submitted to, and the bucket."""

import json
from typing import Any

import pytest

from tests.infra import stack

JOBS = {
    "TrainJobDefinition": "TrainTimeoutSeconds",
    "SummarizeJobDefinition": "SummarizeTimeoutSeconds",
    "TrainNodesJobDefinition": "TrainTimeoutSeconds",
}
MACHINES = ["SpotMachines", "OnDemandMachines", "NodesMachines"]


def properties(name: str, **parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.resources(**parameters)[name]["Properties"]
    return found


def machines_of(queue: str) -> list[str]:
    """Return the machines that a queue starts, in the order in which it tries them."""
    by_arn = {stack.resource_arn(name): name for name in MACHINES}
    order = sorted(properties(queue)["ComputeEnvironmentOrder"], key=lambda each: each["Order"])
    return [by_arn[each["ComputeEnvironment"]] for each in order]


def test_jobs_try_spot_first_and_nodes_share_no_machine_with_others():
    assert machines_of("Queue") == machines_of("NightQueue") == ["SpotMachines", "OnDemandMachines"]
    assert machines_of("NodesQueue") == ["NodesMachines"]
    assert properties("SpotMachines")["ComputeResources"]["Type"] == "SPOT"
    for name in ("OnDemandMachines", "NodesMachines"):
        assert properties(name)["ComputeResources"]["Type"] == "EC2"


def test_nights_are_served_before_trainings():
    assert properties("NightQueue")["Priority"] > properties("Queue")["Priority"]


def test_a_job_larger_than_any_machine_fails_in_every_queue():
    queues = [
        each["Properties"]
        for each in stack.resources().values()
        if each["Type"] == "AWS::Batch::JobQueue"
    ]
    assert len(queues) == 3
    for queue in queues:
        ended = {each["Reason"] for each in queue["JobStateTimeLimitActions"]}
        # Of capacity, which comes back, there is no such action: it would lose the job.
        assert ended == {
            "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        }
        for each in queue["JobStateTimeLimitActions"]:
            assert (each["State"], each["Action"]) == ("RUNNABLE", "CANCEL")
            assert each["MaxTimeSeconds"] == 600


@pytest.mark.parametrize("name", MACHINES)
def test_machines_are_of_several_types_within_the_limit_of_vcpus(name):
    types = properties(name)["ComputeResources"]["InstanceTypes"]
    families = {each.partition(".")[0] for each in types}
    assert len(families) > 1, "one family is often out of Spot capacity"
    limited = properties(name, MaxVcpus="8", InstanceTypes="g6.2xlarge")["ComputeResources"]
    assert (limited["MinvCpus"], limited["MaxvCpus"]) == (0, "8")
    assert limited["InstanceTypes"] == ["g6.2xlarge"]


def test_disks_are_encrypted_and_end_with_their_machine():
    (disk,) = properties("LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True
    assert disk["Ebs"]["DeleteOnTermination"] is True


def test_a_jobs_task_has_the_tags_of_the_job():
    for name in JOBS:
        job = properties(name)
        assert job["PropagateTags"] is True
        command = "summarize" if name.startswith("Summarize") else "train"
        assert job["Tags"] == {"recap/stack": stack.NAME, "recap/command": command}


def test_each_job_has_the_time_limit_of_its_kind():
    limits = {"TrainTimeoutSeconds": "1000", "SummarizeTimeoutSeconds": "2000"}
    for name, parameter in JOBS.items():
        limit = properties(name, **limits)["Timeout"]["AttemptDurationSeconds"]
        assert limit == limits[parameter], name


def test_the_night_is_submitted_to_its_own_queue_by_a_role_for_it():
    target = properties("NightSchedule", Night="on")["Target"]
    request = json.loads(target["Input"])
    outputs = stack.outputs()
    asked = [request["JobQueue"], request["JobDefinition"]]
    assert asked == [outputs["NightQueue"], outputs["SummarizeJobDefinition"]]
    rights = {a: s["Resource"] for s in stack.policy("SchedulerRole") for a in s["Action"]}
    assert rights.pop("batch:SubmitJob") == asked
    assert rights == {"sqs:SendMessage": [target["DeadLetterConfig"]["Arn"]]}


def test_a_submission_that_fails_is_tried_again_for_an_hour():
    retries = properties("NightSchedule", Night="on")["Target"]["RetryPolicy"]
    assert retries["MaximumRetryAttempts"] >= 10
    assert retries["MaximumEventAgeInSeconds"] == 3600


def test_the_bucket_refuses_requests_without_tls():
    (statement,) = properties("BucketPolicy")["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Action"] == "s3:*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    bucket = f"arn:aws:s3:::{stack.outputs()['Bucket']}"
    assert statement["Resource"] == [bucket, f"{bucket}/*"]


def test_the_bucket_is_private_encrypted_and_versioned():
    bucket = properties("Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]


def test_images_are_scanned_and_their_tags_never_move():
    repository = properties("Repository")
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["ImageTagMutability"] == "IMMUTABLE"
