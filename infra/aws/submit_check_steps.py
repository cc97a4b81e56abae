"""The steps of `make submit-check`, on a stack of the check's own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deploy
import push
from submit_check_removal import bucket, messages_queue

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "examples" / "demo"

SECONDS_BETWEEN_LOOKS = 10
MINUTES_FOR_A_MACHINE = 15  # start, and pull an image of some GB
MINUTES_FOR_A_JOB = 20
MINUTES_FOR_MESSAGES = 15  # Batch finds a blocked queue after about ten
SECONDS_BEFORE_THE_STOP = 45  # the training has begun by then, and has not ended

# Machines without GPUs, small enough for the quota of a new account. Nights and deadlines in 2099:
# the alarms must exist, and no night must start. The blocked job has waited long enough for a
# message before it is cancelled, after ten minutes.
PARAMETERS = {
    "Gpus": "0",
    "InstanceTypes": "m6i.xlarge,m6a.xlarge,m5.xlarge",
    "MaxVcpus": "4",
    "Vcpus": "2",
    "MemoryMiB": "6000",
    "SharedMemoryMiB": "64",
    "DiskGiB": "60",
    "Attempts": "3",
    "TrainTimeoutSeconds": "1800",
    "SummarizeTimeoutSeconds": "1800",
    "LogDays": "7",
    "Night": "on",
    "NightStart": "cron(0 4 1 1 ? 2099)",
    "NightDue": "cron(0 8 1 1 ? 2099)",
    "MaxWaitSeconds": "120",
}

# Where the demo's files are, and where a stack's roles can read them. In this order: the last is
# the rest of the bucket.
PLACES = {
    "s3://recap-demo/base": "s3://{bucket}/models/demo",
    "s3://recap-demo/data/conversations.jsonl": "s3://{bucket}/conversations/conversations.jsonl",
    "s3://recap-demo": "s3://{bucket}",
}
FOLDERS = {"conversations.jsonl": "conversations/", "base": "models/demo/"}  # others: data/

# Overrides of the training with which it must end at once, by the exit code.
FAILURES = {
    64: "lora.r=0",
    65: "data.train=s3://{bucket}/data/broken.jsonl",
    66: "data.train=s3://{bucket}/data/missing.jsonl",
    77: "data.train=s3://{bucket}/private/train.jsonl",
}
FILES = {"data/broken.jsonl": b"no JSON\n", "private/train.jsonl": b"{}\n"}


@dataclass(frozen=True)
class Result:
    """One thing that a step looked at: what must be found there, and what was found."""

    what: str
    wanted: str
    found: str

    @property
    def ok(self) -> bool:
        """Return True if it is as it must be."""
        return self.wanted == self.found


def start(command: Sequence[str]) -> Any:
    """Start a command in the repository, and return its process."""
    return subprocess.Popen(command, cwd=ROOT)


@dataclass
class Check:
    """A stack under a throw-away name. `sleep`, `start` and `push` are others in tests."""

    session: Any
    name: str
    tag: str
    sleep: Callable[[float], None] = time.sleep
    start: Callable[[Sequence[str]], Any] = start
    build_and_push: Callable[..., None] = push.push
    expected: dict[str, str] = field(default_factory=dict)  # texts of messages, by their cause

    def deploy(self) -> list[Result]:
        """Create both stacks."""
        values = PARAMETERS | {"ImageTag": self.tag, "BucketName": self.bucket}
        deploy.deploy(
            self.session, self.name, [f"{key}={value}" for key, value in values.items()], yes=True
        )
        return [Result("both stacks", "deployed", "deployed")]

    def subscribe(self) -> list[Result]:
        """Send what the topic of the alarms gets to a queue."""
        topic = self.outputs["Alarms"]
        sqs = self.session.client("sqs")
        url = sqs.create_queue(QueueName=messages_queue(self.name))["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        arn = attributes["Attributes"]["QueueArn"]
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        self.session.client("sns").subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=arn,
            Attributes={"RawMessageDelivery": "true"},
        )
        return []

    def push(self) -> list[Result]:
        """Build both images and push them to the stack's repository."""
        self.build_and_push(self.session, self.name, self.tag, False)
        return []

    def upload(self) -> list[Result]:
        """Upload the demo's files, its configs with the bucket's places, and broken data."""
        files = dict(FILES)
        for path in sorted(DEMO.glob("*.jsonl")):
            files[FOLDERS.get(path.name, "data/") + path.name] = path.read_bytes()
        for path in sorted((DEMO / "base").iterdir()):
            files[FOLDERS["base"] + path.name] = path.read_bytes()
        for config in ("train.yaml", "summarize.yaml"):
            text = (DEMO / config).read_text(encoding="utf-8")
            for place, own in PLACES.items():
                text = text.replace(place, own.format(bucket=self.bucket))
            files[f"configs/{config}"] = text.encode()
        s3 = self.session.client("s3")
        for key, content in files.items():
            s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return []

    def block_a_queue(self) -> list[Result]:
        """Submit a job that needs more than any machine has, to a queue that nothing else uses."""
        requirements = [{"type": "VCPU", "value": "64"}]
        overrides = {"resourceRequirements": requirements, "command": ["unused"]}
        id = self._submit("check-too-large", "NodesQueue", overrides)
        self.expected["message of a blocked queue"] = f"({id}) finds no machine"
        self.expected["message of a job that waits"] = f"({id}) has waited for a machine"
        return []

    def train(self) -> list[Result]:
        """Train through `recap submit --wait`, and stop the task once it has begun."""
        process = self._follow("train.yaml")
        try:
            id = self._until("the training runs", MINUTES_FOR_A_MACHINE, self._running_training)
            self.sleep(SECONDS_BEFORE_THE_STOP)
            self._stop_task(id)
            code = process.wait()
        finally:
            process.terminate()
        return [
            Result("training, stopped once: exit codes of its attempts", "75, 0", self._codes(id)),
            Result("training: recap submit --wait", "0", str(code)),
        ]

    def summarize(self) -> list[Result]:
        """Summarize through `recap submit --wait`, with the adapter of the training."""
        code = self._follow("summarize.yaml").wait()
        return [Result("night: recap submit --wait", "0", str(code))]

    def fail_in_each_way(self) -> list[Result]:
        """Run a training into each exit code that must not be run again."""
        ids = {}
        for code, override in FAILURES.items():
            arguments = [f"s3://{self.bucket}/configs/train.yaml"]
            for each in (f"run=check-{code}", override.format(bucket=self.bucket)):
                arguments += ["--set", each]
            ids[code] = self._submit(f"check-{code}", "Queue", {"command": arguments})
            self.expected[f"message of exit code {code}"] = f"({ids[code]}) failed"
        results = []
        for code, id in ids.items():
            self._until(f"job {id} ends", MINUTES_FOR_A_JOB, lambda id=id: self._has_ended(id))
            results.append(Result(f"exit codes of {override_of(code)}", str(code), self._codes(id)))
        return results

    def set_alarms_off(self) -> list[Result]:
        """Set each alarm that notifies somebody to ALARM by hand."""
        cloudwatch = self.session.client("cloudwatch")
        names = []
        kinds = ["MetricAlarm", "CompositeAlarm"]
        paginator = cloudwatch.get_paginator("describe_alarms")
        for page in paginator.paginate(AlarmNamePrefix=f"{self.name}-watch-", AlarmTypes=kinds):
            for alarm in [*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ())]:
                if alarm["AlarmActions"]:
                    names.append(alarm["AlarmName"])
        for name in names:
            cloudwatch.set_alarm_state(
                AlarmName=name, StateValue="ALARM", StateReason="set by recap's check"
            )
            self.expected[f"message of {name.removeprefix(self.name + '-watch-')}"] = name
        return [Result("alarms that notify somebody", "some", "some" if names else "none")]

    def await_messages(self) -> list[Result]:
        """Receive what the topic sent, until each expected message is there."""
        sqs = self.session.client("sqs")
        url = sqs.get_queue_url(QueueName=messages_queue(self.name))["QueueUrl"]
        bodies: list[str] = []
        for _ in range(_looks(MINUTES_FOR_MESSAGES)):
            found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            for message in found.get("Messages", ()):
                bodies.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if all(any(text in body for body in bodies) for text in self.expected.values()):
                break
            if not found.get("Messages"):
                self.sleep(SECONDS_BETWEEN_LOOKS)
        results = []
        for what, text in self.expected.items():
            is_there = any(text in body for body in bodies)
            results.append(Result(what, "received", "received" if is_there else "missing"))
        return results

    @property
    def bucket(self) -> str:
        """The stack's bucket."""
        return bucket(self.session, self.name)

    @property
    def outputs(self) -> Mapping[str, str]:
        """The outputs of the first stack."""
        found = deploy.find(self.session.client("cloudformation"), self.name)
        return deploy.outputs(found or {})

    def _submit(self, job: str, queue: str, overrides: Mapping[str, Any]) -> str:
        """Submit a training without `recap submit`, which would refuse it."""
        outputs = self.outputs
        submitted = self.session.client("batch").submit_job(
            jobName=job,
            jobQueue=outputs[queue],
            jobDefinition=outputs["TrainJobDefinition"],
            containerOverrides=overrides,
        )
        return str(submitted["jobId"])

    def _follow(self, config: str) -> Any:
        uri = f"s3://{self.bucket}/configs/{config}"
        options = ["--stack", self.name, "--wait"]
        return self.start([sys.executable, "-m", "job", "submit", "aws-batch", uri, *options])

    def _running_training(self) -> str | None:
        found = self.session.client("batch").list_jobs(
            jobQueue=self.outputs["Queue"], jobStatus="RUNNING"
        )["jobSummaryList"]
        return next((job["jobId"] for job in found if job["jobName"].startswith("recap-")), None)

    def _stop_task(self, id: str) -> None:
        """Stop the job's container, as a machine that is drained does."""
        (job,) = self.session.client("batch").describe_jobs(jobs=[id])["jobs"]
        task = job["container"]["taskArn"]
        cluster = task.split("/")[1]  # arn:…:task/CLUSTER/ID
        self.session.client("ecs").stop_task(cluster=cluster, task=task, reason="recap's check")

    def _has_ended(self, id: str) -> bool:
        (job,) = self.session.client("batch").describe_jobs(jobs=[id])["jobs"]
        return job["status"] in ("SUCCEEDED", "FAILED")

    def _codes(self, id: str) -> str:
        """Return the exit codes of the job's attempts."""
        (job,) = self.session.client("batch").describe_jobs(jobs=[id])["jobs"]
        codes = [attempt["container"].get("exitCode", "none") for attempt in job["attempts"]]
        return ", ".join(map(str, codes))

    def _until(self, what: str, minutes: int, condition: Callable[[], Any]) -> Any:
        """Return the first true value of the condition. Raise TimeoutError if there is none."""
        for _ in range(_looks(minutes)):
            if found := condition():
                return found
            self.sleep(SECONDS_BETWEEN_LOOKS)
        raise TimeoutError(f"after {minutes} minutes, still not: {what}")


def override_of(code: int) -> str:
    """Return how a failure was provoked, without the bucket."""
    return FAILURES[code].replace("s3://{bucket}/", "")


def _looks(minutes: int) -> int:
    return minutes * 60 // SECONDS_BETWEEN_LOOKS
