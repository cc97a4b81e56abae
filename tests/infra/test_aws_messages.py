"""Claims about the messages that single jobs send: of which events, and what they say."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from job.errors import ExitCode
from job.submit.aws_batch import BY_HAND
from tests.infra import stack
from tests.infra.eventbridge import execute, is_matched, message
from tests.infra.requests import Request

RULES = ["JobFailed", "QueueBlocked", "JobWaits"]
QUEUES = {name: arn for name, arn in stack.outputs().items() if name.endswith("Queue")}
JOB = "4c7599ae-0a82-49aa-ba5a-4727fcce14a8"
BLOCKED = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested"


def event(kind: str, **detail: Any) -> dict[str, Any]:
    """An event of Batch, as its user guide shows them: the fields that a DescribeJobs has."""
    arn = f"arn:aws:batch:us-east-1:{stack.ACCOUNT}:job/{JOB}"
    known = {"jobArn": arn, "jobName": "recap-night", "jobId": JOB, "jobQueue": QUEUES["Queue"]}
    return {
        "source": "aws.batch",
        "detail-type": kind,
        "account": stack.ACCOUNT,
        "region": stack.REGION,
        "resources": [arn],
        "detail": known | detail,
    }


def failed(**detail: Any) -> dict[str, Any]:
    return event("Batch Job State Change", status="FAILED", **detail)


def takers(of: dict[str, Any]) -> list[str]:
    found = stack.watching()
    return [name for name in RULES if is_matched(found[name]["Properties"]["EventPattern"], of)]


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_of_the_stack_is_watched(queue):
    where = {"jobQueue": QUEUES[queue]}
    assert takers(failed(**where)) == ["JobFailed"]
    blocked = event("Batch Job Queue Blocked", status="RUNNABLE", statusReason=BLOCKED, **where)
    assert takers(blocked) == ["QueueBlocked"]
    assert takers(event("Batch Job State Change", status="RUNNABLE", **where)) == ["JobWaits"]


def test_other_events_send_nothing():
    others = {"jobQueue": f"arn:aws:batch:us-east-1:{stack.ACCOUNT}:job-queue/of-others"}
    assert takers(failed(**others)) == []
    assert takers(event("Batch Job Queue Blocked", status="RUNNABLE", **others)) == []
    for status in ("SUBMITTED", "PENDING", "STARTING", "RUNNING", "SUCCEEDED"):
        assert takers(event("Batch Job State Change", status=status)) == []


def test_a_job_that_a_person_stops_sends_nothing():
    assert takers(failed(statusReason=BY_HAND)) == []
    assert takers(failed(statusReason="Essential container in task exited")) == ["JobFailed"]
    assert takers(failed()) == ["JobFailed"]


def test_an_array_sends_one_message():
    assert takers(failed(arrayProperties={"size": 4})) == ["JobFailed"]
    assert takers(failed(arrayProperties={"index": 0})) == []


def test_each_worker_of_an_array_that_waits_is_looked_at():
    for index in range(3):
        waiting = {"status": "RUNNABLE", "arrayProperties": {"index": index}}
        assert takers(event("Batch Job State Change", **waiting)) == ["JobWaits"]


def test_the_mail_of_a_failed_job_has_its_end_and_links():
    container = {"exitCode": 65, "logStreamName": "summarize/default/3"}
    reason = "Essential container in task exited"
    rule = stack.watching()["JobFailed"]
    mail = message(rule, failed(statusReason=reason, container=container))
    assert mail.startswith(
        f"recap-night ({JOB}) failed: {reason}. Exit code: 65. "
        "Log group /recap/recap, stream summarize/default/3. "
    )
    console = "https://console.aws.amazon.com"
    assert links(mail) == [
        f"{console}/cloudwatch/home?region=us-east-1"
        "#logEventViewer:group=/recap/recap;stream=summarize/default/3",
        f"{console}/batch/home?region=us-east-1#jobs/ec2/detail/{JOB}",
        f"{console}/cloudwatch/home?region=us-east-1#dashboards/dashboard/recap",
    ]


def test_the_mail_of_a_gate_that_was_not_passed_says_that_a_person_decides():
    mail = message(stack.watching()["JobFailed"], failed(container={"exitCode": ExitCode.GATE}))
    assert "Exit code: 76." in mail
    assert "the adapter is there, but did not pass its gate, or (recap watch)" in mail
    assert "and a person decides" in mail


def test_the_mail_of_several_workers_has_commands_that_list_them():
    mail = message(stack.watching()["JobFailed"], failed(arrayProperties={"size": 4}))
    commands = re.findall(r"aws batch list-jobs((?: --[a-z-]+ [\w-]+)+)", mail)
    asked = [dict(re.findall(r"--([a-z-]+) ([\w-]+)", options)) for options in commands]
    assert [each.pop("region") for each in asked] == [stack.REGION] * 2
    requests = [{key.replace("-", ""): value for key, value in each.items()} for each in asked]
    known = [Request("batch", "ListJobs", each).parameters() for each in requests]
    assert known == [
        {"jobStatus": "FAILED", kind: JOB} for kind in ("arrayJobId", "multiNodeJobId")
    ]


def test_the_mail_of_a_blocked_queue_has_the_reason_and_links():
    blocked = event("Batch Job Queue Blocked", status="RUNNABLE", statusReason=BLOCKED)
    mail = message(stack.watching()["QueueBlocked"], blocked)
    queue = f"blocks the queue {QUEUES['Queue']}: {BLOCKED}. "
    assert mail.startswith(f"recap-night ({JOB}) finds no machine, and {queue}")
    assert [link.partition("?")[0].rpartition(".com")[2] for link in links(mail)] == [
        "/batch/home",
        "/servicequotas/home/services/ec2/quotas",
        "/cloudwatch/home",
    ]


@pytest.mark.parametrize("name", ["JobFailed", "QueueBlocked"])
def test_a_mail_is_a_text_whatever_the_event_lacks(name):
    rule = stack.watching()[name]
    bare = {"detail": {"jobId": JOB}}
    assert JOB in message(rule, bare)
    assert "<" not in message(rule, bare)
    paths = rule["Properties"]["Targets"][0]["InputTransformer"]["InputPathsMap"]
    template = rule["Properties"]["Targets"][0]["InputTransformer"]["InputTemplate"]
    assert set(re.findall(r"<(\w+)>", template)) == set(paths), "each path is used, each name known"
    assert len(template) <= 8192


def links(text: str) -> list[str]:
    return re.findall(r"https://\S+", text)


@pytest.mark.parametrize(
    ("partition", "domain"),
    [("aws-cn", "console.amazonaws.cn"), ("aws-us-gov", "console.amazonaws-us-gov.com")],
)
def test_links_lead_to_the_console_of_the_stacks_partition(partition, domain, monkeypatch):
    monkeypatch.setitem(stack.PSEUDO, "AWS::Partition", partition)
    found = json.dumps(stack.watching(Night="on"))
    assert set(re.findall(r"https://([\w.-]+)", found)) == {domain, "sqs.us-east-1.amazonaws.com"}


RECLAIMED = {"statusReason": "Host EC2 (instance i-0) terminated.", "stoppedAt": 1}


def look(
    job: dict[str, Any], attempts_before: int = 0, failures: int = 0, **parameters: str
) -> tuple[list[int], list[dict[str, Any]]]:
    """Execute the state machine for a job that began to wait after so many attempts.

    `job` is what DescribeJobs tells later; each service fails so often before. Return the seconds
    that it waited, and the messages that it published.
    """
    watching = stack.watching(**parameters)
    definition = json.loads(watching["LookLater"]["Properties"]["DefinitionString"])
    waited, published = [], []
    failed: Counter[str] = Counter()

    def call(resource: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if resource == "wait":
            waited.append(parameters["Seconds"])
            return {}
        failed[resource] += 1
        if failed[resource] <= failures:
            raise OSError("Too Many Requests")
        if resource == "arn:aws:states:::aws-sdk:batch:describeJobs":
            asked = Request("batch", "DescribeJobs", parameters).parameters()
            assert asked == {"jobs": [JOB]}
            return {"Jobs": [{"JobName": "recap-night", "JobId": JOB} | job]}
        assert resource == "arn:aws:states:::sns:publish"
        published.append(Request("sns", "Publish", parameters).parameters())
        return {}

    attempts = [RECLAIMED] * attempts_before
    given = event("Batch Job State Change", status="RUNNABLE", attempts=attempts)
    execute(definition, given, call)
    return waited, published


@pytest.mark.parametrize("seconds", [120, 7200])
def test_a_job_that_still_waits_later_sends_a_message(seconds):
    given = {"MaxWaitSeconds": str(seconds)} if seconds != 7200 else {}
    waited, (published,) = look({"Status": "RUNNABLE", "Attempts": []}, **given)
    assert waited == [seconds]
    assert published["TopicArn"] == stack.outputs()["Alarms"]
    text = published["Message"]
    assert text.startswith(f"recap-night ({JOB}) has waited for a machine for {seconds} seconds. ")
    assert links(text)[0].endswith(f"#jobs/ec2/detail/{JOB}")


@pytest.mark.parametrize("status", ["STARTING", "RUNNING", "SUCCEEDED", "FAILED"])
def test_a_job_that_has_found_a_machine_sends_none(status):
    assert look({"Status": status, "Attempts": []}) == ([7200], [])


@pytest.mark.parametrize(
    ("before", "now", "messages"),
    [(0, 1, 0), (1, 2, 0), (0, 2, 0), (1, 1, 1), (2, 2, 1), (0, 0, 1)],
)
def test_a_job_that_ran_meanwhile_waits_anew(before, now, messages):
    job = {"Status": "RUNNABLE", "Attempts": [RECLAIMED] * now}
    assert len(look(job, attempts_before=before)[1]) == messages


def test_a_service_that_fails_for_a_while_hides_no_job_that_waits():
    assert len(look({"Status": "RUNNABLE"}, failures=5)[1]) == 1


def test_a_job_of_which_batch_tells_no_attempts_has_had_none():
    assert len(look({"Status": "RUNNABLE"})[1]) == 1


def test_the_state_machine_may_do_what_it_does():
    rights = {a: s["Resource"] for s in stack.policy("LookLaterRole") for a in s["Action"]}
    assert rights == {"batch:DescribeJobs": ["*"], "sns:Publish": [stack.outputs()["Alarms"]]}


def test_rules_send_to_the_topic_by_its_policy_and_start_the_rest_by_role():
    topic = stack.outputs()["Alarms"]
    policy = stack.resources()["AlarmsPolicy"]["Properties"]["PolicyDocument"]
    (statement,) = [
        each
        for each in policy["Statement"]
        if each["Principal"] == {"Service": "events.amazonaws.com"}
    ]
    assert (statement["Action"], statement["Resource"]) == ("sns:Publish", topic)
    # AWS: a topic's policy must not have a condition for EventBridge, nor such a target a role.
    assert "Condition" not in statement
    allowed = [where for s in stack.policy("EventsRole") for where in s["Resource"]]
    for name in RULES:
        (target,) = stack.watching()[name]["Properties"]["Targets"]
        if target["Arn"] == topic:
            assert "RoleArn" not in target
        else:
            assert target["RoleArn"].endswith(":role/EventsRole")
            assert [target["Arn"]] == allowed
