"""Remove everything that a check created, by its name alone.

Each deletion is tried although another failed, and what does not exist counts as removed. So an
interrupted removal can be run again.
"""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from job.submit.aws_batch import BY_HAND, UNDER_WAY

# Codes of the services for what does not exist.
NOT_THERE = {
    "AWS.SimpleQueueService.NonExistentQueue",
    "ClientException",  # Batch: the queue was deleted with the stack
    "NoSuchBucket",
    "QueueDoesNotExist",
    "RepositoryNotFoundException",
    "ResourceNotFoundException",
    "ValidationError",  # CloudFormation
}


def remove(session: Any, name: str) -> list[str]:
    """Remove everything of a check. Return what is left, each with the reason."""
    deletions: dict[str, Callable[[Any, str], None]] = {
        f"jobs in the queues of {name}": _stop_jobs,
        f"stack {name}-watch": _delete_watch,
        f"stack {name}": _delete_stack,
        f"repository {name}": _delete_repository,
        f"log group /recap/{name}": _delete_log_group,
        f"queue {messages_queue(name)}": _delete_messages,
        f"bucket {name}-…": _delete_bucket,
    }
    left = []
    for what, delete in deletions.items():
        try:
            delete(session, name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NOT_THERE:
                left.append(f"{what}: {error}")
        except WaiterError as error:
            reason = (error.last_response.get("Stacks") or [{}])[0].get("StackStatusReason", "")
            left.append(f"{what}: {error} {reason}".rstrip())
        except BotoCoreError as error:
            left.append(f"{what}: {error}")
    return left


def bucket(session: Any, name: str) -> str:
    """Return the name of the check's bucket: all of AWS shares these names."""
    return f"{name}-{session.client('sts').get_caller_identity()['Account']}"


def messages_queue(name: str) -> str:
    """Return the name of the queue that the alarms are sent to."""
    return f"{name}-messages"


def _stop_jobs(session: Any, name: str) -> None:
    """End what runs, so that the stack's deletion need not wait for it."""
    batch = session.client("batch")
    for page in batch.get_paginator("describe_job_queues").paginate():
        for queue in page["jobQueues"]:
            own = queue["jobQueueName"] == name or queue["jobQueueName"].startswith(f"{name}-")
            for status in UNDER_WAY if own else ():
                arguments = {"jobQueue": queue["jobQueueName"], "jobStatus": status}
                for jobs in batch.get_paginator("list_jobs").paginate(**arguments):
                    for job in jobs["jobSummaryList"]:
                        batch.terminate_job(jobId=job["jobId"], reason=BY_HAND)


def _delete_watch(session: Any, name: str) -> None:
    _delete_stack(session, f"{name}-watch")


def _delete_stack(session: Any, name: str) -> None:
    cloudformation = session.client("cloudformation")
    # By its id, a deleted stack can still be described; by its name, that is an error.
    id = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
    cloudformation.delete_stack(StackName=id)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=id, WaiterConfig={"Delay": 10, "MaxAttempts": 120}
    )


def _delete_repository(session: Any, name: str) -> None:
    session.client("ecr").delete_repository(repositoryName=name, force=True)


def _delete_log_group(session: Any, name: str) -> None:
    session.client("logs").delete_log_group(logGroupName=f"/recap/{name}")


def _delete_messages(session: Any, name: str) -> None:
    sqs = session.client("sqs")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=messages_queue(name))["QueueUrl"])


def _delete_bucket(session: Any, name: str) -> None:
    """Delete the bucket with every version, which the stack's deletion leaves."""
    s3, own = session.client("s3"), bucket(session, name)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=own):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
        if objects:
            s3.delete_objects(Bucket=own, Delete={"Objects": objects, "Quiet": True})
    s3.delete_bucket(Bucket=own)
